"""The benchmark of calibration: which folds it takes, and what it counts."""

from __future__ import annotations

import calibration
import numpy as np
import pandas as pd
import pytest

from scalefit.fitting.fit_law import fit_law as fit

pytestmark = pytest.mark.filterwarnings("ignore")  # every prediction here lies beyond the data


def test_folds_learn_from_three_levels_of_everything_and_predict_beyond():
    sizes, budgets = np.meshgrid([1e7, 2e7, 4e7, 8e7, 1.6e8], [1e9, 2e9, 4e9, 8e9])
    cells = pd.DataFrame({"params": sizes.ravel(), "tokens": budgets.ravel(), "lr": 1e-3, "batch": 1e5})
    found = list(calibration.folds(cells))
    assert [kind for kind, _, _ in found] == ["N", "N", "D", "both", "both"]
    for kind, train, test in found:
        known, held = cells.query(train), cells.query(test)
        assert (known[["params", "tokens"]].nunique() >= 3).all()
        beyond = held[["params", "tokens"]].min() > known[["params", "tokens"]].max()
        assert beyond.tolist() == [kind in ("N", "both"), kind in ("D", "both")]
    assert list(calibration.folds(cells.query("params < 3e7 and tokens < 3e9"))) == []


def test_the_plain_width_is_that_of_a_law_through_equal_cells():
    rng = np.random.default_rng(0)
    cells = pd.DataFrame({"params": rng.uniform(1e7, 1e9, 12), "tokens": rng.uniform(1e9, 1e11, 12)})
    cells["lr"] = 1e3 * cells["params"] ** -0.5 * np.exp(0.1 * rng.normal(size=12))
    cells["steps"] = cells["lr"]  # a law of optima holds more than the scatter of cells
    held = cells.iloc[:3].assign(params=3e9)
    table = fit("S = c * N**a * D**b", cells).predict(held[["params", "tokens"]])
    half = np.log(table["hi"] / table["lo"]) / 2
    assert calibration.plain(cells, held, ["params", "tokens"], "lr") == pytest.approx(half.to_numpy())


def test_a_laboratory_is_scored_setting_by_setting():
    table = calibration.table(calibration.simulated(0.1, 2))
    assert table.index.droplevel(0).tolist() == [(k, s) for k in ("N", "D", "both") for s in ("lr", "batch")]
    assert (table["cells"] == 2).all()
    assert (table["own"] == table["95%"]).all(), "a simulated truth has no error"
    assert (table["50%"] <= table["80%"]).all()
    assert (table["80%"] <= table["95%"]).all()
    assert (table["score"] >= 2 * table["half"] - 0.2).all()
    assert (table["joint"] <= table["95%"]).all()
    lr = table.xs("lr", level="setting")
    assert (lr["regret"] > 0).all()
    assert (lr["of_best"] > 0).all()


def test_a_bundled_sweep_is_scored_against_its_own_cells():
    table = calibration.table(calibration.real("tiny-lm"))
    assert set(table.index.get_level_values("kind")) == {"N", "D", "both"}
    assert (table["own"] >= table["95%"]).all()
    assert (table["stderr"] > 0).all()
