"""Axes to draw in, grids of panels, labels and keys that overlap nothing, and a check of the result to draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from scalefit.errors import ScalefitError
from scalefit.plots._style import GOLDEN
from scalefit.plots.scales import label_of, log_axis, round_steps, widen

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
    """Return a result of the kind that a picture shows; the error about another kind says how to get the right one."""
    if isinstance(given, kind):
        return given
    found, wanted = type(given).__name__, kind.__name__
    holds = _FITS_IN.get(found) if wanted == "Fit" else None
    advice = holds or f"one is made by {_COMES_FROM[wanted]}"
    raise ScalefitError(f"plots.{call} expected a {wanted}, found {found}; {advice}")


_GAP = 4.0
"""Points between a panel and its key, and above that."""

_LABELS = 42.0
"""Points that the label of the height axis, its ticks and the margin beside a panel take."""

_KEY: dict[str, Any] = {"frameon": False, "borderpad": 0.0, "borderaxespad": 0.3, "handlelength": 1.7}
_KEY |= {"handletextpad": 0.45, "columnspacing": 1.0, "labelspacing": 0.25}


def axes_of(ax: Axes | None) -> Axes:
    """Return the axes given, or those of a new figure of the size in force."""
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(layout="constrained")[1]


def panel(ax: Axes | None, x: str, y: str, unit: str, *, best: bool = False, linear: bool = False) -> Axes:
    """Return axes for two columns, both logarithmic unless the height is `linear`; `best` says it is an optimum."""
    ax = axes_of(ax)
    log_axis(ax, "x", x, unit)
    if linear:
        ax.yaxis.set_major_locator(round_steps())
        ax.set_ylabel(label_of(y, unit))
    else:
        log_axis(ax, "y", y, unit, best=best)
    return ax


def fit_height(ax: Axes, margin: float) -> None:
    """Limit the height to what points, lines and error bars need, however wide the bands."""
    heights = [np.asarray(line.get_ydata(), dtype=float) for line in ax.lines]
    bars = [drawn for drawn in ax.collections if isinstance(drawn, LineCollection)]
    heights += [np.asarray(segment)[:, 1] for bar in bars for segment in bar.get_segments() if len(segment)]
    ax.set_ylim(*widen(np.concatenate(heights), margin))


def note(
    ax: Axes, text: str, place: tuple[float, float], offset: tuple[float, float] = (0.0, 0.0), **settings: Any
) -> None:
    """Write a text a few points away from a place in the panel, a little smaller than the labels of the axes."""
    usual = {"xycoords": "axes fraction", "fontsize": ax.xaxis.label.get_fontsize() - 0.5}
    ax.annotate(text, place, xytext=offset, textcoords="offset points", **(usual | settings))


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
    >>> import scalefit as sf
    >>> fig, axes = sf.plots.figure_grid(1, 3, width=6.75)
    >>> axes.shape, [text.get_text() for text in axes[0, 2].texts]
    ((1, 3), ['c'])
    >>> from matplotlib import pyplot
    >>> pyplot.close(fig)

    See Also
    --------
    style : fonts and widths of a venue
    """
    from matplotlib import pyplot

    if rows < 1 or columns < 1:
        raise ScalefitError(f"a grid needs at least one row and one column, found {rows} x {columns}")
    wide = float(pyplot.rcParams["figure.figsize"][0] if width is None else width)
    tall = rows * (GOLDEN * wide / columns + 0.55) if height is None else height
    grid = {"figsize": (wide, tall), "layout": "constrained", "squeeze": False} | settings
    fig, axes = pyplot.subplots(rows, columns, **grid)
    if letters:
        for j, ax in enumerate(axes.flat):
            letter = chr(ord("a") + j % 26) * (j // 26 + 1)
            # above and to the left of the panel, where neither ticks nor a key reach
            font = ax.xaxis.label.get_fontsize() + 1
            note(ax, letter, (0, 1), (-30, 7), fontweight="bold", fontsize=font, ha="left", va="bottom")
    return fig, axes


def key(ax: Axes, entries: Sequence[tuple[Any, str]], title: str = "", *, side: str = "left") -> None:
    """Put a key of marks and lines above the panel, in rows as wide as the panel; without marks, only the title.

    A mark is a patch or the arguments of Axes.plot. The key is flush with the `side` of the panel, right or left: right
    for a panel whose tick labels are long.
    """
    entries = [(mark, text) for mark, text in entries if text]
    if not entries:
        return note(ax, title, (0, 1), (0, 3), ha="left", va="bottom") if title else None
    room = _room(ax)
    for rows in range(1, len(entries) + 1):
        columns = -(-len(entries) // rows)
        legend = ax.legend(
            [Line2D([], [], **mark) if isinstance(mark, dict) else mark for mark, _ in entries],
            [text for _, text in entries],
            title=title or None,
            alignment="left",
            loc=f"lower {side}",
            bbox_to_anchor=(-0.02 if side == "left" else 1.0, 1.0),
            ncols=columns,
            **_KEY,
        )
        box = legend.get_window_extent()
        if box.width <= room or columns == 1:
            break
    # A key wider than its panel would make the layout shrink the panel to nothing: only its height is reserved.
    legend.set_in_layout(False)
    note(ax, " ", (0.5, 1), (0, box.height / ax.figure.dpi * 72 + _GAP), fontsize=1, va="bottom")


def _room(ax: Axes) -> float:
    """Return about how wide, in pixels, a panel is once its labels have their place."""
    place = ax.get_subplotspec()
    if place is None:
        return float(ax.bbox.width)
    widths = np.array(place.get_gridspec().get_width_ratios(), dtype=float)
    share = widths[list(place.colspan)].sum() / widths.sum()
    beside = [text.get_window_extent().x1 - ax.bbox.x1 for text in ax.texts]
    return float(share * ax.figure.bbox.width - _LABELS * ax.figure.dpi / 72 - max([0.0, *beside]))


def label_ends(ax: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Name lines (height, text, colour) where they leave the panel, pushed apart where they would touch."""
    if not ends:
        return
    points = ax.bbox.height / ax.figure.dpi * 72
    edge = ax.transData.transform([(ax.get_xlim()[1], height) for height, *_ in ends])
    heights = ax.transAxes.inverted().transform(edge)[:, 1]
    places = spread(np.clip(heights, 0.0, 1.0), 1.3 * ax.xaxis.label.get_fontsize() / points)
    for place, (_, text, color) in zip(places, ends, strict=True):
        note(ax, text, (1, place), (3, 0), color=color, va="center", ha="left", annotation_clip=False)


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
    moved[order] = isotonic_regression(places[order] - steps).x + steps  # less the gaps, only the order matters
    return moved
