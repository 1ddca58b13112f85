"""The basin's shape, shared by all cells, and every cell's own floor and centre, fitted to all runs together."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from scalefit._levels import group_rows, number_groups
from scalefit.optima.basin_shape import BasinShape
from scalefit.solvers.losses import SoftL1
from scalefit.sweep import Sweep

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Runs:
    """The runs of a sweep as arrays; cells with fewer runs than the largest are filled up with runs of weight zero.

    Parameters
    ----------
    settings : ndarray (axes, cells, n)
        Log lr, and log batch where it varies.
    excess : ndarray (cells, n)
        Loss over the cell's lowest, minus one.
    weight : ndarray (cells, n)
    lowest : ndarray (cells,)
        Lowest loss.
    keys : pandas.DataFrame
        params and tokens of every cell.
    window : float
        Excess at which a run's weight has fallen to a quarter.
    """

    settings: Array
    excess: Array
    weight: Array
    lowest: Array
    keys: pd.DataFrame
    window: float

    @property
    def axes(self) -> int:
        """Number of settings searched: 1 or 2."""
        return len(self.settings)

    @property
    def there(self) -> Array:
        """Which entries are runs (cells, n)."""
        return self.weight > 0


NARROW, WIDE = 0.0225, 0.2
"""Between which the window is chosen."""

_PER_AXIS = 2.0
"""Runs, counted by weight, that the typical cell must keep for each axis to show its basin."""


def arrange(sweep: Sweep, window: float | None) -> Runs:
    """Lay a sweep out as `Runs`; the batch is an axis where some cell has three levels of it or more.

    A run with relative excess e over the cell's best counts (1 + (e/window)**1.5)**-2: a quarter at the window, a
    thousandth at ten windows. Diverged runs are left out. Without a window, the narrowest is taken that leaves the
    typical cell two runs' worth an axis, or half its runs where it has fewer than that.
    """
    names = [name for name in ("params", "tokens") if name in sweep.columns]
    sweep.require("lr", "loss", *(names or ["params"]))
    table = sweep.table
    keep = sweep.require_losses("no loss to fit a surface to")
    keys, cell = group_rows(sweep.labels(names)[keep])
    axes = ["lr"]
    if "batch" in table:
        levels, _ = number_groups(cell, sweep.labels("batch")["batch"].to_numpy()[keep])
        axes += ["batch"] if np.bincount(cell[levels]).max() > 2 else []
    settings = np.log([table[name].to_numpy(dtype=float)[keep] for name in axes])
    loss = table["loss"].to_numpy(dtype=float)[keep]
    order = np.lexsort((loss, *settings, cell))  # sums in one order, whatever the order of the table
    count = np.bincount(cell)
    place = cell[order], np.arange(len(cell)) - np.repeat(np.cumsum(count) - count, count)
    padded = np.full((1 + len(axes), len(count), count.max()), np.nan)
    padded[(slice(None), *place)] = np.concatenate([settings, loss[None]])[:, order]
    there = ~np.isnan(padded[-1])
    lowest = np.nanmin(padded[-1], axis=1)
    excess = np.where(there, padded[-1] / lowest[:, None] - 1, 0.0)
    window = _window(excess, there, len(axes)) if window is None else window
    weight = np.where(there, _weights(excess, window), 0.0)
    return Runs(np.where(there, padded[:-1], 0.0), excess, weight, lowest, keys, window)


def _weights(excess: Array, window: float) -> Array:
    return (1 + (excess / window) ** 1.5) ** -2


def _window(excess: Array, there: Array, axes: int) -> float:
    """Widen the window in steps until the typical cell keeps enough runs."""
    enough = min(_PER_AXIS * axes, 0.5 * float(np.median(there.sum(axis=1))))
    for window in np.geomspace(NARROW, WIDE, 20):
        if np.median((_weights(excess, window) * there).sum(axis=1)) >= enough:
            return float(window)
    return WIDE


_TURN = 2.5
"""Residuals, in units of the run scatter, from which they count by their absolute value."""

_LOOSE = 0.4
"""Prior standard deviation, in logs, of a cell's centre about the laws: holds the cells that say nothing."""

