"""Pictures of predictions: how far they reach, how wide they are, and how far off such predictions were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scalefit.backtesting._backtest import Backtest
from scalefit.backtesting._extrapolate import Forecast
from scalefit.errors import LawError, SweepError
from scalefit.plots._style import BAND, QUIET, ROLES, Look, size
from scalefit.plots.axes import axes_of, expect, key
from scalefit.plots.plot_law import Slice, draw_points, held_text, slice_of
from scalefit.plots.scales import count, log_axis, widen
from scalefit.vocabulary import column_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def forecast(
    forecast: Forecast,
    of: str | None = None,
    along: str | None = None,
    *,
    at: Mapping[str, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    r"""Draw predictions beyond the data with their intervals, and by what factor they reach beyond it.

    Parameters
    ----------
    forecast : Forecast
    of : str, optional
        The predicted quantity, if there are several: ``"lr"`` or ``"batch"``.
    along : str, optional
        The input on the x axis; by default the one that is reached for farthest.
    at : mapping of str to float, optional
        Where other inputs are held; by default at the geometric mean of the points asked for.
    ax : Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    LawError
        If the forecast has no such quantity or input.

    Notes
    -----
    The law is solid over the rows fitted, which are drawn moved along it to the inputs held (see `law`), and dashed
    beyond. Bars are intervals for a new observation, which take the law for true; the factor above a point is its
    reach.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from scalefit.fitting.fit_law import fit_law as fit
    >>> from scalefit.backtesting._extrapolate import extrapolate
    >>> table = pd.DataFrame({"params": [1e8, 3e8, 1e9, 3e9], "lr": [2.1e-3, 1.2e-3, 7e-4, 4e-4]})
    >>> ax = forecast(extrapolate(fit("eta = c * N**a", table), params=3e10), ax=Figure().subplots())
    >>> ax.texts[0].get_text()
    '10$\\times$'
    """
    expect(forecast, Forecast, "forecast")
    column = column_of(of) if of is not None else next(iter(forecast.laws))
    if column not in forecast.laws:
        raise LawError(f"this forecast is of {', '.join(forecast.laws)}, not {of!r}")
    fit, table = forecast.laws[column], forecast.table
    inputs = [column_of(name) for name in fit.law.inputs]
    reached = {name: float(table[f"reach_{name}"].max()) for name in inputs}
    chosen = along or max(reached, key=reached.__getitem__)
    means = {name: float(np.exp(np.log(table[name]).mean())) for name in inputs if name != column_of(chosen)}
    cut = slice_of(fit, chosen, None, means | {column_of(k): float(v) for k, v in (at or {}).items()})
    ax = axes_of(ax)
    log_axis(ax, "x", cut.along, fit.data_unit)
    log_axis(ax, "y", column, fit.data_unit, best=True)
    ax.set_xlim(*widen([*fit.rows[cut.along], *table[cut.along]], 0.08))
    _draw_law(ax, cut, forecast.level)
    draw_points(ax, cut, fit.rows, [ROLES["law"]], fit.censored)
    _draw_predictions(ax, cut, table)
    _explain(ax, cut, forecast.level)
    return ax


def _draw_law(ax: Axes, cut: Slice, level: float) -> None:
    low, high = ax.get_xlim()
    curve = cut.curve(low, high, np.nan, level)
    x = curve[cut.along]
    ends = cut.fit.rows[cut.along].agg(["min", "max"])
    inside = x.between(ends["min"], ends["max"])
    look = ROLES["law"]
    ax.fill_between(x, curve["lo"], curve["hi"], color=look.color, alpha=BAND, linewidth=0)
    ax.plot(x[inside], curve["prediction"][inside], **look.line())
    ax.plot(x, curve["prediction"], **look.line(linestyle=(0, (3, 1.8)), linewidth=0.8))
    for end in ends:
        ax.axvline(end, color=QUIET, linewidth=0.5, linestyle=(0, (1, 2)), zorder=1)


def _draw_predictions(ax: Axes, cut: Slice, table: pd.DataFrame) -> None:
    look, column = ROLES["heldout"], cut.target
    x = table[cut.along].to_numpy(dtype=float)
    value, low, high = (cut.move(table, table[f"{column}{end}"], np.nan) for end in ("", "_lo", "_hi"))
    ax.vlines(x, low, high, color=look.color, linewidth=1.4, zorder=4)
    ax.plot(x, value, **look.points(markersize=size(1.35), zorder=5, markeredgecolor="white", markeredgewidth=0.5))
    above = {"xytext": (0, 2), "textcoords": "offset points", "ha": "center", "va": "bottom"}
    letters = ax.xaxis.label.get_fontsize() - 0.5
    tops = np.where(np.isfinite(high), high, value)
    for place, top, reach in zip(x, tops, table["reach"], strict=True):
        if reach > 1 + 1e-9:
            ax.annotate(rf"{count(float(f'{reach:.2g}'))}$\times$", (place, top), fontsize=letters, **above)
    heights = np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.lines if len(line.get_ydata()) > 2])
    low_y, high_y = widen(np.concatenate([heights, low, high]), 0.05)
    ax.set_ylim(low_y, high_y * (high_y / low_y) ** 0.09)


def _explain(ax: Axes, cut: Slice, level: float) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: list[tuple[Any, str]] = [
        (Line2D([], [], **ROLES["points"].points()), "fitted"),
        (Line2D([], [], **ROLES["law"].line()), "law"),
        (Line2D([], [], **ROLES["heldout"].points()), "predicted"),
        (Patch(color=ROLES["law"].color, alpha=BAND, linewidth=0), f"{100 * level:g} %"),
    ]
    key(ax, entries, held_text(cut.fixed))


def backtest(report: Backtest, *, entrants: int | None = None, ax: Axes | None = None) -> Axes:
    """Draw how a backtest ranks its entrants: mean regret with its standard error, and the regret of every cell.

    Parameters
    ----------
    report : Backtest
    entrants : int, optional
        How many of the best to draw; by default all that have a regret.
    ax : Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SweepError
        If no entrant has a regret, or `entrants` is not a number of them.

    Notes
    -----
    Regret is the loss above the cell's best run. Best on top, as `Backtest.summary` ranks them. Small marks are single
    held-out cells, open where the regret is a lower bound only (beyond the grid measured). The dotted line is the
    regret of the cells' own observed optima, which even they pay: the best run was also lucky. The scale is a root, so
    that 0 has a place and small regrets stay apart.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from scalefit.backtesting._backtest import backtest as hold_out
    >>> from scalefit.simulation import simulate_sweep
    >>> from scalefit.sweep import Sweep
    >>> runs = simulate_sweep(seed=1)
    >>> sweep = Sweep.from_frame(runs.assign(diverged=runs["loss"].isna()))
    >>> ax = backtest(hold_out(sweep, "largest params"), ax=Figure().subplots())
    >>> ax.get_xlabel()
    'regret (% of the loss)'
    """
    expect(report, Backtest, "backtest")
    ranks = report.summary().dropna(subset="regret_pct")
    if entrants is not None and not 1 <= entrants <= len(ranks):
        raise SweepError(f"entrants: expected 1 to {len(ranks)}, found {entrants!r}")
    ranks = ranks.head(entrants or len(ranks)).reset_index(drop=True)
    if not len(ranks):
        raise SweepError("no entrant of this backtest has a regret to draw")
    ax = axes_of(ax)
    place = {name: -rank for rank, name in enumerate(ranks["entrant"])}
    table = report.table[report.table["entrant"].isin(place)].dropna(subset="regret_pct")
    bound = table["clipped"].astype(bool) | table["off_hull"].astype(bool) | table["beside_diverged"].astype(bool)
    height = table["entrant"].map(place).to_numpy(dtype=float) - 0.28
    for shown, hollow in ((~bound, False), (bound, True)):
        small = Look("#9a9a9a", "o", hollow=hollow).points(markersize=size(0.65), markeredgewidth=0.5, zorder=2)
        ax.plot(table["regret_pct"][shown], height[shown], **small)
    look = ROLES["law"]
    ax.errorbar(
        ranks["regret_pct"],
        [place[n] for n in ranks["entrant"]],
        xerr=ranks["regret_stderr"],
        fmt="D",
        color=look.color,
        markersize=size(1.05),
        elinewidth=1.2,
        zorder=4,
    )
    widest = float((ranks["regret_pct"] + ranks["regret_stderr"].fillna(0.0)).max())
    _dress_ranks(ax, report, place, table, widest)
    _explain_ranks(ax, bool(bound.any()))
    return ax


def _dress_ranks(ax: Axes, report: Backtest, place: Mapping[str, int], table: pd.DataFrame, widest: float) -> None:
    from matplotlib import ticker

    ax.set_xscale("function", functions=(lambda v: np.sqrt(np.maximum(v, 0.0)), lambda v: np.asarray(v) ** 2))
    ax.set_xlim(0, 1.05 * max(table["regret_pct"].max(), widest, 1e-6))
    ax.xaxis.set_major_locator(ticker.MaxNLocator(4, steps=[1, 2, 5, 10]))
    ax.set_yticks(list(place.values()), list(place))
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(-len(place) + 0.45, 0.6)
    ax.set_xlabel("regret (% of the loss)")
    ax.spines["left"].set_visible(False)
    own = report.table.drop_duplicates(["fold", *(n for n in ("params", "tokens") if n in report.table)])
    ax.axvline(own["observed_regret_pct"].mean(), color=QUIET, linewidth=0.8, linestyle=(0, (1, 1.6)), zorder=1)


def _explain_ranks(ax: Axes, bounds: bool) -> None:
    from matplotlib.lines import Line2D

    small = {"markersize": size(0.75), "markeredgewidth": 0.5}
    entries: list[tuple[Any, str]] = [
        (Line2D([], [], **ROLES["law"].points(marker="D")), "mean"),
        (Line2D([], [], **Look("#9a9a9a").points(**small)), "one cell"),
        (Line2D([], [], color=QUIET, linestyle=(0, (1, 1.6)), linewidth=0.8), "observed optima"),
    ]
    if bounds:
        entries.insert(2, (Line2D([], [], **Look("#9a9a9a", hollow=True).points(**small)), "a bound"))
    key(ax, entries, side="right")
