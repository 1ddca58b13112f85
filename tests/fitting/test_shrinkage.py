"""Curvature drawn towards zero: what it costs when there is none, and what it gains when there is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scalefit._bootstrap import bootstrap
from scalefit.errors import FitError
from scalefit.fitting.fit_law import fit_law as fit
from scalefit.fitting.fit_result import Fit
from scalefit.fitting.shrinkage import bends, posterior
from scalefit.laws.formula import Law
from scalefit.selection.compare import compare

QUADRATIC = "lr_quadratic"


def grid(sizes: int = 5, budgets: int = 8) -> pd.DataFrame:
    levels = np.geomspace(6e7, 1.07e9, sizes), np.geomspace(2e9, 1e11, budgets)
    return pd.DataFrame([(n, d) for n in levels[0] for d in levels[1]], columns=["params", "tokens"])


def log_lr(cells: pd.DataFrame, interaction: float, curvature: float = 0.0) -> np.ndarray:
    n, d = (np.log(cells[name] / np.sqrt(edge)) for name, edge in (("params", 6e7 * 1.07e9), ("tokens", 2e20)))
    return (-7 - 0.7 * n + 0.3 * d + interaction * n * d + curvature * n**2).to_numpy()


def draw(seed: object, cells: pd.DataFrame, interaction: float = 0.0, noise: float = 0.2) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return cells.assign(lr=np.exp(log_lr(cells, interaction) + noise * rng.standard_normal(len(cells))))


FAR = pd.DataFrame({"params": [1.07e10], "tokens": [1e12]})


def far_off(interaction: float, draws: int, cells: pd.DataFrame) -> pd.DataFrame:
    """Root mean square error ten times out, and the share of new optima there inside the interval."""
    there = log_lr(FAR, interaction)[0]
    rows = []
    for seed in range(draws):
        table = draw([seed, 1], cells, interaction)
        new = there + 0.2 * np.random.default_rng([seed, 2]).standard_normal()
        fits = {law: fit(law, table) for law in ("lr_power", "lr_curved")} | {
            f"{law} shrunk": fit(law, table, shrink=True) for law in ("lr_curved", QUADRATIC)
        }
        for name, found in fits.items():
            told = found.predict(FAR).iloc[0]
            error = np.log(told["prediction"]) - there
            rows.append((name, error**2, told["lo"] < np.exp(new) < told["hi"]))
    found = pd.DataFrame(rows, columns=["law", "error", "inside"]).groupby("law").mean()
    return found.assign(error=np.sqrt(found["error"]))


@pytest.mark.filterwarnings("ignore::scalefit.errors.ExtrapolationWarning")
def test_it_costs_little_when_unneeded_and_gains_much_when_needed():
    straight, bent = far_off(0.0, 16, grid()), far_off(0.08, 16, grid())
    assert straight.at["lr_curved shrunk", "error"] < 0.8 * straight.at["lr_curved", "error"]
    assert straight.at["lr_curved shrunk", "error"] < straight.at["lr_power", "error"] + 0.2
    assert bent.at["lr_curved shrunk", "error"] < 0.6 * bent.at["lr_power", "error"]
    assert bent.at["lr_curved shrunk", "inside"] >= 0.8 > bent.at["lr_power", "inside"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::scalefit.errors.ExtrapolationWarning")
@pytest.mark.parametrize("interaction", [0.0, 0.03, 0.08])
def test_intervals_ten_times_out_cover_whatever_the_bend(interaction):
    found = far_off(interaction, 400, grid())
    for law in ("lr_curved shrunk", "lr_quadratic shrunk"):
        assert 0.91 <= found.at[law, "inside"] <= 1.0


def dense_posterior(found: Fit, scale: float, curved: list[int], per: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance by brute force: the ridge of every tau, weighed by its marginal likelihood."""
    _, jacobian = found.problem.values("log")(found.phi[None])
    design, y = jacobian[0].T, found.problem.observed
    taus = np.linspace(1e-4, 5 * scale, 4000)
    total, mean, second = 0.0, 0.0, 0.0
    for tau in taus:
        precision = np.zeros(len(found.phi))
        precision[curved] = (per / tau) ** 2
        inverse = np.linalg.inv(design.T @ design / found.scale**2 + np.diag(precision))
        point = inverse @ design.T @ y / found.scale**2
        prior = np.diag((tau / per) ** 2)
        marginal = found.covariance[np.ix_(curved, curved)] + prior
        u = found.phi[curved]
        log = -0.5 * np.linalg.slogdet(marginal)[1] - 0.5 * (found.dof + len(u)) * np.log1p(
            u @ np.linalg.solve(marginal, u) / found.dof
        )
        weight = np.exp(log - 0.5 * (tau / scale) ** 2)
        total, mean = total + weight, mean + weight * point
        second = second + weight * (inverse + np.outer(point, point))
    mean = mean / total
    return mean, second / total - np.outer(mean, mean)


def test_values_and_errors_are_those_of_the_posterior():
    table = draw(4, grid(), 0.05)
    free, found = fit(QUADRATIC, table), fit(QUADRATIC, table, shrink=0.05)
    assert found.scale == pytest.approx(free.scale, rel=0.02)
    mean, covariance = dense_posterior(free, 0.05, [3, 4, 5], np.array([1.0, 2.0, 2.0]))
    error = np.sqrt(np.diag(covariance))
    assert np.abs(found.phi - mean).max() < 0.05 * error.max()
    assert np.abs((found.phi - mean) / error).max() < 0.05
    assert found.table["stderr"].to_numpy()[1:] == pytest.approx(error[1:], rel=0.05)


