"""`fit_law`: a law and a table in, a `Fit` out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from scalefit._values import Note
from scalefit.errors import FitError
from scalefit.fitting import covariance
from scalefit.fitting.censoring import check_points, solve_censored
from scalefit.fitting.censoring import estimate as estimate_censored
from scalefit.fitting.clusters import Evidence, candidates, weigh
from scalefit.fitting.domain import within_domain
from scalefit.fitting.fit_result import Fit
from scalefit.fitting.fit_values import FitStatus
from scalefit.fitting.parameters import Settings, read_settings, write_ties
from scalefit.fitting.problem import Problem, Rows, collect, fit_bounds
from scalefit.fitting.search import solve
from scalefit.fitting.shrinkage import prior_scale, shrunk
from scalefit.laws import get_law
from scalefit.laws.formula import Law
from scalefit.solvers.levenberg import Solution
from scalefit.solvers.losses import LOSSES, Loss, Squared
from scalefit.vocabulary import is_positive

if TYPE_CHECKING:
    import lmfit

Array = np.ndarray

_OUTLIER = 10.0
"""Multiples of the typical scatter beyond which a row is called an outlier."""
_VANISHED = 1e-6
"""A positive parameter that changes no fitted value by more than this fraction has run to zero (or to infinity)."""
_ALIGNED = 0.02
"""Inputs are on one line when one is known from the others to this fraction of its spread."""


def fit_law(
    law: Law | str,
    data: Any,
    *,
    loss: Loss | None = None,
    space: str = "auto",
    start: Mapping[str, float] | None = None,
    params: lmfit.Parameters | None = None,
    weights: Any = None,
    bounds: str = "auto",
    shrink: bool | float = False,
) -> Fit:
    r"""Fit a law to a table.

    Minimises :math:`\sum_i w_i\,\rho(r_i)` with :math:`r_i = \ln f(x_i) - \ln y_i` in log space and
    :math:`f(x_i) - y_i` in plain space. A law that is linear in that space is solved directly; any other starts from
    variable projection and is polished from several starts by Levenberg-Marquardt with exact derivatives.

    Parameters
    ----------
    law : Law or str
        A law, its name in the catalogue, or a formula. ``scalefit.fit`` also takes "auto": the average of the usual
        laws by their error on unseen cells, see `average_laws`.
    data : DataFrame, Sweep, Optima or mapping of columns
        The rows. Symbols of the law find their columns (N -> params); unknown names that are columns are inputs. What a
        DataFrame counts data in, if not tokens, it says in ``table.attrs["data_unit"]``.
    loss : Loss, optional
        `Squared()` by default, or `Huber(delta)`, `SoftL1(scale)`.
    space : {"auto", "log", "plain"}
        "auto" means logs for the quantities of the vocabulary, which are positive, and plain otherwise.
    start : mapping of str to float, optional
        Starting values, tried beside our own; the lowest minimum wins, so a bad start does no harm.
    params : lmfit.Parameters, optional
        Fixes (``vary=False``), bounds, ties (``expr``) and starting values.
    weights : array_like (n,) or str, optional
        Weight of every row, proportional to its inverse variance, or the column that holds it.
    bounds : {"auto", "censor", "drop"}
        What becomes of optima at the edge of their grid. "censor": each counts with the probability that the truth
        lies beyond it, normal with the scatter of the fit, which is estimated along with the law; needs the squared
        loss. "drop": left out, which biases a law whose grids drift off its optima. "auto" is "censor" for the squared
        loss and "drop" for the others.
    shrink : bool or float
        Whether curvature terms, whose zero leaves a law straight in logs, are drawn towards zero, so that one that is
        not needed costs little; a number is the prior scale, True means 0.05. See `scalefit.fitting.shrinkage`.

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

    See Also
    --------
    find_optima : the optima that a law for the learning rate or the batch is fitted to
    fit_surface : loss, learning rate and batch of all runs in one fit
    bootstrap : how much a fit would move on other data of the same kind
    choose_law : which law, by its error on unseen cells

    Examples
    --------
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> table = pd.DataFrame({"params": [1e7, 1e8, 1e9], "loss": [4.0, 3.2, 2.56]})
    >>> round(sf.fit("L = c * N**a", table).values["a"], 4)
    -0.0969
    """
    declared = get_law(law)
    settings = read_settings(params, start, declared) if params or start else Settings(bounds=declared.bounds)
    tied, ties = write_ties(declared, settings.ties) if settings.ties else (declared, {})
    loss = Squared() if loss is None else loss
    bound, rows = collect(tied, data, weights, _bounds_rule(bounds, loss))
    with np.errstate(all="ignore"):  # far from the answer a law may overflow; what it returns is checked instead
        problem = _pose(bound, rows, settings, loss, space)
        _check_count(problem)
        find = solve if problem.censored is None else solve_censored
        # Sums run over sorted rows: the order of rows in a file changes no digit of the result.
        order = rows.canonical_order()
        problem, solution = find(problem.take(order), settings)
        found = _conclude(problem, solution, rows, order, ties)
    return shrunk(found, prior_scale(shrink)) if shrink else found


def _bounds_rule(bounds: str, loss: Loss) -> str:
    if bounds not in ("auto", "censor", "drop"):
        raise FitError(f"bounds: expected 'auto', 'censor' or 'drop', found {bounds!r}")
    robust = getattr(loss, "robust", False)
    if bounds == "censor" and robust:
        raise FitError(
            f"bounds='censor' needs the squared loss, found {loss!r}: the scatter decides how soft a bound is"
        )
    return "drop" if bounds == "drop" or robust else "censor"


def _pose(law: Law, rows: Rows, settings: Settings, loss: Loss, space: str) -> Problem:
    """Lay law and rows out as arrays."""
    if space not in ("auto", "log", "plain"):
        raise FitError(f"space: expected 'auto', 'log' or 'plain', found {space!r}")
    if not isinstance(loss, tuple(LOSSES.values())):
        raise FitError(f"loss: expected one such as Squared() or Huber(1e-3), found {loss!r}")
    if space == "auto":
        space = "log" if is_positive(law.target) else "plain"
    target = rows.table.iloc[:, -1].to_numpy()
    if space == "log" and (target <= 0).any():
        first = int(np.flatnonzero(target <= 0)[0])
        raise FitError(
            f"space='log' needs a positive {law.target}; row {first + 1} holds {target[first]}. Use space='plain'"
        )
    if not law.parameters:
        raise FitError(f"{law.formula!r} has no parameter to fit; evaluate it with law({{}}, table)")
    _check_start(law, settings.start)
    inputs = law.derivation.enter(law.read_inputs(rows.table))
    lower, upper = within_domain(law.derivation, inputs, *fit_bounds(law, settings.bounds, settings.fixed))
    known = rows.errors is not None and space == "log"
    points = np.ones(len(rows.table), dtype=bool) if rows.censored is None else rows.censored == 0
    error = float(np.median(rows.errors[points, 0])) if known else 0.0  # type: ignore[index]
    return Problem(law, inputs, target, rows.weights, space, loss, lower, upper, rows.censored, error=error)


def _check_start(law: Law, start: Mapping[str, float]) -> None:
    for name, positive in zip(law.parameters, law.derivation.logged, strict=True):
        if positive and start.get(name, 1.0) <= 0:
            raise FitError(f"start of {name}: {law.formula!r} needs a positive number, found {start[name]}")


def _check_count(problem: Problem) -> None:
    free = int((problem.lower < problem.upper).sum())
    rows = int((problem.weights > 0).sum())
    if rows < free:
        raise FitError(
            f"{free} parameters cannot be fitted to {rows} row(s): bring at least {free + 1} rows, "
            f"fix or tie parameters (params=), or choose a law with fewer"
        )
    if problem.censored is not None:
        check_points(problem)


def _conclude(problem: Problem, solution: Solution, rows: Rows, order: Array, ties: Mapping[str, str]) -> Fit:
    """Judge the solution and put the result together."""
    phi, converged, aligned = solution.phi[0], bool(solution.converged[0]), _aligned(problem)
    states, vanished, errors = _states_and_errors(problem, phi, bool(aligned))
    notes = [*rows.notes, *aligned, *_cautions(problem, phi, errors.dof)]
    codes = {name: code[order] for name, code in candidates(rows.labels).items()}
    evidence = weigh(problem, phi, states == "free", errors, codes) if converged else Evidence(errors)
    errors, notes = evidence.errors, [*notes, *evidence.notes]
    if vanished.any() and not aligned:
        names = ", ".join(np.array(problem.parameters)[vanished])
        notes.append(Note("vanished", f"the data do not need the term of {names}, which ran to zero", caution=True))
    if not converged:
        notes.append(Note("unfinished", "the solver was still moving when it stopped", caution=True))
    return Fit(
        law=problem.law,
        space=problem.space,
        loss=problem.loss,
        status=_status(converged, states, bool(aligned)),
        phi=phi,
        covariance=errors.covariance,
        states=tuple(states.tolist()),
        lower=problem.lower,
        upper=problem.upper,
        objective=float(solution.objective[0]),
        scale=errors.scale,
        dof=errors.dof,
        condition=errors.condition,
        ties=ties,
        _rows=rows.table,
        weights=rows.weights,
        cells=rows.cells,
        notes=tuple(notes),
        source=rows.source,
        data_unit=rows.data_unit,
        censored=rows.censored,
        errors=rows.errors,
        unread=rows.unread,
        labels=rows.labels,
        witnesses=evidence.column,
    )


def _states_and_errors(problem: Problem, phi: Array, aligned: bool) -> tuple[Array, Array, covariance.Errors]:
    """Return every parameter's state, which positive ones ran to zero or infinity, and the errors of the others."""
    fixed = problem.lower == problem.upper
    at_bound = ~fixed & ((phi <= problem.lower) | (phi >= problem.upper))
    _, jacobian = problem.model()(phi[None])
    size = 1.0 if problem.space == "log" else float(np.abs(problem.observed).max())
    # The log of a coefficient whose term is not needed falls without end: no bound stops it, but no value moves either.
    vanished = problem.derivation.logged & ~fixed & (np.abs(jacobian[0]).max(axis=1) < _VANISHED * size)
    # Held parameters take no part: a bound the minimum leans on is no minimum, and its curvature says nothing.
    estimate = covariance.estimate if problem.censored is None else estimate_censored
    errors = estimate(problem, phi, ~(fixed | at_bound | vanished))
    # Where inputs move together, the term of one stands for those of all: nothing is said by a term that ran to zero.
    lost = vanished & aligned
    errors.covariance[lost, lost] = np.inf
    states = np.select(
        [fixed, errors.unidentified | lost, at_bound | vanished], ["fixed", "unidentified", "at bound"], "free"
    )
    return states, vanished, errors


