"""Forecasts: prediction, interval, reach, the error measured there, and every caveat."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pandas as pd
import pytest

from scalefit._values import Note
from scalefit.backtesting._backtest import Backtest, backtest
from scalefit.backtesting._extrapolate import Forecast, extrapolate
from scalefit.backtesting.competitors import Entrant
from scalefit.errors import ExtrapolationWarning, FitError, LawError
from scalefit.fitting.fit_law import fit_law as fit
from scalefit.fitting.fit_result import Fit
from scalefit.fitting.fit_values import FitStatus
from scalefit.optima.find_optima import find_optima
from scalefit.optima.optimum_estimators import Parabola
from scalefit.selection.average_laws import average_laws
from scalefit.simulation import simulate_sweep
from scalefit.surface.fit_surface import fit_surface
from scalefit.surface.surface import Surface
from scalefit.sweep import Sweep


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    runs = simulate_sweep(seed=1)
    return Sweep.from_frame(runs.assign(diverged=runs["loss"].isna()), source="simulated")


@pytest.fixture(scope="module")
def fitted(sweep) -> Fit:
    return fit("lr_power", find_optima(sweep, over=("lr", "batch"), method=Parabola()))


@pytest.fixture(scope="module")
def surface(sweep) -> Surface:
    return fit_surface(sweep)


@pytest.fixture(scope="module")
def report(sweep) -> Backtest:
    return backtest(sweep, ["largest params", "largest tokens"])


def codes(forecast: Forecast) -> list[str]:
    return [note.code for note in forecast.notes]


def told(forecast: Forecast, code: str) -> str:
    return " ".join(note.text for note in forecast.notes if note.code == code)


def test_a_fit_is_predicted_as_it_predicts_without_a_warning(fitted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = extrapolate(fitted, params=[1e8, 7e9], tokens=1.4e12).table
    with pytest.warns(match="beyond the range"):
        plain = fitted.predict(params=[1e8, 7e9], tokens=1.4e12)
    assert np.allclose(table[["lr", "lr_lo", "lr_hi", "reach"]], plain[["prediction", "lo", "hi", "reach"]], rtol=1e-12)
    assert list(table["reach_params"]) == [1.0, 7e9 / fitted.rows["params"].max()]
    assert table["reach_tokens"].to_numpy() == pytest.approx(1.4e12 / fitted.rows["tokens"].max())
    assert (table["reach"] == table[["reach_params", "reach_tokens"]].max(axis=1)).all()


def test_a_surface_is_predicted_as_it_predicts(surface):
    table = extrapolate(surface, N=7e9, tokens=1.4e12, level=0.8).table
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = surface.optimum(params=7e9, tokens=1.4e12, level=0.8)
    names = ["lr", "lr_lo", "lr_hi", "batch", "batch_lo", "batch_hi", "reach"]
    assert np.allclose(table[names], plain[names], rtol=1e-12)
    assert {"reach_params", "reach_tokens"} <= set(table)


def test_reach_is_that_of_the_law_that_reaches_farthest(surface):
    """The batch law may read tokens alone, or have been fitted to fewer cells."""
    rows = surface.batch_fit.rows
    short = dataclasses.replace(
        surface, batch_fit=fit("batch_power_tokens", rows[rows["tokens"] < rows["tokens"].max()])
    )
    top = rows["tokens"].max()
    assert extrapolate(surface, params=1e8, tokens=top).table["reach"].iloc[0] == 1.0
    assert extrapolate(short, params=1e8, tokens=top).table["reach_tokens"].iloc[0] > 1.5


def test_every_note_since_the_loader_comes_along_cautions_first(fitted):
    noted = fitted.with_notes(Note("seeds", "12 runs repeat"), Note("diverged", "3 runs diverged", caution=True))
    forecast = extrapolate(noted, params=7e9, tokens=1.4e12)
    assert set(noted.notes) <= set(forecast.notes)
    assert {"seeds", "diverged", "reach"} <= set(codes(forecast))
    cautions = [note.caution for note in forecast.notes]
    assert cautions == sorted(cautions, reverse=True)


def test_notes_of_a_surface_and_of_its_laws_come_along(surface):
    marked = dataclasses.replace(surface, lr_fit=surface.lr_fit.with_notes(Note("mark", "of the lr law")))
    forecast = extrapolate(marked, params=1e8, tokens=1e10)
    assert set(surface.notes) <= set(forecast.notes)
    assert "mark" in codes(forecast)


def test_inside_the_data_nothing_is_said_of_reach(fitted):
    forecast = extrapolate(fitted, params=1e8, tokens=1e10)
    assert forecast.table["reach"].iloc[0] == 1.0
    assert not {"reach", "untested", "tested"} & set(codes(forecast))


def test_without_a_backtest_a_reach_is_untested(fitted):
    assert "backtest" in told(extrapolate(fitted, params=7e9, tokens=1e10), "untested")


def test_a_status_comes_with_its_remedy():
    line = pd.DataFrame({"params": [1e7, 1e8, 1e9], "tokens": [1e9, 1e10, 1e11], "lr": [3e-3, 1e-3, 4e-4]})
    poor = fit("lr_power", line)
    assert poor.status is FitStatus.ILL_CONDITIONED
    forecast = extrapolate(poor, params=1e10, tokens=1e11)
    assert poor.status.remedy in told(forecast, "status")
    assert "no finite interval" in told(forecast, "interval")
    assert "ILL_CONDITIONED" in repr(forecast)


def test_the_nearest_fold_in_the_same_direction_is_quoted(report, fitted):
    record = report.table.query("entrant == 'Parabola: lr_power'")
    top = fitted.rows.max()
    forecast = extrapolate(fitted, params=[2 * top["params"], 1e8], tokens=[1e10, 2 * top["tokens"]], backtest=report)
    for row, kind in enumerate(("params", "tokens")):
        cells = record[record["beyond"] == kind]
        own = forecast.table.iloc[row]
        assert own["tested_lr_log2"] == pytest.approx(cells["log2_lr_error"].abs().mean())
        assert own["tested_regret_pct"] == pytest.approx(cells["regret_pct"].mean())
        assert own["tested_reach"] == pytest.approx(np.exp(np.log(cells["reach"]).mean()))
        assert f"largest {kind}" in told(forecast, "tested")
    assert "Parabola: lr_power" in told(forecast, "tested")
    assert not {"untested", "direction"} & set(codes(forecast))


def test_beyond_the_tested_reach_is_said_plainly(report, fitted):
    top = fitted.rows["params"].max()
    forecast = extrapolate(fitted, params=100 * top, tokens=1e10, backtest=report)
    assert "100x, is beyond the tested reach" in told(forecast, "untested")
    assert "direction" not in codes(forecast)
    both = extrapolate(fitted, params=100 * top, tokens=1e14, backtest=report)
    assert "at once" in told(both, "direction")


def test_a_surface_is_judged_by_the_surface(report, surface):
    top = surface.lr_fit.rows["params"].max()
    forecast = extrapolate(surface, params=2 * top, tokens=1e10, backtest=report)
    cells = report.table.query("entrant == 'surface: lr_power' and beyond == 'params'")
    assert forecast.table["tested_batch_log2"].iloc[0] == pytest.approx(cells["log2_batch_error"].abs().mean())
    assert "surface: lr_power" in told(forecast, "tested")


def test_points_inside_have_no_tested_error(report, fitted):
    table = extrapolate(fitted, params=1e8, tokens=1e10, backtest=report).table
    assert table[["tested_reach", "tested_regret_pct", "tested_lr_log2"]].isna().all(axis=None)


def test_an_entrant_can_be_named(report, fitted):
    top = fitted.rows["params"].max()
    forecast = extrapolate(fitted, params=2 * top, tokens=1e10, backtest=report, entrant="grid minimum + OLS")
    assert "grid minimum + OLS" in told(forecast, "tested")
    with pytest.raises(FitError, match=r"it has: .*steplaw2025"):
        extrapolate(fitted, params=2 * top, tokens=1e10, backtest=report, entrant="nobody")


def test_a_backtest_that_says_nothing_says_so(sweep, report, fitted, surface):
    other = fit("eta = c * (N*D)**a", fitted.rows)
    top = fitted.rows["params"].max()
    assert "no entrant with this law" in told(
        extrapolate(other, params=2 * top, tokens=1e10, backtest=report), "untested"
    )
    loss = fit("L = c * N**a", sweep.cells)
    assert "not loss" in told(extrapolate(loss, params=2 * top, backtest=report), "untested")
    failing = backtest(sweep, "largest params", entrants=[Entrant("Parabola: lr_power", Parabola(), "eta = c * S**a")])
    assert "could not score" in told(extrapolate(fitted, params=2 * top, tokens=1e10, backtest=failing), "untested")


def test_a_backtest_of_other_runs_gets_a_caution(report, fitted):
    elsewhere = dataclasses.replace(fitted, source="runs.csv")
    forecast = extrapolate(elsewhere, params=1e8, tokens=1e10, backtest=report)
    assert "runs.csv" in told(forecast, "other_data")
    assert "other_data" not in codes(extrapolate(fitted, params=1e8, tokens=1e10, backtest=report))


def test_displays_show_law_prediction_and_cautions(fitted):
    forecast = extrapolate(fitted.with_notes(Note("x", "<b>")), params=7e9, tokens=1.4e12)
    text = repr(forecast)
    assert "Forecast of lr" in text
    assert "7B" in text
    assert "! predicted beyond the fitted range" in text
    assert "&lt;b&gt;" in forecast._repr_html_()


def test_a_forecast_is_frozen(fitted):
    forecast = extrapolate(fitted, params=7e9, tokens=1.4e12)
    copy = forecast.table
    copy["lr"] = 0.0
    assert forecast.table["lr"].iloc[0] > 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        forecast.level = 0.5


@pytest.mark.parametrize(
    ("inputs", "error", "text"),
    [
        ({"params": 7e9}, LawError, "tokens"),
        ({"params": 7e9, "tokens": 1e12, "batch": 1e6}, LawError, "batch"),
        ({"params": -7e9, "tokens": 1e12}, LawError, "positive"),
        ({"params": np.nan, "tokens": 1e12}, LawError, "finite"),
        ({"params": 7e9, "tokens": 1e12, "level": 95}, FitError, "level"),
        ({"params": 7e9, "tokens": 1e12, "backtest": 3}, FitError, "backtest"),
    ],
)
@pytest.mark.parametrize("kind", ["fitted", "surface"])
def test_what_cannot_be_forecast_is_refused(request, kind, inputs, error, text):
    with pytest.raises(error, match=text):
        extrapolate(request.getfixturevalue(kind), **inputs)


@pytest.mark.parametrize("kind", ["fitted", "surface"])
def test_forecasts_bear_the_index_of_what_was_asked(request, kind, report):
    source = request.getfixturevalue(kind)
    asked = pd.DataFrame({"params": [7e9, 2e8], "tokens": [1.4e12, 1e10]}, index=["next", "last"])
    by_position = extrapolate(source, backtest=report, params=["7B", "200M"], tokens=["1.4T", "10B"])
    found = extrapolate(source, backtest=report, params=asked["params"], tokens=asked["tokens"])
    pd.testing.assert_frame_equal(found.table, by_position.table.set_axis(asked.index))
    pd.testing.assert_frame_equal(found.fixed, by_position.fixed)


def test_an_average_is_predicted_as_it_predicts_and_judged_by_the_average(sweep):
    average = average_laws(find_optima(sweep, over=("lr", "batch")), target="lr")
    record = backtest(sweep, "largest params", laws="auto")
    forecast = extrapolate(average, backtest=record, params=1e10, tokens=1e12)
    with pytest.warns(ExtrapolationWarning):
        expected = average.predict(params=1e10, tokens=1e12)
    assert forecast.table["lr"].iloc[0] == pytest.approx(expected["prediction"].iloc[0])
    assert forecast.table["lr_hi"].iloc[0] == pytest.approx(expected["hi"].iloc[0])
    assert forecast.table["reach"].iloc[0] == pytest.approx(expected["reach"].iloc[0])
    assert average.reason in told(forecast, "average")
    assert "auto on" in told(forecast, "tested")


def test_only_fits_surfaces_and_averages_are_extrapolated(sweep):
    with pytest.raises(FitError, match="found Sweep"):
        extrapolate(sweep, params=7e9, tokens=1e12)
