"""`scalefit refit`: folders of sweeps brought up to date, once or for as long as files arrive."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from scalefit.cli.options import Debug
from scalefit.errors import RefitError
from scalefit.refitting._refit import Plan, refit_found, watch
from scalefit.refitting.discovery import discover
from scalefit.refitting.settings import read_settings
from scalefit.refitting.summary import Event, Refit, on_a_line
from scalefit.refitting.workers import Workers

OnEvent = Callable[[Event], None]

_PATIENCE = 10.0
"""Seconds to wait for a cluster's first worker."""


def refit_command(
    paths: Annotated[list[str], typer.Argument(help="Files, globs or folders of tables of runs.")],
    out: Annotated[Path, typer.Option(help="The folder of results.")],
    config: Annotated[
        Path | None, typer.Option(help="Settings. [default: scalefit.toml here, if there is one]")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Processes.")] = 2,
    dask: Annotated[str | None, typer.Option(help="Address of a Dask scheduler to use instead, tcp://...")] = None,
    force: Annotated[bool, typer.Option("--force", help="Refit unchanged sweeps too.")] = False,
    watching: Annotated[bool, typer.Option("--watch", help="Keep running, and refit files as they arrive.")] = False,
    no_figures: Annotated[bool, typer.Option("--no-figures", help="Make no figures.")] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Make no HTML report of each sweep.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but what failed.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for each file and one at the end.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Bring every law up to date for the sweeps in some files and folders.

    Exits with 0 if all is well, 1 if some files failed (they are listed, the others are done), 130 if interrupted.
    """
    plan = Plan(out, read_settings(config), force, not no_figures, not no_report)
    try:
        with _executor(dask) as (executor, workers):
            pool = partial(Workers, workers or jobs, executor)
            code = _watch(paths, plan, pool, quiet, as_json) if watching else _once(paths, plan, pool, quiet, as_json)
    except KeyboardInterrupt:
        code = 130
    if code:
        raise typer.Exit(code)


def _once(paths: list[str], plan: Plan, pool: Callable[[], Workers], quiet: bool, as_json: bool) -> int:
    found = discover(paths, plan.out)
    with _progress(quiet, as_json) as show:
        result = refit_found(found, plan, pool(), show)
    return _conclude(result, quiet, as_json)


def _watch(paths: list[str], plan: Plan, pool: Callable[[], Workers], quiet: bool, as_json: bool) -> int:
    code = 0
    for path in discover(paths, plan.out, missing_ok=True).missing:
        text = json.dumps({"waiting": path}) if as_json else f"waiting for {path}: nothing there yet"
        typer.echo(text, err=not as_json)
    with _progress(quiet, as_json, on_a_line=True) as show:
        for result in watch(paths, plan, pool=pool, on_event=show):
            code = _conclude(result, quiet=True, as_json=as_json)
    return code


@contextmanager
def _executor(address: str | None) -> Iterator[tuple[Executor | None, int]]:
    """Connect to a Dask cluster, if one is asked for; yield it and how many threads it has."""
    if address is None:
        yield None, 0
        return
    try:
        from distributed import Client
    except ImportError:
        raise RefitError("--dask needs the package distributed: pip install 'scalefit[distributed]'") from None
    try:
        client = Client(address, timeout="10s")
    except OSError as error:
        raise RefitError(f"no Dask scheduler answers at {address}: {error}") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError:
            raise RefitError(
                f"the Dask scheduler at {address} has no workers; start some: dask worker {address}"
            ) from None
        yield client.get_executor(pure=False), sum(client.nthreads().values())


@contextmanager
def _progress(quiet: bool, as_json: bool, *, on_a_line: bool = False) -> Iterator[OnEvent]:
    """Show progress: a bar with the time left on a terminal, a line for each file in a log."""
    from rich.console import Console

    console = Console(stderr=True)
    if as_json:
        yield lambda event: typer.echo(json.dumps(asdict(event)))
    elif quiet:
        yield _show_failure
    elif on_a_line or not console.is_terminal:
        yield _show_line
    else:
        with _bar(console) as show:
            yield show


@contextmanager
def _bar(console: object) -> Iterator[OnEvent]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:  # type: ignore[arg-type]
        task = progress.add_task("refitting", total=None)

        def show(event: Event) -> None:
            progress.update(task, completed=event.done, total=event.total)
            if event.status == "failed":
                progress.console.print(on_a_line(f"failed  {event.path}: {event.error}"), markup=False, highlight=False)

        yield show


def _show_line(event: Event) -> None:
    more = f": {event.error}" if event.error else f"; moved: {event.moved}" if event.moved else ""
    typer.echo(on_a_line(f"[{event.done}/{event.total}] {event.status:7} {event.path}{more}"), err=True)


def _show_failure(event: Event) -> None:
    if event.status == "failed":
        typer.echo(on_a_line(f"failed  {event.path}: {event.error}"), err=True)


def _conclude(result: Refit, quiet: bool, as_json: bool) -> int:
    if as_json:
        counts = result.table["status"].value_counts().to_dict()
        last = {"out": str(result.out), **counts, "unreadable": dict(result.unreadable)}
        typer.echo(json.dumps(last | {"interrupted": result.interrupted, "exit_code": result.exit_code}))
    elif not quiet:
        typer.echo(f"{result!r}")
    else:
        for folder, why in result.unreadable:
            typer.echo(on_a_line(f"failed  {folder}: {why}"), err=True)
    return result.exit_code
