"""The main job, from a sweep to a law, against the truth the simulated sweep was drawn from."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import scalefit as sf
from scalefit._fit import fit_sweep
from scalefit.simulation import Design, simulate_sweep

BUNDLE = Path(__file__).resolve().parents[1] / "data" / "simulated"


@pytest.fixture(scope="module")
def sweep() -> sf.Sweep:
    return sf.read_sweep(BUNDLE / "runs.csv")


@pytest.fixture(scope="module")
def truth() -> dict[str, float]:
    return json.loads((BUNDLE / "truth.json").read_text())["truth"]


def test_learning_rate_law_searches_both_settings_and_covers_the_truth(sweep, truth):
    answer = fit_sweep("lr_power", sweep)
    table = answer.fit.table.set_index("parameter")
    assert answer.optima.over == ("lr", "batch")
    assert table.at["a", "lo"] < truth["lr_params_power"] < table.at["a", "hi"]
    assert table.at["b", "lo"] < truth["lr_tokens_power"] < table.at["b", "hi"]


def test_batch_law_covers_the_truth(sweep, truth):
    table = fit_sweep("batch_power_tokens", sweep).fit.table.set_index("parameter")
    assert table.at["b", "lo"] < truth["batch_tokens_power"] < table.at["b", "hi"]


def test_law_with_the_batch_as_input_searches_the_learning_rate_alone(sweep, truth):
    answer = fit_sweep("lr_power_batch", sweep)
    assert answer.optima.over == ("lr",)
    assert answer.optima.by == ("params", "tokens", "batch")
    assert (
        abs(answer.fit.values["g"] - truth["lr_batch_power"])
        < 4 * answer.fit.table.set_index("parameter").at["g", "stderr"]
    )


def test_sweep_without_a_batch_searches_what_it_has(sweep):
    table = sweep.where("batch > 2e5 and batch < 3e5").table.drop(columns=["batch", "steps"])
    answer = fit_sweep("lr_power", sf.read_sweep(table))
    assert answer.optima.over == ("lr",)


def test_loss_law_rests_on_the_best_run_of_each_cell_and_says_so(sweep, truth):
    answer = fit_sweep("chinchilla", sweep)
    assert answer.optima is None
    assert answer.fit.n == len(sweep.cells)
    assert any(note.code == "best runs" for note in answer.fit.notes)
    assert answer.fit.values["alpha"] == pytest.approx(truth["floor_params_power"], abs=0.02)


def test_loss_law_on_runs_that_searched_nothing_takes_them_as_they_are():
    table = pd.DataFrame({"params": [1e7, 1e8, 1e9, 1e10], "tokens": 2e10, "loss": [4.0, 3.2, 2.6, 2.2]})
    assert fit_sweep("L = c * N**a", sf.read_sweep(table)).fit.n == 4


def test_edges_and_curvature_are_treated_as_asked():
    runs = simulate_sweep(design=Design(off_centre=1.5, drift=0.3, lr_levels=5, batch_levels=1), seed=2)
    drifting = sf.read_sweep(runs.drop(columns=["batch", "steps"]), nonfinite="diverged")
    as_bounds = fit_sweep("lr_curved", drifting, method=sf.Basin(), shrink=True)
    dropped = fit_sweep("lr_curved", drifting, method=sf.Basin(), bounds="drop")
    edges = int((as_bounds.optima.table["status"] == "edge").sum())
    assert edges > 0
    assert as_bounds.fit.is_bound.sum() == edges
    assert dropped.fit.n == as_bounds.fit.n - edges
    assert as_bounds.fit.shrinkage > 0 == dropped.fit.shrinkage
