"""The output folder of refits: the records in folders of results, and how new results replace old ones."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import msgspec
from filelock import FileLock
from msgspec import Meta, Struct

from scalefit.errors import RefitError
from scalefit.refitting.settings import to_plain
from scalefit.refitting.study import Drift, Finding, Text

SCHEMA = 1
"""Version of the file format; a record of another version is out of date."""

FILE, REPORT, STAGING = "record.json", "report.html", ".staging"

_WRITTEN = {FILE, REPORT, "fit.json", "optima.csv", "tradeoff.csv", "backtest.csv", "figures"}
"""What a folder of results can hold at its top."""

_REMEDY = "refit its sweep, or delete the folder"

_RECORD_BYTES = 1 << 20  # a real record has a few thousand
_KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket"}

# The schema of a record. Its texts go into tables and pages. If one edited by hand breaks the schema, its sweep is
# refitted.
_Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._=+-]+\Z")]  # safe in a path and in a link
_Path = Annotated[str, Meta(pattern=r"^[^\0]*\Z")]  # may contain bytes that are not Unicode
_Inside = Annotated[str, Meta(pattern=r"^(?!/)(?!(.*/)?\.\.(/|\Z))[^\0\ud800-\udfff]*\Z")]
_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Most = Meta(max_length=1_000)  # every finding is a column of the summary


class DamagedError(RefitError):
    """A file can be opened, but its content is not what a refit writes."""


class Record(Struct, frozen=True, forbid_unknown_fields=True):
    """The record of a folder of results: its source, and the digests that show whether it is out of date."""

    name: _Name
    source: _Path
    relative: _Path
    sha256: Text
    settings: Text
    version: Text
    n_runs: _Count
    n_cells: _Count
    n_cautions: _Count
    findings: Annotated[tuple[Finding, ...], _Most]
    drift: Annotated[tuple[Drift, ...], _Most] = ()
    outputs: dict[_Inside, _Count] = {}  # sizes in bytes of the files beside the record

    def to_json(self) -> str:
        """Return the record as JSON; the same record gives the same text."""
        plain = {"schema": SCHEMA, **msgspec.to_builtins(self)}
        return json.dumps(to_plain(plain), indent=1, sort_keys=True) + "\n"

    def is_of(self, sha256: str, settings: str, version: str) -> bool:
        """Return whether these are the results of this input under these settings."""
        return (self.sha256, self.settings, self.version) == (sha256, settings, version)

    def is_whole(self, folder: Path) -> bool:
        """Return whether the folder holds all the results."""
        try:
            return all((folder / name).stat().st_size == size for name, size in self.outputs.items())
        except OSError:
            return False


def read_json(path: Path, largest: int = _RECORD_BYTES) -> Any:
    """Read a file of JSON; DamagedError if it is no JSON, too large, or a pipe, whose reader could wait forever."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise DamagedError(f"{path} is {_KINDS.get(stat.S_IFMT(status.st_mode), 'a device')}; expected a file")
    if status.st_size > largest:
        raise DamagedError(f"{path} holds {status.st_size:,} bytes; expected {largest:,} at most")
    with open(path, "rb") as file:
        data = file.read(status.st_size)
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is not JSON: {error}") from error


def read_record(folder: Path) -> Record | None:
    """Read the record of a folder of results; None if there is none that this version understands."""
    try:
        return _read(folder / FILE)
    except DamagedError:
        return None


def read_records(out: Path) -> tuple[list[Record], list[tuple[str, str]]]:
    """Return every record in an output folder, by name, and those that cannot be read, with the reason."""
    records, unreadable = [], []
    for place in sorted(path for path in out.glob(f"*/{FILE}") if not path.is_dir()):
        try:
            record = _read(place)
        except RefitError as error:
            unreadable.append((str(place.parent), str(error)))
        else:
            records += [] if record is None else [record]
    return records, unreadable


def _read(place: Path) -> Record | None:
    """Read a record; None if there is none, or if it belongs to another program or folder."""
    try:
        plain = read_json(place)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RefitError(f"cannot read {place}: {error.strerror or error}") from error
    if not isinstance(plain, dict) or "schema" not in plain:
        if (place.parent / "fit.json").exists():
            raise DamagedError(f"{place} is not what a refit writes; {_REMEDY}")
        return None
    if type(plain["schema"]) is not int or plain.pop("schema") != SCHEMA:
        raise DamagedError(f"{place} was written by another version of scalefit; {_REMEDY}")
    try:
        record = msgspec.convert(plain, Record, strict=False)  # not strict: NaN is stored as "nan"
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise DamagedError(f"{place} is not what a refit writes: {error}; {_REMEDY}") from error
    if len({finding.quantity for finding in record.findings}) < len(record.findings):
        raise DamagedError(f"{place} gives a number twice; {_REMEDY}")
    return record if record.name == place.parent.name else None


