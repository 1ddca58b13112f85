"""`scalefit backtest`: how far predictions were off for runs that were held out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scalefit.cli.options import (
    AsJson,
    BatchUnit,
    Column,
    DataUnit,
    Debug,
    Duplicates,
    Nonfinite,
    Runs,
    SeqLen,
    Where,
    read_method,
    read_runs,
)
from scalefit.extrapolation import backtest


def backtest_command(
    runs: Runs,
    holdout: Annotated[
        list[str],
        typer.Option(
            help="Cells to hold out: 'params > 1e9', 'largest params|tokens|both', 'rolling params|tokens'; "
            "may be given more than once."
        ),
    ],
    law: Annotated[
        list[str] | None,
        typer.Option(help="Law for the learning rate; may be given more than once. [default: lr_power]"),
    ] = None,
    batch_law: Annotated[str, typer.Option(help="Law for the batch size.")] = "batch_power",
    method: Annotated[
        list[str] | None,
        typer.Option(help="How optima are read off: grid, near[:0.0025], parabola. [default: basin and parabola]"),
    ] = None,
    published: Annotated[
        list[str] | None, typer.Option(help="A published law or pair to enter, such as porian2024.")
    ] = None,
    where: Where = None,
    column: Column = None,
    batch_unit: BatchUnit = None,
    data_unit: DataUnit = "tokens",
    seq_len: SeqLen = None,
    nonfinite: Nonfinite = "raise",
    duplicates: Duplicates = "raise",
    level: Annotated[float, typer.Option(help="Coverage of the intervals.")] = 0.95,
    out: Annotated[Path | None, typer.Option(help="Write the table of every cell and entrant as CSV.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Hold cells out, predict them from the rest, and print how far off each procedure was."""
    report = backtest(
        read_runs(runs, where, column, batch_unit, seq_len, nonfinite, duplicates, data_unit),
        holdout,
        laws=law or ["lr_power"],
        batch_law=batch_law,
        methods=[chosen for text in method if (chosen := read_method(text)) is not None] if method else None,
        published=published or (),
        level=level,
    )
    if out is not None:
        report.table.to_csv(out, index=False)
    typer.echo(report.summary().to_json(orient="records", indent=1) if as_json else f"{report!r}\n")
