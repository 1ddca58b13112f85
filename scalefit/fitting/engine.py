"""`fit`: a law and a table in, a `Fit` out."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from scalefit import expressions
from scalefit.errors import FitError
from scalefit.fitting import covariance
from scalefit.fitting.data import cells_of, collect
from scalefit.fitting.lmfit_bridge import Settings, read_settings
from scalefit.fitting.problem import Problem
from scalefit.fitting.result import Fit
from scalefit.fitting.starts import starting_points
from scalefit.fitting.status import FitStatus
from scalefit.laws import get_law
from scalefit.laws.formula import Law
from scalefit.notes import Note
from scalefit.observations import Observations
from scalefit.solvers.levenberg import Solution, minimize
from scalefit.solvers.linear import least_squares
from scalefit.solvers.losses import Loss, Squared
from scalefit.vocabulary import quantity_of

if TYPE_CHECKING:
    import lmfit

Array = np.ndarray

_SCOUTS, _SCOUT_STEPS, _FINALISTS, _STEPS = 8, 12, 3, 1000
_THIN = 2000
_OUTLIER = 10.0


def fit(
    law: Law | str,
    data: Any,
    *,
    loss: Loss | None = None,
    space: str = "auto",
    start: Mapping[str, float] | None = None,
    params: lmfit.Parameters | None = None,
    weights: Any = None,
) -> Fit:
    r"""Fit a law to a table.

    Minimises :math:`\sum_i w_i\,\rho(r_i)` with :math:`r_i = \ln f(x_i) - \ln y_i` in log space and
    :math:`f(x_i) - y_i` in plain space. A law that is linear in that space is solved directly; any other starts from
    variable projection and is polished from several starts by Levenberg-Marquardt with exact derivatives.

    Parameters
    ----------
    law : Law or str
        A law, its name in the catalogue, or a formula.
    data : DataFrame, Sweep, Optima or mapping of columns
        The rows. Symbols of the law find their columns (N -> params); unknown names that are columns are inputs.
    loss : Loss, optional
        `Squared()` by default, or `Huber(delta)`, `SoftL1(scale)`.
    space : {"auto", "log", "plain"}
        "auto" means logs for the quantities of the vocabulary, which are positive, and plain otherwise.
    start : mapping of str to float, optional
        Starting values; a complete one replaces the search for starts.
    params : lmfit.Parameters, optional
        Fixes (``vary=False``), bounds, ties (``expr``) and starting values.
    weights : array_like (n,) or str, optional
        Weight of every row, proportional to its inverse variance, or the column that holds it.

    Returns
    -------
    Fit
        With a status that says whether the minimum was found and the parameters are identified.

    Raises
    ------
    FitError
        Fewer rows than parameters, no finite starting point, or settings that contradict each other.
    SweepError
        Rows that cannot be used: not finite, not positive, text.
    LawError
        The law needs a column that is not there.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"params": [1e7, 1e8, 1e9], "loss": [4.0, 3.2, 2.56]})
    >>> round(fit("L = c * N**a", table).values["a"], 4)
    -0.0969
    """
    declared = get_law(law)
    settings = read_settings(params, start, declared)
    bound, observed = collect(_write_ties(declared, settings), data, weights)
    problem = _pose(bound, observed, settings, loss or Squared(), space)
    _check_count(problem)
    problem, solution = _solve(problem, bound, settings)
    return _conclude(problem, solution, observed, settings)


def _write_ties(law: Law, settings: Settings) -> Law:
    """Write the tied parameters into the formula, so that they have exact derivatives like everything else."""
    if not settings.ties:
        return law
    replaced = {name: expressions.parse(text) for name, text in settings.ties.items()}
    for name, tree in replaced.items():
        strange = [n for n in expressions.names(tree) if n not in law.parameters or n in settings.ties]
        if strange:
            raise FitError(
                f"the tie {name} = {settings.ties[name]} may use free parameters only, not {', '.join(strange)}"
            )

    class Substitute(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return replaced.get(node.id, node)

    body = ast.unparse(Substitute().visit(expressions.parse(law.formula.partition("=")[2])))
    kept = law.to_dict() | {"formula": f"{law.target} = {body}"}
    for key in ("positive", "bounds", "meanings", "units"):
        names = [name for name in kept[key] if name not in settings.ties]
        kept[key] = {name: kept[key][name] for name in names} if isinstance(kept[key], dict) else names
    return Law.from_dict(kept)


def _pose(law: Law, observed: Observations, settings: Settings, loss: Loss, space: str) -> Problem:
    """Lay law and rows out as arrays."""
    if space not in ("auto", "log", "plain"):
        raise FitError(f"space: expected 'auto', 'log' or 'plain', found {space!r}")
    if space == "auto":
        space = "log" if quantity_of(law.target) is not None else "plain"
    target = observed.table.iloc[:, -1].to_numpy()
    if space == "log" and (target <= 0).any():
        first = int(np.flatnonzero(target <= 0)[0])
        raise FitError(
            f"space='log' needs a positive {law.target}; row {first + 1} holds {target[first]}. Use space='plain'"
        )
    if not law.parameters:
        raise FitError(f"{law.formula!r} has no parameter to fit; evaluate it with law({{}}, table)")
    derivation = law.derivation
    lower, upper = _bounds(law, settings)
    weights = observed.weights if observed.weights is not None else np.ones(len(target))
    return Problem(
        derivation,
        derivation.enter(law.read_inputs(observed.table)),
        target,
        weights,
        space,
        loss,
        lower,
        upper,
    )


def _bounds(law: Law, settings: Settings) -> tuple[Array, Array]:
    """Bounds in fit coordinates; fixed parameters have equal ones."""
    limits = {name: pair for name, pair in settings.bounds.items() if name in law.parameters}
    limits |= {name: (value, value) for name, value in settings.fixed.items()}
    low = np.array([limits.get(name, (-np.inf, np.inf))[0] for name in law.parameters])
    high = np.array([limits.get(name, (-np.inf, np.inf))[1] for name in law.parameters])
    logged = law.derivation.logged
    below = logged & (high <= 0)
    if below.any():
        name = law.parameters[int(np.flatnonzero(below)[0])]
        raise FitError(f"{name} must be positive in {law.formula!r}; its bound or fixed value is not")
    return law.derivation.to_fit(np.where(logged, np.maximum(low, 0.0), low)), law.derivation.to_fit(high)


def _check_count(problem: Problem) -> None:
    free = int((problem.lower < problem.upper).sum())
    rows = int((problem.weights > 0).sum())
    if rows < free:
        raise FitError(
            f"{free} parameters cannot be fitted to {rows} row(s): bring at least {free + 1} rows, "
            f"fix or tie parameters (params=), or choose a law with fewer"
        )


def _solve(problem: Problem, law: Law, settings: Settings) -> tuple[Problem, Solution]:
    free = problem.lower < problem.upper
    linear = set(problem.derivation.linear(problem.space))
    unbounded = not np.isfinite(np.concatenate([problem.lower[free], problem.upper[free]])).any()
    if not problem.loss.robust and unbounded and linear >= set(np.array(problem.parameters)[free]):
        return problem, _solve_linear(problem, free)
    scouts = starting_points(_thinned(problem), settings.start, _SCOUTS)
    if len(scouts) == 0 or not np.isfinite(problem.objective(scouts)).any():
        raise FitError(
            f"no starting point gives {law.target} finite values on these rows; "
            f"pass start={{...}} near the answer, or check the units of the inputs"
        )
    scouts = scouts[np.isfinite(problem.objective(scouts))]
    problem, scouts = _log_positive_coefficients(problem, law, settings, scouts)
    given = settings.start.keys() | settings.fixed.keys() >= set(problem.parameters)
    tried = _run(problem, scouts, _SCOUT_STEPS)
    order = np.argsort(tried.objective, kind="stable")[:_FINALISTS]
    # A start the user gave is always followed to its end.
    solution = _run(problem, np.concatenate([scouts[:2], tried.phi[order]]) if given else tried.phi[order], _STEPS)
    return problem, solution.take(np.array([_pick(problem, solution, scouts[0])]))


def _pick(problem: Problem, solution: Solution, near: Array) -> int:
    """Return the lowest minimum; among equal ones (parameters that may swap places) the one nearest to a point."""
    best = solution.best()
    residual = problem.model()(solution.phi[best : best + 1])[0][0]
    rounding = 8 * np.finfo(float).eps * float(problem.weights @ np.abs(residual * problem.observed))
    equal = np.flatnonzero(solution.objective <= solution.objective[best] * (1 + 1e-9) + rounding)
    distance = (((solution.phi[equal] - near) / np.maximum(np.abs(near), 1e-3)) ** 2).sum(axis=1)
    return int(equal[np.argmin(distance)])


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


def _solve_linear(problem: Problem, free: Array) -> Solution:
    phi = np.where(free, 0.0, problem.lower)[None]
    residual, jacobian = problem.model()(phi)
    phi[0, free] = least_squares(jacobian[0, free].T, -residual[0], problem.weights)
    return Solution(phi, problem.objective(phi), np.array([True]), 1)


def _thinned(problem: Problem) -> Problem:
    """Look for starts on an even sample of the rows when there are very many."""
    if len(problem.target) <= _THIN:
        return problem
    order = np.lexsort((problem.target, *problem.inputs))
    rows = np.sort(order[np.linspace(0, len(order) - 1, _THIN).astype(int)])
    return replace(
        problem,
        inputs=[u[rows] for u in problem.inputs],
        target=problem.target[rows],
        weights=problem.weights[rows],
    )


def _log_positive_coefficients(problem: Problem, law: Law, settings: Settings, scouts: Array) -> tuple[Problem, Array]:
    """Fit linear coefficients that start positive in logs, where the valley of a sum of powers is nearly straight.

    Only for positive targets, and not for coefficients whose bounds the user chose. A coefficient that wants to
    change sign runs to zero and is seen by `_conclude`.
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
    lower, upper = _bounds(logged, settings)
    posed = replace(problem, derivation=logged.derivation, lower=lower, upper=upper)
    columns = [problem.parameters.index(n) for n in chosen]
    same_sign = (natural[:, columns] > 0).all(axis=1)
    return posed, logged.derivation.to_fit(natural[same_sign])


