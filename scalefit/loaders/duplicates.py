"""Runs that are in a table twice: found, named, and kept or dropped only as the user asked."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from scalefit.errors import SweepError
from scalefit.loaders.rows import Rows
from scalefit.notes import Note
from scalefit.vocabulary import BY_COLUMN

DUPLICATES = ("raise", "keep", "drop")

_DECIMALS = 6
"""A loss with more decimals than these is taken for a measured one; fewer may coincide by chance."""


def settle_duplicates(
    table: pd.DataFrame, rows: Rows, duplicates: str, shared: Collection[str]
) -> tuple[pd.DataFrame, Rows, list[Note]]:
    """Refuse, keep or drop runs that are in the table twice.

    Two rows are one run when they agree in every column to the last bit. When the rows bear different names, or come
    from sources with different columns (then only the `shared` ones can be compared), the loss must also have more
    than six decimals: rounded losses of repeated runs coincide by chance, full ones do not. Diverged runs without a
    name are never copies, since a missing loss tells nothing.

    Raises
    ------
    SweepError
        With ``duplicates="raise"``: how many there are, and the first pair.
    """
    first_of = _copies(table)
    if len(set(shared)) < len(table.columns):
        across = _copies(table[[name for name in table.columns if name in shared]])
        apart = (across >= 0) & (rows.source[across] != rows.source) & ~_rounded(table)
        first_of = np.where((first_of < 0) & apart, across, first_of)
    twice = first_of >= 0
    if not twice.any():
        return table, rows, []
    row = int(np.flatnonzero(twice)[0])
    pair = f"{rows.name(row)} copies {rows.name(int(first_of[row]))}"
    found = f"exact copies of another run, loss included: {int(twice.sum())} of {len(table)} runs (first: {pair})"
    if duplicates == "raise":
        raise SweepError(
            f"{found}. Copies make errors look smaller than they are: duplicates='drop' leaves them out; "
            "duplicates='keep' keeps them, if they really are separate runs"
        )
    if duplicates == "keep":
        return table, rows, [Note("duplicates", f"{found}; all were kept, as asked", caution=True)]
    note = Note("duplicates", f"{found}; the copies were dropped, as asked")
    return table[~twice].reset_index(drop=True), rows.keep(~twice), [note]


def _rounded(table: pd.DataFrame) -> np.ndarray:
    loss = table["loss"].to_numpy()
    with np.errstate(over="ignore"):
        return ~np.isfinite(loss) | (np.round(loss, _DECIMALS) == loss)


def _copies(table: pd.DataFrame) -> np.ndarray:
    """Return, for each row, the first row that is the same run, or -1."""
    first_of = np.full(len(table), -1)
    numbers = [name for name in table.columns if name in BY_COLUMN and BY_COLUMN[name].numeric]
    alike = table.duplicated(numbers, keep=False).to_numpy()  # few rows pass, so texts are compared only there
    if "run" not in table.columns:
        alike = alike & np.isfinite(table["loss"].to_numpy())
    if not alike.any():
        return first_of
    names = [name for name in table.columns if name != "run"]
    few = table.loc[alike, names].reset_index(drop=True)
    texts = [name for name in names if not pd.api.types.is_numeric_dtype(few[name])]
    few = few.assign(**{str(name): few[name].map(ascii) for name in texts})  # lists cannot be compared, texts can
    if "run" in table.columns:
        run = table.loc[alike, "run"].map(ascii).to_numpy(dtype=object)
        few = few.assign(_run=np.where(_rounded(few), run, ""))
    group = few.groupby(list(few.columns), sort=False, dropna=False).ngroup().to_numpy()
    positions = np.flatnonzero(alike)
    earliest = pd.Series(positions).groupby(group).transform("first").to_numpy()
    first_of[positions] = np.where(earliest == positions, -1, earliest)
    return first_of
