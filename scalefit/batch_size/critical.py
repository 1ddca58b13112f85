"""A critical batch size or noise scale to work with, however it is given; and what a run would have cost at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note, merge
from scalefit.errors import FitError, LawError, SweepError
from scalefit.fitting.fit_result import Fit, reach_of
from scalefit.laws.published import PublishedLaw, get_published
from scalefit.sweep import Sweep
from scalefit.vocabulary import column_of, format_number

Array = np.ndarray

_TARGETS = ("B_crit", "B_noise")


@dataclass(frozen=True, eq=False)
class Critical:
    """Critical batch sizes on demand.

    Parameters
    ----------
    source : Fit, PublishedLaw or float
    name : str
        For notes and faces.
    inputs : tuple of str
        Columns it reads.
    data_unit : str or None
        What it counts; None for a bare number, which counts whatever it is used with.
    """

    source: Fit | PublishedLaw | float
    name: str
    inputs: tuple[str, ...]
    data_unit: str | None

    def check_data_unit(self, data_unit: str) -> None:
        """Raise LawError unless the data are counted in the unit of the critical batch size."""
        if self.data_unit not in (None, data_unit):
            raise LawError(f"{self.name} counts {self.data_unit}, these data {data_unit}: fit it to data of this unit")

    def at(self, table: pd.DataFrame | Mapping[str, Any]) -> Array:
        """Return the critical batch size of every row, NaN where an input is missing.

        Raises
        ------
        LawError
            If a column it reads is not there.
        """
        missing = [name for name in self.inputs if name not in table]
        if missing:
            raise LawError(f"{self.name} needs {', '.join(missing)}; there: {', '.join(map(str, table))}")
        rows = len(next(iter(table.values()))) if isinstance(table, Mapping) else len(table)
        if isinstance(self.source, float):
            return np.full(rows, self.source)
        return np.broadcast_to(self.source.law(self.source.values, table), rows)

    def draws(self, table: pd.DataFrame, n: int, seed: int) -> Array | None:
        """Return `n` critical batch sizes of every row, (n, rows), as the errors of the fit allow; None without errors.

        Parameters come from the multivariate Student t of the fit's covariance.
        """
        if not isinstance(self.source, Fit) or self.source.dof <= 0 or not np.isfinite(self.source.covariance).all():
            return None
        fit, rng = self.source, np.random.default_rng(seed)
        values, vectors = np.linalg.eigh(fit.covariance)
        normal = rng.normal(size=(n, len(fit.phi))) * np.sqrt(np.maximum(values, 0.0))
        heavy = np.sqrt(fit.dof / rng.chisquare(fit.dof, size=n))[:, None]
        phi = fit.phi + heavy * (normal @ vectors.T)
        return fit.law(fit.natural(phi), table)

    def doubts(self, table: pd.DataFrame) -> tuple[Note, ...]:
        """Return what a user of these values should know: their errors, and how far they reach beyond the data."""
        if not isinstance(self.source, Fit):
            return (
                Note("no_errors", f"{self.name} comes without errors: no intervals are given"),
                *self._outside(table),
            )
        notes = []
        if self.source.status.name != "CONVERGED":
            text = f"{self.name}: {self.source.status}: {self.source.status.sentence}"
            notes.append(Note("status", text, caution=True))
        worst = reach_of(self.source, table[list(self.inputs)]).max() if self.inputs else pd.Series(dtype=float)
        beyond = [f"{name} by {format_number(factor, 3)}x" for name, factor in worst.items() if factor > 1 + 1e-9]
        if beyond:
            text = f"{self.name} is used beyond the range it was fitted to: {', '.join(beyond)}"
            notes.append(Note("beyond", text, caution=True))
        return tuple(notes)

    def _outside(self, table: pd.DataFrame) -> tuple[Note, ...]:
        """Remark on inputs outside the range that the authors of a published law covered."""
        validity = self.source.validity if isinstance(self.source, PublishedLaw) else {}
        outside = [
            f"{name} from {format_number(low)} to {format_number(high)}"
            for name, (low, high) in validity.items()
            if ((table[name] < low) | (table[name] > high)).any()
        ]
        text = f"{self.name} was found for {', '.join(outside)}; these data lie partly outside"
        return (Note("beyond", text, caution=True),) if outside else ()


def read_critical(source: Any) -> Critical:
    """Return a critical batch size from a fit, a published law, its name or a number.

    Parameters
    ----------
    source : Fit, PublishedLaw, str or float
        A fit or published law for B_crit (or B_noise), the name of a published one, or data per step.

    Raises
    ------
    LawError
        If it is none of these, is a law for something else, or is not positive.

    Examples
    --------
    >>> read_critical("kaplan2020_bcrit").at({"loss": [2.0, 3.0]}).round(-3)
    array([7371000., 1069000.])
    """
    if isinstance(source, str):
        source = get_published(source)
    if isinstance(source, Fit | PublishedLaw):
        law = source.law
        if law.target not in _TARGETS:
            raise LawError(f"expected a law for B_crit, found one for {law.target}: {law.formula!r}")
        if isinstance(source, Fit) and not np.isfinite(source.phi).all():
            raise FitError(f"{law.formula!r} was not fitted: {source.status.sentence}", partial=source)
        unit = getattr(source, "data_unit", "tokens")
        return Critical(source, law.name or law.formula, tuple(column_of(name) for name in law.inputs), unit)
    if isinstance(source, bool) or not isinstance(source, int | float | np.number):
        kind = type(source).__name__
        raise LawError(
            f"expected a fit of B_crit such as sf.fit('bcrit_loss', trade), a name or a number, found {kind}"
        )
    if not (np.isfinite(source) and source > 0):
        raise LawError(f"expected a positive critical batch size, found {source}")
    return Critical(float(source), f"B_crit = {format_number(float(source))}", (), None)


@dataclass(frozen=True)
class NoiseScale:
    """The batch size at which noise and curvature balance.

    Parameters
    ----------
    value : float
        Data per step.
    log_stderr : float
        Standard error of its logarithm; 0 where it is taken as known.
    source : str
    data_unit : str or None
        None for a bare number.
    """

    value: float
    log_stderr: float
    source: str
    data_unit: str | None


def read_noise(
    noise: Any, *, stderr: float | None = None, target: float | None = None, loss: float | None = None
) -> NoiseScale:
    """Return a noise scale from a number, a trade-off result or a law of the critical batch.

    Parameters
    ----------
    noise : float, Fit, PublishedLaw, str, or a result or DataFrame whose table has `B_crit` and `B_crit_stderr`
        Text is the name of a published law.
    stderr : float, optional
        Standard error of a number, in its unit.
    target : float, optional
        Which row of a table with several targets.
    loss : float, optional
        Where to evaluate a law of the loss.

    Raises
    ------
    FitError
        If it is none of these, not positive, or not identified.
    LawError
        If a law reads anything but the loss, or there is none of that name.
    """
    if isinstance(noise, str):
        noise = get_published(noise)
    if isinstance(noise, Fit | PublishedLaw):
        return _of_law(noise, loss)
    table = noise if isinstance(noise, pd.DataFrame) else getattr(noise, "table", None)
    if isinstance(table, pd.DataFrame):
        return _of_table(table, target, getattr(noise, "data_unit", None))
    if isinstance(noise, bool) or not isinstance(noise, int | float | np.number):
        kind = type(noise).__name__
        raise FitError(f"noise: expected a number, a trade-off or a fit of B_crit, found {kind}")
    error = 0.0 if stderr is None else float(stderr) / float(noise)
    return _checked(NoiseScale(float(noise), error, "given", None))


def _of_law(law: Fit | PublishedLaw, loss: float | None) -> NoiseScale:
    form = law.law
    if form.target not in ("B_crit", "B_noise") or tuple(form.inputs) not in (("L",), ("loss",)):
        raise LawError(f"noise: expected a law of B_crit in the loss, found {form.formula!r}")
    if loss is None:
        raise FitError(f"loss: {form.formula!r} needs the loss at which to read the noise scale")
    value = float(form(law.values, {"loss": [loss]})[0])
    error = 0.0
    if isinstance(law, Fit):
        derivation = form.derivation
        slope = derivation.function("log")(law.phi[None], derivation.enter([np.array([float(loss)])]))[1][0, :, 0]
        with np.errstate(invalid="ignore"):
            error = float(np.sqrt(slope @ law.covariance @ slope))
    name = f"{form.name or form.formula} at a loss of {loss:g}"
    return _checked(NoiseScale(value, error, name, getattr(law, "data_unit", "tokens")))


def _of_table(table: pd.DataFrame, target: float | None, data_unit: str | None) -> NoiseScale:
    lacking = [name for name in ("B_crit", "B_crit_stderr") if name not in table]
    if lacking:
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
    if not bool(row.get("identified", True)):
        raise FitError("noise: this trade-off does not identify B_crit; bring batches on both sides of it")
    value = float(row["B_crit"])
    return _checked(NoiseScale(value, float(row["B_crit_stderr"]) / value, "trade-off", data_unit))


def _checked(noise: NoiseScale) -> NoiseScale:
    if not (np.isfinite(noise.value) and noise.value > 0):
        raise FitError(f"noise: expected a positive finite noise scale, found {noise.value}")
    if not (np.isfinite(noise.log_stderr) and noise.log_stderr >= 0):
        raise FitError(f"noise: its error is not known ({noise.log_stderr}); pass the value as a number to go without")
    return noise


_MADE = ("steps_min", "flops_min")


def adjust_batch(sweep: Sweep, critical: Any) -> Sweep:
    r"""Return the sweep with the steps and the compute each run would have needed at the best batch for either.

    .. math:: S_{min} = \frac{S}{1 + B_{crit}(L)/B}, \qquad C_{min} = \frac{C}{1 + B/B_{crit}(L)}

    `steps_min` is what is left at batches far above the critical one, `flops_min` at batches far below.

    Parameters
    ----------
    sweep : Sweep
        With `batch`, the inputs of the critical batch (`loss`, usually), `steps` or `tokens`, and `flops` or both
        `params` and `tokens` (or steps).
    critical : Fit, PublishedLaw, str or float
        A law for B_crit, the name of a published one, or one number for all runs.

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
        If the law is not one for B_crit, or counts data in another unit than the sweep.

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
    >>> runs = pd.DataFrame({"batch": [1e5, 1e6], "params": 1e8, "tokens": 2e9, "loss": [3.2, 3.3]})
    >>> adjust_batch(Sweep.from_frame(runs), 1e6).table["steps_min"].round(1).tolist()
    [1818.2, 1000.0]
    """
    if not isinstance(sweep, Sweep):
        raise SweepError(
            f"adjust_batch expects a Sweep, found {type(sweep).__name__}: read_sweep(table, ...) makes one"
        )
    law = read_critical(critical)
    law.check_data_unit(sweep.data_unit)
    table = sweep.table
    again = [name for name in _MADE if name in table]
    if again:
        raise SweepError(f"{again[0]} is there already: adjust the sweep that has not been adjusted")
    sweep.require("batch", *law.inputs)
    steps, how_steps = _steps(sweep, table)
    flops, how_flops = _flops(sweep, table, steps)
    batch, bcrit = table["batch"].to_numpy(), law.at(table)
    made: dict[str, Array] = {"steps_min": steps / (1 + bcrit / batch)}
    if flops is not None:
        made["flops_min"] = flops / (1 + batch / bcrit)
    text = f"steps_min = S/(1 + B_crit/B) and flops_min = C/(1 + B/B_crit) by {law.name}; {how_steps}, {how_flops}"
    kept = table[~table["diverged"].to_numpy(dtype=bool)]
    notes = merge(sweep.notes, [Note("adjusted", text)], law.doubts(kept))
    return replace(sweep, _table=table.assign(**made), notes=notes)


def _steps(sweep: Sweep, table: pd.DataFrame) -> tuple[Array, str]:
    if "steps" in table:
        return table["steps"].to_numpy(), "steps as recorded"
    sweep.require("tokens")
    return (table["tokens"] / table["batch"]).to_numpy(), f"steps are {sweep.data_unit} / batch"


def _flops(sweep: Sweep, table: pd.DataFrame, steps: Array) -> tuple[Array | None, str]:
    if "flops" in table:
        return table["flops"].to_numpy(), "compute as recorded"
    if "params" not in table:
        return None, "compute is not known (no flops, no params)"
    data = table["tokens"] if "tokens" in table else table["batch"] * steps
    if sweep.data_unit != "tokens":
        return None, f"compute is not known (no flops; 6 N D holds for tokens, not {sweep.data_unit})"
    return (6 * table["params"] * data).to_numpy(), "compute is 6 N D"
