"""Simulated sweeps from a stated truth, to test methods on."""

from scalefit.simulation._simulate_sweep import Design, simulate_sweep, true_cells, write_bundle
from scalefit.simulation.truth import Truth

__all__ = ["Design", "Truth", "simulate_sweep", "true_cells", "write_bundle"]
