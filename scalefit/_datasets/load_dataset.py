"""`load_dataset`, `load_curves` and `datasets`: sweeps and curves by name, and the list of names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal, overload

import pandas as pd

from scalefit._datasets.fetch import Found, bundled_path, digest, find, read_runs, read_table
from scalefit._datasets.registry import DATASETS, Dataset, get_dataset
from scalefit._values import Note, merge
from scalefit.curves.curves import Curves
from scalefit.errors import SweepError
from scalefit.loading.read_curves import read_curves
from scalefit.sweep import Sweep


@overload
def load_dataset(name: str, *, raw: Literal[False] = False) -> Sweep: ...


@overload
def load_dataset(name: str, *, raw: Literal[True]) -> pd.DataFrame: ...


@overload
def load_dataset(name: str, *, raw: bool) -> Sweep | pd.DataFrame: ...


def load_dataset(name: str, *, raw: bool = False) -> Sweep | pd.DataFrame:
    """Load a bundled or public data set by its name.

    Bundled sets come with the package. Public sets stay with their authors: each is downloaded once, on demand,
    into a cache, and its sha256 is compared with the one on record.

    Parameters
    ----------
    name : str
        One of the names that `scalefit.datasets` lists.
    raw : bool
        False for a sweep in the package's words and units; True for the rows as published, in a DataFrame.

    Returns
    -------
    Sweep or pandas.DataFrame
        No row is left out. The source, the licence and what to know are notes of the sweep, and
        ``attrs["notes"]`` of a DataFrame.

    Raises
    ------
    SweepError
        If there is no such name, the rows are not runs (ask for ``raw=True``), the file cannot be had, or it is
        not the pinned one.

    Notes
    -----
    The environment variable ``SCALEFIT_DATA`` names a folder to read public files from instead; nothing is then
    downloaded. ``SCALEFIT_CACHE`` names another folder for the cache.

    Examples
    --------
    >>> sweep = load_dataset("simulated")
    >>> len(sweep), sweep.source
    (560, 'simulated')
    >>> load_dataset("simulated", raw=True).columns.tolist()
    ['lr', 'batch', 'params', 'tokens', 'loss', 'seed', 'steps']
    """
    dataset = get_dataset(name)
    if dataset.sweep is None and not raw:
        raise SweepError(
            f"{name} holds {dataset.holds}, not one row per finished run, so it is no sweep; "
            f"load_dataset({name!r}, raw=True) returns its table, load_curves its curves where it holds some"
        )
    found = find(dataset)
    notes = describe(dataset, found)
    if raw:
        table = read_table(dataset, found)
        table.attrs.update(dataset=name, notes=[str(note) for note in notes])
        return table
    sweep = read_runs(dataset, found)
    return replace(sweep, source=name, notes=merge(notes, sweep.notes))


def describe(dataset: Dataset, found: Found) -> tuple[Note, ...]:
    """Return the notes on where a data set is from, under which licence, and what to know."""
    source = Note("dataset", f"{dataset.name}: {dataset.about}; {found.origin}; licence: {dataset.licence}")
    return source, *(Note("dataset", remark, caution=True) for remark in dataset.remarks)


def datasets() -> pd.DataFrame:
    """List the data sets that `load_dataset` knows, with where each is from; nothing is downloaded.

    Returns
    -------
    pandas.DataFrame
        One row a data set: name, kind (bundled or public), rows, holds (what a row is), about, licence, source
        (address; several are separated by a space), commit, sha256 and size (bytes) of the published file.
        Empty where it is not known; counted and hashed here for bundled files.

    Examples
    --------
    >>> listed = datasets().set_index("name")
    >>> listed.loc["steplaw-dense", ["kind", "holds", "licence"]].tolist()
    ['public', 'runs', 'none stated']
    """
    table = pd.DataFrame([_bundled_row(each) if each.bundled else _public_row(each) for each in DATASETS.values()])
    return table.astype({"rows": "Int64", "size": "Int64"})


def _facts(dataset: Dataset, kind: str) -> dict[str, Any]:
    facts = {name: getattr(dataset, name) for name in ("name", "rows", "holds", "about", "licence")}
    return {"name": facts["name"], "kind": kind, **facts}


def _bundled_row(dataset: Dataset) -> dict[str, Any]:
    row = _facts(dataset, "bundled") | {"source": f"data/{dataset.bundled}", "commit": "", "sha256": "", "size": None}
    try:
        path = bundled_path(dataset)
    except SweepError:
        return row
    rows = len(read_table(dataset, Found((path,), "")))
    return row | {"rows": rows, "sha256": digest(path), "size": path.stat().st_size}


def _public_row(dataset: Dataset) -> dict[str, Any]:
    sizes = [file.size for file in dataset.files]
    return _facts(dataset, "public") | {
        "source": " ".join(file.addresses[0] for file in dataset.files),
        "commit": " ".join(file.commit for file in dataset.files),
        "sha256": " ".join(file.sha256 or "" for file in dataset.files).strip(),
        "size": None if None in sizes else sum(size for size in sizes if size is not None),
    }


HISTORIES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "tiny-lm-curves": {"batch_unit": "tokens", "params_convention": "non_embedding"},
        "mup-demo": {
            "columns": {"loss": "train_loss", "tokens": "epoch"},
            "run": ("parameterization", "width", "log2lr"),
            "data_unit": "epochs",
            "nonfinite": "diverged",
        },
    }
)
"""How `read_curves` is to read each data set that holds curves."""


def load_curves(name: str) -> Curves:
    """Load the loss curves of a bundled or public data set by its name.

    Parameters
    ----------
    name : str
        ``"tiny-lm"`` (bundled: 396 of its runs, 100 points each) or ``"mup-demo"`` (public: training loss by epoch).

    Returns
    -------
    Curves
        The source, the licence and what to know are among its notes.

    Raises
    ------
    SweepError
        If there is no such name, the data set holds no curves, or its file cannot be had.

    Examples
    --------
    >>> curves = load_curves("tiny-lm")
    >>> len(curves), len(curves.table), curves.units["tokens"]
    (396, 39600, 'tokens')
    """
    dataset = get_dataset(f"{name}-curves" if f"{name}-curves" in HISTORIES else name)
    if dataset.name not in HISTORIES:
        raise SweepError(
            f"{dataset.name} holds {dataset.holds}, no loss curves; there are curves of {', '.join(HISTORIES)}"
        )
    found = find(dataset)
    curves = read_curves(read_table(dataset, found), **HISTORIES[dataset.name])
    return replace(curves, source=dataset.name, notes=merge(describe(dataset, found), curves.notes))
