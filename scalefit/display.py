"""What a result shows, and how it is laid out as text, HTML, LaTeX or Markdown."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from html import escape

import pandas as pd

from scalefit._values import Note
from scalefit.vocabulary import BY_SYMBOL

# Matches a number, or a word for none; a column of such texts is aligned to the right.
_NUMBER = re.compile(r"([+-]?[\d.]|nan\Z|[+-]?inf\Z|\Z)")


@dataclass(frozen=True)
class Display:
    """What a result shows: a title, facts (label, text), a table of texts, notes; renderers only lay it out.

    Cells of the table that are among `names` are names in formulas, which LaTeX sets as mathematics.
    """

    title: str
    facts: tuple[tuple[str, str], ...] = ()
    table: pd.DataFrame | None = None
    notes: tuple[Note, ...] = field(default=())
    names: frozenset[str] = frozenset()

    @property
    def header(self) -> list[str]:
        """The names of the table's columns; none without a table, or without rows in it."""
        return [] if self.table is None or self.table.empty else [str(name) for name in self.table.columns]

    @property
    def rows(self) -> list[list[str]]:
        """The cells of the table, row by row."""
        return [] if self.table is None else self.table.astype(str).to_numpy().tolist()


def _are_numbers(rows: list[list[str]]) -> list[bool]:
    """Return which columns hold numbers; the first names the rows and counts as text."""
    columns = list(zip(*rows, strict=True))
    return [j > 0 and all(_NUMBER.match(cell) for cell in column) for j, column in enumerate(columns)]


def to_text(shown: Display) -> str:
    """Lay out as plain text what a result shows.

    Examples
    --------
    >>> print(to_text(Display("Sweep", (("runs", "12"), ("source", "runs.csv")))))
    Sweep
      runs    12
      source  runs.csv
    """
    width = max((len(label) for label, _ in shown.facts), default=0)
    lines = [shown.title, *(f"  {label:<{width}}  {text}" for label, text in shown.facts)]
    if shown.header:
        rows = [shown.header, *shown.rows]
        sides = [">" if number else "<" for number in _are_numbers(shown.rows)]
        formats = [
            f"{side}{max(map(len, column))}" for side, column in zip(sides, zip(*rows, strict=True), strict=True)
        ]
        lines += ["", *("  " + "  ".join(map(format, row, formats)).rstrip() for row in rows)]
    lines += [""] if shown.notes else []
    lines += [f"  {'!' if note.caution else '-'} {note.text}" for note in shown.notes]
    return "\n".join(lines)


def to_markdown(shown: Display) -> str:
    """Lay out as Markdown, with a table in GitHub's form, what a result shows.

    Examples
    --------
    >>> import pandas as pd
    >>> print(to_markdown(Display("Fit", (("rows", "98"),), pd.DataFrame({"parameter": ["a"], "value": ["0.3(1)"]}))))
    **Fit**
    <BLANKLINE>
    - rows: 98
    <BLANKLINE>
    | parameter | value |
    |:---|---:|
    | a | 0.3(1) |
    """
    parts = [f"**{_escape(shown.title)}**"]
    if shown.facts:
        parts.append("\n".join(f"- {_escape(label)}: {_escape(text)}" for label, text in shown.facts))
    if shown.header:
        header, *rows = (f"| {' | '.join(map(_escape, row))} |" for row in [shown.header, *shown.rows])
        rule = "|" + "".join("---:|" if number else ":---|" for number in _are_numbers(shown.rows))
        parts.append("\n".join([header, rule, *rows]))
    if shown.notes:
        marks = ("**caution:** " if note.caution else "" for note in shown.notes)
        parts.append("\n".join(f"- {mark}{_escape(note.text)}" for mark, note in zip(marks, shown.notes, strict=True)))
    return "\n\n".join(parts)


def _escape(text: str) -> str:
    """Escape what Markdown would read as markup; line breaks would end a table's row."""
    return re.sub(r"([\\`*_|<>\[\]#])", r"\\\1", " ".join(text.split()))


_RULE = "1px solid color-mix(in srgb, currentColor 25%, transparent)"
_CELL = "padding:0.15em 0.7em;background:none;border:none;text-align:left"
_TABLE = "border-collapse:collapse;border:none;margin:0.4em 0;font-variant-numeric:tabular-nums"


