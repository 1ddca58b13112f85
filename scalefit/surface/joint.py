"""The joint fit of a sweep's runs: a basin whose shape all cells share, and every cell's own floor and centre.

Derivations: docs/derivations.md, "The joint surface". Arrays may hold K fits at once, to resampled cells.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from scalefit.optima.basin_shape import BasinShape, pool_noise, widen_window, window_weight
from scalefit.schema import group_rows, number_groups
from scalefit.solvers.losses import SoftL1
from scalefit.sweep import Sweep

Array = np.ndarray

# Between which the window is chosen, and the runs, counted by weight, that the typical cell must keep for each axis to
# show its basin: with twice as many the window takes in runs that the shape does not follow.
NARROW, _WIDE = 0.0225, 0.2
_PER_AXIS = 2.0

# Residuals, in units of the run scatter, from which they count by their absolute value.
_TURN = 2.5

# Prior standard deviation, in logs, of a cell's centre about the laws: holds the cells that say nothing.
_LOOSE = 0.4

# Prior standard deviations of the curvatures' exponents: of what all axes share, since losses flatten as budgets grow
# (by 0.05 to 0.35 in real sweeps), and of an axis alone. With every exponent held near zero by itself batches came out
# high at large budgets. Those of ln A, of k, and of c, p and q matter where a grid says nothing.
_SHARED_TREND, _OWN_TREND = {"params": 0.03, "tokens": 0.1}, 0.02
_CURVATURE, _ASYMMETRY, _VALLEY = 3.0, 0.5, (0.5, 0.1, 0.1)

# The run scatter to begin with, and the least: exact losses would otherwise divide by zero.
_FIRST_SCATTER, _NO_SCATTER = 3e-3, 1e-8

# Smallest share of the runs near the optimum, or of degrees of freedom, that is taken to be left by the parameters.
_LEAST_LEFT = 0.3

_STEPS = 60

# No step is longer than this in a log: beyond, exp(k u) leaves what a second-order model can foresee.
_LONGEST = 0.7

# Residuals beyond this many run scatters are drawn in when the noise of a new run is judged.
_OUTLIER = 10.0

# A cell says nothing of its noise below this many degrees of freedom.
_LEAST_DOF = 0.02


@dataclass(frozen=True, eq=False)
class Runs:
    """The runs of a sweep as arrays; cells with fewer runs than the largest are filled up with runs of weight zero."""

    settings: Array  # (axes, cells, n): log lr, and log batch where it varies
    excess: Array  # (cells, n): loss over the cell's lowest, minus one
    weight: Array  # (cells, n)
    lowest: Array  # (cells,): lowest loss
    keys: pd.DataFrame  # params and tokens of every cell
    window: float  # excess at which a run's weight has fallen to a quarter

    @property
    def axes(self) -> int:
        """Number of settings searched: 1 or 2."""
        return len(self.settings)

    @property
    def there(self) -> Array:
        """Which entries are runs (cells, n)."""
        return self.weight > 0


def arrange(sweep: Sweep, window: float | None) -> Runs:
    """Lay a sweep out as `Runs`; the batch is an axis where some cell has three levels of it or more.

    Diverged runs are left out. Without a window, the narrowest is taken that leaves the typical cell enough runs.
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
    if window is None:
        window = widen_window(excess, there, NARROW, _WIDE, _PER_AXIS * len(axes))
    weight = np.where(there, window_weight(excess, window), 0.0)
    return Runs(np.where(there, padded[:-1], 0.0), excess, weight, lowest, keys, window)


