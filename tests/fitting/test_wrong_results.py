"""A function given another function's result, or a table not yet read, says what it expects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import scalefit as sf


def table() -> pd.DataFrame:
    lr, params = (axis.ravel() for axis in np.meshgrid(2.0 ** np.arange(-3, 4), [1e7, 1e8, 1e9]))
    return pd.DataFrame({"lr": lr, "batch": 1e5, "params": params, "loss": 3 + 0.02 * np.log(lr * params**0.3) ** 2})


def law() -> sf.Fit:
    return sf.fit("eta = c * N**a", {"params": [1e7, 1e8, 1e9], "lr": [3e-3, 1e-3, 5e-4]})


CURVES = pd.DataFrame({"run": "a", "tokens": [1.0, 4.0, 16.0], "lr": 0.1, "loss": [3.0, 2.5, 2.25]})

CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "fit_surface": (lambda: sf.fit_surface(table()), "fit_surface expects a Sweep, found DataFrame"),
    "adjust_batch": (lambda: sf.adjust_batch(table(), 1e5), "adjust_batch expects a Sweep, found DataFrame"),
    "effective_lr": (lambda: sf.effective_lr(table()), "effective_lr expects a Sweep, found DataFrame"),
    "best_batch": (lambda: sf.best_batch(table()), "expected a fit, such as"),
    "predict": (lambda: law().predict([1e9]), "expected a DataFrame of inputs or inputs by name, found list"),
    "targets": (lambda: sf.read_curves(CURVES).tokens_to_target("low"), "targets should be losses to reach"),
    "holdout": (lambda: sf.backtest(sf.Sweep.from_frame(table()), "biggest params"), "'largest params'"),
}


@pytest.mark.parametrize("name", CALLS)
def test_it_is_refused_by_name(name: str) -> None:
    call, text = CALLS[name]
    with pytest.raises(sf.ScalefitError) as caught:
        call()
    assert text in str(caught.value)
