"""What a refit did, and one table over all sweeps of an output folder: summary.csv, summary.parquet, index.html."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import msgspec
import pandas as pd

from scalefit._values import Note
from scalefit._version import __version__
from scalefit.display import Display, Displayable
from scalefit.refitting.discovery import FAILURES, INDEX, SUMMARY, SUMMARY_PARQUET
from scalefit.refitting.output_folder import REPORT, DamagedError, OutputFolder, Record, read_json, read_records
from scalefit.refitting.study import Finding
from scalefit.vocabulary import format_error

if TYPE_CHECKING:
    from jinja2 import Environment

_FRONT = ("name", "status", "n_runs", "n_cells", "n_cautions", "remark")
_TITLES = {"n_runs": "runs", "n_cells": "cells", "n_cautions": "cautions", "remark": "what moved or failed"}
_LAWS = ("lr", "batch", "loss", "B_crit")
_BESIDE = " stderr"


_SHOWN = 20
_LEADS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What spreadsheets take for the start of a formula, full-width forms included."""


def guarded_csv(table: pd.DataFrame) -> bytes:
    """Return a table as CSV in UTF-8; a text that could start a formula gets a leading apostrophe.

    Examples
    --------
    >>> guarded_csv(pd.DataFrame({"run": ["=1+1", "plain"], "loss": [-0.5, 2.25]})).decode().split()
    ['run,loss', "'=1+1,-0.5", 'plain,2.25']
    """
    safe = table.rename(columns=lambda name: _guarded(str(name)))
    texts = safe.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in safe.dtypes]]
    for name in texts:
        safe[name] = [_guarded(value) if isinstance(value, str) else value for value in safe[name]]
    whole = safe.to_csv(index=False, lineterminator="\n")
    if "\r" in whole:  # unquoted, a bare carriage return would start a new row
        whole = safe.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    return printable(whole).encode()


def printable(text: str) -> str:
    r"""Return text that can be encoded: bytes of a file name that are no text become escapes.

    Examples
    --------
    >>> print(printable("run-\udcff.csv"))
    run-\udcff.csv
    """
    return text.encode("utf-8", "backslashreplace").decode()


