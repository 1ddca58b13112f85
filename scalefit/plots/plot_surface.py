"""The picture of one cell over learning rate and batch: contours of equal cost, the optimum, the path of the laws."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from scalefit.errors import ExtrapolationWarning, SweepError
from scalefit.plots._style import ROLES, Look, family, size, star
from scalefit.plots.axes import expect, note, panel
from scalefit.plots.scales import log_steps, name_value, rows_at, widen
from scalefit.surface.surface import Surface
from scalefit.sweep import Sweep

_CLEAR = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8}
"""The background of a text that stands over lines."""


def surface(
    surface: Surface,
    sweep: Sweep | None = None,
    *,
    params: float,
    tokens: float,
    levels: Sequence[float] = (0.0025, 0.005, 0.01, 0.02),
    ax: Axes | None = None,
) -> Axes:
    """Draw one cell over learning rate and batch: the optimum, contours of equal cost, and the way the laws lead it.

    Parameters
    ----------
    surface : Surface
        Over learning rate and batch.
    sweep : Sweep, optional
        Its runs in this cell are drawn: dark where they are within the first level of the best of them, with their loss
        as measured.
    params, tokens : float
        The cell.
    levels : sequence of float
        Relative excess over the loss at the optimum.
    ax : Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SweepError
        If the surface has no batch axis or the levels do not rise.
    FitError
        If the surface allows no loss law.

    Notes
    -----
    The cross at the optimum is the interval of `Surface.optimum`; the dashed line is the optimum of the laws for
    training data from the least to the most the surface was fitted to, at this size.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import scalefit as sf
    >>> runs = sf.simulation.simulate_sweep(seed=1)
    >>> sweep = sf.Sweep.from_frame(runs.assign(diverged=runs["loss"].isna()))
    >>> ax = sf.plots.surface(sf.fit_surface(sweep), sweep, params=1e9, tokens=1.6e10, ax=Figure().subplots())
    >>> ax.get_xscale(), ax.get_yscale()
    ('log', 'log')

    See Also
    --------
    basins : the losses at one batch size
    optima : the optima of many cells
    """
    expect(surface, Surface, "surface")
    if surface.batch_fit is None:
        raise SweepError("this surface spans the learning rate only; draw basins(sweep) instead")
    if len(levels) < 1 or not all(0 < low < high for low, high in pairwise([*levels, np.inf])):
        raise SweepError(f"levels: expected rising relative costs such as (0.0025, 0.01), found {levels!r}")
    ax = panel(ax, "lr", "batch", surface.lr_fit.data_unit)
    runs = None if sweep is None else _runs_near(sweep, params, tokens)
    best = _quietly(surface, params, tokens).iloc[0]
    _set_window(ax, best, runs)
    if runs is not None:
        _draw_places(ax, runs, levels[0])
    _draw_contours(ax, surface, best, levels)
    _draw_path(ax, surface, params)
    _draw_cross(ax, best)
    cell = f"{name_value('params', params)}, {name_value('tokens', tokens)}"
    note(ax, cell, (0.98, 0.02), ha="right", va="bottom", bbox=_CLEAR)
    return ax


def _quietly(surface: Surface, params: float, tokens: Any) -> pd.DataFrame:
    """Return the optimum without a warning about places beyond the data, since the picture shows the data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        return surface.optimum(params=params, tokens=tokens)


def _runs_near(sweep: Sweep, params: float, tokens: float) -> pd.DataFrame:
    sweep.require("lr", "batch", "params", "tokens")
    place = {"params": params, "tokens": tokens}
    near = rows_at(sweep.labels(tuple(place)), place, 2 * sweep.rtol)
    if not near.any():
        raise SweepError(f"{sweep.source} has no runs at params {params:.4g}, tokens {tokens:.4g}; see sweep.cells")
    return sweep.table[near]


def _set_window(ax: Axes, best: pd.Series, runs: pd.DataFrame | None) -> None:
    for name, put in (("lr", ax.set_xlim), ("batch", ax.set_ylim)):
        ends = [best[name] * 4, best[name] / 4]
        put(*widen(np.append(ends if runs is None else runs[name].to_numpy(), [best[name] * 1.5, best[name] / 1.5])))


def _draw_places(ax: Axes, runs: pd.DataFrame, near: float) -> None:
    lost = runs["diverged"].to_numpy(dtype=bool)
    good = ~lost & (runs["loss"] <= runs["loss"].min() * (1 + near)).to_numpy()
    for shown, look in ((~good & ~lost, Look("#bdbdbd", "o")), (good, ROLES["points"]), (lost, ROLES["diverged"])):
        ax.plot(runs["lr"][shown], runs["batch"][shown], **look.points(markersize=size(0.7), zorder=2))


def _draw_contours(ax: Axes, surface: Surface, best: pd.Series, levels: Sequence[float]) -> None:
    lr, batch = np.meshgrid(log_steps(ax.get_xlim(), 121), log_steps(ax.get_ylim(), 121))
    place = {"params": best["params"], "tokens": best["tokens"]}
    bottom = surface.loss(lr=best["lr"], batch=best["batch"], **place)
    excess = surface.loss(lr=lr, batch=batch, **place) / bottom - 1
    shades = [look.color for look in family(len(levels) + 1)][: len(levels)]
    drawn = ax.contour(lr, batch, excess, levels=list(levels), colors=shades, linewidths=0.9, zorder=3)
    where = [place for j, level in enumerate(levels) for place in _crossings(lr, batch, excess, best, level, j)[:1]]
    font = ax.xaxis.label.get_fontsize() - 1
    if where:
        ax.clabel(drawn, fmt=lambda v: f"{100 * v:g} %", fontsize=font, inline_spacing=2, manual=where)


def _crossings(lr: Any, batch: Any, excess: Any, best: pd.Series, level: float, turn: int) -> list[tuple[float, float]]:
    """Return where contours cross the vertical through the optimum, in turn below and above it, inside the panel."""
    column = int(np.abs(np.log(lr[0] / best["lr"])).argmin())
    over = excess[:, column] > level
    rows = np.flatnonzero(over[1:] != over[:-1])
    rows = rows[(rows > 0.04 * len(over)) & (rows < 0.94 * len(over))]
    places = [(float(lr[0, column]), float(np.sqrt(batch[row, 0] * batch[row + 1, 0]))) for row in rows]
    return places[::-1] if turn % 2 else places


def _draw_path(ax: Axes, surface: Surface, params: float) -> None:
    tokens = np.geomspace(surface.cells["tokens"].min(), surface.cells["tokens"].max(), 60)
    path = _quietly(surface, params, tokens)
    ax.plot(path["lr"], path["batch"], **ROLES["law"].line(linestyle=(0, (4, 2)), linewidth=0.9))
    inside = path[path["lr"].between(*ax.get_xlim()) & path["batch"].between(*ax.get_ylim())]
    if len(inside) > 1:
        start, end = inside[["lr", "batch"]].to_numpy()[-2:]
        arrow = {"arrowstyle": "-|>", "color": ROLES["law"].color, "linewidth": 0.9, "mutation_scale": 7}
        ax.annotate("", end, start, zorder=3, arrowprops=arrow)


def _draw_cross(ax: Axes, best: pd.Series) -> None:
    look = ROLES["law"]
    wide = {"color": look.color, "linewidth": 1.4, "zorder": 5}
    ax.plot([best["lr_lo"], best["lr_hi"]], [best["batch"]] * 2, **wide)
    ax.plot([best["lr"]] * 2, [best["batch_lo"], best["batch_hi"]], **wide)
    ax.plot([best["lr"]], [best["batch"]], **star(look.color))
