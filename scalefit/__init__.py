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
    RefitError,
    ScalefitError,
    ScalefitWarning,
    SweepError,
)
from scalefit.extractors import Basin, GridMinimum, NearMinimum, Parabola
from scalefit.fitting import Fit, FitStatus
from scalefit.laws import Law
from scalefit.loaders import read_sweep
from scalefit.optima import Optima, find_optima
from scalefit.solvers.losses import Huber, SoftL1, Squared
from scalefit.sweep import Sweep
from scalefit.version import __version__ as __version__

if TYPE_CHECKING:
    from scalefit import plots
    from scalefit.batch import BatchSchedule, BestBatch, adjust_batch, batch_schedule, best_batch
    from scalefit.collection import datasets, load_curves, load_dataset
    from scalefit.curves import Curves, Exponential, Gaussian, LocalLine, MovingAverage, read_curves
    from scalefit.effective_rates import effective_lr, from_effective
    from scalefit.extrapolation import Backtest, backtest
    from scalefit.forecasting import Forecast, extrapolate
    from scalefit.refitting import Refit, read_fits, refit
    from scalefit.selection import (
        Average,
        Choice,
        Comparison,
        Ladder,
        NestedTest,
        average_laws,
        choose_law,
        climb_ladder,
        compare,
        fit,
        nested_test,
    )
    from scalefit.sensitivity import Sensitivity, lr_sensitivity, near_optimal
    from scalefit.surface import Surface, SurfaceDraws, fit_surface
    from scalefit.surge import (
        NoiseConstants,
        RateCurve,
        StepOptimum,
        SurgeConstants,
        fit_rate_curve,
        sgd_constants,
        sgd_optimum,
        sign_optimum,
        surge_constants,
    )
    from scalefit.tradeoff import (
        Hyperbola,
        InverseSteps,
        Overhead,
        StepsLine,
        Tradeoff,
        TradeoffPoints,
        fit_tradeoff,
        tradeoff_points,
    )
    from scalefit.uncertainty import Draws, bootstrap

_UPSTAIRS = {
    "Average": "selection",
    "Backtest": "extrapolation",
    "BatchSchedule": "batch",
    "BestBatch": "batch",
    "Choice": "selection",
    "Comparison": "selection",
    "Curves": "curves",
    "Draws": "uncertainty",
    "Exponential": "curves",
    "Forecast": "forecasting",
    "Gaussian": "curves",
    "Hyperbola": "tradeoff",
    "InverseSteps": "tradeoff",
    "Ladder": "selection",
    "LocalLine": "curves",
    "MovingAverage": "curves",
    "NestedTest": "selection",
    "NoiseConstants": "surge",
    "Overhead": "tradeoff",
    "RateCurve": "surge",
    "Refit": "refitting",
    "Sensitivity": "sensitivity",
    "StepOptimum": "surge",
    "StepsLine": "tradeoff",
    "Surface": "surface",
    "SurfaceDraws": "surface",
    "SurgeConstants": "surge",
    "Tradeoff": "tradeoff",
    "TradeoffPoints": "tradeoff",
    "adjust_batch": "batch",
    "average_laws": "selection",
    "backtest": "extrapolation",
    "batch_schedule": "batch",
    "best_batch": "batch",
    "bootstrap": "uncertainty",
    "choose_law": "selection",
    "climb_ladder": "selection",
    "compare": "selection",
    "datasets": "collection",
    "effective_lr": "effective_rates",
    "extrapolate": "forecasting",
    "fit": "selection",
    "fit_rate_curve": "surge",
    "fit_surface": "surface",
    "fit_tradeoff": "tradeoff",
    "from_effective": "effective_rates",
    "load_curves": "collection",
    "load_dataset": "collection",
    "lr_sensitivity": "sensitivity",
    "near_optimal": "sensitivity",
    "nested_test": "selection",
    "read_curves": "curves",
    "read_fits": "refitting",
    "refit": "refitting",
    "sgd_constants": "surge",
    "sgd_optimum": "surge",
    "sign_optimum": "surge",
    "surge_constants": "surge",
    "tradeoff_points": "tradeoff",
}
"""Names of the upper floors, loaded when first used: a shell command that needs none of them should not wait."""

__all__ = [
    "Average",
    "Backtest",
    "Basin",
    "BatchSchedule",
    "BestBatch",
    "Choice",
    "Comparison",
    "Curves",
    "Draws",
    "Exponential",
    "ExtrapolationWarning",
    "Fit",
    "FitError",
    "FitStatus",
    "Forecast",
    "Gaussian",
    "GridMinimum",
    "Huber",
    "Hyperbola",
    "InverseSteps",
    "Ladder",
    "Law",
    "LawError",
    "LocalLine",
    "MovingAverage",
    "NearMinimum",
    "NestedTest",
    "NoiseConstants",
    "Optima",
    "Overhead",
    "Parabola",
    "RateCurve",
    "Refit",
    "RefitError",
    "ScalefitError",
    "ScalefitWarning",
    "Sensitivity",
    "SoftL1",
    "Squared",
    "StepOptimum",
    "StepsLine",
    "Surface",
    "SurfaceDraws",
    "SurgeConstants",
    "Sweep",
    "SweepError",
    "Tradeoff",
    "TradeoffPoints",
    "adjust_batch",
    "average_laws",
    "backtest",
    "batch_schedule",
    "best_batch",
    "bootstrap",
    "choose_law",
    "climb_ladder",
    "compare",
    "datasets",
    "effective_lr",
    "extrapolate",
    "find_optima",
    "fit",
    "fit_rate_curve",
    "fit_surface",
    "fit_tradeoff",
    "from_effective",
    "laws",
    "load_curves",
    "load_dataset",
    "lr_sensitivity",
    "near_optimal",
    "nested_test",
    "plots",
    "read_curves",
    "read_fits",
    "read_sweep",
    "refit",
    "sgd_constants",
    "sgd_optimum",
    "sign_optimum",
    "surge_constants",
    "tradeoff_points",
]


def __getattr__(name: str) -> Any:
    if name == "plots":
        return import_module("scalefit.plots")
    if name not in _UPSTAIRS:
        raise AttributeError(f"module 'scalefit' has no attribute {name!r}")
    return getattr(import_module(f"scalefit.{_UPSTAIRS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
