"""Find the minimum: directly where the law is linear, else by scouting many starts and polishing the best."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from scalefit.errors import FitError
from scalefit.fitting.lmfit_bridge import Settings
from scalefit.fitting.problem import Problem, fit_bounds
from scalefit.fitting.starts import starting_points
from scalefit.laws.formula import Law
from scalefit.solvers.levenberg import Solution, minimize
from scalefit.solvers.linear import least_squares

Array = np.ndarray

_SCOUTS, _MOST_SCOUTS, _SCOUT_STEPS, _FINALISTS, _STEPS = 8, 64, 12, 3, 1000
_THIN = 2000


def solve(problem: Problem, law: Law, settings: Settings) -> tuple[Problem, Solution]:
    """Return the lowest minimum found, and the problem it solves (some coefficients may have turned into logs).

    When there are very many rows the search runs on an even sample of them, and only its winner sees all.

    Raises
    ------
    FitError
        If no starting point gives finite values.
    """
    if problem.is_linear() and not problem.loss.robust:
        return problem, _solve_linear(problem)
    thin = _thinned(problem)
    scouts = starting_points(thin, settings.start, _how_many(problem))
    scouts = scouts[np.isfinite(thin.objective(scouts))]
    if len(scouts) == 0:
        raise FitError(
            f"no starting point gives {law.target} finite values on these rows; "
            f"pass start={{...}} near the answer, or check the units of the inputs"
        )
    problem, scouts = _log_positive_coefficients(problem, law, settings, scouts)
    tried = _run(_thinned(problem), scouts, _SCOUT_STEPS)
    finalists = tried.phi[np.argsort(tried.objective, kind="stable")[:_FINALISTS]]
    if settings.start.keys() | settings.fixed.keys() >= set(problem.parameters):
        finalists = np.concatenate([scouts[:2], finalists])  # a start the user gave is followed to its end
    if len(thin.target) < len(problem.target):  # most of the way on the sample, the last of it on all rows
        ended = _run(_thinned(problem), finalists, _STEPS)
        finalists = ended.phi[np.argsort(ended.objective, kind="stable")[:1]]
    solution = _run(problem, finalists, _STEPS)
    best = solution.take(np.array([_pick(problem, solution, scouts[0])]))
    # Rounding ends the descent of an exact fit before the solver's own test, relative to an objective near zero, can.
    return problem, replace(best, converged=best.converged | (best.objective <= problem.rounding()))


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
    equal = np.flatnonzero(solution.objective <= solution.objective[best] * (1 + 1e-9) + rounding)
    distance = (((solution.phi[equal] - near) / np.maximum(np.abs(near), 1e-3)) ** 2).sum(axis=1)
    return int(equal[np.argmin(distance)])


def refine(problem: Problem, phi: Array) -> Solution:
    """Follow one start (1, p) to its minimum."""
    return _run(problem, phi, _STEPS)


def _run(problem: Problem, scouts: Array, steps: int) -> Solution:
    return minimize(
        problem.model(),
        scouts,
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


def _thinned(problem: Problem) -> Problem:
    """Return the problem on an even sample of its rows (they come sorted) when there are very many."""
    counted = np.flatnonzero(problem.weights > 0)
    if len(counted) <= _THIN:
        return problem
    return problem.take(counted[np.linspace(0, len(counted) - 1, _THIN).astype(int)])


def _log_positive_coefficients(problem: Problem, law: Law, settings: Settings, scouts: Array) -> tuple[Problem, Array]:
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
    logged = replace(law, positive=frozenset(law.positive) | chosen)
    lower, upper = fit_bounds(logged, settings.bounds, settings.fixed)
    posed = replace(problem, derivation=logged.derivation, lower=lower, upper=upper)
    columns = [problem.parameters.index(n) for n in chosen]
    same_sign = (natural[:, columns] > 0).all(axis=1)
    return posed, logged.derivation.to_fit(natural[same_sign])
