"""Cells of runs as padded arrays, and what every way of reading their optima gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scalefit._values import Note

Floats = NDArray[np.float64]

STATUSES = ("interior", "edge", "flat", "too_few")
"""What can be said of an optimum, best first."""

MIN_LEVELS = 3
"""Levels of an axis, with a loss, below which no optimum is read off."""


def every(mask: NDArray[np.bool_], axis: int | tuple[int, ...]) -> NDArray[np.bool_]:
    """Reduce a mask by "and"."""
    return np.asarray(mask.all(axis=axis))


def some(mask: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Reduce a mask by "or"."""
    return np.asarray(mask.any(axis=axis))


@dataclass(frozen=True, eq=False)
class Block:
    """All cells of a sweep, padded to the same number of runs.

    Parameters
    ----------
    x : ndarray, shape (cells, runs, axes)
        Natural logs of the coordinates searched over; NaN where there is no run.
    loss : ndarray, shape (cells, runs)
        Losses in nats per token; NaN where the run diverged or there is no run.
    rtol : float
        Coordinates within this relative distance of each other are one level.

    Notes
    -----
    A diverged run has a place but no loss. It is never an optimum, but it bounds its axis: the best run beside
    it has a worse neighbour on that side, so it does not stand at an open edge.
    """

    x: Floats
    loss: Floats
    rtol: float = 0.01

    @property
    def present(self) -> NDArray[np.bool_]:
        """Where there is a run, shape (cells, runs)."""
        return every(np.isfinite(self.x), axis=2)

    @property
    def finished(self) -> NDArray[np.bool_]:
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
        steps = (np.diff(x, axis=1) > self.tolerance).sum(axis=1)
        return steps + some(self.finished, axis=1)[:, None]

    def neighbours(self, point: Floats) -> tuple[Floats, Floats]:
        """Return the nearest levels below and above a point, shape (cells, axes); infinite where there is none.

        Diverged runs count as levels here.
        """
        x, tol = np.where(self.present[:, :, None], self.x, np.nan), self.tolerance
        below = np.where(x < point[:, None, :] - tol, x, -np.inf).max(axis=1)
        above = np.where(x > point[:, None, :] + tol, x, np.inf).min(axis=1)
        return below, above

    def best(self) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the place of the lowest loss, shape (cells, axes), and which cells had a tie for it.

        Equal losses at several places give the middle of their range in logs: the order of rows never decides.
        """
        low, high = self.extent(self.excess <= 1e-12)
        return (low + high) / 2, some((high - low) > self.tolerance, axis=1)

    def extent(self, chosen: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Return the extremes of the chosen runs on each axis, shape (cells, axes); NaN where none is chosen."""
        low = np.where(chosen[:, :, None], self.x, np.inf).min(axis=1)
        high = np.where(chosen[:, :, None], self.x, -np.inf).max(axis=1)
        return _finite_or_nan(low), _finite_or_nan(high)


@dataclass(frozen=True, eq=False)
class Extraction:
    """The optimum of every cell, in logs.

    Parameters
    ----------
    value, lo, hi, stderr, curvature : ndarray, shape (cells, axes)
        Log of the optimum, its bounds (infinite on an open side), its standard error (NaN where the method has
        no honest one) and the second derivative of the loss in that log (NaN where the method fits no curve).
    status : ndarray of str, shape (cells, axes)
        One of `STATUSES`.
    loss, weight : ndarray, shape (cells,)
        Loss at the optimum; how many observations the optimum counts for in a fit.
    notes : tuple of Note
        What was doubted on the way.
    """

    value: Floats
    lo: Floats
    hi: Floats
    stderr: Floats
    curvature: Floats
    status: NDArray[np.object_]
    loss: Floats
    weight: Floats
    notes: tuple[Note, ...] = field(default=())


class Extractor(Protocol):
    """What a method is: frozen settings that turn a block of cells into their optima."""

    def extract(self, block: Block) -> Extraction:
        """Read the optimum of every cell of the block."""
        ...


def finish(block: Block, found: Extraction, flat: NDArray[np.bool_], edge: NDArray[np.bool_]) -> Extraction:
    """Set the statuses and withhold what they forbid.

    An edge keeps its bound as the value, with the interval open on that side; a flat or nearly empty axis has
    no value at all.
    """
    few = block.level_counts() < MIN_LEVELS
    unknown = few | flat
    status = np.select([few, flat, edge], ["too_few", "flat", "edge"], "interior").astype(object)
    dropped = unknown | edge
    return Extraction(
        value=np.where(unknown, np.nan, found.value),
        lo=np.where(unknown, -np.inf, found.lo),
        hi=np.where(unknown, np.inf, found.hi),
        stderr=np.where(dropped, np.nan, found.stderr),
        curvature=np.where(few, np.nan, found.curvature),
        status=status,
        loss=found.loss,
        weight=found.weight,
        notes=found.notes,
    )


def pad(cell: NDArray[np.int64], x: Floats, loss: Floats, n_cells: int, rtol: float = 0.01) -> Block:
    """Arrange runs into a `Block`.

    Runs are ordered by place and loss within their cell first, so that the order of rows cannot change a sum.

    Parameters
    ----------
    cell : ndarray of int, shape (runs,)
        Which cell each run belongs to, 0 to n_cells - 1.
    x : ndarray, shape (runs, axes)
        Natural logs of the coordinates.
    loss : ndarray, shape (runs,)
        Losses, NaN where diverged.
    n_cells : int
        Number of cells.
    rtol : float
        Relative width of a level.
    """
    order = np.lexsort((loss, *x.T[::-1], cell))
    cell, x, loss = cell[order], x[order], loss[order]
    counts = np.bincount(cell, minlength=n_cells)
    place = np.arange(len(cell)) - np.repeat(np.cumsum(counts) - counts, counts)
    width = int(counts.max(initial=1))
    padded_x = np.full((n_cells, width, x.shape[1]), np.nan)
    padded_loss = np.full((n_cells, width), np.nan)
    padded_x[cell, place], padded_loss[cell, place] = x, loss
    return Block(padded_x, padded_loss, rtol)


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
    count = np.bincount(place)
    done = np.isfinite(loss)
    finished = np.bincount(place[done], minlength=len(count))
    total = np.bincount(place[done], loss[done], minlength=len(count))
    mean = np.divide(total, finished, out=np.full(len(count), np.nan), where=finished > 0)
    middle = np.column_stack([np.bincount(place, column) / count for column in x.T])
    first = np.unique(place, return_index=True)[1]
    return cell[first], middle, mean


def _finite_or_nan(values: Floats) -> Floats:
    return np.where(np.isfinite(values), values, np.nan)
