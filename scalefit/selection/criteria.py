"""How laws are judged: a check that they saw the same rows, information criteria, and errors on cells left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from scalefit.errors import FitError
from scalefit.fitting.censoring import log_likelihood as censored_likelihood
from scalefit.fitting.fit_result import Fit
from scalefit.fitting.search import identified, refits
from scalefit.schema import group_levels, number_groups
from scalefit.solvers.linear import solve_normal
from scalefit.solvers.losses import Huber, Loss, SoftL1
from scalefit.vocabulary import column_of

Array = np.ndarray

_SAME = 1e-9
"""Relative difference below which two numbers of two fits are the same."""

_WIDEST = 60.0
"""Half-width, in logs, of the range searched for the precision about that of the typical residual."""

_CHUNK = 100_000
"""Rows times refits handled at once."""

_NEAR = 1e-3
"""A refit that stopped early counts as converged if another step would lower its objective by less than this share."""

_FAINT = 0.1
"""A positive parameter no longer matters if an e-fold of it moves no fitted value by this share of the scatter."""

_SHARE = 0.1
"""The largest levels are held out until this share of the cells is, and two."""


@dataclass(frozen=True, eq=False)
class Matched:
    """Fits of one target with their rows in one order, every input that any reads, and the cell of each row from 0."""

    fits: tuple[Fit, ...]
    columns: pd.DataFrame
    weights: Array
    cells: Array


def match(fits: Sequence[Fit]) -> Matched:
    """Bring fits into one order of rows, those of weight zero left aside; raise if they do not belong together."""
    given = list(fits) if isinstance(fits, Sequence) else []
    if not given or not all(isinstance(fit, Fit) for fit in given):
        kinds = sorted({type(fit).__name__ for fit in (fits if isinstance(fits, Sequence) else [fits])})
        found = ", ".join(kinds) or "an empty list"
        raise FitError(f"expected a list of fits, such as [sf.fit('lr_power', optima), ...], found {found}")
    for other in given[1:]:
        _check_kind(given[0], other)
    if not all(_close(*pair).all() for other in given[1:] for pair in _shared(given[0], other).values()):
        given = [_take(fit, _order(fit, fit.cells)) for fit in given]
    first = given[0]
    for other in given[1:]:
        _check_rows(first, other)
    cells = number_groups(*(fit.cells for fit in given))[1]
    order = _order(first, cells)  # the result does not depend on the order in which rows were given
    order = order[first.weights[order] > 0]
    numbers = number_groups(cells[order])[1]
    taken = tuple(replace(_take(fit, order), cells=numbers) for fit in given)
    columns = {name: column for fit in taken for name, column in fit.rows.iloc[:, :-1].items()}
    return Matched(taken, pd.DataFrame(columns), taken[0].weights, numbers)


def _check_kind(first: Fit, other: Fit) -> None:
    ours, theirs = f"{first.law.formula!r}", f"{other.law.formula!r}"
    if column_of(first.law.target) != column_of(other.law.target):
        raise FitError(f"only fits of the same target can be compared; {ours} and {theirs} have different ones")
    if first.space != other.space:
        text = f"{ours} was fitted in {first.space} space and {theirs} in {other.space} space"
        raise FitError(f"{text}, so their errors have different units; fit both with the same space=")
    if first.n != other.n:
        text = f"{ours} was fitted to {first.n} rows and {theirs} to {other.n}"
        raise FitError(f"only fits to the same rows can be compared: {text}; fit both to one table")


def _check_rows(first: Fit, other: Fit) -> None:
    """Raise unless rows in the same order are the same."""
    both = f"{first.law.formula!r} and {other.law.formula!r}"
    for name, (ours, theirs) in _shared(first, other).items():
        if (different := ~_close(ours, theirs)).any():
            row, count = int(different.argmax()), f"{int(different.sum())} of {len(ours)} rows"
            text = f"{both} differ in {name} in {count}, for example {ours[row]:.6g} against {theirs[row]:.6g}"
            raise FitError(f"only fits to the same rows can be compared: {text}; fit both to one table")
    if not np.array_equal(first.problem.bounds, other.problem.bounds):
        raise FitError(f"{both} were fitted with different rows as bounds; fit both with the same bounds=")
    if not _close(first.weights / first.weights.mean(), other.weights / other.weights.mean()).all():
        raise FitError(f"{both} were fitted with different weights; fit both with the same weights=")


def _shared(first: Fit, other: Fit) -> dict[str, tuple[Array, Array]]:
    """Return the columns that both fits have, from each."""
    ours, theirs = first.rows, other.rows
    return {str(name): (ours[name].to_numpy(), theirs[name].to_numpy()) for name in ours if name in theirs}


def _close(ours: Array, theirs: Array) -> Array:
    return np.isclose(ours, theirs, rtol=_SAME, atol=0.0)


def _order(fit: Fit, cells: Array) -> Array:
    """Return an order of rows that does not depend on the order they stand in."""
    *inputs, target = fit.rows.to_numpy().T
    return np.lexsort([*inputs, fit.weights, target, cells])


def _take(fit: Fit, order: Array) -> Fit:
    side = None if fit.censored is None else fit.censored[order]
    rows, labels = (table.iloc[order].reset_index(drop=True) for table in (fit.rows, fit.labels))
    arrays = {"weights": fit.weights[order], "cells": fit.cells[order], "censored": side}
    return replace(fit, _rows=rows, labels=labels, **arrays)


def name_of(fit: Fit) -> str:
    """Return the name of a fit's law, or its formula when it has none."""
    return fit.law.name or fit.law.formula


