"""From the files of a data set to a table as published, and from there to a sweep."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from scalefit.collection.notebooks import read_mup, read_zhang
from scalefit.collection.registry import Dataset
from scalefit.collection.retrieval import Found
from scalefit.errors import SweepError
from scalefit.loaders import read_sweep
from scalefit.sweep import Sweep


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
