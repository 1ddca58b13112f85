"""From a critical batch size that grows as the loss falls to a batch-size warm-up, and what it saves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note, merge
from scalefit.batch_size.critical import Critical, read_critical
from scalefit.display import Face, Shown
from scalefit.errors import FitError, LawError, SweepError
from scalefit.fitting.fit_result import Fit
from scalefit.laws.formula import Law
from scalefit.laws.published import PublishedLaw
from scalefit.vocabulary import column_of, format_number

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


_DRAWS = 1000


def batch_schedule(
    critical: Any,
    curve: Any,
    *,
    overhead: float = 1.0,
    shape: str = "sqrt",
    curve_batch: float | None = None,
    tokens: float | None = None,
    multiple: float | None = None,
    power_of_two: bool = False,
    cap: float | None = None,
    smallest: float | None = None,
    seed: int = 0,
    **inputs: float,
) -> BatchSchedule:
    r"""Return the batch size to use along training, for a stated share of extra data.

    At every loss the data spent is :math:`dE = dE_{min}(1 + B/B_{crit}(L))` and the steps :math:`dS = dE/B`. Of all
    schedules that spend the same data, :math:`B = \sqrt{r\,B_{crit}(L)}` takes the fewest steps (``shape="sqrt"``).
    :math:`B = m\,B_{crit}(L)` (``shape="proportional"``) is the usual advice, and takes exactly as many steps as the
    constant batch that spends as much data.

    Parameters
    ----------
    critical : Fit, PublishedLaw, str or float
        B_crit, usually a fit of ``bcrit_loss``.
    curve : DataFrame, Fit, PublishedLaw, Law or str
        The loss along training: columns `tokens` and `loss` of one run, or a law of the loss in the data, fitted or
        written with its values, ``"L = 1.8 + 2100 * D**-0.37"`` (other inputs by name: ``params=1e9``), which is then
        read up to `tokens`.
    overhead : float
        Extra data over the least that reaches the final loss: 1 spends twice the least, as training at the critical
        batch throughout does; 0.2 spends a fifth more. It holds before rounding and caps.
    shape : {"sqrt", "proportional", "constant"}
    curve_batch : float, optional
        The constant batch at which the curve was measured, to take its own overhead out of its data. By default the
        curve counts as that of a batch far below the critical one.
    tokens : float, optional
        Where training ends, when `curve` is a law: the data of the law's own runs, at small batch.
    multiple : float, optional
        Batches are rounded to the nearest multiple of this (a sequence length times workers), at least one.
    power_of_two : bool
        Batches are rounded to the nearest power of two times `multiple` (or times 1).
    cap, smallest : float, optional
        Largest and smallest batch.
    seed : int
        For the intervals.
    **inputs : float
        Further inputs of the law of the loss, or of the critical batch.

    Returns
    -------
    BatchSchedule

    Raises
    ------
    FitError
        Settings that contradict each other or are out of range.
    SweepError, LawError
        A curve or a law that cannot be read, or that counts data in another unit.

    Notes
    -----
    The batch never falls: where the loss rises again the largest critical batch so far is kept. Intervals of the batch
    come from the errors of the critical batch (1,000 draws, 95 %); those of the steps saved are the savings of this
    schedule if the critical batch were one of the draws. Neither holds an error of the curve, nor of the hyperbola
    itself, which is a model of one step at a time. In 400 simulated fits of ``bcrit_loss`` (12 losses, 10 % noise)
    the batch of the true schedule lay inside in 93 to 94 %, the true saving in 98 %.

    References
    ----------
    McCandlish et al. 2018, arXiv:1812.06162, on adaptive batch sizes, for the square root; Kaplan et al. 2020,
    arXiv:2001.08361.

    Examples
    --------
    >>> import pandas as pd
    >>> run = pd.DataFrame({"tokens": [1e8, 1e9, 5e9, 2e10], "loss": [4.5, 3.4, 3.0, 2.8]})
    >>> plan = batch_schedule("kaplan2020_bcrit", run, overhead=0.5, power_of_two=True)
    >>> plan.table["batch"].tolist()
    [262144.0, 262144.0, 524288.0, 524288.0]
    """
    _check(overhead, shape, multiple, cap, smallest)
    law = read_critical(critical)
    path = read_path(curve, law, tokens, curve_batch, inputs)
    least = path.least(law.at(path.table))
    ideal = _ideal(_rising(law.at(path.table)), least, overhead, shape)
    rounded = _rounded(ideal, multiple, power_of_two, cap, smallest)
    drawn = law.draws(path.table, _DRAWS, seed)
    batches = (
        None if drawn is None else _drawn_batches(drawn, path, overhead, shape, multiple, power_of_two, cap, smallest)
    )
    notes = merge(path.notes, law.doubts(path.table), _remarks(rounded, ideal, shape, law, path))
    return BatchSchedule.of(path, law, rounded, drawn, batches, (overhead, shape), notes)


def _check(overhead: float, shape: str, multiple: float | None, cap: float | None, smallest: float | None) -> None:
    if shape not in ("sqrt", "proportional", "constant"):
        raise FitError(f"shape: expected 'sqrt', 'proportional' or 'constant', found {shape!r}")
    sizes = {"overhead": overhead, "multiple": multiple, "cap": cap, "smallest": smallest}
    for name, value in sizes.items():
        if value is not None and not (np.isfinite(value) and value > 0):
            raise FitError(f"{name}: expected a positive number, found {value!r}")
    if cap is not None and cap < max(smallest or 0.0, multiple or 0.0):
        raise FitError(f"cap = {format_number(cap)} lies below the smallest batch allowed")


def _rising(critical: Array) -> Array:
    return np.maximum.accumulate(critical, axis=-1)


def _ideal(critical: Array, least: Array, overhead: float, shape: str) -> Array:
    """Return the batch of every segment; `critical` and `least` have shape (..., segments)."""
    share = least / least.sum(axis=-1, keepdims=True)
    if shape == "proportional":
        return overhead * critical
    if shape == "constant":
        return np.broadcast_to(overhead / (share / critical).sum(axis=-1, keepdims=True), critical.shape)
    return overhead * np.sqrt(critical) / (share / np.sqrt(critical)).sum(axis=-1, keepdims=True)


def _rounded(
    batch: Array, multiple: float | None, power_of_two: bool, cap: float | None, smallest: float | None
) -> Array:
    unit = multiple or 1.0
    low, high = max(smallest or 0.0, unit if multiple or power_of_two else 0.0), cap or np.inf
    clipped = np.clip(batch, low, high)
    if power_of_two:
        power = np.rint(np.log2(clipped / unit))
        found = unit * 2 ** np.clip(power, np.ceil(np.log2(low / unit)), np.floor(np.log2(high / unit)))
    elif multiple:
        found = unit * np.clip(np.rint(clipped / unit), np.ceil(low / unit), np.floor(high / unit))
    else:
        found = clipped
    if not ((found >= low) & (found <= high)).all():
        raise FitError(
            f"no batch allowed lies between {format_number(low)} and {format_number(high)}; widen the limits"
        )
    return found


def _drawn_batches(drawn: Array, path: LossPath, overhead: float, shape: str, *rounding: Any) -> Array:
    return _rounded(_ideal(_rising(drawn), path.least(drawn), overhead, shape), *rounding)


def _remarks(rounded: Array, ideal: Array, shape: str, law: Critical, path: LossPath) -> list[Note]:
    notes = []
    critical = law.at(path.table)
    falls = critical < _rising(critical) * (1 - 1e-9)
    if falls.any():
        text = f"the critical batch falls again in {int(falls.sum())} of {len(falls)} segments; the batch does not"
        notes.append(Note("falls", text))
    off = np.abs(np.log(rounded / ideal)).max()
    if off > np.log(2):
        text = f"rounding and limits move the batch by up to {format_number(float(np.exp(off)), 3)}x"
        notes.append(Note("limits", text, caution=True))
    if shape == "proportional":
        text = "in proportion to B_crit a ramp takes as many steps as the constant batch that spends as much data"
        notes.append(Note("proportional", text))
    return notes