_TREND = 0.03
"""Prior standard deviation of a curvature's exponent; curvatures change slowly with size and data."""

_CURVATURE, _ASYMMETRY, _VALLEY = 3.0, 0.5, (0.5, 0.1, 0.1)
"""Prior standard deviations of ln A, of k, and of c, p and q: they matter where a grid says nothing."""

_FIRST_SCATTER = 3e-3
_NO_SCATTER = 1e-8
_LEAST_LEFT = 0.3
"""Smallest share of the runs near the optimum that is taken to be left for the scatter."""

_STEPS = 60
ROUNDS = 5
"""How often scatters, laws and fit are brought into line."""


@dataclass(frozen=True, eq=False)
class Problem:
    """What does not change during a fit.

    Parameters
    ----------
    runs : Runs
    basin : BasinShape
        With the trends of the curvatures as they are over cells (cells, q).
    count : ndarray (K, cells)
        How often each cell counts.
    around : ndarray (cells, axes)
        Where the centres are thought to be.
    scatter : float
        Run-to-run scatter of the relative loss.
    """

    runs: Runs
    basin: BasinShape
    count: Array
    around: Array
    scatter: float

    def __getstate__(self) -> dict[str, Any]:
        """What follows from the fields is worked out again elsewhere: it would be a third of what travels."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    @cached_property
    def spread(self) -> Array:
        """Map from the shared shape to the shape of a cell, (cells, s, q)."""
        trend, axes = self.basin.trend, self.basin.axes
        width = 2 + trend.shape[1]
        first = np.arange(axes) * width
        to = np.zeros((len(trend), 2 * axes + 3 * (axes == 2), self.basin.size))
        for a in range(axes):
            to[:, 2 * a, first[a]] = to[:, 2 * a + 1, first[a] + width - 1] = 1
            to[:, 2 * a, first[a] + 1 : first[a] + width - 1] = trend
        to[:, np.arange(2 * axes, to.shape[1]), np.arange(axes * width, self.basin.size)] = 1
        return to

    @property
    def loss(self) -> SoftL1:
        """How residuals count."""
        return SoftL1(_TURN * self.scatter)

    @cached_property
    def own_prior(self) -> Array:
        """What a squared unit of a cell's own parameters costs: floors are free."""
        return np.array([0.0, *[(self.scatter / _LOOSE) ** 2] * self.basin.axes])

    @cached_property
    def shape_prior(self) -> tuple[Array, Array]:
        """Mean of the shape before the runs speak, and what a squared unit away from it costs."""
        basin, axes = self.basin, self.basin.axes
        width = 2 + basin.trend.shape[1]
        mean, spread = typical_shape(self.runs, basin), np.full(basin.size, _TREND)
        spread[np.arange(axes) * width] = _CURVATURE
        spread[np.arange(axes) * width + width - 1] = _ASYMMETRY
        spread[axes * width :] = _VALLEY[: basin.size - axes * width]
        return mean, (self.scatter / spread) ** 2


