"""Which files are sweeps to refit, and what each is called in the output."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scalefit.errors import RefitError, SweepError
from scalefit.refitting.output_folder import is_output, is_results

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq")
"""Tables of runs by their last suffix, or the one before .gz. A .json or .txt file is taken when it is named."""

INDEX, SUMMARY, SUMMARY_PARQUET, FAILURES = "index.html", "summary.csv", "summary.parquet", "failures.json"
TOP_FILES = (INDEX, SUMMARY, SUMMARY_PARQUET, FAILURES)
"""Files in the output folder that belong to no single sweep."""

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

_LONGEST = 100
_UNSAFE = re.compile(r"[^A-Za-z0-9._=+-]+")


@dataclass(frozen=True, order=True)
class Source:
    """A file to refit."""

    name: str  # name of its folder in the output: one path component of plain characters
    path: str  # absolute path; links are not followed
    relative: str  # path below the folder that was searched, with forward slashes


@dataclass(frozen=True)
class Found:
    """What a search found."""

    sources: tuple[Source, ...] = ()  # sorted by name; every file once
    unreadable: tuple[tuple[str, str], ...] = ()  # folders that could not be searched, with the reason
    missing: tuple[str, ...] = ()  # paths that name nothing


def discover(paths: Paths, out: Path, *, missing_ok: bool = False) -> Found:
    """Find the sweeps that paths name; without `missing_ok`, a path that names nothing is a SweepError.

    Hidden files and folders and results of refits are passed over; a link to a folder is not followed, so a loop of
    links ends. A link to a file is a file of its own.
    """
    found: dict[str, str] = {}
    unreadable: list[tuple[str, str]] = []
    out = out.resolve()
    if out.exists() and not out.is_dir():
        raise RefitError(f"{out} is a file; expected a folder for the results, made if it is not there")
    asked = [os.path.expanduser(os.fspath(p)) for p in ([paths] if isinstance(paths, str | os.PathLike) else paths)]
    missing = tuple(path for path in asked if not os.path.lexists(path) and not _matches(path))
    if missing and not missing_ok:
        raise SweepError(f"{missing[0]!r} is no file, folder or glob of any; nothing to refit there")
    for path in asked:
        for root, file in _files(path, out, unreadable):
            absolute = os.path.abspath(file)  # a link keeps its own path, wherever it points
            if not _is_result(os.path.realpath(file), out):
                found.setdefault(absolute, os.path.relpath(file, root))
    named = _name([(absolute, relative.replace(os.sep, "/")) for absolute, relative in found.items()])
    return Found(tuple(sorted(named)), tuple(unreadable), missing)


def _files(path: str, out: Path, unreadable: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield (folder searched, file) pairs."""
    if os.path.isdir(path):
        yield from ((path, file) for file in _walk(path, out, unreadable))
    elif os.path.lexists(path):
        yield os.path.dirname(path) or ".", path
    else:
        for match in _matches(path):
            yield from _files(match, out, unreadable)


def _matches(pattern: str) -> list[str]:
    """Return the paths that match a glob; ``**`` does not follow links to folders, which can form loops."""
    parts = Path(pattern).parts
    if "**" not in parts:
        return sorted(glob.glob(pattern))
    fixed = next(k for k, part in enumerate(parts) if glob.has_magic(part))
    base = Path(*parts[:fixed])
    found = base.glob(str(Path(*parts[fixed:])))
    return sorted(str(path) for path in found if not any(part[0] == "." for part in path.relative_to(base).parts))


def _walk(folder: str, out: Path, unreadable: list[tuple[str, str]]) -> Iterator[str]:
    def note(error: OSError) -> None:
        unreadable.append((str(error.filename), error.strerror or str(error)))

    for here, folders, files in os.walk(folder, onerror=note):
        summarised = is_output(Path(here))
        folders[:] = sorted(name for name in folders if _is_searched(Path(here, name), out))
        for name in sorted(files):
            stem = name[: -len(".gz")] if name.lower().endswith(".gz") else name
            if name[0] != "." and stem.lower().endswith(SUFFIXES) and not (summarised and name in TOP_FILES):
                yield os.path.join(here, name)


def _is_searched(folder: Path, out: Path) -> bool:
    """Return whether a folder is searched for sweeps: not if it is hidden, the output, or results of any refit."""
    return folder.name[0] != "." and folder.resolve() != out and not is_results(folder)


def _is_result(absolute: str, out: Path) -> bool:
    """Return whether a refit wrote this file; the output folder may contain inputs too."""
    path = Path(absolute)
    if not path.is_relative_to(out):
        return False
    first, *rest = path.relative_to(out).parts
    return is_results(out / first) if rest else first in TOP_FILES


def _name(files: list[tuple[str, str]]) -> list[Source]:
    """Name every file by its relative path; files that would share a name get a hash of their full path as well."""
    plain = [_slug(relative) for _, relative in files]
    count = Counter(name.lower() for name in plain)
    return [
        Source(name if count[name.lower()] == 1 else marked(name, absolute), absolute, relative)
        for name, (absolute, relative) in zip(plain, files, strict=True)
    ]


def marked(name: str, path: str) -> str:
    """Return a name with a hash of the path, which no other file of the same name has."""
    return f"{name}-{hashlib.sha256(path.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def _slug(relative: str) -> str:
    """Return a relative path as one component of plain characters, with a hash if characters had to be changed."""
    stem = re.sub(r"(\.gz)?\Z", "", relative, flags=re.IGNORECASE)
    stem = re.sub(r"\.(csv|tsv|jsonl|ndjson|json|parquet|pq|txt|tab)\Z", "", stem, flags=re.IGNORECASE)
    flat = stem.replace("../", "").replace("/", "--")
    plain = _UNSAFE.sub("_", flat).lstrip(".")[:_LONGEST]
    return plain if plain and plain == flat and plain.lower() not in TOP_FILES else marked(plain or "sweep", relative)
