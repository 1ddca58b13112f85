"""A parabola in the logs around the minimum of each cell, with the error of its vertex."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scalefit.errors import SweepError
from scalefit.extractors.cells import Block, Extraction, Floats, every, finish
from scalefit.extractors.local_fit import Quadratic, fit_quadratic, range_is_noise
from scalefit.notes import Note

SIGNIFICANT = 2.0
"""Standard errors by which a curvature must exceed zero to be a basin."""


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
    >>> from scalefit.extractors.cells import pad
    >>> x = np.log([5e-4, 1e-3, 2e-3, 4e-3, 8e-3])
    >>> loss = 3 + 0.02 * (x - np.log(1.7e-3)) ** 2
    >>> found = Parabola().extract(pad(np.zeros(5, dtype=int), x[:, None], loss, n_cells=1))
    >>> np.exp(found.value).round(6).tolist(), found.status.tolist()
    ([[0.0017]], [['interior']])
    """

    window: float = 0.01
    level: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.window < np.inf:
            raise SweepError(f"Parabola expects a positive relative window such as 0.01, found {self.window!r}")
        if not 0 < self.level < 1:
            raise SweepError(f"Parabola expects a level between 0 and 1, found {self.level!r}")

    def extract(self, block: Block) -> Extraction:
        """Read the optimum of every cell; see the class."""
        return read_vertices(block, fit_quadratic(block, self.window), self.level)


def read_vertices(block: Block, fit: Quadratic, level: float, asymmetry: float = 0.0, extra: float = 0.0) -> Extraction:
    """Turn local fits into optima with intervals and statuses.

    Parameters
    ----------
    block : Block
    fit : Quadratic
    level : float
        Coverage of the interval.
    asymmetry : float
        k of a bent basin, for which `fit` was made; 0 for a parabola.
    extra : float
        Standard error, in logs, shared by all cells, that widens stderr and interval.
    """
    quantile = t_quantile(fit.dof, level)
    warp = _warp(asymmetry * fit.scale)
    basin = _is_basin(fit)
    vertex = np.where(basin[:, None], _vertex(fit), np.nan)
    raw = _vertex_stderr(fit, vertex)
    lo, hi = (warp(bound) for bound in _interval(fit, vertex, raw, quantile))
    place = warp(vertex)
    step = 1e-4
    with np.errstate(invalid="ignore"):  # a vertex beyond the reach of the basin's flat side has no place
        slope = (warp(vertex + step) - warp(vertex - step)) / (2 * step)
        stderr = np.sqrt((fit.scale * raw * slope) ** 2 + extra**2)
    value = fit.centre + fit.scale * place
    lo = fit.centre + fit.scale * lo + np.minimum(fit.shift, 0.0) - 2 * extra
    hi = fit.centre + fit.scale * hi + np.maximum(fit.shift, 0.0) + 2 * extra

    best, _ = block.best()
    low_edge, high_edge = edges(block, value, best)
    edge = low_edge | high_edge
    first, last = block.extent(block.finished)
    point = np.select([low_edge, high_edge, np.isfinite(value)], [first, last, value], best)
    below, above = block.neighbours(point)
    around = block.neighbours(np.where(edge, point, best))
    below, above = np.minimum(below, around[0]), np.maximum(above, around[1])
    plain = edge | ~np.isfinite(stderr)
    found = Extraction(
        value=point,
        lo=np.where(plain, below, lo),
        hi=np.where(plain, above, hi),
        stderr=stderr,
        curvature=_curvature(fit, asymmetry * fit.scale * place),
        status=np.full(value.shape, "interior", dtype=object),
        loss=np.where(edge.any(axis=1) | ~basin, block.lowest, _bottom(fit, vertex)),
        weight=np.ones(len(value)),
        notes=_shift_note(fit.shift),
    )
    return finish(block, found, _flat(block, fit, basin, edge), edge)


def _flat(block: Block, fit: Quadratic, basin: NDArray[np.bool_], edge: NDArray[np.bool_]) -> NDArray[np.bool_]:
    noise = np.nan_to_num(np.sqrt(fit.variance), nan=0.0)
    return ~basin[:, None] & (~edge | range_is_noise(block.spread(), block.finished.sum(axis=1), noise)[:, None])


def _warp(scaled: Floats) -> Callable[[Floats], Floats]:
    """Return the increasing map from where the slope of a parabola would vanish to where the bent slope does."""

    def warp(z: Floats) -> Floats:
        with np.errstate(all="ignore"):
            bent = np.log1p(np.maximum(scaled * z, -1.0)) / np.where(scaled == 0, 1.0, scaled)
        return np.where(np.abs(scaled) < 1e-6, z, bent)

    return warp


def _curvature(fit: Quadratic, bend: Floats) -> Floats:
    """Second derivative at the optimum in logs; without an optimum, where the runs are centred."""
    return (
        np.diagonal(fit.hessian, axis1=1, axis2=2) / fit.scale**2 * np.exp(np.nan_to_num(bend, neginf=0.0, posinf=0.0))
    )


