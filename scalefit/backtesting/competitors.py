"""What can compete in a backtest: anything that trains on a sweep and then predicts the best setting of other cells."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

import numpy as np
import pandas as pd

from scalefit._values import Note, merge
from scalefit.backtesting.regret import cell_axes, searched_axes
from scalefit.errors import FitError, LawError, ScalefitWarning
from scalefit.fitting.covariance import RANK_TOLERANCE
from scalefit.fitting.fit_law import fit_law as fit
from scalefit.fitting.fit_result import Fit
from scalefit.fitting.fit_values import FitStatus
from scalefit.fitting.prediction_inputs import rows_of
from scalefit.laws import get_law
from scalefit.laws.formula import Law
from scalefit.optima.cells import Estimator
from scalefit.optima.effective_lr import effective_lr, from_effective
from scalefit.optima.find_optima import Optima, find_optima
from scalefit.schema import near_lowest
from scalefit.selection.average_laws import Average, average_laws
from scalefit.sweep import Sweep
from scalefit.vocabulary import column_of

AUTO = "auto"
"""In place of a law: the average of the usual ones."""


class Predictor(Protocol):
    """What `Competitor.train` returns; a backtest shows its `notes`, if it has any."""

    def optimum(self, *, level: float = 0.95, **cells: Any) -> pd.DataFrame:
        """Predict the best setting at `params` and `tokens`; see `Competitor`."""


class Competitor(Protocol):
    """What `backtest` scores: any object with a name that learns from the training runs alone.

    What `train` returns needs one method, ``optimum(*, level, params, tokens)``. It gets the held-out cells as arrays
    (those of the two that the sweep has) and returns a DataFrame, one row a cell, with `lr` and `batch` (data per
    step; only those it predicts) and, if it has them, the bounds `lr_lo`, `lr_hi`, `batch_lo`, `batch_hi`. Without a
    prediction for every setting that the sweep searched there is no regret. A ScalefitError, ValueError,
    ArithmeticError or LinAlgError counts as "made no prediction"; any other error is raised.

    See Also
    --------
    Custom : the same from a function.
    Entrant : estimated optima and fitted laws.

    Examples
    --------
    >>> import scalefit as sf
    >>> class BestRun:
    ...     name = "settings of the best run"
    ...
    ...     def train(self, sweep):
    ...         self.best = sweep.table.sort_values("loss").iloc[[0]]
    ...         return self
    ...
    ...     def optimum(self, *, level, params, tokens):
    ...         return self.best[["lr", "batch"]].iloc[[0] * len(params)]
    >>> report = sf.backtest(sf.load_dataset("tiny-lm"), "largest params", entrants=[BestRun()])
    >>> report.summary()["failed"].tolist()
    [0]
    """

    @property
    def name(self) -> str:
        """Row label; unique in a backtest."""

    def train(self, sweep: Sweep) -> Predictor:
        """Learn from the training runs and return what predicts; see the class."""


class Rule(Protocol):
    """A law with values for its parameters: a `Fit`, an `Average` or a published law."""

    @property
    def law(self) -> Law:
        """The law, for its inputs."""

    def predict(self, table: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
        """Return prediction, lo and hi, one row a row of the table."""


@dataclass(frozen=True)
class LawPair:
    """A fitted law for each setting, predicting both; where one needs the other as an input, it gets the predicted one.

    Parameters
    ----------
    rules : mapping of str to Fit or Average
        By column: lr, batch. Anything with a `law` and ``predict(table, level=)`` that returns `prediction`, `lo` and
        `hi` will do.
    notes : tuple of Note
        Those that are cautions are shown with the backtest.

    See Also
    --------
    Entrant, Custom

    Examples
    --------
    >>> import scalefit as sf
    >>> def smallest_models(sweep):
    ...     optima = sf.find_optima(sweep.where("params < 1e5"), over=("lr", "batch"))
    ...     return sf.LawPair({"lr": sf.fit("lr_power", optima), "batch": sf.fit("batch_power", optima)})
    >>> pair = smallest_models(sf.load_dataset("tiny-lm"))
    >>> pair.optimum(params=[4e5, 8e5], tokens=8e6)[["lr", "batch"]].shape
    (2, 2)
    """

    rules: Mapping[str, Rule]
    notes: tuple[Note, ...] = field(default=())

    def optimum(self, *, level: float = 0.95, **cells: Any) -> pd.DataFrame:
        """Predict the best setting of each cell.

        Parameters
        ----------
        level : float
            Coverage of the intervals. That of a law which gets a predicted setting holds its own error only.
        **cells : float or array_like
            `params` and `tokens`.

        Returns
        -------
        pandas.DataFrame
            `lr`, `lr_lo`, `lr_hi` and the same of `batch`, as far as there is a law.

        Raises
        ------
        LawError
            If a law needs an input that is neither given nor predicted.

        Examples
        --------
        >>> import scalefit as sf
        >>> fitted = sf.fit("eta = c * D**b", {"tokens": [1e9, 2e9, 4e9, 8e9], "lr": [4e-3, 3.2e-3, 2.9e-3, 2.3e-3]})
        >>> sf.LawPair({"lr": fitted}).optimum(tokens=[1e9, 8e9])["lr"].round(4).tolist()
        [0.004, 0.0023]
        """
        given = rows_of({column_of(name): value for name, value in cells.items()})
        if {"params", "tokens"} <= set(given):
            given["flops"] = 6 * given["params"] * given["tokens"]
        result: dict[str, np.ndarray] = {}
        waiting = dict(self.rules)
        while waiting:
            ready = [name for name, rule in waiting.items() if set(_inputs(rule.law)) <= set(given)]
            name = next(iter(ready or waiting))
            rule = waiting.pop(name)
            if not ready:
                lacking = ", ".join(sorted(set(_inputs(rule.law)) - set(given)))
                raise LawError(f"{rule.law.formula!r} needs {lacking}, unknown when {name} is to be predicted")
            with warnings.catch_warnings():  # every held-out cell lies beyond the training range
                warnings.simplefilter("ignore", ScalefitWarning)
                # Fits take sizes and budgets that their law does not read: optima stray by those as well.
                asked = list(given) if isinstance(rule, Fit | Average) else _inputs(rule.law)
                found = rule.predict(given[asked], level=level)[["prediction", "lo", "hi"]]
            result |= dict(zip((name, f"{name}_lo", f"{name}_hi"), found.to_numpy(dtype=float).T, strict=True))
            given[name] = result[name]
        return pd.DataFrame(result, index=given.index)


@dataclass(frozen=True)
class Entrant:
    """A method that estimates optima and a law for each setting, fitted to the training cells.

    Parameters
    ----------
    name : str
        Row label in the backtest.
    method : Basin, Parabola, NearMinimum or GridMinimum, optional
        How optima are estimated; by default as in `find_optima`.
    lr_law, batch_law : Law or str
        Laws fitted to the optima; the one for a setting that the sweep did not vary is left aside. "auto" is the
        average of the usual laws by their error on unseen cells, all of them training cells (`average_laws`).
    fitter : callable
        ``fitter(law, optima)`` gives a `Fit` or another rule, see `LawPair`; `fit` by default.

    Raises
    ------
    LawError
        If a law is for another setting.

    See Also
    --------
    Baseline, EffectiveEntrant, Custom

    Examples
    --------
    >>> import scalefit as sf
    >>> predictor = sf.Entrant("parabola", sf.Parabola(), "lr_power").train(sf.load_dataset("tiny-lm"))
    >>> 1e-3 < float(predictor.optimum(params=1e6, tokens=1e7)["lr"].iloc[0]) < 3e-3
    True
    """

    name: str
    method: Estimator | None = None
    lr_law: Law | str = "lr_power"
    batch_law: Law | str = "batch_power_tokens"
    fitter: Callable[[Law, Optima], Rule] = fit

    def __post_init__(self) -> None:
        check_targets(self.name, lr=self.lr_law, batch=self.batch_law)

    def train(self, sweep: Sweep) -> LawPair:
        """Fit the laws to the optima of the sweep's cells.

        Parameters
        ----------
        sweep : Sweep
            The training runs.

        Returns
        -------
        LawPair

        Raises
        ------
        SweepError, LawError, FitError
            If no optimum can be estimated, a law lacks an input, or the cells do not identify its parameters.
        """
        axes = searched_axes(sweep)

        @cache
        def optima(over: tuple[str, ...]) -> Optima:
            fixed = [axis for axis in axes if axis not in over]
            return find_optima(sweep, over=over, by=(*cell_axes(sweep), *fixed), method=self.method)

        asked: dict[str, tuple[Law | None, Optima]] = {}
        for name in axes:
            wanted = self.lr_law if name == "lr" else self.batch_law
            law = None if wanted == AUTO else get_law(wanted)
            # A law with the other setting as an input holds at fixed values of it, so its optima are over one axis.
            asked[name] = law, optima((name,) if law and set(axes) & set(_inputs(law)) else axes)
        return fit_pair(self.fitter, asked)


@dataclass(frozen=True)
class Custom:
    """Any other way to predict, such as a joint surface, from a function of the training runs.

    Parameters
    ----------
    name : str
        Row label in the backtest.
    recipe : callable
        Takes the training `Sweep` and returns an object with ``optimum(*, level, params, tokens)``, see `Competitor`: a
        `Surface`, a `LawPair` or your own.

    See Also
    --------
    Competitor, LawPair

    Examples
    --------
    >>> import scalefit as sf
    >>> narrow = sf.Custom("narrow surface", lambda sweep: sf.fit_surface(sweep, window=0.005))
    >>> report = sf.backtest(sf.load_dataset("tiny-lm"), "largest params", entrants=[narrow])
    >>> report.summary()["entrant"].tolist()
    ['narrow surface']
    """

    name: str
    recipe: Callable[[Sweep], Predictor]

    def train(self, sweep: Sweep) -> Predictor:
        """Return what the recipe makes of the training runs; raise what it raises."""
        return self.recipe(sweep)


NORM_LAW = Law("weight_norm = c * lr**k * N**a * D**b", positive={"c"}, name="weight_norm_power")
"""How the weights' norm at the end follows size, data and the learning rate itself."""


