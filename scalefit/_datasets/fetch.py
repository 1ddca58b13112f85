"""The files of a data set: bundled, in a folder of the user's, in the cache, or fetched from their authors."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalefit._datasets.registry import Dataset, UpstreamFile
from scalefit.errors import SweepError

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
    """Retrieve one address through the cache, turning all that may go wrong except a server's no into advice."""
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
