"""The learning rates that cost little: how far the fitted basin of a cell stays below a stated excess loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scalefit.errors import SweepError
from scalefit.optima.basin import Basin, pooled_asymmetry
from scalefit.optima.basin_shape import bend
from scalefit.optima.cells import Block, Extraction, Floats, average, pad, repeats
from scalefit.optima.find_optima import Optima, find_optima
from scalefit.optima.parabola import Quadratic, bent_design, fit_quadratic, read_vertices
from scalefit.sweep import Sweep

Bools = NDArray[np.bool_]

ALIKE = 3.0
"""Ratio of the bends of neighbouring parabolas up to which both are believed."""


@dataclass(frozen=True, eq=False)
class Ground:
    """Distinct learning rates of each cell, ascending, padded with NaN (zero in `count`); all (cells, levels)."""

    x: Floats
    loss: Floats  # mean at the place, diverged runs at the cap; 0 in the padding
    count: Floats
    capped: Floats  # runs at the cap
    tolerance: float

    @property
    def first(self) -> Floats:
        """Log of the lowest rate of each cell."""
        return np.where(self.count > 0, self.x, np.inf).min(axis=1)

    @property
    def last(self) -> Floats:
        """Log of the highest rate of each cell."""
        return np.where(self.count > 0, self.x, -np.inf).max(axis=1)

    def mean_weights(self, lo: Floats, hi: Floats) -> Floats:
        """Return what each level counts for in the mean over lo to hi, shape (cells, levels); NaN without a range."""
        levels = np.eye(self.x.shape[1])[:, None, :]
        held = np.broadcast_to(levels, (self.x.shape[1], *self.x.shape))
        width = np.where(hi > lo, hi - lo, np.nan)
        return (self._integral(held, lo, hi) / width).T

    def height(self, at: Floats) -> Floats:
        """Return the loss at a place, straight between levels."""
        x = np.where(self.count > 0, self.x, np.inf)
        upper = np.clip((x < at[:, None]).sum(axis=1), 1, self.x.shape[1] - 1)[:, None]
        x0, x1 = np.take_along_axis(self.x, upper - 1, 1)[:, 0], np.take_along_axis(self.x, upper, 1)[:, 0]
        y0, y1 = np.take_along_axis(self.loss, upper - 1, 1)[:, 0], np.take_along_axis(self.loss, upper, 1)[:, 0]
        return y0 + (y1 - y0) * (at - x0) / (x1 - x0)

    def _integral(self, values: Floats, lo: Floats, hi: Floats) -> Floats:
        x0, x1 = self.x[:, :-1], self.x[:, 1:]
        real = np.isfinite(x1)
        step = np.where(real, x1 - x0, 1.0)
        start = np.where(real, np.clip(lo[:, None], x0, x1) - x0, 0.0)
        end = np.where(real, np.clip(hi[:, None], x0, x1) - x0, 0.0)
        share = (start + end) / (2 * step)
        straight = (end - start) * ((1 - share) * values[..., :-1] + share * values[..., 1:])
        bow = (end**3 - start**3) / 3 - step * (end**2 - start**2) / 2
        bend = self._bends(values)
        left, right = self._choice()
        return np.nan_to_num(straight + bow * (left * bend[..., :-1] + right * bend[..., 1:])).sum(axis=-1)

    def _bends(self, values: Floats) -> Floats:
        """Return the second divided difference about each level; 0 at the ends and beside capped runs."""
        bend = np.zeros(values.shape)
        slope = np.diff(values, axis=-1) / np.diff(self.x, axis=-1)
        bend[..., 1:-1] = np.diff(slope, axis=-1) / (self.x[:, 2:] - self.x[:, :-2])
        return np.where(self._smooth(), bend, 0.0)

    def _smooth(self) -> Bools:
        free = (self.count > 0) & (self.capped == 0)
        smooth = np.zeros(free.shape, dtype=bool)
        smooth[:, 1:-1] = free[:, 1:-1] & free[:, :-2] & free[:, 2:]
        return smooth

    def _choice(self) -> tuple[Floats, Floats]:
        """Say how much each interval takes of the parabolas about its two ends.

        Both where they are alike, the less bent where one of them meets a wall, the only one at the end of a grid.
        """
        smooth, bend = self._smooth(), self._bends(self.loss)
        left, right = bend[:, :-1], bend[:, 1:]
        alike = np.maximum(np.abs(left), np.abs(right)) <= ALIKE * np.minimum(np.abs(left), np.abs(right))
        alike &= left * right > 0
        share = np.where(alike, 0.5, np.abs(left) <= np.abs(right))
        share = np.where(smooth[:, :-1] & smooth[:, 1:], share, smooth[:, :-1])
        return share, np.where(smooth[:, :-1] | smooth[:, 1:], 1.0 - share, 0.0)


def read_runs(sweep: Sweep, optima: Optima) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return cell, ln lr and loss (NaN where diverged) of every run; cells in the order of the optima."""
    table = sweep.table
    return sweep.group(optima.by)[1], np.log(table["lr"].to_numpy()), table["loss"].to_numpy()


