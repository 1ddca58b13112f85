"""What a result shows, and how it is laid out as text, HTML, LaTeX or Markdown."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

import pandas as pd

from scalefit._values import Note
from scalefit.vocabulary import BY_SYMBOL

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


_GREEK = re.compile(
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau|upsilon|phi|chi|psi|omega"
    "|Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Upsilon|Phi|Psi|Omega"
)
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{sign: f"\\{sign}" for sign in "&%$#_"},
}
_SCIENTIFIC = re.compile(r"([+-]?\d+(?:\.\d+)?(?:\(\d+(?:\.\d+)?\))?)(?:e([+-]?\d+))?(\s*%)?\Z")


def latex_text(text: str) -> str:
    r"""Return text that LaTeX prints as it stands.

    Examples
    --------
    >>> print(latex_text("params > 1e9 & 5 % of N_0"))
    params \textgreater{} 1e9 \& 5 \% of N\_0
    """
    return "".join(_SPECIAL.get(sign, sign) for sign in text)


def latex_name(name: str) -> str:
    r"""Return a name of a formula as mathematics: Greek letters, and what follows an underscore as an index.

    Examples
    --------
    >>> print(latex_name("alpha_B"), latex_name("eta_max"), latex_name("E"))
    \alpha_{B} \eta_{\mathrm{max}} E
    """
    if name in BY_SYMBOL:
        return BY_SYMBOL[name].latex
    letter, _, index = name.partition("_")
    base = _letter(letter)
    return f"{base}_{{{_letter(index)}}}" if index else base


def _letter(name: str) -> str:
    if _GREEK.fullmatch(name):
        return f"\\{name}"
    return name if len(name) == 1 or name.isdigit() else rf"\mathrm{{{latex_text(name)}}}"


def latex_number(text: str) -> str | None:
    r"""Return a number as written by `scalefit.formatting` as mathematics, or None if the text is not one.

    Examples
    --------
    >>> print(latex_number("3.20(4)e-06"), latex_number("-0.77(5)"), latex_number("interior"))
    $3.20(4)\times 10^{-6}$ $-0.77(5)$ None
    """
    if text in ("inf", "-inf"):
        return rf"${text.replace('inf', chr(92) + 'infty')}$"
    match = _SCIENTIFIC.match(text)
    if match is None:
        return None
    power = rf"\times 10^{{{int(match[2])}}}" if match[2] else ""
    return f"${match[1]}{power}${chr(92) + ',' + chr(92) + '%' if match[3] else ''}"


def to_latex(face: Face, *, caption: str | None = None, label: str | None = None) -> str:
    r"""Return the table of a face as a LaTeX table; needs the package booktabs.

    Parameters
    ----------
    face : Face
    caption : str, optional
        LaTeX; by default the title of the face.
    label : str, optional
        For ``\ref``.

    Notes
    -----
    What the face cautions of stands before the table as comments, so that it is neither lost nor printed.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"parameter": ["alpha"], "value": ["0.347(15)"]})
    >>> print(to_latex(Face("Fit", (), table, names=frozenset({"alpha"}))))
    \begin{table}
      \centering
      \caption{Fit}
      \begin{tabular}{lr}
        \toprule
        parameter & value \\
        \midrule
        $\alpha$ & $0.347(15)$ \\
        \bottomrule
      \end{tabular}
    \end{table}
    """
    header, rows = cells_of(face)
    title = latex_text(face.title) if caption is None else caption
    lines = [f"% caution: {' '.join(note.text.split())}" for note in face.notes if note.caution]
    lines += [r"\begin{table}", r"  \centering", rf"  \caption{{{title}}}"]
    lines += [rf"  \label{{{label}}}"] if label else []
    columns = "".join("r" if numeric else "l" for numeric in numeric_columns(rows))
    lines += [rf"  \begin{{tabular}}{{{columns}}}", r"    \toprule"]
    lines += [_latex_row(map(latex_text, header)), r"    \midrule"]
    lines += [_latex_row(_latex_cell(cell, face.names) for cell in row) for row in rows]
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}", r"\end{table}"])


def _latex_row(cells: Iterable[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def _latex_cell(cell: str, names: frozenset[str]) -> str:
    if cell in names:
        return f"${latex_name(cell)}$"
    return latex_number(cell) or latex_text(cell)


class Shown(ABC):
    """A result with a face; a subclass says what is on it."""

    @abstractmethod
    def _face(self) -> Face:
        """Return what the result shows."""

    def __repr__(self) -> str:

        return to_text(self._face())

    def _repr_html_(self) -> str:

        return to_html(self._face())

    def to_markdown(self) -> str:
        """Return the result as Markdown: title, facts, table and notes."""
        return to_markdown(self._face())

    def to_latex(self, *, caption: str | None = None, label: str | None = None) -> str:
        r"""Return the result as a LaTeX table; needs the package booktabs.

        Parameters
        ----------
        caption : str, optional
            LaTeX; by default the title of the result.
        label : str, optional
            For ``\ref``.
        """
        return to_latex(self._face(), caption=caption, label=label)
