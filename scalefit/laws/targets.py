"""Quantities that laws predict although no single run has them: they are read off many runs together."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from scalefit.vocabulary import quantity_of

READ_OFF: Mapping[str, str] = MappingProxyType(
    {
        "B_crit": "critical batch size, data per step",
        "B_noise": "noise scale of the gradient, data per step",
        "S_min": "fewest steps that reach a loss",
        "E_min": "least data that reaches a loss",
        "eta_max": "largest of the best learning rates over all batches",
        "dL": "largest fall of the loss in one step",
    }
)
"""Positive targets outside the vocabulary. On the right of a formula these names are parameters as any other."""


def is_positive(target: str) -> bool:
    """Tell whether what a law predicts is known to be positive, so that it is fitted in logs.

    Examples
    --------
    >>> is_positive("B_crit"), is_positive("eta"), is_positive("score")
    (True, True, False)
    """
    return target in READ_OFF or quantity_of(target) is not None