def lay_out(cell: NDArray[np.int64], x: Floats, loss: Floats, caps: Floats, rtol: float) -> Ground:
    """Join the runs of each cell at each rate, those above the cap or diverged at the cap."""
    limit = caps[cell]
    capped = ~(loss <= limit)
    place = repeats(cell, x[:, None], rtol)
    counted = np.nan_to_num(np.where(capped, limit, loss), nan=0.0)
    own, middle, mean = average(cell, x[:, None], counted, place)
    parts = [mean, np.bincount(place).astype(float), np.bincount(place, capped)]
    padded = [pad(own, middle, part, len(caps), rtol) for part in parts]
    mean, count, n_capped = (np.nan_to_num(block.loss) for block in padded)
    width = max(padded[0].x.shape[1], 3)
    spare = [(0, 0), (0, width - padded[0].x.shape[1])]
    grid = np.pad(padded[0].x[:, :, 0], spare, constant_values=np.nan)
    return Ground(grid, np.pad(mean, spare), np.pad(count, spare), np.pad(n_capped, spare), float(np.log1p(rtol)))


def fit_basin(block: Block, basin: Basin) -> tuple[float, float, Quadratic]:
    """Return the shared asymmetry of the basins, its standard error and the local fit of every cell with it."""
    k, error = (basin.asymmetry, 0.0) if basin.asymmetry is not None else pooled_asymmetry(block, basin)[:2]
    return k, error, fit_quadratic(block, basin.window, k)


_NEWTON = 40


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

    Notes
    -----
    The interval follows from the fitted basin; it is no confidence interval for the optimum. The standard error of
    an end comes from the covariance of the cell's fit and the error of the shared asymmetry.

    Simulated sweeps (960 cells a row, excess 0.25 %): scatter of the lower and the upper end about the truth in
    octaves, the quoted standard error (root mean square), and how often the end lies within 1.96 of its own.

    ======================== === =========== =================== ===================
    learning rates           k   noise, nats lower               upper
    ======================== === =========== =================== ===================
    12, half an octave apart 0.8 0.001       0.016, 0.016, 0.943 0.010, 0.010, 0.935
    12, half an octave apart 0.8 0.006       0.099, 0.097, 0.945 0.061, 0.059, 0.941
    7, an octave apart       0.8 0.003       0.054, 0.058, 0.942 0.035, 0.037, 0.956
    7, an octave apart       0   0.003       0.043, 0.046, 0.957 0.043, 0.046, 0.960
    ======================== === =========== =================== ===================

    The bias was below 0.01 octaves in every row.

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
    k, k_error, local = fit_basin(block, basin)
    ends = _ends(read_vertices(block, local, basin.level, k), k, excess)
    ends = np.where((found["status"] == "interior").to_numpy(), ends, np.nan)
    first, last = (end[:, 0] for end in block.extent(block.present))
    open_lo, open_hi = ~(ends[0] >= first - block.tolerance), ~(ends[1] <= last + block.tolerance)
    lo, hi = np.where(open_lo, -np.inf, ends[0]), np.where(open_hi, np.inf, ends[1])
    moved = _moved(block, basin, (k - k_error, k + k_error), excess) if k_error else np.zeros(ends.shape)
    stderr = np.hypot(_noise_error(local, k, np.log(found["lr"].to_numpy(dtype=float)), ends, excess), moved)
    columns = {
        "lr": found["lr"],
        "lr_lo": np.exp(lo),
        "lr_hi": np.exp(hi),
        "open_lo": open_lo,
        "open_hi": open_hi,
        "log_lr_lo_stderr": np.where(open_lo, np.nan, stderr[0]),
        "log_lr_hi_stderr": np.where(open_hi, np.nan, stderr[1]),
        "octaves": (hi - lo) / np.log(2),
        "status": found["status"],
    }
    return pd.concat([found[list(optima.by)], pd.DataFrame(columns)], axis=1)


def _ends(found: Extraction, k: float, excess: float) -> Floats:
    """Return the logs of the ends of every cell's interval, shape (2, cells)."""
    point = found.status[:, 0] == "interior"
    height = np.where(point, excess * found.loss / np.where(point, found.curvature[:, 0], 1.0), np.nan)
    return found.value[:, 0] + np.array(_reach(height, k))


def _moved(block: Block, basin: Basin, ks: tuple[float, float], excess: float) -> Floats:
    """Return half of how far the ends move between two asymmetries."""
    both = [_ends(read_vertices(block, fit_quadratic(block, basin.window, k), basin.level, k), k, excess) for k in ks]
    return np.nan_to_num(np.abs(both[1] - both[0]) / 2)


def _noise_error(local: Quadratic, k: float, best: Floats, ends: Floats, excess: float) -> Floats:
    """Return the standard error of the ends from the noise of the runs, shape (2, cells).

    At an end the fitted loss is 1 + e times that at the bottom, whose place drops out of the derivative because the
    slope vanishes there.
    """
    scale, centre = local.scale[:, 0], local.centre[:, 0]
    places = (np.vstack([ends, best]) - centre) / scale
    design = bent_design(np.nan_to_num(places).T[:, :, None], k * scale[:, None])
    change = design[:, :2] - (1 + excess) * design[:, 2:]
    bend = np.expm1(k * scale * places[:2]) / (k * scale) if abs(k) > 1e-6 else places[:2]
    slope = local.gradient[:, 0] + local.hessian[:, 0, 0] * bend
    variance = np.einsum("cea,cab,ceb->ec", change, local.covariance, change)
    return scale * np.sqrt(np.maximum(variance, 0.0)) / np.abs(slope)


def _reach(height: Floats, k: float) -> tuple[Floats, Floats]:
    """Solve (exp(k u) - k u - 1)/k**2 = height for u below and above 0, by Newton's method, safe on a convex curve."""
    start = np.sqrt(2 * np.where(height > 0, height, np.nan))
    u = np.stack([-start, start])
    for _ in range(_NEWTON):
        value, slope, _ = bend(u, np.asarray(k))
        u = u - (value - height) / slope
    return u[0], u[1]
