"""Notes: what was done to the data or doubted about a result, carried along so that nothing is silent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """One remark about a sweep, an optimum or a fit.

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
