"""The text: the pure-ASCII source files of the running interpreter's standard library, as bytes."""

from __future__ import annotations

import hashlib
import platform
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np

VOCAB = 128  # ASCII: dropping the few other files halves the cost of the softmax
HOLDOUT = 20  # one file in this many, chosen by the hash of its name, is for validation
SKIP = {"site-packages", "dist-packages", "__pycache__"}


@dataclass(frozen=True)
class Corpus:
    """Training and validation text, and the facts that identify it.

    Attributes
    ----------
    train, valid : numpy.ndarray
        Bytes (uint8), files joined in sorted order.
    facts : dict
        Python version, file and byte counts, sha256 of each part.
    """

    train: np.ndarray
    valid: np.ndarray
    facts: dict[str, object]


def is_held_out(name: str) -> bool:
    """Whether the file of this name is for validation (by the hash of its name, so no file ever moves)."""
    return hashlib.sha256(name.encode()).digest()[0] % HOLDOUT == 0


def read_corpus(root: Path | None = None) -> Corpus:
    """Read the standard library's source files.

    Parameters
    ----------
    root : Path, optional
        Folder searched for ``*.py``; by default the running interpreter's standard library.

    Returns
    -------
    Corpus
    """
    root = Path(sysconfig.get_paths()["stdlib"]) if root is None else root
    parts: dict[bool, list[bytes]] = {False: [], True: []}
    files: list[str] = []
    dropped = 0
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if SKIP & set(path.relative_to(root).parts) or not path.is_file():
            continue
        text = path.read_bytes()
        if not text.isascii():
            dropped += 1
            continue
        files.append(name)
        parts[is_held_out(name)].append(text)
    train, valid = b"".join(parts[False]), b"".join(parts[True])
    if not train or not valid:
        raise ValueError(f"{root} has no *.py of pure ASCII to train on, or none that is held out")
    facts = {
        "python": platform.python_version(),
        "files": len(files),
        "files_not_ascii_dropped": dropped,
        "files_held_out": len(parts[True]),
        "train_bytes": len(train),
        "valid_bytes": len(valid),
        "train_sha256": hashlib.sha256(train).hexdigest(),
        "valid_sha256": hashlib.sha256(valid).hexdigest(),
    }
    return Corpus(np.frombuffer(train, np.uint8), np.frombuffer(valid, np.uint8), facts)


def windows(text: np.ndarray, seq_len: int) -> np.ndarray:
    """Rows of ``seq_len + 1`` bytes: inputs and, shifted by one, targets; no target is in two rows."""
    count = (len(text) - 1) // seq_len
    starts = np.arange(count)[:, None] * seq_len
    return text[starts + np.arange(seq_len + 1)]


def spaced(rows: np.ndarray, count: int) -> np.ndarray:
    """``count`` rows evenly spaced over all of them (all of them if there are fewer)."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
