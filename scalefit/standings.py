"""What the rows of a backtest say of each entrant: means, worst cells, gaps to the best."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scalefit.trials import FLAGS

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

_KINDS = ("params", "tokens")


@dataclass(frozen=True, eq=False)
class Standings:
    """The entrants of a backtest compared.

    Parameters
    ----------
    table : pandas.DataFrame
        As `Backtest.table`; not changed.
    draws : ndarray (rows, draws)
        Simulated repetitions of the regrets, in percent.
    axes : tuple of str
        The settings predicted.
    """

    table: pd.DataFrame
    draws: Floats
    axes: tuple[str, ...]

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per entrant, best first; see `Backtest.summary`."""
        ranked = sorted(dict.fromkeys(self._text("entrant")), key=self._rank)
        return pd.DataFrame([self._score(name, best=ranked[0]) for name in ranked])

    @property
    def by_axis(self) -> pd.DataFrame:
        """One row per kind of extrapolation and entrant; see `Backtest.by_axis`."""
        pairs = dict.fromkeys(zip(self._text("beyond"), self._text("entrant"), strict=True))
        return pd.DataFrame([self.along(*pair) for pair in pairs])

    def along(self, beyond: str, name: str) -> dict[str, Any]:
        """Return the scores of one entrant in the cells that lie beyond the training cells in one way."""
        rows = np.flatnonzero((self._text("beyond") == beyond) & (self._text("entrant") == name))
        mean, stderr = self._mean_regret(rows)
        row = {"beyond": beyond, "entrant": name, "cells": int((~np.isnan(self._regret[rows])).sum())}
        row |= {"reach": float(np.exp(np.log(self._numbers("reach")[rows]).mean()))}
        row |= {"regret_pct": mean, "regret_stderr": stderr}
        return row | {f"{axis}_log2": _mean_of(np.abs(self._point_errors(rows, axis))) for axis in self.axes}

    def _text(self, name: str) -> NDArray[np.object_]:
        return self.table[name].to_numpy(dtype=object)

    def _numbers(self, name: str) -> Floats:
        return self.table[name].to_numpy(dtype=float)

    @cached_property
    def _regret(self) -> Floats:
        return self._numbers("regret_pct")

    @cached_property
    def _stderr(self) -> Floats:
        return self._numbers("regret_stderr")

    def _rank(self, name: str) -> tuple[int, float]:
        """Return what entrants are put in order by: cells without a regret, then the mean of the others."""
        regret = self._regret[self._text("entrant") == name]
        known = ~np.isnan(regret)
        return int((~known).sum()), float(regret[known].mean()) if known.any() else np.inf

    def _score(self, name: str, best: str) -> dict[str, Any]:
        rows = np.flatnonzero(self._text("entrant") == name)
        regret, failed = self._regret[rows], self._text("error")[rows] != ""
        known, scored = ~np.isnan(regret), rows[~failed]
        mean, stderr = self._mean_regret(rows)
        worst = rows[np.where(known, regret, -np.inf).argmax()]
        row: dict[str, Any] = {"entrant": name, "cells": int(known.sum()), "failed": int(failed.sum())}
        row |= {"regret_pct": mean, "regret_stderr": stderr}
        row |= {"worst_pct": self._regret[worst], "worst_stderr": self._stderr[worst]}
        row |= self._gap(name, best)
        for axis in self.axes:
            row |= self._accuracy(scored, axis)
        row["censored"] = _mean_of(self._numbers("censored")[scored])
        row["clipped"] = _mean_of(np.max([self._numbers(flag)[scored] for flag in FLAGS], axis=0))
        beyond = self._text("beyond")
        if set(_KINDS) <= set(beyond):
            row |= {f"regret_{kind}": _mean_of(regret[known & (beyond[rows] == kind)]) for kind in _KINDS}
        return row

    def _mean_regret(self, rows: Rows) -> tuple[float, float]:
        known = rows[~np.isnan(self._regret[rows])]
        if not len(known):
            return np.nan, np.nan
        spread = float(self.draws[known].mean(axis=0).std())
        return float(self._regret[known].mean()), np.nan if np.isnan(self._stderr[known]).any() else spread

    def _gap(self, name: str, best: str) -> dict[str, float]:
        entrant = self._text("entrant")
        mine, other = (np.flatnonzero(entrant == who) for who in (name, best))
        both = ~np.isnan(self._regret[mine]) & ~np.isnan(self._regret[other])
        if not both.any():
            return {"behind_pct": np.nan, "behind_stderr": np.nan}
        mine, other = mine[both], other[both]
        spread = float((self.draws[mine] - self.draws[other]).mean(axis=0).std())
        gap = float((self._regret[mine] - self._regret[other]).mean())
        return {"behind_pct": gap, "behind_stderr": np.nan if np.isnan(self._stderr[mine]).any() else spread}

    def _accuracy(self, rows: Rows, axis: str) -> dict[str, float]:
        inside = self._text(f"{axis}_inside")[rows]
        error = self._point_errors(rows, axis)
        return {
            f"{axis}_log2": _mean_of(np.abs(error)),
            f"{axis}_mape": _mean_of(100 * np.abs(np.exp2(error) - 1)),
            f"{axis}_coverage": _mean_of(inside[~pd.isna(inside)].astype(float)),
        }

    def _point_errors(self, rows: Rows, axis: str) -> Floats:
        error = self._numbers(f"log2_{axis}_error")[rows]
        return error[(self._text(f"{axis}_status")[rows] == "interior") & ~np.isnan(error)]


def _mean_of(values: Floats) -> float:
    """Return the mean; NaN of nothing."""
    return float(values.mean()) if len(values) else np.nan
