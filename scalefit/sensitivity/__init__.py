"""How much the learning rate matters: what a wrong one costs, and which ones cost little."""

from scalefit.sensitivity.cost import Sensitivity, lr_sensitivity
from scalefit.sensitivity.near import near_optimal

__all__ = ["Sensitivity", "lr_sensitivity", "near_optimal"]
