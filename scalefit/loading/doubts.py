"""Checks of the values in a table of runs: that they are numbers, finite and positive."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note
from scalefit.errors import SweepError
from scalefit.loading.frames import Rows
from scalefit.schema import POSITIVE
from scalefit.vocabulary import BY_COLUMN

NONFINITE = ("raise", "diverged", "drop")

_FEW_PARAMS = 1000
"""Below this many parameters a model is more likely counted in millions than trained."""

_MANY_NATS = 100.0
"""No model that chooses among fewer than e^100 tokens is this bad in every run."""

_COMMA = r"\s*[+-]?\d+,\d+(e[+-]?\d+)?\s*\Z"


def to_numbers(values: pd.Series, column: str, rows: Rows) -> np.ndarray:
    """Return a column as floats; numbers written as text count as numbers, everything else does not.

    Raises
    ------
    SweepError
        Naming the column, how many values are no numbers, the first of them and its row.
    """
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        if pd.api.types.is_complex_dtype(values):
            raise SweepError(f"{_called(values, column)} holds complex numbers")
        return values.to_numpy(dtype=float, na_value=np.nan)
    objects = values.astype(object).to_numpy(dtype=object)
    texts = pd.Series([_spelled(value) for value in objects], dtype=object)
    missing = texts.str.lower().isin(("", "nan", "+nan", "-nan")).to_numpy(dtype=bool)
    parsed = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=float, copy=True)
    bad = np.isnan(parsed) & ~missing
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        comma = bool(texts[bad].str.match(_COMMA).all())
        remedy = "write decimals with a point" if comma else "correct the values, or name another column with columns="
        raise SweepError(
            f"{_called(values, column)} should hold numbers: {int(bad.sum())} of {len(bad)} values are not, "
            f"first {_short(objects[row])} in {rows.name(row)}; {remedy}"
        )
    good = ~np.isnan(parsed)
    parsed[good] = texts.to_numpy(dtype=object)[good].astype(float)  # to the last bit, which to_numeric is not
    return parsed


def _spelled(value: Any) -> str:
    """Return a value as a number is written: empty where it is missing, ``?`` where it can be none."""
    if isinstance(value, str):
        return value.encode("ascii", "replace").decode().strip()
    if value is None or value is pd.NA or value is pd.NaT:
        return ""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number | Decimal):
        return "?"
    try:
        return repr(float(value))
    except OverflowError:
        return "inf"
    except (TypeError, ValueError):
        return "?"


def _called(values: pd.Series, column: str) -> str:
    return column if values.name in (None, column) else f"{column} (column {values.name!r})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def check_numbers(table: pd.DataFrame, rows: Rows, nonfinite: str) -> None:
    """Refuse values that no run can have, in every number column of the vocabulary.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns already named in words and converted to floats.
    rows : Rows
        Where each row came from.
    nonfinite : str
        Unless ``"raise"``, a loss that is not finite is left for `settle_nonfinite`.

    Raises
    ------
    SweepError
        For the first column with a value that is missing, not finite or not positive.
    """
    for column in (name for name in table.columns if name in BY_COLUMN and BY_COLUMN[name].numeric):
        values = table[column].to_numpy()
        unfit = ~np.isfinite(values)
        if unfit.any() and not (column == "loss" and nonfinite != "raise"):
            raise SweepError(_nonfinite(column, values, unfit, rows))
        if column in POSITIVE and (unfit := np.isfinite(values) & (values <= 0)).any():
            row = int(np.flatnonzero(unfit)[0])
            remedy = "a loss in nats per token is above zero" if column == "loss" else "correct or remove these runs"
            raise SweepError(
                f"{column} should be positive: {int(unfit.sum())} of {len(values)} values are not, "
                f"first {values[row]:g} in {rows.name(row)}; {remedy}"
            )


def _nonfinite(column: str, values: np.ndarray, unfit: np.ndarray, rows: Rows) -> str:
    row = int(np.flatnonzero(unfit)[0])
    if column == "loss":
        remedy = "nonfinite='diverged' keeps these runs, marked as diverged; nonfinite='drop' leaves them out"
    else:
        remedy = f"complete or remove these runs, or set the column aside with columns={{{column!r}: None}}"
    shown = "missing or NaN" if np.isnan(values[row]) else f"{values[row]:g}"
    return (
        f"{column} should be finite: {int(unfit.sum())} of {len(values)} values are not, "
        f"first {shown} in {rows.name(row)}; {remedy}"
    )


def settle_nonfinite(table: pd.DataFrame, rows: Rows, nonfinite: str) -> tuple[pd.DataFrame, Rows, list[Note]]:
    """Mark or drop the runs whose loss is not finite, as the user asked."""
    lost = ~np.isfinite(table["loss"].to_numpy())
    if not lost.any():
        return table.assign(diverged=False), rows, []
    if nonfinite == "diverged":
        return table.assign(diverged=lost, loss=table["loss"].where(~lost)), rows, []
    if lost.all():
        raise SweepError(f"none of the {len(table)} runs has a finite loss, so nothing would be left")
    first = rows.name(int(np.flatnonzero(lost)[0]))
    text = f"{int(lost.sum())} of {len(lost)} runs have no finite loss and were dropped (first: {first})"
    note = Note("dropped", text, caution=True)
    return table[~lost].assign(diverged=False).reset_index(drop=True), rows.keep(~lost), [note]


def doubt_units(table: pd.DataFrame, data_unit: str) -> list[Note]:
    """Remark on numbers that look like millions or billions of what they should count, and on losses like no nats."""
    notes = []
    if data_unit == "tokens" and (least := table["loss"].min()) > _MANY_NATS:
        text = f"the smallest loss is {least:g}: a loss in nats per token is seldom above 12; is it a sum, or scaled?"
        notes.append(Note("loss_unit", text, caution=True))
    if "params" in table and table["params"].max() < _FEW_PARAMS:
        text = (
            f"params go up to {table['params'].max():g} only: written in millions or billions? Published laws and "
            "FLOPs need single parameters"
        )
        notes.append(Note("params_unit", text, caution=True))
    if {"tokens", "batch"} <= set(table) and data_unit != "epochs":
        short = int((table["tokens"] < table["batch"]).sum())
        if short:
            text = (
                f"{short} of {len(table)} runs are shorter than a step ({data_unit} below batch): is one in millions?"
            )
            notes.append(Note("short", text, caution=True))
    return notes
