"""A result as Markdown, for a lab book, an issue or a pull request."""

from __future__ import annotations

import re
from collections.abc import Sequence

from scalefit.faces.face import Face, cells_of, numeric_columns


def to_markdown(face: Face) -> str:
    """Return a face as Markdown: title, facts, table (GitHub's form) and notes.

    Examples
    --------
    >>> import pandas as pd
    >>> print(to_markdown(Face("Fit", (("rows", "98"),), pd.DataFrame({"parameter": ["a"], "value": ["0.3(1)"]}))))
    **Fit**
    <BLANKLINE>
    - rows: 98
    <BLANKLINE>
    | parameter | value |
    |:---|---:|
    | a | 0.3(1) |
    """
    parts = [f"**{_escape(face.title)}**"]
    if face.facts:
        parts.append("\n".join(f"- {_escape(label)}: {_escape(text)}" for label, text in face.facts))
    if face.table is not None and len(face.table):
        header, rows = cells_of(face)
        rule = "|" + "".join("---:|" if numeric else ":---|" for numeric in numeric_columns(rows))
        parts.append("\n".join([_markdown_row(header), rule, *map(_markdown_row, rows)]))
    if face.notes:
        parts.append(
            "\n".join(f"- {'**caution:** ' if note.caution else ''}{_escape(note.text)}" for note in face.notes)
        )
    return "\n\n".join(parts)


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_escape(cell) for cell in cells)} |"


def _escape(text: str) -> str:
    """Escape what Markdown would read as markup; line breaks would end a table's row."""
    return re.sub(r"([\\`*_|<>\[\]#])", r"\\\1", " ".join(text.split()))
