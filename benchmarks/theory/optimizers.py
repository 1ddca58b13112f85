"""Update directions: SGD, sign-SGD and Adam, for any number of runs at once."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scalefit.errors import SweepError

Floats = NDArray[np.float64]


Moments = tuple[Floats, ...]


class Optimizer(Protocol):
    """What the simulations ask of an optimizer: weights move by ``-lr * direction``."""

    @property
    def memory(self) -> int:
        """Steps after which the moments have forgotten how they began."""
        ...

    def prepare(self, shape: tuple[int, ...]) -> Moments:
        """Return the moments before the first step."""
        ...

    def direction(self, gradient: Floats, moments: Moments, step: int) -> tuple[Floats, Moments]:
        """Return the direction of step 1, 2, ... and the moments after it."""
        ...


@dataclass(frozen=True)
class SGD:
    """Steps along the gradient.

    Examples
    --------
    >>> SGD().direction(np.array([0.3, -2.0]), (), step=1)[0].tolist()
    [0.3, -2.0]
    """

    @property
    def memory(self) -> int:
        """Nothing is remembered: 0."""
        return 0

    def prepare(self, shape: tuple[int, ...]) -> Moments:
        """Return no moments."""
        return ()

    def direction(self, gradient: Floats, moments: Moments, step: int) -> tuple[Floats, Moments]:
        """Return the gradient."""
        return gradient, ()


@dataclass(frozen=True)
class SignSGD:
    """Steps along the sign of the gradient, coordinate by coordinate: Adam without memory.

    Examples
    --------
    >>> SignSGD().direction(np.array([0.3, -2.0]), (), step=1)[0].tolist()
    [1.0, -1.0]
    """

    @property
    def memory(self) -> int:
        """Nothing is remembered: 0."""
        return 0

    def prepare(self, shape: tuple[int, ...]) -> Moments:
        """Return no moments."""
        return ()

    def direction(self, gradient: Floats, moments: Moments, step: int) -> tuple[Floats, Moments]:
        """Return the signs."""
        return np.sign(gradient), ()


@dataclass(frozen=True)
class Adam:
    r"""Adam with bias correction (arXiv:1412.6980): :math:`\hat m / (\sqrt{\hat v} + \epsilon)`.

    Parameters
    ----------
    beta1, beta2 : float
        Decay of the first and of the second moment, 0 to below 1; with both 0 it is `SignSGD`.
    epsilon : float
        Added to the root of the second moment.

    Examples
    --------
    >>> adam = Adam(beta1=0.0, beta2=0.0)
    >>> adam.direction(np.array([0.3, -2.0]), adam.prepare((2,)), step=1)[0].round(6).tolist()
    [1.0, -1.0]
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-12

    def __post_init__(self) -> None:
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and self.epsilon >= 0):
            raise SweepError(f"Adam needs betas from 0 to below 1 and epsilon not below 0, found {self!r}")

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
