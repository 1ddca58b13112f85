"""An F test of a simpler law within a larger one; its p value is simulated, so that it holds for few rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from scalefit._values import Note
from scalefit.display import Display, Displayable
from scalefit.errors import FitError
from scalefit.fitting.fit_result import Fit
from scalefit.fitting.problem import Problem
from scalefit.fitting.search import starting_points
from scalefit.selection.criteria import match, name_of, parameters_of
from scalefit.solvers.levenberg import minimize
from scalefit.vocabulary import format_number

Array = np.ndarray

_FEWEST = 99
_SCOUTS, _STARTS = 12, 8
_SCOUT_STEPS, _STEPS, _FINALISTS = 8, 60, 2
_WITHIN = 1e-4
"""A law holds another when it reproduces its fitted values to this share of the residual sum of squares."""
_FLAT = 1e-5
"""Below this smallest singular value of the scaled Jacobian the small law counts as lying at the border."""


@dataclass(frozen=True, repr=False)
class NestedTest(Displayable):
    """A simpler law tested within a larger one; made by `nested_test`.

    Attributes
    ----------
    small, large : str
        Names or formulas of the laws.
    statistic : float
        F: the fall of the sum of squares for each parameter added, over the large law's mean square.
    restrictions, dof : int
        Parameters added, and degrees of freedom that the large law leaves.
    p : float
        Share of simulated data sets, made by the small law, with a larger statistic.
    p_f : float
        The same from the F distribution, which holds for laws linear in their parameters, away from a border.
    rejected : bool
        Whether p is below the level.
    level : float
    border : bool
        The small law is a limit of the large one (a parameter at infinity or zero), not a point inside.
    notes : tuple of Note
        Whether the restriction lies at a border, and whether there are few degrees of freedom.

    See Also
    --------
    nested_test, climb_ladder

    Examples
    --------
    >>> import scalefit as sf
    >>> pairs = {"batch": [1e5, 2e5, 4e5, 8e5, 1.6e6], "lr": [1.0e-3, 1.1e-3, 1.2e-3, 1.35e-3, 1.5e-3]}
    >>> found = sf.nested_test(sf.fit("lr_sqrt", pairs), sf.fit("lr_batch_power", pairs), n=199)
    >>> found.verdict
    'the data reject lr_sqrt within lr_batch_power: F(1, 3) = 6360, p = 0.005'
    """

    small: str
    large: str
    statistic: float
    restrictions: int
    dof: int
    p: float
    p_f: float
    rejected: bool
    level: float
    border: bool
    notes: tuple[Note, ...] = field(default=())

    @property
    def verdict(self) -> str:
        """One sentence."""
        what = "reject" if self.rejected else "do not contradict"
        numbers = f"F({self.restrictions}, {self.dof}) = {format_number(self.statistic, 3)}, p = {self.p:.2g}"
        return f"the data {what} {self.small} within {self.large}: {numbers}"

    def _display(self) -> Display:
        facts = (("verdict", self.verdict), ("p by F", f"{self.p_f:.2g}"), ("level", format_number(self.level)))
        return Display(f"{self.small} within {self.large}", facts, None, self.notes)


def nested_test(small: Fit, large: Fit, *, level: float = 0.05, n: int = 999, seed: int = 0) -> NestedTest:
    r"""Test whether the data need the larger of two nested laws.

    .. math:: F = \frac{(Q_{small} - Q_{large})/q}{Q_{large}/(n - p_{large})}

    with the weighted sums of squared residuals Q. The p value is the share of data sets made by the small law, with
    normal errors of its scatter, whose F is as large: both laws are fitted to each of them.

    Parameters
    ----------
    small, large : Fit
        Fits of one target to the same rows, in the same space, both with the squared loss. Which parameters are fixed
        or bounded is kept.
    level : float
        Below which p rejects the small law.
    n : int
        Simulated data sets, at least 99.
    seed : int
        Of the simulated errors.

    Returns
    -------
    NestedTest
        The statistic, both p values and a verdict in words.

    Raises
    ------
    FitError
        If the small law is not nested in the large one (the large one cannot reproduce its fitted values), the fits
        differ in more than the law, the loss is robust, or no degree of freedom is left.

    Notes
    -----
    The F distribution does not hold where the small law is a limit of the large one, such as the square-root rule in
    ``eta_max / sqrt(1 + B_noise/B)`` as B_noise goes to infinity: half of all data sets then give F = 0, and other
    parameters of the large law may have no value at all under the small one. `border` and a note say so; the
    simulated p holds there too. Not to be rejected is not to be right: with few rows little is.

    See Also
    --------
    climb_ladder : these tests for the rules of the learning rate over the batch.
    compare : laws that need not be nested.

    References
    ----------
    Self and Liang 1987, J. Am. Stat. Assoc. 82, 605, for restrictions at the border; Davison and Hinkley, Bootstrap
    Methods and their Application (1997), section 4.2.

    Examples
    --------
    >>> import scalefit as sf
    >>> pairs = {"batch": [1e5, 2e5, 4e5, 8e5, 1.6e6], "lr": [1.0e-3, 1.45e-3, 1.9e-3, 2.9e-3, 3.9e-3]}
    >>> sf.nested_test(sf.fit("lr_sqrt", pairs), sf.fit("lr_batch_power", pairs), n=199).rejected
    False
    """
    from scipy.special import fdtrc

    if not 0 < level < 1:
        raise FitError(f"level: expected a number between 0 and 1, found {level!r}")
    if n < _FEWEST or 1 / (n + 1) >= level:
        raise FitError(f"n: expected at least {max(_FEWEST, int(1 / level))} simulated data sets, found {n!r}")
    less, more = match([small, large]).fits
    added = _check_fits(less, more)
    noise = np.random.default_rng(seed).normal(size=(n, less.n)) * less.scale / np.sqrt(less.weights)
    with np.errstate(all="ignore"):
        middle = less.problem.observed - less.residuals
        border = _border(less, more, middle)
        observed = np.vstack([less.problem.observed[None], middle + noise])
        simple, wide = _lowest(less, middle, observed), _lowest(more, middle, observed)
        simple[0], wide[0] = min(simple[0], less.objective), min(wide[0], more.objective)
        wide = np.minimum(wide, simple)  # the large law contains the small one
        statistics = (simple - wide) / added / (wide / more.dof)
    statistic = float(statistics[0])
    p = (1 + int((statistics[1:] >= statistic).sum())) / (n + 1)
    p_f = float(fdtrc(added, more.dof, max(statistic, 0.0)))
    names, notes = (name_of(less), name_of(more)), []
    if border:
        text = f"{names[0]} is a limit of {names[1]}, not a point inside"
        notes.append(Note("border", f"{text}: p is simulated, the F distribution is not right"))
    if more.dof < 4:
        text = f"{more.dof} degrees of freedom are few: only large departures would be seen"
        notes.append(Note("few", text, caution=True))
    return NestedTest(*names, statistic, added, more.dof, p, p_f, p < level, level, border, tuple(notes))


def _check_fits(less: Fit, more: Fit) -> int:
    """Return how many parameters the large law adds."""
    for fit in (less, more):
        if fit.loss.robust:
            raise FitError(f"{name_of(fit)} was fitted with {fit.loss!r}; the test needs Squared()")
        if fit.is_bound.any() or fit.shrinkage > 0:
            text = "has rows that are bounds or a prior on its curvature, for which the test does not hold"
            raise FitError(f"{name_of(fit)} {text}; fit with bounds='drop' and without shrink")
        if not np.isfinite(fit.phi).all():
            raise FitError(f"{name_of(fit)} was not fitted: {fit.status.sentence}", partial=fit)
    added = parameters_of(more) - parameters_of(less)
    if added < 1:
        text = f"{name_of(more)} has {parameters_of(more)} free parameters and {name_of(less)} {parameters_of(less)}"
        raise FitError(f"{text}: the second fit must be the larger law")
    if less.n - parameters_of(more) < 1:
        raise FitError(f"{less.n} rows leave {name_of(more)} no degree of freedom; bring more")
    if less.objective <= less.problem.rounding():
        raise FitError(f"{name_of(less)} fits the rows exactly: there is nothing left to test")
    return added


def _border(less: Fit, more: Fit, middle: Array) -> bool:
    """Tell whether the small law is a limit of the large one; raise if it is not inside at all."""
    problem, linear = _posed(more, middle), more.problem.is_linear()
    phi = more.phi[None] if linear else _starts(more, middle)[:1]
    nearest = _lowest(more, middle, middle[None]) if linear else problem.objective(phi)
    if nearest[0] > _WITHIN * less.objective:
        text = "the second cannot reproduce the fitted values of the first"
        raise FitError(f"{name_of(less)} is not nested in {name_of(more)}: {text}")
    if linear:
        return False
    free = problem.lower < problem.upper
    columns = problem.model()(phi)[1][0, free] * np.sqrt(problem.weights)
    length = np.linalg.norm(columns, axis=1)
    if (length <= _FLAT * length.max()).any():
        return True
    singular = np.linalg.svd(columns / length[:, None], compute_uv=False)
    return bool(singular[-1] < _FLAT * singular[0])


def _lowest(fit: Fit, middle: Array, observed: Array) -> Array:
    """Return the lowest weighted sum of squares of the law, (K,), for every observed target (K, n)."""
    problem = fit.problem
    if problem.is_linear():
        value, jacobian = problem.values(problem.space)(fit.phi[None])
        root = np.sqrt(problem.weights)
        basis = np.linalg.qr((jacobian[0, problem.lower < problem.upper] * root).T)[0]
        residual = (observed - value) * root
        return fit.loss.value(residual - (residual @ basis) @ basis.T).sum(axis=1)
    # A few steps from every start show which two are worth the remaining steps.
    starts = np.tile(_starts(fit, middle), (len(observed), 1))
    scouted, phi = _descend(problem, observed, starts, _SCOUT_STEPS)
    ahead = np.argsort(scouted, axis=1, kind="stable")[:, :_FINALISTS]
    finalists = np.take_along_axis(phi, ahead[:, :, None], axis=1).reshape(-1, phi.shape[2])
    return _descend(problem, observed, finalists, _STEPS)[0].min(axis=1)


def _posed(fit: Fit, observed: Array) -> Problem:
    return replace(fit.problem, target=np.exp(observed) if fit.space == "log" else observed)


def _starts(fit: Fit, middle: Array) -> Array:
    """Return where every search starts: the best end on the small law's values, the fit itself, the best scouts."""
    problem = _posed(fit, middle)
    scouts = [starting_points(one, {}, _SCOUTS) for one in (problem, fit.problem)]
    phi = np.concatenate([fit.phi[None], *scouts])
    phi = phi[np.isfinite(problem.objective(phi))]
    # These ends decide whether the law is nested, and whether at a border, so they need a finer tolerance than the
    # simulated data sets, which only count towards p.
    objective, ends = _descend(fit.problem, middle[None], phi, _STEPS, tolerance=1e-14)
    best = ends[0, np.argsort(objective[0], kind="stable")[:1]]
    order = np.argsort(fit.problem.objective(phi), kind="stable")
    return np.concatenate([best, fit.phi[None], phi[order[: _STARTS - 2]]])


def _descend(problem: Problem, observed: Array, phi: Array, steps: int, tolerance: float = 1e-8) -> tuple[Array, Array]:
    """Return objectives (K, m) and ends (K, m, p) of m descents for each of K targets; `phi` has shape (K m, p)."""
    values, count = problem.values(problem.space), len(observed)
    which = np.repeat(np.arange(count), len(phi) // count)

    def model(live: Array) -> Callable[[Array], tuple[Array, Array]]:
        target = observed[which[live]]

        def residuals(phi: Array) -> tuple[Array, Array]:
            value, jacobian = values(phi)
            return value - target, jacobian

        return residuals

    solution = minimize(
        model(np.arange(len(which))),
        phi,
        loss=problem.loss,
        weights=problem.weights,
        lower=problem.lower,
        upper=problem.upper,
        iterations=steps,
        tolerance=tolerance,
        subset=model,
    )
    found = np.where(np.isfinite(solution.objective), solution.objective, np.inf)
    return found.reshape(count, -1), solution.phi.reshape(count, -1, phi.shape[1])
