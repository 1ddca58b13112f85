"""Tables for spreadsheets: numbers in full, and no text that a spreadsheet would run as a formula."""

from __future__ import annotations

import csv

import pandas as pd

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
