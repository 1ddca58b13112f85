"""What the project's own sweep says: optima inside their grids, and the field's claims tested on it."""

from __future__ import annotations

import pytest

import scalefit as sf


@pytest.fixture(scope="module")
def sweep() -> sf.Sweep:
    try:
        return sf.load_dataset("tiny-lm")
    except sf.SweepError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def optima(sweep) -> sf.Optima:
    return sf.find_optima(sweep, over="lr")


def test_the_grid_is_what_was_promised(sweep):
    table = sweep.table
    assert len(sweep) >= 400
    assert len(sweep.levels("params")) >= 5
    assert table["params"].max() / table["params"].min() >= 50
    assert len(sweep.levels("batch")) >= 4
    assert table["batch"].max() / table["batch"].min() >= 32
    assert (sweep.cells.groupby("params").size() >= 4).all()
    per_param = table["tokens"] / table["params"]
    assert per_param.min() < 20 < per_param.max()
    assert table["seed"].nunique() >= 2


def test_nearly_all_optima_lie_inside_their_grids(optima):
    assert (optima.table["status"] == "interior").mean() >= 0.8


def test_best_rate_falls_with_data_at_fixed_batch_and_rises_like_the_root_of_the_batch(optima):
    fit = sf.fit("lr_power_batch", optima)
    table = fit.table.set_index("parameter")
    assert fit.status is sf.FitStatus.CONVERGED
    assert table.at["b", "hi"] < 0
    assert table.at["a", "hi"] < 0
    assert 0.3 < table.at["g", "lo"] < table.at["g", "hi"] < 0.6


def test_predictions_for_the_largest_size_can_be_scored(sweep):
    summary = sf.backtest(sweep, "largest params").summary()
    ours = summary.set_index("entrant").loc["surface: lr_power"]
    assert ours["cells"] >= 3
    assert 0 <= ours["regret_pct"] < 3
