"""The shell: thin commands over the library's functions."""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from scalefit.errors import ScalefitError, ScalefitWarning
from scalefit.extractors import Basin, Extractor, GridMinimum, NearMinimum, Parabola
from scalefit.extrapolation import backtest
from scalefit.fitting import Fit
from scalefit.formatting import format_number, parse_number
from scalefit.laws import Law, catalog, get_law
from scalefit.loaders import read_sweep
from scalefit.recipes import fit_sweep
from scalefit.solvers.losses import Huber, Loss, SoftL1, Squared
from scalefit.sweep import Sweep
from scalefit.uncertainty import bootstrap
from scalefit.vocabulary import column_of

app = typer.Typer(
    help="Scaling laws for learning rate, batch size and loss, from tables of smaller runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Runs = Annotated[list[str], typer.Argument(help="Tables of runs: CSV, TSV, JSON lines, Parquet, or globs of them.")]
Where = Annotated[str | None, typer.Option(help="Use only these runs, e.g. 'params < 1e9'.")]
Column = Annotated[list[str] | None, typer.Option(help="Name a column: lr=my_lr. May be given more than once.")]
BatchUnit = Annotated[str | None, typer.Option(help="tokens or sequences; proven from the table if possible.")]
SeqLen = Annotated[str | None, typer.Option(help="Sequence length, when the batch counts sequences.")]
Nonfinite = Annotated[str, typer.Option(help="What to do with a NaN or infinite loss: raise, diverged, drop.")]
Duplicates = Annotated[str, typer.Option(help="What to do with exact duplicates: raise, keep, drop.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of text.")]


def _readable(command: Callable[..., None]) -> Callable[..., None]:
    """Turn errors into one line and exit code 2, and warnings into lines of their own."""

    @functools.wraps(command)
    def wrapped(*args: Any, debug: bool = False, **kwargs: Any) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ScalefitWarning)
            try:
                command(*args, debug=debug, **kwargs)
            except (ScalefitError, OSError, ValueError) as error:
                if debug:
                    raise
                typer.echo(f"error: {' '.join(str(error).split())}", err=True)
                raise typer.Exit(2) from None
            finally:
                for warning in caught:
                    typer.echo(f"warning: {warning.message}", err=True)

    return wrapped


@app.command("fit")
@_readable
def fit_command(
    runs: Runs,
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
    where: Where = None,
    column: Column = None,
    batch_unit: BatchUnit = None,
    seq_len: SeqLen = None,
    nonfinite: Nonfinite = "raise",
    duplicates: Duplicates = "raise",
    at: Annotated[str | None, typer.Option(help="Also predict there: 'params=7e9 tokens=1.4T'.")] = None,
    draws: Annotated[int, typer.Option("--bootstrap", help="Also refit this many cell-bootstrap resamples.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the fit as JSON (one law only).")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Fit laws to a table of runs and print them with their errors."""
    laws = [get_law(name) for name in law or ["lr_power"]]
    if out is not None and len(laws) > 1:
        raise ValueError("--out takes one law; run the command once for each")
    place = _place(at, laws) if at else {}
    sweep = _read(runs, where, column, batch_unit, seq_len, nonfinite, duplicates)
    records = []
    if not as_json:
        typer.echo(f"{sweep!r}\n")
    for chosen in laws:
        answer = fit_sweep(chosen, sweep, method=_method(method), loss=_loss(loss), space=space)
        if out is not None:
            answer.fit.to_json(out)
        if as_json:
            records.append(json.loads(answer.fit.to_json()))
            continue
        typer.echo(f"{_without_repeats(answer.fit, sweep.notes)!r}\n")
        if draws:
            typer.echo(f"{bootstrap(answer.fit, n=draws, seed=seed)!r}\n")
        if place:
            used = {column_of(name) for name in chosen.inputs}
            _print_prediction(answer.fit, {name: value for name, value in place.items() if name in used})
    if as_json:
        typer.echo(json.dumps(records if len(records) > 1 else records[0], indent=1))


@app.command("predict")
@_readable
def predict_command(
    fit: Annotated[Path, typer.Argument(help="A fit written by 'scalefit fit --out'.")],
    inputs: Annotated[list[str], typer.Argument(help="Where to predict: params=7e9 tokens=1.4T")],
    level: Annotated[float, typer.Option(help="Coverage of the interval.")] = 0.95,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Predict from a fit, with an interval."""
    fitted, place = Fit.from_json(fit), _assignments(inputs, parse_number)
    if as_json:
        typer.echo(json.dumps(fitted.predict(pd.DataFrame([place]), level=level).iloc[0].to_dict()))
    else:
        _print_prediction(fitted, place, level)


@app.command("backtest")
@_readable
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
        typer.Option(help="How optima are read off: grid, near[:0.0025], parabola. [default: near and parabola]"),
    ] = None,
    published: Annotated[
        list[str] | None, typer.Option(help="A published law or pair to enter, such as porian2024.")
    ] = None,
    where: Where = None,
    column: Column = None,
    batch_unit: BatchUnit = None,
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
        _read(runs, where, column, batch_unit, seq_len, nonfinite, duplicates),
        holdout,
        laws=law or ["lr_power"],
        batch_law=batch_law,
        methods=[chosen for text in method if (chosen := _method(text)) is not None] if method else None,
        published=published or (),
        level=level,
    )
    if out is not None:
        report.table.to_csv(out, index=False)
    typer.echo(report.summary().to_json(orient="records", indent=1) if as_json else f"{report!r}\n")


