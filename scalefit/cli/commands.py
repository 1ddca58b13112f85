"""`scalefit fit`, `predict`, `backtest`, `laws` and `datasets`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

import scalefit.cli.options as options
from scalefit._bootstrap import bootstrap
from scalefit._datasets.load_dataset import datasets
from scalefit._fit import fit_sweep
from scalefit.backtesting._backtest import backtest
from scalefit.cli.options import AsJson, Debug
from scalefit.fitting.fit_result import Fit
from scalefit.fitting.fit_values import FitStatus
from scalefit.laws import catalog, get_law
from scalefit.laws.formula import Law
from scalefit.refitting.results import is_study, read_fits
from scalefit.vocabulary import column_of, format_number, parse_number


def fit_command(
    runs: options.Runs,
    law: Annotated[
        list[str] | None,
        typer.Option(help="Name in the catalogue or a formula; may be given more than once. [default: lr_power]"),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="How optima are read off: grid, near[:0.0025], parabola[:window], basin[:window]."),
    ] = None,
    loss: Annotated[str, typer.Option(help="squared, huber[:1e-3] or softl1[:1e-3].")] = "squared",
    space: Annotated[str, typer.Option(help="auto, log or plain.")] = "auto",
    where: options.Where = None,
    column: options.Column = None,
    batch_unit: options.BatchUnit = None,
    data_unit: options.DataUnit = "tokens",
    seq_len: options.SeqLen = None,
    nonfinite: options.Nonfinite = "raise",
    duplicates: options.Duplicates = "raise",
    at: Annotated[str | None, typer.Option(help="Also predict there: 'params=7e9 tokens=1.4T'.")] = None,
    draws: Annotated[int, typer.Option("--bootstrap", help="Also refit this many cell-bootstrap resamples.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the fit as JSON (one law only).")] = None,
    as_json: options.AsJson = False,
    debug: options.Debug = False,
) -> None:
    """Fit laws to a table of runs and print them with their errors."""
    laws = [get_law(name) for name in law or ["lr_power"]]
    if out is not None and len(laws) > 1:
        raise ValueError("--out takes one law; run the command once for each")
    place = _place(at, laws) if at else {}
    how = {"batch_unit": batch_unit, "data_unit": data_unit, "nonfinite": nonfinite, "duplicates": duplicates}
    sweep = options.read_runs(runs, where, column, seq_len, **how)
    estimator = options.configured("--method", method, options.METHODS) if method is not None else None
    robust = options.configured("--loss", loss, options.LOSSES)
    records = []
    if not as_json:
        typer.echo(f"{sweep!r}\n")
    for chosen in laws:
        answer = fit_sweep(chosen, sweep, method=estimator, loss=robust, space=space)
        if out is not None:
            answer.fit.to_json(out)
        if as_json:
            records.append(json.loads(answer.fit.to_json()))
            continue
        notes = tuple(note for note in answer.fit.notes if note not in sweep.notes)
        typer.echo(f"{replace(answer.fit, notes=notes)!r}\n")
        if draws:
            typer.echo(f"{bootstrap(answer.fit, n=draws, seed=seed)!r}\n")
        if place:
            used = {column_of(name) for name in chosen.inputs}
            _print_prediction(answer.fit, {name: value for name, value in place.items() if name in used})
    if as_json:
        typer.echo(json.dumps(records if len(records) > 1 else records[0], indent=1))


def predict_command(
    fit: Annotated[
        Path, typer.Argument(help="A fit written by 'scalefit fit --out', or a fit.json of 'scalefit refit'.")
    ],
    inputs: Annotated[list[str], typer.Argument(help="Where to predict: params=7e9 tokens=1.4T")],
    law: Annotated[str | None, typer.Option(help="Which law of a fit.json: lr, batch, loss, B_crit, ...")] = None,
    level: Annotated[float, typer.Option(help="Coverage of the interval.")] = 0.95,
    as_json: options.AsJson = False,
    debug: options.Debug = False,
) -> None:
    """Predict from a fit, with an interval."""
    fitted, place = _read_fit(fit, law), options.read_assignments(inputs, parse_number)
    _print_cautions(fitted)
    if as_json:
        typer.echo(json.dumps(fitted.predict(level=level, **place).iloc[0].to_dict()))
    else:
        _print_prediction(fitted, place, level)


def _read_fit(path: Path, name: str | None) -> Fit:
    """Read a file with one fit, or one law from the `fit.json` of a refit."""
    if not path.is_dir() and not is_study(path):
        if name is not None and path.is_file():
            raise ValueError(f"{path} holds one fit, not several by name; leave --law out")
        return Fit.from_json(path)
    laws = read_fits(path)
    if name not in laws:
        found = "none" if name is None else f"{name!r}"
        raise ValueError(f"--law: expected one of {', '.join(laws)}, which {path} holds; found {found}")
    return laws[name]


def _place(text: str, laws: list[Law]) -> dict[str, float]:
    """Read where to predict; every input of every law must be there, and nothing else."""
    given = {column_of(n): v for n, v in options.read_assignments(text.replace(",", " ").split(), parse_number).items()}
    wanted = {column_of(name) for law in laws for name in law.inputs}
    if given.keys() != wanted:
        raise ValueError(f"--at: expected {', '.join(sorted(wanted))}; found {', '.join(given)}")
    return given


def _print_prediction(fit: Fit, place: dict[str, Any], level: float = 0.95) -> None:
    """Print a prediction with its interval, and how far beyond the data it lies."""
    table = fit.predict(level=level, **place)
    row = table.iloc[0]
    where = ", ".join(f"{name} = {format_number(row[name])}" for name in table.columns[:-4])
    value, low, high = (format_number(row[name], 3) for name in ("prediction", "lo", "hi"))
    beyond = f"; {format_number(row['reach'], 3)}x beyond the fitted range" if row["reach"] > 1 else ""
    typer.echo(f"{fit.law.target} at {where}: {value} ({level:.0%} {low} to {high}{beyond})\n")


def _print_cautions(fit: Fit) -> None:
    """Print to stderr the cautions about a fit."""
    if fit.status is not FitStatus.CONVERGED:
        typer.echo(f"caution: {fit.status}: {fit.status.sentence}; {fit.status.remedy}", err=True)
    for note in fit.notes:
        if note.caution:
            typer.echo(f"caution: {note.text}", err=True)


def backtest_command(
    runs: options.Runs,
    holdout: Annotated[
        list[str],
        typer.Option(
            help="Cells to hold out: 'params > 1e9', 'largest params|tokens|both', 'rolling params|tokens|both'; "
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
    where: options.Where = None,
    column: options.Column = None,
    batch_unit: options.BatchUnit = None,
    data_unit: options.DataUnit = "tokens",
    seq_len: options.SeqLen = None,
    nonfinite: options.Nonfinite = "raise",
    duplicates: options.Duplicates = "raise",
    level: Annotated[float, typer.Option(help="Coverage of the intervals.")] = 0.95,
    out: Annotated[Path | None, typer.Option(help="Write the table of every cell and entrant as CSV.")] = None,
    as_json: options.AsJson = False,
    debug: options.Debug = False,
) -> None:
    """Hold cells out, predict them from the rest, and print how far off each procedure was."""
    how = {"batch_unit": batch_unit, "data_unit": data_unit, "nonfinite": nonfinite, "duplicates": duplicates}
    report = backtest(
        options.read_runs(runs, where, column, seq_len, **how),
        holdout,
        laws=law or ["lr_power"],
        batch_law=batch_law,
        methods=[options.configured("--method", text, options.METHODS) for text in method] if method else None,
        published=published or (),
        level=level,
    )
    if out is not None:
        report.table.to_csv(out, index=False)
    typer.echo(report.summary().to_json(orient="records", indent=1) if as_json else f"{report!r}\n")


def laws_command(as_json: AsJson = False, debug: Debug = False) -> None:
    """List the laws: built-in forms to fit, and published ones with their constants."""
    table = catalog()
    if as_json:
        typer.echo(table.to_json(orient="records", indent=1))
        return
    forms, constants = (table[table["kind"] == kind] for kind in ("form", "constants"))
    _print_table(forms[["name", "formula", "source"]], "Forms, to be fitted")
    typer.echo()
    _print_table(constants[["name", "formula", "parameters", "source"]], "Published, with their constants")
    typer.echo()


def datasets_command(as_json: AsJson = False, debug: Debug = False) -> None:
    """List the sweeps that come with the package or can be fetched, with their sources and licences."""
    table = datasets()
    if as_json:
        typer.echo(table.to_json(orient="records", indent=1))
    else:
        _print_table(table[["name", "kind", "holds", "rows", "about", "licence"]])


def _print_table(table: pd.DataFrame, title: str | None = None) -> None:
    """Print a table as wide as the terminal; names are never broken, so that they can be copied."""
    from rich.console import Console
    from rich.table import Table

    listing = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in table.columns:
        listing.add_column(str(name), overflow="fold", no_wrap=name == "name")
    for row in table.itertuples(index=False):
        listing.add_row(*map(str, row))
    Console(highlight=False, markup=False).print(listing)
