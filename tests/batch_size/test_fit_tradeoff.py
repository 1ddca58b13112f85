"""Steps against examples: exact recovery, what is not identified, small batches, units, and refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scalefit.batch_size.estimators import Hyperbola, InverseSteps, Overhead, StepsLine
from scalefit.batch_size.fit_tradeoff import fit_tradeoff
from scalefit.batch_size.tradeoff_points import TradeoffPoints
from scalefit.errors import FitError, SweepError
from scalefit.fitting.fit_law import fit_law as fit

METHODS = [Hyperbola(), StepsLine(), InverseSteps()]


def exact(batch, b_crit=1e6, e_min=1e10, **columns):
    batch = np.asarray(batch, dtype=float)
    return pd.DataFrame({"batch": batch, "examples": e_min * (1 + batch / b_crit), **columns})


def noisy(seed, low, high, k=9, reps=1, noise=0.04, lack=0.0):
    rng = np.random.default_rng(seed)
    table = exact(np.repeat(1e6 * np.geomspace(low, high, k), reps))
    scatter = np.repeat(rng.normal(0, 1, k) * lack, reps) + rng.normal(0, noise, k * reps)
    return table.assign(examples=table["examples"] * np.exp(scatter))


GRID = 1e6 * np.geomspace(1 / 16, 16, 9)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_exact_points_give_the_exact_curve(method):
    row = fit_tradeoff(exact(GRID), method=method).table.iloc[0]
    assert row["B_crit"] == pytest.approx(1e6, rel=1e-6)
    assert row["E_min"] == pytest.approx(1e10, rel=1e-6)
    assert row["S_min"] == pytest.approx(1e4, rel=1e-6)
    assert row["identified"]
    assert row["rms"] < 1e-6


def test_the_two_factors_multiply_to_one_at_every_predicted_batch():
    trade = fit_tradeoff(noisy(0, 1 / 16, 16))
    row, found = trade.table.iloc[0], trade.predict(batch=[1e3, 1e6, 1e9])
    product = (found["steps"] / row["S_min"] - 1) * (found["examples"] / row["E_min"] - 1)
    np.testing.assert_allclose(product, 1.0, rtol=1e-6)
    np.testing.assert_allclose(found["examples"], found["batch"] * found["steps"], rtol=1e-12)
    assert (found["examples_lo"] < found["examples"]).all()
    assert (found["examples"] < found["examples_hi"]).all()
    assert found["reach"].tolist() == pytest.approx([62.5, 1.0, 62.5])
    named = trade.predict(batch=pd.Series([1e3, 1e6, 1e9], list("abc")))
    pd.testing.assert_frame_equal(named, found.set_axis(list("abc")))


def test_without_replicates_the_fit_is_least_squares_in_logs():
    from scipy.optimize import curve_fit

    table = noisy(4, 1 / 16, 16)
    (floor, critical), covariance = curve_fit(
        lambda x, a, b: a + np.logaddexp(0, x - b), np.log(table["batch"]), np.log(table["examples"]), p0=[23.0, 14.0]
    )
    row = fit_tradeoff(table).table.iloc[0]
    assert np.log(row["B_crit"]) == pytest.approx(critical, abs=1e-5)
    assert np.log(row["E_min"]) == pytest.approx(floor, abs=1e-5)
    # Student's t with 7 degrees of freedom; the likelihood profile is nearly a parabola here
    half = 2.3646 * np.sqrt(covariance[1, 1])
    assert np.log(row["B_crit_hi"] / row["B_crit_lo"]) / 2 == pytest.approx(half, rel=0.01)
    longer = max(row["B_crit_hi"] - row["B_crit"], row["B_crit"] - row["B_crit_lo"])
    assert row["B_crit_stderr"] == pytest.approx(longer / 1.95996, rel=1e-4)


def test_steps_and_examples_are_the_same_data():
    by_examples = noisy(1, 1 / 16, 16)
    by_steps = by_examples.assign(steps=by_examples["examples"] / by_examples["batch"]).drop(columns="examples")
    one, two = fit_tradeoff(by_examples).table, fit_tradeoff(by_steps).table
    pd.testing.assert_frame_equal(one, two, rtol=1e-6)


def test_the_order_of_rows_and_the_units_change_nothing():
    table = noisy(2, 1 / 16, 16, reps=3)
    one = fit_tradeoff(table).table.iloc[0]
    two = fit_tradeoff(table.sample(frac=1, random_state=0)).table.iloc[0]
    assert two["B_crit"] == pytest.approx(one["B_crit"], rel=1e-9)
    scaled = fit_tradeoff(table.assign(batch=table["batch"] / 512, examples=table["examples"] / 512)).table.iloc[0]
    assert scaled["B_crit"] * 512 == pytest.approx(one["B_crit"], rel=1e-4)
    assert scaled["S_min"] == pytest.approx(one["S_min"], rel=1e-4)


class TestNotIdentified:
    def test_all_batches_small_bound_b_crit_from_below_only(self):
        trade = fit_tradeoff(noisy(0, 1e-4, 1e-2))
        row = trade.table.iloc[0]
        assert (row["status"], row["identified"]) == ("no_S_min", False)
        assert np.isnan(row["B_crit_stderr"])
        assert np.isnan(row["S_min_stderr"])
        assert np.isinf(row["B_crit_hi"])
        assert 0 < row["B_crit_lo"] < 1e6
        assert row["S_min_lo"] == 0
        assert row["S_min_hi"] > 1e4
        assert row["E_min"] == pytest.approx(1e10, rel=0.05)
        assert any(note.code == "no_S_min" and note.caution for note in trade.notes)
        found = trade.predict(batch=1e4).iloc[0]
        assert found["examples"] == pytest.approx(row["E_min"] * (1 + 1e4 / row["B_crit"]))
        assert found["examples"] == pytest.approx(1e10, rel=0.05)
        far = trade.predict(batch=1e7).iloc[0]
        assert far["examples_hi"] > 3 * far["examples"]

    def test_all_batches_large_bound_b_crit_from_above_only(self):
        trade = fit_tradeoff(noisy(1, 1e2, 1e4))
        row = trade.table.iloc[0]
        assert row["status"] == "no_E_min"
        assert np.isnan(row["E_min_stderr"])
        assert row["E_min_lo"] == 0
        assert row["E_min_hi"] > 1e10
        assert row["B_crit_lo"] == 0
        assert np.isfinite(row["B_crit_hi"])
        assert row["S_min"] == pytest.approx(1e4, rel=0.05)

    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_two_batch_sizes_draw_a_curve_but_claim_nothing(self, method):
        trade = fit_tradeoff(exact([1e5, 3e6]), method=method)
        row = trade.table.iloc[0]
        assert row["status"] == "too_few"
        assert row[["S_min_lo", "E_min_lo", "B_crit_lo"]].eq(0).all()
        assert np.isinf(row[["S_min_hi", "B_crit_hi"]].astype(float)).all()
        assert np.isnan(row["B_crit_stderr"])
        assert trade.predict(batch=1e7).iloc[0]["examples"] == pytest.approx(1.1e11, rel=1e-3)
        assert np.isinf(trade.predict(batch=1e7).iloc[0]["examples_hi"])

    def test_two_batch_sizes_with_a_stated_lack_of_fit_have_intervals(self):
        row = fit_tradeoff(exact([1e5, 3e6]), method=Hyperbola(lack_of_fit=0.05)).table.iloc[0]
        assert row["identified"]
        assert row["B_crit_lo"] < 1e6 < row["B_crit_hi"]

    def test_no_law_is_fitted_to_what_is_not_identified(self):
        with pytest.raises(SweepError, match="identified by none of the 1 fits"):
            fit_tradeoff(noisy(0, 1e-4, 1e-2)).observations("B_crit")


class TestReplicates:
    def test_more_seeds_shrink_the_errors_when_the_curve_is_right(self):
        few, many = (fit_tradeoff(noisy(5, 1 / 16, 16, reps=reps)).table.iloc[0] for reps in (3, 48))
        assert many["B_crit_stderr"] < 0.5 * few["B_crit_stderr"]
        assert many["lack_of_fit"] < 0.02

    def test_lack_of_fit_stays_however_many_seeds(self):
        many = fit_tradeoff(noisy(6, 1 / 16, 16, reps=48, lack=0.06)).table.iloc[0]
        assert 0.03 < many["lack_of_fit"] < 0.1

    def test_a_batch_size_with_more_seeds_counts_more(self):
        rng = np.random.default_rng(0)
        counts = np.array([2, 2, 2, 2, 200])
        batch = np.repeat(1e6 * np.geomspace(1 / 16, 16, 5), counts)
        table = exact(batch)
        table["examples"] *= np.exp(rng.normal(0, 0.2, len(batch)))
        points = fit_tradeoff(table).points
        assert points["n"].tolist() == counts.tolist()
        assert points["log_stderr"].iloc[-1] == pytest.approx(points["log_stderr"].iloc[0] / 10)
        assert abs(points["residual"].iloc[-1]) < 0.02

    def test_replicates_that_did_not_get_there_are_said(self):
        table = noisy(0, 1 / 16, 16, reps=3).assign(status="reached")
        table.loc[table.index[-1], "status"] = "bound"
        trade = fit_tradeoff(table)
        assert any(note.code == "unreached" for note in trade.notes)
        assert trade.points["n"].iloc[-1] == 2


class TestSmallBatches:
    @staticmethod
    def table():
        table = noisy(4, 1 / 30, 30, k=11, noise=0.02)
        return table.assign(examples=table["examples"] * np.r_[2.0, 1.5, np.ones(9)])

    def test_small_batches_that_need_more_data_are_found_said_and_left_out(self):
        trade = fit_tradeoff(self.table())
        row = trade.table.iloc[0]
        assert row["n_left_out"] == 2
        assert row["excess"] == pytest.approx(1.0, abs=0.25)
        assert row["excess_p"] < 0.05
        assert row["B_crit"] == pytest.approx(1e6, rel=0.15)
        assert trade.points["used"].tolist() == [False] * 2 + [True] * 9
        note = next(note for note in trade.notes if note.code == "small_batches")
        assert note.caution
        assert "2 points left out" in note.text

    def test_they_are_fitted_when_asked_and_still_said(self):
        trade = fit_tradeoff(self.table(), small_batches="keep")
        assert trade.table["n_left_out"].tolist() == [0]
        assert trade.table["excess_p"].iloc[0] < 0.05
        assert trade.points["used"].all()
        assert "fitted all the same" in next(note for note in trade.notes if note.code == "small_batches").text

    def test_large_batches_that_need_more_are_the_trade_off_itself(self):
        table = noisy(4, 1 / 30, 30, k=11, noise=0.02)
        table["examples"] *= np.r_[np.ones(9), 1.5, 2.0]
        assert fit_tradeoff(table).table["n_left_out"].tolist() == [0]


class TestUnits:
    def test_epochs_beside_samples_need_the_size_of_the_data(self):
        table = exact(GRID).rename(columns={"examples": "epochs"}).assign(epochs=lambda t: t["epochs"] / 5e8)
        trade = fit_tradeoff(table, data_unit="samples")
        row = trade.table.iloc[0]
        assert (trade.data_unit, trade.examples_unit, trade.unit_size) == ("samples", "epochs", None)
        assert row["B_crit"] == pytest.approx(1e6, rel=1e-6)
        assert row["E_min"] == pytest.approx(20.0, rel=1e-6)
        assert np.isnan(row["S_min"])
        known = fit_tradeoff(table, data_unit="samples", unit_size=5e8)
        assert known.table["S_min"].iloc[0] == pytest.approx(1e4, rel=1e-6)
        assert known.predict(batch=1e6)["steps"].iloc[0] == pytest.approx(2e4, rel=1e-6)

    def test_steps_prove_the_size_of_an_epoch(self):
        table = exact(GRID).assign(steps=lambda t: t["examples"] / t["batch"], epochs=lambda t: t["examples"] / 5e8)
        trade = fit_tradeoff(table.drop(columns="examples"), data_unit="samples")
        assert trade.unit_size == pytest.approx(5e8)
        assert any(note.code == "unit_size" for note in trade.notes)

    def test_examples_that_make_no_step_are_doubted_not_used_for_steps(self):
        table = exact(GRID).assign(examples=lambda t: t["examples"] / 5e9)
        trade = fit_tradeoff(table)
        assert np.isnan(trade.table["S_min"].iloc[0])
        assert trade.table["B_crit"].iloc[0] == pytest.approx(1e6, rel=1e-6)
        assert any(note.code == "unit_size" and note.caution for note in trade.notes)

    def test_the_unit_is_carried(self):
        trade = fit_tradeoff(exact(GRID), data_unit="images")
        assert "batch in images, examples in images" in repr(trade)
        assert trade.observations("B_crit").data_unit == "images"

    def test_contradicting_columns_are_refused(self):
        table = exact(GRID).assign(steps=lambda t: t["examples"] / t["batch"])
        table.loc[3, "steps"] *= 1.5
        with pytest.raises(SweepError, match="contradict each other, worst in row 4"):
            fit_tradeoff(table)


class TestStudies:
    @staticmethod
    def table():
        parts = [
            exact(GRID, 1e8 * loss**-5.0, 1e10 * loss**-9.0, target=loss, params=size)
            for loss in (2.0, 2.5, 3.0)
            for size in (1e8, 1e9)
        ]
        return pd.concat(parts, ignore_index=True)

    def test_one_row_a_study_and_target(self):
        trade = fit_tradeoff(self.table())
        assert trade.table[["params", "target"]].values.tolist() == [
            [size, loss] for size in (1e8, 1e9) for loss in (2.0, 2.5, 3.0)
        ]
        np.testing.assert_allclose(trade.table["B_crit"], 1e8 * trade.table["target"] ** -5.0, rtol=1e-5)
        found = trade.predict(batch=[1e5, 1e6], target=2.0, N=1e9)
        assert found[["params", "target"]].drop_duplicates().values.tolist() == [[1e9, 2.0]]
        assert len(trade.predict(batch=1e5)) == 6

    def test_a_law_for_b_crit_in_the_loss(self):
        found = fit("B_crit = B_star / L**(1/alpha_B)", fit_tradeoff(self.table()))
        assert found.values["B_star"] == pytest.approx(1e8, rel=1e-3)
        assert found.values["alpha_B"] == pytest.approx(0.2, rel=1e-3)
        assert any(note.code == "shared_runs" for note in found.notes)

    def test_targets_tied_by_power_laws(self):
        trade = fit_tradeoff(self.table(), tie="target")
        powers = trade.exponents.set_index(["params", "quantity"])["exponent"]
        assert powers.loc[1e8].to_dict() == pytest.approx({"E_min": -9.0, "S_min": -4.0, "B_crit": -5.0}, abs=1e-6)
        np.testing.assert_allclose(trade.table["B_crit"], 1e8 * trade.table["target"] ** -5.0, rtol=1e-6)
        assert trade.table["identified"].all()

    def test_studies_tied_too(self):
        trade = fit_tradeoff(self.table(), tie=("target", "params"))
        powers = trade.exponents.set_index(["quantity", "of"])["exponent"]
        assert powers["B_crit", "target"] == pytest.approx(-5.0, abs=1e-6)
        assert powers["B_crit", "params"] == pytest.approx(0.0, abs=1e-6)

    def test_tied_targets_do_not_pretend_to_be_independent(self):
        rng = np.random.default_rng(0)
        table = self.table().query("params == 1e8")
        scatter = dict(zip(GRID, rng.normal(0, 0.05, len(GRID)), strict=True))
        shared = table.assign(examples=table["examples"] * np.exp(table["batch"].map(scatter)))
        tied = fit_tradeoff(shared, tie="target").table
        alone = fit_tradeoff(shared).table
        ratio = (tied["B_crit_stderr"] / tied["B_crit"]) / (alone["B_crit_stderr"] / alone["B_crit"])
        assert ratio.between(0.6, 1.6).all()

    def test_texts_that_span_batches_tell_studies_apart_names_of_runs_do_not(self):
        table = pd.concat(
            [exact(GRID, 1e6, optimizer="adam"), exact(GRID, 2e6, optimizer="sgd")], ignore_index=True
        ).assign(entry=lambda t: "run" + t.index.astype(str))
        trade = fit_tradeoff(table)
        assert trade.by == ("optimizer",)
        np.testing.assert_allclose(trade.table["B_crit"], [1e6, 2e6], rtol=1e-5)
        assert any(note.code == "studies" for note in trade.notes)
        assert any(note.code == "mixed" and "entry" in note.text for note in trade.notes)


def test_a_loss_that_may_be_the_target_is_said():
    table = pd.concat([exact(GRID, loss=2.0), exact(GRID, loss=2.5)], ignore_index=True)
    assert any("column target" in note.text for note in fit_tradeoff(table).notes)


def test_three_points_exactly_on_a_curve_are_exact():
    row = fit_tradeoff(exact([1e6, 2e6, 4e6], 1e6, 1.0)).table.iloc[0]
    assert row["B_crit"] == pytest.approx(1e6, rel=1e-6)
    assert row["B_crit_hi"] / row["B_crit_lo"] < 1.001


def test_bounds_are_no_points_and_are_checked_against_the_curve():
    table = noisy(0, 1 / 16, 16).assign(status="point")
    table.loc[8, "status"] = "bound"
    fine = fit_tradeoff(table)
    assert fine.table["n_batch"].tolist() == [8]
    assert not fine.points["contradicts"].any()
    table.loc[8, "examples"] *= 10
    doubtful = fit_tradeoff(table)
    assert doubtful.points["contradicts"].tolist() == [False] * 8 + [True]
    assert any(note.code == "bounds_contradict" for note in doubtful.notes)
    assert doubtful.table["B_crit"].iloc[0] == fine.table["B_crit"].iloc[0]


def test_overhead_is_the_batch_size_that_pays_it():
    trade = fit_tradeoff(noisy(0, 1 / 16, 16))
    reference = 5e4
    found = fit_tradeoff(noisy(0, 1 / 16, 16), method=Overhead(0.2, reference=reference)).table.iloc[0]
    pair = trade.predict(batch=[reference, found["B_crit"]])["examples"]
    assert pair[1] / pair[0] == pytest.approx(1.2, rel=1e-6)
    row = trade.table.iloc[0]
    limit = fit_tradeoff(noisy(0, 1 / 16, 16), method=Overhead(0.2)).table.iloc[0]
    assert limit["B_crit"] == pytest.approx(0.2 * row["B_crit"], rel=1e-9)
    assert limit["B_crit_hi"] == pytest.approx(0.2 * row["B_crit_hi"], rel=1e-9)
    assert found["B_crit_stderr"] == pytest.approx(0.2 * row["B_crit_stderr"], rel=1e-9)


def test_displays_say_what_is_known():
    trade = fit_tradeoff(pd.concat([noisy(0, 1 / 16, 16).assign(params=1e8), noisy(0, 1e-4, 1e-2).assign(params=1e9)]))
    text = repr(trade)
    assert "Trade-off of steps and examples" in text
    assert "no_S_min" in text
    assert any("1B" in line and "> " in line for line in text.splitlines())
    assert "<table" in trade._repr_html_()
    assert trade.table is not trade.table


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pd.DataFrame({"batch": [1.0, 2.0]}), "needs batch"),
        (pd.DataFrame({"steps": [1.0, 2.0]}), "needs batch"),
        (pd.DataFrame({"batch": [1.0, 2.0], "loss": [1.0, 2.0]}), "needs steps, examples or tokens"),
        (exact([1e5, 1e6]).assign(examples=[1.0, np.nan]), "found 1 row.s. that are not, first row 2"),
        (exact([1e5, 1e6]).assign(batch=[1.0, -1.0]), "batch: expected positive numbers"),
        (exact([1e5, 1e6]).assign(params=[1e8, np.nan]), "params: expected a value in every row"),
        (exact([1e5, 1e6]).assign(status="maybe"), "status should be"),
        (exact([]), "no rows"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(table, message):
    with pytest.raises(SweepError, match=message):
        fit_tradeoff(table)


def test_settings_that_mean_nothing_are_refused():
    table = exact(GRID)
    with pytest.raises(FitError, match="small_batches"):
        fit_tradeoff(table, small_batches="drop")
    with pytest.raises(FitError, match="level"):
        fit_tradeoff(table, level=95)
    with pytest.raises(FitError, match="method"):
        fit_tradeoff(table, method=Hyperbola)
    with pytest.raises(FitError, match="tie: expected columns"):
        fit_tradeoff(table, tie="target")
    with pytest.raises(FitError, match="only Hyperbola"):
        fit_tradeoff(table.assign(target=2.0), tie="target", method=StepsLine())
    with pytest.raises(SweepError, match="found list"):
        fit_tradeoff([1, 2])
    with pytest.raises(SweepError, match="do not make a table"):
        fit_tradeoff({"batch": [1.0, 2.0], "steps": [1.0, 2.0, 3.0]})
    with pytest.raises(FitError, match="estimate the lack of fit"):
        fit_tradeoff(table.assign(target=2.0), tie="target", method=Hyperbola(lack_of_fit=0.05))
    with pytest.raises(FitError, match="no study has two batch sizes"):
        fit_tradeoff(table.head(1))
    with pytest.raises(SweepError, match="overhead"):
        Overhead(-0.1)
    with pytest.raises(SweepError, match="lack_of_fit"):
        Hyperbola(lack_of_fit=0.0)
    with pytest.raises(SweepError, match="unit_size"):
        fit_tradeoff(table, unit_size=-1.0)
    with pytest.raises(FitError, match="no fit has params"):
        fit_tradeoff(table.assign(params=1e8)).predict(batch=1e6, params=3e9)
    with pytest.raises(FitError, match="does not tell these fits apart"):
        fit_tradeoff(table).predict(batch=1e6, target=3.0)
    with pytest.raises(FitError, match="batch: expected positive"):
        fit_tradeoff(table).predict(batch=[-1.0])
    with pytest.raises(SweepError, match="not 'lr'"):
        fit_tradeoff(table).observations("lr")


def test_points_are_a_value_of_their_own():
    from scalefit.batch_size.tradeoff_points import tradeoff_points

    points = tradeoff_points(noisy(0, 1 / 16, 16, reps=4).assign(params=1e8), data_unit="samples")
    assert isinstance(points, TradeoffPoints)
    assert list(points.table) == ["params", "batch", "steps", "examples", "log_stderr", "n", "status"]
    assert len(points) == 9
    assert "batch     in samples" in repr(points)
    pd.testing.assert_frame_equal(fit_tradeoff(points).table, fit_tradeoff(fit_tradeoff(points)._origin).table)


class TestTablesAsTheyCome:
    def test_a_study_of_one_batch_size_does_not_mix_the_others(self):
        table = pd.concat([exact(GRID, 1e6, name="a"), exact(GRID, 2e6, name="b"), exact(GRID[:1], 3e6, name="c")])
        trade = fit_tradeoff(table)
        assert trade.by == ("name",)
        np.testing.assert_allclose(trade.table["B_crit"], [1e6, 2e6], rtol=1e-5)
        assert any(note.code == "no_fit" for note in trade.notes)

    def test_a_text_column_with_gaps_is_not_guessed_to_tell_studies_apart(self):
        trade = fit_tradeoff(exact(GRID).assign(creator=["x", "y", None] * 2 + ["x"] * (len(GRID) - 6)))
        assert trade.by == ()
        assert any(note.code == "mixed" and "creator" in note.text for note in trade.notes)

    def test_a_second_name_of_the_same_studies_is_neither_used_nor_doubted(self):
        parts = [exact(GRID, scale, name=name, file=f"{name}.csv") for scale, name in ((1e6, "a"), (2e6, "b"))]
        trade = fit_tradeoff(pd.concat(parts))
        assert trade.by == ("name",)
        assert not any(note.code == "mixed" for note in trade.notes)

    def test_points_that_average_learning_rates_get_a_caution(self):
        several = pd.concat([exact(GRID).assign(lr=rate) for rate in (1e-3, 2e-3)])
        assert any(note.code == "lr_mixed" for note in fit_tradeoff(several).notes)
        tuned = exact(GRID).assign(lr=1e-3 * np.sqrt(GRID))
        assert not any(note.code == "lr_mixed" for note in fit_tradeoff(tuned).notes)

    def test_refusals_speak_plainly(self):
        with pytest.raises(SweepError, match=r"pd\.read_csv\('runs\.csv'\)"):
            fit_tradeoff("runs.csv")
        with pytest.raises(SweepError, match="given as method="):
            fit_tradeoff(exact(GRID), StepsLine())
        with pytest.raises(SweepError, match=r"first row 1: -1\.0;"):
            fit_tradeoff({"batch": [1e5, 2e5], "steps": [-1.0, 1.0]})
        with pytest.raises(FitError, match="there is one, of all points"):
            fit_tradeoff(exact(GRID)).predict(batch=1e5, target=3.0)
