"""Small sweeps to refit, and every kind of file that is none."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pandas as pd

from scalefit.refitting._refit import refit
from scalefit.refitting.discovery import Paths
from scalefit.refitting.settings import Analysis, Settings
from scalefit.refitting.summary import Refit
from scalefit.simulation import Design, simulate_sweep

QUICK = Settings(analysis=Analysis(draws=20))
SMALL = Design(params=(1e7, 1e8, 1e9), tokens=(1e9, 1e10), lr_levels=5, batch_levels=1)


def runs(seed: int = 0, design: Design = SMALL) -> pd.DataFrame:
    """Return a few runs: one batch size a cell, so that a refit is quick."""
    return simulate_sweep(design=design, seed=seed).dropna().drop(columns="seed")


def write_sweeps(folder: Path, n: int = 3) -> Path:
    """Write sweep0.csv, sweep1.csv, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(n):
        runs(seed).to_csv(folder / f"sweep{seed}.csv", index=False)
    return folder


def quickly(paths: Paths, out: Path, **settings: Any) -> Refit:
    """Refit in this process, with few draws and no pictures or pages unless settings say otherwise."""
    return refit(paths, out, **{"config": QUICK, "jobs": 1, "figures": False, "report": False} | settings)


def contents(out: Path) -> dict[str, bytes]:
    """Return the files of an output folder that readers see, by relative path."""
    files = (path for path in out.rglob("*") if path.is_file() and ".staging" not in path.parts)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def write_readable(folder: Path) -> dict[str, int]:
    """Write files that look odd but can be read; return how many runs each has, by name."""
    table = runs()
    text = table.to_csv(index=False)
    files = {
        "bom": b"\xef\xbb\xbf" + text.encode(),
        "crlf": text.replace("\n", "\r\n").encode(),
        "old-mac": text.replace("\n", "\r").encode(),
        "semicolons": text.replace(",", ";").encode(),
        "quoted": table.to_csv(index=False, quoting=1).encode(),
        "blank-lines": text.replace("\n", "\n\n").encode(),
        "spaces-in-header": ("  " + text.replace(",", " , ", 4)).encode(),
        "packed.csv.gz": gzip.compress(text.encode(), mtime=0),
    }
    for name, data in files.items():
        (folder / (name if "." in name else f"{name}.csv")).write_bytes(data)
    return {name.partition(".")[0]: len(table) for name in files}


def write_bad(folder: Path) -> set[str]:
    """Write files that are no sweeps; return their names."""
    table = runs()
    text = table.to_csv(index=False)
    header, *lines = text.splitlines()
    first = lines[0].split(",")
    frames = {
        "nan-text": table.assign(loss="not a number"),
        "nan-loss": table.assign(loss=float("nan")),
        "all-diverged": table.assign(loss=float("inf")),
        "negative-loss": table.assign(loss=-table["loss"]),
        "zero-lr": table.assign(lr=0.0),
        "negative-params": table.assign(params=-table["params"]),
        "one-row": table.head(1),
        "one-cell": table[(table["params"] == table["params"].iloc[0]) & (table["tokens"] == table["tokens"].iloc[0])],
        "no-loss": table.drop(columns="loss"),
        "nothing-varies": table.assign(lr=1e-3, params=1e8, tokens=1e9),
        "formula-cell": table.assign(loss="=1+1"),
        "huge-loss": table.assign(loss="1e400"),
        "dates": table.assign(lr="2024-01-01"),
    }
    files = {
        "empty": b"",
        "white": b" \n\n\t\n",
        "header-only": f"{header}\n".encode(),
        "binary": bytes(range(256)) * 64,
        "zeros": b"\0" * 4096,
        "wrong-encoding": text.replace("lr,", "l\u00f6r,").encode("latin-1"),
        "utf16": text.encode("utf-16"),
        "decimal-commas": text.replace(",", ";").replace(".", ",").encode(),
        "half-encoding": text.encode() + b"\xff\xfe\xfa\n",
        "duplicate-header": "\n".join([header.replace("tokens", "params"), *lines]).encode(),
        "long-cell": "\n".join([header, ",".join(["9" * 10**6, *first[1:]]), *lines]).encode(),
        "ragged": "\n".join([header, *lines, "1,2,3,4,5,6,7,8,9"]).encode(),
        "open-quote": f'{header}\n"{lines[0]}\n'.encode(),
        "png": b"\x89PNG\r\n\x1a\n" + b"\0" * 99,
        "html": b"<!doctype html><script>alert(1)</script>",
        "json-inside": b'{"lr": [1, 2]}',
        "cut.csv.gz": gzip.compress(text.encode(), mtime=0)[:-20],
        "not-gzip.csv.gz": text.encode(),
        "bomb.csv.gz": gzip.compress(b"1,2,3,4,5\n" * 10**6, mtime=0),
        "broken.jsonl": b'{"lr": 1e-3, "loss": \n',
        "nested.jsonl": b"[" * 10_000,
        "not-parquet.parquet": text.encode(),
        "stump.parquet": _parquet(table)[:-64],
        "pickle.parquet": b"cos\nsystem\n(S'false'\ntR.",
    }
    for name, data in files.items():
        (folder / (name if "." in name else f"{name}.csv")).write_bytes(data)
    for name, frame in frames.items():
        frame.to_csv(folder / f"{name}.csv", index=False)
    os.symlink(folder / "loop.csv", folder / "loop.csv")
    os.symlink(folder / "nowhere", folder / "dangling.csv")
    os.mkfifo(folder / "pipe.csv")
    return {*frames, *(name.partition(".")[0] for name in files), "loop", "dangling", "pipe"}


def _parquet(table: pd.DataFrame) -> bytes:
    data = table.to_parquet()
    assert isinstance(data, bytes)
    return data
