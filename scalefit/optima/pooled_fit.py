"""Basins over two axes fitted to all cells together: a shared shape, and what each cell has of its own.

Derivations: docs/derivations.md, "The basin".
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from scalefit._values import Note
from scalefit.optima.basin_shape import BasinShape, pool_noise, widen_window
from scalefit.optima.cells import MIN_LEVELS, Cells, Estimates, Floats, conclude, some
from scalefit.optima.local_fit import is_noise, noise_scale
from scalefit.optima.run_weights import RunWeights, decline, excess_beyond_noise, growth_of_noise
from scalefit.optima.vertices import bound, errors_within
from scalefit.solvers.linear import Arrow
from scalefit.solvers.losses import SoftL1

# Runs, counted by weight, that the typical cell must keep to show its basin over two axes, and the widest window tried
# for it: a cell has five parameters of its own.
_ENOUGH, _WIDEST = 8.0, 0.2

# How much wider the window is to begin with: a lucky run far above the optimum, where runs are noisy, must not make
# the rest look bad.
_WIDER = 4.0

# How often noise and scatter of the curvatures are judged anew: after eight rounds the centres of Step Law's cells are
# within 0.06 of their standard errors of where twenty rounds leave them.
_ROUNDS = 8

_STEPS, _TRIES = 30, 16

# Share of the cost below which a gain ends the search between two rounds.
_ROUGHLY = 1e-5

# No step is longer than this in a log: beyond, exp(k u) leaves what a second-order model can foresee.
_LONGEST = 0.7

# Squared step, in standard errors and per cell, below which the search is over.
_SMALL = 1e-4

# Residuals, in units of the noise, from which they count by their absolute value: outliers must not steer the shape
# that all cells share, and normal noise loses nearly nothing.
_TURN = 2.5

# Prior standard deviation, in logs, of a cell's centre about the middle of its good runs: holds cells of one batch.
_LOOSE = 1.5

# Prior standard deviation of what one standard deviation of the log loss over cells does to a log curvature, and the
# spread of the log loss below which no trend is looked for.
_SLOPE, _ALIKE = 0.5, 1e-3

# Between which the scatter of log curvatures over cells is looked for: at 0 no cell could ever depart again.
_SCATTER_FROM, _SCATTER_TO = 0.02, 2.0

# Noise, as a fraction of the loss, below which losses are taken to be free of it.
_QUIET = 1e-7

# A cell says nothing of its noise below this many degrees of freedom.
_LEAST_DOF = 0.02

# Mean and standard deviation of the shape before the runs speak: ln A and k of either axis, c, p and q, with heights
# relative to the cell's lowest loss. They matter where a grid says nothing; bends are drawn towards a straight valley.
_MEAN = [-4.6, 0.5, -5.5, 0.1, 0.3, 0.0, 0.0]
_SPREAD = [3.0, 0.5, 3.0, 0.5, 0.5, 0.1, 0.1]

# Prior standard deviation of an asymmetry that is given.
_HELD = 1e-6

# Which shape parameters are log curvatures, the ones that scatter over cells.
_CURVATURES = [0, 2]


def estimate_centres(cells: Cells, window: float, level: float, asymmetry: float | None) -> Estimates:
    """Estimate the centres of all cells' basins together, the asymmetry of the first axis held if one is given.

    Heights are relative to the lowest loss of the cell. A cell has a floor, a centre and log curvatures of its own;
    the latter are normal about shared ones that may follow the lowest loss of the cell. Asymmetries, cross term and
    bends are shared. Runs count by their excess, see `Parabola`, and residuals enter by a soft absolute value.
    """
    wide = widen_window(cells.excess, cells.finished, window, _WIDEST, _ENOUGH)
    problem = _pose(cells, max(wide, min(_WIDER * wide, _WIDEST)), asymmetry)
    own = np.zeros((len(cells.loss), 5))
    own[:, 1:3] = problem.middle
    total = np.maximum(problem.weight.sum(axis=1), 1e-300)
    own[:, 0] = (problem.weight * problem.at(own, problem.mean).residual).sum(axis=1) / total
    state = problem.at(own, problem.mean)
    for _ in range(_ROUNDS):
        state = _descend(problem, state, _ROUGHLY)  # weights are about to change
        problem = _reweigh(cells, _judge(problem, state), state, wide)
        state = problem.at(state.own, state.shape)
    return _read_centres(cells, problem, _descend(problem, state), level, wide if wide > window else None)


@dataclass(frozen=True, eq=False)
class _State:
    own: Floats  # (cells, 5): floor, centre, departures of the log curvatures from the shared ones
    shape: Floats  # (7,), see `_MEAN`
    residual: Floats  # (cells, runs)
    in_own: Floats  # (cells, 5, runs): derivatives of the height
    in_shape: Floats  # (cells, 7, runs)


def _shapes(own: Floats, shape: Floats) -> Floats:
    """Return the shape of every cell, (cells, 7)."""
    every = np.repeat(shape[None], len(own), axis=0)
    every[:, _CURVATURES] += own[:, 3:]
    return every


@dataclass(frozen=True, eq=False)
class _Problem:
    x: Floats  # (2, cells, runs), 0 where there is no loss
    excess: Floats  # (cells, runs)
    weight: Floats  # (cells, runs)
    calm: Floats  # (cells, runs): noise at the optimum over that at the run
    middle: Floats  # (cells, 2): of the good runs
    trait: Floats  # (cells,), see `_trait`
    mean: Floats  # (7,): the shape before the runs speak
    spread: Floats  # (7,)
    expected: Floats  # (cells, 2): departures of the log curvatures that the cells' losses make likely
    noise: float = 3e-3
    scatter: Floats = field(default_factory=lambda: np.full(2, 0.3))  # of the log curvatures about the expected

    @property
    def loss(self) -> SoftL1:
        return SoftL1(_TURN * self.noise)

    @property
    def prior(self) -> tuple[Floats, Floats]:
        """What a squared unit away from the priors of own (5,) and shared (7,) parameters costs."""
        centre = np.full(2, (self.noise / _LOOSE) ** 2)
        # Floors are free, but for enough to keep the matrix of a cell without runs regular.
        return np.concatenate([[1e-12], centre, (self.noise / self.scatter) ** 2]), (self.noise / self.spread) ** 2

    def at(self, own: Floats, shape: Floats) -> _State:
        """Return the state with these parameters."""
        offsets = np.where(self.weight > 0, self.x - own[:, 1:3].T[:, :, None], 0.0)
        height, gradient, shared = BasinShape(np.empty((self.x.shape[2], 0)), 2)(_shapes(own, shape), offsets)
        slopes = [np.ones_like(height)[:, None], -gradient.transpose(1, 0, 2), shared[:, _CURVATURES]]
        calm = self.calm[:, None]  # in units of the noise at each run all of them are equally noisy
        residual = self.calm * (self.excess - own[:, :1] - height)
        return _State(own, shape, residual, calm * np.concatenate(slopes, axis=1), calm * shared)

    def away(self, state: _State) -> tuple[Floats, Floats]:
        """Return how far own and shared parameters are from their priors."""
        own = np.column_stack(
            [np.zeros(len(state.own)), state.own[:, 1:3] - self.middle, state.own[:, 3:] - self.expected]
        )
        return own, state.shape - self.mean

    def cost(self, state: _State) -> float:
        """Return what the descent lowers: the loss of the residuals and the priors."""
        held = sum((cost * away**2).sum() for cost, away in zip(self.prior, self.away(state), strict=True))
        return float((self.weight * self.loss.value(state.residual)).sum() + held / 2)

    def system(self, state: _State) -> tuple[Arrow, tuple[Floats, Floats]]:
        """Return the reweighted normal equations: a matrix shaped like an arrowhead, and the way downhill."""
        own, shared = state.in_own, state.in_shape
        weight = self.weight * self.loss.weight(state.residual)
        prior_own, prior_shared = self.prior
        away_own, away_shared = self.away(state)
        downhill = np.einsum("cmr,cr->cm", own, weight * state.residual) - prior_own * away_own
        across = np.einsum("cqr,cr->q", shared, weight * state.residual) - prior_shared * away_shared
        return Arrow.of(own, shared, weight).plus(prior_own, prior_shared), (downhill, across)


def _pose(cells: Cells, window: float, asymmetry: float | None) -> _Problem:
    weight = RunWeights.first(cells, window).trust
    x = np.where(cells.finished[:, :, None], cells.x, 0.0)
    middle = (weight[:, :, None] * x).sum(axis=1) / np.maximum(weight.sum(axis=1), 1e-300)[:, None]
    excess = np.where(cells.finished, cells.excess, 0.0)
    mean, spread = np.array(_MEAN), np.array(_SPREAD)
    if asymmetry is not None:
        mean[1], spread[1] = asymmetry, _HELD
    expected = np.zeros((len(weight), 2))
    calm = np.ones(weight.shape)
    return _Problem(np.moveaxis(x, 2, 0), excess, weight, calm, middle, _trait(cells), mean, spread, expected)


def _trait(cells: Cells) -> Floats:
    """Return what curvatures may follow from cell to cell: the log of the lowest loss, standardised.

    It falls with the size of model and data, which an estimator is not told. Curvatures drawn towards one value
    whatever the loss of the cell put the exponent of N off by half to one standard error.
    """
    known = np.isfinite(cells.lowest)
    if not known.any():
        return np.zeros(len(known))
    log_loss = np.log(np.maximum(np.abs(np.where(known, cells.lowest, 1.0)), 1e-300))
    away = np.where(known, log_loss - log_loss[known].mean(), 0.0)
    spread = away[known].std()
    return away / spread if spread > _ALIKE else np.zeros(len(known))


def _descend(problem: _Problem, state: _State, gained: float = 1e-9) -> _State:
    """Go to the minimum for this noise and scatter by Levenberg and Marquardt's method."""
    damping, cost = 1e-3, problem.cost(state)
    for _ in range(_STEPS):
        system, downhill = problem.system(state)
        for _ in range(_TRIES):
            trial = problem.at(*_stepped(state, system.damped(damping).solve(*downhill)))
            reached = problem.cost(trial)
            if reached <= cost:
                break
            damping *= 8
        else:
            return state  # no step leads down
        gain, state, cost = cost - reached, trial, reached
        damping = max(damping / 6, 1e-9)
        if gain <= gained * cost:
            break
    return state


