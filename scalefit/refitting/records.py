"""What is kept of a finished refit: where it came from, what it found, and what makes it out of date."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from scalefit.errors import RefitError
from scalefit.formatting import format_number
from scalefit.refitting.intake import DamagedError, read_json
from scalefit.refitting.soundness import REMEDY, check_record, is_number

SCHEMA = 1
"""Version of the file format; a record of another version is out of date."""

FILE = "record.json"
REPORT = "report.html"

_BESIDE = "fit.json"
"""What lies beside a record of ours, whatever the record says."""

_NO_LAW = "none"

_FAR = 3.0
"""Combined standard errors beyond which a value has moved."""


@dataclass(frozen=True)
class Finding:
    """One number of a refit with its standard error, such as an exponent.

    Parameters
    ----------
    quantity : str
        For example ``"lr: a"``: the law's target and the parameter, or a measure of the backtest.
    value, stderr : float
        NaN where the data do not give one.
    law : str
        The law's formula; a number is compared with that of an earlier refit only under the same law.
    """

    quantity: str
    value: float
    stderr: float
    law: str = ""


@dataclass(frozen=True)
class Drift:
    """A finding that is not what it was.

    Parameters
    ----------
    quantity : str
        As in `Finding`, or ``"lr: law"`` where the law is another one.
    before, after : float or str
        Values, or formulas: "none" where there was or is no such law.
    errors : float
        How many combined standard errors lie between them; NaN between laws.
    """

    quantity: str
    before: float | str
    after: float | str
    errors: float

    def __str__(self) -> str:
        """Say it in a line."""
        far = f" ({format_number(self.errors, 2)} errors)" if self.errors == self.errors else ""
        return f"{self.quantity} {_shown(self.before)} -> {_shown(self.after)}{far}"


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else format_number(value)


@dataclass(frozen=True)
class Record:
    """The label on a sweep's folder of results.

    Parameters
    ----------
    name, source, relative : str
        See `scalefit.refitting.discovery.Source`.
    sha256, settings, version : str
        Digests of the input and of the settings that apply, and the version of scalefit: together they say when a
        refit is out of date.
    n_runs, n_cells, n_cautions : int
    findings : tuple of Finding
    drift : tuple of Drift
        Against the results that this refit replaced.
    outputs : mapping of str to int
        The files beside this one and their sizes in bytes.
    """

    name: str
    source: str
    relative: str
    sha256: str
    settings: str
    version: str
    n_runs: int
    n_cells: int
    n_cautions: int
    findings: tuple[Finding, ...]
    drift: tuple[Drift, ...] = ()
    outputs: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the record as JSON; the same record gives the same text."""
        plain = {"schema": SCHEMA, **asdict(self)}
        return json.dumps(without_nan(plain), indent=1, sort_keys=True) + "\n"

    def is_of(self, sha256: str, settings: str, version: str) -> bool:
        """Tell whether these are the results of this input under these settings."""
        return (self.sha256, self.settings, self.version) == (sha256, settings, version)

    def is_whole(self, folder: Path) -> bool:
        """Tell whether the folder holds all the results."""
        return all(_size(folder / name) == size for name, size in self.outputs.items())


def read_record(folder: Path) -> Record | None:
    """Read the record of a folder of results; None if there is none, or none that this version understands.

    Raises
    ------
    RefitError
        If there is one that cannot be opened.
    """
    try:
        return _read(folder)
    except DamagedError:
        return None


def read_records(out: Path) -> tuple[list[Record], list[tuple[str, str]]]:
    """Read every record in an output folder, by name; and say which cannot be read, and why."""
    records, unreadable = [], []
    for folder in sorted(path.parent for path in out.glob(f"*/{FILE}")):
        try:
            record = _read(folder)
        except RefitError as error:
            unreadable.append((str(folder), str(error)))
        else:
            records += [] if record is None else [record]
    return records, unreadable


def _read(folder: Path) -> Record | None:
    """Read a record; None if there is none, or that of someone else or of another folder."""
    place = folder / FILE
    try:
        plain = read_json(place)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except DamagedError:
        if place.is_dir():
            return None
        raise
    except OSError as error:
        raise RefitError(f"cannot read {place}: {error.strerror or error}") from error
    if isinstance(plain, dict) and "schema" in plain:
        return _record(plain, folder)
    if (folder / _BESIDE).exists():
        raise DamagedError(f"{place} is not what a refit writes; {REMEDY}")
    return None


def _record(plain: dict[str, Any], folder: Path) -> Record | None:
    """Return what a record says, once every part is known to be what it should be."""
    place = folder / FILE
    if type(plain["schema"]) is not int or plain.pop("schema") != SCHEMA:
        raise DamagedError(f"{place} was written by another version of scalefit; {REMEDY}")
    check_record(plain, place)
    if plain["name"] != folder.name:
        return None
    findings = tuple(
        Finding(entry["quantity"], float(entry["value"]), float(entry["stderr"]), entry["law"])
        for entry in plain["findings"]
    )
    drift = (
        Drift(entry["quantity"], _end(entry["before"]), _end(entry["after"]), float(entry["errors"]))
        for entry in plain["drift"]
    )
    return Record(**plain | {"findings": findings, "drift": tuple(drift)})


def drifted(before: Sequence[Finding], after: Sequence[Finding]) -> tuple[Drift, ...]:
    """Return what has moved by more than three combined standard errors, or rests on another law now.

    Examples
    --------
    >>> drifted([Finding("lr: a", -0.5, 0.03)], [Finding("lr: a", -0.25, 0.04)])
    (Drift(quantity='lr: a', before=-0.5, after=-0.25, errors=5.0),)
    """
    if not before:
        return ()
    old_laws, laws = _laws(before), _laws(after)
    targets = dict.fromkeys([*laws, *old_laws])
    found = [
        Drift(f"{target}: law", old_laws.get(target, _NO_LAW), laws.get(target, _NO_LAW), math.nan)
        for target in targets
        if old_laws.get(target) != laws.get(target)
    ]
    old = {(finding.quantity, finding.law): finding for finding in before}
    for new in after:
        was = old.get((new.quantity, new.law))
        if was is not None and (apart := _apart(was, new)) > _FAR:
            found.append(Drift(new.quantity, was.value, new.value, apart))
    return tuple(found)


def _laws(findings: Sequence[Finding]) -> dict[str, str]:
    """Return the formulas by target."""
    return {finding.quantity.partition(":")[0]: finding.law for finding in findings if finding.law}


def _apart(was: Finding, new: Finding) -> float:
    """Return how many combined errors lie between two values; 0 where one or its error is unknown, as at a bound."""
    error, way = math.hypot(was.stderr, new.stderr), abs(new.value - was.value)
    return way / error if math.isfinite(error) and error > 0 and math.isfinite(way) else 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def without_nan(value: Any) -> Any:
    """Return plain values that JSON can hold: numpy's numbers as Python's, NaN and infinities as words."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): without_nan(entry) for key, entry in value.items()}
    return [without_nan(entry) for entry in value] if isinstance(value, list | tuple) else value


def _end(value: float | str) -> float | str:
    """Return one side of a drift; formulas stay text."""
    return float(value) if is_number(value) else value
