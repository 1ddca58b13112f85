"""Files to raw tables: finds them, opens gzip, tells the format, and hands the bytes to the right parser."""

from __future__ import annotations

import glob
import gzip
import io
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pandas as pd

from scalefit.errors import SweepError
from scalefit.loaders import delimited, parsing
from scalefit.notes import Note

MAX_BYTES = 512 << 20
"""The largest file read as a whole, in bytes after decompression; a parser takes several times as much memory."""

_CHUNK = 1 << 20
_TEXT: dict[str, Callable[[bytes, str], tuple[pd.DataFrame, list[Note]]]] = {
    ".csv": delimited.read_delimited,
    ".tsv": delimited.read_delimited,
    ".tab": delimited.read_delimited,
    ".txt": delimited.read_delimited,
    ".jsonl": parsing.read_json,
    ".ndjson": parsing.read_json,
    ".json": parsing.read_json,
}
_PARQUET = (".parquet", ".pq")


def find_files(pattern: str | os.PathLike[str]) -> list[Path]:
    """Return the files that a path or a glob pattern names, sorted by name.

    Raises
    ------
    SweepError
        If there is no such file, or the path is a folder.
    """
    text = os.path.expanduser(os.fspath(pattern))
    if "\0" in text:
        raise SweepError(f"{text!r} is not a path")
    path = Path(text)
    if path.is_dir():
        raise SweepError(f"{text} is a folder; name its files, for instance {os.path.join(text, '*.csv')!r}")
    if path.exists():
        return [path]
    if not glob.has_magic(text):
        raise SweepError(f"there is no file {text}")
    found = sorted(Path(name) for name in glob.glob(text, recursive=True) if os.path.isfile(name))
    if not found:
        raise SweepError(f"no file matches {text!r}")
    return found


def read_file(path: Path) -> tuple[pd.DataFrame, list[Note]]:
    """Read one file of runs into a raw table, with notes on how it was understood.

    Raises
    ------
    SweepError
        If the file cannot be opened, is truncated, too large, or in no format that is read here.
    """
    name = path.name
    try:
        with open(path, "rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
            stream.seek(0)
            data = _read_limited(_unpacked(stream) if packed else stream, name)
    except OSError as error:  # gzip.BadGzipFile is one
        raise SweepError(_broken(name, error) if packed_error(error) else f"{name} cannot be read: {error}") from None
    except (EOFError, zlib.error) as error:
        raise SweepError(_broken(name, error)) from None
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        if not packed and data:
            raise SweepError(f"{name} is called .gz but is not gzip; was it unpacked without being renamed?")
        suffixes.pop()
    return _parse(data, name, suffixes[-1] if suffixes else "")


def packed_error(error: OSError) -> bool:
    """Tell whether an error came from the gzip format rather than from the file system."""
    return isinstance(error, gzip.BadGzipFile)


def _unpacked(stream: IO[bytes]) -> IO[bytes]:
    return gzip.GzipFile(fileobj=stream)  # type: ignore[return-value]


def _broken(name: str, error: Exception) -> str:
    return f"{name} is not a whole gzip file ({error}); it was cut short or damaged, so copy or export it again"


def _read_limited(stream: IO[bytes], name: str) -> bytes:
    """Read a stream piece by piece and give up before it can exhaust the memory."""
    whole = io.BytesIO()
    while piece := stream.read(_CHUNK):
        if whole.tell() + len(piece) > MAX_BYTES:
            raise SweepError(
                f"{name} holds more than {MAX_BYTES / 2**30:g} GiB of data, which is no table of runs; "
                "keep the final value of each run, save it as Parquet, or split it by runs and read a list of files"
            )
        whole.write(piece)
    return whole.getvalue()


def _parse(data: bytes, name: str, suffix: str) -> tuple[pd.DataFrame, list[Note]]:
    if not data.strip(b"\xef\xbb\xbf \t\r\n"):
        raise SweepError(f"{name} is empty")
    if data.startswith(b"PAR1"):
        return parsing.read_parquet(data, name)
    if suffix in _PARQUET:
        raise SweepError(f"{name} is called {suffix} but is not Parquet (it does not start with PAR1)")
    text = parsing.check_text(data, name)
    looks_json = text.lstrip()[:1] in (b"{", b"[")
    reader = _TEXT.get(suffix, parsing.read_json if looks_json else delimited.read_delimited)
    if looks_json != (reader is parsing.read_json):
        found = "JSON" if looks_json else "no JSON object"
        raise SweepError(f"{name} is called {suffix}, but its first line is {found}; rename it to what it is")
    return reader(text, name)
