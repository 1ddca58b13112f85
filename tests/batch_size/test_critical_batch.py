"""Kaplan's fewest steps and least compute: by hand, their notes and refusals, and a round trip on simulated sweeps."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import scalefit as sf
from scalefit import FitError, LawError, Sweep, SweepError
from scalefit.batch_size.critical_batch import adjust_batch, read_critical

KAPLAN = {"B_star": 2e8, "alpha_B": 0.21}
STEPS = {"S_c": 2.0e8, "alpha_S": 0.1}


def runs(**columns: object) -> Sweep:
    table = {"batch": [1e5, 1e6, 1e7], "params": 1e8, "tokens": 2e10, "loss": [3.0, 3.1, 3.2]}
    return Sweep.from_frame(pd.DataFrame(table | columns))


def test_the_formulas_by_hand_and_their_limits() -> None:
    table = adjust_batch(runs(), 1e6).table
    steps = 2e10 / table["batch"]
    np.testing.assert_allclose(table["steps_min"], steps * table["batch"] / (table["batch"] + 1e6))
    np.testing.assert_allclose(table["flops_min"], 6 * 1e8 * 2e10 * 1e6 / (table["batch"] + 1e6))
    np.testing.assert_allclose(table["steps_min"] * (1e6 + table["batch"]), 2e10)  # E = S_min (B_crit + B)
    far = adjust_batch(runs(), 1e-3).table
    np.testing.assert_allclose(far["steps_min"], steps, rtol=1e-7)
    near = adjust_batch(runs(), 1e15).table
    np.testing.assert_allclose(near["flops_min"], 6 * 1e8 * 2e10, rtol=1e-7)


def test_it_says_where_steps_and_compute_come_from() -> None:
    def text(sweep: Sweep) -> str:
        return next(note.text for note in sweep.notes if note.code == "adjusted")

    assert "steps are tokens / batch, compute is 6 N D" in text(adjust_batch(runs(), 1e6))
    recorded = adjust_batch(runs(steps=[1e5, 1e4, 1e3], flops=1e19), 1e6)
    assert "steps as recorded, compute as recorded" in text(recorded)
    np.testing.assert_allclose(recorded.table["flops_min"], 1e19 / (1 + recorded.table["batch"] / 1e6))
    bare = Sweep.from_frame(pd.DataFrame({"batch": [1e5], "tokens": [1e9], "loss": [3.0]}))
    assert "flops_min" not in adjust_batch(bare, 1e6).table
    assert "compute is not known" in text(adjust_batch(bare, 1e6))


def test_the_sweep_keeps_what_it_was() -> None:
    sweep = runs(seed=[1, 2, 3])
    adjusted = adjust_batch(sweep, "kaplan2020_bcrit")
    pd.testing.assert_frame_equal(adjusted.table[sweep.table.columns], sweep.table)
    assert set(sweep.notes) < set(adjusted.notes)
    assert (adjusted.source, adjusted.rtol, adjusted.data_unit) == (sweep.source, sweep.rtol, sweep.data_unit)
    assert "steps_min" not in sweep.table
    bcrit = 2e8 / sweep.table["loss"] ** (1 / 0.21)
    np.testing.assert_allclose(
        adjusted.table["steps_min"], 2e10 / sweep.table["batch"] / (1 + bcrit / sweep.table["batch"])
    )
    assert len(adjusted.where("batch < 2e6")) == 2


def test_diverged_runs_have_no_minimum() -> None:
    table = pd.DataFrame({"batch": [1e5, 1e6], "tokens": 2e9, "loss": [np.nan, 3.0], "diverged": [True, False]})
    adjusted = adjust_batch(Sweep.from_frame(table), "kaplan2020_bcrit").table
    assert np.isnan(adjusted["steps_min"][0])
    assert np.isfinite(adjusted["steps_min"][1])


def test_a_law_of_the_data_serves_too_and_its_reach_is_noted() -> None:
    data = pd.DataFrame({"tokens": [1e9, 2e9, 4e9, 8e9], "B_crit": [5e5, 7.1e5, 9.8e5, 1.4e6]})
    fitted = sf.fit("bcrit_tokens", data)
    adjusted = adjust_batch(runs(), fitted)
    assert [note.code for note in adjusted.notes if note.caution] == ["beyond"]
    expected = fitted.law(fitted.values, {"tokens": [2e10]})[0]
    np.testing.assert_allclose(adjusted.table["steps_min"], 2e10 / (adjusted.table["batch"] + expected), rtol=1e-12)


@pytest.mark.parametrize(
    ("sweep", "critical", "error", "message"),
    [
        (runs(), -1.0, LawError, "positive critical batch"),
        (runs(), None, LawError, "expected a fit of B_crit"),
        (runs(), True, LawError, "expected a fit of B_crit"),
        (runs(), "kaplan2020_lr", LawError, "expected a law for B_crit, found one for eta"),
        (runs(), "no_such_law", LawError, "no published law"),
        (adjust_batch(runs(), 1e6), 1e6, SweepError, "steps_min is there already"),
        (Sweep.from_frame(pd.DataFrame({"lr": [1e-3], "loss": [3.0]})), 1e6, SweepError, "needs the column batch"),
        (Sweep.from_frame(pd.DataFrame({"batch": [1e5], "loss": [3.0]})), 1e6, SweepError, "needs the column tokens"),
    ],
)
def test_what_cannot_be_adjusted_is_refused(sweep, critical, error, message) -> None:
    with pytest.raises(error, match=message):
        adjust_batch(sweep, critical)


def test_constants_for_tokens_are_not_used_on_images() -> None:
    images = Sweep.from_frame(runs().table, data_unit="images")
    with pytest.raises(LawError, match="counts tokens, these data images"):
        adjust_batch(images, "kaplan2020_bcrit")
    assert "flops_min" not in adjust_batch(images, 5e3).table  # 6 N D is for tokens
    data = {"loss": [2.0, 3.0, 4.0], "B_crit": [9e3, 3e3, 1.5e3]}
    fitted = sf.fit("bcrit_loss", Sweep.from_frame(pd.DataFrame(data | {"batch": 1e3}), data_unit="images"))
    assert "steps_min" in adjust_batch(images, fitted).table


def test_a_trade_off_is_a_critical_batch_too() -> None:
    batch = 1e6 * np.geomspace(1 / 16, 16, 9)
    trade = sf.fit_tradeoff({"batch": batch, "examples": 1e10 * (1 + batch / 1e6) * (1 + 0.02 * np.cos(9 * batch))})
    bcrit = float(trade.table["B_crit"].iloc[0])
    adjusted, expected = adjust_batch(runs(), trade), adjust_batch(runs(), bcrit)
    pd.testing.assert_frame_equal(adjusted.table, expected.table)
    plan = sf.batch_schedule(trade, pd.DataFrame({"tokens": [1e8, 1e9], "loss": [3.0, 2.5]}), shape="proportional")
    np.testing.assert_allclose(plan.table["batch"], bcrit)
    assert (plan.table["batch_lo"] < bcrit).all()
    assert (plan.table["batch_hi"] > bcrit).all()
    assert "no_errors" not in [note.code for note in plan.notes]
    with pytest.raises(FitError, match="expected one trade-off, found 2"):
        adjust_batch(runs(), pd.concat([trade.table, trade.table]))


def test_a_fit_that_failed_is_no_critical_batch() -> None:
    broken = sf.fit("bcrit_loss", {"loss": [2.0, 3.0, 4.0], "B_crit": [9e3, 3e3, 1.5e3]})
    object.__setattr__(broken, "phi", np.array([np.nan, np.nan]))
    with pytest.raises(FitError, match="was not fitted"):
        read_critical(broken)


# -- round trip on simulated sweeps ------------------------------------------------------------------------------------


def simulated(seed: int, noise: float = 0.03) -> tuple[Sweep, np.ndarray]:
    """Runs stopped at a loss: steps and compute follow Kaplan's laws, up to noise; and their true fewest steps."""
    loss, batch = (axis.ravel() for axis in np.meshgrid(np.linspace(2.4, 4.0, 6), np.geomspace(3e4, 3e7, 8)))
    fewest = STEPS["S_c"] / loss ** (1 / STEPS["alpha_S"])
    critical = KAPLAN["B_star"] / loss ** (1 / KAPLAN["alpha_B"])
    steps = fewest * (1 + critical / batch) * np.exp(noise * np.random.default_rng(seed).normal(size=len(loss)))
    runs = {"batch": batch, "loss": loss, "params": 1e8, "steps": steps, "tokens": steps * batch}
    return Sweep.from_frame(pd.DataFrame(runs)), fewest


