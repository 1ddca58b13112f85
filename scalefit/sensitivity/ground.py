"""The losses of each cell as a curve in ln lr: runs joined at each rate, capped, and averaged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scalefit.extractors import Basin
from scalefit.extractors.basin import pooled_asymmetry
from scalefit.extractors.cells import Block, Floats, average, pad, repeats
from scalefit.extractors.local_fit import Quadratic, fit_quadratic
from scalefit.optima import Optima
from scalefit.sweep import Sweep

Bools = NDArray[np.bool_]

ALIKE = 3.0
"""Ratio of the bends of neighbouring parabolas up to which both are believed."""


@dataclass(frozen=True, eq=False)
class Ground:
    """Distinct learning rates of each cell, ascending, padded with NaN (zero in `count`); all (cells, levels)."""

    x: Floats
    loss: Floats  # mean at the place, diverged runs at the cap; 0 in the padding
    count: Floats
    capped: Floats  # runs at the cap
    tolerance: float

    @property
    def first(self) -> Floats:
        """Log of the lowest rate of each cell."""
        return np.where(self.count > 0, self.x, np.inf).min(axis=1)

    @property
    def last(self) -> Floats:
        """Log of the highest rate of each cell."""
        return np.where(self.count > 0, self.x, -np.inf).max(axis=1)

    def mean_weights(self, lo: Floats, hi: Floats) -> Floats:
        """Return what each level counts for in the mean over lo to hi, shape (cells, levels); NaN without a range."""
        levels = np.eye(self.x.shape[1])[:, None, :]
        held = np.broadcast_to(levels, (self.x.shape[1], *self.x.shape))
        width = np.where(hi > lo, hi - lo, np.nan)
        return (self._integral(held, lo, hi) / width).T

    def height(self, at: Floats) -> Floats:
        """Return the loss at a place, straight between levels."""
        x = np.where(self.count > 0, self.x, np.inf)
        upper = np.clip((x < at[:, None]).sum(axis=1), 1, self.x.shape[1] - 1)[:, None]
        x0, x1 = np.take_along_axis(self.x, upper - 1, 1)[:, 0], np.take_along_axis(self.x, upper, 1)[:, 0]
        y0, y1 = np.take_along_axis(self.loss, upper - 1, 1)[:, 0], np.take_along_axis(self.loss, upper, 1)[:, 0]
        return y0 + (y1 - y0) * (at - x0) / (x1 - x0)

    def _integral(self, values: Floats, lo: Floats, hi: Floats) -> Floats:
        x0, x1 = self.x[:, :-1], self.x[:, 1:]
        real = np.isfinite(x1)
        step = np.where(real, x1 - x0, 1.0)
        start = np.where(real, np.clip(lo[:, None], x0, x1) - x0, 0.0)
        end = np.where(real, np.clip(hi[:, None], x0, x1) - x0, 0.0)
        share = (start + end) / (2 * step)
        straight = (end - start) * ((1 - share) * values[..., :-1] + share * values[..., 1:])
        bow = (end**3 - start**3) / 3 - step * (end**2 - start**2) / 2
        bend = self._bends(values)
        left, right = self._choice()
        return np.nan_to_num(straight + bow * (left * bend[..., :-1] + right * bend[..., 1:])).sum(axis=-1)

    def _bends(self, values: Floats) -> Floats:
        """Return the second divided difference about each level; 0 at the ends and beside capped runs."""
        bend = np.zeros(values.shape)
        slope = np.diff(values, axis=-1) / np.diff(self.x, axis=-1)
        bend[..., 1:-1] = np.diff(slope, axis=-1) / (self.x[:, 2:] - self.x[:, :-2])
        return np.where(self._smooth(), bend, 0.0)

    def _smooth(self) -> Bools:
        free = (self.count > 0) & (self.capped == 0)
        smooth = np.zeros(free.shape, dtype=bool)
        smooth[:, 1:-1] = free[:, 1:-1] & free[:, :-2] & free[:, 2:]
        return smooth

    def _choice(self) -> tuple[Floats, Floats]:
        """Say how much each interval takes of the parabolas about its two ends.

        Both where they are alike, the less bent where one of them meets a wall, the only one at the end of a grid.
        """
        smooth, bend = self._smooth(), self._bends(self.loss)
        left, right = bend[:, :-1], bend[:, 1:]
        alike = np.maximum(np.abs(left), np.abs(right)) <= ALIKE * np.minimum(np.abs(left), np.abs(right))
        alike &= left * right > 0
        share = np.where(alike, 0.5, np.abs(left) <= np.abs(right))
        share = np.where(smooth[:, :-1] & smooth[:, 1:], share, smooth[:, :-1])
        return share, np.where(smooth[:, :-1] | smooth[:, 1:], 1.0 - share, 0.0)


def read_runs(sweep: Sweep, optima: Optima) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return cell, ln lr and loss (NaN where diverged) of every run; cells in the order of the optima."""
    table = sweep.table
    return sweep.group(optima.by)[1], np.log(table["lr"].to_numpy()), table["loss"].to_numpy()


def lay_out(cell: NDArray[np.int64], x: Floats, loss: Floats, caps: Floats, rtol: float) -> Ground:
    """Join the runs of each cell at each rate, those above the cap or diverged at the cap."""
    limit = caps[cell]
    capped = ~(loss <= limit)
    place = repeats(cell, x[:, None], rtol)
    counted = np.nan_to_num(np.where(capped, limit, loss), nan=0.0)
    own, middle, mean = average(cell, x[:, None], counted, place)
    parts = [mean, np.bincount(place).astype(float), np.bincount(place, capped)]
    padded = [pad(own, middle, part, len(caps), rtol) for part in parts]
    mean, count, n_capped = (np.nan_to_num(block.loss) for block in padded)
    width = max(padded[0].x.shape[1], 3)
    spare = [(0, 0), (0, width - padded[0].x.shape[1])]
    grid = np.pad(padded[0].x[:, :, 0], spare, constant_values=np.nan)
    return Ground(grid, np.pad(mean, spare), np.pad(count, spare), np.pad(n_capped, spare), float(np.log1p(rtol)))


def fit_basin(block: Block, basin: Basin) -> tuple[float, float, Quadratic]:
    """Return the shared asymmetry of the basins, its standard error and the local fit of every cell with it."""
    k, error = (basin.asymmetry, 0.0) if basin.asymmetry is not None else pooled_asymmetry(block, basin)[:2]
    return k, error, fit_quadratic(block, basin.window, k)
