"""Learning rates relative to the weights they move, and the way back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scalefit._values import Note
from scalefit.errors import FitError, SweepError
from scalefit.fitting.fit_result import Fit
from scalefit.sweep import Sweep
from scalefit.vocabulary import column_of, format_number

Floats = NDArray[np.float64]

NORMS = ("weight_norm", "equilibrium")

# Nats over which the slope of a norm law in ln lr is taken: rounding and curvature both stay below 1e-8.
_STEP = 1e-4

_ROUNDS = 200

# Columns of a prediction that are rates.
_PREDICTED = ("prediction", "lo", "hi")


def effective_lr(sweep: Sweep, *, norm: str = "weight_norm") -> Sweep:
    r"""Return the sweep with `lr` replaced by the effective learning rate, the step relative to the weights.

    .. math:: \eta_{\rm eff} = \eta / \|W\| \quad\text{or}\quad \eta_{\rm eff} = \sqrt{\eta\lambda}

    Parameters
    ----------
    sweep : Sweep
        Runs with `lr` and `weight_norm` (Frobenius norm of the weights at the end), or with `lr` and `weight_decay`.
    norm : {"weight_norm", "equilibrium"}
        The measured norm; or the norm that AdamW with decay :math:`\lambda` (weights shrink by the share
        :math:`\eta\lambda` a step) settles at, :math:`\|W\| \propto \sqrt{\eta/\lambda}`. The constant of
        proportionality is taken as 1: it depends on the model and goes into the prefactor of a law.

    Returns
    -------
    Sweep
        The same runs, the learning rate as set in the column `lr_nominal`, and a note.

    Raises
    ------
    SweepError
        If a column is missing, or a run that finished has no positive norm or decay; if lr is already effective.

    See Also
    --------
    from_effective : The way back.

    Notes
    -----
    The step of an Adam-like optimizer has a size of its own, so the rate relative to the weights is eta over their
    norm; for SGD it would be eta over the norm squared. Fit laws to it as to any learning rate, and go back with
    `from_effective`. Diverged runs whose norm is not a positive number are left out, with a note: they have no place
    on the new axis. Equilibrium takes a number of steps of the order of 1/(eta lambda); shorter runs are not there yet.

    References
    ----------
    The definition is that of "Effective Learning Rate Governs Loss Dynamics in Language Model Pretraining" (2026), by
    which the curvature of optimal learning rates found in arXiv:2606.29158 shrinks; the equilibrium is in
    arXiv:2510.19093. The last two are known to us from descriptions by others.

    Examples
    --------
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> runs = pd.DataFrame({"lr": [1e-3, 4e-3], "weight_decay": 0.1, "params": 1e8, "loss": [3.1, 3.0]})
    >>> sf.effective_lr(sf.read_sweep(runs), norm="equilibrium").table["lr"].round(9).tolist()
    [0.01, 0.02]
    """
    if not isinstance(sweep, Sweep):
        raise SweepError(
            f"effective_lr expects a Sweep, found {type(sweep).__name__}: read_sweep(table, ...) makes one"
        )
    if norm not in NORMS:
        raise SweepError(f"norm should be 'weight_norm' or 'equilibrium', found {norm!r}")
    column = "weight_norm" if norm == "weight_norm" else "weight_decay"
    sweep.require("lr", column)
    if "lr_nominal" in sweep.columns:
        raise SweepError(f"the lr of {sweep.source} is effective already; start from the sweep as it was read")
    table = sweep.table
    given = table[column].to_numpy(dtype=float)
    known = np.isfinite(given) & (given > 0)
    _check_known(sweep, column, given, known)
    kept = table[known].reset_index(drop=True)
    rate, by = kept["lr"].to_numpy(dtype=float), given[known]
    effective = rate / by if norm == "weight_norm" else np.sqrt(rate * by)
    return Sweep.from_frame(
        kept.assign(lr=effective, lr_nominal=rate),
        notes=(*sweep.notes, *_notes(kept, norm, int((~known).sum()))),
        source=sweep.source,
        rtol=sweep.rtol,
        params_convention=sweep.params_convention,
        data_unit=sweep.data_unit,
    )


def from_effective(
    effective: pd.DataFrame | ArrayLike,
    *,
    weight_decay: ArrayLike | None = None,
    weight_norm: Fit | ArrayLike | None = None,
    level: float = 0.95,
    **inputs: Any,
) -> Any:
    r"""Convert effective learning rates back to learning rates to set.

    .. math:: \eta = \eta_{\rm eff}^2/\lambda \quad\text{or}\quad \eta = \eta_{\rm eff}\,\|W\|

    Parameters
    ----------
    effective : DataFrame or array_like
        A prediction by `Fit.predict` of a law fitted to effective rates, or the rates themselves.
    weight_decay : array_like, optional
        The decay of the run to come, for rates made with ``norm="equilibrium"``.
    weight_norm : Fit or array_like, optional
        The norm that run will have, for rates made with ``norm="weight_norm"``: numbers, or a fitted law for
        `weight_norm`. A law that itself depends on the learning rate is solved for the rate that fits both.
    level : float
        Coverage of the interval of the prediction, when the norm comes from a law.
    **inputs : float or array_like
        Further inputs of the norm law that the prediction does not hold, such as ``batch=1e6``.

    Returns
    -------
    DataFrame or ndarray
        Like `effective`. In a prediction, `prediction`, `lo` and `hi` are converted and the rest is kept; with a norm
        law its own error is added in quadrature in logs, as independent.

    Raises
    ------
    SweepError
        If neither or both of the ways back are given, or a number is not positive.
    FitError
        If the norm law is not one for `weight_norm`, or grows with lr so fast that no rate fits.

    See Also
    --------
    effective_lr : The way there.

    Examples
    --------
    >>> import scalefit as sf
    >>> sf.from_effective([0.01, 0.02], weight_decay=0.1).round(6).tolist()
    [0.001, 0.004]
    """
    if (weight_decay is None) == (weight_norm is None):
        raise SweepError("give one way back: weight_decay= (equilibrium) or weight_norm= (measured norm)")
    if isinstance(weight_norm, Fit):
        return _convert_by_law(effective, weight_norm, level, inputs)
    if inputs:
        raise SweepError(f"only a norm law takes inputs, found {', '.join(inputs)}")
    name, divided = ("weight_decay", True) if weight_decay is not None else ("weight_norm", False)
    by = _positive(name, weight_decay if divided else weight_norm)

    def convert(rates: Floats) -> Floats:
        return np.asarray(rates**2 / by if divided else rates * by)

    if isinstance(effective, pd.DataFrame):
        _check_prediction(effective)
        return effective.assign(**{name: convert(effective[name].to_numpy(float)) for name in _PREDICTED})
    return convert(_positive("the effective learning rate", effective))


def _check_known(sweep: Sweep, column: str, given: Floats, known: NDArray[np.bool_]) -> None:
    bad = ~known & ~sweep.table["diverged"].to_numpy(dtype=bool)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        hint = "without decay there is no equilibrium; use norm='weight_norm', or " if column == "weight_decay" else ""
        raise SweepError(
            f"{column} should be positive: {int(bad.sum())} of {len(bad)} runs have none, first in row {row + 1}: "
            f"{given[row]:g}; {hint}select the runs that have one with where({column + ' > 0'!r})"
        )
    if not known.any():
        raise SweepError(f"no run of {sweep.source} has a positive {column}")


def _notes(kept: pd.DataFrame, norm: str, dropped: int) -> list[Note]:
    formula = "lr / weight_norm" if norm == "weight_norm" else "sqrt(lr * weight_decay), up to a constant factor"
    notes = [Note("effective_lr", f"lr is the effective learning rate {formula}; as set it is in lr_nominal")]
    if dropped:
        text = f"{dropped} diverged runs have no weight norm or decay and are left out: they no longer bound their axis"
        notes.append(Note("no_norm", text, caution=True))
    if "optimizer" in kept and kept["optimizer"].astype(str).str.lower().str.contains("sgd").any():
        text = "some runs use SGD, whose step scales with the gradient: its effective rate is lr / weight_norm**2"
        notes.append(Note("sgd", text, caution=True))
    return notes


def _positive(what: str, given: Any) -> Floats:
    try:
        numbers = np.asarray(given, dtype=float)
    except (TypeError, ValueError):
        numbers = np.array(np.nan)
    if not (np.isfinite(numbers) & (numbers > 0)).all():
        raise SweepError(f"{what} should be positive and finite, found {given!r}")
    return numbers


def _check_prediction(table: pd.DataFrame) -> None:
    if missing := [name for name in _PREDICTED if name not in table]:
        raise SweepError(f"expected a prediction by Fit.predict, found a table without {', '.join(missing)}")
    _positive("prediction", table["prediction"])


def _convert_by_law(effective: Any, law: Fit, level: float, inputs: dict[str, Any]) -> Any:
    """Convert rates, or a prediction of them, by a law for the norm."""
    if not isinstance(effective, pd.DataFrame):
        rates = _positive("the effective learning rate", effective)
        return _solve(rates, law, _norm_inputs(law, {}, inputs))
    _check_prediction(effective)
    rates, given = effective["prediction"].to_numpy(float), _norm_inputs(law, effective, inputs)
    eta = _solve(rates, law, given)
    names = [column_of(name) for name in law.law.inputs]
    norm = law.predict(pd.DataFrame({name: eta if name == "lr" else given[name] for name in names}), level=level)
    spread = {}
    for name in ("lo", "hi"):
        own = np.log(effective[name].to_numpy(float) / rates)
        shared = np.log(norm[name].to_numpy(float) / norm["prediction"].to_numpy(float))
        # ln lr = ln rate + ln norm(lr): an error on the right is magnified by 1 / (1 - slope of the norm in lr).
        spread[name] = eta * np.exp(np.sign(own) * np.hypot(own, shared) / (1 - _slope(law, given, np.log(eta))))
    return effective.assign(prediction=eta, **spread)


def _norm_inputs(law: Fit, table: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs of the norm law but lr, from the prediction's columns and the given ones."""
    if column_of(law.law.target) != "weight_norm":
        raise FitError(f"the norm law should be one for weight_norm, found {law.law.formula!r}")
    given = {column_of(name): value for name, value in inputs.items()}
    wanted = [column_of(name) for name in law.law.inputs if column_of(name) != "lr"]
    if unknown := set(given) - set(wanted):
        raise FitError(f"{law.law.formula!r} does not take {', '.join(sorted(unknown))}")
    found = {name: given.get(name, table.get(name)) for name in wanted}
    if missing := [name for name, value in found.items() if value is None]:
        raise FitError(f"{law.law.formula!r} needs {', '.join(missing)}; give them by name")
    return {name: _positive(name, value) for name, value in found.items()}


