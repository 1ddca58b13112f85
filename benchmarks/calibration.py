"""How often extrapolated intervals of the best setting hold the truth, on folds of real and of simulated sweeps.

OMP_NUM_THREADS=1 python benchmarks/calibration.py [--simulated 60] [--only tiny-lm]

Folds roll: train on the smaller sizes, the smaller budgets, or both, and predict the rest. The truth of a held-out
cell is its own centre in a surface fitted to the whole sweep (real sweeps), or what it was drawn from (simulated ones).
Printed for each kind of fold: coverage at 50, 80 and 95 %; the mean interval score at 95 % (Gneiting and Raftery 2007,
in ln units) and half-width; the share of folds whose cells are all held at 95 %; the median error.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd

import scalefit as sf

LEVELS = (0.5, 0.8, 0.95)
PUBLIC = {"tiny-lm": {}, "steplaw-dense": {}}
STEPS = np.log(2.0) * np.arange(-2, 3)


def folds(cells: pd.DataFrame) -> Iterator[tuple[str, str, str]]:
    """Yield kind, training condition and held-out condition of every fold that a law in N and D can be trained on."""
    sizes, budgets = (sorted(map(float, cells[name].unique())) for name in ("params", "tokens"))
    for size in sizes[2:-1]:
        yield "N", f"params <= {size!r}", f"params > {size!r}"
    for budget in budgets[2:-1]:
        yield "D", f"tokens <= {budget!r}", f"tokens > {budget!r}"
    for size in sizes[2:-1]:
        for budget in budgets[2:-1]:
            yield "both", f"params <= {size!r} and tokens <= {budget!r}", f"params > {size!r} and tokens > {budget!r}"


def real(name: str) -> Iterator[dict[str, object]]:
    """Yield one row a held-out cell and setting of a sweep by its name."""
    sweep = sf.load_dataset(name)
    cells = sf.fit_surface(sweep, loss_law=None).cells
    for fold, (kind, train, test) in enumerate(folds(cells)):
        held = cells.query(test)
        known = cells.query(train)
        logs = np.log(known[["params", "tokens"]].to_numpy())
        if held.empty or len(known) < 5 or np.linalg.cond(logs - logs.mean(axis=0)) > 50:
            continue  # one level, or sizes and budgets that move together: no law can be told from these
        surface = sf.fit_surface(sweep.where(train), loss_law=None)
        yield from scored(f"{name}", kind, fold, surface, held)


def scored(name: str, kind: str, fold: int, surface: sf.Surface, held: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Yield one row a cell and setting: which levels hold the truth, the interval score, the error."""
    places = {axis: held[axis].to_numpy() for axis in ("params", "tokens")}
    tables = {level: surface.optimum(level=level, **places) for level in LEVELS}
    for setting in surface.laws:
        truth = np.log(held[setting].to_numpy())
        row: dict[str, object] = {"sweep": name, "kind": kind, "fold": fold, "setting": setting}
        for level, table in tables.items():
            low, high = np.log(table[f"{setting}_lo"].to_numpy()), np.log(table[f"{setting}_hi"].to_numpy())
            row[f"{level:.0%}"] = (low <= truth) & (truth <= high)
        row["score"] = high - low + 40 * np.maximum(np.maximum(low - truth, truth - high), 0)
        row["half"] = (high - low) / 2
        row["error"] = np.abs(np.log(tables[0.5][setting].to_numpy()) - truth)
        yield from pd.DataFrame(row).to_dict("records")


