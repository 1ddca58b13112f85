"""The pooled asymmetric basin: no bias on asymmetric truth, honest errors, repeatable on a real sweep."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import scalefit as sf
from scalefit.extractors.cells import pad
from scalefit.simulation import Design, Truth, simulate_sweep


def simulated(asymmetry: float, seed: int, design: Design | None = None) -> tuple[sf.Sweep, Truth]:
    truth = replace(Truth(), asymmetry=asymmetry)
    table = simulate_sweep(truth, design or Design(), seed=seed)
    return sf.read_sweep(table, batch_unit="tokens", nonfinite="diverged"), truth


def errors(sweep: sf.Sweep, truth: Truth, method: object) -> tuple[np.ndarray, np.ndarray]:
    """Error of log lr and its quoted standard error, over interior cells."""
    table = sf.find_optima(sweep, over="lr", method=method).table.query("status == 'interior'")
    best = truth.optimum(table["params"], table["tokens"], table["batch"])["lr"]
    return np.log(table["lr"] / best).to_numpy(), table["log_lr_stderr"].to_numpy()


@pytest.mark.parametrize("k", [0.0, 0.4, 0.8, 1.2])
def test_noiseless_basin_gives_the_optimum_and_the_asymmetry(k):
    x = np.tile(np.log(1e-3 * 2.0 ** np.arange(0, 6, 0.5)), 6)
    cell = np.repeat(np.arange(6), 12)
    u = x - np.log(4e-3 * (1 + 0.3 * cell))
    loss = 3 + 0.03 * (np.expm1(k * u) - k * u) / k**2 if k else 3 + 0.015 * u**2
    found = sf.Basin().extract(pad(cell, x[:, None], loss, 6))
    np.testing.assert_allclose(np.exp(found.value[:, 0]), 4e-3 * (1 + 0.3 * np.arange(6)), rtol=5e-3)
    assert any(f"k = {k:.2f}" in note.text for note in found.notes)
    np.testing.assert_allclose(found.curvature[:, 0], 0.03, rtol=0.02)  # at the optimum, not where the runs are centred


def test_asymmetric_truth_is_read_without_the_parabolas_shift():
    mine, theirs = [], []
    for seed in range(5):
        sweep, truth = simulated(0.8, seed)
        mine.append(errors(sweep, truth, sf.Basin())[0].mean())
        theirs.append(errors(sweep, truth, sf.Parabola())[0].mean())
    assert abs(np.mean(mine)) < 0.02
    assert np.mean(theirs) < -0.1


@pytest.mark.parametrize("k", [0.0, 0.8])
def test_standard_errors_match_the_scatter_of_simulated_optima(k):
    pairs = [errors(*simulated(k, seed), sf.Basin()) for seed in range(6)]
    error = np.concatenate([e for e, _ in pairs])
    quoted = np.concatenate([s for _, s in pairs])
    assert np.std(error) / np.sqrt(np.mean(quoted**2)) == pytest.approx(1.0, abs=0.2)


def test_is_the_default_over_the_learning_rate_only():
    sweep, _ = simulated(0.8, 0)
    assert isinstance(sf.find_optima(sweep, over="lr").method, sf.Basin)
    assert isinstance(sf.find_optima(sweep, over=("lr", "batch")).method, sf.NearMinimum)
    with pytest.raises(sf.SweepError, match="one axis"):
        sf.find_optima(sweep, over=("lr", "batch"), method=sf.Basin())


def test_optimum_beyond_the_grid_is_a_bound():
    sweep, _ = simulated(0.8, 1, Design(off_centre=6.0))
    table = sf.find_optima(sweep, over="lr").table
    assert (table["status"] == "edge").mean() > 0.5
    edges = table[table["status"] == "edge"]
    assert (np.isinf(edges["lr_hi"]) | (edges["lr_lo"] == 0)).all()


def test_runs_that_blew_up_pull_nothing():
    x = np.log(1e-3 * 2.0 ** np.arange(0, 6, 0.5))
    u = x - np.log(2e-3)
    loss = 3 + 0.03 * (np.expm1(0.8 * u) - 0.8 * u) / 0.64
    loss[-3:] = [7.0, 9.0, 6.5]
    found = sf.Basin(asymmetry=0.8).extract(pad(np.zeros(12, dtype=int), x[:, None], loss, 1))
    assert np.exp(found.value[0, 0]) == pytest.approx(2e-3, rel=0.02)


def test_repeats_between_odd_and_even_learning_rates_of_a_real_sweep(shared_data):
    raw = sf.read_sweep(shared_data("steplaw_dense_lr_bs.csv"), columns={"loss": "smooth loss"}).table
    by, halves, count = ["params", "tokens", "batch"], ([], []), 0
    for _, cell in raw.sort_values("lr").groupby(by):
        if len(cell) >= 10 and 2 <= int(np.argmin(cell["loss"])) < len(cell) - 2:
            count += 1
            for start in (0, 1):
                halves[start].append(cell.iloc[start::2])
    found = []
    for half in halves:
        sweep = sf.read_sweep(pd.concat(half)[["lr", *by, "loss"]], batch_unit="tokens")
        found.append(np.log2(sf.find_optima(sweep, over="lr", by=by).table.set_index(by)["lr"]))
    gap = (found[0] - found[1]).abs()
    assert count == 142
    assert gap.median() < 0.085
    assert gap.quantile(0.9) < 0.25
