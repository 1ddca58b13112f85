"""Pictures of the trade-off between steps and examples, and of the critical batch size over the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from scalefit.batch_size.tradeoff import Tradeoff
from scalefit.errors import LawError, SweepError
from scalefit.fitting.fit_result import Fit
from scalefit.laws.published import PublishedLaw
from scalefit.plots._style import QUIET, ROLES, Look, draw_marks, family, star
from scalefit.plots.axes import expect, fit_height, key, label_ends, panel
from scalefit.plots.law_lines import INSIDE, name_published, slice_of
from scalefit.plots.scales import label_of, log_steps, name_rows, name_value, rows_at, widen
from scalefit.vocabulary import column_of

_MOST = 8
_ROOM = 4.0
"""How far beyond the batch sizes fitted a curve is drawn."""


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
    >>> import numpy as np
    >>> import pandas as pd
    >>> from matplotlib.figure import Figure
    >>> import scalefit as sf
    >>> batch = 2.0 ** np.arange(14, 22)
    >>> trade = sf.fit_tradeoff(pd.DataFrame({"batch": batch, "tokens": 1e9 * (1 + batch / 3e5)}))
    >>> sf.plots.tradeoff(trade, ax=Figure().subplots()).get_xlabel()
    'steps to the target $S$'

    See Also
    --------
    bcrit : the critical batch size over the loss
    """
    expect(trade, Tradeoff, "tradeoff")
    fits = _choose_fits(trade, where)
    if len(fits) > _MOST:
        raise SweepError(
            f"{len(fits)} fits in one panel cannot be told apart, {_MOST} at most; choose, such as target=3.0"
        )
    keys = [name for name in (*trade.by, "target") if name in fits]
    steps = bool(np.isfinite(trade.points["steps"]).any())
    across = "steps" if steps else "batch"
    ax = panel(ax, across, "tokens", trade.data_unit)
    ax.set_ylabel(f"data to the target $E$ ({trade.examples_unit})")
    ax.set_xlabel("steps to the target $S$" if steps else label_of("batch", trade.data_unit))
    looks = family(len(fits)) if len(fits) > 1 else [ROLES["law"]]
    seen = pd.concat(
        [_draw_fit(ax, trade, row, keys, look, across) for (_, row), look in zip(fits.iterrows(), looks, strict=True)]
    )
    ax.set_xlim(*widen(seen[across], 0.12))
    ax.set_ylim(*widen(seen["examples"], 0.18))
    names, title = name_rows(fits, keys, trade.data_unit)
    entries = [(look.points(linestyle="-"), name) for look, name in zip(looks, names, strict=True)]
    key(ax, [*entries, (star(QUIET), "critical batch" if fits["B_crit_stderr"].notna().any() else "")], title)
    return ax


def _choose_fits(trade: Tradeoff, where: dict[str, Any]) -> pd.DataFrame:
    """Return the rows of the table that are asked for."""
    table = trade.table
    for name, value in ((column_of(name), value) for name, value in where.items()):
        if name not in (*trade.by, "target") or name not in table:
            raise SweepError(
                f"{name} does not tell these fits apart; they differ by {', '.join((*trade.by, 'target'))}"
            )
        table = table[np.any([rows_at(table, {name: wanted}, 0.01) for wanted in np.atleast_1d(value)], axis=0)]
    if not len(table):
        raise SweepError(f"no fit of this trade-off is at {where!r}")
    return table


