"""Pictures of the optima of a sweep: with their intervals and bounds, and as basins of the measured losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from scalefit.errors import SweepError
from scalefit.optima.basin_shape import bend
from scalefit.optima.find_optima import Optima, find_optima
from scalefit.plots._style import QUIET, ROLES, Look, draw_marks, family, star
from scalefit.plots.axes import expect, key, label_ends, panel
from scalefit.plots.scales import name_rows, name_value, rows_at, widen, write_value
from scalefit.sweep import Sweep
from scalefit.vocabulary import column_of

Cell = tuple[pd.DataFrame, pd.Series]

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
        The column with a mark for each level; by default the next one with two to eight levels.
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
    Groups are shifted sideways a little so that their intervals do not cover each other. The key counts the cells
    without a value (flat, too few levels).

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from matplotlib.figure import Figure
    >>> import scalefit as sf
    >>> lr, params = (axis.ravel() for axis in np.meshgrid(1e-3 * 2.0 ** np.arange(-3, 4), [1e7, 1e8, 1e9]))
    >>> loss = 3 + 0.03 * np.log(lr / (1.2e-3 * (params / 1e8) ** -0.2)) ** 2
    >>> sweep = sf.Sweep.from_frame(pd.DataFrame({"lr": lr, "params": params, "loss": loss}))
    >>> sf.plots.optima(sf.find_optima(sweep), ax=Figure().subplots()).get_xlabel()
    'model size $N$ (parameters)'

    See Also
    --------
    basins : the runs behind each optimum
    law : the law fitted to them
    """
    expect(optima, Optima, "optima")
    target = column_of(of) if of is not None else optima.over[0]
    if target not in optima.over:
        raise SweepError(f"these optima are over {', '.join(optima.over)}, not {of!r}")
    table = optima.table
    x, group = _columns(optima, along, by)
    status = table[f"{target}_status" if len(optima.over) > 1 else "status"]
    shown = table[np.isfinite(table[target]) & status.isin(["interior", "edge"])]
    if not len(shown):
        raise SweepError(f"none of these {len(table)} cells has an optimum in {target} to draw")
    ax = panel(ax, x, target, optima.data_unit, best=True)
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
        label_ends(ax, [(height, name_value(group, value), look.color) for height, value, look in ends])
    _explain(ax, status, looks[0] if group is None else Look(QUIET), getattr(optima.method, "level", None))
    return ax


def _columns(optima: Optima, along: str | None, by: str | None) -> tuple[str, str | None]:
    """Return the column on the x axis, and the column with a mark for each level."""
    table = optima.table
    counts = {name: table[name].nunique() for name in optima.by if pd.api.types.is_numeric_dtype(table[name])}
    asked = [column_of(name) for name in (along, by) if name is not None]
    if strange := [name for name in asked if name not in counts]:
        raise SweepError(f"these optima are by {', '.join(optima.by)}; not {', '.join(strange)}")
    varied = [name for name, n in sorted(counts.items(), key=lambda item: -item[1]) if n > 1]
    if along is None and not varied:
        raise SweepError(f"nothing varies between these {len(table)} cells, so there is no axis to draw them along")
    x = column_of(along) if along is not None else next(name for name in varied if name not in asked)
    if by is None:
        return x, next((name for name in varied if name != x and counts[name] <= _MOST_GROUPS), None)
    if counts[column_of(by)] > _MOST_GROUPS:
        raise SweepError(f"{by} has {counts[column_of(by)]} levels; marks tell {_MOST_GROUPS} apart at most")
    return x, column_of(by)


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
    counts = status.value_counts()
    bound, lost = counts.get("edge", 0), counts.get("flat", 0) + counts.get("too_few", 0)
    entries = [
        (look.points(), "optimum" if level is None else f"optimum, {100 * level:g} %"),
        (look.points(markerfacecolor="white"), "a bound" if bound else ""),
        ({"linestyle": "none"}, f"{lost} of {len(status)} cells have none" if lost else ""),
    ]
    key(ax, entries)


_MOST_CELLS = 8
_NEAR = 0.02
"""Excess up to which a fitted basin is drawn beyond the window it was fitted in."""


