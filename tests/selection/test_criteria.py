"""Information criteria, against a textbook and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from scalefit.fitting.fit_law import fit_law as fit
from scalefit.selection.compare import akaike_weights
from scalefit.selection.criteria import criteria, log_likelihood
from scalefit.solvers.losses import Huber, SoftL1, Squared

CARS = (
    "4 4 7 7 8 9 10 10 10 11 11 12 12 12 12 13 13 13 13 14 14 14 14 15 15 15 16 16 17 17 17 18 18 18 18 19 19 19 20 20 "
    "20 20 20 22 23 24 24 24 24 25",
    "2 10 4 22 16 10 18 26 34 17 28 14 20 24 28 26 34 34 46 26 36 60 80 20 26 54 32 40 32 40 50 42 56 76 84 36 46 68 "
    "32 48 52 56 64 66 54 70 92 93 120 85",
)
"""Speed and stopping distance of cars (Ezekiel 1930), as in R's data set `cars`."""


def test_information_criteria_of_a_textbook_regression():
    speed, dist = (np.array(text.split(), dtype=float) for text in CARS)
    found = criteria(fit("dist = a + b * speed", {"speed": speed, "dist": dist}))
    assert found.aicc == pytest.approx(419.1569 + 2 * 3 * 4 / 46, abs=1e-4)  # R: AIC(lm(dist ~ speed, cars))
    assert found.bic == pytest.approx(424.8929, abs=1e-4)
    assert found.log_likelihood == pytest.approx(-206.5784, abs=1e-4)


def test_weights_are_inverse_variances_in_the_likelihood():
    r, w = np.array([0.3, -1.0, 0.2, 2.0]), np.array([1.0, 4.0, 0.5, 2.0])
    variance = (w @ r**2) / 4
    density = np.sqrt(w / (2 * np.pi * variance)) * np.exp(-w * r**2 / (2 * variance))
    assert log_likelihood(Squared(), r, w) == pytest.approx(np.log(density).sum())
    assert log_likelihood(Squared(), r, 7 * w) == pytest.approx(np.log(density).sum())


def test_likelihood_of_a_robust_loss_is_a_density_between_normal_and_laplace():
    rng = np.random.default_rng(0)
    r, ones = rng.standard_t(3, size=80), np.ones(80)
    laplace = -80 * (np.log(2 * np.abs(r).mean()) + 1)
    normal = log_likelihood(Squared(), r, ones)
    for loss in (Huber, SoftL1):
        assert log_likelihood(loss(1e-4), r, ones) == pytest.approx(laplace, abs=0.02)
        assert log_likelihood(loss(1e4), r, ones) == pytest.approx(normal, abs=1e-3)
        assert log_likelihood(loss(1.0), r, ones) > normal  # heavy tails


@pytest.mark.parametrize("loss", [Huber(0.7), SoftL1(0.7)])
def test_density_of_a_robust_loss_integrates_to_one(loss):
    """The likelihood of one residual, at the precision that is best for it and others."""
    r, w = np.array([0.1, -0.4, 1.5, 0.9]), np.array([1.0, 2.0, 1.0, 0.5])

    def cost(tau: float) -> float:
        areas = [quad(lambda x, v=v: np.exp(-tau * v * loss.value(np.array(x))), -60, 60, limit=200)[0] for v in w]
        return tau * float(w @ loss.value(r)) + float(np.log(areas).sum())

    assert log_likelihood(loss, r, w) == pytest.approx(max(-cost(tau) for tau in np.geomspace(0.3, 30, 300)), abs=1e-3)


def test_akaike_weights_are_shares():
    found = akaike_weights(np.array([10.0, 12.0, np.nan]))
    assert found[:2].sum() == pytest.approx(1.0)
    assert found[0] / found[1] == pytest.approx(np.e)
    assert np.isnan(found[2])
    assert np.isnan(akaike_weights(np.array([np.nan]))).all()


def test_an_exact_fit_has_no_criteria():
    exact = criteria(fit("L = c * N**a", {"params": [1e7, 1e8, 1e9], "loss": [4.0, 2.0, 1.0]}))
    assert np.isnan([exact.aicc, exact.bic]).all()
