"""A law on data, as arrays: what stands between tables and solvers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from scalefit.solvers.losses import Loss

if TYPE_CHECKING:
    from scalefit.laws.derivation import Derivation

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Problem:
    """One fitting problem in fit coordinates.

    Parameters
    ----------
    derivation : Derivation
        The compiled law.
    inputs : list of ndarray (n,)
        Entered inputs (logs where positive).
    target : ndarray (n,)
        The observed target in natural units.
    weights : ndarray (n,)
    space : {"log", "plain"}
        Residuals are differences of logs or of values.
    loss : Loss
    lower, upper : ndarray (p,)
        Bounds in fit coordinates; equal where a parameter is held.
    """

    derivation: Derivation
    inputs: list[Array]
    target: Array
    weights: Array
    space: str
    loss: Loss
    lower: Array
    upper: Array

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        return self.derivation.parameters

    @cached_property
    def observed(self) -> Array:
        """The target as the residuals see it."""
        return np.log(self.target) if self.space == "log" else self.target

    def values(self, space: str) -> Callable[[Array], tuple[Array, Array]]:
        """Return phi -> law values and Jacobian on the data, in one space."""
        function = self.derivation.function(space)
        return lambda phi: function(phi, self.inputs)

    def model(self) -> Callable[[Array], tuple[Array, Array]]:
        """Return phi -> residuals (K, n) and Jacobian (K, p, n)."""
        function, observed = self.derivation.function(self.space), self.observed

        def residuals(phi: Array) -> tuple[Array, Array]:
            value, jacobian = function(phi, self.inputs)
            return value - observed, jacobian

        return residuals

    def objective(self, phi: Array) -> Array:
        """Return the sum of w rho(r) for every row of phi; inf where it cannot be computed."""
        residual, _ = self.model()(phi)
        with np.errstate(all="ignore"):
            total = (self.weights * self.loss.value(residual)).sum(axis=1)
        return np.where(np.isfinite(total), total, np.inf)

    @property
    def projection_space(self) -> str:
        """The form in which more parameters are linear, where projection is legitimate."""
        if self.space == "plain":
            return "plain"
        linear = self.derivation.linear
        return "log" if len(linear("log")) >= len(linear("plain")) else "plain"

    def projection_target(self) -> tuple[Array, Array]:
        """Return target and weights for projection; relative errors stand in for differences of logs."""
        if self.space == "log" and self.projection_space == "plain":
            return self.target, self.weights / self.target**2
        return self.observed, self.weights
