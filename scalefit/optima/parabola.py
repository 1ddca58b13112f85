"""A parabola in the logs around the minimum of every cell, with the error of its vertex."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations_with_replacement, permutations
from math import comb, factorial

import numpy as np
from numpy.typing import NDArray

from scalefit._values import Note
from scalefit.errors import SweepError
from scalefit.optima.cells import MIN_LEVELS, Block, Extraction, Floats, every, finish
from scalefit.solvers.students_t import t_quantile

PRIOR_DOF = 4.0
"""How many degrees of freedom the noise pooled over cells counts for in each cell's own."""

ENOUGH_DOF = 8.0
"""Residual degrees of freedom over all cells from which the noise is judged about a cubic instead of the parabola."""

_CHUNK = 200_000
"""Runs, counted once for each asymmetry, that are fitted at once."""

MANY_CELLS = 8
"""Cells from which an asymmetry shared by all of them can be judged."""


@dataclass(frozen=True, eq=False)
class Quadratic:
    """A quadratic fitted to each cell, in coordinates centred and scaled per cell.

    Parameters
    ----------
    constant, gradient, hessian : ndarray, shapes (cells,), (cells, axes), (cells, axes, axes)
        Value, slope and second derivative at the centre; NaN where the runs do not determine them.
    covariance : ndarray, shape (cells, terms, terms)
        Of the coefficients: constant, slopes, then the second derivatives of the upper triangle.
    centre, scale : ndarray, shape (cells, axes)
        Coordinates are centre + scale * z.
    variance, dof : ndarray, shape (cells,)
        Noise variance of a run in nats squared and its degrees of freedom; NaN and 0 where unknown.
    shift : ndarray, shape (axes,)
        How far, in logs, the optimum moves when cubic terms are allowed: the median over cells, 0 where it is not
        clearly different from 0.
    misfit : ndarray, shape (cells,)
        Weighted sum of squared residuals.
    """

    constant: Floats
    gradient: Floats
    hessian: Floats
    covariance: Floats
    centre: Floats
    scale: Floats
    variance: Floats
    dof: Floats
    shift: Floats
    misfit: Floats


def fit_quadratic(block: Block, window: float, asymmetry: float | None = None) -> Quadratic:
    """Fit the weighted quadratic of every cell at once; see `Parabola` for the weights and the noise.

    With an `asymmetry` k (one axis only) the square z**2/2 is replaced by the bent (exp(k z) - k z - 1)/k**2; the
    "hessian" is then the curvature at the centre, and no shift is looked for.
    """
    axes = block.x.shape[2]
    weight = window_weights(block, window)
    centre, scale, z = _standardise(block, weight)
    low = np.nan_to_num(block.lowest)
    height = np.where(block.finished, block.loss - low[:, None], 0.0)
    known = every(block.level_counts() >= MIN_LEVELS, axis=1)
    square = _design(z, 2) if asymmetry is None else bent_design(z, asymmetry * scale[:, :1])
    plain = _local_regression(square, weight, height, known)
    # Cubic terms take up the asymmetry of the basins, which is no noise; short sweeps cannot afford them.
    bent = plain if asymmetry is not None else _local_regression(_design(z, 3), weight, height, known)
    noise = bent if asymmetry is None and bent.dof.sum() >= ENOUGH_DOF else plain
    variance, dof = pool_noise(noise.rss, noise.dof, low)
    coef = plain.coef
    return Quadratic(
        constant=coef[:, 0] + low,
        gradient=coef[:, 1 : 1 + axes],
        hessian=_unpack(coef, axes, 2),
        covariance=variance[:, None, None] * plain.spread,
        centre=centre,
        scale=scale,
        variance=variance,
        dof=dof,
        shift=_pooled_shift(plain, bent, scale) if asymmetry is None else np.zeros(axes),
        misfit=plain.rss,
    )


