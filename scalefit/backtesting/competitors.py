"""What can compete in a backtest: anything that trains on a sweep and then predicts the best setting of other cells."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd

from scalefit._levels import near_lowest
from scalefit._values import Note, merge
from scalefit.backtesting.regret import cell_axes, searched_axes
from scalefit.errors import FitError, LawError, ScalefitWarning, SweepError
from scalefit.fitting.covariance import RANK_TOLERANCE
from scalefit.fitting.fit_law import fit_law as fit
from scalefit.fitting.fit_result import Fit
from scalefit.fitting.fit_values import FitStatus
from scalefit.laws import get_law
from scalefit.laws.formula import Law
from scalefit.laws.published import PUBLISHED, PublishedLaw, get_published
from scalefit.optima.cells import Estimator
from scalefit.optima.effective_lr import effective_lr, from_effective
from scalefit.optima.find_optima import Optima, find_optima
from scalefit.selection.average_laws import average_laws
from scalefit.sweep import Sweep
from scalefit.vocabulary import BY_COLUMN, column_of, format_number

AUTO = "auto"
"""In place of a law: the average of the usual ones."""


class Predictor(Protocol):
    """What training gives."""

    def optimum(self, *, level: float = 0.95, **cells: Any) -> pd.DataFrame:
        """Predict the best setting at `params` and `tokens` (arrays; those of the two that the sweep has).

        One row a cell, with `lr` and `batch` (tokens per step; only those predicted) and the bounds `lr_lo`, `lr_hi`,
        `batch_lo`, `batch_hi`, absent or NaN where there are none.
        """
        ...


class Competitor(Protocol):
    """What a backtest scores: a name, and a way to learn from the training cells alone.

    A predictor's `notes`, if it has them, are shown with the backtest.
    """

    @property
    def name(self) -> str:
        """Row label; unique in a backtest."""
        ...

    def train(self, sweep: Sweep) -> Predictor:
        """Learn from the training runs."""
        ...


class Rule(Protocol):
    """A law with its values: what `Fit` is, and what a published law becomes."""

    @property
    def law(self) -> Law:
        """The law, for its inputs."""
        ...

    def predict(self, table: pd.DataFrame | None = None, *, level: float = 0.95) -> pd.DataFrame:
        """Return prediction, lo and hi, one row a row of the table."""
        ...


@dataclass(frozen=True)
class LawPair:
    """A rule for each searched setting; where one needs the other as an input, it gets the predicted one.

    Parameters
    ----------
    rules : mapping of str to Rule
        By column: lr, batch.
    notes : tuple of Note
    """

    rules: Mapping[str, Rule]
    notes: tuple[Note, ...] = field(default=())

    def optimum(self, *, level: float = 0.95, **cells: Any) -> pd.DataFrame:
        """Predict the best setting; see `Predictor`. The bounds of a chained rule hold its own error only."""
        given = pd.DataFrame({column_of(name): np.atleast_1d(np.asarray(v, dtype=float)) for name, v in cells.items()})
        if {"params", "tokens"} <= set(given.columns):
            given["flops"] = 6 * given["params"] * given["tokens"]
        result: dict[str, np.ndarray] = {}
        waiting = dict(self.rules)
        while waiting:
            ready = [name for name, rule in waiting.items() if set(_inputs(rule.law)) <= set(given.columns)]
            if not ready:
                name, rule = next(iter(waiting.items()))
                lacking = sorted(set(_inputs(rule.law)) - set(given.columns))
                raise LawError(
                    f"{rule.law.formula!r} needs {', '.join(lacking)}, unknown when {name} is to be predicted"
                )
            for name in ready:
                found = _quietly(waiting.pop(name), given, level)
                result |= dict(zip((name, f"{name}_lo", f"{name}_hi"), found.T, strict=True))
                given[name] = result[name]
        return pd.DataFrame(result, index=given.index)


@dataclass(frozen=True)
class Entrant:
    """An estimator of optima and a law for each setting, fitted to the training cells.

    Parameters
    ----------
    name : str
        Row label in the backtest.
    method : Estimator or None
        How optima are read off; None is the default of `find_optima`.
    lr_law, batch_law : Law or str
        Laws fitted to the optima; the one for a setting that the sweep did not vary is left aside. "auto" is the
        average of the usual laws by their error on unseen cells, all of them training cells (`average_laws`).
    fitter : callable
        ``fitter(law, optima)`` gives a `Fit` or another `Rule`; `scalefit.fit` by default.

    Examples
    --------
    >>> from scalefit.optima.optimum_estimators import Parabola
    >>> from scalefit.simulation import simulate_sweep
    >>> runs = simulate_sweep(seed=1)
    >>> sweep = Sweep.from_frame(runs.assign(diverged=runs["loss"].isna()))
    >>> predictor = Entrant("parabola", Parabola(), "lr_power").train(sweep)
    >>> float(predictor.optimum(params=1e9, tokens=2e10)["lr"].iloc[0]) < 2e-3
    True
    """

    name: str
    method: Estimator | None = None
    lr_law: Law | str = "lr_power"
    batch_law: Law | str = "batch_power_tokens"
    fitter: Callable[[Law, Optima], Rule] = fit

    def __post_init__(self) -> None:
        for column, law in (("lr", self.lr_law), ("batch", self.batch_law)):
            if law != AUTO:
                _check_target(get_law(law), column, self.name)

    def train(self, sweep: Sweep) -> LawPair:
        """Fit the laws to the optima of the sweep's cells.

        Raises
        ------
        SweepError, LawError, FitError
            If no optimum can be read off, a law lacks an input, or the cells do not identify its parameters.
        """
        axes = searched_axes(sweep)
        rules: dict[str, Rule] = {}
        optima: dict[tuple[str, ...], Optima] = {}
        for name in axes:
            asked = self.lr_law if name == "lr" else self.batch_law
            law = None if asked == AUTO else get_law(asked)
            over = (name,) if law and set(axes) & set(_inputs(law)) else axes
            if over not in optima:
                by = (*cell_axes(sweep), *(axis for axis in axes if axis not in over))
                optima[over] = find_optima(sweep, over=over, by=by, method=self.method)
            found = optima[over]
            rules[name] = _fitted(self.fitter, law, found) if law else average_laws(found, target=name)
        return _pair(rules)


@dataclass(frozen=True)
class Baseline:
    r"""The plain recipe: the runs nearly as good as a cell's best, and least squares in logs through all of them.

    Nothing is left out: a best run at the edge of its grid counts as an optimum, as it does in the recipe.

    Parameters
    ----------
    name : str
    excess : float
        Relative excess over the cell's lowest loss up to which runs are kept; 0 keeps the best run, 0.0025 is the
        rule of Li et al. 2025 (arXiv:2503.04715, ``code/fit_tool.py``).
    lr_law, batch_law : Law or str or None
        None is the law linear in logs in those of params and tokens that the training cells vary.

    Notes
    -----
    Least squares over all runs kept has the coefficients of least squares over the cells' geometric means weighted by
    the number kept. The latter is what is done, because its errors do not take runs of one cell for independent.
    """

    name: str
    excess: float
    lr_law: Law | str | None = None
    batch_law: Law | str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.excess < np.inf:
            raise SweepError(f"{self.name}: expected an excess of 0 or more, such as 0.0025, found {self.excess!r}")
        for column, law in (("lr", self.lr_law), ("batch", self.batch_law)):
            if law is not None:
                _check_target(get_law(law), column, self.name)

    def train(self, sweep: Sweep) -> LawPair:
        """Fit the laws to the runs kept; raises as `Entrant.train` does."""
        by, axes = list(cell_axes(sweep)), list(searched_axes(sweep))
        table = sweep.table
        keys, cell = sweep.group(by)
        kept = near_lowest(cell, table["loss"].to_numpy(), len(keys), self.excess)
        counts = np.bincount(cell[kept], minlength=len(keys)).astype(float)
        there = counts > 0  # where every run diverged there is no best one
        means, counts = keys[there].reset_index(drop=True), counts[there]
        for name in axes:
            total = np.bincount(cell[kept], np.log(table[name].to_numpy()[kept]), minlength=len(keys))
            means[name] = np.exp(total[there] / counts)
        asked = {"lr": self.lr_law, "batch": self.batch_law}
        laws = {name: _log_linear(name, means[by]) if (law := asked[name]) is None else get_law(law) for name in axes}

        def weighted(law: Law, data: Any) -> Fit:
            return fit(law, data, weights=counts)

        return _pair({name: _fitted(weighted, laws[name], means) for name in axes})


@dataclass(frozen=True)
class PublishedEntrant:
    """Published coefficients, as printed: nothing is learnt from the sweep.

    Parameters
    ----------
    name : str
    lr, batch : str or None
        Keys of published laws. Without one of them that setting is not predicted, and no regret can be given.

    Notes
    -----
    A law in training compute gets C = 6 N D.
    """

    name: str
    lr: str | None = None
    batch: str | None = None

    def __post_init__(self) -> None:
        for column, key in (("lr", self.lr), ("batch", self.batch)):
            if key is not None:
                _check_target(get_published(key).law, column, self.name)
        if self.lr is None and self.batch is None:
            raise LawError(f"{self.name}: expected the key of a published law for lr, for batch or for both")

    def train(self, sweep: Sweep) -> LawPair:
        """Return the printed laws for the settings that the sweep varied."""
        keys = {"lr": self.lr, "batch": self.batch}
        chosen = {name: get_published(key) for name in searched_axes(sweep) if (key := keys[name]) is not None}
        if not chosen:
            raise LawError(f"{self.name} has no law for {', '.join(searched_axes(sweep))}")
        for law in chosen.values():
            law.check_data_unit(sweep.data_unit)
        computed = [law.name for law in chosen.values() if "flops" in _inputs(law.law)]
        text = f"{', '.join(computed)}: the training compute is taken as 6 N D"
        notes = (Note("compute", text, caution=True),) if computed else ()
        return LawPair({name: _Printed(law) for name, law in chosen.items()}, notes)


@dataclass(frozen=True)
class Custom:
    """Any other way to predict, such as a joint surface: ``Custom("surface", scalefit.fit_surface)``.

    Parameters
    ----------
    name : str
    recipe : callable
        Takes the training `Sweep`, gives an object with ``optimum(params=, tokens=, level=)``; see `Predictor`.
    """

    name: str
    recipe: Callable[[Sweep], Predictor]

    def train(self, sweep: Sweep) -> Predictor:
        """Call the recipe."""
        return self.recipe(sweep)


def published_entrant(key: str) -> PublishedEntrant:
    """Return the entrant of a published law or pair of laws.

    Raises
    ------
    LawError
        If there is none of that name for the learning rate or the batch.

    Examples
    --------
    >>> published_entrant("porian2024")
    PublishedEntrant(name='porian2024', lr='porian2024_lr', batch='porian2024_bs')
    """
    found = {
        column_of(entry.law.target): entry.name
        for entry in PUBLISHED
        if entry.name == key or entry.name.rpartition("_")[0] == key
    }
    if not found.keys() & {"lr", "batch"}:
        usable = [entry.name for entry in PUBLISHED if column_of(entry.law.target) in ("lr", "batch")]
        raise LawError(f"no published law {key!r} for the learning rate or the batch; there are: {', '.join(usable)}")
    return PublishedEntrant(key, found.get("lr"), found.get("batch"))


@dataclass(frozen=True)
class _Printed:
    """A published law as a rule; it has no interval."""

    published: PublishedLaw

    @property
    def law(self) -> Law:
        return self.published.law

    def predict(self, table: pd.DataFrame | None = None, *, level: float = 0.95) -> pd.DataFrame:
        rows = pd.DataFrame() if table is None else table
        inputs: dict[str, Any] = {name: rows[name].to_numpy() for name in _inputs(self.law)}
        value = self.published(**inputs)
        if not (np.isfinite(value) & (value > 0)).all():
            worst = format_number(float(np.min(value)), 3)
            raise LawError(f"{self.published.name} gives {worst} here, which is no setting")
        return pd.DataFrame({"prediction": value, "lo": np.nan, "hi": np.nan}, index=rows.index)


def _fitted(fitter: Callable[[Law, Any], Rule], law: Law, data: Any) -> Rule:
    """Fit, and refuse a fit whose prediction would be arbitrary."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScalefitWarning)
        found = fitter(law, data)
    status = getattr(found, "status", FitStatus.CONVERGED)
    # An ill-conditioned fit may only be imprecise; its prediction is arbitrary when the design itself is singular.
    singular = getattr(found, "condition", 0.0) * RANK_TOLERANCE > 1
    if status is FitStatus.NOT_CONVERGED or (status is FitStatus.ILL_CONDITIONED and singular):
        raise FitError(f"{law.formula!r} on the training cells: {status}: {status.sentence}", found)
    return found


