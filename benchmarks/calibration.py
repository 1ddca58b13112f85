"""How often extrapolated intervals of the best setting hold the truth, on folds of real and of simulated sweeps.

SCALEFIT_DATA=folder OMP_NUM_THREADS=1 python benchmarks/calibration.py [--quick] [--simulated 60] [--only tiny-lm]

The folder holds the public files, which docs/datasets.md and the functions below name; a sweep without its file is left
out. Folds roll: train on the smaller sizes (N), the smaller budgets (D) or batches (B), or both, with at least three
levels of everything varied, and predict the rest. The truth of a held-out cell is its own centre in a surface fitted to
the whole sweep, the optimum its publisher gives, or what it was drawn from (simulated laboratories).

Printed for each kind of fold: coverage at 50, 80 and 95 %, the truth taken as exact; `own`, the same at 95 % where the
truth's own error (`stderr`, median) is added to the half-width in squares, as `Backtest` does; `joint`, the share of
cells where lr and batch are both held; the mean interval score at 95 % (Gneiting and Raftery 2007, in ln units); the
median half-width in ln units and its ratio to that of least squares through the training cells' centres; the median
error; the mean regret in %, and its ratio to the best of the reference procedures that `backtest` enters.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

import scalefit as sf
from scalefit.backtesting.regret import group_runs
from scalefit.backtesting.usual_competitors import REFERENCES

Rows = Iterator[dict[str, object]]
LEVELS = (0.5, 0.8, 0.95)
STEPS = np.log(2.0) * np.arange(-2, 3)
STRAYS = (0.0, 0.1, 0.2, 0.3)
DATA = Path(os.environ.get("SCALEFIT_DATA", "data"))
KINDS = {"params": "N", "tokens": "D", "batch": "B"}


def schedules() -> Iterator[sf.Sweep]:
    """One sweep over lr and budget for each schedule and length of cool-down (fabian-sp/lr-scheduling, AdamW, 124M)."""
    runs = pd.read_csv(DATA / "lrschedules_lr_horizon_cooldown.csv").drop_duplicates("run")
    runs = runs[(runs["params"] == 123587328) & (runs["dataset"] == "slimpajama")]
    sizes = runs["batch_size"] * runs["acc_steps"] * runs["world_size"] * runs["seq_len"]
    runs = runs.assign(tokens=sizes * runs["iterations"], loss=runs["final_val_loss"])
    for _, group in runs.groupby(["schedule", "decay_type", "wsd_fract_decay"], dropna=False):
        if group["tokens"].nunique() > 3:
            yield sf.Sweep.from_frame(group[["params", "tokens", "lr", "loss"]].reset_index(drop=True))


def misfitting() -> Iterator[sf.Sweep]:
    """Three to five rates in 81 cells (hadasah/scaling_laws); most optima lie at an edge, and those are no truth."""
    runs = pd.read_csv(DATA / "misfitting_last_ckpt.csv")
    columns = {"params": runs["N_no_emb"], "tokens": runs["D"], "lr": runs["peak_lr"], "loss": runs["loss"]}
    yield sf.Sweep.from_frame(pd.DataFrame(columns).astype(float))


def mup_demo() -> Iterator[sf.Sweep]:
    """Widths, as `params`, after five epochs; one sweep a parametrization (microsoft/mup, examples/MLP/demo.ipynb)."""
    runs = pd.read_csv(DATA / "mup_demo_mlp_lr_width.csv")
    runs = runs[runs["epoch"] == 5].rename(columns={"train_loss": "loss", "width": "params"})
    runs = runs.assign(diverged=runs["loss"].isna(), tokens=5e4 * runs["epoch"])
    for _, group in runs.groupby("parameterization"):
        yield sf.Sweep.from_frame(group[["params", "tokens", "lr", "loss", "diverged"]].reset_index(drop=True))


def megatron() -> Iterator[pd.DataFrame]:
    """Best rates on a grid by factors of two, by width (Megatron-LM pull request 3058)."""
    for _, group in pd.read_csv(DATA / "megatron3058_mup_lr_width.csv").groupby("parameterization"):
        yield group[["width", "lr"]].rename(columns={"width": "params"}).assign(log_lr_stderr=np.log(2) / 12**0.5)


def barlowtwins() -> Iterator[pd.DataFrame]:
    """Best rates by batch, in images (barlowtwins issue 7), from base rates about a fifth apart."""
    table = pd.read_csv(DATA / "barlowtwins7_batch_lr.csv")
    rate = table["base_lr_per_256"] * table["batch_images"] / 256
    yield pd.DataFrame({"batch": table["batch_images"], "lr": rate, "log_lr_stderr": 0.2 / 12**0.5})


def bundled(name: str) -> Iterator[sf.Sweep]:
    """A sweep by its name in scalefit."""
    yield sf.load_dataset(name)


SWEEPS: dict[str, Callable[[], Iterator[sf.Sweep | pd.DataFrame]]] = {
    **{name: partial(bundled, name) for name in ("tiny-lm", "simulated", "steplaw-dense")},
    "lr-schedules": schedules,
    "misfitting": misfitting,
    "mup-demo": mup_demo,
    "megatron-mup": megatron,
    "barlowtwins": barlowtwins,
}


def surface_of(sweep: sf.Sweep) -> sf.Surface:
    """Fit the default surface; where sizes or budgets do not vary, its laws leave them out."""
    varied = [name for name in ("params", "tokens") if sweep.table[name].nunique() > 1]
    form = "c" + "".join({"params": " * N**a", "tokens": " * D**b"}[name] for name in varied)
    return sf.fit_surface(sweep, lr_law=f"eta = {form}", batch_law=f"B = {form}", loss_law=None)


def folds(cells: pd.DataFrame) -> Iterator[tuple[str, str, str]]:
    """Yield kind, training condition and held-out condition of every fold that a law can be trained on."""
    varied = [name for name in KINDS if name in cells and cells[name].nunique() > 3 and name != "lr"]
    varied = [name for name in varied if name != "batch" or "params" not in cells]
    below = {n: [(f"{n} <= {x!r}", f"{n} > {x!r}") for x in map(float, np.unique(cells[n])[2:-1])] for n in varied}
    asked = [(KINDS[name], *pair) for name in varied for pair in below[name]]
    if len(varied) == 2:
        asked += [("both", f"{a} and {b}", f"{c} and {d}") for a, c in below["params"] for b, d in below["tokens"]]
    for kind, train, test in asked:
        known = cells.query(train)
        logs = np.log(known[[n for n in ("params", "tokens", "batch") if n in varied]].to_numpy())
        spread = np.linalg.cond(logs - logs.mean(axis=0)) < 50  # sizes and budgets do not move together
        if len(cells.query(test)) and (known[varied].nunique() >= 3).all() and spread:
            yield kind, train, test


def real(name: str) -> Rows:
    """Yield one row a held-out cell and setting of the sweeps of a name."""
    for part, sweep in enumerate(SWEEPS[name]()):
        whole = surface_of(sweep).cells if isinstance(sweep, sf.Sweep) else sweep.assign(inside=True)
        for fold, (kind, train, test) in enumerate(folds(whole)):
            held, label = whole.query(test).query("inside"), (name, kind, f"{part}.{fold}")
            if held.empty:
                continue
            if isinstance(sweep, pd.DataFrame):
                (column,) = set(sweep) & set(KINDS)
                law = sf.fit(f"eta = c * {KINDS[column]}**a", sweep.query(train)[[column, "lr"]])
                yield from scored(label, sf.LawPair({"lr": law}), sweep.query(train), held)
                continue
            surface = surface_of(sweep.where(train))
            keys, _, runs = group_runs(sweep)
            places = {axis: held[axis].to_numpy() for axis in keys}
            found = [surface.optimum(**places), *references(sweep.where(train), places)]
            settings = [np.log(one.reindex(columns=list(surface.laws)).to_numpy(dtype=float)) for one in found]
            cell = [int(np.abs(np.log(keys / held[list(keys)].loc[k])).sum(axis=1).argmin()) for k in held.index]
            cost = np.array([runs[k].regret(np.stack([s[i] for s in settings])).value for i, k in enumerate(cell)])
            yield from scored(label, surface, surface.cells, held, 100 * cost)


def references(sweep: sf.Sweep, places: dict[str, np.ndarray]) -> list[pd.DataFrame]:
    """Return the predictions of the reference procedures; one that cannot predict gives nothing."""
    found = []
    for one in REFERENCES:
        try:
            found.append(one.train(sweep).optimum(**places))
        except sf.ScalefitError:
            found.append(pd.DataFrame(index=range(len(next(iter(places.values()))))))
    return found


def scored(
    label: tuple[str, str, str],
    rule: sf.Surface | sf.LawPair,
    known: pd.DataFrame,
    held: pd.DataFrame,
    cost: object = None,
) -> Rows:
    """Yield one row a cell and setting: which levels hold the truth, the interval score, widths, errors, regrets."""
    axes = [axis for axis in KINDS if axis in known and (axis != "batch" or "params" not in known)]
    tables = {level: rule.optimum(level=level, **{axis: held[axis].to_numpy() for axis in axes}) for level in LEVELS}
    inside: list[np.ndarray] = []
    for setting in [name for name in ("lr", "batch") if name in tables[0.5] and name not in axes]:
        truth, error = np.log(held[setting].to_numpy()), held[f"log_{setting}_stderr"].to_numpy()
        row: dict[str, object] = dict(zip(("sweep", "kind", "fold"), label, strict=True)) | {"setting": setting}
        for level, table in tables.items():
            low, high = np.log(table[f"{setting}_lo"].to_numpy()), np.log(table[f"{setting}_hi"].to_numpy())
            row[f"{level:.0%}"] = (low <= truth) & (truth <= high)
        centre, half = np.log(tables[0.5][setting].to_numpy()), (high - low) / 2
        facing = np.where(truth > centre, high - centre, centre - low)
        row["own"] = np.abs(truth - centre) <= np.hypot(facing, 1.96 * error)
        inside.append((low <= truth) & (truth <= high))
        row |= {"score": 2 * half + 40 * np.maximum(np.maximum(low - truth, truth - high), 0), "half": half}
        row |= {"ratio": half / plain(known, held, axes, setting), "error": np.abs(centre - truth), "stderr": error}
        row |= {"cell": np.arange(len(held)), "regret": np.nan}
        if setting == "lr" and cost is not None:
            row |= {("regret" if k == 0 else f"reference {k}"): one for k, one in enumerate(np.transpose(cost))}
        yield from pd.DataFrame(row).to_dict("records")
    # The cells' last row says whether all of their settings were held.
    yield from ({"sweep": label[0], "kind": label[1], "joint": bool(ok)} for ok in np.all(inside, axis=0))


def plain(known: pd.DataFrame, held: pd.DataFrame, axes: list[str], setting: str) -> np.ndarray:
    """Return the 95 % half-width for a new cell by least squares through the training cells' centres, in logs."""
    varied = [axis for axis in axes if known[axis].nunique() > 1]
    x, new = (np.column_stack([np.ones(len(t)), np.log(t[varied].to_numpy(dtype=float))]) for t in (known, held))
    y, inverse = np.log(known[setting].to_numpy()), np.linalg.pinv(x.T @ x)
    dof = len(x) - x.shape[1]
    scatter = np.sqrt(((y - x @ inverse @ x.T @ y) ** 2).sum() / dof)
    return stats.t.ppf(0.975, dof) * scatter * np.sqrt(1 + ((new @ inverse) * new).sum(axis=1))


