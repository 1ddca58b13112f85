"""The runs of a sweep as arrays, one row a (params, tokens) cell, with what each run counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from scalefit.levels import group_rows, number_groups
from scalefit.sweep import Sweep

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Runs:
    """The runs of a sweep as arrays; cells with fewer runs than the largest are filled up with runs of weight zero.

    Parameters
    ----------
    settings : ndarray (axes, cells, n)
        Log lr, and log batch where it varies.
    excess : ndarray (cells, n)
        Loss over the cell's lowest, minus one.
    weight : ndarray (cells, n)
    lowest : ndarray (cells,)
        Lowest loss.
    keys : pandas.DataFrame
        params and tokens of every cell.
    window : float
        Excess at which a run's weight has fallen to a quarter.
    """

    settings: Array
    excess: Array
    weight: Array
    lowest: Array
    keys: pd.DataFrame
    window: float

    @property
    def axes(self) -> int:
        """Number of settings searched: 1 or 2."""
        return len(self.settings)

    @property
    def there(self) -> Array:
        """Which entries are runs (cells, n)."""
        return self.weight > 0


NARROW, WIDE = 0.0225, 0.2
"""Between which the window is chosen."""

_PER_AXIS = 2.0
"""Runs, counted by weight, that the typical cell must keep for each axis to show its basin."""


def arrange(sweep: Sweep, window: float | None) -> Runs:
    """Lay a sweep out as `Runs`; the batch is an axis where some cell has three levels of it or more.

    A run with relative excess e over the cell's best counts (1 + (e/window)**1.5)**-2: a quarter at the window, a
    thousandth at ten windows. Diverged runs are left out. Without a window, the narrowest is taken that leaves the
    typical cell two runs' worth an axis, or half its runs where it has fewer than that.
    """
    names = [name for name in ("params", "tokens") if name in sweep.columns]
    sweep.require("lr", "loss", *(names or ["params"]))
    table = sweep.table
    keep = sweep.require_losses("no loss to fit a surface to")
    keys, cell = group_rows(sweep.labels(names)[keep])
    axes = ["lr"]
    if "batch" in table:
        levels, _ = number_groups(cell, sweep.labels("batch")["batch"].to_numpy()[keep])
        axes += ["batch"] if np.bincount(cell[levels]).max() > 2 else []
    settings = np.log([table[name].to_numpy(dtype=float)[keep] for name in axes])
    loss = table["loss"].to_numpy(dtype=float)[keep]
    order = np.lexsort((loss, *settings, cell))  # sums in one order, whatever the order of the table
    count = np.bincount(cell)
    place = cell[order], np.arange(len(cell)) - np.repeat(np.cumsum(count) - count, count)
    padded = np.full((1 + len(axes), len(count), count.max()), np.nan)
    padded[(slice(None), *place)] = np.concatenate([settings, loss[None]])[:, order]
    there = ~np.isnan(padded[-1])
    lowest = np.nanmin(padded[-1], axis=1)
    excess = np.where(there, padded[-1] / lowest[:, None] - 1, 0.0)
    window = _window(excess, there, len(axes)) if window is None else window
    weight = np.where(there, _weights(excess, window), 0.0)
    return Runs(np.where(there, padded[:-1], 0.0), excess, weight, lowest, keys, window)


def _weights(excess: Array, window: float) -> Array:
    return (1 + (excess / window) ** 1.5) ** -2


def _window(excess: Array, there: Array, axes: int) -> float:
    """Widen the window in steps until the typical cell keeps enough runs."""
    enough = min(_PER_AXIS * axes, 0.5 * float(np.median(there.sum(axis=1))))
    for window in np.geomspace(NARROW, WIDE, 20):
        if np.median((_weights(excess, window) * there).sum(axis=1)) >= enough:
            return float(window)
    return WIDE
