"""Loss functions: value, weight and curvature belong together, for every loss there is."""

from __future__ import annotations

import numpy as np
import pytest

from scalefit.solvers.losses import LOSSES, Huber, SoftL1, Squared, loss_from_dict, loss_to_dict

ALL = [Squared(), Huber(), Huber(0.3), SoftL1(), SoftL1(0.3), *(kind() for kind in LOSSES.values())]
RESIDUALS = np.concatenate([-np.geomspace(1e-6, 50, 41), np.geomspace(1e-6, 50, 41)])


@pytest.mark.parametrize("loss", ALL, ids=repr)
def test_weight_is_the_slope_over_the_residual(loss):
    step = 1e-5 * np.abs(RESIDUALS)
    slope = (loss.value(RESIDUALS + step) - loss.value(RESIDUALS - step)) / (2 * step)
    np.testing.assert_allclose(loss.weight(RESIDUALS) * RESIDUALS, slope, rtol=1e-6)


@pytest.mark.parametrize("loss", ALL, ids=repr)
def test_curvature_is_the_derivative_of_psi(loss):
    step = 1e-5 * np.abs(RESIDUALS)
    psi = [loss.weight(r) * r for r in (RESIDUALS - step, RESIDUALS + step)]
    slope = (psi[1] - psi[0]) / (2 * step)
    np.testing.assert_allclose(loss.curvature(RESIDUALS), slope, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("loss", ALL, ids=repr)
def test_losses_are_even_convex_least_at_zero_and_half_the_square_near_it(loss):
    np.testing.assert_array_equal(loss.value(RESIDUALS), loss.value(-RESIDUALS))
    assert loss.value(np.zeros(3)).tolist() == [0.0, 0.0, 0.0]
    assert loss.weight(np.zeros(1)) == loss.curvature(np.zeros(1)) == 1.0
    assert (loss.curvature(RESIDUALS) >= 0).all()
    assert (np.diff(loss.value(np.sort(np.abs(RESIDUALS)))) >= 0).all()
    tiny = np.array([1e-9, -1e-9])
    np.testing.assert_allclose(loss.value(tiny), tiny**2 / 2, rtol=1e-6)


@pytest.mark.parametrize("loss", [Huber(0.3), SoftL1(0.3)], ids=repr)
def test_robust_losses_grow_like_the_absolute_value(loss):
    assert loss.robust
    assert loss.value(np.array(2e6)) - loss.value(np.array(1e6)) == pytest.approx(0.3e6, rel=1e-5)
    assert loss.weight(np.array(3e6)) == pytest.approx(1e-7, rel=1e-5)


def test_huber_equals_its_textbook_form():
    r = np.array([0.1, 0.3, 0.31, -2.0])
    expected = np.where(np.abs(r) <= 0.3, r**2 / 2, 0.3 * (np.abs(r) - 0.15))
    np.testing.assert_allclose(Huber(0.3).value(r), expected, rtol=1e-14)


def test_soft_l1_equals_its_textbook_form():
    r = np.array([1e-9, 0.1, -2.0])
    expected = [0.5e-18, *(0.3**2 * (np.sqrt(1 + (r[1:] / 0.3) ** 2) - 1))]
    np.testing.assert_allclose(SoftL1(0.3).value(r), expected, rtol=1e-13)


def test_squared_is_not_robust():
    assert not Squared().robust
    np.testing.assert_array_equal(Squared().value(np.array([2.0, -4.0])), [2.0, 8.0])


@pytest.mark.parametrize("kind", [Huber, SoftL1])
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_a_width_must_be_positive_and_finite(kind, value):
    with pytest.raises(ValueError, match="expected a positive number"):
        kind(value)


@pytest.mark.parametrize("loss", ALL, ids=repr)
def test_losses_survive_storage_as_plain_values(loss):
    assert loss_from_dict(loss_to_dict(loss)) == loss
    assert all(isinstance(value, str | float) for value in loss_to_dict(loss).values())


def test_every_loss_is_registered_under_its_name():
    assert {name: kind.__name__ for name, kind in LOSSES.items()} == {name: name for name in LOSSES}
    assert {Squared, Huber, SoftL1} <= set(LOSSES.values())
