"""The learning rates that cost little: how far the fitted basin of a cell stays below a stated excess loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from scalefit.errors import SweepError
from scalefit.extractors import Basin
from scalefit.extractors.cells import Floats, pad
from scalefit.optima import find_optima
from scalefit.sensitivity.ground import fit_basin, read_runs
from scalefit.sweep import Sweep


def near_optimal(
    sweep: Sweep, excess: float = 0.0025, *, by: str | Sequence[str] | None = None, method: Basin | None = None
) -> pd.DataFrame:
    r"""Return the learning rates that cost at most a stated excess loss, cell by cell.

    .. math:: \{\eta : A\,(e^{ku} - ku - 1)/k^2 \le e\,L_{\min}\},\qquad u = \ln\eta - \ln\eta^*

    Parameters
    ----------
    sweep : Sweep
        Runs with `lr` and `loss`.
    excess : float
        e: relative excess over the loss at the bottom of the fitted basin.
    by : str or sequence of str, optional
        Cells, see `find_optima`.
    method : Basin, optional
        The basin; ``Basin(asymmetry=0)`` is a parabola.

    Returns
    -------
    pandas.DataFrame
        One row a cell: the columns of `by`, `lr`, `lr_lo` and `lr_hi` (0 or inf where open), `open_lo` and `open_hi`
        (the interval runs beyond the last rate tried on that side, or the optimum is no point), `octaves` (width of the
        interval) and `status` of the optimum.

    Raises
    ------
    SweepError
        If `sweep` is not a `Sweep`, or `excess` is not positive.

    Notes
    -----
    The interval follows from the fitted basin; it is no confidence interval for the optimum, and has no error of its
    own here.

    Examples
    --------
    >>> lr = 1e-3 * 2.0 ** np.arange(-4, 5)
    >>> runs = pd.DataFrame({"lr": lr, "params": 1e8, "loss": 3 + 0.03 * np.log(lr / 1e-3) ** 2})
    >>> near = near_optimal(Sweep.from_frame(runs), 0.0025, method=Basin(asymmetry=0))
    >>> near[["lr_lo", "lr_hi"]].round(6).to_dict("records")
    [{'lr_lo': 0.000607, 'lr_hi': 0.001649}]
    """
    if not 0 < excess < np.inf:
        raise SweepError(f"excess should be a positive relative loss such as 0.0025, found {excess!r}")
    basin = Basin() if method is None else method
    if not isinstance(basin, Basin):
        raise SweepError(f"near_optimal reads a fitted basin; method should be Basin(...), found {method!r}")
    optima = find_optima(sweep, over="lr", by=by, method=basin)
    found = optima.table
    cell, x, loss = read_runs(sweep, optima)
    block = pad(cell, x[:, None], loss, len(found), sweep.rtol)
    k, local = fit_basin(block, basin)
    point = (found["status"] == "interior").to_numpy()
    best = np.where(point, np.log(np.where(point, found["lr"], 1.0)), np.nan)
    # The fit holds the curvature where the runs are centred; that of the bottom is less or more by the bend between.
    curvature = local.hessian[:, 0, 0] / local.scale[:, 0] ** 2 * np.exp(k * (best - local.centre[:, 0]))
    below, above = _reach(excess * found["loss"].to_numpy() / curvature, k)
    first, last = (end[:, 0] for end in block.extent(block.present))
    open_lo, open_hi = ~(best + below >= first - block.tolerance), ~(best + above <= last + block.tolerance)
    lo, hi = np.where(open_lo, -np.inf, best + below), np.where(open_hi, np.inf, best + above)
    columns = {
        "lr": found["lr"],
        "lr_lo": np.exp(lo),
        "lr_hi": np.exp(hi),
        "open_lo": open_lo,
        "open_hi": open_hi,
        "octaves": (hi - lo) / np.log(2),
        "status": found["status"],
    }
    return pd.concat([found[list(optima.by)], pd.DataFrame(columns)], axis=1)


def _reach(height: Floats, k: float) -> tuple[Floats, Floats]:
    """Solve (exp(k u) - k u - 1)/k**2 = height for u below and above 0."""
    from scipy.special import lambertw

    plain = np.sqrt(2 * np.where(height > 0, height, np.nan))
    c = k * k * height
    if abs(k) < 1e-4:
        return -plain - k * height / 3, plain - k * height / 3
    argument = -np.exp(-(1 + np.where(c > 0, c, np.nan)))
    ends = np.sort([(-(1 + c) - lambertw(argument, branch).real) / k for branch in (0, -1)], axis=0)
    return ends[0], ends[1]