@dataclass(frozen=True, eq=False)
class Problem:
    """What does not change during a fit."""

    runs: Runs
    basin: BasinShape  # with the trends of the curvatures as they are over cells (cells, q)
    count: Array  # (K, cells): how often each cell counts
    around: Array  # (cells, axes): where the centres are thought to be
    scatter: float  # of runs, in units of the loss

    def __getstate__(self) -> dict[str, Any]:
        """What follows from the fields is worked out again elsewhere: it would be a third of what travels."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    @cached_property
    def spread(self) -> Array:
        """Map from the shared shape to the shape of a cell, (cells, s, q): the trends go into ln A."""
        basin, axes, width = self.basin, self.basin.axes, self.basin.width
        to = np.zeros((len(basin.trend), 2 * axes + 3 * (axes == 2), basin.size))
        for a in range(axes):
            to[:, 2 * a, a * width] = to[:, 2 * a + 1, (a + 1) * width - 1] = 1
            to[:, 2 * a, a * width + 1 : (a + 1) * width - 1] = basin.trend
        to[:, np.arange(2 * axes, to.shape[1]), np.arange(axes * width, basin.size)] = 1
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
    def typical_shape(self) -> Array:
        """The shape before the runs speak; heights are in units of the loss, where a basin's constants are steady."""
        shape = self.basin.start
        shape[np.arange(self.basin.axes) * self.basin.width] += np.log(self.runs.lowest).mean()
        return shape

    @cached_property
    def shape_prior(self) -> Array:
        """What being away from the typical shape costs: the matrix of a quadratic form (q, q)."""
        basin, axes = self.basin, self.basin.axes
        spread = np.full(basin.size, _OWN_TREND)
        spread[np.arange(axes) * basin.width] = _CURVATURE
        spread[(np.arange(axes) + 1) * basin.width - 1] = _ASYMMETRY
        spread[axes * basin.width :] = _VALLEY[: basin.size - axes * basin.width]
        covariance = np.diag(spread**2)
        for j, name in enumerate(self.runs.keys.columns[: basin.trend.shape[1]]):
            same = np.arange(axes) * basin.width + 1 + j
            covariance[np.ix_(same, same)] += _SHARED_TREND[name] ** 2
        return self.scatter**2 * np.linalg.inv(covariance)


@dataclass(frozen=True, eq=False)
class State:
    """Parameters of K fits, and where they leave the runs; made by `evaluate`."""

    own: Array  # (K, cells, 1 + axes): floor, then the log of the optimum
    shape: Array  # (K, q)
    residual: Array  # (K, cells, n)
    in_own: Array  # (K, cells, 1 + axes, n): derivatives of the heights
    in_shape: Array  # (K, cells, q, n)

    @property
    def centre(self) -> Array:
        """Log of the optima, (K, cells, axes)."""
        return self.own[..., 1:]

    def repeated(self, fits: int) -> State:
        """Return the state of a single fit as that of several."""
        return State(*(np.repeat(getattr(self, entry.name), fits, axis=0) for entry in fields(self)))

    def where(self, taken: Array, other: State) -> State:
        """Return this state for the fits in `taken`, and another for the rest."""
        if taken.all():
            return self
        pairs = ((getattr(self, entry.name), getattr(other, entry.name)) for entry in fields(self))
        return State(*(np.where(taken.reshape(-1, *[1] * (one.ndim - 1)), one, two) for one, two in pairs))


def evaluate(problem: Problem, own: Array, shape: Array) -> State:
    """Return the state with these parameters."""
    runs, axes, spread = problem.runs, problem.basin.axes, problem.spread
    shapes = np.einsum("csq,kq->kcs", spread, shape)
    # Residuals are relative to the cell's lowest loss, the shape is in units of the loss.
    shapes[..., 2 * np.arange(axes)] -= np.log(runs.lowest)[:, None]
    offsets = np.where(runs.there, runs.settings[:, None] - np.moveaxis(own[..., 1:], -1, 0)[..., None], 0.0)
    fits, cells, n = offsets.shape[1:]
    one = BasinShape(np.empty((n, 0)), axes)
    height, gradient, inner = one(shapes.reshape(fits * cells, -1), offsets.reshape(axes, fits * cells, n))
    in_own = np.concatenate([np.ones_like(height)[:, None], -gradient.transpose(1, 0, 2)], axis=1)
    in_shape = spread.transpose(0, 2, 1) @ inner.reshape(fits, cells, -1, n)
    residual = runs.excess - own[..., :1] - height.reshape(fits, cells, n)
    return State(own, shape, residual, in_own.reshape(fits, cells, -1, n), in_shape)


