"""Estimators of the trade-off: the hyperbola of one study or of many tied together, two straight lines, an overhead."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from scalefit.batch_size.critical_batch import positive
from scalefit.batch_size.hyperbola import Array, Estimate, Interval, Study, bend, fit_profile
from scalefit.errors import FitError, SweepError
from scalefit.solvers.distributions import t_quantile
from scalefit.solvers.levenberg import minimize
from scalefit.solvers.losses import Squared


@dataclass(frozen=True)
class StepsLine:
    r"""Least squares of :math:`S = a + b/B`: S_min = a, E_min = b, B_crit = b/a.

    See Also
    --------
    Hyperbola : The default, which weighs all batch sizes alike.
    fit_tradeoff

    Notes
    -----
    Squared errors of the steps themselves, so that the smallest batch sizes, which take the most steps, decide nearly
    everything: of Zhang's five sizes it leaves two unidentified and puts 1.2B at 5.2k sequences, where the hyperbola in
    logs gives 11.1k and rises steadily over all five. Intervals follow Fieller and take all steps to be equally noisy,
    which they are not: in simulated studies with equal relative noise those of E_min hold it in 46 % of cases.

    Examples
    --------
    >>> import scalefit as sf
    >>> table = {"batch": [64, 128, 256, 512], "steps": [8900, 4900, 2970, 1980]}
    >>> sf.fit_tradeoff(table, method=sf.StepsLine()).table["S_min"].round().tolist()
    [982.0]
    """

    def estimate(self, study: Study, level: float) -> Estimate:
        """Estimate E_min, B_crit and their ratio for one study."""
        line = _Line.fit(study, inverse=False)
        (a, b), c, quantile = line.coefficient, line.covariance, t_quantile(level, line.dof)
        critical = _ratio(b, a, c[1, 1], c[0, 0], c[0, 1], quantile)
        floor, steps = _single(b, c[1, 1], quantile), _single(a, c[0, 0], quantile)
        return Estimate(floor, critical, steps, np.nan, line.residuals, line.examples)


@dataclass(frozen=True)
class InverseSteps:
    r"""McCandlish's line as Li et al. use it: least squares of :math:`1/S = 1/S_{min} - B_{noise}/E`.

    B_crit is B_noise and E_min = B_noise S_min.

    See Also
    --------
    Hyperbola : The default, without examples on both sides.
    fit_tradeoff

    Notes
    -----
    Both sides hold the measured examples, so noise in them biases the slope; the largest batch sizes decide. In
    simulated studies of nine batch sizes the interval holds B_crit in 94 % when they reach well beyond it, in 67 % when
    they end at a third of it.

    References
    ----------
    Li et al. 2024, arXiv:2405.14578, section 3; McCandlish et al. 2018, arXiv:1812.06162.

    Examples
    --------
    >>> import scalefit as sf
    >>> table = {"batch": [64, 128, 256, 512], "steps": [8900, 4900, 2970, 1980]}
    >>> sf.fit_tradeoff(table, method=sf.InverseSteps()).table["S_min"].round().tolist()
    [996.0]
    """

    def estimate(self, study: Study, level: float) -> Estimate:
        """Estimate E_min, B_crit and their ratio for one study."""
        line = _Line.fit(study, inverse=True)
        (inverse, slope), c, quantile = line.coefficient, line.covariance, t_quantile(level, line.dof)
        floor = _ratio(-slope, inverse, c[1, 1], c[0, 0], -c[0, 1], quantile)
        found = _single(inverse, c[0, 0], quantile)
        steps = Interval(-found.value, -found.hi, -found.lo)
        return Estimate(floor, _single(-slope, c[1, 1], quantile), steps, np.nan, line.residuals, line.examples)


@dataclass(frozen=True, eq=False)
class _Line:
    """A straight line through steps over 1/batch, or through 1/steps over 1/examples (`inverse`)."""

    study: Study
    inverse: bool
    coefficient: Array  # intercept and slope of the line
    covariance: Array
    dof: int

    @classmethod
    def fit(cls, study: Study, inverse: bool) -> _Line:
        """Fit by least squares."""
        log_steps = study.y - study.x
        x, y = (np.exp(-study.y), np.exp(-log_steps)) if inverse else (np.exp(-study.x), np.exp(log_steps))
        # Columns are scaled to size one, so that the design is well conditioned whatever the units.
        units = np.array([1.0, 1 / np.abs(x).max()])
        design = np.stack([np.ones_like(x), x], axis=1) * units
        coefficient = np.linalg.lstsq(design, y, rcond=None)[0]
        dof = len(x) - 2
        # Two batch sizes leave no degree of freedom for the noise: infinite variances open every interval.
        variance = ((y - design @ coefficient) ** 2).sum() / dof if dof > 0 else np.inf
        spread = np.linalg.pinv(design.T @ design, hermitian=True) * variance
        return cls(study, inverse, coefficient * units, spread * np.outer(units, units), dof)

    def steps(self, x: Array) -> tuple[Array, Array]:
        """Return ln steps for ln batch, and its slopes in the two coefficients, shape (2, n)."""
        first, second = self.coefficient
        per_batch = np.exp(-x)
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.inverse:
                rest = 1 - second * per_batch
                return np.log(rest) - np.log(first), np.array([np.full_like(x, -1 / first), -per_batch / rest])
            steps = first + second * per_batch
            return np.log(steps), np.array([1 / steps, per_batch / steps])

    @property
    def residuals(self) -> Array:
        """Observed minus fitted ln examples."""
        return self.study.y - self.study.x - self.steps(self.study.x)[0]

    def examples(self, x: Array, level: float) -> tuple[Array, Array, Array]:
        """Return ln examples for ln batch, with the interval of one more run."""
        log_steps, slopes = self.steps(x)
        half = np.full_like(x, np.inf)
        if self.dof > 0:
            noise = (self.residuals**2).sum() / self.dof
            variance = np.einsum("pn,pq,qn->n", slopes, self.covariance, slopes) + noise
            half = t_quantile(level, self.dof) * np.sqrt(variance)
        value = x + log_steps
        return value, value - half, value + half


def _single(value: float, variance: float, quantile: float) -> Interval:
    """Return a coefficient that must be positive, in logs; an interval that holds 0 is open below."""
    half = quantile * np.sqrt(variance)
    return Interval(_log(value), _log(value - half), _log(value + half))


def _ratio(over: float, under: float, v_over: float, v_under: float, v_both: float, quantile: float) -> Interval:
    """Return the log of a ratio of two normal estimates with Fieller's interval."""
    ratio = over / under if under > 0 else np.nan
    # Fieller: the ratios r at which over - r under is not significant lie between the roots of a r^2 - 2 b r + c.
    a = under**2 - quantile**2 * v_under
    b = over * under - quantile**2 * v_both
    c = over**2 - quantile**2 * v_over
    if not ratio > 0 or a <= 0:
        # The denominator may be 0: the ratio has a lower bound if the numerator cannot be 0, and none otherwise.
        low = (b - np.sqrt(b * b - a * c)) / a if a < 0 < c and over > 0 else 0.0
        return Interval(_log(ratio), _log(low), np.inf)
    root = np.sqrt(max(b * b - a * c, 0.0))
    return Interval(_log(ratio), _log((b - root) / a), _log((b + root) / a))