def _pair(rules: Mapping[str, Rule]) -> LawPair:
    """Join fitted rules with their notes, and say which are too imprecise for an interval."""
    loose = [rule for rule in rules.values() if getattr(rule, "status", None) is FitStatus.ILL_CONDITIONED]
    text = "the training cells hardly determine this law; it predicts, but without an interval"
    doubts = (Note("imprecise", f"{rule.law.formula}: {text}", caution=True) for rule in loose)
    return LawPair(rules, merge(*(getattr(rule, "notes", ()) for rule in rules.values()), doubts))


def _quietly(rule: Rule, given: pd.DataFrame, level: float) -> np.ndarray:
    # Every held-out cell lies beyond the training range; the backtest reports by how much.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScalefitWarning)
        found = rule.predict(given[_inputs(rule.law)], level=level)
    return found[["prediction", "lo", "hi"]].to_numpy(dtype=float)


def _log_linear(target: str, cells: pd.DataFrame) -> Law:
    """Return the law linear in logs in the columns that the cells vary."""
    moving = [name for name in cells.columns if cells[name].nunique() > 1]
    powers = {"params": "N**a", "tokens": "D**b"}
    factors = " * ".join(powers[str(name)] for name in (moving or cells.columns))
    return Law(f"{BY_COLUMN[target].symbol} = c * {factors}", positive={"c"})