def misfits(block: Block, window: float, asymmetries: Floats) -> Floats:
    """Return the misfit of `fit_quadratic` for several asymmetries at once, shape (asymmetries, cells)."""
    weight = window_weights(block, window)
    _, scale, z = _standardise(block, weight)
    height = np.where(block.finished, block.loss - np.nan_to_num(block.lowest)[:, None], 0.0)
    known = every(block.level_counts() >= MIN_LEVELS, axis=1)
    at_once = max(1, _CHUNK // max(weight.size, 1))
    parts = []
    for k in np.split(asymmetries, range(at_once, len(asymmetries), at_once)):
        n = len(k)
        design = bent_design(np.tile(z, (n, 1, 1)), np.repeat(k, len(z))[:, None] * np.tile(scale[:, :1], (n, 1)))
        found = _local_regression(design, np.tile(weight, (n, 1)), np.tile(height, (n, 1)), np.tile(known, n))
        parts.append(found.rss.reshape(n, len(z)))
    return np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class _Regression:
    coef: Floats  # (cells, terms); NaN where the runs do not determine them
    spread: Floats  # (cells, terms, terms): covariance for noise of unit variance
    rss: Floats  # (cells,): weighted sum of squared residuals, 0 where unknown
    dof: Floats  # (cells,): its expectation for noise of unit variance, 0 where unknown


def _local_regression(design: Floats, weight: Floats, height: Floats, usable: NDArray[np.bool_]) -> _Regression:
    weighted = (design * weight[:, :, None]).transpose(0, 2, 1)  # (cells, terms, runs)
    gram = weighted @ design
    size = np.sqrt(np.maximum(np.diagonal(gram, axis1=1, axis2=2), 1e-300))
    values, vectors = np.linalg.eigh(gram / (size[:, :, None] * size[:, None, :]))
    known = usable & (values[:, 0] > 1e-9)
    scaled = vectors / size[:, :, None]
    inverse = (scaled / np.where(known[:, None], values, np.nan)[:, None, :]) @ scaled.transpose(0, 2, 1)
    coef = (inverse @ (weighted @ height[:, :, None]))[:, :, 0]
    residual = height - (design @ coef[:, :, None])[:, :, 0]
    sandwich = inverse @ (weighted @ weighted.transpose(0, 2, 1))
    rss = (weight * residual**2).sum(axis=1)
    dof = weight.sum(axis=1) - np.trace(sandwich, axis1=1, axis2=2)
    sound = known & (dof > 0.02)
    return _Regression(coef, sandwich @ inverse, np.where(sound, rss, 0.0), np.where(sound, dof, 0.0))


def _pooled_shift(plain: _Regression, bent: _Regression, scale: Floats) -> Floats:
    axes = scale.shape[1]
    straight, curved = _stationary(plain.coef, axes), _stationary(bent.coef, axes)
    near = np.isfinite(straight - curved).all(axis=1) & (np.abs(curved) < 3).all(axis=1)
    shift = ((curved - straight) * scale)[near]
    if len(shift) < MANY_CELLS:
        return np.zeros(axes)
    middle = np.median(shift, axis=0)
    # The standard error of a median of normal values with this median absolute deviation.
    error = 1.253 * 1.4826 * np.median(np.abs(shift - middle), axis=0) / np.sqrt(len(shift))
    return np.where(np.abs(middle) > 4 * error + 1e-9, middle, 0.0)


def _stationary(coef: Floats, axes: int) -> Floats:
    """Find the minimum nearest the centre by Newton's method, shape (cells, axes); NaN where there is none."""
    gradient = coef[:, 1 : 1 + axes]
    hessian, third = _unpack(coef, axes, 2), np.zeros((len(coef), axes, axes, axes))
    if coef.shape[1] > _size(axes, 2):
        third = _unpack(coef, axes, 3)
    point = np.zeros((len(coef), axes))
    for _ in range(8):
        bend = np.einsum("cijk,ck->cij", third, point)
        slope = gradient + np.einsum("cij,cj->ci", hessian + bend / 2, point)
        curvature = hessian + bend
        good = np.isfinite(curvature).all(axis=(1, 2)) & np.isfinite(slope).all(axis=1)
        good[good] = np.linalg.eigvalsh(curvature[good])[:, 0] > 0
        safe = np.where(good[:, None, None], curvature, np.eye(axes))
        step = np.linalg.solve(safe, np.where(good[:, None], slope, 0.0)[:, :, None])[:, :, 0]
        point = np.where(good[:, None], point - np.clip(step, -1.0, 1.0), np.nan)
    return point


def noise_scale(block: Block, window: float = 0.01) -> Floats:
    """Return the standard deviation of a run's loss per cell, from a local fit's residuals; NaN if unknown."""
    return np.sqrt(fit_quadratic(block, window).variance)


def range_is_noise(spread: Floats, n: NDArray[np.int64], noise: Floats) -> NDArray[np.bool_]:
    """Say whether the range of n losses is no wider than noise of this size makes it in about 95 % of cells.

    The limit 2 sqrt(2 ln(n + 2)) stays within 0.3 of the studentised range's 95 % point for n from 3 to 12. Where
    the noise is unknown (0), only an exact tie of all losses is noise.
    """
    return spread <= 2 * np.sqrt(2 * np.log(n + 2)) * noise


def window_weights(block: Block, window: float) -> Floats:
    """Return what each run counts, 1 for the best of its cell and a quarter at the window; 0 where there is no loss."""
    ratio = np.where(block.finished, block.excess, 0.0) / window
    return np.where(block.finished, (1 + ratio**1.5) ** -2, 0.0)


def _standardise(block: Block, weight: Floats) -> tuple[Floats, Floats, Floats]:
    x = np.where(block.finished[:, :, None], block.x, 0.0)
    total = np.maximum(weight.sum(axis=1), 1e-300)[:, None]
    centre = (weight[:, :, None] * x).sum(axis=1) / total
    z = np.where(block.finished[:, :, None], x - centre[:, None, :], 0.0)
    scale = np.sqrt((weight[:, :, None] * z**2).sum(axis=1) / total)
    scale = np.where(scale > block.tolerance / 10, scale, 1.0)
    return centre, scale, z / scale[:, None, :]


def _size(axes: int, order: int) -> int:
    """Count the terms of a polynomial of this order."""
    return comb(axes + order, order)


def _design(z: Floats, order: int) -> Floats:
    """Return the terms of a Taylor polynomial in z, so that coefficients are derivatives at the centre."""
    axes, columns = z.shape[2], [np.ones(z.shape[:2])]
    for degree in range(1, order + 1):
        for index in combinations_with_replacement(range(axes), degree):
            columns.append(np.prod(z[:, :, index], axis=2) * len(set(permutations(index))) / factorial(degree))
    return np.stack(columns, axis=2)


def bent_design(z: Floats, k: Floats) -> Floats:
    """Return columns 1, z and (exp(k z) - k z - 1)/k**2 for one axis; k has shape (cells, 1)."""
    flat = z[:, :, 0]
    grown = np.clip(k * flat, -30.0, 30.0)
    small = np.abs(grown) < 1e-4
    bent = np.where(small, flat**2 * (0.5 + grown / 6), (np.expm1(grown) - grown) / np.where(small, 1.0, k) ** 2)
    return np.stack([np.ones_like(flat), flat, bent], axis=2)


def _unpack(coef: Floats, axes: int, degree: int) -> Floats:
    """Spread the derivatives of one degree into a symmetric tensor, shape (cells, axes, ...)."""
    tensor = np.zeros((len(coef), *(axes,) * degree))
    start = _size(axes, degree - 1)
    for k, index in enumerate(combinations_with_replacement(range(axes), degree)):
        for place in set(permutations(index)):
            at: tuple[slice | int, ...] = (slice(None), *place)
            tensor[at] = coef[:, start + k]
    return tensor


def pool_noise(rss: Floats, dof: Floats, low: Floats) -> tuple[Floats, Floats]:
    """Return each cell's noise variance, shrunk towards the median relative to its loss, and its degrees of freedom."""
    usable = dof > 0
    if dof.sum() < 0.5:
        return np.full(len(rss), np.nan), np.zeros(len(rss))
    # The median of chi2(dof)/dof lies below 1; the factor (Wilson and Hilferty) lifts it back.
    lift = np.clip(1 - 2 / (9 * np.maximum(dof[usable], 0.5)), 0.2, None) ** 3
    pooled = _weighted_median(rss[usable] / dof[usable] / low[usable] ** 2 / lift, dof[usable])
    prior = np.clip(dof.sum() - dof, 0.0, PRIOR_DOF)
    total = dof + prior
    # Residuals at the level of rounding are no measure of a noise below it.
    return np.maximum((rss + prior * pooled * low**2) / total, (1e-15 * low) ** 2), total


def _weighted_median(values: Floats, weights: Floats) -> float:
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(share, share[-1] / 2)])


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
    >>> from scalefit.optima.cells import pad
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
    quantile = errors_within(level, fit.dof)
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


def errors_within(level: float, dof: Floats) -> Floats:
    """Return how many standard errors an interval reaches; NaN where there are no degrees of freedom."""
    return np.where(dof > 0, t_quantile(level, np.maximum(dof, 0.1)), np.nan)


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
