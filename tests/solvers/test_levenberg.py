"""The batched Levenberg-Marquardt against scipy, and against itself one by one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.optimize import minimize as scipy_minimize

from scalefit.solvers.levenberg import Solution, minimize
from scalefit.solvers.losses import Huber, SoftL1, Squared

FREE = np.full(3, np.inf)
LOSSES = [Squared(), Huber(0.02), SoftL1(0.02)]


class Decay:
    """y = a exp(-b x) + c, with noise and, on demand, outliers."""

    def __init__(self, seed: int, rows: int = 40, noise: float = 0.02, outliers: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.x = np.linspace(0.1, 6, rows)
        self.truth = np.array([rng.uniform(1, 5), rng.uniform(0.4, 1.5), rng.uniform(0.1, 1)])
        self.y = self.curve(self.truth[None])[0] + noise * rng.standard_normal(rows)
        self.y[rng.choice(rows, outliers, replace=False)] += rng.uniform(1, 3, outliers)
        self.weights = rng.uniform(0.5, 2.0, rows)

    def curve(self, phi: np.ndarray) -> np.ndarray:
        return phi[:, :1] * np.exp(-phi[:, 1:2] * self.x) + phi[:, 2:]

    def __call__(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        decay = np.exp(-phi[:, 1:2] * self.x)
        slopes = np.stack([decay, -phi[:, :1] * self.x * decay, np.ones_like(decay)], axis=1)
        return self.curve(phi) - self.y, slopes

    def solve(self, start: np.ndarray, loss=None, **settings) -> Solution:
        settings = {"weights": self.weights, "lower": -FREE, "upper": FREE} | settings
        return minimize(self, np.atleast_2d(start), loss=loss or Squared(), **settings)


def starts(problem: Decay, count: int, seed: int = 0) -> np.ndarray:
    return problem.truth * np.random.default_rng(seed).uniform(0.5, 1.7, (count, 3))


@pytest.mark.parametrize("seed", range(5))
def test_squares_equal_scipy(seed):
    problem = Decay(seed)
    found = problem.solve(starts(problem, 1))
    root = np.sqrt(problem.weights)
    exact = least_squares(
        lambda p: root * problem(p[None])[0][0], problem.truth, method="lm", xtol=1e-15, ftol=1e-15, gtol=1e-15
    )
    assert found.converged.all()
    np.testing.assert_allclose(found.phi[0], exact.x, rtol=1e-7)
    np.testing.assert_allclose(found.objective[0], exact.cost, rtol=1e-12)


@pytest.mark.parametrize("loss", LOSSES[1:], ids=repr)
@pytest.mark.parametrize("seed", range(5))
def test_robust_losses_equal_scipy(seed, loss):
    problem = Decay(seed, outliers=6)
    found = problem.solve(starts(problem, 1), loss, weights=np.ones(len(problem.x)))
    name, width = ("huber", loss.delta) if isinstance(loss, Huber) else ("soft_l1", loss.scale)
    exact = least_squares(
        lambda p: problem(p[None])[0][0],
        found.phi[0],
        jac=lambda p: problem(p[None])[1][0].T,
        loss=name,
        f_scale=width,
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-15,
        max_nfev=2000,
    )
    assert found.converged.all()
    assert found.objective[0] <= exact.cost * (1 + 1e-8)
    assert found.objective[0] == pytest.approx(exact.cost, rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_weighted_objectives_equal_a_general_minimiser(loss):
    problem = Decay(11, outliers=5)
    found = problem.solve(starts(problem, 1), loss)

    def objective(p):
        return float(problem.weights @ loss.value(problem(p[None])[0][0]))

    def gradient(p):
        residual, slopes = problem(p[None])
        return slopes[0] @ (problem.weights * loss.weight(residual[0]) * residual[0])

    exact = scipy_minimize(objective, found.phi[0] * 1.01, jac=gradient, method="BFGS", options={"gtol": 1e-11})
    assert found.objective[0] == pytest.approx(objective(found.phi[0]), rel=1e-13)
    assert found.objective[0] <= exact.fun * (1 + 1e-8)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_a_batch_equals_its_members(loss):
    problem = Decay(3, outliers=3)
    begin = starts(problem, 12, seed=5)
    together = problem.solve(begin, loss)
    for k in range(12):
        alone = problem.solve(begin[k], loss)
        np.testing.assert_allclose(together.phi[k], alone.phi[0], rtol=1e-7)
        np.testing.assert_allclose(together.objective[k], alone.objective[0], rtol=1e-11)
        assert together.converged[k] == alone.converged[0]


def test_every_member_may_have_its_own_weights_and_its_own_model():
    problem = Decay(4)
    rng = np.random.default_rng(0)
    counts = rng.multinomial(40, np.full(40, 1 / 40), size=6).astype(float)
    shifts = 0.01 * rng.standard_normal((6, 40))

    def model(index):
        def residuals(phi):
            residual, slopes = problem(phi)
            return residual + shifts[index], slopes

        return residuals

    together = minimize(
        model(np.arange(6)),
        np.repeat(problem.truth[None], 6, axis=0),
        loss=Huber(0.02),
        weights=counts,
        lower=-FREE,
        upper=FREE,
        subset=model,
    )
    for k in range(6):
        alone = minimize(
            model(np.array([k])),
            problem.truth[None],
            loss=Huber(0.02),
            weights=counts[k],
            lower=-FREE,
            upper=FREE,
        )
        np.testing.assert_allclose(together.phi[k], alone.phi[0], rtol=1e-6)
    assert together.converged.all()


@pytest.mark.parametrize("loss", LOSSES[:1] + LOSSES[2:], ids=repr)
@pytest.mark.parametrize("seed", range(6))
def test_bounds_hold_and_the_right_ones_are_active(seed, loss):
    problem = Decay(seed)
    ones = np.ones(len(problem.x))
    lower = np.array([0.0, problem.truth[1] * (1.1 if seed % 2 else 0.2), -1.0])
    upper = np.array([problem.truth[0] * (0.9 if seed % 3 == 0 else 5.0), 5.0, problem.truth[2] * 0.8 + seed % 2])
    found = problem.solve(starts(problem, 4), loss, lower=lower, upper=upper, weights=ones)
    assert (found.phi >= lower).all()
    assert (found.phi <= upper).all()
    assert found.converged.all()
    exact = least_squares(
        lambda p: problem(p[None])[0][0],
        np.clip(problem.truth, lower + 1e-3, upper - 1e-3),
        bounds=(lower, upper),
        loss="soft_l1" if loss.robust else "linear",
        f_scale=0.02 if loss.robust else 1.0,
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-15,
    )
    best = found.best()
    assert found.objective[best] <= exact.cost * (1 + 1e-9)
    np.testing.assert_allclose(found.phi[best], exact.x, rtol=1e-4, atol=1e-5)
    near = np.minimum(exact.x - lower, upper - exact.x) < 1e-5
    on = (found.phi[best] == lower) | (found.phi[best] == upper)
    assert on.tolist() == near.tolist()
    assert near.any()


def test_a_bound_met_on_the_way_is_left_again():
    problem = Decay(7)
    upper = np.array([np.inf, np.inf, problem.truth[2] + 0.3])
    found = problem.solve([[0.1, 4.0, upper[2]]], lower=np.array([0.0, 0.0, -np.inf]), upper=upper)
    np.testing.assert_allclose(found.phi[0], problem.solve(problem.truth).phi[0], rtol=1e-6)


def test_equal_bounds_hold_a_parameter_exactly():
    problem = Decay(8)
    held = np.array([np.nan, 0.9, np.nan])
    lower, upper = np.where(np.isnan(held), -np.inf, held), np.where(np.isnan(held), np.inf, held)
    found = problem.solve(starts(problem, 3), lower=lower, upper=upper)
    assert (found.phi[:, 1] == 0.9).all()
    assert found.converged.all()
    design = np.stack([np.exp(-0.9 * problem.x), np.ones_like(problem.x)], axis=1) * np.sqrt(problem.weights)[:, None]
    exact = np.linalg.lstsq(design, problem.y * np.sqrt(problem.weights), rcond=None)[0]
    np.testing.assert_allclose(found.phi[:, [0, 2]], np.broadcast_to(exact, (3, 2)), rtol=1e-9)
    everything = problem.solve(problem.truth, lower=problem.truth, upper=problem.truth)
    np.testing.assert_array_equal(everything.phi[0], problem.truth)
    assert everything.converged.all()


def test_starts_where_the_model_is_not_finite_spoil_nobody_else():
    problem = Decay(9)
    begin = np.array([problem.truth, [np.nan, 1.0, 1.0], [1.0, -1e4, 0.0], [1e300, -300.0, 0.0], [np.inf, 1.0, 0.0]])
    with np.errstate(all="raise"):  # the solver itself must not depend on the caller's settings
        found = problem.solve(begin)
    assert found.converged.tolist() == [True, False, False, False, False]
    assert found.best() == 0
    np.testing.assert_allclose(found.phi[0], problem.solve(problem.truth).phi[0], rtol=1e-12)


def test_regions_without_a_value_are_stepped_around():
    x = np.linspace(1, 5, 30)
    y = 2 * np.log(x + 0.5)

    def model(phi):  # not a number where x + b <= 0, which full steps from here enter
        inside = x + phi[:, 1:]
        return phi[:, :1] * np.log(inside) - y, np.stack([np.log(inside), phi[:, :1] / inside], axis=1)

    wide = np.full(2, np.inf)
    found = minimize(model, np.array([[0.1, 30.0]]), loss=Squared(), weights=np.ones(30), lower=-wide, upper=wide)
    np.testing.assert_allclose(found.phi[0], [2.0, 0.5], rtol=1e-9)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_noiseless_data_converge_to_the_truth(loss):
    problem = Decay(10, noise=0.0)
    found = problem.solve(starts(problem, 6), loss)
    np.testing.assert_allclose(found.phi, np.broadcast_to(problem.truth, (6, 3)), rtol=1e-9)
    assert found.converged.all()
    assert (found.objective < 1e-24).all()


def test_stopping_early_is_not_called_converged():
    problem = Decay(1)
    found = problem.solve([[0.1, 4.0, 3.0]], iterations=2)
    assert found.iterations == 2
    assert not found.converged.any()


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_the_order_of_rows_does_not_matter(loss):
    problem, other = Decay(2, outliers=3), Decay(2, outliers=3)
    order = np.random.default_rng(0).permutation(len(problem.x))
    other.x, other.y, other.weights = problem.x[order], problem.y[order], problem.weights[order]
    begin = starts(problem, 1)
    one, two = problem.solve(begin, loss), other.solve(begin, loss)
    np.testing.assert_allclose(one.objective, two.objective, rtol=1e-12)
    np.testing.assert_allclose(one.phi, two.phi, rtol=1e-7)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_the_unit_of_a_parameter_does_not_matter(loss, factor):
    problem = Decay(6, outliers=3)
    scale = np.array([1.0, factor, 1.0])

    def rescaled(phi):
        residual, slopes = problem(phi * scale)
        return residual, slopes * scale[:, None]

    begin = starts(problem, 4)
    plain = problem.solve(begin, loss)
    other = minimize(rescaled, begin / scale, loss=loss, weights=problem.weights, lower=-FREE, upper=FREE)
    np.testing.assert_allclose(other.phi * scale, plain.phi, rtol=1e-6)
    np.testing.assert_allclose(other.objective, plain.objective, rtol=1e-10)


def test_a_parameter_the_data_do_not_see_leaves_the_others_right():
    problem = Decay(12)

    def blind(phi):
        residual, slopes = problem(phi[:, :3])
        return residual, np.concatenate([slopes, np.zeros_like(slopes[:, :1])], axis=1)

    wide = np.full(4, np.inf)
    begin = np.append(problem.truth, 5.0)[None]
    found = minimize(blind, begin, loss=Squared(), weights=problem.weights, lower=-wide, upper=wide)
    np.testing.assert_allclose(found.phi[0, :3], problem.solve(problem.truth).phi[0], rtol=1e-7)
    assert found.phi[0, 3] == 5.0


def test_solutions_pick_the_best_and_take_some():
    solution = Solution(np.arange(6.0).reshape(3, 2), np.array([np.inf, 1.0, 0.5]), np.array([False, True, True]), 4)
    assert solution.best() == 2
    part = solution.take(np.array([1]))
    assert part.phi.tolist() == [[2.0, 3.0]]
    assert part.objective.tolist() == [1.0]
    assert part.iterations == 4
