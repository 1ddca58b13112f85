r"""The shape of a loss basin: how far above its floor a run ends, given how far its settings are from the best ones.

.. math:: h = A_1\,g(s; k_1) + A_2\,g(t; k_2),\qquad g(u; k) = (e^{ku} - ku - 1)/k^2

with s = u - c v - p v**2, t = v - q u**2, u = ln lr - ln lr*, v = ln batch - ln batch*. g is a parabola at k = 0; for
k > 0 it rises faster above the optimum than below, as losses do above the best learning rate. c is how the best
learning rate moves with the batch, p and q bend the valley in which the two trade off; the minimum stays at u = v = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray

_WIDEST = 30.0


def bend(u: Array, k: Array) -> tuple[Array, Array, Array]:
    """Return g(u; k) with its derivatives in u and in k, accurate through k = 0.

    Examples
    --------
    >>> g, slope, _ = bend(np.array([0.1]), np.array([0.0]))
    >>> g.round(6), slope.round(6)
    (array([0.005]), array([0.1]))
    """
    z = np.clip(k * u, -_WIDEST, _WIDEST)
    small = np.abs(z) < 1e-3
    grown = np.expm1(z)
    if not small.any():
        value, slope = (grown - z) / k**2, grown / k
        return value, slope, (u * grown - 2 * value * k) / k**2
    safe = np.where(small, 1.0, k)
    value = np.where(small, u * u * (0.5 + z / 6 + z * z / 24), (grown - z) / safe**2)
    slope = np.where(small, u * (1 + z / 2 + z * z / 6), grown / safe)
    in_k = np.where(small, u**3 * (1 / 6 + z / 12), (u * grown - 2 * value * safe) / safe**2)
    return value, slope, in_k


@dataclass(frozen=True, eq=False)
class BasinShape:
    """Evaluate the basin over one axis or two, with log-linear trends of its curvatures over cells.

    Parameters
    ----------
    trend : ndarray (n, q)
        Centred covariates of every run (log params, log tokens) that the log curvatures may follow; q may be 0.
    axes : int
        1 (learning rate) or 2 (learning rate and batch).
    """

    trend: Array
    axes: int

    @property
    def size(self) -> int:
        """Number of shape parameters: per axis ln A, its trends and k; with two axes also c, p and q."""
        return self.axes * (2 + self.trend.shape[1]) + 3 * (self.axes == 2)

    @property
    def start(self) -> Array:
        """A typical shape: a percent of loss per squared e-fold of lr, half of it for the batch."""
        blocks = [[np.log(a), *np.zeros(self.trend.shape[1]), k] for a, k in ((0.01, 0.8), (0.004, 0.1))[: self.axes]]
        return np.array([*np.concatenate(blocks), *([0.3, 0.0, 0.0] if self.axes == 2 else [])])

    @property
    def trends(self) -> Array:
        """Indices of the trend parameters, which deserve shrinking."""
        width = 2 + self.trend.shape[1]
        return np.concatenate([np.arange(a * width + 1, a * width + 1 + self.trend.shape[1]) for a in range(self.axes)])

    def __call__(self, psi: Array, offsets: Array) -> tuple[Array, Array, Array]:
        """Return height, its gradient in the offsets and its Jacobian in the shape parameters.

        Parameters
        ----------
        psi : ndarray (K, size)
        offsets : ndarray (axes, K, n)
            Log settings minus log optimum.

        Returns
        -------
        height : ndarray (K, n)
        gradient : ndarray (axes, K, n)
        jacobian : ndarray (K, size, n)
        """
        if self.axes == 1:
            return self._straight(psi, offsets)
        c, p, q = (psi[:, j : j + 1] for j in range(self.size - 3, self.size))
        u, v = offsets
        height, gradient, jacobian = self._straight(psi, np.array([u - c * v - p * v * v, v - q * u * u]))
        in_s, in_t = gradient
        jacobian[:, -3], jacobian[:, -2], jacobian[:, -1] = -in_s * v, -in_s * v * v, -in_t * u * u
        return height, np.array([in_s - 2 * q * u * in_t, in_t - (c + 2 * p * v) * in_s]), jacobian

    def _straight(self, psi: Array, offsets: Array) -> tuple[Array, Array, Array]:
        """Evaluate the basin whose valley is straight in these offsets."""
        width = 2 + self.trend.shape[1]
        height = np.zeros(offsets.shape[1:])
        gradient = np.zeros_like(offsets)
        jacobian = np.zeros((len(psi), self.size, offsets.shape[2]))
        for a in range(self.axes):
            own = psi[:, a * width : (a + 1) * width]
            log_a = own[:, :1] + own[:, 1:-1] @ self.trend.T
            amplitude = np.exp(np.clip(log_a, -_WIDEST, _WIDEST))
            g, slope, in_k = bend(offsets[a], own[:, -1:])
            height += amplitude * g
            gradient[a] = amplitude * slope
            jacobian[:, a * width + width - 1] = amplitude * in_k
            self._add_amplitude(jacobian, a, amplitude * g)
        return height, gradient, jacobian

    def _add_amplitude(self, jacobian: Array, axis: int, part: Array) -> None:
        """Add d(part)/d(ln A and its trends) for a part proportional to A."""
        first = axis * (2 + self.trend.shape[1])
        jacobian[:, first] += part
        for j, column in enumerate(self.trend.T, start=first + 1):
            jacobian[:, j] += part * column
