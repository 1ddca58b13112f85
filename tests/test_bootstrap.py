"""Resampling: replayable, by the right unit, holding what the fit holds, and saying what was lost."""

from __future__ import annotations

import lmfit
import numpy as np
import pandas as pd
import pytest

import scalefit as sf
from scalefit import FitError
from scalefit.fitting import draws as uncertainty
from scalefit.simulation import Design, Truth, simulate_sweep

TRUTH = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}


def grid(n_sizes: int = 5, n_data: int = 6) -> pd.DataFrame:
    axes = np.meshgrid(np.geomspace(1e7, 1e10, n_sizes), np.geomspace(1e9, 1e12, n_data))
    return pd.DataFrame({"params": axes[0].ravel(), "tokens": axes[1].ravel()})


def made(law: str = "chinchilla", noise: float = 0.01, repeats: int = 1, luck: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    cells = grid()
    table = cells.loc[cells.index.repeat(repeats)].reset_index(drop=True)
    scatter = noise * rng.normal(size=len(table)) + luck * np.repeat(rng.normal(size=len(cells)), repeats)
    if law == "chinchilla":
        return table.assign(loss=sf.laws.get_law(law)(TRUTH, table) * np.exp(scatter))
    return table.assign(lr=20 * table["params"] ** -0.7 * table["tokens"] ** 0.25 * np.exp(10 * scatter))


FITS = {
    "linear": sf.fit("lr_power", made("lr_power")),
    "squared": sf.fit("chinchilla", made()),
    "huber": sf.fit("chinchilla", made(), loss=sf.Huber(1e-3)),
    "plain": sf.fit("chinchilla", made(), space="plain"),
    "plain, one coefficient": sf.fit("B = c * D**0.5", grid().assign(batch=grid()["tokens"] ** 0.5 * 3), space="plain"),
    "weighted": sf.fit("chinchilla", made(), weights=np.linspace(0, 2, 30)),
}


@pytest.mark.parametrize("by", ["row", "cell", "parametric"])
@pytest.mark.parametrize("name", list(FITS))
def test_a_seed_replays_the_draws(name: str, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sf.bootstrap(FITS[name], n=40, by=by, seed=4)
    pd.testing.assert_frame_equal(sf.bootstrap(FITS[name], n=40, by=by, seed=4).table, first.table)
    other = sf.bootstrap(FITS[name], n=40, by=by, seed=5)
    if name != "plain, one coefficient":  # noiseless: every resample says the same
        assert not np.allclose(other.table, first.table[: len(other.table)], rtol=1e-9)
    monkeypatch.setattr(uncertainty, "_CHUNK", 100)
    small = sf.bootstrap(FITS[name], n=40, by=by, seed=4)
    np.testing.assert_allclose(small.table, first.table, rtol=1e-6)


@pytest.mark.parametrize("name", ["linear", "squared", "plain", "weighted"])
def test_parametric_draws_spread_as_the_covariance_says(name: str) -> None:
    fit = FITS[name]
    draws = sf.bootstrap(fit, n=800, by="parametric", seed=0)
    np.testing.assert_allclose(draws.phi.std(axis=0, ddof=1), np.sqrt(np.diag(fit.covariance)), rtol=0.2)
    np.testing.assert_allclose(draws.phi.mean(axis=0), fit.phi, atol=0.3 * np.sqrt(np.diag(fit.covariance)).max())


def test_rows_spread_as_the_covariance_says_when_they_are_independent() -> None:
    fit = sf.fit("lr_power", made("lr_power", repeats=8))
    spread = sf.bootstrap(fit, n=600, by="row").stderr
    np.testing.assert_allclose(spread, fit.table["stderr"], rtol=0.15)


def test_cells_see_the_luck_that_rows_share() -> None:
    fit = sf.fit("lr_power", made("lr_power", noise=0.001, repeats=8, luck=0.02))
    rows, cells = (sf.bootstrap(fit, n=400, by=by).stderr["a"] for by in ("row", "cell"))
    assert cells > 2 * rows


def test_each_refit_is_the_fit_of_its_resample() -> None:
    for name in ("linear", "squared", "plain"):
        fit = FITS[name]
        (weights, _), *_ = uncertainty._resamples(fit, 3, "row", np.arange(fit.n), 9)
        draws = sf.bootstrap(fit, n=3, by="row", seed=9)
        law, table = fit.law, fit.rows
        for k in range(3):
            again = sf.fit(law, table, weights=weights[k], space=fit.space)
            np.testing.assert_allclose(draws.phi[k], again.phi, rtol=1e-6)


def test_resampled_weights_multiply_the_given_ones() -> None:
    fit = FITS["weighted"]
    (weights, observed), *_ = uncertainty._resamples(fit, 5, "row", np.arange(fit.n), 0)
    assert (weights[:, 0] == 0).all()
    counts = weights[:, 1:] / fit.weights[1:]
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-9)
    np.testing.assert_array_equal(observed, fit.problem.observed)


def held(**changes: dict) -> lmfit.Parameters:
    params = lmfit.Parameters()
    for name, value in TRUTH.items():
        if "expr" not in changes.get(name, {}):
            params.add(name, **({"value": value} | changes.get(name, {})))
    for name, change in changes.items():
        if "expr" in change:
            params.add(name, **change)
    return params


def test_fixed_parameters_stay_in_every_refit() -> None:
    for loss in (sf.Squared(), sf.Huber(1e-3)):
        fit = sf.fit("chinchilla", made(), params=held(alpha={"value": 0.34, "vary": False}), loss=loss)
        table = sf.bootstrap(fit, n=30, by="row").table
        np.testing.assert_allclose(table["alpha"], 0.34, rtol=1e-12)
        assert table["A"].std() > 0


def test_parameters_at_a_bound_stay_there_and_bounds_hold() -> None:
    fit = sf.fit("chinchilla", made(), params=held(beta={"value": 0.35, "max": 0.352}, E={"value": 1.8, "min": 1.79}))
    assert "at bound" in fit.states
    table = sf.bootstrap(fit, n=60, by="row").table
    assert (table["beta"] <= 0.352 * (1 + 1e-12)).all()
    assert (table["E"] >= 1.79 * (1 - 1e-12)).all()


def test_ties_hold_in_every_refit() -> None:
    fit = sf.fit("chinchilla", made(), params=held(beta={"expr": "1.05 * alpha"}))
    draws = sf.bootstrap(fit, n=40, by="row")
    np.testing.assert_allclose(draws.table["beta"], 1.05 * draws.table["alpha"], rtol=1e-12)
    assert list(draws.intervals()["parameter"]) == ["E", "A", "alpha", "B", "beta"]


def test_resamples_that_lose_the_law_are_counted() -> None:
    table = grid(2, 3).assign(loss=lambda t: sf.laws.get_law("loss_params")({"E": 2.0, "A": 400.0, "alpha": 0.3}, t))
    table.loc[5, "params"] = 1e8
    table["loss"] *= np.exp(0.01 * np.random.default_rng(0).normal(size=6))
    fit = sf.fit("loss_params", table)
    draws = sf.bootstrap(fit, n=100, by="row")
    lost = 100 - len(draws.table)
    assert lost > 10
    (note,) = draws.notes
    assert note.caution
    assert note.text.startswith(f"{lost} of 100 resamples did not identify the law")
    assert note.text in repr(draws)


def test_too_little_to_draw_from() -> None:
    one = made().assign(params=1e9, tokens=1e11)
    table = one.assign(lr=np.linspace(1e-3, 2e-3, 30))
    fit = sf.fit("eta = c", table)
    assert len(sf.bootstrap(fit, n=20, by="row").table) == 20
    with pytest.raises(FitError, match="there is one cell only; resample by row or parametric"):
        sf.bootstrap(fit, by="cell")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"by": "run"},
            "by='run': the rows have no such column; expected 'cell', 'row', 'parametric' or a column that",
        ),
        ({"by": 3}, "by: expected 'cell', 'row', 'parametric' or the name of a column"),
        ({"n": 1}, "n: expected at least 2"),
        ({"n": 2.5}, "n: expected a whole number"),
        ({"seed": -1}, "seed: expected"),
    ],
)
def test_settings_that_mean_nothing(settings: dict, words: str) -> None:
    with pytest.raises(FitError, match=words):
        sf.bootstrap(FITS["linear"], **settings)


