"""Estimators of the trade-off: the hyperbola of one study or of many tied together, two straight lines, an overhead."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from scalefit.batch_size.hyperbola import Array, Estimate, Profile, Study, Value, bend, fit_hyperbola
from scalefit.errors import FitError, SweepError
from scalefit.solvers.levenberg import minimize
from scalefit.solvers.losses import Squared
from scalefit.solvers.students_t import t_quantile

_OPEN = (-np.inf, np.inf)


@dataclass(frozen=True)
class StepsLine:
    r"""Least squares of :math:`S = a + b/B`: S_min = a, E_min = b, B_crit = b/a.

    Notes
    -----
    Squared errors of the steps themselves, so that the smallest batch sizes, which take the most steps, decide nearly
    everything: of Zhang's five sizes it leaves two unidentified and puts 1.2B at 5.2k sequences, where the hyperbola in
    logs gives 11.1k and rises steadily over all five. Intervals follow Fieller and take all steps to be equally noisy,
    which they are not: in simulated studies with equal relative noise those of E_min hold it in 46 % of cases.
    """

    def estimate(self, study: Study, level: float) -> Estimate:
        """Estimate E_min, B_crit and their ratio for one study."""
        steps = np.exp(study.y - study.x)
        line = _Line.fit(np.exp(-study.x), steps)
        quantile = t_quantile(level, line.dof)
        (a, b), c = line.coefficient, line.covariance
        critical = _ratio(b, a, c[1, 1], c[0, 0], c[0, 1], quantile)
        curve = _LineCurve(line, study, inverse=False)
        return _conclude(_single(b, c[1, 1], quantile), critical, _single(a, c[0, 0], quantile), curve)


@dataclass(frozen=True)
class InverseSteps:
    r"""McCandlish's line as Li et al. use it: least squares of :math:`1/S = 1/S_{min} - B_{noise}/E`.

    B_crit is B_noise and E_min = B_noise S_min.

    Notes
    -----
    Both sides hold the measured examples, so noise in them biases the slope; the largest batch sizes decide. In
    simulated studies of nine batch sizes the interval holds B_crit in 94 % when they reach well beyond it, in 67 % when
    they end at a third of it.

    References
    ----------
    Li et al. 2024, arXiv:2405.14578, section 3; McCandlish et al. 2018, arXiv:1812.06162.
    """

    def estimate(self, study: Study, level: float) -> Estimate:
        """Estimate E_min, B_crit and their ratio for one study."""
        line = _Line.fit(np.exp(-study.y), np.exp(study.x - study.y))
        quantile = t_quantile(level, line.dof)
        (inverse, slope), c = line.coefficient, line.covariance
        floor = _ratio(-slope, inverse, c[1, 1], c[0, 0], -c[0, 1], quantile)
        steps = _single(inverse, c[0, 0], quantile)
        flipped = Value(-steps.value, -steps.hi, -steps.lo)
        curve = _LineCurve(line, study, inverse=True)
        return _conclude(floor, _single(-slope, c[1, 1], quantile), flipped, curve)


@dataclass(frozen=True, eq=False)
class _Line:
    """Intercept and slope with their covariance."""

    coefficient: Array
    covariance: Array
    dof: int

    @classmethod
    def fit(cls, x: Array, y: Array) -> _Line:
        # Columns of size one: the design stays well conditioned whatever the units.
        size = np.abs(x).max()
        design = np.stack([np.ones_like(x), x / size], axis=1)
        coefficient, *_ = np.linalg.lstsq(design, y, rcond=None)
        dof = len(x) - 2
        variance = ((y - design @ coefficient) ** 2).sum() / dof if dof > 0 else np.inf
        spread = np.linalg.pinv(design.T @ design, hermitian=True)
        units = np.array([1.0, 1 / size])
        finite = variance if np.isfinite(variance) else 0.0
        return cls(coefficient * units, spread * finite * np.outer(units, units), dof)


@dataclass(frozen=True, eq=False)
class _LineCurve:
    line: _Line
    study: Study
    inverse: bool

    def steps(self, x: Array) -> tuple[Array, Array]:
        """Return ln steps for ln batch, and its slopes in the two coefficients, shape (2, n)."""
        first, second = self.line.coefficient
        per_batch = np.exp(-x)
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.inverse:
                value = np.log(1 - second * per_batch) - np.log(first)
                slopes = np.array([np.full_like(x, -1 / first), -per_batch / (1 - second * per_batch)])
            else:
                steps = first + second * per_batch
                value, slopes = np.log(steps), np.array([1 / steps, per_batch / steps])
        return value, slopes

    @property
    def residuals(self) -> Array:
        return self.study.y - self.study.x - self.steps(self.study.x)[0]

    def examples(self, x: Array, level: float) -> tuple[Array, Array, Array]:
        """Return ln examples for ln batch, with the interval of one more run."""
        value, slopes = self.steps(x)
        dof = self.line.dof
        if dof <= 0:
            return x + value, np.full_like(x, -np.inf), np.full_like(x, np.inf)
        noise = (self.residuals**2).sum() / dof
        half = t_quantile(level, dof) * np.sqrt(np.einsum("pn,pq,qn->n", slopes, self.line.covariance, slopes) + noise)
        return x + value, x + value - half, x + value + half


def _conclude(floor: Value, critical: Value, steps: Value, curve: _LineCurve) -> Estimate:
    residual = curve.residuals
    rms = float(np.sqrt(np.mean(residual**2)))
    return Estimate(floor, critical, steps, rms, np.nan, residual, curve)


def _single(value: float, variance: float, quantile: float) -> Value:
    """Return a coefficient that must be positive, in logs; an interval that holds 0 is open below."""
    if not np.isfinite(quantile):
        return Value(_log(value), *_OPEN)
    half = quantile * np.sqrt(variance)
    return Value(_log(value), _log(value - half), _log(value + half))


def _ratio(over: float, under: float, v_over: float, v_under: float, v_both: float, quantile: float) -> Value:
    """Return the log of a ratio of two normal estimates with Fieller's interval."""
    ratio = over / under if under > 0 else np.nan
    if not np.isfinite(quantile):
        return Value(_log(ratio), *_OPEN)
    a = under**2 - quantile**2 * v_under
    b = over * under - quantile**2 * v_both
    c = over**2 - quantile**2 * v_over
    if not ratio > 0 or a <= 0:
        # The denominator may be 0: the ratio has at most a lower bound, where the numerator may not be.
        low = (b - np.sqrt(b * b - a * c)) / a if a < 0 < c and over > 0 else 0.0
        return Value(_log(ratio), _log(low), np.inf)
    root = np.sqrt(max(b * b - a * c, 0.0))
    return Value(_log(ratio), _log((b - root) / a), _log((b + root) / a))


