"""The commands of the shell, gathered: thin layers over the library's functions."""

from __future__ import annotations

import io
import sys

import pandas as pd
import typer

from scalefit.cli.commands import backtest_command, datasets_command, fit_command, laws_command, predict_command
from scalefit.cli.options import readable
from scalefit.cli.refit_commands import refit_command

app = typer.Typer(
    help="Scaling laws for learning rate, batch size and loss, from tables of smaller runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (fit_command, predict_command, backtest_command, refit_command, laws_command, datasets_command):
    app.command(command.__name__.removesuffix("_command"))(readable(command))


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show must not end a command
    pd.set_option("display.width", 120)
    app()
