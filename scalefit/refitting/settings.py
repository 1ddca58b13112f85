"""What a refit is to do: the defaults, and what a `scalefit.toml` says instead, for all sweeps or for some."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from scalefit.errors import SweepError
from scalefit.refitting.meanings import check


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
