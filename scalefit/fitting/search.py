"""Find the minimum, directly where the law is linear, else from many starts; and find it again for many resamples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from scalefit.errors import FitError
from scalefit.fitting.fit_values import FitValues
from scalefit.fitting.parameters import Settings
from scalefit.fitting.problem import Problem
from scalefit.fitting.shrinkage import shrink_refits
from scalefit.solvers.levenberg import Solution, minimize
from scalefit.solvers.linear import project, solve_normal
from scalefit.solvers.losses import Squared

if TYPE_CHECKING:
    from scalefit.laws.derivation import Derivation, Scale

Array = np.ndarray

# A slope s multiplies a function g of the inputs inside exp or a power. Where s times the spread of g is far below one
# the term is a constant, far above one a cliff. A location lies among the inputs, or a few spreads outside them.
_MAGNITUDES = np.geomspace(0.15, 12.0, 8)
_QUANTILES = np.linspace(0.02, 0.98, 7)
_MARGINS = np.array([0.3, 1.0, 3.0])
_FALLBACK = np.array([0.03, 0.1, 0.3, 1.0, 3.0, 10.0])
_LIMIT = 600  # points of the grid that are projected: few enough to cost milliseconds


def starting_points(problem: Problem, start: Mapping[str, float], keep: int) -> Array:
    """Return `keep` or a few more promising starting points, in fit coordinates.

    A grid over the nonlinear parameters is projected and the best points of the grid are returned. A complete `start`
    comes before them, as given and as projected (its nonlinear values with the best linear ones); a partial one adds a
    grid in which its parameters are held.

    """
    held, given = _held(problem), _given(problem, start)
    whole = np.empty((0, len(problem.parameters)))
    grids = [held]
    if len(given) == len(problem.parameters):
        point = np.array([[given[name] for name in problem.parameters]])
        whole = np.concatenate([point, _projected(problem, point, _free_linear(problem, held))])
    elif len(given) > len(held):
        grids.append(given)
    linears = [_free_linear(problem, fixed) for fixed in grids]
    parts = [_projected(problem, _grid(problem, f, linear), linear) for f, linear in zip(grids, linears, strict=True)]
    points = np.concatenate(parts)
    # Stable: among equal starts the first of the grid goes first, on every machine.
    order = np.argsort(problem.objective(points), kind="stable")
    return np.concatenate([whole, points[order[:keep]]])


def _held(problem: Problem) -> dict[str, float]:
    where = np.flatnonzero(problem.lower == problem.upper)
    return {problem.parameters[j]: float(problem.lower[j]) for j in where}


def _given(problem: Problem, start: Mapping[str, float]) -> dict[str, float]:
    """Fixed parameters and the user's starts, in fit coordinates."""
    natural = np.array([start.get(name, np.nan) for name in problem.parameters])
    phi = np.clip(problem.derivation.to_fit(natural), problem.lower, problem.upper)
    named = {n: float(v) for n, v in zip(problem.parameters, phi, strict=True) if np.isfinite(v)}
    return named | _held(problem)


def _free_linear(problem: Problem, fixed: Mapping[str, float]) -> Array:
    """Indices of the linear parameters to project out; the form with more of them is used."""
    names = [n for n in problem.derivation.linear(problem.projection_space) if n not in fixed]
    return np.array([problem.parameters.index(n) for n in names], dtype=int)


def _projected(problem: Problem, phi: Array, linear: Array) -> Array:
    if len(linear) == 0:
        return phi
    target, weights = problem.projection_target()
    logged = problem.derivation.logged & (problem.projection_space == "plain")
    # Squared, without bounds, and with relative errors for differences of logs: good enough to start from.
    points = project(problem.values(problem.projection_space), phi, linear, logged, target, weights)
    return np.clip(points, problem.lower, problem.upper)


