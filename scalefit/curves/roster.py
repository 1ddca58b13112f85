"""A table of runs that goes with the curves: settings that a tracker keeps apart from the history."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from scalefit.errors import SweepError
from scalefit.loaders.checks import check_numbers, to_numbers
from scalefit.loaders.columns import recognise, rename
from scalefit.loaders.rows import Rows
from scalefit.loaders.sources import gather
from scalefit.notes import Note
from scalefit.vocabulary import BY_COLUMN

_OUTCOMES = ("loss", "steps", "tokens", "weight_norm")
"""What the curves themselves tell; the totals and last values of the table are kept under other names."""


def read_roster(source: Any, names: list[str]) -> tuple[pd.DataFrame, list[Note]]:
    """Return the settings of the named runs, in their order.

    Parameters
    ----------
    source : path, DataFrame or list of dictionaries
        One row a run, with a column that names it.
    names : list of str
        The runs of the curves.

    Raises
    ------
    SweepError
        If it is no such table, names a run twice, or lacks one.
    """
    raws = gather(source)
    if len(raws) != 1:
        raise SweepError(f"runs= should be one table with a row a run, found {len(raws)} tables")
    raw, columns = raws[0], raws[0].columns
    found, notes = recognise(columns, None)
    if "run" not in found:
        raise SweepError(f"runs= has no column that names the run; its columns are: {', '.join(columns)}")
    rows = Rows.of([raw.name], [len(raw)])
    numbers = {
        name: to_numbers(raw.column(stored), name, rows) for name, stored in found.items() if BY_COLUMN[name].numeric
    }
    known = {name: values for name, values in numbers.items() if name not in _OUTCOMES}
    check_numbers(pd.DataFrame(known, index=raw.frame.index), rows, "raise")
    table = rename(raw.frame, found)[0].assign(**numbers)
    table = table.rename(columns={name: f"input_{name}" for name in _OUTCOMES})
    table["run"] = table["run"].astype(str)
    place = _match(table["run"], names, rows)
    left = len(table) - len(names)
    text = f"settings from {raw.name}, matched by run"
    text += f"; {left} of its {len(table)} runs have no curve" if left else ""
    settings = table.drop(columns=["run", "diverged"], errors="ignore").iloc[place].reset_index(drop=True)
    return settings, [Note("runs", text), *notes]


def _match(listed: pd.Series, names: list[str], rows: Rows) -> np.ndarray:
    """Return the row of every named run."""
    if listed.duplicated().any():
        row = int(np.flatnonzero(listed.duplicated())[0])
        raise SweepError(f"runs= names the run {listed.iloc[row]!r} twice, the second time in {rows.name(row)}")
    place = pd.Index(listed).get_indexer(pd.Index(names))
    if (place < 0).any():
        lacking = [name for name, at in zip(names, place, strict=True) if at < 0]
        raise SweepError(
            f"runs= lacks {len(lacking)} of {len(names)} runs, first {lacking[0]!r}; it names {listed.iloc[0]!r}"
        )
    return place
