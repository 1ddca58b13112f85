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
    source : numpy.ndarray of int, shape (n,)
        Which source a row came from.
    number : numpy.ndarray of int, shape (n,)
        The row's number in that source; the first row of data is 1.
    """

    names: tuple[str, ...]
    source: np.ndarray
    number: np.ndarray

    @classmethod
    def of(cls, names: Sequence[str], lengths: Sequence[int]) -> Rows:
        """Number the rows of sources that are put under each other."""
        source = np.repeat(np.arange(len(lengths)), lengths)
        starts = np.cumsum([0, *lengths])[:-1].astype(int)
        return cls(tuple(names), source, np.arange(len(source)) - starts[source] + 1)

    def keep(self, mask: np.ndarray) -> Rows:
        """Return the origin of the rows that a mask keeps."""
        return Rows(self.names, self.source[mask], self.number[mask])

    def name(self, row: int) -> str:
        """Say where a row is, in words.

        Examples
        --------
        >>> Rows.of(["a.csv", "b.csv"], [3, 2]).name(4)
        'row 2 of b.csv'
        """
        return f"row {self.number[row]} of {self.names[self.source[row]]}"