@dataclass(frozen=True)
class EffectiveEntrant:
    r"""A law for the effective rate eta/\|\|W\|\| and one for the norm \|\|W\|\|, solved together for the rate to set.

    Parameters
    ----------
    name : str
        Row label in the backtest.
    method : Basin, Parabola, NearMinimum or GridMinimum, optional
        How optima are estimated; by default as in `find_optima`.
    lr_law : Law or str
        For the effective rate, in params and tokens.
    batch_law : Law or str
        For the batch size.
    norm_law : Law
        For `weight_norm`; its inputs other than lr must be those of `lr_law`.
    near : float
        Relative excess over its cell's lowest loss up to which a run takes part in the norm law: far from the optimum
        the norm is another.

    See Also
    --------
    effective_lr, from_effective

    References
    ----------
    arXiv:2606.29158 reports that optimal rates curve less, and extrapolate better, as effective rates.

    Examples
    --------
    >>> import scalefit as sf
    >>> predictor = sf.EffectiveEntrant("effective").train(sf.load_dataset("tiny-lm"))
    >>> 1e-3 < float(predictor.optimum(params=1e6, tokens=1e7)["lr"].iloc[0]) < 3e-3
    True
    """

    name: str
    method: Estimator | None = None
    lr_law: Law | str = "lr_power"
    batch_law: Law | str = "batch_power"
    norm_law: Law = NORM_LAW
    near: float = 0.02

    def train(self, sweep: Sweep) -> LawPair:
        """Fit the three laws to the training cells; see `Entrant.train`.

        Raises
        ------
        SweepError, LawError, FitError
            If the runs have no `weight_norm`, or as `Entrant.train` does.
        """
        pair = Entrant(self.name, self.method, self.lr_law, self.batch_law).train(effective_lr(sweep))
        keys, cell = sweep.group(cell_axes(sweep))
        good = near_lowest(cell, sweep.table["loss"].to_numpy(), len(keys), self.near)
        norm, rate = fit(self.norm_law, sweep.table[good].reset_index(drop=True)), pair.rules["lr"]
        if lacking := set(_inputs(norm.law)) - {"lr", *_inputs(rate.law)}:
            needs = ", ".join(sorted(lacking))
            raise LawError(f"{self.name}: the norm law needs {needs}, which the law for lr does not")
        return LawPair({**pair.rules, "lr": _Converted(rate.law, rate, norm)}, merge(pair.notes, norm.notes))


