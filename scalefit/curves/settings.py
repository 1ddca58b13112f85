"""Columns beside the curve: what is one value a run, what changes along it, and what must not change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scalefit.curves.points import Points
from scalefit.errors import SweepError
from scalefit.loaders.batch_units import CONTRADICTION, settle_batch
from scalefit.loaders.checks import check_numbers, to_numbers
from scalefit.loaders.rows import Rows
from scalefit.notes import Note
from scalefit.vocabulary import BY_COLUMN

Array = np.ndarray

_FIXED = ("batch", "params", "seq_len", "seed", "optimizer", "schedule")
"""Settings that a run has once; one that changes along the run is refused."""


@dataclass(frozen=True, eq=False)
class Split:
    """What was found beside the curve.

    Parameters
    ----------
    runs : dict of str to pandas.Series
        One value a run, by column.
    points : dict of str to pandas.Series
        One value a point, by column.
    notes : tuple of Note
    """

    runs: dict[str, pd.Series]
    points: dict[str, pd.Series]
    notes: tuple[Note, ...]


def numbers(values: pd.Series, column: str, rows: Rows) -> Array:
    """Return a column as floats, looking at each distinct text once."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        distinct = pd.Series(values.cat.categories, name=values.name)
        try:
            parsed = to_numbers(distinct, column, Rows.of(["the categories"], [len(distinct)]))
        except SweepError:
            return to_numbers(values.astype(object), column, rows)  # which names the row
        return np.append(parsed, np.nan)[values.cat.codes.to_numpy()]
    return to_numbers(values, column, rows)


def split(points: Points, columns: Mapping[str, str], read: Callable[[str], pd.Series]) -> Split:
    """Tell settings, one value a run, from what changes along the run.

    Parameters
    ----------
    points : Points
    columns : mapping of str to str
        From the column's name in the result to its name in the input.
    read : callable
        Returns a column of the input.

    Raises
    ------
    SweepError
        If a setting that a run has only once changes along it.
    """
    runs: dict[str, pd.Series] = {}
    along: dict[str, pd.Series] = {}
    notes: list[Note] = []
    for name, stored in columns.items():
        values = points.pick(read(stored))
        if name in BY_COLUMN and BY_COLUMN[name].numeric:
            values = pd.Series(numbers(values, name, points.rows), name=stored)
        elif pd.api.types.is_numeric_dtype(values) and not isinstance(values.dtype, np.dtype):  # with missing values
            values = pd.Series(values.to_numpy(dtype=float, na_value=np.nan), name=stored)
        at = _first_change(points, values)
        if at is None:
            runs[name] = _of_runs(points, values)
            continue
        if name in _FIXED:
            raise SweepError(_changes(points, name, values, at))
        if name == "lr":
            runs[name] = pd.Series(_largest(points, values.to_numpy()))
            text = f"{stored!r} changes along the runs: lr is the peak of each, and the schedule is kept as {stored!r}"
            notes.append(Note("schedule", text))
            along[stored] = values
            continue
        along[name] = values
    return Split(runs, along, tuple(notes))


def _first_change(points: Points, values: pd.Series) -> int | None:
    """Return the first point whose value is not that of its run; a number may be missing at some points."""
    if values.dtype.kind == "f":
        own = values.to_numpy()
        differs = (own != points.layout.spread(_largest(points, own))) & ~np.isnan(own)
        return int(differs.argmax()) if differs.any() else None
    codes = values.to_numpy() if values.dtype.kind in "iub" else _codes(values)
    first = points.layout.spread(codes[points.layout.starts])
    differs = codes != first
    return int(differs.argmax()) if differs.any() else None


def _codes(values: pd.Series) -> Array:
    try:
        return pd.factorize(values, use_na_sentinel=False)[0]
    except TypeError:  # lists, say
        return pd.factorize(values.map(repr))[0]


def _largest(points: Points, values: Array) -> Array:
    """Return the largest number of every run; NaN where there is none."""
    found = points.layout.largest(np.where(np.isnan(values), -np.inf, values))
    return np.where(found == -np.inf, np.nan, found)


def _of_runs(points: Points, values: pd.Series) -> pd.Series:
    """Return the value of every run."""
    if values.dtype.kind == "f":
        return pd.Series(_largest(points, values.to_numpy()))
    taken = values.iloc[points.layout.starts].reset_index(drop=True)
    return taken.astype(taken.cat.categories.dtype) if isinstance(taken.dtype, pd.CategoricalDtype) else taken


def _changes(points: Points, name: str, values: pd.Series, at: int) -> str:
    start = points.layout.starts[points.layout.code[at]]
    remedy = f"set the column aside with columns={{{name!r}: None}}, if tokens tell how far a run is"
    return (
        f"{name} should be one value a run and goes from {values.iloc[start]} to {values.iloc[at]} in "
        f"{points.describe(at)}; if rows of several runs share a name, run= names the columns that tell them apart; "
        f"if it was changed on purpose, {remedy}"
    )


def settle_units(
    points: Points, runs: pd.DataFrame, batch_unit: str | None, seq_len: float | None, data_unit: str
) -> tuple[dict[str, Array], pd.DataFrame, list[Note]]:
    """Return steps and tokens of all points as far as they follow, and the runs with their batch in the data unit.

    Raises
    ------
    SweepError
        If the unit of the batch can neither be taken from the arguments nor proven, or is contradicted.
    """
    x, layout = dict(points.x), points.layout
    last = points.rows.keep(layout.ends - 1)
    check_numbers(runs, last, "raise")
    ends = runs.assign(**{name: layout.at_end(values) for name, values in x.items()})
    ends, notes = settle_batch(ends, last, batch_unit, seq_len, data_unit)
    if "batch" not in ends:
        return x, runs, notes
    batch = ends["batch"].to_numpy()
    each = layout.spread(batch)
    if "tokens" not in x:
        x["tokens"] = x["steps"] * each
    elif "steps" not in x:
        x["steps"] = x["tokens"] / each
        notes.append(Note("derived", "there was no column for steps; steps = tokens / batch"))
    else:
        _check_along(points, x["steps"] * each, x["tokens"], each)
    return x, runs.assign(batch=batch), notes


def _check_along(points: Points, expected: Array, tokens: Array, batch: Array) -> None:
    """Refuse curves along which steps and tokens part, by more than one step and the usual tolerance."""
    off = np.abs(expected - tokens) > CONTRADICTION * tokens + 1.001 * batch
    if off.any():
        at = int(np.flatnonzero(off)[0])
        raise SweepError(
            f"steps * batch contradicts tokens in {int(off.sum())} of {len(off)} points, first {expected[at]:.6g} "
            f"against {tokens[at]:.6g} in {points.describe(at)}; if the batch was changed along the run, set it "
            "aside with columns={'batch': None}"
        )
