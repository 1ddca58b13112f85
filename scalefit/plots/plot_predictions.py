"""Pictures of predictions: their intervals and reach, and the errors of earlier ones in a backtest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes

from scalefit.backtesting._backtest import Backtest
from scalefit.backtesting._extrapolate import Forecast
from scalefit.errors import LawError, SweepError
from scalefit.plots._style import DOTTED, QUIET, ROLES, Look, size
from scalefit.plots.axes import axes_of, expect, fit_height, key, note
from scalefit.plots.law_lines import INSIDE, Slice, draw_line, explain_slice, slice_of, slice_panel
from scalefit.plots.scales import count
from scalefit.vocabulary import column_of


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
    >>> import pandas as pd
    >>> from matplotlib.figure import Figure
    >>> import scalefit as sf
    >>> table = pd.DataFrame({"params": [1e8, 3e8, 1e9, 3e9], "lr": [2.1e-3, 1.2e-3, 7e-4, 4e-4]})
    >>> ax = sf.plots.forecast(sf.extrapolate(sf.fit("eta = c * N**a", table), params=3e10), ax=Figure().subplots())
    >>> ax.texts[0].get_text()
    '10$\\times$'

    See Also
    --------
    law : the law without predictions
    backtest : how far off such predictions were
    """
    expect(forecast, Forecast, "forecast")
    column = column_of(of) if of is not None else next(iter(forecast.laws))
    if column not in forecast.laws:
        raise LawError(f"this forecast is of {', '.join(forecast.laws)}, not {of!r}")
    fit, table = forecast.laws[column], forecast.table
    inputs = [column_of(name) for name in fit.law.inputs]
    chosen = along or max(inputs, key=lambda name: float(table[f"reach_{name}"].max()))
    means = {name: float(np.exp(np.log(table[name]).mean())) for name in inputs if name != column_of(chosen)}
    cut = slice_of(fit, chosen, None, means | {column_of(k): float(v) for k, v in (at or {}).items()})
    ax = slice_panel(ax, cut, table[cut.along], margin=0.08)
    law = ROLES["law"]
    draw_line(ax, cut, law, forecast.level)
    _draw_predictions(ax, cut, table)
    fit_height(ax, 0.05)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * (high / low) ** 0.09)  # room for the factors above the points
    for end in fit.rows[cut.along].agg(["min", "max"]):
        ax.axvline(end, color=QUIET, linewidth=0.5, linestyle=(0, (1, 2)), zorder=1)
    marks = ((ROLES["points"].points(), "fitted"), (law.line(), "law"), (ROLES["heldout"].points(), "predicted"))
    explain_slice(ax, cut, marks, law, forecast.level)
    return ax


def _draw_predictions(ax: Axes, cut: Slice, table: pd.DataFrame) -> None:
    """Draw predictions with their intervals, and above each the factor by which it reaches beyond the data."""
    look, column = ROLES["heldout"], cut.target
    x = table[cut.along].to_numpy(dtype=float)
    value, low, high = (cut.move(table, table[f"{column}{end}"], np.nan) for end in ("", "_lo", "_hi"))
    ax.vlines(x, low, high, color=look.color, linewidth=1.4, zorder=4)
    ax.plot(x, value, **look.points(markersize=size(1.35), zorder=5, markeredgecolor="white", markeredgewidth=0.5))
    tops = np.where(np.isfinite(high), high, value)
    for place, top, reach in zip(x, tops, table["reach"], strict=True):
        if reach > INSIDE:
            text = rf"{count(float(f'{reach:.2g}'))}$\times$"
            note(ax, text, (place, top), (0, 2), xycoords="data", ha="center", va="bottom")


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
    >>> import scalefit as sf
    >>> runs = sf.simulation.simulate_sweep(seed=1)
    >>> sweep = sf.Sweep.from_frame(runs.assign(diverged=runs["loss"].isna()))
    >>> ax = sf.plots.backtest(sf.backtest(sweep, "largest params"), ax=Figure().subplots())
    >>> ax.get_xlabel()
    'regret (% of the loss)'

    See Also
    --------
    forecast : predictions beyond the data
    """
    expect(report, Backtest, "backtest")
    ranks = report.summary().dropna(subset="regret_pct")
    if entrants is not None and not 1 <= entrants <= len(ranks):
        raise SweepError(f"entrants: expected 1 to {len(ranks)}, found {entrants!r}")
    if not len(ranks):
        raise SweepError("no entrant of this backtest has a regret to draw")
    ranks = ranks.head(entrants or len(ranks))
    ax = axes_of(ax)
    place = {name: -rank for rank, name in enumerate(ranks["entrant"])}
    table = report.table[report.table["entrant"].isin(place)].dropna(subset="regret_pct")
    bound = table[["clipped", "off_hull", "beside_diverged"]].astype(bool).any(axis=1)
    height = table["entrant"].map(place).to_numpy(dtype=float) - 0.28
    for shown, look in ((~bound, _CELL), (bound, _BOUND)):
        small = look.points(markersize=size(0.65), markeredgewidth=0.5, zorder=2)
        ax.plot(table["regret_pct"][shown], height[shown], **small)
    mean, error, color = ranks["regret_pct"], ranks["regret_stderr"], ROLES["law"].color
    settings = {"color": color, "markersize": size(1.05), "elinewidth": 1.2, "zorder": 4}
    ax.errorbar(mean, list(place.values()), xerr=error, fmt="D", **settings)
    _dress_ranks(ax, list(place), max(table["regret_pct"].max(), (mean + error.fillna(0.0)).max(), 1e-6))
    own = report.table.drop_duplicates(["fold", *(n for n in ("params", "tokens") if n in report.table)])
    ax.axvline(own["observed_regret_pct"].mean(), zorder=1, **_OBSERVED)
    _explain_ranks(ax, bool(bound.any()))
    return ax


_CELL, _BOUND = Look("#9a9a9a"), Look("#9a9a9a", hollow=True)
_OBSERVED: dict[str, Any] = {"color": QUIET, "linewidth": 0.8, "linestyle": DOTTED}


def _dress_ranks(ax: Axes, names: list[str], widest: float) -> None:
    """Scale the regret as a root, and name the entrants from the top."""
    ax.set_xscale("function", functions=(lambda v: np.sqrt(np.maximum(v, 0.0)), lambda v: np.asarray(v) ** 2))
    ax.set_xlim(0, 1.05 * widest)
    ax.xaxis.set_major_locator(ticker.MaxNLocator(4, steps=[1, 2, 5, 10]))
    ax.set_yticks([-rank for rank in range(len(names))], names)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(-len(names) + 0.45, 0.6)
    ax.set_xlabel("regret (% of the loss)")
    ax.spines["left"].set_visible(False)


def _explain_ranks(ax: Axes, bounds: bool) -> None:
    small = {"markersize": size(0.75), "markeredgewidth": 0.5}
    entries = [
        (ROLES["law"].points(marker="D"), "mean"),
        (_CELL.points(**small), "one cell"),
        (_BOUND.points(**small), "a bound" if bounds else ""),
        (_OBSERVED, "observed optima"),
    ]
    key(ax, entries, side="right")
