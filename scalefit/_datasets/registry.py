"""What is known about every data set, and its files on this machine: bundled, in a folder, cached or fetched."""

from __future__ import annotations

import difflib
import hashlib
import os
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
        """The addresses to try, in this order.

        A server may not know an abbreviated commit. The tip of the default branch is tried next where a sha256 shows
        whether its file is still the same.
        """
        tip = ("HEAD",) if len(self.commit) < _FULL_COMMIT and self.sha256 else ()
        return tuple(f"{BASE_ADDRESS}/{self.repository}/{ref}/{self.path}" for ref in (self.commit, *tip))


@dataclass(frozen=True)
class DerivedTable:
    """A table that was read out of the upstream files by hand: a local file, never fetched, with its own hash."""

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


TIMEOUT = 30.0
"""Seconds without an answer after which a download is given up."""

FOLDER = "SCALEFIT_DATA"
CACHE = "SCALEFIT_CACHE"
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Found:
    """The published files of a data set, or its derived table alone, and where they are from and what was checked."""

    paths: tuple[Path, ...]
    origin: str
    derived: bool = False


def find(dataset: Dataset) -> Found:
    """Return the files of a data set, fetched and checked where needed, or raise a `SweepError`."""
    if dataset.bundled:
        return Found((bundled_path(dataset),), f"bundled with scalefit as {dataset.bundled}")
    if folder := os.environ.get(FOLDER):
        return _in_folder(dataset, Path(folder).expanduser())
    paths = tuple(_fetch(dataset, file) for file in dataset.files)
    return Found(paths, _origin(dataset, paths))


def bundled_path(dataset: Dataset) -> Path:
    """Return the path of a bundled file, in an installed package or in a checkout."""
    places = (_PACKAGE / "_data" / dataset.bundled, _PACKAGE.parent / "data" / dataset.bundled)
    for path in places:
        if path.is_file():
            return path
    raise SweepError(
        f"{dataset.name} should be bundled, but there is no file {places[0]} (of an installed package) and none "
        f"{places[1]} (of a checkout); install scalefit again"
    )


def digest(path: Path) -> str:
    """Return the sha256 of a file, as hex, or raise a `SweepError` if it cannot be read."""
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise SweepError(f"{path} cannot be read: {error}") from None


def _origin(dataset: Dataset, paths: tuple[Path, ...]) -> str:
    parts = []
    for file, path in zip(dataset.files, paths, strict=True):
        checked = f"sha256 {file.sha256} verified"
        if file.sha256 is None:
            checked = f"no sha256 on record, so only the commit vouches for it; this copy has sha256 {digest(path)}"
        parts.append(f"{file.repository} {file.path} at commit {file.commit} ({checked})")
    return ", and ".join(parts)


def _in_folder(dataset: Dataset, folder: Path) -> Found:
    """Look for the published files, else for the derived table; nothing is fetched while the folder is set."""
    if not folder.is_dir():
        raise SweepError(f"{FOLDER} should name a folder with data files; there is no folder {folder}")
    paths = tuple(copy for file in dataset.files if (copy := _local_copy(dataset, file, folder)) is not None)
    if len(paths) == len(dataset.files):
        for file, path in zip(dataset.files, paths, strict=True):
            _verify(dataset, path, file.sha256)
        return Found(paths, f"{_origin(dataset, paths)}, in the folder {folder}")
    if dataset.derived is not None and (path := folder / dataset.derived.name).is_file():
        _verify(dataset, path, dataset.derived.sha256)
        checked = f"sha256 {dataset.derived.sha256} of that table verified"
        origin = f"the table {path} (read out of {dataset.files[0].repository} by hand; {checked})"
        return Found((path,), origin, derived=True)
    raise SweepError(
        f"{dataset.name} is not in {folder}, which {FOLDER} names. {_advice(dataset)} Without {FOLDER} scalefit "
        "looks in its cache, and downloads what is not there and can be had"
    )


def _local_copy(dataset: Dataset, file: UpstreamFile, folder: Path) -> Path | None:
    """Return a local copy of a published file: as laid out in the cache, under its own name, or under another."""
    places = (folder / dataset.name / file.name, *(folder / name for name in (file.name, *file.aliases)))
    return next((path for path in places if path.is_file()), None)


def _verify(dataset: Dataset, path: Path, expected: str | None) -> None:
    actual = digest(path)
    if expected is not None and actual != expected:
        raise SweepError(
            f"{path} is not the file that {dataset.name} stands for: expected sha256 {expected}, found {actual}. "
            f"Put the right file there, or read this one as your own with read_sweep. {_advice(dataset)}"
        )


def _advice(dataset: Dataset) -> str:
    """Say how to bring the files here by hand."""
    listed = " and ".join(file.addresses[0] for file in dataset.files)
    table = f", or the table {dataset.derived.name}" if dataset.derived is not None else ""
    return f"To work offline, put {listed}{table} into a folder and set {FOLDER} to it."


def _fetch(dataset: Dataset, file: UpstreamFile) -> Path:
    """Return the cached copy of a published file, downloading it when there is none or a damaged one."""
    import requests

    for address in file.addresses:
        try:
            return _retrieve(dataset, file, address)
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
    reason = "it is not there any more" if status in (404, 410) else "the server refused"
    raise SweepError(f"{address} answered {status}: {reason}. {_advice(dataset)}")


def _retrieve(dataset: Dataset, file: UpstreamFile, address: str) -> Path:
    """Retrieve one address through the cache; raise a `SweepError` with advice for every failure but an HTTP error."""
    import pooch
    import requests

    place = Path(os.environ.get(CACHE) or pooch.os_cache("scalefit")).expanduser() / dataset.name
    known = f"sha256:{file.sha256}" if file.sha256 else None
    try:
        return Path(pooch.retrieve(address, known_hash=known, fname=file.name, path=place, downloader=_stream))
    except requests.HTTPError:
        raise
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError) as error:
        why = f"the connection was cut while {address} was downloaded ({error}); nothing was kept, so try again"
    except requests.Timeout:
        why = f"{address} did not answer within {TIMEOUT:g} s; try again later"
    except requests.ConnectionError as error:
        why = f"{address} cannot be reached; is this machine online? ({error})"
    except requests.RequestException as error:
        why = f"{address} cannot be downloaded ({error})"
    except ValueError as error:  # how pooch reports a wrong hash
        why = f"{address} is not the file that {dataset.name} stands for, and was not kept ({error})"
    except OSError as error:
        why = f"the cache {place} cannot be used ({error}); set {CACHE} to a folder that can be written to"
    raise SweepError(f"{why}. {_advice(dataset)}") from None


def _stream(address: str, target: Any, _pooch: Any) -> None:
    """Download to a file, closing the connection whatever happens, and refuse a body that ends too early."""
    import requests

    with requests.get(address, stream=True, timeout=TIMEOUT) as response:
        response.raise_for_status()
        with open(target, "wb") as out:
            for piece in response.iter_content(1 << 16):
                out.write(piece)
        promised = response.headers.get("Content-Length")
        if promised is not None and response.raw.tell() != int(promised):
            raise requests.exceptions.ChunkedEncodingError(f"{response.raw.tell()} of {promised} bytes came")
