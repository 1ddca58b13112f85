"""Points of a trade-off from final losses and from curves: best over the learning rate, inverted at the target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from scalefit.batch_size.fit_tradeoff import fit_tradeoff
from scalefit.batch_size.points_from_sweep import best_over_lr, fit_budgets
from scalefit.batch_size.tradeoff_points import tradeoff_points
from scalefit.errors import SweepError
from scalefit.loading.read_curves import read_curves
from scalefit.sweep import Sweep

BATCHES = 1e4 * 4.0 ** np.arange(7)
B_CRIT, FLOOR, SCALE, POWER = 1e6, 1.5, 20.0, 0.15


def needed(target, batch):
    """Data to a loss, by the law the tables below obey."""
    return (SCALE / (target - FLOOR)) ** (1 / POWER) * (1 + batch / B_CRIT)


LRS = np.geomspace(0.125, 8, 7)


def final_losses(lrs=LRS, noise=0.0, seed=0, params=(1e8,)):
    axes = np.meshgrid(params, BATCHES, np.geomspace(2e8, 2e11, 5), lrs, indexing="ij")
    size, batch, tokens, lr = (axis.ravel() for axis in axes)
    u = np.log(lr) - 0.1 * np.log(batch / 1e6)
    loss = FLOOR + SCALE * (tokens / (1 + batch / B_CRIT)) ** -POWER
    loss = loss * (1 + 0.01 * u**2 + noise * np.random.default_rng(seed).normal(size=len(u)))
    table = pd.DataFrame({"lr": lr, "batch": batch, "tokens": tokens, "params": size, "loss": loss})
    return Sweep.from_frame(table)


def curves(lrs=(0.25, 0.5, 1.0, 2.0, 4.0), longest=2e10):
    parts = []
    for batch in BATCHES:
        for lr in lrs:
            steps = np.unique(np.geomspace(10, longest / batch, 60).astype(int))
            slowed = np.exp(-0.3 * np.log(lr) ** 2) / (1 + batch / B_CRIT)
            loss = FLOOR + SCALE * (steps * batch * slowed) ** -POWER
            run = f"{batch:g}/{lr:g}"
            parts.append(pd.DataFrame({"run": run, "steps": steps, "loss": loss, "lr": lr, "batch": batch}))
    return read_curves(pd.concat(parts, ignore_index=True), batch_unit="tokens")


def test_final_losses_are_inverted_at_the_target():
    points = tradeoff_points(final_losses(), targets=[2.2, 2.4]).table
    assert points["status"].eq("point").all()
    np.testing.assert_allclose(points["examples"], needed(points["target"], points["batch"]), rtol=0.03)
    np.testing.assert_allclose(points["steps"], points["examples"] / points["batch"], rtol=1e-12)


def test_the_critical_batch_size_comes_back():
    row = fit_tradeoff(tradeoff_points(final_losses(noise=0.001), targets=[2.2])).table.iloc[0]
    assert row["identified"]
    assert row["B_crit_lo"] < B_CRIT < row["B_crit_hi"]
    assert row["B_crit"] == pytest.approx(B_CRIT, rel=0.15)


def test_the_stated_error_is_that_of_repeated_sweeps():
    found = [tradeoff_points(final_losses(noise=0.002, seed=seed), targets=[2.2]).table for seed in range(16)]
    scatter = np.std([np.log(table["examples"].to_numpy()) for table in found], axis=0, ddof=1)
    stated = np.mean([table["log_stderr"].to_numpy() for table in found], axis=0)
    assert 0.7 < np.exp(np.mean(np.log(stated / scatter))) < 1.4


def test_the_luckiest_run_does_not_decide():
    """The lowest of seven noisy losses lies below the bottom of the basin; the fitted bottom does not, on average."""
    rng = np.random.default_rng(0)
    x = np.tile(np.log(np.geomspace(0.125, 8, 7)), 400)
    loss = 3.0 * (1 + 0.005 * x**2 + 0.003 * rng.normal(size=len(x)))
    cell = np.repeat(np.arange(400), 7)
    found = best_over_lr(cell, x, loss, 400, window=0.015)
    lowest = loss.reshape(400, 7).min(axis=1).mean()
    inside = found.status == "interior"
    assert lowest < 3.0 - 0.0035
    assert abs(found.value[inside].mean() - 3.0) < 0.5 * (3.0 - lowest)


def test_runs_of_a_sweep_are_no_replicates_of_its_points():
    """A point rests on many runs of a sweep; the interval of one more point must not count these as replicates."""
    trade = fit_tradeoff(tradeoff_points(final_losses(noise=0.001), targets=[2.2]))
    found = trade.predict(batch=1e6).iloc[0]
    assert found["examples_lo"] < needed(2.2, 1e6) < found["examples_hi"]
    assert found["examples_hi"] / found["examples_lo"] < 1.5


def test_points_beyond_the_budgets_are_said_and_far_ones_are_bounds():
    sweep = final_losses()
    longest = 2e11
    edge = FLOOR + SCALE * (longest * 1.5 / (1 + BATCHES[-1] / B_CRIT)) ** -POWER
    points = tradeoff_points(sweep, targets=[edge])
    last = points.table.iloc[-1]
    assert last["status"] == "point"
    assert last["reach"] == pytest.approx(1.5, rel=0.05)
    assert any(note.code == "extrapolated" for note in points.notes)
    strict = tradeoff_points(sweep, targets=[edge], max_reach=1.2).table.iloc[-1]
    assert strict["status"] == "bound"
    assert strict["examples"] == pytest.approx(longest)
    assert np.isnan(strict["log_stderr"])


def test_targets_met_by_the_smallest_budget_are_left_out_and_counted():
    points = tradeoff_points(final_losses(), targets=[FLOOR + SCALE * 1e7**-POWER, 2.2])
    assert "before_start" not in set(points.table["status"])
    assert any(note.code == "before_start" for note in points.notes)


def test_targets_can_be_spread_over_each_study():
    points = tradeoff_points(final_losses(params=(1e8, 1e9)), targets=3)
    assert points.by == ("params",)
    assert points.table.groupby("params")["target"].nunique().tolist() == [3, 3]


def test_two_budgets_are_joined_by_a_line_in_logs():
    tokens = np.array([1e9, 1e10])
    laws = fit_budgets(np.array([1e5, 1e5]), tokens, 3 * (tokens / 1e9) ** -0.1, np.full(2, np.nan))
    place, _ = laws.invert(3 * 10**-0.05)
    assert laws.floor == 0
    assert np.exp(place)[0] == pytest.approx(10**9.5)


def test_without_learning_rates_repeated_runs_are_averaged():
    table = final_losses(lrs=[1.0]).table.drop(columns="lr")
    doubled = pd.concat([table.assign(loss=table["loss"] + shift, seed=shift) for shift in (-0.002, 0.002)])
    points = tradeoff_points(Sweep.from_frame(doubled), targets=[2.2]).table
    plain = tradeoff_points(Sweep.from_frame(table), targets=[2.2]).table
    np.testing.assert_allclose(points["examples"], plain["examples"], rtol=1e-3)
    assert (points["log_stderr"] > 0).all()


def test_curves_give_their_crossings_at_the_best_learning_rate():
    points = tradeoff_points(curves(), targets=[2.4])
    table = points.table
    reached = table["status"] == "point"
    assert table["status"].tolist() == ["point"] * 6 + ["bound"]
    np.testing.assert_allclose(table["examples"][reached], needed(2.4, table["batch"][reached]), rtol=0.03)
    assert table["examples"].iloc[-1] == pytest.approx(2e10, rel=0.01)
    row = fit_tradeoff(points).table.iloc[0]
    assert row["B_crit"] == pytest.approx(B_CRIT, rel=0.05)


def test_a_learning_rate_at_the_edge_is_said():
    points = tradeoff_points(curves(lrs=(2.0, 4.0, 8.0)), targets=[2.6])
    assert "edge" in set(points.table["lr_status"])
    assert any(note.code == "lr_edge" and note.caution for note in points.notes)


def test_points_that_need_targets_or_batches_are_refused():
    sweep = final_losses()
    with pytest.raises(SweepError, match="say which losses to reach"):
        tradeoff_points(sweep)
    with pytest.raises(SweepError, match="positive losses"):
        tradeoff_points(sweep, targets=[0.0])
    with pytest.raises(SweepError, match="no batch size of table brackets"):
        tradeoff_points(sweep, targets=[1e-3])
    with pytest.raises(SweepError, match="max_reach"):
        tradeoff_points(sweep, targets=[2.2], max_reach=0.5)
    with pytest.raises(SweepError, match="batch"):
        tradeoff_points(Sweep.from_frame(sweep.table.drop(columns="batch")), targets=[2.2])
    holed = sweep.table.assign(optimizer=[None] + ["adam"] * (len(sweep) - 1))
    with pytest.raises(SweepError, match="optimizer is unknown for 1 of"):
        tradeoff_points(Sweep.from_frame(holed), targets=[2.2], by="optimizer")
    with pytest.raises(SweepError, match="list the losses"):
        tradeoff_points(curves(), targets=3)
    with pytest.raises(SweepError, match="no run reaches"):
        tradeoff_points(curves(), targets=[1.51])
    with pytest.raises(SweepError, match="brings its targets"):
        tradeoff_points(pd.DataFrame({"batch": [1.0], "steps": [1.0]}), targets=[2.0])
    with pytest.raises(SweepError, match="found str"):
        tradeoff_points("runs.csv", targets=[2.0])


def test_a_sweep_that_diverged_throughout_reaches_nothing():
    dead = Sweep.from_frame(final_losses().table.assign(loss=np.nan, diverged=True))
    for targets in (3, [2.2]):
        with pytest.raises(SweepError, match=r"all \d+ runs of table diverged: there is no loss to reach"):
            tradeoff_points(dead, targets)


@pytest.mark.parametrize("names", [[], ["lr"]])
def test_a_study_of_one_budget_is_left_out_and_named(names):
    table = final_losses(params=(1e7, 1e8, 1e9)).table
    table = table if names else table[table["lr"] == table["lr"].median()].drop(columns="lr")
    single = table["tokens"] == table["tokens"].min()
    ragged = Sweep.from_frame(table[single | (table["params"] > 1e7)])
    points = tradeoff_points(ragged, targets=3)
    whole = tradeoff_points(ragged.where("params > 1e7"), targets=3)
    pd.testing.assert_frame_equal(points.table, whole.table)
    [note] = [note for note in points.notes if note.code == "left_out"]
    assert note.caution
    assert note.text.startswith("1 of 3 studies")
    assert note.text.endswith("left out: params 1e+07")
    listed = tradeoff_points(ragged, targets=[2.2])
    assert listed.table.query("params == 1e7")["status"].eq("bound").all(), "targets that are given are bounded there"
    for targets in (3, [2.2]):
        with pytest.raises(SweepError, match="no batch size of table has two budgets of different losses"):
            tradeoff_points(Sweep.from_frame(table[single]), targets)


def test_many_studies_of_one_budget_are_not_all_named():
    table = final_losses(params=tuple(1e7 * 2.0 ** np.arange(6))).table
    points = tradeoff_points(Sweep.from_frame(table[(table["tokens"] < 3e8) | (table["params"] > 2e8)]), targets=1)
    assert any(note.text.endswith("params 1e+07; params 2e+07; params 4e+07; ...") for note in points.notes)


def test_curves_of_an_unknown_study_are_refused():
    @dataclass(frozen=True)
    class Holed:
        data_unit = "tokens"
        notes = ()
        source = "table"

        def tokens_to_target(self, targets):
            table = curves().tokens_to_target(targets)
            return table.assign(optimizer=[None] + ["adam"] * (len(table) - 1))

    with pytest.raises(SweepError, match="optimizer is unknown for 1 of 35 runs"):
        tradeoff_points(Holed(), [2.4], by="optimizer")
