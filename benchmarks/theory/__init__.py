"""Noisy quadratics that train: what the theory of the best rate and the critical batch is held against."""

from theory.expectations import expected_step, sgd_mean_loss, step_limits
from theory.one_step import optimal_step
from theory.optimizers import SGD, Adam, SignSGD
from theory.paths import trace_run
from theory.quadratic import NoisyQuadratic, from_gradient, mean_field
from theory.whole_runs import TargetRuns, steps_to_target

__all__ = [
    "SGD",
    "Adam",
    "NoisyQuadratic",
    "SignSGD",
    "TargetRuns",
    "expected_step",
    "from_gradient",
    "mean_field",
    "optimal_step",
    "sgd_mean_loss",
    "step_limits",
    "steps_to_target",
    "trace_run",
]
