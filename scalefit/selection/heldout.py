"""Errors of laws on cells they were not fitted to: every cell left out once, and the largest predicted from smaller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scalefit.fitting import Fit
from scalefit.fitting.refits import identified, refits
from scalefit.levels import group_levels
from scalefit.selection.matching import Matched
from scalefit.solvers.linear import solve_normal

Array = np.ndarray

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
