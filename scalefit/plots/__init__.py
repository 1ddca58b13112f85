"""Pictures for notebooks and papers: each function draws a result on axes and returns the axes."""

from scalefit.plots._style import fingerprint, savefig, style
from scalefit.plots.axes import figure_grid
from scalefit.plots.plot_compare import compare, published
from scalefit.plots.plot_curves import curves
from scalefit.plots.plot_draws import draws
from scalefit.plots.plot_law import isoflops, law, residuals
from scalefit.plots.plot_optima import basins, optima
from scalefit.plots.plot_predictions import backtest, forecast
from scalefit.plots.plot_surface import surface
from scalefit.plots.plot_tradeoff import bcrit, tradeoff

__all__ = ["backtest", "basins", "bcrit", "compare", "curves", "draws", "forecast", "isoflops", "law", "optima"]
__all__ += ["published", "residuals", "surface", "tradeoff"]
__all__ += ["figure_grid", "fingerprint", "savefig", "style"]
