r"""A loss basin in formulas: its height over the floor, how much a run counts for it, and the noise of its runs.

.. math:: h = A_1\,g(s; k_1) + A_2\,g(t; k_2),\qquad g(u; k) = (e^{ku} - ku - 1)/k^2

with s = u - c v - p v**2, t = v - q u**2, u = ln lr - ln lr*, v = ln batch - ln batch*. g is a parabola at k = 0; for
k > 0 it rises faster above the optimum than below, as losses do above the best learning rate. c is how the best
learning rate moves with the batch, p and q bend the valley in which the two trade off; the minimum stays at u = v = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray

# Exponents are cut here: runs a trial shape sends further up weigh nothing, and exp must not overflow on the way.
_LARGEST = 30.0


def bend(u: Array, k: Array) -> tuple[Array, Array, Array]:
    """Return g(u; k) with its derivatives in u and in k, accurate through k = 0.

    Examples
    --------
    >>> g, slope, _ = bend(np.array([0.1]), np.array([0.0]))
    >>> g.round(6), slope.round(6)
    (array([0.005]), array([0.1]))
    """
    z = np.clip(k * u, -_LARGEST, _LARGEST)
    # Below 1e-3 the closed forms cancel to half their digits, and the series are exact to 1e-10.
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
    """The basin over one axis or two, with log-linear trends of its curvatures over cells.

    The shape parameters are, for each axis, ln A, its trends and k; then, with two axes, c, p and q.
    """

    trend: Array  # (n, q): centred log params and log tokens of every run, which ln A may follow; q may be 0
    axes: int  # 1 (learning rate) or 2 (learning rate and batch)

    @property
    def width(self) -> int:
        """Number of parameters of one axis: ln A, its trends and k."""
        return 2 + self.trend.shape[1]

    @property
    def size(self) -> int:
        """Number of shape parameters."""
        return self.axes * self.width + 3 * (self.axes == 2)

    @property
    def start(self) -> Array:
        """A typical shape: a percent of loss per squared e-fold of lr, less than half of it for the batch."""
        parts = [[np.log(a), *np.zeros(self.width - 2), k] for a, k in ((0.01, 0.8), (0.004, 0.1))[: self.axes]]
        return np.array([*np.concatenate(parts), *([0.3, 0.0, 0.0] if self.axes == 2 else [])])

    def __call__(self, psi: Array, offsets: Array) -> tuple[Array, Array, Array]:
        """Return height (K, n), gradient (axes, K, n) in the offsets and Jacobian (K, size, n) in the shapes psi.

        Shapes are (K, size); offsets, of log settings from the log optimum, are (axes, K, n).
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
        height = np.zeros(offsets.shape[1:])
        gradient = np.zeros_like(offsets)
        jacobian = np.zeros((len(psi), self.size, offsets.shape[2]))
        for axis in range(self.axes):
            first, last = axis * self.width, (axis + 1) * self.width - 1
            log_a = psi[:, first : first + 1] + psi[:, first + 1 : last] @ self.trend.T
            amplitude = np.exp(np.clip(log_a, -_LARGEST, _LARGEST))
            g, slope, in_k = bend(offsets[axis], psi[:, last : last + 1])
            height += amplitude * g
            gradient[axis] = amplitude * slope
            # The height is proportional to A, so it is its own derivative in ln A.
            jacobian[:, first] = amplitude * g
            jacobian[:, first + 1 : last] = (amplitude * g)[:, None] * self.trend.T
            jacobian[:, last] = amplitude * in_k
        return height, gradient, jacobian


def window_weight(excess: Array, window: float) -> Array:
    """Return what a run counts by its relative excess: 1 at the cell's best, 1/4 at the window, 1/1000 at ten."""
    # Runs that blew up pull nothing, and a coarse grid still has its nearest runs: a hard window has neither.
    return (1 + (excess / window) ** 1.5) ** -2


def widen_window(excess: Array, there: Array, narrow: float, wide: float, enough: float) -> float:
    """Return the narrowest window that leaves the typical cell enough runs, counted by weight."""
    counts = there.sum(axis=1)
    known = counts > 0
    if not known.any():
        return narrow
    # A cell with few runs cannot keep more than it has; half of them is as far as a window should go.
    enough = min(enough, 0.5 * float(np.median(counts[known])))
    for window in np.geomspace(narrow, max(narrow, wide), 20):
        kept = np.where(there, window_weight(np.where(there, excess, 0.0), window), 0.0).sum(axis=1)
        if np.median(kept[known]) >= enough:
            return float(window)
    return max(narrow, wide)


# How many degrees of freedom the noise pooled over cells counts for in each cell's own.
_POOLED_DOF = 4.0


def pool_noise(rss: Array, dof: Array, low: Array) -> tuple[Array, Array]:
    """Return each cell's noise variance, shrunk towards the median relative to its loss, and its degrees of freedom."""
    usable = dof > 0
    if dof.sum() < 0.5:
        return np.full(len(rss), np.nan), np.zeros(len(rss))
    # The median of chi2(dof)/dof lies below 1; the factor (Wilson and Hilferty) lifts it back.
    lift = np.clip(1 - 2 / (9 * np.maximum(dof[usable], 0.5)), 0.2, None) ** 3
    relative = rss[usable] / dof[usable] / low[usable] ** 2 / lift
    # A median: one cell that the shape does not fit must not pass for noise in all others.
    order = np.argsort(relative, kind="stable")
    share = np.cumsum(dof[usable][order])
    pooled = float(relative[order][np.searchsorted(share, share[-1] / 2)])
    prior = np.clip(dof.sum() - dof, 0.0, _POOLED_DOF)
    total = dof + prior
    # Residuals at the level of rounding are no measure of a noise below it.
    return np.maximum((rss + prior * pooled * low**2) / total, (1e-15 * low) ** 2), total
