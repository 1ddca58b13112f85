"""Standard errors that hold for the loss that was minimised, and which parameters the data identify."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scalefit.fitting.problem import Problem

Array = np.ndarray

RANK_TOLERANCE = 1e-8
"""Singular values of the scaled Jacobian below this fraction of the largest count as zero: about the root of the
rounding error, below it the normal matrix, which squares them, is singular to the last digit."""

WIDEST_LOG_ERROR = np.log(1e3)
"""A parameter whose standard error alone would change the law by this factor between two of the rows it was fitted to
is not identified (log space); nor is a positive parameter known to no better than this factor, unless the law is linear
in it: the prefactor of a power law lies far outside the data and is loose without harm."""


_OWN_DOF = 4.0
"""Degrees of freedom for which the rows' own errors count where they scatter by less."""


@dataclass(frozen=True, eq=False)
class Errors:
    """Second-order facts about a solution."""

    covariance: Array  # (p, p); zero for held parameters, infinite variance in directions the rows do not see
    scale: float  # residual scatter of a row of weight one; NaN without degrees of freedom
    dof: int  # rows that count minus free parameters
    condition: float  # condition number of the Jacobian with columns scaled to length one
    unidentified: Array  # (p,)


def estimate(problem: Problem, phi: Array, free: Array) -> Errors:
    r"""Estimate the covariance of an M-estimate.

    For the squared loss the covariance is :math:`s^2 (J^T W J)^{-1}` with :math:`s^2 = \sum w r^2/(n-p)`. A robust
    loss is chosen when errors are not of one normal kind, so its covariance is the sandwich
    :math:`H^{-1} M H^{-1}` with :math:`M = \frac{n}{n-p}\sum w^2\psi^2 J J^T` and
    :math:`H = \sum w\,\bar\psi' J J^T`.

    Notes
    -----
    :math:`\bar\psi'` is the mean of psi' over a window of +-h around each residual, h = 2 n^(-1/5) robust standard
    deviations: counting residuals inside Huber's delta rests on a handful of rows when delta is small. The coverage
    of its intervals: docs/statistics.md.

    References
    ----------
    Huber and Ronchetti, Robust Statistics, 2nd ed. (2009), section 6.3; Powell (1991) for the window.
    """
    residual, jacobian = problem.model()(phi[None])
    r, weights, design = residual[0], problem.weights, jacobian[0, free].T
    counted = int((weights > 0).sum())
    dof = counted - int(free.sum())
    scale = _scatter(problem, r, weights, counted, dof)
    inverse, condition, loose = invert(design * np.sqrt(weights)[:, None])
    if dof <= 0:
        spread = np.full_like(inverse, np.nan)
    elif problem.loss.robust:
        spread = _sandwich(problem, r, weights, design, scale) * counted / dof
    else:
        spread = scale**2 * inverse
    return judge(problem, jacobian[0], free, Errors(spread, scale, dof, condition, loose))


def judge(problem: Problem, jacobian: Array, free: Array, found: Errors) -> Errors:
    """Spread what was found for the free parameters over all, and say which of them the rows do not identify."""
    covariance = np.zeros((len(free), len(free)))
    covariance[np.ix_(free, free)] = found.covariance
    unidentified = np.zeros(len(free), dtype=bool)
    unidentified[free] = found.unidentified
    error = np.sqrt(np.diag(covariance))
    # The pseudo-inverse leaves a finite variance in a null direction, which would read as knowledge.
    covariance[unidentified, unidentified] = np.inf
    linear = np.isin(problem.parameters, problem.derivation.linear(problem.space))
    unidentified |= free & problem.derivation.logged & ~linear & (error > WIDEST_LOG_ERROR)
    if problem.space == "log":
        unidentified |= error * np.ptp(jacobian[:, problem.weights > 0], axis=1) > WIDEST_LOG_ERROR
    return replace(found, covariance=covariance, unidentified=unidentified)


