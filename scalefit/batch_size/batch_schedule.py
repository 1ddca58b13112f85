"""A batch size that follows a critical batch along training: the schedule, and the steps it saves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note, merge
from scalefit.batch_size.critical_batch import CriticalBatch, positive, read_critical
from scalefit.display import Display, Displayable
from scalefit.errors import FitError, LawError, SweepError
from scalefit.fitting.fit_result import Fit
from scalefit.laws.formula import Law
from scalefit.laws.published import PublishedLaw
from scalefit.vocabulary import column_of, format_number

Array = np.ndarray

_DRAWS = 1000
_SHOWN = 12  # stages that the display lists
_POINTS, _DECADES = 200, 3  # of a law of the loss; data below a thousandth of all take hardly a step


@dataclass(frozen=True, eq=False, repr=False)
class BatchSchedule(Displayable):
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

    See Also
    --------
    batch_schedule : Makes one.

    Examples
    --------
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> run = pd.DataFrame({"tokens": [1e8, 1e9, 5e9, 2e10], "loss": [4.5, 3.4, 3.0, 2.8]})
    >>> plan = sf.batch_schedule("kaplan2020_bcrit", run, multiple=1e5)
    >>> plan.stages["batch"].tolist(), plan.batch_at(4e9).item()
    ([400000.0, 600000.0, 900000.0, 1100000.0], 900000.0)
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

    @property
    def table(self) -> pd.DataFrame:
        """The schedule, as a copy."""
        return self._table.copy()

    @property
    def stages(self) -> pd.DataFrame:
        """Runs of equal batch: `start` and `end` in data spent, `batch`, `steps` taken in the stage."""
        ends = self._table[self._table["batch"].diff(-1) != 0]
        columns = {"start": ends["tokens"].shift(fill_value=0.0), "end": ends["tokens"], "batch": ends["batch"]}
        return pd.DataFrame(columns | {"steps": np.diff(ends["steps"], prepend=0.0)}).reset_index(drop=True)

    def batch_at(self, tokens: float | Array) -> Array:
        """Return the batch to use when so much data has been spent; the last batch beyond the end.

        Parameters
        ----------
        tokens : float or array_like
            Data spent so far, in `data_unit`.

        Returns
        -------
        numpy.ndarray
            Of the shape of `tokens`.

        Raises
        ------
        FitError
            If an amount of data is negative or not a number.

        Examples
        --------
        >>> import pandas as pd
        >>> import scalefit as sf
        >>> run = pd.DataFrame({"tokens": [1e8, 1e9, 5e9, 2e10], "loss": [4.5, 3.4, 3.0, 2.8]})
        >>> sf.batch_schedule("kaplan2020_bcrit", run, multiple=1e5).batch_at([1e8, 4e9, 1e12]).tolist()
        [400000.0, 900000.0, 1100000.0]
        """
        spent = np.asarray(tokens, dtype=float)
        if not (spent >= 0).all():
            raise FitError(f"tokens: expected data spent, not negative, found {tokens!r}")
        index = np.searchsorted(self._table["tokens"].to_numpy(), spent, side="right")
        return self._table["batch"].to_numpy()[np.minimum(index, len(self._table) - 1)]

    def _display(self) -> Display:
        stages, batch = self.stages, self._table["batch"].map(format_number)
        low, high = 100 * self.saved_lo, 100 * self.saved_hi
        span = f"{low:.1f} to {high:.1f} %" if np.isfinite(low) else "no interval"
        constant, steps = format_number(self.constant_batch), format_number(self.steps_constant)
        above = f"{self.tokens / self.tokens_min - 1:.1%} above the least"
        facts = (
            ("batch", f"{batch.iloc[0]} to {batch.iloc[-1]} {self.data_unit}"),
            ("data", f"{format_number(self.tokens)} {self.data_unit}, {above}"),
            ("steps", format_number(self.steps)),
            ("constant", f"batch {constant} spends as much data in {steps} steps"),
            ("saved", f"{100 * self.saved:.1f} % of those steps ({span})"),
        )
        some = np.unique(np.linspace(0, len(stages) - 1, min(len(stages), _SHOWN)).astype(int))
        return Display(f"Batch-size schedule ({self.shape})", facts, stages.iloc[some].map(format_number), self.notes)


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
    critical : Fit, PublishedLaw, str, Tradeoff or float
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

    See Also
    --------
    fit_tradeoff : Measures critical batch sizes; `fit` makes ``bcrit_loss`` of them.
    adjust_batch : What runs at a constant batch would have cost at the best one.

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
    >>> import scalefit as sf
    >>> run = pd.DataFrame({"tokens": [1e8, 1e9, 5e9, 2e10], "loss": [4.5, 3.4, 3.0, 2.8]})
    >>> plan = sf.batch_schedule("kaplan2020_bcrit", run, overhead=0.5, power_of_two=True)
    >>> plan.table["batch"].tolist()
    [262144.0, 262144.0, 524288.0, 524288.0]
    """
    if shape not in ("sqrt", "proportional", "constant"):
        raise FitError(f"shape: expected 'sqrt', 'proportional' or 'constant', found {shape!r}")
    sizes = {"overhead": overhead, "multiple": multiple, "cap": cap, "smallest": smallest, "curve_batch": curve_batch}
    for name, value in sizes.items():
        if value is not None:
            positive(name, value, expected="a positive number")
    if cap is not None and cap < max(smallest or 0.0, multiple or 0.0):
        raise FitError(f"cap = {format_number(cap)} lies below the smallest batch allowed")
    law = read_critical(critical)
    segments, unit, notes = _read_curve(curve, law, tokens, inputs)
    spent = np.diff(segments["tokens"], prepend=0.0)

    def least(critical: Array) -> Array:
        return spent / (1 + (curve_batch or 0.0) / critical)

    bcrit, drawn = law.at(segments), law.draws(segments, _DRAWS, seed)
    ideal = _ideal(bcrit, least(bcrit), overhead, shape)
    limits = (multiple, power_of_two, cap, smallest)
    batch = _rounded(ideal, *limits)
    data, steps, constant, steps_constant = _costs(batch, bcrit, least(bcrit))
    low = high = np.full(len(batch), np.nan)
    saved_low = saved_high = np.nan
    if drawn is not None:
        draws = _rounded(_ideal(drawn, least(drawn), overhead, shape), *limits)
        low, high = np.quantile(draws, [0.025, 0.975], axis=0)
        _, taken, _, otherwise = _costs(batch, drawn, least(drawn))
        saved_low, saved_high = map(float, np.quantile(1 - taken / otherwise, [0.025, 0.975]))
    columns = {"tokens": np.cumsum(data), "loss": segments["loss"], "B_crit": bcrit, "batch": batch}
    columns |= {"batch_lo": low, "batch_hi": high, "steps": np.cumsum(data / batch)}
    totals = (float(data.sum()), float(steps), float(least(bcrit).sum()), float(constant), float(steps_constant))
    saved = (float(1 - steps / steps_constant), saved_low, saved_high)
    all_notes = merge(notes, law.notes(segments), _shape_notes(bcrit, batch, ideal, shape))
    return BatchSchedule(pd.DataFrame(columns), *totals, *saved, overhead, shape, unit, all_notes)


