"""Variable projection: for every candidate of the nonlinear parameters, the best linear ones in closed form.

Golub and Pereyra 1973. Used to find starting points: a grid over the few nonlinear parameters replaces a grid over
all of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scalefit.solvers.linear import nonnegative

Array = np.ndarray


def project(
    model: Callable[[Array], tuple[Array, Array]],
    phi: Array,
    linear: Array,
    logged: Array,
    target: Array,
    weights: Array,
) -> Array:
    """Replace the linear coordinates of every candidate by their least-squares values.

    Parameters
    ----------
    model : callable
        phi (K, p) -> values (K, n), Jacobian (K, p, n), affine in the natural values of the linear coordinates.
    phi : ndarray (K, p)
        Candidates; what stands in the linear coordinates is ignored.
    linear : ndarray of int
        Indices of the linear coordinates.
    logged : ndarray of bool (p,)
        Coordinates that are logs of positive parameters, which are then kept non-negative.
    target : ndarray (n,)
    weights : ndarray (n,)

    Returns
    -------
    ndarray (K, p)
    """
    phi = phi.copy()
    unit = np.where(logged[linear], 0.0, 1.0)  # the natural value one, where d/dphi equals d/dtheta
    phi[:, linear] = unit
    value, jacobian = model(phi)
    basis = jacobian[:, linear]
    offset = value - basis.sum(axis=1)
    usable = np.isfinite(basis).all(axis=(1, 2)) & np.isfinite(offset).all(axis=1)
    basis, offset = np.where(usable[:, None, None], basis, 0.0), np.where(usable[:, None], offset, 0.0)
    weighted = basis * weights
    hessian = weighted @ basis.transpose(0, 2, 1)
    gradient = (weighted @ (target - offset)[:, :, None])[:, :, 0]
    solved = nonnegative(hessian, gradient, logged[linear])
    phi[:, linear] = np.where(logged[linear], _log_above_zero(solved, hessian, target, weights), solved)
    phi[~usable] = np.nan
    return phi


def _log_above_zero(solved: Array, hessian: Array, target: Array, weights: Array) -> Array:
    """Log of the coefficients; those that came out zero start a thousandth of what the data could hold."""
    size = np.sqrt((weights * target**2).sum())
    reach = size / np.sqrt(np.maximum(np.einsum("kii->ki", hessian), np.finfo(float).tiny))
    return np.log(np.maximum(solved, 1e-3 * reach))
