"""Each cell's own optimum, how sure it is, and the laws through all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from scalefit.extractors.local_fit import pool_noise
from scalefit.fitting import Fit, fit
from scalefit.fitting.refits import refits
from scalefit.laws.formula import Law
from scalefit.surface.joint import Problem, State, equations, evaluate
from scalefit.vocabulary import column_of

Array = np.ndarray

_OUTLIER = 10.0
_LEAST_DOF = 0.02
"""Degrees of freedom below which a cell says nothing of its noise."""

_NEWTON = 100
"""Steps to a between-cell variance; a handful is usual."""


@dataclass(frozen=True, eq=False)
class CellCentres:
    """The centre of every cell's basin.

    Parameters
    ----------
    value, variance : ndarray (axes, cells)
        Log of the optimum and its variance from the noise of the cell's own runs, the shape taken for known.
    response : ndarray (axes, cells, q)
        How far a centre moves when a shape parameter rises.
    shape_covariance : ndarray (q, q)
    noise : float
        Standard deviation of a run's loss, in units of the loss.
    """

    value: Array
    variance: Array
    response: Array
    shape_covariance: Array
    noise: float


@dataclass(frozen=True, eq=False)
class Pooled:
    """A finished fit of all runs, with what a refit starts from."""

    problem: Problem
    own: Array
    shape: Array
    centres: CellCentres
    fits: tuple[Fit, ...]
    between: tuple[float, ...]
    settled: bool

    @property
    def state(self) -> State:
        """Where the parameters leave the runs: worked out anew, since it is most of what a surface would hold."""
        return evaluate(self.problem, self.own, self.shape)


def centres_of_cells(problem: Problem, state: State) -> CellCentres:
    """Read the centres off one fit, with sandwich variances: runs of a cell scatter alike and count unequally."""
    system = equations(problem, state)
    residual, own, shared = state.residual[0], state.slopes[0][0], state.slopes[1][0]
    weight = problem.runs.weight
    response, inverse = np.linalg.solve(system.own, system.cross)[0], np.linalg.inv(system.own[0])
    filling = (own * weight[:, None] ** 2) @ own.swapaxes(1, 2)
    dof = _freedom(problem, weight.sum(axis=1) - np.einsum("cab,cba->c", inverse, filling))
    noise = _noise(problem, residual, dof)[:, None, None]
    prior = np.diag(problem.own_prior)
    own_covariance = inverse @ (noise * filling + problem.scatter**2 * prior) @ inverse
    left = shared - response.swapaxes(1, 2) @ own
    filling = (noise * ((left * weight[:, None] ** 2) @ left.swapaxes(1, 2))).sum(axis=0)
    filling = filling + problem.scatter**2 * np.diag(problem.shape_prior[1])
    inverse = np.linalg.inv(system.remainder(response[None], system.shared)[0])
    return CellCentres(
        value=state.centre[0].T,
        variance=np.maximum(np.einsum("cmm->mc", own_covariance)[1:], 1e-8),
        response=-np.moveaxis(response[:, 1:], 0, 1),
        shape_covariance=inverse @ filling @ inverse,
        noise=_plain_noise(problem, residual, dof),
    )


def _freedom(problem: Problem, dof: Array) -> Array:
    """Return the degrees of freedom of the cells once the shape has taken its share."""
    dof = np.where(dof > _LEAST_DOF, dof, 0.0)
    return dof * max(1 - problem.basin.size / max(dof.sum(), 1e-9), 0.3)


def _plain_noise(problem: Problem, residual: Array, dof: Array) -> float:
    """Return the standard deviation of runs in units of the loss, outliers drawn in: what a new run may do."""
    drawn = np.clip(residual, -_OUTLIER * problem.scatter, _OUTLIER * problem.scatter) * problem.runs.lowest[:, None]
    known = dof > 0
    total = (problem.runs.weight * drawn**2)[known].sum()
    return float(np.sqrt(total / dof.sum())) if known.any() else float("nan")


def _noise(problem: Problem, residual: Array, dof: Array) -> Array:
    """Return the variance of a run in every cell, shrunk towards all cells'."""
    squares = problem.runs.weight * problem.loss.weight(residual) * residual**2
    variance, _ = pool_noise(np.where(dof > 0, squares.sum(axis=1), 0.0), dof, np.ones(len(dof)))
    return np.where(np.isfinite(variance), variance, problem.scatter**2)


