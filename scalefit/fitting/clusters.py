"""Rows that share luck: which columns mark them, whether residuals say so, and the errors that follow.

Checkpoints of one run, points of one study, runs of one size are drawn together: the group is the witness, not the row.
Derivation: docs/derivations.md, "Errors by cluster"; coverage: docs/statistics.md, "Clusters".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from scalefit._values import Note
from scalefit.errors import FitError
from scalefit.fitting.covariance import Errors, working_rows
from scalefit.fitting.problem import Problem
from scalefit.schema import Groups, number_groups
from scalefit.vocabulary import BY_COLUMN, column_of

Array = np.ndarray

DECLARED = ("run", *BY_COLUMN["run"].aliases.split(), "trunk", "experiment", "study", "lab")
"""Columns that are clusters by their names where values repeat: one training run, one trunk, one study."""

SUSPECTED = ("params", "tokens", "seed")
"""Columns whose residuals are asked whether rows that agree share luck; a seed crossed with settings need not."""

_ENOUGH = 4
"""Groups from which a coarser declared column goes before a finer one."""
_LEAST_LEFT = 0.5
"""Groups' worth of luck that the law must leave in the residuals; with less, the two cannot be told apart."""
_FALSE = 0.1
"""Share of tables of independent rows that may be cautioned, all suspected columns together."""
_POOLED = 0.2
"""Level at which sizes make the errors. A test that only decides between two errors needs a high level, since what it
misses gets errors too small: Bancroft and Han (1983, J. Am. Stat. Assoc. 78, 960) find .25 best."""
_FEW = 5
"""Degrees of freedom below which errors by cluster deserve a second look."""


def groups_of(labels: pd.DataFrame, column: str) -> Array:
    """Number the groups of rows that agree in a column; a row whose value is missing is a group of its own.

    Names and numbers of runs must be equal, sizes and budgets come as levels, and other settings agree within the
    tolerance of a level.
    """
    values = labels[column]
    if column in (*DECLARED, *SUSPECTED) or values.dtype.kind not in "fiu":
        code = number_groups(pd.factorize(values)[0])[1]
    else:
        code = Groups(labels[[column]], rtol=0.01).number((column,))[1]
    missing = values.isna().to_numpy()
    if missing.any():
        code = np.where(missing, len(code) + np.arange(len(code)), code)
        code = number_groups(code)[1]
    return code


def candidates(labels: pd.DataFrame) -> dict[str, Array]:
    """Number the groups of the columns that are clusters by their names, or may be."""
    there = [name for name in (*DECLARED, *SUSPECTED) if name in labels and _can_be_grouped(labels[name])]
    codes = {name: groups_of(labels, name) for name in there}
    return {name: code for name, code in codes.items() if _repeats(code)}


def repeated_groups(labels: pd.DataFrame) -> dict[str, Array]:
    """Number the groups of every column in which some rows agree and others do not."""
    codes = {str(name): groups_of(labels, str(name)) for name in labels if _can_be_grouped(labels[name])}
    return {name: code for name, code in codes.items() if _repeats(code)}


def check_groups(labels: pd.DataFrame, column: str) -> Array:
    """Return the groups to resample by, or raise a FitError that says which columns have any."""
    code = groups_of(labels, column) if column in labels and _can_be_grouped(labels[column]) else np.empty(0, dtype=int)
    count = int(code.max(initial=-1)) + 1
    if count > 1:
        return code
    found = "there is one group only" if count else "the rows have no such column"
    others = ", ".join(repeated_groups(labels)) or "none"
    raise FitError(f"by={column!r}: {found}; expected 'cell', 'row', 'parametric' or a column that repeats: {others}")


def _can_be_grouped(values: pd.Series) -> bool:
    kinds = str | int | float | np.number | None
    return values.dtype != object or all(isinstance(value, kinds) or value is pd.NA for value in values)


def _repeats(code: Array) -> bool:
    return 0 < code.max(initial=0) < len(code) - 1


