r"""The best learning rate of one step on a noisy quadratic, and what it gains, for any batch size.

The loss is :math:`L(x) = \tfrac12 x^T H x`. The gradient of a batch of B data has the mean :math:`\mu` and normal
coordinates, independent of each other, of standard deviation :math:`\sigma_i / \sqrt B`. A step moves the weights by
:math:`-\eta V`: V is the gradient for SGD (McCandlish et al. 2018, arXiv:1812.06162) and its signs for sign descent,
which Adam comes close to (Li et al. 2024, arXiv:2405.14578).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scalefit.errors import LawError

__all__ = [
    "NoiseConstants",
    "StepOptimum",
    "SurgeConstants",
    "sgd_constants",
    "sgd_optimum",
    "sign_optimum",
    "surge_constants",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class StepOptimum:
    """The best single step at every batch size.

    Parameters
    ----------
    batch : ndarray
        Data per step.
    lr : ndarray
        Learning rate that lowers the expected loss most.
    loss_drop : ndarray
        By how much it does, in the unit of the loss.

    See Also
    --------
    sgd_optimum, sign_optimum

    Examples
    --------
    >>> import scalefit as sf
    >>> sf.theory.sgd_optimum([1e2, 1e4], mu=[0.1, 0.1], sigma=[1.0, 1.0], H=[1.0, 1.0]).loss_drop.round(4)
    array([0.005 , 0.0099])
    """

    batch: Floats
    lr: Floats
    loss_drop: Floats


@dataclass(frozen=True)
class SurgeConstants:
    r"""What the surge law of sign descent follows from.

    While :math:`B \ll \pi\sigma_i^2/(2\mu_i^2)` the best rate and the fall of the loss are

    .. math::

        \eta^*(B) = \frac{2\,\eta_{max}}{\sqrt{B_{noise}/B} + \sqrt{B/B_{noise}}}, \qquad
        \Delta L^*(B) = \frac{\Delta L_{max}}{1 + B_{noise}/B};

    for large batches the rate ends on the plateau.

    Parameters
    ----------
    B_noise : float
        Batch at the peak, data unit; infinite when the coordinates do not work against each other: no peak then.
    eta_max : float
        Learning rate at the peak; infinite with `B_noise`.
    plateau : float
        Learning rate for infinite batches.
    dL_max : float
        Fall of the loss that the law for small batches tends to.
    dL_plateau : float
        Fall of the loss for infinite batches.
    valid_below : float
        min over coordinates of pi sigma^2 / (2 mu^2): the surge law holds for batches far below it.

    See Also
    --------
    surge_constants : Works them out.

    References
    ----------
    Li et al. 2024, arXiv:2405.14578, theorems 3 to 5.

    Examples
    --------
    >>> import numpy as np
    >>> import scalefit as sf
    >>> constants = sf.theory.surge_constants(np.full(40, 0.01), np.ones(40), 0.5 * np.eye(40) + 0.5)
    >>> round(constants.eta_max, 5), round(constants.plateau, 5)
    (0.00113, 0.00049)
    """

    B_noise: float
    eta_max: float
    plateau: float
    dL_max: float
    dL_plateau: float
    valid_below: float


@dataclass(frozen=True)
class NoiseConstants:
    r"""What the law of SGD follows from.

    .. math::

        \eta^*(B) = \frac{\eta_{max}}{1 + B_{noise}/B}, \qquad \Delta L^*(B) = \frac{\Delta L_{max}}{1 + B_{noise}/B}

    Parameters
    ----------
    B_noise : float
        Noise scale tr(H Sigma) / (G' H G), data unit.
    eta_max : float
        Best learning rate without noise, ``|G|^2 / (G' H G)``.
    dL_max : float
        Fall of the loss without noise, ``|G|^4 / (2 G' H G)``.

    See Also
    --------
    sgd_constants : Works them out.

    References
    ----------
    McCandlish et al. 2018, arXiv:1812.06162, eqs. 2.6 to 2.8.

    Examples
    --------
    >>> import scalefit as sf
    >>> sf.theory.sgd_constants(mu=[0.1, 0.1], sigma=[1.0, 1.0], H=[1.0, 1.0]).eta_max
    1.0
    """

    B_noise: float
    eta_max: float
    dL_max: float


def sign_optimum(batch: ArrayLike, mu: ArrayLike, sigma: ArrayLike, H: ArrayLike) -> StepOptimum:
    r"""Return the best learning rate of sign descent, and the fall of the loss it gives.

    .. math::

        \eta^*(B) = \frac{\sum_i e_i\mu_i}{\sum_i (1-e_i^2) H_{ii} + \sum_{ij} e_i e_j H_{ij}}, \qquad
        e_i = \operatorname{erf}\!\Big(\sqrt{B/2}\,\frac{\mu_i}{\sigma_i}\Big), \qquad
        \Delta L^* = \tfrac12\,\eta^*\sum_i e_i\mu_i .

    Parameters
    ----------
    batch : array_like
        Data per step, any shape.
    mu, sigma : array_like (d,)
        Mean and standard deviation, over single data, of each coordinate of the gradient.
    H : array_like (d,) or (d, d)
        Hessian, its diagonal alone if it is diagonal.

    Returns
    -------
    StepOptimum
        Arrays of the shape of `batch`.

    Raises
    ------
    LawError
        Shapes that do not fit, a batch or sigma that is not positive, a Hessian that is not symmetric, or one along
        which the loss does not rise.

    See Also
    --------
    surge_constants : Its limits for small and for large batches.
    sgd_optimum : The same for SGD.

    Notes
    -----
    Derived from E[dL] = -eta G'E[V] + eta^2/2 (tr[H cov(V)] + E[V]' H E[V]) with V the sign of a gradient whose
    coordinates are normal and independent of each other: cov(V) is then diagonal, 1 - e_i^2. The double sum runs over
    all pairs, i = j included, so the denominator is tr(H) plus the pairs i != j. Noise that is correlated between
    coordinates is outside this formula. For a diagonal H the denominator is tr(H) at every batch: the rate rises to
    its plateau and there is no surge.

    References
    ----------
    Li et al. 2024, arXiv:2405.14578, lemma 1 and theorem 2.

    Examples
    --------
    >>> import scalefit as sf
    >>> rising = sf.theory.sign_optimum([1.0, 4.0, 1e6], mu=[0.1, 0.1], sigma=[1.0, 1.0], H=[1.0, 1.0])
    >>> rising.lr.round(4)
    array([0.008 , 0.0159, 0.1   ])
    """
    from scipy.special import erf

    sizes = _positive("batch", batch)
    mean, spread, hessian = _checked(mu, sigma, H)
    signs = erf(np.sqrt(sizes[..., None] / 2) * mean / spread)
    return _optimum(sizes, signs @ mean, _sign_cost(signs, hessian))


def sgd_optimum(batch: ArrayLike, mu: ArrayLike, sigma: ArrayLike, H: ArrayLike) -> StepOptimum:
    r"""Return the best learning rate of SGD, eta_max/(1 + B_noise/B), and the fall of the loss it gives.

    Parameters
    ----------
    batch, mu, sigma, H
        As for `sign_optimum`; the noise of different coordinates is independent.

    Returns
    -------
    StepOptimum
        Arrays of the shape of `batch`.

    Raises
    ------
    LawError
        As for `sign_optimum`.

    See Also
    --------
    sgd_constants : eta_max, B_noise and the largest fall of the loss.

    References
    ----------
    McCandlish et al. 2018, arXiv:1812.06162, eqs. 2.6 and 2.7.

    Examples
    --------
    >>> import scalefit as sf
    >>> one = sf.theory.sgd_optimum([1e2, 1e4], mu=[0.1, 0.1], sigma=[1.0, 1.0], H=[1.0, 1.0])
    >>> one.lr
    array([0.5       , 0.99009901])
    """
    sizes = _positive("batch", batch)
    mean, spread, hessian = _checked(mu, sigma, H)
    cost = mean @ hessian @ mean + (np.diag(hessian) @ spread**2) / sizes
    return _optimum(sizes, np.full(sizes.shape, mean @ mean), cost)


def surge_constants(mu: ArrayLike, sigma: ArrayLike, H: ArrayLike) -> SurgeConstants:
    r"""Return the constants of the surge law and its plateau.

    .. math::

        B_{noise} = \frac{\pi\sum_i H_{ii}}{2\sum_{i\ne j} s_i s_j H_{ij}}, \qquad
        \eta_{max} = \sqrt{\frac{B_{noise}}{2\pi}}\,\frac{\sum_i \mu_i s_i}{\sum_i H_{ii}},

    with :math:`s_i = \mu_i/\sigma_i`; the plateau is :math:`\sum_i |\mu_i| / \sum_{ij}
    \operatorname{sign}(\mu_i)\operatorname{sign}(\mu_j) H_{ij}`.

    Parameters
    ----------
    mu, sigma, H
        As for `sign_optimum`.

    Returns
    -------
    SurgeConstants

    Raises
    ------
    LawError
        As for `sign_optimum`.

    See Also
    --------
    sign_optimum : The best rate at every batch, without an approximation.

    References
    ----------
    Li et al. 2024, arXiv:2405.14578, theorems 3 to 5.

    Examples
    --------
    >>> import numpy as np
    >>> import scalefit as sf
    >>> H = 0.5 * np.eye(40) + 0.5
    >>> found = sf.theory.surge_constants(np.full(40, 0.01), np.ones(40), H)
    >>> round(found.B_noise, 1), round(found.valid_below)
    (805.5, 15708)
    """
    mean, spread, hessian = _checked(mu, sigma, H)
    ratio, diagonal = mean / spread, np.diag(hessian)
    trace, gain, alone = diagonal.sum(), mean @ ratio, diagonal @ ratio**2
    limit = _optimum(np.array(np.inf), np.abs(mean).sum(), _sign_cost(np.sign(mean), hessian))
    noise, rate, drop = np.full(3, np.inf)
    # A sum over i != j within rounding counts as 0; otherwise the peak would be near 1e16 B_noise, which is nonsense.
    pairs = ratio @ hessian @ ratio - alone
    if pairs > 1e-12 * abs(alone) and trace > 0:
        noise = np.pi * trace / (2 * pairs)
        rate, drop = np.sqrt(noise / (2 * np.pi)) * gain / trace, gain**2 / (2 * pairs)
    with np.errstate(divide="ignore"):
        valid = (np.pi / (2 * ratio**2)).min()
    values = (noise, rate, limit.lr, drop, limit.loss_drop, valid)
    return SurgeConstants(*(float(value) for value in values))


def sgd_constants(mu: ArrayLike, sigma: ArrayLike, H: ArrayLike) -> NoiseConstants:
    r"""Return the noise scale, the largest learning rate and the largest fall of the loss of SGD.

    .. math::

        B_{noise} = \frac{\sum_i H_{ii}\sigma_i^2}{\mu^T H \mu}, \qquad
        \eta_{max} = \frac{|\mu|^2}{\mu^T H \mu}, \qquad \Delta L_{max} = \tfrac12\,\eta_{max}\,|\mu|^2

    Parameters
    ----------
    mu, sigma, H
        As for `sign_optimum`.

    Returns
    -------
    NoiseConstants

    Raises
    ------
    LawError
        As for `sign_optimum`.

    See Also
    --------
    sgd_optimum : The best rate at every batch.

    References
    ----------
    McCandlish et al. 2018, arXiv:1812.06162, eqs. 2.6 to 2.8.

    Examples
    --------
    >>> import scalefit as sf
    >>> round(sf.theory.sgd_constants(mu=[0.1, 0.1], sigma=[1.0, 1.0], H=[1.0, 1.0]).B_noise, 6)
    100.0
    """
    mean, spread, hessian = _checked(mu, sigma, H)
    bend, square = float(mean @ hessian @ mean), float(mean @ mean)
    if bend <= 0:
        raise LawError(f"H: the loss does not rise along the gradient (G' H G = {bend:.4g}): no step is the best")
    return NoiseConstants(float(np.diag(hessian) @ spread**2) / bend, square / bend, square**2 / (2 * bend))


def _sign_cost(signs: Floats, hessian: Floats) -> Floats:
    """Return tr[H cov(V)] + E[V]' H E[V] of signs V with means `signs`, shape (..., d)."""
    return (1 - signs**2) @ np.diag(hessian) + ((signs @ hessian) * signs).sum(axis=-1)


def _optimum(batch: Floats, gain: ArrayLike, cost: ArrayLike) -> StepOptimum:
    """Return the top of the parabola rate * gain - rate^2 * cost / 2."""
    gained, paid = np.asarray(gain, dtype=float), np.asarray(cost, dtype=float)
    if not (paid > 0).all():
        worst = batch.flat[np.argmin(paid)]
        raise LawError(f"H: the loss does not rise along the step at batch {worst:.4g}, so no step is the best")
    rate = gained / paid
    return StepOptimum(batch, rate, 0.5 * rate * gained)


def _positive(name: str, value: ArrayLike) -> Floats:
    """Return numbers; raise unless all are above 0. Infinity is allowed, for a batch without noise."""
    numbers = np.asarray(value, dtype=float)
    if not (numbers > 0).all():
        raise LawError(f"{name}: expected positive numbers, found {numbers[~(numbers > 0)].flat[0]}")
    return numbers


def _checked(mu: ArrayLike, sigma: ArrayLike, H: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return mean (d,), spread (d,) and full Hessian (d, d)."""
    mean, spread, hessian = (np.asarray(value, dtype=float) for value in (mu, sigma, H))
    if mean.ndim != 1 or spread.shape != mean.shape or hessian.shape not in (mean.shape, mean.shape * 2):
        raise LawError(
            f"expected mu (d,), sigma (d,) and H (d,) or (d, d), found {mean.shape}, {spread.shape}, {hessian.shape}"
        )
    if not all(np.isfinite(array).all() for array in (mean, spread, hessian)) or not mean.any():
        raise LawError("mu, sigma and H: expected finite numbers, and a gradient that is not zero everywhere")
    full = np.diag(hessian) if hessian.ndim == 1 else hessian
    if not np.allclose(full, full.T, rtol=1e-9, atol=1e-12 * np.abs(full).max()):
        raise LawError("H: expected a symmetric matrix")
    return mean, _positive("sigma", spread), full
