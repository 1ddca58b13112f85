"""All runs at once: one shape of basin, a floor and a centre for every cell, laws through the centres."""

from scalefit.surface.engine import fit_surface
from scalefit.surface.resampling import SurfaceDraws
from scalefit.surface.result import Surface

__all__ = ["Surface", "SurfaceDraws", "fit_surface"]
