"""What pictures look like: colours and marks by role, sizes and fonts by venue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from scalefit.errors import ScalefitError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Look:
    """How one role is drawn.

    Parameters
    ----------
    color : str
        Hex colour.
    marker : str
        Marker of its points.
    dash : str or tuple
        Line style of its curves.
    hollow : bool
        Whether its markers are open.
    """

    color: str
    marker: str = "o"
    dash: Any = "-"
    hollow: bool = False

    def points(self, **more: Any) -> dict[str, Any]:
        """Return the arguments of Axes.plot for points of this role."""
        face = "white" if self.hollow else self.color
        look = {"color": self.color, "marker": self.marker, "linestyle": "none", "markerfacecolor": face, "zorder": 4}
        return look | more

    def line(self, **more: Any) -> dict[str, Any]:
        """Return the arguments of Axes.plot for a curve of this role."""
        return {"color": self.color, "linestyle": self.dash, "zorder": 3} | more


ROLES: Mapping[str, Look] = MappingProxyType(
    {
        "points": Look("#1a1a1a", "o"),
        "law": Look("#0b559f", "o", "-"),
        "diverged": Look("#c8372d", "x"),
        "published": Look("#9a7fb8", "^", (0, (5, 1.6))),
        "heldout": Look("#e8a317", "D", (0, (1, 1.2))),
    }
)
"""The same in every picture: what was fitted, what the law says, what failed, what others printed, what was kept back.

Lightness rises from the first to the last in steps of at least 9 (CIELAB), so they differ in print grey too.
"""

QUIET = "#6e6e6e"
"""For what only helps to read a picture: guides, neighbours' names, limits."""

BAND = 0.16
"""Opacity of a band of uncertainty."""

MARKERS = ("o", "s", "D", "v", "P", "h", "<", "p")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.6)),
    (0, (1.2, 1.2)),
    (0, (5, 1.4, 1.2, 1.4)),
    (0, (8, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (2.4, 1.2)),
    (0, (9, 2, 2, 2)),
)


def size(factor: float) -> float:
    """Return a marker size relative to that of points in the style in force."""
    from matplotlib import rcParams

    return factor * float(rcParams["lines.markersize"])


def star(color: str) -> dict[str, Any]:
    """Return the arguments of Axes.plot for the mark of what was found: an optimum, a fit, a critical batch."""
    edge = {"markeredgecolor": "white", "markeredgewidth": 0.5}
    return {"color": color, "marker": "*", "markersize": size(2.4), "linestyle": "none", "zorder": 6} | edge


