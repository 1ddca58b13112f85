"""What every run of a cell counts: by how far the basin's shape holds at it, and by how noisy runs are there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scalefit.optima.basin_shape import window_weight
from scalefit.optima.cells import Cells, Floats

# Noise grows by exp(g |u|) at u e-folds from the optimum, with one g below and one above it. What g is taken to be
# before the residuals speak: 0, give or take this much. Seeds of real sweeps have shown 1.4 above and about 0 below.
_GROWTH = 0.4

# Growths beyond this are not told apart, and a noise that falls away from the optimum is not believed.
_FASTEST = 3.0

# Newton's steps, and the variances at which a square is cut.
_NEWTON, _WILD = 8, 50.0

# Windows above the bottom from which a run has blown up.
_BLOWN = 20.0

# Errors of a place's mean by which it must exceed the basin for the excess not to pass for luck.
_BEYOND = 2.0


@dataclass(frozen=True, eq=False)
class RunWeights:
    """Two weights of every run of every cell, (cells, runs)."""

    trust: Floats  # how far the shape holds at a run, 0 to 1; 0 where there is no loss
    calm: Floats  # standard deviation of the noise at the optimum, over that at the run

    @classmethod
    def first(cls, cells: Cells, window: float) -> RunWeights:
        """Return the weights before anything is fitted: by the excess of the mean over the runs of a place."""
        # By the mean: a run that is lucky would count for more than its unlucky repeat, and the fit follow it.
        mean, _ = cells.averaged
        low = np.where(cells.finished, mean, np.inf).min(axis=1, keepdims=True)
        return cls.of(cells, (mean - low) / np.abs(low), window, np.ones(cells.loss.shape))

    @classmethod
    def of(cls, cells: Cells, excess: Floats, window: float, calm: Floats) -> RunWeights:
        """Return the weights for a relative excess and a noise of every run."""
        done = cells.finished
        trust = window_weight(np.where(done, np.maximum(excess, 0.0), 0.0), window)
        # What blew up says nothing: however little it counts, the square of its residual would.
        return cls(np.where(done & (excess < _BLOWN * window), trust, 0.0), np.where(done, calm, 1.0))


def excess_beyond_noise(height: Floats, mean: Floats, error: Floats) -> Floats:
    """Return the height of the fitted basin at a run, or of its place's mean where noise cannot explain that."""
    # The fitted height does not know a lucky run; a run that blew up where the basin is low still counts for little.
    return np.fmax(height, mean - _BEYOND * np.nan_to_num(error))


def growth_of_noise(cells: Cells, away: Floats, residual: Floats, trust: Floats) -> tuple[float, float]:
    """Return how fast the log of the noise's standard deviation grows below and above the optimum, per e-fold.

    All arrays are (cells, runs): the distance from the optimum, the residual in units of the cell's noise, and what a
    run counts, 0 to leave it out. Gamma regression of squares that the shape has no part in: the likelihood of normal
    noise.
    """
    run, square, count = _white_squares(cells, residual, trust)
    away = away[cells.finished][run]
    design = np.stack([np.ones_like(away), 2 * np.maximum(-away, 0.0), 2 * np.maximum(away, 0.0)])
    prior = np.array([1e-6, _GROWTH**-2, _GROWTH**-2])
    information = 0.5 * (design * count) @ design.T + np.diag(prior)
    beta = np.zeros(3)
    for _ in range(_NEWTON):
        # A single wild run does not make the noise grow.
        off = np.minimum(square * np.exp(-beta @ design), _WILD) - 1
        step = np.linalg.solve(information, 0.5 * design @ (count * off) - prior * beta)
        beta = beta + np.clip(step, -1.0, 1.0)
        beta[1:] = np.clip(beta[1:], 0.0, _FASTEST)
    return float(beta[1]), float(beta[2])


def _white_squares(cells: Cells, residual: Floats, trust: Floats) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return squares whose mean is the noise's variance, at which run (of those finished), and what each counts.

    Repeated runs scatter about their mean. The mean of a place departs from the line through its neighbours at the same
    settings of the other axes: what the shape leaves over is smooth, and hardly enters.
    """
    done = cells.finished
    x, off, trust = cells.x[done], residual[done], trust[done]
    place, line = cells.places
    runs = np.bincount(place)
    mean = np.bincount(place, off) / runs
    again = np.flatnonzero(runs[place] > 1)
    share = 1 - 1 / runs[place[again]]
    first = np.unique(place, return_index=True)[1]
    first = first[np.lexsort((x[first, 0], line[first]))]
    inner = 1 + np.flatnonzero(line[first][2:] == line[first][:-2])
    before, here, after = first[inner - 1], first[inner], first[inner + 1]
    part = (x[after, 0] - x[here, 0]) / (x[after, 0] - x[before, 0])
    m, n = mean[place], runs[place]
    bow = m[here] - part * m[before] - (1 - part) * m[after]
    factor = 1 / n[here] + part**2 / n[before] + (1 - part) ** 2 / n[after]
    # Neighbouring departures share two places of three; one of a run that blew up is no noise.
    worth = np.minimum(trust[here], np.minimum(trust[before], trust[after])) / 3
    return (
        np.concatenate([again, here]),
        np.concatenate([(off[again] - m[again]) ** 2 / share, bow**2 / factor]),
        np.concatenate([share * trust[again], worth]),
    )


def decline(away: Floats, growth: tuple[float, float]) -> Floats:
    """Return the noise at the optimum over that at a distance from it."""
    return np.asarray(np.exp(-growth[0] * np.maximum(-away, 0.0) - growth[1] * np.maximum(away, 0.0)))
