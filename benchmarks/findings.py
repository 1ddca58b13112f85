"""The tables of docs/findings.md, from the bundled sweep.

python benchmarks/findings.py
"""

from __future__ import annotations

import warnings

import numpy as np

import scalefit as sf
from scalefit.backtesting.competitors import EffectiveEntrant, Entrant

FACTORS = {
    "B^g": "B**g",
    "1/(1 + B0/B)": "1/(1 + B0/B)",
    "1/(1 + B0/B)^alpha": "1/(1 + B0/B)**alpha",
    "surge, B0 constant": "2/(sqrt(B0/B) + sqrt(B/B0))",
    "surge, B0 as D^q": "2/(sqrt(B0*(D/1e6)**q/B) + sqrt(B/(B0*(D/1e6)**q)))",
    "1/(1 + B0/B)^alpha, B0 as D^q": "1/(1 + B0*(D/1e6)**q/B)**alpha",
}


def shown(fit: sf.Fit) -> str:
    """Return the parameters with their standard errors on one line."""
    return ", ".join(f"{row.parameter} = {row.value:.3g} +/- {row.stderr:.2g}" for row in fit.table.itertuples())


def main() -> None:
    """Run and print."""
    warnings.simplefilter("ignore", sf.ExtrapolationWarning)
    sweep = sf.load_dataset("tiny-lm")
    optima = sf.find_optima(sweep, over="lr")
    table = optima.table
    print(f"{len(sweep)} runs, {len(optima)} cells, {(table['status'] == 'interior').mean():.0%} interior")
    law = sf.fit("lr_power_batch", optima)
    print(law, sf.bootstrap(law, n=1000, by="cell", seed=0), sep="\n")
    for batch in (64, 256, 1024, 4096, 16384):
        near = table[(table["status"] == "interior") & (np.abs(np.log(table["batch"] / batch)) < 0.01)]
        print(f"B = {batch}: {len(near)} cells, {shown(sf.fit('lr_power', near[['params', 'tokens', 'lr']]))}")
    for method in (sf.Basin(), sf.Parabola()):
        both = sf.find_optima(sweep, over=("lr", "batch"), method=method)
        for name in ("lr_power", "batch_power"):
            fit = sf.fit(name, both)
            print(f"co-tuned {name}, {method}: {fit.n} cells, {shown(fit)}")
    surface = sf.fit_surface(sweep)
    print(f"surface: {shown(surface.lr_fit)}")
    fits = {label: sf.fit(f"eta = c * N**a * D**b * {factor}", optima) for label, factor in FACTORS.items()}
    ranking = sf.compare(list(fits.values())).table.set_index("law")
    for label, fit in fits.items():
        row = ranking.loc[fit.law.formula]
        errors = f"AICc {row['aicc']:.1f}, cells left out {row['leave_out']:.3f}"
        print(f"{label}: scatter {fit.scale:.3f}, {errors}; {shown(fit)}")
    print("effective:", shown(sf.fit("lr_power_batch", sf.find_optima(sf.effective_lr(sweep), over="lr"))))
    rivals = [Entrant("as set", None, "lr_power", "batch_power"), EffectiveEntrant("effective")]
    for holdout in ("largest params", "largest tokens", "tokens >= 2e6", "rolling params"):
        paired = sf.backtest(sweep, holdout, entrants=rivals).summary()
        print(paired[["entrant", "regret_pct", "behind_pct", "behind_stderr"]].to_string(), f"({holdout})", sep="\n")
        scores = sf.backtest(sweep, holdout).summary()[["entrant", "cells", "regret_pct", "regret_stderr", "lr_log2"]]
        print(scores.to_string(), f"({holdout})", sep="\n")


if __name__ == "__main__":
    main()
