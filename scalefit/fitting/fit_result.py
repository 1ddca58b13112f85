"""The fitted law: values with errors, what they rest on, and what may be asked of them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scalefit._values import Note
from scalefit.display import Display, Displayable, latex_text
from scalefit.errors import ExtrapolationWarning, FitError
from scalefit.fitting.export import read_record, to_model_result, to_parameters, to_record, write_atomically
from scalefit.fitting.fit_values import FitStatus, FitValues, check_level
from scalefit.fitting.prediction_inputs import prediction_inputs
from scalefit.fitting.reach import reach_of
from scalefit.fitting.stray import Stray, infer_stray
from scalefit.solvers.distributions import t_quantile
from scalefit.vocabulary import column_of, format_error, format_number

if TYPE_CHECKING:
    import lmfit

Array = np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Fit(FitValues, Displayable):
    """A law fitted to a table.

    Made by `scalefit.fit`; frozen. Inside, parameters live in fit coordinates phi: the log of a positive parameter,
    the parameter itself otherwise. Everything public speaks natural units.

    Parameters
    ----------
    law : Law
        The fitted law, its inputs settled and ties written in.
    space : {"log", "plain"}
        Whether residuals are differences of logs or of values.
    loss : Loss
        The loss whose sum was minimised.
    status : FitStatus
        How it ended; `status.sentence` and `status.remedy` say it in words.
    phi, covariance : ndarray (p,), (p, p)
        Solution and its covariance in fit coordinates.
    states : tuple of str
        For every parameter: "free", "fixed", "at bound" or "unidentified".
    lower, upper : ndarray (p,)
        Bounds in fit coordinates.
    objective : float
        Sum over rows of weight times loss of the residual.
    scale : float
        Residual scatter of a row of weight one (nats of log target in log space).
    dof : int
        Degrees of freedom of the errors.
    condition : float
        Condition number of the scaled Jacobian.
    ties : mapping of str to str
        Parameters written as expressions of others.
    weights : ndarray (n,)
    cells : ndarray of int (n,)
        Which (params, tokens) cell each row belongs to, for resampling.
    notes : tuple of Note
    source : str
    data_unit : str
        What `tokens` and `batch` count.
    censored : ndarray of int (n,) or None
        Where the truth of a row lies: at its target (0), at or below it (-1), at or above it (+1). None: all points.
    errors : ndarray (n, 1 + q) or None
        Errors of the rows, in logs: the standard deviation of each row's own, and its share in q errors of unit size
        that rows have in common.
    unread : DataFrame
        params and tokens of the rows, where they are known and the law does not read them.
    shrinkage : float
        Prior scale towards the straight law, see `scalefit.fitting.shrinkage`; 0 for none.
    labels : pandas.DataFrame
        All columns of the table, by which `bootstrap` can draw groups of rows.
    witnesses : str
        The column whose groups the errors are made from, see `scalefit.fitting.clusters`; empty where rows are.

    See Also
    --------
    fit : makes one
    bootstrap : refits to resampled data

    Examples
    --------
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> table = pd.DataFrame({"params": [1e7, 3e7, 1e8, 3e8, 1e9], "loss": [4.0, 3.6, 3.22, 2.9, 2.56]})
    >>> fit = sf.fit("L = c * N**a", table)
    >>> fit.status.name, round(fit.values["a"], 3)
    ('CONVERGED', -0.096)
    >>> float(fit.predict(params=5e8)["prediction"][0].round(2))
    2.75
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # The read-only mapping of ties cannot be pickled; the text holds all there is, and is checked as it is read.
        return Fit.from_json, (self.to_json(),)

    @property
    def params(self) -> lmfit.Parameters:
        """The parameters as lmfit.Parameters with errors, correlations, bounds and ties; made anew at every access."""
        return to_parameters(self)

    @property
    def stray(self) -> Stray | None:
        """How far optima stray from the law together by size and budget; None for other laws, or without spare rows."""
        return self._stray_by(tuple(self.places))

    def _stray_by(self, inputs: tuple[str, ...]) -> Stray | None:
        if inputs not in self._inferred:  # every level asked for, and every report, asks anew
            self._inferred[inputs] = infer_stray(self, inputs)
        return self._inferred[inputs]

    @cached_property
    def _inferred(self) -> dict[tuple[str, ...], Stray | None]:
        return {}

    def predict(
        self, table: pd.DataFrame | None = None, *, level: float = 0.95, kind: str = "new", **inputs: Any
    ) -> pd.DataFrame:
        r"""Predict the target with intervals for a new observation, one of the median weight of the rows fitted.

        The interval holds parameter covariance and residual scatter: value -/+ t sqrt(j C j' + s**2), in logs when the
        law was fitted in logs. Where the errors are made from groups of rows, s holds the luck of a group, and t of s
        has the degrees of freedom of the rows.

        A law of optimal learning rates or batches is not quite true: optima of one size, or of
        one budget, stray from it together. For such a law the prediction is its value f, and the interval that of
        :math:`\ln f(x) + w(\ln N) + v(\ln D) + u`, with random walks w and v (and bends) inferred from the rows, so
        that doubt grows with the distance from the data, and the scatter u of single cells. Rows that bend away from
        the law move the interval and not the prediction, which then lies near an end of it, or at it.

        Parameters
        ----------
        table : DataFrame, optional
            Inputs as columns; or give them by name.
        level : float
            Coverage of the interval.
        kind : {"new", "mean"}
            What the interval is for: a new observation, or the mean of many at that place, without their scatter.
        **inputs : float, str or array_like
            Inputs by column (``params=7e9``) or symbol (``N=7e9``), also as ``"7B"``; they broadcast. A law of optima
            that reads params or tokens alone takes the other one too, where its rows vary it: optima stray by both.

        Returns
        -------
        pandas.DataFrame
            The inputs, prediction, lo, hi, and reach: by what factor the point lies outside the fitted range of an
            input, or of what the others leave it (1 inside): ten times off the line D = 20 N is a reach of 10. Its
            index is that of the table, or of the series given by name.

        Raises
        ------
        LawError
            An input is missing, unknown, not finite or not positive, or series differ in their index.

        Warns
        -----
        ExtrapolationWarning
            When a point lies beyond the fitted range; the message gives the reach.
        """
        return predict(self, table, inputs, level, kind)

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the fit as JSON text, and write it to `path` if given (whole or not at all).

        Parameters
        ----------
        path : str or Path, optional

        Returns
        -------
        str

        Raises
        ------
        FitError
            If the file cannot be written.
        """
        text = json.dumps(to_record(self), indent=1, allow_nan=False)
        if path is not None:
            write_atomically(Path(path), text)
        return text

    @classmethod
    def from_json(cls, source: str | Path) -> Fit:
        """Read a fit back from a file or from JSON text.

        Parameters
        ----------
        source : str or Path
            A path, or text that starts with a brace.

        Returns
        -------
        Fit

        Raises
        ------
        FitError
            If it cannot be read, is of another schema version, or does not hold together.
        """
        return cls(**read_record(source))

    def to_lmfit(self) -> lmfit.model.ModelResult:
        """Return the same fit as an lmfit ModelResult, for conf_interval, eval_uncertainty and plots.

        Returns
        -------
        lmfit.model.ModelResult
            Its model maps the columns of `rows` to the target, or to its log for a fit in log space.

        Raises
        ------
        FitError
            If rows are bounds or the fit is shrunk, which lmfit cannot express.
        """
        return to_model_result(self)

    def with_notes(self, *notes: Note) -> Fit:
        """Return the fit with more notes."""
        return replace(self, notes=(*self.notes, *notes))

    def _display(self) -> Display:
        return describe(self)

    def to_latex(self, *, caption: str | None = None, label: str | None = None) -> str:
        r"""Return the parameters as value(error) in a LaTeX table, the law in its caption; needs the package booktabs.

        Parameters
        ----------
        caption : str, optional
            LaTeX; by default the law and how many rows it was fitted to.
        label : str, optional
            For ``\ref``.
        """
        if caption is None:
            law, source = self.law.to_latex(), latex_text(self.source)
            caption = f"${law}$, fitted to {self.n} rows of {source}: values with standard errors, 95\\% intervals."
        return super().to_latex(caption=caption, label=label)


def _data(fit: Fit) -> str:
    bounds = f", {int(fit.is_bound.sum())} of them bounds," if fit.is_bound.any() else ""
    return f"{fit.n} rows{bounds} from {fit.source}" + (f", in {fit.data_unit}" if fit.data_unit != "tokens" else "")


def describe(fit: Fit) -> Display:
    """Decide what a fit shows; text and HTML only lay it out."""
    table = fit.table
    shown = pd.DataFrame(
        {
            "parameter": table["parameter"],
            "value": [
                format_error(v, e) if s != "fixed" else format_number(v, 6)
                for v, e, s in zip(table["value"], table["stderr"], table["status"], strict=True)
            ],
            "lo 95%": table["lo"].map(format_number),
            "hi 95%": table["hi"].map(format_number),
            "status": table["status"],
        }
    )
    meanings = [fit.law.meanings.get(name, "") for name in table["parameter"]]
    if any(meanings):
        shown["meaning"] = meanings
    unit = "of log " + fit.law.target if fit.space == "log" else "of " + fit.law.target
    facts = [
        ("law", fit.law.written(fit.values) if np.isfinite(fit.phi).all() else fit.law.formula),
        ("status", f"{fit.status}: {fit.status.sentence}"),
        ("data", _data(fit)),
        ("loss", f"{fit.loss!r} in {fit.space} space, sum {fit.objective:.6g}"),
        ("scatter", f"{format_number(fit.scatter, 3)} {unit}"),
        (
            "inputs",
            ", ".join(f"{name} = {column_of(name)}" if column_of(name) != name else name for name in fit.law.inputs),
        ),
    ]
    if fit.stray is not None:
        facts.append(("stray", fit.stray.sentence))
    if fit.status is not FitStatus.CONVERGED:
        facts.insert(2, ("remedy", fit.status.remedy))
    label = f" ({fit.law.name})" if fit.law.name else ""
    names = frozenset((*fit.law.parameters, *fit.ties))
    return Display(f"Fit of {fit.law.formula}{label}", tuple(facts), shown, fit.notes, names)


def predict(fit: Fit, table: pd.DataFrame | None, named: Mapping[str, Any], level: float, kind: str) -> pd.DataFrame:
    """Do the work of `Fit.predict`; see there."""
    check_level(level)
    if kind not in ("new", "mean"):
        raise FitError(f"kind: expected 'new' (a new observation) or 'mean' (the mean of many), found {kind!r}")
    inputs = prediction_inputs(fit, table, named)
    arrays = fit.law.read_inputs(inputs)
    derivation = fit.law.derivation
    with np.errstate(all="ignore"):
        value, jacobian = derivation.function(fit.space)(fit.phi[None], derivation.enter(arrays))
    center = np.broadcast_to(value[0], len(inputs)).astype(float)
    slopes = np.broadcast_to(jacobian[0], (len(fit.phi), len(inputs)))
    low, high = center + _ends(fit, inputs, slopes, level, new=kind == "new")
    if fit.space == "log":
        with np.errstate(over="ignore"):
            center, low, high = np.exp(center), np.exp(low), np.exp(high)
    reach = reach_of(fit, inputs)
    _warn_beyond(fit, reach)
    return inputs.assign(prediction=center, lo=low, hi=high, reach=reach.to_numpy().max(axis=1))


def _ends(fit: Fit, inputs: pd.DataFrame, slopes: Array, level: float, *, new: bool) -> Array:
    """Return how far both ends of the interval lie from the law, (2, m)."""
    # A new observation strays from the law by its own scatter, however well the law is known.
    variance = _variance(slopes, fit.covariance)
    known, own = t_quantile(level, [fit.dof, fit.scatter_dof])
    half = np.hypot(known * np.sqrt(variance), own * fit.scatter if new else 0.0)
    half = np.where(np.isnan(half), np.inf, half)  # t is infinite and the scatter NaN without degrees of freedom
    plain = np.stack([-half, half])
    names = [name for name in fit.places if name in inputs]
    if (stray := fit._stray_by(tuple(names))) is None:
        return plain
    shares = (0.5 - level / 2, 0.5 + level / 2)
    shifts = stray.shifts(slopes.T, np.log(inputs[names].to_numpy(dtype=float).T), shares, new=new)
    # The interval holds the prediction, with the scatter of a new cell about it, even where the rows bend away from it.
    least = t_quantile(level, np.inf) * float(stray.weights @ stray.scatter) if new else 0.0
    shifts = np.stack([np.minimum(shifts[0], -least), np.maximum(shifts[1], least)])
    if fit.witnesses:  # studies that share their luck know less than the rows that the walks are inferred from
        shifts = np.stack([np.minimum(shifts[0], plain[0]), np.maximum(shifts[1], plain[1])])
    return np.where(np.isinf(variance), plain, shifts)


def _variance(slopes: Array, covariance: Array) -> Array:
    """Return j C j' for every column of slopes; infinite where an unidentified parameter matters."""
    # 0 times infinity is not a number: what is finite is summed first, and infinity set where it matters.
    finite = np.where(np.isfinite(covariance), covariance, 0.0)
    loose = ~np.isfinite(np.diag(covariance))
    variance = np.einsum("pn,pq,qn->n", slopes, finite, slopes)
    return np.where((slopes[loose] != 0).any(axis=0), np.inf, np.maximum(variance, 0.0))


def _warn_beyond(fit: Fit, reach: pd.DataFrame) -> None:
    # At the end of the range itself rounding may put a point outside by a last digit.
    parts = [f"{name} by {format_number(worst, 3)}x" for name, worst in reach.max().items() if worst > 1 + 1e-9]
    if not parts:
        return
    warnings.warn(
        f"{fit.law.formula!r} is predicted beyond the range it was fitted to: {', '.join(parts)}",
        ExtrapolationWarning,
        stacklevel=4,  # the line that called `Fit.predict`
    )