def _draw_fit(ax: Axes, trade: Tradeoff, row: pd.Series, keys: list[str], look: Look, across: str) -> pd.DataFrame:
    """Draw one fit with its points; return the places that the limits must contain."""
    marks = ROLES["points"] if look is ROLES["law"] else look
    points = trade.points[(trade.points[keys] == row[keys]).all(axis=1)]  # all points if there are no keys
    used, bound = points["used"].to_numpy(dtype=bool), (points["status"] != "point").to_numpy()
    unused, beyond = {"markerfacecolor": "white"}, {"markerfacecolor": "white", "marker": 6}
    for shown, more in ((used, {}), (~used & ~bound, unused), (bound, beyond)):
        ax.plot(points[across][shown], points["examples"][shown], **marks.points(**more))
    batch = points.loc[used, "batch"]
    if len(batch) >= 2:
        place = {name: row[name] for name in keys}
        curve = trade.predict(log_steps((batch.min() / _ROOM, batch.max() * _ROOM), 120), **place)
        inside = curve["reach"] <= INSIDE
        ax.plot(curve[across][inside], curve["examples"][inside], **look.line(linestyle="-"))
        ax.plot(curve[across], curve["examples"], **look.line(linestyle=(0, (2.5, 1.6)), linewidth=0.8))
    if np.isfinite(row["B_crit_stderr"]):
        place = 2 * row["S_min"] if across == "steps" else row["B_crit"]
        ax.plot([place], [2 * row["E_min"]], **star(look.color))
    return points[[across, "examples"]]


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
    >>> import pandas as pd
    >>> from matplotlib.figure import Figure
    >>> import scalefit as sf
    >>> table = pd.DataFrame({"loss": [3.6, 3.3, 3.0, 2.8], "B_crit": [4e5, 6e5, 1e6, 1.4e6]})
    >>> ax = sf.plots.bcrit(fit=sf.fit("B_crit = B_star / L**(1/alpha_B)", table), ax=Figure().subplots())
    >>> [text.get_text() for text in ax.texts]
    ['this fit', 'kaplan2020']

    See Also
    --------
    tradeoff : the points behind each critical batch size
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
    others = name_published(chosen)
    for law in (*([] if fit is None else [fit.law]), *(other.law for _, other in others)):
        if [column_of(name) for name in law.inputs] != ["loss"]:
            raise LawError(f"{law.formula!r}: expected a law in the loss alone")
    ax = panel(ax, "loss", "batch", unit)
    ax.set_ylabel(rf"critical batch $B_{{\mathrm{{crit}}}}$ ({unit})")
    losses = [] if trade is None else list(trade.table["target"])
    ends = widen(losses + ([] if fit is None else list(fit.rows["loss"])), 0.08)
    entries = [] if trade is None else _draw_critical(ax, trade)
    tops = _draw_laws(ax, fit, others, ends, level)
    ax.set_xlim(ends[1], ends[0])
    fit_height(ax, 0.06)
    label_ends(ax, tops)
    key(ax, entries)
    return ax


def _draw_critical(ax: Axes, trade: Tradeoff) -> list[tuple[Any, str]]:
    """Draw the critical batch sizes of every study, bounds with an arrow; return what names the studies."""
    keys = list(trade.by)
    groups = [rows for _, rows in trade.table.groupby(keys, sort=True)] if keys else [trade.table]
    looks = [ROLES["points"]] if len(groups) == 1 else family(len(groups))
    entries: list[tuple[Any, str]] = []
    for look, rows in zip(looks, groups, strict=True):
        known = np.isfinite(rows["B_crit_stderr"])
        found = rows[known]
        ax.vlines(found["target"], found["B_crit_lo"], found["B_crit_hi"], color=look.color, linewidth=0.9, zorder=3)
        draw_marks(ax, found["target"], found["B_crit"], look)
        for end, side in (("B_crit_lo", 1), ("B_crit_hi", -1)):
            bounds = rows[~known & np.isfinite(rows[end]) & (rows[end] > 0)]
            draw_marks(ax, bounds["target"], bounds[end], look, np.full(len(bounds), side))
        name = ", ".join(name_value(column, rows[column].iloc[0]) for column in keys)
        entries.append((look.points(), name if len(groups) > 1 else ""))
    return entries


def _draw_laws(
    ax: Axes, fit: Fit | None, others: Sequence[tuple[str, PublishedLaw]], ends: tuple[float, float], level: float
) -> list[tuple[float, str, str]]:
    """Draw one's own law with its band, and published ones; return their heights at the lowest loss and names."""
    tops = []
    if fit is not None:
        curve, look = slice_of(fit, "loss").curve(ends, level), ROLES["law"]
        ax.fill_between(curve["loss"], curve["lo"], curve["hi"], **look.band())
        ax.plot(curve["loss"], curve["prediction"], **look.line())
        tops.append((float(curve["prediction"].iloc[0]), "this fit", look.color))
    loss = log_steps(ends, 160)
    for name, other in others:
        look = ROLES["published"]
        height = np.asarray(other.law(other.values, {"loss": loss}), dtype=float)
        ax.plot(loss, height, **look.line())
        tops.append((float(height[0]), name, look.color))
    return tops
