"""Tasks survive a worker that dies, and an interrupt ends them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

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

    with Workers(2) as workers:
        run = workers.run(work, tasks())
        next(run)
        assert len(taken) <= workers.window + 2
        run.close()


def interrupted(workers: Workers, tasks) -> None:
    with workers:
        for _ in workers.run(time.sleep, tasks):
            raise KeyboardInterrupt


def test_an_interrupt_stops_the_processes():
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted(Workers(2), [0.0, *[600.0] * 6])
    assert time.monotonic() - started < 300


def test_an_executor_found_broken_only_when_a_task_is_handed_over_is_renewed(monkeypatch):
    submit, broken = ProcessPoolExecutor.submit, iter([True])

    def once(self, *arguments):
        if next(broken, False):
            raise BrokenProcessPool("idle workers were killed")
        return submit(self, *arguments)

    monkeypatch.setattr(ProcessPoolExecutor, "submit", once)
    assert results(Workers(2), range(14, 18)) == {n: n * n for n in range(14, 18)}


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


def test_no_job_is_refused():
    with pytest.raises(RefitError, match="jobs should be at least 1, found 0"):
        Workers(0)


if __name__ == "__main__":
    with Workers(2) as workers:
        for _, process in workers.run(whose, range(10**6)):
            print(process, flush=True)
