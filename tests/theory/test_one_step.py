"""One step on noisy quadratics: the best rate, measured by sweeping it, against the formulas of the package."""

from __future__ import annotations

import numpy as np
import pytest
from theory import (
    SGD,
    Adam,
    NoisyQuadratic,
    SignSGD,
    from_gradient,
    mean_field,
    optimal_step,
    sgd_mean_loss,
    trace_run,
)
from theory.one_step import jackknife, lowest_point

from scalefit.theory import sgd_constants, sgd_optimum, sign_optimum, surge_constants


def random_problem(kind: str, size: int = 24, seed: int = 5) -> NoisyQuadratic:
    rng = np.random.default_rng(seed)
    noise, start = np.exp(rng.normal(0, 0.4, size)), rng.normal(0, 1, size)
    if kind == "diagonal":
        return NoisyQuadratic(np.geomspace(1, 0.05, size), noise, start)
    turn = np.linalg.qr(rng.normal(size=(size, size)))[0]
    return NoisyQuadratic((turn * np.geomspace(1, 0.05, size)) @ turn.T, noise, start)


def surging(size: int = 48, coupling: float = 0.5, seed: int = 3) -> NoisyQuadratic:
    """Gradients far below their noise, and every coordinate coupled along the signs of the gradient."""
    rng = np.random.default_rng(seed)
    slope = np.exp(rng.normal(0, 0.3, size)) * rng.choice([-1, 1], size)
    noise, diagonal = 10 * np.exp(rng.normal(0, 0.3, size)), np.exp(rng.normal(0, 0.5, size))
    return from_gradient(mean_field(diagonal, coupling, slope), noise, slope)


def test_loss_gradient_and_noise_scale_are_what_they_say():
    problem = random_problem("full")
    h, x = problem.hessian, problem.start
    assert problem.loss(x) == pytest.approx(0.5 * x @ h @ x)
    np.testing.assert_allclose(problem.gradient(np.stack([x, 2 * x])), np.stack([h @ x, 2 * h @ x]))
    slope, sigma = h @ x, np.diag(problem.noise**2)
    assert sgd_constants(*problem.step).B_noise == pytest.approx(np.trace(h @ sigma) / (slope @ h @ slope))
    same, diagonal = (NoisyQuadratic(h, 1.0, [2.0, 1.0]) for h in (np.diag([1.0, 3.0]), [1.0, 3.0]))
    assert sgd_constants(*same.step).B_noise == pytest.approx(sgd_constants(*diagonal.step).B_noise)


def test_a_problem_is_frozen():
    problem = random_problem("diagonal")
    with pytest.raises(AttributeError):
        problem.noise = np.ones(3)
    with pytest.raises(ValueError, match="read-only"):
        problem.start[0] = 1.0


@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_the_mean_loss_of_sgd_follows_the_exact_recursion(kind):
    problem = random_problem(kind)
    path = trace_run(problem, SGD(), batch=3.0, lr=0.6, steps=60, replicates=3000, seed=1)
    exact = sgd_mean_loss(problem, 3.0, 0.6, path["steps"])
    # Halves of the replicates tell how far the mean of 3000 may be off.
    half = trace_run(problem, SGD(), batch=3.0, lr=0.6, steps=60, replicates=1500, seed=2)["loss"]
    assert np.abs(path["loss"] / exact - 1).max() < 0.03
    assert np.abs(half / exact - 1).max() < 0.045
    h, x, moment = problem.hessian, problem.start, np.outer(problem.start, problem.start)
    for _ in range(60):
        shrink = np.eye(len(x)) - 0.6 * h
        moment = shrink @ moment @ shrink.T + 0.36 / 3 * np.diag(problem.noise**2)
    assert exact[-1] == pytest.approx(0.5 * np.trace(h @ moment), rel=1e-10)


@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_sgd_reproduces_its_law_within_two_per_cent(kind):
    problem = random_problem(kind)
    limits = sgd_constants(*problem.step)
    batches = limits.B_noise * 4.0 ** np.arange(-2, 4)
    found = optimal_step(problem, SGD(), batches, replicates=3000, seed=1)
    share = 1 / (1 + limits.B_noise / batches)
    assert (found["status"] == "interior").all()
    assert np.abs(found["lr"] / (limits.eta_max * share) - 1).max() < 0.02
    assert np.abs(found["loss_drop"] / (limits.dL_max * share) - 1).max() < 0.02
    exact = sgd_optimum(batches, *problem.step)
    np.testing.assert_allclose(exact.lr, limits.eta_max * share, rtol=1e-12)
    np.testing.assert_allclose(exact.loss_drop, limits.dL_max * share, rtol=1e-12)
    score = np.log(found["lr"] / exact.lr) / found["log_lr_stderr"]
    assert np.abs(score).max() < 4
    assert np.sqrt(np.mean(score**2)) > 0.2


