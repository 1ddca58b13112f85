"""Linear least squares against numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import lsq_linear, nnls

from scalefit.fitting.search import least_squares
from scalefit.solvers.linear import nonnegative, solve_normal


@pytest.mark.parametrize("seed", range(5))
def test_least_squares_equals_numpy(seed):
    rng = np.random.default_rng(seed)
    design, target = rng.normal(size=(30, 4)), rng.normal(size=30)
    np.testing.assert_allclose(
        least_squares(design, target), np.linalg.lstsq(design, target, rcond=None)[0], rtol=1e-10
    )
    weights = rng.uniform(0.1, 10, 30)
    root = np.sqrt(weights)
    expected = np.linalg.lstsq(design * root[:, None], target * root, rcond=None)[0]
    np.testing.assert_allclose(least_squares(design, target, weights), expected, rtol=1e-10)


def test_the_scale_of_a_column_does_not_cost_digits():
    rng = np.random.default_rng(0)
    design, truth = rng.normal(size=(30, 3)), np.array([1.0, -2.0, 3.0])
    scale = np.array([1e-12, 1.0, 1e12])
    np.testing.assert_allclose(least_squares(design * scale, design @ truth) * scale, truth, rtol=1e-12)


def test_weight_zero_leaves_a_row_out():
    rng = np.random.default_rng(1)
    design, target = rng.normal(size=(10, 2)), rng.normal(size=10)
    weights = np.ones(10)
    weights[3], target[3] = 0.0, 1e6
    kept = np.arange(10) != 3
    np.testing.assert_allclose(least_squares(design, target, weights), least_squares(design[kept], target[kept]))


def test_dependent_columns_give_the_solution_of_least_scaled_norm():
    rng = np.random.default_rng(2)
    base, target = rng.normal(size=(20, 2)), rng.normal(size=20)
    design = np.column_stack([base, base[:, 0] * 1e3])  # the third repeats the first, in other units
    found = least_squares(design, target)
    expected = np.linalg.lstsq(base, target, rcond=None)[0]
    np.testing.assert_allclose(design @ found, base @ expected, rtol=1e-10)
    np.testing.assert_allclose(found, [expected[0] / 2, expected[1], expected[0] / 2e3], rtol=1e-10)
    np.testing.assert_array_equal(least_squares(np.zeros((5, 2)), np.ones(5)), [0.0, 0.0])


def test_normal_equations_are_solved_for_a_whole_stack():
    rng = np.random.default_rng(3)
    design = rng.normal(size=(7, 20, 3)) * np.array([1e-6, 1.0, 1e6])
    hessian, target = design.transpose(0, 2, 1) @ design, rng.normal(size=(7, 20))
    gradient = np.einsum("knp,kn->kp", design, target)
    found = solve_normal(hessian, gradient)
    for k in range(7):
        np.testing.assert_allclose(found[k], least_squares(design[k], target[k]), rtol=1e-9)
        np.testing.assert_allclose(solve_normal(hessian[k : k + 1], gradient[k : k + 1])[0], found[k], rtol=1e-12)


def test_a_coordinate_without_curvature_gets_zero_and_does_not_disturb_the_others():
    hessian = np.array([[[2.0, 0.0], [0.0, 0.0]]])
    np.testing.assert_allclose(solve_normal(hessian, np.array([[4.0, 0.0]])), [[2.0, 0.0]])


def test_singular_equations_still_get_a_solution():
    rng = np.random.default_rng(4)
    design = rng.normal(size=(10, 2)) @ rng.normal(size=(2, 4))
    hessian, gradient = design.T @ design, design.T @ rng.normal(size=10)
    np.testing.assert_allclose(hessian @ solve_normal(hessian, gradient), gradient, rtol=1e-6, atol=1e-6)


def test_one_hopeless_problem_does_not_touch_its_neighbours():
    rng = np.random.default_rng(5)
    design = rng.normal(size=(3, 20, 2))
    hessian, gradient = design.transpose(0, 2, 1) @ design, rng.normal(size=(3, 2))
    expected = solve_normal(hessian, gradient)
    with np.errstate(all="ignore"):
        hessian[1] = np.nan
        found = solve_normal(hessian, gradient)
    np.testing.assert_allclose(found[[0, 2]], expected[[0, 2]], rtol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_nonnegative_equals_scipy(count):
    rng = np.random.default_rng(count)
    design, target = rng.normal(size=(40, 25, count)), rng.normal(size=(40, 25))
    hessian = design.transpose(0, 2, 1) @ design
    gradient = np.einsum("knp,kn->kp", design, target)
    found = nonnegative(hessian, gradient, np.ones(count, dtype=bool))
    assert (found >= 0).all()
    for k in range(40):
        np.testing.assert_allclose(found[k], nnls(design[k], target[k])[0], atol=1e-10)


def test_only_some_coordinates_may_be_held():
    rng = np.random.default_rng(9)
    positive = np.array([True, False, True])
    design, target = rng.normal(size=(30, 20, 3)), rng.normal(size=(30, 20))
    hessian = design.transpose(0, 2, 1) @ design
    found = nonnegative(hessian, np.einsum("knp,kn->kp", design, target), positive)
    assert (found[:, 1] < 0).any()
    for k in range(30):
        bounds = (np.where(positive, 0.0, -np.inf), np.full(3, np.inf))
        exact = lsq_linear(design[k], target[k], bounds, method="bvls", tol=1e-14)
        np.testing.assert_allclose(found[k], exact.x, atol=1e-8)


def test_many_held_coordinates_are_at_least_not_negative():
    rng = np.random.default_rng(10)
    design = rng.normal(size=(5, 30, 8))
    hessian = design.transpose(0, 2, 1) @ design
    gradient = rng.normal(size=(5, 8)) * 10
    found = nonnegative(hessian, gradient, np.ones(8, dtype=bool))
    free = solve_normal(hessian, gradient)
    np.testing.assert_array_equal(found, np.maximum(free, 0.0))
    assert (free < 0).any()


def test_without_held_coordinates_it_is_plain_least_squares():
    rng = np.random.default_rng(11)
    design, target = rng.normal(size=(4, 20, 3)), rng.normal(size=(4, 20))
    hessian, gradient = design.transpose(0, 2, 1) @ design, np.einsum("knp,kn->kp", design, target)
    found = nonnegative(hessian, gradient, np.zeros(3, dtype=bool))
    for k in range(4):
        np.testing.assert_allclose(found[k], np.linalg.lstsq(design[k], target[k], rcond=None)[0], rtol=1e-9)
