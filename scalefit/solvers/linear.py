"""Linear least squares, many problems at once, with the columns scaled first."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np

Array = np.ndarray


def solve_normal(hessian: Array, gradient: Array) -> Array:
    """Solve H x = g for a stack of positive semi-definite H, scaled to unit diagonal.

    Parameters
    ----------
    hessian : ndarray (..., p, p)
    gradient : ndarray (..., p)

    Returns
    -------
    ndarray (..., p)
        Coordinates of zero curvature get zero. When H is singular in other ways, one of the solutions.
    """
    diagonal = np.sqrt(np.einsum("...ii->...i", hessian))
    scale = np.where(diagonal > 0, diagonal, 1.0)
    scaled = hessian / (scale[..., :, None] * scale[..., None, :])
    # A touch on the diagonal keeps exactly singular problems solvable without moving the others.
    scaled = scaled + 1e-15 * hessian.shape[-1] * np.eye(hessian.shape[-1])
    scaled = np.where(np.isfinite(scaled), scaled, 0.0)
    scaled[..., range(hessian.shape[-1]), range(hessian.shape[-1])] += np.where(diagonal > 0, 0.0, 1.0)
    try:
        solved = np.linalg.solve(scaled, (gradient / scale)[..., None])[..., 0]
    except np.linalg.LinAlgError:
        solved = (np.linalg.pinv(scaled) @ (gradient / scale)[..., None])[..., 0]
    return solved / scale


def least_squares(design: Array, target: Array, weights: Array | None = None) -> Array:
    """Solve one weighted least-squares problem accurately (orthogonal factorisation of the scaled design).

    Parameters
    ----------
    design : ndarray (n, p)
    target : ndarray (n,)
    weights : ndarray (n,), optional
        Proportional to inverse variances.

    Returns
    -------
    ndarray (p,)
        The solution of least scaled norm when the columns are dependent.
    """
    root = np.ones(len(target)) if weights is None else np.sqrt(weights)
    weighted = design * root[:, None]
    scale = np.linalg.norm(weighted, axis=0)
    scale[scale == 0] = 1.0
    return np.linalg.lstsq(weighted / scale, target * root, rcond=None)[0] / scale


def nonnegative(hessian: Array, gradient: Array, positive: Array) -> Array:
    """Minimise x'Hx/2 - g'x with some coordinates held non-negative, for a stack of problems.

    Every set of active constraints is tried and the best feasible one kept, which is exact and quick for the handful
    of coefficients a law has. With more than six constrained coordinates the negative ones are only set to zero.

    Parameters
    ----------
    hessian : ndarray (K, p, p)
    gradient : ndarray (K, p)
    positive : ndarray of bool (p,)
        Which coordinates must not be negative.

    Returns
    -------
    ndarray (K, p)
    """
    bound = np.flatnonzero(positive)
    best = solve_normal(hessian, gradient)
    if len(bound) == 0 or (best[:, bound] >= 0).all():
        return best
    if len(bound) > 6:
        return np.where(positive, np.maximum(best, 0.0), best)
    value = np.where((best[:, bound] >= 0).all(axis=1), _quadratic(hessian, gradient, best), np.inf)
    for dropped in chain.from_iterable(combinations(bound, size) for size in range(1, len(bound) + 1)):
        kept = np.setdiff1d(np.arange(len(positive)), dropped)
        trial = np.zeros_like(best)
        if len(kept):
            trial[:, kept] = solve_normal(hessian[:, kept[:, None], kept], gradient[:, kept])
        score = _quadratic(hessian, gradient, trial)
        better = (trial[:, bound] >= 0).all(axis=1) & (score < value)
        best, value = np.where(better[:, None], trial, best), np.where(better, score, value)
    return best


def _quadratic(hessian: Array, gradient: Array, x: Array) -> Array:
    return 0.5 * np.einsum("ki,kij,kj->k", x, hessian, x) - np.einsum("ki,ki->k", gradient, x)
