"""In which unit a batch size is given: said by the user, or proven from steps x batch x seq_len = tokens."""

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

    Parameters
    ----------
    table : pandas.DataFrame
        Columns in words, numbers checked; `batch` still in the unit of the input.
    rows : Rows
        Where each row came from.
    batch_unit : str or None
        The data unit, ``"sequences"``, or None to have the unit proven.
    seq_len : float or None
        Data per sequence.
    data_unit : str
        What `tokens` counts.

    Raises
    ------
    SweepError
        If the unit can neither be taken from the arguments nor proven, or if steps and tokens contradict it.
    """
    if "batch" not in table.columns:
        ignored = batch_unit is not None or seq_len is not None
        return table, [
            Note("batch_unit", "there is no batch column, so batch_unit and seq_len were not used")
        ] * ignored
    length = _seq_len(table, rows, seq_len, data_unit)
    if batch_unit is None:
        factor, text = _prove(table, rows, length, data_unit)
    elif batch_unit == data_unit:
        factor, text = np.ones(len(table)), f"batch is in {data_unit}, as said"
        _refute(table, rows, factor, f"batch_unit={data_unit!r}")
    else:
        if length is None:
            length = _length_of_sequences(table, data_unit)
        factor = length
        text = f"batch was in sequences, as said, and is now in {data_unit} ({_range(length)} each)"
        _refute(table, rows, factor, f"batch_unit='sequences' with seq_len {_range(length)}")
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


def _ratio(table: pd.DataFrame) -> np.ndarray | None:
    """Return tokens / (steps * batch) of each run: the tokens in one unit of batch; None without these columns."""
    if not {"steps", "tokens"} <= set(table.columns):
        return None
    with np.errstate(all="ignore"):
        return table["tokens"].to_numpy() / table["steps"].to_numpy() / table["batch"].to_numpy()


def _prove(table: pd.DataFrame, rows: Rows, length: np.ndarray | None, unit: str) -> tuple[np.ndarray, str]:
    ratio = _ratio(table)
    if ratio is None:
        need = [name for name in ("steps", "tokens") if name not in table.columns]
        raise SweepError(
            f"the unit of batch is not known: without {' and '.join(need)} it cannot be checked; {_advice(unit)}"
        )
    if np.all(np.abs(ratio - 1) <= PROOF):
        return np.ones(len(table)), f"batch is in {unit}: steps * batch = tokens in every run within 1 %"
    shown = f"tokens / (steps * batch) is {_range(ratio)}"
    if length is not None:
        off = np.abs(ratio / length - 1) > PROOF
        if off.any():
            row = int(np.flatnonzero(off)[0])
            raise SweepError(
                f"the unit of batch is not clear: {shown}, neither 1 (batch in {unit}) nor seq_len ({_range(length)}) "
                f"in {int(off.sum())} of {len(off)} runs, first {ratio[row]:.6g} in {rows.name(row)}; correct these, "
                f"or {_advice(unit)}"
            )
        return length, f"batch was in sequences of {_range(length)} {unit} and is now in {unit}: {shown}"
    whole = _whole(ratio)
    if whole is None:
        raise SweepError(
            f"the unit of batch is not clear: {shown}, neither 1 (batch in {unit}) nor one whole number (batch in "
            f"sequences of that length); are steps, batch and tokens of the same runs? If so, {_advice(unit)}"
        )
    text = f"batch was in sequences of {whole:g} {unit} and is now in {unit}: {shown}"
    return np.full(len(table), whole), text


def _whole(ratio: np.ndarray) -> float | None:
    """Return the one whole number >= 2 that all ratios are, within tolerance, or None.

    Token counts are often rounded, so several whole numbers can lie among the ratios; the one that is the most often
    divisible by two is taken, as sequence lengths are.
    """
    center = float(np.median(ratio))
    if (
        not 0 < center < np.inf
        or np.any(np.abs(ratio / center - 1) > PROOF)
        or abs(np.round(center) / center - 1) > PROOF / 2
    ):
        return None
    low, high = np.ceil(ratio.min() - 0.5), np.floor(ratio.max() + 0.5)
    if high - low > 1e6 or center < 1.5:
        return None
    whole = np.arange(max(low, 2), max(high, 2) + 1).astype(np.int64)
    return float(whole[np.argmax(whole & -whole)])


def _length_of_sequences(table: pd.DataFrame, unit: str) -> np.ndarray:
    """Return the sequence length that steps and tokens prove when the user said sequences but not how long."""
    ratio = _ratio(table)
    if ratio is None:
        raise SweepError(f"batch_unit='sequences' needs seq_len=<{unit} per sequence>, or a column seq_len")
    whole = None if np.all(np.abs(ratio - 1) <= PROOF) else _whole(ratio)
    if whole is None:
        raise SweepError(
            f"batch_unit='sequences' does not fit: tokens / (steps * batch) is {_range(ratio)}, not one whole number "
            f"above 1; pass seq_len=<{unit} per sequence> if it is known, or batch_unit={unit!r}"
        )
    return np.full(len(table), whole)


def _refute(table: pd.DataFrame, rows: Rows, factor: np.ndarray, claim: str) -> None:
    """Refuse a claim that steps and tokens contradict."""
    ratio = _ratio(table)
    if ratio is None:
        return
    off = np.abs(ratio / factor - 1) > CONTRADICTION
    if off.any():
        row = int(np.flatnonzero(off)[0])
        raise SweepError(
            f"{claim} contradicts steps and tokens in {int(off.sum())} of {len(off)} runs, first in {rows.name(row)}: "
            f"tokens / (steps * batch) should be {factor[row]:g} and is {ratio[row]:.6g}; correct the claim, or set a "
            "wrong column aside with columns={'steps': None}"
        )


def _range(values: np.ndarray) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.6g}" if high - low <= 1e-9 * high else f"{low:.6g} to {high:.6g}"