def parameters_of(fit: Fit) -> int:
    """Return how many parameters the data were free to choose, those that ended at a bound included."""
    return sum(state != "fixed" for state in fit.states)


@dataclass(frozen=True)
class Criteria:
    """Information criteria of one fit; NaN where they do not exist."""

    log_likelihood: float
    aicc: float
    bic: float


def criteria(fit: Fit) -> Criteria:
    r"""Return AICc and BIC; NaN when the fit is exact, did not converge, was drawn towards a prior, or has few rows.

    .. math:: \mathrm{AICc} = -2\ln\hat L + 2K + \frac{2K(K+1)}{n-K-1}, \qquad \mathrm{BIC} = -2\ln\hat L + K\ln n

    with K the parameters that are not fixed and the scale of the residuals, n the rows of positive weight
    (Hurvich and Tsai 1989, Biometrika 76, 297; Burnham and Anderson 2002, section 2.4: K counts the variance).
    """
    counted = fit.weights > 0
    rows, cost = int(counted.sum()), parameters_of(fit) + 1
    exact = fit.objective <= fit.problem.rounding() or fit.dof <= 0
    if fit.status.name == "NOT_CONVERGED" or exact or fit.shrinkage > 0:
        return Criteria(np.nan, np.nan, np.nan)
    if fit.is_bound.any():  # bounds enter by the normal probability of lying beyond them
        likelihood = _censored_likelihood(fit)
    else:
        likelihood = log_likelihood(fit.loss, fit.residuals[counted], fit.weights[counted])
    spare = rows - cost - 1
    correction = 2 * cost * (cost + 1) / spare if spare > 0 else np.nan
    return Criteria(likelihood, -2 * likelihood + 2 * cost + correction, -2 * likelihood + cost * np.log(rows))


def log_likelihood(loss: Loss, residuals: Array, weights: Array) -> float:
    r"""Return the highest log likelihood that the minimum of a loss stands for.

    Minimising :math:`\sum w\rho(r)` maximises a likelihood whose density is
    :math:`\exp(-\tau w\rho(r))/Z(\tau w)` for any precision tau; tau is fitted too.

    Examples
    --------
    >>> from scalefit.solvers.losses import Squared
    >>> float(np.round(log_likelihood(Squared(), np.array([1.0, -1.0]), np.ones(2)) + np.log(2 * np.pi) + 1, 9))
    0.0
    """
    # For the squared loss the density is the normal one of variance 1/(tau w); Huber's has normal shoulders and
    # exponential tails, and SoftL1's is the symmetric hyperbolic distribution. All are normalised, so fits with
    # different losses can be compared.
    total, rows = float(weights @ loss.value(residuals)), len(residuals)
    if not loss.robust:
        return 0.5 * float(np.log(weights).sum()) - 0.5 * rows * (np.log(4 * np.pi * total / rows) + 1)
    from scipy.optimize import minimize_scalar

    # The logarithm of Z is convex in tau, so there is one minimum; the normal precision is where to look.
    middle = np.log(rows / (2 * total))

    def cost(log_tau: float) -> float:
        tau = np.exp(log_tau)
        return tau * total + float(_log_partition(loss, tau * weights).sum())

    ends = (middle - _WIDEST, middle + _WIDEST)
    return -float(minimize_scalar(cost, bounds=ends, method="bounded", options={"xatol": 1e-9}).fun)


