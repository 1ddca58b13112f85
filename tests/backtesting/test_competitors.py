"""Competitors: what they learn, what they predict, and what they refuse."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import scalefit as sf
from scalefit.backtesting.competitors import Custom, EffectiveEntrant, Entrant, LawPair
from scalefit.backtesting.usual_competitors import (
    REFERENCES,
    Baseline,
    PublishedEntrant,
    published_entrant,
    usual_competitors,
)
from scalefit.errors import FitError, LawError, ScalefitError, SweepError
from scalefit.fitting.fit_law import fit_law as fit
from scalefit.laws.published import get_published
from scalefit.optima.find_optima import find_optima
from scalefit.optima.optimum_estimators import GridMinimum, NearMinimum, Parabola
from scalefit.simulation import Design, Truth, simulate_sweep
from scalefit.sweep import Sweep

POWER = "B = c * N**a * D**b"
PLACES = {"params": np.array([7e9, 3e9]), "tokens": np.array([1.4e12, 1e11])}
FINE = Design(lr_levels=25, lr_ratio=1.2, batch_levels=17, batch_ratio=1.2)
SYMMETRIC = Truth(noise=0.0, asymmetry=0.0)


def simulated(truth: Truth = SYMMETRIC, design: Design = FINE, seed: int = 0) -> Sweep:
    runs = simulate_sweep(truth, design, seed=seed)
    return Sweep.from_frame(runs.assign(diverged=runs["loss"].isna()))


def test_entrant_finds_the_truth_far_beyond_the_cells():
    found = Entrant("p", Parabola(), "lr_power", POWER).train(simulated()).optimum(**PLACES)
    best = SYMMETRIC.optimum(PLACES["params"], PLACES["tokens"])
    assert found["lr"].to_numpy() == pytest.approx(best["lr"], rel=1e-3)
    assert found["batch"].to_numpy() == pytest.approx(best["batch"], rel=1e-3)
    assert (found["lr_lo"] < found["lr"]).all()
    assert (found["lr"] < found["lr_hi"]).all()


def test_entrant_is_find_optima_and_fit():
    sweep = simulated(Truth(), Design())
    optima = find_optima(sweep, over=("lr", "batch"), method=NearMinimum())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = fit("lr_power", optima).predict(**PLACES, level=0.8)
    found = Entrant("n", NearMinimum()).train(sweep).optimum(**PLACES, level=0.8)
    for mine, name in (("lr", "prediction"), ("lr_lo", "lo"), ("lr_hi", "hi")):
        assert found[mine].to_numpy() == pytest.approx(expected[name].to_numpy(), rel=1e-12)


def test_law_with_the_batch_gets_the_predicted_batch():
    sweep = simulated()
    pair = Entrant("b", Parabola(), "lr_power_batch", POWER).train(sweep)
    found = pair.optimum(**PLACES)
    best = SYMMETRIC.optimum(PLACES["params"], PLACES["tokens"])
    assert found["lr"].to_numpy() == pytest.approx(best["lr"], rel=0.01)
    assert pair.rules["lr"].values["g"] == pytest.approx(SYMMETRIC.lr_batch_power, abs=1e-3)


def test_laws_that_wait_for_each_other_are_refused():
    pair = Entrant("c", Parabola(), "eta = c * B**a", "B = c * eta * D").train(simulated())
    with pytest.raises(LawError, match="unknown when lr is to be predicted"):
        pair.optimum(**PLACES)


def test_sweep_without_batch_needs_no_batch_law():
    runs = simulate_sweep(SYMMETRIC, Design(batch_levels=1, lr_levels=15, lr_ratio=1.3))
    sweep = Sweep.from_frame(runs.drop(columns=["batch", "steps"]).assign(diverged=runs["loss"].isna()))
    for entrant in (Entrant("p", Parabola()), Baseline("b", 0.0025), REFERENCES[2]):
        found = entrant.train(sweep).optimum(**PLACES)
        assert set(found.columns) == {"lr", "lr_lo", "lr_hi"}


def test_fitter_takes_the_place_of_fit():
    seen = []

    def fitter(law, optima):
        seen.append((law.name, len(optima.observations(law.target).table)))
        return fit(law, optima, weights=np.ones(len(optima.observations(law.target).table)))

    Entrant("w", GridMinimum(), "lr_power", "batch_power", fitter=fitter).train(simulated(Truth(), Design()))
    assert [name for name, _ in seen] == ["lr_power", "batch_power"]


def test_baseline_has_the_coefficients_of_all_runs_kept():
    sweep = simulated(Truth(), Design(), seed=2)
    pair = Baseline("b", 0.0025).train(sweep)
    table = sweep.table
    lowest = table.groupby(["params", "tokens"])["loss"].transform("min")
    kept = table[table["loss"] <= lowest * 1.0025]
    x = np.column_stack([np.ones(len(kept)), np.log(kept["params"]), np.log(kept["tokens"])])
    for name in ("lr", "batch"):
        plain = np.linalg.lstsq(x, np.log(kept[name]), rcond=None)[0]
        values = pair.rules[name].values
        assert [np.log(values["c"]), values["a"], values["b"]] == pytest.approx(plain, abs=1e-8)


def test_baseline_uses_the_axes_that_vary():
    for design, inputs in ((Design(params=(1e8,)), ("D",)), (Design(tokens=(1e10,)), ("N",)), (Design(), ("N", "D"))):
        pair = Baseline("b", 0.0025).train(simulated(Truth(), design))
        assert [rule.law.inputs for rule in pair.rules.values()] == [inputs, inputs]
    bare = Sweep.from_frame(simulated(Truth(), Design(tokens=(1e10,))).table.drop(columns=["tokens", "steps"]))
    assert Baseline("b", 0.0).train(bare).optimum(params=[1e9, 2e9])["lr"].notna().all()


def test_baseline_keeps_cells_whose_best_run_is_at_the_edge():
    design = Design(lr_levels=4, off_centre=-3.0)
    pair = Baseline("b", 0.0).train(simulated(Truth(noise=0.0), design))
    assert len(pair.rules["lr"].rows) == 16
    with pytest.raises(SweepError, match="no cell"):
        Entrant("e", GridMinimum()).train(simulated(Truth(noise=0.0), design))


def test_published_entrant_is_the_printed_law():
    sweep = simulated(Truth(), Design())
    found = published_entrant("steplaw2025").train(sweep).optimum(params=1e9, tokens=1e11)
    assert found["lr"][0] == pytest.approx(float(get_published("steplaw2025_lr")(params=1e9, tokens=1e11)))
    assert found["batch"][0] == pytest.approx(float(get_published("steplaw2025_bs")(tokens=1e11)))
    assert found[["lr_lo", "lr_hi", "batch_lo", "batch_hi"]].isna().all(axis=None)


def test_published_law_in_compute_gets_six_n_d_and_says_so():
    pair = published_entrant("deepseek2024").train(simulated(Truth(), Design()))
    assert pair.optimum(params=1e9, tokens=2e10)["lr"][0] == pytest.approx(0.3118 * (6e9 * 2e10) ** -0.125)
    assert [note.code for note in pair.notes] == ["compute"]


def test_published_law_for_one_setting_predicts_that_one():
    sweep = simulated(Truth(), Design())
    assert "batch" not in published_entrant("kaplan2020_lr").train(sweep).optimum(params=1e9, tokens=2e10)
    with pytest.raises(LawError, match="no setting"):
        published_entrant("kaplan2020_lr").train(sweep).optimum(params=1e11, tokens=2e12)


@pytest.mark.parametrize("key", ["nope", "powerlines2025", "steplaw"])
def test_unknown_published_laws_are_refused(key):
    with pytest.raises(LawError, match="no published law"):
        published_entrant(key)


def test_laws_for_the_wrong_setting_are_refused():
    with pytest.raises(LawError, match="a law for lr, found"):
        Entrant("x", None, "batch_power")
    with pytest.raises(LawError, match="a law for batch, found"):
        Baseline("x", 0.0, batch_law="lr_power")
    with pytest.raises(LawError, match="a law for batch, found"):
        PublishedEntrant("x", batch="steplaw2025_lr")
    with pytest.raises(LawError, match="for lr, for batch or for both"):
        PublishedEntrant("x")
    with pytest.raises(SweepError, match="0 or more"):
        Baseline("x", -0.1)


def test_cells_that_determine_nothing_are_refused():
    aligned = Design(params=(1e8,), tokens=(1e9, 4e9, 1.6e10, 6.4e10))
    with pytest.raises(ScalefitError):
        Entrant("p", Parabola()).train(simulated(Truth(), aligned))
    few = Design(params=(1e8, 2e8), tokens=(1e9,))
    with pytest.raises(FitError):
        Baseline("b", 0.0025, "lr_power").train(simulated(Truth(), few))


def test_custom_recipe_is_called_with_the_training_runs():
    sweep, seen = simulated(Truth(), Design()), []

    def recipe(training: Sweep) -> LawPair:
        seen.append(training)
        return Entrant("p", Parabola()).train(training)

    assert Custom("mine", recipe).train(sweep).optimum(**PLACES)["lr"].notna().all()
    assert seen == [sweep]


def test_usual_competitors_hold_every_pair_once():
    names = [
        entrant.name for entrant in usual_competitors(["lr_power", "lr_curved"], "batch_power", None, ["steplaw2025"])
    ]
    assert len(set(names)) == len(names) == 9
    assert {"grid minimum + OLS", "within 0.25 % + OLS", "steplaw2025", "Parabola: lr_curved"} <= set(names)
    twins = usual_competitors(["lr_power"], "batch_power", [NearMinimum(0.001), NearMinimum(0.005)], [])
    assert [entrant.name for entrant in twins[4:]] == [
        "NearMinimum(excess=0.001): lr_power",
        "NearMinimum(excess=0.005): lr_power",
    ]


def test_predictions_are_one_row_a_cell():
    found = Entrant("p", Parabola()).train(simulated()).optimum(params=[1e9, 2e9, 4e9], tokens=[1e10, 2e10, 4e10])
    assert isinstance(found, pd.DataFrame)
    assert len(found) == 3


@pytest.fixture(scope="module")
def sweep() -> sf.Sweep:
    """Runs whose weights grow with the rate and the size, so that the rate to set is known."""
    runs = simulate_sweep(Truth(noise=1e-4), Design(batch_levels=5), seed=2)
    norm = 40 * (runs["lr"] / 1e-3) ** 0.3 * (runs["params"] / 1e8) ** 0.4
    return sf.Sweep.from_frame(runs.assign(weight_norm=norm, diverged=runs["loss"].isna()), source="simulated")


def test_the_rate_to_set_from_an_effective_one_is_that_of_the_plain_law(sweep):
    places = {"params": [1e9, 2e9], "tokens": [6e10, 1e11]}
    plain = sf.fit("lr_power", sf.find_optima(sweep, over=("lr", "batch")))
    with pytest.warns(sf.ExtrapolationWarning):
        expected = plain.predict(**places)["prediction"]
    found = EffectiveEntrant("effective").train(sweep).optimum(**places)
    np.testing.assert_allclose(found["lr"], expected, rtol=0.03)
    assert (found["lr_lo"] < found["lr"]).all()
    assert (found["lr"] < found["lr_hi"]).all()


def test_an_effective_rate_is_scored_beside_the_others(sweep):
    report = sf.backtest(sweep, "largest params", entrants=[EffectiveEntrant("effective")])
    assert report.summary().loc[0, "failed"] == 0
    assert report.summary().loc[0, "regret_pct"] < 0.3


def test_effective_rates_that_cannot_be_converted_is_refused(sweep):
    bare = sf.Sweep.from_frame(sweep.table.drop(columns="weight_norm"))
    with pytest.raises(SweepError, match="weight_norm"):
        EffectiveEntrant("effective").train(bare)
    law = sf.Law("weight_norm = c * lr**k * B**g", positive={"c"})
    with pytest.raises(LawError, match="the norm law needs batch, which the law for lr does not"):
        EffectiveEntrant("effective", norm_law=law).train(sweep)


def test_a_backtest_of_a_sweep_without_norms_says_why_there_is_no_prediction(sweep):
    bare = sf.Sweep.from_frame(sweep.table.drop(columns="weight_norm"))
    report = sf.backtest(bare, "largest params", entrants=[EffectiveEntrant("effective")])
    assert isinstance(report.table, pd.DataFrame)
    assert report.table["error"].str.contains("weight_norm").all()
