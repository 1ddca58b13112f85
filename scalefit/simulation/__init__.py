"""Simulated runs from a stated truth: sweeps to test methods on, and noisy quadratics to test the theory on."""

from scalefit.simulation.bundle import write_bundle
from scalefit.simulation.expectations import expected_step, sgd_mean_loss, step_limits
from scalefit.simulation.one_step import optimal_step
from scalefit.simulation.optimizers import SGD, Adam, SignSGD
from scalefit.simulation.paths import trace_run
from scalefit.simulation.quadratic import NoisyQuadratic, from_gradient, mean_field
from scalefit.simulation.sweeps import Design, simulate_sweep, true_cells
from scalefit.simulation.truths import Truth
from scalefit.simulation.whole_runs import TargetRuns, steps_to_target

__all__ = [
    "SGD",
    "Adam",
    "Design",
    "NoisyQuadratic",
    "SignSGD",
    "TargetRuns",
    "Truth",
    "expected_step",
    "from_gradient",
    "mean_field",
    "optimal_step",
    "sgd_mean_loss",
    "simulate_sweep",
    "step_limits",
    "steps_to_target",
    "trace_run",
    "true_cells",
    "write_bundle",
]
