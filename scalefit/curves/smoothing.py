"""Ways to smooth loss curves, on arrays that hold the points of all runs, one run after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from scalefit.errors import SweepError

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the points of every run lie: run i holds the points ``offsets[i]:offsets[i + 1]``, which may be none."""

    offsets: Array  # (n_runs + 1,)

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


# Standard deviations at which a Gaussian kernel is cut, and half-lives after which an exponential one is: it has fallen
# to a millionth.
_REACH, _LIVES = 4.0, 20


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

    Raises
    ------
    SweepError
        If `points` is no positive whole number, or an even one of a centred window.

    See Also
    --------
    Curves.smooth : Applies it.
    LocalLine : Does not bend a falling curve.

    Notes
    -----
    At the ends of a run a centred window shrinks on both sides alike, so that it stays centred: the first and the last
    point are kept as they are. A trailing window is cut where the run begins. A trailing mean of n points shows the
    loss of (n - 1)/2 points ago: it lags, and crosses a target late.

    Examples
    --------
    >>> import scalefit as sf
    >>> rows = [{"run": "a", "lr": 0.1, "tokens": t, "loss": 2 + 1 / t} for t in (1, 2, 4, 8, 16)]
    >>> sf.read_curves(rows).smooth(sf.MovingAverage(3)).table["loss"].round(3).tolist()
    [3.0, 2.583, 2.292, 2.146, 2.062]
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

    Raises
    ------
    SweepError
        If `width` is not a positive number.

    See Also
    --------
    Curves.smooth : Applies it.
    LocalLine : Does not bend a falling curve.

    Notes
    -----
    The kernel is cut at four standard deviations, and at the ends of a run, where its weights are divided by their
    sum: the mean is then one-sided, too low at the beginning of a falling curve and too high at its end.

    Examples
    --------
    >>> import scalefit as sf
    >>> rows = [{"run": "a", "lr": 0.1, "tokens": t, "loss": 2 + 1 / t} for t in (1, 2, 4, 8, 16)]
    >>> sf.read_curves(rows).smooth(sf.Gaussian(1)).table["loss"].round(3).tolist()
    [2.763, 2.541, 2.311, 2.167, 2.102]
    """

    width: float

    def __post_init__(self) -> None:
        _check(self.width, "width")

    def smooth(self, layout: Layout, x: Array, loss: Array) -> Array:
        """Return the means; see `Smoother`."""
        return _convolve(layout, loss, lambda lag: np.exp(-0.5 * (lag / self.width) ** 2), _REACH * self.width)


@dataclass(frozen=True)
class Exponential:
    """The mean of all points so far, each counting half of what the point `halflife` later counts.

    Parameters
    ----------
    halflife : float
        In points.

    Raises
    ------
    SweepError
        If `halflife` is not a positive number.

    See Also
    --------
    Curves.smooth : Applies it.
    LocalLine : Has no lag.

    Notes
    -----
    What trackers call exponential moving average, with the weights divided by their sum at the beginning of a run. It
    lags by about 1.44 half-lives, and crosses a target that much late. The kernel is cut after twenty half-lives.

    Examples
    --------
    >>> import scalefit as sf
    >>> rows = [{"run": "a", "lr": 0.1, "tokens": t, "loss": 2 + 1 / t} for t in (1, 2, 4, 8, 16)]
    >>> sf.read_curves(rows).smooth(sf.Exponential(1)).table["loss"].round(3).tolist()
    [3.0, 2.667, 2.429, 2.267, 2.161]
    """

    halflife: float

    def __post_init__(self) -> None:
        _check(self.halflife, "halflife")

    def smooth(self, layout: Layout, x: Array, loss: Array) -> Array:
        """Return the means; see `Smoother`."""

        def weight(lag: Array) -> Array:
            return np.where(lag >= 0, 0.5 ** (np.maximum(lag, 0) / self.halflife), 0.0)

        return _convolve(layout, loss, weight, _LIVES * self.halflife)


@dataclass(frozen=True)
class LocalLine:
    r"""The value at each point of a straight line in (ln x, ln L) through the points around it.

    Parameters
    ----------
    share : float
        The window reaches from x/(1 + share) to x (1 + share), in data (in steps where data are not known).

    Raises
    ------
    SweepError
        If `share` is not a positive number.

    See Also
    --------
    Curves.smooth : Applies it.
    MovingAverage, Gaussian, Exponential : Simpler, and biased where the curve bends.

    Notes
    -----
    A line has no lag, and a power law is a line in these coordinates, so a falling curve is bent little, also at its
    ends. Windows with fewer than three points, or all at one x, leave the point as it is, and so does x = 0.

    Examples
    --------
    >>> import scalefit as sf
    >>> rows = [{"run": "a", "lr": 0.1, "tokens": t, "loss": 2 + 1 / t} for t in (1, 2, 4, 8, 16)]
    >>> sf.read_curves(rows).smooth(sf.LocalLine(1.5)).table["loss"].round(3).tolist()
    [3.0, 2.565, 2.286, 2.144, 2.062]
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


def _convolve(layout: Layout, loss: Array, weight: Callable[[Array], Array], reach: float) -> Array:
    """Return means weighted by the lag in points, over each run's own points."""
    from scipy.signal import oaconvolve

    most = min(int(np.ceil(reach)), int(layout.counts.max(initial=1)))
    kernel = weight(np.arange(-most, most + 1))
    # Runs are laid out with gaps that no kernel bridges; sums are of departures from each run's first loss, which keeps
    # the rounding of the transform small.
    level = layout.spread(layout.at_start(loss))
    place = np.arange(len(loss)) + most * layout.code
    padded, there = np.zeros((2, len(loss) + most * len(layout)))
    padded[place], there[place] = loss - level, 1.0
    return level + oaconvolve(padded, kernel, "same")[place] / oaconvolve(there, kernel, "same")[place]