def _read_curve(
    curve: Any, critical: CriticalBatch, tokens: float | None, inputs: Mapping[str, float]
) -> tuple[pd.DataFrame, str, list[Note]]:
    """Return segments of training (data at the end, mean loss, inputs of the critical batch), data unit and notes."""
    given = {column_of(name): float(value) for name, value in inputs.items()}
    unit, notes = critical.source.data_unit or "tokens", []
    curve = Law(curve) if isinstance(curve, str) else curve
    if isinstance(curve, Law):
        if curve.parameters:
            missing = ", ".join(curve.parameters)
            raise LawError(f"{curve.formula!r} leaves {missing} open: write their values into it, or fit it")
        curve = PublishedLaw(curve, {}, "as written", data_unit=unit)
    if isinstance(curve, Fit | PublishedLaw):
        table, note = _from_law(curve, tokens, given)
        notes.append(note)
    elif tokens is not None:
        raise FitError("tokens= says where a law of the loss ends; a curve has its own end")
    else:
        table = _from_table(curve)
    unit = getattr(curve, "data_unit", unit)
    critical.check_data_unit(unit)
    # Geometric mean of the losses at both ends of a segment; the loss before the first point is unknown.
    middle = np.sqrt(table["loss"] * table["loss"].shift(fill_value=table["loss"].iloc[0]))
    others = {name: value for name, value in given.items() if name in critical.inputs}
    return pd.DataFrame({"tokens": table["tokens"], "loss": middle}).assign(**others), unit, notes


