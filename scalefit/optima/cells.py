"""The cells of a sweep as padded arrays, and what an optimum estimator is and gives back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scalefit._values import Note
from scalefit.display import Display
from scalefit.vocabulary import format_number

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

STATUSES = ("interior", "edge", "flat", "too_few")
"""What can be said of an optimum, best first."""

MIN_LEVELS = 3
"""Levels of an axis, with a loss, below which no optimum is estimated: two runs fix no curvature."""

# Rows that a result with one row a cell displays.
_SHOWN = 12

# Runs that are better than this by rounding alone are a tie.
_TIE = 1e-12


def some(mask: Bools, axis: int) -> Bools:
    """Reduce a mask by "or"."""
    return np.asarray(mask.any(axis=axis))


@dataclass(frozen=True, eq=False)
class Cells:
    """All cells of a sweep, padded to the same number of runs: x is (cells, runs, axes), in logs, loss (cells, runs).

    A diverged run has a place but no loss. It is never an optimum, but it bounds its axis: the best run beside it has a
    worse neighbour on that side, so it does not stand at an open edge.
    """

    x: Floats  # NaN where there is no run
    loss: Floats  # NaN where the run diverged or there is no run
    rtol: float = 0.01  # coordinates within this relative distance are one level

    @cached_property
    def present(self) -> Bools:
        """Where there is a run, shape (cells, runs)."""
        return np.asarray(np.isfinite(self.x).all(axis=2))

    @cached_property
    def finished(self) -> Bools:
        """Where there is a run with a loss, shape (cells, runs)."""
        return self.present & np.isfinite(self.loss)

    @property
    def lowest(self) -> Floats:
        """The lowest loss of each cell; NaN where no run finished."""
        return _finite_or_nan(np.where(self.finished, self.loss, np.inf).min(axis=1))

    @property
    def excess(self) -> Floats:
        """Loss over the cell's lowest, minus one; inf where there is no loss."""
        low = self.lowest[:, None]
        return np.where(self.finished, (self.loss - low) / np.abs(low), np.inf)

    @cached_property
    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The place of every run with a loss and its line along the first axis, numbered, in the array's order."""
        cell, x = np.nonzero(self.finished)[0], self.x[self.finished]
        line = cell if x.shape[1] == 1 else repeats(cell, x[:, 1:], self.rtol)
        return repeats(cell, x, self.rtol), line

    @cached_property
    def averaged(self) -> tuple[Floats, NDArray[np.int64]]:
        """The mean loss over the place of every run, and how many runs share it; NaN and 0 without a loss."""
        mean, count = np.full(self.loss.shape, np.nan), np.zeros(self.loss.shape, dtype=np.int64)
        done = self.finished
        if done.any():
            place, _ = self.places
            runs = np.bincount(place)
            mean[done], count[done] = (np.bincount(place, self.loss[done]) / runs)[place], runs[place]
        return mean, count

    def spread(self) -> Floats:
        """Return the range of the losses of each cell; inf where no run finished."""
        high = np.where(self.finished, self.loss, -np.inf).max(axis=1)
        return np.where(np.isfinite(high), high - np.nan_to_num(self.lowest), np.inf)

    @property
    def tolerance(self) -> float:
        """The relative tolerance as a distance in logs."""
        return float(np.log1p(self.rtol))

    def level_counts(self) -> NDArray[np.int64]:
        """Count the levels of each axis that have a loss, shape (cells, axes)."""
        x = np.sort(np.where(self.finished[:, :, None], self.x, np.nan), axis=1)
        return (np.diff(x, axis=1) > self.tolerance).sum(axis=1) + some(self.finished, axis=1)[:, None]

    def neighbours(self, point: Floats) -> tuple[Floats, Floats]:
        """Return the nearest levels below and above a point, diverged runs included; infinite where there is none."""
        x, tol = np.where(self.present[:, :, None], self.x, np.nan), self.tolerance
        below = np.where(x < point[:, None, :] - tol, x, -np.inf).max(axis=1)
        above = np.where(x > point[:, None, :] + tol, x, np.inf).min(axis=1)
        return below, above

    def best(self) -> tuple[Floats, Bools]:
        """Return the place of the lowest loss, shape (cells, axes), and which cells had a tie for it."""
        low, high = self.extent(self.excess <= _TIE)
        # Of tied runs the middle of their range is taken: the order of rows never decides.
        return (low + high) / 2, some((high - low) > self.tolerance, axis=1)

    def extent(self, chosen: Bools) -> tuple[Floats, Floats]:
        """Return the extremes of the chosen runs on each axis, shape (cells, axes); NaN where none is chosen."""
        low = np.where(chosen[:, :, None], self.x, np.inf).min(axis=1)
        high = np.where(chosen[:, :, None], self.x, -np.inf).max(axis=1)
        return _finite_or_nan(low), _finite_or_nan(high)


