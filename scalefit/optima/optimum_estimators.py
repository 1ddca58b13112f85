"""The four optimum estimators: the best run, all runs nearly as good, a parabola, an asymmetric basin."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from scalefit._values import Note
from scalefit.errors import SweepError
from scalefit.optima.cells import Bools, Cells, Estimates, Floats, conclude, some
from scalefit.optima.local_fit import fit_quadratic, is_noise, noise_scale
from scalefit.optima.pooled_fit import estimate_centres
from scalefit.optima.settle_basins import Basins, settle_basins
from scalefit.optima.vertices import read_vertices


@dataclass(frozen=True)
class GridMinimum:
    """The run with the lowest loss.

    Quantised to the grid and lucky by construction; the interval is the gap between the neighbouring levels and
    no standard error is given. A tie gives the middle of the tied runs, in logs, and a note. With repeated runs
    the luckiest repeat wins, unless `find_optima` gets ``seeds="mean"``.

    See Also
    --------
    NearMinimum : All runs nearly as good as the best.
    Basin : A curve through the runs, the default.

    Examples
    --------
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> sweep = sf.read_sweep(pd.DataFrame({"lr": [1e-3, 2e-3, 4e-3], "params": [1e8] * 3, "loss": [3.1, 3.0, 3.2]}))
    >>> sf.find_optima(sweep, method=sf.GridMinimum()).table[["lr", "lr_lo", "lr_hi"]].round(6).values.tolist()
    [[0.002, 0.001, 0.004]]
    """

    picks: ClassVar[bool] = True

    def estimate(self, cells: Cells) -> Estimates:
        """Estimate the optimum of every cell; see the class."""
        value, tied = cells.best()
        low, high = cells.extent(cells.excess <= 1e-12)
        lo, hi = cells.neighbours(low)[0], cells.neighbours(high)[1]
        edge, notes = np.isinf(lo) | np.isinf(hi), _tie_note(tied)
        return conclude(cells, _flat(cells, value), edge, value=value, lo=lo, hi=hi, loss=cells.lowest, notes=notes)


@dataclass(frozen=True)
class NearMinimum:
    """All runs within a relative excess of the cell's lowest loss; their geometric mean.

    Parameters
    ----------
    excess : float
        Relative loss excess kept, 0.0025 for a quarter of a percent.

    Raises
    ------
    SweepError
        If `excess` is not positive and finite.

    See Also
    --------
    GridMinimum : The best run alone.
    Basin : A curve through the runs, the default.

    Notes
    -----
    The rule of Li et al. 2025 (arXiv:2503.04715, ``code/fit_tool.py``). The published recipe is ordinary least
    squares over all runs kept; since the runs of a cell share its N and D, least squares over the cells' geometric
    means, weighted by the number of runs kept (the column `weight`), gives the same coefficients.

    The interval is the extremes of the set, open on a side where the set touches the last level. The optimum is an
    edge when the best run itself stands at the last level: then the set is cut off at its centre and its mean is only
    a bound. A set that merely touches the last level keeps its mean as a point, with the interval open there.

    No standard error is given. The runs kept are chosen by their loss, so their scatter tells the width of the
    threshold, not the error of its centre: on simulated basins, mean +- 1.96 sd/sqrt(n) held the truth in 91 to 100 %
    of cells, 100 % wherever the noise was small.

    Examples
    --------
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> table = {"lr": [5e-4, 1e-3, 2e-3, 4e-3], "params": [1e8] * 4, "loss": [3.10, 3.02, 3.01, 3.07]}
    >>> optima = sf.find_optima(sf.read_sweep(pd.DataFrame(table)), method=sf.NearMinimum(0.005))
    >>> optima.table[["lr", "weight"]].round(5).values.tolist()
    [[0.00141, 2.0]]
    """

    excess: float = 0.0025
    picks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.excess < np.inf:
            raise SweepError(f"NearMinimum expects a positive relative excess such as 0.0025, found {self.excess!r}")

    def estimate(self, cells: Cells) -> Estimates:
        """Estimate the optimum of every cell; see the class."""
        kept = cells.finished & (cells.loss <= cells.lowest[:, None] * (1 + self.excess))
        count = kept.sum(axis=1)
        total = np.where(kept[:, :, None], cells.x, 0.0).sum(axis=1)
        value = np.divide(total, count[:, None], out=np.full(total.shape, np.nan), where=count[:, None] > 0)
        low, high = cells.extent(kept)
        open_lo, open_hi = np.isinf(cells.neighbours(low)[0]), np.isinf(cells.neighbours(high)[1])
        best, tied = cells.best()
        inner_lo, inner_hi = cells.neighbours(best)
        below, above = np.isinf(inner_lo), np.isinf(inner_hi)
        touching = (open_lo | open_hi) & ~below & ~above
        return conclude(
            cells,
            _flat(cells, value),
            below | above,
            # An edge is bounded by the last level, not by the mean of what is left of the set.
            value=np.where(below & ~above, low, np.where(above & ~below, high, value)),
            lo=np.where(open_lo, -np.inf, np.where(above, np.minimum(low, inner_lo), low)),
            hi=np.where(open_hi, np.inf, np.where(below, np.maximum(high, inner_hi), high)),
            loss=cells.lowest,
            weight=count.astype(float),
            notes=_tie_note(tied) + _touch_note(touching),
        )


def _flat(cells: Cells, value: Floats) -> Bools:
    return np.broadcast_to(is_noise(cells, noise_scale(cells)), value.shape)


def _tie_note(tied: Bools) -> tuple[Note, ...]:
    if not tied.any():
        return ()
    count = f"{int(tied.sum())} of {len(tied)}"
    return (Note("ties", f"{count} cells have a tie for the lowest loss; the middle of the tied runs is taken"),)


def _touch_note(touching: Bools) -> tuple[Note, ...]:
    reaching = some(touching, axis=1)
    if not reaching.any():
        return ()
    text = (
        f"in {int(reaching.sum())} of {len(reaching)} cells the runs near the minimum reach the end of the grid; "
        "the interval is open there and the mean may lie too far inside"
    )
    return (Note("touching", text, caution=True),)


def _check_settings(settings: Parabola | Basin, usual: float) -> None:
    name = type(settings).__name__
    if not 0 < settings.window < np.inf:
        raise SweepError(f"{name} expects a positive relative window such as {usual}, found {settings.window!r}")
    if not 0 < settings.level < 1:
        raise SweepError(f"{name} expects a level between 0 and 1, found {settings.level!r}")


@dataclass(frozen=True)
class Parabola:
    r"""The vertex of a parabola in the log of the axis (a full quadratic form over two axes).

    .. math:: L = L_{\min} + \tfrac12 h\,(\ln\eta - \ln\eta^*)^2

    Parameters
    ----------
    window : float
        Relative excess over the cell's lowest loss at which a run's weight has fallen to a quarter. Weights are
        :math:`(1 + (e/w)^{3/2})^{-2}` in the excess :math:`e`: a run at ten windows counts a thousandth, so runs
        that blew up pull nothing, and a coarse grid still has its nearest runs.
    level : float
        Coverage of the interval.

    Raises
    ------
    SweepError
        If the window is not positive and finite, or the level not between 0 and 1.

    See Also
    --------
    Basin : The same with an asymmetry that all cells share.

    Notes
    -----
    *Why these weights.* Between odd and even learning rates of 142 cells of the public Step Law sweep, a hard
    window of 1 to 5 % disagrees by 0.09 to 0.16 octaves in the median, these weights at 1 % by 0.075. The window was
    chosen on the same cells, among about a hundred settings, so the last figure flatters; windows from 0.75 to 1.5 %
    cannot be told apart.

    *Errors.* The runs of a cell are taken to be equally noisy, with noise in proportion to the loss from cell to
    cell. It is estimated from residuals about a cubic (about the parabola itself where few runs are left over), and
    each cell's variance is shrunk towards the median over cells. The covariance is that of local regression,
    :math:`\sigma^2 (X'WX)^{-1} X'W^2X (X'WX)^{-1}`; the standard error of the vertex follows by the delta method,
    the interval by Fieller's theorem for one axis and by Student's t for two. Where nothing is left to
    estimate noise from (three runs in every cell), the standard error is NaN and the interval the neighbouring levels.

    *Asymmetry.* Basins in log lr are steeper above the optimum, and a parabola then reads the optimum low, by about 0.2
    octaves in every cell: a law's prefactor moves, its exponents hardly. Over 8 or more cells a cubic shows this
    shift; it is noted and the interval reaches that much further, but the point stays the parabola's.

    *Coverage* of the 95 % interval in simulated sweeps of 16 cells, curvature 0.041 nats, loss 3:

    ======================== ============ ==========================
    learning rates           asymmetry k  noise 0.05 / 0.12 / 0.30 %
    ======================== ============ ==========================
    12, half an octave apart 0            97.7 / 97.7 / 97.7
    7, an octave apart       0            99.1 / 99.2 / 99.0
    5, an octave apart       0            99.1 / 98.9 / 98.7
    12, half an octave apart 0.8          87.6 / 92.7 / 87.9
    7, an octave apart       0.8          99.8 / 98.7 / 97.1
    5, an octave apart       0.8          98.5 / 95.5 / 96.3
    ======================== ============ ==========================

    *Status.* flat: the curvature is not positive by two standard errors; but when the best run stands at the last level
    of an axis such a cell is an edge, with that level as its bound. edge: the vertex is at or beyond the last
    level, counting diverged runs as levels; over two axes each is judged by its own levels. A maximum is never
    reported.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> lr = np.array([5e-4, 1e-3, 2e-3, 4e-3, 8e-3])
    >>> loss = 3 + 0.02 * np.log(lr / 1.7e-3) ** 2
    >>> sweep = sf.read_sweep(pd.DataFrame({"lr": lr, "params": 1e8, "loss": loss}))
    >>> sf.find_optima(sweep, method=sf.Parabola()).table[["lr", "curvature"]].round(6).values.tolist()
    [[0.0017, 0.04]]
    """

    window: float = 0.01
    level: float = 0.95

    def __post_init__(self) -> None:
        _check_settings(self, usual=0.01)

    def estimate(self, cells: Cells) -> Estimates:
        """Estimate the optimum of every cell; see the class."""
        return replace(read_vertices(cells, fit_quadratic(cells, self.window), self.level), asymmetry=0.0)


@dataclass(frozen=True)
class Basin:
    r"""The bottom of an asymmetric basin whose shape all cells share.

    .. math:: L = L_{\min} + A\,(e^{ku} - ku - 1)/k^2,\qquad u = \ln\eta - \ln\eta^*

    For k > 0 the loss rises like an exponential above the optimum and like a line below it, as it does for learning
    rates. For a given k this is linear in three coefficients of every cell, so all cells are solved at once and k is
    found in one dimension.

    Over learning rate and batch (u and v from their best values; g is the bracket above):

    .. math::

        L = L_{\min}\left(1 + A_1\,g(u - cv - pv^2; k_1) + A_2\,g(v - qu^2; k_2)\right)

    All cells are fitted together. Asymmetries, cross term and bends of the valley are shared; a cell has a floor, a
    centre and log curvatures of its own, the latter normal, with a scatter found from the cells, about shared ones that
    may follow the log of the cell's lowest loss.

    Parameters
    ----------
    window : float
        Relative excess over the cell's lowest loss at which a run's weight has fallen to a quarter, see `Parabola`. The
        excess is that of the fitted basin, or of the mean of a place where noise cannot explain it. Over two axes the
        window widens on coarse grids until the typical cell keeps eight runs' worth.
    level : float
        Coverage of the interval.
    asymmetry : float or None
        k (of the learning rate); None estimates it from all cells together, with a prior of 0.5 +/- 0.5.

    Raises
    ------
    SweepError
        If the window is not positive and finite, or the level not between 0 and 1.

    See Also
    --------
    Parabola : The same without an asymmetry.
    find_optima : What applies it to the cells of a sweep.

    Notes
    -----
    *Noise* grows by exp(g u) at u e-folds from the optimum, with one g below and one above it for all cells, found from
    how repeated runs scatter and how single ones depart from their neighbours. Runs weigh by it.

    *Errors* over one axis hold the noise of the cell's runs and the asymmetry: the error of the shared one, and how far
    a cell's own may be from it. Where a fit says less than the order of the losses, the interval is the gap between
    the levels next to the lowest (`log_lr_stderr` is then NaN); where only one end is known the optimum is an edge,
    and the value that end.

    Bias, scatter, quoted error and coverage in simulated sweeps: docs/statistics.md.

    *Status over two axes.* Each axis is judged by its own levels: edge when the centre is at or beyond the last one,
    flat when the interval reaches beyond both ends. A cell that says little of one axis still has a point in the other
    if the shared shape gives one, with an error that says how little.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> lr = 1e-3 * 2.0 ** np.arange(7)
    >>> u = np.log(lr / 5e-3)
    >>> loss = 3 + 0.03 * (np.exp(0.8 * u) - 0.8 * u - 1) / 0.8**2
    >>> sweep = sf.read_sweep(pd.DataFrame({"lr": lr, "params": [1e8] * 7, "loss": loss}))
    >>> sf.find_optima(sweep, method=sf.Basin(asymmetry=0.8)).table[["lr", "curvature"]].round(6).values.tolist()
    [[0.005, 0.03]]
    """

    window: float = 0.03
    level: float = 0.95
    asymmetry: float | None = None

    def __post_init__(self) -> None:
        _check_settings(self, usual=0.03)

    def estimate(self, cells: Cells) -> Estimates:
        """Estimate the optimum of every cell; see the class."""
        if cells.x.shape[2] > 1:
            return estimate_centres(cells, self.window, self.level, self.asymmetry)
        basins = self.settle(cells)
        bends = basins.bends
        found = read_vertices(cells, basins.fit, self.level, bends.shared, bends.moved, basins.counted.calm)
        return replace(found, notes=basins.notes, asymmetry=bends.shared)

    def settle(self, cells: Cells) -> Basins:
        """Return the basins over one axis, with what they share."""
        return settle_basins(cells, self.window, self.asymmetry)
