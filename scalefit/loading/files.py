"""Files to raw tables: finds and unpacks them, determines their format and parses delimited text."""

from __future__ import annotations

import glob
import gzip
import io
import os
import re
import zlib
from pathlib import Path
from typing import Any

import pandas as pd

from scalefit._values import Note
from scalefit.errors import SweepError
from scalefit.loading import parsing
from scalefit.loading.parsing import (
    check_cells,
    check_marks,
    check_text,
    read_json,
    read_parquet,
    refuse_repeats,
    strictly,
)

_SEPARATORS = {",": "comma", "\t": "tab", ";": "semicolon"}
_QUOTED = re.compile(rb'"[^"]*"')
_CONTENT = re.compile(rb"[^\r\n\t ;,]")
_HEADER = re.compile(rb'(?:[^\r\n"]+|"[^"]*(?:"|\Z))*')  # a name in quotes may hold a line break
_RAGGED = re.compile(r"Expected (\d+) fields in line (\d+), saw (\d+)")
_UNCLOSED = re.compile(r"EOF inside string starting at row (\d+)")
_OLD = tuple(int(part) for part in pd.__version__.split(".")[:2]) < (3, 1)
EXACT: dict[str, Any] = {"float_precision": "round_trip"} if _OLD else {}  # newer parsers always read to the last bit
MAX_BYTES = 512 << 20
"""The largest file read as a whole, in bytes after decompression; a parser takes several times as much memory."""

_CHUNK = 1 << 20
_DELIMITED, _JSON, _PARQUET = (".csv", ".tsv", ".tab", ".txt"), (".jsonl", ".ndjson", ".json"), (".parquet", ".pq")


def find_files(pattern: str | os.PathLike[str]) -> list[Path]:
    """Return the files that a path or a glob pattern names, sorted by name, or raise a `SweepError`."""
    text = os.path.expanduser(os.fspath(pattern))
    if "\0" in text:
        raise SweepError(f"{text!r} is not a path")
    path = Path(text)
    if path.is_dir():
        raise SweepError(f"{text} is a folder; name its files, for instance {os.path.join(text, '*.csv')!r}")
    if path.exists():
        return [path]
    if not glob.has_magic(text):
        raise SweepError(f"there is no file {text}")
    found = sorted(Path(name) for name in glob.glob(text, recursive=True) if os.path.isfile(name))
    if not found:
        raise SweepError(f"no file matches {text!r}")
    return found


def read_file(path: Path) -> tuple[pd.DataFrame, list[Note]]:
    """Read one file of runs into a raw table, with notes on how it was understood, or raise a `SweepError`."""
    name = path.name
    try:
        with open(path, "rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
            stream.seek(0)
            data = _read_limited(gzip.GzipFile(fileobj=stream) if packed else stream, name)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise SweepError(
            f"{name} is not a whole gzip file ({error}); it was cut short or damaged, so copy or export it again"
        ) from None
    except OSError as error:
        raise SweepError(f"{name} cannot be read: {error}") from None
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        if not packed and data:
            raise SweepError(f"{name} is called .gz but is not gzip; was it unpacked without being renamed?")
        suffixes.pop()
    return _parse_bytes(data, name, suffixes[-1] if suffixes else "")


def _read_limited(stream: Any, name: str) -> bytes:
    """Read a stream piece by piece; refuse it before it can exhaust the memory."""
    whole = io.BytesIO()
    while piece := stream.read(_CHUNK):
        if whole.tell() + len(piece) > MAX_BYTES:
            raise SweepError(
                f"{name} holds more than {MAX_BYTES / 2**30:g} GiB of data, which is no table of runs; "
                "keep the final value of each run, save it as Parquet, or split it by runs and read a list of files"
            )
        whole.write(piece)
    return whole.getvalue()


def _parse_bytes(data: bytes, name: str, suffix: str) -> tuple[pd.DataFrame, list[Note]]:
    if not data.strip(b"\xef\xbb\xbf \t\r\n"):
        raise SweepError(f"{name} is empty")
    if data.startswith(b"PAR1"):
        return read_parquet(data, name)
    if suffix in _PARQUET:
        raise SweepError(f"{name} is called {suffix} but is not Parquet (it does not start with PAR1)")
    text = check_text(data, name)
    looks_json = text.lstrip()[:1] in (b"{", b"[")
    if suffix in (_DELIMITED if looks_json else _JSON):
        found = "JSON" if looks_json else "no JSON object"
        raise SweepError(f"{name} is called {suffix}, but its first line is {found}; rename it to what it is")
    return (read_json if looks_json else _read_delimited)(text, name)


def _read_delimited(text: bytes, name: str) -> tuple[pd.DataFrame, list[Note]]:
    """Read comma-, tab- or semicolon-separated text; its header must hold only one kind of separator."""
    mark = _separator(text, name)
    with strictly(name, f"{_SEPARATORS[mark]}-separated text"):
        frame = _parse(text, mark, name)
    notes = []
    if mark != "," and not name.lower().removesuffix(".gz").endswith((".tsv", ".tab")):
        notes.append(Note("separator", f"{name} was read as {_SEPARATORS[mark]}-separated"))
    return frame, notes


def _separator(text: bytes, name: str) -> str:
    """Return the separator of the header; raise if a table with so many columns would not fit into memory."""
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
    check_cells(rows, max(line.count(mark), before) + 1, name)
    check_marks(text.count(mark.encode()), name, parsing.MAX_CELLS, f"{_SEPARATORS[mark]}s")
    return mark


def _parse(text: bytes, mark: str, name: str) -> pd.DataFrame:
    """Read the header, then the rows.

    pandas cuts rows with no more than a warning if the first row is longer than the header. So that row is examined
    first, and one more column is read where every row ends in a separator.
    """
    header = _read(text, mark, name, header=None, nrows=1, dtype=str, keep_default_na=False)
    names = [str(value).strip() for value in header.iloc[0]]
    refuse_repeats(names, name)
    width = len(names)
    spare = _has_spare(text, mark, name, width)
    wide = range(width + spare)
    frame = _read(text, mark, name, header=0, names=wide, index_col=False, low_memory=False, **EXACT)
    if spare and (filled := frame[width].notna().to_numpy()).any():
        row = int(filled.argmax()) + 1
        raise SweepError(_ragged(name, mark, f"row {row}", width, width + 1))
    return frame.iloc[:, :width].set_axis(pd.Index(names, dtype=object), axis=1)


def _has_spare(text: bytes, mark: str, name: str, width: int) -> bool:
    """Return whether the first row has one value more than the header."""
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
    """Return a plain sentence in place of the parser's error message."""
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
