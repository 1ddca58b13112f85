"""What a law is fitted to: rows, how much each counts, and the remarks that came with them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from scalefit.notes import Note


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
    """

    table: pd.DataFrame
    weights: np.ndarray | None = None
    notes: tuple[Note, ...] = field(default=())
    source: str = "table"
    data_unit: str = "tokens"
    censored: np.ndarray | None = None
    rtol: float = 0.01

    def points(self) -> Observations:
        """Return the rows that are points."""
        if self.censored is None:
            return self
        kept = np.asarray(self.censored) == 0
        weights = None if self.weights is None else np.asarray(self.weights)[kept]
        text = f"{int((~kept).sum())} of {len(kept)} rows are bounds; left out of the fit"
        notes = (*self.notes, Note("left_out", text, caution=True))
        return replace(self, table=self.table[kept].reset_index(drop=True), weights=weights, notes=notes, censored=None)
