"""`sf.bootstrap`: how much a fit or a whole surface would move on other data of the same kind."""

from __future__ import annotations

from numbers import Integral
from typing import Any, overload

import numpy as np

from scalefit.errors import FitError
from scalefit.fitting.draws import Draws, resample_law
from scalefit.fitting.fit_result import Fit
from scalefit.surface.surface import Surface
from scalefit.surface.surface_draws import SurfaceDraws, resample_surface


@overload
def bootstrap(fit: Fit, n: int | None = None, by: str | None = None, seed: int = 0) -> Draws: ...


@overload
def bootstrap(fit: Surface, n: int | None = None, by: str | None = None, seed: int = 0) -> SurfaceDraws: ...


def bootstrap(fit: Fit | Surface, n: int | None = None, by: str | None = None, seed: int = 0) -> Draws | SurfaceDraws:
    """Refit a law, or a whole surface, to resampled data.

    Parameters
    ----------
    fit : Fit or Surface
        Parameters that a fit holds (fixed, or at a bound) are held in every refit. A surface is resampled by cell, and
        its shape, its cells' centres and its laws are all fitted again.
    n : int, optional
        Number of refits; 1000 by default, 200 for a surface.
    by : {"cell", "row", "parametric"} or str, optional
        Draw whole (params, tokens) cells, single rows, or the fitted curve plus normal residuals of the fit's scatter.
        Runs of a cell share its luck: rows are right only when they are independent. Any column of the table that
        repeats ("run", "params") draws its groups: the residuals of a group, made up for what the law took of them,
        are multiplied by one normal number (the wild cluster bootstrap); with a robust loss or bounds whole groups are
        drawn with replacement. Intervals widen as Student's t for few groups. By default the column that the errors
        of the fit are made from, or else cells. A surface is drawn by "cell", "params" or "tokens".
    seed : int
        The same seed gives the same refits.

    Returns
    -------
    Draws or SurfaceDraws

    Raises
    ------
    FitError
        If the fit itself did not converge, the column does not repeat, or there are too few cells or groups.

    See Also
    --------
    Fit.intervals : intervals from the covariance, without refits
    Draws.predict, SurfaceDraws.optimum : predictions with percentiles of the refits

    References
    ----------
    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 6 and 9. Cameron, Gelbach and Miller (2008),
    Review of Economics and Statistics 90, 414, for clusters.

    Examples
    --------
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> table = pd.DataFrame({"params": [1e7, 3e7, 1e8, 3e8, 1e9], "loss": [4.0, 3.6, 3.22, 2.9, 2.56]})
    >>> draws = sf.bootstrap(sf.fit("L = c * N**a", table), n=200, by="parametric")
    >>> bool(abs(draws.table["a"].mean() + 0.096) < 0.01)
    True
    """
    n = (1000 if isinstance(fit, Fit) else 200) if n is None else n
    by = (getattr(fit, "witnesses", "") or "cell") if by is None else by
    _check_settings(n, by, seed)
    if not isinstance(fit, Fit):
        if not isinstance(fit, Surface):
            raise FitError(f"expected a Fit or a Surface to resample, found {type(fit).__name__}")
        return resample_surface(fit, n, by, seed)
    if not np.isfinite(fit.phi).all() or fit.status.name == "NOT_CONVERGED":
        raise FitError(f"only a converged fit can be resampled; this one: {fit.status.sentence}", partial=fit)
    if by == "parametric" and fit.is_bound.any():
        raise FitError(
            "a parametric bootstrap draws points, and some rows are bounds whose grids it does not know; resample by "
            "cell or row, or fit with bounds='drop'"
        )
    if by == "parametric" and fit.dof <= 0:
        raise FitError("a parametric bootstrap needs the residual scatter, and an exact fit has none")
    return resample_law(fit, n, by, seed)


def _check_settings(n: Any, by: Any, seed: Any) -> None:
    if not isinstance(by, str):
        raise FitError(f"by: expected 'cell', 'row', 'parametric' or the name of a column, found {by!r}")
    if not isinstance(n, Integral):
        raise FitError(f"n: expected a whole number, found {n!r}")
    if n < 2:
        raise FitError(f"n: expected at least 2 refits, found {n}")
    if not isinstance(seed, Integral) or seed < 0:
        raise FitError(f"seed: expected a whole number from 0 up, found {seed!r}")