def t_quantile(dof: Floats, level: float) -> Floats:
    """Return Student's t that leaves (1 - level)/2 above it; NaN where there are no degrees of freedom."""
    from scipy.special import stdtrit

    return np.where(dof > 0, stdtrit(np.maximum(dof, 0.1), (1 + level) / 2), np.nan)


def _is_basin(fit: Quadratic) -> NDArray[np.bool_]:
    known = every(np.isfinite(fit.hessian), axis=(1, 2))
    values, vectors = np.linalg.eigh(np.where(known[:, None, None], fit.hessian, 0.0))
    axes = values.shape[1]
    first, second = np.triu_indices(axes)
    direction = vectors[:, :, 0]
    jacobian = direction[:, first] * direction[:, second] * np.where(first == second, 1.0, 2.0)
    covariance = fit.covariance[:, 1 + axes :, 1 + axes :]
    error = np.sqrt(np.maximum(np.einsum("ck,ckl,cl->c", jacobian, covariance, jacobian), 0.0))
    return known & (values[:, 0] > np.where(np.isfinite(error), SIGNIFICANT * error, 0.0))


def edges(block: Block, value: Floats, best: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Say where the vertex is at or beyond the last level; without a vertex, where the best run is."""
    first, last = block.extent(block.finished)
    below, above = block.neighbours(first)[0], block.neighbours(last)[1]
    first, last = np.where(np.isinf(below), first, below), np.where(np.isinf(above), last, above)
    known = np.isfinite(value)
    low = np.where(known, value <= first + block.tolerance, np.isinf(block.neighbours(best)[0]))
    high = np.where(known, value >= last - block.tolerance, np.isinf(block.neighbours(best)[1]))
    return low, high


def _vertex(fit: Quadratic) -> Floats:
    axes = fit.gradient.shape[1]
    sound = every(np.isfinite(fit.hessian), axis=(1, 2)) & (np.abs(np.linalg.det(np.nan_to_num(fit.hessian))) > 0)
    hessian = np.where(sound[:, None, None], fit.hessian, np.eye(axes))
    return np.where(sound[:, None], -np.linalg.solve(hessian, fit.gradient[:, :, None])[:, :, 0], np.nan)


def _vertex_stderr(fit: Quadratic, vertex: Floats) -> Floats:
    # Differentiating H v = -g gives H dv = -(dg + dH v).
    axes = vertex.shape[1]
    first, second = np.triu_indices(axes)
    change = np.zeros((len(vertex), axes, 1 + axes + len(first)))
    change[:, :, 1 : 1 + axes] = np.eye(axes)
    for k, (i, j) in enumerate(zip(first, second, strict=True)):
        change[:, i, 1 + axes + k] += vertex[:, j]
        if i != j:
            change[:, j, 1 + axes + k] += vertex[:, i]
    sound = every(np.isfinite(vertex), axis=1)
    hessian = np.where(sound[:, None, None], fit.hessian, np.eye(axes))
    jacobian = np.linalg.solve(hessian, change)
    variance = np.einsum("cak,ckl,cal->ca", jacobian, fit.covariance, jacobian)
    return np.where(sound[:, None], np.sqrt(np.maximum(variance, 0.0)), np.nan)


def _interval(fit: Quadratic, vertex: Floats, stderr: Floats, quantile: Floats) -> tuple[Floats, Floats]:
    if vertex.shape[1] > 1:
        half = quantile[:, None] * stderr
        return vertex - half, vertex + half
    # Fieller: the places v where the slope g + h v is not significantly different from zero.
    g, h, t2 = fit.gradient[:, 0], fit.hessian[:, 0, 0], quantile**2
    cov = fit.covariance
    a = h**2 - t2 * cov[:, 2, 2]
    b = g * h - t2 * cov[:, 1, 2]
    c = g**2 - t2 * cov[:, 1, 1]
    bounded = np.isfinite(vertex[:, 0]) & (a > 0)
    a = np.where(bounded, a, 1.0)
    root = np.sqrt(np.maximum(b**2 - a * c, 0.0))
    lo, hi = (-b - root) / a, (-b + root) / a
    return np.where(bounded, lo, -np.inf)[:, None], np.where(bounded, hi, np.inf)[:, None]


def _bottom(fit: Quadratic, vertex: Floats) -> Floats:
    return fit.constant + 0.5 * (fit.gradient * vertex).sum(axis=1)


def _shift_note(shift: Floats) -> tuple[Note, ...]:
    if not shift.any():
        return ()
    octaves = shift / np.log(2)
    told = [f"{abs(o):.2f} octaves {'low' if o > 0 else 'high'}" for o in octaves]
    if len(octaves) > 1:
        told = [f"{text} in axis {k + 1}" for k, text in enumerate(told)]
    text = (
        f"the basins are not symmetric: judged by a cubic, the parabola reads the optimum about "
        f"{' and '.join(text for text, o in zip(told, octaves, strict=True) if o)}, median over cells; "
        "the points are left as they are, the intervals reach that much further"
    )
    return (Note("asymmetry", text, caution=True),)
