"""What the rows of a backtest say of each competitor: regrets, errors, and how often its intervals hold."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from scalefit.backtesting.folds import FLAGS
from scalefit.optima.cells import Floats

_RARE = 0.01
"""Fewer hits than a true level gives with this probability are called too few."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Compares the competitors of a backtest, from its table and the simulated regrets of its rows, in percent."""

    table: pd.DataFrame
    draws: Floats
    axes: tuple[str, ...]
    level: float = 0.95

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per competitor, best first; see `Backtest.summary`."""
        groups = [rows for _, rows in self.table.groupby("entrant", sort=False)]
        ranked = sorted(groups, key=lambda rows: (rows["regret_pct"].isna().sum(), rows["regret_pct"].mean()))
        return pd.DataFrame([self._summarize(rows, ranked[0]) for rows in ranked])

    @cached_property
    def by_axis(self) -> pd.DataFrame:
        """One row per kind of extrapolation and competitor; see `Backtest.by_axis`."""
        found = []
        for (beyond, name), rows in self.table.groupby(["beyond", "entrant"], sort=False):
            row = {"beyond": beyond, "entrant": name, "cells": int(rows["regret_pct"].notna().sum())}
            row["reach"] = np.exp(np.log(rows["reach"]).mean())
            row["regret_pct"], row["regret_stderr"] = self._mean_regret(rows)
            found.append(row | {f"{axis}_log2": _point_errors(rows, axis).abs().mean() for axis in self.axes})
        return pd.DataFrame(found)

    @cached_property
    def coverage(self) -> pd.DataFrame:
        """One row per kind of extrapolation, competitor with intervals, and setting; see `Backtest.coverage`."""
        names = [*self.axes, *([" and ".join(self.axes)] if len(self.axes) > 1 else [])]
        rows = self.table[self.table["error"] == ""]
        found = [
            {"beyond": beyond, "entrant": entrant} | row
            for (beyond, entrant), own in rows.groupby(["beyond", "entrant"], sort=False)
            for name in names
            if (row := self._cover(own, name))["cells"]
        ]
        columns = ["beyond", "entrant", "setting", "folds", "cells", "inside", "held", "half_width", "score"]
        return pd.DataFrame(found, columns=columns)

    def _cover(self, own: pd.DataFrame, name: str) -> dict[str, Any]:
        """Return how often the intervals of one setting, or of all at once, hold the observed optimum."""
        axes = [name] if name in self.axes else list(self.axes)
        own = own[own[[f"{axis}_inside" for axis in axes]].notna().all(axis=1)]
        inside = own[[f"{axis}_inside" for axis in axes]].astype(bool).all(axis=1)
        held = np.all([misses(own, axis)["ratio"] <= 1 for axis in axes], axis=0)
        row = {"setting": name, "folds": own["fold"].nunique(), "cells": len(own)}
        row |= {"inside": inside.mean(), "held": held.mean() if len(own) else np.nan}
        if name not in self.axes:
            return row
        part, width = misses(own, name), (own[f"{name}_hi"] / own[f"{name}_lo"]).map(np.log2)
        outside = np.maximum(part["ratio"] - 1, 0) * part["half"]
        return row | {"half_width": (width / 2).median(), "score": (width + 2 / (1 - self.level) * outside).mean()}

    def _summarize(self, own: pd.DataFrame, best: pd.DataFrame) -> dict[str, Any]:
        known, scored = own["regret_pct"].notna(), own[own["error"] == ""]
        worst = own.iloc[int(own["regret_pct"].fillna(-np.inf).argmax())]
        row: dict[str, Any] = {"entrant": own["entrant"].iloc[0], "cells": int(known.sum())}
        row["failed"] = len(own) - len(scored)
        row["regret_pct"], row["regret_stderr"] = self._mean_regret(own)
        row |= {"worst_pct": worst["regret_pct"], "worst_stderr": worst["regret_stderr"]}
        row["behind_pct"], row["behind_stderr"] = self._mean_regret(own, best)
        for axis in self.axes:
            error = _point_errors(scored, axis)
            row[f"{axis}_log2"] = error.abs().mean()
            row[f"{axis}_mape"] = 100 * (np.exp2(error) - 1).abs().mean()
            row[f"{axis}_coverage"] = scored[f"{axis}_inside"].dropna().astype(float).mean()
        row["censored"] = scored["censored"].mean()
        row["clipped"] = scored[list(FLAGS)].any(axis=1).mean()
        if {"params", "tokens"} <= set(self.table["beyond"]):
            for kind in ("params", "tokens"):
                row[f"regret_{kind}"] = own.loc[own["beyond"] == kind, "regret_pct"].mean()
        return row

    def _mean_regret(self, own: pd.DataFrame, best: pd.DataFrame | None = None) -> tuple[float, float]:
        """Return the mean regret with its standard error; with `best`, those of the paired difference from it."""
        value, draws = own["regret_pct"].to_numpy(), self.draws[own.index]
        if best is not None:  # every competitor has one row a cell, in the same order
            value, draws = value - best["regret_pct"].to_numpy(), draws - self.draws[best.index]
        known = ~np.isnan(value)
        if not known.any():
            return np.nan, np.nan
        unknown = own["regret_stderr"].to_numpy()[known]
        stderr = np.nan if np.isnan(unknown).any() else float(draws[known].mean(axis=0).std())
        return float(value[known].mean()), stderr


def _point_errors(rows: pd.DataFrame, axis: str) -> pd.Series:
    """Return the errors, in octaves, where the observed optimum is a point."""
    return rows.loc[rows[f"{axis}_status"] == "interior", f"log2_{axis}_error"].dropna()


def misses(rows: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Return each interval's half-width on the side of the observed optimum, in octaves, and their distance in these.

    NaN where the optimum is no point or the interval is missing or open.
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # an open end of the interval is 0, whose log is -inf
        value, low, high = np.log2(rows[[axis, f"{axis}_lo", f"{axis}_hi"]].to_numpy(dtype=float).T)
    error = -rows[f"log2_{axis}_error"].to_numpy(dtype=float)
    half = np.where(error > 0, high - value, value - low)
    known = (rows[f"{axis}_status"] == "interior").to_numpy() & np.isfinite(half)
    # Where the prediction lies at the end of its interval, any error on that side is infinitely many half-widths.
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(known, np.where(error == 0, 0.0, np.abs(error) / half), np.nan)
    return pd.DataFrame({"half": np.where(known, half, np.nan), "ratio": ratio}, index=rows.index)


def too_few(hits: pd.Series, cells: pd.Series, level: float) -> pd.Series:
    """Return where so few hits would be rare, were each cell held with the probability of the level."""
    from scipy.special import bdtr

    return pd.Series(bdtr(np.round(hits), cells, level), index=hits.index) < _RARE
