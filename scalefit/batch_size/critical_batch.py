"""A critical batch size however it is given (fit, law, trade-off or number), and what runs would have cost at it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note, merge
from scalefit.errors import FitError, LawError, ScalefitError, SweepError
from scalefit.fitting.fit_result import Fit
from scalefit.fitting.fit_values import FitStatus
from scalefit.fitting.reach import reach_of
from scalefit.laws.published import PublishedLaw, get_published
from scalefit.sweep import Sweep
from scalefit.vocabulary import column_of, format_number

Array = np.ndarray


def positive(name: str, value: Any, error: type[ScalefitError] = FitError, expected: str = "positive numbers") -> Array:
    """Return numbers as a vector; raise unless every one is finite and above 0."""
    try:
        numbers = np.atleast_1d(np.asarray(value, dtype=float)).ravel()
    except (TypeError, ValueError):
        numbers = np.array([np.nan])
    if not (np.isfinite(numbers) & (numbers > 0)).all():
        raise error(f"{name}: expected {expected}, found {value!r}")
    return numbers


@dataclass(frozen=True)
class NoiseScale:
    """One critical batch size, in data per step, with the standard error of its log (0: taken as known)."""

    value: float
    log_stderr: float
    source: str
    data_unit: str | None  # None for a bare number, which counts whatever it is used with

    def __post_init__(self) -> None:
        positive("B_crit", self.value, LawError, "a positive critical batch size")
        if not 0 <= self.log_stderr < np.inf:
            raise FitError(f"noise: its error is not known ({self.log_stderr}); pass its value alone to go without")


@dataclass(frozen=True, eq=False)
class CriticalBatch:
    """Critical batch sizes on demand: those of a law, or one for all rows."""

    source: Fit | PublishedLaw | NoiseScale

    @property
    def name(self) -> str:
        """The name of the source, for notes."""
        if isinstance(self.source, NoiseScale):
            return f"B_crit = {format_number(self.source.value)}"
        return self.source.law.name or self.source.law.formula

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns it reads."""
        return () if isinstance(self.source, NoiseScale) else tuple(map(column_of, self.source.law.inputs))

    def check_data_unit(self, data_unit: str) -> None:
        """Raise LawError unless the data are counted in the unit of the critical batch size."""
        unit = self.source.data_unit
        if unit not in (None, data_unit):
            raise LawError(f"{self.name} counts {unit}, these data {data_unit}: fit it to data of this unit")

    def at(self, table: pd.DataFrame) -> Array:
        """Return the critical batch size of every row, NaN where an input is missing."""
        if isinstance(self.source, NoiseScale):
            return np.full(len(table), self.source.value)
        if missing := [name for name in self.inputs if name not in table]:
            raise LawError(f"{self.name} needs {', '.join(missing)}; there: {', '.join(map(str, table))}")
        return np.broadcast_to(self.source.law(self.source.values, table), len(table))

    def at_loss(self, loss: float | None) -> NoiseScale:
        """Return the critical batch size at one loss, with the error of a fitted law to first order."""
        source = self.source
        if isinstance(source, NoiseScale):
            return source
        if self.inputs != ("loss",):
            raise LawError(f"noise: expected a law of B_crit in the loss, found {source.law.formula!r}")
        if loss is None:
            raise FitError(f"loss: {source.law.formula!r} needs the loss at which to read the noise scale")
        error = 0.0
        if isinstance(source, Fit):
            derivation = source.law.derivation
            entered = derivation.enter([np.array([float(loss)])])
            slope = derivation.function("log")(source.phi[None], entered)[1][0, :, 0]
            with np.errstate(invalid="ignore"):
                error = float(np.sqrt(slope @ source.covariance @ slope))
        value = float(self.at(pd.DataFrame({"loss": [loss]}))[0])
        return NoiseScale(value, error, f"{self.name} at a loss of {loss:g}", source.data_unit)

    def draws(self, table: pd.DataFrame, n: int, seed: int) -> Array | None:
        """Return `n` critical batch sizes of every row, (n, rows), as their errors allow; None without errors."""
        source, rng = self.source, np.random.default_rng(seed)
        if isinstance(source, NoiseScale) and source.log_stderr:
            return self.at(table) * np.exp(source.log_stderr * rng.normal(size=(n, 1)))
        if not isinstance(source, Fit) or source.dof <= 0 or not np.isfinite(source.covariance).all():
            return None
        # Multivariate Student t, because the scatter was estimated too: normal draws over the root of a chi square.
        zero = np.zeros(len(source.phi))
        normal = rng.multivariate_normal(zero, source.covariance, n, method="eigh", check_valid="ignore")
        phi = source.phi + normal * np.sqrt(source.dof / rng.chisquare(source.dof, size=n))[:, None]
        return source.law(source.natural(phi), table)

    def notes(self, table: pd.DataFrame) -> list[Note]:
        """Return notes for users of these values: their errors, and how far they reach beyond their data."""
        source, notes = self.source, []
        if isinstance(source, Fit):
            if source.status is not FitStatus.CONVERGED:
                text = f"{self.name}: {source.status}: {source.status.sentence}"
                notes.append(Note("status", text, caution=True))
            worst = reach_of(source, table[list(self.inputs)]).max() if self.inputs else pd.Series(dtype=float)
            beyond = [f"{name} by {format_number(factor, 3)}x" for name, factor in worst.items() if factor > 1 + 1e-9]
            text = f"{self.name} is used beyond the range it was fitted to: {', '.join(beyond)}"
        else:
            if isinstance(source, PublishedLaw) or not source.log_stderr:
                notes.append(Note("no_errors", f"{self.name} comes without errors: no intervals are given"))
            beyond = [
                f"{name} from {format_number(low)} to {format_number(high)}"
                for name, (low, high) in getattr(source, "validity", {}).items()
                if ((table[name] < low) | (table[name] > high)).any()
            ]
            text = f"{self.name} was found for {', '.join(beyond)}; these data lie partly outside"
        return [*notes, Note("beyond", text, caution=True)] if beyond else notes


