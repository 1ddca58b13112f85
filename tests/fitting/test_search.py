"""Where a search begins: near the scales of the data, whatever their units, and never only there."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import scalefit as sf
from scalefit import FitError, FitStatus, Law
from scalefit.fitting.problem import Problem
from scalefit.fitting.search import candidates, starting_points


def problem(law: Law, table: pd.DataFrame, space: str = "plain") -> Problem:
    derivation = law.derivation
    p, n = len(law.parameters), len(table)
    free = np.full(p, np.inf)
    inputs = derivation.enter(law.read_inputs(table))
    return Problem(law, inputs, table[law.target].to_numpy(), np.ones(n), space, sf.Squared(), -free, free)


def decay(unit: float = 1.0) -> pd.DataFrame:
    x = np.linspace(0, 10, 40)
    return pd.DataFrame({"x": x * unit, "y": 3 + 2 * np.exp(-0.7 * x)})


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_candidates_follow_the_units_of_the_data(unit: float) -> None:
    law = Law("y = a + b*exp(-k*x)", inputs=("x",))
    found, reference = (candidates(law.derivation, "k", [decay(u)["x"].to_numpy()]) for u in (unit, 1.0))
    np.testing.assert_allclose(found * unit, reference, rtol=1e-9)
    assert np.abs(reference - 0.7).min() < 0.3


def test_locations_are_looked_for_inside_and_outside_the_data() -> None:
    law = Law("y = a*exp(-(x - m)**2)", inputs=("x",))
    places = candidates(law.derivation, "m", [np.linspace(5, 6, 50)])
    assert places.min() < 5 < places.max()
    assert ((places > 5) & (places < 6)).sum() >= 5


def test_linear_parameters_are_projected_out() -> None:
    law = Law("y = a + b*exp(-k*x)", inputs=("x",))
    posed = problem(law, decay())
    points = starting_points(posed, {}, 4)
    assert points.shape == (4, 3)
    objective = posed.objective(points)
    assert (np.diff(objective) >= 0).all()
    a, b, k = points[0]
    x = decay()["x"]
    design = np.column_stack([np.ones(40), np.exp(-k * x)])
    np.testing.assert_allclose([a, b], np.linalg.lstsq(design, decay()["y"], rcond=None)[0], rtol=1e-6)


def test_the_users_start_comes_first_as_given_and_projected() -> None:
    law = Law("y = a + b*exp(-k*x)", inputs=("x",))
    given = {"a": 1.0, "b": 1.0, "k": 0.7}
    points = starting_points(problem(law, decay()), given, 4)
    np.testing.assert_allclose(points[0], [1.0, 1.0, 0.7])
    np.testing.assert_allclose(points[1], [3.0, 2.0, 0.7], rtol=1e-9)
    assert len(points) == 6


def test_a_partial_start_adds_a_grid_that_holds_it() -> None:
    law = Law("y = a + b*exp(-k*x)", inputs=("x",))
    points = starting_points(problem(law, decay()), {"k": 0.7}, 4)
    np.testing.assert_allclose(points[0], [3.0, 2.0, 0.7], rtol=1e-9)
    assert len(points) == 4
    assert len(np.unique(points[:, 2].round(9))) == 4


def test_starts_are_the_same_every_time() -> None:
    law = sf.laws.get_law("skaling")
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e10, 6), np.geomspace(1e9, 1e12, 6)))
    table = pd.DataFrame({"params": n, "tokens": d, "L": 1.5 + 2e3 / n**0.4 + 9e3 / d**0.5})
    first, second = (starting_points(problem(law, table, "log"), {}, 8) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert len(first) == 8


def test_a_search_in_many_dimensions_stays_small() -> None:
    law = Law("y = a1*exp(-k1*x) + a2*exp(-k2*x) + a3*exp(-k3*x) + a4*exp(-(x - m)**2 / w**2)", inputs=("x",))
    posed = problem(law, decay())
    from scalefit.fitting.search import _LIMIT, _grid

    assert len(_grid(posed, {}, np.array([0, 2, 4, 6]))) <= _LIMIT


@pytest.mark.parametrize(
    "bad",
    [
        {"a": 0.0, "b": 0.0, "k": 0.0},
        {"a": 1e9, "b": -1e9, "k": 50.0},
        {"a": 3.0, "b": 2.0, "k": -60.0},  # overflows
        {"k": 1e3},
        {"b": -5.0},
    ],
)
def test_a_bad_start_does_no_harm(bad: dict[str, float]) -> None:
    fit = sf.fit("y = a + b*exp(-k*x)", decay(), start=bad)
    assert fit.status is FitStatus.CONVERGED
    assert fit.values == pytest.approx({"a": 3.0, "b": 2.0, "k": 0.7}, rel=1e-6)


def test_no_start_at_all_is_said() -> None:
    table = pd.DataFrame({"x": [-1.0, -2.0, -3.0, -4.0], "y": [1.0, 2.0, 3.0, 4.0]})
    with pytest.raises(FitError, match=r"no starting point gives y finite values.*pass start="):
        sf.fit("y = a * log(x) + b*log(x)**k", table)


def test_a_start_may_choose_between_equal_minima() -> None:
    x = np.linspace(0, 3, 30)
    table = pd.DataFrame({"x": x, "y": np.exp(-x) + 2 * np.exp(-4 * x)})
    law = "y = a*exp(-k*x) + b*exp(-m*x)"
    slow_first = sf.fit(law, table, start={"a": 1.0, "k": 0.9, "b": 2.0, "m": 3.0})
    fast_first = sf.fit(law, table, start={"a": 2.0, "k": 3.0, "b": 1.0, "m": 0.9})
    assert slow_first.values == pytest.approx({"a": 1.0, "k": 1.0, "b": 2.0, "m": 4.0}, rel=1e-6)
    assert fast_first.values == pytest.approx({"a": 2.0, "k": 4.0, "b": 1.0, "m": 1.0}, rel=1e-6)


def granular(seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Return losses by size, data and granularity, and the log values of their truth."""
    rng = np.random.default_rng(seed)
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(5e7, 3e9, 6), np.geomspace(1e9, 2e11, 6)))
    grain = rng.permutation(np.tile([1, 2, 4, 8, 16, 32.0], 6))
    truth = np.log(0.47 + (2.1 / grain**0.58 + 18.1) / n**0.115 + 30.8 / d**0.147)
    noisy = np.exp(truth + 0.002 * rng.normal(size=36))
    return pd.DataFrame({"params": n, "tokens": d, "G": grain, "loss": noisy}), truth


