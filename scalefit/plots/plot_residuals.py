"""The picture of what a fit leaves over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scalefit.fitting.fit_result import Fit
from scalefit.plots._style import BAND, ROLES, draw_marks
from scalefit.plots.axes import axes_of, expect, key
from scalefit.plots.plot_law import slice_of
from scalefit.plots.scales import letter_of, log_axis, widen
from scalefit.vocabulary import column_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    >>> from matplotlib.figure import Figure
    >>> import pandas as pd
    >>> from scalefit.fitting.fit_law import fit_law as fit
    >>> table = pd.DataFrame({"params": [1e8, 3e8, 1e9, 3e9], "lr": [2.1e-3, 1.2e-3, 7e-4, 4e-4]})
    >>> residuals(fit("eta = c * N**a", table), ax=Figure().subplots()).get_ylabel()
    'residual of $\\eta$ (%)'
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    expect(fit, Fit, "residuals")
    name, x = _against(fit, against)
    logged = fit.space == "log"
    left = 100 * np.expm1(fit.residuals) if logged else fit.residuals
    spread = 2 * fit.scatter * (100 if logged else 1)
    far = (np.abs(fit.residuals) * np.sqrt(fit.weights) > 3 * fit.scale) & ~fit.is_bound
    side = np.zeros(fit.n, dtype=int) if fit.censored is None else fit.censored
    ax = axes_of(ax)
    log_axis(ax, "x", name, fit.data_unit)
    ax.set_xlim(*widen(x))
    ax.axhspan(-spread, spread, color=ROLES["law"].color, alpha=BAND, linewidth=0)
    ax.axhline(0, **ROLES["law"].line())
    draw_marks(ax, x[~far], left[~far], ROLES["points"], side[~far])
    ax.plot(x[far], left[far], **ROLES["diverged"].points())
    top = 1.12 * max(np.abs(left).max(), spread)
    ax.set_ylim(-top, top)
    ax.set_ylabel(f"residual of {letter_of(fit.law.target)}" + (" (%)" if logged else ""))
    entries: list[tuple[Any, str]] = [(Line2D([], [], **ROLES["points"].points()), "residual")]
    entries += [(Line2D([], [], **ROLES["diverged"].points()), f"beyond 3 scatter: {far.sum()}")] if far.any() else []
    key(ax, [*entries, (Patch(color=ROLES["law"].color, alpha=BAND, linewidth=0), r"$\pm$ 2 scatter")])
    return ax


def _against(fit: Fit, against: str | None) -> tuple[str, np.ndarray]:
    if against == "prediction":
        target = column_of(fit.law.target)
        predicted = fit.law(fit.values, {column_of(n): fit.rows[column_of(n)].to_numpy() for n in fit.law.inputs})
        return target, np.asarray(predicted, dtype=float)
    cut = slice_of(fit, against, None, None)
    return cut.along, fit.rows[cut.along].to_numpy(dtype=float)
