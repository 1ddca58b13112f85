"""Axes in the package's units: logarithmic, labelled 10M, 1B and 1T, with as many labels as there is room for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib import rcParams, ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.font_manager import FontProperties

from scalefit.vocabulary import column_of, quantity_of, unit_of

Array = np.ndarray

_COUNTS = ((1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_PARTS = ((1.0, 3.0), (1.0, 2.0, 5.0), tuple(np.arange(1.0, 10.0)))
_MOST = 7
"""Labels an axis has at most, however much room there is."""

_ENOUGH = 3
"""Labels from which round values of each decade do, and equal steps are not tried."""


def label_of(name: str, data_unit: str = "tokens", *, best: bool = False) -> str:
    """Return the label of an axis: the quantity in words, its letter, its unit; `best` says it is an optimum.

    Examples
    --------
    >>> label_of("params")
    'model size $N$ (parameters)'
    >>> label_of("batch", "images")
    'batch size $B$ (images)'
    """
    quantity = quantity_of(name)
    if quantity is None:
        return "target loss" if name == "target" else str(name)
    words = {
        "params": "model size",
        "batch": "batch size",
        "tokens": f"training {data_unit}",
        "loss": "loss",
        "flops": "training compute",
        "lr": "learning rate",
        "steps": "optimizer steps",
    }.get(quantity.column, quantity.meaning)
    unit = unit_of(quantity.column, data_unit)
    unit = "" if unit in ("", "1", "steps") or quantity.column == "tokens" else f" ({unit})"
    star = r"^{\!*}" if best and quantity.column in ("lr", "batch") else ""
    letter = f" ${quantity.latex}{star}$" if quantity.symbol else ""
    return f"{'optimal ' if star else ''}{words}{letter}{unit}"


def letter_of(name: str) -> str:
    """Return the letter of a column as mathtext, or the column's name where it has none.

    Examples
    --------
    >>> letter_of("params"), letter_of("width")
    ('$N$', 'width')
    """
    quantity = quantity_of("loss" if name == "target" else name)
    return f"${quantity.latex}$" if quantity is not None and quantity.symbol else str(name)


def write_value(name: str, value: Any, digits: int = 2) -> str:
    r"""Write one value of a column as the axes do; a text stands for itself.

    Examples
    --------
    >>> write_value("params", 2.15e8), write_value("batch", 16384), write_value("lr", 2e-3)
    ('215M', '16k', '$2{\\times}10^{-3}$')
    """
    if isinstance(value, str):
        return value
    powers = column_of(name) in ("lr", "flops", "weight_decay")
    return power(value, digits) if powers else count(value, digits)


def name_value(name: str, value: Any) -> str:
    """Write a value of a column with the column's letter.

    Examples
    --------
    >>> name_value("params", 7e9)
    '$N$ 7B'
    """
    return f"{letter_of(name)} {write_value(name, value)}"


def name_rows(rows: pd.DataFrame, columns: Iterable[str], data_unit: str) -> tuple[list[str], str]:
    """Return a text that identifies each row among the others, and a title for the texts.

    Where one column suffices, the title names it and the texts are its values.
    """
    varied = [name for name in columns if name in rows and rows[name].nunique() > 1]
    if len(varied) == 1:
        return [write_value(varied[0], value) for value in rows[varied[0]]], label_of(varied[0], data_unit)
    return [", ".join(name_value(name, row[name]) for name in varied) for _, row in rows.iterrows()], ""


def rows_at(table: pd.DataFrame, place: Mapping[Any, Any], rtol: float) -> Array:
    """Return which rows of a table are at a place: numbers within a relative tolerance, words the same."""
    found = np.ones(len(table), dtype=bool)
    for name, level in place.items():
        numeric = pd.api.types.is_numeric_dtype(table[name])
        found &= np.isclose(table[name], level, rtol=rtol) if numeric else (table[name] == level).to_numpy()
    return found


def write_values(name: str, values: Any) -> list[str]:
    """Write several values of a column with as many digits as make them different.

    Examples
    --------
    >>> write_values("params", [1e9, 2e9]), write_values("params", [1.01e9, 1.02e9])
    (['1B', '2B'], ['1.01B', '1.02B'])
    """
    numbers = [float(value) for value in values]
    for digits in range(2, 7):
        texts = [write_value(name, value, digits) for value in numbers]
        if len(set(texts)) == len(set(numbers)):
            break
    return texts


def count(value: float, digits: int = 2) -> str:
    """Write a count with the suffix of its size: so many digits, three at least from 100 up."""
    for size, suffix in _COUNTS:
        if abs(value) >= size * 0.995:
            shown = max(digits, 3) if abs(value) >= 99.5 * size else digits
            return f"{float(f'{value / size:.{shown}g}'):g}{suffix}"
    return f"{value:.{max(digits, 3)}g}"


def power(value: float, digits: int = 2) -> str:
    """Write a number as mathtext, in powers of ten outside 0.3 to 1000."""
    if value == 0 or 0.3 <= abs(value) < 1000:
        return f"{value:.{max(digits, 3)}g}"
    exponent = int(np.floor(np.log10(abs(value)) + 1e-9))
    factor = float(f"{value / 10.0**exponent:.{digits}g}")
    head = "" if factor == 1 else rf"{factor:g}{{\times}}"
    return rf"${head}10^{{{exponent}}}$"


class UnitFormatter(ticker.Formatter):
    """Labels in the unit of a column, with as many digits as make the ticks different."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Return the label of one tick."""
        return self.format_ticks([x])[0]

    def format_ticks(self, values: Any) -> list[str]:
        """Return the labels of all ticks."""
        return write_values(self.name, values)


