"""Asymmetric basins over one axis or two, whose shape all cells share."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scalefit._values import Note
from scalefit.errors import SweepError
from scalefit.optima.cells import MIN_LEVELS, Block, Extraction, Floats, finish, some
from scalefit.optima.parabola import (
    edges,
    errors_within,
    fit_quadratic,
    misfits,
    noise_scale,
    range_is_noise,
    read_vertices,
    window_weights,
)
from scalefit.optima.pooled_fit import PooledBasins, fit_basins

PRIOR_ASYMMETRY, PRIOR_SPREAD = 0.5, 0.5
"""What the asymmetry is taken to be before the cells speak: basins are somewhat steeper above the optimum."""

_GRID = np.linspace(-0.5, 2.5, 61)

_PER_AXIS, _WIDEST = 4.0, 0.2
"""Runs, counted by weight, that the typical cell must keep for each of two axes, and the widest window tried for it."""

_EXACT = 1e-7
"""Scatter, as a fraction of the loss, below which losses are taken to be free of noise."""


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
        Relative excess over the cell's lowest loss at which a run's weight has fallen to a quarter, see `Parabola`.
        Over two axes it widens on coarse grids until the typical cell keeps eight runs' worth.
    level : float
        Coverage of the interval.
    asymmetry : float or None
        k (of the learning rate); None estimates it from all cells together, with a prior of 0.5 +/- 0.5.

    Notes
    -----
    Simulated sweeps of 80 cells (12 each): bias and scatter of the optimum in octaves, the quoted standard error, and
    coverage of the 95 % interval, which Student's t with few degrees of freedom makes wide.

    ======================== === ============ ============ ====== ==============
    learning rates           k   noise, nats  bias         sd     error, coverage
    ======================== === ============ ============ ====== ==============
    12, half an octave apart 0.8 0.0015       0.000        0.018  0.018, 0.99
    12, half an octave apart 0.8 0.009        -0.003       0.122  0.110, 0.98
    7, an octave apart       0.8 0.0036       -0.002       0.051  0.051, 1.00
    7, an octave apart       0   0.0036       0.002        0.051  0.050, 0.99
    5, an octave apart       0.8 0.009        -0.030       0.186  0.210, 0.99
    ======================== === ============ ============ ====== ==============

    `Parabola` in the rows with k = 0.8 is 0.15 to 0.26 octaves low.

    Over two axes (16 cells, 15 sweeps each, k = 0.8, Student's t noise of 0.003 nats):

    ============================== ============================== ==============================
    learning rates x batches       lr: bias, sd, error, coverage  batch: the same
    ============================== ============================== ==============================
    12 x 10, half octaves          -0.001, 0.013, 0.016, 0.98     0.000, 0.017, 0.020, 0.98
    7 x 5, octaves                 0.001, 0.024, 0.027, 0.99      0.001, 0.032, 0.038, 0.99
    7 x 5, 1.5 octaves off centre  -0.001, 0.030, 0.034, 0.98     0.003, 0.039, 0.046, 0.99
    7 x 4, batches 4 times apart   0.002, 0.027, 0.026, 0.97      0.003, 0.025, 0.029, 0.99
    ============================== ============================== ==============================

    *Status over two axes.* Each axis is judged by its own levels: edge when the centre is at or beyond the last one,
    flat when the interval reaches beyond both ends. A cell that says little of one axis still has a point in the other
    if the shared shape gives one, with an error that says how little.

    Examples
    --------
    >>> from scalefit.optima.cells import pad
    >>> x = np.log(1e-3 * 2.0 ** np.arange(7))
    >>> u = x - np.log(5e-3)
    >>> loss = 3 + 0.03 * (np.exp(0.8 * u) - 0.8 * u - 1) / 0.8**2
    >>> found = Basin(asymmetry=0.8).extract(pad(np.zeros(7, dtype=int), x[:, None], loss, n_cells=1))
    >>> np.exp(found.value).round(6).tolist(), found.status.tolist()
    ([[0.005]], [['interior']])
    """

    window: float = 0.015
    level: float = 0.95
    asymmetry: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.window < np.inf:
            raise SweepError(f"Basin expects a positive relative window such as 0.015, found {self.window!r}")
        if not 0 < self.level < 1:
            raise SweepError(f"Basin expects a level between 0 and 1, found {self.level!r}")

    def extract(self, block: Block) -> Extraction:
        """Read the optimum of every cell; see the class."""
        if block.x.shape[2] > 1:
            return _read_centres(block, fit_basins(block, _widened(block, self.window), self.asymmetry), self)
        k, error, notes = (self.asymmetry, 0.0, ()) if self.asymmetry is not None else pooled_asymmetry(block, self)
        fit = fit_quadratic(block, self.window, k)
        found = read_vertices(block, fit, self.level, k, _moved_by(block, self, k, error))
        return replace(found, notes=(*found.notes, *notes))