def _log(value: float) -> float:
    if np.isnan(value):
        return np.nan
    return float(np.log(value)) if value > 0 else -np.inf


@dataclass(frozen=True)
class Hyperbola:
    r"""The hyperbola fitted in logs, every batch size weighted by its noise and a common lack of fit.

    .. math:: \ln E = \ln E_{min} + \ln(1 + B/B_{crit}) + u + e,\qquad u \sim N(0, \tau^2),\; e \sim N(0, v_B)

    Parameters
    ----------
    lack_of_fit : float or None
        tau, the relative scatter of batch sizes about the curve beyond the noise of their runs. None estimates it from
        the residuals (Paule and Mandel); a number, such as 0.05, is taken as known, and intervals then use the normal
        distribution: the only way to have any with two batch sizes.

    Notes
    -----
    On real studies the hyperbola is off by 4 to 7 %, more than the noise of twenty replicates, so tau decides the
    weights there; without replicates all batch sizes count alike. Intervals are those of the likelihood profile with
    Student's t on k - 2 degrees of freedom. An end is open where B_crit without limit is not rejected.

    References
    ----------
    McCandlish et al. 2018, arXiv:1812.06162, equation 2.11; Paule and Mandel 1982, J. Res. NBS 87, 377.
    """

    lack_of_fit: float | None = None

    def __post_init__(self) -> None:
        if self.lack_of_fit is not None and not 0 < self.lack_of_fit < np.inf:
            raise SweepError(
                f"lack_of_fit should be a positive relative scatter such as 0.05, found {self.lack_of_fit}"
            )

    def estimate(self, study: Study, level: float) -> Estimate:
        """Estimate E_min, B_crit and their ratio for one study."""
        profile = fit_hyperbola(study, None if self.lack_of_fit is None else self.lack_of_fit**2)
        place, _ = profile.region(level)
        low_open, high_open = profile.open_ends(level)
        low, high = profile.interval(lambda at: np.stack([np.zeros_like(at), -at]), level)
        residual = profile.residuals
        return Estimate(
            Value(profile.floor, -np.inf if low_open else float(low[0]), float(high[0])),
            Value(
                profile.critical,
                -np.inf if low_open else float(place[0]),
                np.inf if high_open else float(place[-1]),
            ),
            Value(profile.floor - profile.critical, -np.inf if high_open else float(low[1]), float(high[1])),
            float(np.sqrt(np.mean(residual**2))),
            float(np.sqrt(profile.lack)),
            residual,
            _ProfileCurve(profile),
        )


