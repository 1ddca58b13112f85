"""Predictions: the interval against simulation, how far they reach, and what they may be asked."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import scalefit as sf
from scalefit import ExtrapolationWarning, FitError, LawError

TRUTH = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}


def grid() -> pd.DataFrame:
    axes = np.meshgrid(np.geomspace(1e7, 1e10, 6), np.geomspace(1e9, 1e12, 7))
    return pd.DataFrame({"params": axes[0].ravel(), "tokens": axes[1].ravel()})


def made(noise: float = 0.01, seed: int = 0) -> pd.DataFrame:
    law, table = sf.laws.get_law("chinchilla"), grid()
    return table.assign(loss=law(TRUTH, table) * np.exp(noise * np.random.default_rng(seed).normal(size=len(table))))


@pytest.fixture(scope="module")
def fitted() -> sf.Fit:
    return sf.fit("chinchilla", made())


def test_the_interval_is_the_stated_formula(fitted: sf.Fit) -> None:
    from scipy.stats import t

    row = fitted.predict(params=1e9, tokens=1e11).iloc[0]
    e, a, alpha, b, beta = (fitted.values[name] for name in ("E", "A", "alpha", "B", "beta"))
    n_term, d_term = a / 1e9**alpha, b / 1e11**beta
    value = e + n_term + d_term
    slope = np.array([e, n_term, -n_term * alpha * np.log(1e9), d_term, -d_term * beta * np.log(1e11)]) / value
    half = t.ppf(0.975, fitted.dof) * np.sqrt(slope @ fitted.covariance @ slope + fitted.scale**2)
    assert row["prediction"] == pytest.approx(value, rel=1e-12)
    assert row["hi"] == pytest.approx(value * np.exp(half), rel=1e-9)
    assert row["lo"] == pytest.approx(value * np.exp(-half), rel=1e-9)


def test_the_interval_has_the_width_that_repeated_fits_show(fitted: sf.Fit) -> None:
    point = {"params": 1e10, "tokens": 1e12}
    repeats = [sf.fit("chinchilla", made(seed=seed)) for seed in range(1, 61)]
    predicted = np.log([fit.predict(**point)["prediction"][0] for fit in repeats])
    row = repeats[0].predict(**point, level=0.95).iloc[0]
    half = np.log(row["hi"] / row["lo"]) / 2 / 2.03
    expected = np.sqrt(predicted.std(ddof=1) ** 2 + 0.01**2)
    assert half == pytest.approx(expected, rel=0.3)  # the scatter of one fit is itself uncertain by 11 %


def test_plain_space_has_symmetric_intervals() -> None:
    x = np.linspace(0, 5, 20)
    noise = np.random.default_rng(0).normal(size=20)
    row = sf.fit("y = a + b*x", pd.DataFrame({"x": x, "y": 2 - x + 0.1 * noise})).predict(x=2.0).iloc[0]
    assert row["hi"] - row["prediction"] == pytest.approx(row["prediction"] - row["lo"])
    assert row["lo"] < 0.0 < row["hi"]


def test_inputs_broadcast_and_go_by_column_symbol_or_table(fitted: sf.Fit) -> None:
    points = fitted.predict(params=[1e8, 1e9, 1e10], D=1e11)
    assert list(points) == ["params", "tokens", "prediction", "lo", "hi", "reach"]
    assert points["tokens"].tolist() == [1e11] * 3
    table = pd.DataFrame({"N": [1e8, 1e9, 1e10], "tokens": [10**11] * 3, "optimizer": "adamw"}, index=[7, 8, 9])
    points = points.set_axis(table.index)
    pd.testing.assert_frame_equal(fitted.predict(table), points)
    pd.testing.assert_frame_equal(fitted.predict(table[["N"]], tokens=1e11), points)
    pd.testing.assert_frame_equal(fitted.predict(table.convert_dtypes()), points)
    again = fitted.predict(fitted.rows)
    np.testing.assert_allclose(np.log(fitted.rows["loss"] / again["prediction"]), fitted.residuals, atol=1e-12)
    assert (again["reach"] == 1).all()


def test_predictions_bear_the_index_of_what_was_asked(fitted: sf.Fit) -> None:
    asked = pd.DataFrame({"params": [1e10, 1e8, 1e9], "tokens": 1e11}, index=["big", "small", "middle"])
    by_position = fitted.predict(params=asked["params"].to_numpy(), tokens=1e11)
    assert list(by_position.index) == [0, 1, 2]
    for found in (
        fitted.predict(asked),
        fitted.predict(params=asked["params"], tokens=asked["tokens"]),
        fitted.predict(params=asked["params"], tokens=1e11),
        fitted.predict(asked[["params"]], tokens=asked["tokens"].to_numpy()),
    ):
        pd.testing.assert_frame_equal(found, by_position.set_axis(asked.index))
    several = asked.set_axis(pd.MultiIndex.from_product([["a"], [1, 1, 2]], names=["lab", "seed"]))
    pd.testing.assert_index_equal(fitted.predict(several).index, several.index)
    assert list(fitted.predict(asked[:1], level=0.5).index) == ["big"]
    assert list(fitted.predict(asked[["params"]][:1], tokens=[1e10, 1e11]).index) == [0, 1]


def test_series_of_different_rows_are_not_paired(fitted: sf.Fit) -> None:
    params, tokens = pd.Series([1e8, 1e9], ["a", "b"]), pd.Series([1e10, 1e11], ["b", "a"])
    with pytest.raises(LawError, match="params and tokens are series with different indexes"):
        fitted.predict(params=params, tokens=tokens)
    with pytest.raises(LawError, match="params and tokens are series"):
        fitted.predict(params.to_frame("params"), tokens=tokens)


def test_inputs_may_be_written_as_on_the_command_line(fitted: sf.Fit) -> None:
    points = fitted.predict(params=[1e8, 7e9], tokens=1.4e11)
    pd.testing.assert_frame_equal(fitted.predict(params=["100M", "7B"], tokens="0.14T"), points)
    mixed = pd.DataFrame({"params": ["1e8", 7e9], "tokens": "0.14T"})
    pd.testing.assert_frame_equal(fitted.predict(mixed), points)
    with pytest.raises(LawError, match=r"params: expected numbers .* such as 7e9 or '7B', found '7 Bn'"):
        fitted.predict(params="7 Bn", tokens=1e11)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"params": 1e9}, "missing tokens"),
        ({"params": 1e9, "tokens": 1e11, "lr": 1e-3}, "lr is not an input"),
        ({"params": 1e9, "tokens": np.nan}, "tokens: expected finite numbers"),
        ({"params": 1e9, "tokens": np.inf}, "tokens: expected finite numbers"),
        ({"params": -1e9, "tokens": 1e11}, "params: expected a positive number, found -1"),
        ({"params": 0, "tokens": 1e11}, "params: expected a positive number"),
        ({"params": "many", "tokens": 1e11}, "params: expected numbers"),
        ({"params": [1e9, 1e10], "tokens": [1e11, 1e11, 1e11]}, "do not fit together"),
        ({"params": [[1e9, 1e10]], "tokens": 1e11}, "do not fit together"),
    ],
)
def test_inputs_that_mean_nothing(inputs: dict, words: str, fitted: sf.Fit) -> None:
    with pytest.raises(LawError, match=words):
        fitted.predict(**inputs)


@pytest.mark.parametrize("level", [0.0, 1.0, 95, -0.5, np.nan])
def test_a_level_is_a_share(level: float, fitted: sf.Fit) -> None:
    with pytest.raises(FitError, match="level: expected a number between 0 and 1"):
        fitted.predict(params=1e9, tokens=1e11, level=level)


def test_inside_the_range_nothing_is_said(fitted: sf.Fit) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        row = fitted.predict(params=[1e7, 1e10], tokens=[1e12, 1e9])
    assert (row["reach"] == 1).all()


def test_reach_is_in_multiples_of_the_range(fitted: sf.Fit) -> None:
    with pytest.warns(ExtrapolationWarning, match=r"beyond the range.*params by 7x, tokens by 1\.4x") as caught:
        row = fitted.predict(params=7e10, tokens=1.4e12).iloc[0]
    assert caught[0].filename == __file__
    assert row["reach"] == pytest.approx(7)
    with pytest.warns(ExtrapolationWarning, match="params by 100x"):
        assert fitted.predict(params=1e5, tokens=1e11)["reach"][0] == pytest.approx(100)


def test_intervals_widen_with_reach(fitted: sf.Fit) -> None:
    sizes = np.geomspace(1e10, 1e14, 9)
    with pytest.warns(ExtrapolationWarning):
        points = fitted.predict(params=sizes, tokens=20 * sizes)
    width = np.log(points["hi"] / points["lo"])
    assert (np.diff(width) > 0).all()
    assert (np.diff(points["reach"]) > 0).all()


def test_what_is_not_identified_makes_the_interval_infinite() -> None:
    table = made().assign(params=1e9)
    fit = sf.fit("chinchilla", table)
    point = fit.predict(params=1e9, tokens=1e11).iloc[0]
    assert (point["lo"], point["hi"]) == (0.0, np.inf)
    assert np.isfinite(point["prediction"])


def test_unidentified_parameters_that_do_not_enter_do_not_matter() -> None:
    x = np.tile([0.0, 1.0, 2.0, 3.0], 5)
    table = pd.DataFrame({"x": x, "z": 0.0, "y": 1 + x + 0.1 * np.random.default_rng(0).normal(size=20)})
    fit = sf.fit("y = a + b*x + d*z", table)
    assert fit.states == ("free", "free", "unidentified")
    assert np.isfinite(fit.predict(x=1.0, z=0.0).loc[0, ["lo", "hi"]].to_numpy(dtype=float)).all()
    with pytest.warns(ExtrapolationWarning):
        assert fit.predict(x=1.0, z=1.0)["hi"][0] == np.inf


def test_a_law_without_inputs_predicts_its_constant() -> None:
    fit = sf.fit("y = a", pd.DataFrame({"y": [1.0, 2.0, 3.0]}))
    assert fit.predict()["prediction"].tolist() == pytest.approx([2.0])


@pytest.mark.parametrize("loss", [sf.Squared(), sf.Huber(0.1), sf.SoftL1(0.1)])
@pytest.mark.parametrize("space", ["log", "plain"])
def test_a_law_without_inputs_is_fitted_with_every_loss(loss: sf.Squared, space: str) -> None:
    fit = sf.fit("y = a", pd.DataFrame({"y": [1.0, 2.0, 2.0, 2.0, 3.0]}), loss=loss, space=space)
    expected = np.exp(np.log([1, 2, 2, 2, 3]).mean()) if space == "log" and not loss.robust else 2.0
    assert fit.values["a"] == pytest.approx(expected, rel=0.06 if loss.robust else 1e-9)
    assert len(sf.bootstrap(fit, n=20, by="row").table) == 20


def test_intervals_do_not_hang_on_the_unit_of_the_weights() -> None:
    rng = np.random.default_rng(3)
    error = np.geomspace(0.01, 0.1, 9)[rng.permutation(9)]
    params = np.geomspace(1e7, 1e9, 9)
    table = pd.DataFrame({"params": params, "lr": 0.5 * params**-0.4 * np.exp(error * rng.normal(size=9))})
    absolute, relative = (sf.fit("eta = c * N**a", table, weights=k / error**2) for k in (1.0, 1e-4))
    first, second = (one.predict(params=1e8).iloc[0] for one in (absolute, relative))
    assert first["lo"] == pytest.approx(second["lo"])
    assert first["hi"] == pytest.approx(second["hi"])
    assert absolute.scatter == pytest.approx(relative.scatter)
    assert 0.3 < absolute.scatter / np.median(error) < 3
    assert sf.fit("eta = c * N**a", table).scatter == sf.fit("eta = c * N**a", table).scale


def test_weighted_intervals_hold_an_observation_of_median_weight() -> None:
    rng = np.random.default_rng(0)
    params, inside = np.geomspace(1e7, 1e9, 9), []
    for _ in range(200):
        error = np.geomspace(0.01, 0.1, 9)[rng.permutation(9)]
        table = {"params": params, "lr": 0.5 * params**-0.4 * np.exp(error * rng.normal(size=9))}
        row = sf.fit("eta = c * N**a", table, weights=1 / error**2).predict(params=1e8).iloc[0]
        new = 0.5 * 1e8**-0.4 * np.exp(np.median(error) * rng.normal())
        inside.append(row["lo"] <= new <= row["hi"])
    assert 0.9 < np.mean(inside) < 0.99


def test_an_input_for_a_law_without_inputs_is_refused_with_the_remedy() -> None:
    constant = sf.fit("eta = c", pd.DataFrame({"lr": [1e-3, 2e-3, 1.5e-3]}))
    with pytest.raises(LawError, match=r"'eta = c' has no inputs, found params; .* ask for it with predict\(\)"):
        constant.predict(params=1e9)
    assert len(constant.predict()) == 1
