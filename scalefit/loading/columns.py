"""Which column of an export is which quantity: by usual names, by how trackers name things, or by the user's word."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import pandas as pd

from scalefit._values import Note
from scalefit.errors import SweepError
from scalefit.vocabulary import AXES, BY_COLUMN, BY_SYMBOL, QUANTITIES, column_of

SETTING, OUTCOME, EITHER = "setting", "outcome", "either"

_PREFIXES = {
    "config": SETTING,
    "params": SETTING,
    "hparams": SETTING,
    "hyperparameters": SETTING,
    "summary": OUTCOME,
    "metrics": OUTCOME,
    "user_attrs": EITHER,
    "system_attrs": EITHER,
}
_NESTED = re.compile(rf"({'|'.join(_PREFIXES)})[./](.+)\Z", re.IGNORECASE | re.DOTALL)
_OPTUNA = re.compile(r"(params|user_attrs|system_attrs)_(.+)\Z", re.DOTALL)

_COUNTERS = frozenset({"step", "_step", "global_step", "epoch", "iteration", "iter"})

FINISHED = frozenset({"finished", "complete", "completed", "success", "succeeded", "done"})
"""States of a run, in lower case, after which its last loss is its final loss."""

_STATES = frozenset({"finished", "failed", "crashed", "killed", "running", "pending", "preempted", "scheduled"})
_STATES |= {"complete", "pruned", "fail", "waiting"}


@dataclass(frozen=True)
class Name:
    """A column's name taken apart.

    Parameters
    ----------
    leaf : tuple of str
        The names it may be known by: all that follows the tracker's prefix, then its last component.
    role : str
        Whether the tracker keeps settings there (`config.lr`), outcomes (`summary.loss`), or either.
    nested : bool
        Whether there was a tracker's prefix at all.
    """

    leaf: tuple[str, ...]
    role: str = EITHER
    nested: bool = False


def take_apart(name: str) -> Name:
    """Split the tracker's prefix off a column name.

    Examples
    --------
    >>> take_apart("config.optimizer.lr")
    Name(leaf=('optimizer.lr', 'lr'), role='setting', nested=True)
    >>> take_apart("metrics.loss").role, take_apart("params_lr").leaf, take_apart("lr").nested
    ('outcome', ('lr',), False)
    """
    match = _NESTED.match(name) or _OPTUNA.match(name)
    if match is None:
        return Name((name,))
    role = _PREFIXES[match[1].lower()]
    rest = match[2].removesuffix(".value") if role == SETTING else match[2]  # W&B: {"lr": {"value": 0.1}}
    return Name(tuple(dict.fromkeys((rest, re.split(r"[./]", rest)[-1]))), role, True)


def is_optuna(names: Iterable[str]) -> bool:
    """Tell whether the columns are those of Optuna's `study.trials_dataframe()`, where `value` is the objective."""
    names = set(names)
    return "value" in names and "number" in names and (any(n.startswith("params_") for n in names) or "state" in names)


def state_column(names: Iterable[str]) -> str | None:
    """Return the column in which a tracker says how a run ended, if there is one."""
    return next((name for name in names if name.lower() in ("state", "status", "info.status")), None)


def curve_column(names: Iterable[str]) -> str | None:
    """Return the column that counts steps within a run, if there is one: then rows may be points of a curve."""
    return next((name for name in names if name.lower() in _COUNTERS), None)


def unfinished(states: Iterable[object]) -> dict[str, int] | None:
    """Count the states that do not mean a finished run; None when these are not a tracker's states at all.

    Examples
    --------
    >>> unfinished(["finished", "crashed", "crashed"]), unfinished(["Texas", "Ohio"])
    ({'crashed': 2}, None)
    """
    words = [str(state).rsplit(".", 1)[-1].strip().lower() for state in states]
    if not set(words) <= FINISHED | _STATES:
        return None
    return {word: words.count(word) for word in dict.fromkeys(words) if word not in FINISHED}


_ROLES: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("lr", "batch", "seq_len", "weight_decay", "seed", "optimizer", "schedule"), SETTING)
    | dict.fromkeys(("loss", "weight_norm"), OUTCOME)
)
"""A tracker's `config.loss` names a kind of loss, its `summary.lr` is the decayed value: neither is meant."""

_RESERVED = frozenset(BY_COLUMN) | frozenset(BY_SYMBOL) | {"diverged", "source"}


def _plain(name: str) -> str:
    return re.sub(r"[\s\-/]+", "_", name.strip().lower())


_KNOWN: Mapping[str, str] = MappingProxyType(
    {_plain(name): q.column for q in QUANTITIES for name in (q.column, *q.aliases.split())}
)
_RUN_NAMES = tuple(_plain(name) for name in ("run", *BY_COLUMN["run"].aliases.split()))


