"""`scalefit laws` and `datasets`: what can be named, the laws to fit and the sweeps to load."""

from __future__ import annotations

import pandas as pd
import typer

from scalefit._datasets.load_dataset import datasets
from scalefit.cli.options import AsJson, Debug
from scalefit.laws import catalog


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
