"""What every table of runs must hold, and what a reader should know about its rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from scalefit.errors import SweepError
from scalefit.levels import group_levels, lowest_of, number_groups
from scalefit.notes import Note
from scalefit.vocabulary import AXES, BY_COLUMN, QUANTITIES

POSITIVE: tuple[str, ...] = ("lr", "batch", "params", "tokens", "loss", "steps", "flops", "seq_len")
"""Columns whose values must be greater than zero."""

FAR_OFF = 0.5
"""Nats above the best run of its cell from which a run is noted as far from tuned."""

STATED = ("diverged", "repeats", "far_off")
"""Codes of the notes on the rows themselves, which are stated anew for every subset."""


def label(values: pd.Series, column: str, rtol: float) -> np.ndarray:
    """Return levels for a measured quantity, the values themselves for anything that only names."""
    kinds = pd.api.types
    if not kinds.is_numeric_dtype(values) or kinds.is_bool_dtype(values) or kinds.is_complex_dtype(values):
        return values.to_numpy(dtype=object)
    numbers = values.to_numpy(dtype=float, na_value=np.nan)
    finite = numbers[np.isfinite(numbers)]
    counted = column not in BY_COLUMN and bool(np.all(finite == np.round(finite)))
    return numbers if column == "seed" or counted else group_levels(numbers, rtol)


def canonical(table: pd.DataFrame) -> pd.DataFrame:
    """Return a new table in canonical order with float columns, after checking what every sweep promises.

    Raises
    ------
    SweepError
        If the table is empty, lacks a column that every sweep has, or holds values that no run can have.
    """
    if "loss" not in table.columns or not any(name in table.columns for name in AXES):
        raise SweepError(
            f"a sweep needs loss and at least one of {', '.join(AXES)}; found the columns {', '.join(map(str, table))}"
        )
    if not len(table):
        raise SweepError("a sweep needs at least one run; the table has no rows")
    if not table.columns.is_unique:
        raise SweepError(f"the column {table.columns[table.columns.duplicated()][0]!r} occurs twice")
    known = [q.column for q in QUANTITIES if q.column in table.columns]
    others = [name for name in table.columns if name not in BY_COLUMN and name != "diverged"]
    result = table[[*known, *others]].reset_index(drop=True)
    diverged = table["diverged"].to_numpy(dtype=bool) if "diverged" in table.columns else np.zeros(len(table), bool)
    for name in (name for name in known if BY_COLUMN[name].numeric):
        try:
            result[name] = table[name].to_numpy(dtype=float, na_value=np.nan)
        except (TypeError, ValueError):
            raise SweepError(
                f"{name} should be numbers, found {table[name].dtype}; read_sweep names the rows"
            ) from None
    result["loss"] = result["loss"].where(~diverged)
    result["diverged"] = diverged
    _check_values(result)
    return result


def _check_values(table: pd.DataFrame) -> None:
    for name in (name for name in POSITIVE if name in table.columns):
        values = table[name].to_numpy()
        bad = ~((values > 0) & np.isfinite(values))
        if name == "loss":
            bad &= ~table["diverged"].to_numpy()
        if name not in ("loss", *AXES):
            bad &= ~np.isnan(values)  # may be unknown for some runs, such as those of one file among several
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise SweepError(
                f"{name} should be positive and finite: {int(bad.sum())} of {len(table)} values are not, first in "
                f"row {row + 1}: {values[row]:g}. A diverged run is marked by a true value in the column diverged"
            )


def remark(table: pd.DataFrame, levels: Callable[[str], np.ndarray]) -> list[Note]:
    """Return what a reader should know about the rows: diverged, repeated and far-off runs.

    Parameters
    ----------
    table : pandas.DataFrame
        A canonical table of runs.
    levels : callable
        The level of every run in a column.
    """
    notes = []
    diverged, loss = table["diverged"].to_numpy(), table["loss"].to_numpy()
    if diverged.any():
        text = f"{int(diverged.sum())} of {len(table)} runs have no finite loss; kept and marked as diverged"
        notes.append(Note("diverged", text, caution=True))
    axes = [name for name in AXES if name in table.columns]
    if repeated := len(table) - len(number_groups(*(levels(name) for name in axes))[0]):
        text = f"{repeated} of {len(table)} runs repeat the {', '.join(axes)} of another run; all are kept"
        notes.append(Note("repeats", text))
    by = [name for name in ("params", "tokens") if name in axes]
    first, cell = number_groups(*(levels(name) for name in by), rows=len(table))
    if far := int((loss - lowest_of(cell, loss, len(first))[cell] > FAR_OFF).sum()):
        where = f"over {FAR_OFF} nats above the best of their cell"
        text = f"{far} of {len(table)} runs lie {where}: diverged or far from tuned; all are kept"
        notes.append(Note("far_off", text))
    return notes
