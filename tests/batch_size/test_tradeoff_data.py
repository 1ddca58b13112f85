"""The trade-off on public data: Zhang's steps to target, MLPerf's replicates, the Step Law sweep."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scalefit.batch_size.estimators import Hyperbola, InverseSteps, Overhead, StepsLine
from scalefit.batch_size.fit_tradeoff import fit_tradeoff
from scalefit.batch_size.tradeoff_points import tradeoff_points
from scalefit.errors import ExtrapolationWarning
from scalefit.fitting.fit_law import fit_law as fit
from scalefit.loading.read_sweep import read_sweep

SEQUENCE = 512
ZHANG = Overhead(0.2, reference=256 * SEQUENCE)


@pytest.fixture(scope="module")
def zhang(shared_data):
    raw = pd.read_csv(shared_data("cbs_zhang_steps_to_target.csv"))
    return pd.DataFrame(
        {
            "params": raw["N_nominal"],
            "target": raw["target_val_loss"],
            "batch": raw["batch_size_tokens"].astype(float),
            "steps": raw["steps_to_target_used_in_fit"].astype(float),
        }
    )


@pytest.fixture(scope="module")
def mlperf(shared_data):
    raw = pd.read_csv(shared_data("mlperf_rcp_bert_resnet.csv"))
    return raw.rename(columns={"BS": "batch", "epochs_to_converge": "examples"})[["benchmark", "batch", "examples"]]


@pytest.fixture(scope="module")
def steplaw(shared_data):
    raw = pd.read_csv(shared_data("steplaw_dense_lr_bs.csv"))
    table = pd.DataFrame(
        {"lr": raw["lr"], "batch": raw["bs"], "params": raw["N"].astype(float), "tokens": raw["D"].astype(float)}
    ).assign(loss=raw["smooth loss"])
    sweep = read_sweep(table, batch_unit="sequences", seq_len=2048)
    return fit_tradeoff(tradeoff_points(sweep, targets=3))


def test_b_crit_of_five_sizes(zhang):
    table = fit_tradeoff(zhang).table
    np.testing.assert_allclose(table["B_crit"] / SEQUENCE, [2191, 3240, 5433, 7907, 11131], atol=0.6)
    assert table["rms"].between(0.035, 0.06).all()
    assert table["identified"].all()
    assert (table["n_left_out"] == 0).all()


def test_b_crit_grows_with_size(zhang):
    found = fit("B_crit = c * N**a", fit_tradeoff(zhang))
    assert found.values["a"] == pytest.approx(0.62, abs=0.005)


def test_batch_size_at_a_fifth_more_data(zhang):
    trade = fit_tradeoff(zhang, method=ZHANG)
    np.testing.assert_allclose(trade.table["B_crit"] / SEQUENCE, [745.3, 955.2, 1393.7, 1888.5, 2533.4], atol=0.06)
    found = fit("B_crit = 512 * c * (N/1e6)**a", trade).values
    assert found["c"] == pytest.approx(93.197, abs=0.005)
    assert found["a"] == pytest.approx(0.4683, abs=5e-5)


@pytest.mark.parametrize(("method", "allowed"), [(Hyperbola(), 0.16), (ZHANG, 0.05)], ids=["hyperbola", "overhead"])
def test_the_largest_size_from_the_four_smaller(zhang, method, allowed):
    found = fit("B_crit = c * N**a", fit_tradeoff(zhang[zhang["params"] < 1e9], method=method))
    observed = fit_tradeoff(zhang, method=method).table["B_crit"].iloc[-1]
    with pytest.warns(ExtrapolationWarning):
        predicted = found.predict(params=1.2e9)["prediction"].iloc[0]
    assert abs(predicted / observed - 1) < allowed


def test_estimators_beside_each_other(zhang):
    tables = {repr(method): fit_tradeoff(zhang, method=method).table for method in (StepsLine(), InverseSteps())}
    columns = fit_tradeoff(zhang).table.columns
    assert all(list(table.columns) == list(columns) for table in tables.values())
    inverse = tables["InverseSteps()"]["B_crit"] / SEQUENCE
    np.testing.assert_allclose(inverse, [2166, 3174, 5318, 7640, 10777], rtol=1e-3)
    plain = tables["StepsLine()"]
    assert plain["identified"].tolist() == [True, True, False, False, True]
    assert plain["B_crit"].iloc[0] / SEQUENCE == pytest.approx(2184.5, abs=0.1)


@pytest.mark.parametrize(
    ("benchmark", "allowed", "units"),
    [
        ("bert", 0.04, {"data_unit": "samples"}),
        ("resnet", 0.01, {"data_unit": "samples", "examples_unit": "epochs", "unit_size": 1281167}),
    ],
)
def test_the_largest_batch_size_held_out(mlperf, benchmark, allowed, units):
    table = mlperf[mlperf["benchmark"] == benchmark].drop(columns="benchmark")
    largest = table["batch"].max()
    trade = fit_tradeoff(table[table["batch"] < largest], **units)
    observed = table.loc[table["batch"] == largest, "examples"].mean()
    found = trade.predict(batch=largest).iloc[0]
    assert abs(found["examples"] / observed - 1) <= allowed
    assert found["examples_lo"] < observed < found["examples_hi"]
    assert found["examples_hi"] / found["examples_lo"] < 1.7


def test_b_crit_of_both_benchmarks_in_one_call(mlperf):
    trade = fit_tradeoff(mlperf, data_unit="samples")
    assert trade.by == ("benchmark",)
    found = trade.table.set_index("benchmark")
    assert found.loc["bert", "B_crit"] == pytest.approx(12.9e3, rel=0.03)
    assert found.loc["resnet", "B_crit"] == pytest.approx(46.9e3, rel=0.03)
    assert found["lack_of_fit"].between(0.03, 0.08).all()


def test_replicates_show_in_the_standard_errors(mlperf):
    """With the lack of fit held, fewer seeds widen the errors; the noise of a run is their scatter."""
    table = mlperf[mlperf["benchmark"] == "bert"].drop(columns="benchmark")
    few = table.groupby("batch").head(5)
    method = Hyperbola(lack_of_fit=1e-3)
    errors = [fit_tradeoff(rows, method=method, data_unit="samples").table["B_crit_stderr"] for rows in (table, few)]
    assert errors[1].iloc[0] > 1.5 * errors[0].iloc[0]
    points = fit_tradeoff(table, data_unit="samples").points
    assert (points["log_stderr"] * np.sqrt(points["n"])).to_numpy() == pytest.approx(0.056, abs=0.001)
    assert points.set_index("batch").loc[448, "n"] == 43


def test_step_law_small_batches_need_more_data_in_every_study(steplaw):
    table = steplaw.table
    assert table["params"].nunique() == 5
    assert (table["n_left_out"] > 0).all()
    assert (table["excess"] > 0.2).all()
    assert (table["excess_p"] < 0.05).all()
    assert table["rms"].between(0.0, 0.07).all()
    assert any(note.code == "small_batches" for note in steplaw.notes)


def test_step_law_b_crit_grows_as_the_loss_falls(steplaw):
    table = steplaw.table[steplaw.table["identified"]].sort_values(["params", "target"])
    steps = table.groupby("params")["B_crit"].apply(lambda values: np.diff(np.log(values)).max())
    assert (steps < 0).all()
    assert table["B_crit"].between(1.5e6, 1.2e7).all()
    found = fit("B_crit = B_star / L**(1/alpha_B)", steplaw)
    assert 0.1 < found.values["alpha_B"] < 0.25
