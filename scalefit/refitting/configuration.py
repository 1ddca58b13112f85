"""`scalefit.toml`: settings read from a file, and every key in it that means nothing refused by name."""

from __future__ import annotations

import difflib
import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from scalefit.errors import SweepError
from scalefit.refitting.meanings import check
from scalefit.refitting.settings import Analysis, Reading, Rule, Settings

CONFIG = "scalefit.toml"
"""Name of the file looked for in the working folder when none is given."""

_LARGEST = 100_000


def read_settings(path: str | os.PathLike[str] | None = None) -> Settings:
    """Read a `scalefit.toml`.

    The table ``[read]`` holds fields of `Reading`, ``[fit]`` fields of `Analysis`, and each ``[[sweep]]`` a glob
    ``match`` with its own ``read`` and ``fit``.

    Parameters
    ----------
    path : path, optional
        Without it, `scalefit.toml` in the working folder if there is one.

    Raises
    ------
    SweepError
        If the file cannot be read or a key or value in it means nothing; the key is named.
    """
    if path is None:
        if not os.path.lexists(CONFIG):
            return Settings()
        path = CONFIG
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
            raise SweepError(f"the settings {path} should be a file of at most {_LARGEST:,} bytes")
        record = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SweepError(f"cannot read the settings {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, or numbers of thousands of digits
        raise SweepError(f"{path} is not TOML: {error}") from error
    return _settings(record, str(path))


def _settings(record: Mapping[str, Any], source: str) -> Settings:
    _refuse_unknown(record, ("read", "fit", "sweep"), source)
    reading = replace(Reading(), **_fields(record.get("read", {}), Reading, f"{source}: read"))
    analysis = replace(Analysis(), **_fields(record.get("fit", {}), Analysis, f"{source}: fit"))
    rules = record.get("sweep", [])
    if not isinstance(rules, list):
        raise SweepError(f"{source}: sweep should be written [[sweep]], once for each glob")
    return Settings(
        reading, analysis, tuple(_rule(rule, f"{source}: sweep {i}") for i, rule in enumerate(rules, 1)), source
    )


def _rule(record: Any, where: str) -> Rule:
    if not isinstance(record, dict):
        raise SweepError(f"{where} should be a table with match, read and fit, found {record!r}")
    _refuse_unknown(record, ("match", "read", "fit"), where)
    match = record.get("match")
    if not isinstance(match, str) or not PurePosixPath(match).parts:
        raise SweepError(f"{where}.match should be a glob such as 'steplaw*.csv' or 'old/*', found {match!r}")
    parts = [
        _fields(record.get(name, {}), kind, f"{where}.{name}") for name, kind in (("read", Reading), ("fit", Analysis))
    ]
    return Rule(match, *(MappingProxyType(part) for part in parts))


def _fields(record: Any, kind: type, where: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise SweepError(f"{where} should be a table of settings, found {record!r}")
    _refuse_unknown(record, tuple(entry.name for entry in fields(kind)), where)
    values = {name: _python(value) for name, value in record.items()}
    for name, value in values.items():
        check(name, value, f"{where}.{name}")
    return values


def _python(value: Any) -> Any:
    """Return a value of TOML, which has no null, as the functions of the package take it."""
    if isinstance(value, dict):
        return {name: None if entry is False else entry for name, entry in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _refuse_unknown(record: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in record:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise SweepError(f"{where}: unknown key {name!r}; {hint}")
