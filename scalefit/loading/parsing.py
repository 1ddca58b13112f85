"""Bytes to raw tables: JSON lines and Parquet, limits on their size, and what all formats have in common."""

from __future__ import annotations

import codecs
import io
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from itertools import chain, islice
from pathlib import Path
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


_HALF = re.compile(rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]..")  # half of a pair
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
        while at < len(data):  # decoded at once, a text can take four times its bytes
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
    """Raise a `SweepError` when two columns have the same name, since either could be meant."""
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
    """Return whether a text that starts with an array has one on each of several lines."""
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
    result = {sys.intern(key): value for key, value in pairs}  # else every row would keep a copy of the names
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


_INDEX = re.compile(r"__index_level_\d+__\Z")
_MOST_ROWS = 1 << 28  # of eight bytes each; only one column is held at a time
_DAMAGED = "Parquet (was it cut short or damaged?)"


def read_parquet(data: bytes, name: str) -> tuple[pd.DataFrame, list[Note]]:
    """Read Parquet, refusing a file that would unpack to more than is read at once."""
    import pyarrow.parquet as pq

    with strictly(name, _DAMAGED):
        file = pq.ParquetFile(BytesIO(data))
        _check_size(data, file, name)
        refuse_repeats([str(field.name).strip() for field in file.schema_arrow], name)
        frame = file.read(use_threads=False).to_pandas()
    return frame, []


def read_arrow(source: Any, name: str) -> pd.DataFrame:
    """Read whatever hands out its rows by Arrow's protocol: tables of pyarrow and polars, relations of DuckDB."""
    import pyarrow as pa

    with strictly(name, "an Arrow table"):
        table = pa.table(source)
        refuse_repeats([str(column).strip() for column in table.column_names], name)
        return table.to_pandas()


@dataclass(frozen=True, eq=False)
class ParquetTable:
    """A Parquet file whose columns are read when asked for; made by `open_parquet`."""

    name: str
    _path: Path
    _columns: dict[str, str]
    _texts: tuple[str, ...]
    _rows: int
    notes: tuple[Note, ...] = field(default=())

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self._columns)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._rows

    def column(self, name: str) -> pd.Series:
        """Read one column; texts come as categories."""
        import pyarrow.parquet as pq

        stored = self._columns[name]
        with strictly(self.name, _DAMAGED):
            as_codes = [stored] if name in self._texts else None
            table = pq.read_table(self._path, columns=[stored], read_dictionary=as_codes, partitioning=None)
            return table.column(0).to_pandas().rename(name)


def open_parquet(path: Path) -> ParquetTable | None:
    """Return a file as a table to be read column by column; None when it is not Parquet, or holds nested values."""
    try:
        with open(path, "rb") as stream:
            if stream.read(4) != b"PAR1":
                return None
    except OSError as error:
        raise SweepError(f"{path.name} cannot be read: {error}") from None
    import pyarrow as pa
    import pyarrow.parquet as pq

    with strictly(path.name, _DAMAGED):
        metadata = pq.read_metadata(path)
        schema: Any = metadata.schema.to_arrow_schema()
    fields = [field for field in schema if not _INDEX.match(field.name)]
    index = (schema.pandas_metadata or {}).get("index_columns", [])
    counted = any(isinstance(level, dict) and level.get("name") for level in index)  # is no column of the file
    if counted or any(pa.types.is_nested(field.type) for field in fields):
        return None
    refuse_repeats([field.name.strip() for field in fields], path.name)
    stored = {field.name.strip(): field.name for field in fields}
    if not metadata.num_rows:
        raise SweepError(f"{path} has columns but no rows: {', '.join(stored)}")
    if metadata.num_rows > _MOST_ROWS:
        raise SweepError(f"{path.name} holds {metadata.num_rows} rows, more than can be read at once; split it by runs")
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    texts = tuple(field.name.strip() for field in fields if any(kind(field.type) for kind in kinds))
    return ParquetTable(str(path), path, stored, texts, metadata.num_rows)


def _check_size(data: bytes, file: Any, name: str) -> None:
    """Refuse a Parquet file, given as its bytes and opened, that unpacks to more than is read at once.

    Numbers count eight bytes each. Parquet stores each distinct text once and refers to it by number, so a thousand
    bytes can unpack to gigabytes. Where the stored lengths do not exclude that, the columns are read as these numbers,
    and the lengths of their texts are added up.
    """
    metadata = file.metadata
    check_columns(metadata.num_columns, name)
    total, stored, values = 0, defaultdict[str, int](int), defaultdict[str, int](int)
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    for j, chunk in ((j, group.column(j)) for group in groups for j in range(metadata.num_columns)):
        fixed = chunk.physical_type == "FIXED_LEN_BYTE_ARRAY"
        total += chunk.num_values * max(metadata.schema.column(j).length if fixed else 8, 8)
        if chunk.physical_type == "BYTE_ARRAY":
            stored[chunk.path_in_schema] += chunk.total_uncompressed_size
            values[chunk.path_in_schema] += chunk.num_values
    rows = f"{metadata.num_rows} rows of {metadata.num_columns} columns"
    check_unpacked(total + sum(stored.values()), name, rows)
    for path, size in stored.items():
        if size * values[path] > MAX_PARQUET:
            total += _text_size(data, file, path)
            check_unpacked(total, name, f"texts in column {path!r}")


def _text_size(data: bytes, file: Any, path: str) -> int:
    """Return what the texts of a column unpack to, or 0 where they stay numbered in the table as well."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = file.schema_arrow.names  # names may have dots themselves, and a nested column has its parts after a dot
    column = path if path in names else max((name for name in names if path.startswith(f"{name}.")), key=len)
    if pa.types.is_dictionary(file.schema_arrow.field(column).type):
        return 0
    groups = file.metadata.num_row_groups
    try:
        numbered = pq.ParquetFile(BytesIO(data), read_dictionary=[path])
        # One row group at a time: each numbers its texts anew, and nested columns of several groups cannot be joined.
        batches = [numbered.iter_batches(65536, row_groups=[i], columns=[path]) for i in range(groups)]
        return sum(_length(column) for batch in chain.from_iterable(batches) for column in batch.columns)
    except pa.ArrowException:  # nested and only partly numbered: unpacked piece by piece
        size = 0
        for batch in file.iter_batches(batch_size=64, columns=[path]):
            size += batch.nbytes
            if size > MAX_PARQUET:
                break
        return size


def _length(array: Any) -> int:
    """Add up the lengths of all texts in an array, nested or not."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(array.type):
        lengths = pc.cast(pc.binary_length(array.dictionary), pa.int64())
        return pc.sum(lengths.take(array.indices)).as_py() or 0
    if pa.types.is_struct(array.type):
        return sum(_length(part) for part in array.flatten())
    if pa.types.is_nested(array.type):  # a list or a map, of one kind of value at the level below
        return _length(array.values)
    return int(array.nbytes)
