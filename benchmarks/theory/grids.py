"""Batch sizes and learning rates that simulated training runs over."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scalefit.errors import SweepError
from theory.optimizers import Moments, Optimizer
from theory.quadratic import NoisyQuadratic

Floats = NDArray[np.float64]


def longest_rate(problem: NoisyQuadratic, optimizer: Optimizer) -> float:
    """Return the learning rate beyond which a first noiseless step raises the loss: where sweeps begin to look."""
    slope = problem.gradient(problem.start)
    moments: Moments = optimizer.prepare(slope.shape)
    direction, _ = optimizer.direction(slope, moments, step=1)
    return float(2 * (slope @ direction) / (direction @ problem.gradient(direction)))


def positive(name: str, values: ArrayLike) -> Floats:
    """Return values as a vector, all of them finite and positive."""
    array = np.atleast_1d(np.asarray(values, dtype=float))
    if array.ndim != 1 or len(array) == 0 or not (np.isfinite(array) & (array > 0)).all():
        raise SweepError(f"{name} should be one or more positive finite numbers, found {values!r}")
    return array


def rate_grid(lrs: ArrayLike, batches: int) -> Floats:
    """Return learning rates as one increasing row per batch, shape (batches, lrs)."""
    grid = np.asarray(lrs, dtype=float)
    grid = np.broadcast_to(grid, (batches, grid.shape[-1])) if grid.ndim == 1 else grid
    if grid.ndim != 2 or len(grid) != batches or grid.shape[1] < 3:
        raise SweepError(f"lrs should have shape (lrs,) or ({batches}, lrs) with three or more, found {grid.shape}")
    if not (np.isfinite(grid).all() and grid.min() > 0 and (np.diff(grid, axis=1) > 0).all()):
        raise SweepError("lrs should be positive, finite and increasing")
    return grid
