"""The page and the figures of one sweep: self-contained, reproducible byte for byte, with all texts escaped."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from markupsafe import Markup

from scalefit._values import Note
from scalefit._version import __version__
from scalefit.display import Displayable, to_html
from scalefit.errors import ScalefitError
from scalefit.refitting.output_folder import Record
from scalefit.refitting.settings import Analysis, Reading
from scalefit.refitting.study import Study
from scalefit.refitting.summary import printable, render
from scalefit.selection.choose_law import Choice
from scalefit.sweep import Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Pictures = dict[str, dict[str, bytes]]
Drawing = Callable[..., "Axes"]

_CELLS = 6  # basins in one picture
_PAD = 0.02  # inches of margin around a panel

_SAME_BYTES = {
    "svg.hashsalt": "scalefit",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "savefig.dpi": 72,
    "figure.constrained_layout.use": False,
}

_PLACE = re.compile(r'(\bid="|xlink:href="#|url\(#)')
_BEFORE = re.compile(r"\A.*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>|<!--.*?-->\s*", re.DOTALL)


def write_report(
    study: Study,
    record: Record,
    *,
    settings: str,
    settings_source: str,
    pictures: Pictures | None,
    tables: Iterable[str],
    notes: Iterable[Note] = (),
) -> str:
    """Return the page of one sweep; a picture stands in the section that its name begins with."""
    results: dict[str, tuple[str, tuple[Displayable | None, ...]]] = {
        "sweep": ("Runs", (study.sweep,)),
        "laws": ("Laws", (*_chosen(study.lr_law), *_chosen(study.batch_law), study.loss_law)),
        "prediction": ("Held-out runs", (study.backtest,)),
        "tradeoff": ("Steps against examples", (study.tradeoff, study.critical_law)),
        "surface": ("All runs at once", (study.surface,)),
        "optima": ("Optima", (study.optima,)),
        "draws": ("Bootstrap", (study.lr_draws, study.batch_draws)),
    }
    shown_notes: set[Note] = set(study.gaps)
    sections = [
        {
            "title": title,
            "displays": [_once(result, shown_notes) for result in parts if result is not None],
            "figures": [
                Markup(inline(kinds["svg"].decode(), name))
                for name, kinds in (pictures or {}).items()
                if name.partition("-")[0] == key
            ],
        }
        for key, (title, parts) in results.items()
    ]
    command = ["scalefit", "refit", shlex.quote(printable(record.source)), "--out", "results"]
    command += ["--config", "scalefit.toml"] if settings else []
    command += ["--no-figures"] if pictures is None else []
    return render(
        "report.html",
        record=msgspec.structs.replace(record, relative=printable(record.relative)),
        sections=[section for section in sections if section["displays"] or section["figures"]],
        other_notes=[note for note in (*study.notes, *notes) if note not in shown_notes],
        gaps=[gap.text for gap in study.gaps],
        drift=record.drift,
        command=" ".join(command),
        settings=settings,
        settings_source=settings_source,
        tables=tables,
        version=record.version,
    )


def to_toml(reading: Reading, analysis: Analysis) -> str:
    """Return the settings that differ from the defaults as a `scalefit.toml`.

    Examples
    --------
    >>> print(to_toml(Reading(batch_unit="sequences"), Analysis(draws=100)))
    [read]
    batch_unit = "sequences"
    [fit]
    draws = 100
    """
    lines = []
    for title, chosen in (("read", reading), ("fit", analysis)):
        usual = type(chosen)()
        values = {entry.name: getattr(chosen, entry.name) for entry in fields(chosen)}
        own = [f"{name} = {_toml(value)}" for name, value in values.items() if value != getattr(usual, name)]
        lines += [f"[{title}]", *own] if own else []
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name} = {_toml(entry)}' for name, entry in value.items())}}}"
    if value is None:
        return "false"
    return json.dumps(value, ensure_ascii=False)


def _chosen(choice: Choice | None) -> tuple[Displayable, ...]:
    return () if choice is None else (choice, choice.fit)


def _once(result: Displayable, shown_notes: set[Note]) -> Markup:
    """Lay a result out, without notes that the page has shown already."""
    display = result._display()
    new = tuple(note for note in display.notes if note not in shown_notes)
    shown_notes.update(new)
    return Markup(to_html(replace(display, notes=new)))


def draw(study: Study) -> tuple[Pictures, list[Note]]:
    """Return pictures by name, as "pdf" and "svg", and notes on what could not be drawn; without pyplot."""
    from matplotlib import rc_context, rcdefaults, rcParams

    from scalefit import plots

    pictures: Pictures = {}
    notes: list[Note] = []
    with rc_context():
        rcdefaults()  # independent of the settings of the caller's session
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
    from scalefit import plots  # loads matplotlib, so only where something is drawn

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
    # Show the runs of the largest cells, from which the laws extrapolate.
    if (surface := study.surface) is not None and surface.batch_fit is not None and surface.floor_fit is not None:
        last = surface.cells.sort_values(["params", "tokens"]).iloc[-1]
        params, tokens = float(last["params"]), float(last["tokens"])
        yield "surface-largest", partial(plots.surface, surface, study.sweep, params=params, tokens=tokens)
    if (optima := study.optima) is not None and optima.over == ("lr",):
        yield "optima-largest", partial(plots.basins, _largest(study.sweep, optima.by), optima)


def _largest(sweep: Sweep, by: tuple[str, ...]) -> Sweep:
    """Return the largest cells, as many as one panel can show distinctly."""
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

    maker = f"scalefit {__version__}"
    metadata: dict[str, dict[str, Any]] = {
        "pdf": {"Creator": maker, "Producer": maker, "CreationDate": None},
        "svg": {"Creator": [maker], "Date": None},
    }
    # An engine of its own would lay the figure out again in every drawing; the canvas measures text as the files do.
    with rc_context(_SAME_BYTES):
        figure = Figure(dpi=72)
        FigureCanvasSVG(figure)
        drawing(ax=figure.subplots())
        ConstrainedLayoutEngine(h_pad=_PAD, w_pad=_PAD).execute(figure)
        files = {}
        for kind, own in metadata.items():
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, metadata=own)
            files[kind] = buffer.getvalue()
    return files
