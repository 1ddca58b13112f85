"""Pictures for notebooks and papers: axes in, axes out, nothing drawn unasked."""

from scalefit.plots.budgets import isoflops
from scalefit.plots.clouds import draws
from scalefit.plots.contour_map import surface
from scalefit.plots.counterparts import published
from scalefit.plots.export import fingerprint, savefig
from scalefit.plots.histories import curves
from scalefit.plots.hyperbolas import bcrit, tradeoff
from scalefit.plots.law_lines import compare, law
from scalefit.plots.leftovers import residuals
from scalefit.plots.minima import optima
from scalefit.plots.panels import figure_grid
from scalefit.plots.paper import style
from scalefit.plots.prospects import backtest, forecast
from scalefit.plots.valleys import basins

__all__ = [
    "backtest",
    "basins",
    "bcrit",
    "compare",
    "curves",
    "draws",
    "figure_grid",
    "fingerprint",
    "forecast",
    "isoflops",
    "law",
    "optima",
    "published",
    "residuals",
    "savefig",
    "style",
    "surface",
    "tradeoff",
]