def basins(sweep: Sweep, optima: Optima | None = None, *, excess: float = 0.06, ax: Axes | None = None) -> Axes:
    r"""Draw loss against learning rate, cell by cell, with the fitted basin, the optimum and its interval.

    .. math:: L = L_{\min} + h\,(e^{ku} - ku - 1)/k^2,\qquad u = \ln\eta - \ln\eta^*

    Parameters
    ----------
    sweep : Sweep
        Runs of one cell or of up to eight; choose them with `Sweep.where`.
    optima : Optima, optional
        Of this sweep or one that it was chosen from; by default ``find_optima(sweep, over="lr")``.
    excess : float
        Relative excess over the lowest loss at which the panel ends; what lies higher is drawn at its upper edge.
    ax : Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SweepError
        If the optima are not over the learning rate, or there are more cells than one panel can tell apart.

    Notes
    -----
    Large marks are optima (open where they are a bound only), horizontal bars their intervals, crosses at the upper
    edge diverged runs, small triangles there runs with a higher loss. Methods that fit no curve get none.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from matplotlib.figure import Figure
    >>> import scalefit as sf
    >>> lr = 1e-3 * 2.0 ** np.arange(-3, 4)
    >>> runs = pd.DataFrame({"lr": lr, "params": 1e8, "loss": 3 + 0.03 * np.log(lr / 1.2e-3) ** 2})
    >>> ax = sf.plots.basins(sf.Sweep.from_frame(runs), ax=Figure().subplots())
    >>> ax.get_ylabel()
    'loss $L$ (nats/token)'

    See Also
    --------
    optima : the optima of many cells
    surface : a cell over learning rate and batch
    """
    expect(sweep, Sweep, "basins")
    found = find_optima(sweep, over="lr") if optima is None else expect(optima, Optima, "basins")
    if not 0 < excess < np.inf:
        raise SweepError(f"excess: expected a positive relative loss such as 0.06, found {excess!r}")
    if found.over != ("lr",):
        raise SweepError(f"basins are over the learning rate; these optima are over {', '.join(found.over)}")
    cells = _cells_of(sweep, found)
    if len(cells) > _MOST_CELLS:
        raise SweepError(
            f"{len(cells)} cells of ({', '.join(found.by)}) in one panel cannot be told apart, {_MOST_CELLS} at most; "
            'choose some, such as sweep.where("params < 1e8 and tokens == 2e9")'
        )
    looks = [ROLES["law"]] if len(cells) == 1 else family(len(cells))
    ax = panel(ax, "lr", "loss", sweep.data_unit, linear=True)
    top = _limit(ax, cells, excess)
    for (runs, optimum), look in zip(cells, looks, strict=True):
        _draw_runs(ax, runs, look if len(cells) > 1 else ROLES["points"], top)
        _draw_basin(ax, runs, optimum, look, found.asymmetry)
        _draw_optimum(ax, optimum, look)
    _explain_cells(ax, cells, looks, found.by, sweep.data_unit)
    return ax


def _cells_of(sweep: Sweep, optima: Optima) -> list[Cell]:
    """Return the runs of each cell with its row of the optima; levels are matched within the sweep's tolerance."""
    if not optima.by:
        return [(sweep.table, optima.table.iloc[0])]
    keys, cell = sweep.group(list(optima.by))
    cells = []
    for number, place in enumerate(keys[list(optima.by)].to_dict("records")):
        known = optima.table[rows_at(optima.table, place, 2 * sweep.rtol)]
        if known.empty:
            where = ", ".join(f"{name} {write_value(str(name), value)}" for name, value in place.items())
            raise SweepError(f"these optima have no cell at {where}: were they found in another sweep?")
        cells.append((sweep.table[cell == number], known.iloc[0]))
    return cells


def _limit(ax: Axes, cells: Sequence[Cell], excess: float) -> float:
    """Set the limits; return the height at which runs above the panel are drawn."""
    runs = pd.concat([part for part, _ in cells])
    low, worst = runs["loss"].min(), max(part["loss"].min() for part, _ in cells)
    high = min(worst * (1 + excess), runs["loss"].max() + 0.01 * (worst - low) + 1e-9)
    room = high - low
    ax.set_xlim(*widen(runs["lr"]))
    ax.set_ylim(low - 0.09 * room, high + 0.09 * room)
    return float(high + 0.035 * room)


def _draw_runs(ax: Axes, runs: pd.DataFrame, look: Look, top: float) -> None:
    lost = runs["diverged"].to_numpy(dtype=bool)
    high = ~lost & (runs["loss"].to_numpy() > top)
    shown = ~lost & ~high
    ax.plot(runs["lr"][shown], runs["loss"][shown], **look.points())
    edge = {"transform": ax.get_xaxis_transform(), "clip_on": False, "in_layout": False}
    for above, mark in ((high, look.points(marker=6)), (lost, ROLES["diverged"].points())):
        ax.plot(runs["lr"][above], np.full(above.sum(), 0.985), **mark, **edge)


def _draw_basin(ax: Axes, runs: pd.DataFrame, optimum: pd.Series, look: Look, k: float | None) -> None:
    if k is None or optimum["status"] != "interior" or not optimum["curvature"] > 0:
        return
    lr = np.geomspace(runs["lr"].min(), runs["lr"].max(), 300)
    rise = optimum["curvature"] * bend(np.log(lr / optimum["lr"]), np.full(lr.shape, k))[0]
    ax.plot(lr, optimum["loss"] + np.where(rise <= _NEAR * optimum["loss"], rise, np.nan), **look.line())


def _draw_optimum(ax: Axes, optimum: pd.Series, look: Look) -> None:
    if not np.isfinite(optimum["lr"]):
        return
    point = optimum["status"] == "interior"
    ends = np.clip([optimum["lr_lo"], optimum["lr_hi"]], *ax.get_xlim())
    mark = star(look.color)
    if point:
        bar = {"color": look.color, "linewidth": 2.6, "alpha": 0.45, "solid_capstyle": "butt", "zorder": 2}
        ax.plot(ends, [optimum["loss"]] * 2, **bar)
    else:
        mark |= {"markerfacecolor": "white", "markeredgecolor": look.color}
    ax.plot([optimum["lr"]], [optimum["loss"]], **mark)


def _explain_cells(ax: Axes, cells: Sequence[Cell], looks: Sequence[Look], by: Sequence[str], unit: str) -> None:
    names, title = name_rows(pd.DataFrame([optimum for _, optimum in cells]), by, unit)
    entries: list[tuple[Any, str]] = [
        (look.points(linestyle=look.dash), name) for look, name in zip(looks, names, strict=True)
    ]
    if any(runs["diverged"].any() for runs, _ in cells):
        entries.append((ROLES["diverged"].points(), "diverged"))
    if any((runs["loss"] > ax.get_ylim()[1]).any() for runs, _ in cells):
        entries.append((Look(QUIET).points(marker=6), "higher loss"))
    key(ax, entries, title)
