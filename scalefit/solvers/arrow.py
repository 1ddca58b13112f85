"""Normal equations of many groups with parameters of their own and a few shared by all: an arrow-shaped matrix."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Arrow:
    """The blocks of a symmetric matrix whose groups touch each other through the shared parameters only.

    Parameters
    ----------
    own : ndarray (groups, m, m)
        Blocks of each group's own parameters.
    cross : ndarray (groups, m, q)
        Blocks between a group's own parameters and the shared ones.
    shared : ndarray (q, q)

    Examples
    --------
    >>> arrow = Arrow(np.array([[[2.0]], [[4.0]]]), np.array([[[1.0]], [[0.0]]]), np.array([[2.5]]))
    >>> own, shared = arrow.solve(np.array([[3.0], [4.0]]), np.array([3.5]))
    >>> own.ravel().round(9).tolist(), shared.round(9).tolist()
    ([1.0, 1.0], [1.0])
    """

    own: Array
    cross: Array
    shared: Array

    @classmethod
    def of(cls, own: Array, shared: Array, weight: Array) -> Arrow:
        """Return the weighted products of Jacobians.

        Parameters
        ----------
        own : ndarray (groups, m, n)
        shared : ndarray (groups, q, n)
        weight : ndarray (groups, n)
        """
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
