"""Nested dictionaries in a table, as W&B's `config` and `summary`, spread into columns with dotted names."""

from __future__ import annotations

from typing import Any

import pandas as pd

from scalefit.errors import SweepError
from scalefit.loaders import limits

_MAX_DEPTH = 20


def flatten(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """Return the table with every column of dictionaries replaced by one column per name in them.

    Raises
    ------
    SweepError
        If one run has two values for a dotted name, dictionaries are nested more than 20 deep, or there are more or
        longer names than a table of runs has.

    Examples
    --------
    >>> flatten(pd.DataFrame({"config": [{"lr": 0.1, "model": {"layers": 2}}]}), "runs").columns.tolist()
    ['config.lr', 'config.model.layers']
    """
    nested = [
        name
        for name in frame.columns
        if frame[name].dtype == object and any(isinstance(value, dict) for value in frame[name])
    ]
    if not nested:
        return frame
    names: dict[str, str] = {}
    flat = [[_flatten({name: value}, source, names) for value in frame[name]] for name in nested]
    limits.check_cells(len(frame), len(names), source)
    tables = [pd.DataFrame(records, index=frame.index) for records in flat]
    return pd.concat([frame.drop(columns=nested), *tables], axis=1)


def _flatten(
    record: dict[Any, Any], source: str, names: dict[str, str], prefix: str = "", depth: int = 0
) -> dict[str, Any]:
    """Spread one dictionary; `names` holds the dotted names of all rows, each once however many rows have it."""
    if depth > _MAX_DEPTH:
        raise SweepError(f"{source} nests objects more than {_MAX_DEPTH} deep")
    flat: dict[str, Any] = {}
    for key, value in record.items():
        path = f"{prefix}{str(key).strip()}"
        if isinstance(value, dict):
            inner = _flatten(value, source, names, f"{path}.", depth + 1)
        else:
            inner = {_known(path, source, names): value}
        if not flat.keys().isdisjoint(inner):
            raise SweepError(f"{source} has one run with two values for {path!r}")
        flat |= inner
    return flat


def _known(path: str, source: str, names: dict[str, str]) -> str:
    """Return a dotted name as it was first met, and refuse more or longer ones than a table has."""
    if len(path) > limits.MAX_NAME:
        raise SweepError(
            f"{source} has a name of {len(path)} characters in nested objects, expected at most {limits.MAX_NAME}; "
            f"it starts {path[:40]!r}"
        )
    known = names.setdefault(path, path)
    limits.check_columns(len(names), source)
    return known
