"""A result as plain text, for a terminal or a log."""

from __future__ import annotations

from scalefit.faces.face import Face, cells_of, numeric_columns


def to_text(face: Face) -> str:
    """Lay a face out as plain text.

    Examples
    --------
    >>> print(to_text(Face("Sweep", (("runs", "12"), ("source", "runs.csv")))))
    Sweep
      runs    12
      source  runs.csv
    """
    width = max((len(label) for label, _ in face.facts), default=0)
    lines = [face.title, *(f"  {label:<{width}}  {text}" for label, text in face.facts)]
    if face.table is not None and len(face.table):
        lines += ["", *_text_table(face)]
    lines += [""] if face.notes else []
    lines += [f"  {'!' if note.caution else '-'} {note.text}" for note in face.notes]
    return "\n".join(lines)


def _text_table(face: Face) -> list[str]:
    header, body = cells_of(face)
    rows = [header, *body]
    widths = [max(len(row[j]) for row in rows) for j in range(len(header))]
    align = [">" if numeric else "<" for numeric in numeric_columns(body)]
    return [
        "  " + "  ".join(f"{cell:{a}{w}}" for cell, a, w in zip(row, align, widths, strict=True)).rstrip()
        for row in rows
    ]