def _log_norm(law: Fit, given: dict[str, Any], log_lr: Floats) -> Floats:
    with np.errstate(all="ignore"):
        return np.log(law.law(law.values, given | {"lr": np.exp(log_lr)}))


def _slope(law: Fit, given: dict[str, Any], at: Floats) -> Floats:
    """Return d ln norm / d ln lr at a log learning rate."""
    return (_log_norm(law, given, at + _STEP) - _log_norm(law, given, at - _STEP)) / (2 * _STEP)


def _solve(rates: Floats, law: Fit, given: dict[str, Any]) -> Floats:
    """Solve lr = rate * norm(lr) by Newton's method in logs; one step where the law is a power of lr."""
    shape = np.broadcast_shapes(rates.shape, *(np.shape(value) for value in given.values()))
    target = np.broadcast_to(np.log(rates), shape)
    at = np.array(target)
    for _ in range(_ROUNDS):
        gap = target + _log_norm(law, given, at) - at
        steep = 1 - _slope(law, given, at)
        if not (np.isfinite(gap) & (steep > 0)).all():
            raise FitError(f"{law.law.formula!r} grows as fast as lr, or is not positive: no rate fits it")
        at = at + np.clip(gap / steep, -5.0, 5.0)
        if (np.abs(gap / steep) < 1e-12 * (1 + np.abs(at))).all():
            return np.exp(at)
    worst = format_number(float(np.exp(np.ravel(at)[np.argmax(np.abs(gap))])))
    raise FitError(f"no lr satisfies lr = effective lr * norm(lr); the search stopped near {worst}")
