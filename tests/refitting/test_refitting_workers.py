"""Tasks survive a worker that dies, and an interrupt ends them."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from multiprocessing.process import BaseProcess

import pytest

from scalefit.errors import RefitError
from scalefit.refitting.workers import Workers


def work(task: int) -> int:
    """Square a number; 13 kills the process, 7 fails."""
    if task == 13:
        os._exit(9)
    if task == 7:
        raise ValueError("seven")
    time.sleep(0.01)
    return task * task


def results(workers: Workers, tasks) -> dict:
    with workers:
        return dict(workers.run(work, tasks))


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_task_has_its_answer(jobs):
    found = results(Workers(jobs), range(10))
    assert {task: answer for task, answer in found.items() if task != 7} == {n: n * n for n in range(10) if n != 7}
    assert isinstance(found[7], ValueError)


def test_a_task_that_kills_its_worker_loses_only_itself():
    found = results(Workers(2), range(10, 20))
    assert {task: answer for task, answer in found.items() if task != 13} == {
        n: n * n for n in range(10, 20) if n != 13
    }
    assert isinstance(found[13], RefitError)
    assert "its worker died twice" in str(found[13])


def test_any_executor_serves_and_is_left_open():
    with ThreadPoolExecutor(3) as pool:
        assert results(Workers(executor=pool), range(5)) == {n: n * n for n in range(5)}
        assert pool.submit(work, 3).result() == 9


def test_few_tasks_are_in_flight():
    taken = []

    def tasks():
        for n in range(20, 60):
            taken.append(n)
            yield n

    with Workers(2) as workers, closing(workers.run(work, tasks())) as answers:
        next(answers)
        assert len(taken) == workers.window == 4, "two for each worker"


def test_every_worker_of_an_executor_is_kept_busy():
    """Six tasks wait for each other: fewer in flight would wait until the barrier breaks."""
    barrier = threading.Barrier(6)

    def meet(task: int) -> int:
        barrier.wait(timeout=60)
        return task

    with ThreadPoolExecutor(6) as pool, Workers(executor=pool) as workers:
        assert dict(workers.run(meet, range(12))) == {n: n for n in range(12)}


def interrupted(workers: Workers, tasks, others: list[BaseProcess], mine: list[BaseProcess]) -> None:
    with workers, closing(workers.run(time.sleep, tasks)) as answers:
        for _ in answers:
            mine += [process for process in multiprocessing.active_children() if process not in others]
            raise KeyboardInterrupt


def test_an_interrupt_stops_the_processes():
    mine: list[BaseProcess] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted(Workers(2), [0.0, *[60.0] * 6], multiprocessing.active_children(), mine)
    assert mine
    for process in mine:
        process.join()
        assert process.exitcode, "it went on to its end"


@pytest.mark.parametrize(
    "error",
    [BrokenProcessPool("idle workers were killed"), OSError("the fork server is gone"), RuntimeError("shut down")],
    ids=lambda error: type(error).__name__,
)
def test_an_executor_found_broken_only_when_a_task_is_handed_over_is_renewed(monkeypatch, error):
    submit, broken = ProcessPoolExecutor.submit, iter([True])

    def once(self, *arguments):
        if next(broken, False):
            raise error
        return submit(self, *arguments)

    monkeypatch.setattr(ProcessPoolExecutor, "submit", once)
    assert results(Workers(2), range(14, 18)) == {n: n * n for n in range(14, 18)}


def test_an_executor_that_was_shut_down_is_refused():
    pool = ThreadPoolExecutor(2)
    pool.shutdown()
    with pytest.raises(RefitError, match=r"the executor given is broken \(ThreadPoolExecutor\)"):
        results(Workers(executor=pool), range(3))


def test_workers_end_when_their_parent_is_killed():
    with subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
    assert gone(worker)


def gone(process: int) -> bool:
    for _ in range(600):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def whose(task: int) -> int:
    """Return the process a task runs in, after long enough for the others to start."""
    time.sleep(0.1)
    return os.getpid()


def test_tasks_run_with_one_blas_thread():
    with Workers(1) as workers:
        answers = [answer for _, answer in workers.run(threads, [0])]
    with Workers(2) as workers:
        answers += [answer for _, answer in workers.run(threads, range(4))]
    assert set(answers) <= {(1,), (1, 1), ()}


def threads(task: int) -> tuple[int, ...]:
    import numpy  # noqa: F401
    from threadpoolctl import threadpool_info

    return tuple(pool["num_threads"] for pool in threadpool_info())


@pytest.mark.parametrize("jobs", [0, -1, True, 2.0, "2"])
def test_jobs_that_are_no_number_of_processes_are_refused(jobs):
    with pytest.raises(RefitError, match=f"jobs should be a whole number from 1 up, found {jobs!r}"):
        Workers(jobs)


if __name__ == "__main__":
    with Workers(2) as workers:
        for _, process in workers.run(whose, range(10**6)):
            print(process, flush=True)
