"""The recipe for a rate at every batch: heights by hand, errors and verdicts by simulation, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

import scalefit as sf
from scalefit import FitError, LawError
from scalefit.batch_size.rate_curve import SHAPES, fit_rate_curve

NOISE = 3e5
BATCH = np.geomspace(1e4, 1e7, 10)


def pairs(law: str = "lr_surge", scatter: float = 0.0, seed: int = 0, batch: np.ndarray = BATCH) -> pd.DataFrame:
    rate = sf.laws.get_law(law)({"eta_max": 2e-3, "B_noise": NOISE}, {"batch": batch})
    return pd.DataFrame(
        {"batch": batch, "lr": rate * np.exp(scatter * np.random.default_rng(seed).normal(size=len(batch)))}
    )


@dataclass(frozen=True)
class Trade:
    """A stand-in for `Tradeoff`, with the two fields that `fit_rate_curve` reads."""

    table: pd.DataFrame
    data_unit: str = "tokens"


def trade(**columns: object) -> Trade:
    table = {"target": [3.2, 3.0], "B_crit": [1e5, NOISE], "B_crit_stderr": [1e4, 3e4], "identified": [True, True]}
    return Trade(pd.DataFrame(table | columns))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.rule)
def test_shapes_are_the_laws_and_their_slopes(shape) -> None:
    u = np.linspace(-12, 12, 49)
    values = {"eta_max": 1.0, "B_noise": 1.0}
    np.testing.assert_allclose(
        np.exp(shape.log(u)), sf.laws.get_law(shape.law)(values, {"batch": np.exp(u)}), rtol=1e-12
    )
    step = 1e-5
    moved = (shape.log(u - step) - shape.log(u + step)) / (2 * step)  # u falls as ln B_noise rises
    np.testing.assert_allclose(shape.slope(u), moved, atol=1e-9)
    assert np.isfinite(shape.log(np.array([-800.0, 800.0]))).all()


@pytest.mark.parametrize(("law", "rule"), [(shape.law, shape.rule) for shape in SHAPES])
def test_exact_pairs_give_the_height_back(law: str, rule: str) -> None:
    curve = fit_rate_curve(NOISE, pairs(law))
    row = curve.table.set_index("rule").loc[rule]
    assert row["eta_max"] == pytest.approx(2e-3, rel=1e-9)
    assert row["eta_mean"] == pytest.approx(2e-3, rel=1e-9)
    assert row["scatter"] == pytest.approx(0.0, abs=1e-9)
    new = np.array([1e3, NOISE, 1e9])
    predicted = curve.predict(new, rule=rule)
    expected = sf.laws.get_law(law)({"eta_max": 2e-3, "B_noise": NOISE}, {"batch": new})
    np.testing.assert_allclose(predicted["lr"], expected, rtol=1e-9)
    assert curve.predict(pd.Series(new, list("abc")), rule=rule).index.tolist() == list("abc")
    np.testing.assert_allclose(predicted["reach"], [10.0, 1.0, 100.0])


def test_the_means_of_the_paper_by_hand() -> None:
    table = pairs(scatter=0.3)
    row = fit_rate_curve(NOISE, table).table.set_index("rule")
    x = table["batch"] / NOISE
    adam = table["lr"] * 0.5 * (np.sqrt(1 / x) + np.sqrt(x))
    assert row.loc["adam", "eta_mean"] == pytest.approx(adam.mean())
    assert row.loc["adam", "eta_max"] == pytest.approx(np.exp(np.log(adam).mean()))
    assert row.loc["adam", "stderr"] == pytest.approx(row.loc["adam", "eta_max"] * np.log(adam).std() / np.sqrt(10))
    assert row.loc["sgd", "eta_mean"] == pytest.approx((table["lr"] * (1 + 1 / x)).mean())
    assert row.loc["sgd_root", "eta_mean"] == pytest.approx((table["lr"] * np.sqrt(1 + 1 / x)).mean())
    assert row.loc["adam", "worst"] == pytest.approx(np.exp(np.abs(np.log(adam) - np.log(adam).mean()).max()))


def test_residuals_are_what_the_table_says() -> None:
    curve = fit_rate_curve(NOISE, pairs(scatter=0.2))
    residuals = curve.residuals
    for rule, scatter in zip(curve.table["rule"], curve.table["scatter"], strict=True):
        assert residuals[rule].mean() == pytest.approx(0.0, abs=1e-12)
        assert residuals[rule].std(ddof=1) == pytest.approx(scatter)
    np.testing.assert_allclose(np.exp(residuals["adam"]) * curve.predict(BATCH)["lr"], residuals["lr"])


def repeats(law: str, rule: str, spread: float, count: int) -> tuple[float, float, float]:
    """Return shares: truth rejected, new rates inside, height inside."""
    new = np.array([1e3, NOISE, 1e8])
    true = sf.laws.get_law(law)({"eta_max": 2e-3, "B_noise": NOISE}, {"batch": new})
    rejected, inside, heights = [], [], []
    for seed in range(count):
        rng = np.random.default_rng([seed, 7])
        guess = NOISE * np.exp(spread * rng.normal())
        curve = fit_rate_curve(guess, pairs(law, 0.1, seed), noise_stderr=spread * guess if spread else None)
        row = curve.table.set_index("rule").loc[rule]
        rejected.append(row["rejected"])
        heights.append(row["lo"] < 2e-3 < row["hi"])
        predicted, seen = curve.predict(new, rule=rule), true * np.exp(0.1 * rng.normal(size=3))
        inside.append(((predicted["lo"] < seen) & (seen < predicted["hi"])).to_numpy())
    return float(np.mean(rejected)), float(np.mean(inside)), float(np.mean(heights))


@pytest.mark.parametrize(
    ("law", "rule", "spread"), [("lr_surge", "adam", 0.0), ("lr_surge", "adam", 0.2), ("lr_sgd_exact", "sgd", 0.2)]
)
def test_the_truth_is_seldom_rejected_and_intervals_cover(law: str, rule: str, spread: float) -> None:
    rejected, inside, heights = repeats(law, rule, spread, 100)
    assert rejected < 0.12
    assert inside > 0.91
    assert heights > 0.9


@pytest.mark.slow
def test_rejection_and_coverage_in_fifteen_hundred_simulations() -> None:
    rejected, inside, heights = repeats("lr_surge", "adam", 0.0, 1500)
    assert rejected == pytest.approx(0.05, abs=0.017)
    assert inside == pytest.approx(0.95, abs=0.015)
    assert heights == pytest.approx(0.95, abs=0.017)
    rejected, inside, heights = repeats("lr_surge", "adam", 0.3, 1500)
    assert rejected < 0.05  # the largest p over credible noise scales errs on the safe side
    assert inside > 0.95
    assert heights > 0.95


def test_the_wrong_curves_are_rejected_and_the_right_one_stands() -> None:
    curve = fit_rate_curve(NOISE, pairs("lr_surge", 0.1), noise_stderr=3e4)
    assert curve.table.set_index("rule")["rejected"].to_dict() == {"adam": False, "sgd": True, "sgd_root": True}
    assert curve.verdict == "the pairs reject sgd and sgd_root, not adam"
    flat = pd.DataFrame({"batch": BATCH, "lr": 1e-3 * np.array([1.0, 40, 1, 40, 1, 40, 1, 40, 1, 40])})
    assert fit_rate_curve(NOISE, flat).verdict == "the pairs reject none of the curves"
    steep = pd.DataFrame({"batch": BATCH, "lr": 1e-12 * BATCH**2 * np.exp(0.05 * np.sin(np.arange(10.0)))})
    assert "reject all curves" in fit_rate_curve(NOISE, steep).verdict


def test_a_noise_scale_that_is_hardly_known_rejects_less_and_widens() -> None:
    known = fit_rate_curve(2 * NOISE, pairs("lr_surge", 0.05))
    loose = fit_rate_curve(2 * NOISE, pairs("lr_surge", 0.05), noise_stderr=1.2 * NOISE)
    assert known.table["rejected"][0]
    assert not loose.table["rejected"][0]
    far_known, far_loose = known.predict(1e3).iloc[0], loose.predict(1e3).iloc[0]
    assert far_loose["hi"] / far_loose["lo"] > 1.5 * far_known["hi"] / far_known["lo"]


def test_the_noise_scale_comes_from_a_trade_off_or_a_law() -> None:
    by_trade = fit_rate_curve(trade(), pairs(), target=3.0)
    assert by_trade.noise.value == NOISE
    assert by_trade.noise.log_stderr == pytest.approx(0.1)
    loss = np.linspace(2.0, 4.0, 9)
    bcrit = 2e8 / loss ** (1 / 0.21) * np.exp(0.1 * np.random.default_rng(0).normal(size=9))
    fit = sf.fit("bcrit_loss", {"loss": loss, "B_crit": bcrit})
    by_fit = fit_rate_curve(fit, pairs(), loss=3.0)
    assert by_fit.noise.value == pytest.approx(fit.predict(loss=3.0)["prediction"][0])
    row = fit.predict(loss=3.0).iloc[0]
    half = np.log(row["hi"] / row["prediction"]) / 2.3646
    assert by_fit.noise.log_stderr == pytest.approx(np.sqrt(half**2 - fit.scale**2), rel=1e-3)
    by_law = fit_rate_curve("kaplan2020_bcrit", pairs(), loss=3.0)
    assert by_law.noise.value == pytest.approx(2e8 / 3.0 ** (1 / 0.21))


def test_pairs_may_be_the_optima_of_a_sweep() -> None:
    lr = np.geomspace(2.5e-4, 1.6e-2, 13)
    grid = pd.DataFrame([(x, b) for b in BATCH for x in lr], columns=["lr", "batch"])
    best = sf.laws.get_law("lr_surge")({"eta_max": 2e-3, "B_noise": NOISE}, grid)
    grid["loss"] = 3.0 + 0.05 * np.log(grid["lr"] / best) ** 2
    sweep = sf.Sweep.from_frame(grid.assign(params=1e8, tokens=2e9))
    optima = sf.find_optima(sweep, over="lr", by=("params", "tokens", "batch"))
    curve = fit_rate_curve(NOISE, optima)
    assert curve.table["eta_max"][0] == pytest.approx(2e-3, rel=0.02)


def test_cautions_are_noted() -> None:
    codes = [note.code for note in fit_rate_curve(1e9, pairs(batch=BATCH[:4])).notes]
    assert {"known", "one_side", "few"} <= set(codes)
    three = fit_rate_curve(NOISE, pairs(batch=BATCH[:3]))
    assert three.table["p"].isna().all()
    assert three.verdict == "the pairs are too few to test the curves"
    assert "Learning rate over the batch" in repr(three)
    assert "<table" in three._repr_html_()


@pytest.mark.parametrize(
    ("noise", "settings", "error", "message"),
    [
        (-1.0, {}, LawError, "positive critical batch size"),
        ([3e5], {}, LawError, "expected a fit of B_crit .* a trade-off, a name or a number, found list"),
        ("3e5", {}, LawError, "no published law '3e5'"),
        (trade(), {}, FitError, r"one trade-off, found 2; choose by target= \(3\.2, 3\)"),
        (trade(), {"target": 2.0}, FitError, "found 0"),
        (trade(identified=[True, False]), {"target": 3.0}, FitError, "does not identify B_crit"),
        (trade(B_crit_stderr=[1.0, np.nan]), {"target": 3.0}, FitError, "error is not known"),
        (Trade(pd.DataFrame({"B": [1.0]})), {}, FitError, "the table lacks B_crit, B_crit_stderr"),
        (Trade(trade().table, "images"), {"target": 3.0}, LawError, "counts images, these data tokens"),
        (sf.laws.get_published("kaplan2020_bcrit"), {}, FitError, "needs the loss"),
        (sf.laws.get_published("zhang2024_cbs_chin"), {"loss": 3.0}, LawError, "a law of B_crit in the loss"),
        (NOISE, {"level": 1.0}, FitError, "level: expected"),
    ],
)
def test_what_is_no_noise_scale_is_refused(noise, settings, error, message) -> None:
    with pytest.raises(error, match=message):
        fit_rate_curve(noise, pairs(), **settings)


def test_too_few_pairs_and_unknown_rules_are_refused() -> None:
    with pytest.raises(FitError, match="at least 3 pairs"):
        fit_rate_curve(NOISE, pairs(batch=BATCH[:2]))
    curve = fit_rate_curve(NOISE, pairs())
    with pytest.raises(FitError, match="rule: expected one of adam, sgd, sgd_root"):
        curve.predict(1e5, rule="lion")
    with pytest.raises(FitError, match="batch: expected positive"):
        curve.predict([1e5, -1.0])