def _grid(problem: Problem, fixed: Mapping[str, float], linear: Array) -> Array:
    """Candidates of the nonlinear parameters: all combinations if few, an even sample of them otherwise."""
    axes = []
    for j, name in enumerate(problem.parameters):
        if name in fixed:
            axes.append(np.array([fixed[name]]))
        elif j in linear:
            axes.append(np.zeros(1))
        else:
            values = candidates(problem.derivation, name, problem.inputs)
            axes.append(np.unique(np.clip(values, problem.lower[j], problem.upper[j])))
    sizes = np.array([len(axis) for axis in axes])
    if sizes.prod(dtype=float) <= _LIMIT:
        return np.stack([g.ravel() for g in np.meshgrid(*axes, indexing="ij")], axis=1)
    # Additive recurrence (Roberts' generalised golden ratio): evenly spread, no random numbers.
    free = np.flatnonzero(sizes > 1)
    golden = np.roots([1.0, *np.zeros(len(free) - 1), -1.0, -1.0])
    ratio = 1 / float(golden[np.abs(golden.imag) < 1e-9].real.max())
    share = (0.5 + np.outer(np.arange(1, _LIMIT + 1), ratio ** np.arange(1, len(free) + 1))) % 1.0
    points = np.array([[axis[0] for axis in axes]]).repeat(_LIMIT, axis=0)
    for k, axis in enumerate(free):
        points[:, axis] = axes[axis][(share[:, k] * sizes[axis]).astype(int)]
    return points


def candidates(derivation: Derivation, name: str, inputs: Sequence[Array]) -> Array:
    """Return values worth trying for one nonlinear parameter, in its fit coordinate."""
    # A parameter may stand in several places of a law, and each suggests values of its own.
    logged = bool(derivation.logged[derivation.parameters.index(name)])
    found = [_from_scale(scale, inputs, logged) for scale in derivation.scales[name]]
    found = [values[np.isfinite(values)] for values in found]
    if not any(len(values) for values in found):
        found = [np.log(_FALLBACK) if logged else np.concatenate([-_FALLBACK, _FALLBACK])]
    return np.concatenate(found)


def _from_scale(scale: Scale, inputs: Sequence[Array], logged: bool) -> Array:
    values = scale.cofactor(inputs)
    values = values[np.isfinite(values)] if np.ndim(values) else np.atleast_1d(values)
    if len(values) == 0:
        return np.empty(0)
    # Where the rows do not vary the input, its size says how large a slope may be.
    spread = float(np.ptp(values)) or float(np.abs(values).max())
    if scale.kind == "location":
        outside = np.concatenate([values.min() - _MARGINS * spread, values.max() + _MARGINS * spread])
        return np.concatenate([np.quantile(values, _QUANTILES), outside])
    sizes = _MAGNITUDES / spread if spread > 0 else _FALLBACK
    return np.log(sizes) if logged else np.concatenate([-sizes, sizes])


# Many starts are followed for a few steps, the best three or one in five to their end: most lead to the same minimum.
# With three always, a broken power law missed its minimum in 8 of 40 sets, with one in five in 6.
_SCOUTS, _MOST_SCOUTS, _SCOUT_STEPS, _FINALISTS, _FOLLOWED, _STEPS = 8, 64, 12, 3, 5, 1000
_REFIT_STEPS = 200  # from the fit to a resample's own minimum, which is near
_SHARES = np.array([0.02, 0.1, 0.3, 0.6])  # of the target, at which a term that ran to zero is tried again
_GONE, _REOPENINGS = 1e-3, 3
_THIN = 2000  # rows beyond which the search runs on an even sample