def begin(runs: Runs, basin: BasinShape, start: Array) -> tuple[Problem, State]:
    """Return the problem of a single fit and where it begins: centres at `start` (cells, axes), a typical shape."""
    problem = Problem(runs, basin, np.ones((1, len(runs.keys))), start, _FIRST_SCATTER)
    own = np.concatenate([np.zeros((len(start), 1)), start], axis=1)[None]
    shape = problem.typical_shape[None]
    residual = evaluate(problem, own, shape).residual[0]
    own[0, :, 0] = (runs.weight * residual).sum(axis=1) / runs.weight.sum(axis=1)
    return problem, evaluate(problem, own, shape)


def descend(problem: Problem, state: State) -> tuple[State, Array]:
    """Go to the minimum by Levenberg and Marquardt's method; say which fits reached it."""
    fits = len(state.shape)
    damping, cost = np.full(fits, 1e-3), _cost(problem, state)
    settled = np.zeros(fits, dtype=bool)
    for _ in range(_STEPS):
        own, shape = equations(problem, state).solve(damping)
        longest = np.maximum(np.abs(own[..., 1:]).max(axis=2) / _LONGEST, 1.0)[..., None]  # floors are free
        shape = shape / np.maximum(np.abs(shape).max(axis=1) / _LONGEST, 1.0)[:, None]
        trial = evaluate(problem, state.own + own / longest, state.shape + shape)
        reached = _cost(problem, trial)
        better = reached <= cost
        # Where no step leads down even at this damping, rounding is all that is left to gain.
        settled |= (better & (cost - reached <= 1e-9 * cost)) | (damping > 1e8)
        state = trial.where(better, state)
        cost = np.where(better, reached, cost)
        damping = np.where(better, np.maximum(damping / 8, 1e-10), damping * 8)
        if settled.all():
            break
    return state, settled


def _away(problem: Problem, state: State) -> tuple[Array, Array]:
    """Return how far own and shared parameters are from their priors."""
    own = state.own.copy()
    own[..., 0] = 0.0
    own[..., 1:] -= problem.around
    return own, state.shape - problem.typical_shape


def _cost(problem: Problem, state: State) -> Array:
    rows = (problem.runs.weight * problem.loss.value(state.residual)).sum(axis=2)
    own, shared = _away(problem, state)
    rows = rows + (problem.own_prior * own**2).sum(axis=2) / 2
    return (problem.count * rows).sum(axis=1) + ((shared @ problem.shape_prior) * shared).sum(axis=1) / 2


@dataclass(frozen=True, eq=False)
class _Equations:
    """Normal equations: their matrix is an arrowhead, since cells touch each other through the shared shape only."""

    own: Array  # (K, cells, m, m): blocks of the cells' own parameters
    cross: Array  # (K, cells, m, q)
    shared: Array  # (K, q, q), summed over cells
    downhill: tuple[Array, Array]  # (K, cells, m), (K, q)
    count: Array

    def remainder(self, response: Array, shared: Array) -> Array:
        """Return the matrix of the shared parameters once every cell has followed: the Schur complement."""
        return shared - np.einsum("kc,kcms,kcmt->kst", self.count, self.cross, response)

    def solve(self, damping: Array) -> tuple[Array, Array]:
        """Return the damped step: one small solve a cell, then one of the size of the shape."""
        factor = damping[:, None, None]
        own = self.own * (1 + factor[..., None] * np.eye(self.own.shape[-1]))
        shared = self.shared * (1 + factor * np.eye(self.shared.shape[-1]))
        forward = np.linalg.solve(own, self.downhill[0][..., None])[..., 0]
        response = np.linalg.solve(own, self.cross)
        right = self.downhill[1] - np.einsum("kc,kcms,kcm->ks", self.count, self.cross, forward)
        step = np.linalg.solve(self.remainder(response, shared), right[..., None])[..., 0]
        return forward - np.einsum("kcms,ks->kcm", response, step), step


def equations(problem: Problem, state: State) -> _Equations:
    """Return the reweighted normal equations of K fits."""
    residual, own, shared = state.residual, state.in_own, state.in_shape
    weight = problem.runs.weight * problem.loss.weight(residual)
    away_own, away_shared = _away(problem, state)
    weighted = own * weight[:, :, None]
    pulled = (weight * residual)[..., None]
    counted = shared * (problem.count[..., None] * weight)[:, :, None]
    across = np.einsum("kc,kcq->kq", problem.count, (shared @ pulled)[..., 0])
    return _Equations(
        own=weighted @ own.swapaxes(2, 3) + np.diag(problem.own_prior),
        cross=weighted @ shared.swapaxes(2, 3),
        shared=(counted @ shared.swapaxes(2, 3)).sum(axis=1) + problem.shape_prior,
        downhill=(
            (own @ pulled)[..., 0] - problem.own_prior * away_own,
            across - away_shared @ problem.shape_prior,
        ),
        count=problem.count,
    )