def read_critical(source: Any, *, stderr: float | None = None, target: float | None = None) -> CriticalBatch:
    """Return a critical batch size from a fit, a published law or its name, a trade-off or a number.

    `stderr` is the standard error of a number; `target` chooses a row of a trade-off.
    """
    source = get_published(source) if isinstance(source, str) else source
    if isinstance(source, Fit | PublishedLaw):
        law = source.law
        if law.target not in ("B_crit", "B_noise"):
            raise LawError(f"expected a law for B_crit, found one for {law.target}: {law.formula!r}")
        if isinstance(source, Fit) and not np.isfinite(source.phi).all():
            raise FitError(f"{law.formula!r} was not fitted: {source.status.sentence}", partial=source)
        return CriticalBatch(source)
    table = source if isinstance(source, pd.DataFrame) else getattr(source, "table", None)
    if isinstance(table, pd.DataFrame):
        return CriticalBatch(_of_tradeoff(table, target, getattr(source, "data_unit", None)))
    if isinstance(source, bool) or not isinstance(source, int | float | np.number):
        expected = "a fit of B_crit such as sf.fit('bcrit_loss', trade), a trade-off, a name or a number"
        raise LawError(f"expected {expected}, found {type(source).__name__}")
    error = float(stderr) / float(source) if stderr and source else 0.0
    return CriticalBatch(NoiseScale(float(source), error, "given", None))


def _of_tradeoff(table: pd.DataFrame, target: float | None, data_unit: str | None) -> NoiseScale:
    """Return B_crit of the only row of a trade-off, or of the row of one target."""
    if lacking := [name for name in ("B_crit", "B_crit_stderr") if name not in table]:
        raise FitError(f"noise: the table lacks {', '.join(lacking)}; there: {', '.join(map(str, table))}")
    rows = table
    if target is not None:
        if "target" not in table:
            raise FitError("target: the table has no column target")
        rows = table[np.isclose(table["target"].to_numpy(dtype=float), target, rtol=1e-9)]
    if len(rows) != 1:
        there = ", ".join(f"{value:g}" for value in table["target"]) if "target" in table else f"{len(table)} rows"
        raise FitError(f"noise: expected one trade-off, found {len(rows)}; choose by target= ({there}) or pass one row")
    row = rows.iloc[0]
    if not row.get("identified", True):
        raise FitError("noise: this trade-off does not identify B_crit; bring batches on both sides of it")
    value = float(row["B_crit"])
    return NoiseScale(value, float(row["B_crit_stderr"]) / value, "trade-off", data_unit)


