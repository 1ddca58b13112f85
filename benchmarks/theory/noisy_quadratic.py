"""A noisy quadratic, the simplest loss on which batch size and learning rate mean something, and its optimizers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Moments = tuple[Floats, ...]


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
    """

    curvature: Floats
    noise: Floats
    start: Floats

    def __init__(self, curvature: ArrayLike, noise: ArrayLike, start: ArrayLike) -> None:
        h = np.array(curvature, dtype=float)
        if h.ndim not in (1, 2) or h.shape != (len(h),) * h.ndim:
            raise ValueError(f"curvature should be a diagonal (n,) or a matrix (n, n), found shape {h.shape}")
        if h.ndim == 2 and not np.allclose(h, h.T, rtol=1e-10, atol=1e-12 * np.abs(h).max()):
            raise ValueError("curvature should be symmetric; use (H + H.T)/2")
        if not np.isfinite(h).all() or (h if h.ndim == 1 else np.linalg.eigvalsh(h)).min() <= 0:
            raise ValueError("curvature should be positive definite: every eigenvalue finite and above 0")
        sigma = positive("noise", np.broadcast_to(noise, len(h)))
        x = np.broadcast_to(np.asarray(start, dtype=float), len(h))
        if not np.isfinite(x).all():
            raise ValueError("start should be finite in every coordinate")
        for name, array in {"curvature": h, "noise": sigma, "start": x.copy()}.items():
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @property
    def hessian(self) -> Floats:
        """H as a matrix, shape (n, n)."""
        return np.diag(self.curvature) if self.curvature.ndim == 1 else self.curvature

    @property
    def step(self) -> tuple[Floats, Floats, Floats]:
        """Mean and spread of the gradient at the start, and H: what the functions of `scalefit.theory` take."""
        return self.gradient(self.start), self.noise, self.hessian

    @property
    def valid_batch(self) -> float:
        r"""Median over coordinates of :math:`\pi\sigma_i^2/(2 G_i^2)`: far above it the signs of G are certain."""
        return float(np.median(np.pi / (2 * (self.gradient(self.start) / self.noise) ** 2)))

    def gradient(self, x: Floats) -> Floats:
        """Return the noiseless gradient H x, shape (..., n)."""
        return x * self.curvature if self.curvature.ndim == 1 else x @ self.curvature

    def loss(self, x: Floats) -> Floats:
        """Return the loss, shape (...)."""
        return 0.5 * np.einsum("...i,...i->...", x, self.gradient(x))


def positive(name: str, values: ArrayLike) -> Floats:
    """Return values as a vector, all of them finite and positive."""
    array = np.atleast_1d(np.array(values, dtype=float))
    if array.ndim != 1 or len(array) == 0 or not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(f"{name} should be one or more positive finite numbers, found {values!r}")
    return array


def from_gradient(curvature: ArrayLike, noise: ArrayLike, gradient: ArrayLike) -> NoisyQuadratic:
    """Make the noisy quadratic whose gradient at the start is the one given: start = H^-1 G."""
    h, g = NoisyQuadratic(curvature, noise, 0.0).curvature, np.asarray(gradient, dtype=float)
    return NoisyQuadratic(h, noise, g / h if h.ndim == 1 else np.linalg.solve(h, g))


def mean_field(diagonal: ArrayLike, coupling: float, direction: Sequence[float] | Floats) -> Floats:
    r"""Return a Hessian whose coordinates are all coupled along one direction.

    .. math:: H_{ii} = h_i, \qquad H_{ij} = \kappa\, s_i s_j \sqrt{h_i h_j} \quad (i \ne j)

    with :math:`s_i = \pm 1` the signs of `direction` and :math:`\kappa` the coupling, 0 to below 1. Steps along the
    signs cost up to :math:`1 + (n - 1)\kappa` times what the diagonal says.
    """
    if not 0 <= coupling < 1:
        raise ValueError(f"coupling should be from 0 to below 1, found {coupling!r}")
    h = np.asarray(diagonal, dtype=float)
    scale = np.sign(np.asarray(direction, dtype=float)) * np.sqrt(h)
    return coupling * np.outer(scale, scale) + (1 - coupling) * np.diag(h)


def sgd_mean_loss(problem: NoisyQuadratic, batch: ArrayLike, lr: ArrayLike, steps: ArrayLike) -> Floats:
    r"""Return the mean loss after a number of steps of SGD at a constant learning rate, exactly.

    Along an eigenvector of H with eigenvalue :math:`\lambda`, where the gradient of one sample has variance
    :math:`s^2`, the mean square of the distance obeys
    :math:`m \to (1 - \eta\lambda)^2 m + \eta^2 s^2/B`, whose solution is a geometric series.
    """
    values, vectors = np.linalg.eigh(problem.hessian)
    first = (vectors.T @ problem.start) ** 2
    variance = (vectors**2).T @ problem.noise**2
    b, eta, t = (np.asarray(a, dtype=float)[..., None] for a in (batch, lr, steps))
    shrink = (1 - eta * values) ** 2
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        left = shrink**t
        summed = np.where(np.isclose(shrink, 1, rtol=0, atol=1e-14), t, (1 - left) / (1 - shrink))
        return 0.5 * np.sum(values * (left * first + eta**2 * variance / b * summed), axis=-1)


@dataclass(frozen=True)
class SGD:
    """Steps along the gradient: weights move by ``-lr * direction``."""

    @property
    def memory(self) -> int:
        """Steps after which the moments have forgotten how they began; nothing is remembered here."""
        return 0

    def prepare(self, shape: tuple[int, ...]) -> Moments:
        """Return the moments before the first step."""
        return ()

    def direction(self, gradient: Floats, moments: Moments, step: int) -> tuple[Floats, Moments]:
        """Return the direction of step 1, 2, ... and the moments after it, for any number of runs at once."""
        return gradient, ()


@dataclass(frozen=True)
class SignSGD(SGD):
    """Steps along the sign of the gradient, coordinate by coordinate: Adam without memory."""

    def direction(self, gradient: Floats, moments: Moments, step: int) -> tuple[Floats, Moments]:
        """Return the signs."""
        return np.sign(gradient), ()


@dataclass(frozen=True)
class Adam(SGD):
    r"""Adam with bias correction (arXiv:1412.6980): :math:`\hat m / (\sqrt{\hat v} + \epsilon)`; betas 0: `SignSGD`."""

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-12

    def __post_init__(self) -> None:
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and self.epsilon >= 0):
            raise ValueError(f"Adam needs betas from 0 to below 1 and epsilon not below 0, found {self!r}")

    @property
    def memory(self) -> int:
        """Three times the longer of the two averaging times, in steps; 0 without memory."""
        longest = max(self.beta1, self.beta2)
        return ceil(3 / (1 - longest)) if longest > 0 else 0

    def prepare(self, shape: tuple[int, ...]) -> Moments:
        """Return both moments as zeros."""
        return np.zeros(shape), np.zeros(shape)

    def direction(self, gradient: Floats, moments: Moments, step: int) -> tuple[Floats, Moments]:
        """Return the bias-corrected direction and the new moments."""
        first = self.beta1 * moments[0] + (1 - self.beta1) * gradient
        second = self.beta2 * moments[1] + (1 - self.beta2) * gradient**2
        mean, size = first / (1 - self.beta1**step), np.sqrt(second / (1 - self.beta2**step))
        return mean / (size + self.epsilon), (first, second)
