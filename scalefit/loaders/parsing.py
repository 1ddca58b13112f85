"""Bytes to raw tables: delimited text, JSON lines and Parquet, each read strictly and without guessing."""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd

from scalefit.errors import SweepError
from scalefit.notes import Note

_SEPARATORS = {",": "comma", "\t": "tab", ";": "semicolon"}
_QUOTED = re.compile(r'"[^"]*"')
_HALF = re.compile(r"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]..")  # of a pair
_FIRST_LINE = re.compile(rb"[^\r\n]*[^\r\n\t ;,][^\r\n]*")
_OLD = tuple(int(part) for part in pd.__version__.split(".")[:2]) < (3, 1)
_EXACT: dict[str, Any] = {"float_precision": "round_trip"} if _OLD else {}  # newer parsers always read to the last bit


def check_text(data: bytes, name: str) -> bytes:
    """Return text without its byte order mark, after checking that it is UTF-8.

    Raises
    ------
    SweepError
        If the bytes are binary or in another encoding.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SweepError(f"{name} is in UTF-16; save it as UTF-8")
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\0" in data:
        raise SweepError(f"{name} is a binary file; expected CSV, TSV, JSON lines, Parquet, or gzip of these")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SweepError(
            f"{name} is not UTF-8 text (byte {error.start + 1} is 0x{data[error.start]:02x}); "
            "if it is a table from another program, save it as UTF-8"
        ) from None
    return data


@contextmanager
def strictly(name: str, kind: str) -> Iterator[None]:
    """Turn whatever a parser raises or warns about into a `SweepError`: hostile bytes can raise anything."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows that do not fit the header
            yield
    except SweepError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SweepError(f"{name} cannot be read as {kind}: {reason}") from error


def read_delimited(text: bytes, name: str) -> tuple[pd.DataFrame, list[Note]]:
    """Read comma-, tab- or semicolon-separated text; its header must hold only one kind of separator.

    Raises
    ------
    SweepError
        If the header is ambiguous or repeats a name, or a row does not fit it.
    """
    first = _FIRST_LINE.search(text)
    if first is None:
        raise SweepError(f"{name} has no header")
    line = _QUOTED.sub("", first[0].decode("utf-8"))
    found = [mark for mark in _SEPARATORS if mark in line]
    if len(found) > 1:
        words = " and ".join(_SEPARATORS[mark] for mark in found)
        raise SweepError(f"the header of {name} holds {words}: the separator is not clear; save it with commas")
    mark = found[0] if found else ","
    options: dict[str, Any] = {"sep": mark, "encoding": "utf-8", "skip_blank_lines": True}
    with strictly(name, f"{_SEPARATORS[mark]}-separated text"):
        header = pd.read_csv(io.BytesIO(text), header=None, nrows=1, dtype=str, keep_default_na=False, **options)
        names = [str(value).strip() for value in header.iloc[0]]
        refuse_repeats(names, name)
        frame = pd.read_csv(
            io.BytesIO(text),
            header=0,
            index_col=False,
            low_memory=False,
            **_EXACT,
            **options,
        )
        if len(frame.columns) != len(names):
            raise SweepError(f"{name} has {len(names)} names in its header but {len(frame.columns)} columns")
    frame.columns = pd.Index(names, dtype=object)
    notes = []
    if mark != "," and not name.lower().removesuffix(".gz").endswith((".tsv", ".tab")):
        notes.append(Note("separator", f"{name} was read as {_SEPARATORS[mark]}-separated"))
    return frame, notes


def refuse_repeats(names: list[str], source: str) -> None:
    """Raise a `SweepError` when two columns bear one name: which of them is meant cannot be known."""
    if len(set(names)) == len(names):
        return
    seen = pd.Index(names)
    repeated = [name for name in seen[seen.duplicated()].unique() if name]
    if repeated:
        raise SweepError(
            f"{source} has {(seen == repeated[0]).sum()} columns named {repeated[0]!r}; rename or remove all but one"
        )
    if (seen == "").sum() > 1:
        raise SweepError(f"{source} has {(seen == '').sum()} columns without a name; name or remove them")


def read_json(text: bytes, name: str) -> tuple[pd.DataFrame, list[Note]]:
    """Read JSON lines, or one JSON array of objects; nested objects stay as they are.

    Raises
    ------
    SweepError
        Naming the first line that is not one JSON object.
    """
    whole = text.decode("utf-8").strip()
    if half := _HALF.search(whole):
        raise SweepError(f"{name} holds half a character ({half[0]}), which is no text; was it cut in the middle?")
    if whole.startswith("["):
        records = _load(whole, f"{name}")
    else:
        lines = whole.split("\n")
        records = [_load(line, f"line {i} of {name}") for i, line in enumerate(lines, 1) if line.strip()]
    return frame_of_records(records, name), []


def _load(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        hint = "expected one JSON object a line"
        raise SweepError(f"{where} is not JSON ({' '.join(str(error).split())[:120]}); {hint}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("one object has the same name twice")
    return result


def frame_of_records(records: Any, name: str) -> pd.DataFrame:
    """Turn a list of dictionaries, one a run, into a table.

    Raises
    ------
    SweepError
        If an element is not a dictionary.
    """
    for i, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise SweepError(f"run {i} of {name} is {type(record).__name__}, expected an object with one value a name")
    with strictly(name, "a list of runs"):
        return pd.DataFrame(records)


def read_parquet(data: bytes, name: str, max_bytes: int) -> tuple[pd.DataFrame, list[Note]]:
    """Read Parquet, refusing a file whose metadata promise more than `max_bytes`.

    Raises
    ------
    SweepError
        If the file is cut short, damaged or too large.
    """
    import pyarrow.parquet as pq

    with strictly(name, "Parquet (was it cut short or damaged?)"):
        file = pq.ParquetFile(io.BytesIO(data))
        if file.metadata.num_rows * max(file.metadata.num_columns, 1) * 8 > max_bytes:
            raise SweepError(f"{name} holds {file.metadata.num_rows} rows, more than any table of runs")
        refuse_repeats([str(field.name).strip() for field in file.schema_arrow], name)
        frame = file.read(use_threads=False).to_pandas()
    return frame, []