def adjust_batch(sweep: Sweep, critical: Any) -> Sweep:
    r"""Return the sweep with the steps and the compute each run would have needed at the best batch for either.

    .. math:: S_{min} = \frac{S}{1 + B_{crit}(L)/B}, \qquad C_{min} = \frac{C}{1 + B/B_{crit}(L)}

    `steps_min` is what is left at batches far above the critical one, `flops_min` at batches far below.

    Parameters
    ----------
    sweep : Sweep
        With `batch`, the inputs of the critical batch (`loss`, usually), `steps` or `tokens`, and `flops` or both
        `params` and `tokens` (or steps).
    critical : Fit, PublishedLaw, str, Tradeoff or float
        A law for B_crit, the name of a published one, a trade-off of one fit, or one number for all runs.

    Returns
    -------
    Sweep
        With the columns `steps_min` and `flops_min`, NaN for runs that diverged, and notes that say where steps and
        compute come from. `flops_min` is left out when the sweep has neither compute nor params.

    Raises
    ------
    SweepError
        If a column is missing, or the sweep has been adjusted already.
    LawError
        If `critical` is no critical batch, is not positive, or counts data in another unit than the sweep.
    FitError
        If a law was not fitted, or a trade-off does not identify its critical batch.

    See Also
    --------
    fit_tradeoff : Measures the critical batch size.
    batch_schedule : Lets the batch follow it.

    Notes
    -----
    Steps that the sweep does not record are tokens / batch, compute is 6 N D. Errors of the critical batch are not
    carried into the columns: a critical batch wrong by a factor f moves `steps_min` by less than f, and hardly at all
    where the batch is far above it.

    References
    ----------
    Kaplan et al. 2020, arXiv:2001.08361, eqs. 5.4 and 5.5.

    Examples
    --------
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> runs = pd.DataFrame({"batch": [1e5, 1e6], "params": 1e8, "tokens": 2e9, "loss": [3.2, 3.3]})
    >>> sf.adjust_batch(sf.Sweep.from_frame(runs), 1e6).table["steps_min"].round(1).tolist()
    [1818.2, 1000.0]
    """
    if not isinstance(sweep, Sweep):
        raise SweepError(f"adjust_batch expects a Sweep, found {type(sweep).__name__}: read_sweep(table) makes one")
    law, table = read_critical(critical), sweep.table
    law.check_data_unit(sweep.data_unit)
    if again := [name for name in ("steps_min", "flops_min") if name in table]:
        raise SweepError(f"{again[0]} is there already: adjust the sweep that has not been adjusted")
    sweep.require("batch", *law.inputs)
    batch, bcrit = table["batch"].to_numpy(), law.at(table)
    if "steps" in table:
        steps, how_steps = table["steps"].to_numpy(), "steps as recorded"
    else:
        sweep.require("tokens")
        steps, how_steps = table["tokens"].to_numpy() / batch, f"steps are {sweep.data_unit} / batch"
    flops, how_flops = _flops(table, steps, sweep.data_unit)
    table["steps_min"] = steps / (1 + bcrit / batch)
    if flops is not None:
        table["flops_min"] = flops / (1 + batch / bcrit)
    text = f"steps_min = S/(1 + B_crit/B) and flops_min = C/(1 + B/B_crit) by {law.name}; {how_steps}, {how_flops}"
    finished = table[~table["diverged"].to_numpy(dtype=bool)]
    notes = merge(sweep.notes, [Note("adjusted", text)], law.notes(finished))
    return replace(sweep, _table=table, notes=notes)


def _flops(table: pd.DataFrame, steps: Array, data_unit: str) -> tuple[Array | None, str]:
    """Return the compute of every run, None where it is not known, and where it comes from."""
    if "flops" in table:
        return table["flops"].to_numpy(), "compute as recorded"
    if "params" not in table:
        return None, "compute is not known (no flops, no params)"
    if data_unit != "tokens":
        return None, f"compute is not known (no flops; 6 N D holds for tokens, not {data_unit})"
    data = table["tokens"] if "tokens" in table else table["batch"] * steps
    return (6 * table["params"] * data).to_numpy(), "compute is 6 N D"
