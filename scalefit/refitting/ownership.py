"""Whose a folder of the output is: results of one file, or something that is not ours to replace."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from scalefit.refitting.intake import DamagedError, read_json
from scalefit.refitting.records import FILE, REPORT

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
