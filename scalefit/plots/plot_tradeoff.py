"""Pictures of the trade-off between steps and examples, and of the critical batch size over the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scalefit.batch_size.tradeoff import Tradeoff
from scalefit.errors import LawError, SweepError
from scalefit.fitting.fit_result import Fit
from scalefit.laws.published import PublishedLaw, get_published
from scalefit.plots._style import BAND, QUIET, ROLES, Look, draw_marks, family, star
from scalefit.plots.axes import axes_of, expect, key, label_ends
from scalefit.plots.plot_law import slice_of
from scalefit.plots.scales import label_of, letter_of, log_axis, widen, write_value
from scalefit.vocabulary import column_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST = 8
_ROOM = 4.0
"""How far beyond the batch sizes fitted a curve is drawn."""

_INSIDE = 1 + 1e-9


def tradeoff(trade: Tradeoff, *, ax: Axes | None = None, **where: Any) -> Axes:
    r"""Draw steps against examples for every target, with the fitted hyperbolas.

    .. math:: (S/S_{min} - 1)(E/E_{min} - 1) = 1

    Parameters
    ----------
    trade : Tradeoff
    ax : Axes, optional
    **where : scalar
        Which studies and targets to draw, ``params=1e9, target=3.0``; eight at most.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SweepError
        If nothing matches, or there are too many fits to tell apart.

    Notes
    -----
    Each point is one batch size. Open points were not fitted; those with a caret did not reach the target, which takes
    more than that. The star is where the batch is the critical one: twice the fewest steps at twice the least data.
    Where steps are not known, the panel shows examples against batch size.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from scalefit.batch_size.fit_tradeoff import fit_tradeoff
    >>> batch = 2.0 ** np.arange(14, 22)
    >>> trade = fit_tradeoff(pd.DataFrame({"batch": batch, "tokens": 1e9 * (1 + batch / 3e5)}))
    >>> tradeoff(trade, ax=Figure().subplots()).get_xlabel()
    'steps to the target $S$'
    """
    expect(trade, Tradeoff, "tradeoff")
    fits = _chosen(trade, where)
    if len(fits) > _MOST:
        raise SweepError(
            f"{len(fits)} fits in one panel cannot be told apart, {_MOST} at most; choose, such as target=3.0"
        )
    points = trade.points
    steps = bool(np.isfinite(points["steps"]).any())
    across = "steps" if steps else "batch"
    ax = axes_of(ax)
    log_axis(ax, "x", across, trade.data_unit)
    log_axis(ax, "y", "tokens", trade.data_unit)
    ax.set_ylabel(f"data to the target $E$ ({trade.examples_unit})")
    ax.set_xlabel("steps to the target $S$" if steps else label_of("batch", trade.data_unit))
    looks = family(len(fits)) if len(fits) > 1 else [ROLES["law"]]
    drawn = [
        _draw_fit(ax, trade, row, own, look, across)
        for (_, row), own, look in zip(fits.iterrows(), _points_of(trade, fits), looks, strict=True)
    ]
    seen = pd.concat(drawn)
    ax.set_xlim(*widen(seen[across], 0.12))
    ax.set_ylim(*widen(seen["examples"], 0.18))
    _name_fits(ax, trade, fits, looks)
    return ax


def _chosen(trade: Tradeoff, where: dict[str, Any]) -> pd.DataFrame:
    """Return the rows of the table that are asked for."""
    table = trade.table
    for name, value in ((column_of(name), value) for name, value in where.items()):
        if name not in (*trade.by, "target") or name not in table:
            raise SweepError(
                f"{name} does not tell these fits apart; they differ by {', '.join((*trade.by, 'target'))}"
            )
        numeric = pd.api.types.is_numeric_dtype(table[name])
        wanted = np.atleast_1d(value)
        same = [np.isclose(table[name], one, rtol=0.01) if numeric else table[name] == one for one in wanted]
        table = table[np.any(same, axis=0)]
    if not len(table):
        raise SweepError(f"no fit of this trade-off is at {where!r}")
    return table


def _points_of(trade: Tradeoff, fits: pd.DataFrame) -> list[pd.DataFrame]:
    keys = [name for name in (*trade.by, "target") if name in fits]
    points = trade.points
    return [points[(points[keys] == row[keys]).all(axis=1)] if keys else points for _, row in fits.iterrows()]


def _draw_fit(ax: Axes, trade: Tradeoff, row: pd.Series, points: pd.DataFrame, look: Look, across: str) -> pd.DataFrame:
    """Draw one fit with its points; return what the panel should hold."""
    marks = ROLES["points"] if look is ROLES["law"] else look
    used = points["used"].to_numpy(dtype=bool)
    bound = (points["status"] != "point").to_numpy()
    for shown, more in (
        (used, {}),
        (~used & ~bound, {"markerfacecolor": "white"}),
        (bound, {"markerfacecolor": "white", "marker": 6}),
    ):
        ax.plot(points[across][shown], points["examples"][shown], **marks.points(**more))
    batch = points.loc[used, "batch"]
    if len(batch) >= 2:
        keys = {name: row[name] for name in (*trade.by, "target") if name in row}
        ends = batch.min() / _ROOM, batch.max() * _ROOM
        curve = trade.predict(np.geomspace(*ends, 120), **keys)
        inside = curve["reach"] <= _INSIDE
        ax.plot(curve[across][inside], curve["examples"][inside], **look.line(linestyle="-"))
        ax.plot(curve[across], curve["examples"], **look.line(linestyle=(0, (2.5, 1.6)), linewidth=0.8))
    if np.isfinite(row["B_crit_stderr"]):
        place = 2 * row["S_min"] if across == "steps" else row["B_crit"]
        ax.plot([place], [2 * row["E_min"]], **star(look.color))
    return points[[across, "examples"]]


def _name_fits(ax: Axes, trade: Tradeoff, fits: pd.DataFrame, looks: Sequence[Look]) -> None:
    from matplotlib.lines import Line2D

    varied = [name for name in (*trade.by, "target") if name in fits and fits[name].nunique() > 1]
    entries: list[tuple[Any, str]] = []
    for look, (_, row) in zip(looks, fits.iterrows(), strict=True):
        head = ["" if len(varied) == 1 else f"{_letter(name)} " for name in varied]
        told = [f"{letter}{_level(name, row[name])}" for letter, name in zip(head, varied, strict=True)]
        entries.append((Line2D([], [], **look.points(linestyle="-")), ", ".join(told)))
    title = {"target": "target loss"}.get(varied[0], label_of(varied[0], trade.data_unit)) if len(varied) == 1 else ""
    shown = (
        [*entries, (Line2D([], [], **star(QUIET)), "critical batch")]
        if fits["B_crit_stderr"].notna().any()
        else entries
    )
    if any(text for _, text in shown):
        key(ax, shown, title)


def _letter(name: str) -> str:
    return "$L$" if name == "target" else letter_of(name)


def _level(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.3g}" if name == "target" else write_value(name, float(value))


def bcrit(
    trade: Tradeoff | None = None,
    fit: Fit | None = None,
    *,
    published: Sequence[str | PublishedLaw] | None = None,
    level: float = 0.95,
    ax: Axes | None = None,
) -> Axes:
    r"""Draw the critical batch size against the loss, with a law of one's own and published ones.

    .. math:: B_{crit} = B_\star / L^{1/\alpha_B}

    Parameters
    ----------
    trade : Tradeoff, optional
        Whose critical batch sizes to draw; the target is the loss.
    fit : Fit, optional
        A law in the loss, ``sf.fit("bcrit_loss", trade)``.
    published : sequence of str or PublishedLaw
        Laws in the loss, which count tokens; by default Kaplan's where the data are tokens. Empty for none.
    level : float
        Coverage of the fit's band.
    ax : Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SweepError, LawError
        If there is neither a trade-off with targets nor a fit, a law is not one in the loss alone, or published laws
        are asked for beside other data than tokens.

    Notes
    -----
    The loss falls to the right, as in training. Open marks with an arrow are bounds: the batch sizes tried tell only
    that the critical one is larger or smaller. Kaplan's constants belong to WebText2 and its tokenizer.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from scalefit.fitting.fit_law import fit_law as fit
    >>> table = pd.DataFrame({"loss": [3.6, 3.3, 3.0, 2.8], "B_crit": [4e5, 6e5, 1e6, 1.4e6]})
    >>> ax = bcrit(fit=fit("B_crit = B_star / L**(1/alpha_B)", table), ax=Figure().subplots())
    >>> [text.get_text() for text in ax.texts]
    ['this fit', 'kaplan2020']
    """
    if trade is None and fit is None:
        raise SweepError("bcrit: expected a trade-off from sf.fit_tradeoff, a fit in the loss, or both")
    if trade is not None and "target" not in expect(trade, Tradeoff, "bcrit").table:
        raise SweepError("this trade-off has no target losses; give the points a column target")
    if fit is not None:
        expect(fit, Fit, "bcrit")
    unit = trade.data_unit if trade is not None else fit.data_unit if fit is not None else "tokens"
    if published and unit != "tokens":
        raise LawError(f"published laws count tokens; here the data are {unit}")
    chosen = published if published is not None else ["kaplan2020_bcrit"] if unit == "tokens" else []
    others = [get_published(name) if isinstance(name, str) else name for name in chosen]
    for law in (*([] if fit is None else [fit.law]), *(other.law for other in others)):
        if [column_of(name) for name in law.inputs] != ["loss"]:
            raise LawError(f"{law.formula!r}: expected a law in the loss alone")
    ax = axes_of(ax)
    log_axis(ax, "x", "loss", unit)
    log_axis(ax, "y", "batch", unit)
    ax.set_ylabel(rf"critical batch $B_{{\mathrm{{crit}}}}$ ({unit})")
    losses = [] if trade is None else list(trade.table["target"])
    ends = widen(losses + ([] if fit is None else list(fit.rows["loss"])), 0.08)
    entries = [] if trade is None else _draw_critical(ax, trade)
    tops = _draw_laws(ax, fit, others, ends, level)
    ax.set_xlim(ends[1], ends[0])
    _frame(ax)
    label_ends(ax, tops)
    if entries:
        key(ax, entries)
    return ax


def _draw_critical(ax: Axes, trade: Tradeoff) -> list[tuple[Any, str]]:
    """Draw the critical batch sizes of every study; return what names them."""
    from matplotlib.lines import Line2D

    table = trade.table
    keys = list(trade.by)
    groups = list(table.groupby(keys, sort=True)) if keys else [((), table)]
    looks = [ROLES["points"]] if len(groups) == 1 else family(len(groups))
    entries: list[tuple[Any, str]] = []
    for look, (names, rows) in zip(looks, groups, strict=True):
        known = rows[np.isfinite(rows["B_crit_stderr"])]
        ax.vlines(known["target"], known["B_crit_lo"], known["B_crit_hi"], color=look.color, linewidth=0.9, zorder=3)
        draw_marks(ax, known["target"], known["B_crit"], look)
        for end, side in (("lo", 1), ("hi", -1)):
            bounds = rows[
                ~np.isfinite(rows["B_crit_stderr"]) & np.isfinite(rows[f"B_crit_{end}"]) & (rows[f"B_crit_{end}"] > 0)
            ]
            draw_marks(ax, bounds["target"], bounds[f"B_crit_{end}"], look, np.full(len(bounds), side))
        levels = names if isinstance(names, tuple) else (names,)
        told = ", ".join(f"{letter_of(name)} {_level(name, level)}" for name, level in zip(keys, levels, strict=True))
        entries.append((Line2D([], [], **look.points()), told if len(groups) > 1 else ""))
    return [entry for entry in entries if entry[1]]


def _draw_laws(
    ax: Axes, fit: Fit | None, others: Sequence[PublishedLaw], ends: tuple[float, float], level: float
) -> list[tuple[float, str, str]]:
    """Draw one's own law with its band, and published ones; return their names and heights at the lowest loss."""
    tops = []
    if fit is not None:
        cut, look = slice_of(fit, "loss", None, None), ROLES["law"]
        curve = cut.curve(*ends, np.nan, level)
        ax.fill_between(curve["loss"], curve["lo"], curve["hi"], color=look.color, alpha=BAND, linewidth=0)
        ax.plot(curve["loss"], curve["prediction"], **look.line())
        tops.append((float(curve["prediction"].iloc[0]), "this fit", look.color))
    loss = np.geomspace(*ends, 160)
    for other in others:
        look = ROLES["published"]
        height = np.asarray(other.law(other.values, {"loss": loss}), dtype=float)
        ax.plot(loss, height, **look.line())
        tops.append((float(height[0]), other.name.rpartition("_")[0] or other.name, look.color))
    return tops


def _frame(ax: Axes) -> None:
    """Limit the height to points, their intervals and the laws' lines, not the bands."""
    lines = [np.asarray(line.get_ydata(), dtype=float) for line in ax.lines if len(line.get_ydata())]
    bars = [segment[:, 1] for c in ax.collections if hasattr(c, "get_segments") for segment in c.get_segments()]
    ax.set_ylim(*widen(np.concatenate([*lines, *bars]), 0.06))
