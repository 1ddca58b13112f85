"""Read ten million points of loss curves from one Parquet file: seconds, and the peak of the memory of a process.

    OMP_NUM_THREADS=1 python benchmarks/read_curves.py [points] [runs]

Eight columns: run (text), step, tokens, loss, and four settings repeated at every point. Each way of reading has a
process of its own, so that its peak is its own; "nothing" is what Python, numpy and pandas take by themselves.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

WAYS = {
    "nothing": "import scalefit, pandas",
    "pandas.read_parquet": "import pandas; pandas.read_parquet(path)",
    "read_curves": "from scalefit.curves import read_curves; curves = read_curves(path)",
    "read_curves, final, 3 targets": "from scalefit.curves import read_curves; curves = read_curves(path); "
    "curves.final(0.05); curves.tokens_to_target([2.6, 2.5, 2.4])",
    "read_curves, LocalLine": "from scalefit.curves import LocalLine, read_curves; "
    "read_curves(path).smooth(LocalLine(0.2))",
}


def write(path: Path, points: int, runs: int) -> None:
    """Write curves of power laws with noise."""
    rng = np.random.default_rng(0)
    each = points // runs
    run = np.repeat(np.arange(runs), each)
    step = np.tile(np.arange(1, each + 1) * 10, runs)
    batch = 2 ** rng.integers(16, 21, runs)[run]
    loss = 2.0 + 3.0 * (step * batch / 1e6) ** -0.2 + 0.01 * rng.standard_normal(len(run))
    table = {
        "run": pd.Categorical.from_codes(run, [f"run-{i:05d}" for i in range(runs)]),
        "step": step,
        "tokens": step * batch,
        "loss": loss,
        "lr": 2.0 ** -rng.integers(6, 14, runs)[run],
        "batch": batch,
        "params": 10 ** rng.integers(7, 10, runs)[run],
        "seed": rng.integers(0, 5, runs)[run],
    }
    pd.DataFrame(table).to_parquet(path, index=False)


def measure(code: str, path: Path) -> tuple[float, float, float]:
    """Return seconds, seconds of processor time, and the peak memory in GB of a fresh process that runs the code."""
    lines = [
        "import resource, sys, time",
        f"path = {str(path)!r}",
        "start = time.perf_counter()",
        code,
        "seconds = time.perf_counter() - start",
        "print(seconds, time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)",
    ]
    answer = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    seconds, busy, peak = map(float, answer.stdout.split())
    return seconds, busy, peak * (1024 if sys.platform != "darwin" else 1) / 1e9


def main() -> None:
    """Run and print."""
    points, runs = (int(float(value)) for value in (sys.argv[1:] + ["1e7", "1000"][len(sys.argv) - 1 :])[:2])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "curves.parquet"
        writer = get_context("spawn").Process(target=write, args=(path, points, runs))  # a child inherits our peak
        writer.start()
        writer.join()
        print(f"{points:,} points of {runs:,} runs, {path.stat().st_size / 1e6:.0f} MB of Parquet")
        print(f"{'way':<32}{'seconds':>9}{'of CPU':>9}{'peak GB':>9}")
        for way, code in WAYS.items():
            seconds, busy, peak = measure(code, path)
            print(f"{way:<32}{seconds:>9.1f}{busy:>9.1f}{peak:>9.2f}")


if __name__ == "__main__":
    main()
