"""How much steeper basins are above their optimum: what all cells share, and how far a cell departs from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scalefit.optima.basin_shape import pool_noise
from scalefit.optima.cells import Cells, Floats
from scalefit.optima.local_fit import Bottoms, Regression, bent_design, regress
from scalefit.optima.run_weights import RunWeights
from scalefit.optima.vertices import unbend

# What the asymmetry is taken to be before the cells speak, with its spread: basins are somewhat steeper above the
# optimum. The first guess is sought well beyond those seen, 0.4 to 1.2.
TYPICAL, _SPREAD = 0.5, 0.5
_GUESSES = np.linspace(-0.5, 2.5, 13)

# Prior standard deviation of the scatter of asymmetries over cells, and the scatters tried; from 0.4 to 1.2 along D was
# seen in one sweep.
_SCATTER = 0.3
_SCATTERS = np.linspace(0.0, 1.0, 21)

# Between which places the misfit is taken for a parabola, and how far from the shared asymmetry a cell is followed.
_STEP, _FARTHEST = 0.1, 1.5

# No asymmetry beyond this is believed.
_LARGEST = 3.0

# Noise of a run, as a fraction of the loss, where nothing tells of it; and the one below which losses are free of it.
_USUAL, _EXACT = 1e-3, 1e-7


@dataclass(frozen=True, eq=False)
class Asymmetries:
    """The asymmetry all cells share, and that of each cell about it."""

    shared: float
    error: float
    own_error: Floats  # (cells,): how far off the shared one may be for a cell, whose own may differ
    response: Floats  # (cells,): how far the log of the optimum moves when the asymmetry rises by one
    taken: Floats  # (cells,): degrees of freedom spent on it

    @property
    def moved(self) -> Floats:
        """Standard error of the log of each optimum for its asymmetry (cells,)."""
        return np.abs(self.response) * self.own_error

    @classmethod
    def given(cls, k: float, cells: int) -> Asymmetries:
        """Return an asymmetry that is known, the same for all cells."""
        return cls(k, 0.0, *np.zeros((3, cells)))


def judge_asymmetries(cells: Cells, counted: RunWeights, variance: Floats, near: float | None) -> Asymmetries:
    """Return the asymmetries of highest posterior density, sought near the last ones; at first among a few guesses.

    A cell's own asymmetry is normal about the shared one. The scatter has a half-normal prior and is integrated over.
    `variance` is that of the noise, used where too few runs are left for each cell's own asymmetry to be fitted away.
    """
    bottoms = Bottoms.of(cells, counted)
    if near is None:
        found = _misfit(bottoms, _GUESSES)
        score = found.rss @ (1 / _noise(cells, found.rss.min(axis=0), found.dof[0], variance))
        near = float(_GUESSES[np.argmin(score + ((_GUESSES - TYPICAL) / _SPREAD) ** 2)])
    trial = near + _STEP * np.array([-1.0, 0.0, 1.0])
    found = _misfit(bottoms, trial)
    low, here, high = found.rss
    curved, slope = np.maximum((low - 2 * here + high) / (2 * _STEP**2), 1e-300), (low - high) / (4 * _STEP)
    shortened = np.clip(slope, -_FARTHEST * curved, _FARTHEST * curved)
    noise = _noise(cells, here - shortened * (2 * slope - shortened) / curved, found.dof[1], variance)
    information, score = curved / noise, shortened / noise
    # chi2 = const - 2 score (k - near) + information (k - near)**2
    scatter = _scatter(information, score, near)
    prior = np.array([TYPICAL - near, 1.0]) / _SPREAD**2
    # The point is that of one asymmetry for all cells: one drawn towards each cell's own predicts runs that were left
    # out somewhat better, but moves the optima of a real sweep apart by more than its error.
    shift = float((score.sum() + prior[0]) / (information.sum() + prior[1]))
    # Farther off, the misfit is no parabola; the next round goes on from there.
    shift = float(np.clip(near + np.clip(shift, -2 * _STEP, 2 * _STEP), -_LARGEST, _LARGEST)) - near
    loose = 1 + scatter**2 * information
    total = (information / loose).sum() + prior[1]
    middle = ((score / loose).sum() + prior[0]) / total
    # Of a cell's own asymmetry: how far it is thought to be from the point, and with what error.
    away = middle - shift + scatter**2 * (score - information * middle) / loose
    own = np.sqrt(scatter**2 / loose + 1 / (total * loose**2) + away**2)
    taken = information / (information.sum() + prior[1])
    return Asymmetries(near + shift, float(total**-0.5), own, _response(bottoms, found, trial), taken)


def _misfit(bottoms: Bottoms, ks: Floats) -> Regression:
    return regress(bent_design(bottoms, ks), bottoms)


def _noise(cells: Cells, least: Floats, dof: Floats, otherwise: Floats) -> Floats:
    """Return the noise variance about each cell's best asymmetry; else the other one, or a usual one."""
    left = np.maximum(dof - 1, 0.0)
    low = np.nan_to_num(np.abs(cells.lowest))
    fresh, _ = pool_noise(np.where(left > 0, np.maximum(least, 0.0), 0.0), left, low)
    found = np.where(np.isfinite(fresh), fresh, np.where(np.isfinite(otherwise), otherwise, (_USUAL * low) ** 2))
    return np.asarray(np.maximum(found, (_EXACT * low) ** 2 + 1e-300))


def _response(bottoms: Bottoms, found: Regression, trial: Floats) -> Floats:
    """Return how far each optimum moves with the asymmetry; one that is not seen as the others do."""
    slope, curvature = found.coef[[0, 2], :, 1], found.coef[[0, 2], :, 2]
    basin = (curvature > 0).all(axis=0)
    place = unbend(
        np.where(basin, -slope / np.where(basin, curvature, 1.0), 0.0), trial[[0, 2], None] * bottoms.scale[:, 0]
    )
    known = basin & np.isfinite(place).all(axis=0)
    moved = np.diff(np.where(known, place, 0.0), axis=0)[0] * bottoms.scale[:, 0] / (2 * _STEP)
    return np.where(known, moved, np.median(moved[known]) if known.any() else 0.0)


def _scatter(information: Floats, score: Floats, near: float) -> float:
    """Return the root of the posterior mean of the squared scatter; the shared asymmetry is integrated over."""
    loose = 1 + _SCATTERS[:, None] ** 2 * information
    total = (information / loose).sum(axis=1) + _SPREAD**-2
    pulled = (score / loose).sum(axis=1) + (TYPICAL - near) / _SPREAD**2
    squares = (score**2 / (np.maximum(information, 1e-300) * loose)).sum(axis=1)
    log = -0.5 * (np.log(loose).sum(axis=1) + squares - pulled**2 / total + np.log(total) + (_SCATTERS / _SCATTER) ** 2)
    weight = np.exp(log - log.max())
    return float(np.sqrt(weight @ _SCATTERS**2 / weight.sum()))
