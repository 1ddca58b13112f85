"""Parquet files: what they unpack to, read as a whole, or one column at a time where they are too long to be held."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from scalefit._values import Note
from scalefit.errors import SweepError
from scalefit.loading import parsing
from scalefit.loading.parsing import check_columns, check_unpacked, refuse_repeats, strictly

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
    if any(pa.types.is_nested(field.type) for field in fields):
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

    Numbers count eight bytes each. Texts are stored once and numbered, so that a thousand bytes can stand for
    gigabytes: where the stored lengths do not rule that out, the columns are read as numbers and the lengths added up.
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
        if size * values[path] > parsing.MAX_PARQUET:
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
        # One group at a time: each has its own numbers, and nested ones cannot be put together.
        batches = [numbered.iter_batches(65536, row_groups=[i], columns=[path]) for i in range(groups)]
        return sum(_length(column) for batch in chain.from_iterable(batches) for column in batch.columns)
    except pa.ArrowException:  # nested, and numbered in part only: unpacked piece by piece
        size = 0
        for batch in file.iter_batches(batch_size=64, columns=[path]):
            size += batch.nbytes
            if size > parsing.MAX_PARQUET:
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
