"""`load_dataset`, `load_curves` and `datasets`: sweeps and curves by name, and the list of names."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal, overload

import pandas as pd

from scalefit._datasets.read_table import read_table
from scalefit._datasets.registry import DATASETS, Dataset, Found, bundled_path, digest, find, get_dataset
from scalefit._values import Note, merge
from scalefit.curves.curves import Curves
from scalefit.errors import SweepError
from scalefit.loading.read_curves import read_curves
from scalefit.loading.read_sweep import read_sweep
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

    See Also
    --------
    datasets : Lists the names.
    load_curves : The loss curves of a data set.
    read_sweep : Reads a file of your own.

    Examples
    --------
    >>> import scalefit as sf
    >>> sweep = sf.load_dataset("simulated")
    >>> len(sweep), sweep.source
    (560, 'simulated')
    >>> sf.load_dataset("simulated", raw=True).columns.tolist()
    ['lr', 'batch', 'params', 'tokens', 'loss', 'seed', 'steps']
    """
    dataset = get_dataset(name)
    if dataset.sweep is None and not raw:
        raise SweepError(
            f"{name} holds {dataset.holds}, not one row per finished run, so it is no sweep; "
            f"load_dataset({name!r}, raw=True) returns its table, load_curves its curves where it holds some"
        )
    found = find(dataset)
    notes = _notes_on(dataset, found)
    if raw:
        table = read_table(dataset, found)
        table.attrs.update(dataset=name, notes=[str(note) for note in notes])
        return table
    source: Any = found.paths[0]
    if dataset.name == "chinchilla-epoch":  # this data set publishes FLOPs in place of tokens
        published = read_table(dataset, found)
        source = published.assign(tokens=published["Training FLOP"] / (6 * published["Model Size"]))
    sweep = read_sweep(source, **(dataset.sweep or {}))
    return replace(sweep, source=name, notes=merge(notes, sweep.notes))


def _notes_on(dataset: Dataset, found: Found) -> tuple[Note, ...]:
    """Return the notes on where a data set is from, under which licence, and what to know."""
    source = Note("dataset", f"{dataset.name}: {dataset.about}; {found.origin}; licence: {dataset.licence}")
    return source, *(Note("dataset", text, caution=True) for text in dataset.cautions)


def datasets() -> pd.DataFrame:
    """List the data sets that `load_dataset` knows, with where each is from; nothing is downloaded.

    Returns
    -------
    pandas.DataFrame
        One row a data set: name, kind (bundled or public), rows, holds (what a row is), about, licence, source
        (address; several are separated by a space), commit, sha256 and size (bytes) of the published file.
        Empty where it is not known; counted and hashed here for bundled files.

    See Also
    --------
    load_dataset, load_curves : Load one of them.

    Examples
    --------
    >>> import scalefit as sf
    >>> listed = sf.datasets().set_index("name")
    >>> listed.loc["steplaw-dense", ["kind", "holds", "licence"]].tolist()
    ['public', 'runs', 'none stated']
    """
    table = pd.DataFrame([_facts(each) for each in DATASETS.values()])
    return table.astype({"rows": "Int64", "size": "Int64"})


def _facts(dataset: Dataset) -> dict[str, Any]:
    files, sizes = dataset.files, [file.size for file in dataset.files if file.size is not None]
    facts = {
        "name": dataset.name,
        "kind": "bundled" if dataset.bundled else "public",
        "rows": dataset.rows,
        "holds": dataset.holds,
        "about": dataset.about,
        "licence": dataset.licence,
        "source": " ".join(file.addresses[0] for file in files) or f"data/{dataset.bundled}",
        "commit": " ".join(file.commit for file in files),
        "sha256": " ".join(file.sha256 or "" for file in files).strip(),
        "size": sum(sizes) if files and len(sizes) == len(files) else None,
    }
    if dataset.bundled:
        with suppress(SweepError):  # where an installation lacks the file, the list is shown without it
            path = bundled_path(dataset)
            rows = len(read_table(dataset, Found((path,), "")))
            facts |= {"rows": rows, "sha256": digest(path), "size": path.stat().st_size}
    return facts


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

    See Also
    --------
    load_dataset : The runs of a data set.
    read_curves : Reads curves of your own.

    Examples
    --------
    >>> import scalefit as sf
    >>> curves = sf.load_curves("tiny-lm")
    >>> len(curves), len(curves.table), curves.units["tokens"]
    (396, 39600, 'tokens')
    """
    dataset = get_dataset(f"{name}-curves" if f"{name}-curves" in DATASETS else name)
    if dataset.curves is None:
        known = ", ".join(name for name, other in DATASETS.items() if other.curves is not None)
        raise SweepError(f"{dataset.name} holds {dataset.holds}, no loss curves; there are curves of {known}")
    found = find(dataset)
    curves = read_curves(read_table(dataset, found), **dataset.curves)
    return replace(curves, source=dataset.name, notes=merge(_notes_on(dataset, found), curves.notes))
