"""Which column of an export is which quantity: by usual names, by trackers' prefixes, or as the user says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from scalefit._values import Note
from scalefit.errors import SweepError
from scalefit.vocabulary import AXES, BY_COLUMN, BY_SYMBOL, QUANTITIES, column_of

Overrides = Mapping[str, str | None] | None
"""From a quantity (word or symbol) to the column that holds it, or to None where no column does."""

Names = Mapping[str, str]
"""From a quantity to the column that holds it, as found."""

SETTING, OUTCOME, EITHER = "setting", "outcome", "either"

_PREFIXES = dict.fromkeys(("config", "params", "hparams", "hyperparameters"), SETTING)
_PREFIXES |= dict.fromkeys(("summary", "metrics"), OUTCOME) | dict.fromkeys(("user_attrs", "system_attrs"), EITHER)
_NESTED = re.compile(rf"({'|'.join(_PREFIXES)})[./](.+)\Z", re.IGNORECASE | re.DOTALL)
_OPTUNA = re.compile(r"(params|user_attrs|system_attrs)_(.+)\Z", re.DOTALL)

_COUNTERS = frozenset({"step", "_step", "global_step", "epoch", "iteration", "iter"})

# States in which a run's last loss is its final loss, and the other states that trackers know.
_FINISHED = frozenset({"finished", "complete", "completed", "success", "succeeded", "done"})
_STATES = frozenset({"failed", "crashed", "killed", "running", "pending", "preempted", "scheduled"})
_STATES |= {"pruned", "fail", "waiting"}


class Name(NamedTuple):
    """The names by which a column may be recognised, its role for the tracker, and whether it has a prefix."""

    leaves: tuple[str, ...]
    role: str = EITHER
    nested: bool = False


def take_apart(name: str) -> Name:
    """Split the tracker's prefix off a column name; the leaves are all that follows it, then its last component.

    Examples
    --------
    >>> take_apart("config.optimizer.lr")
    Name(leaves=('optimizer.lr', 'lr'), role='setting', nested=True)
    >>> take_apart("metrics.loss").role, take_apart("params_lr").leaves, take_apart("lr").nested
    ('outcome', ('lr',), False)
    """
    match = _NESTED.match(name) or _OPTUNA.match(name)
    if match is None:
        return Name((name,))
    role = _PREFIXES[match[1].lower()]
    rest = match[2].removesuffix(".value") if role == SETTING else match[2]  # W&B: {"lr": {"value": 0.1}}
    return Name(tuple(dict.fromkeys((rest, re.split(r"[./]", rest)[-1]))), role, True)


def _is_optuna(names: set[str]) -> bool:
    """Tell whether these are columns of Optuna's `study.trials_dataframe()`, where `value` is the objective."""
    return {"value", "number"} <= names and ("state" in names or any(name.startswith("params_") for name in names))


def notes_on_tracking(frame: pd.DataFrame, settings: pd.DataFrame, source: str) -> list[Note]:
    """Note runs that a tracker does not call finished, and rows that may be points of curves instead of runs.

    Points of curves differ in a column that counts steps, and seldom in the settings.
    """
    notes = []
    state = next((name for name in frame.columns if name.lower() in ("state", "status", "info.status")), None)
    words = [] if state is None else [str(word).rsplit(".", 1)[-1].strip().lower() for word in frame[state].dropna()]
    counts = Counter(word for word in words if word not in _FINISHED)
    if counts and set(counts) <= _STATES:
        shown = ", ".join(f"{count} {word}" for word, count in counts.items())
        text = f"{state!r} in {source} says that not every run finished ({shown}): their loss is not final"
        notes.append(Note("unfinished", f"{text}; all are kept", caution=True))
    counter = next((name for name in frame.columns if name.lower() in _COUNTERS), None)
    if counter is not None and settings.duplicated().mean() >= 0.5:
        text = f"every row of {source} counts as one run, but the column {counter!r} suggests whole loss curves"
        notes.append(Note("curves", f"{text}; if so, keep the last row of each run", caution=True))
    return notes


# A tracker's `config.loss` names a kind of loss, and its `summary.lr` is the decayed rate: neither is taken.
_ROLES = dict.fromkeys(("lr", "batch", "seq_len", "weight_decay", "seed", "optimizer", "schedule"), SETTING)
_ROLES |= dict.fromkeys(("loss", "weight_norm"), OUTCOME)
_RESERVED = frozenset(BY_COLUMN) | frozenset(BY_SYMBOL) | {"diverged", "source"}


def _plain(name: str) -> str:
    return re.sub(r"[\s\-/]+", "_", name.strip().lower())


_KNOWN = {_plain(name): q.column for q in QUANTITIES for name in (q.column, *q.aliases.split())}
_RUN_NAMES = tuple(_plain(name) for name in ("run", *BY_COLUMN["run"].aliases.split()))


def _quantity(name: str, optuna: bool) -> tuple[str | None, bool]:
    """Return the quantity of a name, and whether its prefix is one under which trackers keep that quantity."""
    if name == "value" and optuna:
        return "loss", True
    parts = take_apart(name)
    for leaf in parts.leaves:
        column = BY_SYMBOL[leaf].column if leaf in BY_SYMBOL else _KNOWN.get(_plain(leaf))
        if column == "run" and parts.nested:
            continue  # "name" at the end of config.model.name is not the name of the run
        if column is not None:
            return column, parts.role == EITHER or _ROLES.get(column, parts.role) == parts.role
    return None, False


