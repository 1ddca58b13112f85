"""Rows that are bounds: an optimum at the end of its grid says on which side the truth lies, and no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from scalefit.errors import FitError
from scalefit.fitting.covariance import Errors, invert, judge
from scalefit.fitting.parameters import Settings
from scalefit.fitting.problem import Problem
from scalefit.fitting.search import refine, solve
from scalefit.solvers.distributions import hazard, hazard_slope, log_tail
from scalefit.solvers.levenberg import Solution

Array = np.ndarray

_REFITS = 1000
"""Steps the solver may take at each scatter."""
_STEP, _WIDEST = 1.5, 40.0
"""Steps, in logs, in which the scatter is bracketed, and how far from the first guess."""


def check_points(problem: Problem) -> None:
    """Raise FitError unless the points alone outnumber the parameters: bounds give no scatter."""
    counted = problem.weights > 0
    bounds = counted & problem.bounds
    free = int((problem.lower < problem.upper).sum())
    points = int(counted.sum() - bounds.sum())
    if not bounds.any() or points > free:
        return
    sides = len(np.unique(problem.censored[bounds]))  # type: ignore[index]
    where = "all on the same side" if sides == 1 else "on both sides"
    raise FitError(
        f"{int(bounds.sum())} of {int(counted.sum())} rows are bounds, {where}; {points} point(s) cannot give "
        f"{free} parameters and the scatter about them. Widen the grids of those cells until the best lies inside, or "
        "fit a law with fewer parameters"
    )


def solve_censored(problem: Problem, settings: Settings) -> tuple[Problem, Solution]:
    r"""Find law and scatter together; a bound counts with the probability of lying beyond it.

    The scatter s solves :math:`\sum_{points} e^2 - \sum_{bounds} \lambda(z)\,z = n_{points} (1 - p/m)`, where m counts
    points and the shares of a point that bounds are worth (`estimate`). Without bounds that is the usual estimate;
    without p it is the score of the censored normal likelihood (Tobin 1958).
    """
    taken, first = solve(replace(problem, censored=None), settings)
    taken = replace(taken, censored=problem.censored)
    points, free = int(((taken.weights > 0) & ~taken.bounds).sum()), int((taken.lower < taken.upper).sum())
    phi = first.phi

    def at(log_scale: float) -> tuple[Problem, Solution]:
        posed = replace(taken, scale=float(np.exp(log_scale)))
        return posed, refine(posed, phi, _REFITS)

    def excess(log_scale: float) -> float:
        nonlocal phi
        posed, solution = at(log_scale)
        phi = solution.phi  # the next scatter starts where this one ended
        e, z = standardized(posed, phi[0])
        worth = points + float(hazard_slope(z).sum())
        return float((e**2).sum() - (hazard(z) * z).sum()) - points * (1 - free / worth)

    # An exact fit to the points has no scatter to start from; a billionth of the target stands in for it.
    typical = np.sqrt(max(2 * float(first.objective[0]) / points, (1e-9 * np.abs(taken.observed).max()) ** 2))
    return at(_root(excess, float(np.log(typical))))


def _root(falling: Callable[[float], float], start: float) -> float:
    """Return where a falling function crosses zero; the end of the search where it does not."""
    from scipy.optimize import brentq

    value, near = falling(start), start
    step = _STEP if value > 0 else -_STEP
    # brentq needs a bracket: walk the way the sign points until it changes.
    far = start
    while (value > 0) == (step > 0) and abs(far - start) < _WIDEST:
        near, far = far, far + step
        value = falling(far)
    # 1e-7 in ln s is far below its standard error, which is about (2 n)**-0.5.
    return far if (value > 0) == (step > 0) else float(brentq(falling, near, far, xtol=1e-7))


def standardized(problem: Problem, phi: Array) -> tuple[Array, Array]:
    """Return residuals of the points and distances z inside the bounds, in units of each row's scatter."""
    counted = problem.weights > 0
    away = (problem.values(problem.space)(phi[None])[0][0] - problem.observed) * np.sqrt(problem.weights)
    away = away / problem.scale
    bounds = problem.bounds & counted
    return away[~bounds & counted], problem.censored[bounds] * away[bounds]  # type: ignore[index]


def log_likelihood(problem: Problem, phi: Array) -> float:
    """Return the log of the censored normal likelihood."""
    e, z = standardized(problem, phi)
    weights = problem.weights[(problem.weights > 0) & ~problem.bounds]
    # A point counts with its density and a bound with a probability: likelihoods compare only on the same bounds.
    density = 0.5 * np.log(weights / (2 * np.pi)) - np.log(problem.scale) - 0.5 * e**2
    return float(density.sum() + log_tail(z).sum())


def estimate(problem: Problem, phi: Array, free: Array) -> Errors:
    r"""Estimate the covariance from the observed information of law and scatter together.

    A bound informs with the share :math:`v = \lambda(z)(\lambda(z) + z)`, between 0 and 1, of a point. Law and scatter
    are correlated here, since a larger scatter explains the same bounds from a law farther inside; the scatter is
    therefore inverted with the law. Degrees of freedom are points plus shares minus parameters.
    """
    value, jacobian = problem.values(problem.space)(phi[None])
    rows = problem.weights > 0
    root = np.sqrt(problem.weights[rows]) / problem.scale
    e = (value[0] - problem.observed)[rows] * root
    side = np.where(problem.bounds[rows], problem.censored[rows], 0)  # type: ignore[index]
    rate, share = hazard(side * e), hazard_slope(side * e)
    share = np.where(side == 0, 1.0, share)
    design = jacobian[0, free][:, rows].T * root[:, None]
    # Second derivatives of minus the log likelihood in (law, ln scatter), z = side * e for a bound.
    crossed = np.where(side == 0, -2 * e, side * (rate - share * side * e))
    scatter = np.where(side == 0, 2 * e**2, side * e * (share * side * e - rate))
    law_block, mixed = design.T @ (design * share[:, None]), design.T @ crossed
    informed = float(share.sum())
    dof = int(np.floor(informed)) - int(free.sum())
    _, condition, loose = invert(design * np.sqrt(share)[:, None])
    total = max(float(scatter.sum()), np.finfo(float).tiny)
    spread = _inverse(law_block - np.outer(mixed, mixed) / total, law_block)
    spread = spread if dof > 0 else np.full_like(spread, np.nan)
    return judge(problem, jacobian[0], free, Errors(spread, problem.scale, dof, condition, loose))


def _inverse(information: Array, fallback: Array) -> Array:
    """Invert a matrix; one that is not positive definite gives way to the information at a known scatter."""
    scale = np.sqrt(np.maximum(np.diag(fallback), np.finfo(float).tiny))
    scaled = information / np.outer(scale, scale)
    # Few points and many bounds: the scatter may take all the information, and variances would come out negative.
    if len(scaled) and np.linalg.eigvalsh(scaled)[0] < 1e-10:
        scaled = fallback / np.outer(scale, scale)
    return np.linalg.pinv(scaled, rcond=1e-12, hermitian=True) / np.outer(scale, scale)
