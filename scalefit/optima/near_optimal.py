"""The learning rates that cost little: how far the fitted basin of a cell stays below a stated excess loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from scalefit.errors import SweepError
from scalefit.optima.basin_shape import bend
from scalefit.optima.cells import Cells, Floats, pad
from scalefit.optima.find_optima import find_optima
from scalefit.optima.local_fit import Quadratic, bent_columns, fit_quadratic
from scalefit.optima.optimum_estimators import Basin
from scalefit.optima.run_weights import RunWeights
from scalefit.optima.vertices import read_vertices
from scalefit.sweep import Sweep

# Newton's steps on a convex curve from beyond its root: each end is exact long before.
_NEWTON = 40

# Asymmetries between which the ends are taken to move in proportion.
_NEAR = 0.1


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
        (the interval runs beyond the last rate tried on that side, or the optimum is no point), `log_lr_lo_stderr` and
        `log_lr_hi_stderr` (standard errors of the ends' natural logs; NaN where open or the noise is unknown),
        `octaves` (width of the interval) and `status` of the optimum.

    Raises
    ------
    SweepError
        If `sweep` is not a `Sweep`, or `excess` is not positive.

    See Also
    --------
    find_optima : The optima alone.
    lr_sensitivity : The mean cost over a range of rates.

    Notes
    -----
    The interval follows from the fitted basin; it is no confidence interval for the optimum. The standard error of
    an end comes from the covariance of the cell's fit and the error of the shared asymmetry.

    Coverage of these errors in simulated sweeps: docs/statistics.md.

    Examples
    --------
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> lr = 1e-3 * 2.0 ** np.arange(-4, 5)
    >>> sweep = sf.read_sweep(pd.DataFrame({"lr": lr, "params": [1e8] * 9, "loss": 3 + 0.03 * np.log(lr / 1e-3) ** 2}))
    >>> near = sf.near_optimal(sweep, 0.0025, method=sf.Basin(asymmetry=0))
    >>> near[["lr_lo", "lr_hi"]].round(6).to_dict("records")
    [{'lr_lo': 0.000607, 'lr_hi': 0.001649}]
    """
    if not 0 < excess < np.inf:
        raise SweepError(f"excess should be a positive relative loss such as 0.0025, found {excess!r}")
    basin = Basin() if method is None else method
    if not isinstance(basin, Basin):
        raise SweepError(f"near_optimal reads a fitted basin; method should be Basin(...), found {method!r}")
    optima = find_optima(sweep, over="lr", by=by, method=basin)
    found, table = optima.table, sweep.table
    x, loss = np.log(table["lr"].to_numpy()), table["loss"].to_numpy()
    cells = pad(sweep.group(optima.by)[1], x[:, None], loss, len(found), sweep.rtol)
    settled = basin.settle(cells)
    local, bends, counted = settled.fit, settled.bends, settled.counted
    k = bends.shared
    ends = _ends(cells, local, k, excess, basin.level, counted)
    ends = np.where((found["status"] == "interior").to_numpy(), ends, np.nan)
    first, last = (end[:, 0] for end in cells.extent(cells.present))
    outside = np.stack([~(ends[0] >= first - cells.tolerance), ~(ends[1] <= last + cells.tolerance)])
    stderr = _noise_error(local, k, np.log(found["lr"].to_numpy(dtype=float)), ends, excess)
    if bends.error:
        low, high = (
            _ends(cells, fit_quadratic(cells, counted, near), near, excess, basin.level, counted)
            for near in (k - _NEAR, k + _NEAR)
        )
        stderr = np.hypot(stderr, np.nan_to_num((high - low) / (2 * _NEAR) * bends.own_error))
    lo, hi = np.where(outside, [[-np.inf], [np.inf]], ends)
    columns = {
        "lr": found["lr"],
        "lr_lo": np.exp(lo),
        "lr_hi": np.exp(hi),
        "open_lo": outside[0],
        "open_hi": outside[1],
        "log_lr_lo_stderr": np.where(outside[0], np.nan, stderr[0]),
        "log_lr_hi_stderr": np.where(outside[1], np.nan, stderr[1]),
        "octaves": (hi - lo) / np.log(2),
        "status": found["status"],
    }
    return pd.concat([found[list(optima.by)], pd.DataFrame(columns)], axis=1)


def _ends(cells: Cells, local: Quadratic, k: float, excess: float, level: float, counted: RunWeights) -> Floats:
    """Return the logs of the ends of the intervals of basins with the asymmetry k, (2, cells)."""
    found = read_vertices(cells, local, level, k, calm=counted.calm)
    point = found.status[:, 0] == "interior"
    height = np.where(point, excess * found.loss / np.where(point, found.curvature[:, 0], 1.0), np.nan)
    # Solve g(u; k) = height on both sides, from the ends of a parabola. On a convex curve a first step may fall short
    # of the root but the next lies beyond it, and from there the way is straight down.
    start = np.sqrt(2 * np.where(height > 0, height, np.nan))
    u = np.stack([-start, start])
    for _ in range(_NEWTON):
        value, slope, _ = bend(u, np.asarray(k))
        u = u - (value - height) / slope
    return np.asarray(found.value[:, 0] + u)


def _noise_error(local: Quadratic, k: float, best: Floats, ends: Floats, excess: float) -> Floats:
    """Return the standard error of the ends from the noise of the runs, shape (2, cells)."""
    scale, centre = local.scale[:, 0], local.centre[:, 0]
    places = (np.vstack([ends, best]) - centre) / scale
    design = bent_columns(np.nan_to_num(places).T, (k * scale)[:, None])
    # At an end the fitted loss is 1 + e times that at the bottom, whose place drops out of the derivative because the
    # slope vanishes there.
    change = design[:, :2] - (1 + excess) * design[:, 2:]
    bent = k * scale
    rise = np.where(np.abs(bent) > 1e-6, np.expm1(bent * places[:2]) / np.where(bent == 0, 1.0, bent), places[:2])
    slope = local.gradient[:, 0] + local.hessian[:, 0, 0] * rise
    variance = np.einsum("cea,cab,ceb->ec", change, local.covariance, change)
    return scale * np.sqrt(np.maximum(variance, 0.0)) / np.abs(slope)
