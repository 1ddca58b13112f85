"""Fits for others: as JSON that is read back through checks, and as lmfit's own results."""

from __future__ import annotations

import inspect
import json
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scalefit._values import Note
from scalefit.errors import FitError, ScalefitError
from scalefit.fitting.clusters import repeated_groups
from scalefit.fitting.fit_values import FitStatus, FitValues
from scalefit.laws.formula import Law
from scalefit.solvers.losses import loss_from_dict, loss_to_dict
from scalefit.vocabulary import check_data_unit, column_of

if TYPE_CHECKING:
    import lmfit

Array = np.ndarray

SCHEMA = 2
"""Version of the file format; files of a newer version are refused."""


def to_record(fit: FitValues) -> dict[str, Any]:
    """Return a fit as what JSON can hold."""
    written = {name: write(getattr(fit, name)) for name, (write, _) in _FIELDS.items()}
    # For people and other programs, before the long arrays: `read_record` computes both from phi and the covariance.
    table = fit.table
    derived = {
        "values": _write(fit.values),
        "stderr": _write(dict(zip(table["parameter"], table["stderr"], strict=True))),
    }
    summary = {name: written.pop(name) for name in _SUMMARY}
    return {"schema": SCHEMA, "kind": "scalefit.Fit", **summary, **derived, **written}


