"""scalefit: optimal learning rate, batch size and loss scaling laws from tables of smaller runs, with honest errors.

Read a table of runs with `read_sweep`, find each cell's optimum with `find_optima`, fit a law to it with `fit`, and
predict a larger run with `Fit.predict`.
"""

from scalefit import laws
from scalefit.collection import datasets, load_dataset
from scalefit.errors import (
    ExtrapolationWarning,
    FitError,
    LawError,
    PoorFitWarning,
    ScalefitError,
    ScalefitWarning,
    SweepError,
)
from scalefit.extractors import Basin, GridMinimum, NearMinimum, Parabola
from scalefit.extrapolation import Backtest, backtest
from scalefit.fitting import Fit, FitStatus, fit
from scalefit.laws import Law
from scalefit.loaders import read_sweep
from scalefit.optima import Optima, find_optima
from scalefit.solvers.losses import Huber, SoftL1, Squared
from scalefit.surface import Surface, fit_surface
from scalefit.sweep import Sweep
from scalefit.uncertainty import Draws, bootstrap

__version__ = "0.1.0"

__all__ = [
    "Backtest",
    "Basin",
    "Draws",
    "ExtrapolationWarning",
    "Fit",
    "FitError",
    "FitStatus",
    "GridMinimum",
    "Huber",
    "Law",
    "LawError",
    "NearMinimum",
    "Optima",
    "Parabola",
    "PoorFitWarning",
    "ScalefitError",
    "ScalefitWarning",
    "SoftL1",
    "Squared",
    "Surface",
    "Sweep",
    "SweepError",
    "backtest",
    "bootstrap",
    "datasets",
    "find_optima",
    "fit",
    "fit_surface",
    "laws",
    "load_dataset",
    "read_sweep",
]