def on_a_line(text: str) -> str:
    r"""Return text that a terminal or a log shows as one line: control characters and the like as escapes.

    Examples
    --------
    >>> print(on_a_line("run\x1b[2J\n[1/1] ok"))
    run\x1b[2J\n[1/1] ok
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _guarded(text: str) -> str:
    return f"'{text}" if text.startswith(_LEADS) else text


@dataclass(frozen=True)
class Event:
    """The report that one file is done.

    Parameters
    ----------
    name : str
        Of its folder in the output.
    path : str
        Of the file.
    status : str
        "ok", "skipped" (up to date) or "failed".
    error : str
        Why it failed.
    moved : str
        Findings that moved since the results before.
    done, total : int
        How many files are done, of how many.

    See Also
    --------
    scalefit.refit : Calls `on_event` with these.

    Examples
    --------
    >>> import scalefit as sf
    >>> sf.refitting.Event("steplaw", "/data/steplaw.csv", "ok", "", done=1, total=2).status
    'ok'
    """

    name: str
    path: str
    status: str
    error: str
    done: int
    total: int
    moved: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Refit(Displayable):
    """What `refit` did.

    Attributes
    ----------
    out : Path
        Where the results are.
    events : tuple of Event
        One a file, in the order they were done.
    summary : pandas.DataFrame
        All sweeps of the output folder, as in `summary.csv`: one row each with every number found and what moved. The
        status is "ok", "failed", or "gone" where the file is no longer there.
    unreadable : tuple of (str, str)
        Folders that could not be searched, and results that cannot be read, and why.
    interrupted : bool
        Whether it was stopped; what was finished is kept.

    See Also
    --------
    scalefit.refit : Makes it.

    Examples
    --------
    >>> import tempfile
    >>> import scalefit as sf
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "empty.csv").touch()
    >>> done = sf.refit(folder, folder / "results", jobs=1)
    >>> done.exit_code, done.table["status"].tolist(), done.summary["name"].tolist()
    (1, ['failed'], ['empty'])
    """

    out: Path
    events: tuple[Event, ...]
    summary: pd.DataFrame = field(repr=False)
    unreadable: tuple[tuple[str, str], ...] = ()
    interrupted: bool = False

    @property
    def table(self) -> pd.DataFrame:
        """One row a file, by name: name, status, error, path."""
        rows = [(event.name, event.status, printable(event.error), printable(event.path)) for event in self.events]
        return pd.DataFrame(sorted(rows), columns=["name", "status", "error", "path"])

    @property
    def exit_code(self) -> int:
        """0 if all is up to date, 1 if some files or folders failed, 130 if interrupted."""
        failed = any(event.status == "failed" for event in self.events) or bool(self.unreadable)
        return 130 if self.interrupted else int(failed)

    def _display(self) -> Display:
        counts = Counter(event.status for event in self.events)
        known = {"ok": "refitted", "skipped": "up to date", "failed": "failed"}
        words = ", ".join(f"{counts[status]} {word}" for status, word in known.items() if counts[status])
        words = words or ("none finished" if self.interrupted else "none found")
        failed = self.table.query("status == 'failed'")[["name", "error"]]
        moved = self.summary.loc[self.summary["name"].isin([e.name for e in self.events if e.status == "ok"])]
        notes = [
            Note("moved", on_a_line(f"{name}: {text}"), caution=True)
            for name, text in zip(moved["name"], moved["moved"], strict=True)
            if text
        ][:_SHOWN]
        unread = [f"{folder}: {why}" for folder, why in self.unreadable]
        notes += [Note("unreadable", on_a_line(text), caution=True) for text in unread]
        if len(failed) > _SHOWN:
            notes.append(Note("shown", f"{len(failed) - _SHOWN} more failures in .table"))
        if self.interrupted:
            notes.append(Note("interrupted", "stopped before the end; run it again to do the rest", caution=True))
        facts = (("sweeps", words), ("results", str(self.out / "index.html")))
        return Display("Refit", facts, failed.head(_SHOWN) if len(failed) else None, tuple(notes))


class _Failure(TypedDict):
    name: str
    error: str


Failures = dict[str, _Failure]
"""Which files have no up-to-date result, by path. Kept in FAILURES, so that a refit of other files does not forget."""

_LARGEST = 100_000_000  # bytes of the file of failures, which has some hundreds for each failed file


def write_summary(folder: OutputFolder, events: Iterable[Event]) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Write the summary of the output folder, under its lock; return it and the unreadable records with reasons."""
    failures, forgotten = _update_failures(folder, events)
    records, unreadable = read_records(folder.out)
    table = summarize(records, failures, {record.source for record in records if _is_gone(record.source)})
    folder.put_file(SUMMARY, guarded_csv(table))
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    folder.put_file(SUMMARY_PARQUET, buffer.getvalue())
    folder.put_file(INDEX, write_index(table).encode())
    return table, forgotten + unreadable


def summarize(records: Iterable[Record], failures: Failures, gone: Collection[str] = ()) -> pd.DataFrame:
    """Return one row a sweep: where it came from, what was found, what moved, what went wrong.

    Columns: name, status ("ok"; "failed": then the numbers are those of the last version that could be refitted;
    "gone": the file is no longer there, and its last results stand), source, n_runs, n_cells, n_cautions, moved, error,
    report (its page, if there is one), then each finding and its standard error.
    """
    records = list(records)
    lost = failures.keys() - {record.source for record in records}
    rows = [_row(record, record.source, failures.get(record.source), record.source in gone) for record in records]
    rows += [_row(None, source, failures[source]) for source in lost]
    rows.sort(key=lambda row: (row["name"], row["source"]))
    first = ["name", "status", "source", "n_runs", "n_cells", "n_cautions", "moved", "error", "report"]
    others = sorted({key for row in rows for key in row} - set(first))
    table = pd.DataFrame(rows, columns=[*first, *others])
    return table.astype(dict.fromkeys(("n_runs", "n_cells", "n_cautions"), "Int64"))


