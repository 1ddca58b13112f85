"""The fitted law: values with errors, what they rest on, and what may be asked of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scalefit.errors import FitError
from scalefit.faces import Face, Shown
from scalefit.faces.latex import latex_text
from scalefit.fitting.problem import Problem
from scalefit.fitting.status import FitStatus
from scalefit.formatting import format_error, format_number
from scalefit.laws.formula import Law
from scalefit.notes import Note
from scalefit.solvers.losses import Loss
from scalefit.vocabulary import column_of

if TYPE_CHECKING:
    import lmfit

Array = np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Fit(Shown):
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
        Degrees of freedom.
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
    shrinkage : float
        Prior scale towards the straight law, see `scalefit.fitting.shrinkage`; 0 for none.
    """

    law: Law
    space: str
    loss: Loss
    status: FitStatus
    phi: Array
    covariance: Array
    states: tuple[str, ...]
    lower: Array
    upper: Array
    objective: float
    scale: float
    dof: int
    condition: float
    ties: Mapping[str, str]
    _rows: pd.DataFrame
    weights: Array
    cells: Array
    notes: tuple[Note, ...] = field(default=())
    source: str = "table"
    data_unit: str = "tokens"
    censored: Array | None = None
    shrinkage: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "ties", MappingProxyType(dict(self.ties)))
        for array in (self.phi, self.covariance, self.lower, self.upper, self.weights, self.cells, self.censored):
            if array is not None:
                array.flags.writeable = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.to_json(),)

    @property
    def rows(self) -> pd.DataFrame:
        """The rows fitted, as a copy: input columns and the target, named in words."""
        return self._rows.copy()

    @cached_property
    def values(self) -> Mapping[str, float]:
        """Value of every parameter, tied ones included."""
        return MappingProxyType(self.natural(self.phi))

    @property
    def typical_weight(self) -> float:
        """Median weight of the rows that count."""
        return float(np.median(self.weights[self.weights > 0]))

    @property
    def scatter(self) -> float:
        """Residual scatter of a row of typical weight; with equal weights of one it is `scale`."""
        return float(self.scale / np.sqrt(self.typical_weight))

    def natural(self, phi: Array) -> dict[str, Any]:
        """Turn fit coordinates, shape (..., p), into named values; ties are evaluated."""
        theta = self.law.derivation.to_natural(phi)
        named = {name: theta[..., j] for j, name in enumerate(self.law.parameters)}
        for name, law in self.tied_laws.items():
            arguments = {key: named[key] for key in law.parameters}
            named[name] = law.derivation.evaluate(list(arguments.values()), [])
        return {name: float(v) if np.ndim(v) == 0 else np.asarray(v) for name, v in named.items()}

    @cached_property
    def tied_laws(self) -> dict[str, Law]:
        """Every tie as a little law of the free parameters."""
        return {name: Law(f"{name} = {text}", inputs=()) for name, text in self.ties.items()}

    @property
    def natural_covariance(self) -> pd.DataFrame:
        """Covariance in natural units, tied parameters included (first order)."""
        names = list(self.values)
        return pd.DataFrame(self._natural_covariance.copy(), index=names, columns=names)

    @cached_property
    def _natural_covariance(self) -> Array:
        active = np.diag(self.covariance) != 0  # held parameters may have run to where natural units overflow
        slopes, covariance = self._natural_slopes()[:, active], self.covariance[np.ix_(active, active)]
        unknown = ~np.isfinite(np.diag(covariance))
        with np.errstate(all="ignore"):
            matrix = np.nan_to_num(slopes @ np.where(np.isfinite(covariance), covariance, 0.0) @ slopes.T, nan=0.0)
        infinite = (slopes[:, unknown] != 0).any(axis=1)
        infinite[: len(active)] |= ~np.isfinite(np.diag(self.covariance))
        matrix[infinite, infinite] = np.inf
        return matrix

    def _natural_slopes(self) -> Array:
        """d(natural values)/d(phi), tied parameters last."""
        own = self.law.derivation.to_natural(self.phi)
        slopes = np.diag(np.where(self.law.derivation.logged, own, 1.0))
        tied = [self._tie_slope(law, slopes) for law in self.tied_laws.values()]
        return np.vstack([slopes, *tied]) if tied else slopes

    def _tie_slope(self, law: Law, slopes: Array) -> Array:
        derivation = law.derivation
        point = derivation.to_fit(np.array([self.values[name] for name in law.parameters]))
        _, jacobian = derivation.function("plain")(point[None], [])
        per_natural = jacobian[0, :, 0] / np.where(derivation.logged, derivation.to_natural(point), 1.0)
        index = [self.law.parameters.index(name) for name in law.parameters]
        return per_natural @ slopes[index]

    @property
    def table(self) -> pd.DataFrame:
        """Parameter, value, standard error, 95 % interval and status, one row a parameter."""
        return self.intervals(0.95)

    def intervals(self, level: float = 0.95) -> pd.DataFrame:
        """Return the parameter table with intervals of another level.

        Intervals use Student's t; those of positive parameters are symmetric in the log.
        """
        quantile = t_quantile(level, self.dof)
        error = np.sqrt(np.diag(self._natural_covariance))
        error = np.where(self._has_error, error, np.nan)
        value = np.array(list(self.values.values()))
        logged = np.concatenate([self.law.derivation.logged, np.zeros(len(self.ties), dtype=bool)])
        with np.errstate(all="ignore"):
            factor = np.exp(quantile * error / np.where(logged, value, 1.0))
            low = np.where(logged, value / factor, value - quantile * error)
            high = np.where(logged, value * factor, value + quantile * error)
        states = [*self.states, *(f"= {text}" for text in self.ties.values())]
        columns = {
            "parameter": list(self.values),
            "value": value,
            "stderr": error,
            "lo": low,
            "hi": high,
            "status": states,
        }
        return pd.DataFrame(columns)

    @property
    def _has_error(self) -> Array:
        own = [state in ("free", "unidentified") for state in self.states]
        return np.array([*own, *(True for _ in self.ties)])

    @property
    def params(self) -> lmfit.Parameters:
        """The parameters as lmfit.Parameters with errors, correlations, bounds and ties; made anew at every access."""
        from scalefit.fitting.lmfit_bridge import to_parameters

        return to_parameters(self)

    @cached_property
    def problem(self) -> Problem:
        """The arrays the solvers saw."""
        derivation = self.law.derivation
        target = self._rows[column_of(self.law.target)].to_numpy(dtype=float)
        entered = derivation.enter(self.law.read_inputs(self._rows))
        arrays = (derivation, entered, target, self.weights, self.space, self.loss, self.lower, self.upper)
        return Problem(*arrays, self.censored, self.scale)

    @property
    def residuals(self) -> Array:
        """Observed (or the bound) minus fitted, in the space of the fit."""
        return self.problem.observed - self.problem.values(self.space)(self.phi[None])[0][0]

    @property
    def is_bound(self) -> Array:
        """Which rows are bounds, not points."""
        return self.problem.bounds

    @property
    def n(self) -> int:
        """Number of rows fitted."""
        return len(self._rows)

    def predict(self, table: pd.DataFrame | None = None, *, level: float = 0.95, **inputs: Any) -> pd.DataFrame:
        """Predict the target with intervals for a new observation, one of the median weight of the rows fitted.

        The interval holds parameter covariance and residual scatter: value -/+ t sqrt(j C j' + s**2), in logs when the
        law was fitted in logs.

        Parameters
        ----------
        table : DataFrame, optional
            Inputs as columns; or give them by name.
        level : float
            Coverage of the interval.
        **inputs : float or array_like
            Inputs by column (``params=7e9``) or symbol (``N=7e9``); they broadcast.

        Returns
        -------
        pandas.DataFrame
            The inputs, prediction, lo, hi, and reach: by what factor the point lies outside the fitted range of an
            input (1 inside).

        Raises
        ------
        LawError
            An input is missing, unknown, not finite or not positive.

        Warns
        -----
        ExtrapolationWarning
            When a point lies beyond the fitted range; the message gives the reach.
        """
        from scalefit.fitting.prediction import predict

        return predict(self, table, inputs, level)

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the fit as JSON text, and write it to `path` if given (whole or not at all).

        Raises
        ------
        FitError
            If the file cannot be written.
        """
        from scalefit.fitting.storage import to_json

        return to_json(self, path)

    @classmethod
    def from_json(cls, source: str | Path) -> Fit:
        """Read a fit back from a file or from JSON text.

        Raises
        ------
        FitError
            If it cannot be read, is of another schema version, or does not hold together.
        """
        from scalefit.fitting.storage import from_json

        return from_json(source)

    def to_lmfit(self) -> lmfit.model.ModelResult:
        """Return the same fit as an lmfit ModelResult, for conf_interval, eval_uncertainty and plots."""
        from scalefit.fitting.lmfit_bridge import to_model_result

        return to_model_result(self)

    def with_notes(self, *notes: Note) -> Fit:
        """Return the fit with more notes."""
        return replace(self, notes=(*self.notes, *notes))

    def _face(self) -> Face:
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


def _rebuild(text: str) -> Fit:
    return Fit.from_json(text)


def check_level(level: float) -> None:
    """Raise FitError unless a level is a share between 0 and 1."""
    if not 0 < level < 1:
        raise FitError(f"level: expected a number between 0 and 1, found {level!r}")


def t_quantile(level: float, dof: int) -> float:
    """Two-sided Student quantile; infinite without degrees of freedom."""
    from scipy.special import stdtrit

    check_level(level)
    return float(stdtrit(dof, 0.5 + level / 2)) if dof > 0 else np.inf


def _told(fit: Fit) -> str:
    bounds = f", {int(fit.is_bound.sum())} of them bounds," if fit.is_bound.any() else ""
    return f"{fit.n} rows{bounds} from {fit.source}" + (f", in {fit.data_unit}" if fit.data_unit != "tokens" else "")


def describe(fit: Fit) -> Face:
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
        ("data", _told(fit)),
        ("loss", f"{fit.loss!r} in {fit.space} space, sum {fit.objective:.6g}"),
        ("scatter", f"{format_number(fit.scatter, 3)} {unit}"),
        (
            "inputs",
            ", ".join(f"{name} = {column_of(name)}" if column_of(name) != name else name for name in fit.law.inputs),
        ),
    ]
    if fit.status is not FitStatus.CONVERGED:
        facts.insert(2, ("remedy", fit.status.remedy))
    label = f" ({fit.law.name})" if fit.law.name else ""
    names = frozenset((*fit.law.parameters, *fit.ties))
    return Face(f"Fit of {fit.law.formula}{label}", tuple(facts), shown, fit.notes, names)
