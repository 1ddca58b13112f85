"""Where loss curves cross a target: which estimator of the crossing, and how to interpolate inside its bracket."""

from __future__ import annotations

import numpy as np

from scalefit.curves.layout import Layout

Array = np.ndarray

CROSSINGS = ("monotone", "first", "last")


def count_above(layout: Layout, loss: Array, target: float, crossing: str) -> tuple[Array, Array]:
    r"""Return how many of its points every run spends above the target.

    A run that spends k of its n points above crosses between point k and point k + 1; with k = 0 it is below from the
    start, with k = n it never reaches the target.

    Parameters
    ----------
    layout : Layout
    loss : numpy.ndarray
        Losses of all points.
    target : float
    crossing : {"monotone", "first", "last"}
        "first" ends at the first point at or below the target, "last" after the last one above. "monotone" takes the
        k that puts most points on the right side: it maximises :math:`\sum_{i \le k} \mathrm{sign}(L_i - target)`.

    Returns
    -------
    tuple of numpy.ndarray of int, each of shape (n_runs,)
        The smallest and the largest k; they differ where several k of "monotone" are equally good. Point k is above the
        target and point k + 1 is not.

    Notes
    -----
    The k of "monotone" is where the falling step function nearest to the curve in absolute deviation (isotonic median
    regression) passes the target. Where no crossing is as good as one, there is none.
    """
    above = loss > target
    if crossing == "monotone":
        return _majority(layout, above)
    k = _first(layout, ~above) if crossing == "first" else _last(layout, above)
    return k, k


def _first(layout: Layout, mask: Array) -> Array:
    """Return the number of points before the first that a mask marks; all points where it marks none."""
    hits = np.append(np.flatnonzero(mask), np.iinfo(np.int64).max)
    return np.minimum(hits[np.searchsorted(hits, layout.starts)], layout.ends) - layout.starts


def _last(layout: Layout, mask: Array) -> Array:
    """Return the number of points up to the last that a mask marks; none where it marks none."""
    hits = np.concatenate([[-1], np.flatnonzero(mask)])
    return np.maximum(hits[np.searchsorted(hits, layout.ends) - 1] + 1, layout.starts) - layout.starts


def _majority(layout: Layout, above: Array) -> tuple[Array, Array]:
    balance = np.cumsum(np.where(above, 1, -1))
    balance -= layout.spread(np.concatenate([[0], balance])[layout.starts])
    best = np.maximum(layout.largest(balance, 0), 0).astype(int)  # k = 0 has balance 0
    hit = balance == layout.spread(best)
    low, high = _first(layout, hit) + 1, _last(layout, hit)
    none = np.where(best == 0, 0, layout.counts)
    crosses = (best > 0) & (high < layout.counts)
    return np.where(crosses, low, none), np.where(crosses, high, none)


def locate(layout: Layout, x: Array, loss: Array, target: float, above: tuple[Array, Array]) -> Array:
    r"""Return where every run crosses the target: on a straight line in (ln x, ln L) inside the bracket.

    Parameters
    ----------
    layout : Layout
    x, loss : numpy.ndarray
        Positions and losses of all points.
    target : float
    above : tuple of numpy.ndarray
        See `count_above`; where the two differ, the geometric mean of their crossings is taken.

    Returns
    -------
    numpy.ndarray, shape (n_runs,)
        NaN for runs that do not cross. A bracket that begins at zero is crossed on a straight line in (x, ln L).
    """
    low, high = (_cross(layout, x, loss, target, k) for k in above)
    with np.errstate(invalid="ignore"):
        return np.where(low == high, low, np.sqrt(low) * np.sqrt(high))


def _cross(layout: Layout, x: Array, loss: Array, target: float, above: Array) -> Array:
    crosses = (above > 0) & (above < layout.counts)
    right = (layout.starts + above)[crosses]
    x0, x1, y0, y1 = x[right - 1], x[right], loss[right - 1], loss[right]
    share = np.log(y0 / target) / np.log(y0 / y1)
    with np.errstate(divide="ignore", invalid="ignore"):
        curved = x0 * (x1 / x0) ** share
    result = np.full(len(layout), np.nan)
    result[crosses] = np.clip(np.where(x0 > 0, curved, share * x1), x0, x1)
    return result