def to_html(shown: Display) -> str:
    """Lay out as HTML, which follows the page, light or dark, what a result shows.

    Examples
    --------
    >>> to_html(Display("Sweep <b>"))
    "<div class='scalefit'><div style='font-weight:600'>Sweep &lt;b&gt;</div></div>"
    """
    parts = [f"<div class='scalefit'><div style='font-weight:600'>{escape(shown.title)}</div>"]
    if shown.facts:
        parts.append(_table(list(map(list, shown.facts)), [f"{_CELL};opacity:0.7", _CELL]))
    if shown.header:
        sides = ("right" if number else "left" for number in _are_numbers(shown.rows))
        parts.append(_table(shown.rows, [f"{_CELL};text-align:{side}" for side in sides], shown.header))
    if shown.notes:
        items = (_item(note.text, note.caution) for note in shown.notes)
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
# fmt: off
_SPECIAL = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
       "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
)
# fmt: on
_SCIENTIFIC = re.compile(r"([+-]?\d+(?:\.\d+)?(?:\(\d+(?:\.\d+)?\))?)(?:e([+-]?\d+))?(\s*%)?\Z")


def latex_text(text: str) -> str:
    r"""Return text that LaTeX prints as it stands.

    Examples
    --------
    >>> print(latex_text("params > 1e9 & 5 % of N_0"))
    params \textgreater{} 1e9 \& 5 \% of N\_0
    """
    return text.translate(_SPECIAL)


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
    r"""Return a number as `format_number` and `format_error` write it as mathematics, or None if the text is not one.

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


def to_latex(shown: Display, *, caption: str | None = None, label: str | None = None) -> str:
    r"""Lay out as a LaTeX table, which needs booktabs, what a result shows; without a table, its facts.

    Cautions stand before the table as comments, so that they are neither lost nor printed.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"parameter": ["alpha"], "value": ["0.347(15)"]})
    >>> print(to_latex(Display("Fit", (), table, names=frozenset({"alpha"}))))
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
    header, rows = (shown.header, shown.rows) if shown.header else (["", ""], list(map(list, shown.facts)))
    title = latex_text(shown.title) if caption is None else caption
    lines = [f"% caution: {' '.join(note.text.split())}" for note in shown.notes if note.caution]
    lines += [r"\begin{table}", r"  \centering", rf"  \caption{{{title}}}"]
    lines += [rf"  \label{{{label}}}"] if label else []
    columns = "".join("r" if number else "l" for number in _are_numbers(rows))
    lines += [rf"  \begin{{tabular}}{{{columns}}}", r"    \toprule"]
    lines += [f"    {' & '.join(map(latex_text, header))} \\\\", r"    \midrule"]
    lines += [f"    {' & '.join(_latex_cell(cell, shown.names) for cell in row)} \\\\" for row in rows]
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}", r"\end{table}"])


def _latex_cell(cell: str, names: frozenset[str]) -> str:
    return f"${latex_name(cell)}$" if cell in names else latex_number(cell) or latex_text(cell)


class Displayable(ABC):
    """A result that can be shown as text, HTML, Markdown and LaTeX; a subclass says what is shown."""

    @abstractmethod
    def _display(self) -> Display:
        """Return what the result shows."""

    def __repr__(self) -> str:
        return to_text(self._display())

    def _repr_html_(self) -> str:
        return to_html(self._display())

    def to_markdown(self) -> str:
        """Return the result as Markdown: title, facts, table and notes.

        Returns
        -------
        str
            With the table in GitHub's form.

        Examples
        --------
        >>> import scalefit as sf
        >>> print(sf.load_dataset("simulated").to_markdown()[:22])
        **Sweep**
        <BLANKLINE>
        - runs: 560
        """
        return to_markdown(self._display())

    def to_latex(self, *, caption: str | None = None, label: str | None = None) -> str:
        r"""Return the result as a LaTeX table; needs the package booktabs.

        Parameters
        ----------
        caption : str, optional
            LaTeX; by default the title of the result.
        label : str, optional
            For ``\ref``.

        Returns
        -------
        str
            The table; without one, the facts. Cautions stand before it as comments.

        Examples
        --------
        >>> import scalefit as sf
        >>> r"\label{tab:runs}" in sf.load_dataset("simulated").to_latex(label="tab:runs")
        True
        """
        return to_latex(self._display(), caption=caption, label=label)
