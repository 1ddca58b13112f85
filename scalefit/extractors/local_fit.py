"""Quadratics fitted near the minimum of every cell at once, and the noise their residuals show."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement, permutations
from math import comb, factorial

import numpy as np
from numpy.typing import NDArray

from scalefit.extractors.cells import MIN_LEVELS, Block, Floats, every

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
