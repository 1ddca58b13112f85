"""Predictions from a fit, with intervals, and how far they reach beyond the data."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from scalefit.errors import ExtrapolationWarning, LawError
from scalefit.fitting.fit_values import FitValues, check_level
from scalefit.solvers.students_t import t_quantile
from scalefit.vocabulary import column_of, format_number

Array = np.ndarray


def predict(fit: FitValues, table: pd.DataFrame | None, named: Mapping[str, Any], level: float) -> pd.DataFrame:
    """Do the work of `Fit.predict`; see there."""
    check_level(level)
    quantile = t_quantile(level, fit.dof)
    inputs = _collect(fit, table, named)
    arrays = fit.law.read_inputs(inputs)
    derivation = fit.law.derivation
    with np.errstate(all="ignore"):
        value, jacobian = derivation.function(fit.space)(fit.phi[None], derivation.enter(arrays))
    center = np.broadcast_to(value[0], len(inputs)).astype(float)
    slopes = np.broadcast_to(jacobian[0], (len(fit.phi), len(inputs)))
    half = quantile * np.sqrt(_variance(slopes, fit.covariance) + fit.scatter**2)
    half = np.where(np.isnan(half), np.inf, half)
    low, high = center - half, center + half
    if fit.space == "log":
        with np.errstate(over="ignore"):
            center, low, high = np.exp(center), np.exp(low), np.exp(high)
    reach = _reach(fit, inputs)
    _warn_beyond(fit, reach)
    farthest = np.max([np.ones(len(inputs)), *reach.values()], axis=0)
    return inputs.assign(prediction=center, lo=low, hi=high, reach=farthest)


def reach_of(fit: FitValues, inputs: pd.DataFrame) -> pd.DataFrame:
    """Return, for each point and input, the factor by which it lies outside the fitted range (1 inside).

    For an input that is not a positive quantity of the vocabulary the distance outside is counted in widths of the
    range, plus one.
    """
    columns = _reach(fit, inputs)
    return pd.DataFrame(columns, index=inputs.index) if columns else pd.DataFrame({"": np.ones(len(inputs))})


def _reach(fit: FitValues, inputs: pd.DataFrame) -> dict[str, Array]:
    columns: dict[str, Array] = {}
    logged = fit.law.derivation.input_logged
    for name, old, new, log in zip(
        fit.law.inputs, fit.law.read_inputs(fit.rows), fit.law.read_inputs(inputs), logged, strict=True
    ):
        low, high = old.min(), old.max()
        if log:
            factor = np.maximum(new / high, low / new)
        else:
            width = (high - low) or 1.0
            factor = 1 + np.maximum(new - high, low - new) / width
        columns[column_of(name)] = np.maximum(factor, 1.0)
    return columns


def _collect(fit: FitValues, table: pd.DataFrame | None, named: Mapping[str, Any]) -> pd.DataFrame:
    """Bring the inputs, however given, into one table with columns in words."""
    wanted = [column_of(name) for name in fit.law.inputs]
    if table is not None and not isinstance(table, pd.DataFrame):
        raise LawError(f"expected a DataFrame of inputs or inputs by name, found {type(table).__name__}")
    columns = table.columns if table is not None else ()
    given: dict[str, Any] = {column_of(str(name)): table[name].to_numpy() for name in columns}  # type: ignore[index]
    given |= {column_of(name): value for name, value in named.items()}
    unknown = [column_of(name) for name in named if column_of(name) not in wanted]
    missing = [name for name in wanted if name not in given]
    if unknown and not wanted:
        raise LawError(
            f"{fit.law.formula!r} has no inputs, found {', '.join(unknown)}; its prediction is the same everywhere: "
            "ask for it with predict()"
        )
    if unknown or missing:
        problem = f"missing {', '.join(missing)}" if missing else f"{', '.join(unknown)} is not an input"
        raise LawError(f"{fit.law.formula!r} predicts from {', '.join(wanted)}; {problem}")
    arrays = {name: _numbers(name, given[name]) for name in wanted}
    _check_positive(fit, arrays)
    try:
        (rows,) = np.broadcast_shapes((1,), *(array.shape for array in arrays.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise LawError(f"the inputs do not fit together, expected one number or as many of each: {shapes}") from None
    return pd.DataFrame({name: np.broadcast_to(array, rows) for name, array in arrays.items()}, index=range(rows))


def _numbers(name: str, given: Any) -> Array:
    try:
        values = np.atleast_1d(np.asarray(given, dtype=float))
    except (TypeError, ValueError):
        raise LawError(f"{name}: expected numbers to predict at, found {given!r}") from None
    if not np.isfinite(values).all():
        raise LawError(f"{name}: expected finite numbers to predict at, found {values[~np.isfinite(values)][0]}")
    return values


def _check_positive(fit: FitValues, arrays: Mapping[str, Array]) -> None:
    for name, log in zip(arrays, fit.law.derivation.input_logged, strict=True):
        if log and (arrays[name] <= 0).any():
            raise LawError(f"{name}: expected a positive number, found {arrays[name].min()}")


def _variance(slopes: Array, covariance: Array) -> Array:
    """Return j C j' for every column of slopes; infinite where an unidentified parameter matters."""
    finite = np.where(np.isfinite(covariance), covariance, 0.0)
    loose = ~np.isfinite(np.diag(covariance))
    variance = np.einsum("pn,pq,qn->n", slopes, finite, slopes)
    return np.where((slopes[loose] != 0).any(axis=0), np.inf, np.maximum(variance, 0.0))


def _warn_beyond(fit: FitValues, reach: Mapping[str, Array]) -> None:
    worst = {name: float(factors.max(initial=1.0)) for name, factors in reach.items()}
    parts = [f"{name} by {format_number(factor, 3)}x" for name, factor in worst.items() if factor > 1 + 1e-9]
    if not parts:
        return
    warnings.warn(
        f"{fit.law.formula!r} is predicted beyond the range it was fitted to: {', '.join(parts)}",
        ExtrapolationWarning,
        stacklevel=4,
    )
