"""Batch-size warm-ups: what is optimal, what is saved, rounding and limits, intervals, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import scalefit as sf
from scalefit import FitError, LawError, SweepError
from scalefit.batch_size.batch_schedule import batch_schedule

TRUTH = {"B_star": 2e8, "alpha_B": 0.21}


def curve(points: int = 60) -> pd.DataFrame:
    tokens = np.geomspace(1e8, 2e10, points)
    return pd.DataFrame({"tokens": tokens, "loss": 1.8 + 2100.0 / tokens**0.37})


def fitted(seed: int = 0, noise: float = 0.1, rows: int = 12) -> sf.Fit:
    loss = np.linspace(2.0, 4.2, rows)
    scatter = np.exp(noise * np.random.default_rng(seed).normal(size=rows))
    law = sf.laws.get_law("bcrit_loss")
    return sf.fit("bcrit_loss", {"loss": loss, "B_crit": law(TRUTH, {"loss": loss}) * scatter})


def pieces(plan) -> tuple[np.ndarray, np.ndarray]:
    """Return the critical batch and the least data of every segment, from the curve alone."""
    table = curve()
    middle = np.sqrt(table["loss"] * table["loss"].shift(fill_value=table["loss"][0]))
    np.testing.assert_allclose(plan.table["loss"], middle)
    return 2e8 / middle.to_numpy() ** (1 / 0.21), np.diff(table["tokens"], prepend=0.0)


@pytest.mark.parametrize("shape", ["sqrt", "proportional", "constant"])
@pytest.mark.parametrize("overhead", [0.1, 1.0, 4.0])
def test_the_hyperbola_is_summed_along_the_curve(shape: str, overhead: float) -> None:
    plan = batch_schedule("kaplan2020_bcrit", curve(), overhead=overhead, shape=shape)
    critical, least = pieces(plan)
    batch = plan.table["batch"].to_numpy()
    np.testing.assert_allclose(plan.table["B_crit"], critical, rtol=1e-12)
    np.testing.assert_allclose(plan.table["tokens"], np.cumsum(least * (1 + batch / critical)))
    assert plan.tokens == pytest.approx((1 + overhead) * 2e10, rel=1e-9)
    assert plan.tokens_min == pytest.approx(2e10)
    assert plan.steps == pytest.approx((least * (1 / batch + 1 / critical)).sum())
    constant = plan.constant_batch
    assert (least * (1 + constant / critical)).sum() == pytest.approx(plan.tokens)
    assert plan.steps_constant == pytest.approx(plan.tokens / constant)


def test_the_square_root_saves_what_the_spread_of_the_critical_batch_allows() -> None:
    plan = batch_schedule("kaplan2020_bcrit", curve(), overhead=0.5)
    critical, least = pieces(plan)
    share = least / least.sum()
    rho = (share / np.sqrt(critical)).sum() ** 2 / (share / critical).sum()
    assert plan.saved == pytest.approx((1 - rho) / 1.5, rel=1e-9)
    assert 0.01 < plan.saved < 0.2
    ratio = plan.table["batch"] / np.sqrt(critical)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-12)


def test_in_proportion_to_the_critical_batch_nothing_is_saved() -> None:
    plan = batch_schedule("kaplan2020_bcrit", curve(), overhead=1.0, shape="proportional")
    np.testing.assert_allclose(plan.table["batch"], plan.table["B_crit"])
    assert plan.saved == pytest.approx(0.0, abs=1e-12)
    assert "as many steps as the constant batch" in plan.notes[-1].text
    assert batch_schedule("kaplan2020_bcrit", curve(), shape="constant").saved == pytest.approx(0.0, abs=1e-12)


def test_no_other_schedule_takes_fewer_steps_for_the_same_data() -> None:
    plan = batch_schedule("kaplan2020_bcrit", curve(), overhead=0.7)
    critical, least = pieces(plan)
    rng = np.random.default_rng(0)
    others = plan.table["batch"].to_numpy() * np.exp(0.3 * rng.normal(size=(200, len(least))).cumsum(axis=1) / 5)
    extra = (least * others / critical).sum(axis=1, keepdims=True)
    others *= 0.7 * least.sum() / extra
    steps = (least * (1 / others + 1 / critical)).sum(axis=1)
    assert (steps > plan.steps).all()


def test_powers_of_two_multiples_and_limits() -> None:
    plan = batch_schedule("kaplan2020_bcrit", curve(), multiple=2048 * 24, power_of_two=True, cap=9e5, smallest=6e4)
    units = plan.table["batch"] / (2048 * 24)
    np.testing.assert_allclose(np.log2(units), np.rint(np.log2(units)), atol=1e-12)
    assert plan.table["batch"].between(6e4, 9e5).all()
    assert plan.table["batch"].is_monotonic_increasing
    assert "limits" in [note.code for note in plan.notes]
    whole = batch_schedule("kaplan2020_bcrit", curve(), multiple=1e5, overhead=0.01).table["batch"] / 1e5
    np.testing.assert_allclose(whole, np.rint(whole))
    assert whole.min() == 1.0


def test_rounding_costs_next_to_nothing_and_the_costs_are_those_of_the_rounded_schedule() -> None:
    smooth = batch_schedule("kaplan2020_bcrit", curve(), overhead=1.0)
    rounded = batch_schedule("kaplan2020_bcrit", curve(), overhead=1.0, power_of_two=True)
    assert set(np.log2(rounded.table["batch"]) % 1) == {0.0}
    assert rounded.tokens != smooth.tokens
    assert rounded.saved == pytest.approx(smooth.saved, abs=0.03)
    stages = rounded.stages
    assert len(stages) == rounded.table["batch"].nunique()
    assert stages["steps"].sum() == pytest.approx(rounded.steps)
    assert stages["end"].iloc[-1] == pytest.approx(rounded.tokens)
    np.testing.assert_allclose((stages["end"] - stages["start"]) / stages["batch"], stages["steps"])
    middle = (stages["start"] + stages["end"]) / 2
    np.testing.assert_array_equal(rounded.batch_at(middle.to_numpy()), stages["batch"])
    assert rounded.batch_at(0.0) == stages["batch"].iloc[0]
    assert rounded.batch_at(1e15) == stages["batch"].iloc[-1]


def test_the_batch_does_not_fall_where_the_loss_rises() -> None:
    bumpy = curve()
    bumpy.loc[40:45, "loss"] += 0.3
    plan = batch_schedule("kaplan2020_bcrit", bumpy)
    assert (np.diff(plan.table["batch"]) >= 0).all()
    assert "falls" in [note.code for note in plan.notes]


def test_a_curve_at_a_large_batch_needed_less_data_than_it_spent() -> None:
    plan = batch_schedule(1e6, curve(), curve_batch=3e6)
    assert plan.tokens_min == pytest.approx(2e10 / 4)
    assert batch_schedule(1e6, curve()).tokens_min == pytest.approx(2e10)


def test_intervals_of_the_batch_hold_the_true_schedule() -> None:
    """95 % of 80 fits, give or take two standard errors of that share, at the start, the middle and the end."""
    truth = batch_schedule(sf.laws.get_published("kaplan2020_bcrit"), curve()).table["batch"].to_numpy()[[0, 30, 59]]
    inside, savings = [], []
    best = batch_schedule("kaplan2020_bcrit", curve()).saved
    for seed in range(80):
        plan = batch_schedule(fitted(seed), curve(), seed=seed)
        table = plan.table.iloc[[0, 30, 59]]
        inside.append(((table["batch_lo"] < truth) & (truth < table["batch_hi"])).to_numpy())
        savings.append(plan.saved_lo < best < plan.saved_hi)
    assert (np.mean(inside, axis=0) > 0.88).all()
    assert np.mean(savings) > 0.85


def test_a_law_of_the_loss_stands_in_for_a_curve() -> None:
    law = sf.fit("loss_tokens", curve())
    plan = batch_schedule(fitted(), law, tokens=2e10)
    assert plan.tokens_min == pytest.approx(2e10)
    assert plan.table["loss"].iloc[-1] == pytest.approx(1.8 + 2100.0 / 2e10**0.37, rel=1e-2)
    assert "loss_law" in [note.code for note in plan.notes]
    big = batch_schedule("zhang2024_cbs_chin", curve(), params=7e9)
    assert big.saved == pytest.approx(0.0, abs=1e-12)  # a critical batch that stays where it is
    assert any("found for params from 85M to 1.3B" in note.text for note in big.notes)


def test_cautions_about_the_critical_batch_come_along() -> None:
    far = batch_schedule(fitted(), curve().assign(loss=lambda t: t["loss"] - 1.0))
    assert any(note.code == "beyond" and "loss by" in note.text for note in far.notes)
    assert any(note.code == "no_errors" for note in batch_schedule(5e5, curve()).notes)
    assert np.isnan(batch_schedule(5e5, curve()).saved_lo)


def test_the_display_says_what_is_saved() -> None:
    text = repr(batch_schedule(fitted(), curve(), power_of_two=True))
    assert "Batch-size schedule (sqrt)" in text
    assert "% of those steps" in text
    assert "<table" in batch_schedule(fitted(), curve())._repr_html_()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"overhead": 0.0}, FitError, "overhead: expected a positive number"),
        ({"shape": "linear"}, FitError, "shape: expected 'sqrt'"),
        ({"cap": 1e3, "smallest": 1e4}, FitError, "cap = 1000 lies below"),
        ({"power_of_two": True, "smallest": 7e4, "cap": 1e5}, FitError, "no batch allowed lies between 70000 and"),
        (
            {"multiple": 1000.0, "smallest": 1100.0, "cap": 1900.0},
            FitError,
            "no batch allowed lies between 1100 and 1900",
        ),
        ({"multiple": -1.0}, FitError, "multiple: expected a positive number"),
        ({"curve_batch": 0.0}, FitError, "curve_batch: expected a positive number"),
        ({"tokens": 1e9}, FitError, "a curve has its own end"),
    ],
)
def test_settings_out_of_range_are_refused(settings, error, message) -> None:
    with pytest.raises(error, match=message):
        batch_schedule("kaplan2020_bcrit", curve(), **settings)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (pd.DataFrame({"tokens": [1e9, 2e9]}), "columns tokens and loss"),
        (pd.DataFrame({"tokens": [1e9], "loss": [3.0]}), "at least two rows"),
        (pd.DataFrame({"tokens": [1e9, 1e9], "loss": [3.0, 2.9]}), "do not at row 2"),
        (pd.DataFrame({"tokens": [1e9, 2e9], "loss": [3.0, np.nan]}), "at least two rows of positive"),
        (pd.DataFrame({"run": [1, 2], "tokens": [1e9, 2e9], "loss": [3.0, 2.9]}), "curve of one run, found 2"),
        (3.0, "columns tokens and loss"),
    ],
)
def test_what_is_no_curve_is_refused(given, message) -> None:
    with pytest.raises(SweepError, match=message):
        batch_schedule("kaplan2020_bcrit", given)


def test_laws_that_do_not_fit_are_refused() -> None:
    with pytest.raises(LawError, match="expected a law for the loss"):
        batch_schedule("kaplan2020_bcrit", fitted(), tokens=1e10)
    with pytest.raises(FitError, match="tokens: expected where training ends"):
        batch_schedule("kaplan2020_bcrit", sf.fit("loss_tokens", curve()))
    with pytest.raises(LawError, match="needs params"):
        batch_schedule("zhang2024_cbs_chin", curve())
    sizes = pd.DataFrame({"params": [1e7, 1e8, 1e9, 1e10], "loss": [4.0, 3.4, 3.0, 2.8]})
    with pytest.raises(LawError, match="a law that reads the tokens"):
        batch_schedule("kaplan2020_bcrit", sf.fit("loss_params", sizes), tokens=1e10, params=1e8)


def test_a_law_with_its_values_written_into_it_is_a_curve() -> None:
    plan = batch_schedule("kaplan2020_bcrit", "L = 1.8 + 2100 * D**-0.37", tokens=2e10)
    tokens = np.geomspace(2e7, 2e10, 200)
    sampled = batch_schedule("kaplan2020_bcrit", pd.DataFrame({"tokens": tokens, "loss": 1.8 + 2100 * tokens**-0.37}))
    np.testing.assert_allclose(plan.table["batch"], sampled.table["batch"])
    assert plan.saved == pytest.approx(sampled.saved)
    sized = batch_schedule("kaplan2020_bcrit", sf.Law("L = 400 / N**0.3 + 2100 * D**-0.37"), tokens=2e10, params=1e9)
    assert sized.tokens_min == pytest.approx(2e10)
    with pytest.raises(LawError, match="leaves a open: write their values"):
        batch_schedule("kaplan2020_bcrit", "L = 1.8 + a * D**-0.37", tokens=2e10)
