"""`fit.json`: the fits of a sweep as plain JSON, read back through the checks that new input passes."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from scalefit.errors import RefitError, ScalefitError
from scalefit.fitting.export import to_record
from scalefit.fitting.fit_result import Fit
from scalefit.refitting.records import read_json, without_nan
from scalefit.refitting.study import Study
from scalefit.surface.surface import Surface

FIT_FILE = "fit.json"

FIT_SCHEMA = 1
"""Version of fit.json; files of another version are refused."""

_KIND = "scalefit.Study"

_LARGEST = 100_000_000
"""Bytes of the largest fit.json that is read."""


def write_fits(study: Study, sha256: str, version: str) -> bytes:
    """Return a study as JSON: laws in full, why they were chosen, intervals, the trade-off, and what is missing.

    The same study gives the same bytes; numbers are written so that they read back exactly.
    """
    of_surface = {} if study.surface is None else _laws_of(study.surface)
    choices = {"lr": study.lr_law, "batch": study.batch_law}
    record = {
        "schema": FIT_SCHEMA,
        "kind": _KIND,
        "version": version,
        "sha256": sha256,
        "laws": {name: to_record(law) for name, law in (study.laws | of_surface).items()},
        "reasons": {name: choice.reason for name, choice in choices.items() if choice is not None},
        "bootstrap": {name: _records(draws.intervals()) for name, draws in study.draws.items()},
        "tradeoff": [] if study.tradeoff is None else _records(study.tradeoff.table),
        "backtest": [] if study.backtest is None else _records(study.backtest.summary()),
        "notes": [asdict(note) for note in study.notes],
        "gaps": [gap.text for gap in study.gaps],
    }
    return (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()


def read_fits(path: str | os.PathLike[str]) -> dict[str, Fit]:
    """Read the laws of a `fit.json`.

    Parameters
    ----------
    path : path
        The file, or the folder of results it is in.

    Returns
    -------
    dict of str to Fit
        By what they predict: lr, batch, loss, B_crit, and those of the joint surface as surface_lr, surface_batch and
        surface_loss.

    Raises
    ------
    RefitError
        If the file cannot be read, is of another kind or version, or a law in it does not hold together.
    """
    file = Path(path) / FIT_FILE if Path(path).is_dir() else Path(path)
    record = _read(file)
    if not isinstance(record, dict) or record.get("kind") != _KIND:
        raise RefitError(f"{file} is not a fit.json of a refit; one written by Fit.to_json is read by Fit.from_json")
    if type(record.get("schema")) is not int or record["schema"] != FIT_SCHEMA:
        raise RefitError(
            f"{file}: expected schema version {FIT_SCHEMA}, found {record.get('schema')!r}; refit with this version of "
            "scalefit, or read it with the one that wrote it"
        )
    laws = record.get("laws")
    if not isinstance(laws, dict):
        raise RefitError(f"{file}: laws should be a table of fits, found {type(laws).__name__}")
    return {name: _read_law(name, law, file) for name, law in laws.items()}


def is_study(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file is a `fit.json` of a refit, whatever its version.

    Raises
    ------
    RefitError
        If it cannot be read, or is no JSON at all.
    """
    record = _read(Path(path))
    return isinstance(record, dict) and record.get("kind") == _KIND


def _read(file: Path) -> Any:
    try:
        return read_json(file, _LARGEST)
    except OSError as error:
        raise RefitError(f"cannot read {file}: {error.strerror or error}") from error


def _read_law(name: str, law: Any, file: Path) -> Fit:
    if not isinstance(law, dict):
        raise RefitError(f"{file}: the law for {name} should be a fit, found {type(law).__name__}")
    try:
        return Fit.from_json(json.dumps(law))
    except (ScalefitError, RecursionError) as error:
        raise RefitError(f"{file}: the law for {name}: {error}") from error


def _laws_of(surface: Surface) -> dict[str, Fit]:
    """Return the laws of a surface, each with what is to be doubted of the whole."""
    laws = surface.laws | ({} if surface.floor_fit is None else {"loss": surface.floor_fit})
    doubts = [note for note in surface.notes if note.caution]
    return {
        f"surface_{name}": law.with_notes(*(note for note in doubts if note not in law.notes))
        for name, law in laws.items()
    }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [without_nan(row) for row in table.to_dict("records")]
