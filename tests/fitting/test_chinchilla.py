"""Epoch's digitised Chinchilla points: the minimum, its flat valley, and honest errors beside the published ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import scalefit as sf
from scalefit import FitStatus

FORMULA = "L = E + A/N**alpha + B/D**beta"
PUBLISHED = {"A": 482.01, "B": 2085.43, "E": 1.8172, "alpha": 0.3478, "beta": 0.3658}
"""Besiroglu et al. 2024, arXiv:2404.10102, the replication these points were digitised for."""

BOOTSTRAP_ERRORS = {"alpha": 0.0154, "beta": 0.0206, "E": 0.0257}
"""Standard errors of the same paper's 4,000 row resamples."""

LOWEST = 0.0010182740178
"""The lowest objective any method is known to reach."""


@pytest.fixture(scope="module")
def points(shared_data: Callable[[str], Path]) -> pd.DataFrame:
    raw = pd.read_csv(shared_data("chinchilla_epoch_svg.csv")).sort_values("loss").iloc[:-5]
    tokens = raw["Training FLOP"] / (6 * raw["Model Size"])
    return pd.DataFrame({"params": raw["Model Size"], "tokens": tokens, "loss": raw["loss"]})


@pytest.fixture(scope="module")
def fitted(points: pd.DataFrame) -> sf.Fit:
    return sf.fit(FORMULA, points, loss=sf.Huber(1e-3))


def objective(values: dict[str, float], points: pd.DataFrame) -> float:
    size = np.abs(np.log(sf.Law(FORMULA)(values, points)) - np.log(points["loss"].to_numpy()))
    return float(np.where(size <= 1e-3, size**2 / 2, 1e-3 * (size - 5e-4)).sum())


def test_the_default_call_finds_the_minimum(points: pd.DataFrame, fitted: sf.Fit) -> None:
    assert fitted.status is FitStatus.CONVERGED
    assert fitted.n == 240
    assert fitted.objective == pytest.approx(objective(dict(fitted.values), points), rel=1e-10)
    assert fitted.objective <= LOWEST * (1 + 1e-9)
    expected = {"A": 477.83, "B": 2143.4, "E": 1.8172, "alpha": 0.3473, "beta": 0.3672}
    for name, value in expected.items():
        assert fitted.values[name] == pytest.approx(value, rel=2e-4)


def test_the_catalogued_law_finds_the_same(points: pd.DataFrame, fitted: sf.Fit) -> None:
    named = sf.fit("chinchilla", points, loss=sf.Huber(1e-3))
    assert named.objective == pytest.approx(fitted.objective, rel=1e-10)


def test_the_published_coefficients_lie_in_the_same_flat_valley(points: pd.DataFrame, fitted: sf.Fit) -> None:
    there = objective(PUBLISHED, points)
    assert fitted.objective < there < 1.005 * fitted.objective
    table = fitted.table.set_index("parameter")
    for name, value in PUBLISHED.items():
        assert abs(value - table.value[name]) < 0.15 * table.stderr[name]


@pytest.mark.parametrize(
    "start",
    [
        {"A": 400.0, "B": 400.0, "E": 1.69, "alpha": 0.34, "beta": 0.28},  # where default tolerances do not move
        {"A": np.exp(25), "B": np.exp(25), "E": np.exp(1), "alpha": 2.0, "beta": 0.5},  # a corner of the published grid
        {"A": 1.0, "B": 1.0, "E": np.exp(-1), "alpha": 0.01, "beta": 2.0},
    ],
)
def test_a_bad_start_is_left(start: dict[str, float], points: pd.DataFrame, fitted: sf.Fit) -> None:
    assert objective(start, points) > 1.1 * LOWEST
    again = sf.fit(FORMULA, points, loss=sf.Huber(1e-3), start=start)
    assert again.objective == pytest.approx(fitted.objective, rel=1e-9)
    assert again.status is FitStatus.CONVERGED


def check_bootstrap(fitted: sf.Fit, n: int, rel: float) -> None:
    draws = sf.bootstrap(fitted, n=n, by="row", seed=0)
    assert len(draws.table) == n
    for name, error in BOOTSTRAP_ERRORS.items():
        assert draws.stderr[name] == pytest.approx(error, rel=rel)


def test_bootstrap_errors_are_the_published_ones(fitted: sf.Fit) -> None:
    # A standard error from n draws has itself a relative error near 1/sqrt(2 n): 2.2 % here, 1.1 % there and the
    # published one as much again, so 5 % is two standard deviations and would fail for some seeds, not this one.
    check_bootstrap(fitted, 1000, 0.05)


@pytest.mark.slow
def test_bootstrap_errors_with_as_many_draws_as_published(fitted: sf.Fit) -> None:
    check_bootstrap(fitted, 4000, 0.04)


@pytest.mark.parametrize(("name", "rel"), [("alpha", 0.1), ("E", 0.25), ("beta", 0.3)])
def test_the_fits_own_errors_agree_with_the_bootstrap(name: str, rel: float, fitted: sf.Fit) -> None:
    # Rows that fix B and beta are few, and which of them a resample holds moves the curvature itself; the sandwich
    # takes the curvature as it is, so its error of beta is a quarter smaller. On the fixed design it is the right one:
    # see the simulated ratios in scalefit/fitting/covariance.py.
    own = fitted.table.set_index("parameter")["stderr"]
    assert own[name] == pytest.approx(BOOTSTRAP_ERRORS[name], rel=rel)


def test_the_choice_of_loss_moves_beta_more_than_its_error(points: pd.DataFrame, fitted: sf.Fit) -> None:
    squared = sf.fit(FORMULA, points)
    plain = sf.fit(FORMULA, points, space="plain")
    assert squared.values["beta"] == pytest.approx(0.406, abs=2e-3)
    assert plain.values["beta"] == pytest.approx(0.428, abs=2e-3)
    assert "Huber(delta=0.001)" in repr(fitted)
    assert "Squared() in log space" in repr(squared)
