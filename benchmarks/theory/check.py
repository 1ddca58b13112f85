"""The tables of docs/theory_check.md: what simulated training on noisy quadratics says of the laws of the batch size.

OMP_NUM_THREADS=1 python benchmarks/theory/check.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from scalefit.theory import sgd_constants, sign_optimum, surge_constants

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from theory import (
    SGD,
    Adam,
    NoisyQuadratic,
    SignSGD,
    TargetRuns,
    from_gradient,
    mean_field,
    optimal_step,
    sgd_mean_loss,
    steps_to_target,
    trace_run,
)


def broad(size: int = 32, seed: int = 1) -> NoisyQuadratic:
    """Diagonal: curvatures 1/i, coordinates at all distances, noise within a factor of two."""
    rng, index = np.random.default_rng(seed), np.arange(1, size + 1.0)
    return NoisyQuadratic(1 / index, np.exp(rng.normal(0, 0.3, size)), np.sqrt(index) * rng.normal(0, 1, size))


def turned(problem: NoisyQuadratic, seed: int = 2) -> NoisyQuadratic:
    """The same spectrum with eigenvectors in general position."""
    size = len(problem.start)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]
    return NoisyQuadratic((turn * problem.curvature) @ turn.T, problem.noise, turn @ problem.start)


def coupled(coupling: float, size: int = 64, seed: int = 3, against: bool = False) -> NoisyQuadratic:
    """Gradients a tenth of their noise; every pair of coordinates coupled along the signs of the gradient, or not."""
    rng = np.random.default_rng(seed)
    slope = np.exp(rng.normal(0, 0.3, size)) * rng.choice([-1, 1], size)
    noise, diagonal = 10 * np.exp(rng.normal(0, 0.3, size)), np.exp(rng.normal(0, 0.5, size))
    along = np.where(np.arange(size) % 2 == 0, slope, -slope) if against else slope
    return from_gradient(mean_field(diagonal, coupling, along) if coupling else diagonal, noise, slope)


def show(title: str, table: pd.DataFrame) -> None:
    print(f"\n{title}\n{table.to_string(index=False, float_format=lambda value: f'{value:.4g}')}", flush=True)


def sgd_law() -> None:
    for name, problem in (("diagonal H", broad()), ("full H", turned(broad()))):
        limits = sgd_constants(*problem.step)
        ratio = 4.0 ** np.arange(-3, 4)
        found = optimal_step(problem, SGD(), ratio * limits.B_noise, replicates=16_000, seed=1)
        law = 1 / (1 + 1 / ratio)
        columns = {
            "B/B_noise": ratio,
            "lr/lr_max": found["lr"] / limits.eta_max,
            "law": law,
            "off, %": 100 * (found["lr"] / limits.eta_max / law - 1),
            "error, %": 100 * found["log_lr_stderr"],
            "drop/drop_max": found["loss_drop"] / limits.dL_max,
            "drop off, %": 100 * (found["loss_drop"] / limits.dL_max / law - 1),
        }
        show(f"SGD, one step, {name}", pd.DataFrame(columns))


def surge() -> None:
    problem = coupled(0.5)
    limits = surge_constants(*problem.step)
    ratio = 4.0 ** np.arange(-3, 8)
    batches = ratio * limits.B_noise
    found = optimal_step(problem, SignSGD(), batches, replicates=16_000, seed=1)
    full = sign_optimum(batches, *problem.step)
    law = 2 * limits.eta_max / (np.sqrt(ratio) + np.sqrt(1 / ratio))
    columns = {
        "B/B_noise": ratio,
        "lr/lr_max": found["lr"] / limits.eta_max,
        "error, %": 100 * found["log_lr_stderr"],
        "theorem 2 off, %": 100 * (full.lr / found["lr"] - 1),
        "theorem 3 off, %": 100 * (law / found["lr"] - 1),
        "plateau off, %": 100 * (limits.plateau / found["lr"] - 1),
        "drop/drop_max": found["loss_drop"] / limits.dL_max,
        "drop theorem 2 off, %": 100 * (full.loss_drop / found["loss_drop"] - 1),
        "drop theorem 5 off, %": 100 * (limits.dL_max / (1 + 1 / ratio) / found["loss_drop"] - 1),
    }
    show(f"sign-SGD, one step, coupling 0.5; B_valid/B_noise = {problem.valid_batch / limits.B_noise:.3g}; {limits}",
         pd.DataFrame(columns))  # fmt: skip


def what_a_fall_needs() -> None:
    rows = []
    cases = [(0.0, False), (0.02, False), (0.05, False), (0.1, False), (0.3, False), (0.6, False), (0.5, True)]
    for coupling, against in cases:
        problem = coupled(coupling, against=against)
        limits = surge_constants(*problem.step)
        batches = problem.valid_batch * 2.0 ** np.arange(-9, 6)
        found = optimal_step(problem, SignSGD(), batches, replicates=4000, seed=2)
        top = int(np.argmax(found["lr"]))
        rows.append(
            {
                "coupling": "0.5, against" if against else f"{coupling:g}",
                "B_valid/B_noise": problem.valid_batch / limits.B_noise,
                "peak/plateau": found["lr"][top] / limits.plateau,
                "error": found["log_lr_stderr"][top],
                "peak at B/B_noise": batches[top] / limits.B_noise,
                "theorem 3 peak/plateau": limits.eta_max / limits.plateau,
            }
        )
    show("What a fall needs (64 coordinates)", pd.DataFrame(rows))


def adam() -> None:
    rows = []
    optimizers = {
        "sign-SGD": SignSGD(),
        "Adam(0, 0)": Adam(0.0, 0.0),
        "Adam(0, 0.99)": Adam(0.0, 0.99),
        "Adam(0.5, 0.99)": Adam(0.5, 0.99),
        "Adam(0.9, 0.99)": Adam(0.9, 0.99),
    }
    for coupling in (0.5, 0.0):
        problem = coupled(coupling, size=32)
        limits = surge_constants(*problem.step)
        batches = problem.valid_batch * 4.0 ** np.arange(-6, 4)
        for name, optimizer in optimizers.items():
            found = optimal_step(problem, optimizer, batches, replicates=500, seed=2)
            lr = found["lr"] / limits.plateau
            rows.append({"H": "coupled" if coupling else "diagonal", "optimizer": name}
                        | {f"{b:.2g}": v for b, v in zip(batches / problem.valid_batch, lr, strict=True)})  # fmt: skip
    show("Adam with settled moments: lr over the plateau's, by B/B_valid", pd.DataFrame(rows))


def surge_on_the_way() -> None:
    problem = coupled(0.5)
    limits = surge_constants(*problem.step)
    batch, lr = 16 * limits.B_noise, 0.3 * limits.plateau
    path = trace_run(problem, SignSGD(), batch=batch, lr=lr, steps=64, replicates=64, seed=1)
    path = path.iloc[[0, 1, 2, 4, 8, 16, 32, 64]]
    columns = {"steps": path["steps"], "loss": path["loss"] / path["loss"].iloc[0]}
    scales = {name: path[name] / path[name].iloc[0] for name in ("B_sign", "B_noise")}
    title = "The surge along a run of sign-SGD (B = 16 B_noise, lr = 0.3 of the plateau's); scales over their first"
    show(title, pd.DataFrame(columns | scales))


def hyperbola(runs: TargetRuns) -> tuple[float, float, np.ndarray]:
    """Return S_min, B_crit and residuals of ln S, all batches weighing the same."""
    batch, steps = runs.best["batch"].to_numpy(), runs.best["steps"].to_numpy()

    def rest(logs: np.ndarray) -> np.ndarray:
        return np.log(steps) - logs[0] - np.log1p(np.exp(logs[1]) / batch)

    found = least_squares(rest, [np.log(steps.min()), np.log(np.median(batch))])
    return float(np.exp(found.x[0])), float(np.exp(found.x[1])), found.fun


def exact_tuned_steps(problem: NoisyQuadratic, batch: float, target: float, near: float) -> float:
    """Return the fewest steps of SGD over constant learning rates, from the exact mean loss."""
    times = np.arange(1, 4000)
    lrs = near * 2.0 ** np.linspace(-0.5, 0.5, 65)
    loss = np.log(np.stack([sgd_mean_loss(problem, batch, lr, times) for lr in lrs]))
    before = np.concatenate([np.full((len(lrs), 1), np.log(problem.loss(problem.start))), loss[:, :-1]], axis=1)
    hit = np.argmax(loss <= np.log(target), axis=1)[:, None]
    a, b = (np.take_along_axis(x, hit, axis=1)[:, 0] for x in (before, loss))
    steps = hit[:, 0] + (a - np.log(target)) / (a - b)
    return float(np.min(np.where((loss <= np.log(target)).any(axis=1), steps, np.inf)))


def whole_runs() -> None:
    problem = broad()
    first = float(problem.loss(problem.start))
    rows, shown = [], {}
    plans = {
        "SGD": (SGD(), {0.3: 2, 0.1: 8, 0.03: 32}),
        "sign-SGD": (SignSGD(), {0.3: 32, 0.1: 64, 0.03: 128}),
        "Adam(0.9, 0.99)": (Adam(0.9, 0.99), {0.3: 32, 0.1: 32, 0.03: 64}),
    }
    for name, (optimizer, scales) in plans.items():
        for share, scale in scales.items():
            batches = scale * sgd_constants(*problem.step).B_noise * 2.0 ** np.arange(-4, 6)
            runs = steps_to_target(problem, optimizer, batches, target=share * first, replicates=256, seed=1)
            s_min, b_crit, rest = hyperbola(runs)
            last = runs.best.iloc[-1]
            length = max(int(last["steps"]), 1)
            path = trace_run(problem, optimizer, batch=last["batch"], lr=last["lr"], steps=length, replicates=256)
            row = {
                "optimizer": name,
                "target": share,
                "B_crit": b_crit,
                "S_min": s_min,
                "batches/B_crit": f"{batches[0] / b_crit:.2g} .. {batches[-1] / b_crit:.2g}",
                "rms of ln S": np.sqrt(np.mean(rest**2)),
                "median error of ln S": runs.best["log_stderr"].median(),
                "B_noise on the way": f"{path['B_noise'].iloc[0]:.3g} .. {path['B_noise'].iloc[-1]:.3g}",
                "its mean": path["B_noise"].mean(),
            }
            if name == "SGD":
                exact = [exact_tuned_steps(problem, r.batch, share * first, r.lr) for r in runs.best.itertuples()]
                row["S off the exact, rms %"] = 100 * np.sqrt(np.mean(np.log(runs.best["steps"] / exact) ** 2))
            rows.append(row)
            if share == 0.1:
                best = runs.best.assign(residual=rest, ratio=runs.best["batch"] / b_crit)
                shown[name] = best[["ratio", "lr", "steps", "examples", "log_stderr", "residual"]]
    show("Steps to a target (share of the first loss) at tuned constant learning rates", pd.DataFrame(rows))
    for name, table in shown.items():
        show(f"{name}, target 0.1; ratio is B/B_crit", table)


def surge_over_whole_runs() -> None:
    rows = []
    for coupling in (0.5, 0.0):
        problem = coupled(coupling, size=32)
        limits = surge_constants(*problem.step)
        unit = limits.B_noise if coupling else problem.valid_batch
        ratio = 4.0 ** np.arange(-2, 6)
        for share in (0.95, 0.7, 0.4):
            target = share * float(problem.loss(problem.start))
            best = steps_to_target(problem, SignSGD(), ratio * unit, target=target, replicates=256, seed=1).best
            head = {"H": "coupled" if coupling else "diagonal", "target": share}
            for name, values in (("lr/plateau", best["lr"] / limits.plateau), ("steps", best["steps"])):
                rows.append(head | {"": name} | {f"{b:.2g}": v for b, v in zip(ratio, values, strict=True)})
    title = "Sign-SGD over whole runs, by B/B_noise (coupled) or B/B_valid (diagonal)"
    show(title, pd.DataFrame(rows))


def main() -> None:
    """Run and print."""
    for part in (sgd_law, surge, what_a_fall_needs, adam, surge_on_the_way, whole_runs, surge_over_whole_runs):
        part()


if __name__ == "__main__":
    main()
