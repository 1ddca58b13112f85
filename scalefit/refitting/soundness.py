"""What each field of a record may be: one that was damaged, or made to do damage, is told from a real one."""

from __future__ import annotations

import re
import reprlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scalefit.refitting.intake import DamagedError

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
