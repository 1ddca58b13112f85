"""What is known about every data set: where it is, at which commit, with which sha256, under which licence."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from scalefit.errors import SweepError

BASE_ADDRESS = "https://raw.githubusercontent.com"
"""Where public files are fetched from; the repository, the commit and the path follow."""

_FULL_COMMIT = 40


@dataclass(frozen=True)
class UpstreamFile:
    """A file as its authors published it on GitHub; without a sha256 on record only the commit pins its content."""

    repository: str
    commit: str
    path: str
    sha256: str | None = None
    size: int | None = None
    aliases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the file without its folders."""
        return PurePosixPath(self.path).name

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where to look, in this order: a server may not know an abbreviated commit, so the tip is tried next.

        The tip of the default branch is only tried where the sha256 decides whether it still is the same file.
        """
        tip = ("HEAD",) if len(self.commit) < _FULL_COMMIT and self.sha256 else ()
        return tuple(f"{BASE_ADDRESS}/{self.repository}/{ref}/{self.path}" for ref in (self.commit, *tip))


@dataclass(frozen=True)
class DerivedTable:
    """A table that somebody read out of the upstream files: only ever a local file, with a hash of its own."""

    name: str
    sha256: str
    rename: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """One named data set, bundled or public; `sweep` and `curves` say how its rows are read, if they can be."""

    name: str
    about: str
    holds: str
    licence: str
    rows: int | None = None
    bundled: str = ""
    files: tuple[UpstreamFile, ...] = ()
    derived: DerivedTable | None = None
    sweep: Mapping[str, Any] | None = None
    curves: Mapping[str, Any] | None = None
    cautions: tuple[str, ...] = ()


def _read_registry() -> dict[str, Dataset]:
    """Read the facts that stand in ``registry.toml`` beside this file."""
    known = {}
    for name, facts in tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")).items():
        files = [UpstreamFile(**file | {"aliases": tuple(file.get("aliases", ()))}) for file in facts.pop("files", ())]
        derived = DerivedTable(**facts.pop("derived")) if "derived" in facts else None
        cautions = tuple(facts.pop("cautions", ()))
        known[name] = Dataset(name, **facts, files=tuple(files), derived=derived, cautions=cautions)
    return known


DATASETS: Mapping[str, Dataset] = MappingProxyType(_read_registry())
"""Every data set by its name, bundled ones first."""


def get_dataset(name: str) -> Dataset:
    """Return what is known about a data set, or raise a `SweepError` that names those with a similar name, or all."""
    if name in DATASETS:
        return DATASETS[name]
    plain = str(name).strip().lower().replace("_", "-").replace(" ", "-")
    near = [known for known in DATASETS if plain and known.startswith(plain)]
    near += [known for known in difflib.get_close_matches(plain, DATASETS, cutoff=0.5) if known not in near]
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {', '.join(DATASETS)}."
    raise SweepError(f"there is no data set {name!r}; {hint} scalefit.datasets() describes all")
