"""The shapes a rate may take over the batch once the noise scale is known: all but the height."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """ln(eta / eta_max) over u = ln(B / B_noise).

    Parameters
    ----------
    rule : str
    law : str
        Its name in the catalogue of laws.
    label : str
        What it is for.
    log : callable
        u -> ln(eta / eta_max).
    slope : callable
        u -> its derivative in ln B_noise.
    """

    rule: str
    law: str
    label: str
    log: Callable[[Floats], Floats]
    slope: Callable[[Floats], Floats]


def _sgd(alpha: float) -> tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]:
    return (lambda u: -alpha * np.logaddexp(0.0, -u)), (lambda u: -alpha / (1 + np.exp(np.minimum(u, 700.0))))


SHAPES: tuple[Shape, ...] = (
    Shape(
        "adam",
        "lr_surge",
        "Adam and sign descent, theorem 3",
        lambda u: np.log(2.0) - np.logaddexp(u / 2, -u / 2),
        lambda u: 0.5 * np.tanh(u / 2),
    ),
    Shape("sgd", "lr_sgd_exact", "SGD, alpha = 1", *_sgd(1.0)),
    Shape("sgd_root", "lr_saturating", "alpha = 1/2", *_sgd(0.5)),
)
"""The curves that Li et al. 2024 draw."""


def shape_of(rule: str) -> Shape:
    """Return a shape by its rule.

    Raises
    ------
    KeyError
        If there is none.
    """
    return {shape.rule: shape for shape in SHAPES}[rule]
