"""Pictures of a loss law: the loss of every size at a given compute, and the size that does best with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scalefit.errors import LawError
from scalefit.fitting.fit_result import Fit
from scalefit.plots._style import ROLES, Look, family
from scalefit.plots.axes import axes_of, expect, key
from scalefit.plots.scales import label_of, linear_axis, log_axis, power, widen
from scalefit.vocabulary import column_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FLOPS_PER_PARAM_TOKEN = 6.0
"""Training compute of a dense transformer per parameter and token, as the field counts it."""


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
    >>> from matplotlib.figure import Figure
    >>> import pandas as pd
    >>> from scalefit.fitting.fit_law import fit_law as fit
    >>> params, tokens = (axis.ravel() for axis in np.meshgrid([1e8, 3e8, 1e9], [2e9, 8e9, 3e10]))
    >>> table = pd.DataFrame({"params": params, "tokens": tokens, "loss": 480 * params**-0.35 + 2100 * tokens**-0.37})
    >>> ax = isoflops(fit("L = A/N**alpha + B/D**beta", table), [1e18, 1e19], ax=Figure().subplots())
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['$10^{18}$', '$10^{19}$', 'best size']
    """
    expect(fit, Fit, "isoflops")
    if column_of(fit.law.target) != "loss" or {column_of(name) for name in fit.law.inputs} != {"params", "tokens"}:
        raise LawError(f"isoflops needs a law for the loss in params and tokens, found {fit.law.formula!r}")
    rows = fit.rows
    spent = FLOPS_PER_PARAM_TOKEN * rows["params"] * rows["tokens"]
    budgets = np.array(_budgets(spent.to_numpy()) if flops is None else flops, dtype=float)
    if not len(budgets) or not (budgets > 0).all():
        raise LawError(f"flops: expected positive budgets, found {flops!r}")
    looks = family(len(budgets))
    ax = axes_of(ax)
    log_axis(ax, "x", "params", fit.data_unit)
    linear_axis(ax, "y", "loss", fit.data_unit)
    ax.set_xlim(*widen(rows["params"], 0.12))
    nearest = np.abs(np.log(spent.to_numpy()[:, None] / budgets)).argmin(axis=1)
    for j, look in enumerate(looks):
        own = rows[nearest == j]
        ax.plot(own["params"], own["loss"], **look.points(alpha=0.75))
    top = rows["loss"].max() + 0.06 * np.ptp(rows["loss"])
    curves = [_draw_budget(ax, fit, budget, look, top) for budget, look in zip(budgets, looks, strict=True)]
    _draw_minima(ax, fit, budgets)
    low = min(rows["loss"].min(), *(np.nanmin(curve) for curve in curves))
    ax.set_ylim(low - 0.05 * (top - low), top)
    _explain(ax, budgets, looks)
    return ax


def _budgets(spent: np.ndarray) -> np.ndarray:
    """Return five budgets a constant factor apart, inside the compute spent."""
    low, high = np.quantile(np.log(spent), [0.05, 0.98])
    return np.exp(np.linspace(low, high, 5))


def _loss(fit: Fit, params: np.ndarray, budget: float | np.ndarray) -> np.ndarray:
    tokens = budget / (FLOPS_PER_PARAM_TOKEN * params)
    return np.asarray(fit.law(fit.values, {"params": params, "tokens": tokens}), dtype=float)


def _draw_budget(ax: Axes, fit: Fit, budget: float, look: Look, top: float) -> np.ndarray:
    """Draw one curve as far as it stays in the panel; return its heights."""
    low, high = ax.get_xlim()
    params = np.geomspace(low, high, 300)
    loss = _loss(fit, params, budget)
    loss = np.where(loss <= top, loss, np.nan)
    ax.plot(params, loss, **look.line(linestyle="-"))
    return loss


def _draw_minima(ax: Axes, fit: Fit, budgets: np.ndarray) -> None:
    wide = np.geomspace(ax.get_xlim()[0] / 1e3, ax.get_xlim()[1] * 1e3, 4001)
    many = np.geomspace(budgets.min(), budgets.max(), 60)
    loss = _loss(fit, wide[None, :], many[:, None])
    at = loss.argmin(axis=1)
    ends = (at > 0) & (at < len(wide) - 1)
    best, lowest = wide[at], loss.min(axis=1)
    inside = ends & (best >= fit.rows["params"].min()) & (best <= fit.rows["params"].max())
    dark = ROLES["points"].color
    ax.plot(best[ends], lowest[ends], color=dark, linewidth=1.0, linestyle=(0, (3, 1.8)), zorder=5)
    ax.plot(np.where(inside, best, np.nan), lowest, color=dark, linewidth=1.4, zorder=5)


def _explain(ax: Axes, budgets: np.ndarray, looks: Sequence[Look]) -> None:
    from matplotlib.lines import Line2D

    entries = [
        (Line2D([], [], **look.points(linestyle="-")), power(float(f"{budget:.2g}")))
        for budget, look in zip(budgets, looks, strict=True)
    ]
    entries.append((Line2D([], [], color=ROLES["points"].color, linewidth=1.4), "best size"))
    key(ax, entries, label_of("flops"))
