"""What pictures look like, sizes and fonts by venue, and figures as files that say which fit they show."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context, rcParams
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from scalefit._version import __version__
from scalefit.errors import ScalefitError
from scalefit.fitting.fit_result import Fit
from scalefit.surface.surface import Surface
from scalefit.sweep import Sweep

GOLDEN = 0.618
"""Height of a panel over its width."""

BAND = 0.16
"""Opacity of a band of uncertainty."""


@dataclass(frozen=True)
class Look:
    """How one role is drawn: its hex colour, the marker of its points, the line style of its curves."""

    color: str
    marker: str = "o"
    dash: Any = "-"
    hollow: bool = False  # open markers

    def points(self, **more: Any) -> dict[str, Any]:
        """Return the arguments of Axes.plot for points of this role."""
        face = "white" if self.hollow else self.color
        look = {"color": self.color, "marker": self.marker, "linestyle": "none", "markerfacecolor": face, "zorder": 4}
        return look | more

    def band(self, alpha: float = BAND) -> dict[str, Any]:
        """Return the arguments of Axes.fill_between, and of a patch in the key, for the uncertainty of this role."""
        return {"color": self.color, "alpha": alpha, "linewidth": 0}

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

DOTTED = (0, (1, 1.6))
"""Line style of guides."""

MARKERS = ("o", "s", "D", "v", "P", "h", "<", "p")
_DASHED = ((5, 1.6), (1.2, 1.2), (5, 1.4, 1.2, 1.4), (8, 2), (3, 1, 1, 1, 1, 1), (2.4, 1.2), (9, 2, 2, 2))
DASHES: tuple[Any, ...] = ("-", *((0, dashes) for dashes in _DASHED))


def size(factor: float) -> float:
    """Return a marker size relative to that of points in the style in force."""
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
    shades = [to_hex(color) for color in colormaps["viridis"](np.linspace(0.02, 0.8, max(n, 2)))[:n]]
    return [Look(shade, MARKERS[j % len(MARKERS)], DASHES[j % len(DASHES)]) for j, shade in enumerate(shades)]


_AWAY = 5.5
"""Points between the middle of a mark and that of its arrow."""


def draw_marks(ax: Axes, x: Any, y: Any, look: Look, side: Any = None) -> None:
    """Draw points, and bounds among them: the truth lies at a mark (side 0), below it (-1) or above it (+1)."""
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


VENUES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"icml": (3.25, 6.75), "neurips": (5.5, 5.5), "iclr": (5.5, 5.5), "jmlr": (6.0, 6.0), "tmlr": (6.5, 6.5)}
)
"""Widths of a column and of the text, in inches, the same where there is one column. As the style files set them:
icml2025.sty checks for a text width of 487.8225 pt with columns 0.25 in apart."""

_GUTTER = 0.25
"""Inches between two figures side by side in one column."""

_TALLEST = 2.9
"""Inches; a single picture as wide as a page need not be as tall as the golden section makes it."""

_SETTINGS: tuple[tuple[Any, str], ...] = (
    ("STIXGeneral", "font.family"),
    ("stix", "mathtext.fontset"),
    (8.0, "font.size axes.labelsize axes.titlesize figure.labelsize figure.titlesize"),
    (7.5, "xtick.labelsize ytick.labelsize legend.fontsize legend.title_fontsize"),
    (0.6, "axes.linewidth xtick.major.width ytick.major.width"),
    (0.45, "xtick.minor.width ytick.minor.width"),
    (2.6, "xtick.major.size ytick.major.size"),
    (1.5, "xtick.minor.size ytick.minor.size"),
    (2.2, "xtick.major.pad ytick.major.pad"),
    (2.5, "axes.labelpad"),
    (1.1, "lines.linewidth"),
    (3.4, "lines.markersize"),
    (0.8, "lines.markeredgewidth"),
    (True, "figure.constrained_layout.use"),
    (0.02, "figure.constrained_layout.h_pad figure.constrained_layout.w_pad"),
    (False, "axes.spines.top axes.spines.right text.usetex"),
    (150.0, "figure.dpi"),
    (300.0, "savefig.dpi"),
    (None, "savefig.bbox"),
    ("white", "figure.facecolor axes.facecolor"),
    (42, "pdf.fonttype ps.fonttype"),
    ("path", "svg.fonttype"),
)
"""Values, each with the settings of matplotlib that have it. The fonts come with matplotlib, so that a figure looks the
same everywhere; none is smaller than 7 pt."""


class Style(dict[str, Any]):
    """Matplotlib settings that hold inside a ``with`` block; also a dict, for `matplotlib.rcParams.update`."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self._held: list[Any] = []  # a stack, because a style may be entered again inside itself

    def __enter__(self) -> Style:
        """Put the settings in force."""
        self._held.append(rc_context(self))
        self._held[-1].__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """Put back what was in force before."""
        self._held.pop().__exit__(*error)


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
    >>> import scalefit as sf
    >>> sf.plots.style("paper", venue="icml", width="double")["figure.figsize"]
    (6.75, 2.9)
    >>> sf.plots.style("paper", venue="neurips", width="half")["figure.figsize"][0]
    2.625

    See Also
    --------
    figure_grid : panels of this size
    savefig : the file for the paper
    """
    if name != "paper":
        raise ScalefitError(f"style: there is 'paper', found {name!r}")
    inches = _inches(width, venue)
    tall = min(GOLDEN * inches, _TALLEST) if height is None else float(height)
    if not tall > 0:
        raise ScalefitError(f"height: expected inches above 0, found {height!r}")
    settings = {name: value for value, names in _SETTINGS for name in names.split()}
    return Style({**settings, "figure.figsize": (inches, round(tall, 3))})


def _inches(width: str | float, venue: str) -> float:
    if venue not in VENUES:
        raise ScalefitError(f"venue: expected one of {', '.join(VENUES)}, found {venue!r}; or give width in inches")
    column, text = VENUES[venue]
    named = {"single": column, "double": text, "half": (text - _GUTTER) / 2}
    if isinstance(width, str):
        if width not in named:
            raise ScalefitError(f"width: expected single, double, half or inches, found {width!r}")
        return named[width]
    if not width > 0:
        raise ScalefitError(f"width: expected inches above 0, found {width!r}")
    return float(width)


_STILL = {"svg.hashsalt": "scalefit", "pdf.fonttype": 42, "svg.fonttype": "path", "savefig.bbox": None}
"""Settings under which the same figure is the same file."""


def fingerprint(*shown: Fit | Surface | Sweep) -> str:
    """Return what a figure rests on as one line: a SHA-256 for every fit and sweep.

    That of a fit is the SHA-256 of its JSON: ``fit.to_json("fit.json")`` writes a file with this checksum.

    Parameters
    ----------
    *shown : Fit, Surface or Sweep
        What the figure shows.

    Returns
    -------
    str
        Empty for nothing.

    Raises
    ------
    ScalefitError
        If something else is given.

    Examples
    --------
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> table = pd.DataFrame({"params": [1e7, 1e8, 1e9, 1e10], "loss": [4.0, 3.2, 2.56, 2.05]})
    >>> text = sf.plots.fingerprint(sf.fit("L = c * N**a", table))
    >>> text[:11], len(text)
    ('fit sha256=', 75)

    See Also
    --------
    savefig : writes this line into a file
    """
    return "; ".join(line for item in shown for line in _lines(item))


def _lines(item: Fit | Surface | Sweep) -> list[str]:
    if isinstance(item, Fit):
        return [f"fit sha256={hashlib.sha256(item.to_json().encode()).hexdigest()}"]
    if isinstance(item, Surface):
        fits = [fit for fit in (item.lr_fit, item.batch_fit, item.floor_fit) if fit is not None]
        return [line for fit in fits for line in _lines(fit)]
    if isinstance(item, Sweep):
        return [f"sweep sha256={item.fingerprint}"]
    raise ScalefitError(f"a figure can name a Fit, a Surface or a Sweep, found {type(item).__name__}")


def savefig(
    figure: Figure | Axes,
    path: str | Path,
    *,
    fit: Fit | Surface | Sweep | Sequence[Fit | Surface | Sweep] = (),
    **settings: Any,
) -> Path:
    """Write a figure to a file with the fit's hash and the package's version in its metadata.

    Parameters
    ----------
    figure : Figure or Axes
        The figure, or any axes in it.
    path : str or Path
        Ends in .pdf, .png or .svg.
    fit : Fit, Surface, Sweep, or several of them
        What the figure shows, see `fingerprint`.
    **settings
        For `matplotlib.figure.Figure.savefig`.

    Returns
    -------
    Path

    Raises
    ------
    ScalefitError
        If the path has another ending, or cannot be written.

    Notes
    -----
    No time is written, and the names of SVG elements do not change: the same figure is the same file, byte for byte.
    Fonts are embedded (TrueType in PDF, outlines in SVG), and the file is as wide as the figure: nothing is cropped.
    The metadata are the Subject of a PDF and the Description of a PNG or SVG.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import scalefit as sf
    >>> import tempfile
    >>> figure = Figure()
    >>> figure.subplots().plot([1, 2])  # doctest: +ELLIPSIS
    [<matplotlib.lines.Line2D object at ...>]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sf.plots.savefig(figure, Path(folder) / "line.pdf").name
    'line.pdf'

    See Also
    --------
    style : sizes and fonts of a paper
    fingerprint : what is written of a fit
    """
    target = Path(path)
    drawn = figure if hasattr(figure, "savefig") else getattr(figure, "figure", None)
    if drawn is None:
        raise ScalefitError(f"expected a figure or axes in one, found {type(figure).__name__}")
    shown = [fit] if isinstance(fit, Fit | Surface | Sweep) else list(fit)
    text, maker = fingerprint(*shown), f"scalefit {__version__}"
    metadata = {
        ".pdf": {"Creator": maker, "Subject": text, "CreationDate": None},
        ".png": {"Software": maker, "Description": text},
        ".svg": {"Creator": [maker], "Description": text, "Date": None},
    }
    kind = target.suffix.lower()
    if kind not in metadata:
        raise ScalefitError(f"{target}: expected a name ending in {', '.join(metadata)}")
    try:
        with rc_context(_STILL):
            drawn.savefig(target, metadata=metadata[kind], **settings)
    except OSError as error:
        raise ScalefitError(f"cannot write {target}: {error.strerror or error}") from error
    return target
