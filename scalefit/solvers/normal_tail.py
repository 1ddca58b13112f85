"""Normal tails: how well a law agrees with a bound, in a form that least-squares solvers take."""

from __future__ import annotations

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
