"""The runs of a sweep as arrays, grouped into (params, tokens) cells, with what each run counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from scalefit.sweep import Sweep

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Runs:
    """The runs of a sweep as arrays, with what each counts.

    Parameters
    ----------
    settings : ndarray (axes, n)
        Log lr, and log batch where it varies.
    log_loss, weight : ndarray (n,)
    cell : ndarray of int (n,)
    keys : pandas.DataFrame
        params and tokens of every cell.
    window : float
        Relative excess at which a run's weight has fallen to a quarter.
    """

    settings: Array
    log_loss: Array
    weight: Array
    cell: Array
    keys: pd.DataFrame
    window: float

    def centred(self, values: Array) -> Array:
        """Subtract the weighted mean of each cell along the last axis: the floor, profiled out."""
        total = np.bincount(self.cell, self.weight, len(self.keys))
        flat = values.reshape(-1, values.shape[-1])
        index = (np.arange(len(flat))[:, None] * len(self.keys) + self.cell).ravel()
        sums = np.bincount(index, (flat * self.weight).ravel(), len(flat) * len(self.keys))
        means = sums.reshape(len(flat), -1) / total
        return (flat - means[:, self.cell]).reshape(values.shape)


NARROW, WIDE = 0.0225, 0.2
"""Between which the window is chosen."""

_PER_AXIS = 4.0
"""Runs, counted by weight, that the typical cell must keep for each axis to show its basin."""


def arrange(sweep: Sweep, window: float | None) -> Runs:
    """Lay a sweep out as `Runs`; the batch is an axis where some cell has three levels of it or more.

    A run with relative excess e over the cell's best counts (1 + (e/window)**1.5)**-2: a quarter at the window, a
    thousandth at ten windows. Diverged runs are left out. Without a window, the narrowest is taken that leaves the
    typical cell four runs' worth an axis, or half its runs where it has fewer than that.
    """
    names = [name for name in ("params", "tokens") if name in sweep.table]
    sweep.require("lr", "loss", *(names or ["params"]))
    table = sweep.table
    keep = ~table["diverged"].to_numpy(dtype=bool)
    labels = sweep.labels(names)[keep].reset_index(drop=True)
    keys, cell = _number(labels)
    table = table[keep]
    log_loss = np.log(table["loss"].to_numpy(dtype=float))
    lowest = np.full(len(keys), np.inf)
    np.minimum.at(lowest, cell, log_loss)
    excess = np.expm1(log_loss - lowest[cell])
    axes = ["lr"]
    if "batch" in table:
        levels = sweep.labels("batch")[keep].reset_index(drop=True).groupby(cell).nunique()
        axes += ["batch"] if (levels > 2).to_numpy().any() else []
    window = _window(excess, cell, len(axes)) if window is None else window
    weight = _weights(excess, window)
    settings = np.log(table[axes].to_numpy(dtype=float).T)
    order = np.lexsort((log_loss, *settings, cell))  # sums in one order, whatever the order of the table
    return Runs(settings[:, order], log_loss[order], weight[order], cell[order], keys, window)


def _weights(excess: Array, window: float) -> Array:
    return (1 + (excess / window) ** 1.5) ** -2


def _window(excess: Array, cell: Array, axes: int) -> float:
    """Widen the window in steps until the typical cell keeps enough runs."""
    enough = min(_PER_AXIS * axes, 0.5 * float(np.median(np.bincount(cell))))
    for window in np.geomspace(NARROW, WIDE, 20):
        if np.median(np.bincount(cell, _weights(excess, window))) >= enough:
            return float(window)
    return WIDE


def _number(labels: pd.DataFrame) -> tuple[pd.DataFrame, Array]:
    grouped = labels.groupby(list(labels.columns), sort=True)
    keys = grouped.size().reset_index()[list(labels.columns)].astype(float)
    return keys, grouped.ngroup().to_numpy()
