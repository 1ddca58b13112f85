"""From a table, a sweep or optima to the checked rows and the arrays of one fitting problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scalefit._values import Note, Observations
from scalefit.errors import FitError, LawError, SweepError
from scalefit.laws.formula import Law
from scalefit.schema import group_levels, number_groups
from scalefit.solvers.distributions import deviance
from scalefit.solvers.losses import Loss
from scalefit.sweep import Sweep
from scalefit.vocabulary import AXES, QUANTITIES, column_of, quantity_of

if TYPE_CHECKING:
    from scalefit.laws.derivation import Derivation

Array = np.ndarray

_SAME = 1e-6
"""Values outside the vocabulary that differ relatively by less than this share a cell: jitter, not a setting."""


@dataclass(frozen=True, eq=False)
class Rows:
    """The checked rows of one fit, in the order the user gave them."""

    table: pd.DataFrame  # the inputs of the law, then its target, as floats, with the columns named in words
    weights: Array
    cells: Array  # number of the (params, tokens) cell of every row
    notes: tuple[Note, ...]
    source: str
    data_unit: str = "tokens"
    censored: Array | None = None  # where the truth lies: at the target (0), below it (-1), above (+1); None: all 0
    errors: Array | None = None  # as in `Observations`
    unread: pd.DataFrame = field(default_factory=pd.DataFrame)  # params and tokens, where the law does not read them
    labels: pd.DataFrame = field(
        default_factory=pd.DataFrame
    )  # columns of the table but the target; sizes and budgets as levels

    def canonical_order(self) -> Array:
        """Return the order of rows in which a fit adds them up, so that their order in the file changes nothing."""
        *inputs, target = (self.table[name].to_numpy() for name in self.table)
        order = np.argsort(target, kind="stable")
        if (np.diff(target[order]) > 0).all():
            return order
        side = np.zeros(len(target)) if self.censored is None else self.censored
        # Equal targets are ordered by everything else a row holds, or their order in the file would still be seen.
        return np.lexsort([side, self.weights, *inputs, target])


def collect(law: Law, data: Any, weights: Any, bounds: str = "drop") -> tuple[Law, Rows]:
    """Return the law with its inputs settled and the rows it is fitted to."""
    observed = _observations(law, data, bounds)
    table = _in_words(observed.table)
    bound = law.bind(table.columns)
    columns = {column_of(name): _numeric(table, _column(table, name)) for name in bound.inputs}
    if column_of(bound.target) in columns:
        raise LawError(f"{bound.formula!r}: the target {bound.target!r} is also an input")
    columns[column_of(bound.target)] = _numeric(table, _target_column(bound, table))
    rows = pd.DataFrame(columns, index=range(len(table)))
    for name in columns:
        _check_values(columns[name], name, positive=quantity_of(name) is not None)
    counted = _weights(weights, observed, data)
    notes = (*observed.notes, *_duplicates(rows, table), *_unread(rows, table, data))
    side, levels = _sides(observed), _levels(rows, table, observed.rtol)
    labels = table.assign(**levels)
    labels.pop(_target_column(bound, table))
    cells, unread = _cells(rows, levels), _unread_places(table, rows)
    told = (notes, observed.source, observed.data_unit, side)
    return bound, Rows(rows, counted, cells, *told, observed.errors, unread, labels)


def _in_words(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with every column under its word, N as params; where both are there, the symbol stays one."""
    names = [str(name) for name in table]
    words = [column_of(name) for name in names]
    return table.set_axis([w if words.count(w) == 1 else n for n, w in zip(names, words, strict=True)], axis=1)


