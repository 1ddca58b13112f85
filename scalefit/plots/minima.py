"""The picture of the optima of a sweep, with their intervals and the bounds among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scalefit.errors import SweepError
from scalefit.optima import Optima
from scalefit.plots.inputs import expect
from scalefit.plots.marks import draw_marks
from scalefit.plots.palette import QUIET, ROLES, Look, family
from scalefit.plots.panels import axes_of, key, label_ends
from scalefit.plots.scales import letter_of, log_axis, widen, write_value
from scalefit.vocabulary import column_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_GROUPS = 8
_DODGE = 0.012
"""By what share of the panel's width neighbouring groups stand apart: their intervals should not cover each other."""


def optima(
    optima: Optima, along: str | None = None, by: str | None = None, *, of: str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the optimum of every cell with its interval; bounds as open marks with an arrow to where the optimum lies.

    Parameters
    ----------
    optima : Optima
    along : str, optional
        The column on the x axis; by default the one of `optima.by` with most levels.
    by : str, optional
        The column that tells marks apart; by default the next one with more than one level, if it has eight at most.
    of : str, optional
        The axis searched, if there are two: ``"lr"`` or ``"batch"``.
    ax : Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SweepError
        If the optima were not found by such columns, nothing varies, or no cell has a value.

    Notes
    -----
    Groups stand a little apart sideways so that their intervals can be told apart. Cells without a value (flat, too few
    levels) are counted in the key.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from scalefit.optima import find_optima
    >>> from scalefit.sweep import Sweep
    >>> lr, params = (axis.ravel() for axis in np.meshgrid(1e-3 * 2.0 ** np.arange(-3, 4), [1e7, 1e8, 1e9]))
    >>> loss = 3 + 0.03 * np.log(lr / (1.2e-3 * (params / 1e8) ** -0.2)) ** 2
    >>> sweep = Sweep.from_frame(pd.DataFrame({"lr": lr, "params": params, "loss": loss}))
    >>> optima(find_optima(sweep), ax=Figure().subplots()).get_xlabel()
    'model size $N$ (parameters)'
    """
    expect(optima, Optima, "optima")
    target = column_of(of) if of is not None else optima.over[0]
    if target not in optima.over:
        raise SweepError(f"these optima are over {', '.join(optima.over)}, not {of!r}")
    table = optima.table
    x, group = _columns(optima, table, along, by)
    status = table[f"{target}_status" if len(optima.over) > 1 else "status"]
    shown = table[np.isfinite(table[target]) & status.isin(["interior", "edge"])]
    if not len(shown):
        raise SweepError(f"none of these {len(table)} cells has an optimum in {target} to draw")
    ax = axes_of(ax)
    log_axis(ax, "x", x, optima.data_unit)
    log_axis(ax, "y", target, optima.data_unit, best=True)
    ax.set_xlim(*widen(shown[x], 0.07))
    ax.set_ylim(*widen(shown[target], 0.1))
    levels = np.unique(shown[group]) if group else np.array([np.nan])
    looks = [ROLES["points"]] if group is None else family(len(levels))
    ends = []
    for j, (level, look) in enumerate(zip(levels, looks, strict=True)):
        own = shown[shown[group] == level] if group else shown
        places = _draw_group(ax, own, status[own.index], x, target, look, j - (len(levels) - 1) / 2)
        ends.append((float(own[target].iloc[int(np.argmax(places))]), level, look))
    if group:
        label_ends(ax, [(y, f"{letter_of(group)} {write_value(group, v)}", look.color) for y, v, look in ends])
    _explain(ax, status, looks[0] if group is None else Look(QUIET), getattr(optima.method, "level", None))
    return ax


def _columns(optima: Optima, table: pd.DataFrame, along: str | None, by: str | None) -> tuple[str, str | None]:
    counts = {name: table[name].nunique() for name in optima.by if pd.api.types.is_numeric_dtype(table[name])}
    asked = [column_of(name) for name in (along, by) if name is not None]
    if strange := [name for name in asked if name not in counts]:
        raise SweepError(f"these optima are by {', '.join(optima.by)}; not {', '.join(strange)}")
    varied = [name for name, n in sorted(counts.items(), key=lambda item: -item[1]) if n > 1]
    if along is None and not varied:
        raise SweepError(f"nothing varies between these {len(table)} cells, so there is no axis to draw them along")
    x = column_of(along) if along is not None else next(name for name in varied if name not in asked)
    if by is not None:
        if counts[column_of(by)] > _MOST_GROUPS:
            raise SweepError(f"{by} has {counts[column_of(by)]} levels; marks tell {_MOST_GROUPS} apart at most")
        return x, column_of(by)
    return x, next((name for name in varied if name != x and counts[name] <= _MOST_GROUPS), None)


def _draw_group(
    ax: Axes, own: pd.DataFrame, status: pd.Series, x: str, target: str, look: Look, offset: float
) -> np.ndarray:
    """Draw one group, moved sideways; return its places."""
    low, high = np.log(ax.get_xlim())
    places = np.exp(np.log(own[x].to_numpy(dtype=float)) + offset * _DODGE * (high - low))
    point = (status == "interior").to_numpy()
    value = own[target].to_numpy(dtype=float)
    ends = np.clip(own[[f"{target}_lo", f"{target}_hi"]].to_numpy(dtype=float), *ax.get_ylim())
    ax.vlines(places[point], *ends[point].T, color=look.color, linewidth=0.8, alpha=0.6, zorder=2)
    upward = ~np.isfinite(own[f"{target}_hi"].to_numpy(dtype=float))
    draw_marks(ax, places, value, look, np.where(point, 0, np.where(upward, 1, -1)))
    return places


def _explain(ax: Axes, status: pd.Series, look: Look, level: float | None) -> None:
    from matplotlib.lines import Line2D

    counts = status.value_counts()
    blank = Line2D([], [], linestyle="none")
    told = "optimum" if level is None else f"optimum, {100 * level:g} %"
    entries: list[tuple[Any, str]] = [(Line2D([], [], **look.points()), told)]
    if counts.get("edge", 0):
        entries.append((Line2D([], [], **look.points(markerfacecolor="white")), "a bound"))
    lost = int(counts.get("flat", 0) + counts.get("too_few", 0))
    entries += [(blank, f"{lost} of {len(status)} cells have none")] if lost else []
    key(ax, entries)
