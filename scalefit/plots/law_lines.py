"""Laws as lines in a panel: along which input, where the others are held, with the points they were fitted to."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from scalefit._values import Observations
from scalefit.errors import ExtrapolationWarning, LawError
from scalefit.fitting.fit_result import Fit
from scalefit.laws.published import PublishedLaw, get_published
from scalefit.optima.find_optima import Optima
from scalefit.plots._style import BAND, ROLES, Look, draw_marks
from scalefit.plots.axes import key, panel
from scalefit.plots.scales import letter_of, log_steps, widen, write_value
from scalefit.schema import group_levels
from scalefit.sweep import Sweep
from scalefit.vocabulary import column_of

Array = np.ndarray
Rows = pd.DataFrame | Optima | Sweep | Observations

INSIDE = 1 + 1e-9
"""Slack of a range: the ends of a line are its data's own ends, but for rounding."""

_ALONE = (ROLES["law"],)
_FINE = 160
_MOST_LEVELS = 6
_BEYOND = {"linestyle": (0, (3, 1.8)), "linewidth": 0.8}
"""How a line looks beyond the rows fitted."""


@dataclass(frozen=True, eq=False)
class Slice:
    """Where a law is drawn."""

    fit: Fit
    along: str  # the column on the x axis
    by: str | None  # the column with a line for each level
    levels: tuple[float, ...]  # its levels, a line each; one NaN without `by`
    fixed: Mapping[str, float]  # the inputs held

    @property
    def target(self) -> str:
        """The predicted column."""
        return column_of(self.fit.law.target)

    def place(self, x: Any, level: float) -> dict[str, Any]:
        """Return the inputs at places along one line."""
        own = {} if self.by is None else {self.by: level}
        return {self.along: np.asarray(x, dtype=float), **own, **self.fixed}

    def curve(self, ends: tuple[float, float], coverage: float, level: float = np.nan) -> pd.DataFrame:
        """Return the line of one level with its interval and reach, from end to end."""
        with warnings.catch_warnings():  # places beyond the data are drawn dashed instead
            warnings.simplefilter("ignore", ExtrapolationWarning)
            return self.fit.predict(level=coverage, **self.place(log_steps(ends, _FINE), level))

    def move(self, rows: pd.DataFrame, values: Any, level: float) -> Array:
        """Return values observed at the rows' inputs as they would be on one line: times the law's ratio."""
        law, names = self.fit.law, [column_of(name) for name in self.fit.law.inputs]
        own = {name: rows[name].to_numpy(float) for name in names}
        there = own | {name: np.full(len(rows), value) for name, value in self.place(1.0, level).items()}
        there[self.along] = own[self.along]
        return np.asarray(values, dtype=float) * (law(self.fit.values, there) / law(self.fit.values, own))

    def line_of(self, rows: pd.DataFrame) -> Array:
        """Return for every row which line it is nearest to."""
        if self.by is None:
            return np.zeros(len(rows), dtype=int)
        distance = np.abs(np.log(rows[self.by].to_numpy(dtype=float)[:, None] / np.array(self.levels)))
        return np.asarray(distance.argmin(axis=1))


def slice_of(fit: Fit, along: str | None = None, by: str | None = None, at: Mapping[str, float] | None = None) -> Slice:
    """Choose where to draw a fit.

    By default `along` is the input that spans most, `by` none, and every other input is held at the geometric mean of
    the rows fitted.
    """
    inputs = [column_of(name) for name in fit.law.inputs]
    if not inputs:
        raise LawError(f"{fit.law.formula!r} has no input to draw it along")
    rows, held = fit.rows, {column_of(name): float(value) for name, value in (at or {}).items()}
    if not (rows.to_numpy(dtype=float) > 0).all():
        raise LawError(f"the axes of a picture are logarithmic; the rows of {fit.law.formula!r} are not all positive")
    x, line = (None if name is None else column_of(name) for name in (along, by))
    asked = [name for name in (x, line) if name is not None]
    free = [name for name in inputs if name not in held and name != line]
    strange = [name for name in [*asked, *held] if name not in inputs]
    if strange or len({*asked, *held}) < len(asked) + len(held) or not free:
        raise LawError(
            f"a picture of {fit.law.formula!r} can be along, by or at {', '.join(inputs)}, each once; found "
            f"along={along!r}, by={by!r}, at={dict(at or {})!r}"
        )
    x = x or max(free, key=lambda name: np.ptp(np.log(rows[name])))
    means = {name: float(np.exp(np.log(rows[name]).mean())) for name in inputs}
    fixed = {name: held.get(name, means[name]) for name in inputs if name not in (x, line)}
    return Slice(fit, x, line, _levels(rows, line), fixed)