class RoomyLocator(ticker.Locator):
    """Ticks at 1, 1-3, 1-2-5 or 1 to 9 of each decade, or at round steps: the most whose labels have room."""

    def __init__(self, name: str) -> None:
        self.name = name  # the labels of this column must fit
        self._known: tuple[tuple[float, ...], Array] | None = None

    def __call__(self) -> Any:
        """Return the places for the axis at its present size."""
        low, high = sorted(self.axis.get_view_interval())
        asked = (low, high, *self._room())
        if self._known is None or self._known[0] != asked:  # cached: a drawing calls this about twenty times
            self._known = asked, self.tick_values(low, high)
        return self._known[1]

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """Return the places between two limits."""
        if not 0 < vmin < vmax:
            return np.array([])
        best: list[Array] = []
        for series in (_decades(vmin, vmax), _steps(vmin, vmax)):
            fits = [ticks for ticks in series if 2 <= len(ticks) <= _MOST and self._has_room(ticks)]
            best += [max(fits, key=len)] if fits else []
            if best and len(best[0]) >= _ENOUGH:
                break
        coarsest = chain(_decades(vmin, vmax), _steps(vmin, vmax))
        return max(best, key=len) if best else next(coarsest, np.array([]))

    def _room(self) -> tuple[float, float]:
        """Return the length of the axis and the size of its labels, in points."""
        axis: Axis = self.axis
        box = axis.axes.bbox
        length = box.width if axis.axis_name == "x" else box.height
        return length / axis.axes.figure.dpi * 72, _tick_size(axis)

    def _has_room(self, ticks: Array) -> bool:
        axis: Axis = self.axis
        across = axis.axis_name == "x"
        low, high = np.log(sorted(axis.get_view_interval()))
        points, font = self._room()
        place = (np.log(ticks) - low) / (high - low) * points
        long = np.array([_letters(text) for text in write_values(self.name, ticks)]) * 0.52 * font
        need = (long[1:] + long[:-1]) / 2 + 0.7 * font if across else np.full(len(ticks) - 1, 1.45 * font)
        return bool((np.diff(place) >= need).all())


def _decades(low: float, high: float) -> Iterator[Array]:
    """Yield ever finer sets of round values of each decade between two limits, each with at least two."""
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
    coarse = [10.0 ** np.arange(-(-first // step) * step, last + 1, step) for step in (4, 3, 2, 1)]
    fine = [(10.0 ** np.arange(first, last + 1)[:, None] * np.array(part)).ravel() for part in _PARTS]
    for ticks in (*coarse, *fine):
        if len(inside := _within(ticks, low, high)) >= 2:
            yield inside


def _steps(low: float, high: float) -> Iterator[Array]:
    """Yield sets of equal steps, for less than a decade."""
    for bins in (2, 3, 4, 5):
        ticks = round_steps(bins).tick_values(low, high)
        if len(inside := _within(ticks, low, high)) >= 2:
            yield inside


def _within(ticks: Array, low: float, high: float) -> Array:
    slack = 1e-9
    return ticks[(ticks >= low * (1 - slack)) & (ticks <= high * (1 + slack))]


def _letters(text: str) -> float:
    """Return the width of a label in characters; exponents are set smaller."""
    if not text.startswith("$"):
        return len(text)
    head, _, exponent = text.strip("$").partition("10^")
    return len(head.replace(r"{\times}", "xx")) + 2 + 0.7 * len(exponent.strip("{}"))


def round_steps(bins: int = 5) -> ticker.Locator:
    """Return ticks at equal round steps, so many at most."""
    return ticker.MaxNLocator(bins, steps=[1, 2, 2.5, 5, 10])


def _tick_size(axis: Axis) -> float:
    size = axis.get_tick_params().get("labelsize", rcParams[f"{axis.axis_name}tick.labelsize"])
    return float(FontProperties(size=size).get_size_in_points())


def log_axis(ax: Axes, which: Literal["x", "y"], name: str, data_unit: str = "tokens", *, best: bool = False) -> None:
    """Make an axis logarithmic and label it with a quantity of the vocabulary, or a column outside it."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    (ax.set_xscale if which == "x" else ax.set_yscale)("log")
    axis.set_major_locator(RoomyLocator(name))
    axis.set_major_formatter(UnitFormatter(name))
    axis.set_minor_locator(ticker.LogLocator(subs=range(2, 10), numticks=99))
    axis.set_minor_formatter(ticker.NullFormatter())
    axis.set_label_text(label_of(name, data_unit, best=best))


def log_steps(ends: tuple[float, float], n: int) -> Array:
    """Return places a constant factor apart, from one end to the other."""
    return np.geomspace(ends[0], ends[1], n)


def widen(values: Any, margin: float = 0.06) -> tuple[float, float]:
    """Return the range of positive values with a margin on both sides, in logs.

    Examples
    --------
    >>> low, high = widen([1.0, 100.0], margin=0.5)
    >>> round(low, 3), round(high)
    (0.1, 1000)
    """
    known = np.asarray(values, dtype=float)
    known = np.log(known[np.isfinite(known) & (known > 0)])
    low, high = float(known.min()), float(known.max())
    room = margin * (high - low) if high > low else np.log(2)
    return float(np.exp(low - room)), float(np.exp(high + room))
