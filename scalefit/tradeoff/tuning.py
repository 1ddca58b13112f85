"""The best of several learning rates in each cell: the bottom of a basin and its noise, not the luckiest run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalefit.basin_shape import bend
from scalefit.extractors import Basin
from scalefit.extractors.basin import pooled_asymmetry
from scalefit.extractors.cells import Block, Floats, average, pad, repeats
from scalefit.extractors.local_fit import Quadratic, fit_quadratic
from scalefit.extractors.quadratic import read_vertices
from scalefit.levels import lowest_of

_FEW_CELLS = 3
"""Cells below which the basins' asymmetry keeps its usual value."""


@dataclass(frozen=True, eq=False)
class Bottoms:
    """The lowest value of each cell.

    Parameters
    ----------
    value, stderr : ndarray (cells,)
        At the bottom of the basin where there is one, elsewhere at the rate of the lowest mean; NaN where no run
        finished. The standard error is NaN where nothing is left to judge noise from.
    status : ndarray of str (cells,)
        That of the optimum over the learning rate: interior, edge, flat or too_few.
    count : ndarray of int (cells,)
        Runs that finished.
    """

    value: Floats
    stderr: Floats
    status: NDArray[np.object_]
    count: NDArray[np.int64]


def best_over_lr(
    cell: NDArray[Any], log_lr: Floats, value: Floats, n_cells: int, *, window: float, rtol: float = 0.01
) -> Bottoms:
    """Read the lowest value of every cell off a basin in ln lr.

    Parameters
    ----------
    cell : ndarray of int (runs,)
    log_lr, value : ndarray (runs,)
        Value is what is to be small (a loss, or data to a target), NaN where a run failed.
    n_cells : int
    window : float
        Relative excess at which a run's weight has fallen to a quarter.
    rtol : float
    """
    block = pad(np.asarray(cell, dtype=np.int64), log_lr[:, None], value, n_cells, rtol)
    basin = Basin(window=window)
    k = pooled_asymmetry(block, basin)[0] if n_cells >= _FEW_CELLS else 0.5
    fit = fit_quadratic(block, window, k)
    found = read_vertices(block, fit, basin.level, k)
    status, noise = found.status[:, 0], np.sqrt(fit.variance)
    interior = status == "interior"
    mean, scatter = _lowest_place(np.asarray(cell, dtype=np.int64), log_lr, value, n_cells, rtol)
    noise = np.where(
        interior, _bottom_stderr(fit, found.value[:, 0], k), np.where(np.isfinite(scatter), scatter, noise)
    )
    lowest = np.where(interior, found.loss, mean)
    return Bottoms(lowest, noise, status, _finished(block))


def _lowest_place(
    cell: NDArray[np.int64], log_lr: Floats, value: Floats, n_cells: int, rtol: float
) -> tuple[Floats, Floats]:
    """Return the lowest mean over the runs of one rate, and its error from how far repeated runs scatter."""
    place = repeats(cell, log_lr[:, None], rtol)
    own, _, mean = average(cell, log_lr[:, None], value, place)
    done = np.isfinite(value)
    count = np.bincount(place[done], minlength=len(mean))
    off = np.where(done, value / mean[place] - 1, 0.0)
    spare = int((count - 1)[count > 1].sum())
    relative = (off**2).sum() / spare if spare else np.nan
    lowest = lowest_of(own, mean, n_cells)
    runs = np.ones(n_cells)
    chosen = mean == lowest[own]
    runs[own[chosen]] = count[chosen]
    return lowest, lowest * np.sqrt(relative / runs)


def _bottom_stderr(fit: Quadratic, place: Floats, k: float) -> Floats:
    """Standard error of the height of the bottom; its place does not matter to first order."""
    scale = fit.scale[:, 0]
    z = np.where(np.isfinite(place), (place - fit.centre[:, 0]) / scale, 0.0)
    row = np.stack([np.ones_like(z), z, bend(z, k * scale)[0]], axis=1)
    return np.sqrt(np.maximum(np.einsum("ck,ckl,cl->c", row, fit.covariance, row), 0.0))


def _finished(block: Block) -> NDArray[np.int64]:
    return np.asarray(block.finished.sum(axis=1), dtype=np.int64)
