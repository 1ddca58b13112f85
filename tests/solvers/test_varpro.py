"""Variable projection: the best linear parameters in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import nnls

from scalefit.solvers.linear import project

X = np.linspace(0.1, 5, 30)


def bare(phi):
    """Values and slopes of a exp(-b x) + c in natural coordinates."""
    decay = np.exp(-phi[:, 1:2] * X)
    slopes = np.stack([decay, -phi[:, :1] * X * decay, np.ones_like(decay)], axis=1)
    return phi[:, :1] * decay + phi[:, 2:], slopes


def logged(phi):
    """The same with a and c as logs."""
    natural = phi.copy()
    natural[:, [0, 2]] = np.exp(phi[:, [0, 2]])
    value, slopes = bare(natural)
    return value, slopes * np.stack([natural[:, 0], np.ones(len(phi)), natural[:, 2]], axis=1)[:, :, None]


LINEAR = np.array([0, 2])
RATES = np.array([[0.0, rate, 0.0] for rate in (0.3, 0.7, 1.5)])


@pytest.mark.parametrize("weighted", [False, True])
def test_projection_is_the_least_squares_solution(weighted):
    rng = np.random.default_rng(0)
    target = 3 * np.exp(-0.7 * X) - 0.4 + 0.05 * rng.standard_normal(30)
    weights = rng.uniform(0.1, 3, 30) if weighted else np.ones(30)
    found = project(bare, RATES, LINEAR, np.zeros(3, dtype=bool), target, weights)
    np.testing.assert_array_equal(found[:, 1], RATES[:, 1])
    for k, rate in enumerate(RATES[:, 1]):
        root = np.sqrt(weights)
        design = np.stack([np.exp(-rate * X), np.ones(30)], axis=1) * root[:, None]
        np.testing.assert_allclose(found[k, LINEAR], np.linalg.lstsq(design, target * root, rcond=None)[0], rtol=1e-9)


def test_positive_coefficients_are_the_nonnegative_solution_in_logs():
    rng = np.random.default_rng(1)
    target = 3 * np.exp(-0.7 * X) + 0.4 + 0.05 * rng.standard_normal(30)
    found = project(logged, RATES, LINEAR, np.array([True, False, True]), target, np.ones(30))
    for k, rate in enumerate(RATES[:, 1]):
        exact = nnls(np.stack([np.exp(-rate * X), np.ones(30)], axis=1), target)[0]
        np.testing.assert_allclose(np.exp(found[k, LINEAR][exact > 0]), exact[exact > 0], rtol=1e-9)


def test_a_coefficient_that_wants_to_be_negative_starts_small_but_finite():
    target = 3 * np.exp(-0.7 * X) - 0.4
    found = project(logged, RATES[1:2], LINEAR, np.array([True, False, True]), target, np.ones(30))
    assert np.isfinite(found).all()
    reach = np.sqrt((target**2).sum() / 30)
    assert np.exp(found[0, 2]) == pytest.approx(1e-3 * reach)
    assert np.exp(found[0, 0]) == pytest.approx(nnls(np.exp(-0.7 * X)[:, None], target)[0][0])


def test_what_stands_in_the_linear_coordinates_is_ignored_and_nothing_is_changed_in_place():
    target = np.exp(-X)
    begin = RATES + np.array([123.0, 0.0, -5.0])
    before = begin.copy()
    one = project(bare, begin, LINEAR, np.zeros(3, dtype=bool), target, np.ones(30))
    np.testing.assert_array_equal(begin, before)
    np.testing.assert_array_equal(one, project(bare, RATES, LINEAR, np.zeros(3, dtype=bool), target, np.ones(30)))


def test_the_part_of_the_law_without_linear_parameters_is_taken_off():
    def shifted(phi):
        value, slopes = bare(phi)
        return value + X**2, slopes

    found = project(shifted, RATES[1:2], LINEAR, np.zeros(3, dtype=bool), 2 * np.exp(-0.7 * X) + 1 + X**2, np.ones(30))
    np.testing.assert_allclose(found[0], [2.0, 0.7, 1.0], rtol=1e-9)


def test_candidates_without_finite_values_come_back_as_nan_and_spoil_nobody():
    rates = np.array([[0.0, -1e4, 0.0], [0.0, 0.7, 0.0]])
    with np.errstate(all="ignore"):
        found = project(bare, rates, LINEAR, np.zeros(3, dtype=bool), 2 * np.exp(-0.7 * X) + 1, np.ones(30))
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1], [2.0, 0.7, 1.0], rtol=1e-9)