def test_only_a_converged_fit_is_resampled() -> None:
    from dataclasses import replace

    lost = replace(FITS["linear"], status=sf.FitStatus.NOT_CONVERGED)
    with pytest.raises(FitError, match="only a converged fit can be resampled") as caught:
        sf.bootstrap(lost)
    assert caught.value.partial is lost


def test_intervals_are_percentiles_of_the_draws() -> None:
    draws = sf.bootstrap(FITS["squared"], n=200, by="row")
    table = draws.intervals(0.8).set_index("parameter")
    np.testing.assert_allclose(
        table.loc["alpha", ["lo", "hi"]].astype(float), draws.table["alpha"].quantile([0.1, 0.9])
    )
    assert table.loc["alpha", "value"] == FITS["squared"].values["alpha"]
    assert table.loc["alpha", "stderr"] == draws.stderr["alpha"]
    for level in (0.0, 1.0, 95):
        with pytest.raises(FitError, match="level: expected a number between 0 and 1"):
            draws.intervals(level)


@pytest.mark.parametrize("name", ["linear", "squared", "plain"])
def test_predictions_spread_as_those_of_the_fit(name: str) -> None:
    fit = FITS[name]
    point = {"params": [1e7, 1e9, 1e10], "tokens": [1e12, 1e11, 1e9]}
    ours, theirs = sf.bootstrap(fit, n=1000, by="parametric").predict(**point), fit.predict(**point)
    pd.testing.assert_series_equal(ours["prediction"], theirs["prediction"])
    widths = [(t["hi"] - t["lo"]) / t["prediction"] for t in (ours, theirs)]
    np.testing.assert_allclose(widths[0], widths[1], rtol=0.15)
    pd.testing.assert_frame_equal(ours, sf.bootstrap(fit, n=1000, by="parametric").predict(**point))