class _Owner(Struct):
    """The parts of a record that say to whom it belongs, whatever its schema."""

    name: str
    source: str
    sha256: str
    outputs: dict[str, Any]


def _owner(folder: Path) -> _Owner | None:
    try:
        owner = msgspec.convert(read_json(folder / FILE), _Owner)
    except (OSError, DamagedError, msgspec.MsgspecError):
        return None
    return owner if owner.name == folder.name else None


def is_results(folder: Path) -> bool:
    """Return whether a folder holds results of scalefit, of any version, even with a damaged record."""
    if _owner(folder) is not None:
        return True
    return (folder / FILE).is_file() and {path.name for path in folder.iterdir()} <= _WRITTEN


def is_output(folder: Path) -> bool:
    """Return whether refits have written into a folder."""
    return (folder / STAGING).is_dir()


def is_free(folder: Path, source: str, sha256: str) -> bool:
    """Return whether a file's results may go there: nothing is there, or results of this file or of no known file."""
    if not os.path.lexists(folder):
        return True
    if folder.is_symlink() or not folder.is_dir() or not is_results(folder):
        return False
    owner = _owner(folder)
    if owner is None or owner.source == source:
        return True
    return owner.sha256 == sha256 and not os.path.lexists(owner.source)  # the same content: the file was moved


def foreign_files(folder: Path) -> list[str]:
    """Return the files in a folder of results that scalefit did not write, by relative path."""
    owner = _owner(folder)
    if owner is None:  # the folder holds only names that we write, or it is never replaced
        return []
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(path.as_posix() for path in files if path.as_posix() not in {FILE, *owner.outputs})


class OutputFolder:
    """Writes into an output folder, which several refits may share.

    All writing happens under the folder's lock, which belongs to the system and ends with its process. A folder of
    results is written in `.staging`, flushed to disk, and put in place by two renames: the old one is set aside, the
    new one takes its place. So whoever holds the lock and finds a folder set aside knows that its writer died: the
    folder goes back if its place is empty, and is deleted if not.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._fresh, self._old = out / STAGING / "being-written", out / STAGING / "set-aside"
        for folder in (out / STAGING, self._fresh, self._old):
            if folder.is_symlink():
                raise RefitError(f"{folder} is a link; results are made ready in a folder there: remove it")
        with _readable_errors(out):
            (out / STAGING).mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(out / STAGING / "folder.lock")
        with self._writing(out):
            pass

    def put_folder(self, name: str, files: Mapping[str, bytes]) -> None:
        """Replace a whole folder of the output; keep files in it that scalefit did not write."""
        if len(_inside(name).parts) != 1 or name.startswith("."):
            raise RefitError(f"{name!r} is no name for a folder of the output")
        place, fresh, old = self.out / name, self._fresh / name, self._old / name
        with self._writing(place):
            for relative, content in files.items():
                _write(fresh / _inside(relative), content)
            for relative in foreign_files(place):
                if not os.path.lexists(fresh / relative):
                    (fresh / relative).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(place / relative, fresh / relative, follow_symlinks=False)
            for folder, _, _ in os.walk(fresh, topdown=False):
                _flush_folder(folder)
            if place.exists():
                old.parent.mkdir()
                os.rename(place, old)
            os.rename(fresh, place)
            _flush_folder(self.out)

    def put_file(self, name: str, content: bytes) -> None:
        """Replace one file at the top of the output."""
        place, fresh = self.out / _inside(name), self._fresh / "file"
        with self._writing(place):
            _write(fresh, content)
            os.replace(fresh, place)
            _flush_folder(self.out)

    @contextmanager
    def _writing(self, place: Path) -> Iterator[None]:
        """Hold the lock; before and after, finish or undo what a failed or killed writer has left."""
        with _readable_errors(place), self.lock:
            self._clear_up()
            try:
                yield
            finally:
                self._clear_up()

    def _clear_up(self) -> None:
        # Version 0.1.0 set folders aside in a stage of each writer's own, which held the writer's lock.
        stages = [lock.parent / "old" for lock in (self.out / STAGING).glob("*/owner.lock")]
        for old in [path for folder in (self._old, *stages) for path in folder.glob("*")]:
            if not os.path.lexists(self.out / old.name):
                os.rename(old, self.out / old.name)
        for folder in (self._fresh, self._old):
            shutil.rmtree(folder, ignore_errors=True)


def _inside(relative: str) -> PurePosixPath:
    """Return a relative path that cannot leave its folder."""
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise RefitError(f"{relative!r} would leave the output folder")
    return path


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: str | Path) -> None:
    if os.name != "posix":
        return  # elsewhere a folder cannot be opened, and renames are flushed with the file
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _readable_errors(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RefitError(
            f"cannot write {place}: {error.strerror or error}; what was there before is kept. Run again when it can "
            "be written: finished sweeps are not done twice"
        ) from error