@dataclass(frozen=True, eq=False)
class Estimates:
    """The optimum of every cell, in logs: arrays (cells, axes), but `loss` and `weight`, which are (cells,)."""

    value: Floats
    lo: Floats  # infinite on an open side
    hi: Floats
    stderr: Floats  # NaN where the estimator has no honest one
    curvature: Floats  # second derivative of the loss; NaN where the estimator fits no curve
    status: NDArray[np.object_]  # one of `STATUSES`
    loss: Floats  # at the optimum
    weight: Floats  # how many observations the optimum counts for in a fit
    notes: tuple[Note, ...] = ()
    asymmetry: float | None = None  # k of the fitted curves over the first axis; None where none are fitted


class Estimator(Protocol):
    """What a method is: frozen settings that estimate the optima of all cells at once."""

    def estimate(self, cells: Cells) -> Estimates:
        """Estimate the optimum of every cell."""


def conclude(
    cells: Cells, flat: Bools, edge: Bools, *, value: Floats, lo: Floats, hi: Floats, **others: Any
) -> Estimates:
    """Set the statuses and withhold what they forbid; `others` are further fields of `Estimates`."""
    few = cells.level_counts() < MIN_LEVELS
    unknown = few | flat
    nothing = np.full(value.shape, np.nan)
    # An edge keeps its bound as the value, with the interval open on that side; its error would be that of a guess.
    return Estimates(
        value=np.where(unknown, np.nan, value),
        lo=np.where(unknown, -np.inf, lo),
        hi=np.where(unknown, np.inf, hi),
        stderr=np.where(unknown | edge, np.nan, others.pop("stderr", nothing)),
        curvature=np.where(few, np.nan, others.pop("curvature", nothing)),
        status=np.select([few, flat, edge], ["too_few", "flat", "edge"], "interior").astype(object),
        weight=others.pop("weight", np.ones(len(value))),
        **others,
    )


def pad(cell: NDArray[np.int64], x: Floats, loss: Floats, n_cells: int, rtol: float = 0.01) -> Cells:
    """Arrange runs, of the cells numbered 0 to n_cells - 1, with log coordinates x (runs, axes), as `Cells`."""
    order = np.lexsort((loss, *x.T[::-1], cell))  # sums in one order, whatever the order of the rows
    cell, x, loss = cell[order], x[order], loss[order]
    counts = np.bincount(cell, minlength=n_cells)
    place = np.arange(len(cell)) - np.repeat(np.cumsum(counts) - counts, counts)
    width = int(counts.max(initial=1))
    padded_x, padded_loss = np.full((n_cells, width, x.shape[1]), np.nan), np.full((n_cells, width), np.nan)
    padded_x[cell, place], padded_loss[cell, place] = x, loss
    return Cells(padded_x, padded_loss, rtol)


def repeats(cell: NDArray[np.int64], x: Floats, rtol: float = 0.01) -> NDArray[np.int64]:
    """Number the distinct places: runs of one cell at the same levels of all axes get the same number."""
    keys = [cell]
    for column in x.T:
        order = np.lexsort((column, cell))
        new = np.diff(column[order], prepend=-np.inf) > np.log1p(rtol)
        new |= np.diff(cell[order], prepend=-1) != 0
        level = np.empty(len(cell), dtype=np.int64)
        level[order] = np.cumsum(new)
        keys.append(level)
    return np.unique(np.column_stack(keys), axis=0, return_inverse=True)[1].reshape(-1)


def average(
    cell: NDArray[np.int64], x: Floats, loss: Floats, place: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Average the runs at each place: coordinates over all of them, losses over those that finished."""
    order = np.lexsort((loss, *x.T, place))
    cell, x, loss, place = cell[order], x[order], loss[order], place[order]
    count, done = np.bincount(place), np.isfinite(loss)
    finished = np.bincount(place[done], minlength=len(count))
    total = np.bincount(place[done], loss[done], minlength=len(count))
    mean = np.divide(total, finished, out=np.full(len(count), np.nan), where=finished > 0)
    middle = np.column_stack([np.bincount(place, column) / count for column in x.T])
    return cell[np.unique(place, return_index=True)[1]], middle, mean


def cells_face(title: str, facts: list[tuple[str, str]], table: pd.DataFrame, notes: tuple[Note, ...]) -> Display:
    """Return what a result with one row a cell displays: its first rows, and how many more there are."""
    text = table.iloc[:_SHOWN].map(
        lambda value: format_number(float(value)) if isinstance(value, int | float | np.number) else str(value)
    )
    if (more := len(table) - _SHOWN) > 0:
        notes = (*notes, Note("shown", f"{more} more cells in .table"))
    return Display(title, tuple(facts), text, notes)


def _finite_or_nan(values: Floats) -> Floats:
    return np.where(np.isfinite(values), values, np.nan)
