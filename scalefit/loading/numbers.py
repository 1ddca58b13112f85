"""Columns of numbers: read from texts, checked, and noted where they look like another unit."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note
from scalefit.errors import SweepError
from scalefit.loading.columns import new_names
from scalefit.loading.frames import RawTable, Rows
from scalefit.schema import check_values
from scalefit.vocabulary import BY_COLUMN

NONFINITE = ("raise", "diverged", "drop")

_FEW_PARAMS = 1000  # a smaller count of parameters is more likely given in millions
_MANY_NATS = 100.0  # a loss in nats is at most the log of the vocabulary, so this is no loss in nats
_NUMBER = r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?"
_COMMA = r"\s*[+-]?\d+,\d+(e[+-]?\d+)?\s*\Z"


def to_words(raw: RawTable, found: Mapping[str, str], rows: Rows) -> tuple[pd.DataFrame, list[Note]]:
    """Return a table with its quantities as floats under their words, and notes on other columns with such a name."""
    names, notes = new_names(raw.columns, found)
    numeric = {column: raw.frame[name] for column, name in found.items() if BY_COLUMN[column].numeric}
    numbers = {column: to_numbers(values, column, rows) for column, values in numeric.items()}
    return raw.frame.set_axis(names, axis=1).assign(**numbers), notes


def to_numbers(values: pd.Series, column: str, rows: Rows) -> np.ndarray:
    """Return a column as floats, or raise a `SweepError`; numbers written as text count, everything else does not."""
    if isinstance(values.dtype, pd.CategoricalDtype):  # each distinct text is parsed once
        distinct = pd.Series(values.cat.categories, name=values.name)
        try:
            parsed = to_numbers(distinct, column, Rows.of(["the categories"], [len(distinct)]))
        except SweepError:
            return to_numbers(values.astype(object), column, rows)  # this raises and names the row
        return np.append(parsed, np.nan)[values.cat.codes.to_numpy()]
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        if pd.api.types.is_complex_dtype(values):
            raise SweepError(f"{_called(values, column)} holds complex numbers")
        return values.to_numpy(dtype=float, na_value=np.nan)
    objects = values.astype(object).to_numpy(dtype=object)
    texts = pd.Series([_spelled(value) for value in objects], dtype=object)
    missing = texts.str.lower().isin(("", "nan", "+nan", "-nan")).to_numpy(dtype=bool)
    parsed = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=float, copy=True)
    beyond = (np.isnan(parsed) & texts.str.fullmatch(_NUMBER)).to_numpy(dtype=bool)
    parsed[beyond] = texts.to_numpy(dtype=object)[beyond].astype(float)  # older pandas calls 1e400 no number
    bad = np.isnan(parsed) & ~missing
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        comma = bool(texts[bad].str.match(_COMMA).all())
        remedy = "write decimals with a point" if comma else "correct the values, or name another column with columns="
        raise SweepError(
            f"{_called(values, column)} should hold numbers: {int(bad.sum())} of {len(bad)} values are not, "
            f"first {objects[row]!r:.60} in {rows.name(row)}; {remedy}"
        )
    good = ~np.isnan(parsed)
    parsed[good] = texts.to_numpy(dtype=object)[good].astype(float)  # exact; to_numeric rounds the last bit
    return parsed


def _spelled(value: Any) -> str:
    """Return the text of a value as a number is written: empty if missing, ``?`` if it cannot be a number."""
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


def check_numbers(table: pd.DataFrame, rows: Rows, nonfinite: str) -> None:
    """Refuse values that no run can have; unless ``"raise"``, a loss need not be finite."""
    columns = [name for name in table.columns if name in BY_COLUMN and BY_COLUMN[name].numeric]
    unknown = {} if nonfinite == "raise" else {"loss": np.array(True)}
    check_values(table[columns], rows.name, _complete, unknown)


def _complete(column: str) -> str:
    if column == "loss":
        return "nonfinite='diverged' keeps these runs, marked as diverged; nonfinite='drop' leaves them out"
    return f"complete or remove these runs, or set the column aside with columns={{{column!r}: None}}"


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


def notes_on_units(table: pd.DataFrame, data_unit: str) -> list[Note]:
    """Note counts that seem to be in millions or billions, and losses that are hardly in nats."""
    notes = []
    if data_unit == "tokens" and (least := table["loss"].min()) > _MANY_NATS:
        text = f"the smallest loss is {least:g}: a loss in nats per token is seldom above 12; is it a sum, or scaled?"
        notes.append(Note("loss_unit", text, caution=True))
    if "params" in table and (most := table["params"].max()) < _FEW_PARAMS:
        text = f"params go up to {most:g} only: written in millions or billions?"
        notes.append(Note("params_unit", f"{text} Published laws and FLOPs need single parameters", caution=True))
    counted = data_unit != "epochs" and {"tokens", "batch"} <= set(table)
    if counted and (short := int((table["tokens"] < table["batch"]).sum())):
        text = f"{short} of {len(table)} runs are shorter than a step ({data_unit} below batch): is one in millions?"
        notes.append(Note("short", text, caution=True))
    return notes
