"""Optima read off local fits: a place, an interval and a status for every cell."""

from __future__ import annotations

import numpy as np

from scalefit._values import Note
from scalefit.optima.basin_shape import bend
from scalefit.optima.brackets import bracket
from scalefit.optima.cells import Bools, Cells, Estimates, Floats, conclude
from scalefit.optima.local_fit import Quadratic, is_noise
from scalefit.solvers.distributions import t_quantile

# Standard errors by which a curvature must exceed zero to be a basin.
_SIGNIFICANT = 2.0

# Degrees of freedom below which the noise is not known well enough to call a cell flat.
_ENOUGH_DOF = 2.0


def read_vertices(
    cells: Cells,
    fit: Quadratic,
    level: float,
    k: float = 0.0,
    extra: Floats | float = 0.0,
    calm: Floats | None = None,
) -> Estimates:
    """Turn local fits into optima with intervals and statuses.

    `k` is the asymmetry for which `fit` was made, 0 for a parabola; `extra` a standard error of every
    cell's optimum, in logs, that its fit does not know of; `calm` the noise at the optimum over that at each run.
    """
    bent, basin = k * fit.scale, _is_basin(fit)
    vertex, raw = _vertex(fit, basin)
    quantile = errors_within(level, fit.dof)
    lo, hi = (unbend(end, bent) for end in _interval(fit, vertex, raw, quantile))
    place, step = unbend(vertex, bent), 1e-4
    extra = np.broadcast_to(np.asarray(extra)[..., None], place.shape)
    with np.errstate(invalid="ignore"):  # a vertex beyond the reach of the basin's flat side has no place
        slope = (unbend(vertex + step, bent) - unbend(vertex - step, bent)) / (2 * step)
        stderr = np.sqrt((fit.scale * raw * slope) ** 2 + extra**2)
        # The reach of Fieller's interval on either side, and that of the other error: they are independent.
        reach = t_quantile(level, np.inf) * extra
        below, above = np.hypot(fit.scale * (place - lo), reach), np.hypot(fit.scale * (hi - place), reach)
        value = fit.centre + fit.scale * place
        # The shift is a bias of unknown share: the interval reaches for it on the side it points to, not the point.
        lo, hi = value - below + np.minimum(fit.shift, 0.0), value + above + np.maximum(fit.shift, 0.0)
    best, _ = cells.best()
    value = np.where(np.isfinite(value), value, best)
    if place.shape[1] == 1:
        flat, edge, point, lo, hi, closed = _judge_one_axis(cells, fit, basin, value, lo, hi, stderr, calm)
        stderr, lowest = np.where(closed, stderr, np.nan), bottom(fit, k)[1]
    else:
        edge, point, lo, hi = bound(cells, value, best, lo, hi, np.isfinite(stderr))
        flat = ~basin[:, None] & (~edge | is_noise(cells, np.sqrt(fit.variance)))
        lowest = fit.constant + (fit.gradient * vertex).sum(axis=1) / 2
    # At the optimum the curvature of a bent basin is exp(k z) times that at the centre.
    growth = np.exp(np.nan_to_num(bent * place, neginf=0.0, posinf=0.0))
    return conclude(
        cells,
        flat,
        edge,
        value=point,
        lo=lo,
        hi=hi,
        stderr=stderr,
        curvature=np.diagonal(fit.hessian, axis1=1, axis2=2) / fit.scale**2 * growth,
        loss=np.where(edge.any(axis=1) | ~np.isfinite(lowest), cells.lowest, lowest),
        notes=_shift_note(fit.shift),
    )


def _judge_one_axis(
    cells: Cells,
    fit: Quadratic,
    basin: Bools,
    value: Floats,
    lo: Floats,
    hi: Floats,
    stderr: Floats,
    calm: Floats | None,
) -> tuple[Bools, Bools, Floats, Floats, Floats, Bools]:
    """Weigh the fitted interval against the bracket of the levels; say what is flat and what an edge."""
    best, _ = cells.best()
    count = np.maximum(cells.averaged[1], 1)
    sd = np.sqrt(fit.variance)[:, None]
    least, most, honest = bracket(cells, sd / np.sqrt(count) / (1.0 if calm is None else calm))
    fitted = basin[:, None] & np.isfinite(stderr) & np.isfinite(lo) & np.isfinite(hi)
    known = (fit.dof >= _ENOUGH_DOF)[:, None]
    noisy = is_noise(cells, np.sqrt(fit.variance))
    between = honest & np.isfinite(least) & np.isfinite(most) & ~(noisy & known)
    # Both hold the optimum: the narrower is the better answer. Few degrees of freedom make the fit say next to nothing.
    by_fit = fitted & (~between | (hi - lo <= most - least))
    at_end, point, edge_lo, edge_hi = bound(cells, np.where(basin[:, None], value, best), best, lo, hi, fitted)
    by_level = between & ~by_fit & ~(at_end & basin[:, None])
    half = ~by_fit & ~by_level & honest & (np.isfinite(least) != np.isfinite(most)) & ~noisy
    at_end = at_end & ~by_level & (basin[:, None] | ~noisy)
    one_sided = half & ~at_end
    inside = np.where((value > least) & (value < most), value, best)
    point = np.select([at_end, by_level, one_sided], [point, inside, np.where(np.isfinite(least), least, most)], value)
    lo = np.select([at_end, by_level | one_sided], [edge_lo, least], lo)
    hi = np.select([at_end, by_level | one_sided], [edge_hi, most], hi)
    edge = at_end | one_sided
    return ~(by_fit | by_level | edge), edge, point, lo, hi, by_fit


def unbend(vertex: Floats, k: Floats) -> Floats:
    """Return where the slope of the bent basin vanishes, given where that of the parabola (k = 0) would.

    The slopes are g + h z and g + h (exp(k z) - 1)/k.
    """
    with np.errstate(all="ignore"):
        bent = np.log1p(np.maximum(k * vertex, -1.0)) / np.where(k == 0, 1.0, k)
    return np.where(np.abs(k) < 1e-6, vertex, bent)


def bottom(fit: Quadratic, k: float) -> tuple[Floats, Floats, Bools]:
    """Return the place z and the loss of each basin's bottom, and which cells are a basin (one axis)."""
    basin = _is_basin(fit) & np.isfinite(fit.covariance[:, 0, 0])
    bent = k * fit.scale[:, 0]
    vertex = np.where(basin, -fit.gradient[:, 0] / np.where(basin, fit.hessian[:, 0, 0], 1.0), 0.0)
    place = unbend(vertex, bent)
    # Beyond where the flat side of a bent basin falls for ever there is no bottom.
    basin = basin & np.isfinite(place)
    place = np.where(basin, place, 0.0)
    curve = fit.gradient[:, 0] * place + fit.hessian[:, 0, 0] * bend(place, bent)[0]
    return place, np.where(basin, fit.constant + curve, np.nan), basin


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