def distances(seed: int) -> np.ndarray:
    """Return by how many standard errors B_star (in logs) and alpha_B are off."""
    fit = sf.fit("tradeoff_loss", simulated(seed)[0])
    table = fit.table.set_index("parameter").loc[list(KAPLAN)]
    logged = table["stderr"] / table["value"]
    return np.abs(np.log(table["value"] / pd.Series(KAPLAN)) / logged).to_numpy()


def round_trips(count: int) -> float:
    return float(np.mean([distances(seed) < 2.0 for seed in range(count)]))


def test_kaplan_round_trip() -> None:
    sweep, fewest = simulated(0, noise=0.0)
    exact = sf.fit("tradeoff_loss", sweep)
    for name, value in (KAPLAN | STEPS).items():
        assert exact.values[name] == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(adjust_batch(sweep, "kaplan2020_bcrit").table["steps_min"], fewest, rtol=1e-12)
    compute = adjust_batch(sweep, "kaplan2020_bcrit").table["flops_min"]
    critical = KAPLAN["B_star"] / sweep.table["loss"] ** (1 / KAPLAN["alpha_B"])
    np.testing.assert_allclose(compute, 6 * 1e8 * fewest * critical, rtol=1e-12)  # C_min = 6 N E_min
    assert round_trips(40) >= 0.9


def test_steps_and_critical_batch_of_the_fit_give_the_fewest_steps_back() -> None:
    sweep, fewest = simulated(3)
    joint = sf.fit("tradeoff_loss", sweep)
    values = {name: joint.values[name] for name in KAPLAN}
    losses = np.linspace(2.4, 4.0, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        law = sf.fit("bcrit_loss", {"loss": losses, "B_crit": sf.laws.get_law("bcrit_loss")(values, {"loss": losses})})
    adjusted = adjust_batch(sweep, law).table["steps_min"].to_numpy()
    assert np.abs(np.log(adjusted / fewest)).mean() < 0.04


@pytest.mark.slow
def test_kaplan_round_trip_in_five_hundred_simulations() -> None:
    assert 0.93 <= round_trips(500) <= 0.97
