"""scalefit: optimal learning rate, batch size and loss scaling laws from tables of smaller runs, with honest errors.

Read a table of runs with `read_sweep`, find each cell's optimum with `find_optima`, fit a law to it with `fit`, or all
runs at once with `fit_surface`; predict a larger run, and let `backtest` say how far such predictions were off.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from scalefit import laws
from scalefit.errors import (
    ExtrapolationWarning,
    FitError,
    LawError,
    ScalefitError,
    ScalefitWarning,
    SweepError,
)
from scalefit.extractors import Basin, GridMinimum, NearMinimum, Parabola
from scalefit.fitting import Fit, FitStatus, fit
from scalefit.laws import Law
from scalefit.loaders import read_sweep
from scalefit.optima import Optima, find_optima
from scalefit.solvers.losses import Huber, SoftL1, Squared
from scalefit.sweep import Sweep

if TYPE_CHECKING:
    from scalefit.collection import datasets, load_dataset
    from scalefit.effective_rates import effective_lr, from_effective
    from scalefit.extrapolation import Backtest, backtest
    from scalefit.forecasting import Forecast, extrapolate
    from scalefit.selection import Choice, Comparison, choose_law, compare
    from scalefit.sensitivity import Sensitivity, lr_sensitivity, near_optimal
    from scalefit.surface import Surface, fit_surface
    from scalefit.uncertainty import Draws, bootstrap

__version__ = "0.1.0"

_UPSTAIRS = {
    "Backtest": "extrapolation",
    "Choice": "selection",
    "Comparison": "selection",
    "Draws": "uncertainty",
    "Forecast": "forecasting",
    "Sensitivity": "sensitivity",
    "Surface": "surface",
    "backtest": "extrapolation",
    "bootstrap": "uncertainty",
    "choose_law": "selection",
    "compare": "selection",
    "datasets": "collection",
    "effective_lr": "effective_rates",
    "extrapolate": "forecasting",
    "fit_surface": "surface",
    "from_effective": "effective_rates",
    "load_dataset": "collection",
    "lr_sensitivity": "sensitivity",
    "near_optimal": "sensitivity",
}
"""Names of the upper floors, loaded when first used: a shell command that needs none of them should not wait."""

__all__ = [
    "Backtest",
    "Basin",
    "Choice",
    "Comparison",
    "Draws",
    "ExtrapolationWarning",
    "Fit",
    "FitError",
    "FitStatus",
    "Forecast",
    "GridMinimum",
    "Huber",
    "Law",
    "LawError",
    "NearMinimum",
    "Optima",
    "Parabola",
    "ScalefitError",
    "ScalefitWarning",
    "Sensitivity",
    "SoftL1",
    "Squared",
    "Surface",
    "Sweep",
    "SweepError",
    "backtest",
    "bootstrap",
    "choose_law",
    "compare",
    "datasets",
    "effective_lr",
    "extrapolate",
    "find_optima",
    "fit",
    "fit_surface",
    "from_effective",
    "laws",
    "load_dataset",
    "lr_sensitivity",
    "near_optimal",
    "read_sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _UPSTAIRS:
        raise AttributeError(f"module 'scalefit' has no attribute {name!r}")
    return getattr(import_module(f"scalefit.{_UPSTAIRS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