def _log(value: float) -> float:
    """Return the log of a number, -inf where it is not positive."""
    return float(np.log(value)) if value > 0 or np.isnan(value) else -np.inf


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

    Raises
    ------
    SweepError
        If `lack_of_fit` is not positive.

    See Also
    --------
    fit_tradeoff : Applies it to every study and target.

    Notes
    -----
    On real studies the hyperbola is off by 4 to 7 %, more than the noise of twenty replicates, so tau decides the
    weights there; without replicates all batch sizes count alike. Intervals are those of the likelihood profile with
    Student's t on k - 2 degrees of freedom. An end is open where B_crit without limit is not rejected.

    References
    ----------
    McCandlish et al. 2018, arXiv:1812.06162, equation 2.11; Paule and Mandel 1982, J. Res. NBS 87, 377.

    Examples
    --------
    >>> import scalefit as sf
    >>> table = {"batch": [64, 1024], "steps": [8900, 1480]}
    >>> sf.fit_tradeoff(table, method=sf.Hyperbola(lack_of_fit=0.05)).table["identified"].tolist()
    [True]
    """

    lack_of_fit: float | None = None

    def __post_init__(self) -> None:
        if self.lack_of_fit is not None:
            positive("lack_of_fit", self.lack_of_fit, SweepError, "a positive relative scatter such as 0.05")

    def estimate(self, study: Study, level: float) -> Estimate:
        """Estimate E_min, B_crit and their ratio for one study."""
        profile = fit_profile(study, None if self.lack_of_fit is None else self.lack_of_fit**2)
        place, _ = profile.region(level)
        low_open, high_open = profile.open_ends(level)
        low, high = profile.interval(lambda at: np.stack([np.zeros_like(at), -at]), level)
        # As B_crit goes to 0, E_min falls without limit; as B_crit grows, S_min does. So the ends are open together.
        below, above = (-np.inf if low_open else 0.0), (np.inf if high_open else 0.0)
        return Estimate(
            Interval(profile.floor, float(low[0]) + below, float(high[0])),
            Interval(profile.critical, float(place[0]) + below, float(place[-1]) + above),
            Interval(profile.floor - profile.critical, float(low[1]) - above, float(high[1])),
            float(np.sqrt(profile.lack)),
            study.y - profile.floor - bend(study.x, profile.clipped),
            profile.examples,
        )


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

    Raises
    ------
    SweepError
        If `overhead` or `reference` is not positive.

    See Also
    --------
    Hyperbola : The curve it is read off.
    fit_tradeoff

    Notes
    -----
    Zhang et al. publish 745.3, 955.2, 1393.7, 1888.5 and 2533.4 sequences of 512 tokens for 85M to 1.2B parameters:
    ``Overhead(0.2, reference=256 * 512)`` on their points. Their reference batch of 256 is read off the fitted curve,
    not off the run at 256, and adds 307 sequences to every one of these: three fifths of what they call critical at 85M
    stem from B_crit, seven eighths at 1.2B.

    References
    ----------
    Zhang et al. 2024, arXiv:2410.21676.

    Examples
    --------
    >>> import scalefit as sf
    >>> table = {"batch": [64, 128, 256, 512, 1024], "steps": [8900, 4900, 2970, 1980, 1480]}
    >>> sf.fit_tradeoff(table, method=sf.Overhead(0.2, reference=64)).table["B_crit"].round().tolist()
    [179.0]
    """

    overhead: float = 0.2
    reference: float | None = None
    curve: Hyperbola = field(default_factory=Hyperbola)

    def __post_init__(self) -> None:
        positive("overhead", self.overhead, SweepError, "a positive share such as 0.2")
        if self.reference is not None:
            positive("reference", self.reference, SweepError, "a positive batch size")

    def estimate(self, study: Study, level: float) -> Estimate:
        """Estimate E_min, the batch size at the overhead, and S_min for one study."""
        found = self.curve.estimate(study, level)
        offset, share = (1 + self.overhead) * (self.reference or 0.0), np.log(self.overhead)
        ends = (found.critical.value, found.critical.lo, found.critical.hi)
        value, low, high = (float(np.logaddexp(_log(offset), share + end)) for end in ends)
        return replace(found, critical=Interval(value, -np.inf if np.isinf(found.critical.lo) else low, high))


