r"""The hyperbola between steps and examples, fitted in logs with every batch size's own error and a common misfit.

.. math:: (S/S_{min} - 1)(E/E_{min} - 1) = 1 \iff \ln E = \ln E_{min} + \ln(1 + B/B_{crit}),\qquad E = B S

For a given ln B_crit this is linear in ln E_min, so the whole likelihood is a curve over ln B_crit; every interval is
read off that curve and may be open. Arrays only.

What an estimator says of one study: three numbers with intervals, a curve, and whether they are identified.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from scalefit.solvers.students_t import t_quantile

Array = np.ndarray

_FAR = 12.0
"""Logs beyond the batch sizes at which B_crit is as good as 0 or infinite: the curve is straight to 1e-5."""

_EXACT = 1e-20
"""Variance below which ln examples are taken to be exact."""

_STEP = 0.04
_ROUNDS = 6


@dataclass(frozen=True, eq=False)
class Study:
    """What was measured to reach one target: one entry a batch size, ascending.

    Parameters
    ----------
    x, y : ndarray (k,)
        ln batch and ln examples.
    variance : ndarray (k,)
        Of y, from the noise of its runs; 0 where unknown.
    single : float
        Variance of ln examples of a single run, from replicates; 0 where unknown.
    """

    x: Array
    y: Array
    variance: Array
    single: float = 0.0

    def drop(self, count: int) -> Study:
        """Return the study without its smallest batch sizes."""
        return Study(self.x[count:], self.y[count:], self.variance[count:], self.single)


@dataclass(frozen=True, eq=False)
class Profile:
    """The fitted hyperbola and the misfit as a curve over ln B_crit.

    Parameters
    ----------
    study : Study
    weight : ndarray (k,)
        1/(variance + lack).
    lack : float
        Variance of ln examples between batch sizes beyond the runs' own noise.
    critical : float
        ln B_crit of least misfit; infinite where the misfit falls to the end.
    least : float
        The least misfit.
    dof : float
        Degrees of freedom of `lack`; infinite where it was given.
    """

    study: Study
    weight: Array
    lack: float
    critical: float
    least: float
    dof: float

    @property
    def scale(self) -> float:
        """Factor on variances: 1, or more where the misfit exceeds what the weights allow for."""
        return max(self.least / self.dof, 1.0) if np.isfinite(self.dof) and self.dof > 0 else 1.0

    @property
    def floor(self) -> float:
        """Ln E_min at the fitted B_crit."""
        return float(self.at(self.clipped)[0])

    @property
    def clipped(self) -> float:
        """Ln B_crit, no further out than where it makes no difference."""
        low, high = reach(self.study.x)
        return float(np.clip(self.critical, low, high))

    @property
    def residuals(self) -> Array:
        """Observed minus fitted ln examples."""
        return self.study.y - self.floor - bend(self.study.x, self.clipped)

    def at(self, critical: Array | float) -> tuple[Array, Array]:
        """Return ln E_min and the misfit for given ln B_crit."""
        return solve_floor(self.study, self.weight, np.asarray(critical, dtype=float))

    def region(self, level: float) -> tuple[Array, Array]:
        """Return the ln B_crit that the misfit allows, ascending, and by how much each stays below the limit.

        Where the first or last is an end of `reach`, the region is open on that side.
        """
        low, high = reach(self.study.x)
        limit = t_quantile(level, self.dof) ** 2 * self.scale
        if not np.isfinite(limit):
            ends = np.linspace(low, high, 400)
            return ends, np.full(len(ends), np.inf)
        grid = np.append(np.arange(low, high, _STEP), [high, self.clipped])
        grid.sort()
        room = limit - (self.at(grid)[1] - self.least)
        inside = np.flatnonzero(room >= 0)
        first, last = inside[0], inside[-1]
        begin = low if first == 0 else self._crossing(grid[first], grid[first - 1], limit)
        end = high if last == len(grid) - 1 else self._crossing(grid[last], grid[last + 1], limit)
        fine = np.unique(np.append(np.linspace(begin, end, 400), self.clipped))
        return fine, np.maximum(limit - (self.at(fine)[1] - self.least), 0.0)

    def open_ends(self, level: float) -> tuple[bool, bool]:
        """Say whether B_crit may be arbitrarily small, and arbitrarily large, at this level."""
        misfit = self.at(np.array(reach(self.study.x)))[1] - self.least
        low, high = misfit <= t_quantile(level, self.dof) ** 2 * self.scale
        return bool(low), bool(high)

    def _crossing(self, inside: float, outside: float, limit: float) -> float:
        """Return where between two places the misfit reaches the limit."""
        for _ in range(5):
            near = np.linspace(inside, outside, 17)
            beyond = np.append(self.at(near)[1] - self.least > limit, True)
            first = max(int(np.argmax(beyond)), 1)
            inside, outside = float(near[first - 1]), float(near[min(first, 16)])
        return inside

    def interval(self, shift: Callable[[Array], Array], level: float, noise: float = 0.0) -> tuple[Array, Array]:
        """Return the profile intervals of ln E_min + shift(ln B_crit), plus an error of variance `noise`.

        Parameters
        ----------
        shift : callable
            Of places (g,) of ln B_crit, shape (m, g): m quantities at once.
        level : float
        noise : float
            For the interval of a new observation.
        """
        place, room = self.region(level)
        shifts = shift(place)
        if not np.isfinite(room).all():
            return np.full(len(shifts), -np.inf), np.full(len(shifts), np.inf)
        half = np.sqrt(room * (1 / self.weight.sum() + noise))
        middle = self.at(place)[0] + shifts
        return (middle - half).min(axis=1), (middle + half).max(axis=1)


def bend(x: Array, critical: Array | float) -> Array:
    """Return ln(1 + B/B_crit) for ln B and ln B_crit."""
    return np.logaddexp(0.0, x - critical)


def reach(x: Array) -> tuple[float, float]:
    """Return the ln B_crit below and above which nothing changes any more."""
    return float(x[0]) - _FAR, float(x[-1]) + _FAR


def solve_floor(study: Study, weight: Array, critical: Array) -> tuple[Array, Array]:
    """Return the best ln E_min and the misfit for each ln B_crit, shape (...)."""
    rest = study.y - bend(study.x, critical[..., None])
    floor = rest @ weight / weight.sum()
    return floor, ((rest - floor[..., None]) ** 2) @ weight


def fit_hyperbola(study: Study, lack: float | None = None) -> Profile:
    """Fit ln E_min and ln B_crit, with the lack of fit found by Paule and Mandel's equation.

    The lack of fit is the variance between batch sizes at which the weighted squared residuals equal their degrees of
    freedom; without replicates it is simply their mean square.

    Parameters
    ----------
    study : Study
    lack : float, optional
        The lack of fit, if known (variance of ln examples).

    References
    ----------
    Paule and Mandel 1982, J. Res. NBS 87, 377.
    """
    dof = len(study.x) - 2
    if lack is not None:
        weight = _weights(study, lack)
        critical, least = _lowest(study, weight)
        return Profile(study, weight, lack, critical, least, np.inf)
    tau = 0.0
    for _ in range(12):
        weight = _weights(study, tau)
        critical, least = _lowest(study, weight)
        before, tau = tau, _between(study, weight, critical, dof)
        if abs(tau - before) <= 1e-4 * tau:
            break
    weight = _weights(study, tau)
    critical, least = _lowest(study, weight)
    return Profile(study, weight, tau, critical, least, dof)


def _weights(study: Study, tau: float) -> Array:
    return np.asarray(1 / np.maximum(study.variance + tau, _EXACT))


def _lowest(study: Study, weight: Array) -> tuple[float, float]:
    """Return ln B_crit of least misfit, infinite at an end, and that misfit."""
    low, high = reach(study.x)
    grid = np.append(np.arange(low, high, _STEP), high)
    misfit = solve_floor(study, weight, grid)[1]
    at = int(np.argmin(misfit))
    tiny = 1e-6 * abs(misfit[at]) + 1e-15 * weight.sum()
    if misfit[-1] - misfit[at] <= tiny:
        return np.inf, float(misfit[-1])
    if misfit[0] - misfit[at] <= tiny:
        return -np.inf, float(misfit[0])
    centre, width = grid[at], _STEP
    for _ in range(_ROUNDS):
        near = centre + np.linspace(-width, width, 21)
        misfit = solve_floor(study, weight, near)[1]
        centre, width = near[int(np.argmin(misfit))], width / 8
    return float(centre), float(misfit.min())


def _between(study: Study, weight: Array, critical: float, dof: int) -> float:
    if dof <= 0:
        return 0.0
    low, high = reach(study.x)
    place = np.clip(critical, low, high)
    floor, _ = solve_floor(study, weight, np.asarray(place))
    square = (study.y - floor - bend(study.x, place)) ** 2
    if not (study.variance > 0).all():
        return float(square.sum() / dof)
    if (square / study.variance).sum() <= dof:
        return 0.0
    from scipy.optimize import brentq

    def excess(tau: float) -> float:
        return float((square / (study.variance + tau)).sum()) - dof

    return float(brentq(excess, 0.0, square.sum() / dof + study.variance.max(), xtol=1e-12))


@dataclass(frozen=True)
class Value:
    """The log of a positive number; infinite bounds are open ends.

    Parameters
    ----------
    value, lo, hi : float
    """

    value: float
    lo: float
    hi: float

    @property
    def bounded(self) -> bool:
        """Whether both ends are closed."""
        return bool(np.isfinite(self.lo) and np.isfinite(self.hi) and np.isfinite(self.value))

    def natural(self, level: float) -> tuple[float, float, float, float]:
        """Return the number itself with standard error and bounds; no standard error where an end is open.

        The standard error is the longer side of the interval over the normal quantile of its level: two of them hold
        what the interval holds, with few batch sizes and lopsided likelihoods too.
        """
        with np.errstate(over="ignore"):
            lo, hi = float(np.exp(self.lo)), float(np.exp(self.hi))
            value = float(np.exp(self.value))
        if not self.bounded:
            return value, np.nan, lo, hi
        return value, max(hi - value, value - lo) / t_quantile(level, np.inf), lo, hi


class Curve(Protocol):
    """How many examples a batch size needs."""

    def examples(self, x: Array, level: float) -> tuple[Array, Array, Array]:
        """Return ln examples for ln batch, with the interval of one more run."""
        ...


@dataclass(frozen=True, eq=False)
class Estimate:
    """The answer of one estimator for one study.

    Parameters
    ----------
    floor, critical, steps : Value
        ln E_min, ln B_crit and ln(E_min/B_crit), the last in examples per unit of batch.
    rms : float
        Root mean square of the residuals in ln examples.
    lack : float
        Root of the variance between batch sizes beyond the noise of the runs.
    residuals : ndarray (k,)
    curve : Curve
    """

    floor: Value
    critical: Value
    steps: Value
    rms: float
    lack: float
    residuals: Array
    curve: Curve

    @property
    def status(self) -> str:
        """How far the batch sizes tell the parameters: identified, no_S_min, no_E_min, unknown or too_few."""
        if len(self.residuals) < 3 and not self.critical.bounded:
            return "too_few"
        if self.critical.bounded and self.floor.bounded and self.steps.bounded:
            return "identified"
        if np.isfinite(self.critical.lo) and np.isinf(self.critical.hi):
            return "no_S_min"
        if np.isfinite(self.critical.hi) and np.isinf(self.critical.lo):
            return "no_E_min"
        return "unknown"


class Estimator(Protocol):
    """What a method is: frozen settings that turn a study into an estimate."""

    def estimate(self, study: Study, level: float) -> Estimate:
        """Estimate E_min, B_crit and their ratio for one study."""
        ...


VERDICTS = {
    "identified": "S_min, E_min and B_crit are identified",
    "no_S_min": "all batch sizes lie well below B_crit: it has a lower bound only, and S_min an upper one",
    "no_E_min": "all batch sizes lie well above B_crit: it has an upper bound only, and so has E_min",
    "unknown": "the batch sizes bound B_crit on neither side: they are too few, too close or too noisy",
    "too_few": "a curve of two parameters has nothing to be judged by on fewer than three batch sizes",
}
"""What each status means."""
