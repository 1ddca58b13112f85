"""A noise scale to work with, from wherever it was measured: a trade-off, a law of the critical batch, a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scalefit.errors import FitError, LawError
from scalefit.fitting import Fit
from scalefit.laws import get_published
from scalefit.laws.published import PublishedLaw


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
