"""Estimators of the trade-off beside each other: the hyperbola, the two linear forms, and batch size at an overhead."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from scalefit.errors import SweepError
from scalefit.tradeoff.estimate import Estimate, Value
from scalefit.tradeoff.hyperbola import Array, Profile, Study, bend, fit_hyperbola
from scalefit.tradeoff.lines import InverseSteps, StepsLine

__all__ = ["Hyperbola", "InverseSteps", "Overhead", "StepsLine"]


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
        share = _log(self.overhead)
        value, low, high = (
            float(np.logaddexp(_log(offset), share + end)) for end in (critical.value, critical.lo, critical.hi)
        )
        return replace(found, critical=Value(value, -np.inf if np.isinf(critical.lo) else low, high))


def _log(value: float) -> float:
    return float(np.log(value)) if value > 0 else -np.inf
