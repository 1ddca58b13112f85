"""Nested dictionaries in a table, as W&B's `config` and `summary`, spread into columns with dotted names."""

from __future__ import annotations

from typing import Any

import pandas as pd

from scalefit.errors import SweepError

_MAX_DEPTH = 20


def flatten(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """Return the table with every column of dictionaries replaced by one column per name in them.

    Raises
    ------
    SweepError
        If one run has two values for a dotted name, or dictionaries are nested more than 20 deep.

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
    flat = [
        pd.DataFrame([_flatten({name: value}, source) for value in frame[name]], index=frame.index) for name in nested
    ]
    return pd.concat([frame.drop(columns=nested), *flat], axis=1)


def _flatten(record: dict[Any, Any], source: str, prefix: str = "", depth: int = 0) -> dict[str, Any]:
    if depth > _MAX_DEPTH:
        raise SweepError(f"{source} nests objects more than {_MAX_DEPTH} deep")
    flat: dict[str, Any] = {}
    for key, value in record.items():
        path = f"{prefix}{str(key).strip()}"
        inner = _flatten(value, source, f"{path}.", depth + 1) if isinstance(value, dict) else {path: value}
        if not flat.keys().isdisjoint(inner):
            raise SweepError(f"{source} has one run with two values for {path!r}")
        flat |= inner
    return flat
