"""Bounds that the law itself sets: where its powers and logs are real on every row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scalefit.laws.derivation import Derivation

Array = np.ndarray

_INSIDE = 1e-9
"""How far inside its domain a parameter ends, in spreads of the rows that limit it."""


def within_domain(derivation: Derivation, inputs: Sequence[Array], lower: Array, upper: Array) -> tuple[Array, Array]:
    """Tighten the bounds of free parameters to where powers and logs are real on every row, as x - m > 0 asks of m."""
    lower, upper = lower.copy(), upper.copy()
    for j, side, limits in derivation.domains:
        limit = limits(inputs)
        # Not the edge itself: there a power has no slope, and the solver could not say which way is down.
        edge = side * np.max(side * limit) + side * _INSIDE * (np.ptp(limit) or np.max(np.abs(limit)))
        edge = np.log(edge) if derivation.logged[j] and edge > 0 else -np.inf if derivation.logged[j] else edge
        if lower[j] < upper[j] and side > 0:
            lower[j] = max(lower[j], min(edge, upper[j]))
        elif lower[j] < upper[j]:
            upper[j] = min(upper[j], max(edge, lower[j]))
    return lower, upper
