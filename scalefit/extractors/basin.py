"""One asymmetric basin for all cells: how steeply loss rises above the best learning rate is shared."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scalefit.errors import SweepError
from scalefit.extractors.cells import Block, Extraction, Floats
from scalefit.extractors.local_fit import fit_quadratic
from scalefit.extractors.quadratic import read_vertices
from scalefit.notes import Note

PRIOR_ASYMMETRY, PRIOR_SPREAD = 0.5, 0.5
"""What the asymmetry is taken to be before the cells speak: basins are somewhat steeper above the optimum."""

_GRID = np.linspace(-0.5, 2.5, 61)

_EXACT = 1e-7
"""Scatter, as a fraction of the loss, below which losses are taken to be free of noise."""


@dataclass(frozen=True)
class Basin:
    r"""The bottom of an asymmetric basin whose asymmetry k all cells share.

    .. math:: L = L_{\min} + A\,(e^{ku} - ku - 1)/k^2,\qquad u = \ln\eta - \ln\eta^*

    For k > 0 the loss rises like an exponential above the optimum and like a line below it, as it does for learning
    rates. For a given k this is linear in three coefficients of every cell, so all cells are solved at once and k is
    found in one dimension.

    Parameters
    ----------
    window : float
        Relative excess over the cell's lowest loss at which a run's weight has fallen to a quarter, see `Parabola`.
    level : float
        Coverage of the interval.
    asymmetry : float or None
        k; None estimates it from all cells together, with a prior of 0.5 +/- 0.5.

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

    Raises
    ------
    SweepError
        Over two axes: use `NearMinimum`, `Parabola`, or `scalefit.fit_surface`, whose basin is bent in both.

    Examples
    --------
    >>> from scalefit.extractors.cells import pad
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
            raise SweepError(
                "Basin() reads one axis at a time; over learning rate and batch use NearMinimum(), Parabola() or "
                "fit_surface(sweep)"
            )
        k, error, notes = (self.asymmetry, 0.0, ()) if self.asymmetry is not None else pooled_asymmetry(block, self)
        fit = fit_quadratic(block, self.window, k)
        found = read_vertices(block, fit, self.level, k, _moved_by(block, self, k, error))
        return replace(found, notes=(*found.notes, *notes))


def pooled_asymmetry(block: Block, settings: Basin) -> tuple[float, float, tuple[Note, ...]]:
    """Return the asymmetry of least misfit over all cells, its standard error, and a note."""
    misfit = np.array([fit_quadratic(block, settings.window, k).misfit for k in _GRID])
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