def laboratory(
    seed: int, walk: float, walk_tokens: float = 0.03, own: float = 0.05
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Simulate a sweep whose optima stray together by size (sd `walk` per root of an e-fold), and held-out truths."""
    rng = np.random.default_rng(seed)
    sizes = np.geomspace(6e7, 6e7 * rng.uniform(8, 64), int(rng.integers(4, 9)))
    budgets = np.geomspace(2e9, 2e9 * rng.uniform(15, 60), int(rng.integers(4, 9)))
    sizes, budgets = (
        np.append(sizes, 3 * sizes[-1]),
        np.append(budgets, 4 * budgets[-1]),
    )  # the last of each is held out
    stray = [[_walk(rng, sizes, sd), _walk(rng, budgets, walk_tokens)] for sd in (walk, walk / 2)]  # of lr, of batch
    exponents = rng.normal([-0.4, 0.1], 0.2)

    def centre(i: int, j: int) -> np.ndarray:
        n, d = np.log(sizes[i] / 6e7), np.log(budgets[j] / 1e10)
        laws = np.array([np.log(2e-3) + exponents @ [n, d], np.log(5e5) + 0.5 * d])
        strays = np.array([by_size[i] + by_budget[j] for by_size, by_budget in stray])
        return laws + strays + own * rng.normal(size=2)

    places = [(i, j) for i in range(len(sizes) - 1) for j in range(len(budgets) - 1)]
    runs = pd.concat([_cell(rng, sizes[i], budgets[j], centre(i, j)) for i, j in places], ignore_index=True)
    truths = []
    for kind, i, j in (("N", -1, -2), ("D", -2, -1), ("both", -1, -1)):
        lr, batch = np.exp(centre(i, j))
        truths.append({"kind": kind, "params": sizes[i], "tokens": budgets[j], "lr": lr, "batch": batch})
    return runs, pd.DataFrame(truths)


def _walk(rng: np.random.Generator, axis: np.ndarray, sd: float) -> np.ndarray:
    return np.append(0, np.cumsum(sd * np.sqrt(np.diff(np.log(axis))) * rng.normal(size=len(axis) - 1)))


def _cell(rng: np.random.Generator, size: float, budget: float, best: np.ndarray) -> pd.DataFrame:
    """Runs of one cell on a grid by factors of two about its optimum, with noise of 0.003 nats."""
    u, v = (grid.ravel() for grid in np.meshgrid(STEPS, STEPS))
    rate, batch = (np.log(2.0) * np.round(log / np.log(2.0)) + step for log, step in zip(best, (u, v), strict=True))
    x, y = rate - best[0], batch - best[1]
    floor = 1.8 + 480 / size**0.35 + 2000 / budget**0.36
    loss = floor + 0.06 * (x - 0.4 * y) ** 2 + 0.03 * y**2 + 0.003 * rng.normal(size=u.size)
    return pd.DataFrame({"params": size, "tokens": budget, "lr": np.exp(rate), "batch": np.exp(batch), "loss": loss})


def simulated(walk: float, sweeps: int) -> Iterator[dict[str, object]]:
    """Yield one row a held-out cell and setting of simulated laboratories."""
    for seed in range(sweeps):
        runs, truths = laboratory(seed, walk)
        surface = sf.fit_surface(sf.Sweep.from_frame(runs), loss_law=None)
        for kind, held in truths.groupby("kind"):
            yield from scored(f"stray {walk}", str(kind), seed, surface, held)


def table(rows: Iterator[dict[str, object]]) -> pd.DataFrame:
    """Average over cells, by sweep, kind of fold and setting."""
    found = pd.DataFrame(list(rows))
    groups = found.groupby(["sweep", "kind", "setting"], sort=False)
    means = groups[["50%", "80%", "95%", "score", "half"]].mean()
    joint = (
        found.groupby(["sweep", "kind", "setting", "fold"], sort=False)["95%"]
        .all()
        .groupby(level=[0, 1, 2], sort=False)
        .mean()
    )
    return means.assign(joint=joint, error=groups["error"].median(), cells=groups.size()).round(3)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulated", type=int, default=60, help="sweeps for each amount of stray")
    parser.add_argument("--only", choices=[*PUBLIC, "simulated"])
    options = parser.parse_args()
    warnings.simplefilter("ignore", sf.ScalefitWarning)
    for name in PUBLIC:
        if options.only in (None, name):
            try:
                print(table(real(name)).to_string(), "\n")
            except sf.ScalefitError as error:
                print(f"{name}: left out ({error})\n")
    if options.only in (None, "simulated"):
        for walk in (0.0, 0.1, 0.2, 0.3):
            print(table(simulated(walk, options.simulated)).to_string(), "\n")


if __name__ == "__main__":
    main()
