"""Fits laid side by side: proof that they saw the same rows, and those rows in one order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from scalefit.errors import FitError
from scalefit.fitting import Fit
from scalefit.levels import number_groups
from scalefit.vocabulary import column_of

Array = np.ndarray

_SAME = 1e-9
"""Relative difference below which two numbers of two fits are the same."""


@dataclass(frozen=True, eq=False)
class Matched:
    """Fits of one target to the same rows.

    Parameters
    ----------
    fits : tuple of Fit
        With their rows in one order, which does not depend on the order they were given in.
    columns : pandas.DataFrame
        Every input that any of the laws reads.
    weights : ndarray (n,)
    cells : ndarray of int (n,)
        0 .. C-1; among rows of positive weight every cell occurs.
    """

    fits: tuple[Fit, ...]
    columns: pd.DataFrame
    weights: Array
    cells: Array


def match(fits: Sequence[Fit]) -> Matched:
    """Bring fits into one order of rows, those of weight zero left aside.

    Raises
    ------
    FitError
        If they are not fits of the same target, in the same space, to the same rows with the same weights.
    """
    given = list(fits) if isinstance(fits, Sequence) else []
    if not given or not all(isinstance(fit, Fit) for fit in given):
        raise FitError(f"expected a list of fits, such as [sf.fit('lr_power', optima), ...], found {_told(fits)}")
    first = given[0]
    for other in given[1:]:
        _check_kind(first, other)
    ordered = given if all(_aligned(first, other) for other in given[1:]) else [_in_order(fit) for fit in given]
    first = ordered[0]
    for other in ordered[1:]:
        _check_rows(first, other)
    columns = {name: column for fit in ordered for name, column in fit.rows.iloc[:, :-1].items()}
    cells = number_groups(*(fit.cells for fit in ordered))[1]
    order = _order(first, cells)
    order = order[first.weights[order] > 0]
    numbers = number_groups(cells[order])[1]
    taken = tuple(_take(fit, order, numbers) for fit in ordered)
    table = pd.DataFrame({name: column.to_numpy()[order] for name, column in columns.items()}, index=range(len(order)))
    return Matched(taken, table, taken[0].weights, numbers)


def _told(fits: object) -> str:
    kinds = {type(fit).__name__ for fit in fits} if isinstance(fits, Sequence) else {type(fits).__name__}
    return "an empty list" if not kinds else ", ".join(sorted(kinds))


def _check_kind(first: Fit, other: Fit) -> None:
    ours, theirs = f"{first.law.formula!r}", f"{other.law.formula!r}"
    if column_of(first.law.target) != column_of(other.law.target):
        raise FitError(f"only fits of the same target can be compared; {ours} and {theirs} have different ones")
    if first.space != other.space:
        raise FitError(
            f"{ours} was fitted in {first.space} space and {theirs} in {other.space} space, so their errors have "
            "different units; fit both with the same space="
        )
    if first.n != other.n:
        raise FitError(
            f"only fits to the same rows can be compared: {ours} was fitted to {first.n} rows and {theirs} to "
            f"{other.n}; fit both to one table"
        )


def _check_rows(first: Fit, other: Fit) -> None:
    """Raise unless rows in the same order are the same."""
    both = f"{first.law.formula!r} and {other.law.formula!r}"
    for name in [name for name in first.rows if name in other.rows]:
        ours, theirs = first.rows[name].to_numpy(), other.rows[name].to_numpy()
        if (different := ~_close(ours, theirs)).any():
            row = int(different.argmax())
            raise FitError(
                f"only fits to the same rows can be compared: {both} differ in {name} in {int(different.sum())} of "
                f"{len(ours)} rows, for example {ours[row]:.6g} against {theirs[row]:.6g}; fit both to one table"
            )
    if not np.array_equal(first.problem.bounds, other.problem.bounds):
        raise FitError(f"{both} were fitted with different rows as bounds; fit both with the same bounds=")
    if not _close(_relative(first.weights), _relative(other.weights)).all():
        raise FitError(f"{both} were fitted with different weights; fit both with the same weights=")


def _aligned(first: Fit, other: Fit) -> bool:
    """Tell whether the rows agree as they stand."""
    shared = [name for name in first.rows if name in other.rows]
    return all(_close(first.rows[name].to_numpy(), other.rows[name].to_numpy()).all() for name in shared)


def _close(ours: Array, theirs: Array) -> Array:
    return np.isclose(ours, theirs, rtol=_SAME, atol=0.0)


def _relative(weights: Array) -> Array:
    return weights / weights.mean()


def _order(fit: Fit, cells: Array) -> Array:
    """Return an order of rows that does not depend on the order they stand in."""
    inputs = [fit.rows[name].to_numpy() for name in fit.rows]
    return np.lexsort([*inputs[:-1], fit.weights, inputs[-1], cells])


def _in_order(fit: Fit) -> Fit:
    return _take(fit, _order(fit, fit.cells), fit.cells[_order(fit, fit.cells)])


def _take(fit: Fit, order: Array, cells: Array) -> Fit:
    side = None if fit.censored is None else fit.censored[order]
    rows = fit.rows.iloc[order].reset_index(drop=True)
    return replace(fit, _rows=rows, weights=fit.weights[order], cells=cells, censored=side)
