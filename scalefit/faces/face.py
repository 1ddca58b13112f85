"""What a result shows, apart from how it is laid out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import pandas as pd

from scalefit.notes import Note

_NUMBER = re.compile(r"([+-]?[\d.]|nan\Z|[+-]?inf\Z|\Z)")


@dataclass(frozen=True)
class Face:
    """What a result shows: a title, some facts, a table and its notes. Renderers only lay it out.

    Parameters
    ----------
    title : str
        The first line.
    facts : tuple of (str, str)
        Label and text, one line each.
    table : pandas.DataFrame or None
        Shown as is; every cell is already text.
    notes : tuple of Note
        Shown last; cautions are marked.
    names : frozenset of str
        The cells that are names in formulas, which LaTeX sets as mathematics.
    """

    title: str
    facts: tuple[tuple[str, str], ...] = ()
    table: pd.DataFrame | None = None
    notes: tuple[Note, ...] = field(default=())
    names: frozenset[str] = frozenset()


def cells_of(face: Face) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of a face's table as texts; without a table, its facts."""
    if face.table is None or not len(face.table):
        return ["", ""], [[label, text] for label, text in face.facts]
    return [str(name) for name in face.table.columns], face.table.astype(str).to_numpy().tolist()


def numeric_columns(rows: list[list[str]]) -> list[bool]:
    """Tell which columns hold numbers, which are set to the right; the first column names the row and never does."""
    columns = list(zip(*rows, strict=True))
    return [j > 0 and all(_NUMBER.match(cell) for cell in column) for j, column in enumerate(columns)]