def _unread_places(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return sizes and budgets that are known of every row and not read by the law: optima stray by those as well."""
    columns = {}
    for name in ("params", "tokens"):
        if name in table and name not in rows:
            values = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
            if (np.isfinite(values) & (values > 0)).all():
                columns[name] = values
    return pd.DataFrame(columns, index=rows.index)


def _observations(law: Law, data: Any, bounds: str) -> Observations:
    target = column_of(law.target)
    if isinstance(data, Sweep) and target in ("lr", "batch"):
        raise FitError(
            f"{law.formula!r} is a law for the best {target}, but in a sweep {target} is a setting of every run; "
            f"find the optima first: sf.fit(law, sf.find_optima(sweep, over={target!r}))"
        )
    if isinstance(data, Observations):
        return data if bounds == "censor" or data.censored is None else data.points()
    if hasattr(data, "observations"):
        bounded = getattr(data, "bounded_observations", None) if bounds == "censor" else None
        return (bounded or data.observations)(target)
    if isinstance(data, Mapping):
        try:
            data = pd.DataFrame({str(name): np.atleast_1d(column) for name, column in data.items()})
        except ValueError as error:
            raise SweepError(f"the columns do not make a table: {error}") from None
    table = data if isinstance(data, pd.DataFrame) else getattr(data, "table", None)
    if not isinstance(table, pd.DataFrame):
        raise FitError(f"expected a DataFrame, Sweep, Optima or other table, found {type(data).__name__}")
    if not table.columns.is_unique:
        raise SweepError(f"the column {table.columns[table.columns.duplicated()][0]!r} occurs twice")
    unit = table.attrs.get("data_unit", "tokens") if table is data else getattr(data, "data_unit", "tokens")
    rtol = 0.01 if table is data else getattr(data, "rtol", 0.01)
    return Observations(table.reset_index(drop=True), data_unit=unit, rtol=rtol)


def _sides(observed: Observations) -> Array | None:
    """Return which rows are bounds and on which side; None when none is."""
    if observed.censored is None:
        return None
    side = np.asarray(observed.censored)
    if side.shape != (len(observed.table),) or not np.isin(side, (-1, 0, 1)).all():
        raise SweepError(f"censored: expected -1, 0 or 1 for each of {len(observed.table)} rows, found {side!r}")
    return side.astype(int) if side.any() else None


def _column(table: pd.DataFrame, name: str) -> str:
    return column_of(name) if column_of(name) in table else name


def _target_column(law: Law, table: pd.DataFrame) -> str:
    name = _column(table, law.target)
    if name in table:
        return name
    wanted, there = column_of(law.target), ", ".join(map(str, table))
    raise LawError(f"{law.formula!r} is fitted to the column {wanted!r}; the table has: {there}")


def _numeric(table: pd.DataFrame, name: str) -> Array:
    column = table[name]
    kind = column.dtype.kind
    if kind == "f":
        return column.to_numpy(dtype=float, na_value=np.nan)
    # Dates, spans and complex numbers would turn into numbers without a complaint; True is no learning rate.
    if kind in "mMc" or (kind == "b" and quantity_of(name) is not None):
        raise SweepError(f"{name}: expected numbers, found {column.dtype}")
    numbers = pd.to_numeric(column, errors="coerce")
    text = (numbers.isna() & column.notna()).to_numpy(dtype=bool)
    if text.any():
        first = int(np.flatnonzero(text)[0])
        found = f"text in {int(text.sum())} row(s), first row {first + 1}: {column.iloc[first]!r}"
        raise SweepError(f"{name}: expected numbers, found {found}")
    if kind == "O":  # to the last bit, which to_numeric of an older pandas is not
        numbers = column.astype(object).where(numbers.notna(), np.nan).astype(float)
    return numbers.to_numpy(dtype=float, na_value=np.nan)


def _check_values(values: Array, name: str, *, positive: bool) -> None:
    bad, what = ~np.isfinite(values), "finite numbers"
    if positive and not bad.any():
        bad, what = values <= 0, "positive numbers"
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        found = f"{int(bad.sum())} row(s) that are not, first row {first + 1}: {values[first]}"
        remedy = "leave such rows out, or read the table with sf.read_sweep, which can mark diverged runs"
        raise SweepError(f"{name}: expected {what}, found {found}; {remedy}")


def _weights(given: Any, observed: Observations, data: Any) -> Array:
    count = len(observed.table)
    if given is None:
        given = np.ones(count) if observed.weights is None else observed.weights
    elif isinstance(given, str):
        if given not in observed.table:
            raise FitError(f"weights={given!r} is not a column; the table has: {', '.join(map(str, observed.table))}")
        given = _numeric(observed.table, given)
    elif isinstance(given, pd.Series) and isinstance(data, pd.DataFrame) and not given.index.equals(data.index):
        raise FitError("weights: the index of the Series is not that of the table; pass weights.to_numpy() if it fits")
    try:
        weights = np.array(given, dtype=float)
    except (TypeError, ValueError):
        raise FitError(f"weights: expected {count} numbers, one a row, found {type(given).__name__}") from None
    if weights.shape != (count,):
        raise FitError(f"weights: expected {count} numbers, one a row, found shape {weights.shape}")
    if count and (not np.isfinite(weights).all() or (weights < 0).any() or not (weights > 0).any()):
        raise FitError("weights: expected finite numbers that are not negative, and not all zero")
    return weights


def _duplicates(rows: pd.DataFrame, table: pd.DataFrame) -> tuple[Note, ...]:
    """Note rows that repeat another in everything a run is described by, its target included."""
    target = np.sort(rows.iloc[:, -1].to_numpy())
    if (np.diff(target) > 0).all():  # rows that repeat each other share a target: spares most fits the slow search
        return ()
    # Another seed makes another observation of the loss, yet the same loss to the last digit is the same run.
    known = [q.column for q in QUANTITIES if q.numeric and q.column != "seed"]
    others = {name: table[name] for name in known if name in table and name not in rows}
    count = int(rows.assign(**others).duplicated().sum())
    if count == 0:
        return ()
    text = f"{count} of {len(rows)} rows repeat another row exactly; errors count them as independent observations"
    return (Note("duplicates", text, caution=True),)


def _unread(rows: pd.DataFrame, table: pd.DataFrame, data: Any) -> tuple[Note, ...]:
    """Note when a law for learning rates does not read what their cells differ by."""
    own = [name for name in getattr(data, "by", ()) if name in AXES and name in table and name not in rows]
    left = [name for name in own if table[name].nunique() > 1] if "lr" in rows else []
    if not left:
        return ()
    vary, them = ("varies", "it") if len(left) == 1 else ("vary", "them")
    text = (
        f"{' and '.join(left)} {vary} between these optima and the law does not read {them}: the effect counts as "
        "scatter, or as that of what it reads; select a level, or fit a law that reads more"
    )
    return (Note("unread", text, caution=True),)


def _levels(rows: pd.DataFrame, table: pd.DataFrame, rtol: float) -> dict[str, Array]:
    """Return sizes and budgets of the rows, read or not, as levels."""
    levels = {}
    for name in ("params", "tokens"):
        if name in rows:
            levels[name] = group_levels(rows[name].to_numpy(), rtol)
        elif name in table:
            values = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
            levels[name] = group_levels(values, rtol)
    return levels


def _cells(rows: pd.DataFrame, levels: dict[str, Array]) -> Array:
    """Number the (params, tokens) cells of the rows; without either, rows of equal inputs are a cell."""
    # Laws in other inputs: a repeat of the same inputs shares its luck as runs of a cell do.
    if not levels:
        levels = {name: _clusters(rows[name].to_numpy()) for name in rows.columns[:-1]}
    if not levels:
        return np.arange(len(rows))
    return number_groups(*levels.values())[1]


def _clusters(values: Array) -> Array:
    """Number the groups of values that differ by no more than jitter."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    opens = np.diff(ordered) > _SAME * np.maximum(np.abs(ordered[1:]), np.abs(ordered[:-1]))
    groups = np.empty(len(values), dtype=int)
    groups[order] = np.concatenate([[0], np.cumsum(opens)])[: len(values)]
    return groups


@dataclass(frozen=True, eq=False)
class Problem:
    """One fitting problem in fit coordinates."""

    law: Law
    inputs: list[Array]  # of shape (n,) each, logs where positive
    target: Array  # (n,), in natural units
    weights: Array
    space: str  # residuals are differences of logs ("log") or of values ("plain")
    loss: Loss
    lower: Array  # (p,); equal to `upper` where a parameter is held
    upper: Array
    censored: Array | None = None  # as in `Rows`
    scale: float = np.nan  # scatter of a row of weight one, by which a bound is soft
    error: float = 0.0  # typical standard error that the log of a point has of its own

    @property
    def derivation(self) -> Derivation:
        """What follows from the law."""
        return self.law.derivation

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        return self.derivation.parameters

    @cached_property
    def observed(self) -> Array:
        """The target as the residuals see it."""
        return np.log(self.target) if self.space == "log" else self.target

    def values(self, space: str) -> Callable[[Array], tuple[Array, Array]]:
        """Return phi -> law values (K, n) and Jacobian (K, p, n) on the data, in one space."""
        function, count = self.derivation.function(space), len(self.target)

        def values(phi: Array) -> tuple[Array, Array]:
            value, jacobian = function(phi, self.inputs)
            if jacobian.shape[2] != count:  # a law without inputs has one value for all rows
                jacobian = np.repeat(jacobian, count, axis=2)
                value = np.repeat(value, count, axis=1)
            return value, jacobian

        return values

    def model(self, observed: Array | None = None) -> Callable[[Array], tuple[Array, Array]]:
        """Return phi -> residuals (K, n) and Jacobian (K, p, n), from the target or from others (n,) or (K, n)."""
        values, target = self.values(self.space), self.observed if observed is None else observed

        def residuals(phi: Array) -> tuple[Array, Array]:
            value, jacobian = values(phi)
            return self.soften(value - target, jacobian)

        return residuals

    @property
    def bounds(self) -> Array:
        """Which rows are bounds."""
        return np.zeros(len(self.target), dtype=bool) if self.censored is None else self.censored != 0

    def soften(self, residual: Array, jacobian: Array) -> tuple[Array, Array]:
        """Turn the residuals (K, n) of bounds into signed deviances, whose half square is -ln of their probability."""
        if self.censored is None:
            return residual, jacobian
        soft = self.bounds & (self.weights > 0)
        # As signed roots, bounds are residuals like the others: the least-squares solver needs to know nothing of them.
        spread = self.scale / np.sqrt(self.weights[soft])
        size, fall = deviance(self.censored[soft] * residual[:, soft] / spread)
        residual, jacobian = residual.copy(), jacobian.copy()
        residual[:, soft] = -self.censored[soft] * spread * size
        jacobian[:, :, soft] *= fall[:, None, :]
        return residual, jacobian

    def objective(self, phi: Array) -> Array:
        """Return the sum of w rho(r) for every row of phi; inf where it cannot be computed."""
        residual, jacobian = self.model()(phi)
        # A start at which the law overflows loses against every other; a NaN would win or lose by chance. So does one
        # whose slopes are not finite (a whole power of a negative number): the solver cannot leave it.
        with np.errstate(all="ignore"):
            total = (self.weights * self.loss.value(residual)).sum(axis=1) + 0.0 * jacobian.sum(axis=(1, 2))
        return np.where(np.isfinite(total), total, np.inf)

    def is_linear(self) -> bool:
        """Tell whether the residuals are linear in the free coordinates and nothing bounds those."""
        free = self.lower < self.upper
        names = set(np.array(self.parameters)[free])
        bent = self.space == "plain" and bool(self.derivation.logged[free].any())
        # The direct solution knows no bounds, and one that is clipped to them is not the minimum within.
        bounded = bool(np.isfinite(np.concatenate([self.lower[free], self.upper[free]])).any())
        straight = not bent and not bounded and self.censored is None
        return names <= set(self.derivation.linear(self.space)) and straight

    def rounding(self) -> float:
        """Return the objective that rounding alone can leave: below it a fit is exact."""
        typical = 256 * np.finfo(float).eps * np.maximum(np.abs(self.observed), 1.0 if self.space == "log" else 0.0)
        return float((self.weights * self.loss.value(typical)).sum())

    def take(self, rows: Array) -> Problem:
        """Return the problem on some of the rows, or on all of them in another order."""
        parts = {name: getattr(self, name)[rows] for name in ("target", "weights")}
        censored = None if self.censored is None else self.censored[rows]
        return replace(self, inputs=[u[rows] for u in self.inputs], censored=censored, **parts)

    @property
    def projection_space(self) -> str:
        """The form in which more parameters are linear, where projection is legitimate."""
        if self.space == "plain":
            return "plain"
        linear = self.derivation.linear
        return "log" if len(linear("log")) >= len(linear("plain")) else "plain"

    def projection_target(self) -> tuple[Array, Array]:
        """Return target and weights for projection; relative errors stand in for differences of logs."""
        # d ln y = dy/y: weights 1/y**2 make plain differences relative ones, close to logs near the answer.
        if self.space == "log" and self.projection_space == "plain":
            return self.target, self.weights / self.target**2
        return self.observed, self.weights


def fit_bounds(law: Law, bounds: Mapping[str, tuple[float, float]], fixed: Mapping[str, float]) -> tuple[Array, Array]:
    """Return lower and upper bounds in fit coordinates; fixed parameters have equal ones."""
    limits = {**bounds, **{name: (value, value) for name, value in fixed.items()}}
    low = np.array([limits.get(name, (-np.inf, np.inf))[0] for name in law.parameters], dtype=float)
    high = np.array([limits.get(name, (-np.inf, np.inf))[1] for name in law.parameters], dtype=float)
    logged = law.derivation.logged
    # A lower bound below zero asks nothing of a positive parameter; an upper one leaves it no value.
    below = logged & (high <= 0)
    if below.any():
        name = law.parameters[int(np.flatnonzero(below)[0])]
        raise FitError(
            f"{name} must be positive in {law.formula!r}; its bound or fixed value is not. "
            "To do without its term, write the law without it"
        )
    return law.derivation.to_fit(np.where(logged, np.maximum(low, 0.0), low)), law.derivation.to_fit(high)