def read_record(source: str | Path) -> dict[str, Any]:
    """Return the fields of a fit read from a file or from JSON text, checked to belong together."""
    record = _read(source)
    try:
        there = {name: read for name, (_, read) in _FIELDS.items() if name not in _LATER or name in record}
        fields = {name: read(record[name]) for name, read in there.items()}
        fields["_rows"] = fields.pop("rows")
        fit = FitValues(**fields)
        _check_whole(fit)
        _check_values(fit, record["values"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, ScalefitError) as error:
        raise FitError(f"this is not a complete fit: {type(error).__name__}: {error}") from error
    return fields


def _check_whole(fit: FitValues) -> None:
    """Raise ValueError unless the parts of a fit belong together."""
    p, n = len(fit.law.parameters), fit.n
    columns = [column_of(name) for name in (*fit.law.inputs, fit.law.target)]
    promises = {
        "rows": list(fit.rows) == columns and bool(np.isfinite(fit.rows.to_numpy()).all()),
        "phi": fit.phi.shape == (p,) and bool(np.isfinite(fit.phi).all()),
        "covariance": fit.covariance.shape == (p, p),
        "bounds": fit.lower.shape == fit.upper.shape == (p,) and bool((fit.lower <= fit.upper).all()),
        "states": len(fit.states) == p and set(fit.states) <= {"free", "fixed", "at bound", "unidentified"},
        "weights": fit.weights.shape == (n,) and bool((fit.weights >= 0).all()),
        "censored": fit.censored is None or (fit.censored.shape == (n,) and set(fit.censored) <= {-1, 0, 1}),
        "scale": fit.censored is None or fit.scale > 0,
        "shrinkage": 0 <= fit.shrinkage < np.inf,
        "errors": fit.errors is None
        or (fit.errors.ndim == 2 and len(fit.errors) == n and bool((fit.errors[:, 0] >= 0).all())),
        "unread": set(fit.unread) <= {"params", "tokens"}
        and bool((fit.unread.to_numpy() > 0).all())
        and len(fit.unread) in (0, n),
        "cells": fit.cells.shape == (n,) and bool(((fit.cells >= 0) & (fit.cells < max(n, 1))).all()),
        "labels": fit.labels.empty or len(fit.labels) == n,
        "ties": all(set(law.parameters) <= set(fit.law.parameters) for law in fit.tied_laws.values()),
        "space": fit.space == "plain" or bool((fit.rows[columns[-1]] > 0).all()),
    }
    broken = [name for name, kept in promises.items() if not kept]
    if broken:
        raise ValueError(f"{', '.join(broken)} cannot be those of {fit.law.formula!r} on {n} rows")


def _check_values(fit: FitValues, written: Any) -> None:
    """Raise ValueError unless the values that a reader of the file sees are those that are computed with."""
    told = {str(name): _read_number(value) for name, value in written.items()}
    values = dict(fit.values)
    if told.keys() != values.keys() or not all(
        np.isclose(told[name], value, rtol=1e-9, atol=0.0, equal_nan=True) for name, value in values.items()
    ):
        raise ValueError("values are not those of phi")


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a crash leaves the old one or the new one, never half of one."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            # On disk before the rename: a crash between the two would else leave an empty file under the name.
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise FitError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _read(source: str | Path) -> dict[str, Any]:
    is_text = isinstance(source, str) and source.lstrip().startswith("{")
    if not is_text and Path(source).exists() and not Path(source).is_file():
        raise FitError(f"cannot read the fit {source}: it is a folder, a pipe or a device")
    try:
        text = str(source) if is_text else Path(source).read_text(encoding="utf-8")
        record = json.loads(text)
    except OSError as error:
        raise FitError(f"cannot read the fit {source}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise FitError(f"{'the text' if is_text else source} is not JSON: {error}") from error
    if not isinstance(record, dict) or record.get("kind") != "scalefit.Fit":
        raise FitError("expected a fit written by Fit.to_json, found other JSON")
    if type(record.get("schema")) is not int or record["schema"] != SCHEMA:
        raise FitError(
            f"expected schema version {SCHEMA}, found {record.get('schema')!r}; "
            "read it with the version of scalefit that wrote it, or fit again"
        )
    return record


_SPECIAL = {"inf": np.inf, "-inf": -np.inf, "nan": np.nan}


def _write(numbers: Any) -> Any:
    """Return a number, or an array or mapping of numbers, as JSON can hold it."""
    if isinstance(numbers, Mapping):
        return {name: _write(value) for name, value in numbers.items()}
    if np.ndim(numbers) > 0:
        return [_write(value) for value in numbers]
    # JSON has no infinity and no NaN, and other programs refuse those that Python would write: they become words.
    return float(numbers) if np.isfinite(numbers) else str(float(numbers))


def _read_number(value: Any) -> float:
    return float(_SPECIAL[value]) if isinstance(value, str) else float(value)


def _read_array(values: Any) -> Array:
    numbers = [_read_array(value) if isinstance(value, list) else _read_number(value) for value in values]
    return np.array(numbers, dtype=float)


def _read_rows(columns: Any) -> pd.DataFrame:
    return pd.DataFrame({str(name): _read_array(column) for name, column in columns.items()})


def _read_sides(sides: Any) -> Array | None:
    return None if sides is None else np.array(sides, dtype=int)


def _write_labels(labels: pd.DataFrame) -> dict[str, str]:
    return {name: " ".join(map(str, code)) for name, code in repeated_groups(labels).items()}


def _read_labels(groups: Any) -> pd.DataFrame:
    return pd.DataFrame({str(name): np.array(code.split(), dtype=int) for name, code in groups.items()})


def _read_notes(notes: Any) -> tuple[Note, ...]:
    return tuple(Note(str(note["code"]), str(note["text"]), bool(note["caution"])) for note in notes)


# How each field is written and read, in the order of the file. What is read is made of the type it must have, so that
# a file that was edited by hand fails here, with the name of its fault, and not later in some computation.
_FIELDS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "law": (Law.to_dict, Law.from_dict),
    "ties": (dict, lambda ties: {str(name): str(text) for name, text in ties.items()}),
    "space": (str, {"log": "log", "plain": "plain"}.__getitem__),
    "loss": (loss_to_dict, loss_from_dict),
    "status": (attrgetter("name"), FitStatus.__getitem__),
    **dict.fromkeys(("phi", "covariance", "lower", "upper", "weights"), (_write, _read_array)),
    **dict.fromkeys(("objective", "scale", "condition"), (_write, _read_number)),
    "states": (list, lambda states: tuple(map(str, states))),
    "dof": (int, int),
    "rows": (lambda rows: _write(rows.to_dict("list")), _read_rows),
    "cells": (Array.tolist, lambda cells: np.array(cells, dtype=int)),
    "notes": (lambda notes: [asdict(note) for note in notes], _read_notes),
    "source": (str, str),
    "data_unit": (str, check_data_unit),
    "censored": (lambda side: side if side is None else side.tolist(), _read_sides),
    "shrinkage": (float, float),
    "errors": (
        lambda errors: errors if errors is None else _write(errors),
        lambda e: e if e is None else _read_array(e),
    ),
    "unread": (lambda rows: _write(rows.to_dict("list")), _read_rows),
    "witnesses": (str, str),
    "labels": (_write_labels, _read_labels),
}
_LATER = ("errors", "unread", "witnesses", "labels")  # files written before these were kept are read without
_SUMMARY = ("law", "ties", "space", "loss", "status")  # stand before the values, where a reader of the file looks first


def to_parameters(fit: FitValues) -> lmfit.Parameters:
    """Return the fitted parameters as lmfit.Parameters with stderr, correl, bounds and ties."""
    import lmfit

    made = lmfit.Parameters()
    natural = fit.law.derivation.to_natural
    low, high = natural(fit.lower), natural(fit.upper)
    for j, name in enumerate(fit.law.parameters):
        vary = fit.states[j] != "fixed"
        limits = {"min": float(low[j]), "max": float(high[j])} if vary else {}
        made.add(name, value=fit.values[name], vary=vary, **limits)
    for name, text in fit.ties.items():
        made.add(name, expr=text)
    _attach_errors(made, fit.table, fit.natural_covariance)
    return made


def _attach_errors(params: lmfit.Parameters, table: pd.DataFrame, covariance: pd.DataFrame) -> None:
    errors = dict(zip(table["parameter"], table["stderr"], strict=True))
    known = [name for name, error in errors.items() if np.isfinite(error) and error > 0]
    for name in known:
        others = [other for other in known if other != name]
        params[name].stderr = float(errors[name])
        params[name].correl = {o: float(covariance.at[name, o] / errors[name] / errors[o]) for o in others}


def to_model_result(fit: FitValues) -> lmfit.model.ModelResult:
    """Return the fit as an lmfit ModelResult.

    Its model maps x (rows, inputs), the columns in the order of `Fit.rows`, to the target as the residuals see it: its
    log for a fit in log space. A robust loss is handed over as the signed root of twice the loss, so that lmfit's sum
    of squares is twice the objective; standard errors and correlations are scalefit's, since lmfit's assume squared
    residuals.
    """
    import lmfit

    if fit.is_bound.any() or fit.shrinkage > 0:
        what = "rows that are bounds" if fit.is_bound.any() else "a prior on its curvature"
        raise FitError(
            f"this fit has {what}, for which an lmfit ModelResult has no place; fit without, or use Fit.params"
        )
    law, rows = fit.law, fit.rows
    observed, given = fit.problem.observed, rows.iloc[:, :-1].to_numpy(dtype=float)

    def function(x: Array, **values: float) -> Array:
        table = pd.DataFrame(x, columns=list(rows.columns[:-1]), index=range(len(x)))
        value = np.broadcast_to(law({name: values[name] for name in law.parameters}, table), len(x))
        with np.errstate(all="ignore"):
            value = np.log(value) if fit.space == "log" else value
        if not fit.loss.robust or not np.array_equal(x, given):
            return value
        residual = value - observed
        return observed + np.sign(residual) * np.sqrt(2 * fit.loss.value(residual))

    arguments = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("x", *fit.values)]
    function.__signature__ = inspect.Signature(arguments)  # type: ignore[attr-defined]  # lmfit reads names from it
    model = lmfit.Model(function, independent_vars=["x"], name=law.formula)
    tight = {"xtol": 1e-12, "ftol": 1e-12, "gtol": 0.0}
    result = model.fit(observed, to_parameters(fit), x=given, weights=np.sqrt(fit.weights), fit_kws=tight)
    _attach_errors(result.params, fit.table, fit.natural_covariance)
    return result
