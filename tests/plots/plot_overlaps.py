"""What is written in a figure, and which of it overlaps."""

from __future__ import annotations

import itertools

from matplotlib.figure import Figure
from matplotlib.text import Text


def texts(fig: Figure) -> list[Text]:
    """Return the texts that are seen: written, switched on and, for tick labels, within the axis."""
    fig.draw_without_rendering()
    off = set()
    for ax in fig.axes:
        for axis in (ax.xaxis, ax.yaxis):
            shown = {id(tick) for tick in axis._update_ticks()}
            for tick in (*axis.majorTicks, *axis.minorTicks):
                if id(tick) not in shown:
                    off |= {id(tick.label1), id(tick.label2)}
    return [t for t in fig.findobj(Text) if t.get_visible() and t.get_text().strip() and id(t) not in off]


def overlaps(fig: Figure, slack: float = 0.5) -> list[tuple[str, str]]:
    """Return pairs of texts that share more than half a point, and texts that leave the figure."""
    found = texts(fig)
    points = fig.dpi / 72
    boxes = [t.get_window_extent() for t in found]
    clashes = []
    for (a, one), (b, other) in itertools.combinations(zip(found, boxes, strict=True), 2):
        wide = min(one.x1, other.x1) - max(one.x0, other.x0)
        tall = min(one.y1, other.y1) - max(one.y0, other.y0)
        if wide > slack * points and tall > slack * points:
            clashes.append((a.get_text(), b.get_text()))
    for t, box in zip(found, boxes, strict=True):
        if min(box.x0, box.y0) < -slack * points or box.x1 > fig.bbox.x1 + slack * points or box.y1 > fig.bbox.y1 + 1:
            clashes.append((t.get_text(), "the edge of the figure"))
    return clashes
