"""Laws for the learning rate: what each says at its limits, that it is found without a start, and nested tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import scalefit as sf
from scalefit import FitStatus, laws
from scalefit._values import Observations

POWER = {"c": 1e-3, "a": -0.7, "b": 0.2}


def design(sizes: int = 7, seed: int = 3) -> pd.DataFrame:
    """Cells over three decades of N and of D, with batches out of step with both."""
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e10, sizes), np.geomspace(1e9, 1e12, sizes)))
    batch = np.random.default_rng(seed).permutation(np.geomspace(3e4, 3e7, len(n)))
    return pd.DataFrame({"params": n, "tokens": d, "batch": batch})


def made(name: str, truth: dict[str, float], noise: float = 0.0, seed: int = 0) -> pd.DataFrame:
    table = design()
    scatter = np.exp(noise * np.random.default_rng(seed).normal(size=len(table)))
    return table.assign(lr=laws.get_law(name)(truth, table) * scatter)


def slope(name: str, truth: dict[str, float], column: str, at: dict[str, float]) -> float:
    """Return the local exponent of one input."""
    law, step = laws.get_law(name), 1e-4
    ahead, behind = (law(truth, at | {column: at[column] * np.exp(s * step)}) for s in (1, -1))
    return float(np.log(ahead / behind) / (2 * step))


@pytest.mark.parametrize(("name", "column"), [("lr_curved_params", "params"), ("lr_curved_tokens", "tokens")])
def test_curvature_in_one_input_bends_that_input_only(name: str, column: str) -> None:
    truth = POWER | {"d": 0.05}
    here = {"params": 1e9, "tokens": 1e11}
    assert set(laws.get_law(name).derivation.linear("log")) == set(truth)
    for moved in here:
        e_folds = 3.0
        change = slope(name, truth, moved, here | {moved: here[moved] * np.exp(e_folds)}) - slope(
            name, truth, moved, here
        )
        assert change == pytest.approx(2 * 0.05 * e_folds if moved == column else 0.0, abs=1e-6)
    assert float(laws.get_law(name)(truth, here)) == pytest.approx(1e-3)


def test_curved_laws_are_the_quadratic_with_terms_left_out() -> None:
    table = design()
    quadratic = laws.get_law("lr_quadratic")
    for name, held in [("lr_curved", "d"), ("lr_curved_params", "e"), ("lr_curved_tokens", "f")]:
        terms = {"d": 0.0, "e": 0.0, "f": 0.0} | {held: 0.04}
        np.testing.assert_allclose(
            laws.get_law(name)(POWER | {"d": 0.04}, table), quadratic(POWER | terms, table), rtol=1e-12
        )


def test_an_offset_is_a_floor_and_runs_to_zero_where_there_is_none() -> None:
    truth = POWER | {"e_0": 2e-4}
    far = {"params": 1e18, "tokens": 1e11}
    assert float(laws.get_law("lr_offset")(truth, far)) == pytest.approx(2e-4, rel=1e-2)
    assert slope("lr_offset", truth, "params", {"params": 1e6, "tokens": 1e11}) == pytest.approx(-0.7, abs=0.01)
    fit = sf.fit("lr_offset", made("lr_power", {"c": 20.0, "a": -0.7, "b": 0.2}))
    assert fit.status is FitStatus.AT_BOUND
    assert fit.values["e_0"] < 1e-9
    assert fit.values["a"] == pytest.approx(-0.7, abs=1e-4)


def test_a_broken_power_law_has_one_exponent_below_and_another_above() -> None:
    truth = {"c": 2e-3, "a": -0.4, "b": 0.2, "N_b": 4e8, "d": 0.25}
    at = {"params": 4e8, "tokens": 1e11}
    assert float(laws.get_law("lr_broken_params")(truth, at)) == pytest.approx(2e-3)
    assert slope("lr_broken_params", truth, "params", at) == pytest.approx(-0.4, abs=1e-6)
    assert slope("lr_broken_params", truth, "params", at | {"params": 4e0}) == pytest.approx(-0.65, abs=1e-3)
    assert slope("lr_broken_params", truth, "params", at | {"params": 4e16}) == pytest.approx(-0.15, abs=1e-3)
    bend = 4e8 * np.array([14**-0.5, 14**0.5])
    low, high = (slope("lr_broken_params", truth, "params", at | {"params": n}) for n in bend)
    assert (high - low) / 0.5 == pytest.approx(0.8, abs=0.005)
    assert slope("lr_broken_params", truth, "tokens", at) == pytest.approx(0.2, abs=1e-6)


def test_time_transfer_grows_as_the_root_of_the_batch_below_the_critical_one_and_falls_above() -> None:
    name, truth = "lr_time_transfer", {"c": 4e-3, "h": -0.1, "k": 2e-5}
    critical = 2e-5 * 1e11
    at = {"batch": critical, "tokens": 1e11}
    assert slope(name, truth, "batch", at | {"batch": critical * 1e-5}) == pytest.approx(0.5, abs=1e-4)
    assert slope(name, truth, "batch", at) == pytest.approx(0.0, abs=1e-6)
    assert slope(name, truth, "batch", at | {"batch": critical * 1e5}) == pytest.approx(-0.5, abs=1e-4)
    assert float(laws.get_law(name)(truth, at)) == pytest.approx(4e-3)
    longer = {"batch": critical * 8, "tokens": 8e11}  # the critical batch grows in proportion to the tokens
    assert slope(name, truth, "batch", longer) == pytest.approx(0.0, abs=1e-6)
    assert float(laws.get_law(name)(truth, longer)) == pytest.approx(4e-3 * 8**-0.1)


@pytest.mark.parametrize("h", [0.0, -0.2])
def test_time_transfer_has_three_regimes_in_the_tokens(h: float) -> None:
    name, truth = "lr_time_transfer", {"c": 4e-3, "h": h, "k": 2e-5}
    crossing = 1e6 / 2e-5
    found = [slope(name, truth, "tokens", {"batch": 1e6, "tokens": crossing * f}) for f in (1e-5, 1.0, 1e5)]
    assert found == pytest.approx([h + 0.5, h, h - 0.5], abs=1e-4)


def test_time_transfer_is_the_family_it_was_written_for() -> None:
    table, k, h = design(), 2e-5, -0.1
    root = (
        np.sqrt(table["batch"] / 1e6)
        * (table["tokens"] / 1e11) ** (h - 0.5)
        / (1 + table["batch"] / (k * table["tokens"]))
    )
    written = laws.get_law("lr_time_transfer")({"c": 4e-3, "h": h, "k": k}, table)
    ratio = written / root
    np.testing.assert_allclose(ratio, np.mean(ratio), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "truth"),
    [
        *[("lr_offset", POWER | {"e_0": value}) for value in (1e-6, 1e-5, 1e-3)],
        *[
            ("lr_broken_params", {"c": 2e-3, "a": a, "b": 0.2, "N_b": n, "d": d})
            for n in (3e7, 1e9, 6e9)
            for a, d in ((-0.7, 0.2), (-0.4, 0.4), (-0.5, -0.2))
        ],
        *[("lr_time_transfer", {"c": 4e-3, "h": h, "k": k}) for h in (-0.4, 0.0, 0.3) for k in (1e-7, 1e-5, 1e-3)],
    ],
)
def test_other_truths_are_found_without_a_start(name: str, truth: dict[str, float]) -> None:
    fit = sf.fit(name, made(name, truth))
    assert fit.status is FitStatus.CONVERGED
    for parameter, value in truth.items():
        assert fit.values[parameter] == pytest.approx(value, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "truth"),
    [
        ("lr_curved_params", POWER | {"d": 0.04}),
        ("lr_curved_tokens", POWER | {"d": 0.03}),
        ("lr_offset", POWER | {"e_0": 2e-4}),
        ("lr_broken_params", {"c": 2e-3, "a": -0.4, "b": 0.2, "N_b": 4e8, "d": 0.25}),
        ("lr_time_transfer", {"c": 4e-3, "h": -0.1, "k": 2e-5}),
    ],
)
def test_noise_of_a_tenth_leaves_the_truth_within_its_errors(name: str, truth: dict[str, float]) -> None:
    fits = [sf.fit(name, made(name, truth, noise=0.1, seed=seed)) for seed in range(12)]
    assert all(fit.status is FitStatus.CONVERGED for fit in fits)
    inside = []
    for fit in fits:
        table = fit.table.set_index("parameter")
        inside += [table.loc[p, "lo"] <= value <= table.loc[p, "hi"] for p, value in truth.items()]
    assert np.mean(inside) > 0.85


# -- SGD as Bayesian sampling, as a nested test ------------------------------------------------------------------------


def distance_from_bayes(fit: sf.Fit) -> float:
    """Return the Wald distance, per restriction, of the exponents from those of k N B / D."""
    names = ["a", "b", "g"]
    off = np.array([fit.values[name] for name in names]) - np.array([1.0, -1.0, 1.0])
    return float(off @ np.linalg.solve(fit.natural_covariance.loc[names, names].to_numpy(), off)) / 3


def test_data_made_by_the_bayes_law_pass_its_test() -> None:
    for seed in range(5):
        table = made("bayes_lw", {"k": 2.0}, noise=0.1, seed=seed)
        assert distance_from_bayes(sf.fit("lr_power_batch", table)) < 4.5
        assert sf.fit("bayes_lw", table).values["k"] == pytest.approx(2.0, rel=0.1)


def test_the_step_law_sweep_fails_it(shared_data: Callable[[str], Path]) -> None:
    raw = pd.read_csv(shared_data("steplaw_dense_lr_bs.csv"))
    runs = {"lr": raw["lr"], "batch": raw["bs"] * 2048.0, "params": raw["N"], "tokens": raw["D"]}
    optima = sf.find_optima(sf.Sweep.from_frame(pd.DataFrame(runs | {"loss": raw["smooth loss"]})))
    free, bayes = sf.fit("lr_power_batch", optima), sf.fit("bayes_lw", optima)
    assert distance_from_bayes(free) > 100
    assert bayes.scale > 4 * free.scale
    assert free.values["a"] < 0  # the sign of N is the other way round
    assert 0 < free.values["g"] < 1


# -- the batch, at a fixed model and horizon ---------------------------------------------------------------------------

NOISE = {"eta_max": 2e-3, "B_noise": 1e6}


@pytest.mark.parametrize(
    ("name", "extra", "below", "at", "above"),
    [
        ("lr_sgd", {"alpha": 0.7}, 0.7, 0.35, 0.0),
        ("lr_sgd_exact", {}, 1.0, 0.5, 0.0),
        ("lr_saturating", {}, 0.5, 0.25, 0.0),
        ("lr_surge", {}, 0.5, 0.0, -0.5),
    ],
)
def test_exponents_of_the_batch_below_at_and_above_the_noise_scale(
    name: str, extra: dict[str, float], below: float, at: float, above: float
) -> None:
    truth = NOISE | extra
    found = [slope(name, truth, "batch", {"batch": batch}) for batch in (1e-1, 1e6, 1e13)]
    assert found == pytest.approx([below, at, above], abs=1e-3)


def test_heights_at_the_noise_scale_and_far_above() -> None:
    table = {"batch": np.array([1e6, 1e16])}
    np.testing.assert_allclose(laws.get_law("lr_surge")(NOISE, table), [2e-3, 4e-8], rtol=1e-6)
    np.testing.assert_allclose(laws.get_law("lr_sgd_exact")(NOISE, table), [1e-3, 2e-3], rtol=1e-6)
    np.testing.assert_allclose(laws.get_law("lr_saturating")(NOISE, table), [2e-3 / np.sqrt(2), 2e-3], rtol=1e-6)
    drop = laws.get_law("drop_batch")({"dL_max": 0.2, "B_noise": 1e6}, table)
    np.testing.assert_allclose(drop, [0.1, 0.2], rtol=1e-6)


def test_every_rule_over_the_batch_is_a_case_of_the_law_above_it() -> None:
    batch = np.geomspace(1e3, 1e8, 11)
    table, far = {"batch": batch}, 1e16

    def value(name: str, **values: float) -> np.ndarray:
        return laws.get_law(name)(values, table)

    sgd = value("lr_sgd", **NOISE, alpha=0.7)
    np.testing.assert_allclose(value("lr_bent", B_noise=1e6, eta_b=2e-3 / 2**0.7, p=0.7, q=0.7), sgd, rtol=1e-12)
    np.testing.assert_allclose(
        value("lr_bent", B_noise=1e6, eta_b=2e-3, p=0.5, q=1.0), value("lr_surge", **NOISE), rtol=1e-12
    )
    np.testing.assert_allclose(value("lr_sgd_exact", **NOISE), value("lr_sgd", **NOISE, alpha=1.0), rtol=1e-12)
    np.testing.assert_allclose(value("lr_saturating", **NOISE), value("lr_sgd", **NOISE, alpha=0.5), rtol=1e-12)
    root, line = value("lr_sqrt", k=1e-6), value("lr_linear", k=1e-9)
    np.testing.assert_allclose(value("lr_batch_power", k=1e-6, g=0.5), root, rtol=1e-12)
    np.testing.assert_allclose(value("lr_batch_power", k=1e-9, g=1.0), line, rtol=1e-12)
    np.testing.assert_allclose(value("lr_saturating", B_noise=far, eta_max=1e-6 * far**0.5), root, rtol=1e-7)
    np.testing.assert_allclose(value("lr_surge", B_noise=far, eta_max=5e-7 * far**0.5), root, rtol=1e-7)
    np.testing.assert_allclose(value("lr_sgd_exact", B_noise=far, eta_max=1e-9 * far), line, rtol=1e-7)
    power = value("lr_batch_power", k=1e-8, g=0.7)
    np.testing.assert_allclose(value("lr_sgd", B_noise=far, eta_max=1e-8 * far**0.7, alpha=0.7), power, rtol=1e-7)


def test_names_of_the_papers_are_the_same_laws() -> None:
    assert laws.get_law("mccandlish2018_lr") == laws.get_law("lr_sgd")
    assert laws.get_law("li2024_surge") == laws.get_law("lr_surge")


@pytest.mark.parametrize(
    ("name", "truth"),
    [
        *[("lr_sgd", {"eta_max": 0.01, "B_noise": b, "alpha": a}) for b in (1e5, 1e6, 1e7) for a in (0.4, 0.8, 1.2)],
        *[("lr_surge", {"eta_max": 0.01, "B_noise": b}) for b in (1e4, 1e6, 1e8)],
        *[
            ("lr_bent", {"eta_b": 1e-3, "B_noise": b, "p": p, "q": q})
            for b in (3e5, 3e6)
            for p, q in ((0.5, 1), (0.8, 0.4))
        ],
        *[("drop_batch", {"dL_max": 0.1, "B_noise": b}) for b in (1e4, 1e6, 1e8)],
    ],
)
def test_laws_over_the_batch_are_found_without_a_start(name: str, truth: dict[str, float]) -> None:
    law = laws.get_law(name)
    column = "lr" if law.target == "eta" else law.target
    fit = sf.fit(name, design().assign(**{column: law(truth, design())}))
    assert fit.status is FitStatus.CONVERGED
    assert fit.space == "log"
    for parameter, value in truth.items():
        assert fit.values[parameter] == pytest.approx(value, rel=1e-6, abs=1e-9)


def test_a_critical_batch_is_fitted_in_logs_from_anything_that_offers_it() -> None:
    class Trade:
        def observations(self, target: str) -> Observations:
            assert target == "B_crit"
            loss = np.linspace(2.5, 3.5, 8)
            scatter = np.exp(0.05 * np.random.default_rng(0).normal(size=8))
            rows = pd.DataFrame({"loss": loss, "params": 1e8, "B_crit": 2e8 / loss ** (1 / 0.21) * scatter})
            return Observations(rows, np.linspace(1, 2, 8))

    fit = sf.fit("bcrit_loss", Trade())
    assert fit.space == "log"
    table = fit.table.set_index("parameter")
    assert table.loc["alpha_B", "lo"] < 0.21 < table.loc["alpha_B", "hi"]
    assert table.loc["B_star", "lo"] < 2e8 < table.loc["B_star", "hi"]
    assert sf.fit("B_crit = c * N**a", {"params": [1e7, 1e8, 1e9], "B_crit": [1e5, 2e5, 4e5]}).space == "log"
    with pytest.raises(sf.FitError, match="needs a positive B_crit"):
        sf.fit("bcrit_loss", {"loss": [2.0, 3.0, 4.0], "B_crit": [1e6, -1.0, 1e5]})