def laboratory(seed: int, walk: float, fewest: int = 4, own: float = 0.05) -> tuple[sf.Sweep, pd.DataFrame]:
    """Simulate a sweep whose optima stray together by size (sd `walk` per root of an e-fold), and held-out truths."""
    rng = np.random.default_rng(seed)
    sizes = np.geomspace(6e7, 6e7 * rng.uniform(8, 64), int(rng.integers(fewest, fewest + 5)))
    budgets = np.geomspace(2e9, 2e9 * rng.uniform(15, 60), int(rng.integers(4, 9)))
    sizes, budgets = (
        np.append(sizes, 3 * sizes[-1]),
        np.append(budgets, 4 * budgets[-1]),
    )  # the last of each is held out
    by_tokens = 0.03 if walk else 0.0
    stray = [[_walk(rng, sizes, sd), _walk(rng, budgets, by_tokens)] for sd in (walk, walk / 2)]  # of lr, of batch
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
    held = pd.DataFrame(truths).assign(log_lr_stderr=0.0, log_batch_stderr=0.0)
    return sf.Sweep.from_frame(runs), held


def _walk(rng: np.random.Generator, axis: np.ndarray, sd: float) -> np.ndarray:
    return np.append(0, np.cumsum(sd * np.sqrt(np.diff(np.log(axis))) * rng.normal(size=len(axis) - 1)))


