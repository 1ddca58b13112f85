"""`refit` and `watch`: folders of sweeps in, an up-to-date folder of results out, once or while files arrive."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scalefit._version import __version__
from scalefit.errors import RefitError, ScalefitError, SweepError
from scalefit.refitting.discovery import Found, Paths, Source, discover, marked
from scalefit.refitting.output_folder import OutputFolder, Record, is_free, read_record, read_records
from scalefit.refitting.results import Product, Task, digest_file, produce
from scalefit.refitting.settings import Settings, digest, read_settings
from scalefit.refitting.summary import Event, Refit, on_a_line, write_summary
from scalefit.refitting.workers import Workers


@dataclass(frozen=True)
class Plan:
    """What a refit is to do; constant while it runs.

    Parameters
    ----------
    out : Path
        The folder of results.
    settings : Settings
    force : bool
        Refit unchanged sweeps too.
    figures, report : bool
        Whether to make them.

    See Also
    --------
    watch : Follows a plan for as long as files arrive.

    Examples
    --------
    >>> import scalefit as sf
    >>> sf.refitting.Plan(Path("results"), sf.refitting.Settings(), figures=False).force
    False
    """

    out: Path
    settings: Settings
    force: bool = False
    figures: bool = True
    report: bool = True


def refit(
    paths: Paths,
    out: str | os.PathLike[str],
    *,
    config: str | os.PathLike[str] | Settings | None = None,
    jobs: int = 2,
    executor: Executor | None = None,
    force: bool = False,
    figures: bool = True,
    report: bool = True,
    on_event: Callable[[Event], None] | None = None,
) -> Refit:
    """Bring the results of every sweep in some folders up to date.

    For each file: load, optima, laws for learning rate and batch chosen by held-out cells, joint surface, loss law,
    backtest on the largest cells, bootstrap; a folder of results with `fit.json`, tables, figures and a report; and
    over all, `summary.csv`, `summary.parquet` and `index.html`. A file whose content, settings and scalefit version
    are those of its results is skipped. Results replace older ones whole or not at all.

    Parameters
    ----------
    paths : path or iterable of path
        Files, globs and folders.
    out : path
        The folder of results; several refits may share it at the same time.
    config : path or Settings, optional
        A `scalefit.toml`; by default the one in the working folder, if there is one.
    jobs : int
        Processes. 1 runs everything in this process. With a Dask executor: how many workers it is to keep busy.
    executor : concurrent.futures.Executor, optional
        Used instead of processes of our own, for example ``distributed.Client(address).get_executor()``.
    force : bool
        Refit unchanged sweeps too.
    figures, report : bool
        Whether to make them.
    on_event : callable, optional
        Called with an `Event` as each file is done.

    Returns
    -------
    Refit
        A row for each file; `exit_code` is 1 if some failed.

    Raises
    ------
    SweepError
        If a path names nothing, or the settings mean nothing.
    RefitError
        If the output folder cannot be written; everything finished before is kept.

    See Also
    --------
    scalefit.refitting.read_fits : Reads the laws back.
    scalefit.refitting.watch : Refits files as they arrive.

    Notes
    -----
    Interrupted (Ctrl-C), it keeps and summarises what is finished and returns with `exit_code` 130.

    Examples
    --------
    >>> import tempfile
    >>> import scalefit as sf
    >>> folder = Path(tempfile.mkdtemp())
    >>> sf.simulation.simulate_sweep(seed=0).to_csv(folder / "runs.csv", index=False)
    >>> done = sf.refit(folder / "runs.csv", folder / "results", jobs=1, figures=False, report=False)
    >>> done.table[["name", "status"]].to_dict("records")
    [{'name': 'runs', 'status': 'ok'}]
    """
    settings = config if isinstance(config, Settings) else read_settings(config)
    plan = Plan(Path(out), settings, force, figures, report)
    return refit_found(discover(paths, plan.out), plan, Workers(jobs, executor), on_event)


def refit_found(found: Found, plan: Plan, pool: Workers, on_event: Callable[[Event], None] | None) -> Refit:
    """Refit the files found; the rest of `refit`."""
    events: list[Event] = []

    def tell(source: Source, status: str, error: str = "", moved: str = "") -> None:
        events.append(Event(source.name, source.path, status, error, len(events) + 1, len(found.sources), moved))
        if on_event is not None:
            on_event(events[-1])

    interrupted = False
    folder = OutputFolder(plan.out)
    try:
        with pool as workers, closing(workers.run(produce, _tasks(found, plan, tell))) as answers:
            for task, answer in answers:
                done = _publish(folder, task, answer) if isinstance(answer, Product) else answer
                if isinstance(done, Record):
                    tell(replace(task.source, name=done.name), "ok", moved="; ".join(map(str, done.drift)))
                else:
                    tell(task.source, "failed", _one_line(done))
    except KeyboardInterrupt:
        interrupted = True
    finally:
        with folder.lock:
            summary, unread = write_summary(folder, events)
    return Refit(plan.out, tuple(events), summary, (*found.unreadable, *unread), interrupted)


def _tasks(found: Found, plan: Plan, tell: Callable[..., None]) -> Iterator[Task]:
    """Yield tasks for sweeps that are out of date; report those that are not, and files that cannot be read."""
    by_source = {record.source: record for record in read_records(plan.out)[0]}
    for source in found.sources:
        record = by_source.get(source.path)
        source = source if record is None else replace(source, name=record.name)
        try:
            task = _task(source, record, plan)
        except ScalefitError as error:
            tell(source, "failed", _one_line(error))
            continue
        if task is None:
            tell(source, "skipped")
        else:
            yield task


def _task(source: Source, record: Record | None, plan: Plan) -> Task | None:
    """Return the task for a file; None if the recorded results are up to date."""
    sha256 = digest_file(source.path)
    reading, analysis = plan.settings.of(source.path)
    wanted = digest(reading, analysis, plan.figures, plan.report)
    if record is None:
        source = _named(source, sha256, plan.out)
        record = read_record(plan.out / source.name)  # the results of the same file before it was moved
    elif not plan.force and record.is_of(sha256, wanted, __version__) and record.is_whole(plan.out / record.name):
        return None
    same = record is not None and record.is_of(sha256, wanted, __version__)
    return Task(
        source,
        sha256,
        reading,
        analysis,
        settings=wanted,
        settings_source=plan.settings.source,
        before=() if record is None or same else record.findings,
        drift=record.drift if record is not None and same else (),
        figures=plan.figures,
        report=plan.report,
    )


def _named(source: Source, sha256: str, out: Path) -> Source:
    """Return the source under a name whose folder is free for it.

    A refit never replaces the results of another file, even a deleted one, or what someone else put into the folder.
    """
    names = source.name, marked(source.name, source.path)
    for name in names:
        if is_free(out / name, source.path, sha256):
            return replace(source, name=name)
    raise RefitError(f"{out / names[1]} is in the way: it holds something else than these results; move it")


def _publish(folder: OutputFolder, task: Task, product: Product) -> Record | SweepError:
    """Put results in place, and return their record."""
    while True:
        with folder.lock:
            if is_free(folder.out / product.record.name, task.source.path, task.sha256):
                folder.put_folder(product.record.name, product.files)
                return product.record
        # Meanwhile another refit has put results of a file of the same name there. Results contain their name, so they
        # are made once more under another name.
        task = replace(task, source=_named(task.source, task.sha256, folder.out), before=(), drift=())
        try:
            product = produce(task)
        except SweepError as error:  # the file has changed meanwhile
            return error


def _one_line(error: BaseException) -> str:
    text = on_a_line(" ".join(str(error).split()))
    return text if isinstance(error, ScalefitError) else f"unforeseen {type(error).__name__}: {text}"


def watch(
    paths: Paths,
    plan: Plan,
    *,
    pool: Callable[[], Workers] = Workers,
    on_event: Callable[[Event], None] | None = None,
    interval: float = 2.0,
    sleep: Callable[[float], Any] = time.sleep,
) -> Iterator[Refit]:
    """Refit files as they appear or change, and yield what each round did.

    A file is taken up once its size and time of change have been the same in two looks one interval apart. A writer
    slower than that does no harm: the file is refitted when it changes again. Ctrl-C during a round ends it, and the
    watch, with what is finished kept; between rounds it raises KeyboardInterrupt as anywhere.

    Parameters
    ----------
    paths : path or iterable of path
        Files, globs and folders, which need not match anything yet.
    plan : Plan
    pool : callable
        Makes the workers of one round.
    on_event : callable, optional
        Called with an `Event` as each file is done.
    interval : float
        Seconds between looks.
    sleep : callable
        Waits so many seconds.

    Yields
    ------
    Refit
        One a round in which there was something to do, or a folder more that cannot be searched.

    See Also
    --------
    scalefit.refit : Looks once.

    Examples
    --------
    >>> import tempfile
    >>> import scalefit as sf
    >>> folder = Path(tempfile.mkdtemp())
    >>> sf.simulation.simulate_sweep(seed=0).to_csv(folder / "runs.csv", index=False)
    >>> plan = sf.refitting.Plan(folder / "results", sf.refitting.Settings(), figures=False, report=False)
    >>> next(sf.refitting.watch(folder, plan, interval=0.01)).exit_code
    0
    """
    seen: dict[str, tuple[int, int]] = {}
    done: dict[str, tuple[int, int]] = {}
    reported: set[tuple[str, str]] = set()
    while True:
        found = discover(paths, plan.out, missing_ok=True)
        now = {source.path: _stamp(source.path) for source in found.sources}
        ready = tuple(s for s in found.sources if seen.get(s.path) == now[s.path] != done.get(s.path))
        if ready or not reported >= set(found.unreadable):
            result = refit_found(Found(ready, found.unreadable), plan, pool(), on_event)
            done |= {source.path: now[source.path] for source in ready}
            reported = set(found.unreadable)
            yield result
            if result.interrupted:
                return
        seen = now
        sleep(interval)


def _stamp(path: str) -> tuple[int, int]:
    """Return size and time of change; None for a file that is gone or not readable, which the refit reports."""
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns
