"""What a fit shows and promises: statuses with a remedy, frozen values, displays that escape, errors beside values."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import lmfit
import numpy as np
import pandas as pd
import pytest

import scalefit as sf
from scalefit import FitError, FitStatus
from scalefit._values import Note

TRUTH = {"E": 1.8, "A": 480.0, "alpha": 0.35, "B": 2100.0, "beta": 0.37}


def made(noise: float = 0.005, **changes: float) -> pd.DataFrame:
    axes = np.meshgrid(np.geomspace(1e7, 1e10, 7), np.geomspace(1e9, 1e12, 7))
    table = pd.DataFrame({"params": axes[0].ravel(), "tokens": axes[1].ravel()})
    scatter = np.exp(noise * np.random.default_rng(0).normal(size=49))
    return table.assign(loss=sf.laws.get_law("chinchilla")(TRUTH | changes, table) * scatter)


@pytest.fixture(scope="module")
def fitted() -> sf.Fit:
    return sf.fit("chinchilla", made(), loss=sf.Huber(1e-3))


def bounded() -> sf.Fit:
    params = lmfit.Parameters()
    params.add("alpha", value=0.3, max=0.33)
    return sf.fit("chinchilla", made(), params=params)


def vanishing() -> sf.Fit:
    # A floor below zero: the best positive one is none at all.
    below = made(noise=0.0).assign(loss=lambda t: t["loss"] - 1.9)
    return sf.fit("chinchilla", below[below["loss"] > 0.05])


def unfinished() -> sf.Fit:
    return replace(sf.fit("chinchilla", made()), status=FitStatus.NOT_CONVERGED)


@pytest.mark.parametrize(
    ("fit", "status"),
    [
        (sf.fit("chinchilla", made()), FitStatus.CONVERGED),
        (bounded(), FitStatus.AT_BOUND),
        (vanishing(), FitStatus.AT_BOUND),
        (sf.fit("chinchilla", made().assign(params=1e9)), FitStatus.ILL_CONDITIONED),
        (unfinished(), FitStatus.NOT_CONVERGED),
    ],
    ids=["converged", "bounded", "vanishing", "one size", "unfinished"],
)
def test_every_status_has_its_sentence_and_remedy_on_the_face(fit: sf.Fit, status: FitStatus) -> None:
    assert fit.status is status
    for shown in (repr(fit), fit._repr_html_()):
        assert f"{status.name}: {status.sentence}" in shown
        assert (status.remedy in shown) == (status is not FitStatus.CONVERGED)
    marked = {state for state in fit.table["status"] if state != "free"}
    expected = {FitStatus.AT_BOUND: {"at bound"}, FitStatus.ILL_CONDITIONED: {"unidentified"}}
    assert marked == expected.get(status, set())


def test_a_coefficient_that_runs_to_zero_is_told() -> None:
    fit = sf.fit("chinchilla", made(E=1e-9, noise=0.02))
    table = fit.table.set_index("parameter")
    if fit.status is FitStatus.AT_BOUND:
        assert any(note.code == "vanished" and "E" in note.text and note.caution for note in fit.notes)
        assert table.loc["E", "status"] == "at bound"
        assert np.isnan(table.loc["E", "stderr"])
    else:  # the noise may leave a small positive floor: then its interval must reach down to nothing
        assert table.loc["E", "lo"] < 0.05
    assert table.loc["alpha", "value"] == pytest.approx(0.35, abs=4 * table.loc["alpha", "stderr"])


def test_a_floor_below_zero_runs_to_zero_and_is_told() -> None:
    table = made(noise=0.0)
    table["loss"] = table["loss"] - 1.9
    fit = sf.fit("chinchilla", table[table["loss"] > 0.05])
    assert fit.status is FitStatus.AT_BOUND
    (note,) = (note for note in fit.notes if note.code == "vanished")
    assert note.text == "the data do not need the term of E, which ran to zero"
    assert np.isnan(fit.table.set_index("parameter").loc["E", "stderr"])
    assert note.text in repr(fit)


def test_the_solver_that_runs_out_of_steps_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from scalefit.fitting import search

    monkeypatch.setattr(search, "_STEPS", 1)
    monkeypatch.setattr(search, "_SCOUT_STEPS", 1)
    monkeypatch.setattr(search, "_REFIT_STEPS", 1)
    fit = sf.fit("skaling", made(), loss=sf.Huber(1e-3))
    assert fit.status is FitStatus.NOT_CONVERGED
    assert "no number here should be used" in repr(fit)
    assert "unfinished" in {note.code for note in fit.notes}
    with pytest.raises(FitError, match="only a converged fit"):
        sf.bootstrap(fit)


def test_the_table_holds_values_errors_and_intervals(fitted: sf.Fit) -> None:
    table = fitted.table
    assert list(table) == ["parameter", "value", "stderr", "lo", "hi", "status"]
    assert table["parameter"].tolist() == ["E", "A", "alpha", "B", "beta"]
    assert ((table["lo"] < table["value"]) & (table["value"] < table["hi"])).all()
    np.testing.assert_allclose(table["value"] / table["lo"], table["hi"] / table["value"], rtol=1e-12)
    wide = fitted.intervals(0.99)
    assert (wide["lo"] < table["lo"]).all()
    np.testing.assert_allclose(wide["stderr"], table["stderr"])


def test_natural_errors_are_first_order(fitted: sf.Fit) -> None:
    values = np.array(list(fitted.values.values()))
    np.testing.assert_allclose(fitted.table["stderr"], values * np.sqrt(np.diag(fitted.covariance)), rtol=1e-12)
    matrix = fitted.natural_covariance
    assert matrix.loc["A", "alpha"] == pytest.approx(
        fitted.values["A"] * fitted.values["alpha"] * fitted.covariance[1, 2]
    )
    correlation = fitted.params["A"].correl["alpha"]
    assert correlation == pytest.approx(
        matrix.loc["A", "alpha"] / fitted.params["A"].stderr / fitted.params["alpha"].stderr
    )
    assert 0.9 < correlation <= 1


def test_value_and_error_are_rounded_together(fitted: sf.Fit) -> None:
    line = next(line for line in repr(fitted).splitlines() if line.strip().startswith("alpha"))
    value, error = fitted.values["alpha"], fitted.table.set_index("parameter").loc["alpha", "stderr"]
    shown = line.split()[1]
    digits = len(shown.split("(")[0].split(".")[1])
    assert float(shown.split("(")[0]) == round(value, digits)
    assert int(shown.split("(")[1].rstrip(")")) * 10.0**-digits == pytest.approx(error, rel=0.2)


def test_the_face_says_what_was_done(fitted: sf.Fit) -> None:
    text = repr(fitted)
    for words in ("Fit of L = E + A/N**alpha + B/D**beta (chinchilla)", "49 rows from table", "N = params, D = tokens"):
        assert words in text
    assert "Huber(delta=0.001) in log space" in text
    assert "of log L" in text
    assert "irreducible loss" in text


def test_html_escapes_what_came_from_outside(fitted: sf.Fit) -> None:
    noted = fitted.with_notes(Note("x", "<script>alert(1)</script>", caution=True))
    assert noted.notes[-1].code == "x"
    assert fitted.notes != noted.notes
    html = replace(noted, source="<b>runs</b>")._repr_html_()
    assert "<script>" not in html
    assert "<b>runs</b>" not in html
    assert "&lt;script&gt;" in html


def test_a_fit_cannot_be_changed(fitted: sf.Fit) -> None:
    before = fitted.to_json()
    with pytest.raises(FrozenInstanceError):
        fitted.status = FitStatus.AT_BOUND  # type: ignore[misc]
    for array in (fitted.phi, fitted.covariance, fitted.weights, fitted.cells, fitted.lower, fitted.upper):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(TypeError):
        fitted.values["A"] = 1.0  # type: ignore[index]
    for frame in (fitted.table, fitted.rows, fitted.natural_covariance):
        frame.iloc[0, 1] = 99.0
    params = fitted.params
    params["A"].value = 99.0
    assert fitted.to_json() == before
    assert 99.0 not in (fitted.table.iloc[0, 1], fitted.rows.iloc[0, 1], fitted.natural_covariance.iloc[0, 1])
    assert fitted.params["A"].value != 99.0


def test_the_users_weights_stay_writable() -> None:
    weights = np.ones(49)
    fit = sf.fit("chinchilla", made(), weights=weights)
    weights[0] = 2.0
    assert fit.weights[0] == 1.0


def test_residuals_are_observed_minus_fitted(fitted: sf.Fit) -> None:
    table = made()
    expected = np.log(table["loss"] / fitted.law(fitted.values, table))
    np.testing.assert_allclose(fitted.residuals, expected, atol=1e-13)
    assert fitted.loss.value(fitted.residuals).sum() == pytest.approx(fitted.objective, rel=1e-12)
    assert (fitted.n, fitted.dof) == (49, 44)


def test_the_scatter_is_found_again() -> None:
    for loss in (sf.Squared(), sf.Huber(1e-3)):
        assert sf.fit("chinchilla", made(noise=0.02), loss=loss).scale == pytest.approx(0.02, rel=0.3)
