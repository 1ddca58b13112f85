"""Where loss curves cross a target: which estimator of the crossing, and how to interpolate inside its bracket."""

from __future__ import annotations

import numpy as np

from scalefit.curves.smoothing import Layout

Array = np.ndarray

CROSSINGS = ("monotone", "first", "last")


def count_above(layout: Layout, loss: Array, target: float, crossing: str) -> tuple[Array, Array]:
    """Return the smallest and the largest number k of its points that every run spends above the target, (n_runs,).

    A run crosses between point k and point k + 1; with k = 0 it is below from the start, with all of its points it
    never reaches the target. The two differ where several k of "monotone" are equally good.
    """
    above = loss > target
    if crossing == "monotone":
        return _most_right(layout, above)
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


def _most_right(layout: Layout, above: Array) -> tuple[Array, Array]:
    """Return the k that put most points on the right side: they maximise the sum of sign(L_i - target) up to k.

    There the falling step function nearest to the curve in absolute deviation (isotonic median regression) passes the
    target. Least squares would be as good without spikes, but 4 % late with one point in a hundred on one.
    """
    balance = np.cumsum(np.where(above, 1, -1))
    balance -= layout.spread(np.concatenate([[0], balance])[layout.starts])
    best = np.maximum(layout.largest(balance, 0), 0).astype(int)  # k = 0 has balance 0
    hit = balance == layout.spread(best)
    low, high = _first(layout, hit) + 1, _last(layout, hit)
    # Where no crossing is as good as one, there is none: else runs whose target lies beyond their end would reach it.
    none = np.where(best == 0, 0, layout.counts)
    crosses = (best > 0) & (high < layout.counts)
    return np.where(crosses, low, none), np.where(crosses, high, none)


def locate(layout: Layout, x: Array, loss: Array, target: float, above: tuple[Array, Array]) -> Array:
    """Return where every run crosses the target, on a straight line in (ln x, ln L) inside the bracket, (n_runs,).

    NaN for runs that do not cross. Where the two counts of `count_above` differ, the geometric mean of their crossings
    is taken: the earlier one would be up to 0.9 % early.
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
    # A bracket that begins at zero has no ln x: it is crossed on a straight line in (x, ln L).
    result[crosses] = np.clip(np.where(x0 > 0, curved, share * x1), x0, x1)
    return result
