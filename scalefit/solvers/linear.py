"""Linear least squares, many problems at once: dense, arrow-shaped, and inside a nonlinear fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations

import numpy as np

Array = np.ndarray


def solve_normal(hessian: Array, gradient: Array) -> Array:
    """Solve H x = g for a stack of positive semi-definite H, scaled to unit diagonal.

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


def nonnegative(hessian: Array, gradient: Array, positive: Array) -> Array:
    """Minimise x'Hx/2 - g'x with some coordinates held non-negative, for a stack of problems.

    Every set of active constraints is tried and the best feasible one kept, which is exact and quick for the handful
    of coefficients a law has. With more than six constrained coordinates the negative ones are only set to zero.
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


@dataclass(frozen=True, eq=False)
class Arrow:
    """The blocks of a symmetric matrix whose groups touch each other through the shared parameters only."""

    own: Array  # (groups, m, m), blocks of each group's own parameters
    cross: Array  # (groups, m, q), blocks between a group's own parameters and the shared ones
    shared: Array  # (q, q)

    @classmethod
    def of(cls, own: Array, shared: Array, weight: Array) -> Arrow:
        """Return the weighted products of Jacobians: own (groups, m, n), shared (groups, q, n), weight (groups, n)."""
        weighted = own * weight[:, None]
        across = np.einsum("gan,gbn->ab", shared * weight[:, None], shared)
        return cls(weighted @ own.transpose(0, 2, 1), weighted @ shared.transpose(0, 2, 1), across)

    def plus(self, own: Array, shared: Array) -> Arrow:
        """Add to the diagonals: own (m,) to that of every group, shared (q,)."""
        return Arrow(self.own + np.diag(own), self.cross, self.shared + np.diag(shared))

    def damped(self, factor: float) -> Arrow:
        """Raise the diagonal by a fraction of itself, as Marquardt does."""
        raised = self.own + factor * self.own * np.eye(self.own.shape[-1])
        return Arrow(raised, self.cross, self.shared + factor * np.diag(np.diag(self.shared)))

    def solve(self, own: Array, shared: Array) -> tuple[Array, Array]:
        """Solve for right-hand sides (groups, m) and (q,)."""
        forward = np.linalg.solve(self.own, own[..., None])[..., 0]
        answer = np.linalg.solve(self.remainder, shared - np.einsum("gms,gm->s", self.cross, forward))
        return forward - self.response @ answer, answer

    @cached_property
    def response(self) -> Array:
        """How far a group's own parameters fall when a shared one rises, the rest at its best (groups, m, q)."""
        return np.linalg.solve(self.own, self.cross)

    @property
    def remainder(self) -> Array:
        """The matrix of the shared parameters once every group has followed (q, q): the Schur complement."""
        return self.shared - np.einsum("gms,gmt->st", self.cross, self.response)


def project(
    model: Callable[[Array], tuple[Array, Array]],
    phi: Array,
    linear: Array,
    logged: Array,
    target: Array,
    weights: Array,
) -> Array:
    """Replace the linear coordinates of every candidate by their least-squares values.

    The model is affine in the natural values of the coordinates `linear` (indices); those that are `logged` are logs of
    positive parameters and are kept non-negative.
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
