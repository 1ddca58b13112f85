"""Points and bounds: a point is a filled mark, a bound an open one with an arrow to where the truth lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scalefit.plots.palette import Look, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
