"""A Levenberg-Marquardt that runs many starts, or many resamples, of one small problem at once.

The objective is the SUM over rows of w rho(r); the step solves (H + mu D) s = -g where H uses the exact second
derivative of rho, so that Huber's flat tails do not slow the end game, and D the reweighted curvature, so that the
first steps are those of reweighted least squares. Bounds are kept by projection with an active set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from scalefit.solvers.linear import solve_normal
from scalefit.solvers.losses import Loss

Array = np.ndarray
Model = Callable[[Array], tuple[Array, Array]]
"""Maps phi (K, p) to residuals (K, n) and their Jacobian (K, p, n)."""

_MU_MIN, _MU_MAX = 1e-14, 1e14


@dataclass(frozen=True, eq=False)
class Solution:
    """Where K runs of the solver ended."""

    phi: Array
    objective: Array
    # The Newton decrement is negligible against the objective, or no descent is possible in double precision.
    converged: Array
    iterations: int

    def best(self) -> int:
        """Return the index of the lowest objective."""
        return int(np.nanargmin(np.where(np.isfinite(self.objective), self.objective, np.inf)))

    def take(self, index: Array) -> Solution:
        """Return some of the runs."""
        return replace(self, phi=self.phi[index], objective=self.objective[index], converged=self.converged[index])


class _State(NamedTuple):
    phi: Array
    residual: Array
    jacobian: Array
    objective: Array


@np.errstate(all="ignore")  # trial points may lie where the model overflows; they are rejected
def minimize(
    model: Model,
    start: Array,
    *,
    loss: Loss,
    weights: Array,
    lower: Array,
    upper: Array,
    iterations: int = 200,
    tolerance: float = 1e-14,
    subset: Callable[[Array], Model] | None = None,
) -> Solution:
    """Minimise sum(w rho(r(phi))) from K starts at once, phi (K, p).

    A bootstrap passes its resampling counts as weights (K, n). `subset` maps the indices still running to the model for
    them, when the model differs between the K problems. The solver stops when a step can lower the objective by less
    than the fraction `tolerance` of it.
    """
    count, _ = start.shape
    weights = np.broadcast_to(weights, (count, np.shape(weights)[-1]))
    phi = np.clip(start, lower, upper)
    objective = np.full(count, np.inf)
    converged = np.zeros(count, dtype=bool)
    live = np.arange(count)
    state = _evaluate(model, phi, weights, loss)
    mu = np.full(count, 1e-2)
    quiet = np.zeros(count, dtype=int)
    done = 0
    for done in range(1, iterations + 1):  # noqa: B007 - reported
        here = subset(live) if subset else model
        state, mu, decrement, moved = _step(here, state, mu, loss, weights[live], lower, upper)
        small = decrement <= tolerance * np.maximum(state.objective, np.finfo(float).tiny)
        # Two quiet steps running: one alone may only be a step that heavy damping kept short.
        quiet = np.where(small, quiet + 1, 0)
        finished = (quiet >= 2) | (small & ~moved) | (mu >= _MU_MAX) | ~np.isfinite(state.objective)
        phi[live], objective[live] = state.phi, state.objective
        # Rounding can forbid descent before the tolerance is met; the decrement tells how far away the minimum is.
        converged[live] = decrement <= 1e-8 * state.objective
        if finished.all():
            break
        if finished.any():
            keep = ~finished
            live, mu, quiet = live[keep], mu[keep], quiet[keep]
            state = _State(*(part[keep] for part in state))
    return Solution(phi, objective, converged & np.isfinite(objective), done)


def _evaluate(model: Model, phi: Array, weights: Array, loss: Loss) -> _State:
    residual, jacobian = model(phi)
    objective = np.einsum("kn,kn->k", weights, loss.value(residual))
    finite = np.isfinite(objective) & np.isfinite(jacobian.sum(axis=(1, 2)))
    return _State(phi, residual, jacobian, np.where(finite, objective, np.inf))


def _step(
    model: Model, state: _State, mu: Array, loss: Loss, weights: Array, lower: Array, upper: Array
) -> tuple[_State, Array, Array, Array]:
    """Try one step for every problem; return the new state, damping, Newton decrement and who moved.

    The decrement, g'H^-1 g/2 where the step began, is what an undamped step would gain beyond rounding.
    """
    gradient, hessian, damping = _normal_equations(state, loss, weights)
    held = ((state.phi <= lower) & (gradient > 0)) | ((state.phi >= upper) & (gradient < 0)) | (lower == upper)
    gradient = np.where(held, 0.0, gradient)
    free = ~held[:, :, None] & ~held[:, None, :]
    diagonal = np.where(held[:, :, None] & np.eye(held.shape[1], dtype=bool), 1.0, 0.0)

    def solve(share: Array | float) -> Array:
        return solve_normal(np.where(free, hessian + share * damping, 0.0) + diagonal, gradient)

    # A robust loss can have no curvature at all where every row is far out; a trace of damping keeps H invertible.
    decrement = 0.5 * np.abs(np.einsum("ki,ki->k", gradient, solve(1e-4 if loss.robust else 0.0)))
    decrement = np.maximum(decrement - _rounding(state.phi, damping), 0.0)
    trial = np.clip(state.phi - solve(mu[:, None, None]), lower, upper)
    step = trial - state.phi
    predicted = -np.einsum("ki,ki->k", gradient, step) - 0.5 * np.einsum("ki,kij,kj->k", step, hessian, step)
    tried = _evaluate(model, trial, weights, loss)
    gain = (state.objective - tried.objective) / np.maximum(predicted, np.finfo(float).tiny)
    accept = np.isfinite(tried.objective) & (tried.objective < state.objective)
    # Marquardt's rule: trust the quadratic model more where it foretold the gain, less where it did not.
    mu = np.where(accept, np.where(gain > 0.75, mu / 8, np.where(gain < 0.25, mu * 2, mu)), mu * 6)
    mu = np.clip(mu, _MU_MIN, _MU_MAX)
    for new, old in zip(tried, state, strict=True):
        new[~accept] = old[~accept]
    return tried, mu, decrement, accept


def _rounding(phi: Array, damping: Array) -> Array:
    """Return how much of the objective is rounding: what moving phi by a few units in its last place may change."""
    return 8 * np.finfo(float).eps ** 2 * phi.shape[1] * np.einsum("kii,ki->k", damping, phi**2)


def _normal_equations(state: _State, loss: Loss, weights: Array) -> tuple[Array, Array, Array]:
    """Gradient, Hessian of the objective (second derivatives of the model left out) and damping matrix."""
    weight = weights * loss.weight(state.residual)
    columns = state.jacobian
    gradient = (columns @ (weight * state.residual)[:, :, None])[:, :, 0]
    reweighted = (columns * weight[:, None, :]) @ columns.transpose(0, 2, 1)
    if loss.robust:
        curved = weights * loss.curvature(state.residual)
        hessian = (columns * curved[:, None, :]) @ columns.transpose(0, 2, 1)
        return gradient, hessian, reweighted
    spread = np.einsum("kii->ki", reweighted)
    return gradient, reweighted, np.eye(spread.shape[1]) * spread[:, :, None]
