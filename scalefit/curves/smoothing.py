"""Where each run's points lie in arrays that hold all runs, one after the other.

Ways to smooth loss curves: what is averaged with what, and what that does to a falling curve.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from scalefit.errors import SweepError

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Layout:
    """The points of all runs in one array, run after run.

    Parameters
    ----------
    offsets : numpy.ndarray of int, shape (n_runs + 1,)
        Run i holds the points ``offsets[i]:offsets[i + 1]``; a run may have none.

    Examples
    --------
    >>> layout = Layout.of(np.array([0, 0, 2]), 3)
    >>> layout.counts.tolist(), layout.code.tolist()
    ([2, 0, 1], [0, 0, 2])
    """

    offsets: Array

    @classmethod
    def of(cls, code: Array, n_runs: int) -> Layout:
        """Lay out points that are sorted by the number of their run."""
        return cls(np.searchsorted(code, np.arange(n_runs + 1)))

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self.offsets) - 1

    @property
    def counts(self) -> Array:
        """Number of points of every run."""
        return np.diff(self.offsets)

    @property
    def starts(self) -> Array:
        """Where every run starts."""
        return self.offsets[:-1]

    @property
    def ends(self) -> Array:
        """Where every run ends."""
        return self.offsets[1:]

    @cached_property
    def code(self) -> Array:
        """The run of every point."""
        return np.repeat(np.arange(len(self), dtype=np.int32), self.counts)

    def spread(self, values: Array) -> Array:
        """Return a value of every run at each of its points."""
        return np.repeat(values, self.counts)

    def at_start(self, values: Array) -> Array:
        """Return the first value of every run; NaN for a run without a point."""
        return self._take(values, self.starts)

    def at_end(self, values: Array) -> Array:
        """Return the last value of every run; NaN for a run without a point."""
        return self._take(values, self.ends - 1)

    def _take(self, values: Array, index: Array) -> Array:
        result = np.full(len(self), np.nan)
        has = self.counts > 0
        result[has] = values[index[has]]
        return result

    def largest(self, values: Array, missing: float = np.nan) -> Array:
        """Return the largest value of every run."""
        result = np.full(len(self), missing, dtype=float)
        has = self.counts > 0
        if has.any():
            result[has] = np.maximum.reduceat(values, self.starts[has])
        return result

    def select(self, keep: Array) -> Layout:
        """Return the layout of the points that a mask keeps; runs may be left without any."""
        return Layout(np.concatenate([[0], np.cumsum(keep)])[self.offsets])


_REACH = 4.0
"""Standard deviations at which a Gaussian kernel is cut."""
_LIVES = 20
"""Half-lives after which an exponential kernel is cut: it has fallen to a millionth."""


class Smoother(Protocol):
    """A way to smooth all curves at once."""

    def smooth(self, layout: Layout, x: Array, loss: Array) -> Array:
        """Return the smoothed losses; x is the position of every point, in data or steps."""
        ...


@dataclass(frozen=True)
class MovingAverage:
    """The mean of the points around each point.

    Parameters
    ----------
    points : int
        Number of points in the window.
    trailing : bool
        False for a window around the point (an odd number of points), True for one that ends at it.

    Notes
    -----
    At the ends of a run a centred window shrinks on both sides alike, so that it stays centred: the first and the last
    point are kept as they are. A trailing window is cut where the run begins. A trailing mean of n points shows the
    loss of (n - 1)/2 points ago: it lags, and crosses a target late.
    """

    points: int
    trailing: bool = False

    def __post_init__(self) -> None:
        _check(self.points, "points", whole=True)
        if not self.trailing and self.points % 2 == 0:
            raise SweepError(f"a centred window has an odd number of points, found {self.points}; or trailing=True")

    def smooth(self, layout: Layout, x: Array, loss: Array) -> Array:
        """Return the means; see `Smoother`."""
        at = np.arange(len(loss))
        start, end = layout.spread(layout.starts), layout.spread(layout.ends)
        if self.trailing:
            low, high = np.maximum(at - self.points + 1, start), at + 1
        else:
            half = np.minimum(np.minimum(at - start, end - 1 - at), self.points // 2)
            low, high = at - half, at + half + 1
        level = layout.spread(layout.at_start(loss))
        return level + _sums(loss - level, low, high) / (high - low)


@dataclass(frozen=True)
class Gaussian:
    """The mean of the points around each point, weighted by a Gaussian in their number.

    Parameters
    ----------
    width : float
        Standard deviation, in points.

    Notes
    -----
    The kernel is cut at four standard deviations, and at the ends of a run, where its weights are divided by their
    sum: the mean is then one-sided, too low at the beginning of a falling curve and too high at its end.
    """

    width: float

    def __post_init__(self) -> None:
        _check(self.width, "width")

    def smooth(self, layout: Layout, x: Array, loss: Array) -> Array:
        """Return the means; see `Smoother`."""
        reach = min(int(np.ceil(_REACH * self.width)), int(layout.counts.max(initial=1)))
        lag = np.arange(-reach, reach + 1)
        return _convolve(layout, loss, np.exp(-0.5 * (lag / self.width) ** 2), reach)


@dataclass(frozen=True)
class Exponential:
    """The mean of all points so far, each counting half of what the point `halflife` later counts.

    Parameters
    ----------
    halflife : float
        In points.

    Notes
    -----
    What trackers call exponential moving average, with the weights divided by their sum at the beginning of a run. It
    lags by about 1.44 half-lives, and crosses a target that much late. The kernel is cut after twenty half-lives.
    """

    halflife: float

    def __post_init__(self) -> None:
        _check(self.halflife, "halflife")

    def smooth(self, layout: Layout, x: Array, loss: Array) -> Array:
        """Return the means; see `Smoother`."""
        reach = min(int(np.ceil(_LIVES * self.halflife)), int(layout.counts.max(initial=1)))
        kernel = np.concatenate([np.zeros(reach), 0.5 ** (np.arange(reach + 1) / self.halflife)])
        return _convolve(layout, loss, kernel, reach)


@dataclass(frozen=True)
class LocalLine:
    r"""The value at each point of a straight line in (ln x, ln L) through the points around it.

    Parameters
    ----------
    share : float
        The window reaches from x/(1 + share) to x (1 + share), in data (in steps where data are not known).

    Notes
    -----
    A line has no lag, and a power law is a line in these coordinates, so a falling curve is bent little, also at its
    ends. Windows with fewer than three points, or all at one x, leave the point as it is, and so does x = 0.
    """

    share: float = 0.2

    def __post_init__(self) -> None:
        _check(self.share, "share")

    def smooth(self, layout: Layout, x: Array, loss: Array) -> Array:
        """Return the lines' values; see `Smoother`."""
        usable = x > 0
        if not usable.all():
            result = loss.copy()
            result[usable] = self.smooth(layout.select(usable), x[usable], loss[usable])
            return result
        u, v = np.log(x), np.log(loss)
        low, high = _window(layout, u, np.log1p(self.share))
        u = u - layout.spread(layout.at_start(u))
        level = layout.spread(layout.at_start(v))
        v = v - level
        n = (high - low).astype(float)
        mean_u, mean_v = _sums(u, low, high) / n, _sums(v, low, high) / n
        spread = _sums(u * u, low, high) / n - mean_u**2
        slope = _sums(u * v, low, high) / n - mean_u * mean_v
        fits = (n >= 3) & (spread > 1e-9)
        line = mean_v + np.divide(slope, spread, out=np.zeros_like(slope), where=fits) * (u - mean_u)
        return np.where(fits, np.exp(level + line), loss)


