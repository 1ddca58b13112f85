"""Where each row of a combined table came from, so that an error can name the file and the row in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Rows:
    """The origin of the rows of a table.

    Parameters
    ----------
    names : tuple of str
        The name of each source.
    ends : numpy.ndarray of int
        Where each source ends in the table that was put together.
    kept : numpy.ndarray of int or None
        Which rows of that table are left, in their order; None means all.
    """

    names: tuple[str, ...]
    ends: np.ndarray
    kept: np.ndarray | None = None

    @classmethod
    def of(cls, names: Sequence[str], lengths: Sequence[int]) -> Rows:
        """Number the rows of sources that are put under each other."""
        return cls(tuple(names), np.cumsum(lengths, dtype=np.int64))

    @property
    def _positions(self) -> np.ndarray:
        return np.arange(self.ends[-1]) if self.kept is None else self.kept

    @property
    def source(self) -> np.ndarray:
        """Which source each row came from."""
        return np.searchsorted(self.ends, self._positions, "right")

    def keep(self, chosen: np.ndarray) -> Rows:
        """Return the origin of the rows that a mask keeps, or of rows in the order in which they are numbered."""
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        return Rows(self.names, self.ends, chosen if self.kept is None else self.kept[chosen])

    def name(self, row: int) -> str:
        """Say where a row is, in words; the first row of data is 1.

        Examples
        --------
        >>> Rows.of(["a.csv", "b.csv"], [3, 2]).name(4)
        'row 2 of b.csv'
        """
        position = row if self.kept is None else int(self.kept[row])
        source = int(np.searchsorted(self.ends, position, "right"))
        return f"row {position - (int(self.ends[source - 1]) if source else 0) + 1} of {self.names[source]}"
