"""Which run a row belongs to: by a column, by several, by the name of its file, or proven by where steps go back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePath

import numpy as np
import pandas as pd

from scalefit.errors import SweepError
from scalefit.loaders.rows import Rows
from scalefit.notes import Note

Array = np.ndarray
Identity = tuple[Array, list[str], list[Note]]


def by_columns(names: Sequence[str], column: Callable[[str], pd.Series], rows: Rows) -> Identity:
    """Number the runs by one column or several, in the order of first appearance.

    Raises
    ------
    SweepError
        If a row does not say which run it belongs to.
    """
    keys, labels = [], []
    for name in names:
        code, uniques = pd.factorize(column(name))
        if (code < 0).any():
            row = int(np.flatnonzero(code < 0)[0])
            raise SweepError(
                f"{int((code < 0).sum())} of {len(code)} rows have no {name!r}, first {rows.name(row)}: the run they "
                "belong to is not known"
            )
        keys.append(code.astype(np.int32))
        labels.append(np.array([_text(value) for value in uniques], dtype=object))
    if len(keys) == 1:
        return keys[0], _distinct(labels[0].tolist(), names[0]), []
    code, pairs = _combine(keys, labels)
    told = f"runs are told apart by {_and(names)}: {len(pairs)} runs"
    return code, pairs, [Note("run", told)]


def _text(value: object) -> str:
    whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value)) if whole else str(value)  # type: ignore[call-overload]


def _distinct(names: list[str], column: str) -> list[str]:
    if len(set(names)) < len(names):
        raise SweepError(f"{column!r} holds different values that are written alike; make it text")
    return names


def _combine(keys: list[Array], labels: list[Array]) -> tuple[Array, list[str]]:
    joint = keys[0].astype(np.int64)
    for key, label in zip(keys[1:], labels[1:], strict=True):
        joint = joint * len(label) + key
    code, uniques = pd.factorize(joint)
    parts = []
    for label in reversed(labels):
        uniques, place = np.divmod(uniques, len(label))
        parts.append(label[place])
    return code.astype(np.int32), ["/".join(each) for each in zip(*reversed(parts), strict=True)]


def _and(names: Sequence[str]) -> str:
    return " and ".join(map(repr, names))


def _needed(keys: pd.DataFrame) -> list[str]:
    """Return few columns that tell the rows apart, leaving out from the front what is not needed for it."""
    for name in list(keys):
        rest = keys.drop(columns=name)
        keys = rest if len(rest.columns) and not rest.duplicated().any() else keys
    return [str(name) for name in keys]


def by_file(rows: Rows) -> Identity:
    """Take every file for one run, and its name, without the ending, for the run's."""
    names = [PurePath(name).name.split(".")[0] for name in rows.names]
    if len(set(names)) < len(names):
        names = list(rows.names)
    text = f"no column names the run: each of {len(names)} sources is one, called after its file"
    return rows.source.astype(np.int32), names, [Note("run", text)]


def by_proof(x: Array, what: str, others: Sequence[str], column: Callable[[str], pd.Series], source: str) -> Identity:
    """Tell runs apart without a column that names them.

    A table in which steps never go back is one run. Otherwise a new run begins where they do; the columns that are
    constant in between must give each of these pieces values of its own.

    Raises
    ------
    SweepError
        If they do not: which rows make a run would have to be guessed.
    """
    begins = np.concatenate([[True], x[1:] <= x[:-1]])
    piece = (np.cumsum(begins) - 1).astype(np.int32)
    if piece[-1] == 0:
        return piece, [PurePath(source).name.split(".")[0]], []
    first = np.flatnonzero(begins)
    constant: dict[str, Array] = {}
    for name in others:
        code, _ = pd.factorize(column(name), use_na_sentinel=False)
        if np.array_equal(code[first][piece], code):
            constant[name] = code[first]
    names = [name for name in constant if len(np.unique(constant[name])) > 1]
    if not names or pd.DataFrame({name: constant[name] for name in names}).duplicated().any():
        row = int(first[1])
        raise SweepError(
            f"no column of {source} names the run, and {what} goes back {len(first) - 1} times, first in row "
            f"{row + 1}: name the column, or the columns that together tell runs apart: "
            "read_curves(..., run=('<column>', ...))"
        )
    names = _needed(pd.DataFrame({name: constant[name] for name in names}))
    labels = [np.array([_text(value) for value in column(name).iloc[first]], dtype=object) for name in names]
    told = f"no column names the run: the {what} go back between {len(first)} pieces, told apart by {_and(names)}"
    written = _distinct(["/".join(each) for each in zip(*labels, strict=True)], "/".join(names))
    return piece, written, [Note("run", told)]
