"""What curves and final losses share on their way to points: studies, targets, the order of columns, doubts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from scalefit.errors import SweepError
from scalefit.notes import Note
from scalefit.vocabulary import column_of

Array = np.ndarray

_SETTINGS = ("params", "weight_decay", "seq_len", "optimizer", "schedule")


def told_study(keys: list[str], name: tuple[Any, ...]) -> str:
    """Write which study is meant: "params 1e+08, optimizer adam"."""
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in zip(keys, name, strict=True)
    )


def check_known(keys: pd.DataFrame, cell: Array) -> None:
    """Raise if a level that tells points apart is unknown for some runs, whose cells are numbered by rows of `keys`."""
    for name in (name for name in keys if keys[name].isna().any()):
        missing = int(keys[name].isna().to_numpy()[cell].sum())
        raise SweepError(f"{name} is unknown for {missing} of {len(cell)} runs; points need it of every run")


def edge_notes(status: Array, things: str) -> list[Note]:
    """Remark on optima over the learning rate that are no interior ones; `things` is what they are optima of."""
    notes = []
    meaning = {
        "edge": "have their best learning rate at the edge of the grid: better ones may lie beyond",
        "too_few": "have fewer than three learning rates: the best of them is taken, lucky or not",
    }
    for key, text in meaning.items():
        if count := int((status == key).sum()):
            notes.append(Note(f"lr_{key}", f"{count} of {len(status)} {things} {text}", caution=True))
    return notes


def confounders(table: pd.DataFrame, names: list[str]) -> list[Note]:
    """Remark on settings that differ between runs that are compared."""
    settings = [name for name in _SETTINGS if name in table and name not in names and table[name].nunique() > 1]
    return [
        Note("mixed", f"{name} varies within the studies, whose points mix its values; add it to by=", caution=True)
        for name in settings
    ]


def study_columns(by: str | Sequence[str] | None, columns: list[Any]) -> list[str]:
    """Return the columns that tell studies apart: those asked for, else params where it is there."""
    if by is None:
        return ["params"] if "params" in columns else []
    names = [column_of(name) for name in ([by] if isinstance(by, str) else by)]
    missing = [name for name in names if name not in columns]
    if missing or set(names) & {"batch", "tokens", "loss", "lr", "target"}:
        raise SweepError(f"by should name columns that tell studies apart, found {by!r}; there are {columns}")
    return names


def checked_targets(targets: Sequence[float]) -> list[float]:
    """Return the losses to reach as numbers after checking that they are positive."""
    try:
        values = [float(value) for value in targets]
    except (TypeError, ValueError):
        raise SweepError(f"targets should be losses to reach, found {targets!r}") from None
    if not values or not np.isfinite(values).all() or min(values) <= 0:
        raise SweepError(f"targets should be positive losses, found {targets!r}")
    return values


def ordered(points: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return points with their columns and rows in order."""
    first = [*keys, "batch", "steps", "examples", "log_stderr", "n", "status"]
    rest = [name for name in points if name not in first]
    return points[[*first, *rest]].sort_values([*keys, "batch"]).reset_index(drop=True)
