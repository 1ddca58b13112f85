"""The batch-size schedule as a result: the table to train by, and the steps it saves."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from scalefit.batch.critical import Critical
from scalefit.batch.path import LossPath
from scalefit.errors import FitError
from scalefit.faces import Face, Shown
from scalefit.formatting import format_number
from scalefit.notes import Note

Array = np.ndarray

_SHOWN = 12


@dataclass(frozen=True, eq=False, repr=False)
class BatchSchedule(Shown):
    """A batch-size warm-up; made by `batch_schedule`.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a segment of training: `tokens`, the data this schedule has spent at its end; `loss`; `B_crit`;
        `batch`, `batch_lo`, `batch_hi` (95 %, NaN when B_crit has no errors); `steps`, taken by its end.
    tokens, steps : float
        Data and steps of the whole schedule.
    tokens_min : float
        The least data that reaches the final loss, at very small batches.
    constant_batch : float
        The constant batch that spends as much data.
    steps_constant : float
        Steps it takes.
    saved, saved_lo, saved_hi : float
        Share of those steps that the schedule saves; negative when it takes more.
    overhead : float
        The share of extra data that was asked for; what rounding made of it is ``tokens / tokens_min - 1``.
    shape : str
    data_unit : str
    notes : tuple of Note
    """

    _table: pd.DataFrame
    tokens: float
    steps: float
    tokens_min: float
    constant_batch: float
    steps_constant: float
    saved: float
    saved_lo: float
    saved_hi: float
    overhead: float
    shape: str
    data_unit: str = "tokens"
    notes: tuple[Note, ...] = field(default=())

    @classmethod
    def of(
        cls,
        path: LossPath,
        law: Critical,
        batch: Array,
        drawn: Array | None,
        batches: Array | None,
        asked: tuple[float, str],
        notes: tuple[Note, ...],
    ) -> BatchSchedule:
        """Put a schedule together from its batches, (segments,), and draws of B_crit and of the batch."""
        critical = law.at(path.table)
        least = path.least(critical)
        spent, total, constant, steps_constant = _costs(batch, critical, least)
        low, high = (
            (np.full(len(batch), np.nan),) * 2 if batches is None else np.quantile(batches, [0.025, 0.975], axis=0)
        )
        saved_range = (np.nan, np.nan)
        if drawn is not None:
            _, taken, _, others = _costs(batch, drawn, path.least(drawn))
            saved_range = tuple(np.quantile(1 - taken / others, [0.025, 0.975]))
        columns = {"tokens": np.cumsum(spent), "loss": path.table["loss"], "B_crit": critical, "batch": batch}
        columns |= {"batch_lo": low, "batch_hi": high, "steps": np.cumsum(spent / batch)}
        return cls(
            _table=pd.DataFrame(columns),
            tokens=float(spent.sum()),
            steps=float(total),
            tokens_min=float(least.sum()),
            constant_batch=float(constant),
            steps_constant=float(steps_constant),
            saved=float(1 - total / steps_constant),
            saved_lo=float(saved_range[0]),
            saved_hi=float(saved_range[1]),
            overhead=asked[0],
            shape=asked[1],
            data_unit=path.data_unit,
            notes=notes,
        )

    @property
    def table(self) -> pd.DataFrame:
        """The schedule, as a copy."""
        return self._table.copy()

    @property
    def stages(self) -> pd.DataFrame:
        """Runs of equal batch: `start` and `end` in data spent, `batch`, `steps` taken in the stage."""
        rows = self._table.assign(stage=(self._table["batch"].diff() != 0).cumsum())
        rows = rows.assign(taken=np.diff(rows["steps"], prepend=0.0))
        found = rows.groupby("stage", sort=True).agg(
            end=("tokens", "last"), batch=("batch", "first"), steps=("taken", "sum")
        )
        found.insert(0, "start", np.concatenate([[0.0], found["end"].to_numpy()[:-1]]))
        return found.reset_index(drop=True)

    def batch_at(self, tokens: float | Array) -> Array:
        """Return the batch to use when so much data has been spent; the last batch beyond the end.

        Raises
        ------
        FitError
            If an amount of data is negative or not a number.
        """
        asked = np.asarray(tokens, dtype=float)
        if not (asked >= 0).all():
            raise FitError(f"tokens: expected data spent, not negative, found {tokens!r}")
        index = np.searchsorted(self._table["tokens"].to_numpy(), asked, side="right")
        return self._table["batch"].to_numpy()[np.minimum(index, len(self._table) - 1)]

    def _face(self) -> Face:
        stages, unit = self.stages, self.data_unit
        span = (
            f"{100 * self.saved_lo:.1f} to {100 * self.saved_hi:.1f} %" if np.isfinite(self.saved_lo) else "no interval"
        )
        facts = (
            ("batch", f"{format_number(stages['batch'].iloc[0])} to {format_number(stages['batch'].iloc[-1])} {unit}"),
            ("data", f"{format_number(self.tokens)} {unit}, {self.tokens / self.tokens_min - 1:.1%} above the least"),
            ("steps", format_number(self.steps)),
            (
                "constant",
                f"batch {format_number(self.constant_batch)} spends as much data in "
                f"{format_number(self.steps_constant)} steps",
            ),
            ("saved", f"{100 * self.saved:.1f} % of those steps ({span})"),
        )
        shown = stages
        if len(shown) > _SHOWN:
            shown = stages.iloc[np.unique(np.linspace(0, len(stages) - 1, _SHOWN).astype(int))]
        text = pd.DataFrame({name: shown[name].map(format_number) for name in ("start", "end", "batch", "steps")})
        return Face(f"Batch-size schedule ({self.shape})", facts, text, self.notes)


def _costs(batch: Array, critical: Array, least: Array) -> tuple[Array, Array, Array, Array]:
    """Return data of every segment, total steps, the constant batch of equal data, and its steps."""
    spent = least * (1 + batch / critical)
    inverse, total = (least / critical).sum(axis=-1), least.sum(axis=-1)
    constant = (spent.sum(axis=-1) - total) / inverse
    return spent, (spent / batch).sum(axis=-1), constant, total / constant + inverse
