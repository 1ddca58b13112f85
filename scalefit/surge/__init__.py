"""Surge: how the best learning rate moves with the batch, from theory and from measured pairs."""

from scalefit.surge.curve import RateCurve
from scalefit.surge.recipe import fit_rate_curve
from scalefit.surge.sign_gradient import (
    NoiseConstants,
    StepOptimum,
    SurgeConstants,
    sgd_constants,
    sgd_optimum,
    sign_optimum,
    surge_constants,
)

__all__ = [
    "NoiseConstants",
    "RateCurve",
    "StepOptimum",
    "SurgeConstants",
    "fit_rate_curve",
    "sgd_constants",
    "sgd_optimum",
    "sign_optimum",
    "surge_constants",
]