_STARTS = np.linspace(-3.0, 3.0, 7)  # starting values of ln B_crit, counted from the middle of the batch sizes
_POWERS = {"E_min": (1, 0), "S_min": (1, -1), "B_crit": (0, 1)}  # powers of E_min and B_crit in each quantity


@dataclass(frozen=True, eq=False)
class TiedFit:
    """One law for ln E_min and one for ln B_crit, linear in the same covariates."""

    phi: Array  # (2 q,): coefficients of ln E_min, then those of ln B_crit; a constant and one for each covariate
    covariance: Array
    noise: float  # variance of ln examples about the curves, noise of runs included
    dof: int  # distinct batch sizes minus two: targets of one study share its runs and add no independent ones
    open_below: bool  # whether B_crit near 0, or without limit, fits nearly as well
    open_above: bool

    def _values(self, rows: Array) -> tuple[Array, Array]:
        """Return combinations of the coefficients with their standard errors."""
        return rows @ self.phi, np.sqrt(np.einsum("ij,jk,ik->i", rows, self.covariance, rows))

    def exponents(self, names: list[str]) -> list[dict[str, object]]:
        """Return the exponents of the covariates in E_min, S_min and B_crit, one row each."""
        # Standard errors are widened by Student's t, so that 1.96 of them hold 95 %.
        wide = t_quantile(0.95, self.dof) / t_quantile(0.95, np.inf)
        lines: list[dict[str, object]] = []
        for quantity, powers in _POWERS.items():
            values, errors = self._values(np.kron(powers, np.eye(len(names) + 1)))
            for name, value, error in zip(names, values[1:], errors[1:], strict=True):
                lines.append(
                    {"quantity": quantity, "of": name, "exponent": float(value), "stderr": float(error * wide)}
                )
        return lines

    def estimate(self, study: Study, covariates: Array, level: float) -> Estimate:
        """Return what the laws say of one study and target."""
        values, errors = self._values(np.kron(list(_POWERS.values()), covariates))
        half = errors * t_quantile(level, self.dof)
        lows = np.where([self.open_below, self.open_above, self.open_below], -np.inf, values - half)
        highs = np.where([False, False, self.open_above], np.inf, values + half)
        floor, steps, critical = (Interval(*map(float, ends)) for ends in zip(values, lows, highs, strict=True))
        curve = partial(self.examples, covariates)
        residuals = study.y - floor.value - bend(study.x, critical.value)
        return Estimate(floor, critical, steps, float(np.sqrt(self.noise)), residuals, curve)

    def examples(self, covariates: Array, x: Array, level: float) -> tuple[Array, Array, Array]:
        """Return ln examples for ln batch, with the interval of one more run."""
        floor, critical = np.kron(np.eye(2), covariates) @ self.phi
        share = 1 / (1 + np.exp(critical - x))
        rows = np.kron(np.stack([np.ones_like(x), -share], axis=1), covariates)
        half = t_quantile(level, self.dof) * np.sqrt(self._values(rows)[1] ** 2 + self.noise)
        value = floor + bend(x, critical)
        return value, value - half, value + half


