"""A quadratic or bent basin fitted to the bottom of every cell on its own, and the optimum read off it with its error.

Derivations: docs/derivations.md, "The basin".
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement, permutations
from math import comb, factorial

import numpy as np

from scalefit.optima.basin_shape import bend, pool_noise, window_weight
from scalefit.optima.cells import MIN_LEVELS, Bools, Cells, Floats
from scalefit.optima.run_weights import RunWeights

# Residual degrees of freedom over all cells from which the noise is judged about a cubic instead of the parabola.
_ENOUGH_DOF = 8.0

# A cell says nothing of its noise below this; a small dof in the denominator would make it say anything.
_LEAST_DOF = 0.02

# Degrees of freedom over all cells that an asymmetry must leave for anything to be said of the noise.
_LEAST_LEFT = 1.0

# Cells from which an asymmetry shared by all of them can be judged, and the standard errors by which the shift must
# exceed zero: the error of a median over eight cells is itself rough.
_MANY_CELLS, _CLEAR = 8, 4.0


@dataclass(frozen=True, eq=False)
class Quadratic:
    """A quadratic fitted to each cell, in coordinates z = (x - centre) / scale; NaN where the runs do not tell."""

    constant: Floats  # (cells,)
    gradient: Floats  # (cells, axes), at the centre
    hessian: Floats  # (cells, axes, axes)
    covariance: Floats  # (cells, terms, terms): constant, slopes, then second derivatives of the upper triangle
    centre: Floats  # (cells, axes)
    scale: Floats  # (cells, axes)
    variance: Floats  # (cells,): noise of a run in nats squared; NaN where unknown
    dof: Floats  # (cells,): degrees of freedom behind it; 0 where unknown
    inverse: Floats  # (cells, terms, terms): of the weighted products of the terms
    shift: Floats  # (axes,): how far the optimum moves when cubic terms are allowed, 0 where that is not clear


@dataclass(frozen=True, eq=False)
class Bottoms:
    """The runs of every cell as a regression sees them."""

    weight: Floats  # (cells, runs)
    calm: Floats  # (cells, runs)
    height: Floats  # (cells, runs): loss over the cell's lowest, which keeps small differences exact
    centre: Floats
    scale: Floats
    z: Floats  # (cells, runs, axes)
    known: Bools  # (cells,): enough levels for a curvature

    @classmethod
    def of(cls, cells: Cells, counted: RunWeights) -> Bottoms:
        """Lay out the cells, centred and scaled by the runs that count."""
        finished, weight = cells.finished, counted.trust
        x = np.where(finished[:, :, None], cells.x, 0.0)
        total = np.maximum(weight.sum(axis=1), 1e-300)[:, None]
        centre = (weight[:, :, None] * x).sum(axis=1) / total
        z = np.where(finished[:, :, None], x - centre[:, None, :], 0.0)
        scale = np.sqrt((weight[:, :, None] * z**2).sum(axis=1) / total)
        # Runs at one place, but for jitter, have no scale of their own.
        scale = np.where(scale > cells.tolerance / 10, scale, 1.0)
        height = np.where(finished, cells.loss - np.nan_to_num(cells.lowest)[:, None], 0.0)
        known = np.asarray((cells.level_counts() >= MIN_LEVELS).all(axis=1))
        return cls(weight, counted.calm, height, centre, scale, z / scale[:, None, :], known)


def fit_quadratic(
    cells: Cells, counted: float | RunWeights, asymmetry: float | None = None, taken: Floats | None = None
) -> Quadratic:
    """Fit the weighted quadratic of every cell at once; see `Parabola` for the weights of a window and the noise.

    With an `asymmetry` k (one axis only) the square z**2/2 is replaced by the bent g(z; k); the "hessian" is then the
    curvature at the centre, and no shift is looked for. What else has `taken` degrees of freedom is told by the caller.
    """
    axes, low = cells.x.shape[2], np.nan_to_num(cells.lowest)
    bottoms = Bottoms.of(cells, _weights(cells, counted))
    scale, shift = bottoms.scale, np.zeros(axes)
    if asymmetry is not None:
        plain = noise = regress(bent_design(bottoms, asymmetry), bottoms)
    else:
        plain, cubic = (regress(_taylor(bottoms.z, order), bottoms) for order in (2, 3))
        # Cubic terms take up the asymmetry of the basins, which is no noise; short sweeps cannot afford them.
        noise = cubic if cubic.dof.sum() >= _ENOUGH_DOF else plain
        shift = _pooled_shift(plain, cubic, scale)
    # An asymmetry that was sought fits away one residual, however little it is known: a few others must be left.
    spent = 0.0 if taken is None else 1.0
    left = noise.dof - (0.0 if taken is None else taken)
    left = np.where((left > _LEAST_DOF) & (noise.dof.sum() - spent > _LEAST_LEFT), left, 0.0)
    variance, dof = pool_noise(noise.rss, left, low)
    return Quadratic(
        constant=plain.coef[:, 0] + low,
        gradient=plain.coef[:, 1 : 1 + axes],
        hessian=_unpack(plain.coef, axes, 2),
        covariance=variance[:, None, None] * plain.spread,
        centre=bottoms.centre,
        scale=scale,
        variance=variance,
        dof=dof,
        inverse=plain.inverse,
        shift=shift,
    )


def _weights(cells: Cells, counted: float | RunWeights) -> RunWeights:
    if isinstance(counted, RunWeights):
        return counted
    trust = np.where(cells.finished, window_weight(np.where(cells.finished, cells.excess, 0.0), counted), 0.0)
    return RunWeights(trust, np.ones(trust.shape))


@dataclass(frozen=True, eq=False)
class Regression:
    """What a regression of every cell found."""

    coef: Floats  # (..., cells, terms); NaN where the runs do not determine them
    inverse: Floats  # (..., cells, terms, terms)
    spread: Floats  # (..., cells, terms, terms): covariance for noise of unit variance
    rss: Floats  # (..., cells): weighted sum of squared residuals, 0 where unknown
    dof: Floats  # (..., cells): its expectation for noise of unit variance, 0 where unknown


def regress(design: Floats, bottoms: Bottoms) -> Regression:
    """Regress the heights on a design (..., cells, runs, terms) by weighted least squares."""
    # In units of the noise at each run, which makes all of them equally noisy.
    weight, height, design = bottoms.weight, bottoms.calm * bottoms.height, bottoms.calm[:, :, None] * design
    weighted = (design * weight[:, :, None]).swapaxes(-1, -2)
    gram = weighted @ design
    size = np.sqrt(np.maximum(np.diagonal(gram, axis1=-2, axis2=-1), 1e-300))
    # To unit diagonal first, so that an eigenvalue near zero means too few places and not small units.
    values, vectors = np.linalg.eigh(gram / (size[..., :, None] * size[..., None, :]))
    known = bottoms.known & (values[..., 0] > 1e-9)
    scaled = vectors / size[..., :, None]
    inverse = (scaled / np.where(known[..., None], values, np.nan)[..., None, :]) @ scaled.swapaxes(-1, -2)
    coef = (inverse @ (weighted @ height[:, :, None]))[..., 0]
    residual = height - (design @ coef[..., None])[..., 0]
    # Weights say how well the basin holds at a run, not how noisy the run is: hence X'W^2 X between the inverses.
    sandwich = inverse @ (weighted @ weighted.swapaxes(-1, -2))
    dof = weight.sum(axis=1) - np.trace(sandwich, axis1=-2, axis2=-1)
    sound = known & (dof > _LEAST_DOF)
    rss = np.where(sound, (weight * residual**2).sum(axis=-1), 0.0)
    return Regression(coef, inverse, sandwich @ inverse, rss, np.where(sound, dof, 0.0))


def bent_design(bottoms: Bottoms, k: Floats | float) -> Floats:
    """Return columns 1, z and g(z; k) for one axis, for one asymmetry or several."""
    return bent_columns(bottoms.z[:, :, 0], np.asarray(k)[..., None, None] * bottoms.scale[:, :1])


def bent_columns(z: Floats, k: Floats) -> Floats:
    """Return columns 1, z and g(z; k)."""
    bent = bend(z, k)[0]
    return np.stack(np.broadcast_arrays(np.ones_like(bent), z, bent), axis=-1)


def _taylor(z: Floats, order: int) -> Floats:
    """Return the terms of a Taylor polynomial in z, so that coefficients are derivatives at the centre."""
    axes, columns = z.shape[2], [np.ones(z.shape[:2])]
    for degree in range(1, order + 1):
        for index in combinations_with_replacement(range(axes), degree):
            columns.append(np.prod(z[:, :, index], axis=2) * len(set(permutations(index))) / factorial(degree))
    return np.stack(columns, axis=2)


def _unpack(coef: Floats, axes: int, degree: int) -> Floats:
    """Spread the derivatives of one degree into a symmetric tensor, shape (cells, axes, ...); 0 beyond the fit."""
    tensor = np.zeros((len(coef), *(axes,) * degree))
    start = comb(axes + degree - 1, degree - 1)  # terms of the lower degrees
    if start == coef.shape[1]:
        return tensor
    for k, index in enumerate(combinations_with_replacement(range(axes), degree), start=start):
        for place in set(permutations(index)):
            at: tuple[slice | int, ...] = (slice(None), *place)
            tensor[at] = coef[:, k]
    return tensor


def _pooled_shift(plain: Regression, cubic: Regression, scale: Floats) -> Floats:
    """Return how far cubic terms move the optimum, in the median over cells; 0 where that is not clear."""
    straight, curved = (_stationary(found.coef, scale.shape[1]) for found in (plain, cubic))
    near = np.isfinite(straight - curved).all(axis=1) & (np.abs(curved) < 3).all(axis=1)
    shift = ((curved - straight) * scale)[near]
    if len(shift) < _MANY_CELLS:
        return np.zeros(scale.shape[1])
    middle = np.median(shift, axis=0)
    # The standard error of a median of normal values with this median absolute deviation.
    error = 1.253 * 1.4826 * np.median(np.abs(shift - middle), axis=0) / np.sqrt(len(shift))
    return np.where(np.abs(middle) > _CLEAR * error + 1e-9, middle, 0.0)


def _stationary(coef: Floats, axes: int) -> Floats:
    """Find the minimum nearest the centre by Newton's method, shape (cells, axes); NaN where there is none."""
    gradient, hessian, third = coef[:, 1 : 1 + axes], _unpack(coef, axes, 2), _unpack(coef, axes, 3)
    point = np.zeros((len(coef), axes))
    for _ in range(8):
        change = np.einsum("cijk,ck->cij", third, point)
        slope = gradient + np.einsum("cij,cj->ci", hessian + change / 2, point)
        curvature = hessian + change
        good = np.isfinite(curvature).all(axis=(1, 2)) & np.isfinite(slope).all(axis=1)
        good[good] = np.linalg.eigvalsh(curvature[good])[:, 0] > 0
        safe = np.where(good[:, None, None], curvature, np.eye(axes))
        step = np.linalg.solve(safe, np.where(good[:, None], slope, 0.0)[:, :, None])[:, :, 0]
        point = np.where(good[:, None], point - np.clip(step, -1.0, 1.0), np.nan)
    return point


def noise_scale(cells: Cells, window: float = 0.01) -> Floats:
    """Return the standard deviation of a run's loss per cell, from a local fit's residuals; NaN if unknown."""
    return np.sqrt(fit_quadratic(cells, window).variance)


def is_noise(cells: Cells, noise: Floats) -> Bools:
    """Say which cells range no wider than noise of this size makes them in about 95 % of cells, shape (cells, 1).

    Where the noise is unknown (NaN), only an exact tie of all losses is noise.
    """
    # Within 0.3 of the studentised range's 95 % point for 3 to 12 runs.
    limit = 2 * np.sqrt(2 * np.log(cells.finished.sum(axis=1) + 2))
    return (cells.spread() <= limit * np.nan_to_num(noise, nan=0.0))[:, None]
