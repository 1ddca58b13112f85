"""Simulated sweeps with known truth: bias of the surface's exponents, coverage of its intervals and of the bootstrap's.

`pytest -m slow tests/test_coverage.py -s` prints the table of docs/statistics.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

import scalefit as sf
from scalefit.simulation import Design, Truth, simulate_sweep

ROOT2 = 2**0.5
PLAIN, STRAYING = Truth(), Truth(lr_scatter=0.1, batch_scatter=0.1)
RAGGED = Truth(cliff=4.0, cliff_width=0.2, diverged_nan=0.5, noise_dof=3.0)
LAB = Design(params=(1e7, 3e7, 1e8, 3e8, 1e9), tokens=tuple(np.geomspace(1e9, 6.4e10, 9)), lr_levels=5, batch_levels=7)
DESIGNS: dict[str, tuple[Truth, Callable[[int], Design]]] = {
    "factors of 2, off centre": (PLAIN, lambda seed: Design(off_centre=float(seed % 3) - 1, missing=0.15)),
    "factors of root 2": (PLAIN, lambda seed: Design(lr_levels=11, lr_ratio=ROOT2, missing=0.15)),
    "5 lr x 3 batches": (PLAIN, lambda seed: Design(lr_levels=5, batch_levels=3, batch_ratio=4.0)),
    "drifting grid": (PLAIN, lambda seed: Design(off_centre=1.5, drift=-1.0, missing=0.1)),
    "45 cells of 5 x 7": (PLAIN, lambda seed: LAB),
    "edge cells, cliff, t3": (
        RAGGED,
        lambda seed: Design(off_centre=0.5, drift=-0.3, edge=0.2, edge_steps=(-1.0) ** seed, missing=0.1),
    ),
    "cells stray by 0.1": (STRAYING, lambda seed: Design(off_centre=float(seed % 3) - 1, missing=0.15)),
}
EXPONENTS = {
    ("lr", "a"): "lr_params_power",
    ("lr", "b"): "lr_tokens_power",
    ("batch", "a"): "batch_params_power",
    ("batch", "b"): "batch_tokens_power",
}
FAR = {"params": 1e10, "tokens": 6.4e11}


def surface_of(truth: Truth, design: Design, seed: int) -> sf.Surface:
    table = simulate_sweep(truth, design, seed=seed)
    return sf.fit_surface(sf.read_sweep(table, batch_unit="tokens", nonfinite="diverged"))


def far_optimum(found: sf.Surface) -> pd.Series:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sf.ExtrapolationWarning)
        return found.optimum(**FAR).iloc[0]


def far_truth(truth: Truth, seed: int) -> dict[str, float]:
    """Where the optimum of a new cell lies, which strays from the laws as the cells of the sweep do."""
    stray = np.random.default_rng([seed, 99]).normal(size=2)
    best = truth.optimum(**FAR)
    scatter = {"lr": truth.lr_scatter, "batch": truth.batch_scatter}
    return {name: float(best[name]) * np.exp(scatter[name] * s) for name, s in zip(scatter, stray, strict=True)}


def judge_sweep(truth: Truth, design: Design, seed: int) -> dict[str, tuple[float, bool]]:
    """Return error and whether the 95 % interval held the truth, for exponents and a tenfold extrapolation."""
    found, rows = surface_of(truth, design, seed), {}
    tables = {name: fit.table.set_index("parameter") for name, fit in found.laws.items()}
    for (name, parameter), power in EXPONENTS.items():
        row, true = tables[name].loc[parameter], getattr(truth, power)
        rows[f"{name} {parameter}"] = (row["value"] - true, row["lo"] < true < row["hi"])
    far = far_optimum(found)
    for name, true in far_truth(truth, seed).items():
        rows[f"{name} x10"] = (np.log(far[name] / true), far[f"{name}_lo"] < true < far[f"{name}_hi"])
    return rows | losses(found, truth, seed)


def losses(found: sf.Surface, truth: Truth, seed: int) -> dict[str, tuple[float, bool]]:
    """Return error and coverage for the loss of a new run up to an octave off the optimum, in a known cell and far."""
    rng, rows = np.random.default_rng([seed, 98]), {}
    for label, cell in {"loss": {"params": 2e8, "tokens": 1.6e10}, "loss x10": FAR}.items():
        best = {name: value * 2 ** rng.uniform(-1, 1) for name, value in truth.optimum(**cell).items()}
        noise = truth.noise * rng.standard_t(truth.noise_dof) / np.sqrt(truth.noise_dof / (truth.noise_dof - 2))
        seen = float(truth.loss(**best, **cell)) + noise
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sf.ExtrapolationWarning)
            row = found.predict_loss(**best, **cell).iloc[0]
        rows[label] = (row["loss"] - seen, row["loss_lo"] < seen < row["loss_hi"])
    return rows


def study(name: str, sweeps: int) -> pd.DataFrame:
    """Return bias in units of the standard deviation, and coverage, of every quantity over simulated sweeps."""
    truth, design = DESIGNS[name]
    judged = [judge_sweep(truth, design(seed), seed) for seed in range(sweeps)]
    rows = {}
    for quantity in judged[0]:
        error, held = np.array([found[quantity] for found in judged], dtype=float).T
        rows[quantity] = {"bias": error.mean() / error.std(ddof=1), "coverage": held.mean()}
    return pd.DataFrame(rows).T


@pytest.mark.parametrize("name", ["factors of 2, off centre", "cells stray by 0.1"])
def test_exponents_are_unbiased_and_intervals_hold(name):
    """With 24 sweeps: a bias of one standard deviation, or a coverage of 80 %, is found out nearly always."""
    table = study(name, 24)
    exponents = table.filter(regex=" [ab]$", axis=0)
    assert (exponents["bias"].abs() < 1 / 3 + 3 / np.sqrt(24)).all(), table
    assert (table["coverage"] >= 0.75).all(), table
    assert 0.9 <= table["coverage"].mean() <= 0.995, table


@pytest.mark.slow
@pytest.mark.parametrize("name", list(DESIGNS))
def test_exponents_are_unbiased_and_intervals_hold_over_many_sweeps(name):
    table = study(name, 500)
    print(f"\n{name}\n{table.round(3).to_string()}")
    exponents = table.filter(regex=" [ab]$", axis=0)
    assert (exponents["bias"].abs() < 1 / 3).all(), table
    assert ((table["coverage"] > 0.9) & (table["coverage"] < 0.995)).all(), table
    assert 0.93 <= table["coverage"].mean() <= 0.97, table


@pytest.mark.slow
def test_the_bootstrap_covers_about_as_well_as_the_surface():
    """Percentiles of refits to 16 resampled cells are too narrow by the factor sqrt(15/16) and more at the ends."""
    held = []
    for seed in range(100):
        draws = sf.bootstrap(surface_of(STRAYING, Design(missing=0.15), seed), n=200, seed=seed)
        table = draws.intervals().set_index(["setting", "parameter"])
        held.append(
            [table.loc[key, "lo"] < getattr(STRAYING, p) < table.loc[key, "hi"] for key, p in EXPONENTS.items()]
        )
    share = np.mean(held)
    print(f"\nbootstrap, cells stray by 0.1: {share:.3f}")
    assert 0.84 <= share <= 0.97
