"""The files of a data set, bundled, in a folder of the user's, in the cache or fetched, and the tables in them."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from scalefit._datasets.registry import Dataset, UpstreamFile
from scalefit.errors import SweepError
from scalefit.loading.read_sweep import read_sweep
from scalefit.sweep import Sweep

TIMEOUT = 30.0
"""Seconds without an answer after which a download is given up."""

FOLDER = "SCALEFIT_DATA"
CACHE = "SCALEFIT_CACHE"
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Found:
    """Files of a data set, and in one sentence where they are from and what was checked.

    Parameters
    ----------
    paths : tuple of Path
        The published files, or the derived table alone.
    origin : str
        Where they are from and which hash was verified.
    derived : bool
        True when `paths` is the derived table.
    """

    paths: tuple[Path, ...]
    origin: str
    derived: bool = False


def find(dataset: Dataset) -> Found:
    """Return the files of a data set, fetching and checking them where that is needed.

    Raises
    ------
    SweepError
        If they cannot be had, or are not the pinned ones.
    """
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
    """Return the sha256 of a file, as hex.

    Raises
    ------
    SweepError
        If the file cannot be read.
    """
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
    candidates = [_candidate(dataset, file, folder) for file in dataset.files]
    paths = tuple(path for path in candidates if path is not None)
    if len(paths) == len(dataset.files):
        for file, path in zip(dataset.files, paths, strict=True):
            _verify(dataset, path, file.sha256)
        return Found(paths, f"{_origin(dataset, paths)}, in the folder {folder}")
    if dataset.derived is not None and (path := folder / dataset.derived.name).is_file():
        _verify(dataset, path, dataset.derived.sha256)
        told = f"read out of {dataset.files[0].repository} by hand; sha256 {dataset.derived.sha256} of that table"
        return Found((path,), f"the table {path} ({told} verified)", derived=True)
    raise SweepError(
        f"{dataset.name} is not in {folder}, which {FOLDER} names. {_advice(dataset)} Without {FOLDER} scalefit "
        "looks in its cache, and downloads what is not there and can be had"
    )


def _candidate(dataset: Dataset, file: UpstreamFile, folder: Path) -> Path | None:
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

    for address in file.addresses[:-1]:
        try:
            return _retrieve(dataset, file, address)
        except requests.HTTPError:
            continue
    address = file.addresses[-1]
    try:
        return _retrieve(dataset, file, address)
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        reason = "it is not there any more" if status in (404, 410) else "the server refused"
        raise SweepError(f"{address} answered {status}: {reason}. {_advice(dataset)}") from None


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


ZHANG_SEQ_LEN = 512
"""Tokens per sequence of every run that the notebook asks for."""

_REACHED = re.compile(
    r"Minimum goal step (?P<steps>\d+) for batch size (?P<sequences>\d+) "
    r"\(Model Size (?P<model>[^,]+), Run Name (?P<run>.+?)\), Run ID (?P<run_id>\w+)"
)
_TARGETS = re.compile(r"goal_losses = (\{[^}]*\})")
_SIZE = re.compile(r"(?P<number>[\d.]+)(?P<unit>[MB])")
_UNITS = {"M": 1e6, "B": 1e9}

_EPOCH = re.compile(r"Train Epoch: (\d+) \[0/.*?Average loss: ([\d.]+|nan)", re.DOTALL)
_LOOPS = re.compile(
    r"for width in (?P<widths>\[[\d, ]+\]):.*?np\.linspace(?P<lrs>\([-\d., ]+\)).*?"
    r"model_type='(?P<parameterization>\w+) MLP'",
    re.DOTALL,
)


def _cells(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the source and the whole printed text of every cell; one text may be stored in several pieces."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        streams = [output["text"] for output in cell.get("outputs", []) if output["output_type"] == "stream"]
        yield "".join(cell["source"]), "".join("".join(text) for text in streams)


def read_zhang(paths: Sequence[Path]) -> pd.DataFrame:
    """Read the steps to a target loss, one row per model and batch size, out of the printed query.

    Columns: model, params (nominal), target (nats/token), sequences, seq_len, batch (tokens), steps, run, run_id.

    Raises
    ------
    SweepError
        If this is not the known grid of 5 models x 9 batch sizes.
    """
    cells = list(_cells(paths[0]))
    printed = [line.groupdict() for _, text in cells for line in _REACHED.finditer(text)]
    stated = _TARGETS.search("\n".join(source for source, _ in cells))
    if not printed or stated is None:
        raise SweepError("no cell states goal_losses and prints lines such as 'Minimum goal step 46000 for batch ...'")
    table = pd.DataFrame(printed).astype({"steps": int, "sequences": int})
    sizes = table["model"].str.extract(_SIZE)
    table["params"] = sizes["number"].astype(float) * sizes["unit"].map(_UNITS)
    table["target"] = table["model"].map(ast.literal_eval(stated[1]))
    table["seq_len"] = ZHANG_SEQ_LEN
    table["batch"] = table["sequences"] * ZHANG_SEQ_LEN
    if len(table) != 45 or table.isna().to_numpy().any() or table.duplicated(["model", "sequences"]).any():
        raise SweepError(f"expected 5 models x 9 batch sizes, each once; found {len(table)} rows")
    return table[["model", "params", "target", "sequences", "seq_len", "batch", "steps", "run", "run_id"]]


def read_mup(paths: Sequence[Path]) -> pd.DataFrame:
    """Read the training loss of each epoch out of the printed logs, one row per run and epoch.

    Columns: parameterization, width, log2lr, lr, epoch, train_loss (nats; NaN where the run diverged and ended).

    Raises
    ------
    SweepError
        If a cell did not print as many runs as its loops make.
    """
    found = [(loops, text) for source, text in _cells(paths[0]) if (loops := _LOOPS.search(source)) and text]
    if not found:
        raise SweepError("no cell loops over widths and learning rates and prints 'Train set: Average loss'")
    return pd.concat([_runs(loops, text) for loops, text in found], ignore_index=True)


def _runs(loops: re.Match[str], text: str) -> pd.DataFrame:
    """Match what one cell printed, run after run, with the widths and learning rates that its loops go through."""
    widths, log2lr = np.array(ast.literal_eval(loops["widths"])), np.linspace(*ast.literal_eval(loops["lrs"]))
    table = pd.DataFrame(_EPOCH.findall(text), columns=["epoch", "train_loss"])
    table = table.astype({"epoch": int, "train_loss": float})
    run = np.cumsum(table["epoch"].to_numpy() == 1) - 1
    runs = len(widths) * len(log2lr)
    if not len(run) or run[0] != 0 or run[-1] != runs - 1:
        raise SweepError(f"expected {runs} printed runs of {loops['parameterization']}, found {len(set(run))}")
    facts = {
        "parameterization": loops["parameterization"],
        "width": widths[run // len(log2lr)],
        "log2lr": log2lr[run % len(log2lr)],
        "lr": 2 ** log2lr[run % len(log2lr)],
    }
    return pd.concat([pd.DataFrame(facts, index=table.index), table], axis=1)


def read_table(dataset: Dataset, found: Found) -> pd.DataFrame:
    """Return a data set as published, row for row.

    Raises
    ------
    SweepError
        If a file does not hold what the data set is known to hold.
    """
    try:
        if found.derived:
            rename = dataset.derived.rename if dataset.derived is not None else {}
            return pd.read_csv(found.paths[0]).rename(columns=dict(rename))
        table = _READERS.get(dataset.name, _read_plain)(found.paths)
        if dataset.rows not in (None, len(table)):
            raise SweepError(f"expected {dataset.rows} rows, found {len(table)}")
        return table
    except (OSError, ValueError, LookupError, TypeError, AttributeError, SyntaxError) as error:
        names = ", ".join(map(str, found.paths))
        what = error if isinstance(error, SweepError) else f"{type(error).__name__}: {error}"
        raise SweepError(f"{names} cannot be read as {dataset.name} ({what}); delete it and load again") from None


def read_runs(dataset: Dataset, found: Found) -> Sweep:
    """Return a data set of runs as a sweep."""
    options: Mapping[str, Any] = dataset.sweep or {}
    if dataset.name == "chinchilla-epoch":  # which publishes FLOPs in place of tokens
        table = read_table(dataset, found)
        return read_sweep(table.assign(tokens=table["Training FLOP"] / (6 * table["Model Size"])), **options)
    return read_sweep(found.paths[0], **options)


def _read_plain(paths: Sequence[Path]) -> pd.DataFrame:
    (path,) = paths
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def read_reference_points(paths: Sequence[Path]) -> pd.DataFrame:
    """Read MLPerf's reference convergence points, one row per replicate.

    Columns: benchmark, entry, batch_size (examples), creator, when, platform, hyperparams (JSON), replicate,
    epochs_to_converge (samples for bert).
    """
    entries = [
        {"entry": entry, **facts}
        for path in paths
        for entry, facts in json.loads(path.read_text(encoding="utf-8")).items()
    ]
    table = pd.DataFrame(entries).rename(columns=lambda name: name.lower().replace(" ", "_"))
    table = table.rename(columns={"bs": "batch_size"})
    table["hyperparams"] = [json.dumps(each, sort_keys=True) for each in table["hyperparams"]]
    table = table.explode("epochs_to_converge", ignore_index=True)
    table["epochs_to_converge"] = table["epochs_to_converge"].astype(float)
    table["replicate"] = table.groupby(["benchmark", "entry"]).cumcount()
    order = ["benchmark", "entry", "batch_size", "creator", "when", "platform", "hyperparams", "replicate"]
    return table[[*order, "epochs_to_converge"]]


_READERS: Mapping[str, Callable[[Sequence[Path]], pd.DataFrame]] = MappingProxyType(
    {"cbs-zhang": read_zhang, "mlperf-rcp": read_reference_points, "mup-demo": read_mup}
)
