"""Evaluate laws at K parameter sets x n rows: the compiled formula against numpy written by hand, in one run.

    OMP_NUM_THREADS=1 python benchmarks/law_evaluation.py

Both sides get the raw columns and parameter values; ratios under 1.3 are the aim. The hand-written side is what a
careful user would write: logs of the inputs taken once, exponentials instead of powers.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

import scalefit as sf

Columns = dict[str, np.ndarray]


def chinchilla(v: Columns, t: Columns) -> np.ndarray:
    """L = E + A/N**alpha + B/D**beta by hand."""
    n, d = np.log(t["params"]), np.log(t["tokens"])
    return v["E"] + v["A"] * np.exp(-v["alpha"] * n) + v["B"] * np.exp(-v["beta"] * d)


def lr_power(v: Columns, t: Columns) -> np.ndarray:
    """Eta = c N**a D**b by hand."""
    return v["c"] * np.exp(v["a"] * np.log(t["params"]) + v["b"] * np.log(t["tokens"]))


def skaling(v: Columns, t: Columns) -> np.ndarray:
    """L = (A/N**a + B/D**b)**k + E by hand."""
    n, d = np.log(t["params"]), np.log(t["tokens"])
    return (v["A"] * np.exp(-v["a"] * n) + v["B"] * np.exp(-v["b"] * d)) ** v["k"] + v["E"]


CASES: dict[str, tuple[Callable[[Columns, Columns], np.ndarray], dict[str, float]]] = {
    "chinchilla": (chinchilla, {"E": 1.8, "A": 480.0, "alpha": 0.35, "B": 2100.0, "beta": 0.37}),
    "lr_power": (lr_power, {"c": 1.8, "a": -0.7, "b": 0.3}),
    "skaling": (skaling, {"A": 3900.0, "a": 0.45, "B": 34000.0, "b": 0.49, "k": 0.74, "E": 1.8}),
}


def best(function: Callable[[], object], repeat: int = 15) -> float:
    """Return the best wall time of a few calls."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Run and print."""
    rng = np.random.default_rng(0)
    print(f"{'law':<12}{'K':>6}{'n':>8}{'by hand':>12}{'scalefit':>12}{'ratio':>8}")
    for name, (hand, truth) in CASES.items():
        law = sf.laws.get_law(name)
        for k, n in ((1, 245), (100, 245), (1000, 245), (100, 10_000)):
            table = {"params": 10 ** rng.uniform(7, 10, n), "tokens": 10 ** rng.uniform(8, 11, n)}
            values = {key: value * rng.uniform(0.9, 1.1, (k, 1)) for key, value in truth.items()}
            assert np.allclose(law(values, table), hand(values, table))
            ours, theirs = best(lambda: law(values, table)), best(lambda: hand(values, table))  # noqa: B023
            print(f"{name:<12}{k:>6}{n:>8}{1e3 * theirs:>9.3f} ms{1e3 * ours:>9.3f} ms{ours / theirs:>8.2f}")


if __name__ == "__main__":
    main()
