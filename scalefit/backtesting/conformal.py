"""Intervals widened by the errors of a backtest: split-conformal, so that no distribution of errors is assumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scalefit._values import Note
from scalefit.backtesting._backtest import Backtest
from scalefit.backtesting.folds import direction
from scalefit.backtesting.scores import misses
from scalefit.errors import FitError
from scalefit.fitting.fit_result import Fit
from scalefit.vocabulary import format_number

Array = np.ndarray

UNITS = ("folds", "cells")
"""What may count as one test: a fold, whose cells miss together, or every held-out cell by itself."""

_ALIKE = 3.0
"""A test is of similar reach when the log of its reach is that of the point, times or over this at most."""
_SLACK = 1 + 1e-9


def check_conformal(unit: str | None, backtest: Backtest | None, axes: Mapping[str, Fit]) -> None:
    """Raise FitError unless a backtest can widen predictions of these settings."""
    if unit is None:
        return
    if unit not in UNITS:
        raise FitError(f"conformal: expected 'folds' or 'cells', found {unit!r}")
    if backtest is None:
        raise FitError("conformal: the errors come from a backtest: give backtest=sf.backtest(sweep, ...)")
    if strange := [axis for axis in axes if axis not in backtest.axes]:
        raise FitError(f"conformal: the backtest scored {' and '.join(backtest.axes)}, not {' and '.join(strange)}")


def widen(
    table: pd.DataFrame, tested: pd.DataFrame, backtest: Backtest, entrant: str, unit: str, level: float
) -> tuple[pd.DataFrame, list[Note]]:
    """Widen the intervals of a forecast's points; `tested` has the same points at the level of the backtest.

    The distance of a held-out optimum from its prediction is measured in half-widths of the interval on its side. A
    quantile of these ratios, times the tested half-width in logs, is the new one, but never below the own one. Points
    inside the data keep their intervals.
    """
    rows = backtest.table
    rows = rows[(rows["entrant"] == entrant) & (rows["error"] == "")].reset_index(drop=True)
    factors = table.filter(regex="^reach_").rename(columns=lambda name: name.removeprefix("reach_"))
    points = pd.DataFrame({"beyond": direction(factors, _SLACK), "reach": table["reach"]})
    far, notes = (table["reach"] > _SLACK).to_numpy(), []
    for axis in (name for name in backtest.axes if name in table):
        tests = _Tests(axis, unit, level, entrant or "no entrant with this law", rows, points)
        quantile = tests.quantile(far)
        columns = _widened(table, tested, axis, np.where(far, quantile, 0.0))
        table = table.assign(**columns)
        notes += list(tests.describe(columns[f"{axis}_widened"], far))
    return table, notes


def conformal_quantile(ratio: Array, group: Array, alike: Array, level: float) -> Array:
    """Return the conformal quantile of the ratios that test each point (rows of `alike`).

    Each of K groups weighs 1/(K + 1), shared among its members; the rest lies at infinity, where the quantile is when
    K/(K + 1) is below the level. A member of another group that is exchangeable with these lies below it with at least
    the probability of the level (Lee, Barber and Willett 2023, arXiv:2306.06342).

    Examples
    --------
    >>> ratio, everything = np.arange(1.0, 10.0), np.ones((1, 9), dtype=bool)
    >>> [float(conformal_quantile(ratio, np.arange(9), everything, level)[0]) for level in (0.5, 0.9, 0.95)]
    [5.0, 9.0, inf]
    """
    member = group[:, None] == np.unique(group)
    sizes = alike @ member.astype(float)
    share = np.where(alike, 1 / np.maximum(sizes @ member.T, 1), 0.0) / (_count(sizes) + 1)[:, None]
    order = np.argsort(np.where(np.isfinite(ratio), ratio, np.inf))
    # Sums of K shares 1/(K + 1) may miss the level by their rounding.
    reached = share[:, order].cumsum(axis=1) >= level - 1e-12
    reached = np.column_stack([reached, np.ones(len(alike), dtype=bool)])
    return np.append(ratio[order], np.inf)[reached.argmax(axis=1)]


def _count(sizes: Array) -> Array:
    return (sizes > 0).sum(axis=1)


@dataclass(frozen=True, eq=False)
class _Tests:
    """The held-out cells (`rows`) that test predictions of one setting at some points."""

    axis: str
    unit: str
    level: float
    entrant: str
    rows: pd.DataFrame
    points: pd.DataFrame

    @property
    def ratio(self) -> Array:
        return misses(self.rows, self.axis)["ratio"].to_numpy()

    @property
    def group(self) -> Array:
        """What counts as one: a cell that several folds hold out is still one cell."""
        return self.rows.groupby(["fold"] if self.unit == "folds" else self._place, sort=False).ngroup().to_numpy()

    @property
    def _place(self) -> list[str]:
        return [name for name in ("params", "tokens") if name in self.rows]

    @property
    def alike(self) -> Array:
        """Which cells (columns) test which points (rows): in the same direction, at a similar reach."""
        with np.errstate(divide="ignore", invalid="ignore"):  # a reach of 1 has no log to compare
            reach = np.log(self.points["reach"].to_numpy())[:, None]
            apart = np.abs(np.log(np.log(self.rows["reach"].to_numpy()) / reach))
        same = self.rows["beyond"].to_numpy() == self.points["beyond"].to_numpy()[:, None]
        return same & (apart <= np.log(_ALIKE)) & np.isfinite(self.ratio)

    @property
    def count(self) -> Array:
        """How many folds or cells test each point."""
        return _count(self.alike @ (self.group[:, None] == np.unique(self.group)).astype(float))

    def quantile(self, far: Array) -> Array:
        """Return the conformal quantile for every point; raise FitError where one outside the data has none."""
        found = conformal_quantile(self.ratio, self.group, self.alike, self.level)
        for point in np.flatnonzero(far & ~np.isfinite(found))[:1]:
            raise FitError(self._shortage(self.points.iloc[point], int(self.count[point]), self.alike[point]))
        return found

    def _shortage(self, point: pd.Series, count: int, alike: Array) -> str:
        """Say what the tests lack at a point, and what may be asked for instead."""
        needed = int(np.ceil(self.level / (1 - self.level) - 1e-9))
        where = "params and tokens" if point["beyond"] == "both" else point["beyond"]
        known = self.rows["reach"][(self.rows["beyond"] == point["beyond"]) & np.isfinite(self.ratio)]
        text = (
            f"conformal: {self.axis} at {self.level:.0%} needs {needed} {self.unit} held out beyond {where} at a reach "
        )
        text += f"similar to {format_number(point['reach'], 3)}x; {self.entrant} has {count}"
        text += f" (reach {format_number(known.min(), 3)} .. {format_number(known.max(), 3)})" if len(known) else ""
        remedies = [f"ask for level={np.floor(100 * count / (count + 1)) / 100:g}"] if count else []
        if self.unit == "folds" and len(self.rows.loc[alike, self._place].drop_duplicates()) >= needed:
            remedies.append("count every cell, conformal='cells', which takes those of one fold for independent")
        remedies.append("hold out more, or farther: backtest takes a list, ['rolling params', 'params > 1e8', ...]")
        return f"{text}. No finite interval follows from these: {'; or '.join(remedies)}"

    def describe(self, grown: Array, far: Array) -> Iterator[Note]:
        """Say by how much intervals grew and what that rests on; a caution where cells were taken for independent."""
        if not far.any():
            return
        cells = self.alike[far].sum(axis=1).min()
        grew = " to ".join(dict.fromkeys(format_number(x, 3) for x in (grown[far].min(), grown[far].max())))
        text = f"{self.axis}: interval {grew} times as wide, by conformal quantiles of the errors of {self.entrant} in "
        text += f"{cells} held-out cells of similar reach"
        if self.unit == "folds":
            yield Note("conformal", f"{text}; each of {self.count[far].min()} folds counts once")
        else:
            yield Note("conformal", f"{text}, each counted by itself: cells of one fold miss together", caution=True)


def _widened(table: pd.DataFrame, tested: pd.DataFrame, axis: str, quantile: Array) -> dict[str, Array]:
    """Return new bounds of a setting and by what factor its interval has grown, in logs."""
    value, names = np.log(table[axis].to_numpy()), [f"{axis}_lo", f"{axis}_hi"]
    with np.errstate(divide="ignore", invalid="ignore"):  # open bounds stay open
        own, old = (np.abs(np.log(one[names].to_numpy()) - value[:, None]) for one in (table, tested))
        half = np.where(np.isfinite(own), np.maximum(own, quantile[:, None] * old), own)
        grown = np.where(np.isfinite(own).all(axis=1), half.sum(axis=1) / own.sum(axis=1), 1.0)
        low, high = np.exp(value - half[:, 0]), np.exp(value + half[:, 1])
    return {names[0]: low, names[1]: high, f"{axis}_widened": grown}
