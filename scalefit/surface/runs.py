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
    """

    settings: Array
    log_loss: Array
    weight: Array
    cell: Array
    keys: pd.DataFrame

    def centred(self, values: Array) -> Array:
        """Subtract the weighted mean of each cell along the last axis: the floor, profiled out."""
        total = np.bincount(self.cell, self.weight, len(self.keys))
        flat = values.reshape(-1, values.shape[-1])
        index = (np.arange(len(flat))[:, None] * len(self.keys) + self.cell).ravel()
        sums = np.bincount(index, (flat * self.weight).ravel(), len(flat) * len(self.keys))
        means = sums.reshape(len(flat), -1) / total
        return (flat - means[:, self.cell]).reshape(values.shape)


def arrange(sweep: Sweep, window: float) -> Runs:
    """Lay a sweep out as `Runs`; the batch is an axis where some cell has three levels of it or more.

    A run with relative excess e over the cell's best counts (1 + (e/window)**1.5)**-2: a quarter at the window, a
    thousandth at ten windows. Diverged runs are left out.
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
    weight = (1 + (np.expm1(log_loss - lowest[cell]) / window) ** 1.5) ** -2
    axes = ["lr"]
    if "batch" in table:
        levels = sweep.labels("batch")[keep].reset_index(drop=True).groupby(cell).nunique()
        axes += ["batch"] if (levels > 2).to_numpy().any() else []
    settings = np.log(table[axes].to_numpy(dtype=float).T)
    order = np.lexsort((log_loss, *settings, cell))  # sums in one order, whatever the order of the table
    return Runs(settings[:, order], log_loss[order], weight[order], cell[order], keys)


def _number(labels: pd.DataFrame) -> tuple[pd.DataFrame, Array]:
    grouped = labels.groupby(list(labels.columns), sort=True)
    keys = grouped.size().reset_index()[list(labels.columns)].astype(float)
    return keys, grouped.ngroup().to_numpy()
