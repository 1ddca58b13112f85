"""Normal tails: how well a law agrees with a bound, in a form that least-squares solvers take."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def log_tail(z: Array) -> Array:
    """Return ln Phi(z), the log of the normal probability below z."""
    from scipy.special import log_ndtr

    return log_ndtr(z)


def hazard(z: Array) -> Array:
    """Return phi(z)/Phi(z), minus the slope of -ln Phi.

    Examples
    --------
    >>> hazard(np.array([-30.0, 0.0, 40.0])).round(3)
    array([30.033,  0.798,  0.   ])
    """
    return np.exp(-0.5 * z * z - 0.5 * np.log(2 * np.pi) - log_tail(z))


def hazard_slope(z: Array) -> Array:
    """Return the second derivative of -ln Phi(z), between 0 (bound kept with ease) and 1 (bound broken).

    Examples
    --------
    >>> hazard_slope(np.array([-30.0, 0.0, 40.0])).round(3)
    array([0.999, 0.637, 0.   ])
    """
    rate = hazard(z)
    return rate * (rate + z)


def deviance(z: Array) -> tuple[Array, Array]:
    r"""Return :math:`d = \sqrt{-2\ln\Phi(z)}` and minus its slope, so that half the square of d is -ln Phi.

    Examples
    --------
    >>> size, fall = deviance(np.array([-3.0, 0.0, 50.0]))
    >>> (0.5 * size**2).round(3), fall.round(3)
    (array([6.608, 0.693, 0.   ]), array([0.903, 0.678, 0.   ]))
    """
    size = np.sqrt(-2 * log_tail(z))
    return size, np.divide(hazard(z), size, out=np.zeros_like(size), where=size > 0)
