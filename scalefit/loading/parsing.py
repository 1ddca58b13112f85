"""What all formats have in common: limits checked before memory is taken, UTF-8, JSON, and lists of records."""

from __future__ import annotations

import codecs
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import pandas as pd

from scalefit._values import Note
from scalefit.errors import SweepError

MAX_COLUMNS = 10_000
"""The most columns a table of runs may have; each is looked at on its own."""

MAX_CELLS = 50_000_000
"""The most cells (rows x columns) of a table read from text: a million runs with fifty columns."""

MAX_VALUES = 20_000_000
"""The most values in a JSON file, each of which takes several times the memory of a number in a table."""

MAX_NAME = 1000
"""The longest name of a column that is put together from the names in nested objects."""

MAX_PARQUET = 1 << 30
"""The most bytes that a Parquet file may unpack to when it is read as a whole."""


def check_columns(count: int, name: str) -> None:
    """Refuse more columns than any table of runs has.

    Examples
    --------
    >>> check_columns(10**6, "wide.csv")
    Traceback (most recent call last):
    scalefit.errors.SweepError: wide.csv has 1000000 columns, expected at most 10000; is it written row by row?
    """
    if count > MAX_COLUMNS:
        raise SweepError(f"{name} has {count} columns, expected at most {MAX_COLUMNS}; is it written row by row?")


def check_cells(rows: int, columns: int, name: str) -> None:
    """Refuse a table that would not fit comfortably into memory."""
    check_columns(columns, name)
    found = f"{name} makes a table of {rows} rows x {columns} columns"
    _check(rows * columns, MAX_CELLS, found, f"{MAX_CELLS:,} cells")


def check_marks(count: int, name: str, allowed: int, what: str) -> None:
    """Refuse a text with more separators, each of which costs memory, than are read at once."""
    _check(count, allowed, f"{name} holds {count} {what}", f"{allowed:,}")


def check_unpacked(size: int, name: str, what: str) -> None:
    """Refuse a Parquet file that would unpack to more bytes than are read at once."""
    found = f"{name} holds {what}, which unpack to {size / 2**30:.3g} GiB"
    _check(size, MAX_PARQUET, found, f"{MAX_PARQUET / 2**30:.3g} GiB")


def _check(size: int, allowed: int, found: str, limit: str) -> None:
    if size > allowed:
        advice = "leave out columns that say nothing of the runs, or split it by runs and read a list of files"
        raise SweepError(f"{found}, expected at most {limit}; {advice}")


_HALF = re.compile(rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]..")  # of a pair
_CHUNK = 1 << 20
_KINDS = {list: "an array", str: "a text", int: "a number", float: "a number", bool: "a truth value"}
_KINDS |= {type(None): "null"}
_EXPECTED = 'expected one object a run, each on a line or all in one array, such as {"lr": 0.001, "loss": 3.2}'


def check_text(data: bytes, name: str) -> bytes:
    """Return text without its byte order mark, after checking that it is UTF-8."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SweepError(f"{name} is in UTF-16; save it as UTF-8")
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\0" in data:
        raise SweepError(f"{name} is a binary file; expected CSV, TSV, JSON lines, Parquet, or gzip of these")
    at = 0
    try:
        while at < len(data):  # decoded as a whole, a text can take four times its bytes
            at += codecs.utf_8_decode(data[at : at + _CHUNK], "strict", at + _CHUNK >= len(data))[1]
    except UnicodeDecodeError as error:
        at += error.start
        raise SweepError(
            f"{name} is not UTF-8 text (byte {at + 1} is 0x{data[at]:02x}); if it is a table from another program, "
            "save it as UTF-8"
        ) from None
    return data


@contextmanager
def strictly(name: str, kind: str) -> Iterator[None]:
    """Turn whatever a parser raises into a `SweepError`; damaged or hostile bytes can raise anything."""
    try:
        yield
    except SweepError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SweepError(f"{name} cannot be read as {kind}: {reason}") from error


def refuse_repeats(names: list[str], source: str) -> None:
    """Raise a `SweepError` when two columns bear one name: which of them is meant cannot be known."""
    for name, count in Counter(names).items():
        if count > 1:
            which = f"named {name!r}" if name else "without a name"
            raise SweepError(f"{source} has {count} columns {which}; rename or remove all but one")


def read_json(text: bytes, name: str) -> tuple[pd.DataFrame, list[Note]]:
    """Read JSON lines, or one JSON array of objects; nested objects stay as they are."""
    check_marks(sum(map(text.count, (b",", b"[", b"{"))), name, MAX_VALUES, "values")
    if half := _HALF.search(text):
        shown = half[0].decode("utf-8", "replace")
        raise SweepError(f"{name} holds half a character ({shown}), which is no text; was it cut in the middle?")
    if text.lstrip().startswith(b"[") and not _is_lines(text):
        records = _load(text.strip(), name)
    else:
        lines = enumerate(io.BytesIO(text), 1)
        records = [_record(line, f"line {i} of {name}") for i, line in lines if line.strip()]
    return frame_of_records(records, name), []


def _is_lines(text: bytes) -> bool:
    """Tell whether a text that starts with an array has one on each of several lines."""
    lines = (line.strip() for line in io.BytesIO(text))
    first, second = [*islice(filter(None, lines), 2), b"", b""][:2]
    return first.endswith(b"]") and second.startswith((b"[", b"{"))


def _record(line: bytes, where: str) -> dict[str, Any]:
    record = _load(line.strip(), where)
    if not isinstance(record, dict):
        raise SweepError(f"{where} holds {_KINDS.get(type(record), 'a value')}; {_EXPECTED}")
    return record


def _load(text: bytes, where: str) -> Any:
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise SweepError(f"{where} is not JSON ({' '.join(str(error).split())[:120]}); {_EXPECTED}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = {sys.intern(key): value for key, value in pairs}  # else every row keeps its own copy of the names
    if len(result) != len(pairs):
        raise ValueError("one object has the same name twice")
    return result


def frame_of_records(records: Any, name: str) -> pd.DataFrame:
    """Turn a list of dictionaries, one a run, into a table."""
    names: set[Any] = set()
    for i, record in enumerate(records, 1):
        if not isinstance(record, dict):
            kind = _KINDS.get(type(record), type(record).__name__)
            raise SweepError(f"run {i} of {name} is {kind}; {_EXPECTED}")
        names.update(record)
        check_columns(len(names), name)
    check_cells(len(records), len(names), name)
    with strictly(name, "a list of runs"):
        return pd.DataFrame(records)
