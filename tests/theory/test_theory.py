"""One step of sign descent and of SGD: the formulas against simulated gradients, their limits, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from scalefit import LawError, laws
from scalefit.theory import sgd_constants, sgd_optimum, sign_optimum, surge_constants

DIMENSIONS = 24


@pytest.fixture(scope="module")
def problem() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A gradient whose coordinates work against each other through a full Hessian."""
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(DIMENSIONS, DIMENSIONS))
    hessian = 0.2 * mixed @ mixed.T / DIMENSIONS + 0.6
    return np.abs(rng.normal(size=DIMENSIONS)) * 0.02 + 0.01, rng.uniform(0.5, 1.5, DIMENSIONS), hessian


def crowd(dimensions: int, ratio: float = 1e-3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return many equal coordinates: B_noise ~ 1/dimensions, so that it lies deep in the small-batch regime."""
    return np.full(dimensions, ratio), np.ones(dimensions), 0.5 * np.eye(dimensions) + 0.5


@pytest.mark.parametrize("share", [0.1, 1.0, 30.0])
def test_sign_descent_is_what_simulated_gradients_give(problem: tuple, share: float) -> None:
    mu, sigma, hessian = problem
    batch = share * surge_constants(*problem).B_noise
    gradients = mu + sigma / np.sqrt(batch) * np.random.default_rng(1).normal(size=(200_000, DIMENSIONS))
    signs = np.sign(gradients)
    gain, cost = (signs @ mu).mean(), ((signs @ hessian) * signs).sum(axis=1).mean()
    found = sign_optimum(batch, *problem)
    assert float(found.lr) == pytest.approx(gain / cost, rel=0.025)
    assert float(found.loss_drop) == pytest.approx(0.5 * gain**2 / cost, rel=0.05)


@pytest.mark.parametrize("batch", [5.0, 50.0, 5000.0])
def test_sgd_is_what_simulated_gradients_give(problem: tuple, batch: float) -> None:
    mu, sigma, hessian = problem
    steps = mu + sigma / np.sqrt(batch) * np.random.default_rng(2).normal(size=(200_000, DIMENSIONS))
    gain, cost = (steps @ mu).mean(), ((steps @ hessian) * steps).sum(axis=1).mean()
    found, constants = sgd_optimum(batch, *problem), sgd_constants(*problem)
    assert float(found.lr) == pytest.approx(gain / cost, rel=0.05)
    law = laws.get_law("lr_sgd_exact")({"eta_max": constants.eta_max, "B_noise": constants.B_noise}, {"batch": batch})
    assert float(found.lr) == pytest.approx(float(law), rel=1e-12)
    drop = laws.get_law("drop_batch")({"dL_max": constants.dL_max, "B_noise": constants.B_noise}, {"batch": batch})
    assert float(found.loss_drop) == pytest.approx(float(drop), rel=1e-12)


def test_the_best_rate_is_the_best_and_the_double_sum_includes_the_diagonal(problem: tuple) -> None:
    """Li et al.'s theorem 2, written as lemma 1 with the covariance of signs."""
    from scipy.special import erf

    mu, sigma, hessian = problem
    signs = erf(np.sqrt(40.0 / 2) * mu / sigma)
    pairs = signs @ hessian @ signs - (np.diag(hessian) * signs**2).sum()
    expected = (signs @ mu) / (np.trace(hessian) + pairs)
    found = sign_optimum(40.0, *problem)
    assert float(found.lr) == pytest.approx(expected, rel=1e-12)
    without = (signs @ mu) / ((1 - signs**2) @ np.diag(hessian) + pairs)
    assert abs(without / expected - 1) > 1e-3
    rates = expected * np.array([0.9, 1.0, 1.1])
    drops = rates * (signs @ mu) - 0.5 * rates**2 * (np.trace(hessian) + pairs)
    assert drops.argmax() == 1
    assert drops[1] == pytest.approx(float(found.loss_drop), rel=1e-12)


def test_far_below_the_bend_of_every_coordinate_it_is_the_surge_law() -> None:
    constants = surge_constants(*crowd(400))
    assert constants.B_noise < constants.valid_below / 100
    batch = constants.B_noise * np.geomspace(1e-3, 3.0, 25)
    found = sign_optimum(batch, *crowd(400))
    surge = laws.get_law("lr_surge")({"eta_max": constants.eta_max, "B_noise": constants.B_noise}, {"batch": batch})
    np.testing.assert_allclose(found.lr, surge, rtol=0.01)
    drop = laws.get_law("drop_batch")({"dL_max": constants.dL_max, "B_noise": constants.B_noise}, {"batch": batch})
    np.testing.assert_allclose(found.loss_drop, drop, rtol=0.015)
    peak = found.lr.argmax()
    assert 0 < peak < len(batch) - 1
    assert batch[peak] == pytest.approx(constants.B_noise, rel=0.3)


def test_rise_peak_fall_plateau() -> None:
    constants = surge_constants(*crowd(400))
    sizes = constants.B_noise * np.array([1e-4, 1e-3, 1.0, 100.0, 1e9])
    tiny, small, peak, falling, endless = sign_optimum(sizes, *crowd(400)).lr
    assert small / tiny == pytest.approx(np.sqrt(10), rel=0.01)
    assert constants.plateau < falling < 0.3 * peak
    assert endless == pytest.approx(constants.plateau, rel=1e-12)
    mu, _, hessian = crowd(400)
    assert constants.plateau == pytest.approx(np.abs(mu).sum() / np.abs(hessian).sum(), rel=1e-12)


def test_the_fall_of_the_loss_need_not_grow_with_the_batch(problem: tuple) -> None:
    """Only the small-batch law says so: exact sign descent may gain less from a better gradient."""
    constants = surge_constants(*problem)
    drops = sign_optimum(constants.B_noise * np.geomspace(0.01, 1e6, 60), *problem).loss_drop
    assert drops.max() > 1.05 * drops[-1]
    assert drops[-1] == pytest.approx(constants.dL_plateau, rel=1e-9)
    assert constants.dL_plateau < constants.dL_max


def test_without_pairs_there_is_no_surge() -> None:
    mu, sigma = np.array([0.1, 0.2, 0.05]), np.array([1.0, 0.5, 2.0])
    diagonal = np.array([1.0, 2.0, 0.5])
    constants = surge_constants(mu, sigma, diagonal)
    assert (constants.B_noise, constants.eta_max) == (np.inf, np.inf)
    rates = sign_optimum(np.geomspace(0.1, 1e6, 40), mu, sigma, diagonal)
    assert (np.diff(rates.lr) >= 0).all()
    assert rates.lr[-1] == pytest.approx(mu.sum() / diagonal.sum(), rel=1e-9)
    np.testing.assert_allclose(rates.lr, sign_optimum(rates.batch, mu, sigma, np.diag(diagonal)).lr, rtol=1e-14)
    against = surge_constants(np.array([0.1, -0.1]), np.ones(2), np.array([[1.0, 0.5], [0.5, 1.0]]))
    assert against.B_noise == np.inf  # coordinates that help each other raise the rate instead


def test_shapes_follow_the_batch(problem: tuple) -> None:
    assert sign_optimum(7.0, *problem).lr.shape == ()
    assert sign_optimum(np.ones((2, 3)), *problem).lr.shape == (2, 3)
    assert sgd_optimum(np.ones((2, 3)), *problem).loss_drop.shape == (2, 3)


@pytest.mark.parametrize(
    ("batch", "mu", "sigma", "hessian", "message"),
    [
        (0.0, [1.0], [1.0], [1.0], "batch: expected positive"),
        (1.0, [1.0], [0.0], [1.0], "sigma: expected positive"),
        (1.0, [1.0, 2.0], [1.0], [1.0], "expected mu"),
        (1.0, [1.0, 2.0], [1.0, 1.0], np.ones((3, 3)), "expected mu"),
        (1.0, [0.0, 0.0], [1.0, 1.0], [1.0, 1.0], "not zero everywhere"),
        (1.0, [1.0, np.nan], [1.0, 1.0], [1.0, 1.0], "finite numbers"),
        (1.0, [1.0, 1.0], [1.0, 1.0], [[1.0, 0.5], [0.0, 1.0]], "symmetric"),
        (1.0, [1.0], [1.0], [-1.0], "does not rise"),
    ],
)
@pytest.mark.parametrize("function", [sign_optimum, sgd_optimum])
def test_what_is_no_problem_is_refused(function, batch, mu, sigma, hessian, message) -> None:
    with pytest.raises(LawError, match=message):
        function(batch, mu, sigma, hessian)


def test_constants_refuse_a_loss_that_does_not_rise() -> None:
    with pytest.raises(LawError, match="does not rise along the gradient"):
        sgd_constants([1.0], [1.0], [-1.0])
    with pytest.raises(LawError, match="does not rise"):
        surge_constants([1.0], [1.0], [-1.0])