def _levels(rows: pd.DataFrame, by: str | None) -> tuple[float, ...]:
    if by is None:
        return (np.nan,)
    found = np.unique(group_levels(rows[by].to_numpy(dtype=float), 0.01))
    if len(found) > _MOST_LEVELS:
        found = found[np.round(np.linspace(0, len(found) - 1, _MOST_LEVELS)).astype(int)]
    return tuple(found)


def rows_of(source: Rows | None, fit: Fit) -> pd.DataFrame:
    """Return the rows of a table or result as a frame with the law's columns; none of no source."""
    wanted = [column_of(name) for name in (*fit.law.inputs, fit.law.target)]
    if source is None:
        return pd.DataFrame(columns=wanted, dtype=float)
    if isinstance(source, Optima | Sweep):
        source = source.observations(fit.law.target)
    table = source.table if isinstance(source, Observations) else source
    table = table.rename(columns={name: column_of(str(name)) for name in table.columns})
    if lacking := [name for name in wanted if name not in table.columns]:
        raise LawError(f"rows beside {fit.law.formula!r} need {', '.join(wanted)}; missing {', '.join(lacking)}")
    return table[wanted].reset_index(drop=True)


def slice_panel(
    ax: Axes | None, cut: Slice, beyond: Iterable[float] = (), looks: Sequence[Look] = _ALONE, margin: float = 0.05
) -> Axes:
    """Return axes for a slice with the rows fitted, wide enough for these and for places beyond them."""
    fit = cut.fit
    ax = panel(ax, cut.along, cut.target, fit.data_unit, best=True)
    ax.set_xlim(*widen([*fit.rows[cut.along], *beyond], margin))
    draw_points(ax, cut, fit.rows, looks, fit.censored)
    return ax


def draw_line(ax: Axes, cut: Slice, look: Look, coverage: float, level: float = np.nan) -> float:
    """Draw one line with its band, dashed beyond the rows fitted; return its height at the right edge."""
    curve = cut.curve(ax.get_xlim(), coverage, level)
    x, y, rows = curve[cut.along], curve["prediction"], cut.fit.rows[cut.along]
    known = x.between(rows.min() / INSIDE, rows.max() * INSIDE)
    ax.fill_between(x, curve["lo"], curve["hi"], **look.band(BAND if cut.by is None else 0.4 * BAND))
    ax.plot(x[known], y[known], **look.line(linestyle="-"))
    ax.plot(x, y, **look.line(**_BEYOND))
    return float(y.iloc[-1])


def draw_points(ax: Axes, cut: Slice, rows: pd.DataFrame, looks: Sequence[Look], side: Any = None) -> None:
    """Draw rows on the line each is nearest to; the only line's points in the colour of points."""
    line = cut.line_of(rows)
    sides = np.zeros(len(rows), dtype=int) if side is None else np.asarray(side)
    for j, (level, look) in enumerate(zip(cut.levels, looks, strict=True)):
        own = rows[line == j]
        shown = ROLES["points"] if look is ROLES["law"] else look
        draw_marks(ax, own[cut.along], cut.move(own, own[cut.target], level), shown, sides[line == j])


def explain_slice(ax: Axes, cut: Slice, entries: Sequence[tuple[Any, str]], look: Look, level: float) -> None:
    """Add a key: the marks, the level of the band, and the values at which other inputs are held."""
    key(ax, [*entries, (Patch(**look.band()), f"{100 * level:g} %")], held_text(cut.fixed))


def held_text(held: Mapping[str, float]) -> str:
    """Return a text with the values of the inputs that are held."""
    texts = [f"{letter_of(name)} = {write_value(name, value)}" for name, value in held.items()]
    return f"at {', '.join(texts)}" if texts else ""


def name_published(laws: Iterable[str | PublishedLaw]) -> list[tuple[str, PublishedLaw]]:
    """Return published laws by their keys without the target, which the panel shows."""
    found = [get_published(law) if isinstance(law, str) else law for law in laws]
    return [(law.name.rpartition("_")[0] or law.name, law) for law in found]
