"""What a table of runs must hold, which values count as one level, and groups of runs with equal levels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note
from scalefit.errors import SweepError
from scalefit.vocabulary import AXES, BY_COLUMN, QUANTITIES


def group_levels(values: Any, rtol: float = 0.01) -> np.ndarray:
    """Return the level each value belongs to, so that jitter and rounding never split a group.

    The distinct values are walked in ascending order; a value v joins the group opened by f while
    v <= f (1 + rtol), else it opens the next. A level is represented by its most frequent value, the smallest one
    on a tie. NaN, infinity, zero and negative values stand for themselves.

    Examples
    --------
    >>> group_levels([0.000345, 0.0003453, 0.000345, 0.000488]).tolist()
    [0.000345, 0.000345, 0.000345, 0.000488]
    """
    values = np.array(values, dtype=float)
    usable = np.isfinite(values) & (values > 0)
    distinct, inverse, counts = np.unique(values[usable], return_inverse=True, return_counts=True)
    with np.errstate(over="ignore"):
        following = np.searchsorted(distinct, distinct * (1 + rtol), "right")  # where a level opened here ends
    starts, at = [], 0
    while at < len(distinct):
        starts.append(at)
        at = int(following[at])
    group = np.searchsorted(np.array(starts, dtype=int), np.arange(len(distinct)), "right") - 1
    by_count = np.lexsort((distinct, -counts, group))  # the first of each group is its representative
    values[usable] = distinct[by_count[np.searchsorted(group[by_count], group)]][inverse]
    return values


def number_groups(*columns: np.ndarray, rows: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the first row of each group of rows with equal levels, and the number of each row's group.

    Groups ascend by the first column, then the next; what is missing is a level of its own, after all others. Without a
    column all `rows` are one group. Levels without an order raise a TypeError; `group_rows` says in which column.

    Examples
    --------
    >>> first, group = number_groups(np.array([2.0, 1.0, 2.0, 1.0]), np.array(["b", "b", "a", "b"], dtype=object))
    >>> first.tolist(), group.tolist()
    ([1, 2, 0], [2, 0, 1, 0])
    """
    group = np.zeros(len(columns[0]) if columns else rows, dtype=np.int64)
    first = np.zeros(min(len(group), 1), dtype=np.int64)
    for values in columns:
        code = _codes(values)
        _, first, group = np.unique(group * (code.max(initial=0) + 1) + code, return_index=True, return_inverse=True)
    return first, group


