"""Small frozen values used throughout the package: notes, rows for a fit, a mapping that can be pickled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Note:
    """One sentence about a sweep, an optimum or a fit, for its reader.

    Parameters
    ----------
    code : str
        A short, stable key such as ``"diverged"`` or ``"duplicates"``, for tests and filters.
    text : str
        One plain sentence for the reader.
    caution : bool
        True when the reader should think before trusting the result.

    Examples
    --------
    >>> print(Note("seeds", "12 runs repeat another run's settings; all are kept"))
    seeds: 12 runs repeat another run's settings; all are kept
    """

    code: str
    text: str
    caution: bool = False

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"


def merge(*groups: Iterable[Note]) -> tuple[Note, ...]:
    """Join groups of notes, keeping first appearances and their order."""
    return tuple(dict.fromkeys(note for group in groups for note in group))


class Tabular(ABC):
    """A result that is a table, which readers of Arrow take: ``pyarrow.table(sweep)``, ``polars.DataFrame(sweep)``."""

    @property
    @abstractmethod
    def table(self) -> pd.DataFrame:
        """The rows, as a copy."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return the rows of `table` by Arrow's protocol."""
        return self.table.reset_index(drop=True).__arrow_c_stream__(requested_schema)


K = TypeVar("K")
V = TypeVar("V")


class FrozenMap(Mapping[K, V]):
    """A read-only copy of a mapping that can be pickled, so that processes can exchange results.

    Examples
    --------
    >>> FrozenMap({"lr": 1})
    FrozenMap({'lr': 1})
    """

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[K, V]) -> None:
        self._items = dict(items)

    def __getitem__(self, key: K) -> V:
        return self._items[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"FrozenMap({self._items!r})"


@dataclass(frozen=True, eq=False)
class Observations:
    """Rows for a fit.

    Parameters
    ----------
    table : pandas.DataFrame
        One row an observation, columns named in words.
    weights : numpy.ndarray or None
        How much each row counts (proportional to inverse variance); None means equally.
    notes : tuple of Note
        What was left out on the way, and why.
    source : str
        Where the rows came from.
    data_unit : str
        What `tokens` and `batch` count.
    censored : numpy.ndarray of int or None
        Where the truth of a row's target lies: at it (0), at or below it (-1), at or above it (+1). None: all points.
    rtol : float
        Relative width of a level: cells whose settings differ by less are one.
    errors : numpy.ndarray (n, 1 + q) or None
        Errors of the targets, in logs: the standard deviation of each row's own, and its share in q errors of unit size
        that all rows have in common. None: not known.
    """

    table: pd.DataFrame
    weights: np.ndarray | None = None
    notes: tuple[Note, ...] = field(default=())
    source: str = "table"
    data_unit: str = "tokens"
    censored: np.ndarray | None = None
    rtol: float = 0.01
    errors: np.ndarray | None = None

    def points(self) -> Observations:
        """Return the rows that are points."""
        if self.censored is None:
            return self
        kept = np.asarray(self.censored) == 0
        weights = None if self.weights is None else np.asarray(self.weights)[kept]
        errors = None if self.errors is None else np.asarray(self.errors)[kept]
        text = f"{int((~kept).sum())} of {len(kept)} rows are bounds; left out of the fit"
        notes = (*self.notes, Note("left_out", text, caution=True))
        return replace(
            self,
            table=self.table[kept].reset_index(drop=True),
            weights=weights,
            notes=notes,
            censored=None,
            errors=errors,
        )
