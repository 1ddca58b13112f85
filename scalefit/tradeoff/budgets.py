r"""Data to a target from final losses: a law in the budget for every batch size, inverted at the target.

.. math:: L_B(D) = E + c_B D^{-\beta_B} \quad\Rightarrow\quad D_B = \left(\frac{c_B}{L^* - E}\right)^{1/\beta_B}

The floor E is shared by the batch sizes of a study and is 0 where none of them has three budgets, so that two budgets
are joined by a straight line in (ln D, ln L).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scalefit.levels import lowest_of

Array = np.ndarray

_FLOORS = np.linspace(0.0, 0.97, 98)
"""Floors tried, as shares of the lowest loss."""


@dataclass(frozen=True, eq=False)
class BudgetLaws:
    """The laws of one study's batch sizes.

    Parameters
    ----------
    batch : ndarray (b,)
    floor : float
    level, slope : ndarray (b,)
        ln(L - floor) = level - slope (ln D - centre).
    covariance : ndarray (b, 2, 2)
    centre, first, last : ndarray (b,)
        Mean, lowest and highest ln D of each batch size.
    count : ndarray (b,)
        Budgets.
    lowest, highest : ndarray (b,)
        Lowest and highest loss.
    """

    batch: Array
    floor: float
    level: Array
    slope: Array
    covariance: Array
    centre: Array
    first: Array
    last: Array
    count: Array
    lowest: Array
    highest: Array

    @property
    def spans(self) -> bool:
        """Whether some batch size has two budgets of different losses, so that targets can lie between them."""
        return bool((self.lowest < self.highest).any())

    def invert(self, target: float) -> tuple[Array, Array]:
        """Return ln D at the target and its standard error, NaN where the batch size's law never gets there."""
        usable = (self.slope > 0) & (self.count > 1)
        if target <= self.floor:
            return np.full(len(self.batch), np.nan), np.full(len(self.batch), np.nan)
        slope = np.where(usable, self.slope, 1.0)
        away = (self.level - np.log(target - self.floor)) / slope
        row = np.stack([np.ones_like(away), -away], axis=1)
        error = np.sqrt(np.einsum("bi,bij,bj->b", row, self.covariance, row)) / slope
        return np.where(usable, self.centre + away, np.nan), np.where(usable, error, np.nan)


def fit_budgets(batch: Array, tokens: Array, loss: Array, variance: Array) -> BudgetLaws:
    """Fit the law of every batch size of one study.

    Parameters
    ----------
    batch, tokens, loss : ndarray (cells,)
        Best loss of each batch size and budget.
    variance : ndarray (cells,)
        Of that loss; NaN where unknown.
    """
    levels, place = np.unique(batch, return_inverse=True)
    known = variance[np.isfinite(variance) & (variance > 0)]
    spare = np.median(known) if len(known) else 0.0
    variance = np.where(np.isfinite(variance) & (variance > 0), variance, spare or 1.0)
    log_tokens = np.log(tokens)
    count = np.bincount(place)
    dof = int((count - 2)[count > 2].sum()) - 1
    floors = _FLOORS * loss.min() if dof > 0 else np.zeros(1)
    misfits = [_lines(place, log_tokens, loss, variance, floor)[-1] for floor in floors]
    best = int(np.argmin(misfits))
    floor = float(floors[best])
    level, slope, centre, covariance, misfit = _lines(place, log_tokens, loss, variance, floor)
    scale = misfit / dof if dof > 0 else 1.0
    first, lowest = (lowest_of(place, values, len(levels)) for values in (log_tokens, loss))
    last, highest = (-lowest_of(place, -values, len(levels)) for values in (log_tokens, loss))
    factor = max(scale, 1.0) if spare else (scale if dof > 0 else np.nan)
    return BudgetLaws(levels, floor, level, slope, covariance * factor, centre, first, last, count, lowest, highest)


def _lines(
    place: Array, log_tokens: Array, loss: Array, variance: Array, floor: float
) -> tuple[Array, Array, Array, Array, float]:
    """Fit a line in (ln D, ln(L - floor)) to every batch size; the misfit is in units of the losses' noise."""
    height = np.log(loss - floor)
    weight = (loss - floor) ** 2 / variance
    total = np.bincount(place, weight)
    centre = np.bincount(place, weight * log_tokens) / total
    away = log_tokens - centre[place]
    level = np.bincount(place, weight * height) / total
    moment = np.bincount(place, weight * away**2)
    several = moment > 1e-12 * total
    slope = -np.bincount(place, weight * away * height) / np.where(several, moment, 1.0)
    slope = np.where(several, slope, 0.0)
    covariance = np.zeros((len(total), 2, 2))
    covariance[:, 0, 0] = 1 / total
    covariance[:, 1, 1] = 1 / np.where(several, moment, 1.0)
    residual = height - level[place] + slope[place] * away
    return level, slope, centre, covariance, float((weight * residual**2).sum())
