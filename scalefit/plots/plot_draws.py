"""The picture of uncertainty: where refits to resampled data put two parameters of a law."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse

from scalefit.errors import LawError
from scalefit.fitting.draws import Draws
from scalefit.fitting.fit_result import Fit
from scalefit.fitting.fit_values import check_level
from scalefit.laws.published import PublishedLaw
from scalefit.plots._style import ROLES, size, star
from scalefit.plots.axes import axes_of, expect, key, note
from scalefit.plots.law_lines import name_published
from scalefit.plots.scales import round_steps
from scalefit.vocabulary import latex_of

_REFITS: dict[str, Any] = {"linestyle": "none", "marker": ".", "color": "#8c8c8c"}
_GREEK = ("alpha", "beta", "gamma", "eta", "tau")


def draws(
    draws: Draws,
    x: str | None = None,
    y: str | None = None,
    *,
    published: Sequence[str | PublishedLaw] = (),
    level: float = 0.95,
    ax: Axes | None = None,
) -> Axes:
    """Draw the bootstrap cloud of two parameters, such as the exponents, with the fit and its ellipse.

    Parameters
    ----------
    draws : Draws
    x, y : str, optional
        Parameters; by default the first two that are free and not prefactors (positive), or else the first two.
    published : sequence of str or PublishedLaw
        Laws of the same form, whose constants are marked.
    level : float
        Share of a normal distribution inside the ellipse.
    ax : Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    LawError
        If the law has no such parameter, or a published law has other ones.

    Notes
    -----
    The ellipse is that of the fit's own covariance, not of the cloud: where they disagree, the errors of the fit
    do not hold for data resampled like this.

    Examples
    --------
    >>> import pandas as pd
    >>> from matplotlib.figure import Figure
    >>> import scalefit as sf
    >>> table = pd.DataFrame({"params": [1e8, 3e8, 1e9, 3e9], "lr": [2.1e-3, 1.2e-3, 7e-4, 4e-4]})
    >>> refits = sf.bootstrap(sf.fit("eta = c * N**a", table), n=50, by="parametric")
    >>> ax = sf.plots.draws(refits, "a", "c", ax=Figure().subplots())
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('$a$', '$c$')

    See Also
    --------
    law : the fit itself
    scalefit.bootstrap : the refits
    """
    expect(draws, Draws, "draws")
    fit, table = draws.fit, draws.table
    check_level(level)
    first, second = _pair(fit, x, y)
    ax, color = axes_of(ax), ROLES["law"].color
    ax.plot(table[first], table[second], markersize=size(0.65), alpha=0.5, markeredgewidth=0, zorder=1, **_REFITS)
    center = fit.values[first], fit.values[second]
    wide, tall, angle = _ellipse(fit, first, second, level)
    ax.add_patch(Ellipse(center, wide, tall, angle=angle, facecolor="none", edgecolor=color, zorder=3, linewidth=1.1))
    ax.plot(*center, **star(color))
    marked = _mark_published(ax, published, first, second)
    _frame(ax, table[[first, second]].to_numpy(), marked)
    ax.set_xlabel(_named(fit, first))
    ax.set_ylabel(_named(fit, second))
    entries = [
        (_REFITS | {"markersize": size(1.2)}, f"refits by {draws.by}"),
        (star(color), "fit"),
        ({"color": color}, f"{100 * level:g} %" if wide else ""),
        (ROLES["published"].points(), "published" if marked else ""),
    ]
    key(ax, entries)
    return ax


def _pair(fit: Fit, x: str | None, y: str | None) -> tuple[str, str]:
    """Return the parameters asked for; by default free ones, exponents before prefactors."""
    names = list(fit.values)
    if strange := [name for name in (x, y) if name is not None and name not in names]:
        raise LawError(f"{fit.law.formula!r} has no parameter {', '.join(strange)}; it has {', '.join(names)}")
    free = [n for n, state in zip(fit.law.parameters, fit.states, strict=True) if state in ("free", "unidentified")]
    exponents = [name for name in free if name not in fit.law.positive]
    order = [name for name in [*exponents, *free, *names] if name not in (x, y)]
    first = x or (order.pop(0) if order else None)
    second = y or next((name for name in order if name != first), None)
    if first is None or second is None or first == second:
        raise LawError(f"a cloud needs two parameters; {fit.law.formula!r} has {', '.join(names)}")
    return first, second


def _ellipse(fit: Fit, x: str, y: str, level: float) -> tuple[float, float, float]:
    """Return width, height and angle in degrees of the normal ellipse of a pair of parameters."""
    covariance = fit.natural_covariance.loc[[x, y], [x, y]].to_numpy()
    if not np.isfinite(covariance).all():
        return 0.0, 0.0, 0.0
    values, vectors = np.linalg.eigh(covariance)
    axes = 2 * np.sqrt(-2 * np.log(1 - level) * np.maximum(values, 0.0))
    return float(axes[1]), float(axes[0]), float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])))


def _mark_published(ax: Axes, names: Sequence[str | PublishedLaw], x: str, y: str) -> list[tuple[float, float]]:
    look, places = ROLES["published"], []
    for short, other in name_published(names):
        if not {x, y} <= other.values.keys():
            raise LawError(f"{other.name} has the parameters {', '.join(other.values)}, not {x} and {y}")
        places.append((other.values[x], other.values[y]))
        ax.plot(*places[-1], **look.points(markersize=size(1.4), zorder=5))
        note(ax, short, places[-1], (5, 0), xycoords="data", va="center", color=look.color)
    return places


def _frame(ax: Axes, cloud: np.ndarray, marked: list[tuple[float, float]]) -> None:
    """Set limits that show all but the outermost two in a thousand refits, and every mark."""
    low, high = np.quantile(cloud, [0.001, 0.999], axis=0)
    points = np.array([low, high, *marked])
    room = 0.08 * np.ptp(points, axis=0)
    ax.set_xlim(points[:, 0].min() - room[0], points[:, 0].max() + room[0])
    ax.set_ylim(points[:, 1].min() - room[1], points[:, 1].max() + room[1])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(round_steps())


def _named(fit: Fit, name: str) -> str:
    letters = latex_of(name) or (rf"\{name}" if name in _GREEK else name.replace("_", r"\_"))
    meaning = fit.law.meanings.get(name, "")
    meaning = re.sub(r"\b([NDBLSC])\b", r"$\1$", meaning)
    return f"{meaning} (${letters}$)" if 0 < len(meaning) < 32 else f"${letters}$"
