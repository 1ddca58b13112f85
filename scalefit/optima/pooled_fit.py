"""Basins over two axes fitted to all cells together: a shared shape, and what each cell has of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scalefit.optima.basin_shape import BasinShape
from scalefit.optima.cells import Block, Floats
from scalefit.optima.parabola import pool_noise, window_weights
from scalefit.solvers.linear import Arrow
from scalefit.solvers.losses import SoftL1

_ROUNDS = 8
"""How often noise and scatter of the curvatures are judged anew."""

_STEPS, _TRIES = 30, 16
_SMALL = 1e-4
"""Squared step, in standard errors and per cell, below which the search is over."""

_TURN = 2.5
"""Residuals, in units of the noise, from which they count by their absolute value."""

_LOOSE = 1.5
"""Prior standard deviation, in logs, of a cell's centre about the middle of its good runs."""

_SLOPE = 0.5
"""Prior standard deviation of what one standard deviation of the log loss over cells does to a log curvature."""

_ALIKE = 1e-3
"""Standard deviation of the log loss over cells below which no trend is looked for."""

_SCATTER_FROM, _SCATTER_TO = 0.02, 2.0
"""Between which the scatter of log curvatures over cells is looked for."""

_QUIET = 1e-7
"""Noise, as a fraction of the loss, below which losses are taken to be free of it."""

_HELD = 1e-6
"""Prior standard deviation of a shape parameter that is given."""

_PRIOR = ([-4.6, 0.5, -5.5, 0.1, 0.3, 0.0, 0.0], [3.0, 0.5, 3.0, 0.5, 0.5, 0.1, 0.1])
"""Mean and standard deviation of the shape before the runs speak; heights are relative to the cell's lowest loss."""

_CURVATURES = [0, 2]
"""Which shape parameters are log curvatures, the ones that scatter over cells."""


@dataclass(frozen=True, eq=False)
class PooledBasins:
    """Basins of all cells.

    Parameters
    ----------
    centre, stderr : ndarray (cells, 2)
        Log of the optimum and its standard error, that of the shared shape included.
    hessian : ndarray (cells, 2, 2)
        Second derivatives of the loss at the centre, in nats.
    floor : ndarray (cells,)
        Loss at the centre.
    dof : ndarray (cells,)
        Degrees of freedom behind the noise of a cell, its share of those pooled included; 0 where unknown.
    shape, shape_stderr : ndarray (7,)
        See `BasinShape`: ln A and k of either axis, the cross term c and the bends p and q.
    scatter : ndarray (2,)
        Standard deviation of ln A over cells.
    window : float
        Relative excess at which a run's weight has fallen to a quarter.
    settled : bool
        Whether the minimum was reached.
    """

    centre: Floats
    stderr: Floats
    hessian: Floats
    floor: Floats
    dof: Floats
    shape: Floats
    shape_stderr: Floats
    scatter: Floats
    window: float
    settled: bool


@dataclass(frozen=True, eq=False)
class _Problem:
    x: Floats  # (2, cells, runs), 0 where there is no loss
    excess: Floats  # (cells, runs)
    weight: Floats  # (cells, runs)
    middle: Floats  # (cells, 2)
    trait: Floats  # (cells,), see `_trait`
    prior: tuple[Floats, Floats]  # mean and standard deviation of the shape

    @property
    def basin(self) -> BasinShape:
        return BasinShape(np.empty((self.x.shape[2], 0)), 2)

    def at(self, own: Floats, shape: Floats) -> _State:
        """Return the state with these parameters."""
        offsets = np.where(self.weight > 0, self.x - own[:, 1:3].T[:, :, None], 0.0)
        height, gradient, shared = self.basin(_shapes(own, shape), offsets)
        slopes = [np.ones_like(height)[:, None], -gradient.transpose(1, 0, 2), shared[:, _CURVATURES]]
        return _State(own, shape, self.excess - own[:, :1] - height, np.concatenate(slopes, axis=1), shared)


@dataclass(frozen=True, eq=False)
class _State:
    own: Floats  # (cells, 5): floor, centre, departures of the log curvatures from the shared ones
    shape: Floats  # (7,)
    residual: Floats  # (cells, runs)
    in_own: Floats  # (cells, 5, runs), derivatives of the height
    in_shape: Floats  # (cells, 7, runs)

    @property
    def centre(self) -> Floats:
        return self.own[:, 1:3]

    @property
    def departure(self) -> Floats:
        return self.own[:, 3:]


def _shapes(own: Floats, shape: Floats) -> Floats:
    """Return the shape of every cell, (cells, 7)."""
    every = np.repeat(shape[None], len(own), axis=0)
    every[:, _CURVATURES] += own[:, 3:]
    return every


