"""The trade-off as a straight line: steps in 1/B, or inverse steps in inverse examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scalefit.tradeoff.estimate import Estimate, Value
from scalefit.tradeoff.hyperbola import Array, Study, t_quantile

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