@app.command("laws")
@_readable
def laws_command(as_json: AsJson = False, debug: Debug = False) -> None:
    """List the laws: built-in forms to fit, and published ones with their constants."""
    table = catalog()
    if as_json:
        typer.echo(table.to_json(orient="records", indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    for kind, title in (("form", "Forms, to be fitted"), ("constants", "Published, with their constants")):
        listing = Table(title=title, title_justify="left", box=None, pad_edge=False)
        names = ["name", "formula", "source"] if kind == "form" else ["name", "formula", "parameters", "source"]
        for name in names:
            listing.add_column(name, overflow="fold", no_wrap=name == "name")
        for row in table.loc[table["kind"] == kind, names].itertuples(index=False):
            listing.add_row(*map(str, row))
        Console(highlight=False, markup=False).print(listing, "")


def _read(
    runs: list[str],
    where: str | None,
    column: list[str] | None,
    batch_unit: str | None,
    seq_len: str | None,
    nonfinite: str,
    duplicates: str,
) -> Sweep:
    sweep = read_sweep(
        runs if len(runs) > 1 else runs[0],
        columns=_assignments(column or [], str) or None,
        batch_unit=batch_unit,
        seq_len=int(parse_number(seq_len)) if seq_len is not None else None,
        nonfinite=nonfinite,
        duplicates=duplicates,
    )
    return sweep.where(where) if where else sweep


def _place(text: str, laws: list[Law]) -> dict[str, float]:
    """Read where to predict; every input of every law must be there, and nothing else."""
    given = {column_of(n): v for n, v in _assignments(text.replace(",", " ").split(), parse_number).items()}
    wanted = {column_of(name) for law in laws for name in law.inputs}
    if given.keys() != wanted:
        raise ValueError(f"--at: expected {', '.join(sorted(wanted))}; found {', '.join(given)}")
    return given


def _print_prediction(fit: Fit, place: dict[str, float], level: float = 0.95) -> None:
    table = fit.predict(pd.DataFrame([place]), level=level)
    row = table.iloc[0]
    where = ", ".join(f"{name} = {format_number(row[name])}" for name in table.columns[:-4])
    value, low, high = (format_number(row[name], 3) for name in ("prediction", "lo", "hi"))
    beyond = f"; {format_number(row['reach'], 3)}x beyond the fitted range" if row["reach"] > 1 else ""
    typer.echo(f"{fit.law.target} at {where}: {value} ({level:.0%} {low} to {high}{beyond})\n")


def _without_repeats(fit: Fit, shown: Any) -> Fit:
    """Leave out the notes already printed with the sweep."""
    return replace(fit, notes=tuple(note for note in fit.notes if note not in shown))


def _assignments(texts: list[str], read: Callable[[str], Any]) -> dict[str, Any]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise ValueError(f"expected name=value, found {text!r}")
        pairs[name.strip()] = read(value.strip())
    return pairs


def _method(text: str | None) -> Extractor | None:
    if text is None:
        return None
    name, _, setting = text.partition(":")
    known: dict[str, Callable[..., Extractor]] = {
        "grid": GridMinimum,
        "near": NearMinimum,
        "parabola": Parabola,
        "basin": Basin,
    }
    return _configured("--method", name, setting, known)


def _loss(text: str) -> Loss:
    name, _, setting = text.partition(":")
    known: dict[str, Callable[..., Loss]] = {"squared": Squared, "huber": Huber, "softl1": SoftL1}
    return _configured("--loss", name, setting, known)


def _configured(option: str, name: str, setting: str, known: dict[str, Callable[..., Any]]) -> Any:
    if name not in known or (setting and name in ("grid", "squared")):
        raise ValueError(f"{option}: expected one of {', '.join(known)}, with :number where it takes one")
    return known[name](parse_number(setting)) if setting else known[name]()


def main() -> None:
    """Run the command line."""
    pd.set_option("display.width", 120)
    app()