@dataclass(frozen=True, eq=False)
class _Scales:
    noise: float
    scatter: Floats  # (2,)
    expected: Floats  # (cells, 2): departures of the log curvatures that the cells' losses make likely

    def priors(self, problem: _Problem) -> tuple[Floats, Floats]:
        """Return what departures of own and of shared parameters from their priors cost."""
        centre = np.full(2, (self.noise / _LOOSE) ** 2)
        return np.concatenate([[1e-12], centre, (self.noise / self.scatter) ** 2]), (self.noise / problem.prior[1]) ** 2

    @property
    def loss(self) -> SoftL1:
        return SoftL1(_TURN * self.noise)


def fit_basins(block: Block, window: float, asymmetry: float | None = None) -> PooledBasins:
    """Fit the basins of all cells together, the asymmetry of the first axis held if one is given.

    Heights are relative to the lowest loss of the cell. A cell has a floor, a centre and log curvatures of its own;
    the latter are normal about shared ones that may follow the lowest loss of the cell, with a scatter found by
    expectation and maximisation. Asymmetries, cross term and bends are shared. Runs count by their excess, see
    `Parabola`, and residuals enter by a soft absolute value.
    """
    problem = _pose(block, window, asymmetry)
    own = np.zeros((len(block.loss), 5))
    own[:, 1:3] = problem.middle
    own[:, 0] = _mean(problem.at(own, problem.prior[0]).residual, problem.weight)
    state = problem.at(own, problem.prior[0])
    scales = _Scales(3e-3, np.full(2, 0.3), np.zeros((len(own), 2)))
    for _ in range(_ROUNDS):
        state = _descend(problem, state, scales)
        scales = _judge(problem, state, scales)
    return _answer(block, problem, _descend(problem, state, scales), scales, window)


def _pose(block: Block, window: float, asymmetry: float | None) -> _Problem:
    weight = window_weights(block, window)
    x = np.where(block.finished[:, :, None], block.x, 0.0)
    total = np.maximum(weight.sum(axis=1), 1e-300)[:, None]
    middle = (weight[:, :, None] * x).sum(axis=1) / total
    excess = np.where(block.finished, block.excess, 0.0)
    mean, spread = (np.array(values) for values in _PRIOR)
    if asymmetry is not None:
        mean[1], spread[1] = asymmetry, _HELD
    return _Problem(np.moveaxis(x, 2, 0), excess, weight, middle, _trait(block), (mean, spread))


def _trait(block: Block) -> Floats:
    """Return what curvatures may follow from cell to cell: the log of the lowest loss, standardised.

    It falls with the size of model and data, which an extractor is not told.
    """
    told = np.isfinite(block.lowest)
    if not told.any():
        return np.zeros(len(told))
    log_loss = np.log(np.maximum(np.abs(np.where(told, block.lowest, 1.0)), 1e-300))
    away = np.where(told, log_loss - log_loss[told].mean(), 0.0)
    spread = away[told].std()
    return away / spread if spread > _ALIKE else np.zeros(len(told))


def _mean(values: Floats, weight: Floats) -> Floats:
    return (weight * values).sum(axis=1) / np.maximum(weight.sum(axis=1), 1e-300)


def _cost(problem: _Problem, state: _State, scales: _Scales) -> float:
    own, shared = scales.priors(problem)
    held = (own * _departure(problem, state, scales) ** 2).sum() + (shared * _away(problem, state) ** 2).sum()
    return float((problem.weight * scales.loss.value(state.residual)).sum() + held / 2)


def _departure(problem: _Problem, state: _State, scales: _Scales) -> Floats:
    """Return how far the own parameters are from their priors."""
    return np.column_stack([np.zeros(len(state.own)), state.centre - problem.middle, state.departure - scales.expected])


def _away(problem: _Problem, state: _State) -> Floats:
    return state.shape - problem.prior[0]


def _descend(problem: _Problem, state: _State, scales: _Scales) -> _State:
    """Go to the minimum for these scales by Levenberg and Marquardt's method."""
    damping, cost = 1e-3, _cost(problem, state, scales)
    for _ in range(_STEPS):
        system, gradient = _system(problem, state, scales)
        for _ in range(_TRIES):
            trial = problem.at(*_stepped(state, system.damped(damping).solve(*gradient)))
            reached = _cost(problem, trial, scales)
            if reached <= cost:
                break
            damping *= 8
        else:
            return state  # no step leads down
        gain, state, cost = cost - reached, trial, reached
        damping = max(damping / 6, 1e-9)
        if gain <= 1e-9 * cost:
            break
    return state


def _settled(problem: _Problem, state: _State, scales: _Scales) -> bool:
    """Say whether the undamped step promises no more than a small part of the noise: Newton's decrement."""
    system, (own, shared) = _system(problem, state, scales)
    step_own, step_shared = system.solve(own, shared)
    return float((own * step_own).sum() + (shared * step_shared).sum()) <= _SMALL * len(own) * scales.noise**2


