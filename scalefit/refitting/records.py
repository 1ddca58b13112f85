"""What is kept of a finished refit: where it came from, what it found, and what makes it out of date."""

from __future__ import annotations

import json
import math
import os
import re
import reprlib
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from scalefit.errors import RefitError
from scalefit.vocabulary import format_number

LABEL_BYTES = 1 << 20
"""What a record may hold: a real one has a few thousand bytes."""


class DamagedError(RefitError):
    """A file can be opened, but what it holds is not what should be there."""


def read_json(path: Path, largest: int = LABEL_BYTES) -> Any:
    """Read a file of JSON.

    Parameters
    ----------
    path : Path
    largest : int
        Bytes that it may hold.

    Raises
    ------
    DamagedError
        If it is a pipe, device or folder (a pipe would be waited for without end), too large, or not JSON.
    OSError
        If it cannot be opened.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise DamagedError(f"{path} is {_KINDS.get(stat.S_IFMT(status.st_mode), 'a device')}; expected a file")
    if status.st_size > largest:
        raise DamagedError(f"{path} holds {status.st_size:,} bytes; expected {largest:,} at most")
    with open(path, "rb") as file:
        data = file.read(status.st_size)
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is not JSON: {error}") from error


_KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket"}

REMEDY = "refit its sweep, or delete the folder"

_MOST = 1_000
"""Findings or drifts in a record: every finding is a column of the summary."""

_LONGEST = 80
"""Characters of what was found that an error repeats."""

_WORDS = ("nan", "inf", "-inf")
"""How numbers are written that JSON does not have."""

_NAME = re.compile(r"[A-Za-z0-9._=+-]+")
"""A folder's name as discovery gives it: safe in a path and in a link."""

_QUANTITY = re.compile(r"\w{1,100}: \w{1,100}")
"""With its colon it is never a column of the summary that says something else."""


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def is_number(value: Any) -> bool:
    """Tell whether a value is a number that fits a float, or one of the words for those that JSON does not have."""
    if type(value) is int:  # one of hundreds of digits is no float
        return -sys.float_info.max <= value <= sys.float_info.max
    return type(value) is float or (type(value) is str and value in _WORDS)


def _is_text(value: Any) -> bool:
    """Tell whether a value is a text that can be written to any of the files: half a character cannot."""
    if type(value) is not str or "\0" in value:
        return False
    return value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value)


def _is_path(value: Any) -> bool:
    """Tell whether a value can be a path, whose bytes need not be Unicode."""
    return type(value) is str and "\0" not in value


def _is_list(value: Any) -> bool:
    return type(value) is list and len(value) <= _MOST


def _is_sizes(value: Any) -> bool:
    return type(value) is dict and all(_is_inside(name) and _is_count(size) for name, size in value.items())


def _is_inside(name: str) -> bool:
    return _is_text(name) and not name.startswith("/") and ".." not in name.split("/")


Checks = Mapping[str, tuple[str, Callable[[Any], bool]]]
"""What a field should be, in words, and how that is told."""

_COUNT, _NUMBER, _TEXT = ("a whole number from 0 up", _is_count), ("a number", is_number), ("a text", _is_text)
_PATH, _LIST = ("a path", _is_path), (f"a list of {_MOST:,} entries at most", _is_list)
_OF = ("the law's target and a parameter, such as 'lr: a'", lambda v: type(v) is str and bool(_QUANTITY.fullmatch(v)))
_END = ("a number or a formula", lambda value: is_number(value) or _is_text(value))
_RECORD: Checks = {
    "name": ("a plain name", lambda value: type(value) is str and bool(_NAME.fullmatch(value))),
    **dict.fromkeys(("source", "relative"), _PATH),
    **dict.fromkeys(("sha256", "settings", "version"), _TEXT),
    **dict.fromkeys(("n_runs", "n_cells", "n_cautions"), _COUNT),
    **dict.fromkeys(("findings", "drift"), _LIST),
    "outputs": ("a table of files and their sizes", _is_sizes),
}
_FINDING: Checks = {"quantity": _OF, "value": _NUMBER, "stderr": _NUMBER, "law": _TEXT}
_DRIFT: Checks = {"quantity": _OF, "before": _END, "after": _END, "errors": _NUMBER}


def check_record(plain: dict[str, Any], place: Path) -> None:
    """Raise DamagedError unless a record has all its fields, each is what it should be, and no number is there twice.

    Parameters
    ----------
    plain : dict
        What was read.
    place : Path
        Where; the error names it.
    """
    _check(plain, _RECORD, place)
    for name, checks in (("findings", _FINDING), ("drift", _DRIFT)):
        for number, entry in enumerate(plain[name]):
            _check(entry, checks, place, name, number)
    if len({entry["quantity"] for entry in plain["findings"]}) < len(plain["findings"]):
        raise DamagedError(f"{place} gives a number twice; {REMEDY}")


def _check(entry: Any, checks: Checks, *where: object) -> None:
    """Raise DamagedError unless an entry has the fields that it should have, and nothing else."""
    if (wrong := _wrong(entry, checks)) is not None:
        raise DamagedError(f"{': '.join(map(str, where))}: {wrong}; {REMEDY}")


def _wrong(entry: Any, checks: Checks) -> str | None:
    if type(entry) is not dict:
        return f"expected a table, found {_shown(entry)}"
    if entry.keys() != checks.keys():
        odd = min(entry.keys() ^ checks.keys())
        return f"{_shown(odd)} is {'unknown' if odd in entry else 'missing'}"
    for name, (expected, is_good) in checks.items():
        if not is_good(entry[name]):
            return f"{name} should be {expected}, found {_shown(entry[name])}"
    return None


def _shown(value: Any) -> str:
    """Return a value in a few words, however large and deep it is."""
    text = reprlib.repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


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
        return f"{self.quantity} {_sizes_shown(self.before)} -> {_sizes_shown(self.after)}{far}"


def _sizes_shown(value: float | str) -> str:
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
