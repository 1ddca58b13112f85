"""Tables that their authors only published as what a notebook printed."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from scalefit.errors import SweepError

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
