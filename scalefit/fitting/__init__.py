"""Fitting: a law and a table in, a `Fit` with honest errors out."""

from scalefit.fitting.engine import fit
from scalefit.fitting.result import Fit
from scalefit.fitting.status import FitStatus

__all__ = ["Fit", "FitStatus", "fit"]