def fit_tied(studies: list[Study], covariates: Array, places: int, level: float) -> TiedFit:
    """Fit all studies at once; `places` counts distinct batch sizes over studies that do not share runs.

    `covariates` (studies, q) are a column of ones, then logs of what the laws follow.
    """
    x, y = np.concatenate([s.x for s in studies]), np.concatenate([s.y for s in studies])
    design = np.repeat(covariates, [len(s.x) for s in studies], axis=0)
    q = covariates.shape[1]
    if len(x) <= 2 * q or places < 3:
        points = f"{len(x)} points at {places} batch sizes"
        raise FitError(f"tied curves have {2 * q} coefficients; {points} do not tell them")
    start = np.zeros((len(_STARTS), 2 * q))
    start[:, q] = np.median(x) + _STARTS
    for row in start:
        row[:q] = np.linalg.lstsq(design, y - bend(x, row[q]), rcond=None)[0]
    wide, ones = np.full(2 * q, 1e6), np.ones(len(x))
    residuals = partial(_residuals, x=x, y=y, design=design)
    found = minimize(residuals, start, loss=Squared(), weights=ones, lower=-wide, upper=wide)
    phi = np.asarray(found.phi[found.best()])
    misfit, jacobian = residuals(phi[None])
    least = float((misfit[0] ** 2).sum())
    # The targets of a study share its runs, so only distinct batch sizes count as independent.
    variance = least / (len(x) - 2 * q)
    inflated = variance * len(x) / places
    covariance = np.linalg.pinv(jacobian[0] @ jacobian[0].T, hermitian=True) * inflated
    dof = places - 2
    limit = t_quantile(level, dof) ** 2 * inflated
    # At B_crit = 0 the curves are straight with ln E rising as ln B, at infinite B_crit they are flat.
    ends = (rest - design @ np.linalg.lstsq(design, rest, rcond=None)[0] for rest in (y - x, y))
    below, above = (bool((off**2).sum() - least <= limit) for off in ends)
    return TiedFit(phi, covariance, variance, dof, below, above)


def _residuals(phi: Array, x: Array, y: Array, design: Array) -> tuple[Array, Array]:
    """Return fitted minus observed ln examples for many sets of coefficients, and the slopes in these."""
    q = design.shape[1]
    floor, critical = phi[:, :q] @ design.T, phi[:, q:] @ design.T
    share = 1 / (1 + np.exp(np.clip(critical - x, -500, 500)))  # exp(710) overflows
    slopes = np.concatenate([np.broadcast_to(design.T, (len(phi), q, len(x))), -share[:, None, :] * design.T], axis=1)
    return floor + bend(x, critical) - y, slopes
