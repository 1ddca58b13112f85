"""A quadratic or bent basin fitted to the bottom of every cell on its own, and the optimum read off it with its error.

Derivations: docs/derivations.md, "The basin".
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement, permutations
from math import comb, factorial

import numpy as np

from scalefit._values import Note
from scalefit.optima.basin_shape import bend, pool_noise, window_weight
from scalefit.optima.cells import MIN_LEVELS, Bools, Cells, Estimates, Floats, conclude
from scalefit.solvers.distributions import t_quantile

# Residual degrees of freedom over all cells from which the noise is judged about a cubic instead of the parabola.
_ENOUGH_DOF = 8.0

# A cell says nothing of its noise below this; a small dof in the denominator would make it say anything.
_LEAST_DOF = 0.02

# Cells from which an asymmetry shared by all of them can be judged, and the standard errors by which the shift must
# exceed zero: the error of a median over eight cells is itself rough.
_MANY_CELLS, _CLEAR = 8, 4.0

# Standard errors by which a curvature must exceed zero to be a basin.
_SIGNIFICANT = 2.0

# Runs, counted once for each asymmetry, that are fitted at once, which bounds the memory.
_CHUNK = 200_000

# What the asymmetry is taken to be before the cells speak, with its spread: basins are somewhat steeper above the
# optimum. The asymmetries tried reach well beyond those seen, 0.4 to 1.2.
_ASYMMETRY, _ASYMMETRY_SPREAD = 0.5, 0.5
_ASYMMETRIES = np.linspace(-0.5, 2.5, 61)

# Scatter, as a fraction of the loss, below which losses are taken to be free of noise.
_EXACT = 1e-7


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
    shift: Floats  # (axes,): how far the optimum moves when cubic terms are allowed, 0 where that is not clear


@dataclass(frozen=True, eq=False)
class _Bottoms:
    weight: Floats  # (cells, runs)
    height: Floats  # (cells, runs): loss over the cell's lowest, which keeps small differences exact
    centre: Floats
    scale: Floats
    z: Floats  # (cells, runs, axes)
    known: Bools  # (cells,): enough levels for a curvature

    @classmethod
    def of(cls, cells: Cells, window: float) -> _Bottoms:
        finished = cells.finished
        weight = window_weights(cells, window)
        x = np.where(finished[:, :, None], cells.x, 0.0)
        total = np.maximum(weight.sum(axis=1), 1e-300)[:, None]
        centre = (weight[:, :, None] * x).sum(axis=1) / total
        z = np.where(finished[:, :, None], x - centre[:, None, :], 0.0)
        scale = np.sqrt((weight[:, :, None] * z**2).sum(axis=1) / total)
        # Runs at one place, but for jitter, have no scale of their own.
        scale = np.where(scale > cells.tolerance / 10, scale, 1.0)
        height = np.where(finished, cells.loss - np.nan_to_num(cells.lowest)[:, None], 0.0)
        known = np.asarray((cells.level_counts() >= MIN_LEVELS).all(axis=1))
        return cls(weight, height, centre, scale, z / scale[:, None, :], known)


def fit_quadratic(cells: Cells, window: float, asymmetry: float | None = None) -> Quadratic:
    """Fit the weighted quadratic of every cell at once; see `Parabola` for the weights and the noise.

    With an `asymmetry` k (one axis only) the square z**2/2 is replaced by the bent g(z; k); the "hessian" is then the
    curvature at the centre, and no shift is looked for.
    """
    axes, low = cells.x.shape[2], np.nan_to_num(cells.lowest)
    bottoms = _Bottoms.of(cells, window)
    scale, shift = bottoms.scale, np.zeros(axes)
    if asymmetry is not None:
        plain = noise = _regress(bent_design(bottoms.z, asymmetry * scale[:, :1]), bottoms)
    else:
        plain, cubic = (_regress(_taylor(bottoms.z, order), bottoms) for order in (2, 3))
        # Cubic terms take up the asymmetry of the basins, which is no noise; short sweeps cannot afford them.
        noise = cubic if cubic.dof.sum() >= _ENOUGH_DOF else plain
        shift = _pooled_shift(plain, cubic, scale)
    variance, dof = pool_noise(noise.rss, noise.dof, low)
    return Quadratic(
        constant=plain.coef[:, 0] + low,
        gradient=plain.coef[:, 1 : 1 + axes],
        hessian=_unpack(plain.coef, axes, 2),
        covariance=variance[:, None, None] * plain.spread,
        centre=bottoms.centre,
        scale=scale,
        variance=variance,
        dof=dof,
        shift=shift,
    )


def window_weights(cells: Cells, window: float) -> Floats:
    """Return what each run of each cell counts; 0 where there is no loss."""
    return np.where(cells.finished, window_weight(np.where(cells.finished, cells.excess, 0.0), window), 0.0)


@dataclass(frozen=True, eq=False)
class _Regression:
    coef: Floats  # (..., cells, terms); NaN where the runs do not determine them
    spread: Floats  # (..., cells, terms, terms): covariance for noise of unit variance
    rss: Floats  # (..., cells): weighted sum of squared residuals, 0 where unknown
    dof: Floats  # (..., cells): its expectation for noise of unit variance, 0 where unknown


def _regress(design: Floats, bottoms: _Bottoms) -> _Regression:
    """Regress the heights on a design (..., cells, runs, terms) by weighted least squares."""
    weight, height = bottoms.weight, bottoms.height
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
    return _Regression(coef, sandwich @ inverse, rss, np.where(sound, dof, 0.0))


def bent_design(z: Floats, k: Floats) -> Floats:
    """Return columns 1, z and g(z; k) for one axis: z is (cells, runs, 1), k is (..., cells, 1)."""
    bent = bend(z[:, :, 0], k)[0]
    return np.stack(np.broadcast_arrays(np.ones_like(bent), z[:, :, 0], bent), axis=-1)


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


def _pooled_shift(plain: _Regression, cubic: _Regression, scale: Floats) -> Floats:
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


def pooled_asymmetry(cells: Cells, window: float) -> tuple[float, float, tuple[Note, ...]]:
    """Return the asymmetry of least misfit over all cells, its standard error, and a note."""
    bottoms = _Bottoms.of(cells, window)
    at_once = max(1, _CHUNK // max(bottoms.weight.size, 1))
    misfit = np.concatenate(
        [
            _regress(bent_design(bottoms.z, ks[:, None, None] * bottoms.scale[:, :1]), bottoms).rss
            for ks in np.split(_ASYMMETRIES, range(at_once, len(_ASYMMETRIES), at_once))
        ]
    )
    k, error = _ASYMMETRY, _ASYMMETRY_SPREAD
    for _ in range(3):  # the noise is judged about the basin, so it and k are found in turn
        variance = fit_quadratic(cells, window, k).variance
        exact = (_EXACT * np.nan_to_num(cells.lowest)) ** 2
        precision = np.where(np.isfinite(variance), 1 / np.maximum(np.nan_to_num(variance), exact + 1e-300), 0.0)
        k, error = _lowest(misfit @ precision + ((_ASYMMETRIES - _ASYMMETRY) / _ASYMMETRY_SPREAD) ** 2)
    text = f"basins share the asymmetry k = {round(k, 2) + 0.0:.2f} +/- {error:.2f} (0 is a parabola)"
    return k, error, (Note("asymmetry", text),)


def _lowest(score: Floats) -> tuple[float, float]:
    """Return where -2 log posterior is lowest and its standard error, by a parabola through three points."""
    at = int(np.clip(np.argmin(score), 1, len(score) - 2))
    below, middle, above = score[at - 1 : at + 2]
    step = _ASYMMETRIES[1] - _ASYMMETRIES[0]
    curvature = max((below - 2 * middle + above) / step**2, 1e-12)
    k = float(_ASYMMETRIES[at] - np.clip((above - below) / (2 * step * curvature), -step, step))
    return k, float(np.sqrt(2 / curvature))


def read_vertices(cells: Cells, fit: Quadratic, level: float, k: float = 0.0, extra: float = 0.0) -> Estimates:
    """Turn local fits into optima with intervals and statuses.

    `k` is the asymmetry for which `fit` was made, 0 for a parabola; `extra` a standard error, in logs, that all cells
    share and that widens theirs.
    """
    bent, basin = k * fit.scale, _is_basin(fit)
    vertex, raw = _vertex(fit, basin)
    lo, hi = (_unbend(end, bent) for end in _interval(fit, vertex, raw, errors_within(level, fit.dof)))
    place = _unbend(vertex, bent)
    step = 1e-4
    with np.errstate(invalid="ignore"):  # a vertex beyond the reach of the basin's flat side has no place
        slope = (_unbend(vertex + step, bent) - _unbend(vertex - step, bent)) / (2 * step)
        stderr = np.sqrt((fit.scale * raw * slope) ** 2 + extra**2)
    value = fit.centre + fit.scale * place
    # The shift is a bias of unknown share: the interval reaches for it on the side it points to, the point does not.
    lo = fit.centre + fit.scale * lo + np.minimum(fit.shift, 0.0) - 2 * extra
    hi = fit.centre + fit.scale * hi + np.maximum(fit.shift, 0.0) + 2 * extra

    # An error that is unknown leaves the levels next to the vertex and next to the best run, which may differ.
    best, _ = cells.best()
    edge, point, lo, hi = bound(cells, np.where(np.isfinite(value), value, best), best, lo, hi, np.isfinite(stderr))
    # At the optimum the curvature of a bent basin is exp(k z) times that at the centre.
    growth = np.exp(np.nan_to_num(bent * place, neginf=0.0, posinf=0.0))
    noisy = is_noise(cells, np.sqrt(fit.variance))
    return conclude(
        cells,
        ~basin[:, None] & (~edge | noisy),
        edge,
        value=point,
        lo=lo,
        hi=hi,
        stderr=stderr,
        curvature=np.diagonal(fit.hessian, axis1=1, axis2=2) / fit.scale**2 * growth,
        loss=np.where(edge.any(axis=1) | ~basin, cells.lowest, fit.constant + (fit.gradient * vertex).sum(axis=1) / 2),
        notes=_shift_note(fit.shift),
        asymmetry=k,
    )


def _unbend(vertex: Floats, k: Floats) -> Floats:
    """Return where the slope of the bent basin vanishes, given where that of the parabola (k = 0) would.

    The slopes are g + h z and g + h (exp(k z) - 1)/k.
    """
    with np.errstate(all="ignore"):
        bent = np.log1p(np.maximum(k * vertex, -1.0)) / np.where(k == 0, 1.0, k)
    return np.where(np.abs(k) < 1e-6, vertex, bent)


def errors_within(level: float, dof: Floats) -> Floats:
    """Return how many standard errors an interval reaches; NaN where there are no degrees of freedom."""
    return np.where(dof > 0, t_quantile(level, np.maximum(dof, 0.1)), np.nan)


def _is_basin(fit: Quadratic) -> Bools:
    """Say whether the least curvature is clearly positive; its error is that of v'Hv along its eigenvector v."""
    known = np.asarray(np.isfinite(fit.hessian).all(axis=(1, 2)))
    values, vectors = np.linalg.eigh(np.where(known[:, None, None], fit.hessian, 0.0))
    axes = values.shape[1]
    first, second = np.triu_indices(axes)
    direction = vectors[:, :, 0]
    jacobian = direction[:, first] * direction[:, second] * np.where(first == second, 1.0, 2.0)
    covariance = fit.covariance[:, 1 + axes :, 1 + axes :]
    error = np.sqrt(np.maximum(np.einsum("ck,ckl,cl->c", jacobian, covariance, jacobian), 0.0))
    return known & (values[:, 0] > np.where(np.isfinite(error), _SIGNIFICANT * error, 0.0))