def solve(problem: Problem, settings: Settings) -> tuple[Problem, Solution]:
    """Return the lowest minimum found, and the problem it solves (some coefficients may have turned into logs).

    When there are very many rows the search runs on an even sample of them, and only its winner sees all.
    """
    if problem.is_linear() and not problem.loss.robust:
        return problem, _solve_linear(problem)
    thin = _thinned(problem)
    scouts = starting_points(thin, settings.start, _how_many(problem))
    # A start that overflows has no downhill direction to follow.
    scouts = scouts[np.isfinite(thin.objective(scouts))]
    if len(scouts) == 0:
        raise FitError(
            f"no starting point gives {problem.law.target} finite values on these rows; "
            f"pass start={{...}} near the answer, or check the units of the inputs"
        )
    problem, scouts = _log_positive_coefficients(problem, settings, scouts)
    count = max(_FINALISTS, len(scouts) // _FOLLOWED)
    finalists = _best(refine(_thinned(problem), scouts, _SCOUT_STEPS), count)
    if problem.loss.robust:  # its curvature misleads far from the answer, where the squared one finds the way
        squared = replace(_thinned(problem), loss=Squared())
        ended = refine(squared, _best(refine(squared, scouts, _SCOUT_STEPS), count), _STEPS)
        finalists = np.concatenate([finalists, _best(ended, 1)])
        # One that crawls is left behind: with a robust loss one of many often does, for a thousand steps.
        finalists = _best(refine(_thinned(problem), finalists, _REFIT_STEPS), _FINALISTS)
    if settings.start.keys() | settings.fixed.keys() >= set(problem.parameters):
        finalists = np.concatenate([scouts[:2], finalists])  # a start the user gave is followed to its end
    if len(thin.target) < len(problem.target):  # most of the way on the sample, the last of it on all rows
        finalists = _best(refine(_thinned(problem), finalists, _STEPS), 1)
    solution = refine(problem, finalists, _STEPS)
    best = _reopened(problem, solution.take(np.array([_pick(problem, solution, scouts[0])])))
    if not np.isfinite(best.objective[0]):
        raise FitError(
            f"{problem.law.formula!r} is not finite on every row anywhere the search went; pass start={{...}}"
        )
    # Rounding ends the descent of an exact fit before the solver's own test, relative to an objective near zero, can.
    return problem, replace(best, converged=best.converged | (best.objective <= problem.rounding()))


def _best(solution: Solution, count: int) -> Array:
    """Return where the lowest few runs ended."""
    return solution.phi[np.argsort(solution.objective, kind="stable")[:count]]


def _reopened(problem: Problem, best: Solution) -> Solution:
    """Go on from points where terms that ran to zero, or to a bound, are back, for as long as that leads lower.

    The log of a coefficient near zero feels no slope, so that one that vanished on the way never comes back by itself.
    """
    for _ in range(_REOPENINGS):
        starts = _reopenings(problem, best.phi[0])
        starts = starts[np.isfinite(problem.objective(starts))] if len(starts) else starts
        if not len(starts):
            break
        found = refine(problem, _best(refine(_thinned(problem), starts, _REFIT_STEPS), 1), _STEPS)
        if not found.objective[0] < best.objective[0] * (1 - 1e-9):
            break
        best = found
    return best


def _reopenings(problem: Problem, phi: Array) -> Array:
    """Return starts (K, p) for every term that is gone: it at a few sizes, the linear parameters projected anew."""
    derivation, open_ = problem.derivation, problem.lower < problem.upper
    share = np.abs(problem.values("plain")(phi[None])[1][0]).max(axis=1) / np.abs(problem.target).max()
    gone = open_ & ((derivation.logged & (share < _GONE)) | (phi <= problem.lower) | (phi >= problem.upper))
    linear, starts = derivation.linear("plain"), [np.empty((0, len(phi)))]
    for j in np.flatnonzero(gone):
        name = problem.parameters[j]
        if name in linear:
            unit = np.where(np.arange(len(phi)) == j, 0.0 if derivation.logged[j] else 1.0, phi)
            slope = np.abs(problem.values("plain")(unit[None])[1][0, j])
            sizes = _SHARES * float(np.median(np.abs(problem.target) / slope))
            sizes = np.log(sizes) if derivation.logged[j] else sizes
        else:
            sizes = candidates(derivation, name, problem.inputs)
        points = np.tile(phi, (len(sizes), 1))
        points[:, j] = np.clip(sizes, problem.lower[j], problem.upper[j])
        starts += [points, _projected(problem, points, _free_linear(problem, {name: 0.0} | _held(problem)))]
    return np.concatenate(starts)


def _how_many(problem: Problem) -> int:
    """Scouts to send: twice as many for each nonlinear parameter after the second.

    Eight were too few for Kaplan's law, which has four: 4 of 18 subsets of the Step Law cells ended in a local minimum.
    """
    free = int((problem.lower < problem.upper).sum())
    nonlinear = free - len(problem.derivation.linear(problem.projection_space))
    return min(_SCOUTS * 2 ** max(nonlinear - 2, 0), _MOST_SCOUTS)


def _pick(problem: Problem, solution: Solution, near: Array) -> int:
    """Return the lowest minimum; among equal ones (parameters that may swap places) the one nearest to a point."""
    best = solution.best()
    residual = problem.model()(solution.phi[best : best + 1])[0][0]
    rounding = 8 * np.finfo(float).eps * float(problem.weights @ np.abs(residual * problem.observed))
    # Sums of equal terms have several equal minima; without this rule the last digit would choose among them.
    equal = np.flatnonzero(solution.objective <= solution.objective[best] * (1 + 1e-9) + rounding)
    distance = (((solution.phi[equal] - near) / np.maximum(np.abs(near), 1e-3)) ** 2).sum(axis=1)
    return int(equal[np.argmin(distance)])


def refine(problem: Problem, starts: Array, steps: int) -> Solution:
    """Follow starts (K, p) downhill to their minima, or for a number of steps."""
    return minimize(
        problem.model(),
        starts,
        loss=problem.loss,
        weights=problem.weights,
        lower=problem.lower,
        upper=problem.upper,
        iterations=steps,
    )


def _solve_linear(problem: Problem) -> Solution:
    free = problem.lower < problem.upper
    phi = np.where(free, 0.0, problem.lower)[None]
    residual, jacobian = problem.model()(phi)
    if free.any():
        phi[0, free] = least_squares(jacobian[0, free].T, -residual[0], problem.weights)
    return Solution(phi, problem.objective(phi), np.array([True]), 1)


def least_squares(design: Array, target: Array, weights: Array | None = None) -> Array:
    """Solve one weighted problem; the solution of least scaled norm when the columns are dependent."""
    root = np.ones(len(target)) if weights is None else np.sqrt(weights)
    weighted = design * root[:, None]
    # Columns of length one: prefactors and curvatures differ by orders of magnitude, and lstsq cuts by relative size.
    scale = np.linalg.norm(weighted, axis=0)
    scale[scale == 0] = 1.0
    return np.linalg.lstsq(weighted / scale, target * root, rcond=None)[0] / scale


def _thinned(problem: Problem) -> Problem:
    """Return the problem on an even sample of its rows (they come sorted) when there are very many."""
    counted = np.flatnonzero(problem.weights > 0)
    if len(counted) <= _THIN:
        return problem
    return problem.take(counted[np.linspace(0, len(counted) - 1, _THIN).astype(int)])


def _log_positive_coefficients(problem: Problem, settings: Settings, scouts: Array) -> tuple[Problem, Array]:
    """Fit linear coefficients that start positive in logs, where the valley of a sum of powers is nearly straight.

    Only for positive targets, and not for coefficients whose bounds the user chose. A coefficient that wants to
    change sign runs to zero and is told of in the result.
    """
    derivation = problem.derivation
    if problem.space == "plain" or derivation.logged[: len(problem.parameters)].all():
        return problem, scouts
    natural = derivation.to_natural(scouts)
    open_ = {n for n in derivation.linear("plain") if n not in settings.bounds and n not in settings.fixed}
    chosen = {n for j, n in enumerate(problem.parameters) if n in open_ and natural[0, j] > 0}
    chosen -= derivation.positive
    if not chosen:
        return problem, scouts
    logged = replace(problem.law, positive=problem.law.positive | chosen)
    posed = replace(problem, law=logged)  # nothing bounds what was chosen, in either form
    columns = [problem.parameters.index(n) for n in chosen]
    # A start in which a coefficient has the other sign has no logarithm: it is left out, the best start never is.
    same_sign = (natural[:, columns] > 0).all(axis=1)
    return posed, logged.derivation.to_fit(natural[same_sign])


Refits = tuple[Array, Array, Array]
"""Parameters (K, p), normal matrices of the free ones (K, free, free) and which refits converged (K,)."""


def refits(fit: FitValues) -> Callable[[Array, Array], tuple[Array, Array]]:
    """Return a function (weights, observed) -> (phi, usable) for blocks of resamples."""
    problem, free = fit.problem, fit.is_free
    if not free.any():
        raise FitError("every parameter is held: there is nothing to resample")
    # What the fit held stays held: a parameter at its bound would else leave it in some refits and not in others.
    problem = replace(
        problem, lower=np.where(free, problem.lower, fit.phi), upper=np.where(free, problem.upper, fit.phi)
    )
    refit = _refit_linear if problem.is_linear() and not problem.loss.robust else _refit_nonlinear

    def solve_block(weights: Array, observed: Array) -> tuple[Array, Array]:
        phi, hessian, converged = refit(problem, fit.phi, weights, observed)
        # Each refit is shrunk as the fit was: bare, its curvature would spread far wider than the fit's own.
        phi = shrink_refits(fit, phi, hessian) if fit.shrinkage > 0 else phi
        return phi, converged & identified(hessian)

    return solve_block


def _refit_linear(problem: Problem, start: Array, weights: Array, observed: Array) -> Refits:
    """Solve the normal equations around the fit, which keeps them well scaled."""
    free = problem.lower < problem.upper
    value, jacobian = problem.values(problem.space)(start[None])
    design, residual = jacobian[0, free].T, observed - value[0]
    pairs = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    size = max(len(weights), len(np.atleast_2d(residual)))
    hessian = np.broadcast_to(
        (weights @ pairs).reshape(-1, design.shape[1], design.shape[1]), (size, *[free.sum()] * 2)
    )
    # One Gauss-Newton step from the fit is exact for a linear law, and steps are small where values may be large.
    phi = np.tile(start, (size, 1))
    phi[:, free] += solve_normal(hessian, (weights * residual) @ design)
    return phi, hessian, np.ones(size, dtype=bool)


def _refit_nonlinear(problem: Problem, start: Array, weights: Array, observed: Array) -> Refits:
    """Follow every resample from the fit to its own minimum."""
    size = max(len(weights), len(np.atleast_2d(observed)))

    # The solver drops resamples that have arrived; only the target of those still under way is compared.
    def model(live: Array) -> Callable[[Array], tuple[Array, Array]]:
        return problem.model(observed[live] if observed.ndim > 1 else observed)

    everyone = np.arange(size)
    solution = minimize(
        model(everyone),
        np.tile(start, (size, 1)),
        loss=problem.loss,
        weights=np.broadcast_to(weights, (size, weights.shape[1])),
        lower=problem.lower,
        upper=problem.upper,
        iterations=_REFIT_STEPS,
        subset=model,
    )
    _, jacobian = model(everyone)(solution.phi)
    columns = jacobian[:, problem.lower < problem.upper]
    return solution.phi, (columns * weights[:, None, :]) @ columns.transpose(0, 2, 1), solution.converged


def identified(hessian: Array) -> Array:
    """Tell which normal matrices, scaled to unit diagonal, are safely of full rank."""
    diagonal = np.sqrt(np.einsum("kii->ki", hessian))
    usable = (diagonal > 0).all(axis=1)
    scale = np.where(diagonal > 0, diagonal, 1.0)
    smallest = np.linalg.eigvalsh(hessian / (scale[:, :, None] * scale[:, None, :]))[:, 0]
    return usable & (smallest > 1e-13)  # rounding leaves a singular matrix about 1e-16 times its size
