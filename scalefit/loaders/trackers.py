"""How experiment trackers name things: W&B, MLflow, Optuna and TensorBoard exports with nested columns."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

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
