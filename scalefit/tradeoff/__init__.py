"""Steps against examples at a target loss: points, the hyperbola through them, and the critical batch size."""

from scalefit.tradeoff.engine import fit_tradeoff
from scalefit.tradeoff.estimators import Hyperbola, InverseSteps, Overhead, StepsLine
from scalefit.tradeoff.points import TradeoffPoints
from scalefit.tradeoff.result import Tradeoff
from scalefit.tradeoff.sources import tradeoff_points

__all__ = [
    "Hyperbola",
    "InverseSteps",
    "Overhead",
    "StepsLine",
    "Tradeoff",
    "TradeoffPoints",
    "fit_tradeoff",
    "tradeoff_points",
]
