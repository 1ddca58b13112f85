"""Each cell's own optimum from a basin shape shared by all cells, and the scatter of optima between cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from scalefit.fitting import fit
from scalefit.laws.formula import Law
from scalefit.solvers.losses import SoftL1
from scalefit.surface.basin import BasinShape
from scalefit.surface.runs import Runs

Array = np.ndarray

_LOOSE = 1.5
"""Prior standard deviation, in logs, of a cell's centre about the laws: holds the cells that say nothing."""

_ITERATIONS = 12


@dataclass(frozen=True, eq=False)
class CellCentres:
    """The centre of every cell's basin.

    Parameters
    ----------
    keys : pandas.DataFrame
    value, variance : ndarray (axes, cells)
        Log of the optimum and its variance from the noise of the runs.
    floor : ndarray (cells,)
        Log of the lowest loss.
    settled : ndarray of bool (cells,)
        Whether the last step was a small part of the standard error.
    """

    keys: pd.DataFrame
    value: Array
    variance: Array
    floor: Array
    settled: Array


def centres_of_cells(runs: Runs, shape: BasinShape, psi: Array, around: Array, scatter: float) -> CellCentres:
    """Find each cell's centre and floor with the shape held, by reweighted Gauss-Newton on all cells at once.

    Parameters
    ----------
    runs : Runs
    shape : BasinShape
    psi : ndarray (q,)
    around : ndarray (axes, cells)
        Where to begin, and where a cell that says nothing stays.
    scatter : float
        Run-to-run scatter of log loss.
    """
    loss = SoftL1(2.5 * scatter)
    centre = around.copy()
    axes, cells = centre.shape
    prior = np.diag([0.0, *[(scatter / _LOOSE) ** 2] * axes])
    floor = np.zeros(cells)
    for _ in range(_ITERATIONS):
        offsets = (runs.settings - centre[:, runs.cell])[:, None, :]
        height, gradient, _ = shape(psi[None], offsets)
        residual = runs.log_loss - height[0]
        floor = _weighted_mean(residual, runs.weight, runs.cell, cells) if not floor.any() else floor
        residual = residual - floor[runs.cell]
        design = np.concatenate([np.ones((1, len(residual))), -gradient[:, 0]])
        weight = runs.weight * loss.weight(residual)
        hessian = _sums(design, design, weight, runs.cell, cells) + prior
        drift = np.concatenate([np.zeros((cells, 1)), (centre - around).T], axis=1) @ prior
        score = _sums(design, residual[None], weight, runs.cell, cells)[:, :, 0] - drift
        step = np.linalg.solve(hessian, score[..., None])[..., 0]
        floor = floor + step[:, 0]
        centre = centre + np.clip(step[:, 1:].T, -0.5, 0.5)
    inverse = np.linalg.inv(hessian)
    filling = _sums(design, design, weight**2, runs.cell, cells) * scatter**2
    covariance = inverse @ (filling + prior * scatter**2) @ inverse
    variance = np.einsum("cii->ic", covariance)[1:]
    variance = np.maximum(variance, 1e-8)
    settled = (np.abs(step[:, 1:].T) <= 0.1 * np.sqrt(variance)).all(axis=0)
    return CellCentres(runs.keys, centre, variance, floor, settled)


def _weighted_mean(values: Array, weight: Array, cell: Array, cells: int) -> Array:
    return np.bincount(cell, weight * values, cells) / np.bincount(cell, weight, cells)


def _sums(left: Array, right: Array, weight: Array, cell: Array, cells: int) -> Array:
    """Return for every cell the weighted products left right', shape (cells, a, b)."""
    return np.array([[np.bincount(cell, weight * a * b, cells) for b in right] for a in left]).transpose(2, 0, 1)


def between_cells(law: Law, rows: pd.DataFrame, variance: Array) -> float:
    """Return the variance of optima between cells beyond their own, by Paule and Mandel's equation.

    tau**2 is where the weighted squared residuals of the law equal their degrees of freedom; zero if they never exceed
    them.

    References
    ----------
    Paule and Mandel 1982, J. Res. NBS 87, 377.
    """
    start = fit(law, rows)
    problem = start.problem
    residual, jacobian = problem.model()(start.phi[None])
    design, observed = jacobian[0].T, -residual[0]
    dof = len(rows) - design.shape[1]

    def excess(tau2: float) -> float:
        root = 1 / np.sqrt(variance + tau2)
        fitted = np.linalg.lstsq(design * root[:, None], observed * root, rcond=None)[0]
        return float((((observed - design @ fitted) * root) ** 2).sum()) - dof

    if dof <= 0 or excess(0.0) <= 0:
        return 0.0
    from scipy.optimize import brentq

    high = float(np.var(observed)) + 1e-6
    while excess(high) > 0:
        high *= 4
    return float(brentq(excess, 0.0, high, xtol=1e-10))
