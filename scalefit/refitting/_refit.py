"""`refit`: folders of sweeps in, a folder of up-to-date results out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from scalefit._version import __version__
from scalefit.errors import RefitError, ScalefitError
from scalefit.refitting.discovery import Found, Paths, Source, discover, marked
from scalefit.refitting.folders import Outbox, is_free
from scalefit.refitting.produce import Product, digest_file, produce
from scalefit.refitting.records import Record, read_record, read_records
from scalefit.refitting.refit_result import Event, Refit, on_a_line
from scalefit.refitting.settings import Order, Settings, digest, read_settings, to_toml
from scalefit.refitting.summary import write_summary
from scalefit.refitting.workers import Workers


@dataclass(frozen=True)
class Plan:
    """What a refit is to do; constant while it runs."""

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

    Notes
    -----
    Interrupted (Ctrl-C), it keeps and summarises what is finished and returns with `exit_code` 130.

    Examples
    --------
    >>> import tempfile
    >>> from scalefit.simulation import simulate_sweep
    >>> folder = Path(tempfile.mkdtemp())
    >>> simulate_sweep(seed=0).to_csv(folder / "runs.csv", index=False)
    >>> done = refit(folder / "runs.csv", folder / "results", jobs=1, figures=False, report=False)
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
    with Outbox(plan.out) as outbox, warnings.catch_warnings():  # threads restore each other's filters
        try:
            with pool as workers, closing(workers.run(produce, _orders(found, plan, outbox, tell))) as answers:
                for order, answer in answers:
                    if isinstance(answer, Product):
                        outbox.put_folder(order.source.name, answer.files)
                        tell(order.source, "ok", moved="; ".join(map(str, answer.record.drift)))
                    else:
                        tell(order.source, "failed", _one_line(answer))
        except KeyboardInterrupt:
            interrupted = True
        finally:
            with outbox.lock():
                summary, unread = write_summary(outbox, events)
    return Refit(plan.out, tuple(events), summary, (*found.unreadable, *unread), interrupted)


def _orders(found: Found, plan: Plan, outbox: Outbox, tell: Callable[..., None]) -> Iterator[Order]:
    """Yield what is out of date; tell of what is not, and of files that cannot be read at all."""
    records = {record.source: record for record in read_records(plan.out)[0]}
    for source in found.sources:
        record = records.get(source.path)
        source = source if record is None else replace(source, name=record.name)
        try:
            order = _order(source, record, plan, outbox)
        except ScalefitError as error:
            tell(source, "failed", _one_line(error))
            continue
        if order is None:
            tell(source, "skipped")
        else:
            yield order


def _order(source: Source, record: Record | None, plan: Plan, outbox: Outbox) -> Order | None:
    """Return what is to be made of a file; None if the results recorded are up to date."""
    sha256 = digest_file(source.path)
    reading, analysis = plan.settings.of(source.path)
    wanted = digest(reading, analysis, plan.figures, plan.report)
    if record is None:
        source = _named(source, sha256, outbox)
        record = read_record(plan.out / source.name)  # of the file before it was moved here
    elif not plan.force and record.is_of(sha256, wanted, __version__) and record.is_whole(plan.out / record.name):
        return None
    same = record is not None and record.is_of(sha256, wanted, __version__)
    return Order(
        source,
        sha256,
        reading,
        analysis,
        settings=wanted,
        settings_source=plan.settings.source,
        settings_text=to_toml(reading, analysis),
        version=__version__,
        before=() if record is None or same else record.findings,
        drift=record.drift if record is not None and same else (),
        figures=plan.figures,
        report=plan.report,
    )


def _named(source: Source, sha256: str, outbox: Outbox) -> Source:
    """Return the source under a name that nothing else in this output has or wants.

    Results of another file, though it be deleted, and what someone else put there are not ours to replace.
    """
    names = source.name, marked(source.name, source.path)
    with outbox.lock():
        for name in names:
            if is_free(outbox.out / name, source.path, sha256) and outbox.claim(name, source.path):
                return replace(source, name=name)
    raise RefitError(f"{outbox.out / names[1]} is in the way: it holds something else than these results; move it")


def _one_line(error: BaseException) -> str:
    text = on_a_line(" ".join(str(error).split()))
    return text if isinstance(error, ScalefitError) else f"unforeseen {type(error).__name__}: {text}"