@dataclass(frozen=True)
class _Ends:
    """How each parameter ended."""

    fixed: Array
    at_bound: Array
    vanished: Array


def _ends(problem: Problem, phi: Array) -> _Ends:
    fixed = problem.lower == problem.upper
    at_bound = ~fixed & ((phi <= problem.lower) | (phi >= problem.upper))
    _, jacobian = problem.model()(phi[None])
    size = 1.0 if problem.space == "log" else float(np.abs(problem.observed).max())
    vanished = problem.derivation.logged & ~fixed & (np.abs(jacobian[0]).max(axis=1) < 1e-6 * size)
    return _Ends(fixed, at_bound, vanished)


def _conclude(problem: Problem, solution: Solution, observed: Observations, settings: Settings) -> Fit:
    """Judge the solution and put the result together."""
    law, phi = problem.derivation.law, solution.phi[0]
    ends = _ends(problem, phi)
    held = ends.fixed | ends.at_bound | ends.vanished
    errors = covariance.estimate(problem, phi, ~held)
    residual = problem.model()(phi[None])[0][0]
    states = np.full(len(phi), "free", dtype=object)
    states[errors.unidentified] = "unidentified"
    states[ends.at_bound | ends.vanished] = "at bound"
    states[ends.fixed] = "fixed"
    notes = [*observed.notes, *_doubts(problem, errors, residual)]
    notes += [
        Note("vanished", f"{problem.parameters[j]} ran to zero: the data do not need it", True)
        for j in np.flatnonzero(ends.vanished)
    ]
    return Fit(
        law=law,
        space=problem.space,
        loss=problem.loss,
        status=_status(solution, states),
        phi=phi,
        covariance=errors.covariance,
        states=tuple(states),
        lower=problem.lower,
        upper=problem.upper,
        objective=float(solution.objective[0]),
        scale=errors.scale,
        dof=errors.dof,
        condition=errors.condition,
        ties=dict(settings.ties),
        rows=observed.table,
        weights=problem.weights,
        cells=cells_of(observed.table),
        notes=tuple(notes),
        source=observed.source,
    )


def _status(solution: Solution, states: Array) -> FitStatus:
    if not solution.converged[0]:
        return FitStatus.NOT_CONVERGED
    if (states == "unidentified").any():
        return FitStatus.ILL_CONDITIONED
    return FitStatus.AT_BOUND if (states == "at bound").any() else FitStatus.CONVERGED


def _doubts(problem: Problem, errors: covariance.Errors, residual: Array) -> list[Note]:
    """Remarks a reader needs before trusting the fit."""
    found = []
    if errors.dof <= 0:
        found.append(Note("exact", "as many parameters as rows: the fit is exact and has no errors", caution=True))
    standardized = np.abs(residual) * np.sqrt(problem.weights)
    typical = 1.4826 * float(np.median(standardized))
    far = int((standardized > _OUTLIER * typical).sum()) if typical > 0 else 0
    if far and errors.dof > 0:
        advice = "" if problem.loss.robust else "; they pull the fit: look at them, or fit with loss=Huber(...)"
        text = (
            f"{far} of {len(residual)} rows lie more than {_OUTLIER:g} times the typical scatter from the fit{advice}"
        )
        found.append(Note("outliers", text, caution=not problem.loss.robust))
    return found
