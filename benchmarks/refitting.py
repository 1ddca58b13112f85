"""What refitting folders costs against the number of files, and whether it survives being killed.

    python benchmarks/refitting.py                     # 10, 100 and 1,000 files: tables only, with all, nothing changed
    python benchmarks/refitting.py --files 10 100
    python benchmarks/refitting.py --kills 50          # kill -9 at 50 random moments; the output must not differ

Every file has 200 runs. Half of the files search the learning rate in 25 cells, half the learning rate and the batch in
8. Wall time depends on what else the machine does; CPU time (user and system, of all processes) hardly does.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from scalefit.simulation import Design, simulate_sweep

DESIGNS = (
    Design(params=(1e7, 3e7, 1e8, 3e8, 1e9), tokens=(1e9, 3e9, 1e10, 3e10, 1e11), lr_levels=8, batch_levels=1),
    Design(tokens=(2e9, 1.6e10), lr_levels=5, batch_levels=5),
)
TABLES_ONLY = ("--no-figures", "--no-report")


@dataclass(frozen=True)
class Cost:
    """Seconds, seconds of CPU, and resident MiB of all processes together: early, late and at most."""

    wall: float
    cpu: float
    early: float
    late: float
    peak: float


def write_files(folder: Path, count: int) -> None:
    folder.mkdir()
    settings = '[read]\nbatch_unit = "tokens"\nnonfinite = "diverged"\n'
    (folder.parent / "scalefit.toml").write_text(settings)
    for seed in range(count):
        simulate_sweep(design=DESIGNS[seed % 2], seed=seed).to_csv(folder / f"sweep{seed:04}.csv", index=False)


def start(folder: Path, out: str, jobs: int, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "scalefit.cli", "refit", "in", "--out", out, "--jobs", str(jobs), "--quiet", *more]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)


def measure(folder: Path, out: str, jobs: int, *more: str) -> Cost:
    began = time.perf_counter()
    process = start(folder, out, jobs, *more)
    memory: list[float] = []
    cpu: dict[int, float] = {}
    watcher = threading.Thread(target=sample, args=(process, memory, cpu))
    watcher.start()
    if process.wait():
        raise SystemExit(f"refit ended with {process.returncode}")
    wall = time.perf_counter() - began
    watcher.join()
    fifth = max(len(memory) // 5, 1)
    early, late = (sorted(part)[len(part) // 2] for part in (memory[fifth : 2 * fifth] or memory, memory[-fifth:]))
    return Cost(wall, sum(cpu.values()), early, late, max(memory))


def sample(process: subprocess.Popen[bytes], memory: list[float], cpu: dict[int, float]) -> None:
    """Add up memory and CPU of a process and all below it, a few times a second, while it runs (Linux)."""
    page, tick = resource.getpagesize() / 2**20, os.sysconf("SC_CLK_TCK")
    while process.poll() is None:
        rows = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                rows[int(path.parent.name)] = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
        family = {process.pid}
        for _ in range(4):
            family |= {number for number, fields in rows.items() if int(fields[1]) in family}
        alive = family & rows.keys()
        memory.append(sum(int(rows[number][21]) * page for number in alive))
        cpu |= {number: (int(rows[number][11]) + int(rows[number][12])) / tick for number in alive}
        time.sleep(0.2)


def report(count: int, what: str, cost: Cost) -> None:
    print(
        f"{count:6} files  {what:22} {cost.wall:8.1f} s  {count / cost.wall:6.1f} files/s  CPU {cost.cpu:7.1f} s "
        f"({1000 * cost.cpu / count:5.0f} ms/file)  memory {cost.early:4.0f} -> {cost.late:4.0f} MiB, "
        f"at most {cost.peak:4.0f}",
        flush=True,
    )


def costs(folder: Path, counts: list[int], jobs: int, pages: int) -> None:
    for count in counts:
        here = folder / str(count)
        here.mkdir()
        write_files(here / "in", count)
        report(count, "tables only", measure(here, "tables", jobs, *TABLES_ONLY))
        report(count, "nothing changed", measure(here, "tables", jobs, *TABLES_ONLY))
        if count <= pages:
            report(count, "figures and report", measure(here, "all", jobs))
            report(count, "nothing changed", measure(here, "all", jobs))


def contents(out: Path) -> dict[str, bytes]:
    files = (path for path in out.rglob("*") if path.is_file() and ".staging" not in path.parts)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def kills(folder: Path, count: int, jobs: int, files: int = 12) -> None:
    """Kill a refit again and again, at random moments, then let it finish and compare with an undisturbed one."""
    write_files(folder / "in", files)
    began = time.perf_counter()
    start(folder, "undisturbed", jobs).wait()
    whole = time.perf_counter() - began
    expected, moments = contents(folder / "undisturbed"), random.Random(0)
    torn = 0
    for number in range(count):
        out = f"killed{number % 5}"
        process = start(folder, out, jobs)
        time.sleep(moments.uniform(0.0, 1.1 * whole))
        process.kill()
        process.wait()
        seen = {name: data for name, data in contents(folder / out).items() if "/" in name}
        torn += any(expected.get(name) != data for name, data in seen.items())
        if number >= count - 5 or len({name.partition("/")[0] for name in seen}) == files:
            start(folder, out, jobs).wait()
            if contents(folder / out) != expected:
                raise SystemExit(f"after kill {number + 1} the output differs from an undisturbed one")
            subprocess.run(["rm", "-r", str(folder / out)], check=True)
    print(
        f"{count} kills: {torn} left something half done in sight; all outputs finished later were the same to the byte"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--pages", type=int, default=1000, help="with figures and report up to this many files")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--kills", type=int, default=0)
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if settings.kills:
            kills(Path(folder), settings.kills, settings.jobs)
        else:
            costs(Path(folder), settings.files, settings.jobs, settings.pages)


if __name__ == "__main__":
    main()
