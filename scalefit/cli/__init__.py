"""The shell: thin commands over the library's functions."""

from scalefit.cli.commands import app, main

__all__ = ["app", "main"]
