"""Styles for print: widths of the venues' columns, fonts that match their text, fonts embedded in the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any

from scalefit.errors import ScalefitError


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
