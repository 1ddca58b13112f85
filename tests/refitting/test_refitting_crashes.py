"""Whatever kills a refit, running it again gives what an undisturbed one gives; several can share a folder."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from refitting_samples import QUICK, contents, write_sweeps

from scalefit.refitting._refit import refit

COMMAND = [sys.executable, "-m", "scalefit.cli", "refit"]
CONFIG = "[fit]\ndraws = 20\n"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Return a folder with sweeps and settings, and the output of an undisturbed refit of them."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_sweeps(folder / "in", 4)
    (folder / "in" / "bad.csv").write_text("no sweep\n1\n")
    (folder / "scalefit.toml").write_text(CONFIG)
    assert run(folder, "out").wait() == 1
    return folder, contents(folder / "out")


def run(folder: Path, out: str, *more: str, **settings) -> subprocess.Popen:
    command = [*COMMAND, "in", "--out", out, "--no-figures", "--no-report", *more]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=folder, **(quiet | settings))


KILLS_ITSELF = """
import os, signal
from scalefit.refitting._refit import refit

def tell(event):
    if event.status == "ok":
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    refit("in", "killed", figures=False, report=False, on_event=tell)
"""


def check_whole(left, expected):
    """Check that the results of every sweep are complete, and return their number."""
    whole = {name: data for name, data in left.items() if "/" in name}
    assert whole.items() <= expected.items(), "something half done is in sight"
    finished = {name.split("/")[0] for name in whole}
    for name in finished:
        assert {n for n in left if n.startswith(f"{name}/")} == {n for n in expected if n.startswith(f"{name}/")}
    return len(finished)


@pytest.mark.skipif(os.name != "posix", reason="a process kills itself by a signal")
@pytest.mark.parametrize("kills", [2, pytest.param(15, marks=pytest.mark.slow)])
def test_killed_at_any_moment_and_run_again_the_output_is_the_same_to_the_byte(undisturbed, kills):
    """The first kill comes when one sweep of four is finished; the others at any moment of a refit of all."""
    folder, expected = undisturbed
    shutil.rmtree(folder / "killed", ignore_errors=True)
    (folder / "kills_itself.py").write_text(KILLS_ITSELF)
    first = subprocess.run([sys.executable, "kills_itself.py"], cwd=folder, stderr=subprocess.DEVNULL)
    assert first.returncode == -signal.SIGKILL
    assert check_whole(contents(folder / "killed"), expected) == 1
    moments = random.Random(kills)
    for _ in range(kills):
        process = run(folder, "killed", "--force")
        time.sleep(moments.uniform(0.5, 3.5))
        process.kill()
        process.wait()
        assert check_whole(contents(folder / "killed"), expected) >= 1
    assert run(folder, "killed").wait() == 1
    assert contents(folder / "killed") == expected
    assert [path.name for path in (folder / "killed" / ".staging").iterdir()] == ["folder.lock"]


def test_two_at_once_neither_lose_nor_damage_anything(undisturbed):
    folder, expected = undisturbed
    both = [run(folder, "shared"), run(folder, "shared")]
    assert [process.wait() for process in both] == [1, 1]
    assert contents(folder / "shared") == expected
    assert [path.name for path in (folder / "shared" / ".staging").iterdir()] == ["folder.lock"]


def test_two_at_once_with_different_files_are_both_summarised(tmp_path):
    folder = write_sweeps(tmp_path / "in", 4)

    def part(numbers):
        paths = [folder / f"sweep{n}.csv" for n in numbers]
        return refit(paths, tmp_path / "out", config=QUICK, jobs=1, figures=False, report=False)

    with ThreadPoolExecutor(2) as pool:
        assert [result.exit_code for result in pool.map(part, [(0, 1), (2, 3)])] == [0, 0]
    result = part([])
    assert result.summary["name"].tolist() == [f"sweep{n}" for n in range(4)]


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is sent as a signal")
def test_ctrl_c_keeps_what_is_finished(undisturbed):
    folder, expected = undisturbed
    process = run(folder, "stopped", "--json", "--jobs", "1", stdout=subprocess.PIPE, text=True)
    lines = [process.stdout.readline(), process.stdout.readline()]
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate()
    events = [json.loads(line) for line in [*lines, *rest.splitlines()]]
    assert process.returncode == 130
    assert events[-1]["interrupted"] is True
    assert events[-1]["exit_code"] == 130
    finished = {event["name"] for event in events[:-1] if event["status"] == "ok"}
    assert finished
    left = contents(folder / "stopped")
    assert {name.split("/")[0] for name in left if "/" in name} == finished
    assert {name: data for name, data in left.items() if "/" in name}.items() <= expected.items()
    summary = left["summary.csv"].decode().splitlines()
    assert {line.split(",")[0] for line in summary[1:]} == finished | {"bad"}
    assert run(folder, "stopped").wait() == 1
    assert contents(folder / "stopped") == expected


def test_a_worker_that_is_killed_costs_nothing(undisturbed):
    folder, expected = undisturbed
    process = run(folder, "wounded", "--json", stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    workers = workers_of(process.pid)
    assert workers, "they are there until the last of the five files is done"
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    process.communicate()
    assert process.returncode == 1
    assert contents(folder / "wounded") == expected


def workers_of(parent: int) -> list[int]:
    """Return the workers of a refit: the children of its fork server, which is one of its own children."""
    if not Path("/proc/self/task").exists():
        pytest.skip("children are looked up in /proc")
    children = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(status.parent.name))
    return [worker for child in children.get(parent, []) for worker in children.get(child, [])]


SCHEDULER = """
import sys, time
from distributed import LocalCluster
if __name__ == "__main__":
    options = dict(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1")
    with LocalCluster(**options) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


@pytest.mark.slow
def test_a_cluster_gives_the_same_and_outlives_a_worker(undisturbed):
    distributed = pytest.importorskip("distributed")
    folder, expected = undisturbed
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", SCHEDULER], **pipes) as cluster:
        try:
            address = cluster.stdout.readline().strip()
            with distributed.Client(address) as client:
                victim = next(iter(client.run(os.getpid).values()))
            process = run(folder, "cluster", "--json", "--dask", address, stdout=subprocess.PIPE, text=True)
            process.stdout.readline()  # one of five files is done
            os.kill(victim, signal.SIGKILL)
            process.communicate()
        finally:
            cluster.stdin.close()
    assert process.returncode == 1
    assert contents(folder / "cluster") == expected


@pytest.mark.slow
def test_no_scheduler_is_one_clear_line(undisturbed):
    pytest.importorskip("distributed")
    process = run(undisturbed[0], "nobody", "--dask", "tcp://127.0.0.1:9", stderr=subprocess.PIPE, text=True)
    _, errors = process.communicate()
    assert process.returncode == 2
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in errors
