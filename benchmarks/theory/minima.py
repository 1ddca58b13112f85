"""The lowest point of sampled curves, many at a time, and its error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def vertex(x: Floats, y: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Return place and height of the lowest point of curves, and whether it lies inside, shapes (..., rows).

    A parabola through the lowest of the points y, shape (..., rows, points), and its neighbours at x, shape
    (rows, points). Where the lowest point is the first or the last, or a neighbour is infinite, it is that point.

    Examples
    --------
    >>> x = np.array([[0.0, 1.0, 2.0, 4.0]])
    >>> place, height, inside = vertex(x, (x - 1.3) ** 2 + 5)
    >>> place.round(12).tolist(), height.round(12).tolist(), inside.tolist()
    ([1.3], [5.0], [True])
    """
    at = np.argmin(y, axis=-1)
    middle = np.clip(at, 1, y.shape[-1] - 2)
    places = np.broadcast_to(x, y.shape)
    x0, x1, x2 = (_take(places, middle + k) for k in (-1, 0, 1))
    heights = np.stack([_take(y, middle + k) for k in (-1, 0, 1)])
    inside = (at == middle) & np.isfinite(heights).all(axis=0)
    y0, y1, y2 = np.where(inside, heights, 0.0)
    left, right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    bend = (right - left) / (x2 - x0)
    slope = left + bend * (x1 - x0)
    move = -slope / np.where(bend > 0, 2 * bend, np.inf)
    return _take(places, at) + move, _take(y, at) + move * slope / 2, inside


def jackknife(values: Floats) -> Floats:
    """Return the standard error from leave-one-out values, shape (replicates, ...); NaN where one is not finite.

    Examples
    --------
    >>> sample = np.array([1.0, 2.0, 4.0, 5.0])
    >>> rest = (sample.sum() - sample) / 3
    >>> round(float(jackknife(rest)), 12) == round(float(sample.std(ddof=1) / 2), 12)
    True
    """
    count = len(values)
    with np.errstate(invalid="ignore"):
        return np.sqrt((count - 1) * np.var(values, axis=0))


def _take(array: Floats, index: NDArray[np.int64]) -> Floats:
    return np.take_along_axis(array, index[..., None], axis=-1)[..., 0]