def bound(
    cells: Cells, value: Floats, near: Floats, lo: Floats, hi: Floats, known: Bools
) -> tuple[Bools, Floats, Floats, Floats]:
    """Say which optima are at or beyond the last level of an axis, and replace them by that level.

    Return that, the values, and the intervals: those given where the error is known, else the gap between the levels
    about the value and `near`.
    """
    extremes = cells.extent(cells.finished)
    # A diverged run beyond the last loss is a level: an optimum before it is bounded, not at the end of its grid.
    outer = cells.neighbours(extremes[0])[0], cells.neighbours(extremes[1])[1]
    first, last = (np.where(np.isinf(level), end, level) for level, end in zip(outer, extremes, strict=True))
    low, high = value <= first + cells.tolerance, value >= last - cells.tolerance
    edge = low | high
    point = np.select([low, high], extremes, value)
    gaps = cells.neighbours(point), cells.neighbours(np.where(edge, point, near))
    plain = edge | ~known
    lo = np.where(plain, np.minimum(gaps[0][0], gaps[1][0]), lo)
    return edge, point, lo, np.where(plain, np.maximum(gaps[0][1], gaps[1][1]), hi)


def _vertex(fit: Quadratic, basin: Bools) -> tuple[Floats, Floats]:
    """Return where the slope vanishes in the cells that are a basin, and its standard error by the delta method."""
    axes = fit.gradient.shape[1]
    hessian = np.where(basin[:, None, None], fit.hessian, np.eye(axes))
    vertex = np.where(basin[:, None], -np.linalg.solve(hessian, fit.gradient[:, :, None])[:, :, 0], np.nan)
    # Differentiating H v = -g gives H dv = -(dg + dH v).
    first, second = np.triu_indices(axes)
    change = np.zeros((len(vertex), axes, 1 + axes + len(first)))
    change[:, :, 1 : 1 + axes] = np.eye(axes)
    for k, (i, j) in enumerate(zip(first, second, strict=True), start=1 + axes):
        change[:, i, k] += vertex[:, j]
        if i != j:
            change[:, j, k] += vertex[:, i]
    jacobian = np.linalg.solve(hessian, change)
    variance = np.einsum("cak,ckl,cal->ca", jacobian, fit.covariance, jacobian)
    return vertex, np.where(basin[:, None], np.sqrt(np.maximum(variance, 0.0)), np.nan)


