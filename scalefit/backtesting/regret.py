"""What a predicted setting would have cost: loss interpolated over the runs of a cell, over the cell's best run."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scalefit.errors import SweepError
from scalefit.optima.cells import Floats, pad, repeats, some
from scalefit.optima.local_fit import noise_scale
from scalefit.schema import count_levels
from scalefit.sweep import Sweep

Bools = NDArray[np.bool_]

DRAWS = 400
"""Simulated repetitions of a cell's noise behind a standard error."""
# On coarse grids the standard error is too large, since what the local fit misses counts as noise: docs/backtest.md.

TILT = 0.01
"""Stretch along the rising diagonal before triangulating, which settles the diagonals of a rectangular grid."""
# A triangulation may split a rectangle along either diagonal, and rounding or the order of the rows would decide which
# (docs/backtest.md has what that does to a regret). After stretching it is always the diagonal along which the batch
# falls as lr rises. It runs across the usual valley, so the interpolated loss is rather too high than too low.

_CLOSE = 1e-9  # in logs: a point this close to a border counts as on it


@dataclass(frozen=True, eq=False)
class Regrets:
    """The regret of points in one cell as a share of the loss, its simulated repetitions, and three flags.

    A flag says that the value is a lower bound: the point lay outside the range of an axis and was moved to its end,
    or outside the hull of the runs and was moved to its nearest place, or a diverged run takes part.
    """

    value: Floats
    stderr: Floats
    draws: Floats
    clipped: Bools
    off_hull: Bools
    beside_diverged: Bools


@dataclass(frozen=True, eq=False)
class CellRuns:
    """The runs of one cell, over which a regret is interpolated: logs of their settings and losses, NaN if diverged.

    `noise` is the standard deviation of a loss, NaN if unknown; settings within `rtol` are one place, where losses are
    averaged.

    Examples
    --------
    >>> runs = CellRuns(np.log([[1e-3], [2e-3], [4e-3]]), np.array([3.03, 3.0, 3.06]), noise=0.0)
    >>> (100 * runs.regret(np.log([[2**0.5 * 1e-3]])).value).round(6).tolist()
    [0.5]
    """

    x: Floats
    loss: Floats
    noise: float
    rtol: float = 0.01
    seed: int = 0
    place: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        order = np.lexsort((self.loss, *self.x.T[::-1]))
        object.__setattr__(self, "x", self.x[order])
        object.__setattr__(self, "loss", self.loss[order])
        object.__setattr__(self, "place", repeats(np.zeros(len(order), dtype=np.int64), self.x, self.rtol))

    def regret(self, points: Floats, draws: int = DRAWS) -> Regrets:
        r"""Return the regret of points, given as natural logs, shape (points, axes).

        .. math:: r = \frac{\sum_i w_i L_i}{\min_i L_i} - 1,

        with :math:`w` the barycentric weights of the point in its triangle.
        """
        n, diverged = len(points), ~np.isfinite(self.loss)
        if diverged.all():
            unknown, nowhere = np.full(n, np.nan), np.zeros(n, dtype=bool)
            return Regrets(unknown, unknown, np.full((n, draws), np.nan), nowhere, nowhere, nowhere)
        # What a diverged run cost is unknown; the highest loss of the cell is the least it can have been.
        loss = np.where(diverged, np.nanmax(self.loss), self.loss)
        weights, clipped, off_hull = self._weights(points)
        value = weights @ loss / loss.min() - 1
        # All points see the same simulated noise, so that differences between them can be judged. The best run is the
        # luckiest one: even the true optimum has a regret of the order of the noise, and the spread contains this.
        known = np.isfinite(self.noise)
        noise = np.random.default_rng(self.seed).standard_normal((draws, len(loss))) * (self.noise if known else 0.0)
        simulated = weights @ (loss + noise).T / (loss + noise).min(axis=1) - 1
        stderr = simulated.std(axis=1) if known else np.full(n, np.nan)
        return Regrets(value, stderr, simulated, clipped, off_hull, some(weights[:, diverged] > _CLOSE, axis=1))

    def _weights(self, points: Floats) -> tuple[Floats, Bools, Bools]:
        """Return the weight of each run at each point, and which points were moved into the range of the runs."""
        nodes = self.x[np.unique(self.place, return_index=True)[1]]
        inside = np.clip(points, nodes.min(axis=0), nodes.max(axis=0))
        clipped = some(np.abs(inside - points) > _CLOSE, axis=1)
        varied = np.ptp(nodes, axis=0) > np.log1p(self.rtol)
        weights, off_hull = np.full((len(points), len(nodes)), np.nan), np.zeros(len(points), dtype=bool)
        known = ~np.isnan(points).any(axis=1)
        weights[known], off_hull[known] = _interpolate(nodes[:, varied], inside[known][:, varied])
        return (weights / np.bincount(self.place))[:, self.place], clipped, off_hull


