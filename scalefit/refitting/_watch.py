"""Keeps refitting while files arrive; a file still being written is waited for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from scalefit.refitting._refit import Plan, refit_found
from scalefit.refitting.discovery import Found, Paths, discover
from scalefit.refitting.refit_result import Event, Refit
from scalefit.refitting.workers import Workers

Stamp = tuple[int, int]


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
    interval : float
        Seconds between looks.
    sleep : callable
        Waits so many seconds.

    Yields
    ------
    Refit
        One a round in which there was something to do, or a folder more that cannot be searched.
    """
    seen: dict[str, Stamp] = {}
    done: dict[str, Stamp] = {}
    told: set[tuple[str, str]] = set()
    while True:
        found = discover(paths, plan.out, missing_ok=True)
        now = {source.path: _stamp(source.path) for source in found.sources}
        ready = tuple(s for s in found.sources if seen.get(s.path) == now[s.path] != done.get(s.path))
        if ready or not told >= set(found.unreadable):
            result = refit_found(Found(ready, found.unreadable), plan, pool(), on_event)
            done |= {source.path: now[source.path] for source in ready}
            told = set(found.unreadable)
            yield result
            if result.interrupted:
                return
        seen = now
        sleep(interval)


def _stamp(path: str) -> Stamp:
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1  # gone again or not readable: the refit says so
    return status.st_size, status.st_mtime_ns
