"""Delimited text to raw tables: one kind of separator, one header, and rows that all fit it."""

from __future__ import annotations

import io
import re
from typing import Any

import pandas as pd

from scalefit.errors import SweepError
from scalefit.loaders import limits
from scalefit.loaders.parsing import refuse_repeats, strictly
from scalefit.notes import Note

_SEPARATORS = {",": "comma", "\t": "tab", ";": "semicolon"}
_QUOTED = re.compile(rb'"[^"]*"')
_CONTENT = re.compile(rb"[^\r\n\t ;,]")
_HEADER = re.compile(rb'(?:[^\r\n"]+|"[^"]*(?:"|\Z))*')  # a name in quotes may hold a line break
_RAGGED = re.compile(r"Expected (\d+) fields in line (\d+), saw (\d+)")
_UNCLOSED = re.compile(r"EOF inside string starting at row (\d+)")
_OLD = tuple(int(part) for part in pd.__version__.split(".")[:2]) < (3, 1)
_EXACT: dict[str, Any] = {"float_precision": "round_trip"} if _OLD else {}  # newer parsers always read to the last bit


def read_delimited(text: bytes, name: str) -> tuple[pd.DataFrame, list[Note]]:
    """Read comma-, tab- or semicolon-separated text; its header must hold only one kind of separator.

    Raises
    ------
    SweepError
        If the header is ambiguous or repeats a name, a row does not fit it, or the table is too large.
    """
    mark = _separator(text, name)
    with strictly(name, f"{_SEPARATORS[mark]}-separated text"):
        frame = _parse(text, mark, name)
    notes = []
    if mark != "," and not name.lower().removesuffix(".gz").endswith((".tsv", ".tab")):
        notes.append(Note("separator", f"{name} was read as {_SEPARATORS[mark]}-separated"))
    return frame, notes


def _separator(text: bytes, name: str) -> str:
    """Return the separator of the header, after checking that the table it promises fits into memory."""
    first = _CONTENT.search(text)
    if first is None:
        raise SweepError(f"{name} has no header")
    start = max(text.rfind(b"\n", 0, first.start()), text.rfind(b"\r", 0, first.start())) + 1
    header = _HEADER.match(text, start)
    end = header.end() if header else start
    line = _QUOTED.sub(b"", text[start:end]).decode("utf-8")
    found = [mark for mark in _SEPARATORS if mark in line]
    if len(found) > 1:
        words = " and ".join(_SEPARATORS[mark] for mark in found)
        raise SweepError(f"the header of {name} holds {words}: the separator is not clear; save it with commas")
    mark = found[0] if found else ","
    before = text.count(mark.encode(), 0, start)  # lines of separators alone, which the parser takes for a header
    breaks = text.count(b"\n", end) + text.count(b"\r", end) - text.count(b"\r\n", end)
    rows = breaks - text.endswith((b"\n", b"\r"))
    limits.check_cells(rows, max(line.count(mark), before) + 1, name)
    limits.check_marks(text.count(mark.encode()), name, limits.MAX_CELLS, f"{_SEPARATORS[mark]}s")
    return mark


def _parse(text: bytes, mark: str, name: str) -> pd.DataFrame:
    """Read the header, then the rows.

    pandas cuts the rows silently, but for a warning, when the first of them is longer than the header; so this row is
    looked at beforehand, and one more column is read where every row ends in a separator.
    """
    header = _read(text, mark, name, header=None, nrows=1, dtype=str, keep_default_na=False)
    names = [str(value).strip() for value in header.iloc[0]]
    refuse_repeats(names, name)
    width = len(names)
    spare = _has_spare(text, mark, name, width)
    wide = range(width + spare)
    frame = _read(text, mark, name, header=0, names=wide, index_col=False, low_memory=False, **_EXACT)
    if spare and (filled := frame[width].notna().to_numpy()).any():
        row = int(filled.argmax()) + 1
        raise SweepError(_ragged(name, mark, f"row {row}", width, width + 1))
    return frame.iloc[:, :width].set_axis(pd.Index(names, dtype=object), axis=1)


def _has_spare(text: bytes, mark: str, name: str, width: int) -> bool:
    """Tell whether the first row has one value more than the header."""
    try:
        pd.read_csv(io.BytesIO(text), sep=mark, encoding="utf-8", header=None, nrows=2, dtype=str)
    except pd.errors.ParserError as error:
        found = _RAGGED.search(str(error))
        if found is None or int(found[3]) != width + 1:
            raise SweepError(_in_words(error, mark, name)) from None
        return True
    return False


def _read(text: bytes, mark: str, name: str, **options: Any) -> pd.DataFrame:
    try:
        return pd.read_csv(io.BytesIO(text), sep=mark, encoding="utf-8", skip_blank_lines=True, **options)
    except pd.errors.ParserError as error:
        raise SweepError(_in_words(error, mark, name)) from None


def _in_words(error: Exception, mark: str, name: str) -> str:
    """Say what does not fit, in place of the parser's own terms."""
    if found := _RAGGED.search(str(error)):
        return _ragged(name, mark, f"line {found[2]}", int(found[1]), int(found[3]))
    if found := _UNCLOSED.search(str(error)):
        where = f"line {int(found[1]) + 1} of {name}"
        return f"{where} opens a double quote that is never closed; close it, or was the file cut short?"
    return f"{name} cannot be read as {_SEPARATORS[mark]}-separated text: {' '.join(str(error).split())[:200]}"


def _ragged(name: str, mark: str, where: str, expected: int, found: int) -> str:
    word = _SEPARATORS[mark]
    return (
        f"{where} of {name} has {found} values, expected {expected} as in its header; complete the header, "
        f"or put a text that holds a {word} in double quotes"
    )