def _inputs(law: Law) -> list[str]:
    return [column_of(name) for name in law.inputs]


def _check_target(law: Law, column: str, name: str) -> None:
    if column_of(law.target) != column:
        raise LawError(f"{name}: expected a law for {column}, found {law.formula!r}, a law for {law.target}")


def label(law: Law | str) -> str:
    """Return a law's name, or its formula when it has none."""
    if law == AUTO:
        return AUTO
    known = get_law(law)
    return known.name or known.formula


REFERENCES: tuple[Competitor, ...] = (
    Baseline("grid minimum + OLS", 0.0),
    Baseline("within 0.25 % + OLS", 0.0025),
    PublishedEntrant("steplaw2025", "steplaw2025_lr", "steplaw2025_bs"),
)
"""The procedures in common use that anything better has to beat."""

NORM_LAW = Law("weight_norm = c * lr**k * N**a * D**b", positive={"c"}, name="weight_norm_power")
"""How the weights' norm at the end follows size, data and the learning rate itself."""


@dataclass(frozen=True)
class EffectiveEntrant:
    """A law for eta/||W|| and one for ||W||, solved together for the learning rate to set.

    Parameters
    ----------
    name : str
    method : Estimator or None
        How optima are read off; None is the default of `find_optima`.
    lr_law : Law or str
        For the effective rate, in params and tokens.
    batch_law : Law or str
    norm_law : Law
        For `weight_norm`; its inputs other than lr must be those of `lr_law`.
    near : float
        Relative excess over its cell's lowest loss up to which a run takes part in the norm law: far from the optimum
        the norm is another.

    References
    ----------
    arXiv:2606.29158 reports that optimal rates curve less, and extrapolate better, as effective rates.

    Examples
    --------
    >>> from scalefit._datasets.load_dataset import load_dataset
    >>> predictor = EffectiveEntrant("effective").train(load_dataset("tiny-lm"))
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
        """Fit the three laws to the training cells.

        Raises
        ------
        SweepError, LawError, FitError
            If the runs have no `weight_norm`, or as `Entrant.train` does.
        """
        pair = Entrant(self.name, self.method, self.lr_law, self.batch_law).train(effective_lr(sweep))
        norm = fit(self.norm_law, self._good_runs(sweep))
        lacking = {column_of(name) for name in norm.law.inputs} - {"lr", *map(column_of, pair.rules["lr"].law.inputs)}
        if lacking:
            raise LawError(
                f"{self.name}: the norm law needs {', '.join(sorted(lacking))}, which the law for lr does not"
            )
        rules: Mapping[str, Rule] = {**pair.rules, "lr": _Converted(pair.rules["lr"], norm)}
        return LawPair(rules, merge(pair.notes, norm.notes))

    def _good_runs(self, sweep: Sweep) -> pd.DataFrame:
        table = sweep.table
        keys, cell = sweep.group(cell_axes(sweep))
        kept = near_lowest(cell, table["loss"].to_numpy(), len(keys), self.near)
        return table[kept].reset_index(drop=True)


@dataclass(frozen=True)
class _Converted:
    """The law of the effective rate as a rule for the rate to set."""

    effective: Rule
    norm: Fit

    @property
    def law(self) -> Law:
        return self.effective.law

    def predict(self, table: pd.DataFrame | None = None, *, level: float = 0.95) -> pd.DataFrame:
        found = self.effective.predict(table, level=level)
        return from_effective(found, weight_norm=self.norm, level=level)
