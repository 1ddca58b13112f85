"""Pictures of one fitted law: along an input with its points, its residuals, and a loss at constant compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from scalefit.errors import LawError
from scalefit.fitting.fit_result import Fit
from scalefit.plots._style import QUIET, ROLES, Look, draw_marks, family
from scalefit.plots.axes import axes_of, expect, fit_height, key, label_ends, panel
from scalefit.plots.law_lines import Rows, Slice, draw_line, draw_points, explain_slice, rows_of, slice_of, slice_panel
from scalefit.plots.scales import label_of, letter_of, log_axis, log_steps, name_value, power, widen
from scalefit.vocabulary import column_of

FLOPS_PER_PARAM_TOKEN = 6.0
"""Training compute of a dense transformer per parameter and token, as the field counts it."""


def law(
    fit: Fit,
    along: str | None = None,
    by: str | None = None,
    *,
    at: Mapping[str, float] | None = None,
    heldout: Rows | None = None,
    to: float | None = None,
    level: float = 0.95,
    ax: Axes | None = None,
) -> Axes:
    """Draw a fitted law along one input, with its band and the points it was fitted to.

    Parameters
    ----------
    fit : Fit
    along : str, optional
        The input on the x axis, as column or symbol; by default the one that spans most.
    by : str, optional
        An input to draw one line for each level of, six at most.
    at : mapping of str to float, optional
        Where the other inputs are held; by default at the geometric mean of the rows.
    heldout : DataFrame, Optima or Sweep, optional
        Rows the law has not seen, with its inputs and target.
    to : float, optional
        How far along the line goes; by default as far as there are points.
    level : float
        Coverage of the band.
    ax : Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    LawError
        If the law has no such input, or the held-out rows lack a column.

    Notes
    -----
    The band is that of `Fit.predict`: for a new observation, so it holds the scatter of single points too. Beyond the
    rows fitted the line is dashed. Points are moved along the law to the inputs the line is drawn at (times the law's
    ratio between the two places), as in a partial residual plot: their distance from the line is their residual.

    Examples
    --------
    >>> import pandas as pd
    >>> from matplotlib.figure import Figure
    >>> import scalefit as sf
    >>> table = pd.DataFrame({"params": [1e8, 3e8, 1e9, 3e9], "lr": [2.1e-3, 1.2e-3, 7e-4, 4e-4]})
    >>> ax = sf.plots.law(sf.fit("eta = c * N**a", table), ax=Figure().subplots())
    >>> ax.get_xlabel(), ax.get_xscale()
    ('model size $N$ (parameters)', 'log')

    See Also
    --------
    compare : several laws in one panel
    residuals : what the law leaves over
    """
    cut = slice_of(expect(fit, Fit, "law"), along, by, at)
    alone, kept = cut.by is None, rows_of(heldout, fit)
    looks = [ROLES["law"]] if alone else family(len(cut.levels))
    held = [ROLES["heldout"]] if alone else [_open(look.color) for look in looks]
    ax = slice_panel(ax, cut, [*kept[cut.along], *([] if to is None else [to])], looks)
    tops = [draw_line(ax, cut, look, level, value) for value, look in zip(cut.levels, looks, strict=True)]
    draw_points(ax, cut, kept, held)
    fit_height(ax, 0.08)
    if cut.by is not None:
        names = [name_value(cut.by, value) for value in cut.levels]
        label_ends(ax, list(zip(tops, names, [look.color for look in looks], strict=True)))
    _explain_law(ax, cut, len(kept) > 0, level)
    return ax


def _open(color: str) -> Look:
    """Return the look of held-out points beside several lines."""
    return Look(color, ROLES["heldout"].marker, hollow=True)


def _explain_law(ax: Axes, cut: Slice, heldout: bool, level: float) -> None:
    if cut.by is None:
        points, line, kept = ROLES["points"], ROLES["law"], ROLES["heldout"]
    else:
        points, line, kept = Look(QUIET), Look(QUIET), _open(QUIET)
    entries = [
        (points.points(), "fitted"),
        (points.points(markerfacecolor="white"), "a bound" if cut.fit.is_bound.any() else ""),
        (kept.points(), "held out" if heldout else ""),
        (line.line(), "law"),
    ]
    explain_slice(ax, cut, entries, line, level)


def residuals(fit: Fit, against: str | None = None, *, ax: Axes | None = None) -> Axes:
    r"""Draw what a fit leaves over, in percent of the target, or in its unit for a fit in plain space.

    Parameters
    ----------
    fit : Fit
    against : str, optional
        The input on the x axis; by default the one that spans most. ``"prediction"`` for the fitted value.
    ax : Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    LawError
        If the law has no such input.

    Notes
    -----
    The band is twice the residual scatter of a row of median weight. Rows beyond three times their own scatter are
    crossed and counted in the key. Bounds are open, with an arrow to where the truth lies.

    Examples
    --------
    >>> import pandas as pd
    >>> from matplotlib.figure import Figure
    >>> import scalefit as sf
    >>> table = pd.DataFrame({"params": [1e8, 3e8, 1e9, 3e9], "lr": [2.1e-3, 1.2e-3, 7e-4, 4e-4]})
    >>> sf.plots.residuals(sf.fit("eta = c * N**a", table), ax=Figure().subplots()).get_ylabel()
    'residual of $\\eta$ (%)'

    See Also
    --------
    law : the fit itself
    """
    expect(fit, Fit, "residuals")
    name, x = _against(fit, against)
    logged = fit.space == "log"
    left = 100 * np.expm1(fit.residuals) if logged else fit.residuals
    spread = 2 * fit.scatter * (100 if logged else 1)
    far = (np.abs(fit.residuals) * np.sqrt(fit.weights) > 3 * fit.scale) & ~fit.is_bound
    side = np.zeros(fit.n, dtype=int) if fit.censored is None else fit.censored
    band = ROLES["law"].band()
    ax = axes_of(ax)
    log_axis(ax, "x", name, fit.data_unit)
    ax.set_xlim(*widen(x))
    ax.axhspan(-spread, spread, **band)
    ax.axhline(0, **ROLES["law"].line())
    draw_marks(ax, x[~far], left[~far], ROLES["points"], side[~far])
    ax.plot(x[far], left[far], **ROLES["diverged"].points())
    top = 1.12 * max(np.abs(left).max(), spread)
    ax.set_ylim(-top, top)
    ax.set_ylabel(f"residual of {letter_of(fit.law.target)}" + (" (%)" if logged else ""))
    beyond = f"beyond 3 scatter: {far.sum()}" if far.any() else ""
    marks = [(ROLES["points"].points(), "residual"), (ROLES["diverged"].points(), beyond)]
    key(ax, [*marks, (Patch(**band), r"$\pm$ 2 scatter")])
    return ax


def _against(fit: Fit, against: str | None) -> tuple[str, np.ndarray]:
    """Return the column on the x axis and its values."""
    if against == "prediction":
        predicted = fit.law(fit.values, {column_of(n): fit.rows[column_of(n)].to_numpy() for n in fit.law.inputs})
        return column_of(fit.law.target), np.asarray(predicted, dtype=float)
    along = slice_of(fit, against).along
    return along, fit.rows[along].to_numpy(dtype=float)


def isoflops(fit: Fit, flops: Sequence[float] | None = None, *, ax: Axes | None = None) -> Axes:
    r"""Draw loss against model size at constant compute, with the best size for each.

    .. math:: D = C / (6 N)

    Parameters
    ----------
    fit : Fit
        A law for the loss in params and tokens.
    flops : sequence of float, optional
        Compute budgets, one curve each; by default five within the range of the rows fitted.
    ax : Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    LawError
        If the fit is not a loss law in params and tokens, or the budgets are not positive.

    Notes
    -----
    Each row fitted is drawn at its own size and loss, in the colour of the budget nearest to its own. The line through
    the minima is where a budget is spent best; it is dashed where that size lies beyond the sizes fitted.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from matplotlib.figure import Figure
    >>> import scalefit as sf
    >>> params, tokens = (axis.ravel() for axis in np.meshgrid([1e8, 3e8, 1e9], [2e9, 8e9, 3e10]))
    >>> table = pd.DataFrame({"params": params, "tokens": tokens, "loss": 480 * params**-0.35 + 2100 * tokens**-0.37})
    >>> ax = sf.plots.isoflops(sf.fit("L = A/N**alpha + B/D**beta", table), [1e18, 1e19], ax=Figure().subplots())
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['$10^{18}$', '$10^{19}$', 'best size']

    See Also
    --------
    law : the loss along one input
    """
    expect(fit, Fit, "isoflops")
    if column_of(fit.law.target) != "loss" or {column_of(name) for name in fit.law.inputs} != {"params", "tokens"}:
        raise LawError(f"isoflops needs a law for the loss in params and tokens, found {fit.law.formula!r}")
    rows = fit.rows
    spent = np.log(FLOPS_PER_PARAM_TOKEN * (rows["params"] * rows["tokens"]).to_numpy())
    # budgets that few rows spent have no points of their own to be seen beside
    usual = np.exp(np.linspace(np.quantile(spent, 0.05), np.quantile(spent, 0.98), 5))
    budgets = usual if flops is None else np.array(flops, dtype=float)
    if not len(budgets) or not (budgets > 0).all():
        raise LawError(f"flops: expected positive budgets, found {flops!r}")
    looks = family(len(budgets))
    ax = panel(ax, "params", "loss", fit.data_unit, linear=True)
    ax.set_xlim(*widen(rows["params"], 0.12))
    nearest = np.abs(spent[:, None] - np.log(budgets)).argmin(axis=1)
    for j, look in enumerate(looks):
        own = rows[nearest == j]
        ax.plot(own["params"], own["loss"], **look.points(alpha=0.75))
    low, top = rows["loss"].min(), rows["loss"].max() + 0.06 * np.ptp(rows["loss"])
    sizes = log_steps(ax.get_xlim(), 300)
    for budget, look in zip(budgets, looks, strict=True):
        loss = _loss(fit, sizes, budget)
        loss = np.where(loss <= top, loss, np.nan)
        ax.plot(sizes, loss, **look.line(linestyle="-"))
        low = min(low, np.nanmin(loss))
    _draw_minima(ax, fit, budgets)
    ax.set_ylim(low - 0.05 * (top - low), top)
    names = [power(float(f"{budget:.2g}")) for budget in budgets]
    entries = [(look.points(linestyle="-"), name) for look, name in zip(looks, names, strict=True)]
    key(ax, [*entries, (_MINIMA, "best size")], label_of("flops"))
    return ax


_MINIMA = {"color": ROLES["points"].color, "linewidth": 1.4}


def _loss(fit: Fit, params: np.ndarray, budget: float | np.ndarray) -> np.ndarray:
    tokens = budget / (FLOPS_PER_PARAM_TOKEN * params)
    return np.asarray(fit.law(fit.values, {"params": params, "tokens": tokens}), dtype=float)


def _draw_minima(ax: Axes, fit: Fit, budgets: np.ndarray) -> None:
    """Draw the best size of every budget, dashed beyond the sizes fitted."""
    sizes = np.geomspace(ax.get_xlim()[0] / 1e3, ax.get_xlim()[1] * 1e3, 4001)
    loss = _loss(fit, sizes[None, :], np.geomspace(budgets.min(), budgets.max(), 60)[:, None])
    at, lowest = loss.argmin(axis=1), loss.min(axis=1)
    found = (at > 0) & (at < len(sizes) - 1)  # no minimum if the lowest loss is at an end of the sizes
    best = sizes[at]
    inside = found & (best >= fit.rows["params"].min()) & (best <= fit.rows["params"].max())
    ax.plot(best[found], lowest[found], zorder=5, **(_MINIMA | {"linewidth": 1.0, "linestyle": (0, (3, 1.8))}))
    ax.plot(np.where(inside, best, np.nan), lowest, zorder=5, **_MINIMA)
