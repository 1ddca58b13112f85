"""What a fit found, and how it ended: values with errors in fit coordinates and natural ones, and a status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note
from scalefit.errors import FitError
from scalefit.fitting.problem import Problem
from scalefit.laws.formula import Law
from scalefit.schema import group_levels
from scalefit.solvers.distributions import t_quantile
from scalefit.solvers.losses import Loss
from scalefit.vocabulary import column_of


class FitStatus(Enum):
    """The outcome of a fit.

    Attributes
    ----------
    sentence : str
        What happened.
    remedy : str
        What to do about it.

    See Also
    --------
    Fit : holds one as `Fit.status`

    Examples
    --------
    >>> import scalefit as sf
    >>> sf.FitStatus.ILL_CONDITIONED.remedy
    'vary the inputs more independently, fix or tie a parameter, or fit a law with fewer parameters'
    """

    CONVERGED = ("the minimum was found and every parameter is identified by the data", "none needed")
    AT_BOUND = (
        "the minimum lies at the bound of a parameter, whose error is therefore not given",
        "drop the parameter (a simpler law says the same), widen its bound, or bring data that need it",
    )
    ILL_CONDITIONED = (
        "the data do not identify every parameter; the ones marked have no meaningful value or error",
        "vary the inputs more independently, fix or tie a parameter, or fit a law with fewer parameters",
    )
    NOT_CONVERGED = (
        "the solver stopped before it reached a minimum; no number here should be used",
        "give a start close to the answer, scale the inputs, or fit a law with fewer parameters",
    )

    def __init__(self, sentence: str, remedy: str) -> None:
        self.sentence = sentence
        self.remedy = remedy

    def __str__(self) -> str:
        return self.name


Array = np.ndarray

FREE = ("free", "unidentified")
"""States of the parameters that the data decide; the others are held where the user or a bound put them."""


@dataclass(frozen=True, eq=False, repr=False)
class FitValues:
    """What a fit found, and all that follows from it alone: what storing, refitting and predicting need of a `Fit`."""

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
    errors: Array | None = None
    unread: pd.DataFrame = field(default_factory=pd.DataFrame)
    labels: pd.DataFrame = field(default_factory=pd.DataFrame)
    witnesses: str = ""

    def __post_init__(self) -> None:
        # Frozen all the way down: values and errors are computed once, and an array changed later would belie them.
        object.__setattr__(self, "ties", MappingProxyType(dict(self.ties)))
        for array in (
            self.phi,
            self.covariance,
            self.lower,
            self.upper,
            self.weights,
            self.cells,
            self.censored,
            self.errors,
        ):
            if array is not None:
                array.flags.writeable = False

    @property
    def rows(self) -> pd.DataFrame:
        """The rows fitted, as a copy: input columns and the target, named in words."""
        return self._rows.copy()

    @property
    def known(self) -> pd.DataFrame:
        """The rows, with params and tokens where they are known but not read."""
        return pd.concat([self._rows, self.unread], axis=1)

    @property
    def places(self) -> list[str]:
        """Which of params and tokens are known of the rows and vary."""
        known = self.known
        there = [name for name in ("params", "tokens") if name in known]
        return [name for name in there if len(np.unique(group_levels(known[name].to_numpy()))) > 1]

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
        # Weights are relative: where all are 1e4, `scale` is the scatter of a row that does not exist.
        return float(self.scale / np.sqrt(self.typical_weight))

    @property
    def scatter_dof(self) -> int:
        """Degrees of freedom of the scatter: those of the errors, unless these are made from groups of rows."""
        return int((self.weights > 0).sum() - self.is_free.sum()) if self.witnesses else self.dof

    def natural(self, phi: Array) -> dict[str, Any]:
        """Turn fit coordinates into named values; ties are evaluated.

        Parameters
        ----------
        phi : ndarray (..., p)

        Returns
        -------
        dict of str to float, or to ndarray (...)
        """
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
        # 0 times infinity is not a number: an infinite variance is set where it matters, after the product.
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
        # The Jacobian is that in fit coordinates: for a logged parameter it holds one factor of the value too many.
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

        Parameters
        ----------
        level : float
            Coverage of the intervals, between 0 and 1.

        Returns
        -------
        pandas.DataFrame
            Columns parameter, value, stderr, lo, hi, status; tied parameters last.

        Raises
        ------
        FitError
            If the level is not between 0 and 1.
        """
        check_level(level)
        quantile = t_quantile(level, self.dof)
        error = np.sqrt(np.diag(self._natural_covariance))
        # A tied parameter has the error of those it is made of.
        error = np.where(np.append(self.is_free, np.ones(len(self.ties), dtype=bool)), error, np.nan)
        value = np.array(list(self.values.values()))
        logged = np.concatenate([self.law.derivation.logged, np.zeros(len(self.ties), dtype=bool)])
        # In the log for positive parameters: the interval of a loose one would else reach below zero.
        with np.errstate(all="ignore"):
            factor = np.exp(quantile * error / np.where(logged, value, 1.0))
            low = np.where(logged, value / factor, value - quantile * error)
            high = np.where(logged, value * factor, value + quantile * error)
        states = [*self.states, *(f"= {text}" for text in self.ties.values())]
        names = list(self.values)
        columns = {"parameter": names, "value": value, "stderr": error, "lo": low, "hi": high, "status": states}
        return pd.DataFrame(columns)

    @property
    def is_free(self) -> Array:
        """Which parameters the data decide: neither fixed nor at a bound."""
        return np.isin(self.states, FREE)

    @cached_property
    def problem(self) -> Problem:
        """The arrays the solvers saw."""
        target = self._rows[column_of(self.law.target)].to_numpy(dtype=float)
        entered = self.law.derivation.enter(self.law.read_inputs(self._rows))
        arrays = (self.law, entered, target, self.weights, self.space, self.loss, self.lower, self.upper)
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


def check_level(level: float) -> None:
    """Raise FitError unless a level is a share between 0 and 1."""
    if not 0 < level < 1:
        raise FitError(f"level: expected a number between 0 and 1, found {level!r}")
