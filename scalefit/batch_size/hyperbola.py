r"""The hyperbola of steps and examples fitted to one study in logs, and what an estimator says of a study.

.. math:: (S/S_{min} - 1)(E/E_{min} - 1) = 1 \iff \ln E = \ln E_{min} + \ln(1 + B/B_{crit}),\qquad E = B S

For a given ln B_crit this is linear in ln E_min, so the whole likelihood is a curve over ln B_crit, the profile; every
interval is read off that curve and may be open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from scalefit.solvers.distributions import t_quantile

Array = np.ndarray

# Takes ln batch and a level; returns ln examples and both ends of the interval for one more run.
Curve = Callable[[Array, float], tuple[Array, Array, Array]]

_FAR = 12.0  # in logs: a B_crit this far beyond the batch sizes counts as 0 or infinite; the curve is straight to 1e-5
_EXACT = 1e-20  # variance below which ln examples are taken to be exact
_STEP = 0.04  # step of the grid over ln B_crit; it separates the two minima that noisy studies can have
_ROUNDS = 6  # refinements by a factor of 8, which give ln B_crit to 2e-7

SIGNIFICANCE = 0.05  # probability that the smallest batch sizes of a study that obeys the hyperbola are called poor
_KEPT = 4  # so many batch sizes, and at least half of all, must remain to judge the smaller ones by
_CLOSEST = 0.02  # least scatter in ln examples that is assumed: a few batch sizes can lie on a curve by luck

VERDICTS = {
    "identified": "S_min, E_min and B_crit are identified",
    "no_S_min": "all batch sizes lie well below B_crit: it has a lower bound only, and S_min an upper one",
    "no_E_min": "all batch sizes lie well above B_crit: it has an upper bound only, and so has E_min",
    "unknown": "the batch sizes bound B_crit on neither side: they are too few, too close or too noisy",
    "too_few": "a curve of two parameters has nothing to be judged by on fewer than three batch sizes",
}


@dataclass(frozen=True, eq=False)
class Study:
    """What was measured to reach one target: ln batch (ascending), ln examples and the variance of these."""

    x: Array
    y: Array
    variance: Array  # from the noise of the runs behind each batch size; 0 where unknown
    single: float = 0.0  # variance of ln examples of a single run, from replicates; 0 where unknown

    def drop(self, count: int) -> Study:
        """Return the study without its smallest batch sizes."""
        return Study(self.x[count:], self.y[count:], self.variance[count:], self.single)

    @property
    def reach(self) -> tuple[float, float]:
        """The lowest and highest ln B_crit considered; beyond them the curve no longer changes."""
        return float(self.x[0]) - _FAR, float(self.x[-1]) + _FAR

    def weights(self, lack: float) -> Array:
        """Return the inverse variances of ln examples about the curve."""
        return np.asarray(1 / np.maximum(self.variance + lack, _EXACT))

    def floor(self, weight: Array, critical: Array | float) -> tuple[Array, Array]:
        """Return the best ln E_min and the misfit for each ln B_crit."""
        rest = self.y - bend(self.x, np.asarray(critical)[..., None])
        floor = rest @ weight / weight.sum()
        return floor, ((rest - floor[..., None]) ** 2) @ weight


def bend(x: Array, critical: Array | float) -> Array:
    """Return ln(1 + B/B_crit) for ln B and ln B_crit."""
    return np.logaddexp(0.0, x - critical)


@dataclass(frozen=True, eq=False)
class Profile:
    """The fitted hyperbola, and the misfit as a curve over ln B_crit."""

    study: Study
    weight: Array
    lack: float  # variance of ln examples between batch sizes beyond the runs' own noise
    critical: float  # ln B_crit of least misfit; infinite where the misfit falls to the end
    least: float  # the least misfit itself
    dof: float  # degrees of freedom of `lack`; infinite where `lack` was given

    @property
    def scale(self) -> float:
        """Factor on variances: 1, or more where the misfit exceeds what the weights allow for."""
        return max(self.least / self.dof, 1.0) if np.isfinite(self.dof) and self.dof > 0 else 1.0

    @property
    def clipped(self) -> float:
        """Ln B_crit, limited to the reach of the study."""
        return float(np.clip(self.critical, *self.study.reach))

    @property
    def floor(self) -> float:
        """Ln E_min at the fitted B_crit."""
        return float(self.study.floor(self.weight, self.clipped)[0])

    def _excess(self, critical: Array) -> Array:
        """Return the misfit for given ln B_crit beyond the least."""
        return self.study.floor(self.weight, critical)[1] - self.least

    def _limit(self, level: float) -> float:
        """Return the excess misfit up to which a ln B_crit is not rejected."""
        return float(t_quantile(level, self.dof)) ** 2 * self.scale

    def region(self, level: float) -> tuple[Array, Array]:
        """Return the ln B_crit that the misfit allows, ascending, and by how much each stays below the limit.

        Where the first or last is an end of the study's reach, the region is open on that side.
        """
        low, high = self.study.reach
        limit = self._limit(level)  # infinite without degrees of freedom: then no B_crit is rejected
        grid = np.sort(np.append(np.arange(low, high, _STEP), [high, self.clipped]))
        inside = np.flatnonzero(limit - self._excess(grid) >= 0)
        first, last = inside[0], inside[-1]
        begin = low if first == 0 else self._crossing(grid[first], grid[first - 1], limit)
        end = high if last == len(grid) - 1 else self._crossing(grid[last], grid[last + 1], limit)
        fine = np.unique(np.append(np.linspace(begin, end, 400), self.clipped))
        return fine, np.maximum(limit - self._excess(fine), 0.0)

    def open_ends(self, level: float) -> Array:
        """Say whether B_crit may be arbitrarily small, and arbitrarily large, at this level."""
        return self._excess(np.array(self.study.reach)) <= self._limit(level)

    def _crossing(self, inside: float, outside: float, limit: float) -> float:
        """Return where between two places the misfit reaches the limit."""
        for _ in range(5):
            near = np.linspace(inside, outside, 17)
            first = max(int(np.argmax(np.append(self._excess(near) > limit, True))), 1)
            inside, outside = float(near[first - 1]), float(near[min(first, 16)])
        return inside

    def interval(self, shift: Callable[[Array], Array], level: float, noise: float = 0.0) -> tuple[Array, Array]:
        """Return the profile intervals of ln E_min + shift(ln B_crit), plus an error of variance `noise`.

        `shift` takes places (g,) to values of shape (m, g): m quantities at once.
        """
        place, room = self.region(level)
        half = np.sqrt(room * (1 / self.weight.sum() + noise))
        middle = self.study.floor(self.weight, place)[0] + shift(place)
        return (middle - half).min(axis=1), (middle + half).max(axis=1)

    def examples(self, x: Array, level: float) -> tuple[Array, Array, Array]:
        """Return ln examples for ln batch, with the interval of one more run."""
        noise = self.lack + self.study.single
        low, high = self.interval(lambda at: bend(x[:, None], at), level, noise)
        return self.floor + bend(x, self.clipped), low, high


def fit_profile(study: Study, lack: float | None = None) -> Profile:
    """Fit ln E_min and ln B_crit, with a lack of fit (a variance) that is known or solves Paule and Mandel's equation.

    It is the variance between batch sizes at which the weighted squared residuals equal their degrees of freedom;
    without replicates it is simply their mean square (Paule and Mandel 1982, J. Res. NBS 87, 377).
    """
    dof = len(study.x) - 2
    tau = 0.0 if lack is None else lack
    for _ in range(12 if lack is None else 0):
        weight = study.weights(tau)
        before, tau = tau, _lack_of_fit(study, weight, _lowest(study, weight)[0], dof)
        if abs(tau - before) <= 1e-4 * tau:
            break
    weight = study.weights(tau)
    critical, least = _lowest(study, weight)
    return Profile(study, weight, tau, critical, least, dof if lack is None else np.inf)


def _lowest(study: Study, weight: Array) -> tuple[float, float]:
    """Return ln B_crit of least misfit, infinite at an end, and that misfit."""
    low, high = study.reach
    grid = np.append(np.arange(low, high, _STEP), high)
    misfit = study.floor(weight, grid)[1]
    at = int(np.argmin(misfit))
    # Where the misfit is flat, rounding alone decides which place is lowest. An end that is as good to 1e-6 is taken.
    tiny = 1e-6 * abs(misfit[at]) + 1e-15 * weight.sum()
    for end, place in ((-1, np.inf), (0, -np.inf)):
        if misfit[end] - misfit[at] <= tiny:
            return place, float(misfit[end])
    centre, width = grid[at], _STEP
    for _ in range(_ROUNDS):
        near = centre + np.linspace(-width, width, 21)
        misfit = study.floor(weight, near)[1]
        centre, width = near[int(np.argmin(misfit))], width / 8
    return float(centre), float(misfit.min())


def _lack_of_fit(study: Study, weight: Array, critical: float, dof: int) -> float:
    """Return the variance between batch sizes about the curve of one ln B_crit."""
    if dof <= 0:
        return 0.0
    place = np.clip(critical, *study.reach)
    square = (study.y - study.floor(weight, place)[0] - bend(study.x, place)) ** 2
    if not (study.variance > 0).all():
        return float(square.sum() / dof)
    if (square / study.variance).sum() <= dof:
        return 0.0
    from scipy.optimize import brentq

    most = square.sum() / dof + study.variance.max()
    return float(brentq(lambda tau: (square / (study.variance + tau)).sum() - dof, 0.0, most, xtol=1e-12))


def find_poor(study: Study, lack: float | None = None) -> tuple[Array, float]:
    """Find the smallest batch sizes that need more data than the hyperbola of all larger ones allows.

    Returns ln(data needed / data allowed) for each of them, and the probability that noise alone does as much (1 where
    none is found).
    """
    # By the hyperbola the data needed never rise as the batch shrinks. For m = 1, 2, ... the curve is fitted without
    # the m smallest batch sizes, and what the misfit gains when they are taken back is an F test of m and k - m - 2
    # degrees of freedom. Its chance is multiplied by the number of m tried; of the m accepted the least chance counts.
    trials = range(1, len(study.x) - max(_KEPT, (len(study.x) + 1) // 2) + 1)
    found, least = np.zeros(0), 1.0
    for m in trials:
        rest = fit_profile(study.drop(m), lack)
        above = study.y[:m] - rest.floor - bend(study.x[:m], rest.clipped)
        chance = len(trials) * _chance(rest, study) if (above > 0).all() else 1.0
        if chance < min(SIGNIFICANCE, least):
            found, least = above, chance
    return found, least


def _chance(rest: Profile, whole: Study) -> float:
    """Return the probability of the misfit that the batch sizes left out add."""
    from scipy.special import chdtrc, fdtrc

    m = len(whole.x) - len(rest.study.x)
    lack = max(rest.lack * rest.scale, _CLOSEST**2)
    added = max(fit_profile(whole, lack).least - fit_profile(rest.study, lack).least, 0.0)
    if np.isinf(rest.dof):
        return float(chdtrc(m, added))
    return float(fdtrc(m, rest.dof, added / m)) if rest.dof > 0 else 1.0


@dataclass(frozen=True)
class Interval:
    """The log of a positive number and both ends of its interval; an infinite end is open."""

    value: float
    lo: float
    hi: float

    @property
    def bounded(self) -> bool:
        """Whether both ends are closed."""
        return bool(np.isfinite([self.value, self.lo, self.hi]).all())

    def natural(self, level: float) -> tuple[float, float, float, float]:
        """Return the number itself with standard error and bounds; no standard error where an end is open."""
        with np.errstate(over="ignore"):
            value, lo, hi = map(float, np.exp([self.value, self.lo, self.hi]))
        # The longer side over the normal quantile: two standard errors hold what the interval holds, with few batch
        # sizes and lopsided likelihoods too.
        error = max(hi - value, value - lo) / float(t_quantile(level, np.inf)) if self.bounded else np.nan
        return value, error, lo, hi


@dataclass(frozen=True, eq=False)
class Estimate:
    """What one estimator says of one study."""

    floor: Interval  # ln E_min
    critical: Interval  # ln B_crit
    steps: Interval  # ln(E_min/B_crit), in examples per unit of batch
    lack: float  # root of the variance between batch sizes beyond the noise of the runs
    residuals: Array  # in ln examples, one a batch size
    curve: Curve

    @property
    def status(self) -> str:
        """Which parameters the batch sizes identify; a key of `VERDICTS`."""
        if self.critical.bounded:
            return "identified" if self.floor.bounded and self.steps.bounded else "unknown"
        if len(self.residuals) < 3:
            return "too_few"
        ends = bool(np.isfinite(self.critical.lo)), bool(np.isfinite(self.critical.hi))
        return {(True, False): "no_S_min", (False, True): "no_E_min"}.get(ends, "unknown")


class Estimator(Protocol):
    """The protocol of a method: frozen settings, and `estimate`, which turns a study into an estimate."""

    def estimate(self, study: Study, level: float) -> Estimate:
        """Estimate E_min, B_crit and their ratio for one study."""
        ...