def _row(record: Record | None, source: str, failure: _Failure | None, gone: bool = False) -> dict[str, Any]:
    row: dict[str, Any] = {"name": record.name if record else printable(failure["name"]) if failure else ""}
    row |= {"status": "failed" if failure else "gone" if gone else "ok", "source": printable(source)}
    row |= {count: getattr(record, count, None) for count in ("n_runs", "n_cells", "n_cautions")}
    row["moved"] = "; ".join(map(str, record.drift)) if record else ""
    row["error"] = printable(failure["error"]) if failure else ""
    row["report"] = f"{record.name}/{REPORT}" if record and REPORT in record.outputs else ""
    for finding in record.findings if record else ():
        if finding.law:
            row[f"{finding.quantity.partition(':')[0]}: law"] = finding.law
        name = _column(finding)
        row[name], row[f"{name} stderr"] = finding.value, finding.stderr
    return row


def _column(finding: Finding) -> str:
    """Return the column of a finding; "lr: law" is that of the formula, so a parameter called law gets another."""
    is_law = finding.quantity.partition(": ")[2] == "law"
    return f"{finding.quantity} (parameter)" if is_law else finding.quantity


def _is_gone(path: str) -> bool:
    """Return whether a file was deleted or moved; a file that cannot be reached may still exist."""
    try:
        os.lstat(path)
    except OSError as error:
        return isinstance(error, FileNotFoundError | NotADirectoryError)
    return False


def _update_failures(folder: OutputFolder, events: Iterable[Event]) -> tuple[Failures, list[tuple[str, str]]]:
    """Add files that failed and drop those that no longer fail; report it if the earlier list was unreadable."""
    place, events = folder.out / FAILURES, list(events)
    before: Failures = {}
    forgotten = []
    try:
        before = msgspec.convert(read_json(place, _LARGEST), dict[str, _Failure]) if os.path.lexists(place) else {}
    except OSError as error:
        forgotten.append(f"cannot read {place}: {error.strerror or error}")
    except DamagedError as error:
        forgotten.append(str(error))
    except msgspec.MsgspecError as error:
        forgotten.append(f"{place} should give a name and an error for each path: {error}")
    done = {event.path for event in events}
    failures = {path: entry for path, entry in before.items() if path not in done and os.path.lexists(path)}
    failures |= {event.path: {"name": event.name, "error": event.error} for event in events if event.status == "failed"}
    folder.put_file(FAILURES, (json.dumps(failures, indent=1, sort_keys=True) + "\n").encode())
    remedy = "it is written anew, without what failed before: refit those files to know"
    return failures, [(str(place), f"{why}; {remedy}") for why in forgotten]


@dataclass(frozen=True)
class _Cell:
    """One cell of the index: its text, the number it is sorted by if the text does not sort, and its link."""

    text: str
    key: str | None = None
    kind: str = ""
    href: str = ""
    title: str = ""


def write_index(table: pd.DataFrame) -> str:
    """Return the page over all sweeps from their summary."""
    numbers = [name for name in table.columns if f"{name}{_BESIDE}" in table.columns]
    shown = [*_FRONT, *_by_law(numbers, list(table.columns))]
    columns = [{"title": _TITLES.get(name, name), "number": name in numbers or name[:2] == "n_"} for name in shown]
    rows = [_index_row(record, shown, numbers) for record in table.to_dict("records")]
    counts = table["status"].value_counts()
    words = [f"{counts.get('ok', 0)} done", f"{counts.get('failed', 0)} failed"]
    words += [f"{counts['gone']} whose file is gone"] if "gone" in counts else []
    words.append(f"{int((table['moved'] != '').sum())} moved since the refit before")
    return render("index.html", columns=columns, rows=rows, counts=", ".join(words), version=__version__)


def _by_law(numbers: list[str], columns: list[str]) -> list[str]:
    """Return the columns of numbers law by law, each after the column with its formula."""
    groups: dict[str, list[str]] = {law: [] for law in _LAWS}
    for name in numbers:
        groups.setdefault(name.partition(":")[0], []).append(name)
    return [name for law, own in groups.items() for name in (f"{law}: law", *own) if name in columns]


def _index_row(record: Mapping[Any, Any], shown: list[str], numbers: list[str]) -> dict[str, object]:
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


def render(template: str, **values: Any) -> str:
    """Fill in a page; every text in it is escaped."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # a command starts without it

    loader = PackageLoader("scalefit.refitting")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
