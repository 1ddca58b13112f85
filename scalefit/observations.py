"""What a law is fitted to: rows, how much each counts, and the remarks that came with them."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    """

    table: pd.DataFrame
    weights: np.ndarray | None = None
    notes: tuple[Note, ...] = field(default=())
    source: str = "table"
