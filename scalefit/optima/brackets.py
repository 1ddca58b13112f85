"""Between which levels an optimum lies, by the order of the losses and no curve."""

from __future__ import annotations

import numpy as np

from scalefit.optima.cells import Bools, Cells, Floats

# Standard errors of a difference by which a level must be worse than the best one to be ruled out.
_WORSE = 3.0


def bracket(cells: Cells, error: Floats) -> tuple[Floats, Floats, Bools]:
    """Return the levels next to those that may be the best, infinite where there is none, and which ends are honest.

    `error` (cells, runs) is the standard error of each place's mean, NaN where unknown. Losses that fall and then rise
    at every step speak for themselves: the optimum lies next to the lowest. Otherwise every level that the noise cannot
    tell from the best may hold it; then nothing is said where the noise is unknown.
    """
    order = np.argsort(np.where(cells.present, cells.x[:, :, 0], np.inf), axis=1, kind="stable")
    mean = cells.averaged[0]
    mean = np.where(cells.present, np.where(np.isfinite(mean), mean, np.inf), np.nan)
    ordered = np.take_along_axis(mean, order, axis=1)
    at = np.argmin(np.where(np.isnan(ordered), np.inf, ordered), axis=1)[:, None]
    with np.errstate(invalid="ignore"):
        step = np.diff(ordered, axis=1)
    column = np.arange(step.shape[1])
    wrong = ((column < at) & (step > 0)) | ((column >= at) & (step < 0))
    valley = ~wrong.any(axis=1)
    lowest = np.where(np.isnan(mean), np.inf, mean).min(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        best = np.take_along_axis(error, np.argmin(np.where(np.isnan(mean), np.inf, mean), axis=1)[:, None], axis=1)
        near = mean - lowest <= np.where(valley[:, None], 0.0, _WORSE * np.hypot(error, best))
    honest = valley | np.isfinite(error).any(axis=1)
    low, high = cells.extent(near & cells.finished)
    return cells.neighbours(low)[0], cells.neighbours(high)[1], honest[:, None]
