"""Small results to draw, from formulas written here, and the pictures of them that several tests look at."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

import scalefit as sf
from scalefit import plots
from scalefit.backtesting.competitors import Entrant
from scalefit.backtesting.usual_competitors import PublishedEntrant
from scalefit.batch_size.fit_tradeoff import fit_tradeoff
from scalefit.batch_size.tradeoff import Tradeoff
from scalefit.curves.curves import Curves
from scalefit.loading.read_curves import read_curves

SIZES, BUDGETS = (1e8, 2.7e8, 7e8, 2e9), (2e9, 8e9, 3.2e10)
BATCHES = 2.0 ** np.arange(15, 22)


@cache
def sweep(noise: float = 0.0015) -> sf.Sweep:
    """Return runs of twelve cells over learning rate and batch; those with a learning rate far too high diverged."""
    lr = 1e-4 * 2.0 ** np.arange(0, 7.5, 0.75)
    axes = np.meshgrid(SIZES, BUDGETS, BATCHES, lr, indexing="ij")
    params, tokens, batch, lr = (axis.ravel() for axis in axes)
    v = np.log(batch / (0.6 * tokens**0.57))
    u = np.log(lr / (0.9 * params**-0.55 * tokens**0.2)) - 0.35 * v
    floor = 1.8 + 480 * params**-0.35 + 2100 * tokens**-0.37
    basin = 0.05 * (np.exp(0.7 * u) - 0.7 * u - 1) / 0.49 + 0.012 * v**2
    loss = floor + basin + noise * np.random.default_rng(5).normal(size=len(lr))
    lost = u > 2.4
    table = pd.DataFrame({"lr": lr, "batch": batch, "params": params, "tokens": tokens})
    return sf.Sweep.from_frame(table.assign(loss=np.where(lost, np.nan, loss), diverged=lost), source="samples")


@cache
def cell(batch: float | None = None) -> sf.Sweep:
    own = sweep().where("params > 2e8 and params < 4e8 and tokens > 7e9 and tokens < 9e9")
    return own if batch is None else own.where(f"batch == {batch}")


@cache
def optima() -> sf.Optima:
    return sf.find_optima(sweep(), over="lr", by=("params", "tokens", "batch"))


@cache
def surface() -> sf.Surface:
    return sf.fit_surface(sweep())


@cache
def points(seed: int = 0, beyond: bool = False) -> pd.DataFrame:
    """Return optimal learning rates and batches over params, tokens and batch, with a scatter of 8 %."""
    rng = np.random.default_rng(seed)
    sizes = (6e9, 1.6e10) if beyond else SIZES
    axes = np.meshgrid(sizes, BUDGETS, BATCHES[1:6:2], indexing="ij")
    params, tokens, batch = (axis.ravel() for axis in axes)
    lr = 0.3 * params**-0.45 * tokens**-0.12 * batch**0.45 * np.exp(0.08 * rng.normal(size=len(params)))
    return pd.DataFrame({"params": params, "tokens": tokens, "batch": batch, "lr": lr})


@cache
def law() -> sf.Fit:
    return sf.fit("lr_power_batch", points())


@cache
def power() -> sf.Fit:
    table = points().groupby(["params", "tokens"], as_index=False).mean()
    return sf.fit("lr_power", table)


@cache
def loss_law() -> sf.Fit:
    params, tokens = (axis.ravel() for axis in np.meshgrid(np.geomspace(5e7, 5e9, 7), np.geomspace(1e9, 2e11, 7)))
    noise = 0.003 * np.random.default_rng(2).normal(size=len(params))
    loss = (1.8 + 480 * params**-0.35 + 2100 * tokens**-0.37) * np.exp(noise)
    return sf.fit("chinchilla", pd.DataFrame({"params": params, "tokens": tokens, "loss": loss}))


@cache
def by_batch() -> dict[str, sf.Fit]:
    batch = 2.0 ** np.arange(12, 23)
    rng = np.random.default_rng(3)
    lr = 4e-3 / (1 + 3e5 / batch) ** 0.5 * np.exp(0.05 * rng.normal(size=len(batch)))
    table = pd.DataFrame({"batch": batch, "lr": lr})
    return {"SGD": sf.fit("mccandlish2018_lr", table), "surge": sf.fit("li2024_surge", table)}


@cache
def report() -> sf.Backtest:
    entrants = [
        Entrant("near the minimum", sf.NearMinimum()),
        Entrant("parabola", sf.Parabola()),
        Entrant("grid minimum", sf.GridMinimum()),
        PublishedEntrant("steplaw2025", "steplaw2025_lr", "steplaw2025_bs"),
    ]
    return sf.backtest(sweep(), "params > 1e9", entrants=entrants)


@cache
def trade() -> Tradeoff:
    """Return hyperbolas at three targets; the lowest was not reached by the largest batch."""
    target, batch = (axis.ravel() for axis in np.meshgrid((3.2, 3.0, 2.8), 2.0 ** np.arange(15, 24), indexing="ij"))
    critical, least = 4e5 * (3.2 / target) ** 6, 1.5e9 * (3.2 / target) ** 9
    noise = 0.02 * np.random.default_rng(4).normal(size=len(batch))
    examples = least * (1 + batch / critical) * np.exp(noise)
    status = np.where((target == 2.8) & (batch > 8e6), "bound", "point")
    table = pd.DataFrame({"target": target, "batch": batch, "tokens": examples, "status": status})
    return fit_tradeoff(table)


@cache
def critical() -> sf.Fit:
    table = pd.DataFrame({"loss": trade().table["target"], "B_crit": trade().table["B_crit"]})
    return sf.fit("B_crit = B_star / L**(1/alpha_B)", table)


@cache
def training() -> Curves:
    """Return the loss curves of eight runs over four batch sizes; one diverged."""
    runs = []
    for batch in BATCHES[1:7:2]:
        for lr, late in ((1e-3, 1.0), (2e-3, 1.12), (4e-3, 1.3)):
            tokens = np.geomspace(4e7, 2e10, 60)
            loss = 1.8 + 34 * late * (tokens / (1 + batch / 1e6)) ** -0.16
            loss += 0.01 * np.random.default_rng(int(batch * lr)).normal(size=60)
            if lr == 4e-3 and batch == BATCHES[1]:
                loss[40:] = np.nan
            runs.append(
                pd.DataFrame({"run": f"B{batch:g}-lr{lr:g}", "batch": batch, "lr": lr, "tokens": tokens, "loss": loss})
            )
    return read_curves(pd.concat(runs), batch_unit="tokens", nonfinite="diverged")


PICTURES: dict[str, Callable[..., Any]] = {
    "basins_one": lambda ax=None: plots.basins(cell(BATCHES[3]), ax=ax),
    "basins": lambda ax=None: plots.basins(cell().where("batch < 600000"), optima(), ax=ax),
    "surface": lambda ax=None: plots.surface(surface(), sweep(), params=SIZES[1], tokens=BUDGETS[1], ax=ax),
    "optima": lambda ax=None: plots.optima(optima(), "batch", "params", ax=ax),
    "law": lambda ax=None: plots.law(law(), "params", heldout=points(1, beyond=True), ax=ax),
    "law_by": lambda ax=None: plots.law(law(), "tokens", by="batch", ax=ax),
    "compare": lambda ax=None: plots.compare(by_batch(), along="batch", ax=ax),
    "published": lambda ax=None: plots.published(
        power(), ["steplaw2025_lr", "oellm2026_lr", "porian2024_lr"], "params", ax=ax
    ),
    "residuals": lambda ax=None: plots.residuals(law(), "tokens", ax=ax),
    "forecast": lambda ax=None: plots.forecast(
        sf.extrapolate(power(), params=[5e9, 2e10, 7e10], tokens=3e11), along="params", ax=ax
    ),
    "backtest": lambda ax=None: plots.backtest(report(), ax=ax),
    "draws": lambda ax=None: plots.draws(sf.bootstrap(power(), n=400), published=["oellm2026_lr"], ax=ax),
    "isoflops": lambda ax=None: plots.isoflops(loss_law(), ax=ax),
    "tradeoff": lambda ax=None: plots.tradeoff(trade(), ax=ax),
    "bcrit": lambda ax=None: plots.bcrit(trade(), critical(), ax=ax),
    "curves": lambda ax=None: plots.curves(training(), [2.9, 2.6], by="batch", ax=ax),
}
"""Name to picture; each takes axes or makes its own."""
