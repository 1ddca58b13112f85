"""All runs at once: one basin whose centre follows the laws, whose floor is each cell's own."""

from scalefit.surface.engine import fit_surface
from scalefit.surface.result import Surface

__all__ = ["Surface", "fit_surface"]
