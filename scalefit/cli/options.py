"""Options that several commands share, and functions that read their texts."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

import typer

from scalefit.errors import ScalefitError, ScalefitWarning
from scalefit.loading.read_sweep import read_sweep
from scalefit.optima.cells import Estimator
from scalefit.optima.optimum_estimators import Basin, GridMinimum, NearMinimum, Parabola
from scalefit.solvers.losses import Huber, Loss, SoftL1, Squared
from scalefit.sweep import Sweep
from scalefit.vocabulary import parse_number

T = TypeVar("T")

Runs = Annotated[list[str], typer.Argument(help="Tables of runs: CSV, TSV, JSON lines, Parquet, or globs of them.")]
Where = Annotated[str | None, typer.Option(help="Use only these runs, e.g. 'params < 1e9'.")]
Column = Annotated[list[str] | None, typer.Option(help="Name a column: lr=my_lr. May be given more than once.")]
BatchUnit = Annotated[str | None, typer.Option(help="The data unit or sequences; proven from the table if possible.")]
DataUnit = Annotated[str, typer.Option(help="What tokens and batch count: tokens, images, samples, epochs, ...")]
SeqLen = Annotated[str | None, typer.Option(help="Sequence length, when the batch counts sequences.")]
Nonfinite = Annotated[str, typer.Option(help="What to do with a NaN or infinite loss: raise, diverged, drop.")]
Duplicates = Annotated[str, typer.Option(help="What to do with exact duplicates: raise, keep, drop.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of text.")]


def readable(command: Callable[..., None]) -> Callable[..., None]:
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


def read_runs(runs: list[str], where: str | None, column: list[str] | None, seq_len: str | None, **how: Any) -> Sweep:
    """Read the runs that a command is given; further options are those of `read_sweep`."""
    columns = read_assignments(column or [], str) or None
    length = int(parse_number(seq_len)) if seq_len is not None else None
    sweep = read_sweep(runs if len(runs) > 1 else runs[0], columns=columns, seq_len=length, **how)
    return sweep.where(where) if where else sweep


def read_assignments(texts: list[str], read: Callable[[str], Any]) -> dict[str, Any]:
    """Read texts such as ``params=7e9``."""
    pairs = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (equals and name and value):
            raise ValueError(f"expected name=value, found {text!r}")
        pairs[name] = read(value)
    return pairs


METHODS: Mapping[str, Callable[..., Estimator]] = MappingProxyType(
    {"grid": GridMinimum, "near": NearMinimum, "parabola": Parabola, "basin": Basin}
)
LOSSES: Mapping[str, Callable[..., Loss]] = MappingProxyType({"squared": Squared, "huber": Huber, "softl1": SoftL1})


def configured(option: str, text: str, known: Mapping[str, Callable[..., T]]) -> T:
    """Return one of several classes made with its defaults, or with the number in a text such as ``near:0.005``."""
    name, _, setting = text.partition(":")
    if name not in known or (setting and name in ("grid", "squared")):
        raise ValueError(f"{option}: expected one of {', '.join(known)}, with :number where it takes one")
    return known[name](parse_number(setting)) if setting else known[name]()