def recognise(
    names: Sequence[str], overrides: Overrides, data_unit: str = "tokens"
) -> tuple[dict[str, str], list[Note]]:
    """Return the column of each quantity, and notes on what was read under another name or not taken for one.

    A column called as the data unit, or its singular, is read as tokens.

    Examples
    --------
    >>> recognise(["bs", "learning_rate", "val_loss", "host"], None)[0]
    {'batch': 'bs', 'lr': 'learning_rate', 'loss': 'val_loss'}
    """
    chosen = _overrides(names, overrides or {})
    counted = [name for name in names if _plain(name) in (data_unit.lower(), data_unit.lower().removesuffix("s"))]
    if data_unit != "tokens" and "tokens" not in chosen and len(counted) == 1 and counted[0] not in chosen.values():
        chosen["tokens"] = counted[0]
    candidates: dict[str, list[str]] = {}
    aside = []
    optuna = _is_optuna(set(names))
    for name in (name for name in names if name not in chosen.values()):
        column, in_place = _quantity(name, optuna)
        if column is None or column in chosen:
            continue
        if in_place:
            candidates.setdefault(column, []).append(name)
        else:
            aside.append((column, name))
    # A run may have an id and a name; no number depends on which is shown.
    candidates["run"] = sorted(candidates.get("run", ()), key=lambda name: _RUN_NAMES.index(_plain(name)))[:1]
    for column, rivals in candidates.items():
        if len(rivals) > 1:
            raise SweepError(
                f"{len(rivals)} columns could be {column} ({BY_COLUMN[column].meaning}): "
                f"{' and '.join(map(repr, rivals))}. Choose one: read_sweep(..., columns={{{column!r}: {rivals[0]!r}}})"
            )
    found = {column: name for column, name in chosen.items() if name is not None}
    found |= {column: rivals[0] for column, rivals in candidates.items() if rivals}
    return found, _notes_on_names(found, aside)


def _overrides(names: Sequence[str], overrides: Mapping[str, str | None]) -> dict[str, str | None]:
    if not isinstance(overrides, Mapping):
        raise SweepError(f"columns should be a dictionary such as {{'lr': 'my_lr'}}, found {type(overrides).__name__}")
    chosen: dict[str, str | None] = {}
    for key, name in overrides.items():
        column = column_of(str(key))
        if column not in BY_COLUMN:
            turned = f". The quantity comes first: {{{name!r}: {key!r}}}" if column_of(str(name)) in BY_COLUMN else ""
            raise SweepError(f"columns={{{key!r}: ...}} names no quantity; there are: {', '.join(BY_COLUMN)}{turned}")
        if column in chosen:
            raise SweepError(f"columns= names {column} twice")
        if name is not None and name not in names:
            raise SweepError(f"columns={{{key!r}: {name!r}}}: there is no such column; there are: {_listed(names)}")
        if name is not None and name in chosen.values():
            raise SweepError(f"columns= uses the column {name!r} for two quantities")
        chosen[column] = name
    return chosen


def _notes_on_names(found: Names, aside: Sequence[tuple[str, str]]) -> list[Note]:
    notes = []
    renamed = [f"{name!r} as {column}" for column, name in found.items() if name != column]
    if renamed:
        notes.append(Note("names", f"columns read under another name: {', '.join(renamed)}"))
    for column, name in aside:
        kept = "an outcome" if _ROLES[column] == SETTING else "a setting"
        remedy = f"columns={{{column!r}: {name!r}}} reads it all the same"
        text = f"{name!r} was not read as {column}, because the tracker keeps it as {kept}; {remedy}"
        notes.append(Note("names", text, caution=column not in found))
    return notes


def require_runs(found: Names, names: Sequence[str], source: str) -> None:
    """Raise a `SweepError` when the loss or every axis is missing, saying how to name them."""
    lacking = [] if "loss" in found else ["loss"]
    lacking += [] if any(name in found for name in AXES) else [f"any of {', '.join(AXES)}"]
    if not lacking:
        return
    others = [name for name in names if name not in found.values()]
    quantity = "loss" if "loss" not in found else AXES[0]
    similar = next((name for name in others if quantity in name.lower()), "<its name>")
    nested = [name for name in others if name in ("config", "summary")]
    hint = f". The column {nested[0]!r} is a dictionary as text; export it as JSON lines" if nested else ""
    raise SweepError(
        f"{source} has no column for {' nor '.join(lacking)}; recognised: {_listed(list(found.values()))}; "
        f"not recognised: {_listed(others)}. Name it: read_sweep(..., columns={{{quantity!r}: {similar!r}}}){hint}"
    )


def _listed(names: Sequence[str]) -> str:
    return shorten([repr(name) for name in names], 40, f" and {len(names) - 40} more") or "none"


def shorten(names: Sequence[str], most: int, rest: str) -> str:
    """Return names separated by commas, at most so many of them, then a text for the rest."""
    return ", ".join(names[:most]) + (rest if len(names) > most else "")


def new_names(names: Sequence[str], found: Names) -> tuple[list[str], list[Note]]:
    """Return the words for columns that are quantities, and other names for left-over columns that bear such a word."""
    words = {name: column for column, name in found.items()}
    taken = set(names)
    moved = {}
    for name in names:
        if name not in words and name in _RESERVED:
            moved[name] = "input_" + name
            while moved[name] in taken:
                moved[name] = "input_" + moved[name]
            taken.add(moved[name])
    notes = [
        Note("names", f"the input's column {name!r} was not used and is kept as {new!r}") for name, new in moved.items()
    ]
    return [words.get(name, moved.get(name, name)) for name in names], notes
