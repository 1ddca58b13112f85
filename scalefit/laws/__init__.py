"""Laws: how a formula becomes one, the built-in ones, the published ones, and the catalogue of all."""

from __future__ import annotations

import difflib

import pandas as pd

from scalefit.errors import LawError
from scalefit.laws.formula import Law
from scalefit.laws.published import FORMS, PUBLISHED, PublishedLaw, get_published, read_laws
from scalefit.vocabulary import column_of, unit_of

__all__ = ["BUILT_IN", "PUBLISHED", "Law", "PublishedLaw", "catalog", "get_law", "get_published"]

BUILT_IN = {law.name: law for law in (*read_laws("built_in.toml"), *FORMS) if isinstance(law, Law)}
"""Laws with free parameters, by name."""

_FORMS = BUILT_IN | {entry.name: entry.law for entry in PUBLISHED}


def get_law(law: Law | str) -> Law:
    """Return a law from itself, its name in the catalogue or a formula.

    A published law gives its form, with the parameters free.

    Parameters
    ----------
    law : Law or str
        A law, a name of `catalog`, or a formula such as ``"eta = c * N**a * D**b"``.

    Returns
    -------
    Law

    Raises
    ------
    LawError
        If it is none of these; close names are suggested.

    Examples
    --------
    >>> import scalefit as sf
    >>> sf.laws.get_law("lr_power")
    Law('eta = c * N**a * D**b', inputs=('N', 'D'), name='lr_power')

    See Also
    --------
    catalog : all names
    get_published : a law with the constants of its paper
    """
    if isinstance(law, Law):
        return law
    if isinstance(law, PublishedLaw):
        return law.law
    if not isinstance(law, str):
        raise LawError(f"expected a Law, its name or a formula, found {type(law).__name__}")
    if "=" in law:
        return Law(law)
    if law == "auto":
        raise LawError(
            "'auto' names no single law, and this needs one; choose it with choose_law(data).fit.law, or average the "
            "usual ones: average_laws(data), of optima or of a surface"
        )
    if law not in _FORMS:
        near = difflib.get_close_matches(law, _FORMS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see sf.laws.catalog()."
        raise LawError(f"no law named {law!r}; {hint} A formula is written 'eta = c * N**a * D**b'")
    return _FORMS[law]


def catalog() -> pd.DataFrame:
    """Return every law, one row each.

    Returns
    -------
    pandas.DataFrame
        Columns: name; target; formula; parameters, with their constants where published; kind, "form" when they are to
        be fitted and "constants" otherwise; inputs, with the units the formula takes; source; convention, which says
        how a published law counts and under which recipe it was found. A form takes any data unit, constants hold in
        theirs.

    See Also
    --------
    get_law, get_published

    Examples
    --------
    >>> import scalefit as sf
    >>> sf.laws.catalog().set_index("name").loc["batch_power_tokens", "formula"]
    'B = c * D**b'
    """
    forms = [(law, "form", ", ".join(law.parameters), "data unit", "") for law in BUILT_IN.values()]
    constants = [(law.law, "constants", _constants(law), law.data_unit, law.convention) for law in PUBLISHED]
    rows = [
        {
            "name": law.name,
            "target": law.target,
            "formula": law.formula,
            "parameters": parameters,
            "kind": kind,
            "inputs": ", ".join(f"{name} ({unit_of(column_of(name), data_unit)})" for name in law.inputs),
            "source": law.source,
            "convention": convention,
        }
        for law, kind, parameters, data_unit, convention in (*forms, *constants)
    ]
    return pd.DataFrame(rows)


def _constants(law: PublishedLaw) -> str:
    return ", ".join(f"{name} = {value:.4g}" for name, value in law.values.items())