def _codes(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind in "biuf":
        return np.unique(values, return_inverse=True)[1]
    return pd.factorize(values, sort=True, use_na_sentinel=False)[0]  # texts cannot be compared with None


def group_rows(table: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the distinct rows of a table of levels, in ascending order, and the number of each row among them.

    Examples
    --------
    >>> keys, group = group_rows(pd.DataFrame({"params": [4e8, 1e8, 4e8], "optimizer": ["adam", "adam", "adam"]}))
    >>> keys.to_dict("records"), group.tolist()
    ([{'params': 100000000.0, 'optimizer': 'adam'}, {'params': 400000000.0, 'optimizer': 'adam'}], [1, 0, 1])
    """
    columns = {str(name): table[name].to_numpy() for name in table}
    try:
        first, group = number_groups(*columns.values(), rows=len(table))
    except TypeError:
        raise next(unordered(name, values) for name, values in columns.items() if not _can_be_ordered(values)) from None
    return table.iloc[first].reset_index(drop=True), group


def unordered(column: str, values: np.ndarray) -> SweepError:
    """Return the error about a column whose values have no order; it names their types."""
    kinds = ", ".join(sorted({type(value).__name__ for value in values}))
    return SweepError(
        f"{column}: expected numbers or texts, found values that cannot be put in order ({kinds}); turn them into "
        f"texts before the table is read: table[{column!r}].map(str)"
    )


def _can_be_ordered(values: np.ndarray) -> bool:
    try:
        _codes(values)
    except TypeError:
        return False
    return True


def count_levels(group: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return how many levels each group of rows holds; what is missing is one.

    Examples
    --------
    >>> count_levels(np.array([0, 0, 0, 1]), np.array([1e-3, 2e-3, 1e-3, 1e-3])).tolist()
    [2, 1]
    """
    code, distinct = pd.factorize(levels, use_na_sentinel=False)
    return np.bincount(np.unique(group * len(distinct) + code) // len(distinct))


def lowest_of(group: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """Return the lowest value of each of n groups of rows, without NaN; NaN where all values are.

    Examples
    --------
    >>> lowest_of(np.array([0, 0, 1]), np.array([3.0, 2.5, np.nan]), 2).tolist()
    [2.5, nan]
    """
    lowest = np.full(n, np.nan)
    np.fmin.at(lowest, group, values)
    return lowest


def near_lowest(group: np.ndarray, values: np.ndarray, n: int, excess: float) -> np.ndarray:
    """Return which rows have a value within a relative excess over the lowest of their group.

    Examples
    --------
    >>> near_lowest(np.array([0, 0, 0, 1]), np.array([3.0, 3.01, 3.2, 9.0]), 2, 0.01).tolist()
    [True, True, False, True]
    """
    return np.asarray(values <= (lowest_of(group, values, n) * (1 + excess))[group])


POSITIVE: tuple[str, ...] = ("lr", "batch", "params", "tokens", "loss", "steps", "flops", "seq_len")
"""Columns whose values must be greater than zero."""

FAR_OFF = 0.5
"""Nats above the best run of its cell from which a run is noted as far from tuned."""

ROW_NOTES = ("diverged", "repeats", "far_off")
"""Codes of the notes of `notes_on_rows`, which are written anew for every subset of a sweep."""


def refuse(
    name: str, expected: str, values: np.ndarray, bad: np.ndarray, where: Callable[[int], str], fix: str
) -> None:
    """Raise a `SweepError` that counts the bad values, shows the first, names its row, and says what to do."""
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        shown = "missing or NaN" if np.isnan(values[row]) else f"{values[row]:g}"
        raise SweepError(
            f"{name} should be {expected}: {int(bad.sum())} of {len(bad)} values are not, first {shown} in "
            f"{where(row)}; {fix}"
        )


def check_values(
    table: pd.DataFrame,
    where: Callable[[int], str],
    fix: Callable[[str], str],
    unknown: Mapping[str, np.ndarray],
) -> None:
    """Refuse numbers that no run can have; `unknown` marks the values of a column that need not be finite."""
    for column in map(str, table.columns):
        values = table[column].to_numpy()
        finite = np.isfinite(values)
        refuse(column, "finite", values, ~finite & ~unknown.get(column, np.False_), where, fix(column))
        if column in POSITIVE:
            remedy = "a loss in nats per token is above zero" if column == "loss" else "correct or remove these runs"
            refuse(column, "positive", values, finite & (values <= 0), where, remedy)


def check_runs(table: pd.DataFrame) -> pd.DataFrame:
    """Return a new table of runs with its columns in order and its numbers as floats, or raise a `SweepError`."""
    if "loss" not in table.columns or not any(name in table.columns for name in AXES):
        raise SweepError(
            f"a sweep needs loss and at least one of {', '.join(AXES)}; found the columns {', '.join(map(str, table))}"
        )
    if not len(table):
        raise SweepError("a sweep needs at least one run; the table has no rows")
    if not table.columns.is_unique:
        raise SweepError(f"the column {table.columns[table.columns.duplicated()][0]!r} occurs twice")
    known = [q.column for q in QUANTITIES if q.column in table.columns]
    others = [name for name in table.columns if name not in BY_COLUMN and name != "diverged"]
    result = table[[*known, *others]].reset_index(drop=True)
    diverged = table["diverged"].to_numpy(dtype=bool) if "diverged" in table.columns else np.zeros(len(table), bool)
    for name in (name for name in known if BY_COLUMN[name].numeric):
        try:
            result[name] = table[name].to_numpy(dtype=float, na_value=np.nan)
        except (TypeError, ValueError):
            found = table[name].dtype
            raise SweepError(f"{name} should be numbers, found {found}; read_sweep names the rows") from None
    result["loss"] = result["loss"].where(~diverged)
    # A column that is no axis may lack values for some runs, such as those of one file among several.
    unknown = {name: result[name].isna().to_numpy() for name in POSITIVE if name in known and name not in AXES}
    unknown["loss"] = diverged
    numbers = result[[name for name in POSITIVE if name in known]]
    check_values(numbers, lambda row: f"row {row + 1}", _complete, unknown)
    return result.assign(diverged=diverged)


def _complete(column: str) -> str:
    if column == "loss":
        return "a diverged run is marked by a true value in the column diverged"
    return "complete or remove these runs"


class Groups:
    """The levels and groups of the runs in a fixed table; each is computed once, since folds and plots ask again."""

    def __init__(self, table: pd.DataFrame, rtol: float) -> None:
        self._table, self._rtol = table, rtol
        self._levels: dict[str, np.ndarray] = {}
        self._numbered: dict[tuple[str, ...], tuple[pd.DataFrame, np.ndarray]] = {}

    def levels(self, column: str) -> np.ndarray:
        """Return the level of every run in a column."""
        if column not in self._levels:
            self._levels[column] = _levels_of(self._table[column], column, self._rtol)
        return self._levels[column]

    def distinct(self, column: str) -> np.ndarray:
        """Return the levels of a column in ascending order, without what is missing."""
        levels = self.levels(column)
        known = levels[~pd.isna(levels)]
        try:
            return np.unique(known)
        except TypeError:
            raise unordered(column, known) from None

    def number(self, columns: tuple[str, ...]) -> tuple[pd.DataFrame, np.ndarray]:
        """Return the combinations of levels that occur, and the number of every run's."""
        if columns not in self._numbered:
            levels = {name: self.levels(name) for name in columns}
            keys, group = group_rows(pd.DataFrame(levels, index=range(len(self._table))))
            group.flags.writeable = False  # read-only, since callers share it
            self._numbered[columns] = keys, group
        return self._numbered[columns]


def _levels_of(values: pd.Series, column: str, rtol: float) -> np.ndarray:
    """Return the levels of a measured quantity, the values themselves of anything that only names or counts."""
    kinds = pd.api.types
    if not kinds.is_numeric_dtype(values) or kinds.is_bool_dtype(values) or kinds.is_complex_dtype(values):
        return values.to_numpy(dtype=object)
    numbers = values.to_numpy(dtype=float, na_value=np.nan)
    finite = numbers[np.isfinite(numbers)]
    counted = column not in BY_COLUMN and bool(np.all(finite == np.round(finite)))
    return numbers if column == "seed" or counted else group_levels(numbers, rtol)


def notes_on_rows(table: pd.DataFrame, levels: Mapping[str, np.ndarray]) -> list[Note]:
    """Return notes on diverged, repeated and far-off runs, given the level of every run along each axis."""
    notes = []
    diverged, loss = table["diverged"].to_numpy(), table["loss"].to_numpy()
    if diverged.any():
        text = f"{int(diverged.sum())} of {len(table)} runs have no finite loss; kept and marked as diverged"
        notes.append(Note("diverged", text, caution=True))
    if repeated := len(table) - len(number_groups(*levels.values())[0]):
        text = f"{repeated} of {len(table)} runs repeat the {', '.join(levels)} of another run; all are kept"
        notes.append(Note("repeats", text))
    by = [levels[name] for name in ("params", "tokens") if name in levels]
    first, cell = number_groups(*by, rows=len(table))
    if far := int((loss - lowest_of(cell, loss, len(first))[cell] > FAR_OFF).sum()):
        where = f"over {FAR_OFF} nats above the best of their cell"
        text = f"{far} of {len(table)} runs lie {where}: diverged or far from tuned; all are kept"
        notes.append(Note("far_off", text))
    return notes
