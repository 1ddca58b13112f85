"""Axes to draw in, grids of panels, labels that stay clear of the data, and the right result to draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from scalefit.errors import ScalefitError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

T = TypeVar("T")

_COMES_FROM = {
    "Backtest": "sf.backtest(sweep, ...)",
    "Curves": "sf.read_curves(...)",
    "Draws": "sf.bootstrap(fit)",
    "Fit": "sf.fit(law, optima)",
    "Forecast": "sf.extrapolate(fit, ...)",
    "Optima": "sf.find_optima(sweep)",
    "Surface": "sf.fit_surface(sweep)",
    "Sweep": "sf.read_sweep(...)",
    "Tradeoff": "sf.fit_tradeoff(points)",
}

_FITS_IN = {
    "Average": "its laws are average.fits, together plots.compare(average.fits)",
    "Choice": "its law is choice.fit",
    "Comparison": "its laws are comparison.fits, the best comparison.best",
    "Draws": "what it resampled is draws.fit",
    "Ladder": "its laws are in ladder.fits, together plots.compare(ladder.fits)",
    "Surface": "its laws are surface.lr_fit and surface.batch_fit",
}
"""Where results that hold fits keep them."""


def expect(given: Any, kind: type[T], call: str) -> T:
    """Return a result after checking that it is what a picture shows.

    Raises
    ------
    ScalefitError
        If it is anything else, saying how to come by the right one.

    Examples
    --------
    >>> expect("chinchilla", str, "law")
    'chinchilla'
    """
    if isinstance(given, kind):
        return given
    found, wanted = type(given).__name__, kind.__name__
    holds = _FITS_IN.get(found) if wanted == "Fit" else None
    advice = holds or f"one is made by {_COMES_FROM[wanted]}"
    raise ScalefitError(f"plots.{call} expected a {wanted}, found {found}; {advice}")


_GOLDEN = 0.618

_GAP = 4.0
"""Points between a panel and its key, and above that."""

_LABELS = 42.0
"""Points that the label of the height axis, its ticks and the margin beside a panel take."""

CLEAR = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8}
"""The ground of a text that stands over lines."""


def axes_of(ax: Axes | None) -> Axes:
    """Return the axes given, or those of a new figure of the size in force."""
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(layout="constrained")[1]


def figure_grid(
    rows: int = 1,
    columns: int = 2,
    *,
    width: float | None = None,
    height: float | None = None,
    letters: bool = True,
    **settings: Any,
) -> tuple[Figure, np.ndarray]:
    """Make a figure of several panels, lettered a, b, c ...

    Parameters
    ----------
    rows, columns : int
    width : float, optional
        Inches; by default that of the style in force.
    height : float, optional
        Inches; by default each panel is as tall as the golden section of its width, plus room for a key.
    letters : bool
        Whether panels are lettered.
    **settings
        For `matplotlib.pyplot.subplots`, such as ``sharey=True`` or ``width_ratios=[2, 1]``.

    Returns
    -------
    fig : matplotlib.figure.Figure
    axes : ndarray of Axes, shape (rows, columns)

    Raises
    ------
    ScalefitError
        If there is no panel.

    Examples
    --------
    >>> fig, axes = figure_grid(1, 3, width=6.75)
    >>> axes.shape, [text.get_text() for text in axes[0, 2].texts]
    ((1, 3), ['c'])
    >>> from matplotlib import pyplot
    >>> pyplot.close(fig)
    """
    from matplotlib import pyplot

    if rows < 1 or columns < 1:
        raise ScalefitError(f"a grid needs at least one row and one column, found {rows} x {columns}")
    wide = float(pyplot.rcParams["figure.figsize"][0] if width is None else width)
    tall = rows * (_GOLDEN * wide / columns + 0.55) if height is None else height
    grid = {"figsize": (wide, tall), "layout": "constrained", "squeeze": False} | settings
    fig, axes = pyplot.subplots(rows, columns, **grid)
    if letters:
        for ax, letter in zip(axes.flat, _alphabet(axes.size), strict=True):
            _write_letter(ax, letter)
    return fig, axes


def _alphabet(n: int) -> list[str]:
    return [chr(ord("a") + j % 26) * (j // 26 + 1) for j in range(n)]


def _write_letter(ax: Axes, letter: str) -> None:
    """Write a letter above and to the left of a panel, where neither ticks nor a key reach."""
    ax.annotate(
        letter,
        (0, 1),
        xytext=(-30, 7),
        xycoords="axes fraction",
        textcoords="offset points",
        fontweight="bold",
        fontsize=ax.xaxis.label.get_fontsize() + 1,
        ha="left",
        va="bottom",
    )


def key(ax: Axes, entries: Sequence[tuple[Any, str]], title: str = "", *, side: str = "left") -> None:
    """Say above the panel, in rows as wide as it, what its marks and lines mean.

    Parameters
    ----------
    ax : Axes
    entries : sequence of (artist, str)
    title : str
        What the entries have in common, above them.
    side : {"left", "right"}
        Which end of the panel it is flush with; right for a panel whose tick labels are long.
    """
    told = [(handle, text) for handle, text in entries if text]
    if not told:
        return caption(ax, title)
    room = _room(ax)
    for rows in range(1, len(told) + 1):
        columns = -(-len(told) // rows)
        legend = ax.legend(
            [handle for handle, _ in told],
            [text for _, text in told],
            title=title or None,
            alignment="left",
            loc=f"lower {side}",
            bbox_to_anchor=(-0.02 if side == "left" else 1.0, 1.0),
            ncols=columns,
            frameon=False,
            borderpad=0.0,
            borderaxespad=0.3,
            handlelength=1.7,
            handletextpad=0.45,
            columnspacing=1.0,
            labelspacing=0.25,
        )
        box = legend.get_window_extent()
        if box.width <= room or columns == 1:
            break
    # A key wider than its panel would make the layout shrink the panel to nothing: only its height is reserved.
    legend.set_in_layout(False)
    _reserve(ax, box.height / ax.figure.dpi * 72 + _GAP)


def _room(ax: Axes) -> float:
    """Return about how wide, in pixels, a panel is once its labels have their place."""
    place = ax.get_subplotspec()
    if place is None:
        return float(ax.bbox.width)
    widths = np.array(place.get_gridspec().get_width_ratios(), dtype=float)
    share = widths[list(place.colspan)].sum() / widths.sum()
    beside = [text.get_window_extent().x1 - ax.bbox.x1 for text in ax.texts]
    return float(share * ax.figure.bbox.width - _LABELS * ax.figure.dpi / 72 - max([0.0, *beside]))


def _reserve(ax: Axes, height: float) -> None:
    """Keep so many points free above a panel."""
    where = {"xycoords": "axes fraction", "textcoords": "offset points"}
    ax.annotate(" ", (0.5, 1), xytext=(0, height), fontsize=1, va="bottom", **where)


def caption(ax: Axes, text: str) -> None:
    """Say in one line above the panel what holds for all of it."""
    if text:
        size = ax.xaxis.label.get_fontsize() - 0.5
        where = {"xycoords": "axes fraction", "textcoords": "offset points"}
        ax.annotate(text, (0, 1), xytext=(0, 3), ha="left", va="bottom", fontsize=size, **where)


def label_ends(ax: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Name lines where they leave the panel on the right, pushed apart where they would touch.

    Parameters
    ----------
    ax : Axes
        With its limits set.
    ends : sequence of (height, text, color)
        Height of the line at the right edge, in data.
    """
    if not ends:
        return
    font = ax.xaxis.label.get_fontsize()
    points = ax.bbox.height / ax.figure.dpi * 72
    heights = ax.transAxes.inverted().transform(
        ax.transData.transform([(ax.get_xlim()[1], height) for height, *_ in ends])
    )[:, 1]
    places = spread(np.clip(heights, 0.0, 1.0), 1.3 * font / points)
    for place, (_, text, color) in zip(places, ends, strict=True):
        ax.annotate(
            text,
            (1, place),
            xytext=(3, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            color=color,
            va="center",
            ha="left",
            fontsize=ax.xaxis.label.get_fontsize() - 0.5,
            annotation_clip=False,
        )


def spread(places: np.ndarray, gap: float) -> np.ndarray:
    """Move places apart until none is nearer to another than the gap, each as little as the rest allows.

    Examples
    --------
    >>> spread(np.array([0.5, 0.5, 0.9]), 0.2).round(2).tolist()
    [0.4, 0.6, 0.9]
    """
    from scipy.optimize import isotonic_regression

    order = np.argsort(places, kind="stable")
    steps = np.arange(len(places)) * gap
    moved = np.empty(len(places))
    moved[order] = isotonic_regression(places[order] - steps).x + steps  # with the gaps taken out, only order is asked
    return moved
