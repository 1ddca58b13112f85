"""Backtests: known numbers, no leaks, known truths, bounds, failures, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from scalefit.backtesting._backtest import backtest
from scalefit.backtesting.competitors import Custom, Entrant
from scalefit.backtesting.folds import check_holdout
from scalefit.backtesting.usual_competitors import REFERENCES, Baseline, published_entrant
from scalefit.errors import LawError, SweepError
from scalefit.optima.optimum_estimators import Basin, NearMinimum, Parabola
from scalefit.simulation import Design, Truth, simulate_sweep
from scalefit.sweep import Sweep

POWER = "B = c * N**a * D**b"


def simulated(truth: Truth | None = None, design: Design | None = None, seed: int = 0) -> Sweep:
    runs = simulate_sweep(truth, design, seed=seed)
    return Sweep.from_frame(runs.assign(diverged=runs["loss"].isna()))


def without_batch(truth: Truth, design: Design, seed: int = 0) -> Sweep:
    runs = simulate_sweep(truth, design, seed=seed)
    return Sweep.from_frame(runs.drop(columns=["batch", "steps"]).assign(diverged=runs["loss"].isna()))


@dataclass(frozen=True)
class Known:
    """A predictor that knows the truth, times a factor, within a stated factor either way."""

    truth: Truth
    factor: float = 1.0
    spread: float = 1.5

    def optimum(self, *, level: float = 0.95, **cells: np.ndarray) -> pd.DataFrame:
        best = self.truth.optimum(cells["params"], cells["tokens"])
        columns = {name: self.factor * value for name, value in best.items()}
        columns |= {f"{name}_lo": columns[name] / self.spread for name in best}
        return pd.DataFrame(columns | {f"{name}_hi": columns[name] * self.spread for name in best})


def known(name: str, *args: float, truth: Truth | None = None) -> Custom:
    return Custom(name, lambda _: Known(truth or Truth(), *args))


@pytest.fixture(scope="module")
def step_law(shared_data) -> Sweep:
    raw = pd.read_csv(shared_data("steplaw_dense_lr_bs.csv"))
    runs = {"lr": raw["lr"], "batch": raw["bs"] * 2048.0, "params": raw["N"], "tokens": raw["D"]}
    return Sweep.from_frame(pd.DataFrame(runs | {"loss": raw["smooth loss"]}))


@pytest.mark.parametrize(
    ("holdout", "cells", "expected"),
    [
        ("params > 1e9", 2, (0.236, 0.101, 0.113)),
        ("tokens >= 5e10", 5, (0.140, 0.069, 0.085)),
    ],
)
def test_reference_procedures_have_their_known_regret(step_law, holdout, cells, expected):
    scores = backtest(step_law, holdout).summary().set_index("entrant")
    names = ["grid minimum + OLS", "within 0.25 % + OLS", "steplaw2025"]
    assert scores.loc[names, "regret_pct"].to_numpy() == pytest.approx(expected, abs=0.01)
    assert (scores["cells"] == cells).all()
    assert (scores["clipped"] == 0).all()
    assert scores["regret_stderr"].between(0.02, 0.15).all()


def test_step_law_tells_params_from_tokens(step_law):
    report = backtest(step_law, ["params > 1e9", "tokens >= 5e10"], entrants=REFERENCES)
    scores, kinds = report.summary(), report.by_axis().set_index(["entrant", "beyond"])
    assert kinds.loc[("steplaw2025", "params"), "cells"] == 2
    assert kinds.loc[("steplaw2025", "tokens"), "cells"] == 5
    row = scores.set_index("entrant").loc["steplaw2025"]
    assert row["regret_params"] == pytest.approx(kinds.loc[("steplaw2025", "params"), "regret_pct"])
    assert row["regret_tokens"] == pytest.approx(0.085, abs=0.01)
    assert [note for note in report.notes if note.code == "params_tokens"]


def test_held_out_losses_never_reach_a_prediction():
    sweep = simulated(seed=3)
    table = sweep.table
    held = table["params"] >= 1e9
    changed = table.assign(loss=np.where(held, table["loss"].to_numpy()[::-1] * 2 + 1, table["loss"]))
    changed.loc[held & changed["loss"].isna(), "diverged"] = True
    predicted = ["lr", "lr_lo", "lr_hi", "batch", "batch_lo", "batch_hi"]
    before = backtest(sweep, "params >= 1e9", laws=["lr_power", "lr_curved"]).table
    after = backtest(Sweep.from_frame(changed), "params >= 1e9", laws=["lr_power", "lr_curved"]).table
    pd.testing.assert_frame_equal(before[predicted], after[predicted], check_exact=True)
    assert not np.allclose(before["regret_pct"], after["regret_pct"])


def test_entrants_are_trained_on_the_other_cells_alone():
    sweep, seen = simulated(), []

    def recipe(training: Sweep) -> Known:
        seen.append(training)
        return Known(Truth())

    backtest(sweep, ["params >= 1e9", "D > 5e10"], entrants=[Custom("spy", recipe)])
    assert [training.table["params"].max() for training in seen] == [2e8, 1e9]
    assert seen[1].table["tokens"].max() == 1.6e10
    assert [len(training) for training in seen] == [420, 420]


def test_the_truth_beats_what_is_off_and_costs_only_the_luck_of_the_best_run():
    design = Design(lr_levels=15, lr_ratio=1.3, batch_levels=11, batch_ratio=1.3)
    truth = Truth(noise=0.0005)
    entrants = [known("off", 2.0, truth=truth), known("truth", truth=truth), known("far off", 4.0, truth=truth)]
    scores = backtest(simulated(truth, design), "largest both", entrants=entrants).summary()
    assert scores["entrant"].tolist() == ["truth", "off", "far off"]
    assert scores["regret_pct"][0] < 0.08
    assert scores["behind_pct"].to_numpy() == pytest.approx(scores["regret_pct"] - scores["regret_pct"][0])
    assert scores["behind_stderr"][0] == 0
    assert (scores["behind_stderr"][1:] < 0.5 * scores["behind_pct"][1:]).all()
    assert scores["lr_log2"][2] == pytest.approx(2.0, abs=0.3)


def test_errors_and_intervals_by_hand():
    design = Design(lr_levels=25, lr_ratio=1.2, batch_levels=17, batch_ratio=1.2)
    truth = Truth(noise=1e-6, asymmetry=0.0)
    entrants = [known("in", 1.4, truth=truth), known("out", 2.0, truth=truth)]
    report = backtest(simulated(truth, design), "largest params", entrants=entrants)
    table = report.table.set_index("entrant")
    assert table.loc["in", "log2_lr_error"].to_numpy() == pytest.approx(np.log2(1.4), abs=0.01)
    assert table.loc["out", "log2_batch_error"].to_numpy() == pytest.approx(1.0, abs=0.01)
    assert table.loc["in", "lr_inside"].tolist() == [True] * 4
    assert table.loc["out", "lr_inside"].tolist() == [False] * 4
    assert (table["observed_log_lr_stderr"] < 0.001).all()
    assert (table["observed_regret_pct"] < 0.02).all()
    assert (table["regret_pct"] > table["observed_regret_pct"]).all()
    scores = report.summary().set_index("entrant")
    assert scores.loc["in", "lr_mape"] == pytest.approx(40, abs=1)
    assert scores.loc["out", "batch_log2"] == pytest.approx(1, abs=0.01)
    assert scores["lr_coverage"].tolist() == [1.0, 0.0]


def test_uncertain_observation_widens_what_counts_as_inside():
    sharp, blurred = Truth(noise=1e-6, asymmetry=0.0), Truth(noise=0.02, noise_dof=np.inf, asymmetry=0.0)
    outcomes = []
    for truth in (sharp, blurred):
        report = backtest(simulated(truth, seed=4), "largest params", entrants=[known("x", 1.3, 1.2, truth=truth)])
        table = report.table[report.table["lr_status"] == "interior"]
        outcomes.append(table["lr_inside"].dropna().astype(bool))
        width = np.hypot(np.log(1.2), np.log(table["observed_lr"] / table["observed_lr_lo"]))
        below = table["log2_lr_error"] > 0
        distance = np.log(2) * table["log2_lr_error"].abs()
        assert (table.loc[below, "lr_inside"].astype(bool) == (distance <= width)[below]).all()
    assert not outcomes[0].any()
    assert outcomes[1].any()


def test_bounds_are_censored_and_enter_no_mean():
    truth = Truth(noise=0.0005)
    sweep = without_batch(truth, Design(lr_levels=6, drift=2.0, batch_levels=1))
    entrants = [known("low", 0.1, truth=truth), known("high", 8.0, truth=truth), known("beyond", 0.01, truth=truth)]
    report = backtest(sweep, "largest params", entrants=entrants)
    table = report.table.set_index("entrant")
    assert table["lr_status"].eq("edge").all()
    assert table["censored"].all()
    assert table["lr_inside"].isna().all()
    assert (table["observed_lr_lo"] == 0).all()
    assert (table.loc["low", "log2_lr_error"] == 0).all()
    assert (table.loc["beyond", "log2_lr_error"] == 0).all()
    expected = np.log2(table.loc["high", "lr"] / table.loc["high", "observed_lr"])
    assert table.loc["high", "log2_lr_error"].to_numpy() == pytest.approx(expected.to_numpy())
    assert table.loc["low", "clipped"].all()
    scores = report.summary()
    assert scores["lr_log2"].isna().all()
    assert (scores["censored"] == 1).all()
    assert {"censored", "clipped"} <= {note.code for note in report.notes}


def test_half_the_optima_of_a_real_sweep_are_bounds(shared_data):
    raw = pd.read_csv(shared_data("misfitting_last_ckpt.csv"))
    columns = {"peak_lr": "lr", "N_no_emb": "params", "D": "tokens"}
    sweep = Sweep.from_frame(raw.rename(columns=columns)[["lr", "params", "tokens", "loss"]])
    report = backtest(sweep, "params > 1e8", methods=[NearMinimum()], observed=NearMinimum())
    assert set(report.axes) == {"lr"}
    cells = report.table.drop_duplicates(["params", "tokens"])
    assert (cells["lr_status"] == "edge").sum() >= len(cells) / 3
    points = report.table[report.table["lr_status"] == "interior"]
    scores = report.summary().set_index("entrant")
    assert (scores["cells"] == len(cells)).all()
    means = points["log2_lr_error"].abs().groupby(points["entrant"]).mean()
    assert scores.loc[means.index, "lr_log2"].to_numpy() == pytest.approx(means.to_numpy())
    (bounds,) = (note.text for note in report.notes if note.code == "bounds")
    assert "32 of 58 optima are bounds" in bounds
    assert not any(name.startswith("batch") for name in scores)


def test_sweep_without_batch():
    truth = Truth(noise=0.0005, asymmetry=0.0)
    sweep = without_batch(truth, Design(lr_levels=11, lr_ratio=1.5, batch_levels=1))
    report = backtest(sweep, "params >= 1e9")
    assert report.axes == ("lr",)
    assert not [name for name in report.table if "batch" in name]
    scores = report.summary().set_index("entrant")
    assert scores.loc["Parabola: lr_power", "lr_log2"] < 0.1
    assert scores.loc["Parabola: lr_power", "regret_pct"] < 0.1
    assert scores.loc["steplaw2025", "cells"] == 4


def test_one_failure_leaves_the_others_alone():
    def broken(_: Sweep) -> Known:
        raise np.linalg.LinAlgError("singular")

    entrants = [Custom("broken", broken), known("truth"), published_entrant("kaplan2020_lr")]
    report = backtest(simulated(), "params >= 1e9", entrants=entrants)
    scores = report.summary().set_index("entrant")
    assert scores.index.tolist()[0] == "truth"
    assert scores.loc["broken", ["cells", "failed"]].tolist() == [0, 4]
    assert np.isnan(scores.loc["broken", "regret_pct"])
    assert scores.loc["kaplan2020_lr", ["cells", "failed"]].tolist() == [0, 0]
    assert np.isfinite(scores.loc["kaplan2020_lr", "lr_log2"])
    failures = report.table.set_index("entrant")["error"]
    assert set(failures["broken"]) == {"LinAlgError: singular"}
    assert set(failures["truth"]) == {""}
    assert [note.text for note in report.notes if note.code == "failed"] == [
        "broken made no prediction: LinAlgError: singular"
    ]


def test_law_that_training_cells_cannot_carry_fails_alone():
    design = Design(params=(1e8, 1e9), tokens=(1e9, 1e10))
    scores = backtest(simulated(design=design), "params > 5e8", laws=["lr_quadratic"]).summary().set_index("entrant")
    assert scores.loc["Parabola: lr_quadratic", "failed"] == 2
    assert scores.loc["steplaw2025", "cells"] == 2


def test_a_defect_in_an_entrant_is_not_a_failure():
    def broken(_: Sweep) -> Known:
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        backtest(simulated(), "params >= 1e9", entrants=[Custom("broken", broken)])


def test_predictions_that_are_no_setting_fail():
    @dataclass(frozen=True)
    class Negative:
        def optimum(self, *, level: float, params: np.ndarray, tokens: np.ndarray) -> pd.DataFrame:
            return pd.DataFrame({"lr": -1e-3 * params / params, "batch": params})

    class Short(Negative):
        def optimum(self, *, level: float, params: np.ndarray, tokens: np.ndarray) -> pd.DataFrame:
            return pd.DataFrame({"lr": [1e-3], "batch": [1e5]})

    entrants = [Custom("negative", lambda _: Negative()), Custom("short", lambda _: Short())]
    errors = backtest(simulated(), "params >= 1e9", entrants=entrants).table.set_index("entrant")["error"]
    assert errors["negative"].str.contains("not a setting").all()
    assert errors["short"].str.contains("one prediction for each of 4 cells").all()


def test_reach_and_beyond():
    report = backtest(simulated(), "largest both", entrants=[known("truth")])
    table = report.table.set_index(["params", "tokens"])
    assert table.loc[(1e9, 6.4e10), ["beyond", "reach"]].tolist() == ["both", 5.0]
    assert table.loc[(1e9, 4e9), ["beyond", "reach"]].tolist() == ["params", 5.0]
    assert table.loc[(1e7, 6.4e10), ["beyond", "reach"]].tolist() == ["tokens", 4.0]
    inside = backtest(simulated(), "params == 5e7 and tokens == 4e9", entrants=[known("truth")]).table
    assert inside[["beyond", "reach"]].to_numpy().tolist() == [["neither", 1.0]]


def test_rolling_learns_from_the_strictly_smaller():
    seen = []

    def recipe(training: Sweep) -> Known:
        seen.append(training.levels("tokens").tolist())
        return Known(Truth())

    report = backtest(simulated(), "rolling tokens", entrants=[Custom("spy", recipe)])
    assert seen == [[1e9, 4e9], [1e9, 4e9, 1.6e10]]
    assert report.holdout == ("tokens = 16B, from smaller", "tokens = 64B, from smaller")
    assert report.table.groupby("fold")["tokens"].unique().str[0].tolist() == [1.6e10, 6.4e10]


def test_rolling_both_learns_from_the_smaller_in_both():
    seen = []

    def recipe(training: Sweep) -> Known:
        seen.append((training.table["params"].max(), training.table["tokens"].max(), len(training.cells)))
        return Known(Truth())

    report = backtest(simulated(), "rolling both", entrants=[Custom("spy", recipe)])
    assert report.table[["params", "tokens"]].to_numpy().tolist() == [[2e8, 6.4e10], [1e9, 1.6e10], [1e9, 6.4e10]]
    assert seen == [(5e7, 1.6e10, 6), (2e8, 4e9, 6), (2e8, 1.6e10, 9)]
    assert set(report.table["beyond"]) == {"both"}
    assert report.holdout[0] == "params = 200M and tokens = 64B, from smaller"


def test_rolling_over_a_single_axis():
    sweep = simulated(design=Design(params=(1e7, 3e7, 1e8, 3e8, 1e9), tokens=(1e10,)))
    report = backtest(sweep, "rolling params", laws=["eta = c * N**a"], batch_law="B = c * N**a")
    assert report.holdout == ("params = 1B, from smaller",)
    assert (report.summary().set_index("entrant")["cells"] == 1).all()


def test_condition_follows_levels_not_jitter():
    table = simulated().table
    rng = np.random.default_rng(0)
    table["params"] *= 1 + 0.002 * rng.random(len(table))
    jittered = Sweep.from_frame(table)
    level = jittered.levels("params")[-1]
    report = backtest(jittered, f"N >= {float(level)!r}", entrants=[known("truth")])
    assert len(report.table) == 4


def test_a_sweep_that_diverged_throughout_scores_nobody():
    table = simulated().table.assign(loss=np.nan, diverged=True)
    with pytest.raises(SweepError, match=r"all \d+ runs of table diverged: there is no prediction to score"):
        backtest(Sweep.from_frame(table), "largest params")


def test_a_fold_asked_for_in_two_ways_counts_its_cells_once():
    once = backtest(simulated(), "largest params")
    twice = backtest(simulated(), ["largest params", "params > 5e8"])
    assert twice.holdout == ("largest params, params > 5e8",)
    pd.testing.assert_frame_equal(twice.summary(), once.summary())


@pytest.mark.parametrize(
    ("holdout", "message"),
    [
        ("params > 1e12", "no cell of 16: nothing is left to hold out"),
        ("params > 1", "every cell of 16: nothing is left to train on"),
        ("lr > 1e-3", "holds out part of 1?[0-9] of 16 cells"),
        ("largest lr", "expected 'largest params', 'largest tokens' or 'largest both', found 'largest lr'"),
        ("nope > 3", "nope"),
        ("params >", "params >"),
        ([], "expected a condition"),
        (3.0, "expected a condition"),
    ],
)
def test_holdouts_that_cannot_be(holdout, message):
    with pytest.raises(SweepError, match=message):
        backtest(simulated(), holdout)


def test_rolling_and_largest_need_levels():
    narrow = simulated(design=Design(params=(1e8,)))
    with pytest.raises(SweepError, match="all cells have params 100M"):
        backtest(narrow, "largest params")
    with pytest.raises(SweepError, match="no level of tokens has enough below"):
        backtest(narrow, "rolling tokens")


def test_arguments_are_checked():
    sweep = simulated()
    with pytest.raises(SweepError, match="expects a Sweep"):
        backtest(sweep.table, "params > 1e9")
    with pytest.raises(SweepError, match="level"):
        backtest(sweep, "params >= 1e9", level=95)
    with pytest.raises(SweepError, match="two entrants are called 'truth'"):
        backtest(sweep, "params >= 1e9", entrants=[known("truth"), known("truth")])
    with pytest.raises(SweepError, match="no entrant"):
        backtest(sweep, "params >= 1e9", entrants=[])
    with pytest.raises(SweepError, match="a name and train"):
        backtest(sweep, "params >= 1e9", entrants=["lr_power"])
    with pytest.raises(LawError, match="no law named"):
        backtest(sweep, "params >= 1e9", laws=["nope"])
    with pytest.raises(LawError, match="no published law"):
        backtest(sweep, "params >= 1e9", published=["nope"])


def test_row_order_changes_nothing():
    sweep = simulated(seed=5)
    shuffled = Sweep.from_frame(sweep.table.sample(frac=1, random_state=1).reset_index(drop=True))
    first, second = (backtest(each, "tokens > 5e10").table for each in (sweep, shuffled))
    pd.testing.assert_frame_equal(first, second, rtol=1e-9)


def test_backtest_is_frozen_and_repeats():
    report = backtest(simulated(), "params >= 1e9", entrants=[Baseline("b", 0.0)])
    copy = report.table
    copy["lr"] = 0.0
    assert (report.table["lr"] > 0).all()
    again = backtest(simulated(), "params >= 1e9", entrants=[Baseline("b", 0.0)])
    pd.testing.assert_frame_equal(report.table, again.table)


def test_displays_show_ranking_and_escape():
    report = backtest(simulated(), "params >= 1e9", entrants=[known("<b>truth</b>"), known("off", 4.0)])
    text, page = repr(report), report._repr_html_()
    assert text.index("<b>truth</b>") < text.index("off")
    assert "params >= 1e9" in text
    assert "4 beyond in params" in text
    assert "&lt;b&gt;truth" in page
    assert "<b>truth" not in page


@pytest.mark.parametrize("seeds", [range(12), pytest.param(range(100), marks=pytest.mark.slow)])
def test_intervals_of_a_law_hold_what_is_found(seeds):
    truth = Truth(noise=0.003, asymmetry=0.8)
    entrant = [Entrant("basin", Basin(), "lr_power", POWER)]
    scores = [backtest(simulated(truth, seed=s), "params >= 1e9", entrants=entrant).summary().iloc[0] for s in seeds]
    assert np.mean([score["lr_coverage"] for score in scores]) > 0.9
    assert np.mean([score["batch_coverage"] for score in scores]) > 0.9


def test_observed_optima_of_asymmetric_basins_are_not_read_low():
    truth = Truth(noise=0.001, asymmetry=0.8)
    off = {}
    for name, method in (("default", None), ("parabola", Parabola())):
        runs = simulated(truth, Design(lr_levels=9, lr_ratio=2**0.5, batch_levels=7))
        report = backtest(runs, "params >= 1e9", entrants=[known("truth", truth=truth)], observed=method)
        off[name] = report.table["log2_lr_error"].mean()
    assert abs(off["default"]) < 0.03
    assert off["parabola"] > 0.15


@pytest.mark.parametrize(
    "text", ["largest N", " rolling  D ", "largest  both", "rolling both", "N > 1e9", "not (lr < 1 or seed == 2)"]
)
def test_a_holdout_of_either_grammar_is_one(text):
    check_holdout(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rolling lr", "^expected 'rolling params', 'rolling tokens' or 'rolling both', found 'rolling lr'"),
        ("largest", "^expected 'largest params', 'largest tokens' or 'largest both', found 'largest'"),
        ("largest lr", "found 'largest lr'"),
        ("largest params and tokens", "^'largest params and tokens' is not an expression.*'largest both'"),
        ("params >", "^'params >' is not an expression.* A holdout is a condition such as 'params > 1e9'"),
    ],
)
def test_what_is_no_holdout_is_refused_without_a_sweep_and_with_one(text, message):
    with pytest.raises(SweepError, match=message):
        check_holdout(text)
    with pytest.raises(SweepError, match=message):
        backtest(simulated(), text)
