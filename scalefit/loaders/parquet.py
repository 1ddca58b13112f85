"""Parquet files read one column at a time, for tables too long to be held whole."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from scalefit.errors import SweepError
from scalefit.loaders.parsing import refuse_repeats, strictly
from scalefit.notes import Note

_INDEX = re.compile(r"__index_level_\d+__\Z")
_MOST_ROWS = 1 << 28  # of eight bytes each; only one column is held at a time
_DAMAGED = "Parquet (was it cut short or damaged?)"


@dataclass(frozen=True, eq=False)
class ParquetTable:
    """A Parquet file whose columns are read when asked for; made by `open_parquet`.

    Parameters
    ----------
    name : str
        The file's path.
    notes : tuple of Note
    """

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
        """Read one column; texts come as categories.

        Raises
        ------
        SweepError
            If the file is damaged.
        """
        import pyarrow.parquet as pq

        stored = self._columns[name]
        with strictly(self.name, _DAMAGED):
            as_codes = [stored] if name in self._texts else None
            table = pq.read_table(self._path, columns=[stored], read_dictionary=as_codes, partitioning=None)
            return table.column(0).to_pandas().rename(name)


def open_parquet(path: Path) -> ParquetTable | None:
    """Return a file as a table to be read column by column; None when it is not Parquet, or holds nested values.

    Raises
    ------
    SweepError
        If the file is damaged, has no rows, or a column too long for the memory.
    """
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
    stored = [field for field in schema if not _INDEX.match(field.name)]
    if any(pa.types.is_nested(field.type) for field in stored):
        return None
    refuse_repeats([field.name.strip() for field in stored], path.name)
    if not metadata.num_rows:
        raise SweepError(f"{path} has columns but no rows: {', '.join(field.name for field in stored)}")
    if metadata.num_rows > _MOST_ROWS:
        raise SweepError(f"{path.name} holds {metadata.num_rows} rows, more than can be read at once; split it by runs")
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    texts = tuple(field.name.strip() for field in stored if any(kind(field.type) for kind in kinds))
    return ParquetTable(str(path), path, {field.name.strip(): field.name for field in stored}, texts, metadata.num_rows)
