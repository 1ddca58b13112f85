"""Nested laws: the test against simulation, at borders too, the rules for the rate over the batch, and refusals."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest

import scalefit as sf
from scalefit import FitError
from scalefit.selection.climb_ladder import climb_ladder
from scalefit.selection.nested_test import NestedTest, nested_test

BATCH = np.geomspace(1e4, 1e7, 10)
TRUTHS = {
    "lr_sqrt": {"k": 1e-6},
    "lr_linear": {"k": 1e-9},
    "lr_saturating": {"eta_max": 0.01, "B_noise": 5e5},
    "lr_sgd_exact": {"eta_max": 0.01, "B_noise": 5e5},
    "lr_surge": {"eta_max": 0.01, "B_noise": 5e5},
    "lr_sgd": {"eta_max": 0.01, "B_noise": 1e6, "alpha": 0.7},
}


def pairs(truth: str, seed: int = 0, noise: float = 0.1, batch: np.ndarray = BATCH) -> pd.DataFrame:
    rate = sf.laws.get_law(truth)(TRUTHS[truth], {"batch": batch})
    return pd.DataFrame(
        {"batch": batch, "lr": rate * np.exp(noise * np.random.default_rng(seed).normal(size=len(batch)))}
    )


def outcome(truth: str, small: str, large: str, seed: int = 0, n: int = 99) -> NestedTest:
    table = pairs(truth, seed)
    return nested_test(sf.fit(small, table), sf.fit(large, table), n=n, seed=seed)


def rejections(truth: str, small: str, large: str, count: int) -> float:
    return float(np.mean([outcome(truth, small, large, seed).rejected for seed in range(count)]))


def test_a_linear_restriction_is_the_textbook_f_test() -> None:
    from scipy.stats import f

    table = pairs("lr_sgd", 5)
    small, large = sf.fit("lr_sqrt", table), sf.fit("lr_batch_power", table)
    found = nested_test(small, large, n=999)
    x, y = np.log(table["batch"]), np.log(table["lr"])
    free = ((y - np.polyval(np.polyfit(x, y, 1), x)) ** 2).sum()
    held = ((y - 0.5 * x - (y - 0.5 * x).mean()) ** 2).sum()
    statistic = (held - free) / (free / 8)
    assert found.statistic == pytest.approx(statistic, rel=1e-9)
    assert (found.restrictions, found.dof, found.border) == (1, 8, False)
    assert found.p_f == pytest.approx(f.sf(statistic, 1, 8))
    assert found.p == pytest.approx(found.p_f, abs=4 * np.sqrt(found.p_f * (1 - found.p_f) / 999) + 0.001)


def test_weights_count_as_rows_do() -> None:
    table = pairs("lr_sgd", 3)
    heavy = np.where(np.arange(10) < 5, 2.0, 1.0)
    small, large = (sf.fit(name, table, weights=heavy) for name in ("lr_sqrt", "lr_batch_power"))
    x, y, root = np.log(table["batch"]), np.log(table["lr"]), np.sqrt(heavy)
    free = np.linalg.lstsq(np.stack([root, root * x], axis=1), root * y, rcond=None)[1][0]
    shift = y - 0.5 * x
    held = (heavy * (shift - np.average(shift, weights=heavy)) ** 2).sum()
    assert nested_test(small, large, n=99).statistic == pytest.approx((held - free) / (free / 8), rel=1e-9)


def test_a_true_restriction_is_rejected_as_often_as_the_level_says() -> None:
    assert rejections("lr_sqrt", "lr_sqrt", "lr_batch_power", 100) == pytest.approx(0.05, abs=0.045)


@pytest.mark.parametrize(("small", "large"), [("lr_sqrt", "lr_saturating"), ("lr_saturating", "lr_sgd")])
def test_so_it_is_at_the_border_and_inside_a_bent_law(small: str, large: str) -> None:
    assert rejections(small, small, large, 10) <= 0.3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("small", "large"),
    [
        ("lr_sqrt", "lr_saturating"),
        ("lr_sqrt", "lr_sgd"),
        ("lr_sqrt", "lr_surge"),
        ("lr_saturating", "lr_sgd"),
        ("lr_sgd", "lr_bent"),
        ("lr_surge", "lr_bent"),
    ],
)
def test_rejections_of_the_truth_in_two_hundred_simulations(small: str, large: str) -> None:
    assert rejections(small, small, large, 200) == pytest.approx(0.05, abs=0.045)


def test_at_the_border_it_says_so_and_half_the_data_see_nothing() -> None:
    found = [outcome("lr_sqrt", "lr_sqrt", "lr_saturating", seed) for seed in range(12)]
    assert all(one.border for one in found)
    assert {note.code for note in found[0].notes} >= {"border"}
    nothing = np.mean([one.statistic < 1e-6 for one in found])
    assert 0.2 < nothing < 0.8
    assert all(one.p == 1.0 for one in found if one.statistic == 0.0)
    inside = [one for one in found if one.statistic > 0.5]
    assert all(one.p < one.p_f + 0.1 for one in inside)  # the F distribution is too cautious there


@pytest.mark.parametrize(
    ("truth", "small", "large"),
    [
        ("lr_surge", "lr_sgd", "lr_bent"),
        ("lr_saturating", "lr_sqrt", "lr_sgd"),
        ("lr_sgd_exact", "lr_saturating", "lr_sgd"),
        ("lr_linear", "lr_sqrt", "lr_batch_power"),
    ],
)
def test_a_false_restriction_is_rejected(truth: str, small: str, large: str) -> None:
    found = outcome(truth, small, large)
    assert found.rejected
    assert found.verdict.startswith(f"the data reject {small} within {large}: F(")
    assert "within" in repr(found)


def test_the_same_seed_gives_the_same_p_and_the_order_of_rows_none_other() -> None:
    table = pairs("lr_sgd", 2)
    mixed = table.sample(frac=1.0, random_state=0)
    first, again, other = (
        nested_test(sf.fit("lr_sqrt", rows), sf.fit("lr_sgd", rows), n=99) for rows in (table, table, mixed)
    )
    assert first == again
    assert other.statistic == pytest.approx(first.statistic, rel=1e-6)


def test_laws_of_the_loss_can_be_tested_too() -> None:
    tokens = np.geomspace(1e9, 1e11, 12)
    loss = (1.8 + 2100 / tokens**0.37) * np.exp(0.002 * np.random.default_rng(0).normal(size=12))
    table = pd.DataFrame({"tokens": tokens, "loss": loss})
    found = nested_test(sf.fit("L = A/D**beta", table), sf.fit("loss_tokens", table), n=99)
    assert found.rejected  # the floor is needed
    assert found.border


@pytest.mark.parametrize(
    ("small", "large", "message"),
    [
        ("lr_surge", "lr_sgd", "lr_surge is not nested in lr_sgd"),
        ("lr_linear", "lr_surge", "lr_linear is not nested in lr_surge"),
        ("lr_sgd", "lr_sqrt", "the second fit must be the larger law"),
        ("lr_sqrt", "lr_linear", "the second fit must be the larger law"),
    ],
)
def test_what_is_not_nested_is_refused(small: str, large: str, message: str) -> None:
    table = pairs("lr_surge")
    with pytest.raises(FitError, match=message):
        nested_test(sf.fit(small, table), sf.fit(large, table), n=99)


def test_robust_losses_exact_fits_and_few_rows_are_refused() -> None:
    table = pairs("lr_sqrt")
    robust = [sf.fit(name, table, loss=sf.Huber(1e-2)) for name in ("lr_sqrt", "lr_batch_power")]
    with pytest.raises(FitError, match=r"Huber\(delta=0\.01\); the test needs Squared"):
        nested_test(*robust)
    exact = pairs("lr_sqrt", noise=0.0)
    with pytest.raises(FitError, match="fits the rows exactly"):
        nested_test(sf.fit("lr_sqrt", exact), sf.fit("lr_batch_power", exact))
    two = table.iloc[:2]
    with pytest.raises(FitError, match="no degree of freedom"):
        nested_test(sf.fit("lr_sqrt", two), sf.fit("lr_batch_power", two))
    small, large = sf.fit("lr_sqrt", table), sf.fit("lr_batch_power", table)
    with pytest.raises(FitError, match="at least 99 simulated"):
        nested_test(small, large, n=20)
    with pytest.raises(FitError, match="at least 1000 simulated"):
        nested_test(small, large, level=0.001, n=999)
    with pytest.raises(FitError, match="level: expected"):
        nested_test(small, large, level=5.0)
    with pytest.raises(FitError, match="same rows"):
        nested_test(small, sf.fit("lr_batch_power", pairs("lr_sqrt", 1)))


# -- the ladder --------------------------------------------------------------------------------------------------------


@cache
def ladder(truth: str):
    return climb_ladder(pairs(truth, 4, noise=0.05), n=99)


@pytest.mark.parametrize("truth", ["lr_sqrt", "lr_saturating", "lr_surge"])
def test_the_ladder_finds_the_rule(truth: str) -> None:
    found = ladder(truth)
    assert found.supported == (truth,)
    standing = found.table.set_index("rule")["stands"]
    assert standing[truth]
    assert standing["lr_bent"]
    assert not standing["lr_linear"]
    assert f"the simplest rule the data do not contradict is {truth}" in found.verdict


def test_a_rule_stands_only_if_a_way_up_stands() -> None:
    found = ladder("lr_surge")
    assert found.tests["lr_sgd", "lr_bent"].rejected
    standing = found.table.set_index("rule")["stands"]
    assert not standing[["lr_sgd", "lr_saturating", "lr_sgd_exact", "lr_batch_power", "lr_linear"]].any()
    assert found.tests["lr_sqrt", "lr_surge"].rejected


def test_the_ladder_shows_itself() -> None:
    found = ladder("lr_sqrt")
    assert list(found.table["parameters"]) == sorted(found.table["parameters"])
    assert found.table["scatter"].between(0.01, 3).all()
    text = repr(found)
    assert "Rules for the learning rate over the batch" in text
    assert "in lr_surge" in text
    assert "<table" in found._repr_html_()
    with pytest.raises(FitError, match="at least 6 pairs at 4 or more batch sizes, found 5"):
        climb_ladder(pairs("lr_sqrt").iloc[:5])


def test_the_ladder_takes_the_optima_of_a_sweep_and_leaves_out_those_at_an_edge() -> None:
    rates = np.geomspace(1e-4, 1.6e-3, 13)
    grid = pd.DataFrame([(rate, batch) for batch in BATCH for rate in rates], columns=["lr", "batch"])
    best = 1e-6 * np.sqrt(grid["batch"]) * np.exp(0.05 * np.cos(7 * np.log(grid["batch"])))
    grid["loss"] = 3.0 + 0.05 * np.log(grid["lr"] / best) ** 2
    sweep = sf.Sweep.from_frame(grid.assign(params=1e8, tokens=2e9))
    optima = sf.find_optima(sweep, over="lr", by=("params", "tokens", "batch"))
    assert (optima.table["status"] == "interior").sum() == 7
    assert climb_ladder(optima, n=99).fits["lr_sqrt"].n == 7


@pytest.mark.slow
@pytest.mark.parametrize("truth", ["lr_sqrt", "lr_saturating", "lr_surge", "lr_sgd_exact"])
def test_the_verdict_seldom_rejects_the_truth(truth: str) -> None:
    lost = [not climb_ladder(pairs(truth, s), n=99).table.set_index("rule")["stands"][truth] for s in range(60)]
    assert np.mean(lost) < 0.15
