"""How far points lie outside the rows that a law was fitted to."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scalefit.fitting.fit_values import FitValues
from scalefit.vocabulary import column_of

Array = np.ndarray


_OFF = 2.0
"""By how much more than the rows do a point may leave the line of the other inputs: designs scatter as much."""


def reach_of(fit: FitValues, inputs: pd.DataFrame) -> pd.DataFrame:
    """Return, for each point and input, the factor by which it lies outside the rows fitted (1 inside).

    Outside is beyond the range of an input or, for quantities that are positive, beyond the range that the other inputs
    leave it by their regression over the rows, by more than a factor of two. For an input that is no such quantity the
    distance outside is counted in widths of the range, plus one.
    """
    logged = dict(zip(map(column_of, fit.law.inputs), fit.law.derivation.input_logged, strict=True))
    logged |= {name: True for name in fit.places if name in inputs}
    known = fit.known
    rows = {name: (known[name].to_numpy(dtype=float), inputs[name].to_numpy(dtype=float)) for name in logged}
    logs = {name: (np.log(rows[name][0]), np.log(rows[name][1])) for name in rows if logged[name]}
    reach: dict[str, Array] = {}
    for name, (old, new) in rows.items():
        if not logged[name]:
            reach[name] = 1 + _beyond(old, new) / (np.ptp(old) or 1.0)  # it may be negative and has no ratios
            continue
        off = np.exp(_beyond(*_given(*logs[name], [pair for other, pair in logs.items() if other != name])))
        own = np.maximum(new / old.max(), old.min() / new)
        # Where both say the same, the ratio of the range is the one without rounding.
        reach[name] = np.maximum(np.where(off > np.maximum(_OFF, own * (1 + 1e-9)), off, own), 1.0)
    return pd.DataFrame(reach, index=inputs.index) if reach else pd.DataFrame({"": np.ones(len(inputs))})


def _beyond(old: Array, new: Array) -> Array:
    return np.maximum(np.maximum(new - old.max(), old.min() - new), 0.0)


def _given(old: Array, new: Array, others: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Return what a regression on the other inputs leaves of an input, for the rows and for new points."""
    before, after = (
        np.column_stack([np.ones(len(own)), *(pair[k] for pair in others)]) for k, own in enumerate((old, new))
    )
    line = np.linalg.lstsq(before, old, rcond=1e-10)[0]
    return old - before @ line, new - after @ line
