"""A result as HTML for notebooks: every text from data is escaped, colours and fonts are the page's own."""

from __future__ import annotations

from html import escape

from scalefit.faces.face import Face, cells_of, numeric_columns

_RULE = "1px solid color-mix(in srgb, currentColor 25%, transparent)"
_CELL = "padding:0.15em 0.7em;background:none;border:none;text-align:left"
_TABLE = "border-collapse:collapse;border:none;margin:0.4em 0;font-variant-numeric:tabular-nums"


def to_html(face: Face) -> str:
    """Lay a face out as HTML; it follows the page, light or dark.

    Examples
    --------
    >>> to_html(Face("Sweep <b>"))
    "<div class='scalefit'><div style='font-weight:600'>Sweep &lt;b&gt;</div></div>"
    """
    parts = [f"<div class='scalefit'><div style='font-weight:600'>{escape(face.title)}</div>"]
    if face.facts:
        facts = [[label, text] for label, text in face.facts]
        parts.append(_table(facts, [f"{_CELL};opacity:0.7", _CELL]))
    if face.table is not None and len(face.table):
        header, rows = cells_of(face)
        sides = ("right" if numeric else "left" for numeric in numeric_columns(rows))
        parts.append(_table(rows, [f"{_CELL};text-align:{side}" for side in sides], header))
    if face.notes:
        items = (_item(note.text, note.caution) for note in face.notes)
        parts.append(f"<ul style='margin:0.4em 0;padding-left:1.4em;max-width:60em'>{''.join(items)}</ul>")
    return "".join(parts) + "</div>"


def _item(text: str, caution: bool) -> str:
    mark = "<b title='caution'>!</b> " if caution else ""
    return f"<li style='list-style:{'none' if caution else 'disc'};margin:0.1em 0'>{mark}{escape(text)}</li>"


def _table(rows: list[list[str]], styles: list[str], header: list[str] | None = None) -> str:
    def line(cells: list[str], tag: str, more: str = "") -> str:
        pairs = zip(cells, styles, strict=True)
        inner = "".join(f"<{tag} style='{style}{more}'>{escape(cell)}</{tag}>" for cell, style in pairs)
        return f"<tr style='background:none'>{inner}</tr>"

    head = f"<thead>{line(header, 'th', f';font-weight:600;border-bottom:{_RULE}')}</thead>" if header else ""
    body = "".join(line(row, "td") for row in rows)
    return f"<table style='{_TABLE}'>{head}<tbody>{body}</tbody></table>"