def judge(problem: Problem, state: State) -> Problem:
    """Judge the run scatter anew, from the residuals of one fit and the parameters it took."""
    residual, own, weight = state.residual[0], state.in_own[0], problem.runs.weight
    near = weight > 0.25  # beyond the window residuals are what the shape does not follow
    inverse = np.linalg.inv(equations(problem, state).own[0])
    curved = (own * (weight * near)[:, None]) @ own.swapaxes(1, 2)
    taken = np.einsum("cab,cba->", inverse, curved) + problem.basin.size
    left = max(1 - taken / near.sum(), _LEAST_LEFT)
    scatter = 1.4826 * float(np.median(np.abs(residual[near]))) / np.sqrt(left)
    return replace(problem, scatter=max(scatter, _NO_SCATTER))


@dataclass(frozen=True, eq=False)
class CellCentres:
    """The centre of every cell's basin."""

    value: Array  # (axes, cells): log of the optimum
    variance: Array  # (axes, cells): from the noise of the cell's own runs, the shape taken for known
    response: Array  # (axes, cells, q): how far a centre moves when a shape parameter rises
    shape_covariance: Array  # (q, q)
    noise: float  # standard deviation of a run's loss, in units of the loss


def centres_of_cells(problem: Problem, state: State) -> CellCentres:
    """Read the centres off one fit, with sandwich variances: runs of a cell scatter alike and count unequally."""
    system = equations(problem, state)
    residual, own, shared, weight = state.residual[0], state.in_own[0], state.in_shape[0], problem.runs.weight
    response, inverse = np.linalg.solve(system.own, system.cross)[0], np.linalg.inv(system.own[0])
    filling = (own * weight[:, None] ** 2) @ own.swapaxes(1, 2)
    dof = weight.sum(axis=1) - np.einsum("cab,cba->c", inverse, filling)
    dof = np.where(dof > _LEAST_DOF, dof, 0.0)
    dof = dof * max(1 - problem.basin.size / max(dof.sum(), 1e-9), _LEAST_LEFT)  # the shape has taken its share
    noise = _noise(problem, residual, dof)[:, None, None]
    own_covariance = inverse @ (noise * filling + problem.scatter**2 * np.diag(problem.own_prior)) @ inverse
    # What is left of a shape parameter's slopes once the cells have followed it.
    left = shared - response.swapaxes(1, 2) @ own
    filling = (noise * ((left * weight[:, None] ** 2) @ left.swapaxes(1, 2))).sum(axis=0)
    filling = filling + problem.scatter**2 * problem.shape_prior
    inverse = np.linalg.inv(system.remainder(response[None], system.shared)[0])
    # What a new run may do: outliers are drawn in, not left out.
    drawn = np.clip(residual, -_OUTLIER * problem.scatter, _OUTLIER * problem.scatter) * problem.runs.lowest[:, None]
    total, known = (weight * drawn**2)[dof > 0].sum(), (dof > 0).any()
    return CellCentres(
        value=state.centre[0].T,
        variance=np.maximum(np.einsum("cmm->mc", own_covariance)[1:], 1e-8),
        response=-np.moveaxis(response[:, 1:], 0, 1),
        shape_covariance=inverse @ filling @ inverse,
        noise=float(np.sqrt(total / dof.sum())) if known else float("nan"),
    )


def _noise(problem: Problem, residual: Array, dof: Array) -> Array:
    """Return the variance of a run in every cell, shrunk towards all cells'."""
    squares = problem.runs.weight * problem.loss.weight(residual) * residual**2
    variance, _ = pool_noise(np.where(dof > 0, squares.sum(axis=1), 0.0), dof, np.ones(len(dof)))
    return np.where(np.isfinite(variance), variance, problem.scatter**2)