def refit_law(start: Fit, centre: Array, variance: Array, count: Array) -> tuple[Array, Array, Array]:
    """Fit a law to K sets of centres with random-effects weights, beginning at a fit of it.

    Parameters
    ----------
    start : Fit
        The law fitted to the same cells.
    centre : ndarray (K, cells)
        Logs of the optima.
    variance : ndarray (cells,)
    count : ndarray (K, cells)
        How often each cell counts.

    Returns
    -------
    phi : ndarray (K, p)
        Fit coordinates.
    scatter : ndarray (K,)
        Standard deviation of optima between cells.
    usable : ndarray of bool (K,)
    """
    tau2 = between_cells(start, centre, variance, count)
    with np.errstate(all="ignore"):
        phi, usable = refits(start)(count / (variance + tau2[:, None]), centre)
    return phi, np.sqrt(tau2), usable


def fit_law(law: Law, keys: pd.DataFrame, centres: CellCentres, axis: int, scatter: float) -> Fit:
    """Fit a law to the centres, which scatter about it by their own errors and by `scatter`.

    The covariance of the law holds the errors of the cells, and that of the shape, which moves all centres together.
    """
    rows = keys.assign(**{column_of(law.target): np.exp(centres.value[axis])})
    weights = 1 / (centres.variance[axis] + scatter**2)
    fitted = fit(law, rows, weights=weights / weights.mean())
    if not np.isfinite(fitted.covariance).all():
        return fitted
    root = np.sqrt(weights)
    moved = (np.linalg.pinv(_design(fitted) * root[:, None]) * root) @ centres.response[axis]
    return replace(fitted, covariance=fitted.covariance + moved @ centres.shape_covariance @ moved.T)


def _design(fitted: Fit) -> Array:
    """Return the slopes of the law's log in its fit coordinates (rows, p)."""
    return fitted.problem.values("log")(fitted.phi[None])[1][0].T


def between_cells(start: Fit, observed: Array, variance: Array, count: Array) -> Array:
    """Return the variances of optima between cells beyond their own, by Paule and Mandel's equation.

    tau**2 is where the weighted squared residuals of the law equal their degrees of freedom; zero if they never exceed
    them. The law is taken as linear about `start`.

    Parameters
    ----------
    start : Fit
        The law fitted to the cells.
    observed : ndarray (K, cells)
        Logs of the optima.
    variance : ndarray (cells,)
    count : ndarray (K, cells)
        How often each cell counts.

    Returns
    -------
    ndarray (K,)

    References
    ----------
    Paule and Mandel 1982, J. Res. NBS 87, 377.
    """
    value, _ = start.problem.values("log")(start.phi[None])
    design, rest = _design(start), observed - value[0]
    dof = count.sum(axis=1) - design.shape[1]

    def excess(tau2: Array) -> tuple[Array, Array]:
        """Return how far the squared residuals exceed their degrees of freedom, and the slope of that in tau2."""
        precision = 1 / (variance + tau2[:, None])
        weight = count * precision
        hessian = np.einsum("np,kn,nq->kpq", design, weight, design)
        moved = np.einsum("kpq,kq->kp", np.linalg.pinv(hessian, hermitian=True), (weight * rest) @ design)
        squares = weight * (rest - moved @ design.T) ** 2
        return squares.sum(axis=1) - dof, -(precision * squares).sum(axis=1)

    tau2 = np.zeros(len(rest))
    for _ in range(_NEWTON):  # the excess falls and is convex: from zero, Newton's steps never pass the root
        over, slope = excess(tau2)
        step = np.where((dof > 0) & (over > 0), -over / slope, 0.0)
        tau2 = tau2 + step
        if (step <= 1e-10 * tau2).all():
            break
    return tau2
