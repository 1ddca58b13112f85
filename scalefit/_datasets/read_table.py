"""The tables in the files of a data set, read row for row as their authors published them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from scalefit._datasets.registry import Dataset, Found
from scalefit.errors import SweepError
from scalefit.loading.files import EXACT
from scalefit.vocabulary import parse_number


def read_table(dataset: Dataset, found: Found) -> pd.DataFrame:
    """Return a data set as published, or raise a `SweepError` if a file does not hold what it is known to hold."""
    try:
        if found.derived:
            table = pd.read_csv(found.paths[0], **EXACT)
            return table.rename(columns=dict(dataset.derived.rename if dataset.derived else {}))
        table = _READERS.get(dataset.name, _read_plain)(found.paths)
        if dataset.rows not in (None, len(table)):
            raise SweepError(f"expected {dataset.rows} rows, found {len(table)}")
        return table
    except (OSError, ValueError, LookupError, TypeError, AttributeError, SyntaxError) as error:
        names = ", ".join(map(str, found.paths))
        what = error if isinstance(error, SweepError) else f"{type(error).__name__}: {error}"
        raise SweepError(f"{names} cannot be read as {dataset.name} ({what}); delete it and load again") from None


_ZHANG_SEQ_LEN = 512  # tokens per sequence, the same for all runs of the notebook
_REACHED = re.compile(
    r"Minimum goal step (?P<steps>\d+) for batch size (?P<sequences>\d+) "
    r"\(Model Size (?P<model>[^,]+), Run Name (?P<run>.+?)\), Run ID (?P<run_id>\w+)"
)
_TARGETS = re.compile(r"goal_losses = (\{[^}]*\})")

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
    """
    cells = list(_cells(paths[0]))
    printed = [line.groupdict() for _, text in cells for line in _REACHED.finditer(text)]
    stated = _TARGETS.search("\n".join(source for source, _ in cells))
    if not printed or stated is None:
        raise SweepError("no cell states goal_losses and prints lines such as 'Minimum goal step 46000 for batch ...'")
    table = pd.DataFrame(printed).astype({"steps": int, "sequences": int})
    table["params"] = table["model"].str.extract(r"([\d.]+[MB])")[0].map(parse_number)
    table["target"] = table["model"].map(ast.literal_eval(stated[1]))
    table = table.assign(seq_len=_ZHANG_SEQ_LEN, batch=table["sequences"] * _ZHANG_SEQ_LEN)
    if len(table) != 45 or table.isna().to_numpy().any() or table.duplicated(["model", "sequences"]).any():
        raise SweepError(f"expected 5 models x 9 batch sizes, each once; found {len(table)} rows")
    return table[["model", "params", "target", "sequences", "seq_len", "batch", "steps", "run", "run_id"]]


def read_mup(paths: Sequence[Path]) -> pd.DataFrame:
    """Read the training loss of each epoch out of the printed logs, one row per run and epoch.

    Columns: parameterization, width, log2lr, lr, epoch, train_loss (nats; NaN where the run diverged and ended).
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
    expected = len(widths) * len(log2lr)
    if not len(run) or run[0] != 0 or run[-1] != expected - 1:
        raise SweepError(f"expected {expected} printed runs of {loops['parameterization']}, found {len(set(run))}")
    at_width, at_lr = np.divmod(run, len(log2lr))
    facts = {"parameterization": loops["parameterization"], "width": widths[at_width], "log2lr": log2lr[at_lr]}
    return pd.concat([pd.DataFrame({**facts, "lr": 2 ** log2lr[at_lr]}, index=table.index), table], axis=1)


def _read_plain(paths: Sequence[Path]) -> pd.DataFrame:
    (path,) = paths
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, **EXACT)


def read_reference_points(paths: Sequence[Path]) -> pd.DataFrame:
    """Read MLPerf's reference convergence points, one row per replicate.

    Columns: benchmark, entry, batch_size (examples), creator, when, platform, hyperparams (JSON), replicate,
    epochs_to_converge (samples for bert).
    """
    found = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    entries = [{"entry": entry, **facts} for each in found for entry, facts in each.items()]
    table = pd.DataFrame(entries).rename(columns={"BS": "batch_size"})
    table = table.rename(columns=lambda name: name.lower().replace(" ", "_"))
    table["hyperparams"] = [json.dumps(each, sort_keys=True) for each in table["hyperparams"]]
    table = table.explode("epochs_to_converge", ignore_index=True)
    table["epochs_to_converge"] = table["epochs_to_converge"].astype(float)
    table["replicate"] = table.groupby(["benchmark", "entry"]).cumcount()
    order = ["benchmark", "entry", "batch_size", "creator", "when", "platform", "hyperparams", "replicate"]
    return table[[*order, "epochs_to_converge"]]


_READERS: Mapping[str, Callable[[Sequence[Path]], pd.DataFrame]] = MappingProxyType(
    {"cbs-zhang": read_zhang, "mlperf-rcp": read_reference_points, "mup-demo": read_mup}
)