def _system(problem: _Problem, state: _State, scales: _Scales) -> tuple[Arrow, tuple[Floats, Floats]]:
    residual, own, shared = state.residual, state.in_own, state.in_shape
    weight = problem.weight * scales.loss.weight(residual)
    prior_own, prior_shared = scales.priors(problem)
    downhill = np.einsum("cmr,cr->cm", own, weight * residual) - prior_own * _departure(problem, state, scales)
    across = np.einsum("cqr,cr->q", shared, weight * residual) - prior_shared * _away(problem, state)
    return Arrow.of(own, shared, weight).plus(prior_own, prior_shared), (downhill, across)


def _stepped(state: _State, step: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Return own and shared parameters after a step, none longer than 0.7 in a log; floors are free."""
    own, shared = step
    longest = np.maximum(np.abs(own[:, 1:]).max(axis=1) / 0.7, 1.0)[:, None]
    return state.own + own / longest, state.shape + shared / max(np.abs(shared).max() / 0.7, 1.0)


def _judge(problem: _Problem, state: _State, scales: _Scales) -> _Scales:
    """Judge the noise from the residuals, and the scatter of curvatures from their departures and errors."""
    variance, _ = _noise(problem, state, scales)
    noise = float(np.sqrt(np.median(variance))) if np.isfinite(variance).all() else scales.noise
    own = _system(problem, state, scales)[0].own
    spread = np.einsum("cmm->cm", np.linalg.inv(own))[:, 3:] * scales.noise**2
    told = problem.weight.sum(axis=1) > 0
    if not told.any():
        return scales
    expected = _expected(problem.trait, state.departure, spread, scales)
    square = ((state.departure - expected) ** 2 + spread)[told].mean(axis=0)
    return _Scales(max(noise, _QUIET), np.clip(np.sqrt(square), _SCATTER_FROM, _SCATTER_TO), expected)


def _expected(trait: Floats, departure: Floats, spread: Floats, scales: _Scales) -> Floats:
    """Regress the log curvatures on the trait by weighted least squares, slopes shrunk.

    Departures are drawn towards what was expected before; that is undone first, so that a trend is found at once.
    """
    share = np.minimum(spread / scales.scatter**2, 0.99)
    plain = (departure - share * scales.expected) / (1 - share)
    weight = 1 / (spread / (1 - share) + scales.scatter**2)
    slope = trait @ (weight * plain) / (trait**2 @ weight + 1 / _SLOPE**2)
    return trait[:, None] * slope


def _noise(problem: _Problem, state: _State, scales: _Scales) -> tuple[Floats, Floats]:
    """Return each cell's relative noise variance and its degrees of freedom, shrunk towards all cells'."""
    residual, own, weight = state.residual, state.in_own, problem.weight
    inverse = np.linalg.inv(_system(problem, state, scales)[0].own)
    taken = inverse @ Arrow.of(own, own[:, :0], weight**2).own
    dof = weight.sum(axis=1) - np.trace(taken, axis1=1, axis2=2)
    sound = dof > 0.02
    rss = np.where(sound, (weight * residual**2).sum(axis=1), 0.0)
    return pool_noise(rss, np.where(sound, dof, 0.0), np.ones(len(dof)))


def _answer(block: Block, problem: _Problem, state: _State, scales: _Scales, window: float) -> PooledBasins:
    variance, dof = _noise(problem, state, scales)
    system = _system(problem, state, scales)[0]
    residual, own = state.residual, state.in_own
    filling = Arrow.of(own, own[:, :0], problem.weight**2 * scales.loss.weight(residual)).own * variance[:, None, None]
    filling = filling + np.diag(scales.priors(problem)[0]) * scales.noise**2
    inverse = np.linalg.inv(system.own)
    shared = np.linalg.inv(system.remainder) * scales.noise**2
    covariance = inverse @ filling @ inverse + system.response @ shared @ system.response.transpose(0, 2, 1)
    spread = np.sqrt(np.einsum("cmm->cm", covariance))
    low = block.lowest
    return PooledBasins(
        centre=state.centre,
        stderr=spread[:, 1:3],
        hessian=_hessian(_shapes(state.own, state.shape)) * np.abs(low)[:, None, None],
        floor=low + np.abs(low) * state.own[:, 0],
        dof=dof,
        shape=state.shape,
        shape_stderr=np.sqrt(np.diag(shared)),
        scatter=scales.scatter,
        window=window,
        settled=_settled(problem, state, scales),
    )


def _hessian(shapes: Floats) -> Floats:
    """Second derivatives of the height at the centre: of A_1 s**2/2 + A_2 t**2/2 with s = u - c v, t = v."""
    first, second, c = np.exp(shapes[:, 0]), np.exp(shapes[:, 2]), shapes[:, 4]
    return np.array([[first, -c * first], [-c * first, second + c**2 * first]]).transpose(2, 0, 1)
