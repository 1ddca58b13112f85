"""Simulated sweeps: the truth is what it says, and the bundled sweep is what its files say."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from scalefit.errors import SweepError
from scalefit.simulation import Design, Truth, simulate_sweep, true_cells, write_bundle

BUNDLE = Path(__file__).resolve().parents[1] / "data" / "simulated"
QUIET = Truth(noise=0.0)


def test_the_optimum_is_the_lowest_point_of_the_loss():
    truth, n, d = Truth(), 2e8, 1.6e10
    best = truth.optimum(n, d)
    lowest = truth.loss(best["lr"], best["batch"], n, d)
    assert lowest == pytest.approx(truth.lowest_loss(n, d), abs=1e-12)
    rng = np.random.default_rng(0)
    lr, batch = best["lr"] * np.exp(rng.normal(0, 0.5, 500)), best["batch"] * np.exp(rng.normal(0, 0.5, 500))
    assert (truth.loss(lr, batch, n, d) > lowest).all()


def test_the_best_lr_follows_the_batch():
    truth = Truth(lr_batch_power=0.5)
    best = truth.optimum(1e8, 1e10)
    away = truth.optimum(1e8, 1e10, batch=4 * best["batch"])
    assert away["lr"] == pytest.approx(2 * best["lr"])
    lr = best["lr"] * np.exp(np.linspace(-2, 2, 4001))
    assert lr[np.argmin(truth.loss(lr, 4 * best["batch"], 1e8, 1e10))] == pytest.approx(away["lr"], rel=2e-3)


def test_laws_are_powers_of_params_and_tokens():
    truth = Truth(batch_params_power=0.1)
    near, far = truth.optimum(1e7, 1e9), truth.optimum(1e9, 1e11)
    lr_power, batch_power = (np.log10(far[k] / near[k]) / 2 for k in ("lr", "batch"))
    assert lr_power == pytest.approx(truth.lr_params_power + truth.lr_tokens_power)
    assert batch_power == pytest.approx(0.1 + truth.batch_tokens_power)


def test_the_basin_is_steeper_above_and_a_parabola_without_asymmetry():
    n, d = 1e8, 1e10
    skewed, even = Truth(asymmetry=0.8), Truth(asymmetry=0.0)
    best = even.optimum(n, d)

    def rise(truth, factor):
        return truth.loss(best["lr"] * factor, best["batch"], n, d) - truth.lowest_loss(n, d)

    assert rise(skewed, 4) > rise(even, 4) > rise(skewed, 0.25)
    assert rise(even, 4) == pytest.approx(0.5 * even.lr_curvature * np.log(4) ** 2)
    assert rise(Truth(asymmetry=1e-9), 4) == pytest.approx(rise(even, 4), rel=1e-6)


def test_runs_above_the_cliff_diverge():
    truth = Truth(cliff=3.0)
    best = truth.optimum(1e8, 1e10)
    loss = truth.loss(best["lr"] * np.array([1.0, 2.9, 3.1]), best["batch"], 1e8, 1e10)
    assert np.isnan(loss).tolist() == [False, False, True]
    assert simulate_sweep(truth, seed=0)["loss"].isna().any()


@pytest.mark.parametrize("dof", [5.0, np.inf])
def test_noise_has_the_stated_size_and_zero_mean(dof):
    truth = Truth(noise=0.01, noise_dof=dof)
    table = simulate_sweep(truth, Design(repeats=40), seed=1)
    rest = table["loss"] - truth.loss(table["lr"], table["batch"], table["params"], table["tokens"])
    assert rest.std() == pytest.approx(0.01, rel=0.04)
    assert abs(rest.mean()) < 4 * 0.01 / np.sqrt(len(table))
    tail = (rest.abs() > 0.04).mean()
    assert tail > 2e-3 if np.isfinite(dof) else tail < 5e-4


def test_the_same_seed_gives_the_same_table_and_another_another():
    assert simulate_sweep(seed=4).equals(simulate_sweep(seed=4))
    assert not simulate_sweep(seed=4).equals(simulate_sweep(seed=5))


@pytest.mark.parametrize("ratio", [2.0, 2.0**0.5])
def test_levels_are_shared_by_all_cells_and_centred_on_the_optimum(ratio):
    table = simulate_sweep(QUIET, Design(lr_ratio=ratio), seed=0)
    index = np.log(table["lr"]) / np.log(ratio)
    np.testing.assert_allclose(index, np.rint(index), atol=1e-9)
    best = QUIET.optimum(table["params"], table["tokens"])["lr"]
    for _, cell in np.log(table["lr"] / best).groupby([table["params"], table["tokens"]]):
        assert abs(cell.mean()) <= np.log(ratio) / 2 + 1e-9


def test_off_centre_drift_missing_and_repeats():
    centred = simulate_sweep(QUIET, Design(), seed=0)
    moved = simulate_sweep(QUIET, Design(off_centre=2.0), seed=0)
    np.testing.assert_allclose(moved["lr"], 4 * centred["lr"])
    drifting = simulate_sweep(QUIET, Design(params=(1e7, 1e9), drift=1.0), seed=0)
    straight = simulate_sweep(QUIET, Design(params=(1e7, 1e9)), seed=0)
    ratio = (drifting["lr"] / straight["lr"]).groupby(drifting["params"]).mean()
    np.testing.assert_allclose(ratio, [1, 4])
    assert 0.6 < len(simulate_sweep(design=Design(missing=0.3), seed=0)) / len(centred) < 0.8
    seeds = simulate_sweep(design=Design(repeats=3), seed=0)
    assert len(seeds) == 3 * len(centred)
    assert sorted(seeds["seed"].unique()) == [0, 1, 2]


def by_cell(table):
    return [table["params"], table["tokens"]]


def test_the_grid_may_drift_with_tokens_and_follow_the_batch():
    straight = simulate_sweep(QUIET, Design(tokens=(1e9, 1e11)), seed=0)
    drifting = simulate_sweep(QUIET, Design(tokens=(1e9, 1e11), drift_tokens=-1.0), seed=0)
    np.testing.assert_allclose((drifting["lr"] / straight["lr"]).groupby(straight["tokens"]).mean(), [1, 0.25])
    moved = simulate_sweep(QUIET, Design(batch_off_centre=1.0), seed=0)
    np.testing.assert_allclose(moved["batch"], 2 * simulate_sweep(QUIET, seed=0)["batch"])
    following = simulate_sweep(QUIET, Design(follow_batch=True), seed=0)
    best = QUIET.optimum(following["params"], following["tokens"], following["batch"])["lr"]
    middle = np.log2(following["lr"] / best).groupby([*by_cell(following), following["batch"]]).mean()
    assert middle.abs().max() <= 0.5 + 1e-9


@pytest.mark.parametrize("steps", [1.0, 2.0, -1.0])
@pytest.mark.parametrize("ratio", [2.0, 2.0**0.5])
def test_edge_cells_and_only_they_miss_the_optimum(ratio, steps):
    design = Design(edge=0.25, edge_steps=steps, lr_ratio=ratio)
    table, cells = simulate_sweep(QUIET, design, seed=3), true_cells(QUIET, design, seed=3)
    assert cells["edge"].sum() == 4
    grid = table.groupby(by_cell(table))["lr"].agg(["min", "max"]).reset_index()
    found = cells.merge(grid, on=["params", "tokens"])
    inside = (found["min"] < found["lr"]) & (found["lr"] < found["max"])
    assert (inside == ~found["edge"]).all()
    nearest = found["max"] if steps > 0 else found["min"]
    gap = np.abs(np.log(found["lr"] / nearest) / np.log(ratio))[found["edge"]]
    assert gap.between(abs(steps) - 0.5 - 1e-9, abs(steps) + 0.5 + 1e-9).all()


def test_divergence_grows_with_lr_and_ends_as_stated():
    truth = Truth(cliff=4.0, cliff_width=0.4, diverged_nan=0.5, diverged_excess=(0.5, 3.0), noise=0.001)
    table = simulate_sweep(truth, Design(repeats=40), seed=2)
    best = truth.optimum(table["params"], table["tokens"])
    above = np.log(table["lr"] / truth.optimum(table["params"], table["tokens"], table["batch"])["lr"])
    expected = truth.divergence(table["lr"], table["batch"], best["lr"], best["batch"])
    lowest = truth.lowest_loss(table["params"], table["tokens"])
    excess = table["loss"] - lowest
    smooth = truth.excess(table["lr"], table["batch"], best["lr"], best["batch"])
    diverged = excess.isna() | ((excess - smooth).abs() > 0.05)
    bins = np.digitize(above, [-1.0, 0.0, 0.7, 1.2, 1.6, 2.2])
    counts = np.bincount(bins)
    rate, mean = (np.bincount(bins, weights) / counts for weights in (diverged, expected))
    assert (np.abs(rate - mean) < 4 * np.sqrt(mean * (1 - mean) / counts) + 2e-3).all()
    assert rate[0] < 0.005
    assert rate[-1] > 0.6
    assert excess.isna().sum() / diverged.sum() == pytest.approx(0.5, abs=0.03)
    high = excess[diverged].dropna()
    assert high.between(0.5, 3.0).all()
    assert high.mean() == pytest.approx(1.75, abs=0.06)


def test_a_hard_cliff_is_the_limit_of_a_narrow_one():
    hard, narrow = Truth(cliff=3.0), Truth(cliff=3.0, cliff_width=1e-4)
    assert simulate_sweep(hard, seed=0).equals(simulate_sweep(narrow, seed=0))


def test_cells_stray_together_by_the_stated_amount():
    design = Design(params=tuple(np.geomspace(1e7, 1e9, 20)), tokens=tuple(np.geomspace(1e9, 1e11, 20)))
    truth = Truth(lr_scatter=0.2, batch_scatter=0.3, floor_scatter=0.01, noise=0.0)
    cells = true_cells(truth, design, seed=1)
    law = truth.optimum(cells["params"], cells["tokens"])
    for name, size in (("lr", 0.2), ("batch", 0.3)):
        stray = np.log(cells[name] / law[name])
        assert stray.std() == pytest.approx(size, rel=0.15)
        assert abs(stray.mean()) < 4 * size / 20
    assert (cells["loss"] - truth.lowest_loss(cells["params"], cells["tokens"])).std() == pytest.approx(0.01, rel=0.15)
    table = simulate_sweep(truth, design, seed=1).merge(cells, on=["params", "tokens"], suffixes=("", "_best"))
    excess = truth.excess(table["lr"], table["batch"], table["lr_best"], table["batch_best"])
    np.testing.assert_allclose(table["loss"], table["loss_best"] + excess, rtol=1e-12)


def test_switching_one_oddity_on_leaves_other_draws_alone():
    plain = simulate_sweep(Truth(), Design(missing=0.2), seed=7)
    ragged = simulate_sweep(Truth(cliff=3.0, cliff_width=0.2), Design(missing=0.2), seed=7)
    assert plain["lr"].equals(ragged["lr"])
    lost = ragged["loss"].isna()
    assert 0 < lost.sum() < len(lost)
    np.testing.assert_array_equal(plain.loc[~lost, "loss"], ragged.loc[~lost, "loss"])


def test_steps_batch_and_tokens_agree():
    table = simulate_sweep(seed=0)
    np.testing.assert_allclose(table["steps"] * table["batch"], table["tokens"], rtol=1e-3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Truth(lr=-1.0),
        lambda: Truth(lr_curvature=0.0),
        lambda: Truth(noise=-0.1),
        lambda: Truth(noise_dof=2.0),
        lambda: Truth(cliff=1.0),
        lambda: Design(lr_levels=0),
        lambda: Design(params=()),
        lambda: Design(lr_ratio=1.0),
        lambda: Design(missing=1.0),
        lambda: Truth(cliff_width=-0.1),
        lambda: Truth(lr_scatter=np.inf),
        lambda: Truth(diverged_nan=1.5),
        lambda: Truth(diverged_excess=(3.0, 0.5)),
        lambda: Design(edge=1.5),
        lambda: Design(edge_steps=0.5),
    ],
)
def test_a_truth_or_design_without_meaning_is_refused(make):
    with pytest.raises(SweepError):
        make()


def test_the_bundled_sweep_is_regenerated_exactly(tmp_path):
    stated = json.loads((BUNDLE / "truth.json").read_text(encoding="utf-8"))
    runs, facts = write_bundle(tmp_path / "again", seed=stated["seed"])
    assert runs.read_bytes() == (BUNDLE / "runs.csv").read_bytes()
    assert facts.read_bytes() == (BUNDLE / "truth.json").read_bytes()
    assert f"seed={stated['seed']})" in (BUNDLE / "generate.py").read_text(encoding="utf-8")
    assert Truth(**stated["truth"]) == Truth()
    assert set(stated["design"]) == {field.name for field in dataclasses.fields(Design)}


def test_the_bundled_files_are_small_and_their_sums_are_in_the_readme():
    readme = (BUNDLE / "README.md").read_text(encoding="utf-8")
    for name in ("runs.csv", "truth.json"):
        data = (BUNDLE / name).read_bytes()
        assert len(data) < 100_000
        assert hashlib.sha256(data).hexdigest() in readme
