"""The loss along training, cut into segments: what a batch-size schedule is laid out on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scalefit.batch.critical import Critical
from scalefit.errors import FitError, LawError, SweepError
from scalefit.fitting import Fit
from scalefit.laws.formula import Law
from scalefit.laws.published import PublishedLaw
from scalefit.notes import Note
from scalefit.vocabulary import column_of

Array = np.ndarray

_POINTS, _DECADES = 200, 3


@dataclass(frozen=True, eq=False)
class LossPath:
    """Segments of a training run.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a segment: `tokens` at its end, `loss` (geometric mean of its ends; that of the first point for the
        first segment) and whatever else the critical batch reads.
    spent : ndarray
        Data of every segment as the curve spent them.
    curve_batch : float
        The batch the curve was measured at; 0 when it is far below the critical one.
    data_unit : str
    notes : tuple of Note
    """

    table: pd.DataFrame
    spent: Array
    curve_batch: float
    data_unit: str
    notes: tuple[Note, ...]

    def least(self, critical: Array) -> Array:
        """Return the least data each segment needs, its own overhead taken out; shape of `critical`."""
        return self.spent / (1 + self.curve_batch / critical)


def read_path(
    curve: Any, law: Critical, tokens: float | None, curve_batch: float | None, inputs: Mapping[str, float]
) -> LossPath:
    """Return the segments of a curve or of a law of the loss.

    Raises
    ------
    SweepError
        If the curve is not one of falling loss over growing data.
    FitError, LawError
        If settings are missing or contradict each other.
    """
    given = {column_of(name): float(value) for name, value in inputs.items()}
    if isinstance(curve, str | Law):
        curve = _written(curve, law.data_unit or "tokens")
    if isinstance(curve, Fit | PublishedLaw):
        table, notes = _from_law(curve, tokens, given)
    else:
        table, notes = _from_table(curve), ()
        if tokens is not None:
            raise FitError("tokens= says where a law of the loss ends; a curve has its own end")
    unit = getattr(curve, "data_unit", law.data_unit or "tokens")
    law.check_data_unit(unit)
    if curve_batch is not None and not (np.isfinite(curve_batch) and curve_batch > 0):
        raise FitError(f"curve_batch: expected a positive number, found {curve_batch!r}")
    ends, losses = table["tokens"].to_numpy(), table["loss"].to_numpy()
    middle = np.sqrt(losses * np.concatenate([losses[:1], losses[:-1]]))
    others = {name: value for name, value in given.items() if name in law.inputs}
    segments = pd.DataFrame({"tokens": ends, "loss": middle}).assign(**others)
    return LossPath(segments, np.diff(ends, prepend=0.0), curve_batch or 0.0, unit, notes)


def _written(curve: str | Law, data_unit: str) -> PublishedLaw:
    law = Law(curve) if isinstance(curve, str) else curve
    if law.parameters:
        raise LawError(
            f"{law.formula!r} leaves {', '.join(law.parameters)} open: write their values into it, or fit it, "
            "sf.fit(law, runs)"
        )
    return PublishedLaw(law, {}, "as written", data_unit=data_unit)


def _from_law(
    law: Fit | PublishedLaw, tokens: float | None, given: Mapping[str, float]
) -> tuple[pd.DataFrame, tuple[Note, ...]]:
    if column_of(law.law.target) != "loss":
        raise LawError(f"expected a law for the loss, found one for {law.law.target}: {law.law.formula!r}")
    if tokens is None or not (np.isfinite(tokens) and tokens > 0):
        raise FitError(f"tokens: expected where training ends, a positive number, found {tokens!r}")
    wanted = {column_of(name) for name in law.law.inputs} - {"tokens"}
    if "tokens" not in {column_of(name) for name in law.law.inputs} or wanted - set(given):
        lacking = ", ".join(sorted(wanted - set(given))) or "a law that reads the tokens"
        raise LawError(f"{law.law.formula!r} cannot be followed along training; missing: {lacking}")
    ends = np.geomspace(tokens / 10**_DECADES, tokens, _POINTS)
    losses = law.law(law.values, {"tokens": ends, **{name: given[name] for name in wanted}})
    text = (
        f"the loss along training is taken from {law.law.name or law.law.formula}, a law of final losses, from "
        f"1/{10**_DECADES} of the data on"
    )
    return pd.DataFrame({"tokens": ends, "loss": losses}), (Note("loss_law", text, caution=True),)


def _from_table(curve: Any) -> pd.DataFrame:
    table = curve if isinstance(curve, pd.DataFrame) else getattr(curve, "table", None)
    if not isinstance(table, pd.DataFrame) or not {"tokens", "loss"} <= set(table.columns):
        raise SweepError("expected a table with columns tokens and loss, or a fitted law of the loss")
    if "run" in table and table["run"].nunique() > 1:
        raise SweepError(f"expected the curve of one run, found {table['run'].nunique()}; choose one")
    rows = table[["tokens", "loss"]].astype(float)
    if len(rows) < 2 or not (np.isfinite(rows) & (rows > 0)).all(axis=None):
        raise SweepError(f"expected at least two rows of positive tokens and loss, found {len(rows)} rows")
    if not (np.diff(rows["tokens"]) > 0).all():
        first = int(np.flatnonzero(np.diff(rows["tokens"]) <= 0)[0]) + 2
        raise SweepError(f"tokens: expected to grow from row to row; they do not at row {first}")
    return rows.reset_index(drop=True)
