"""Values that are one level of a sweep although written differently, and rows grouped by their levels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from scalefit.errors import SweepError


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
    """Return where each group of rows with equal levels is met first, and the number of each row's group.

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
    return pd.factorize(values, sort=True, use_na_sentinel=False)[0]  # texts and None among them cannot be compared


def group_rows(table: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the rows of a table of levels that differ, in ascending order, and which of them each row is.

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
    """Return the error that says of which kinds the values of a column are that cannot be put in order."""
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
    """Return the lowest value of each of n groups of rows; NaN counts for nothing, and is the lowest where all are.

    Examples
    --------
    >>> lowest_of(np.array([0, 0, 1]), np.array([3.0, 2.5, np.nan]), 2).tolist()
    [2.5, nan]
    """
    lowest = np.full(n, np.nan)
    np.fmin.at(lowest, group, values)
    return lowest


def near_lowest(group: np.ndarray, values: np.ndarray, n: int, excess: float) -> np.ndarray:
    """Say which rows have a value at most a relative excess over the lowest of their group.

    Examples
    --------
    >>> near_lowest(np.array([0, 0, 0, 1]), np.array([3.0, 3.01, 3.2, 9.0]), 2, 0.01).tolist()
    [True, True, False, True]
    """
    return np.asarray(values <= (lowest_of(group, values, n) * (1 + excess))[group])
