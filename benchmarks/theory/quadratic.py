"""A noisy quadratic: the simplest loss on which a batch size, a learning rate and a critical batch mean something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scalefit.errors import SweepError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NoisyQuadratic:
    r"""A quadratic loss whose gradients are noisy.

    .. math::

        L(x) = \tfrac12 x^T H x, \qquad g_B(x) = H x + B^{-1/2}\,\sigma \circ z, \qquad z \sim N(0, 1)^n

    with :math:`x` the distance from the optimum. :math:`\sigma_i` is the standard deviation of coordinate i of the
    gradient of one sample, so that :math:`g_B` is the mean gradient of a batch of B samples.

    Parameters
    ----------
    curvature : array_like, shape (n,) or (n, n)
        H: its diagonal, or all of it (symmetric, positive definite).
    noise : array_like, shape (n,) or scalar
        sigma, positive.
    start : array_like, shape (n,) or scalar
        Where training begins, as a distance from the optimum.

    Raises
    ------
    SweepError
        If shapes do not fit, or H is not symmetric and positive definite.

    Examples
    --------
    >>> problem = NoisyQuadratic(curvature=[1.0, 0.1], noise=2.0, start=[1.0, 1.0])
    >>> problem.loss(problem.start).item(), round(problem.noise_scale(), 3)
    (0.55, 4.396)
    """

    curvature: Floats
    noise: Floats
    start: Floats

    def __init__(self, curvature: ArrayLike, noise: ArrayLike, start: ArrayLike) -> None:
        h = np.array(curvature, dtype=float)
        if h.ndim not in (1, 2) or h.shape != (len(h),) * h.ndim:
            raise SweepError(f"curvature should be a diagonal (n,) or a matrix (n, n), found shape {h.shape}")
        if h.ndim == 2 and not np.allclose(h, h.T, rtol=1e-10, atol=1e-12 * np.abs(h).max()):
            raise SweepError("curvature should be symmetric; use (H + H.T)/2")
        if not np.isfinite(h).all() or (h if h.ndim == 1 else np.linalg.eigvalsh(h)).min() <= 0:
            raise SweepError("curvature should be positive definite: every eigenvalue finite and above 0")
        fields = {"curvature": h, "noise": _vector("noise", noise, len(h)), "start": _vector("start", start, len(h))}
        if fields["noise"].min() <= 0:
            raise SweepError("noise should be positive in every coordinate")
        for name, array in fields.items():
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @property
    def hessian(self) -> Floats:
        """H as a matrix, shape (n, n)."""
        return np.diag(self.curvature) if self.curvature.ndim == 1 else self.curvature

    def gradient(self, x: Floats) -> Floats:
        """Return the noiseless gradient H x, shape (..., n)."""
        return x * self.curvature if self.curvature.ndim == 1 else x @ self.curvature

    def loss(self, x: Floats) -> Floats:
        """Return the loss, shape (...)."""
        return 0.5 * np.einsum("...i,...i->...", x, self.gradient(x))

    def noise_scale(self, x: Floats | None = None) -> float:
        r"""Return :math:`B_{noise} = tr(H \Sigma)/(G^T H G)` at x, by default at the start (arXiv:1812.06162, 2.8)."""
        g = self.gradient(self.start if x is None else x)
        return float(np.sum(np.diagonal(self.hessian) * self.noise**2) / (g @ self.gradient(g)))

    def simple_noise_scale(self, x: Floats | None = None) -> float:
        r"""Return :math:`B_{simple} = tr(\Sigma)/|G|^2` at x, by default at the start (arXiv:1812.06162, 2.9)."""
        g = self.gradient(self.start if x is None else x)
        return float(np.sum(self.noise**2) / (g @ g))


def from_gradient(curvature: ArrayLike, noise: ArrayLike, gradient: ArrayLike) -> NoisyQuadratic:
    """Make the noisy quadratic whose gradient at the start is the one given: start = H^-1 G.

    Examples
    --------
    >>> problem = from_gradient(curvature=[[2.0, 1.0], [1.0, 2.0]], noise=1.0, gradient=[3.0, 3.0])
    >>> problem.start.round(12).tolist()
    [1.0, 1.0]
    """
    h = NoisyQuadratic(curvature, noise, 0.0).curvature
    g = _vector("gradient", gradient, len(h))
    return NoisyQuadratic(h, noise, g / h if h.ndim == 1 else np.linalg.solve(h, g))


def mean_field(diagonal: ArrayLike, coupling: float, direction: Sequence[float] | Floats) -> Floats:
    r"""Return a Hessian whose coordinates are all coupled along one direction.

    .. math:: H_{ii} = h_i, \qquad H_{ij} = \kappa\, s_i s_j \sqrt{h_i h_j} \quad (i \ne j)

    with :math:`s_i = \pm 1` the signs of `direction` and :math:`\kappa` the coupling, 0 to below 1. Steps along the
    signs cost up to :math:`1 + (n - 1)\kappa` times what the diagonal says.

    Examples
    --------
    >>> mean_field([1.0, 4.0], 0.5, [1.0, -1.0]).tolist()
    [[1.0, -1.0], [-1.0, 4.0]]
    """
    if not 0 <= coupling < 1:
        raise SweepError(f"coupling should be from 0 to below 1, found {coupling!r}")
    h = np.asarray(diagonal, dtype=float)
    scale = np.sign(np.asarray(direction, dtype=float)) * np.sqrt(h)
    return coupling * np.outer(scale, scale) + (1 - coupling) * np.diag(h)


def _vector(name: str, values: ArrayLike, size: int) -> Floats:
    array = np.array(values, dtype=float)
    if array.shape not in ((), (size,)) or not np.isfinite(array).all():
        raise SweepError(f"{name} should be one finite number or {size} of them, found shape {array.shape}")
    return np.broadcast_to(array, (size,)).copy()
