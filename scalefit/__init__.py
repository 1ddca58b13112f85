"""scalefit: optimal learning rate, batch size and loss scaling laws from tables of smaller runs, with honest errors.

Read a table of runs with `read_sweep`, find each cell's optimum with `find_optima`, fit a law to it with `fit`, or all
runs at once with `fit_surface`; predict a larger run, and let `backtest` say how far such predictions were off.

The public names stand in one list, `__init__.pyi`; each is loaded when it is first used.
"""

import lazy_loader

from scalefit._version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
