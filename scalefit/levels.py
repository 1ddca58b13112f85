"""Values that are one level of a sweep although they are not written alike: jitter, rounding, two spellings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def group_levels(values: Any, rtol: float = 0.01) -> np.ndarray:
    """Return the level each value belongs to, so that jitter and rounding never split a group.

    The distinct values are walked in ascending order; a value v joins the group opened by f while
    v <= f (1 + rtol), else it opens the next. A level is represented by its most frequent value, the smallest one
    on a tie.

    Parameters
    ----------
    values : array_like, shape (n,)
        Any numbers. NaN, infinity, zero and negative values stand for themselves.
    rtol : float
        Relative width of a level.

    Returns
    -------
    numpy.ndarray, shape (n,)
        The representative of each value's level; the order of the values does not matter.

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


def number_groups(*columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the groups of rows that are equal in every column, in ascending order of the first column, then the next.

    Parameters
    ----------
    *columns : ndarray, shape (n,)
        Levels. What is missing is a level of its own, after all others.

    Returns
    -------
    first : numpy.ndarray of int
        Where each group is met first.
    group : numpy.ndarray of int, shape (n,)
        The number of each row's group.

    Examples
    --------
    >>> first, group = number_groups(np.array([2.0, 1.0, 2.0, 1.0]), np.array(["b", "b", "a", "b"], dtype=object))
    >>> first.tolist(), group.tolist()
    ([1, 2, 0], [2, 0, 1, 0])
    """
    group = np.zeros(len(columns[0]), dtype=np.int64)
    first = group[:1]
    for values in columns:
        code = _codes(values)
        _, first, group = np.unique(group * (code.max(initial=0) + 1) + code, return_index=True, return_inverse=True)
    return first, group


def _codes(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind in "biuf":
        return np.unique(values, return_inverse=True)[1]
    return pd.factorize(values, sort=True, use_na_sentinel=False)[0]  # texts and None among them cannot be compared