def test_sign_sgd_rises_peaks_falls_and_ends_on_the_plateau():
    problem = surging()
    limits = surge_constants(*problem.step)
    batches = limits.B_noise * 4.0 ** np.arange(-3, 8)
    found = optimal_step(problem, SignSGD(), batches, replicates=1500, seed=1)
    lr, ratio = found["lr"].to_numpy(), batches / limits.B_noise
    assert problem.valid_batch > 20 * limits.B_noise
    assert int(np.argmax(lr)) == 3
    assert (np.diff(lr)[:3] > 0).all()
    assert (np.diff(lr)[3:8] < 0).all()
    assert lr[3] > 2.5 * lr[-1]
    surge = 2 * limits.eta_max / (np.sqrt(ratio) + np.sqrt(1 / ratio))
    assert np.abs(lr[1:4] / surge[1:4] - 1).max() < 0.05
    np.testing.assert_allclose(lr[-2:], limits.plateau, rtol=1e-3)
    np.testing.assert_allclose(found["loss_drop"][-2:], limits.dL_plateau, rtol=1e-3)
    drop = limits.dL_max / (1 + 1 / ratio)
    assert np.abs(found["loss_drop"] / drop - 1)[1:4].max() < 0.06
    # Beyond the small-batch regime the theorem promises more than there is.
    assert (drop / found["loss_drop"]).iloc[-1] > 1.15


def test_sign_sgd_follows_the_full_law_at_every_batch():
    problem = surging(coupling=0.2, seed=8)
    batches = surge_constants(*problem.step).B_noise * 4.0 ** np.arange(-1, 6)
    found = optimal_step(problem, SignSGD(), batches, replicates=2000, seed=4)
    exact = sign_optimum(batches, *problem.step)
    assert np.abs(found["lr"] / exact.lr - 1).max() < 0.02
    assert np.abs(found["loss_drop"] / exact.loss_drop - 1).max() < 0.035
    score = np.log(found["lr"] / exact.lr) / np.maximum(found["log_lr_stderr"], 1e-5)
    assert np.abs(score).max() < 4


def test_without_coupling_there_is_no_fall():
    """The sum in the surge law runs over i != j; with i = j in it, the law would have a peak near B_valid."""
    coupled = surging()
    slope = coupled.gradient(coupled.start)
    problem = from_gradient(np.diagonal(coupled.curvature), coupled.noise, slope)
    limits = surge_constants(*problem.step)
    assert np.isinf(limits.B_noise)
    batches = problem.valid_batch * 4.0 ** np.arange(-4, 4)
    found = optimal_step(problem, SignSGD(), batches, replicates=300, seed=2)
    assert (np.diff(found["lr"]) > -2e-3 * limits.plateau).all()
    assert found["lr"].iloc[-1] == pytest.approx(limits.plateau, rel=1e-3)
    assert found["lr"].iloc[0] < 0.1 * limits.plateau
    ratio = slope / problem.noise
    wrong = np.pi * problem.curvature.sum() / (2 * np.sum(ratio**2 * problem.curvature))
    at_wrong = optimal_step(problem, SignSGD(), [wrong, 16 * wrong], replicates=300, seed=3)["lr"]
    assert at_wrong[1] > at_wrong[0]


def test_coupling_against_the_signs_gives_no_fall_either():
    coupled = surging()
    slope = coupled.gradient(coupled.start)
    other = np.where(np.arange(len(slope)) % 2 == 0, slope, -slope)
    problem = from_gradient(mean_field(np.diagonal(coupled.curvature), 0.5, other), coupled.noise, slope)
    lr = sign_optimum(problem.valid_batch * 4.0 ** np.arange(-6, 4), *problem.step).lr
    assert lr.max() < 1.02 * lr[-1]


def test_adam_without_memory_is_sign_sgd():
    problem = surging(size=16)
    one = optimal_step(problem, SignSGD(), [1.0, 30.0], replicates=50, steps=3, seed=1)
    two = optimal_step(problem, Adam(0.0, 0.0), [1.0, 30.0], replicates=50, steps=3, seed=1)
    np.testing.assert_allclose(one["lr"], two["lr"], rtol=1e-8)
    np.testing.assert_allclose(one["loss_drop"], two["loss_drop"], rtol=1e-7)


@pytest.mark.parametrize(("beta1", "beta2"), [(0.0, 0.99), (0.9, 0.99)])
def test_adam_with_settled_moments_is_a_softer_sign_with_less_noise(beta1, beta2):
    """As beta2 nears 1: E[V] = mu/sqrt(mu^2 + sigma^2/B), and its variance shrinks by (1 - beta1)/(1 + beta1)."""
    problem = surging(size=24)
    slope, batches = problem.gradient(problem.start), np.array([1.0, 10.0, 100.0])
    found = optimal_step(problem, Adam(beta1, beta2), batches, replicates=150, seed=1)
    mean = slope / np.sqrt(slope**2 + problem.noise**2 / batches[:, None])
    variance = (1 - beta1) / (1 + beta1) * (1 - mean**2)
    lr = mean @ slope / (variance @ np.diagonal(problem.hessian) + 2 * problem.loss(mean))
    assert np.abs(found["lr"] / lr - 1).max() < 0.08
    plateau = surge_constants(*problem.step).plateau
    far = optimal_step(problem, Adam(beta1, beta2), [1e6], replicates=10, seed=1)
    assert far["lr"][0] == pytest.approx(plateau, rel=1e-3)