@dataclass(frozen=True, eq=False)
class _ProfileCurve:
    profile: Profile

    def examples(self, x: Array, level: float) -> tuple[Array, Array, Array]:
        """Return ln examples for ln batch, with the interval of one more run."""
        profile = self.profile
        noise = profile.lack + profile.study.single
        value = profile.floor + bend(x, profile.clipped)
        low, high = profile.interval(lambda at: bend(x[:, None], at), level, noise)
        return value, low, high


@dataclass(frozen=True)
class Overhead:
    r"""The batch size at which a stated overhead in data is paid: Zhang's critical batch size.

    .. math:: E(B) = (1 + o)\,E(B_{ref}) \quad\Rightarrow\quad B = (1 + o)\,B_{ref} + o\,B_{crit}

    Reported as `B_crit` in the table of the result; S_min and E_min stay those of the curve.

    Parameters
    ----------
    overhead : float
        o, 0.2 for a fifth more data.
    reference : float or None
        B_ref, the batch size from which steps are taken to fall in proportion, in the unit of the batch; None takes the
        limit of small batches, o B_crit.
    curve : Hyperbola
        The fitted curve.

    Notes
    -----
    Zhang et al. publish 745.3, 955.2, 1393.7, 1888.5 and 2533.4 sequences of 512 tokens for 85M to 1.2B parameters:
    ``Overhead(0.2, reference=256 * 512)`` on their points. Their reference batch of 256 is read off the fitted curve,
    not off the run at 256, and adds 307 sequences to every one of these: three fifths of what they call critical at 85M
    stem from B_crit, seven eighths at 1.2B.

    References
    ----------
    Zhang et al. 2024, arXiv:2410.21676.
    """

    overhead: float = 0.2
    reference: float | None = None
    curve: Hyperbola = field(default_factory=Hyperbola)

    def __post_init__(self) -> None:
        if not 0 < self.overhead < np.inf:
            raise SweepError(f"overhead should be a positive share such as 0.2, found {self.overhead!r}")
        if self.reference is not None and not 0 < self.reference < np.inf:
            raise SweepError(f"reference should be a positive batch size, found {self.reference!r}")

    def estimate(self, study: Study, level: float) -> Estimate:
        """Estimate E_min, the batch size at the overhead, and S_min for one study."""
        found = self.curve.estimate(study, level)
        critical = found.critical
        offset = 0.0 if self.reference is None else (1 + self.overhead) * self.reference
        share = _log_overhead(self.overhead)
        value, low, high = (
            float(np.logaddexp(_log_overhead(offset), share + end))
            for end in (critical.value, critical.lo, critical.hi)
        )
        return replace(found, critical=Value(value, -np.inf if np.isinf(critical.lo) else low, high))


def _log_overhead(value: float) -> float:
    return float(np.log(value)) if value > 0 else -np.inf


_STARTS = np.linspace(-3.0, 3.0, 7)
"""Starting ln B_crit, from the middle of the batch sizes."""


@dataclass(frozen=True, eq=False)
class TiedFit:
    """One law for ln E_min and one for ln B_crit, linear in the same covariates.

    Parameters
    ----------
    floor, critical : ndarray (q,)
        Coefficients: a constant, then one a covariate.
    covariance : ndarray (2 q, 2 q)
        Of (floor, critical).
    noise : float
        Variance of ln examples about the curves, noise of runs included.
    dof : int
        Distinct batch sizes minus two: targets of one study share its runs and add no independent ones.
    open_below, open_above : bool
        Whether B_crit near 0, or without limit, fits nearly as well.
    """

    floor: Array
    critical: Array
    covariance: Array
    noise: float
    dof: int
    open_below: bool
    open_above: bool

    def exponents(self, names: list[str]) -> list[dict[str, object]]:
        """Return the powers of the covariates in E_min, S_min and B_crit, one row each.

        Standard errors are widened by Student's t, so that 1.96 of them hold 95 %.
        """
        q = len(self.floor)
        eye = np.eye(q)
        blocks = {"E_min": (eye, 0 * eye), "S_min": (eye, -eye), "B_crit": (0 * eye, eye)}
        wide = t_quantile(0.95, self.dof) / t_quantile(0.95, np.inf)
        lines: list[dict[str, object]] = []
        for quantity, (floor, critical) in blocks.items():
            rows = np.concatenate([floor, critical], axis=1)
            powers = rows @ np.concatenate([self.floor, self.critical])
            errors = np.sqrt(np.einsum("ij,jk,ik->i", rows, self.covariance, rows)) * wide
            for name, power, error in zip(names, powers[1:], errors[1:], strict=True):
                lines.append({"quantity": quantity, "of": name, "exponent": float(power), "stderr": float(error)})
        return lines

    def estimate(self, study: Study, covariates: Array, level: float) -> Estimate:
        """Return what the laws say of one study and target."""
        q = len(self.floor)
        rows = np.zeros((3, 2 * q))
        rows[0, :q] = rows[1, q:] = rows[2, :q] = covariates
        rows[2, q:] = -covariates
        errors = np.sqrt(np.einsum("ij,jk,ik->i", rows, self.covariance, rows))
        values = np.array([covariates @ self.floor, covariates @ self.critical, 0.0])
        values[2] = values[0] - values[1]
        half = errors * t_quantile(level, self.dof)
        below, above = self.open_below, self.open_above
        lows = np.where([below, below, above], -np.inf, values - half)
        highs = np.where([False, above, False], np.inf, values + half)
        floor, critical, steps = (Value(*map(float, part)) for part in zip(values, lows, highs, strict=True))
        residual = study.y - values[0] - bend(study.x, values[1])
        curve = _TiedCurve(self, covariates)
        return Estimate(
            floor, critical, steps, float(np.sqrt(np.mean(residual**2))), np.sqrt(self.noise), residual, curve
        )