def family(n: int) -> list[Look]:
    """Return the looks of n ordered lines, dark to light, each with its own marker and dash.

    Examples
    --------
    >>> [look.marker for look in family(3)]
    ['o', 's', 'D']
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    shades = [to_hex(color) for color in colormaps["viridis"](np.linspace(0.02, 0.8, max(n, 2)))[:n]]
    return [Look(shade, MARKERS[j % len(MARKERS)], DASHES[j % len(DASHES)]) for j, shade in enumerate(shades)]


_AWAY = 5.5
"""Points between the middle of a mark and that of its arrow."""


def draw_marks(ax: Axes, x: Any, y: Any, look: Look, side: Any = None) -> None:
    """Draw points, and bounds among them.

    Parameters
    ----------
    ax : Axes
    x, y : array_like (n,)
    look : Look
    side : array_like of int (n,), optional
        Where the truth lies: at the mark (0), at or below it (-1), at or above it (+1). None: all are points.
    """
    from matplotlib.transforms import ScaledTranslation

    across, up = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    where = np.zeros(len(across), dtype=int) if side is None else np.asarray(side)
    ax.plot(across[where == 0], up[where == 0], **look.points())
    if not (where != 0).any():
        return
    ax.plot(across[where != 0], up[where != 0], **look.points(markerfacecolor="white"))
    for sign, arrow in ((1, r"$\uparrow$"), (-1, r"$\downarrow$")):
        moved = ax.transData + ScaledTranslation(0, sign * _AWAY / 72, ax.figure.dpi_scale_trans)
        shown = where == sign
        ax.plot(across[shown], up[shown], **look.points(marker=arrow, markersize=size(1.6), transform=moved))


@dataclass(frozen=True)
class Venue:
    """The text block of a venue.

    Parameters
    ----------
    column : float
        Width of a column, inches; of the text where there is one column.
    text : float
        Width of the text, inches.
    """

    column: float
    text: float


VENUES: Mapping[str, Venue] = MappingProxyType(
    {
        "icml": Venue(3.25, 6.75),
        "neurips": Venue(5.5, 5.5),
        "iclr": Venue(5.5, 5.5),
        "jmlr": Venue(6.0, 6.0),
        "tmlr": Venue(6.5, 6.5),
    }
)
"""As their style files set them: icml2025.sty checks for a text width of 487.8225 pt with columns 0.25 in apart."""

_GUTTER = 0.25
"""Inches between two figures side by side in one column."""

_TALLEST = 2.9
"""Inches; a single picture as wide as a page need not be as tall as the golden section makes it."""

_GOLDEN = 0.618

_PRINT: Mapping[str, Any] = MappingProxyType(
    {
        "font.family": "STIXGeneral",
        "mathtext.fontset": "stix",
        "font.size": 8.0,
        "axes.labelsize": 8.0,
        "axes.titlesize": 8.0,
        "xtick.labelsize": 7.5,
        "ytick.labelsize": 7.5,
        "legend.fontsize": 7.5,
        "legend.title_fontsize": 7.5,
        "figure.labelsize": 8.0,
        "figure.titlesize": 8.0,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.labelpad": 2.5,
        "lines.linewidth": 1.1,
        "lines.markersize": 3.4,
        "lines.markeredgewidth": 0.8,
        "xtick.major.size": 2.6,
        "ytick.major.size": 2.6,
        "xtick.minor.size": 1.5,
        "ytick.minor.size": 1.5,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.minor.width": 0.45,
        "ytick.minor.width": 0.45,
        "xtick.major.pad": 2.2,
        "ytick.major.pad": 2.2,
        "figure.constrained_layout.use": True,
        "figure.constrained_layout.h_pad": 0.02,
        "figure.constrained_layout.w_pad": 0.02,
        "figure.dpi": 150.0,
        "savefig.dpi": 300.0,
        "savefig.bbox": None,
        "figure.facecolor": "white",
        "axes.facecolor": "white",
        "pdf.fonttype": 42,
        "ps.fonttype": 42,
        "svg.fonttype": "path",
        "text.usetex": False,
    }
)
"""Fonts that come with matplotlib, so that a figure looks the same everywhere; none smaller than 7 pt."""


class Style(dict[str, Any]):
    """Matplotlib settings that hold inside a ``with`` block; also a dict, for `matplotlib.rcParams.update`."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self._held: list[Any] = []

    def __enter__(self) -> Style:
        """Put the settings in force."""
        import matplotlib

        held = matplotlib.rc_context(self)
        held.__enter__()
        self._held.append(held)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put back what was in force before."""
        self._held.pop().__exit__(kind, error, trace)


def style(
    name: str = "paper", *, width: str | float = "single", venue: str = "icml", height: float | None = None
) -> Style:
    r"""Return the settings for figures of a paper.

    Parameters
    ----------
    name : {"paper"}
        The style.
    width : {"single", "double", "half"} or float
        One column, the whole text, or one of two figures side by side in the text; or inches. Where the text has one
        column, single and double are the same.
    venue : {"icml", "neurips", "iclr", "jmlr", "tmlr"}
        Whose columns.
    height : float, optional
        Inches; by default the golden section of the width, 2.9 at most.

    Returns
    -------
    Style
        Settings as a dict, and a context manager that puts them in force.

    Raises
    ------
    ScalefitError
        If there is no such style, venue or width.

    Notes
    -----
    The figure must go into the paper at its own size (``\includegraphics{figure.pdf}`` with no width), or its fonts no
    longer have the size they say. Text is set in STIX, which matches Times (ICML, NeurIPS, ICLR).

    Examples
    --------
    >>> style("paper", venue="icml", width="double")["figure.figsize"]
    (6.75, 2.9)
    >>> style("paper", venue="neurips", width="half")["figure.figsize"][0]
    2.625
    """
    if name != "paper":
        raise ScalefitError(f"style: there is 'paper', found {name!r}")
    inches = _inches(width, venue)
    tall = min(_GOLDEN * inches, _TALLEST) if height is None else float(height)
    if not tall > 0:
        raise ScalefitError(f"height: expected inches above 0, found {height!r}")
    return Style({**_PRINT, "figure.figsize": (inches, round(tall, 3))})


def _inches(width: str | float, venue: str) -> float:
    if venue not in VENUES:
        raise ScalefitError(f"venue: expected one of {', '.join(VENUES)}, found {venue!r}; or give width in inches")
    page = VENUES[venue]
    named = {"single": page.column, "double": page.text, "half": (page.text - _GUTTER) / 2}
    if isinstance(width, str):
        if width not in named:
            raise ScalefitError(f"width: expected single, double, half or inches, found {width!r}")
        return named[width]
    if not width > 0:
        raise ScalefitError(f"width: expected inches above 0, found {width!r}")
    return float(width)
