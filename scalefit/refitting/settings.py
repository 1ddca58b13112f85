"""What a refit is to do: the defaults, and what Python or a `scalefit.toml` says instead."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
import math
import os
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from scalefit.backtesting.folds import check_holdout
from scalefit.errors import LawError, ScalefitError, SweepError
from scalefit.laws import get_law
from scalefit.laws.expressions import parse
from scalefit.vocabulary import BY_COLUMN, check_data_unit, column_of

_MOST, _MOST_TARGETS = 100_000, 100
_LARGEST_FILE = 100_000
_CONFIG = "scalefit.toml"  # looked for in the working folder when no file is given

_Text = Annotated[str, Meta(min_length=1, max_length=1_000)]
_Count = Annotated[int, Meta(ge=0, le=_MOST)]
_Size = Annotated[float, Meta(gt=0, le=1e18)]
_Targets = Annotated[int, Meta(ge=1, le=_MOST_TARGETS)] | Annotated[tuple[_Size, ...], Meta(min_length=1)]


def to_plain(value: Any) -> Any:
    """Return plain values that JSON can hold: numpy's numbers as Python's, NaN and infinities as words."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): to_plain(entry) for key, entry in value.items()}
    return [to_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _is(value: Any, kind: Any) -> bool:
    """Return whether a value is of a type, which can have bounds."""
    try:
        msgspec.convert(to_plain(value), kind)
    except (msgspec.MsgspecError, ValueError):
        return False
    return True


def _is_columns(value: Any) -> bool:
    return _is(value, dict[str, _Text | None]) and all(column_of(name) in BY_COLUMN for name in value)


def _check_law(*targets: str) -> Callable[[str], None]:
    def check(text: str) -> None:
        law = get_law(text)
        if column_of(law.target) not in targets:
            raise LawError(f"{text!r} is a law for {law.target}, not for {' or '.join(targets)}")

    return check


_LAWS = ("a list of laws, by name or formula", tuple[_Text, ...])
_EXPECTED: Mapping[str, tuple[str, Any]] = {
    "columns": (
        "a table such as {lr = 'peak', tokens = false}, words of the package on the left, false for none",
        _is_columns,
    ),
    "batch_unit": ("what the batch counts: 'sequences', or the unit of the data such as 'tokens'", _Text),
    "seq_len": ("a positive number", _Size),
    "data_unit": ("a text", _Text),
    "nonfinite": ("one of raise, diverged, drop", Literal["raise", "diverged", "drop"]),
    "duplicates": ("one of raise, keep, drop", Literal["raise", "keep", "drop"]),
    "params_convention": ("one of non_embedding, total", Literal["non_embedding", "total"]),
    "where": ("a condition such as 'params < 1e9'", _Text),
    "lr_laws": _LAWS,
    "batch_laws": _LAWS,
    "loss_law": ("a law, by name or formula", _Text),
    "targets": (f"a list of losses, or how many to spread over those measured, {_MOST_TARGETS} at most", _Targets),
    "holdout": ("a condition such as 'params > 1e9', or 'largest params'", _Text),
    "draws": (f"0 for none, or a whole number from 2 to {_MOST:,}", lambda v: _is(v, _Count) and v != 1),
    "seed": (f"a whole number from 0 to {_MOST:,}", _Count),
}
"""What each setting should be: in words for the error, and as a type or a test."""

_MEANING: Mapping[str, Callable[[str], Any]] = {
    "data_unit": check_data_unit,
    "where": lambda text: parse(text, condition=True),
    "lr_laws": _check_law("lr"),
    "batch_laws": _check_law("batch"),
    "loss_law": lambda text: text == "auto" or _check_law("loss")(text),
    "holdout": check_holdout,
}
"""What raises an error if a text, well formed, means nothing."""


def check(name: str, value: Any, where: str) -> None:
    """Raise SweepError unless a setting can have this value; `where` is how the error calls the setting."""
    expected, kind = _EXPECTED[name]
    if not (kind(value) if inspect.isfunction(kind) else _is(value, kind)):
        raise SweepError(f"{where} should be {expected}, found {value!r}")
    try:
        for text in [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else ():
            _MEANING.get(name, str)(text)
    except ScalefitError as error:
        raise SweepError(f"{where}: {error}") from None


@dataclass(frozen=True)
class Reading:
    """How a file is read: the arguments of `scalefit.read_sweep`, and a condition.

    Parameters
    ----------
    columns : mapping of str to str or None, optional
        Names of columns by the package's words; None sets one aside.
    batch_unit : str, optional
        The data unit, or "sequences".
    seq_len : float, optional
        Units of data in a sequence.
    data_unit : str
        What tokens and batch count.
    nonfinite : {"raise", "diverged", "drop"}
        What a loss of NaN or infinity is.
    duplicates : {"raise", "keep", "drop"}
        What is done with rows that repeat another.
    params_convention : {"non_embedding", "total"}, optional
    where : str, optional
        Use these runs only, such as ``"params < 1e9"``.

    Raises
    ------
    SweepError
        If a value is none that the argument can have.

    See Also
    --------
    scalefit.read_sweep : Takes them.

    Examples
    --------
    >>> import scalefit as sf
    >>> sf.refitting.Reading(batch_unit="furlongs")
    Traceback (most recent call last):
    scalefit.errors.SweepError: batch_unit should be 'sequences' or 'tokens' (the data_unit), found 'furlongs'
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

    Examples
    --------
    >>> import scalefit as sf
    >>> sf.refitting.Analysis(lr_laws=("lr_power", "eta = c * N**a"), draws=0).lr_laws
    ('lr_power', 'eta = c * N**a')
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
    """Check the fields that differ from the defaults."""
    for entry in fields(kind):
        if (value := getattr(settings, entry.name)) != entry.default:
            check(entry.name, value, entry.name)


@dataclass(frozen=True)
class Rule:
    """Settings for the files that match a glob.

    Parameters
    ----------
    match : str
        Compared with the end of their path, folder by folder; ``**`` stands for any folders in a row, none included.
    reading, analysis : mapping
        Fields of `Reading` and `Analysis` that differ for these files.

    Examples
    --------
    >>> import scalefit as sf
    >>> sf.refitting.Rule("old/*.csv", {}, {"draws": 0}).match
    'old/*.csv'
    """

    match: str
    reading: Mapping[str, Any]
    analysis: Mapping[str, Any]


@dataclass(frozen=True)
class Settings:
    """Everything that can be set for a refit.

    Parameters
    ----------
    reading : Reading
    analysis : Analysis
    rules : tuple of Rule
        For some sweeps only; where several match, later ones win.
    source : str
        The file they were read from, or "defaults".

    See Also
    --------
    read_settings : Reads them from a file.

    Examples
    --------
    >>> import scalefit as sf
    >>> rule = sf.refitting.Rule("new/step*.csv", {"batch_unit": "sequences", "seq_len": 2048.0}, {})
    >>> settings = sf.refitting.Settings(rules=(rule,))
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
    """Return whether the last parts of a path match the parts of a glob."""
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


def read_settings(path: str | os.PathLike[str] | None = None) -> Settings:
    """Read a `scalefit.toml`.

    The table ``[read]`` holds fields of `Reading`, ``[fit]`` fields of `Analysis`, and each ``[[sweep]]`` a glob
    ``match`` with its own ``read`` and ``fit``.

    Parameters
    ----------
    path : path, optional
        Without it, `scalefit.toml` in the working folder if there is one.

    Returns
    -------
    Settings

    Raises
    ------
    SweepError
        If the file cannot be read or a key or value in it means nothing; the key is named.

    Examples
    --------
    >>> import tempfile
    >>> import scalefit as sf
    >>> file = Path(tempfile.mkdtemp(), "scalefit.toml")
    >>> _ = file.write_text("fit = {draws = 7}")
    >>> sf.refitting.read_settings(file).analysis.draws
    7
    """
    if path is None:
        if not os.path.lexists(_CONFIG):
            return Settings()
        path = _CONFIG
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_FILE:
            raise SweepError(f"the settings {path} should be a file of at most {_LARGEST_FILE:,} bytes")
        record = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SweepError(f"cannot read the settings {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, or numbers with thousands of digits
        raise SweepError(f"{path} is not TOML: {error}") from error
    return _settings(record, str(path))


def _settings(record: Mapping[str, Any], source: str) -> Settings:
    reading, analysis = _tables(record, "sweep", source, ": ")
    rules = record.get("sweep", [])
    if not isinstance(rules, list):
        raise SweepError(f"{source}: sweep should be written [[sweep]], once for each glob")
    numbered = tuple(_rule(rule, f"{source}: sweep {number}") for number, rule in enumerate(rules, 1))
    return Settings(Reading(**reading), Analysis(**analysis), numbered, source)


def _rule(record: Any, where: str) -> Rule:
    if not isinstance(record, dict):
        raise SweepError(f"{where} should be a table with match, read and fit, found {record!r}")
    reading, analysis = _tables(record, "match", where, ".")
    match = record.get("match")
    if not isinstance(match, str) or not PurePosixPath(match).parts:
        raise SweepError(f"{where}.match should be a glob such as 'steplaw*.csv' or 'old/*', found {match!r}")
    return Rule(match, MappingProxyType(reading), MappingProxyType(analysis))


def _tables(record: Mapping[str, Any], beside: str, where: str, dot: str) -> list[dict[str, Any]]:
    """Return the settings in the tables `read` and `fit`; one further key is allowed."""
    _refuse_unknown(record, ("read", "fit", beside), where)
    kinds = (("read", Reading), ("fit", Analysis))
    return [_fields(record.get(name, {}), kind, f"{where}{dot}{name}") for name, kind in kinds]


def _fields(record: Any, kind: type, where: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise SweepError(f"{where} should be a table of settings, found {record!r}")
    _refuse_unknown(record, tuple(entry.name for entry in fields(kind)), where)
    values = {name: _python(value) for name, value in record.items()}
    for name, value in values.items():
        check(name, value, f"{where}.{name}")
    return values


def _python(value: Any) -> Any:
    """Return a value of TOML as the functions of the package expect it; TOML has no null."""
    if isinstance(value, dict):
        return {name: None if entry is False else entry for name, entry in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _refuse_unknown(record: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in record:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise SweepError(f"{where}: unknown key {name!r}; {hint}")
