"""Runs one function over many tasks on processes, a cluster or any executor, even if workers die."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import AbstractContextManager
from multiprocessing import forkserver, resource_tracker
from types import TracebackType
from typing import Any, TypeVar

import pandas as pd
from threadpoolctl import threadpool_limits

from scalefit.errors import RefitError

Task = TypeVar("Task")

# Text kept as Python objects: a tenth quicker than Arrow for tables of a few hundred rows.
_SHORT_TEXTS = ("mode.string_storage", "python")

# Objects made between two garbage collections. Figures are full of cycles: Python's 700 costs a tenth of the time.
_GARBAGE = 10_000

_DIED = (
    "its worker died twice: out of memory, a crash in compiled code, or a script without "
    "if __name__ == '__main__': around what it does (jobs=1 needs none)"
)

# Tasks in flight for every worker: enough to keep it busy, few enough that memory stays flat.
_AHEAD = 2


class Workers:
    """Where tasks run: this process if jobs is 1, processes of our own, or an executor of the user's, left as it is.

    Processes of our own use one BLAS thread each and leave Ctrl-C to the parent. They import the main module again, so
    a script that calls this needs the usual ``if __name__ == "__main__":`` or jobs=1.
    """

    # loky in place of the standard library: its workers start with ``python -m``, which imports modules that lie
    # beside the data, and each imports everything anew (there is no fork server); which file killed a worker would
    # still have to be found out here.

    def __init__(self, jobs: int = 2, executor: Executor | None = None) -> None:
        if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
            raise RefitError(f"jobs should be a whole number from 1 up, found {jobs!r}")
        self._jobs, self._given = jobs, executor
        self._executor = executor

    def __enter__(self) -> Workers:
        if self._given is None and self._jobs > 1:
            self._executor = _processes(self._jobs)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._executor is not None and self._given is None:
            _stop(self._executor, at_once=kind is not None)

    @property
    def window(self) -> int:
        """How many tasks may be in flight; an executor such as Dask's does not tell how many workers it has."""
        known = getattr(self._executor, "_max_workers", None) or self._jobs
        return _AHEAD * max(int(known), self._jobs)

    def run(self, work: Callable[[Task], Any], tasks: Iterable[Task]) -> Generator[tuple[Task, Any], None, None]:
        """Yield every task with its result, or with the exception it ended in, as they finish.

        A task whose worker died is tried once more, alone. If its worker dies again, the task is reported as failed;
        no other task is lost.
        """
        if self._executor is None:
            for task in tasks:
                with _one_blas_thread():  # as in a worker, so that sums agree to the last bit
                    answer = _answer(work, task)
                yield task, answer
            return
        pending = iter(tasks)
        running: dict[Future[Any], Task] = {}
        try:
            while True:
                while len(running) < self.window and (ready := next(pending, None)) is not None:
                    running[self._submit(work, ready)] = ready
                if not running:
                    return
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                answers = [(running.pop(future), _answer(future.result)) for future in finished]
                if any(isinstance(answer, BrokenExecutor) for _, answer in answers):
                    answers += [(task, _answer(future.result)) for future, task in running.items()]
                    running.clear()
                    yield from self._again(work, answers)
                else:
                    yield from answers
        finally:
            for future in running:
                future.cancel()

    def _submit(self, work: Callable[[Task], Any], task: Task) -> Future[Any]:
        """Submit a task; an executor that is found broken here counts like one that breaks while it works."""
        assert self._executor is not None
        try:
            return self._executor.submit(work, task)
        except (BrokenExecutor, OSError, RuntimeError) as error:  # the fork server died, or the executor was shut down
            failed: Future[Any] = Future()
            failed.set_exception(BrokenExecutor(str(error)))
            return failed

    def _again(self, work: Callable[[Task], Any], answers: list[tuple[Task, Any]]) -> Iterator[tuple[Task, Any]]:
        broken = [task for task, answer in answers if isinstance(answer, BrokenExecutor)]
        yield from ((task, answer) for task, answer in answers if not isinstance(answer, BrokenExecutor))
        self._renew()
        for task in broken:
            answer = _answer(self._submit(work, task).result)
            if isinstance(answer, BrokenExecutor):
                self._renew()
                answer = RefitError(_DIED)
            yield task, answer

    def _renew(self) -> None:
        if self._given is not None:
            raise RefitError(f"the executor given is broken ({type(self._given).__name__}); finished sweeps are kept")
        assert self._executor is not None
        _stop(self._executor, at_once=True)
        self._executor = _processes(self._jobs)


def _answer(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a call returns, or the exception it ends in."""
    try:
        return call(*arguments)
    except Exception as error:
        return error


def _processes(jobs: int) -> ProcessPoolExecutor:
    # A fork server copies a process that has imported everything once. Plain fork would copy locks that threads hold.
    has_server = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if has_server else "spawn")
    # multiprocessing starts its helpers as ``python -c``, which looks for modules in the working folder first: a
    # downloaded signal.py beside the data would be run.
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        resource_tracker.ensure_running()
        if has_server:
            context.set_forkserver_preload(["scalefit.refitting.results"])
            forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONSAFEPATH") if before is None else os.environ.update(PYTHONSAFEPATH=before)
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=prepare_worker)


def prepare_worker() -> None:
    """Prepare a worker, once: it leaves Ctrl-C to the parent, uses one BLAS thread and ends with the parent."""
    _one_blas_thread()
    pd.set_option(*_SHORT_TEXTS)
    gc.freeze()  # objects from imports live on, so collections need not visit them
    gc.set_threshold(_GARBAGE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _one_blas_thread() -> AbstractContextManager[Any]:
    """Limit every BLAS to one thread, for good or within a with statement."""
    import scipy.linalg  # noqa: F401  # brings a BLAS of its own, and only what is loaded can be limited

    return threadpool_limits(1)


def _end_with_parent() -> None:
    """End this worker when the parent ends, killed or not; otherwise it would wait for tasks forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _stop(executor: Executor, *, at_once: bool) -> None:
    processes = list((getattr(executor, "_processes", None) or {}).values())
    executor.shutdown(wait=not at_once, cancel_futures=at_once)
    for process in processes if at_once else ():
        if process.is_alive() and process.pid:
            os.kill(process.pid, signal.SIGTERM)