def _stepped(state: _State, step: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Return own and shared parameters after a step, shortened where it is long in a log; floors are free."""
    own, shared = step
    longest = np.maximum(np.abs(own[:, 1:]).max(axis=1) / _LONGEST, 1.0)[:, None]
    return state.own + own / longest, state.shape + shared / max(np.abs(shared).max() / _LONGEST, 1.0)


def _settled(problem: _Problem, state: _State) -> bool:
    """Say whether the undamped step promises no more than a small part of the noise: Newton's decrement.

    The length of a damped step says nothing: next to the minimum it is short because the damping is high.
    """
    system, downhill = problem.system(state)
    promise = sum((down * step).sum() for down, step in zip(downhill, system.solve(*downhill), strict=True))
    return float(promise) <= _SMALL * len(state.own) * problem.noise**2


def _judge(problem: _Problem, state: _State) -> _Problem:
    """Judge the noise from the residuals, and the scatter of curvatures from their departures and errors (EM)."""
    variance, _ = _noise(problem, state)
    noise = float(np.sqrt(np.median(variance))) if np.isfinite(variance).all() else problem.noise
    known = problem.weight.sum(axis=1) > 0
    if not known.any():
        return problem
    inverse = np.linalg.inv(problem.system(state)[0].own)
    spread = np.einsum("cmm->cm", inverse)[:, 3:] * problem.noise**2
    expected = _expected(problem, state.own[:, 3:], spread)
    # The expected square of a departure is its best value's square and its own variance; without the latter the scatter
    # would shrink round by round to nothing.
    square = ((state.own[:, 3:] - expected) ** 2 + spread)[known].mean(axis=0)
    scatter = np.clip(np.sqrt(square), _SCATTER_FROM, _SCATTER_TO)
    return replace(problem, noise=max(noise, _QUIET), scatter=scatter, expected=expected)


def _reweigh(cells: Cells, problem: _Problem, state: _State, window: float) -> _Problem:
    """Judge how fast the noise grows away from the best learning rate of each batch, and how far the shape holds."""
    residual = state.residual / problem.calm
    u, v = problem.x - state.own[:, 1:3].T[:, :, None]
    away = u - state.shape[4] * v
    growth = growth_of_noise(cells, away, residual / problem.noise, problem.weight)
    calm = np.where(cells.finished, decline(away, growth), 1.0)
    mean, count = cells.averaged
    low = np.abs(cells.lowest)[:, None]
    floor = state.own[:, :1]
    excess = excess_beyond_noise(
        problem.excess - floor - residual,
        (mean / low - 1) - floor,
        problem.noise / calm / np.sqrt(np.maximum(count, 1)),
    )
    counted = RunWeights.of(cells, excess, window, calm)
    return replace(problem, weight=counted.trust, calm=counted.calm)


def _expected(problem: _Problem, departure: Floats, spread: Floats) -> Floats:
    """Regress the log curvatures on the trait by weighted least squares, slopes shrunk."""
    # Departures are drawn towards what was expected before; that is undone first, so that a trend is found at once.
    share = np.minimum(spread / problem.scatter**2, 0.99)
    plain = (departure - share * problem.expected) / (1 - share)
    weight = 1 / (spread / (1 - share) + problem.scatter**2)
    slope = problem.trait @ (weight * plain) / (problem.trait**2 @ weight + 1 / _SLOPE**2)
    return problem.trait[:, None] * slope


def _noise(problem: _Problem, state: _State) -> tuple[Floats, Floats]:
    """Return each cell's relative noise variance and its degrees of freedom, shrunk towards all cells'."""
    own, weight = state.in_own, problem.weight
    taken = np.linalg.inv(problem.system(state)[0].own) @ Arrow.of(own, own[:, :0], weight**2).own
    dof = weight.sum(axis=1) - np.trace(taken, axis1=1, axis2=2)
    dof = np.where(dof > _LEAST_DOF, dof, 0.0)
    rss = np.where(dof > 0, (weight * state.residual**2).sum(axis=1), 0.0)
    return pool_noise(rss, dof, np.ones(len(dof)))


def _errors(problem: _Problem, state: _State, variance: Floats) -> tuple[Floats, Floats]:
    """Return the standard errors of own parameters (cells, 5), that of the shared shape included, and of the shape."""
    system, own = problem.system(state)[0], state.in_own
    # A sandwich, as the weights are no inverse variances; the priors' part is taken to be right as it stands.
    weight = problem.weight**2 * problem.loss.weight(state.residual)
    filling = Arrow.of(own, own[:, :0], weight).own * variance[:, None, None]
    filling = filling + np.diag(problem.prior[0]) * problem.noise**2
    inverse = np.linalg.inv(system.own)
    shared = np.linalg.inv(system.remainder) * problem.noise**2
    covariance = inverse @ filling @ inverse + system.response @ shared @ system.response.transpose(0, 2, 1)
    return np.sqrt(np.einsum("cmm->cm", covariance)), np.sqrt(np.diag(shared))


def _read_centres(cells: Cells, problem: _Problem, state: _State, level: float, widened: float | None) -> Estimates:
    """Turn basins fitted together into optima with intervals and statuses, each axis judged by its own levels."""
    variance, dof = _noise(problem, state)
    own_error, shape_error = _errors(problem, state, variance)
    stderr, low = own_error[:, 1:3], cells.lowest
    value = np.where(some(cells.finished, axis=1)[:, None], state.own[:, 1:3], np.nan)
    half = errors_within(level, dof)[:, None] * stderr
    first, last = cells.extent(cells.finished)
    lost = (value - half < first) & (value + half > last)
    edge, point, lo, hi = bound(cells, value, value, value - half, value + half, np.isfinite(half))
    # Where another axis has too few levels, the place along the valley rests on other cells: that is no observation.
    lost |= some(cells.level_counts() < MIN_LEVELS, axis=1)[:, None]
    # Second derivatives at the centre of A_1 s**2/2 + A_2 t**2/2 with s = u - c v, t = v.
    curved = np.exp(_shapes(state.own, state.shape)[:, _CURVATURES])
    curved[:, 1] += state.shape[4] ** 2 * curved[:, 0]
    return conclude(
        cells,
        is_noise(cells, noise_scale(cells)) | lost,
        edge & ~lost,
        value=point,
        lo=lo,
        hi=hi,
        stderr=np.where(np.isfinite(half), stderr, np.nan),
        curvature=curved * np.abs(low)[:, None],
        loss=np.where(edge.any(axis=1), low, low + np.abs(low) * state.own[:, 0]),
        notes=_notes(state.shape, shape_error, widened, _settled(problem, state)),
        asymmetry=float(state.shape[1]),
    )


def _notes(shape: Floats, error: Floats, widened: float | None, settled: bool) -> tuple[Note, ...]:
    """Say what shape the basins share, and what to doubt about it."""
    text = (
        f"basins share the asymmetry k = {shape[1]:.2f} +/- {error[1]:.2f} in the first axis (0 is a parabola), the "
        f"valley between the axes has the slope {shape[4]:.2f} +/- {error[4]:.2f}"
    )
    notes = [Note("asymmetry", text)]
    if widened is not None:
        text = f"the grid is coarse: runs up to {widened:.3g} above their cell's best, relative, shape the basins"
        notes.append(Note("window", text))
    if not settled:
        text = "the basins were still moving when the search stopped: use no number here; fewer cells may help"
        notes.append(Note("unfinished", text, caution=True))
    return tuple(notes)