def _check(value: float, name: str, whole: bool = False) -> None:
    good = isinstance(value, int | float | np.number) and not isinstance(value, bool) and 0 < value < np.inf
    if not good or (whole and value != int(value)):
        raise SweepError(f"{name} should be a positive {'whole ' * whole}number, found {value!r}")


def _sums(values: Array, low: Array, high: Array) -> Array:
    total = np.concatenate([[0.0], np.cumsum(values)])
    return total[high] - total[low]


def _window(layout: Layout, u: Array, half: float) -> tuple[Array, Array]:
    """Return the points of the same run within `half` of each point."""
    first, last = layout.spread(layout.at_start(u)), layout.spread(layout.at_end(u))
    gap = float((last - first).max(initial=0.0)) + 4 * half
    key = u - first + gap * layout.code
    low, high = np.searchsorted(key, key - half, "left"), np.searchsorted(key, key + half, "right")
    return low, high


def _convolve(layout: Layout, loss: Array, kernel: Array, reach: int) -> Array:
    """Return weighted means over each run's own points: runs are laid out with gaps that no kernel bridges."""
    from scipy.signal import oaconvolve

    level = layout.spread(layout.at_start(loss))
    place = np.arange(len(loss)) + reach * layout.code
    padded, there = np.zeros((2, len(loss) + reach * len(layout)))
    padded[place], there[place] = loss - level, 1.0
    return level + oaconvolve(padded, kernel, "same")[place] / oaconvolve(there, kernel, "same")[place]
