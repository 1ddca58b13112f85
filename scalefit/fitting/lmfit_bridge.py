"""The one file that knows lmfit: Parameters in, Parameters and ModelResult out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scalefit.errors import FitError
from scalefit.laws.formula import Law

if TYPE_CHECKING:
    import lmfit

    from scalefit.fitting.result import Fit

Array = np.ndarray


@dataclass(frozen=True)
class Settings:
    """What a user asked of the parameters.

    Parameters
    ----------
    start : mapping of str to float
    fixed : mapping of str to float
    bounds : mapping of str to (float, float)
    ties : mapping of str to str
        Parameter = expression of the others.
    """

    start: Mapping[str, float] = field(default_factory=dict)
    fixed: Mapping[str, float] = field(default_factory=dict)
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    ties: Mapping[str, str] = field(default_factory=dict)


def read_settings(params: lmfit.Parameters | None, start: Mapping[str, float] | None, law: Law) -> Settings:
    """Read what the user gave: starts by name, and everything an lmfit.Parameters can say."""
    start = dict(start or {})
    _check_known("start", start, law)
    strange = [name for name, value in start.items() if not _is_finite(value)]
    if strange:
        raise FitError(f"start of {strange[0]}: expected a finite number, found {start[strange[0]]!r}")
    if params is None:
        return Settings(start, {}, dict(law.bounds), {})
    _check_known("params", params, law)
    ties = {name: p.expr for name, p in params.items() if p.expr}
    fixed = {name: float(p.value) for name, p in params.items() if not p.vary and not p.expr}
    given = {n: float(p.value) for n, p in params.items() if p.vary and not p.expr and np.isfinite(p.value)}
    limits = {n: (float(p.min), float(p.max)) for n, p in params.items() if np.isfinite([p.min, p.max]).any()}
    bounded = [name for name in ties if name in limits]
    if bounded:
        raise FitError(f"{bounded[0]} is tied and bounded; bound the parameters its tie is made of instead")
    return Settings(given | start, fixed, dict(law.bounds) | limits, ties)


def _is_finite(value: Any) -> bool:
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError):
        return False


def _check_known(what: str, names: Any, law: Law) -> None:
    for name in names:
        if name not in law.parameters:
            raise FitError(f"{what} names {name!r}; the parameters of {law.formula!r} are {', '.join(law.parameters)}")


def to_parameters(fit: Fit) -> lmfit.Parameters:
    """Return the fitted parameters as lmfit.Parameters with stderr, correl, bounds and ties."""
    import lmfit

    made = lmfit.Parameters()
    natural = fit.law.derivation.to_natural
    low, high = natural(fit.lower), natural(fit.upper)
    for j, name in enumerate(fit.law.parameters):
        vary = fit.states[j] != "fixed"
        limits = {"min": float(low[j]), "max": float(high[j])} if vary else {}
        made.add(name, value=fit.values[name], vary=vary, **limits)
    for name, text in fit.ties.items():
        made.add(name, expr=text)
    _attach_errors(made, fit.table, fit.natural_covariance)
    return made


def _attach_errors(params: lmfit.Parameters, table: pd.DataFrame, covariance: pd.DataFrame) -> None:
    errors = dict(zip(table["parameter"], table["stderr"], strict=True))
    known = [name for name, error in errors.items() if np.isfinite(error) and error > 0]
    for name in known:
        others = [other for other in known if other != name]
        params[name].stderr = float(errors[name])
        params[name].correl = {o: float(covariance.at[name, o] / errors[name] / errors[o]) for o in others}


def to_model_result(fit: Fit) -> lmfit.model.ModelResult:
    """Return the fit as an lmfit ModelResult.

    Its model maps x (rows, inputs), the columns in the order of `Fit.rows`, to the target as the residuals see it: its
    log for a fit in log space. A robust loss is handed over as the signed root of twice the loss, so that lmfit's sum
    of squares is twice the objective; standard errors and correlations are scalefit's, since lmfit's assume squared
    residuals.
    """
    import lmfit

    if fit.is_bound.any() or fit.shrinkage > 0:
        what = "rows that are bounds" if fit.is_bound.any() else "a prior on its curvature"
        raise FitError(
            f"this fit has {what}, for which an lmfit ModelResult has no place; fit without, or use Fit.params"
        )
    law, rows = fit.law, fit.rows
    observed, given = fit.problem.observed, rows.iloc[:, :-1].to_numpy(dtype=float)

    def function(x: Array, **values: float) -> Array:
        table = pd.DataFrame(x, columns=list(rows.columns[:-1]), index=range(len(x)))
        value = np.broadcast_to(law({name: values[name] for name in law.parameters}, table), len(x))
        with np.errstate(all="ignore"):
            value = np.log(value) if fit.space == "log" else value
        if not fit.loss.robust or not np.array_equal(x, given):
            return value
        residual = value - observed
        return observed + np.sign(residual) * np.sqrt(2 * fit.loss.value(residual))

    arguments = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("x", *fit.values)]
    function.__signature__ = inspect.Signature(arguments)  # type: ignore[attr-defined]  # lmfit reads names from it
    model = lmfit.Model(function, independent_vars=["x"], name=law.formula)
    tight = {"xtol": 1e-12, "ftol": 1e-12, "gtol": 0.0}
    result = model.fit(observed, fit.params.copy(), x=given, weights=np.sqrt(fit.weights), fit_kws=tight)
    _attach_errors(result.params, fit.table, fit.natural_covariance)
    return result
