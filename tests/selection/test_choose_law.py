"""The choice among laws."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from optima_samples import grid, optima, steplaw_cells

from scalefit.errors import FitError
from scalefit.optima.find_optima import find_optima
from scalefit.selection.choose_law import Choice, choose_law
from scalefit.simulation import simulate_sweep
from scalefit.sweep import Sweep


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return optima(grid(4, 4), seed=3)


def shares(cells: pd.DataFrame, interaction: float, sweeps: int) -> Counter[str]:
    chosen = (choose_law(optima(cells, [7, k], interaction)).fit.law.name for k in range(sweeps))
    return Counter(chosen)


def test_straight_truth_is_called_straight_and_a_bent_one_bent():
    assert shares(steplaw_cells(), 0.0, 60)["lr_power"] >= 54
    assert shares(grid(5, 8), 0.08, 40)["lr_curved"] > 20


@pytest.mark.slow
@pytest.mark.parametrize("cells", [steplaw_cells(), grid(5, 8)], ids=["steplaw", "grid"])
def test_straight_truth_is_called_straight_in_500_sweeps(cells):
    assert shares(cells, 0.0, 500)["lr_power"] >= 450


@pytest.mark.slow
@pytest.mark.parametrize("interaction", [0.08, -0.08])
def test_bent_truth_is_called_bent_in_500_sweeps(interaction):
    found = shares(grid(5, 8), interaction, 500)
    assert found["lr_curved"] > 250
    assert found["lr_quadratic"] < 25


def test_the_choice_keeps_the_rule(table):
    for seed in range(12):
        chosen = choose_law(optima(steplaw_cells(), seed))
        rows = chosen.comparison.table.set_index("law")
        own = rows.loc[chosen.fit.law.name]
        assert own["behind"] <= own["behind_stderr"]
        simpler = rows[rows["parameters"] < own["parameters"]]
        assert (simpler["behind"] > simpler["behind_stderr"]).all()
        assert chosen.fit.law.name in chosen.reason


def test_a_strong_bend_is_found_and_explained():
    chosen = choose_law(optima(grid(5, 8), seed=1, interaction=0.3, noise=0.05))
    assert isinstance(chosen, Choice)
    assert chosen.fit.law.name == "lr_curved"
    assert "lr_power" in chosen.reason
    assert "more than one standard error" in chosen.reason
    assert chosen.reason in repr(chosen)
    assert "lr_curved" in chosen._repr_html_()


def test_candidates_follow_what_the_data_vary():
    cells = grid(4, 4)
    tokens_only = cells.drop_duplicates("tokens").assign(lr=[4e-3, 3e-3, 2.4e-3, 1.7e-3])
    assert choose_law(tokens_only).fit.law.formula == "eta = c * D**b"
    params_only = pd.DataFrame({"params": np.geomspace(1e7, 1e9, 7)})
    params_only["batch"] = 20 * params_only["params"] ** 0.4 * [1, 1.1, 0.95, 1.05, 1, 0.9, 1.1]
    assert choose_law(params_only).fit.law.formula == "B = c * N**a"


def test_sweeps_and_optima_are_taken_as_they_are():
    runs = simulate_sweep(seed=1)
    sweep = Sweep.from_frame(runs.assign(diverged=runs["loss"].isna()))
    both = find_optima(sweep, over=("lr", "batch"))
    assert choose_law(both, target="batch").fit.law.target == "B"
    per_batch = choose_law(find_optima(sweep, over="lr"))
    assert per_batch.fit.law.name == "lr_power_batch"
    assert choose_law(sweep.cells, target="loss", laws=["chinchilla", "loss_params"]).fit.law.name == "chinchilla"
    with pytest.raises(FitError, match="target="):
        choose_law(both)


def test_laws_that_cannot_be_fitted_are_noted(table):
    chosen = choose_law(table, laws=["lr_power", "lr_power_batch"])
    assert [note.code for note in chosen.notes] == ["not_fitted"]
    assert "only law" in chosen.reason


@pytest.mark.parametrize(
    ("data", "laws", "told"),
    [
        (lambda t: t, "lr_power", "laws="),
        (lambda t: t, [], "no law"),
        (lambda t: t.assign(params=1e8, tokens=1e9), "auto", "none of params and tokens"),
        (lambda t: t[["params"]], "auto", "none of lr, batch and loss"),
        (lambda t: t, ["lr_power_batch"], "none of the laws"),
        (lambda t: t.iloc[:4], ["lr_quadratic"], "none of the laws"),
        (lambda t: t.iloc[[0, 5, 10]], "auto", "none of the laws|none can be judged"),
        (lambda t: 3, "auto", "expected optima"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(table, data, laws, told):
    with pytest.raises(FitError, match=told):
        choose_law(data(table), laws=laws)
