"""What a refit did, file by file, and tables that a spreadsheet can open safely."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from scalefit._values import Note
from scalefit.display import Face, Shown

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
    if "\r" in whole:  # a bare carriage return would start a new row, and cell, unless it is quoted
        whole = safe.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    return printable(whole).encode()


def printable(text: str) -> str:
    r"""Return text that every encoding of Unicode can write: bytes of a file name that are none as escapes.

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


_SHOWN = 20


@dataclass(frozen=True)
class Event:
    """One file is done.

    Parameters
    ----------
    name : str
        Of its folder in the output.
    path : str
    status : str
        "ok", "skipped" (up to date) or "failed".
    error : str
        Why it failed.
    moved : str
        What is not what it was before.
    done, total : int
        How many files are done, of how many.
    """

    name: str
    path: str
    status: str
    error: str
    done: int
    total: int
    moved: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Refit(Shown):
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

    def _face(self) -> Face:
        counts = Counter(event.status for event in self.events)
        words = {"ok": "refitted", "skipped": "up to date", "failed": "failed"}
        told = ", ".join(f"{counts[status]} {word}" for status, word in words.items() if counts[status])
        told = told or ("none finished" if self.interrupted else "none found")
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
        facts = (("sweeps", told), ("results", str(self.out / "index.html")))
        return Face("Refit", facts, failed.head(_SHOWN) if len(failed) else None, tuple(notes))
