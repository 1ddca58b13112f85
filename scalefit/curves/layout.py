"""Where each run's points lie in arrays that hold all runs, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

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
