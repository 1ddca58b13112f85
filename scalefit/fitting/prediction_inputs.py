"""The inputs of a prediction, however they are given: checked, brought together, under the caller's index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from scalefit.errors import LawError
from scalefit.fitting.fit_values import FitValues
from scalefit.vocabulary import column_of, parse_number

Array = np.ndarray


def prediction_inputs(fit: FitValues, table: pd.DataFrame | None, named: Mapping[str, Any]) -> pd.DataFrame:
    """Bring the inputs of a law, however given, into one table with columns in words."""
    wanted = [column_of(name) for name in fit.law.inputs]
    if table is not None and not isinstance(table, pd.DataFrame):
        raise LawError(f"expected a DataFrame of inputs or inputs by name, found {type(table).__name__}")
    columns = table.columns if table is not None else ()
    given: dict[str, Any] = {column_of(str(name)): table[name] for name in columns}  # type: ignore[index]
    given |= {column_of(name): value for name, value in named.items()}
    beside = [name for name in fit.places if name not in wanted]
    unknown = [column_of(name) for name in named if column_of(name) not in (*wanted, *beside)]
    missing = [name for name in wanted if name not in given]
    if unknown and not wanted:
        raise LawError(
            f"{fit.law.formula!r} has no inputs, found {', '.join(unknown)}; its prediction is the same everywhere: "
            "ask for it with predict()"
        )
    if unknown or missing:
        problem = f"missing {', '.join(missing)}" if missing else f"{', '.join(unknown)} is not an input"
        raise LawError(f"{fit.law.formula!r} predicts from {', '.join(wanted)}; {problem}")
    inputs = rows_of({name: given[name] for name in (*wanted, *beside) if name in given})
    logged = [column_of(n) for n, log in zip(fit.law.inputs, fit.law.derivation.input_logged, strict=True) if log]
    for name in inputs:
        if (name in logged or name in fit.places) and (inputs[name] <= 0).any():
            raise LawError(f"{name}: expected a positive number, found {inputs[name].min()}")
    return inputs


def rows_of(given: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row a point, with the index of the series among the inputs; a single value holds for every row.

    Examples
    --------
    >>> rows_of({"params": pd.Series([1e7, 1e8], ["small", "big"]), "tokens": "2B"})["tokens"].to_dict()
    {'small': 2000000000.0, 'big': 2000000000.0}
    """
    arrays = {name: _numbers(name, value) for name, value in given.items()}
    try:
        (rows,) = np.broadcast_shapes((1,), *(array.shape for array in arrays.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise LawError(f"the inputs do not fit together, expected one number or as many of each: {shapes}") from None
    return pd.DataFrame({name: np.broadcast_to(a, rows) for name, a in arrays.items()}, index=_index(given, rows))


def _index(given: Mapping[str, Any], rows: int) -> pd.Index:
    """Return the index of the inputs that are series of all rows; raise if they are of different rows."""
    labels = {name: value.index for name, value in given.items() if isinstance(value, pd.Series) and len(value) == rows}
    first, *others = labels or [""]
    for name in others:
        if rows > 1 and not labels[name].equals(labels[first]):
            raise LawError(
                f"{first} and {name} are series with different indexes, expected the same rows in the same order; put "
                "them into one DataFrame, or give .to_numpy() of each to pair them by position"
            )
    return labels.get(first, pd.RangeIndex(rows))


def _numbers(name: str, given: Any) -> Array:
    """Return finite numbers; texts are read as on the command line, such as 7B."""
    try:
        values = np.atleast_1d(np.asarray(given))
        if values.dtype.kind in "OUT":
            values = np.array([parse_number(v) if isinstance(v, str) else v for v in values.flat]).reshape(values.shape)
        values = values.astype(float)
    except (TypeError, ValueError):
        raise LawError(f"{name}: expected numbers to predict at, such as 7e9 or '7B', found {_shown(given)}") from None
    if not np.isfinite(values).all():
        raise LawError(f"{name}: expected finite numbers to predict at, found {values[~np.isfinite(values)][0]}")
    return values


def _shown(given: Any) -> str:
    return " ".join(repr(given.tolist() if isinstance(given, pd.Series) else given).split())[:100]
