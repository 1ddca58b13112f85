"""`scalefit.toml`: settings read from a file, and every key in it that means nothing refused by name."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from scalefit.errors import LawError, ScalefitError, SweepError
from scalefit.expressions import parse
from scalefit.laws import get_law
from scalefit.refitting.settings import Analysis, Reading, Rule, Settings
from scalefit.vocabulary import BY_COLUMN, check_data_unit, column_of

CONFIG = "scalefit.toml"
"""Name of the file looked for in the working folder when none is given."""


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
        if not Path(CONFIG).is_file():
            return Settings()
        path = CONFIG
    try:
        record = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SweepError(f"cannot read the settings {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
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
    return {name: _checked(value, name, f"{where}.{name}") for name, value in record.items()}


def _refuse_unknown(record: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in record:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise SweepError(f"{where}: unknown key {name!r}; {hint}")


def _checked(value: Any, name: str, where: str) -> Any:
    expected, good = _EXPECTED[name]
    if not good(value):
        raise SweepError(f"{where} should be {expected}, found {value!r}")
    try:
        for text in [value] if isinstance(value, str) else value if isinstance(value, list) else ():
            _MEANING.get(name, str)(text)
    except ScalefitError as error:
        raise SweepError(f"{where}: {error}") from None
    return tuple(value) if isinstance(value, list) else value


def _check_law(*targets: str) -> Callable[[str], None]:
    def check(text: str) -> None:
        law = get_law(text)
        if column_of(law.target) not in targets:
            raise LawError(f"{text!r} is a law for {law.target}, not for {' or '.join(targets)}")

    return check


def _check_loss_law(text: str) -> None:
    if text != "auto":
        _check_law("loss")(text)


def _check_condition(text: str) -> None:
    parse(text, condition=True)


def _check_holdout(text: str) -> None:
    if text.split(" ")[0] not in ("largest", "rolling"):
        _check_condition(text)
    elif text.split(" ")[1:] not in (["params"], ["tokens"], ["both"]) or text == "rolling both":
        raise SweepError(f"expected 'largest params|tokens|both' or 'rolling params|tokens', found {text!r}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_size(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict) and all(column_of(name) in BY_COLUMN and _is_text(v) for name, v in value.items())


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_targets(value: Any) -> bool:
    return (_is_count(value) and value > 0) or (isinstance(value, list) and bool(value) and all(map(_is_size, value)))


def _one_of(*words: str) -> tuple[str, Callable[[Any], bool]]:
    return f"one of {', '.join(words)}", lambda value: value in words


_TEXT = ("a text", _is_text)
_LAWS = ("a list of laws, by name or formula", _is_list)
_EXPECTED: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "columns": ("a table such as {lr = 'peak', params = 'n_emb'}, words of the package on the left", _is_mapping),
    "batch_unit": _TEXT,
    "seq_len": ("a positive number", _is_size),
    "data_unit": _TEXT,
    "nonfinite": _one_of("raise", "diverged", "drop"),
    "duplicates": _one_of("raise", "keep", "drop"),
    "params_convention": _one_of("non_embedding", "total"),
    "where": ("a condition such as 'params < 1e9'", _is_text),
    "lr_laws": _LAWS,
    "batch_laws": _LAWS,
    "loss_law": ("a law, by name or formula", _is_text),
    "targets": ("a list of losses, or how many to spread over those measured", _is_targets),
    "holdout": ("a condition such as 'params > 1e9', or 'largest params'", _is_text),
    "draws": ("a whole number from 0 up", _is_count),
    "seed": ("a whole number from 0 up", _is_count),
}
_MEANING: Mapping[str, Callable[[str], Any]] = {
    "data_unit": check_data_unit,
    "where": _check_condition,
    "lr_laws": _check_law("lr"),
    "batch_laws": _check_law("batch"),
    "loss_law": _check_loss_law,
    "holdout": _check_holdout,
}
"""What raises an error if a text, well formed, means nothing."""
