"""What a refit is to do: the defaults, and what Python or a `scalefit.toml` says instead."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from scalefit.backtesting.folds import check_holdout
from scalefit.errors import LawError, ScalefitError, SweepError
from scalefit.laws import get_law
from scalefit.laws.expressions import parse
from scalefit.refitting.discovery import Source
from scalefit.refitting.records import Drift, Finding
from scalefit.vocabulary import BY_COLUMN, check_data_unit, column_of

_MOST, _MOST_TARGETS = 100_000, 100
_LARGEST, _LONGEST = 1e18, 1_000


def check(name: str, value: Any, where: str) -> None:
    """Raise SweepError unless a value is one that the setting of this name can have.

    Parameters
    ----------
    name : str
        A field of `Reading` or `Analysis`.
    value
    where : str
        How the error calls the setting.
    """
    expected, good = _EXPECTED[name]
    if not good(value):
        raise SweepError(f"{where} should be {expected}, found {value!r}")
    try:
        for text in [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else ():
            _MEANING.get(name, str)(text)
    except ScalefitError as error:
        raise SweepError(f"{where}: {error}") from None


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


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST


def _is_size(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _LARGEST


def _is_draws(value: Any) -> bool:
    return _is_count(value) and value != 1


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        column_of(name) in BY_COLUMN and (_is_text(column) or column is None) for name, column in value.items()
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_text, value))


def _is_targets(value: Any) -> bool:
    return (_is_count(value) and 0 < value <= _MOST_TARGETS) or (
        isinstance(value, list | tuple) and bool(value) and all(map(_is_size, value))
    )


def _one_of(*words: str) -> tuple[str, Callable[[Any], bool]]:
    return f"one of {', '.join(words)}", lambda value: value in words


_TEXT = ("a text", _is_text)
_LAWS = ("a list of laws, by name or formula", _is_list)
_EXPECTED: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "columns": (
        "a table such as {lr = 'peak', tokens = false}, words of the package on the left, false for none",
        _is_mapping,
    ),
    "batch_unit": ("what the batch counts: 'sequences', or the unit of the data such as 'tokens'", _is_text),
    "seq_len": ("a positive number", _is_size),
    "data_unit": _TEXT,
    "nonfinite": _one_of("raise", "diverged", "drop"),
    "duplicates": _one_of("raise", "keep", "drop"),
    "params_convention": _one_of("non_embedding", "total"),
    "where": ("a condition such as 'params < 1e9'", _is_text),
    "lr_laws": _LAWS,
    "batch_laws": _LAWS,
    "loss_law": ("a law, by name or formula", _is_text),
    "targets": (f"a list of losses, or how many to spread over those measured, {_MOST_TARGETS} at most", _is_targets),
    "holdout": ("a condition such as 'params > 1e9', or 'largest params'", _is_text),
    "draws": (f"0 for none, or a whole number from 2 to {_MOST:,}", _is_draws),
    "seed": (f"a whole number from 0 to {_MOST:,}", _is_count),
}
_MEANING: Mapping[str, Callable[[str], Any]] = {
    "data_unit": check_data_unit,
    "where": _check_condition,
    "lr_laws": _check_law("lr"),
    "batch_laws": _check_law("batch"),
    "loss_law": _check_loss_law,
    "holdout": check_holdout,
}
"""What raises an error if a text, well formed, means nothing."""


@dataclass(frozen=True)
class Reading:
    """How a file is read: the arguments of `scalefit.read_sweep`.

    Raises
    ------
    SweepError
        If a value is none that the argument can have.
    """

    columns: Mapping[str, str | None] | None = None
    batch_unit: str | None = None
    seq_len: float | None = None
    data_unit: str = "tokens"
    nonfinite: str = "raise"
    duplicates: str = "raise"
    params_convention: str | None = None
    where: str | None = None

    def __post_init__(self) -> None:
        _check_own(self, Reading)
        if self.batch_unit not in (None, "sequences", self.data_unit):
            known = f"'sequences' or {self.data_unit!r} (the data_unit)"
            raise SweepError(f"batch_unit should be {known}, found {self.batch_unit!r}")


@dataclass(frozen=True)
class Analysis:
    """What is fitted to a sweep.

    Parameters
    ----------
    lr_laws, batch_laws : tuple of str
        Candidates in the catalogue or formulas; the one that predicts held-out cells best is kept. Empty: the
        built-in family.
    loss_law : str
        Law of the cells' best losses; "auto" is the usual one for what varies.
    targets : int or tuple of float
        Losses at which steps are weighed against examples, or how many to spread over those measured.
    holdout : str
        What the backtest holds out, as in `scalefit.backtest`: a condition, "largest params" and the like, or
        "rolling params" and the like.
    draws : int
        Bootstrap resamples of whole cells; 0 for none.
    seed : int
        Of the bootstrap.

    Raises
    ------
    SweepError
        If a value means nothing.
    """

    lr_laws: tuple[str, ...] = ()
    batch_laws: tuple[str, ...] = ()
    loss_law: str = "auto"
    targets: int | tuple[float, ...] = 3
    holdout: str = "largest params"
    draws: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        _check_own(self, Analysis)


def _check_own(settings: Any, kind: type) -> None:
    """Check what differs from the defaults."""
    for entry in fields(kind):
        if (value := getattr(settings, entry.name)) != entry.default:
            check(entry.name, value, entry.name)


@dataclass(frozen=True)
class Rule:
    """Settings for the files that match a glob.

    It is compared with the end of their path, folder by folder; ``**`` stands for any folders in a row, none included.
    """

    match: str
    reading: Mapping[str, Any]
    analysis: Mapping[str, Any]


@dataclass(frozen=True)
class Settings:
    """Everything a refit can be told.

    Parameters
    ----------
    reading : Reading
    analysis : Analysis
    rules : tuple of Rule
        For some sweeps only; where several match, later ones win.
    source : str
        The file they were read from, or "defaults".

    Examples
    --------
    >>> rule = Rule("new/step*.csv", {"batch_unit": "sequences", "seq_len": 2048.0}, {})
    >>> settings = Settings(rules=(rule,))
    >>> settings.of("/data/new/steplaw.csv")[0].batch_unit, settings.of("/data/old/steplaw.csv")[0].batch_unit
    ('sequences', None)
    """

    reading: Reading = field(default_factory=Reading)
    analysis: Analysis = field(default_factory=Analysis)
    rules: tuple[Rule, ...] = ()
    source: str = "defaults"

    def of(self, path: str) -> tuple[Reading, Analysis]:
        """Return the settings of the file at a path; how the file was found makes no difference."""
        reading, analysis = self.reading, self.analysis
        for rule in self.rules:
            if _ends_like(PurePosixPath(Path(path).as_posix()).parts, PurePosixPath(rule.match).parts):
                reading = replace(reading, **rule.reading)
                analysis = replace(analysis, **rule.analysis)
        return reading, analysis


def _ends_like(parts: tuple[str, ...], globs: tuple[str, ...]) -> bool:
    """Tell whether the last parts of a path match the parts of a glob."""
    if not globs:
        return True
    *before, last = globs
    if last == "**":
        return any(_ends_like(parts[:end], tuple(before)) for end in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[-1], last) and _ends_like(parts[:-1], tuple(before))


def digest(*parts: Any) -> str:
    """Return a SHA-256 over settings or other plain values, as hex."""
    plain = [asdict(part) if hasattr(part, "__dataclass_fields__") else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=dict).encode()).hexdigest()


def to_toml(reading: Reading, analysis: Analysis) -> str:
    """Return the settings that differ from the defaults as a `scalefit.toml`.

    Examples
    --------
    >>> print(to_toml(Reading(batch_unit="sequences"), Analysis(draws=100)))
    [read]
    batch_unit = "sequences"
    [fit]
    draws = 100
    """
    lines = []
    for title, chosen in (("read", reading), ("fit", analysis)):
        usual = type(chosen)()
        told = {entry.name: getattr(chosen, entry.name) for entry in fields(chosen)}
        own = [f"{name} = {_toml(value)}" for name, value in told.items() if value != getattr(usual, name)]
        lines += [f"[{title}]", *own] if own else []
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name} = {_toml(entry)}' for name, entry in value.items())}}}"
    if value is None:
        return "false"
    return json.dumps(value, ensure_ascii=False)


CONFIG = "scalefit.toml"
"""Name of the file looked for in the working folder when none is given."""

_LARGEST_FILE = 100_000


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
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_FILE:
            raise SweepError(f"the settings {path} should be a file of at most {_LARGEST_FILE:,} bytes")
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


@dataclass(frozen=True)
class Order:
    """What is to be made of one file.

    Parameters
    ----------
    source : Source
    sha256 : str
        Of the file when the order was given.
    reading, analysis : Reading, Analysis
    settings : str
        Digest of all that the results depend on beside the input.
    settings_source, settings_text : str
        Where the settings came from, and those that differ from the defaults as TOML, for the report.
    version : str
        Of scalefit.
    before : tuple of Finding
        Of the results that this order replaces, if those were of another input, settings or version.
    drift : tuple of Drift
        What had moved when this very input was first refitted.
    figures, report : bool
    """

    source: Source
    sha256: str
    reading: Reading
    analysis: Analysis
    settings: str
    settings_source: str
    settings_text: str
    version: str
    before: tuple[Finding, ...] = ()
    drift: tuple[Drift, ...] = ()
    figures: bool = True
    report: bool = True
