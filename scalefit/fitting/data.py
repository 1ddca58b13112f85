"""From a table, a sweep or optima to checked rows for one law."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from scalefit.errors import FitError, LawError, SweepError
from scalefit.laws.formula import Law
from scalefit.notes import Note
from scalefit.observations import Observations
from scalefit.sweep import Sweep, group_levels
from scalefit.vocabulary import column_of, quantity_of

Array = np.ndarray


def collect(law: Law, data: Any, weights: Any) -> tuple[Law, Observations]:
    """Return the law with its inputs settled and the rows it is fitted to: its inputs, then the target, as floats.

    Raises
    ------
    SweepError
        If a number is missing, not finite or not positive where it must be.
    LawError
        If the law needs a column that the data lack.
    FitError
        If the data are runs of a sweep and the law is for their settings.
    """
    observed = _observations(law, data)
    bound = law.bind(observed.table.columns)
    target = _target_column(bound, observed.table)
    names = [column_of(n) if column_of(n) in observed.table else n for n in bound.inputs]
    columns = {name: _numeric(observed.table[name], name) for name in (*names, target)}
    rows = pd.DataFrame(columns)
    for name in rows:
        _check_values(rows[name].to_numpy(), str(name), positive=quantity_of(str(name)) is not None)
    counted = _weights(weights, observed, len(rows))
    notes = (*observed.notes, *_duplicates(rows))
    return bound, replace(observed, table=rows, weights=counted, notes=notes)


def cells_of(observed: pd.DataFrame) -> Array:
    """Number the (params, tokens) cells of the rows; rows with equal inputs form a cell when neither is there."""
    names = [name for name in ("params", "tokens") if name in observed]
    if names:
        levels = np.column_stack([group_levels(observed[name].to_numpy(dtype=float)) for name in names])
    else:
        levels = observed.iloc[:, :-1].to_numpy(dtype=float)
    if levels.shape[1] == 0:
        return np.arange(len(observed))
    return np.unique(levels, axis=0, return_inverse=True)[1].ravel()


def _observations(law: Law, data: Any) -> Observations:
    target = column_of(law.target)
    if isinstance(data, Sweep) and target in ("lr", "batch"):
        raise FitError(
            f"{law.formula!r} is a law for the best {target}, but in a sweep {target} is a setting of every run; "
            f"find the optima first: sf.fit(law, sf.find_optima(sweep, over={target!r}))"
        )
    if hasattr(data, "observations"):
        return data.observations(target)
    if isinstance(data, Mapping):
        data = pd.DataFrame(dict(data))
    table = data if isinstance(data, pd.DataFrame) else getattr(data, "table", None)
    if not isinstance(table, pd.DataFrame):
        raise FitError(f"expected a DataFrame, Sweep, Optima or other table, found {type(data).__name__}")
    return Observations(table.reset_index(drop=True))


def _target_column(law: Law, table: pd.DataFrame) -> str:
    for name in (column_of(law.target), law.target):
        if name in table:
            return name
    wanted, there = column_of(law.target), ", ".join(map(str, table))
    raise LawError(f"{law.formula!r} is fitted to the column {wanted!r}; the table has: {there}")


def _numeric(column: pd.Series, name: str) -> Array:
    numbers = pd.to_numeric(column, errors="coerce")
    text = numbers.isna() & column.notna()
    if text.any():
        first = int(np.flatnonzero(text)[0])
        found = f"text in {int(text.sum())} row(s), first row {first + 1}: {column.iloc[first]!r}"
        raise SweepError(f"{name}: expected numbers, found {found}")
    return numbers.to_numpy(dtype=float)


def _check_values(values: Array, name: str, *, positive: bool) -> None:
    bad, what = ~np.isfinite(values), "finite numbers"
    if positive and not bad.any():
        bad, what = values <= 0, "positive numbers"
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        found = f"{int(bad.sum())} row(s) that are not, first row {first + 1}: {values[first]}"
        remedy = "leave such rows out, or read the table with sf.read_sweep, which can mark diverged runs"
        raise SweepError(f"{name}: expected {what}, found {found}; {remedy}")


def _weights(given: Any, observed: Observations, count: int) -> Array:
    if given is None:
        given = np.ones(count) if observed.weights is None else observed.weights
    elif isinstance(given, str):
        if given not in observed.table:
            raise FitError(f"weights={given!r} is not a column; the table has: {', '.join(map(str, observed.table))}")
        given = observed.table[given]
    weights = np.asarray(given, dtype=float)
    if weights.shape != (count,):
        raise FitError(f"weights: expected {count} numbers, one a row, found shape {weights.shape}")
    if not np.isfinite(weights).all() or (weights < 0).any() or not (weights > 0).any():
        raise FitError("weights: expected finite numbers that are not negative, and not all zero")
    return weights


def _duplicates(rows: pd.DataFrame) -> tuple[Note, ...]:
    count = int(rows.duplicated().sum())
    if count == 0:
        return ()
    text = f"{count} of {len(rows)} rows repeat another row exactly; errors count them as independent observations"
    return (Note("duplicates", text, caution=True),)
