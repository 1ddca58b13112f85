"""Normal tails, in a form that least-squares solvers take, and Student's t."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray


def log_tail(z: Array) -> Array:
    """Return ln Phi(z), the log of the normal probability below z."""
    from scipy.special import log_ndtr

    return log_ndtr(z)


def hazard(z: Array) -> Array:
    """Return phi(z)/Phi(z), minus the slope of -ln Phi."""
    # Through the log: phi and Phi both underflow far below zero, where their ratio is about -z.
    return np.exp(-0.5 * z * z - 0.5 * np.log(2 * np.pi) - log_tail(z))


def hazard_slope(z: Array) -> Array:
    """Return the second derivative of -ln Phi(z), between 0 (bound kept with ease) and 1 (bound broken)."""
    rate = hazard(z)
    return rate * (rate + z)


def deviance(z: Array) -> tuple[Array, Array]:
    r"""Return :math:`d = \sqrt{-2\ln\Phi(z)}` and minus its slope, so that half the square of d is -ln Phi."""
    size = np.sqrt(-2 * log_tail(z))
    return size, np.divide(hazard(z), size, out=np.zeros_like(size), where=size > 0)


def t_quantile(level: float, dof: Any) -> Any:
    """Return the two-sided quantile: a share `level` lies within it, for a number or an array of degrees of freedom."""
    from scipy.special import ndtri, stdtrit

    share, dof = 0.5 + level / 2, np.asarray(dof, dtype=float)
    # Without degrees of freedom an interval reaches to infinity; stdtrit itself fails at 0 and at infinity.
    finite = np.where((dof > 0) & np.isfinite(dof), dof, 1.0)
    quantile = np.where(np.isinf(dof), ndtri(share), np.where(dof > 0, stdtrit(finite, share), np.inf))
    return float(quantile) if quantile.ndim == 0 else quantile
