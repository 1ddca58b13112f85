"""Where noisy loss curves are said to reach a target: bias and scatter of each way to read them. No timing.

    OMP_NUM_THREADS=1 python benchmarks/crossings.py [copies]

Curves L = 2 + 0.8 x**-0.25 on (0, 1] with noise; targets truly reached at 0.1, 0.35, 0.7 and 0.97 of the run, and one
5 % beyond its end. Printed: 100 times mean and standard deviation of ln(found / true) over the copies that reach it,
and the share of copies that do. Then: straight lines between the points of thinned curves of the bundled tiny-lm, in
four pairs of coordinates, against the crossings of all points.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

from scalefit._datasets.load_dataset import load_curves
from scalefit.curves.curves import Curves
from scalefit.curves.smoothing import Exponential, Gaussian, LocalLine, MovingAverage
from scalefit.loading.read_curves import read_curves

PLACES = (0.1, 0.35, 0.7, 0.97, 1.05)
KINDS = {
    "200 points, noise 0.003": {"noise": 0.003},
    "200 points, noise 0.03": {"noise": 0.03},
    "200 points, noise 0.01, 1 % spikes of mean 1": {"noise": 0.01, "spikes": 0.01},
    "200 points, noise 0.01, correlated (0.9)": {"noise": 0.01, "memory": 0.9},
    "40 points, noise 0.01": {"noise": 0.01, "n": 40},
    "100 points, even in ln x, noise 0.01": {"noise": 0.01, "n": 100, "even": False},
    "1000 points, noise 0.05": {"noise": 0.05, "n": 1000},
}
SMOOTHERS = (None, LocalLine(0.2), MovingAverage(11), MovingAverage(11, trailing=True), Gaussian(5), Exponential(5))


def loss_at(x: np.ndarray) -> np.ndarray:
    return 2 + 0.8 * np.asarray(x) ** -0.25


def draw(copies: int, noise: float, spikes: float = 0, memory: float = 0, n: int = 200, even: bool = True) -> Curves:
    """Return noisy copies of the curve."""
    rng = np.random.default_rng(0)
    x = np.arange(1, n + 1) / n if even else np.geomspace(0.01, 1, n)
    shock = noise * rng.standard_normal((copies, n))
    for i in range(1, n):
        shock[:, i] = memory * shock[:, i - 1] + np.sqrt(1 - memory**2) * shock[:, i]
    loss = loss_at(x) + shock + (rng.random((copies, n)) < spikes) * rng.exponential(1.0, (copies, n))
    table = {"run": np.repeat(np.arange(copies), n), "tokens": np.tile(x, copies), "loss": loss.ravel(), "lr": 0.1}
    return read_curves(pd.DataFrame(table))


def report(curves: Curves, crossing: str) -> str:
    """Return bias (scatter) at each place, and how often it is reached where that is not always."""
    cells = []
    for place in PLACES:
        found = curves.tokens_to_target(float(loss_at(place)), crossing=crossing)
        at = found.loc[found["status"] == "reached", "tokens"]
        share = len(at) / len(found)
        error = 100 * np.log(at / place) if len(at) > 2 else pd.Series([np.nan] * 2)
        cells.append(f"{error.mean():7.2f} ({error.std():5.2f}){'' if share == 1 else f' {share:4.0%}':5}")
    return "".join(cells)


def thinned(step: int = 6) -> None:
    """Print how far the crossings of every sixth point are from those of all, by the coordinates of the line."""
    table = load_curves("tiny-lm").smooth(MovingAverage(5)).table
    plain = (lambda v: v, lambda v: v)
    logs = (np.log, np.exp)
    ways = {"x, L": (plain, plain), "x, ln L": (plain, logs), "ln x, L": (logs, plain), "ln x, ln L": (logs, logs)}
    errors: dict[str, list[float]] = {way: [] for way in ways}
    for _, run in table.groupby("run", observed=True):
        x, loss = run["tokens"].to_numpy()[3:], run["loss"].to_numpy()[3:]
        for target in np.linspace(loss.min() * 1.01, loss[0], 20):
            truth = cross(x, loss, target, *ways["ln x, ln L"])
            for way, (across, down) in ways.items():
                errors[way].append(np.log(cross(x[::step], loss[::step], target, across, down) / truth))
    print(f"\ntiny-lm, smoothed, every {step}th point{'':8}100 ln(found / true): mean, rms, median size")
    for way, found in errors.items():
        e = 100 * np.array(found)[np.isfinite(found)]
        print(f"  {way:<40}{e.mean():8.2f}{np.sqrt((e**2).mean()):8.2f}{np.median(np.abs(e)):8.2f}")


def cross(x: np.ndarray, loss: np.ndarray, target: float, across: tuple, down: tuple) -> float:
    """Return the first crossing, on a straight line in the given coordinates; NaN where there is none."""
    k = int(np.argmax(loss <= target))
    if k == 0:
        return np.nan
    (to, back), (f, _) = across, down
    share = (f(loss[k - 1]) - f(target)) / (f(loss[k - 1]) - f(loss[k]))
    return float(back(to(x[k - 1]) + share * (to(x[k]) - to(x[k - 1]))))


def main() -> None:
    """Run and print."""
    copies = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    for kind, how in KINDS.items():
        curves = draw(copies, **how)  # type: ignore[arg-type]
        print(f"\n{kind:<60}{''.join(f'{place:^21}' for place in PLACES)}")
        for smoother in SMOOTHERS:
            smooth = curves if smoother is None else curves.smooth(smoother)
            for crossing in ("monotone", "first", "last") if smoother is None else ("monotone",):
                print(f"  {smoother or 'as it is'!s:<44}{crossing:<12}{report(smooth, crossing)}")
    thinned()


if __name__ == "__main__":
    main()
