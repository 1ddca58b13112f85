"""What each part of a picture looks like: one colour, marker and dash per role, told apart in colour and in grey."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np


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