@dataclass(frozen=True, eq=False)
class Luck:
    """Residuals seen as the luck of a group plus that of a row; rows that count, columns of the design orthonormal."""

    design: Array  # (n, p)
    residual: Array  # (n,)
    root: Array  # (n,): square roots of the weights
    code: Array  # (n,): the group of every row, from 0
    back: Array  # (p, p): the design before, times the root weights, is `design` times this

    @cached_property
    def size(self) -> Array:
        """Weight of every group (G,)."""
        return np.bincount(self.code, self.root**2)

    @cached_property
    def sums(self) -> Array:
        """Design summed over the rows of every group (G, p)."""
        return self._sum(self.design * self.root[:, None])

    def _sum(self, rows: Array) -> Array:
        order = np.argsort(self.code, kind="stable")
        starts = np.searchsorted(self.code[order], np.arange(self.code.max() + 1))
        return np.add.reduceat(rows[order], starts)

    @cached_property
    def _squares(self) -> tuple[float, int, float, int]:
        """Sums of squares between groups, beyond the law, and within them, each with its degrees of freedom."""
        n, p = self.design.shape
        share = self.root[:, None] / self.size[self.code, None]
        inner = self.design - share * self.sums[self.code]
        rest = self.residual - share[:, 0] * self._sum(self.residual * self.root)[self.code]
        left, singular, _ = np.linalg.svd(inner, full_matrices=False)
        seen = left[:, singular > 1e-6]  # columns of the design have length one
        within = float(rest @ rest - ((seen.T @ rest) ** 2).sum())
        groups, rank = len(self.size), seen.shape[1]
        return max(float(self.residual @ self.residual) - within, 0.0), groups + rank - p, within, n - groups - rank

    @property
    def can_be_judged(self) -> bool:
        """Whether there is luck left in the residuals, between groups and within them."""
        _, between, within, inner = self._squares
        left = len(self.size) - float(((self.sums**2).sum(axis=1) / self.size).sum())
        return between > 0 and inner > 0 and within > 0 and left > _LEAST_LEFT

    @property
    def p_value(self) -> float:
        """Probability that independent rows have groups which differ as much, by an F test."""
        from scipy.special import fdtrc

        between, more, within, inner = self._squares
        return float(fdtrc(more, inner, (between / more) / (within / inner)))

    @property
    def variances(self) -> tuple[float, float]:
        """Variance of the luck of a row of weight one, and of that of a group (moments: Henderson's third method)."""
        between, more, within, inner = self._squares
        own = within / inner
        return own, max(between - more * own, 0.0) / float(self.size.sum() - (self.sums**2).sum())

    @property
    def dof(self) -> int:
        """Degrees of freedom of errors by cluster.

        Luck alone leaves (tr K)**2 / tr K**2, K being what the law leaves of the groups; luck that is small beside
        the rows' own scatter leaves more, up to one less than groups: halfway holds in simulations of either.
        """
        gram = self.sums.T @ self.sums
        trace = self.size.sum() - np.trace(gram)
        square = (self.size**2).sum() - 2 * self.size @ (self.sums**2).sum(axis=1) + (gram**2).sum()
        return max(int(np.floor((len(self.size) - 1 + trace**2 / square) / 2 + 0.51)), 1)

    @property
    def spread(self) -> Array:
        """Covariance (p, p): the upper bound of that of shared luck and of the sandwich of groups."""
        own, shared = self.variances
        modelled = own * np.eye(self.sums.shape[1]) + shared * self.sums.T @ self.sums
        # Few groups make a sandwich noisy, and a model of the luck holds if it is right: noise may also be correlated
        # within a group, or tilt its curve. Neither alone covered all designs; their upper bound does.
        return upper_bound(modelled, self._sandwich)

    def grown(self, power: float) -> Array:
        """Return the residuals of every group times (1 - H)**power, H being what the fit took of the group."""
        leverage, vectors = np.linalg.eigh(self._sum(self.design[:, :, None] * self.design[:, None, :]))
        left = np.maximum(1 - leverage, 0.0)
        # A direction that one group alone decides has no residual to learn from.
        factor = np.where(left > 1e-8, np.maximum(left, 1e-8) ** power, 0.0) - 1
        factor = np.divide(factor, leverage, out=np.zeros_like(left), where=leverage > 1e-12)
        scores = self._sum(self.design * self.residual[:, None])
        change = np.einsum("gpk,gk,gqk,gq->gp", vectors, factor, vectors, scores)
        return self.residual + (self.design * change[self.code]).sum(axis=1)

    @property
    def _sandwich(self) -> Array:
        """CR2: scores of groups, made up for what the fit took (Bell and McCaffrey 2002, Survey Methodology 28)."""
        scores = self._sum(self.design * self.grown(-0.5)[:, None])
        return scores.T @ scores


def upper_bound(one: Array, other: Array) -> Array:
    """Return a covariance that is nowhere below either; `one` must be of full rank."""
    values, vectors = np.linalg.eigh(one)
    values = np.maximum(values, np.finfo(float).eps * values[-1])  # rounding may leave a zero or less
    root, inverse = ((vectors * values**power) @ vectors.T for power in (0.5, -0.5))
    values, vectors = np.linalg.eigh(inverse @ other @ inverse)
    return root @ (vectors * np.maximum(values, 1.0)) @ vectors.T @ root


