"""A law seen along one input: the others held or set to a few levels, and the data moved there along the law."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scalefit.errors import ExtrapolationWarning, LawError
from scalefit.fitting import Fit
from scalefit.levels import group_levels
from scalefit.vocabulary import column_of

Array = np.ndarray

_FINE = 160
_MOST_LEVELS = 6


@dataclass(frozen=True, eq=False)
class Slice:
    """Where a law is drawn.

    Parameters
    ----------
    fit : Fit
    along : str
        The input on the x axis, as a column.
    by : str or None
        The input that tells the lines apart.
    levels : tuple of float
        Its levels, one line each; one NaN without `by`.
    fixed : mapping of str to float
        The inputs held.
    """

    fit: Fit
    along: str
    by: str | None
    levels: tuple[float, ...]
    fixed: Mapping[str, float]

    @property
    def target(self) -> str:
        """The predicted column."""
        return column_of(self.fit.law.target)

    def place(self, x: Any, level: float) -> dict[str, Any]:
        """Return the inputs at places along one line."""
        own = {} if self.by is None else {self.by: level}
        return {self.along: np.asarray(x, dtype=float), **own, **self.fixed}

    def curve(self, low: float, high: float, level: float, coverage: float) -> pd.DataFrame:
        """Return the line of one level with its interval and reach, from low to high."""
        with warnings.catch_warnings():  # what lies beyond the data is drawn as such
            warnings.simplefilter("ignore", ExtrapolationWarning)
            return self.fit.predict(level=coverage, **self.place(np.geomspace(low, high, _FINE), level))

    def move(self, rows: pd.DataFrame, values: Any, level: float) -> Array:
        """Return values observed at the rows' inputs as they would be on one line: times the law's ratio."""
        law, own = (
            self.fit.law,
            {column_of(name): rows[column_of(name)].to_numpy(float) for name in self.fit.law.inputs},
        )
        there = own | {name: np.full(len(rows), value) for name, value in self.place(1.0, level).items()}
        there[self.along] = own[self.along]
        ratio = law(self.fit.values, there) / law(self.fit.values, own)
        return np.asarray(np.asarray(values, dtype=float) * ratio)

    def line_of(self, rows: pd.DataFrame) -> Array:
        """Return for every row which line it is nearest to."""
        if self.by is None:
            return np.zeros(len(rows), dtype=int)
        distance = np.abs(np.log(rows[self.by].to_numpy(dtype=float)[:, None] / np.array(self.levels)))
        return np.asarray(distance.argmin(axis=1))


def slice_of(fit: Fit, along: str | None, by: str | None, at: Mapping[str, float] | None) -> Slice:
    """Choose where to draw a fit.

    By default `along` is the input that spans most, `by` none, and every other input is held at the geometric mean of
    the rows fitted.

    Raises
    ------
    LawError
        If an input is named that the law does not have, or twice, or a row is not positive.
    """
    inputs = [column_of(name) for name in fit.law.inputs]
    if not inputs:
        raise LawError(f"{fit.law.formula!r} has no input to draw it along")
    rows, held = fit.rows, {column_of(name): float(value) for name, value in (at or {}).items()}
    if not (rows.to_numpy(dtype=float) > 0).all():
        raise LawError(f"the axes of a picture are logarithmic; the rows of {fit.law.formula!r} are not all positive")
    free = [name for name in inputs if name not in held and (by is None or name != column_of(by))]
    asked = [column_of(name) for name in (along, by) if name is not None]
    strange = [name for name in [*asked, *held] if name not in inputs]
    if strange or len({*asked, *held}) < len(asked) + len(held) or not free:
        raise LawError(
            f"a picture of {fit.law.formula!r} can be along, by or at {', '.join(inputs)}, each once; found "
            f"along={along!r}, by={by!r}, at={dict(at or {})!r}"
        )
    spans = {name: float(np.ptp(np.log(rows[name]))) for name in free}
    x = column_of(along) if along is not None else max(spans, key=spans.__getitem__)
    line = column_of(by) if by is not None else None
    means = {name: float(np.exp(np.log(rows[name]).mean())) for name in inputs}
    fixed = {name: held.get(name, means[name]) for name in inputs if name not in (x, line)}
    return Slice(fit, x, line, _levels(rows, line), fixed)


def _levels(rows: pd.DataFrame, by: str | None) -> tuple[float, ...]:
    if by is None:
        return (np.nan,)
    found = np.unique(group_levels(rows[by].to_numpy(dtype=float), 0.01))
    if len(found) <= _MOST_LEVELS:
        return tuple(found)
    return tuple(found[np.round(np.linspace(0, len(found) - 1, _MOST_LEVELS)).astype(int)])