def _log_partition(loss: Loss, precision: Array) -> Array:
    """Return the log of the integral of exp(-precision rho(r)) over r."""
    from scipy.special import erf, k1e

    if isinstance(loss, Huber):
        shoulders = np.sqrt(2 * np.pi / precision) * erf(loss.delta * np.sqrt(precision / 2))
        tails = 2 / (precision * loss.delta) * np.exp(-precision * loss.delta**2 / 2)
        return np.log(shoulders + tails)
    if isinstance(loss, SoftL1):
        return np.log(2 * loss.scale * k1e(precision * loss.scale**2))
    return np.full_like(precision, np.nan)


def _censored_likelihood(fit: Fit) -> float:
    """Return the log likelihood of points and bounds at the scatter that is best for it."""
    from scipy.optimize import minimize_scalar

    def cost(log_scale: float) -> float:
        return -censored_likelihood(replace(fit.problem, scale=float(np.exp(log_scale))), fit.phi)

    middle = float(np.log(fit.scale))
    return -float(minimize_scalar(cost, bounds=(middle - 3, middle + 3), method="bounded").fun)


@dataclass(frozen=True, eq=False)
class Growth:
    """The rows with the largest values of an input, how far they reach beyond the others, and the cells they are of."""

    column: str
    held: Array
    reach: float
    cells: int


@dataclass(frozen=True, eq=False)
class Errors:
    """Mean squared errors of one law on rows held out."""

    squares: dict[str, Array]
    """For cells left out (those whose refit identifies the law), each growth and all together: the error of each, then
    what it would be without each cell, shape (1 + C,)."""
    lost: int
    """Cells, and growths, that cannot be predicted because the other rows do not identify the law."""
    guessed: int
    """Growths without one cell that could not be refitted; they enter as if that cell made no difference."""


def hold_out(matched: Matched) -> tuple[list[Growth], list[str], list[Errors]]:
    """Return the splits by the largest params and tokens, which of them no law can learn, and the errors of every law.

    Splits are by params and tokens as far as the laws read them, by flops when they read neither.
    """
    axes = [name for name in ("params", "tokens") if name in matched.columns] or ["flops"]
    splits = [split for name in axes if name in matched.columns and (split := _growth(matched, name))]
    errors = [_held_out_errors(fit, matched, splits) for fit in matched.fits]
    learnt = [one for one in splits if not np.isnan([e.squares[f"grow_{one.column}"][0] for e in errors]).all()]
    unlearnt = [split.column for split in splits if split not in learnt]
    if unlearnt:  # a split that no law can learn says nothing about any law
        splits, errors = learnt, [_held_out_errors(fit, matched, learnt) for fit in matched.fits]
    return splits, unlearnt, errors


def _growth(matched: Matched, name: str) -> Growth | None:
    levels = group_levels(matched.columns[name].to_numpy())
    largest = np.full(int(matched.cells.max()) + 1, -np.inf)
    np.maximum.at(largest, matched.cells, levels)
    need = max(2, int(np.ceil(_SHARE * len(largest))))
    held = levels >= np.sort(largest)[-min(need, len(largest))]
    if held.all():
        return None
    values = matched.columns[name].to_numpy()
    return Growth(name, held, float(values.max() / values[~held].max()), len(np.unique(matched.cells[held])))


