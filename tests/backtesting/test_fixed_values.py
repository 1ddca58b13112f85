"""What forecasts owe to values that were fixed, not fitted."""

from __future__ import annotations

import lmfit
import numpy as np
import pandas as pd
import pytest

from scalefit._values import Observations
from scalefit.backtesting._extrapolate import Forecast, extrapolate
from scalefit.backtesting.fixed_values import _Opened, open_exponents
from scalefit.fitting.fit_law import fit_law as fit
from scalefit.laws.formula import Law
from scalefit.simulation import simulate_sweep
from scalefit.solvers.losses import Huber
from scalefit.surface.fit_surface import fit_surface
from scalefit.sweep import Sweep

HERO = {"params": 1e9, "tokens": 1e13, "batch": 32 * 8e5}
FORM = "eta = c * N**a * D**b * B**"


@pytest.fixture(scope="module")
def optima() -> pd.DataFrame:
    """Best rates that grow with B**0.35, over a factor of four in batch."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"params": np.repeat([1e8, 3e8, 1e9], 8), "tokens": np.tile(np.geomspace(1e9, 2e10, 8), 3)})
    table["batch"] = 2e5 * rng.choice([1, 2, 4], 24)
    law = 2e-3 * (table["params"] / 1e8) ** -0.4 * (table["tokens"] / 1e10) ** -0.1 * (table["batch"] / 2e5) ** 0.35
    return table.assign(lr=law * np.exp(0.05 * rng.normal(size=24)))


def told(forecast: Forecast) -> list:
    return [note for note in forecast.notes if note.code == "fixed"]


def fixed_at(value: float, name: str = "g") -> lmfit.Parameters:
    params = lmfit.Parameters()
    params.add(name, value=value, vary=False)
    return params


def test_a_fixed_exponent_is_moved_and_freed_by_fitting_again(optima):
    forecast = extrapolate(fit(f"{FORM}0.5", optima), **HERO)
    (row,) = forecast.fixed.to_dict("records")
    assert (row["setting"], row["parameter"], row["fixed"], row["point"]) == ("lr", "B_exponent", 0.5, 0)
    more, free = extrapolate(fit(f"{FORM}0.55", optima), **HERO).table["lr"][0], fit(f"{FORM}g", optima)
    freed = extrapolate(free, **HERO).table.iloc[0]
    assert row["moved_by"] == pytest.approx(more / forecast.table["lr"][0])
    assert row["freed_by"] == pytest.approx(freed["lr"] / forecast.table["lr"][0])
    assert [row["freed_lo"], row["freed_hi"]] == pytest.approx([freed["lr_lo"], freed["lr_hi"]])
    known = free.table.set_index("parameter").loc["g"]
    assert [row["preferred"], row["preferred_stderr"]] == pytest.approx([known["value"], known["stderr"]])
    assert row["z"] == pytest.approx((0.5 - known["value"]) / known["stderr"])
    (note,) = told(forecast)
    assert note.caution
    assert "the exponent of B is fixed at 0.5" in note.text
    assert "they reject it" in note.text
    assert note.text in repr(forecast)


def test_a_value_fixed_as_a_parameter_is_told_like_one_in_the_formula(optima):
    written = extrapolate(fit(f"{FORM}0.5", optima), **HERO).fixed
    fixed = extrapolate(fit(f"{FORM}g", optima, params=fixed_at(0.5)), **HERO).fixed
    assert fixed["parameter"].tolist() == ["g"]
    pd.testing.assert_frame_equal(written.drop(columns="parameter"), fixed.drop(columns="parameter"), rtol=1e-6)


def test_an_assumption_that_agrees_and_hardly_matters_is_no_caution(optima):
    inside = extrapolate(fit(f"{FORM}0.35", optima), params=3e8, tokens=1e10, batch=4e5)
    (note,) = told(inside)
    assert not note.caution
    assert abs(inside.fixed["z"].iloc[0]) < 2


def test_what_the_data_cannot_tell_is_the_users_word(optima):
    fitted = fit(f"{FORM}0.5", optima.assign(batch=2e5))
    far = extrapolate(fitted, **HERO)
    assert far.fixed[["preferred", "z", "freed_by"]].isna().all(axis=None)
    assert far.fixed["moved_by"].iloc[0] == pytest.approx(128**0.05)
    (note,) = told(far)
    assert note.caution
    assert "your assumption" in note.text
    (note,) = told(extrapolate(fitted, params=3e8, tokens=1e10, batch=2e5))
    assert not note.caution, "at the batch of the data the exponent plays no part"


def test_of_several_fixed_values_each_is_freed_alone_at_every_point(optima):
    fitted = fit("eta = c * N**-0.5 * D**b * B**g", optima, params=fixed_at(0.3))
    points = HERO | {"tokens": [1e12, 1e13]}
    rows = extrapolate(fitted, **points).fixed
    assert rows["parameter"].tolist() == ["g", "g", "N_exponent", "N_exponent"]
    assert rows["point"].tolist() == [0, 1, 0, 1]
    alone = fit("eta = c * N**-0.5 * D**b * B**g", optima)
    assert rows["preferred"].iloc[0] == pytest.approx(alone.values["g"])
    other = fit("eta = c * N**a * D**b * B**0.3", optima)
    assert rows["preferred"].iloc[2] == pytest.approx(other.values["a"])


def test_nothing_fixed_is_nothing_said(optima):
    forecast = extrapolate(fit(f"{FORM}g", optima), **HERO)
    assert forecast.fixed.empty
    assert not told(forecast)


def test_too_few_rows_to_free_a_value_is_no_failure():
    exact = fit("eta = c * D**-0.5", {"tokens": [1e10], "lr": [1e-3]})
    assert extrapolate(exact, tokens=1e12).fixed["z"].isna().all()


def test_laws_of_a_surface_are_freed_through_its_weighted_cells():
    runs = simulate_sweep(seed=1)
    sweep = Sweep.from_frame(runs.assign(diverged=runs["loss"].isna()))
    surface = fit_surface(sweep, batch_law="B = c * D**0.3", loss_law=None)
    rows = extrapolate(surface, params=1e10, tokens=1e13).fixed
    assert rows[["setting", "parameter"]].to_numpy().tolist() == [["batch", "D_exponent"]]
    free = fit("B = c * D**b", surface.batch_fit.rows, weights=surface.batch_fit.weights)
    assert rows["preferred"].iloc[0] == pytest.approx(free.values["b"], abs=1e-6)


@pytest.mark.parametrize("settings", [{}, {"loss": Huber(0.02)}, {"weights": np.arange(1.0, 25)}, {"shrink": 0.05}])
@pytest.mark.parametrize("bounds", [False, True])
def test_fitted_again_as_fixed_a_law_is_what_it_was(optima, settings, bounds):
    censored = np.where(np.arange(24) % 6 == 0, 1, 0) if bounds and "loss" not in settings else None
    form = "eta = c * (N/1e9)**a * (D/1e10)**b * exp(d * ln(N/1e9)**2) * B**0.5"
    fitted = fit(form, Observations(optima, censored=censored), **settings)
    again = _Opened(fitted)._as_fixed
    assert {name: again.values[name] for name in fitted.values} == pytest.approx(dict(fitted.values), rel=1e-4)


@pytest.mark.parametrize(
    ("formula", "opened", "values"),
    [
        ("eta = k * sqrt(B)", "eta = k * B ** B_exponent", {"B_exponent": 0.5}),
        ("eta = c * D**(-1/3)", "eta = c * D ** D_exponent", {"D_exponent": -1 / 3}),
        ("eta = c * (D/N)**2 * N**a", "eta = c * (D / N) ** D_N_exponent * N ** a", {"D_N_exponent": 2.0}),
        ("L = E + A/N**0.5 + B_0*D**-1", None, {"N_exponent": 0.5, "D_exponent": -1.0}),
        ("eta = c * N**0.5 * exp(N**0.1)", None, {"N_exponent": 0.5, "N_exponent_too": 0.1}),
    ],
)
def test_numbers_that_are_exponents_of_inputs_become_parameters(formula, opened, values):
    law, found = open_exponents(Law(formula))
    assert found == pytest.approx(values)
    assert opened is None or law.formula == opened
    assert set(law.parameters) == {*Law(formula).parameters, *values}


@pytest.mark.parametrize(
    "formula",
    ["eta = c * exp(d * ln(N)**2)", "eta = m / sqrt(1 + B_noise/B)", "eta = c * N**a", "eta = k * B", "eta = c**2 * N"],
)
def test_other_numbers_are_the_form_of_the_law(formula):
    law = Law(formula)
    assert open_exponents(law) == (law, {})
