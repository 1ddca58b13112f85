"""How large a table may be: limits on its columns and cells, checked before the memory for it is taken."""

from __future__ import annotations

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

_ADVICE = "leave out columns that say nothing of the runs, or split it by runs and read a list of files"


def check_columns(count: int, name: str) -> None:
    """Raise a `SweepError` when a table has more columns than any table of runs.

    Examples
    --------
    >>> check_columns(10**6, "wide.csv")
    Traceback (most recent call last):
    scalefit.errors.SweepError: wide.csv has 1000000 columns, expected at most 10000; is it written row by row?
    """
    if count > MAX_COLUMNS:
        raise SweepError(f"{name} has {count} columns, expected at most {MAX_COLUMNS}; is it written row by row?")


def check_cells(rows: int, columns: int, name: str) -> None:
    """Raise a `SweepError` when rows times columns would not fit comfortably into memory."""
    check_columns(columns, name)
    if rows * columns > MAX_CELLS:
        raise SweepError(
            f"{name} makes a table of {rows} rows x {columns} columns, expected at most {MAX_CELLS:,} cells; {_ADVICE}"
        )


def check_marks(count: int, name: str, allowed: int, what: str) -> None:
    """Raise a `SweepError` when a text holds more separators, each of which costs memory, than are read at once."""
    if count > allowed:
        raise SweepError(f"{name} holds {count} {what}, expected at most {allowed:,}; {_ADVICE}")


def check_unpacked(size: int, name: str, what: str) -> None:
    """Raise a `SweepError` when a Parquet file would unpack to more bytes than are read at once."""
    if size > MAX_PARQUET:
        raise SweepError(
            f"{name} holds {what}, which unpack to {size / 2**30:.3g} GiB, expected at most "
            f"{MAX_PARQUET / 2**30:.3g} GiB; {_ADVICE}"
        )
