"""From a table, a sweep or optima to checked rows for one law."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scalefit._levels import group_levels, number_groups
from scalefit._values import Note, Observations
from scalefit.errors import FitError, LawError, SweepError
from scalefit.laws.formula import Law
from scalefit.sweep import Sweep
from scalefit.vocabulary import AXES, QUANTITIES, column_of, quantity_of

Array = np.ndarray

_SAME = 1e-6
"""Values outside the vocabulary that differ relatively by less than this share a cell: jitter, not a setting."""


@dataclass(frozen=True, eq=False)
class Rows:
    """The checked rows of one fit, in the order the user gave them.

    Parameters
    ----------
    table : pandas.DataFrame
        The inputs of the law, then its target, as floats, with the columns named in words.
    weights : ndarray (n,)
    cells : ndarray of int (n,)
        The (params, tokens) cell of every row.
    notes : tuple of Note
    source : str
    data_unit : str
    censored : ndarray of int (n,) or None
        As in `Observations`.
    """

    table: pd.DataFrame
    weights: Array
    cells: Array
    notes: tuple[Note, ...]
    source: str
    data_unit: str = "tokens"
    censored: Array | None = None

    def canonical_order(self) -> Array:
        """Return the order of rows in which a fit adds them up, so that their order in the file changes nothing."""
        *inputs, target = (self.table[name].to_numpy() for name in self.table)
        order = np.argsort(target, kind="stable")
        if (np.diff(target[order]) > 0).all():
            return order
        side = np.zeros(len(target)) if self.censored is None else self.censored
        return np.lexsort([side, self.weights, *inputs, target])


def collect(law: Law, data: Any, weights: Any, bounds: str = "drop") -> tuple[Law, Rows]:
    """Return the law with its inputs settled and the rows it is fitted to.

    Raises
    ------
    SweepError
        If a number is missing, not finite or not positive where it must be.
    LawError
        If the law needs a column that the data lack.
    FitError
        If the data are runs of a sweep and the law is for their settings, or the weights do not fit the rows.
    """
    observed = _observations(law, data, bounds)
    table = observed.table
    bound = law.bind(table.columns)
    columns = {column_of(name): _numeric(table, _column(table, name)) for name in bound.inputs}
    if column_of(bound.target) in columns:
        raise LawError(f"{bound.formula!r}: the target {bound.target!r} is also an input")
    columns[column_of(bound.target)] = _numeric(table, _target_column(bound, table))
    rows = pd.DataFrame(columns, index=range(len(table)))
    for name in columns:
        _check_values(columns[name], name, positive=quantity_of(name) is not None)
    counted = _weights(weights, observed, data)
    notes = (*observed.notes, *_duplicates(rows, table), *_unread(rows, table, data))
    side = _sides(observed)
    return bound, Rows(
        rows, counted, _cells(rows, table, observed.rtol), notes, observed.source, observed.data_unit, side
    )


def _observations(law: Law, data: Any, bounds: str) -> Observations:
    target = column_of(law.target)
    if isinstance(data, Sweep) and target in ("lr", "batch"):
        raise FitError(
            f"{law.formula!r} is a law for the best {target}, but in a sweep {target} is a setting of every run; "
            f"find the optima first: sf.fit(law, sf.find_optima(sweep, over={target!r}))"
        )
    if isinstance(data, Observations):
        return data if bounds == "censor" or data.censored is None else data.points()
    if hasattr(data, "observations"):
        bounded = getattr(data, "bounded_observations", None) if bounds == "censor" else None
        return (bounded or data.observations)(target)
    if isinstance(data, Mapping):
        try:
            data = pd.DataFrame({str(name): np.atleast_1d(column) for name, column in data.items()})
        except ValueError as error:
            raise SweepError(f"the columns do not make a table: {error}") from None
    table = data if isinstance(data, pd.DataFrame) else getattr(data, "table", None)
    if not isinstance(table, pd.DataFrame):
        raise FitError(f"expected a DataFrame, Sweep, Optima or other table, found {type(data).__name__}")
    if not table.columns.is_unique:
        raise SweepError(f"the column {table.columns[table.columns.duplicated()][0]!r} occurs twice")
    unit = table.attrs.get("data_unit", "tokens") if table is data else getattr(data, "data_unit", "tokens")
    rtol = 0.01 if table is data else getattr(data, "rtol", 0.01)
    return Observations(table.reset_index(drop=True), data_unit=unit, rtol=rtol)


def _sides(observed: Observations) -> Array | None:
    """Return which rows are bounds and on which side; None when none is."""
    if observed.censored is None:
        return None
    side = np.asarray(observed.censored)
    if side.shape != (len(observed.table),) or not np.isin(side, (-1, 0, 1)).all():
        raise SweepError(f"censored: expected -1, 0 or 1 for each of {len(observed.table)} rows, found {side!r}")
    return side.astype(int) if side.any() else None


def _column(table: pd.DataFrame, name: str) -> str:
    return column_of(name) if column_of(name) in table else name


def _target_column(law: Law, table: pd.DataFrame) -> str:
    name = _column(table, law.target)
    if name in table:
        return name
    wanted, there = column_of(law.target), ", ".join(map(str, table))
    raise LawError(f"{law.formula!r} is fitted to the column {wanted!r}; the table has: {there}")


def _numeric(table: pd.DataFrame, name: str) -> Array:
    column = table[name]
    kind = column.dtype.kind
    if kind == "f":
        return column.to_numpy(dtype=float, na_value=np.nan)
    if kind in "mMc" or (kind == "b" and quantity_of(name) is not None):
        raise SweepError(f"{name}: expected numbers, found {column.dtype}")
    numbers = pd.to_numeric(column, errors="coerce")
    text = (numbers.isna() & column.notna()).to_numpy(dtype=bool)
    if text.any():
        first = int(np.flatnonzero(text)[0])
        found = f"text in {int(text.sum())} row(s), first row {first + 1}: {column.iloc[first]!r}"
        raise SweepError(f"{name}: expected numbers, found {found}")
    return numbers.to_numpy(dtype=float, na_value=np.nan)


def _check_values(values: Array, name: str, *, positive: bool) -> None:
    bad, what = ~np.isfinite(values), "finite numbers"
    if positive and not bad.any():
        bad, what = values <= 0, "positive numbers"
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        found = f"{int(bad.sum())} row(s) that are not, first row {first + 1}: {values[first]}"
        remedy = "leave such rows out, or read the table with sf.read_sweep, which can mark diverged runs"
        raise SweepError(f"{name}: expected {what}, found {found}; {remedy}")


def _weights(given: Any, observed: Observations, data: Any) -> Array:
    count = len(observed.table)
    if given is None:
        given = np.ones(count) if observed.weights is None else observed.weights
    elif isinstance(given, str):
        if given not in observed.table:
            raise FitError(f"weights={given!r} is not a column; the table has: {', '.join(map(str, observed.table))}")
        given = _numeric(observed.table, given)
    elif isinstance(given, pd.Series) and isinstance(data, pd.DataFrame) and not given.index.equals(data.index):
        raise FitError("weights: the index of the Series is not that of the table; pass weights.to_numpy() if it fits")
    try:
        weights = np.array(given, dtype=float)
    except (TypeError, ValueError):
        raise FitError(f"weights: expected {count} numbers, one a row, found {type(given).__name__}") from None
    if weights.shape != (count,):
        raise FitError(f"weights: expected {count} numbers, one a row, found shape {weights.shape}")
    if count and (not np.isfinite(weights).all() or (weights < 0).any() or not (weights > 0).any()):
        raise FitError("weights: expected finite numbers that are not negative, and not all zero")
    return weights


def _duplicates(rows: pd.DataFrame, table: pd.DataFrame) -> tuple[Note, ...]:
    """Remark on rows that repeat another in everything a run is described by, its target included."""
    target = np.sort(rows.iloc[:, -1].to_numpy())
    if (np.diff(target) > 0).all():  # rows that repeat each other share a target: spares most fits the slow search
        return ()
    known = [q.column for q in QUANTITIES if q.numeric and q.column != "seed"]
    others = {name: table[name] for name in known if name in table and name not in rows}
    count = int(rows.assign(**others).duplicated().sum())
    if count == 0:
        return ()
    text = f"{count} of {len(rows)} rows repeat another row exactly; errors count them as independent observations"
    return (Note("duplicates", text, caution=True),)


def _unread(rows: pd.DataFrame, table: pd.DataFrame, data: Any) -> tuple[Note, ...]:
    """Doubt a law for learning rates that does not read what their cells differ by."""
    own = [name for name in getattr(data, "by", ()) if name in AXES and name in table and name not in rows]
    left = [name for name in own if table[name].nunique() > 1] if "lr" in rows else []
    if not left:
        return ()
    vary, them = ("varies", "it") if len(left) == 1 else ("vary", "them")
    text = (
        f"{' and '.join(left)} {vary} between these optima and the law does not read {them}: the effect counts as "
        "scatter, or as that of what it reads; select a level, or fit a law that reads more"
    )
    return (Note("unread", text, caution=True),)


def _cells(rows: pd.DataFrame, table: pd.DataFrame, rtol: float) -> Array:
    """Number the (params, tokens) cells of the rows, read or not; without either, rows of equal inputs are a cell."""
    levels = {}
    for name in ("params", "tokens"):
        if name in rows:
            levels[name] = group_levels(rows[name].to_numpy(), rtol)
        elif name in table:
            values = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
            levels[name] = group_levels(values, rtol)
    if not levels:
        levels = {name: _clusters(rows[name].to_numpy()) for name in rows.columns[:-1]}
    if not levels:
        return np.arange(len(rows))
    return number_groups(*levels.values())[1]


def _clusters(values: Array) -> Array:
    """Number the groups of values that differ by no more than jitter."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    opens = np.diff(ordered) > _SAME * np.maximum(np.abs(ordered[1:]), np.abs(ordered[:-1]))
    groups = np.empty(len(values), dtype=int)
    groups[order] = np.concatenate([[0], np.cumsum(opens)])[: len(values)]
    return groups