@dataclass(frozen=True, eq=False)
class State:
    """Parameters of K fits, and where they leave the runs; made by `evaluate`.

    Parameters
    ----------
    own : ndarray (K, cells, 1 + axes)
        Floor, then the log of the optimum.
    shape : ndarray (K, q)
    residual : ndarray (K, cells, n)
    slopes : ndarray (K, cells, 1 + axes, n), ndarray (K, cells, q, n)
        Derivatives of the heights in own and shared parameters.
    """

    own: Array
    shape: Array
    residual: Array
    slopes: tuple[Array, Array]

    @property
    def centre(self) -> Array:
        """Log of the optima, (K, cells, axes)."""
        return self.own[..., 1:]

    def repeated(self, fits: int) -> State:
        """Return the state of a single fit as that of several."""
        parts = (self.own, self.shape, self.residual, *self.slopes)
        own, shape, residual, *slopes = (np.repeat(part, fits, axis=0) for part in parts)
        return State(own, shape, residual, (slopes[0], slopes[1]))

    def where(self, taken: Array, other: State) -> State:
        """Return this state for the fits in `taken`, and another for the rest."""
        if taken.all():
            return self

        def choose(one: Array, two: Array) -> Array:
            return np.where(taken.reshape(-1, *[1] * (one.ndim - 1)), one, two)

        slopes = (choose(self.slopes[0], other.slopes[0]), choose(self.slopes[1], other.slopes[1]))
        own, shape = choose(self.own, other.own), choose(self.shape, other.shape)
        return State(own, shape, choose(self.residual, other.residual), slopes)


@dataclass(frozen=True, eq=False)
class _Equations:
    """Normal equations: blocks of the cells' own parameters, of the shared ones, and between them."""

    own: Array  # (K, cells, m, m)
    cross: Array  # (K, cells, m, q)
    shared: Array  # (K, q, q), summed over cells
    downhill: tuple[Array, Array]  # (K, cells, m), (K, q)
    count: Array

    def remainder(self, response: Array, shared: Array) -> Array:
        return shared - np.einsum("kc,kcms,kcmt->kst", self.count, self.cross, response)

    def solve(self, damping: Array) -> tuple[Array, Array]:
        """Return the damped step."""
        factor = damping[:, None, None]
        own = self.own * (1 + factor[..., None] * np.eye(self.own.shape[-1]))
        shared = self.shared * (1 + factor * np.eye(self.shared.shape[-1]))
        forward = np.linalg.solve(own, self.downhill[0][..., None])[..., 0]
        response = np.linalg.solve(own, self.cross)
        right = self.downhill[1] - np.einsum("kc,kcms,kcm->ks", self.count, self.cross, forward)
        step = np.linalg.solve(self.remainder(response, shared), right[..., None])[..., 0]
        return forward - np.einsum("kcms,ks->kcm", response, step), step


def evaluate(problem: Problem, own: Array, shape: Array) -> State:
    """Return the state with these parameters."""
    runs, axes = problem.runs, problem.basin.axes
    spread = problem.spread
    shapes = np.einsum("csq,kq->kcs", spread, shape)
    shapes[..., 2 * np.arange(axes)] -= np.log(runs.lowest)[:, None]
    offsets = np.moveaxis(own[..., 1:], -1, 0)[..., None]
    offsets = np.where(runs.there, runs.settings[:, None] - offsets, 0.0)
    fits, cells, n = offsets.shape[1:]
    one = BasinShape(np.empty((n, 0)), axes)
    height, gradient, inner = one(shapes.reshape(fits * cells, -1), offsets.reshape(axes, fits * cells, n))
    in_own = np.concatenate([np.ones_like(height)[:, None], -gradient.transpose(1, 0, 2)], axis=1)
    in_shape = spread.transpose(0, 2, 1) @ inner.reshape(fits, cells, -1, n)
    residual = runs.excess - own[..., :1] - height.reshape(fits, cells, n)
    return State(own, shape, residual, (in_own.reshape(fits, cells, -1, n), in_shape))


def _away(problem: Problem, state: State) -> tuple[Array, Array]:
    own = state.own.copy()
    own[..., 0] = 0.0
    own[..., 1:] -= problem.around
    return own, state.shape - problem.shape_prior[0]


def _cost(problem: Problem, state: State) -> Array:
    rows = (problem.runs.weight * problem.loss.value(state.residual)).sum(axis=2)
    own, shared = _away(problem, state)
    rows = rows + (problem.own_prior * own**2).sum(axis=2) / 2
    return (problem.count * rows).sum(axis=1) + (problem.shape_prior[1] * shared**2).sum(axis=1) / 2