def label(law: Law | str) -> str:
    """Return a law's name, or its formula when it has none."""
    known = AUTO if law == AUTO else get_law(law)
    return known if isinstance(known, str) else known.name or known.formula


@dataclass(frozen=True)
class _Converted:
    """The law of the effective rate as a rule for the rate to set."""

    law: Law
    effective: Rule
    norm: Fit

    def predict(self, table: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
        found = self.effective.predict(table, level=level)
        return from_effective(found, weight_norm=self.norm, level=level)


def fit_pair(fitter: Callable[[Law, Any], Rule], asked: Mapping[str, tuple[Law | None, Any]]) -> LawPair:
    """Fit a law, or without one the average of the usual ones, for each setting; refuse arbitrary predictions."""
    rules: dict[str, Rule] = {}
    imprecise = []
    for name, (law, data) in asked.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ScalefitWarning)
            rules[name] = found = fitter(law, data) if law else average_laws(data, target=name)
        status, formula = getattr(found, "status", FitStatus.CONVERGED), found.law.formula
        # An ill-conditioned fit may only be imprecise. If the design itself is singular, its prediction is arbitrary.
        singular = getattr(found, "condition", 0.0) * RANK_TOLERANCE > 1
        if status is FitStatus.NOT_CONVERGED or (status is FitStatus.ILL_CONDITIONED and singular):
            raise FitError(f"{formula!r} on the training cells: {status}: {status.sentence}", found)
        if status is FitStatus.ILL_CONDITIONED:
            text = "the training cells hardly determine this law; it predicts, but without an interval"
            imprecise.append(Note("imprecise", f"{formula}: {text}", caution=True))
    return LawPair(rules, merge(*(getattr(rule, "notes", ()) for rule in rules.values()), imprecise))


def _inputs(law: Law) -> list[str]:
    return [column_of(name) for name in law.inputs]


def check_targets(name: str, **laws: Law | str | None) -> None:
    """Raise unless each law predicts the setting it is given for."""
    for column, asked in laws.items():
        law = None if asked is None or asked == AUTO else get_law(asked)
        if law and column_of(law.target) != column:
            raise LawError(f"{name}: expected a law for {column}, found {law.formula!r}, a law for {law.target}")
