"""How laws are judged: proof that they saw the same rows, information criteria, and errors on cells left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from scalefit._levels import group_levels, number_groups
from scalefit.errors import FitError
from scalefit.fitting.censoring import log_likelihood as censored_likelihood
from scalefit.fitting.fit_result import Fit
from scalefit.fitting.shrinkage import identified, refits
from scalefit.solvers.linear import solve_normal
from scalefit.solvers.losses import Huber, Loss, SoftL1
from scalefit.vocabulary import column_of

Array = np.ndarray

_SAME = 1e-9
"""Relative difference below which two numbers of two fits are the same."""


@dataclass(frozen=True, eq=False)
class Matched:
    """Fits of one target to the same rows.

    Parameters
    ----------
    fits : tuple of Fit
        With their rows in one order, which does not depend on the order they were given in.
    columns : pandas.DataFrame
        Every input that any of the laws reads.
    weights : ndarray (n,)
    cells : ndarray of int (n,)
        0 .. C-1; among rows of positive weight every cell occurs.
    """

    fits: tuple[Fit, ...]
    columns: pd.DataFrame
    weights: Array
    cells: Array


def match(fits: Sequence[Fit]) -> Matched:
    """Bring fits into one order of rows, those of weight zero left aside.

    Raises
    ------
    FitError
        If they are not fits of the same target, in the same space, to the same rows with the same weights.
    """
    given = list(fits) if isinstance(fits, Sequence) else []
    if not given or not all(isinstance(fit, Fit) for fit in given):
        raise FitError(f"expected a list of fits, such as [sf.fit('lr_power', optima), ...], found {_told(fits)}")
    first = given[0]
    for other in given[1:]:
        _check_kind(first, other)
    ordered = given if all(_aligned(first, other) for other in given[1:]) else [_in_order(fit) for fit in given]
    first = ordered[0]
    for other in ordered[1:]:
        _check_rows(first, other)
    columns = {name: column for fit in ordered for name, column in fit.rows.iloc[:, :-1].items()}
    cells = number_groups(*(fit.cells for fit in ordered))[1]
    order = _order(first, cells)
    order = order[first.weights[order] > 0]
    numbers = number_groups(cells[order])[1]
    taken = tuple(_take(fit, order, numbers) for fit in ordered)
    table = pd.DataFrame({name: column.to_numpy()[order] for name, column in columns.items()}, index=range(len(order)))
    return Matched(taken, table, taken[0].weights, numbers)


def _told(fits: object) -> str:
    kinds = {type(fit).__name__ for fit in fits} if isinstance(fits, Sequence) else {type(fits).__name__}
    return "an empty list" if not kinds else ", ".join(sorted(kinds))


def _check_kind(first: Fit, other: Fit) -> None:
    ours, theirs = f"{first.law.formula!r}", f"{other.law.formula!r}"
    if column_of(first.law.target) != column_of(other.law.target):
        raise FitError(f"only fits of the same target can be compared; {ours} and {theirs} have different ones")
    if first.space != other.space:
        raise FitError(
            f"{ours} was fitted in {first.space} space and {theirs} in {other.space} space, so their errors have "
            "different units; fit both with the same space="
        )
    if first.n != other.n:
        raise FitError(
            f"only fits to the same rows can be compared: {ours} was fitted to {first.n} rows and {theirs} to "
            f"{other.n}; fit both to one table"
        )


def _check_rows(first: Fit, other: Fit) -> None:
    """Raise unless rows in the same order are the same."""
    both = f"{first.law.formula!r} and {other.law.formula!r}"
    for name in [name for name in first.rows if name in other.rows]:
        ours, theirs = first.rows[name].to_numpy(), other.rows[name].to_numpy()
        if (different := ~_close(ours, theirs)).any():
            row = int(different.argmax())
            raise FitError(
                f"only fits to the same rows can be compared: {both} differ in {name} in {int(different.sum())} of "
                f"{len(ours)} rows, for example {ours[row]:.6g} against {theirs[row]:.6g}; fit both to one table"
            )
    if not np.array_equal(first.problem.bounds, other.problem.bounds):
        raise FitError(f"{both} were fitted with different rows as bounds; fit both with the same bounds=")
    if not _close(_relative(first.weights), _relative(other.weights)).all():
        raise FitError(f"{both} were fitted with different weights; fit both with the same weights=")


def _aligned(first: Fit, other: Fit) -> bool:
    """Tell whether the rows agree as they stand."""
    shared = [name for name in first.rows if name in other.rows]
    return all(_close(first.rows[name].to_numpy(), other.rows[name].to_numpy()).all() for name in shared)


def _close(ours: Array, theirs: Array) -> Array:
    return np.isclose(ours, theirs, rtol=_SAME, atol=0.0)


def _relative(weights: Array) -> Array:
    return weights / weights.mean()


def _order(fit: Fit, cells: Array) -> Array:
    """Return an order of rows that does not depend on the order they stand in."""
    inputs = [fit.rows[name].to_numpy() for name in fit.rows]
    return np.lexsort([*inputs[:-1], fit.weights, inputs[-1], cells])


def _in_order(fit: Fit) -> Fit:
    return _take(fit, _order(fit, fit.cells), fit.cells[_order(fit, fit.cells)])


def _take(fit: Fit, order: Array, cells: Array) -> Fit:
    side = None if fit.censored is None else fit.censored[order]
    rows = fit.rows.iloc[order].reset_index(drop=True)
    return replace(fit, _rows=rows, weights=fit.weights[order], cells=cells, censored=side)


_WIDEST = 60.0
"""Half-width, in logs, of the range searched for the precision about that of the typical residual."""


@dataclass(frozen=True)
class Criteria:
    """Information criteria of one fit; NaN where they do not exist.

    Parameters
    ----------
    log_likelihood : float
        Of the observed target in the space of the fit.
    aicc, bic : float
    """

    log_likelihood: float
    aicc: float
    bic: float


def criteria(fit: Fit) -> Criteria:
    r"""Return AICc and BIC of a fit.

    .. math:: \mathrm{AICc} = -2\ln\hat L + 2K + \frac{2K(K+1)}{n-K-1}, \qquad \mathrm{BIC} = -2\ln\hat L + K\ln n

    with K the parameters that are not fixed and the scale of the residuals, n the rows of positive weight.

    Parameters
    ----------
    fit : Fit

    Notes
    -----
    NaN when the fit is exact, did not converge, was drawn towards a prior, or (AICc) has no more than K + 1 rows. Rows
    that are bounds enter by the normal probability of lying beyond them.

    References
    ----------
    Hurvich and Tsai 1989, Biometrika 76, 297; Burnham and Anderson, Model Selection and Multimodel Inference (2002),
    section 2.4: K counts the variance.
    """
    counted = fit.weights > 0
    rows, cost = int(counted.sum()), parameters_of(fit) + 1
    exact = fit.objective <= fit.problem.rounding() or fit.dof <= 0
    if fit.status.name == "NOT_CONVERGED" or exact or fit.shrinkage > 0:
        return Criteria(np.nan, np.nan, np.nan)
    if fit.is_bound.any():
        likelihood = _censored_likelihood(fit)
    else:
        likelihood = log_likelihood(fit.loss, fit.residuals[counted], fit.weights[counted])
    spare = rows - cost - 1
    correction = 2 * cost * (cost + 1) / spare if spare > 0 else np.nan
    return Criteria(likelihood, -2 * likelihood + 2 * cost + correction, -2 * likelihood + cost * np.log(rows))


def parameters_of(fit: Fit) -> int:
    """Return how many parameters the data were free to choose, those that ended at a bound included."""
    return sum(state != "fixed" for state in fit.states)


def log_likelihood(loss: Loss, residuals: Array, weights: Array) -> float:
    r"""Return the highest log likelihood that the minimum of a loss stands for.

    Minimising :math:`\sum w\rho(r)` maximises a likelihood whose density is
    :math:`\exp(-\tau w\rho(r))/Z(\tau w)` for any precision tau; tau is fitted too. For the squared loss that is the
    normal density of variance 1/(tau w); Huber's has normal shoulders and exponential tails, and SoftL1's is the
    symmetric hyperbolic distribution. All are normalised, so fits with different losses can be compared.

    Parameters
    ----------
    loss : Loss
    residuals, weights : ndarray (n,)
        Weights positive, proportional to inverse variances.

    Examples
    --------
    >>> from scalefit.solvers.losses import Squared
    >>> float(np.round(log_likelihood(Squared(), np.array([1.0, -1.0]), np.ones(2)) + np.log(2 * np.pi) + 1, 9))
    0.0
    """
    total, rows = float(weights @ loss.value(residuals)), len(residuals)
    if not loss.robust:
        return 0.5 * float(np.log(weights).sum()) - 0.5 * rows * (np.log(4 * np.pi * total / rows) + 1)
    from scipy.optimize import minimize_scalar

    # The logarithm of Z is convex in tau, so there is one minimum; the normal precision is where to look.
    middle = np.log(rows / (2 * total))

    def cost(log_tau: float) -> float:
        tau = np.exp(log_tau)
        return tau * total + float(_log_partition(loss, tau * weights).sum())

    found = minimize_scalar(
        cost, bounds=(middle - _WIDEST, middle + _WIDEST), method="bounded", options={"xatol": 1e-9}
    )
    return -float(found.fun)


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


def akaike_weights(aicc: Array) -> Array:
    """Return exp(-Delta/2) normalised over the fits that have an AICc; NaN for the others."""
    known = np.isfinite(aicc)
    if not known.any():
        return np.full(len(aicc), np.nan)
    share = np.exp(-0.5 * (aicc - aicc[known].min()))
    return share / share[known].sum()


_CHUNK = 100_000
"""Rows times refits handled at once."""

_NEAR = 1e-3
"""A refit that stopped has arrived when another step would lower its objective by less than this share."""

_FAINT = 0.1
"""A positive parameter that moves no fitted value by this share of the residual scatter per e-fold is out of play."""

_SHARE = 0.1
"""The largest levels are held out until this share of the cells is, and two."""


@dataclass(frozen=True, eq=False)
class Growth:
    """A split of the rows: the largest values of one input against the smaller.

    Parameters
    ----------
    column : str
    held : ndarray of bool (n,)
    reach : float
        Largest value over the largest of those learnt from.
    cells : int
        Cells held out.
    """

    column: str
    held: Array
    reach: float
    cells: int


@dataclass(frozen=True, eq=False)
class Errors:
    """Mean squared errors of one law, and what they would be without each cell.

    Parameters
    ----------
    leave, total : float
        Leave-cells-out, over the cells whose refit identifies the law; and of all held-out rows together.
    grow : ndarray (directions,)
    leave_without, total_without : ndarray (C,)
    grow_without : ndarray (C, directions)
    lost : int
        Cells, and growths, that cannot be predicted because the other rows do not identify the law.
    guessed : int
        Growths without one cell that could not be refitted; they enter as if that cell made no difference.
    """

    leave: float
    grow: Array
    total: float
    leave_without: Array
    grow_without: Array
    total_without: Array
    lost: int
    guessed: int


def growths(matched: Matched) -> tuple[Growth, ...]:
    """Return the splits by params and by tokens, as far as the laws read them; by flops when they read neither."""
    axes = [name for name in ("params", "tokens") if name in matched.columns] or ["flops"]
    found = (_growth(matched, name) for name in axes if name in matched.columns)
    return tuple(growth for growth in found if growth is not None)


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


def held_out_errors(fit: Fit, matched: Matched, splits: Sequence[Growth]) -> Errors:
    """Refit a law without each cell, and to the smaller cells with and without each cell; score what was left out.

    Parameters
    ----------
    fit : Fit
        One of the matched fits.
    matched : Matched
    splits : sequence of Growth
    """
    cells = int(matched.cells.max()) + 1
    own = matched.cells == np.arange(cells)[:, None]
    learnt, scored = [~own], [own]
    for split in splits:
        learnt += [~split.held[None], ~split.held & ~own]
        scored += [split.held[None], split.held & ~own]
    asked = np.concatenate(scored)
    squares, heft = _mean_squares(fit, np.concatenate(learnt), asked), asked @ matched.weights
    leave, grown = squares[:cells], squares[cells:].reshape(len(splits), cells + 1)
    failed = np.isnan(grown[:, 1:])
    grown[:, 1:] = np.where(failed, grown[:, :1], grown[:, 1:])
    left, left_heft = _without_each(leave, heft[:cells])
    grown_heft = heft[cells:].reshape(grown.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = (left + (grown * grown_heft).sum(axis=0)) / (left_heft + grown_heft.sum(axis=0))
        mean = left / left_heft
    lost = int(np.isnan(leave).sum() + np.isnan(grown[:, 0]).sum())
    without = grown[:, 1:].T
    return Errors(mean[0], grown[:, 0], total[0], mean[1:], without, total[1:], lost, int(failed.sum()))


def _without_each(squares: Array, weight: Array) -> tuple[Array, Array]:
    """Return the weighted sum of mean squares and the sum of weights: with all cells, then without each."""
    known = np.where(np.isnan(squares), 0.0, weight)
    parts = np.nan_to_num(squares) * known
    return np.append(parts.sum(), parts.sum() - parts), np.append(known.sum(), known.sum() - known)


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
            phi, usable = np.tile(fit.phi, (len(kept), 1)), np.ones(len(kept), dtype=bool)
            if solve is not None:
                phi, usable = solve(kept, observed)
            value, jacobian = values(phi)
            away = value - observed
            if not usable.all():
                soft, slopes = fit.problem.soften(away, jacobian)
                usable = usable | _arrived(fit, free, soft, slopes[:, free], kept)
            mean = (asked * _missed(fit, away) ** 2).sum(axis=1) / asked.sum(axis=1)
            enough = (kept > 0).sum(axis=1) >= free.sum()
            parts.append(np.where(usable & enough, mean, np.nan))
    return np.concatenate(parts)


def _missed(fit: Fit, away: Array) -> Array:
    """Return errors of predictions; that of a bound is the least it can be, nothing on the side of the truth."""
    if fit.censored is None:
        return away
    return np.where(fit.censored * away > 0, 0.0, away)


def _arrived(fit: Fit, free: Array, residual: Array, columns: Array, weights: Array) -> Array:
    """Tell which refits predict as the minimum does although the solver was still moving.

    On fewer rows the term of a law may run to zero, which takes endless steps that change nothing. The parameters
    that still matter must be identified.
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


def jackknife(without: Array) -> Array:
    """Return the standard error of a statistic from its values without each cell (last axis).

    References
    ----------
    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 11.
    """
    count = without.shape[-1]
    if count < 2:
        return np.full(without.shape[:-1], np.nan)
    spread = without - without.mean(axis=-1, keepdims=True)
    return np.sqrt((count - 1) / count * (spread**2).sum(axis=-1))