def pooled_asymmetry(block: Block, settings: Basin) -> tuple[float, float, tuple[Note, ...]]:
    """Return the asymmetry of least misfit over all cells, its standard error, and a note."""
    misfit = misfits(block, settings.window, _GRID)
    k, error = PRIOR_ASYMMETRY, PRIOR_SPREAD
    for _ in range(3):  # the noise is judged about the basin, so it and k are found in turn
        variance = fit_quadratic(block, settings.window, k).variance
        exact = (_EXACT * np.nan_to_num(block.lowest)) ** 2
        precision = np.where(np.isfinite(variance), 1 / np.maximum(np.nan_to_num(variance), exact + 1e-300), 0.0)
        k, error = _lowest(misfit @ precision + ((_GRID - PRIOR_ASYMMETRY) / PRIOR_SPREAD) ** 2)
    note = Note(
        "asymmetry", f"basins share the asymmetry k = {round(k, 2) + 0.0:.2f} +/- {error:.2f} (0 is a parabola)"
    )
    return k, error, (note,)


def _lowest(score: Floats) -> tuple[float, float]:
    """Return the minimum of a score over the grid and its standard error, by a parabola through three points."""
    at = int(np.clip(np.argmin(score), 1, len(_GRID) - 2))
    below, middle, above = score[at - 1 : at + 2]
    step = _GRID[1] - _GRID[0]
    curvature = max((below - 2 * middle + above) / step**2, 1e-12)
    k = float(_GRID[at] - np.clip((above - below) / (2 * step * curvature), -step, step))
    return k, float(np.sqrt(2 / curvature))


def _moved_by(block: Block, settings: Basin, k: float, error: float) -> float:
    """Return how far, in the median over cells, an error of k moves the optimum."""
    if error == 0:
        return 0.0
    places = []
    for near in (k - error, k + error):
        fit = fit_quadratic(block, settings.window, near)
        places.append(read_vertices(block, fit, settings.level, near).value)
    moved = np.abs(places[1] - places[0]) / 2
    return float(np.nanmedian(moved)) if np.isfinite(moved).any() else 0.0


def _widened(block: Block, window: float) -> float:
    """Return the narrowest window that leaves the typical cell enough runs to show its basin over two axes."""
    counts = block.finished.sum(axis=1)
    told = counts > 0
    if not told.any():
        return window
    enough = min(_PER_AXIS * block.x.shape[2], 0.5 * float(np.median(counts[told])))
    for wider in np.geomspace(window, max(window, _WIDEST), 20):
        if np.median(window_weights(block, wider).sum(axis=1)[told]) >= enough:
            return float(wider)
    return max(window, _WIDEST)


def _read_centres(block: Block, fit: PooledBasins, settings: Basin) -> Extraction:
    """Turn basins fitted together into optima with intervals and statuses, each axis judged by its own levels."""
    best, _ = block.best()
    value = np.where(some(block.finished, axis=1)[:, None], fit.centre, np.nan)
    low_edge, high_edge = edges(block, value, best)
    edge = low_edge | high_edge
    first, last = block.extent(block.finished)
    point = np.select([low_edge, high_edge], [first, last], value)
    half = errors_within(settings.level, fit.dof)[:, None] * fit.stderr
    below, above = block.neighbours(point)
    plain = edge | ~np.isfinite(half)
    found = Extraction(
        value=point,
        lo=np.where(plain, below, value - half),
        hi=np.where(plain, above, value + half),
        stderr=np.where(np.isfinite(half), fit.stderr, np.nan),
        curvature=np.diagonal(fit.hessian, axis1=1, axis2=2),
        status=np.full(value.shape, "interior", dtype=object),
        loss=np.where(edge.any(axis=1), block.lowest, fit.floor),
        weight=np.ones(len(value)),
        notes=_shape_notes(fit, settings),
    )
    noise = np.nan_to_num(noise_scale(block), nan=0.0)
    noisy = range_is_noise(block.spread(), block.finished.sum(axis=1), noise)[:, None]
    lost = (value - half < first) & (value + half > last)
    # Where another axis has too few levels, the place along the valley rests on other cells: that is no observation.
    lost |= some(block.level_counts() < MIN_LEVELS, axis=1)[:, None]
    return finish(block, found, noisy | lost, edge & ~lost)


def _shape_notes(fit: PooledBasins, settings: Basin) -> tuple[Note, ...]:
    """Say what shape the basins share, and what to doubt about it."""
    k, cross = ((fit.shape[j], fit.shape_stderr[j]) for j in (1, 4))
    text = (
        f"basins share the asymmetry k = {k[0]:.2f} +/- {k[1]:.2f} in the first axis (0 is a parabola), the valley "
        f"between the axes has the slope {cross[0]:.2f} +/- {cross[1]:.2f}"
    )
    notes = [Note("asymmetry", text)]
    if fit.window > settings.window:
        text = f"the grid is coarse: runs up to {fit.window:.3g} above their cell's best, relative, shape the basins"
        notes.append(Note("window", text))
    if not fit.settled:
        text = "the basins were still moving when the search stopped: use no number here; fewer cells may help"
        notes.append(Note("unfinished", text, caution=True))
    return tuple(notes)