def test_the_strength_of_the_prior_goes_from_straight_to_free():
    table = draw(5, grid(), 0.08)
    free, straight = fit("lr_curved", table), fit("lr_power", table)
    values = [abs(fit("lr_curved", table, shrink=scale).values["d"]) for scale in (1e-3, 0.01, 0.05, 0.3, 10.0)]
    assert (np.diff(values) > 0).all()
    assert values[-1] == pytest.approx(abs(free.values["d"]), rel=0.01)
    hard = fit("lr_curved", table, shrink=1e-4)
    assert hard.values["a"] == pytest.approx(straight.values["a"], abs=1e-3)
    assert hard.values["b"] == pytest.approx(straight.values["b"], abs=1e-3)


def test_which_parameters_are_curvatures():
    table = grid().assign(lr=lambda t: np.exp(log_lr(t, 0.05)), batch=1e6, x=np.arange(40.0))
    assert bends(fit("lr_curved", table)).tolist() == pytest.approx([0, 0, 0, 1])
    assert bends(fit(QUADRATIC, table)).tolist() == pytest.approx([0, 0, 0, 1, 2, 2])
    own = fit(Law("eta = c * N**a * exp(q * ln(N)**2)", positive={"c"}), table, shrink=True)
    assert bends(own).tolist() == pytest.approx([0, 0, 2])
    assert own.status.name == "CONVERGED"
    assert not bends(fit("lr_power", table)).any()
    held = fit("lr_curved", table, params=_held("lr_curved", "d"))
    assert not bends(held).any()


def _held(law: str, name: str):
    import lmfit

    params = lmfit.Parameters()
    for own, value in {"c": 1e-3, "a": -0.7, "b": 0.3, "d": 0.0}.items():
        params.add(own, value=value, vary=own != name)
    return params


def test_a_law_without_curvature_is_left_alone_and_says_so():
    table = draw(6, grid())
    for law in ("lr_power", "lr_offset"):
        free, found = fit(law, table), fit(law, table, shrink=True)
        assert found.phi == pytest.approx(free.phi)
        assert "nothing is shrunk" in "".join(note.text for note in found.notes if note.code == "shrink")
    (note,) = (n for n in fit("lr_curved", table, shrink=True).notes if n.code == "shrink")
    assert "drawn towards 0" in note.text
    assert " d from " in note.text


def test_an_exact_fit_gets_its_scatter_from_the_straight_law():
    cells = pd.DataFrame([(n, d) for n in (1e8, 2e8, 5e8) for d in (1e9, 1e10)], columns=["params", "tokens"])
    table = draw(7, cells.assign(tokens=[1e9, 1e10, 2e9, 1e10, 1e9, 4e9]))
    free, found = fit(QUADRATIC, table), fit(QUADRATIC, table, shrink=True)
    straight = fit("lr_power", table)
    assert free.dof == 0
    assert found.dof == straight.dof == 3
    assert found.scale >= straight.scale * (1 - 1e-6)
    assert all(abs(found.values[name]) < 0.5 * abs(free.values[name]) for name in "def")
    assert found.values["a"] == pytest.approx(straight.values["a"], abs=0.6)


def test_an_estimate_the_prior_excludes_raises_the_scatter():
    phi, bend = np.array([[0.0, 5.0]]), np.array([0.0, 1.0])
    covariance = np.diag([1e-4, 1e-4])[None]
    mean, _, larger = posterior(phi, covariance, bend, 0.05, 1)
    assert larger[0] > 10
    assert abs(mean[0, 1]) < 0.5
    sure, _, larger = posterior(phi * 0.02, covariance, bend, 0.05, 30)
    assert larger[0] < 1.1
    assert sure[0, 1] == pytest.approx(0.1, rel=0.2)


def test_refits_are_shrunk_as_the_fit_was():
    table = draw(8, grid(), 0.05)
    found, free = fit("lr_curved", table, shrink=True), fit("lr_curved", table)
    draws = bootstrap(found, n=300, by="row", seed=1)
    assert draws.table["d"].mean() == pytest.approx(found.values["d"], abs=0.02)
    assert draws.stderr["d"] < bootstrap(free, n=300, by="row", seed=1).stderr["d"]
    rows = compare([found, fit("lr_power", table)])
    row = rows.table.set_index("law").loc["lr_curved"]
    assert np.isnan(row["aicc"])
    squares = []
    for k in range(len(table)):
        again = fit("lr_curved", table.drop(index=k), shrink=True)
        squares.append(np.log(table["lr"][k] / again.law(again.values, table.iloc[[k]])[0]) ** 2)
    assert row["leave_out"] == pytest.approx(np.sqrt(np.mean(squares)), rel=0.01)


def test_round_trip_and_refusals():
    table = draw(9, grid())
    found = fit("lr_curved", table, shrink=0.1)
    again = Fit.from_json(found.to_json())
    assert again.shrinkage == 0.1
    assert repr(again) == repr(found)
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(FitError, match="shrink"):
            fit("lr_curved", table, shrink=wrong)
    with pytest.raises(FitError, match="log"):
        fit("lr_curved", table, shrink=True, space="plain")
    with pytest.raises(FitError, match="prior"):
        found.to_lmfit()
