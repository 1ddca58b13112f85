"""Which cells a backtest holds out, and which it trains on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scalefit.errors import LawError, SweepError
from scalefit.laws.expressions import evaluate_condition, parse
from scalefit.sweep import Sweep
from scalefit.vocabulary import BY_SYMBOL, column_of, format_number

Bools = NDArray[np.bool_]


_PHRASE = re.compile(r"\s*(largest|rolling)(?:\s+(\w+))?\s*\Z")

_AXES = {"largest": ("params", "tokens", "both"), "rolling": ("params", "tokens")}
"""What each phrase may be followed by, as columns."""

_PHRASES = "'largest params', 'largest tokens', 'largest both', 'rolling params' or 'rolling tokens'"


@dataclass(frozen=True, eq=False)
class Fold:
    """One split of the cells.

    Parameters
    ----------
    name : str
        What was asked for, with the level where several folds come of it.
    held, trained : ndarray of bool (cells,)
        Cells scored and cells learnt from; no cell is in both.
    """

    name: str
    held: Bools
    trained: Bools


def check_holdout(text: str) -> None:
    """Raise if a text can be no holdout, whatever the sweep.

    Parameters
    ----------
    text : str
        A condition, or a phrase such as ``"largest params"``; see `scalefit.backtest`.

    Raises
    ------
    SweepError
        If it is neither.

    Examples
    --------
    >>> check_holdout("rolling D")
    >>> check_holdout("params > 1e9 and tokens > 1e10")
    >>> check_holdout("rolling both")
    Traceback (most recent call last):
    scalefit.errors.SweepError: expected 'rolling params' or 'rolling tokens', found 'rolling both'
    """
    if _read_phrase(text) is None:
        try:
            parse(text, condition=True)
        except LawError as error:
            raise _no_condition(error) from None


def _read_phrase(text: str) -> tuple[str, str] | None:
    """Return the kind of a phrase and its column, or both; None of a text that can only be a condition."""
    phrase = _PHRASE.match(text)
    if phrase is None:
        return None
    kind, name = phrase[1], column_of(phrase[2] or "")
    if name not in _AXES[kind]:
        *others, last = (f"'{kind} {axis}'" for axis in _AXES[kind])
        raise SweepError(f"expected {', '.join(others)} or {last}, found {text!r}")
    return kind, name


def _no_condition(error: LawError) -> SweepError:
    return SweepError(f"{error}. A holdout is a condition such as 'params > 1e9', or {_PHRASES}")


def folds_of(sweep: Sweep, keys: pd.DataFrame, cell: NDArray[np.int64], holdout: str | Sequence[str]) -> list[Fold]:
    """Return the folds that one or more holdouts ask for.

    Parameters
    ----------
    sweep : Sweep
    keys : pandas.DataFrame
        The cells, one row each: levels of params and tokens.
    cell : ndarray of int (runs,)
        The row of `keys` that each run belongs to.
    holdout : str or sequence of str
        See `scalefit.backtest`.

    Raises
    ------
    SweepError
        If a holdout is not one of these, splits a cell, or leaves nothing to hold out or to train on.
    """
    asked = [holdout] if isinstance(holdout, str) else list(holdout) if isinstance(holdout, Iterable) else []
    if not asked or not all(isinstance(text, str) for text in asked):
        raise SweepError(
            "holdout: expected a condition such as 'params > 1e9', 'largest params', 'rolling tokens', or a list of "
            f"these, found {holdout!r}"
        )
    for text in asked:
        check_holdout(text)
    found: dict[bytes, Fold] = {}
    for fold in (fold for text in dict.fromkeys(asked) for fold in _folds(sweep, keys, cell, text)):
        same = found.setdefault(fold.held.tobytes() + fold.trained.tobytes(), fold)
        if same is not fold:  # asked for in two ways: its cells count once
            found[same.held.tobytes() + same.trained.tobytes()] = replace(same, name=f"{same.name}, {fold.name}")
    return list(found.values())


def _folds(sweep: Sweep, keys: pd.DataFrame, cell: NDArray[np.int64], text: str) -> list[Fold]:
    phrase = _read_phrase(text)
    if phrase is None:
        held = _by_condition(sweep, keys, cell, text)
        return [_complement(text, held)]
    kind, name = phrase
    if kind == "largest" and name == "both":
        tops = [_values(keys, column, text) for column in ("params", "tokens")]
        return [_complement(text, np.any([values == values.max() for values in tops], axis=0))]
    values = _values(keys, name, text)
    if kind == "largest":
        return [_complement(text, np.asarray(values == values.max()))]
    folds = [
        Fold(f"{name} = {format_number(level)}, from smaller", values == level, values < level)
        for level in np.unique(values)
        if _can_learn(keys, values < level)
    ]
    if not folds:
        raise SweepError(
            f"{text!r}: no level of {name} has enough below it to learn from: {enough(keys)} cells, with at least two "
            f"levels of {' and '.join(_varied(keys))}; the sweep has {len(keys)} cells"
        )
    return folds


def enough(keys: pd.DataFrame) -> int:
    """Return how many training cells a rolling fold needs: twice the parameters of a law linear in logs."""
    return 2 * (1 + len(_varied(keys)))


def _varied(keys: pd.DataFrame) -> list[str]:
    return [str(name) for name in keys.columns if keys[name].nunique() > 1]


def _can_learn(keys: pd.DataFrame, trained: Bools) -> bool:
    below = keys[trained]
    return len(below) >= enough(keys) and bool((below[_varied(keys)].nunique() > 1).all())


def _values(keys: pd.DataFrame, column: str, text: str) -> NDArray[np.float64]:
    if column not in keys.columns:
        raise SweepError(f"{text!r}: expected one of {', '.join(keys.columns)}, which tell the cells apart")
    values = keys[column].to_numpy(dtype=float)
    if np.ptp(values) == 0:
        raise SweepError(f"{text!r}: all cells have {column} {format_number(values[0])}; nothing is left to train on")
    return values


def _by_condition(sweep: Sweep, keys: pd.DataFrame, cell: NDArray[np.int64], text: str) -> Bools:
    """Say which cells satisfy a condition, judged by the levels of the cells so that jitter cannot split one."""
    table = sweep.table
    columns = {str(name): table[name].to_numpy() for name in table.columns}
    columns |= {str(name): keys[name].to_numpy()[cell] for name in keys.columns}
    symbols = {symbol: columns[q.column] for symbol, q in BY_SYMBOL.items() if q.column in columns}
    try:
        runs = np.broadcast_to(evaluate_condition(text, columns | symbols), len(table))
    except LawError as error:
        raise _no_condition(error) from None
    count = np.bincount(cell, weights=runs, minlength=len(keys))
    size = np.bincount(cell, minlength=len(keys))
    if (split := (count > 0) & (count < size)).any():
        where = ", ".join(f"{name} {format_number(keys[name][split.argmax()])}" for name in keys.columns)
        raise SweepError(
            f"{text!r} holds out part of {int(split.sum())} of {len(keys)} cells (first {where}), whose other runs "
            f"would be learnt from; hold out whole cells, by {' and '.join(keys.columns)}"
        )
    return np.asarray(count == size)


def _complement(text: str, held: Bools) -> Fold:
    if held.all() or not held.any():
        what, left = ("every", "train on") if held.all() else ("no", "hold out")
        raise SweepError(f"{text!r} holds out {what} cell of {len(held)}: nothing is left to {left}")
    return Fold(text, held, ~held)