def _interval(fit: Quadratic, vertex: Floats, stderr: Floats, quantile: Floats) -> tuple[Floats, Floats]:
    if vertex.shape[1] > 1:
        half = quantile[:, None] * stderr
        return vertex - half, vertex + half
    # Fieller: the places v where the slope g + h v is not significantly different from zero.
    g, h, t2, cov = fit.gradient[:, 0], fit.hessian[:, 0, 0], quantile**2, fit.covariance
    a, b, c = h**2 - t2 * cov[:, 2, 2], g * h - t2 * cov[:, 1, 2], g**2 - t2 * cov[:, 1, 1]
    bounded = np.isfinite(vertex[:, 0]) & (a > 0)
    a = np.where(bounded, a, 1.0)
    root = np.sqrt(np.maximum(b**2 - a * c, 0.0))
    lo, hi = (-b - root) / a, (-b + root) / a
    return np.where(bounded, lo, -np.inf)[:, None], np.where(bounded, hi, np.inf)[:, None]


def _shift_note(shift: Floats) -> tuple[Note, ...]:
    octaves = shift / np.log(2)
    moves = [
        f"{abs(o):.2f} octaves {'low' if o > 0 else 'high'}" + (f" in axis {k}" if len(octaves) > 1 else "")
        for k, o in enumerate(octaves, start=1)
        if o
    ]
    text = (
        f"the basins are not symmetric: judged by a cubic, the parabola reads the optimum about {' and '.join(moves)}, "
        "median over cells; the points are left as they are, the intervals reach that much further"
    )
    return (Note("asymmetry", text, caution=True),) if moves else ()