def equations(problem: Problem, state: State) -> _Equations:
    """Return the reweighted normal equations of K fits."""
    residual, (own, shared) = state.residual, state.slopes
    weight = problem.runs.weight * problem.loss.weight(residual)
    away_own, away_shared = _away(problem, state)
    weighted = own * weight[:, :, None]
    pulled = (weight * residual)[..., None]
    prior, (_, shape_prior) = problem.own_prior, problem.shape_prior
    counted = shared * (problem.count[..., None] * weight)[:, :, None]
    return _Equations(
        own=weighted @ own.swapaxes(2, 3) + np.diag(prior),
        cross=weighted @ shared.swapaxes(2, 3),
        shared=(counted @ shared.swapaxes(2, 3)).sum(axis=1) + np.diag(shape_prior),
        downhill=(
            (own @ pulled)[..., 0] - prior * away_own,
            np.einsum("kc,kcq->kq", problem.count, (shared @ pulled)[..., 0]) - shape_prior * away_shared,
        ),
        count=problem.count,
    )


def descend(problem: Problem, state: State) -> tuple[State, Array]:
    """Go to the minimum by Levenberg and Marquardt's method; say which fits reached it."""
    fits = len(state.shape)
    damping, cost = np.full(fits, 1e-3), _cost(problem, state)
    settled = np.zeros(fits, dtype=bool)
    for _ in range(_STEPS):
        trial = evaluate(problem, *_stepped(state, equations(problem, state).solve(damping)))
        reached = _cost(problem, trial)
        better = reached <= cost
        settled |= (better & (cost - reached <= 1e-9 * cost)) | (damping > 1e8)
        state = trial.where(better, state)
        cost = np.where(better, reached, cost)
        damping = np.where(better, np.maximum(damping / 8, 1e-10), damping * 8)
        if settled.all():
            break
    return state, settled


def _stepped(state: State, step: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return own and shared parameters after a step, none longer than 0.7 in a log; floors are free."""
    own, shared = step
    longest = np.maximum(np.abs(own[..., 1:]).max(axis=2) / 0.7, 1.0)[..., None]
    shortened = shared / np.maximum(np.abs(shared).max(axis=1) / 0.7, 1.0)[:, None]
    return state.own + own / longest, state.shape + shortened


def typical_shape(runs: Runs, basin: BasinShape) -> Array:
    """Return the shape to begin with, its curvatures in units of the loss."""
    shape = basin.start
    shape[np.arange(basin.axes) * (2 + basin.trend.shape[1])] += np.log(runs.lowest).mean()
    return shape


def begin(runs: Runs, basin: BasinShape, start: Array) -> tuple[Problem, State]:
    """Return the problem of a single fit and where it begins: centres at `start` (cells, axes), a typical shape."""
    problem = Problem(runs, basin, np.ones((1, len(runs.keys))), start, _FIRST_SCATTER)
    own = np.concatenate([np.zeros((len(start), 1)), start], axis=1)[None]
    shape = typical_shape(runs, basin)
    residual = evaluate(problem, own, shape[None]).residual[0]
    own[0, :, 0] = (runs.weight * residual).sum(axis=1) / runs.weight.sum(axis=1)
    return problem, evaluate(problem, own, shape[None])


def judge(problem: Problem, state: State) -> Problem:
    """Judge the run scatter anew, from the residuals of one fit and the parameters it took."""
    residual, own = state.residual, state.slopes[0]
    near = problem.runs.weight > 0.25
    curved = own[0] * (problem.runs.weight * near)[:, None]
    inverse = np.linalg.inv(equations(problem, state).own[0])
    taken = np.einsum("cab,cba->", inverse, curved @ own[0].swapaxes(1, 2)) + problem.basin.size
    left = max(1 - taken / near.sum(), _LEAST_LEFT)
    scatter = 1.4826 * float(np.median(np.abs(residual[0][near]))) / np.sqrt(left)
    return replace(problem, scatter=max(scatter, _NO_SCATTER))
