"""What the tests on public sweeps show, on simulated files of the same formats, so that a plain clone shows it too."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import stand_ins
from fitting.nist_facts import NIST, Certified

import scalefit as sf

INPUTS = {
    **dict.fromkeys(("Misra1a", "Misra1b", "Misra1c", "Misra1d"), (77, 760)),
    **dict.fromkeys(("Chwirut1", "Chwirut2"), (0.5, 6)),
    **dict.fromkeys(("Lanczos1", "Lanczos2", "Lanczos3"), (0, 1.15)),
    **dict.fromkeys(("Gauss1", "Gauss2", "Gauss3"), (1, 250)),
    "DanWood": (1.3, 1.7),
    "Kirby2": (10, 371),
    "Hahn1": (14, 851),
    "MGH17": (0, 320),
    "Roszman1": (-4868, -464),
    "ENSO": (1, 168),
    "MGH09": (0.0625, 4),
    "Thurber": (-3, 2.2),
    "BoxBOD": (1, 10),
    "Rat42": (9, 79),
    "MGH10": (50, 125),
    "Eckerle4": (400, 500),
    "Rat43": (1, 15),
    "Bennett5": (7.4, 12.3),
}
"""The range of inputs of every certified set."""


@pytest.fixture(scope="module")
def step_law(tmp_path_factory) -> sf.Sweep:
    path = tmp_path_factory.mktemp("public") / "dense_lr_bs_loss.csv"
    stand_ins.step_law().to_csv(path, index=False)
    with pytest.raises(sf.SweepError, match="'loss' and 'smooth loss'"):
        sf.read_sweep(path)
    return sf.read_sweep(path, columns={"loss": "smooth loss"})


def test_the_unit_of_the_batch_is_proven_and_cells_are_kept(step_law):
    raw = stand_ins.step_law()
    np.testing.assert_array_equal(step_law.table["batch"], raw["bs"] * 2048.0)
    np.testing.assert_array_equal(step_law.table["input_loss"], raw["loss"])
    assert any("sequences of 2048 tokens" in note.text for note in step_law.notes)
    assert len(step_law.levels("lr")) < raw["lr"].nunique()
    jittered = raw.assign(N=raw["N"] * (1 + 1e-9 * np.random.default_rng(0).normal(size=len(raw))))
    assert len(sf.read_sweep(jittered, columns={"loss": "smooth loss"}).cells) == len(step_law.cells)


@pytest.mark.parametrize("holdout", ["params > 5e8", "tokens > 2e10"])
def test_the_surface_predicts_held_out_cells(step_law, holdout):
    report = sf.backtest(step_law, holdout)
    scores = report.summary().set_index("entrant")
    ours = next(name for name in scores.index if "surface" in name.lower())
    assert scores.loc[ours, "regret_pct"] < 0.1
    assert scores.loc[ours, "regret_pct"] <= scores.loc["grid minimum + OLS", "regret_pct"]
    assert scores.loc[ours, "lr_log2"] < 0.5


def test_near_optimal_runs_give_the_laws(step_law):
    near = sf.find_optima(step_law, over=("lr", "batch"), method=sf.NearMinimum(0.0025))
    assert (near.table["status"] == "interior").mean() > 0.5
    places = pd.DataFrame({"params": [1e8, 1e9, 1e9], "tokens": [1e10, 1e10, 4e10]})
    truth = np.log(stand_ins.TRUTH.optimum(places["params"], places["tokens"])["lr"])
    found = np.log(sf.fit("lr_power", near).predict(places)["prediction"].to_numpy())
    np.testing.assert_allclose(found, truth, atol=0.3)


def test_halves_of_the_rates_agree_better_on_the_basin_than_on_the_lowest_run(step_law):
    table = step_law.table.sort_values("lr")

    def gap(method):
        halves = []
        for half in (0, 1):
            parts = [runs.iloc[half::2] for _, runs in table.groupby(["params", "tokens", "batch"]) if len(runs) >= 8]
            found = sf.find_optima(sf.Sweep.from_frame(pd.concat(parts)), over="lr", method=method).table
            halves.append(np.log2(found.set_index(["params", "tokens", "batch"])["lr"]))
        return (halves[0] - halves[1]).abs().median()

    assert gap(None) < 0.15
    assert gap(None) < gap(sf.GridMinimum()) / 2


def test_critical_batches_of_five_sizes():
    steps = stand_ins.steps_to_target()
    trade = sf.fit_tradeoff(steps)
    np.testing.assert_allclose(trade.table["B_crit"], stand_ins.CRITICAL, rtol=0.15)
    assert trade.table["identified"].all()
    assert sf.fit("B_crit = c * N**a", trade).values["a"] == pytest.approx(0.6, abs=0.06)
    for method in (sf.StepsLine(), sf.InverseSteps(), sf.Overhead(0.2)):
        found = sf.fit_tradeoff(steps, method=method).table["B_crit"].to_numpy()
        share = 0.2 if isinstance(method, sf.Overhead) else 1.0
        np.testing.assert_allclose(found / share, stand_ins.CRITICAL, rtol=0.35)


def test_the_largest_batch_of_replicates_held_out():
    table = stand_ins.replicates()
    largest = table["batch"].max()
    trade = sf.fit_tradeoff(table[table["batch"] < largest], data_unit="samples")
    found = trade.predict(batch=largest).iloc[0]
    truth = 2.5e6 * (1 + largest / 1e4)
    assert found["examples_lo"] < truth < found["examples_hi"]
    assert found["examples"] == pytest.approx(truth, rel=0.05)


def test_a_loss_law_is_found_without_a_start(tmp_path):
    path = tmp_path / "points.csv"
    stand_ins.points_of_a_loss_law().to_csv(path, index=False)
    points = sf.read_sweep(path).table
    points["tokens"] = points["flops"] / (6 * points["params"])
    fit = sf.fit("chinchilla", points, loss=sf.Huber(1e-3))
    assert fit.status is sf.FitStatus.CONVERGED
    table = fit.table.set_index("parameter")
    for name, truth in {"alpha": 0.35, "beta": 0.37, "E": 1.8}.items():
        assert abs(table.at[name, "value"] - truth) < 3 * table.at[name, "stderr"]
    draws = sf.bootstrap(fit, n=200, seed=0)
    spread = draws.table["alpha"].std()
    assert spread == pytest.approx(table.at["alpha", "stderr"], rel=0.4)


def test_optima_at_the_end_of_the_grid_are_bounds(tmp_path):
    path = tmp_path / "runs.csv"
    stand_ins.narrow_grids().to_csv(path, index=False)
    with pytest.raises(sf.SweepError, match="'D' and 'train_tokens'"):
        sf.read_sweep(path)
    with pytest.raises(sf.SweepError, match="1 of 145 runs"):
        sf.read_sweep(path, columns={"tokens": "D"})
    sweep = sf.read_sweep(path, columns={"tokens": "D"}, duplicates="drop")
    assert (len(sweep), len(sweep.cells)) == (144, 36)
    picked = sf.find_optima(sweep, over="lr", method=sf.GridMinimum())
    edges = picked.table["status"] == "edge"
    assert 0.3 < edges.mean() < 0.9
    as_points = sf.fit("lr_power", picked.table[picked.table["status"].isin(["interior", "edge"])])
    censored = sf.fit("lr_power", picked)
    assert abs(censored.values["a"] + 0.6) < abs(as_points.values["a"] + 0.6)
    assert abs(censored.values["a"] + 0.6) < 3 * censored.table.set_index("parameter").at["a", "stderr"]


def test_diverged_runs_are_marked_and_widths_compared(tmp_path):
    path = tmp_path / "widths.csv"
    stand_ins.widths().to_csv(path, index=False)
    with pytest.raises(sf.SweepError, match="values are not"):
        sf.read_sweep(path, columns={"loss": "train_loss"})
    sweep = sf.read_sweep(path, columns={"loss": "train_loss"}, nonfinite="diverged")
    assert sweep.table["diverged"].sum() == stand_ins.widths()["train_loss"].isna().sum()
    assert any(note.code == "curves" for note in sweep.notes)
    last = stand_ins.widths().query("epoch == 3").rename(columns={"train_loss": "loss"})
    optima = sf.find_optima(
        sf.Sweep.from_frame(last.assign(diverged=last["loss"].isna())), over="lr", by=("parameterization", "width")
    ).table
    for kind, slope in (("muP", 0.0), ("SP", -0.7)):
        own = optima[optima["parameterization"] == kind]
        assert np.polyfit(np.log(own["width"]), np.log(own["lr"]), 1)[0] == pytest.approx(slope, abs=0.05)


def test_curves_of_many_runs_reach_their_targets():
    curves = sf.read_curves(stand_ins.schedules(), run=["model_size_M", "curve"])
    reached = curves.tokens_to_target([3.0, 2.8])
    for row in reached.itertuples():
        size, name = next(
            (m, c) for m in (25, 100) for c in ("constant", "cosine") if str(m) in row.run and c in row.run
        )
        floor = {"constant": 2.6, "cosine": 2.5}[name] - 0.2 * np.log10(size / 25)
        steps = (30 / (row.target - floor)) ** 2 - 200
        assert row.status == ("reached" if steps < 12800 else "bound")
        assert row.steps == pytest.approx(min(steps, 12800), rel=0.02)


@pytest.mark.parametrize("start", ["start_1", "start_2"])
@pytest.mark.parametrize("facts", NIST, ids=lambda facts: facts.name)
def test_models_of_certified_sets_from_both_starts(facts: Certified, start: str):
    """The model itself at the certified values, a few inputs, no noise: the fit must come back to them."""
    truth = facts.numbers("values")
    law = sf.Law(facts.formula)
    if facts.name == "Nelson":
        grid = np.meshgrid([1.0, 4, 16, 64], [180.0, 225, 250, 275])
        table = pd.DataFrame({"x1": grid[0].ravel(), "x2": grid[1].ravel()})
    else:
        table = pd.DataFrame({"x": np.linspace(*INPUTS[facts.name], max(4 * len(truth), 24))})
    table["y"] = law(truth, table)
    fit = sf.fit(law, table, space="plain", start=facts.numbers(start))
    np.testing.assert_allclose(law(fit.values, table), table["y"], rtol=1e-6, atol=1e-8 * table["y"].abs().max())