def _interpolate(nodes: Floats, points: Floats) -> tuple[Floats, Bools]:
    """Return the weights of the nodes at the points, and which points lie outside the hull of the nodes."""
    if nodes.shape[1] == 2:
        return _triangulate(nodes, points)
    weights = np.ones((len(points), len(nodes)))
    if nodes.shape[1] == 1:
        order = np.argsort(nodes[:, 0])
        hats = (np.interp(points[:, 0], nodes[order, 0], unit[order]) for unit in np.eye(len(nodes)))
        weights = np.column_stack(list(hats))
    return weights, np.zeros(len(points), dtype=bool)


def _triangulate(nodes: Floats, points: Floats) -> tuple[Floats, Bools]:
    from scipy.spatial import Delaunay, QhullError

    weights, outside = np.full((len(points), len(nodes)), np.nan), np.zeros(len(points), dtype=bool)
    tilt = np.eye(2) + TILT * (1 - np.eye(2))
    try:
        mesh = Delaunay((nodes - nodes.mean(axis=0)) @ tilt)
    except QhullError:  # all runs lie on a line, so there is no triangle
        return weights, outside
    share, triangle = _barycentric(nodes[mesh.simplices], points)
    found = share.min(axis=1) >= -_CLOSE
    weights[found] = _scatter(mesh.simplices[triangle[found]], np.clip(share[found], 0.0, 1.0), len(nodes))
    weights[~found], distance = _nearest_on_hull(nodes, mesh.convex_hull, points[~found])
    outside[~found] = distance > _CLOSE
    return weights, outside


def _barycentric(corners: Floats, points: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """Return the barycentric weights of each point in the triangle that holds it best, and that triangle."""
    # Not Delaunay.find_simplex: it calls LAPACK for every triangle, up to a second a cell on a busy machine.
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    from_corner = points[:, None] - corners[:, 0]
    area = _cross(first, second)
    area = np.where(np.abs(area) > _CLOSE**2, area, np.nan)
    b, c = _cross(from_corner, second) / area, _cross(first, from_corner) / area
    share = np.stack([1 - b - c, b, c], axis=2)
    triangle = np.nan_to_num(share.min(axis=2), nan=-np.inf).argmax(axis=1)
    return share[np.arange(len(points)), triangle], triangle


def _cross(a: Floats, b: Floats) -> Floats:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _nearest_on_hull(nodes: Floats, edges: NDArray[np.int32], points: Floats) -> tuple[Floats, Floats]:
    """Return the weights of the nodes at the place of the hull nearest to each point, and its distance."""
    start, way = nodes[edges[:, 0]], nodes[edges[:, 1]] - nodes[edges[:, 0]]
    along = np.einsum("pek,ek->pe", points[:, None] - start, way) / (way**2).sum(axis=1)
    along = np.clip(along, 0.0, 1.0)
    distance = np.linalg.norm(start + along[:, :, None] * way - points[:, None], axis=2)
    rows, best = np.arange(len(points)), distance.argmin(axis=1)
    share = along[rows, best]
    return _scatter(edges[best], np.column_stack([1 - share, share]), len(nodes)), distance[rows, best]


def _scatter(index: NDArray[np.integer], share: Floats, width: int) -> Floats:
    weights = np.zeros((len(index), width))
    np.put_along_axis(weights, index.astype(np.int64), share, axis=1)
    return weights


def cell_axes(sweep: Sweep) -> tuple[str, ...]:
    """Return the columns that tell the cells of a sweep apart: those of params and tokens that it has, at least one."""
    by = tuple(name for name in ("params", "tokens") if name in sweep.columns)
    if not by:
        sweep.require("params")
    return by


def searched_axes(sweep: Sweep) -> tuple[str, ...]:
    """Return those of lr and batch that take more than one level within some cell; raise if neither does."""
    names, by = [name for name in ("lr", "batch") if name in sweep.columns], cell_axes(sweep)
    cell, levels = sweep.group(by)[1], sweep.labels(names)
    axes = tuple(name for name in names if count_levels(cell, levels[name].to_numpy()).max() > 1)
    if not axes:
        raise SweepError(
            f"no cell of {sweep.source} has more than one level of lr or batch: there is no optimum to predict; "
            "cells are told apart by " + " and ".join(by)
        )
    return axes


def group_runs(sweep: Sweep) -> tuple[pd.DataFrame, NDArray[np.int64], tuple[CellRuns, ...]]:
    """Return the cells of a sweep in ascending order, one row each, the cell of every run, and the runs of each cell.

    The noise of a cell is estimated from the residuals of a local fit, shrunk towards that of all cells of the sweep.
    """
    table = sweep.table
    keys, cell = sweep.group(cell_axes(sweep))
    x, loss = np.log(table[list(searched_axes(sweep))].to_numpy(dtype=float)), table["loss"].to_numpy()
    noise = noise_scale(pad(cell, x, loss, len(keys), sweep.rtol))
    here = [cell == k for k in range(len(keys))]
    runs = (CellRuns(x[one], loss[one], float(noise[k]), sweep.rtol, seed=k) for k, one in enumerate(here))
    return keys, cell, tuple(runs)
