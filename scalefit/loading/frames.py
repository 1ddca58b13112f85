"""Raw tables with flat columns from any source of runs, and the origin of each row."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note
from scalefit.errors import SweepError
from scalefit.loading.files import find_files, read_file
from scalefit.loading.parsing import (
    MAX_NAME,
    ParquetTable,
    check_cells,
    check_columns,
    frame_of_records,
    open_parquet,
    read_arrow,
    refuse_repeats,
    strictly,
)


@dataclass(frozen=True, eq=False)
class Rows:
    """The origin of the rows of a table: names of the sources, where each ends, and which rows are left (None: all)."""

    names: tuple[str, ...]
    ends: np.ndarray
    kept: np.ndarray | None = None

    @classmethod
    def of(cls, names: Sequence[str], lengths: Sequence[int]) -> Rows:
        """Number the rows of several sources, one after the other."""
        return cls(tuple(names), np.cumsum(lengths, dtype=np.int64))

    @property
    def source(self) -> np.ndarray:
        """Which source each row came from."""
        positions = np.arange(self.ends[-1]) if self.kept is None else self.kept
        return np.searchsorted(self.ends, positions, "right")

    @property
    def title(self) -> str:
        """What to call all sources together."""
        first, others = self.names[0], len(self.names) - 1
        return f"{first} and {others} more" if others else first.removeprefix("the ")

    def keep(self, chosen: np.ndarray) -> Rows:
        """Return the origin of the rows that a mask keeps, or of rows in the order in which they are numbered."""
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        return Rows(self.names, self.ends, chosen if self.kept is None else self.kept[chosen])

    def name(self, row: int) -> str:
        """Return the position of a row in words; the first row of data is 1.

        Examples
        --------
        >>> Rows.of(["a.csv", "b.csv"], [3, 2]).name(4)
        'row 2 of b.csv'
        """
        position = row if self.kept is None else int(self.kept[row])
        source = int(np.searchsorted(self.ends, position, "right"))
        return f"row {position - (int(self.ends[source - 1]) if source else 0) + 1} of {self.names[source]}"


_KINDS = "a path, a glob, a DataFrame, an Arrow table, a list of dictionaries (one a run), or a list of these"
_LONG = 100_000  # with fewer rows, opening a file once for every column is not worth it
_UNNAMED = re.compile(r"(Unnamed: \d+)?\Z")


@dataclass(frozen=True, eq=False)
class RawTable:
    """A table as it was found: its name in errors, its rows numbered from 0, and notes on how it was read."""

    name: str
    frame: pd.DataFrame
    notes: tuple[Note, ...] = ()

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.frame.columns)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.frame)

    def column(self, name: str) -> pd.Series:
        """Return one column."""
        return self.frame[name]


def gather(source: Any) -> list[RawTable]:
    """Read every table that a source names, or raise a `SweepError`."""
    if isinstance(source, str | os.PathLike):
        return [_tidy(str(path), *read_file(path)) for path in find_files(source)]
    if isinstance(source, pd.DataFrame):
        return [_tidy("the table", source, [])]
    if hasattr(source, "__arrow_c_stream__"):
        return [_tidy("the table", read_arrow(source, "the table"), [])]
    if type(source).__name__ == "LazyFrame":  # of polars or narwhals: a query, whose answer is the table
        with strictly("the table", "a LazyFrame"):
            source = source.collect()
        return gather(source)
    if not isinstance(source, list | tuple):
        raise SweepError(f"expected {_KINDS}; found {type(source).__name__}{_remedy(source)}")
    if not source:
        raise SweepError(f"expected {_KINDS}; found an empty {type(source).__name__}")
    if isinstance(source[0], dict):
        return [_tidy("the list of runs", frame_of_records(source, "the list"), [])]
    if any(isinstance(item, list | tuple) for item in source):
        raise SweepError("a list of lists is not a list of tables; make it one flat list")
    parts = [part for item in source for part in gather(item)]
    numbers = itertools.count(1)
    return [replace(part, name=f"table {next(numbers)}") if part.name == "the table" else part for part in parts]


def gather_by_column(source: Any) -> Sequence[RawTable | ParquetTable]:
    """Read every table as `gather` does, but of long Parquet files only the columns asked for, one at a time."""
    if isinstance(source, str | os.PathLike):
        return [_by_column(path) for path in find_files(source)]
    if isinstance(source, list | tuple) and source and all(isinstance(item, str | os.PathLike) for item in source):
        return [table for item in source for table in gather_by_column(item)]
    return gather(source)


def _by_column(path: Path) -> RawTable | ParquetTable:
    table = open_parquet(path)
    return _tidy(str(path), *read_file(path)) if table is None or len(table) < _LONG else table


def _remedy(source: Any) -> str:
    """Say what makes a table of an object that is none."""
    for method in ("to_dataframe", "to_pandas", "toPandas", "compute"):  # the first is xarray's, as well
        if callable(getattr(source, method, None)):
            return f"; give what its {method}() returns"
    return "; a dictionary of columns becomes one by pandas.DataFrame(...)" if isinstance(source, Mapping) else ""


def _without_index(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """Turn named index levels into columns; drop an index without a name."""
    if isinstance(frame.columns, pd.MultiIndex):
        raise SweepError(f"{source} has column names of several levels; flatten them to one name a column")
    named = [name for name in frame.index.names if name is not None and name not in frame.columns]
    return frame.reset_index(level=named).reset_index(drop=True) if named else frame.reset_index(drop=True)


def _tidy(name: str, frame: pd.DataFrame, notes: list[Note]) -> RawTable:
    frame = _without_index(frame, name)
    names = [str(column).strip() for column in frame.columns]
    refuse_repeats(names, name)
    frame = flatten(frame.set_axis(names, axis=1), name)
    refuse_repeats([str(column) for column in frame.columns], name)
    if not len(frame.columns):
        raise SweepError(f"{name} has no columns")
    if not len(frame):
        raise SweepError(f"{name} has a header but no runs; its columns are: {', '.join(names)}")
    unnamed = next((column for column in frame.columns if _UNNAMED.match(column)), None)
    if unnamed is not None and pd.api.types.is_integer_dtype(frame[unnamed]) and frame[unnamed].is_unique:
        text = f"the column without a name in {name} only numbers the rows and was left out"
        notes, frame = [*notes, Note("index", text)], frame.drop(columns=unnamed)
    return RawTable(name, frame, tuple(notes))


_MAX_DEPTH = 20


def flatten(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """Return the table with every column of dictionaries, as W&B's `config`, replaced by one per dotted name in them.

    Examples
    --------
    >>> flatten(pd.DataFrame({"config": [{"lr": 0.1, "model": {"layers": 2}}]}), "runs").columns.tolist()
    ['config.lr', 'config.model.layers']
    """
    objects = [name for name in frame.columns if frame[name].dtype == object]
    nested = [name for name in objects if any(isinstance(value, dict) for value in frame[name])]
    if not nested:
        return frame
    names: dict[str, str] = {}
    flat = [[_flatten({name: value}, source, names) for value in frame[name]] for name in nested]
    check_cells(len(frame), len(names), source)
    tables = [pd.DataFrame(records, index=frame.index) for records in flat]
    return pd.concat([frame.drop(columns=nested), *tables], axis=1)


def _flatten(
    record: dict[Any, Any], source: str, names: dict[str, str], prefix: str = "", depth: int = 0
) -> dict[str, Any]:
    """Spread one dictionary; `names` holds the dotted names of all rows, each once however many rows have it."""
    if depth > _MAX_DEPTH:
        raise SweepError(f"{source} nests objects more than {_MAX_DEPTH} deep")
    flat: dict[str, Any] = {}
    for key, value in record.items():
        path = f"{prefix}{str(key).strip()}"
        if isinstance(value, dict):
            inner = _flatten(value, source, names, f"{path}.", depth + 1)
        elif len(path) > MAX_NAME:
            raise SweepError(
                f"{source} has a name of {len(path)} characters in nested objects, expected at most {MAX_NAME}; "
                f"it starts {path[:40]!r}"
            )
        else:
            inner = {names.setdefault(path, path): value}
            check_columns(len(names), source)
        if not flat.keys().isdisjoint(inner):
            raise SweepError(f"{source} has one run with two values for {path!r}")
        flat |= inner
    return flat
