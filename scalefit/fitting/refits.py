"""Many refits of one law at once, to reweighted rows or to other values of the target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from scalefit.errors import FitError
from scalefit.fitting.problem import Problem
from scalefit.fitting.result import Fit
from scalefit.fitting.shrinkage import shrink_refits
from scalefit.solvers.levenberg import minimize
from scalefit.solvers.linear import solve_normal

Array = np.ndarray

_STEPS = 200


def refits(fit: Fit) -> Callable[[Array, Array], tuple[Array, Array]]:
    """Return a function (weights, observed) -> (phi, usable) for blocks of resamples."""
    problem = fit.problem
    free = np.array([state in ("free", "unidentified") for state in fit.states])
    problem = replace(
        problem, lower=np.where(free, problem.lower, fit.phi), upper=np.where(free, problem.upper, fit.phi)
    )
    if not free.any():
        raise FitError("every parameter is held: there is nothing to resample")
    if problem.is_linear() and not problem.loss.robust:
        return lambda weights, observed: _linear_refits(fit, problem, free, weights, observed)
    return lambda weights, observed: _nonlinear_refits(fit, problem, free, weights, observed)


def _linear_refits(fit: Fit, problem: Problem, free: Array, weights: Array, observed: Array) -> tuple[Array, Array]:
    """Solve the normal equations around the fit, which keeps them well scaled."""
    value, jacobian = problem.values(problem.space)(fit.phi[None])
    design, residual = jacobian[0, free].T, observed - value[0]
    pairs = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    size = max(len(weights), len(np.atleast_2d(residual)))
    hessian = np.broadcast_to(
        (weights @ pairs).reshape(-1, design.shape[1], design.shape[1]), (size, *[free.sum()] * 2)
    )
    gradient = (weights * residual) @ design
    phi = np.tile(fit.phi, (size, 1))
    phi[:, free] += solve_normal(hessian, gradient)
    return shrink_refits(fit, phi, hessian, free), identified(hessian)


def _nonlinear_refits(fit: Fit, problem: Problem, free: Array, weights: Array, observed: Array) -> tuple[Array, Array]:
    function = problem.values(problem.space)
    size = max(len(weights), len(np.atleast_2d(observed)))

    def model(live: Array) -> Callable[[Array], tuple[Array, Array]]:
        target = observed[live] if observed.ndim > 1 else observed

        def residuals(phi: Array) -> tuple[Array, Array]:
            value, jacobian = function(phi)
            return problem.soften(value - target, jacobian)

        return residuals

    everyone = np.arange(size)
    solution = minimize(
        model(everyone),
        np.tile(fit.phi, (size, 1)),
        loss=problem.loss,
        weights=np.broadcast_to(weights, (size, weights.shape[1])),
        lower=problem.lower,
        upper=problem.upper,
        iterations=_STEPS,
        subset=model,
    )
    _, jacobian = model(everyone)(solution.phi)
    columns = jacobian[:, free]
    hessian = (columns * weights[:, None, :]) @ columns.transpose(0, 2, 1)
    return shrink_refits(fit, solution.phi, hessian, free), solution.converged & identified(hessian)


def identified(hessian: Array) -> Array:
    """Tell which normal matrices, scaled to unit diagonal, are safely of full rank."""
    diagonal = np.sqrt(np.einsum("kii->ki", hessian))
    usable = (diagonal > 0).all(axis=1)
    scale = np.where(diagonal > 0, diagonal, 1.0)
    smallest = np.linalg.eigvalsh(hessian / (scale[:, :, None] * scale[:, None, :]))[:, 0]
    return usable & (smallest > 1e-13)
