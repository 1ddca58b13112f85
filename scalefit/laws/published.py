"""Laws read from tables: built_in.toml holds forms, published.toml laws with the constants their authors printed.

A published law keeps the units and the range in which its authors found it. published.toml has only laws whose formula,
constants and units could be confirmed.
"""

from __future__ import annotations

import tomllib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from scalefit._values import FrozenMap
from scalefit.errors import ExtrapolationWarning, LawError
from scalefit.laws.formula import Law
from scalefit.vocabulary import READ_OFF, column_of, format_number, quantity_of, unit_of


@dataclass(frozen=True, eq=False)
class PublishedLaw:
    """A law with the constants its authors printed.

    Parameters
    ----------
    law : Law
        The form; its parameters can be fitted anew with `scalefit.fit`.
    values : mapping of str to float
        The published constants.
    convention : str
        How inputs are counted and under which training recipe the law was found.
    validity : mapping of str to (float, float)
        Range of each input (by column) that the authors covered, where they state it.
    data_unit : str
        What its batch and data are counted in.

    See Also
    --------
    scalefit.laws.get_published : a published law by its name

    Examples
    --------
    >>> import scalefit as sf
    >>> law = sf.laws.get_published("steplaw2025_lr")
    >>> round(float(law(params=1e9, tokens=1e11)), 5)
    0.00163
    """

    law: Law
    values: Mapping[str, float]
    convention: str
    validity: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    data_unit: str = "tokens"

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", FrozenMap(self.values))
        object.__setattr__(self, "validity", FrozenMap(self.validity))

    @property
    def name(self) -> str:
        """Key in the catalogue."""
        return self.law.name

    def check_data_unit(self, data_unit: str) -> None:
        """Raise unless a table counts its data as this law does.

        Parameters
        ----------
        data_unit : str
            What the table counts, such as "tokens" or "images".

        Raises
        ------
        LawError
            If the law takes or gives tokens, or a loss per token, and the table counts anything else.

        Examples
        --------
        >>> import scalefit as sf
        >>> try:
        ...     sf.laws.get_published("kaplan2020_bcrit").check_data_unit("images")
        ... except sf.LawError as error:
        ...     print(str(error).partition(";")[0])
        kaplan2020_bcrit counts loss, B_crit in tokens
        """
        names = (*self.law.inputs, self.law.target) if data_unit != self.data_unit else ()
        counted = [column_of(name) for name in names if _is_counted_in_data(name)]
        if counted:
            raise LawError(
                f"{self.name} counts {', '.join(counted)} in {self.data_unit}; these data are counted in {data_unit}. "
                f"Fit its form to them instead: sf.fit({self.name!r}, ...)"
            )

    def __call__(self, *, data_unit: str = "tokens", **inputs: Any) -> np.ndarray:
        """Evaluate the law at inputs given by column (``params=1e9``) or symbol (``N=1e9``).

        Parameters
        ----------
        data_unit : str
            What the inputs count; refused when the law counts tokens.
        **inputs : float or array_like
            Every input of the law.

        Returns
        -------
        numpy.ndarray
            Of the shape of the inputs.

        Warns
        -----
        ExtrapolationWarning
            Outside the range the authors covered.

        Raises
        ------
        LawError
            If an input is missing, does not belong to the law, is given twice or is not a positive number, or data are
            not counted in tokens.
        """
        self.check_data_unit(data_unit)
        given = {column_of(name): _positive_numbers(name, value) for name, value in inputs.items()}
        if len(given) < len(inputs):
            raise LawError(f"{self.name}: an input is given twice, by letter and by word: {', '.join(inputs)}")
        wanted = [column_of(name) for name in self.law.inputs]
        if set(given) != set(wanted):
            raise LawError(f"{self.name} takes {', '.join(wanted)}; given: {', '.join(given) or 'nothing'}")
        self._warn_outside(given)
        return self.law(self.values, given)

    def _warn_outside(self, given: Mapping[str, np.ndarray]) -> None:
        for name, (low, high) in self.validity.items():
            outside = (given[name] < low) | (given[name] > high)
            if outside.any():
                span = f"{format_number(low)} to {format_number(high)}"
                reach = np.atleast_1d(np.maximum(low / given[name], given[name] / high))
                worst = format_number(float(np.atleast_1d(given[name])[np.argmax(reach)]))
                text = f"{self.name} was found for {name} from {span}; {worst} lies outside"
                warnings.warn(text, ExtrapolationWarning, stacklevel=3)


def _is_counted_in_data(name: str) -> bool:
    quantity = quantity_of(name)
    return name in READ_OFF if quantity is None else unit_of(quantity.column, "data") != quantity.unit


def _positive_numbers(name: str, value: Any) -> np.ndarray:
    try:
        numbers = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        numbers = np.array(np.nan)
    if not (np.isfinite(numbers) & (numbers > 0)).all():
        raise LawError(f"{name} ({column_of(name)}): expected positive numbers, found {value!r}")
    return numbers


def read_laws(file: str) -> list[Law | PublishedLaw]:
    """Return the entries of a file of laws that lies beside this one."""
    return [_read(*item) for item in tomllib.loads(Path(__file__).with_name(file).read_text("utf-8")).items()]


def _read(name: str, record: Mapping[str, Any]) -> Law | PublishedLaw:
    """Return one entry: a law with its constants, or a form to fit when it has none."""
    about = {"inputs", "positive", "meanings", "units", "source"} & record.keys()
    law = Law(record["formula"], name=name, **{key: record[key] for key in about})
    if "values" not in record:
        return law
    values = {parameter: float(value) for parameter, value in record["values"].items()}
    validity = {column: (float(low), float(high)) for column, (low, high) in record.get("validity", {}).items()}
    return PublishedLaw(law, values, record["convention"], validity)


_ENTRIES = read_laws("published.toml")

PUBLISHED = tuple(entry for entry in _ENTRIES if isinstance(entry, PublishedLaw))
"""Laws with the constants their authors printed."""

FORMS = tuple(entry for entry in _ENTRIES if isinstance(entry, Law))
"""Published forms whose constants belong to a workload, or were not printed: to be fitted."""


def get_published(name: str) -> PublishedLaw:
    """Return a published law by its name in the catalogue.

    Parameters
    ----------
    name : str
        Such as "steplaw2025_lr"; the names are the rows of `catalog` of kind "constants".

    Returns
    -------
    PublishedLaw

    Raises
    ------
    LawError
        If there is none of that name.

    Examples
    --------
    >>> import scalefit as sf
    >>> sf.laws.get_published("deepseek2024_bs").values["a"]
    0.3271

    See Also
    --------
    get_law : the form of a law, whose parameters are fitted
    """
    known = {law.name: law for law in PUBLISHED}
    if name in known:
        return known[name]
    raise LawError(f"no published law {name!r}; there are: {', '.join(known)}")
