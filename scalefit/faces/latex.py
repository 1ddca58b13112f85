"""A result as a LaTeX table for a paper: numbers and letters of formulas set as mathematics."""

from __future__ import annotations

import re
from collections.abc import Iterable

from scalefit.faces.face import Face, cells_of, numeric_columns
from scalefit.vocabulary import BY_SYMBOL

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
_NUMBER = re.compile(r"([+-]?\d+(?:\.\d+)?(?:\(\d+(?:\.\d+)?\))?)(?:e([+-]?\d+))?(\s*%)?\Z")


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
    match = _NUMBER.match(text)
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
