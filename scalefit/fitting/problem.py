"""A law on data, as arrays: what stands between tables and solvers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from scalefit.errors import FitError
from scalefit.laws.formula import Law
from scalefit.solvers.distributions import deviance
from scalefit.solvers.losses import Loss

if TYPE_CHECKING:
    from scalefit.laws.derivation import Derivation

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Problem:
    """One fitting problem in fit coordinates.

    Parameters
    ----------
    law : Law
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
    censored : ndarray of int (n,) or None
        Where the truth lies: at the target (0), at or below it (-1), at or above it (+1). None when all are points.
    scale : float
        Scatter of a row of weight one, by which a bound is soft.
    """

    law: Law
    inputs: list[Array]
    target: Array
    weights: Array
    space: str
    loss: Loss
    lower: Array
    upper: Array
    censored: Array | None = None
    scale: float = np.nan

    @property
    def derivation(self) -> Derivation:
        """What follows from the law."""
        return self.law.derivation

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        return self.derivation.parameters

    @cached_property
    def observed(self) -> Array:
        """The target as the residuals see it."""
        return np.log(self.target) if self.space == "log" else self.target

    def values(self, space: str) -> Callable[[Array], tuple[Array, Array]]:
        """Return phi -> law values (K, n) and Jacobian (K, p, n) on the data, in one space."""
        function, count = self.derivation.function(space), len(self.target)

        def values(phi: Array) -> tuple[Array, Array]:
            value, jacobian = function(phi, self.inputs)
            if jacobian.shape[2] != count:  # a law without inputs has one value for all rows
                jacobian = np.repeat(jacobian, count, axis=2)
                value = np.repeat(value, count, axis=1)
            return value, jacobian

        return values

    def model(self) -> Callable[[Array], tuple[Array, Array]]:
        """Return phi -> residuals (K, n) and Jacobian (K, p, n)."""
        values, observed = self.values(self.space), self.observed

        def residuals(phi: Array) -> tuple[Array, Array]:
            value, jacobian = values(phi)
            return self.soften(value - observed, jacobian)

        return residuals

    @property
    def bounds(self) -> Array:
        """Which rows are bounds."""
        return np.zeros(len(self.target), dtype=bool) if self.censored is None else self.censored != 0

    def soften(self, residual: Array, jacobian: Array) -> tuple[Array, Array]:
        """Turn the residuals (K, n) of bounds into signed deviances, whose half square is -ln of their probability."""
        if self.censored is None:
            return residual, jacobian
        soft = self.bounds & (self.weights > 0)
        spread = self.scale / np.sqrt(self.weights[soft])
        size, fall = deviance(self.censored[soft] * residual[:, soft] / spread)
        residual, jacobian = residual.copy(), jacobian.copy()
        residual[:, soft] = -self.censored[soft] * spread * size
        jacobian[:, :, soft] *= fall[:, None, :]
        return residual, jacobian

    def objective(self, phi: Array) -> Array:
        """Return the sum of w rho(r) for every row of phi; inf where it cannot be computed."""
        residual, _ = self.model()(phi)
        with np.errstate(all="ignore"):
            total = (self.weights * self.loss.value(residual)).sum(axis=1)
        return np.where(np.isfinite(total), total, np.inf)

    def is_linear(self) -> bool:
        """Tell whether the residuals are linear in the free coordinates and nothing bounds those."""
        free = self.lower < self.upper
        names = set(np.array(self.parameters)[free])
        bent = self.space == "plain" and bool(self.derivation.logged[free].any())
        bounded = bool(np.isfinite(np.concatenate([self.lower[free], self.upper[free]])).any())
        straight = not bent and not bounded and self.censored is None
        return names <= set(self.derivation.linear(self.space)) and straight

    def rounding(self) -> float:
        """Return the objective that rounding alone can leave: below it a fit is exact."""
        typical = 256 * np.finfo(float).eps * np.maximum(np.abs(self.observed), 1.0 if self.space == "log" else 0.0)
        return float((self.weights * self.loss.value(typical)).sum())

    def take(self, rows: Array) -> Problem:
        """Return the problem on some of the rows, or on all of them in another order."""
        parts = {name: getattr(self, name)[rows] for name in ("target", "weights")}
        censored = None if self.censored is None else self.censored[rows]
        return replace(self, inputs=[u[rows] for u in self.inputs], censored=censored, **parts)

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


def fit_bounds(law: Law, bounds: Mapping[str, tuple[float, float]], fixed: Mapping[str, float]) -> tuple[Array, Array]:
    """Return lower and upper bounds in fit coordinates; fixed parameters have equal ones.

    Raises
    ------
    FitError
        If a parameter that must be positive may not be.
    """
    limits = {**bounds, **{name: (value, value) for name, value in fixed.items()}}
    low = np.array([limits.get(name, (-np.inf, np.inf))[0] for name in law.parameters], dtype=float)
    high = np.array([limits.get(name, (-np.inf, np.inf))[1] for name in law.parameters], dtype=float)
    logged = law.derivation.logged
    below = logged & (high <= 0)
    if below.any():
        name = law.parameters[int(np.flatnonzero(below)[0])]
        raise FitError(
            f"{name} must be positive in {law.formula!r}; its bound or fixed value is not. "
            "To do without its term, write the law without it"
        )
    return law.derivation.to_fit(np.where(logged, np.maximum(low, 0.0), low)), law.derivation.to_fit(high)