def luck_by(problem: Problem, phi: Array, free: Array, scale: float) -> Callable[[Array], Luck]:
    """Return what the residuals say, as a function of the group of every row."""
    counted = problem.weights > 0
    design, residual = (rows[counted] for rows in working_rows(problem, phi, free, scale))
    columns, back = np.linalg.qr(design)
    root = np.sqrt(problem.weights[counted])
    return lambda code: Luck(columns, residual, root, np.unique(code[counted], return_inverse=True)[1], back)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the errors of a fit rest on."""

    errors: Errors
    column: str = ""  # the one whose groups are the witnesses; "" for rows
    notes: tuple[Note, ...] = ()


def weigh(problem: Problem, phi: Array, free: Array, errors: Errors, codes: Mapping[str, Array]) -> Evidence:
    """Choose the groups that are witnesses and make errors from them.

    Repeated values of a declared column always are. Sizes are where residuals say so; budgets and seeds, whose luck
    is small in public sweeps, are only told of.
    """
    unclear = errors.dof <= 0 or errors.unidentified.any() or not np.isfinite(errors.covariance).all()
    if unclear or not codes or not free.any() or problem.objective(phi[None])[0] <= problem.rounding():
        return Evidence(errors)
    judge = luck_by(problem, phi, free, errors.scale)
    declared = {name: judge(codes[name]) for name in DECLARED if name in codes}
    if declared:
        return _declared(problem, free, errors, declared)
    suspected = {name: judge(codes[name]) for name in SUSPECTED if name in codes}
    known = {name: one.p_value for name, one in suspected.items() if one.can_be_judged}
    # Optima stray from their laws by size as a rule, and their predictions have a model of that.
    pooled = known.get("params", 1.0) < _POOLED and column_of(problem.law.target) not in ("lr", "batch")
    cautious = [name for name, p in known.items() if p < _FALSE / len(known)]
    notes = [_correlated(name, known[name]) for name in cautious if not (pooled and name == "params")]
    if not pooled:
        return Evidence(errors, "", tuple(notes))
    sizes = suspected["params"]
    text = (
        f"rows of the same params have residuals that go together (F test, p = {known['params']:.2g}): errors and "
        f"intervals are those of {len(sizes.size)} sizes, not of {len(sizes.root)} rows"
    )
    notes = [Note("clusters", text, caution="params" in cautious), *notes]
    return Evidence(_by_group(problem, free, errors, sizes), "params", tuple(notes))


def _correlated(name: str, p: float) -> Note:
    text = f"rows of the same {name} have residuals that go together (F test, p = {p:.2g}): errors count them as "
    return Note("clusters", f"{text}independent; see sf.bootstrap(fit, by={name!r})", caution=True)


def _declared(problem: Problem, free: Array, errors: Errors, found: Mapping[str, Luck]) -> Evidence:
    """Make errors by the coarsest declared column that has groups enough, else by the finest."""
    ordered = sorted(found, key=lambda name: len(found[name].size))
    name = next((name for name in ordered if len(found[name].size) >= _ENOUGH), ordered[-1])
    luck = found[name]
    rows = f"{len(luck.root)} rows are of {len(luck.size)} groups by {name}"
    if not luck.can_be_judged:
        text = f"{rows}, too few to tell their luck from the law: errors count rows and are too small; bring more"
        return Evidence(errors, "", (Note("clusters", text, caution=True),))
    made = _by_group(problem, free, errors, luck)
    text, few = f"{rows}: errors and intervals are those of the groups", made.dof < _FEW
    text += f", and wide since they are few; compare sf.bootstrap(fit, by={name!r})" if few else ""
    return Evidence(made, name, (Note("clusters", text, caution=few),))


def _by_group(problem: Problem, free: Array, errors: Errors, luck: Luck) -> Errors:
    """Return errors in which the groups are the witnesses."""
    spread, block = luck.spread, np.ix_(free, free)
    if problem.loss.robust or problem.censored is not None:
        # Outliers and bounds make rows unlike each other, which the working rows of a least-squares fit do not show.
        spread = upper_bound(spread, luck.back @ errors.covariance[block] @ luck.back.T)
    inverse, covariance = np.linalg.inv(luck.back), np.zeros_like(errors.covariance)
    covariance[block] = inverse @ spread @ inverse.T
    own, shared = luck.variances
    # A new row brings the luck of a new group with it; a robust scatter, and that of bounds, has seen it already.
    plain = not problem.loss.robust and problem.censored is None
    scale = float(np.sqrt(own + float(np.median(luck.root)) ** 2 * shared)) if plain else errors.scale
    return replace(errors, covariance=covariance, dof=luck.dof, scale=scale)
