"""`fit` with one more law: "auto", the average of those the data cannot tell apart."""

from __future__ import annotations

from functools import wraps
from typing import Any

from scalefit.errors import FitError
from scalefit.fitting import engine
from scalefit.fitting.result import Fit
from scalefit.laws.formula import Law
from scalefit.selection.averaging import Average, average_laws


@wraps(engine.fit)
def fit(law: Law | str, data: Any, **settings: Any) -> Fit | Average:
    """Fit a law; "auto" averages the usual ones. Replaced by the docstring of the fit it wraps."""
    if law != "auto":
        return engine.fit(law, data, **settings)
    known = {"bounds", "shrink", "weights", "target"}
    if strange := sorted(name for name, value in settings.items() if name not in known and value is not None):
        raise FitError(f"fit('auto', ...) takes {', '.join(sorted(known))}; {', '.join(strange)} belong to one law")
    return average_laws(data, **{name: value for name, value in settings.items() if name in known})
