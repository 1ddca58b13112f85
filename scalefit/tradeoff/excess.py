"""Small batches that need more data than the hyperbola allows: a stated test, and how many it finds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scalefit.tradeoff.hyperbola import Profile, Study, bend, fit_hyperbola

Array = np.ndarray

SIGNIFICANCE = 0.05
"""Chance, for a whole study that obeys the hyperbola, of calling its smallest batch sizes out."""

KEPT = 4
"""Batch sizes that must remain, and no fewer than half of them, to judge the smaller ones by."""

CLOSEST = 0.02
"""Scatter about the curve, in ln examples, that is reckoned with even where the remaining batch sizes show less."""


@dataclass(frozen=True, eq=False)
class Excess:
    """What the test says.

    Parameters
    ----------
    count : int
        Smallest batch sizes that need too much data; 0 if none.
    amount : ndarray (count,)
        Log of what they needed over what the hyperbola of the others allows.
    chance : float
        Probability of so large an excess by noise alone, for the largest of them; 1 if none is called out.
    """

    count: int
    amount: Array
    chance: float


def find_excess(study: Study, lack: float | None = None, significance: float = SIGNIFICANCE) -> Excess:
    """Find the smallest batch sizes that lie above the hyperbola of all larger ones.

    By the hyperbola the data needed never rise as the batch shrinks. For m = 1, 2, ... the curve is fitted without the
    m smallest batch sizes and its lack of fit is estimated there (`CLOSEST` at least: a few batch sizes on one curve by
    luck are no yardstick). What the misfit gains when they are taken back is compared with F(m, k - m - 2), and its
    chance is multiplied by the number of m tried. m is accepted when that
    chance is below `significance` and all m lie above the curve; of the accepted m the one of least chance counts.
    """
    trials = range(1, len(study.x) - max(KEPT, (len(study.x) + 1) // 2) + 1)
    found = Excess(0, np.zeros(0), 1.0)
    for m in trials:
        rest = fit_hyperbola(study.drop(m), lack)
        above = study.y[:m] - rest.floor - bend(study.x[:m], rest.clipped)
        if (above <= 0).any():
            continue
        chance = min(len(trials) * _chance(rest, study), 1.0)
        if chance < min(significance, found.chance):
            found = Excess(m, above, chance)
    return found


def _chance(rest: Profile, whole: Study) -> float:
    """Return the probability of the misfit that the batch sizes left out add."""
    from scipy.special import chdtrc, fdtrc

    m = len(whole.x) - len(rest.study.x)
    again = fit_hyperbola(whole, max(rest.lack * rest.scale, CLOSEST**2))
    before = fit_hyperbola(rest.study, max(rest.lack * rest.scale, CLOSEST**2))
    added = max(again.least - before.least, 0.0)
    if np.isinf(rest.dof):
        return float(chdtrc(m, added))
    return float(fdtrc(m, rest.dof, added / m)) if rest.dof > 0 else 1.0
