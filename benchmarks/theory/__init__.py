"""Noisy quadratics that train: what the theory of the best rate and the critical batch is held against."""

from theory.noisy_quadratic import SGD, Adam, NoisyQuadratic, SignSGD, from_gradient, mean_field, sgd_mean_loss
from theory.one_step import optimal_step
from theory.whole_runs import TargetRuns, steps_to_target, trace_run

__all__ = [
    "SGD",
    "Adam",
    "NoisyQuadratic",
    "SignSGD",
    "TargetRuns",
    "from_gradient",
    "mean_field",
    "optimal_step",
    "sgd_mean_loss",
    "steps_to_target",
    "trace_run",
]