def _aligned(problem: Problem) -> list[Note]:
    """Note inputs that the rows do not vary independently (in logs, where they enter as logs)."""
    counted = problem.weights > 0
    columns = np.stack([np.broadcast_to(u, len(problem.target))[counted] for u in problem.inputs or [np.zeros(1)]])
    spread = columns.std(axis=1)
    moving = np.flatnonzero(spread > 1e-9 * np.abs(columns).max(axis=1))
    if len(moving) < 2:
        return []
    standard = (columns[moving] - columns[moving].mean(axis=1, keepdims=True)) / spread[moving, None]
    # The share of an input's variance that the others leave is the inverse of its variance inflation factor.
    values, vectors = np.linalg.eigh(standard @ standard.T / columns.shape[1])
    if values[0] > _ALIGNED**2 / 2:
        return []
    names = [problem.derivation.inputs[moving[j]] for j in np.flatnonzero(np.abs(vectors[:, 0]) > 0.1)]
    text = f"{' and '.join(names)} vary together along one line: only the form of the law tells their effects apart"
    return [Note("aligned", text, caution=True)]


def _status(converged: bool, states: Array, aligned: bool) -> FitStatus:
    unidentified = bool((states == "unidentified").any())
    # Where inputs move together the minimum is a valley without an end to converge to: then that is the finding.
    if not converged and not (unidentified and aligned):
        return FitStatus.NOT_CONVERGED
    if unidentified:
        return FitStatus.ILL_CONDITIONED
    return FitStatus.AT_BOUND if (states == "at bound").any() else FitStatus.CONVERGED


def _cautions(problem: Problem, phi: Array, dof: int) -> list[Note]:
    """Note what a reader needs to know before trusting the fit."""
    if dof <= 0:
        return [Note("exact", "as many parameters as rows: the fit is exact and has no errors", caution=True)]
    # A bound far inside the law is no outlier: it says only on which side the truth lies.
    counted = (problem.weights > 0) & ~problem.bounds
    residual = problem.model()(phi[None])[0][0, counted]
    standardized = np.abs(residual) * np.sqrt(problem.weights[counted])
    # 1.4826 times the median of |r| is the standard deviation of a normal, and outliers do not move it.
    typical = 1.4826 * float(np.median(standardized))
    far = int((standardized > _OUTLIER * typical).sum()) if typical > 0 else 0
    if not far:
        return []
    text = f"{far} of {len(standardized)} rows lie more than {_OUTLIER:g} times the typical scatter from the fit"
    text += "" if problem.loss.robust else "; they pull the fit: look at them, or fit with loss=Huber(...)"
    return [Note("outliers", text, caution=not problem.loss.robust)]
