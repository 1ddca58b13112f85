"""The picture of measured loss against the learning rate, with the fitted basins."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scalefit.basin_shape import bend
from scalefit.errors import SweepError
from scalefit.extractors import Basin, Parabola
from scalefit.optima import Optima, find_optima
from scalefit.plots.inputs import expect
from scalefit.plots.palette import QUIET, ROLES, Look, family, star
from scalefit.plots.panels import axes_of, key
from scalefit.plots.scales import label_of, letter_of, linear_axis, log_axis, widen, write_value
from scalefit.sweep import Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
    >>> from matplotlib.figure import Figure
    >>> lr = 1e-3 * 2.0 ** np.arange(-3, 4)
    >>> runs = pd.DataFrame({"lr": lr, "params": 1e8, "loss": 3 + 0.03 * np.log(lr / 1.2e-3) ** 2})
    >>> ax = basins(Sweep.from_frame(runs), ax=Figure().subplots())
    >>> ax.get_ylabel()
    'loss $L$ (nats/token)'
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
    ax = axes_of(ax)
    unit = sweep.data_unit
    log_axis(ax, "x", "lr", unit)
    linear_axis(ax, "y", "loss", unit)
    top = _limit(ax, cells, excess)
    asymmetry = _asymmetry(found)
    for (runs, optimum), look in zip(cells, looks, strict=True):
        _draw_runs(ax, runs, look if len(cells) > 1 else ROLES["points"], top)
        _draw_basin(ax, runs, optimum, look, asymmetry)
        _draw_optimum(ax, optimum, look)
    _name_cells(ax, cells, looks, found.by, unit)
    return ax


def _cells_of(sweep: Sweep, optima: Optima) -> list[tuple[pd.DataFrame, pd.Series]]:
    """Return the runs of each cell with its row of the optima; levels are matched within the sweep's tolerance."""
    by, table = list(optima.by), sweep.table
    if not by:
        return [(table, optima.table.iloc[0])]
    keys, cell = sweep.group(by)
    known = optima.table
    cells = []
    for number, place in enumerate(keys.to_dict("records")):
        near = np.ones(len(known), dtype=bool)
        for name in by:
            level, levels = place[name], known[name]
            numeric = pd.api.types.is_numeric_dtype(levels)
            near &= np.isclose(levels, level, rtol=2 * sweep.rtol) if numeric else (levels == level).to_numpy()
        if not near.any():
            told = ", ".join(f"{name} {write_value(name, place[name])}" for name in by)
            raise SweepError(f"these optima have no cell at {told}: were they found in another sweep?")
        cells.append((table[cell == number], known[near].iloc[0]))
    return cells


def _limit(ax: Axes, cells: list[tuple[pd.DataFrame, pd.Series]], excess: float) -> float:
    """Set the limits and return the height at which what lies above is drawn."""
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


def _asymmetry(optima: Optima) -> float | None:
    """Return the k of the fitted basins; None when the method fits no curve."""
    if isinstance(optima.method, Parabola):
        return 0.0
    if not isinstance(optima.method, Basin):
        return None
    if optima.method.asymmetry is not None:
        return optima.method.asymmetry
    said = (re.search(r"asymmetry k = (-?\d+\.\d+)", note.text) for note in optima.notes if note.code == "asymmetry")
    return next((float(match[1]) for match in said if match), None)


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
    if point:
        ax.plot(
            ends, [optimum["loss"]] * 2, color=look.color, linewidth=2.6, alpha=0.45, solid_capstyle="butt", zorder=2
        )
    open_ = {"markerfacecolor": "white", "markeredgecolor": look.color}
    ax.plot([optimum["lr"]], [optimum["loss"]], **(star(look.color) | ({} if point else open_)))


def _name_cells(
    ax: Axes, cells: list[tuple[pd.DataFrame, pd.Series]], looks: list[Look], by: tuple[str, ...], unit: str
) -> None:
    from matplotlib.lines import Line2D

    beyond = any((runs["loss"] > ax.get_ylim()[1]).any() for runs, _ in cells)
    levels = pd.DataFrame([optimum for _, optimum in cells])
    varied = [name for name in by if levels[name].nunique() > 1]
    entries: list[tuple[Any, str]] = []
    if varied:
        for look, (_, row) in zip(looks, levels.iterrows(), strict=True):
            text = ", ".join(f"{letter_of(name)} {write_value(name, row[name])}" for name in varied[1:])
            head = write_value(varied[0], row[varied[0]])
            head = head if len(varied) == 1 else f"{letter_of(varied[0])} {head}"
            entries.append((Line2D([], [], **look.points(linestyle=look.dash)), ", ".join(filter(None, [head, text]))))
    if any(runs["diverged"].any() for runs, _ in cells):
        entries.append((Line2D([], [], **ROLES["diverged"].points()), "diverged"))
    if beyond:
        entries.append((Line2D([], [], **Look(QUIET, "o").points(marker=6)), "higher loss"))
    if entries:
        key(ax, entries, label_of(varied[0], unit) if len(varied) == 1 else "")
