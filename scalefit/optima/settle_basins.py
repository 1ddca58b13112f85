"""Basins of all cells over one axis, with the asymmetry they share and the noise that grows away from the optimum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scalefit._values import Note
from scalefit.optima.asymmetries import TYPICAL, Asymmetries, judge_asymmetries
from scalefit.optima.cells import Cells
from scalefit.optima.local_fit import Bottoms, Quadratic, bent_columns, bent_design, fit_quadratic, regress
from scalefit.optima.run_weights import RunWeights, decline, excess_beyond_noise, growth_of_noise
from scalefit.optima.vertices import bottom

# How often basin and weights are found in turn.
_ROUNDS = 6

# How much wider the window is where no basin is seen through the first.
_WIDER = 4.0

# Places of the optimum tried there, the growth of the noise above it per e-fold, the noise below which losses are exact
# for this purpose, and the runs, counted by weight, from which it is tried.
_PLACES, _GROWING, _RELATIVE, _ENOUGH = 7, 1.0, 1e-4, 6.0


@dataclass(frozen=True, eq=False)
class Basins:
    """The basins of all cells, and what they share."""

    fit: Quadratic
    bends: Asymmetries
    counted: RunWeights
    growth: tuple[float, float]  # of the log of the noise, per e-fold below and above the optimum

    @property
    def notes(self) -> tuple[Note, ...]:
        """What the basins share, unless it was given."""
        if not self.bends.error:
            return ()
        k = round(self.bends.shared, 2) + 0.0
        return (
            Note("asymmetry", f"basins share the asymmetry k = {k:.2f} +/- {self.bends.error:.2f} (0 is a parabola)"),
        )


def settle_basins(cells: Cells, window: float, asymmetry: float | None) -> Basins:
    """Fit the basins and judge by them how noisy runs are and how far the shape holds, until both settle."""
    n_cells, growth = len(cells.loss), (0.0, 0.0)
    bends = Asymmetries.given(TYPICAL if asymmetry is None else asymmetry, n_cells)
    counted = _begin(cells, window, bends.shared)
    fit = fit_quadratic(cells, counted, bends.shared)
    for turn in range(_ROUNDS):
        if turn:
            counted, growth = _reweigh(cells, fit, bends.shared, window, counted)
        if asymmetry is None:
            bends = judge_asymmetries(cells, counted, fit.variance, bends.shared if turn else None)
        fit = fit_quadratic(cells, counted, bends.shared, bends.taken if asymmetry is None else None)
    return Basins(fit, bends, counted, growth)


def _begin(cells: Cells, window: float, k: float) -> RunWeights:
    """Return the weights of the likeliest of a few places of the optimum, for noise that grows above it or does not.

    Where noise grows, a fit that does not know it may see no basin at all, and then nothing to measure the growth from.
    """
    narrow, first = (RunWeights.first(cells, wide) for wide in (window, _WIDER * window))
    seen = bottom(fit_quadratic(cells, narrow, k), k)[2][:, None]
    if seen.all():
        return narrow
    share = np.linspace(0.0, 1.0, _PLACES)[:, None]
    low, high = (end[:, 0] for end in cells.extent(first.trust > 0.25))
    centre = low + share * (high - low)
    away = np.where(cells.finished, np.maximum(cells.x[:, :, 0] - np.nan_to_num(centre)[..., None], 0.0), 0.0)
    calm = np.concatenate([np.ones((1, *cells.loss.shape)), np.exp(-_GROWING * away)])
    worth = np.maximum(first.trust.sum(axis=1), 1.0)
    # The noise of few runs cannot be told from what the shape leaves over: below a hundredth of a percent it is.
    floor = worth * (_RELATIVE * np.nan_to_num(cells.lowest)) ** 2
    score = []
    for one in calm:
        bottoms = Bottoms.of(cells, RunWeights(first.trust, one))
        found = regress(bent_design(bottoms, k), bottoms)
        score.append((first.trust * np.log(one)).sum(axis=1) - worth / 2 * np.log(found.rss + floor + 1e-300))
    best = np.argmax(score, axis=0)
    likeliest = np.where(worth[:, None] > _ENOUGH, calm[best, np.arange(len(worth))], 1.0)
    return RunWeights(np.where(seen, narrow.trust, first.trust), np.where(seen, 1.0, likeliest))


def _reweigh(
    cells: Cells, fit: Quadratic, k: float, window: float, counted: RunWeights
) -> tuple[RunWeights, tuple[float, float]]:
    """Return the weights that follow from a fit, and how fast the noise grows."""
    place, lowest, basin = bottom(fit, k)
    done = cells.finished & basin[:, None]
    z = np.where(cells.finished, (cells.x[:, :, 0] - fit.centre) / fit.scale, 0.0)
    curve = bent_columns(z, k * fit.scale)
    coef = np.stack([fit.constant, fit.gradient[:, 0], fit.hessian[:, 0, 0]], axis=1)
    fitted = (curve @ coef[:, :, None])[:, :, 0]
    away = np.where(done, (z - place[:, None]) * fit.scale, 0.0)
    known = done & (np.nan_to_num(fit.variance) > 0)[:, None]
    residual = np.where(known, (cells.loss - fitted) / np.sqrt(np.where(known, fit.variance[:, None], 1.0)), 0.0)
    growth = growth_of_noise(cells, away, residual, np.where(known, counted.trust, 0.0))
    calm = decline(away, growth)
    low = np.abs(cells.lowest)[:, None]
    mean, count = cells.averaged
    error = np.sqrt(fit.variance)[:, None] / calm / np.sqrt(np.maximum(count, 1)) / low
    excess = excess_beyond_noise((fitted - lowest[:, None]) / low, (mean - lowest[:, None]) / low, error)
    fresh = RunWeights.of(cells, excess, window, calm)
    # Where there is no bottom there is no distance from it.
    return RunWeights(
        np.where(basin[:, None], fresh.trust, counted.trust), np.where(basin[:, None], fresh.calm, counted.calm)
    ), growth
