"""How much memory a Parquet file asks for, told by its metadata before anything is unpacked."""

from __future__ import annotations

from collections import defaultdict
from io import BytesIO
from itertools import chain
from typing import Any

from scalefit.loaders import limits


def check_size(data: bytes, file: Any, name: str) -> None:
    """Refuse a Parquet file that unpacks to more than is read at once.

    It is given as its bytes and as the `pyarrow.parquet.ParquetFile` made of them.

    Numbers count eight bytes each. Texts are stored once and numbered, so that a thousand bytes can stand for
    gigabytes: where the stored lengths do not rule that out, the columns are read as numbers and the lengths added up.

    Raises
    ------
    SweepError
        Naming the rows or the column, what it unpacks to, and the limit.
    """
    metadata = file.metadata
    limits.check_columns(metadata.num_columns, name)
    total, stored, values = 0, defaultdict[str, int](int), defaultdict[str, int](int)
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        for j in range(metadata.num_columns):
            chunk = group.column(j)
            fixed = chunk.physical_type == "FIXED_LEN_BYTE_ARRAY"
            total += chunk.num_values * max(metadata.schema.column(j).length if fixed else 8, 8)
            if chunk.physical_type == "BYTE_ARRAY":
                stored[chunk.path_in_schema] += chunk.total_uncompressed_size
                values[chunk.path_in_schema] += chunk.num_values
    rows = f"{metadata.num_rows} rows of {metadata.num_columns} columns"
    limits.check_unpacked(total + sum(stored.values()), name, rows)
    for path, size in stored.items():
        if size * values[path] > limits.MAX_PARQUET:
            total += _text_size(data, file, path)
            limits.check_unpacked(total, name, f"texts in column {path!r}")


def _text_size(data: bytes, file: Any, path: str) -> int:
    """Return what the texts of a column unpack to, or 0 where they stay numbered in the table as well."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if pa.types.is_dictionary(file.schema_arrow.field(_top(file, path)).type):
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
            if size > limits.MAX_PARQUET:
                break
        return size


def _top(file: Any, path: str) -> str:
    """Return the column of the table that holds a stored column; names may have dots themselves."""
    names = file.schema_arrow.names
    return path if path in names else max((n for n in names if path.startswith(f"{n}.")), key=len)


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