def _from_law(law: Fit | PublishedLaw, tokens: float | None, given: dict[str, float]) -> tuple[pd.DataFrame, Note]:
    """Return data and loss along training, as a law of the final loss gives them."""
    if column_of(law.law.target) != "loss":
        raise LawError(f"expected a law for the loss, found one for {law.law.target}: {law.law.formula!r}")
    end = positive("tokens", tokens, expected="where training ends, a positive number")[0]
    columns = {column_of(name) for name in law.law.inputs}
    missing = columns - {"tokens"} - set(given)
    if "tokens" not in columns or missing:
        lacking = ", ".join(sorted(missing)) or "a law that reads the tokens"
        raise LawError(f"{law.law.formula!r} cannot be followed along training; missing: {lacking}")
    ends = np.geomspace(end / 10**_DECADES, end, _POINTS)
    losses = law.law(law.values, {name: given[name] for name in columns - {"tokens"}} | {"tokens": ends})
    name = law.law.name or law.law.formula
    text = f"the loss along training is taken from {name}, a law of final losses, from 1/{10**_DECADES} of the data on"
    return pd.DataFrame({"tokens": ends, "loss": losses}), Note("loss_law", text, caution=True)


def _from_table(curve: Any) -> pd.DataFrame:
    """Return data and loss of the only run of a table."""
    table = curve if isinstance(curve, pd.DataFrame) else getattr(curve, "table", None)
    if not isinstance(table, pd.DataFrame) or not {"tokens", "loss"} <= set(table.columns):
        raise SweepError("expected a table with columns tokens and loss, or a fitted law of the loss")
    if "run" in table and table["run"].nunique() > 1:
        raise SweepError(f"expected the curve of one run, found {table['run'].nunique()}; choose one")
    rows = table[["tokens", "loss"]].astype(float)
    if len(rows) < 2 or not (np.isfinite(rows) & (rows > 0)).all(axis=None):
        raise SweepError(f"expected at least two rows of positive tokens and loss, found {len(rows)} rows")
    falls = np.flatnonzero(np.diff(rows["tokens"]) <= 0)
    if len(falls):
        raise SweepError(f"tokens: expected to grow from row to row; they do not at row {falls[0] + 2}")
    return rows.reset_index(drop=True)


def _ideal(critical: Array, least: Array, overhead: float, shape: str) -> Array:
    """Return the batch of every segment; `critical` and `least` have shape (..., segments)."""
    rising = np.maximum.accumulate(critical, axis=-1)
    if shape == "proportional":
        return overhead * rising
    # The batch is a factor times a power of B_crit. The factor is such that the mean of B/B_crit, weighted by each
    # segment's share of the least data, equals the overhead asked for.
    power = 0.5 if shape == "sqrt" else 0.0
    share = least / least.sum(axis=-1, keepdims=True)
    return overhead * rising**power / (share * rising ** (power - 1)).sum(axis=-1, keepdims=True)


def _rounded(
    batch: Array, multiple: float | None, power_of_two: bool, cap: float | None, smallest: float | None
) -> Array:
    """Bring batches to allowed sizes within the limits."""
    unit = multiple or 1.0
    low, high = max(smallest or 0.0, unit if multiple or power_of_two else 0.0), cap or np.inf
    found = np.clip(batch, low, high)
    if power_of_two or multiple:
        # Take the nearest allowed size within the limits; sizes are doublings or multiples of the unit.
        steps: Callable[[Any], Any] = np.log2 if power_of_two else np.asarray
        step = np.clip(np.rint(steps(found / unit)), np.ceil(steps(low / unit)), np.floor(steps(high / unit)))
        found = unit * (2**step if power_of_two else step)
    if not ((found >= low) & (found <= high)).all():
        limits = f"{format_number(low)} and {format_number(high)}"
        raise FitError(f"no batch allowed lies between {limits}; widen the limits")
    return found


def _costs(batch: Array, critical: Array, least: Array) -> tuple[Array, Array, Array, Array]:
    """Return data of every segment, total steps, the constant batch of equal data, and its steps."""
    spent = least * (1 + batch / critical)
    inverse, total = (least / critical).sum(axis=-1), least.sum(axis=-1)
    constant = (spent.sum(axis=-1) - total) / inverse
    return spent, (spent / batch).sum(axis=-1), constant, total / constant + inverse


def _shape_notes(critical: Array, batch: Array, ideal: Array, shape: str) -> list[Note]:
    """Note where the critical batch falls again, what rounding changed, and that a proportional batch saves nothing."""
    notes = []
    falls = critical < np.maximum.accumulate(critical) * (1 - 1e-9)
    if falls.any():
        text = f"the critical batch falls again in {int(falls.sum())} of {len(falls)} segments; the batch does not"
        notes.append(Note("falls", text))
    off = np.exp(np.abs(np.log(batch / ideal)).max())
    if off > 2:
        text = f"rounding and limits move the batch by up to {format_number(float(off), 3)}x"
        notes.append(Note("limits", text, caution=True))
    if shape == "proportional":
        text = "in proportion to B_crit a ramp takes as many steps as the constant batch that spends as much data"
        notes.append(Note("proportional", text))
    return notes