def test_errors_of_the_optimum_are_honest():
    problem, batches = random_problem("diagonal", size=12), [2.0, 20.0]
    found = [optimal_step(problem, SGD(), batches, replicates=60, seed=2 * k) for k in range(60)]
    logs = np.log([table["lr"] for table in found])
    quoted = np.mean([table["log_lr_stderr"] for table in found], axis=0)
    np.testing.assert_allclose(logs.std(axis=0, ddof=1), quoted, rtol=0.3)


def test_a_sweep_that_misses_the_optimum_says_edge():
    problem = random_problem("diagonal")
    best = optimal_step(problem, SGD(), [50.0], replicates=200)["lr"][0]
    low = optimal_step(problem, SGD(), [50.0], lrs=best * np.array([0.1, 0.2, 0.3]), replicates=200)
    assert low["status"].tolist() == ["edge"]
    assert low["lr"][0] == pytest.approx(0.3 * best)
    wild = optimal_step(problem, SGD(), [50.0], lrs=best * np.array([0.5, 1.0, 2.0, 1e200]), replicates=200)
    assert wild["lr"][0] == pytest.approx(best, rel=1e-6)


def test_the_lowest_point_of_a_parabola_and_its_error():
    x = np.array([[0.0, 1.0, 2.0, 4.0]])
    place, height, inside = lowest_point(x, (x - 1.3) ** 2 + 5)
    assert (place[0], height[0], inside[0]) == (pytest.approx(1.3), pytest.approx(5.0), True)
    sample = np.array([1.0, 2.0, 4.0, 5.0])
    assert jackknife((sample.sum() - sample) / 3) == pytest.approx(sample.std(ddof=1) / 2)


def test_the_same_seed_gives_the_same_numbers():
    problem = random_problem("diagonal")
    one, two, other = (optimal_step(problem, SGD(), [5.0], replicates=20, seed=seed) for seed in (3, 3, 4))
    assert one.equals(two)
    assert not one.equals(other)


def test_noise_scales_along_a_path_grow_as_the_loss_falls():
    path = trace_run(random_problem("diagonal"), SGD(), batch=500.0, lr=1.0, steps=50)
    assert path["loss"].iloc[-1] < 0.1 * path["loss"].iloc[0]
    assert path["B_noise"].iloc[0] == pytest.approx(sgd_constants(*random_problem("diagonal").step).B_noise)
    assert path["B_noise"].iloc[-1] > 10 * path["B_noise"].iloc[0]
    assert np.isinf(path["B_sign"]).all()


def test_the_noise_scale_of_signs_grows_along_a_run():
    """Steps along the signs reduce the gradient in the direction in which they cost most, so that its share falls."""
    problem = surging()
    limits = surge_constants(*problem.step)
    path = trace_run(problem, SignSGD(), batch=16 * limits.B_noise, lr=0.3 * limits.plateau, steps=40)
    assert path["B_sign"].iloc[0] == pytest.approx(limits.B_noise)
    assert path["B_sign"].iloc[-1] > 10 * limits.B_noise


@pytest.mark.parametrize(
    "make",
    [
        lambda: NoisyQuadratic([1.0, -1.0], 1.0, 1.0),
        lambda: NoisyQuadratic(np.ones((2, 3)), 1.0, 1.0),
        lambda: NoisyQuadratic([[1.0, 0.5], [0.2, 1.0]], 1.0, 1.0),
        lambda: NoisyQuadratic([1.0, 1.0], [1.0, 0.0], 1.0),
        lambda: NoisyQuadratic([1.0, 1.0], [1.0, 1.0, 1.0], 1.0),
        lambda: NoisyQuadratic([1.0, 1.0], 1.0, [np.nan, 1.0]),
        lambda: mean_field([1.0, 1.0], 1.0, [1.0, 1.0]),
        lambda: Adam(beta1=1.0),
        lambda: optimal_step(random_problem("diagonal"), SGD(), [0.0]),
        lambda: optimal_step(random_problem("diagonal"), SGD(), [1.0], replicates=1),
        lambda: optimal_step(random_problem("diagonal"), SGD(), [1.0], warmup=-1),
        lambda: optimal_step(random_problem("diagonal"), SGD(), [1.0], lrs=[0.1, 0.2]),
        lambda: from_gradient(1.0, 1.0, 1.0),
        lambda: optimal_step(random_problem("diagonal"), SGD(), [1.0], lrs=[0.1, 0.3, 0.2]),
        lambda: trace_run(random_problem("diagonal"), SGD(), batch=0.0, lr=1.0, steps=1),
    ],
)
def test_what_makes_no_sense_is_refused(make):
    with pytest.raises(ValueError, match=r"should|expected|needs|broadcast"):
        make()
