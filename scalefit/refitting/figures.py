"""The figures of a study as PDF and SVG, the same bytes every time."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from scalefit._values import Note
from scalefit.errors import ScalefitError
from scalefit.refitting.study import Study
from scalefit.sweep import Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STILL = {
    "svg.hashsalt": "scalefit",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "savefig.dpi": 72,
    "figure.constrained_layout.use": False,
}
_ALONE = threading.Lock()

_CELLS = 6
"""Basins in one picture."""

_PAD = 0.02
"""Inches around a panel."""

Pictures = dict[str, dict[str, bytes]]
Drawing = Callable[..., "Axes"]

_PLACE = re.compile(r'(\bid="|xlink:href="#|url\(#)')
_BEFORE = re.compile(r"\A.*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>|<!--.*?-->\s*", re.DOTALL)


def draw(study: Study) -> tuple[Pictures, list[Note]]:
    """Draw what there is to draw.

    Returns
    -------
    pictures : dict of str to dict of str to bytes
        By name, then "pdf" and "svg". A name begins with the section of the report the picture belongs to.
    notes : list of Note
        What could not be drawn, and why.

    Notes
    -----
    Figures are made without pyplot, so nothing stays open. Matplotlib's settings belong to the whole process: one
    thread draws at a time. A picture that the results do not allow is left out and noted.
    """
    from matplotlib import rc_context, rcdefaults, rcParams

    from scalefit import plots

    pictures: Pictures = {}
    notes: list[Note] = []
    with _ALONE, rc_context():
        rcdefaults()  # whatever the caller's session has set
        rcParams.update(plots.style("paper", width="single"))
        for name, drawing in _drawings(study):
            try:
                pictures[name] = _render(drawing)
            except ScalefitError as error:
                notes.append(Note("not_drawn", f"no picture of {name}: {error}"))
    return pictures, notes


def inline(svg: str, prefix: str) -> str:
    """Return an SVG that can stand in a page with others: no prologue, and names that are its own.

    Examples
    --------
    >>> inline('<?xml version="1.0"?><svg><path id="a"/><use xlink:href="#a" clip-path="url(#a)"/></svg>', "law")
    '<svg><path id="law-a"/><use xlink:href="#law-a" clip-path="url(#law-a)"/></svg>'
    """
    return _PLACE.sub(rf"\g<1>{prefix}-", _METADATA.sub("", _BEFORE.sub("", svg)))


def _drawings(study: Study) -> Iterator[tuple[str, Drawing]]:
    from scalefit import plots

    for target, law in study.laws.items():
        if target == "B_crit":
            yield "tradeoff-law", partial(plots.bcrit, study.tradeoff, law, published=())
        elif law.law.inputs:
            yield f"laws-{target}", partial(plots.law, law)
    if (report := study.backtest) is not None:
        yield "prediction-backtest", partial(plots.backtest, report)
    if (trade := study.tradeoff) is not None:
        where = {"params": float(trade.table["params"].max())} if "params" in trade.table else {}
        yield "tradeoff-hyperbolas", partial(plots.tradeoff, trade, **where)
    yield from _drawings_of_runs(study)


def _drawings_of_runs(study: Study) -> Iterator[tuple[str, Drawing]]:
    """Yield the runs themselves where a law is going to be stretched from: the largest cells."""
    from scalefit import plots

    if (surface := study.surface) is not None and surface.batch_fit is not None and surface.floor_fit is not None:
        last = surface.cells.sort_values(["params", "tokens"]).iloc[-1]
        params, tokens = float(last["params"]), float(last["tokens"])
        yield "surface-largest", partial(plots.surface, surface, study.sweep, params=params, tokens=tokens)
    if (optima := study.optima) is not None and optima.over == ("lr",):
        yield "optima-largest", partial(plots.basins, _largest(study.sweep, optima.by), optima)


def _largest(sweep: Sweep, by: tuple[str, ...]) -> Sweep:
    """Return the largest cells, as many as one panel can tell apart."""
    for name in by:
        if len(sweep.group(by)[0]) <= _CELLS:
            break
        sweep = sweep.where(f"{name} >= {float(sweep.levels(name)[-1]) / (1 + sweep.rtol)!r}")
    return sweep


def _render(drawing: Drawing) -> dict[str, bytes]:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    from scalefit._version import __version__

    maker = f"scalefit {__version__}"
    metadata: dict[str, dict[str, Any]] = {
        "pdf": {"Creator": maker, "Producer": maker, "CreationDate": None},
        "svg": {"Creator": [maker], "Date": None},
    }
    # An engine of its own would lay the figure out again in every drawing; the canvas measures text as the files do.
    with rc_context(_STILL):
        figure = Figure(dpi=72)
        FigureCanvasSVG(figure)
        drawing(ax=figure.subplots())
        ConstrainedLayoutEngine(h_pad=_PAD, w_pad=_PAD).execute(figure)
        files = {}
        for kind, told in metadata.items():
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, metadata=told)
            files[kind] = buffer.getvalue()
    return files