def test_the_display_says_how_it_was_drawn() -> None:
    text = repr(sf.bootstrap(FITS["squared"], n=25, by="cell", seed=7))
    assert "Bootstrap of L = E + A/N**alpha + B/D**beta" in text
    assert "25 by cell, seed 7" in text
    assert "<table" in sf.bootstrap(FITS["squared"], n=25)._repr_html_()


@pytest.fixture(scope="module")
def surface() -> sf.Surface:
    truth, design = Truth(lr_scatter=0.1, batch_scatter=0.1), Design(lr_levels=5, batch_levels=4, missing=0.1)
    return sf.fit_surface(sf.read_sweep(simulate_sweep(truth, design, seed=2), batch_unit="tokens"))


def test_a_surface_is_refitted_whole_and_replayed(surface: sf.Surface) -> None:
    draws = sf.bootstrap(surface, n=30, seed=3)
    pd.testing.assert_frame_equal(sf.bootstrap(surface, n=30, seed=3).table, draws.table)
    assert not np.allclose(sf.bootstrap(surface, n=30, seed=4).table, draws.table)
    assert list(draws.table.columns) == [(name, p) for name in ("lr", "batch") for p in ("c", "a", "b")]
    assert draws.shape.shape == (30, len(surface.shape))
    assert (draws.shape.std(axis=0) > 0).all()


def test_a_surface_counting_every_cell_once_is_itself(surface: sf.Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    class Once:
        def multinomial(self, cells: int, *_: object, size: int) -> np.ndarray:
            return np.ones((size, cells), dtype=int)

    monkeypatch.setattr(np.random, "default_rng", lambda *_: Once())
    draws = sf.bootstrap(surface, n=3)
    for name, fit in surface.laws.items():
        np.testing.assert_allclose(draws.table[name].iloc[0], [fit.values[p] for p in ("c", "a", "b")], rtol=1e-4)


def test_refits_of_a_surface_do_not_depend_on_the_blocks(surface: sf.Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    from scalefit.surface import surface_draws as resampling

    first = sf.bootstrap(surface, n=10, seed=1).table
    monkeypatch.setattr(resampling, "_BLOCK", 3)
    np.testing.assert_allclose(sf.bootstrap(surface, n=10, seed=1).table, first, rtol=1e-3)


def test_refits_of_a_surface_spread_about_as_its_errors(surface: sf.Surface) -> None:
    table = sf.bootstrap(surface, n=200).intervals().set_index(["setting", "parameter"])
    ratio = (table["stderr"] / table["surface_stderr"])[[("lr", "a"), ("lr", "b"), ("batch", "a"), ("batch", "b")]]
    assert ratio.between(0.6, 1.6).all(), ratio


def test_percentiles_of_a_surfaces_optimum_are_those_of_a_new_cell(surface: sf.Surface) -> None:
    draws = sf.bootstrap(surface, n=200)
    place = {"params": [1e8, 1e9], "tokens": [8e9, 6e10]}
    ours, own = draws.optimum(**place), surface.optimum(**place)
    pd.testing.assert_series_equal(ours["lr"], own["lr"])
    for name in ("lr", "batch"):
        widths = [np.log(t[f"{name}_hi"] / t[f"{name}_lo"]) for t in (ours, own)]
        np.testing.assert_allclose(widths[0], widths[1], rtol=0.4)
        assert (widths[0] > 3 * surface.between[name]).all()
    pd.testing.assert_frame_equal(ours, draws.optimum(**place))


def test_the_display_of_a_resampled_surface(surface: sf.Surface) -> None:
    draws = sf.bootstrap(surface, n=20, seed=7)
    assert "Bootstrap of a surface" in repr(draws)
    assert "20 by cell, seed 7" in repr(draws)
    assert "<table" in draws._repr_html_()


def test_a_surface_is_resampled_by_cell_or_by_whole_sizes(surface: sf.Surface) -> None:
    with pytest.raises(FitError, match="this surface is resampled by 'cell' or 'params' or 'tokens', found 'row'"):
        sf.bootstrap(surface, by="row")
    sizes, cells = (sf.bootstrap(surface, n=60, by=by) for by in ("params", "cell"))
    assert sizes.dof == surface.cells["params"].nunique() - 1
    assert "60 by params" in repr(sizes)
    # Whole sizes leave the exponent of tokens to what each of them says alone, and that of params to few of them.
    assert not np.allclose(sizes.stderr, cells.stderr, rtol=0.02)
    with pytest.raises(FitError, match="n: expected at least 2"):
        sf.bootstrap(surface, n=1)
    with pytest.raises(FitError, match="expected a Fit or a Surface to resample, found DataFrame"):
        sf.bootstrap(surface.cells)  # type: ignore[call-overload]


def test_a_surface_of_few_sizes_is_not_drawn_by_size():
    runs = simulate_sweep(Truth(), Design(params=(1e8, 4e8, 1.6e9)), seed=0)
    surface = sf.fit_surface(sf.Sweep.from_frame(runs.assign(diverged=runs["loss"].isna())))
    with pytest.raises(FitError, match="expected 4 groups to draw from, found 3"):
        sf.bootstrap(surface, n=20, by="params")