@dataclass(frozen=True, eq=False)
class _TiedCurve:
    fit: TiedFit
    covariates: Array

    def examples(self, x: Array, level: float) -> tuple[Array, Array, Array]:
        """Return ln examples for ln batch, with the interval of one more run."""
        floor, critical = self.covariates @ self.fit.floor, self.covariates @ self.fit.critical
        share = 1 / (1 + np.exp(critical - x))
        rows = np.concatenate([np.outer(np.ones_like(x), self.covariates), -np.outer(share, self.covariates)], axis=1)
        variance = np.einsum("ni,ij,nj->n", rows, self.fit.covariance, rows) + self.fit.noise
        half = t_quantile(level, self.fit.dof) * np.sqrt(variance)
        value = floor + bend(x, critical)
        return value, value - half, value + half


def fit_tied(studies: list[Study], covariates: Array, places: int, level: float) -> TiedFit:
    """Fit all studies at once.

    Parameters
    ----------
    studies : list of Study
    covariates : ndarray (studies, q)
        A column of ones, then logs of what the laws follow.
    places : int
        Distinct batch sizes, over studies that do not share runs.
    level : float
        Coverage at which B_crit counts as bounded.
    """
    x, y = np.concatenate([s.x for s in studies]), np.concatenate([s.y for s in studies])
    design = np.repeat(covariates, [len(s.x) for s in studies], axis=0)
    q = covariates.shape[1]
    if len(x) <= 2 * q or places < 3:
        raise FitError(
            f"tied curves have {2 * q} coefficients; {len(x)} points at {places} batch sizes do not tell them"
        )
    phi = _solve(x, y, design)
    misfit, jacobian = _residuals(phi[None], x, y, design)
    least = float((misfit[0] ** 2).sum())
    # Runs are shared by the targets of a study: n points tell no more than their batch sizes.
    variance = least / (len(x) - 2 * q)
    inflated = variance * len(x) / places
    covariance = np.linalg.pinv(jacobian[0] @ jacobian[0].T, hermitian=True) * inflated
    dof = places - 2
    limit = t_quantile(level, dof) ** 2 * inflated
    below, above = (_straight(y - part, design) - least <= limit for part in (x, np.zeros_like(x)))
    return TiedFit(phi[:q], phi[q:], covariance, variance, dof, bool(below), bool(above))


def _solve(x: Array, y: Array, design: Array) -> Array:
    q = design.shape[1]
    start = np.zeros((len(_STARTS), 2 * q))
    for row, shift in zip(start, _STARTS, strict=True):
        critical = float(np.median(x)) + shift
        row[q] = critical
        row[:q] = np.linalg.lstsq(design, y - bend(x, critical), rcond=None)[0]
    wide = np.full(2 * q, 1e6)
    found = minimize(
        lambda phi: _residuals(phi, x, y, design),
        start,
        loss=Squared(),
        weights=np.ones(len(x)),
        lower=-wide,
        upper=wide,
    )
    return np.asarray(found.phi[found.best()])


def _residuals(phi: Array, x: Array, y: Array, design: Array) -> tuple[Array, Array]:
    q = design.shape[1]
    floor, critical = phi[:, :q] @ design.T, phi[:, q:] @ design.T
    share = 1 / (1 + np.exp(np.clip(critical - x, -500, 500)))
    value = floor + np.logaddexp(0.0, x - critical)
    slopes = np.concatenate([np.broadcast_to(design.T, (len(phi), q, len(x))), -share[:, None, :] * design.T], axis=1)
    return value - y, slopes


def _straight(rest: Array, design: Array) -> float:
    """Return the misfit of the laws where the curve is straight."""
    return float(((rest - design @ np.linalg.lstsq(design, rest, rcond=None)[0]) ** 2).sum())
