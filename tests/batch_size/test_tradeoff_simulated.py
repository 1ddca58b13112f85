"""Parameter recovery in simulated trade-off studies: standard errors, intervals, and false alarms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scalefit.batch_size.fit_tradeoff import fit_tradeoff

TRUTH = {"B_crit": 1e6, "E_min": 1e10, "S_min": 1e4}
DESIGNS = [
    (batches, low, high, seeds, lack)
    for batches in (5, 7, 10)
    for low, high in ((1 / 16, 16), (1 / 64, 1), (1, 64))
    for seeds, lack in ((1, 0.05), (5, 0.03), (20, 0.05))
]
NOISE = 0.04


def study(rng, batches, low, high, seeds, lack):
    batch = TRUTH["B_crit"] * np.geomspace(low, high, batches)
    mean = np.log(TRUTH["E_min"] * (1 + batch / TRUTH["B_crit"])) + lack * rng.normal(size=batches)
    runs = mean[:, None] + NOISE * rng.normal(size=(batches, seeds))
    return pd.DataFrame({"batch": np.repeat(batch, seeds), "examples": np.exp(runs).ravel()})


def recover(studies, seed):
    """Fit many studies, design by design in turn; one row each."""
    rng = np.random.default_rng(seed)
    lines = []
    for j in range(studies):
        _, _, high, _, lack = design = DESIGNS[j % len(DESIGNS)]
        trade = fit_tradeoff(study(rng, *design))
        row = trade.table.iloc[0]
        beyond = 2 * high * TRUTH["B_crit"]
        found = trade.predict(batch=beyond).iloc[0]
        new = TRUTH["E_min"] * (1 + 2 * high) * np.exp(np.hypot(lack, NOISE) * rng.normal())
        line = {"identified": row["identified"], "left_out": row["n_left_out"] > 0}
        line["predicted"] = found["examples_lo"] <= new <= found["examples_hi"]
        for name, value in TRUTH.items():
            line[f"{name} within"] = abs(row[name] - value) <= 2 * row[f"{name}_stderr"]
            line[f"{name} covered"] = row[f"{name}_lo"] <= value <= row[f"{name}_hi"]
        lines.append(line)
    return pd.DataFrame(lines)


def check(found, slack):
    known = found[found["identified"]]
    assert len(known) > 0.9 * len(found)
    for name in TRUTH:
        assert known[f"{name} within"].mean() >= 0.95 - slack, name
        assert found[f"{name} covered"].mean() >= 0.95 - slack, name
    assert found["predicted"].mean() >= 0.95 - slack
    assert found["left_out"].mean() <= 0.05


def test_recovery_in_a_few_dozen_studies():
    check(recover(81, seed=0), slack=0.05)


@pytest.mark.slow
def test_recovery_in_five_hundred_studies():
    check(recover(513, seed=1), slack=0.01)


def test_studies_that_cannot_tell_seldom_claim_to():
    """All batch sizes far below B_crit: the limit of an infinite one is rejected by chance only."""
    rng = np.random.default_rng(2)
    rows = pd.concat([fit_tradeoff(study(rng, 8, 1e-5, 1e-3, 3, 0.03)).table for _ in range(30)])
    assert rows["identified"].mean() <= 0.1
    assert rows.loc[~rows["identified"], "B_crit_stderr"].isna().all()
    assert (rows["B_crit_lo"] < TRUTH["B_crit"]).mean() >= 0.9
    assert (rows["S_min_hi"] > TRUTH["S_min"]).mean() >= 0.9


def test_poor_small_batches_are_found_where_they_are():
    rng = np.random.default_rng(3)
    found = []
    for _ in range(20):
        table = study(rng, 10, 1 / 30, 16, 1, 0.0)
        table.loc[:1, "examples"] *= [1.8, 1.3]
        found.append(fit_tradeoff(table).table)
    rows = pd.concat(found)
    assert (rows["n_left_out"] >= 1).mean() >= 0.8
    assert np.exp(np.log(rows["B_crit"] / TRUTH["B_crit"]).mean()) == pytest.approx(1.0, abs=0.1)