def _basin(
    size: float | np.ndarray, budget: float | np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return the loss at the optimum and what it costs to be x and y away from it in ln lr and ln batch."""
    return 1.8 + 480 / size**0.35 + 2000 / budget**0.36, 0.06 * (x - 0.4 * y) ** 2 + 0.03 * y**2


def _cell(rng: np.random.Generator, size: float, budget: float, best: np.ndarray) -> pd.DataFrame:
    """Runs of one cell on a grid by factors of two about its optimum, with noise of 0.003 nats."""
    u, v = (grid.ravel() for grid in np.meshgrid(STEPS, STEPS))
    rate, batch = (np.log(2.0) * np.round(log / np.log(2.0)) + step for log, step in zip(best, (u, v), strict=True))
    floor, rise = _basin(size, budget, rate - best[0], batch - best[1])
    loss = floor + rise + 0.003 * rng.normal(size=u.size)
    return pd.DataFrame({"params": size, "tokens": budget, "lr": np.exp(rate), "batch": np.exp(batch), "loss": loss})


def simulated(walk: float, sweeps: int, fewest: int = 4) -> Rows:
    """Yield one row a held-out cell and setting of simulated laboratories with so many sizes, or up to four more."""
    for seed in range(sweeps):
        sweep, truths = laboratory(seed, walk, fewest)
        surface = sf.fit_surface(sweep, loss_law=None)
        places = {axis: truths[axis].to_numpy() for axis in ("params", "tokens")}
        off = [
            np.log(t[["lr", "batch"]].to_numpy(dtype=float) / truths[["lr", "batch"]].to_numpy()).T
            for t in (surface.optimum(**places), *references(sweep, places)[:2])
        ]
        floor, rise = zip(*(_basin(*places.values(), *one) for one in off), strict=True)
        cost = 100 * (np.array(rise) / floor[0]).T
        for k, kind in enumerate(truths["kind"]):
            label = (f"stray {walk}, {fewest}+ sizes", str(kind), str(seed))
            yield from scored(label, surface, surface.cells, truths.iloc[[k]], cost[[k]])


def table(rows: Rows) -> pd.DataFrame:
    """Average over cells, by sweep, kind of fold and setting."""
    found = pd.DataFrame(list(rows))
    joint = found.groupby(["sweep", "kind"], sort=False)["joint"].apply(lambda held: held.dropna().astype(float).mean())
    groups = found[found["setting"].notna()].groupby(["sweep", "kind", "setting"], sort=False)
    names = [f"{level:.0%}" for level in LEVELS] + ["own", "score"]
    means = groups[names].agg(lambda values: values.astype(float).mean())
    shown = means.join(joint).join(groups[["half", "ratio", "error", "stderr"]].median())
    costs = groups[[name for name in found if name.startswith("re")]].mean()  # regret, and of the references
    best = costs.drop(columns="regret").min(axis=1)
    shown = shown.assign(regret=costs["regret"], of_best=costs["regret"] / best, folds=groups["fold"].nunique())
    return shown.assign(cells=groups.size()).round(3)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8 sweeps for each amount of stray")
    parser.add_argument("--simulated", type=int, default=60, help="sweeps for each amount of stray")
    parser.add_argument("--only", choices=[*SWEEPS, "laboratories"])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in SWEEPS:
        if options.only in (None, name):
            try:
                print(table(real(name)).to_string(), "\n", flush=True)
            except (sf.ScalefitError, FileNotFoundError) as error:
                print(f"{name}: left out ({error})\n")
    count = 8 if options.quick else options.simulated
    for fewest, walk in [(fewest, walk) for fewest in (4, 8) for walk in STRAYS]:
        if options.only in (None, "laboratories"):
            print(table(simulated(walk, count, fewest)).to_string(), "\n", flush=True)


if __name__ == "__main__":
    main()
