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
