"""The unit of a batch size: as the user says, or proven by steps x batch x seq_len = tokens."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scalefit._values import Note
from scalefit.errors import SweepError
from scalefit.loading.frames import Rows

PROOF = 0.01
"""A unit is proven when every run agrees with it within this relative tolerance."""

CONTRADICTION = 0.02
"""A claim is refused when any run is off by more than this."""


def units(data_unit: str = "tokens") -> tuple[str | None, ...]:
    """Return the units that a batch size may be said to have.

    Examples
    --------
    >>> units("images")
    (None, 'images', 'sequences')
    """
    return None, data_unit, "sequences"


def _advice(unit: str) -> str:
    return f"pass batch_unit={unit!r}, or batch_unit='sequences' with seq_len=<{unit} per sequence>"


def settle_batch(
    table: pd.DataFrame, rows: Rows, batch_unit: str | None, seq_len: float | None, data_unit: str = "tokens"
) -> tuple[pd.DataFrame, list[Note]]:
    """Return the table with its batch in the data unit, and its tokens where they follow from steps and batch.

    The unit is what `batch_unit` says, unless steps and tokens contradict it. Without `batch_unit` it must be proven.
    """
    if "batch" not in table.columns:
        text = "there is no batch column, so batch_unit and seq_len were not used"
        return table, [Note("batch_unit", text)] if batch_unit is not None or seq_len is not None else []
    ratio = _ratio(table)
    length = _seq_len(table, rows, seq_len, data_unit)
    if batch_unit is None:
        factor, text = _prove(ratio, length, rows, data_unit, [n for n in ("steps", "tokens") if n not in table])
    elif batch_unit == data_unit:
        factor, text = np.ones(len(table)), f"batch is in {data_unit}, as said"
        _refute(ratio, factor, rows, f"batch_unit={data_unit!r}")
    else:
        factor = _length_of_sequences(ratio, data_unit) if length is None else length
        text = f"batch was in sequences, as said, and is now in {data_unit} ({_range(factor)} each)"
        _refute(ratio, factor, rows, f"batch_unit='sequences' with seq_len {_range(factor)}")
    table = table.assign(batch=table["batch"].to_numpy() * factor)
    notes = [Note("batch_unit", text)]
    if "tokens" not in table.columns and "steps" in table.columns:
        table = table.assign(tokens=table["steps"] * table["batch"])
        notes.append(Note("derived", "there was no column for tokens; tokens = steps * batch"))
    return table, notes


def _seq_len(table: pd.DataFrame, rows: Rows, given: float | None, unit: str) -> np.ndarray | None:
    """Return the sequence length of each run from the argument or the column, which must agree."""
    column = table["seq_len"].to_numpy() if "seq_len" in table.columns else None
    if given is None:
        return column
    if isinstance(given, bool) or not isinstance(given, int | float | np.number) or not 0 < given < np.inf:
        raise SweepError(f"seq_len should be a positive number of {unit}, found {given!r}")
    if column is not None and (off := column != given).any():
        row = int(np.flatnonzero(off)[0])
        raise SweepError(
            f"seq_len={given:g} contradicts the column seq_len in {int(off.sum())} of {len(off)} runs, "
            f"first {column[row]:g} in {rows.name(row)}; leave the argument out or correct the column"
        )
    return np.full(len(table), float(given))


def _ratio(table: pd.DataFrame) -> np.ndarray:
    """Return tokens / (steps * batch) of each run: the tokens in one unit of batch; NaN without these columns."""
    if not {"steps", "tokens"} <= set(table.columns):
        return np.full(len(table), np.nan)
    with np.errstate(all="ignore"):
        return table["tokens"].to_numpy() / table["steps"].to_numpy() / table["batch"].to_numpy()


def _prove(
    ratio: np.ndarray, length: np.ndarray | None, rows: Rows, unit: str, lacking: list[str]
) -> tuple[np.ndarray, str]:
    """Return the factor for the batch and its reason; raise where steps and tokens do not determine it."""
    if lacking:
        raise SweepError(
            f"the unit of batch is not known: without {' and '.join(lacking)} it cannot be checked; {_advice(unit)}"
        )
    if np.all(np.abs(ratio - 1) <= PROOF):
        return np.ones(len(ratio)), f"batch is in {unit}: steps * batch = tokens in every run within 1 %"
    shown = f"tokens / (steps * batch) is {_range(ratio)}"
    doubt = f"the unit of batch is not clear: {shown}, neither 1 (batch in {unit}) nor"
    if length is None:
        whole = _whole(ratio)
        if whole is None:
            raise SweepError(
                f"{doubt} one whole number (batch in sequences of that length); are steps, batch and tokens of the "
                f"same runs? If so, {_advice(unit)}"
            )
        length = np.full(len(ratio), whole)
    elif (off := np.abs(ratio / length - 1) > PROOF).any():
        row = int(off.argmax())
        raise SweepError(
            f"{doubt} seq_len ({_range(length)}) in {int(off.sum())} of {len(off)} runs, first {ratio[row]:.6g} in "
            f"{rows.name(row)}; correct these, or {_advice(unit)}"
        )
    return length, f"batch was in sequences of {_range(length)} {unit} and is now in {unit}: {shown}"


def _whole(ratio: np.ndarray) -> float | None:
    """Return the one whole number >= 2 that all ratios are, within tolerance, or None.

    Token counts are often rounded, so several whole numbers can lie among the ratios; the one that is the most often
    divisible by two is taken, as sequence lengths are.
    """
    center = float(np.median(ratio))
    alike = 0 < center < np.inf and np.all(np.abs(ratio / center - 1) <= PROOF)
    if not alike or abs(np.round(center) / center - 1) > PROOF / 2:
        return None
    low, high = np.ceil(ratio.min() - 0.5), np.floor(ratio.max() + 0.5)
    if high - low > 1e6 or center < 1.5:
        return None
    whole = np.arange(max(low, 2), max(high, 2) + 1).astype(np.int64)
    return float(whole[np.argmax(whole & -whole)])


def _length_of_sequences(ratio: np.ndarray, unit: str) -> np.ndarray:
    """Return the sequence length that steps and tokens prove when the user said sequences but not how long."""
    if np.isnan(ratio).all():
        raise SweepError(f"batch_unit='sequences' needs seq_len=<{unit} per sequence>, or a column seq_len")
    whole = None if np.all(np.abs(ratio - 1) <= PROOF) else _whole(ratio)
    if whole is None:
        raise SweepError(
            f"batch_unit='sequences' does not fit: tokens / (steps * batch) is {_range(ratio)}, not one whole number "
            f"above 1; pass seq_len=<{unit} per sequence> if it is known, or batch_unit={unit!r}"
        )
    return np.full(len(ratio), whole)


def _refute(ratio: np.ndarray, factor: np.ndarray, rows: Rows, claim: str) -> None:
    """Refuse a claim that steps and tokens contradict."""
    off = np.abs(ratio / factor - 1) > CONTRADICTION
    if off.any():
        row = int(off.argmax())
        raise SweepError(
            f"{claim} contradicts steps and tokens in {int(off.sum())} of {len(off)} runs, first in {rows.name(row)}: "
            f"tokens / (steps * batch) should be {factor[row]:g} and is {ratio[row]:.6g}; correct the claim, or set a "
            "wrong column aside with columns={'steps': None}"
        )


def _range(values: np.ndarray) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.6g}" if high - low <= 1e-9 * high else f"{low:.6g} to {high:.6g}"
