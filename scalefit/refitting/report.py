"""Results as web pages: self-contained, nothing loaded from anywhere, every text from data escaped."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from scalefit._values import Note
from scalefit._version import __version__
from scalefit.display import Shown, to_html
from scalefit.refitting.figures import inline
from scalefit.refitting.records import Record
from scalefit.refitting.refit_result import printable
from scalefit.refitting.settings import Order
from scalefit.refitting.study import Study
from scalefit.selection.choose_law import Choice
from scalefit.vocabulary import format_error

_FRONT = ("name", "status", "n_runs", "n_cells", "n_cautions", "remark")
_TITLES = {"n_runs": "runs", "n_cells": "cells", "n_cautions": "cautions", "remark": "what moved or failed"}
_LAWS = ("lr", "batch", "loss", "B_crit")
_BESIDE = " stderr"


@dataclass(frozen=True)
class _Cell:
    """One cell of the index: what it shows, the number it is sorted by if that does not sort, and what it points to."""

    text: str
    key: str | None = None
    kind: str = ""
    href: str = ""
    title: str = ""


def write_report(
    study: Study,
    record: Record,
    order: Order,
    *,
    figures: Mapping[str, str],
    tables: Iterable[str],
    notes: Iterable[Note] = (),
) -> str:
    """Return the page of one sweep.

    Parameters
    ----------
    study : Study
    record : Record
    order : Order
    figures : mapping of str to str
        SVG by name; those named after a section (``"laws"``, ``"laws-lr"``) stand in it.
    tables : iterable of str
        Files beside the report.
    notes : iterable of Note
        Remarks beside those of the study.
    """
    results: dict[str, tuple[str, tuple[Shown | None, ...]]] = {
        "sweep": ("Runs", (study.sweep,)),
        "laws": ("Laws", (*_chosen(study.lr_law), *_chosen(study.batch_law), study.loss_law)),
        "prediction": ("Held-out runs", (study.backtest,)),
        "tradeoff": ("Steps against examples", (study.tradeoff, study.critical_law)),
        "surface": ("All runs at once", (study.surface,)),
        "optima": ("Optima", (study.optima,)),
        "draws": ("Bootstrap", (study.lr_draws, study.batch_draws)),
    }
    told: set[Note] = set(study.gaps)
    sections = [
        {
            "title": title,
            "faces": [_once(result, told) for result in shown if result is not None],
            "figures": [Markup(inline(svg, name)) for name, svg in figures.items() if name.partition("-")[0] == key],
        }
        for key, (title, shown) in results.items()
    ]
    return (
        _environment()
        .get_template("report.html")
        .render(
            record=replace(record, relative=printable(record.relative)),
            sections=[section for section in sections if section["faces"] or section["figures"]],
            untold=[note for note in (*study.notes, *notes) if note not in told],
            gaps=[gap.text for gap in study.gaps],
            drift=record.drift,
            command=_command(order),
            settings=order.settings_text,
            settings_source=order.settings_source,
            tables=[name for name in tables if name.endswith(".csv")],
            version=record.version,
        )
    )


def _chosen(choice: Choice | None) -> tuple[Shown, ...]:
    return () if choice is None else (choice, choice.fit)


def _once(result: Shown, told: set[Note]) -> Markup:
    """Lay a result out, without the notes that stand above it on the page already."""
    face = result._face()
    new = tuple(note for note in face.notes if note not in told)
    told.update(new)
    return Markup(to_html(replace(face, notes=new)))


def _command(order: Order) -> str:
    """Return what to type to get this report again."""
    words = ["scalefit", "refit", shlex.quote(printable(order.source.path)), "--out", "results"]
    words += ["--config", "scalefit.toml"] if order.settings_text else []
    return " ".join(words if order.figures else [*words, "--no-figures"])


def write_index(table: pd.DataFrame) -> str:
    """Return the page over all sweeps from their summary."""
    numbers = [name for name in table.columns if f"{name}{_BESIDE}" in table.columns]
    shown = [*_FRONT, *_by_law(numbers, list(table.columns))]
    columns = [{"title": _TITLES.get(name, name), "number": name in numbers or name[:2] == "n_"} for name in shown]
    rows = [_row(record, shown, numbers) for record in table.to_dict("records")]
    counts = table["status"].value_counts()
    told = [f"{counts.get(status, 0)} {word}" for status, word in (("ok", "done"), ("failed", "failed"))]
    told += [f"{counts['gone']} whose file is gone"] if "gone" in counts else []
    told.append(f"{int((table['moved'] != '').sum())} moved since the refit before")
    page = _environment().get_template("index.html")
    return page.render(columns=columns, rows=rows, counts=", ".join(told), version=__version__)


def _by_law(numbers: list[str], columns: list[str]) -> list[str]:
    """Return the columns of numbers law by law, each after the column with its formula."""
    groups: dict[str, list[str]] = {law: [] for law in _LAWS}
    for name in numbers:
        groups.setdefault(name.partition(":")[0], []).append(name)
    return [name for law, own in groups.items() for name in (f"{law}: law", *own) if name in columns]


def _row(record: Mapping[Any, Any], shown: list[str], numbers: list[str]) -> dict[str, object]:
    cells = [_cell(name, record, name in numbers) for name in shown]
    return {"cells": cells, "status": record["status"], "moved": bool(record["moved"])}


def _cell(name: str, record: Mapping[Any, Any], number: bool) -> _Cell:
    if name == "remark":
        return _Cell("; ".join(text for text in (record["error"], record["moved"]) if text), kind="text")
    value = record[name]
    if value is None or value is pd.NA or value != value:
        return _Cell("", "" if number or name[:2] == "n_" else None)
    if number:
        return _Cell(format_error(value, record[f"{name}{_BESIDE}"]), _key(float(value)), "number")
    if name[:2] == "n_":
        return _Cell(str(value), str(value), "number")
    if name == "name":
        return _Cell(str(value), kind="name", href=record["report"], title=record["source"])
    return _Cell(str(value), kind="law" if name.endswith(": law") else "")


def _key(value: float) -> str:
    """Return a number as JavaScript reads it."""
    return repr(value).replace("inf", "Infinity")


@cache
def _environment() -> Environment:
    loader = PackageLoader("scalefit.refitting")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
