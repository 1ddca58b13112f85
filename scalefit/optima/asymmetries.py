"""How much steeper basins are above their optimum: what all cells share, and how far a cell departs from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scalefit.optima.cells import Cells, Floats
from scalefit.optima.local_fit import Bottoms, bent_design, regress
from scalefit.optima.run_weights import RunWeights
from scalefit.optima.vertices import unbend

# What the asymmetry is taken to be before the cells speak, with its spread: basins are somewhat steeper above the
# optimum. The first guess is sought well beyond those seen, 0.4 to 1.2.
_TYPICAL, _SPREAD = 0.5, 0.5
_GUESSES = np.linspace(-0.5, 2.5, 13)

# Prior standard deviation of the scatter of asymmetries over cells, and the scatters tried; from 0.4 to 1.2 along D was
# seen in one sweep.
_SCATTER = 0.3
_SCATTERS = np.linspace(0.0, 1.0, 21)

# Between which places the misfit is taken for a parabola, and how far from the shared asymmetry a cell is followed.
_STEP, _FARTHEST = 0.1, 1.5

# Noise of a run, as a fraction of the loss, where nothing tells of it; and the one below which losses are free of it.
_USUAL, _EXACT = 1e-3, 1e-7


@dataclass(frozen=True, eq=False)
class Asymmetries:
    """The asymmetry all cells share, and that of each cell about it."""

    shared: float
    error: float
    scatter: float  # of the cells' own about the shared one
    own: Floats  # (cells,)
    own_error: Floats  # (cells,)
    common: Floats  # (cells,): the part of its error that a cell has from the shared one
    response: Floats  # (cells,): how far the log of the optimum moves when the asymmetry rises by one
    taken: Floats  # (cells,): degrees of freedom spent on it

    @property
    def moved(self) -> Floats:
        """How far the log of each optimum errs for the asymmetry (cells,)."""
        return np.abs(self.response) * self.own_error

    @classmethod
    def given(cls, k: float, cells: int) -> Asymmetries:
        """Return an asymmetry that is known, the same for all cells."""
        none = np.zeros(cells)
        return cls(k, 0.0, 0.0, np.full(cells, k), none, none, none, none)

    @classmethod
    def expected(cls, cells: int) -> Asymmetries:
        """Return what is thought before the cells speak."""
        spread, none = np.full(cells, np.hypot(_SPREAD, _SCATTER)), np.zeros(cells)
        return cls(_TYPICAL, _SPREAD, _SCATTER, np.full(cells, _TYPICAL), spread, none + _SPREAD, none, none)


def guess_asymmetry(cells: Cells, counted: RunWeights, variance: Floats) -> float:
    """Return which of a few asymmetries misfits least over all cells, as a start."""
    bottoms = Bottoms.of(cells, counted)
    misfit = np.concatenate([regress(bent_design(bottoms, np.full(len(variance), k)), bottoms).rss[None] for k in _GUESSES])
    return float(_GUESSES[np.argmin(misfit @ _precision(cells, variance) + ((_GUESSES - _TYPICAL) / _SPREAD) ** 2)])


def judge_asymmetries(cells: Cells, counted: RunWeights, variance: Floats, near: float) -> Asymmetries:
    """Return the asymmetries of highest posterior density for a noise, sought near a guess.

    A cell's own asymmetry is normal about the shared one. The scatter has a half-normal prior and is integrated over.
    """
    bottoms = Bottoms.of(cells, counted)
    trial = near + _STEP * np.array([-1.0, 0.0, 1.0])
    found = regress(bent_design(bottoms, trial[:, None] + np.zeros(len(variance))), bottoms)
    with np.errstate(all="ignore"):
        place = unbend(-found.coef[..., 1] / found.coef[..., 2], trial[:, None] * bottoms.scale[:, 0])
    response = (place[2] - place[0]) * bottoms.scale[:, 0] / (2 * _STEP)
    known = np.isfinite(response)
    # A cell whose bottom is not seen moves as the others do.
    response = np.where(known, response, np.median(response[known]) if known.any() else 0.0)
    low, middle, high = found.rss * _precision(cells, variance)
    # chi2 = const - 2 score (k - near) + information (k - near)**2
    information = np.maximum((low - 2 * middle + high) / (2 * _STEP**2), 0.0)
    score = np.clip((low - high) / (4 * _STEP), -_FARTHEST * information, _FARTHEST * information)
    scatter = _scatter(information, score, near)
    loose = 1 + scatter**2 * information
    total = (information / loose).sum() + _SPREAD**-2
    shift = ((score / loose).sum() + (_TYPICAL - near) / _SPREAD**2) / total
    shift = float(np.clip(shift, -2 * _STEP, 2 * _STEP)) if abs(near) < 3 else 0.0
    own = near + shift + scatter**2 * (score - information * shift) / loose
    common = np.sqrt(1 / total) / loose
    error = np.sqrt(scatter**2 / loose + common**2)
    return Asymmetries(
        near + shift, float(total**-0.5), scatter, own, error, common, response, information * error**2
    )


def _precision(cells: Cells, variance: Floats) -> Floats:
    """Return one over the noise variance; where it is unknown, over that of a usual noise."""
    low = np.nan_to_num(np.abs(cells.lowest)) + 1e-300
    return np.asarray(
        1 / np.maximum(np.where(np.isfinite(variance), variance, (_USUAL * low) ** 2), (_EXACT * low) ** 2)
    )


def _scatter(information: Floats, score: Floats, near: float) -> float:
    """Return the root of the posterior mean of the squared scatter; the shared asymmetry is integrated over."""
    loose = 1 + _SCATTERS[:, None] ** 2 * information
    total = (information / loose).sum(axis=1) + _SPREAD**-2
    pulled = (score / loose).sum(axis=1) + (_TYPICAL - near) / _SPREAD**2
    squares = (score**2 / (np.maximum(information, 1e-300) * loose)).sum(axis=1)
    log = -0.5 * (np.log(loose).sum(axis=1) + squares - pulled**2 / total + np.log(total) + (_SCATTERS / _SCATTER) ** 2)
    weight = np.exp(log - log.max())
    return float(np.sqrt(weight @ _SCATTERS**2 / weight.sum()))
