"""`scalefit datasets`: the sweeps that can be loaded by name."""

from __future__ import annotations

import typer

from scalefit._datasets.load_dataset import datasets
from scalefit.cli.options import AsJson, Debug


def datasets_command(as_json: AsJson = False, debug: Debug = False) -> None:
    """List the sweeps that come with the package or can be fetched, with their sources and licences."""
    table = datasets()
    if as_json:
        typer.echo(table.to_json(orient="records", indent=1))
        return
    table = table[["name", "kind", "holds", "rows", "about", "licence"]]
    from rich.console import Console
    from rich.table import Table

    listing = Table(box=None, pad_edge=False)
    for name in table.columns:
        listing.add_column(str(name), overflow="fold", no_wrap=name == "name")
    for row in table.itertuples(index=False):
        listing.add_row(*map(str, row))
    Console(highlight=False, markup=False).print(listing)