def _sandwich(problem: Problem, r: Array, weights: Array, design: Array, scale: float) -> Array:
    psi, slope = _influence(problem, r, weights, scale)
    bread, _, _ = invert(design * np.sqrt(weights * slope)[:, None])
    filling = design * (weights * psi)[:, None]
    return bread @ (filling.T @ filling) @ bread


def _influence(problem: Problem, r: Array, weights: Array, scale: float) -> tuple[Array, Array]:
    """Return psi of the residuals and its smoothed slope."""

    def psi(shifted: Array) -> Array:
        return problem.loss.weight(shifted) * shifted

    # Never zero: where more than half of the residuals vanish the scatter does, and the slope would be 0/0.
    # The scatter of a row is that of one of weight one, over the root of its weight.
    own = scale / np.sqrt(np.where(weights > 0, weights, 1.0))
    least = max(1e-9 * float(np.abs(r).max()), np.finfo(float).tiny)
    window = np.maximum(2 * int((weights > 0).sum()) ** -0.2 * own, least)
    slope = np.maximum(psi(r + window) - psi(r - window), 0.0) / (2 * window)  # rounding can fall below zero
    return psi(r), slope


def working_rows(problem: Problem, phi: Array, free: Array, scale: float) -> tuple[Array, Array]:
    """Return design (n, p) and residuals (n,), times the roots of the weights, whose least squares stand for the fit.

    For a robust loss residuals are psi over its mean slope (Huber and Ronchetti 2009, section 7.4).
    """
    residual, jacobian = problem.model()(phi[None])
    r, weights, root = residual[0], problem.weights, np.sqrt(problem.weights)
    if problem.loss.robust:
        psi, slope = _influence(problem, r, weights, scale)
        r = psi * weights.sum() / max(float(weights @ slope), np.finfo(float).tiny)
    return jacobian[0, free].T * root[:, None], r * root


def _scatter(problem: Problem, r: Array, weights: Array, counted: int, dof: int) -> float:
    """Residual scatter of a row of weight one; robust when the loss is."""
    if dof <= 0:
        return np.nan
    # The median is not moved by the outliers for whose sake a robust loss was chosen; n / (n - p) as for squares.
    standardized = (r * np.sqrt(weights))[weights > 0]
    if problem.loss.robust:
        return float(1.4826 * np.median(np.abs(standardized)) * np.sqrt(counted / dof))
    scatter, own = (
        float(np.sqrt((standardized**2).sum() / dof)),
        problem.error * np.sqrt(np.median(weights[weights > 0])),
    )
    if scatter >= own:
        return scatter
    # Few rows may lie on the law by luck, but not closer than each is known: its own error counts as a few of them.
    return float(np.sqrt((dof * scatter**2 + _OWN_DOF * own**2) / (dof + _OWN_DOF)))


def invert(design: Array) -> tuple[Array, float, Array]:
    """Return the inverse of design'design, the scaled condition number, and who takes part in a null direction."""
    if design.shape[1] == 0:
        return np.empty((0, 0)), 1.0, np.empty(0, dtype=bool)
    # Columns of length one: a parameter's unit must not decide whether the rows identify it.
    length = np.linalg.norm(design, axis=0)
    length = np.where(length > 0, length, 1.0)
    # QR first: the factor R has the singular values of the design at p rows in place of n.
    _, singular, right = np.linalg.svd(np.linalg.qr(design / length, mode="r"))
    known = singular > RANK_TOLERANCE * singular[0]
    inverse = (right[known].T / singular[known] ** 2) @ right[known]
    # Rounding leaves traces of every parameter in a null direction; those above a thousandth take part in it.
    loose = (np.abs(right[~known]) > 1e-3).any(axis=0)
    condition = singular[0] / singular[-1] if singular[-1] > 0 else np.inf
    return inverse / np.outer(length, length), float(condition), loose