def _held_out_errors(fit: Fit, matched: Matched, splits: Sequence[Growth]) -> Errors:
    """Refit a law without each cell, and to the smaller cells with and without each cell; score what was left out."""
    cells = int(matched.cells.max()) + 1
    own = matched.cells == np.arange(cells)[:, None]
    rest = np.vstack([np.ones_like(own[:1]), ~own])  # all rows, then those without each cell
    learnt = np.concatenate([~own, *(~split.held & rest for split in splits)])
    scored = np.concatenate([own, *(split.held & rest for split in splits)])
    squares, weight = _mean_squares(fit, learnt, scored), scored @ matched.weights
    leave, grown = squares[:cells], squares[cells:].reshape(len(splits), cells + 1)
    lost = int(np.isnan(leave).sum() + np.isnan(grown[:, 0]).sum())
    failed = np.isnan(grown[:, 1:])
    grown[:, 1:] = np.where(failed, grown[:, :1], grown[:, 1:])
    known = np.where(np.isnan(leave), 0.0, weight[:cells])
    parts = np.nan_to_num(leave) * known
    left, left_weight = (np.append(values.sum(), values.sum() - values) for values in (parts, known))
    grown_weight = weight[cells:].reshape(grown.shape)
    found = {f"grow_{split.column}": row for split, row in zip(splits, grown, strict=True)}
    with np.errstate(invalid="ignore", divide="ignore"):
        total = (left + (grown * grown_weight).sum(axis=0)) / (left_weight + grown_weight.sum(axis=0))
        return Errors({"leave_out": left / left_weight, **found, "error": total}, lost, int(failed.sum()))


def _mean_squares(fit: Fit, learnt: Array, scored: Array) -> Array:
    """Return the weighted mean squared error of each split; NaN where the rows learnt from do not identify the law."""
    if not np.isfinite(fit.phi).all() or fit.status.name == "NOT_CONVERGED":
        return np.full(len(learnt), np.nan)
    free = np.array([state in ("free", "unidentified") for state in fit.states])
    solve = refits(fit) if free.any() else None
    values, observed = fit.problem.values(fit.space), fit.problem.observed
    block = max(1, _CHUNK // fit.n)
    parts = []
    with np.errstate(all="ignore"):
        for start in range(0, len(learnt), block):
            kept, asked = learnt[start : start + block] * fit.weights, scored[start : start + block] * fit.weights
            held = np.tile(fit.phi, (len(kept), 1)), np.ones(len(kept), dtype=bool)
            phi, usable = solve(kept, observed) if solve else held
            value, jacobian = values(phi)
            away = value - observed
            if not usable.all():
                soft, slopes = fit.problem.soften(away, jacobian)
                usable = usable | _arrived(fit, free, soft, slopes[:, free], kept)
            if fit.censored is not None:  # at a bound only the least error is known: 0 on the side of the truth
                away = np.where(fit.censored * away > 0, 0.0, away)
            mean = (asked * away**2).sum(axis=1) / asked.sum(axis=1)
            enough = (kept > 0).sum(axis=1) >= free.sum()
            parts.append(np.where(usable & enough, mean, np.nan))
    return np.concatenate(parts)


def _arrived(fit: Fit, free: Array, residual: Array, columns: Array, weights: Array) -> Array:
    """Return which refits predict as the minimum does although the solver had not converged.

    On fewer rows the term of a law may run to zero, over endless steps that change no prediction. Such a refit counts
    if the parameters that still matter are identified.
    """
    scatter = np.sqrt((weights * residual**2).sum(axis=1) / weights.sum(axis=1))
    alive = (np.abs(columns).max(axis=2) > _FAINT * scatter[:, None]) | ~fit.law.derivation.logged[free]
    columns = columns * alive[:, :, None]
    weighted = weights * fit.loss.weight(residual)
    hessian = (columns * weighted[:, None, :]) @ columns.transpose(0, 2, 1)
    hessian = hessian + np.eye(columns.shape[1]) * ~alive[:, None, :]
    gradient = (columns @ (weighted * residual)[:, :, None])[:, :, 0]
    gain = 0.5 * (gradient * solve_normal(hessian, gradient)).sum(axis=1)
    objective = (weights * fit.loss.value(residual)).sum(axis=1)
    finite = np.isfinite(hessian).all(axis=(1, 2)) & np.isfinite(gain)
    sound = np.where(finite[:, None, None], hessian, np.eye(columns.shape[1]))
    return finite & identified(sound) & (gain <= _NEAR * objective)
