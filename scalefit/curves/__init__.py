"""Loss curves of many runs: read, smoothed, cut to final losses, and asked when they reach a target."""

from __future__ import annotations

from scalefit.curves.bundle import Curves
from scalefit.curves.reading import read_curves
from scalefit.curves.smoothing import Exponential, Gaussian, LocalLine, MovingAverage

__all__ = ["Curves", "Exponential", "Gaussian", "LocalLine", "MovingAverage", "read_curves"]
