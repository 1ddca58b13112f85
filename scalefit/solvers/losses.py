"""Loss functions rho(r) of a residual, with what a second-order solver and honest errors need of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

Array = np.ndarray


class Loss(Protocol):
    """A convex loss rho(r) with rho(r) = r**2/2 near zero; objectives are SUMS of it, never means."""

    @property
    def robust(self) -> bool:
        """Whether large residuals count less than their square."""

    def value(self, r: Array) -> Array:
        """Return rho(r)."""

    def weight(self, r: Array) -> Array:
        """Return psi(r)/r = rho'(r)/r, the weight of a row in reweighted least squares."""

    def curvature(self, r: Array) -> Array:
        """Return psi'(r) = rho''(r)."""


@dataclass(frozen=True)
class Squared:
    """Half the squared residual, r**2/2: least squares.

    See Also
    --------
    Huber, SoftL1 : losses that outliers pull less

    Examples
    --------
    >>> import numpy as np
    >>> import scalefit as sf
    >>> sf.Squared().value(np.array([1.0, 2.0]))
    array([0.5, 2. ])
    """

    robust = False

    def value(self, r: Array) -> Array:
        """Return r**2/2."""
        return 0.5 * r * r

    def weight(self, r: Array) -> Array:
        """Return ones."""
        return np.ones_like(r)

    def curvature(self, r: Array) -> Array:
        """Return ones."""
        return np.ones_like(r)


@dataclass(frozen=True)
class Huber:
    """Huber's loss: ``r**2/2`` within delta of zero, ``delta (|r| - delta/2)`` beyond.

    Parameters
    ----------
    delta : float
        Where squares turn into absolute values, in units of the residual (nats of log target in log space).
        Hoffmann et al. 2022 (arXiv:2203.15556, section 3.3) use 1e-3 on the log loss.

    Raises
    ------
    ValueError
        If delta is not a positive number.

    See Also
    --------
    SoftL1 : the same with a smooth bend
    Squared : least squares

    References
    ----------
    Huber (1964), Robust estimation of a location parameter, Annals of Mathematical Statistics 35, 73.

    Examples
    --------
    >>> import numpy as np
    >>> import scalefit as sf
    >>> sf.Huber(1e-3).value(np.array([5e-4, 1e-2]))
    array([1.25e-07, 9.50e-06])
    """

    delta: float = 1e-3
    robust = True

    def __post_init__(self) -> None:
        _check_positive("delta", self.delta)

    def value(self, r: Array) -> Array:
        """Return Huber's rho(r)."""
        size = np.abs(r)
        inside = np.minimum(size, self.delta)
        return inside * (size - 0.5 * inside)

    def weight(self, r: Array) -> Array:
        """Return 1 inside, ``delta/|r|`` outside."""
        return self.delta / np.maximum(np.abs(r), self.delta)

    def curvature(self, r: Array) -> Array:
        """Return 1 inside, 0 outside."""
        return (np.abs(r) <= self.delta).astype(float)


@dataclass(frozen=True)
class SoftL1:
    """The smooth absolute value, ``scale**2 (sqrt(1 + (r/scale)**2) - 1)``.

    Parameters
    ----------
    scale : float
        Where squares turn into absolute values, in units of the residual (nats of log target in log space).

    Raises
    ------
    ValueError
        If scale is not a positive number.

    See Also
    --------
    Huber : the same with a sharp bend
    Squared : least squares

    Examples
    --------
    >>> import numpy as np
    >>> import scalefit as sf
    >>> sf.SoftL1(0.1).value(np.array([0.001, 1.0])).round(9)
    array([5.0000000e-07, 9.0498756e-02])
    """

    scale: float = 1e-3
    robust = True

    def __post_init__(self) -> None:
        _check_positive("scale", self.scale)

    def value(self, r: Array) -> Array:
        """Return rho(r), computed without cancellation at small r."""
        z = (r / self.scale) ** 2
        return self.scale**2 * z / (1 + np.sqrt(1 + z))

    def weight(self, r: Array) -> Array:
        """Return 1/sqrt(1 + (r/scale)**2)."""
        return 1 / np.sqrt(1 + (r / self.scale) ** 2)

    def curvature(self, r: Array) -> Array:
        """Return (1 + (r/scale)**2)**(-3/2)."""
        return (1 + (r / self.scale) ** 2) ** -1.5


LOSSES: dict[str, type] = {"Squared": Squared, "Huber": Huber, "SoftL1": SoftL1}
"""Every loss by name, for files and shared tests."""


def loss_to_dict(loss: Any) -> dict[str, Any]:
    """Return a loss as plain values."""
    return {"name": type(loss).__name__, **asdict(loss)}


def loss_from_dict(record: dict[str, Any]) -> Any:
    """Rebuild a loss from `loss_to_dict`."""
    settings = {key: float(value) for key, value in record.items() if key != "name"}
    return LOSSES[record["name"]](**settings)


def _check_positive(name: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name}: expected a positive number, found {value!r}")