def _quantity(name: str, optuna: bool) -> tuple[str | None, bool]:
    """Return the quantity a name stands for, and whether it stands where a tracker keeps such a thing."""
    if name == "value" and optuna:
        return "loss", True
    parts = take_apart(name)
    for leaf in parts.leaf:
        column = BY_SYMBOL[leaf].column if leaf in BY_SYMBOL else _KNOWN.get(_plain(leaf))
        if column == "run" and parts.nested:
            continue  # config.model.name is not the name of the run
        if column is not None:
            return column, parts.role == EITHER or _ROLES.get(column, parts.role) == parts.role
    return None, False


def recognise(
    names: Sequence[str], overrides: Mapping[str, str | None] | None, data_unit: str = "tokens"
) -> tuple[dict[str, str], list[Note]]:
    """Find the column of each quantity.

    Parameters
    ----------
    names : sequence of str
        The column names of the input.
    overrides : mapping of str to str or None
        From quantity (word or symbol) to the column that holds it; None means that no column does.
    data_unit : str
        A column of this name, or of its singular, is read as tokens.

    Returns
    -------
    dict of str to str
        From quantity to column name.
    list of Note
        What was read under another name, and what looked like a quantity but was not taken.

    Raises
    ------
    SweepError
        If two columns could be one quantity, or an override names something that is not there.

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
    optuna = is_optuna(names)
    for name in (name for name in names if name not in chosen.values()):
        column, in_place = _quantity(name, optuna)
        if column is None or column in chosen:
            continue
        if in_place:
            candidates.setdefault(column, []).append(name)
        else:
            aside.append((column, name))
    if len(candidates.get("run", ())) > 1:  # ids and names of one run; no number hangs on which is shown
        candidates["run"].sort(key=lambda name: _RUN_NAMES.index(_plain(name)))
        del candidates["run"][1:]
    for column, rivals in candidates.items():
        if len(rivals) > 1:
            raise SweepError(_ambiguous(column, rivals))
    found = {column: name for column, name in chosen.items() if name is not None}
    found |= {column: rivals[0] for column, rivals in candidates.items()}
    return found, _explain(found, aside)


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


def _ambiguous(column: str, rivals: Sequence[str]) -> str:
    shown = " and ".join(repr(name) for name in rivals)
    return (
        f"{len(rivals)} columns could be {column} ({BY_COLUMN[column].meaning}): {shown}. "
        f"Choose one: read_sweep(..., columns={{{column!r}: {rivals[0]!r}}})"
    )


def _explain(found: Mapping[str, str], aside: Sequence[tuple[str, str]]) -> list[Note]:
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


def missing(found: Mapping[str, str], names: Sequence[str], source: str) -> str | None:
    """Return what to say when the loss or every axis is missing, or None if the table suffices."""
    lacking = [] if "loss" in found else ["loss"]
    lacking += [] if any(name in found for name in AXES) else [f"any of {', '.join(AXES)}"]
    if not lacking:
        return None
    others = [name for name in names if name not in found.values()]
    quantity = "loss" if "loss" not in found else AXES[0]
    similar = [name for name in others if quantity in name.lower()]
    example = f"columns={{{quantity!r}: {(similar[0] if similar else '<its name>')!r}}}"
    nested = [name for name in others if name in ("config", "summary")]
    hint = f". The column {nested[0]!r} is a dictionary as text; export it as JSON lines" if nested else ""
    return (
        f"{source} has no column for {' nor '.join(lacking)}; recognised: {_listed(list(found.values()))}; "
        f"not recognised: {_listed(others)}. Name it: read_sweep(..., {example}){hint}"
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:40]) or "none"
    return shown if len(names) <= 40 else f"{shown} and {len(names) - 40} more"


def rename(frame: pd.DataFrame, found: Mapping[str, str]) -> tuple[pd.DataFrame, list[Note]]:
    """Give the quantities their words; a left-over column that bears a word or a symbol gets ``input_`` in front."""
    words = {name: column for column, name in found.items()}
    taken = set(frame.columns)
    moved = {}
    for name in frame.columns:
        if name not in words and name in _RESERVED:
            moved[name] = "input_" + name
            while moved[name] in taken:
                moved[name] = "input_" + moved[name]
            taken.add(moved[name])
    notes = [
        Note("names", f"the input's column {name!r} was not used and is kept as {new!r}") for name, new in moved.items()
    ]
    return frame.set_axis([words.get(name, moved.get(name, name)) for name in frame.columns], axis=1), notes
