"""One fit's share of the points: a study at a target, as arrays, with its poor small batch sizes set aside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scalefit.tradeoff.excess import Excess, find_excess
from scalefit.tradeoff.hyperbola import Study
from scalefit.tradeoff.points import TradeoffPoints


@dataclass(frozen=True, eq=False)
class Part:
    """One study at one target.

    Parameters
    ----------
    name : tuple
        Values of the columns that tell fits apart.
    rows : pandas.DataFrame
        Its points and bounds, by batch.
    study : Study
        What is fitted.
    excess : Excess
        What the test of the small batch sizes said.
    left : int
        How many of them are left out.
    """

    name: tuple[Any, ...]
    rows: pd.DataFrame
    study: Study
    excess: Excess
    left: int

    @property
    def highest(self) -> float:
        """The largest batch size that needs too much data; 0 if none does."""
        if not self.excess.count:
            return 0.0
        points = self.rows["batch"].to_numpy()[(self.rows["status"] == "point").to_numpy()]
        return float(points[self.excess.count - 1])


def divide(points: TradeoffPoints, lack: float | None, leave_out: bool) -> tuple[list[Part], list[tuple[Any, ...]]]:
    """Return what can be fitted, and the names of studies that have fewer than two batch sizes.

    Parameters
    ----------
    points : TradeoffPoints
    lack : float or None
        Variance of ln examples about the curve, where it is known.
    leave_out : bool
        Whether small batch sizes that need too much data are left out.
    """
    keys, rows = points.keys, points.table.sort_values("batch", kind="stable")
    parts, lonely = [], []
    for key, group in rows.groupby(keys, sort=True) if keys else [((), rows)]:
        name = key if isinstance(key, tuple) else (key,)
        study = _study(group[(group["status"] == "point").to_numpy()], points.replicated)
        if len(study.x) < 2:
            lonely.append(name)
            continue
        excess = find_excess(study, lack)
        left = excess.count if leave_out else 0
        parts.append(Part(name, group, study.drop(left), excess, left))
    return parts, lonely


def _study(points: pd.DataFrame, replicated: bool) -> Study:
    """Return points as arrays; a batch size without an error of its own gets that of the study's typical run."""
    variance = points["log_stderr"].to_numpy(dtype=float) ** 2
    runs = points["n"].to_numpy(dtype=float) if replicated else np.ones(len(points))
    known = np.isfinite(variance)
    single = float(np.mean((variance * runs)[known])) if known.any() else 0.0
    filled = np.where(known, variance, single / runs)
    return Study(np.log(points["batch"].to_numpy()), np.log(points["examples"].to_numpy()), filled, single)
