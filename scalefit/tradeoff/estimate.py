"""What an estimator says of one study: three numbers with intervals, a curve, and whether they are identified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from scalefit.tradeoff.hyperbola import Array, Study, t_quantile


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
