"""Fit Chinchilla's law to Epoch's digitised points: scalefit against scipy and lmfit, in one run on one core.

    OMP_NUM_THREADS=1 python benchmarks/chinchilla.py [points.csv] [--starts 4500]

The CSV has the columns "Model Size", "Training FLOP" and "loss" (epoch-research/analyzing-chinchilla,
data/svg_extracted_data.csv, commit 92258837). The five highest losses are dropped and the objective is the SUM of
Huber(1e-3) of the log residuals, as in Besiroglu et al. 2024 (arXiv:2404.10102). Compare times within a run only.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import product
from typing import Any

import lmfit
import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import logsumexp

import scalefit as sf

DELTA = 1e-3
GRID = list(product((0.0, 5.0, 10.0, 15.0, 20.0, 25.0), (0.0, 5.0, 10.0, 15.0, 20.0, 25.0), (-1.0, -0.5, 0.0, 0.5, 1.0),
                    (0.0, 0.5, 1.0, 1.5, 2.0), (0.0, 0.5, 1.0, 1.5, 2.0)))  # fmt: skip
"""The 4,500 starts (a, b, e, alpha, beta) of Hoffmann et al. 2022."""


def timed(function: Callable[[], Any], repeat: int = 5) -> tuple[float, Any]:
    """Return the best wall time of a few calls and the last result."""
    best, result = np.inf, None
    for _ in range(repeat):
        start = time.perf_counter()
        result = function()
        best = min(best, time.perf_counter() - start)
    return best, result


def read(path: str | None) -> pd.DataFrame:
    """Return params, tokens and loss without the five highest losses."""
    if path is None:
        sweep = sf.load_dataset("chinchilla-epoch").table.sort_values("loss").iloc[:-5]
        return sweep[["params", "tokens", "loss"]].reset_index(drop=True)
    raw = pd.read_csv(path).sort_values("loss").iloc[:-5]
    tokens = raw["Training FLOP"] / (6 * raw["Model Size"])
    return pd.DataFrame({"params": raw["Model Size"], "tokens": tokens, "loss": raw["loss"]}).reset_index(drop=True)


def log_model(table: pd.DataFrame) -> Callable[[np.ndarray], np.ndarray]:
    """The law as Hoffmann et al. wrote it: a log-sum-exp of three terms, finite differences left to the caller."""
    n, d, target = (np.log(table[name].to_numpy()) for name in ("params", "tokens", "loss"))

    def residual(theta: np.ndarray) -> np.ndarray:
        a, b, e, alpha, beta = theta
        terms = np.stack([a - alpha * n, b - beta * d, np.full_like(n, e)])
        return logsumexp(terms, axis=0) - target

    return residual


def huber(r: np.ndarray) -> float:
    """Sum of Huber's loss."""
    return float(sf.Huber(DELTA).value(r).sum())


def scipy_grid(table: pd.DataFrame, starts: list[tuple[float, ...]]) -> tuple[float, float]:
    """L-BFGS-B from every start; return the best objective and the share of 'successes' over 10 % above it."""
    residual = log_model(table)
    ends = [minimize(lambda t: huber(residual(t)), start, method="L-BFGS-B") for start in starts]
    values = np.array([end.fun for end in ends])
    claimed = np.array([end.success for end in ends])
    return values.min(), float((values[claimed] > 1.1 * values.min()).mean())


def lmfit_huber(table: pd.DataFrame, start: tuple[float, ...], weights: np.ndarray | None = None) -> Any:
    """One lmfit least_squares run with Huber's loss from one start."""
    residual = log_model(table)
    root = 1.0 if weights is None else np.sqrt(weights)
    params = lmfit.Parameters()
    for name, value in zip(("a", "b", "e", "alpha", "beta"), start, strict=True):
        params.add(name, value=value)
    return lmfit.minimize(
        lambda p: residual(np.array(list(p.valuesdict().values()))) / DELTA * root,
        params,
        method="least_squares",
        loss="huber",
    )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", nargs="?", help="the published CSV; without it the data set chinchilla-epoch is used")
    parser.add_argument(
        "--starts", type=int, default=len(GRID), help="how many of the 4,500 published starts scipy gets"
    )
    options = parser.parse_args()
    table = read(options.csv)
    law = sf.Law("L = E + A/N**alpha + B/D**beta")
    compile_s, _ = timed(lambda: law.derivation.function("log"), repeat=1)
    sf.fit(law, table, loss=sf.Huber(DELTA))
    fit_s, fit = timed(lambda: sf.fit(law, table, loss=sf.Huber(DELTA)))
    boot_s, draws = timed(lambda: sf.bootstrap(fit, n=1000, by="row"))
    print(f"scalefit  default fit, no start      {1e3 * fit_s:9.1f} ms   objective {fit.objective:.13f}")
    print(f"scalefit  1000 row-bootstrap refits  {1e3 * boot_s:9.1f} ms   stderr alpha {draws.stderr['alpha']:.4f}"
          f" beta {draws.stderr['beta']:.4f} E {draws.stderr['E']:.4f}")  # fmt: skip
    print(f"scalefit  compiling the law, once    {1e3 * compile_s:9.1f} ms")
    chosen = [GRID[i] for i in np.linspace(0, len(GRID) - 1, min(options.starts, len(GRID))).astype(int)]
    grid_s, (best, false) = timed(lambda: scipy_grid(table, chosen), repeat=1)
    print(f"scipy     L-BFGS-B, {len(chosen):4d} starts      {1e3 * grid_s:9.1f} ms   objective {best:.13f}"
          f"   {false:.0%} of its successes end > 10 % above   {grid_s / fit_s:.0f}x our fit")  # fmt: skip
    near = (5.0, 5.0, 0.5, 0.5, 0.5)
    lmfit_s, result = timed(lambda: lmfit_huber(table, near), repeat=3)
    value = huber(result.residual * DELTA)
    print(f"lmfit     least_squares, 1 start     {1e3 * lmfit_s:9.1f} ms   objective {value:.13f}   "
          f"{lmfit_s / fit_s:.1f}x our fit")  # fmt: skip
    rng, warm = np.random.default_rng(0), tuple(result.params.valuesdict().values())
    counts = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), size=50).astype(float)
    refit_s, _ = timed(lambda: [lmfit_huber(table, warm, row) for row in counts], repeat=1)
    print(
        f"lmfit     1000 refits, from 50       {1e3 * refit_s * 20:9.1f} ms   {refit_s * 20 / boot_s:.0f}x our refits"
    )


if __name__ == "__main__":
    main()
