"""Puts finished results into folders of ours so that a crash at any moment leaves the old ones or the new ones."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from scalefit.errors import RefitError
from scalefit.refitting.records import FILE, REPORT, DamagedError, read_json

_HERE = -100
"""AT_FDCWD: paths are relative to the working folder."""

_EXCHANGE = 2
"""RENAME_EXCHANGE of linux/fs.h."""

_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


def swap(first: Path, second: Path) -> bool:
    """Let two existing paths on one file system change places, so that at no moment either is missing.

    Returns
    -------
    bool
        False if the system or the file system cannot do this; then nothing has happened.

    Raises
    ------
    OSError
        If it can and refuses.
    """
    rename = _renameat2()
    if rename is None:
        return False
    if rename(_HERE, os.fsencode(first), _HERE, os.fsencode(second), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT:
        return False
    raise OSError(code, os.strerror(code), str(second))


@cache
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    if sys.platform != "linux":
        return None
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    function.restype = ctypes.c_int
    return function


STAGING = ".staging"
"""Where in an output folder results are made ready."""

_WRITTEN = {FILE, REPORT, "fit.json", "optima.csv", "tradeoff.csv", "backtest.csv", "figures"}
"""What a folder of results can hold at its top."""


def is_results(folder: Path) -> bool:
    """Tell whether a folder holds results of scalefit, of whatever version, though its label be damaged."""
    if _label(folder) is not None:
        return True
    return (folder / FILE).is_file() and {path.name for path in folder.iterdir()} <= _WRITTEN


def is_output(folder: Path) -> bool:
    """Tell whether refits have written into a folder."""
    return (folder / STAGING).is_dir()


def is_free(folder: Path, source: str, sha256: str) -> bool:
    """Tell whether results of a file may be put there: nothing is there, or its own results, or no one's any more.

    Parameters
    ----------
    folder : Path
    source, sha256 : str
        The file, and its digest: a file that was moved, with the same content, keeps its results.
    """
    if not os.path.lexists(folder):
        return True
    if folder.is_symlink() or not folder.is_dir() or not is_results(folder):
        return False
    label = _label(folder)
    if label is None or label["source"] == source:
        return True
    return label["sha256"] == sha256 and not os.path.lexists(label["source"])


def foreign_files(folder: Path) -> list[str]:
    """Return the files in a folder of results that scalefit did not put there, by relative path."""
    if not folder.is_dir():
        return []
    label = _label(folder)
    if label is None:  # then nothing but names of ours is in it, or the folder is not replaced
        return []
    own = {FILE, *label["outputs"]}
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(path.as_posix() for path in files if path.as_posix() not in own)


def _label(folder: Path) -> dict[str, Any] | None:
    """Return what the record of a folder says of whose it is, whatever its schema; None if it says nothing."""
    try:
        label = read_json(folder / FILE)
        told = {"source": label["source"], "sha256": label["sha256"], "outputs": label["outputs"].keys()}
        return told if label["name"] == folder.name and isinstance(label["source"], str) else None
    except (OSError, DamagedError, KeyError, TypeError, AttributeError):
        return None


_OWNER = "owner.lock"
_FRESH, _OLD, _CLAIMS = "fresh", "old", "claims"


class Outbox:
    """The way into an output folder, for as long as it is open.

    A folder is written beside its place, flushed to disk, and then put there: on Linux it changes places with the old
    one in a single step; elsewhere the old one steps aside first, so that for a moment there is none. The old folder is
    deleted last. Opening an outbox clears up after writers that died: a folder that had stepped aside and was not
    replaced goes back. Locks belong to the system and end with the process that held them.

    Parameters
    ----------
    out : Path
        The output folder; made if absent.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, Outbox(Path(folder)) as outbox:
    ...     outbox.put_folder("steplaw", {"fit.json": b"{}", "figures/law.svg": b"<svg/>"})
    ...     sorted(path.name for path in Path(folder, "steplaw").rglob("*.*"))
    ['fit.json', 'law.svg']
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._stage = out / STAGING / uuid.uuid4().hex
        self._owner = FileLock(self._stage / _OWNER)

    def __enter__(self) -> Outbox:
        with _readable_errors(self.out):
            if self._stage.parent.is_symlink():
                raise RefitError(f"{self._stage.parent} is a link; results are made ready in a folder there: remove it")
            self._stage.parent.mkdir(parents=True, exist_ok=True)
            with self.lock():
                self._stage.mkdir()
                self._owner.acquire(timeout=0)
                _clear_up(self.out)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner.release()
        shutil.rmtree(self._stage, ignore_errors=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the output folder's lock: short, so that several refits can share the folder."""
        with FileLock(self.out / STAGING / "folder.lock"):
            yield

    def claim(self, name: str, source: str) -> bool:
        """Keep a name for the results of a file until the outbox is closed; call it under `lock`.

        Returns
        -------
        bool
            False if another outbox that is open keeps it for another file.
        """
        place = self._stage / _CLAIMS / _plain_name(name).lower()
        wanted = source.encode("utf-8", "surrogatepass")
        with _readable_errors(place):
            others = self._stage.parent.glob(f"*/{_CLAIMS}/{place.name}")
            if any(claim.read_bytes() != wanted for claim in others):
                return False
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(wanted)
        return True

    def put_folder(self, name: str, files: Mapping[str, bytes]) -> None:
        """Replace a folder of the output, whole; files that someone else put into it are taken along.

        Parameters
        ----------
        name : str
            One path component.
        files : mapping of str to bytes
            Contents by relative path with forward slashes.

        Raises
        ------
        RefitError
            If the disk refuses; what was there before stays.
        """
        place = self.out / _plain_name(name)
        fresh, old = self._stage / _FRESH / name, self._stage / _OLD / name
        with _readable_errors(place):
            try:
                for relative, content in files.items():
                    _write(fresh / _inside(relative), content)
                _take_along(place, fresh)
                _flush_folders(fresh)
                with self.lock():
                    if not place.exists():
                        os.rename(fresh, place)
                    elif not swap(fresh, place):
                        old.parent.mkdir(exist_ok=True)
                        os.rename(place, old)
                        os.rename(fresh, place)
                    _flush_folder(self.out)
            except BaseException:
                if old.exists() and not place.exists():
                    os.rename(old, place)
                raise
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
                shutil.rmtree(old, ignore_errors=True)

    def put_file(self, name: str, content: bytes) -> None:
        """Replace one file of the output; call it under `lock` if it depends on what the folder holds."""
        place = self.out / _inside(name)
        fresh = self._stage / uuid.uuid4().hex
        with _readable_errors(place):
            try:
                _write(fresh, content)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(fresh, place)
                _flush_folder(place.parent)
            finally:
                fresh.unlink(missing_ok=True)


def _clear_up(out: Path) -> None:
    """Undo what dead writers left half done. The lock of a living writer cannot be taken."""
    for stage in (path for path in (out / STAGING).iterdir() if _is_stage(path)):
        owner = FileLock(stage / _OWNER)
        try:
            owner.acquire(timeout=0)
        except Timeout:
            continue
        if not (stage / _OLD).is_symlink():
            for old in (stage / _OLD).glob("*"):
                place = out / old.name
                if not os.path.lexists(place):
                    os.rename(old, place)
        owner.release()
        shutil.rmtree(stage, ignore_errors=True)


def _is_stage(path: Path) -> bool:
    """Tell whether a writer of ours made a folder: by its name, and by those of what is in it."""
    named = len(path.name) == 32 and set(path.name) <= set("0123456789abcdef")
    if not named or path.is_symlink() or not path.is_dir():
        return False
    return all(inside.name in (_OWNER, _FRESH, _OLD, _CLAIMS) or inside.is_file() for inside in path.iterdir())


def _take_along(place: Path, fresh: Path) -> None:
    """Copy what is not ours in a folder of results into the one that replaces it."""
    for relative in foreign_files(place):
        if not os.path.lexists(fresh / relative):
            (fresh / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(place / relative, fresh / relative, follow_symlinks=False)


def _plain_name(name: str) -> str:
    if len(_inside(name).parts) != 1 or name.startswith("."):
        raise RefitError(f"{name!r} is no name for a folder of the output")
    return name


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


def _flush_folders(top: Path) -> None:
    for folder, _, _ in os.walk(top, topdown=False):
        _flush_folder(Path(folder))


def _flush_folder(folder: Path) -> None:
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