@pytest.mark.parametrize("seed", [3, 4, 15])
def test_a_floor_that_ran_to_zero_is_brought_back_when_the_data_have_one(seed: int) -> None:
    table, truth = granular(seed)
    law = Law("L = E + (g/G**gam + a)/N**alpha + b/D**beta", positive=["E", "g", "gam", "a", "alpha", "b", "beta"])
    fit = sf.fit(law, table)
    # No minimum lies above the truth; the one without a floor did, by half of it.
    assert fit.objective < 0.5 * ((np.log(table["loss"]) - truth) ** 2).sum()
    assert fit.status is FitStatus.CONVERGED
    assert fit.values["E"] > 0.2


@pytest.mark.parametrize("loss", [sf.Huber(1e-3), sf.SoftL1(1e-3)])
@pytest.mark.parametrize("seed", [1, 8, 10])
def test_a_robust_minimum_is_no_higher_than_at_the_squared_one(loss: sf.Huber | sf.SoftL1, seed: int) -> None:
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(6e7, 1e9, 5), np.geomspace(2e9, 1e11, 8), indexing="ij"))
    noise = np.exp(0.002 * np.random.default_rng(seed).standard_t(4, size=40))
    table = pd.DataFrame({"params": n, "tokens": d, "loss": (2e4 / n**0.35 + 1e6 / d**0.48) ** 0.25 * noise})
    squared = sf.fit("skaling", table).predict(params=n, tokens=d)["prediction"].to_numpy()
    at_squared = loss.value(np.log(squared / table["loss"].to_numpy())).sum()
    assert sf.fit("skaling", table, loss=loss).objective < at_squared


def offset(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = np.sort(rng.uniform(2.66, 4.3, 80))
    return pd.DataFrame({"x": x, "y": 1.9 + 0.95 * (x - 1.6) ** 1.02 + 0.006 * rng.normal(size=80)})


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("formula", ["y = Ey + K*(x - Ex)**kappa", "y = Ey + K*log(x - Ex)", "y = Ey + K*(Ex - x)**k"])
def test_a_power_of_a_difference_knows_its_domain(formula: str, seed: int) -> None:
    table = offset(seed)
    fit = sf.fit(formula, table)
    assert np.isfinite(fit.objective)
    assert np.isfinite(fit.predict(x=table["x"])["prediction"]).all()
    edge = fit.values["Ex"] - (table["x"].max() if "Ex - x" in formula else table["x"].min())
    assert edge > 0 if "Ex - x" in formula else edge < 0


def test_a_parameter_at_the_edge_of_its_domain_is_at_a_bound() -> None:
    fit = sf.fit("y = Ey + K*(x - Ex)**kappa", offset(3))
    assert fit.status is FitStatus.AT_BOUND
    assert fit.table.set_index("parameter").loc["Ex", "status"] == "at bound"
