"""Several laws as one prediction, and "auto" wherever a law is asked for."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scalefit._fit import fit
from scalefit.backtesting.competitors import Entrant, label
from scalefit.backtesting.usual_competitors import surface_or_average, usual_competitors
from scalefit.errors import ExtrapolationWarning, FitError, LawError
from scalefit.fitting.fit_result import Fit
from scalefit.optima.find_optima import find_optima
from scalefit.optima.optimum_estimators import Basin, GridMinimum, NearMinimum
from scalefit.selection.average_laws import Average, average_laws
from scalefit.simulation import Design, Truth, simulate_sweep
from scalefit.surface.fit_surface import fit_surface
from scalefit.sweep import Sweep

PLACE = {"params": 1e9, "tokens": 6e10}


def grid(sizes: int = 5, budgets: int = 8) -> pd.DataFrame:
    levels = np.geomspace(6e7, 1.07e9, sizes), np.geomspace(2e9, 1e11, budgets)
    return pd.DataFrame([(n, d) for n in levels[0] for d in levels[1]], columns=["params", "tokens"])


def log_lr(cells: pd.DataFrame, bend: float) -> np.ndarray:
    n, d = np.log(cells["params"] / np.sqrt(6e7 * 1.07e9)), np.log(cells["tokens"] / np.sqrt(2e20))
    return (-7 - 0.7 * n + 0.3 * d + bend * n * d).to_numpy()


def draw(seed: object, bend: float = 0.0, cells: pd.DataFrame | None = None) -> pd.DataFrame:
    cells = grid() if cells is None else cells
    noise = 0.2 * np.random.default_rng(seed).standard_normal(len(cells))
    return cells.assign(lr=np.exp(log_lr(cells, bend) + noise))


@pytest.fixture(scope="module")
def average() -> Average:
    return average_laws(draw(0))


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    runs = simulate_sweep(Truth(), Design(), seed=3)
    return Sweep.from_frame(runs.assign(diverged=runs["loss"].isna()))


def test_weights_are_those_of_the_distance_in_paired_standard_errors(average):
    table = average.table
    z = (table["behind"] / table["behind_stderr"]).fillna(0.0)
    assert average.weights == pytest.approx((np.exp(-0.5 * z**2) / np.exp(-0.5 * z**2).sum()).to_numpy())
    assert average.weights.sum() == pytest.approx(1.0)
    assert (np.diff(table["error"]) >= 0).all()


def test_a_prediction_mixes_logs_and_its_interval_holds_what_the_laws_disagree_on(average):
    with pytest.warns(ExtrapolationWarning, match="beyond"):
        row = average.predict(params=1e10, tokens=1e12).iloc[0]
    with pytest.warns(ExtrapolationWarning):
        each = pd.concat([one.predict(params=1e10, tokens=1e12) for one in average.fits])
    logs = np.log(each["prediction"])
    middle = average.weights @ logs
    assert np.log(row["prediction"]) == pytest.approx(middle)
    assert np.log(row["between"]) == pytest.approx(np.sqrt(average.weights @ (logs - middle) ** 2))
    for end in ("lo", "hi"):  # laws of optima hold in their own intervals how they may be bent
        assert np.log(row[end]) == pytest.approx(average.weights @ np.log(each[end]))
    assert row["reach"] == pytest.approx(10.0)


def test_predictions_take_tables_symbols_and_arrays(average):
    many = average.predict(N=np.array([1e8, 2e8, 3e8]), D=1e10)
    assert list(many.columns) == ["params", "tokens", "prediction", "lo", "hi", "reach", "between"]
    again = average.predict(pd.DataFrame({"params": [1e8, 2e8, 3e8], "tokens": 1e10}))
    pd.testing.assert_frame_equal(many, again)
    wider = average.predict(params=1e8, tokens=1e10, level=0.99).iloc[0]
    assert wider["hi"] > many["hi"][0]
    with pytest.raises(LawError, match="missing tokens"):
        average.predict(params=1e8)
    with pytest.raises(LawError, match="batch is not an input"):
        average.predict(params=1e8, tokens=1e10, batch=3.0)


def test_the_reason_and_the_display_name_the_heavy_laws(average):
    heavy = average.table.loc[average.weights >= 0.05, "law"]
    assert all(name in average.reason for name in heavy)
    assert "Average of 5 laws for eta" in repr(average)
    assert "<table" in average._repr_html_()


def far_off(bend: float, draws: int) -> tuple[float, float, float]:
    """Errors of the straight law and of the average ten times out, and coverage of the latter."""
    far = pd.DataFrame({"params": [1.07e10], "tokens": [1e12]})
    there, errors, inside = log_lr(far, bend)[0], [], []
    for seed in range(draws):
        table = draw([seed, 1], bend)
        new = there + 0.2 * np.random.default_rng([seed, 2]).standard_normal()
        told, plain = average_laws(table).predict(far).iloc[0], fit("lr_power", table).predict(far).iloc[0]
        errors.append([np.log(one["prediction"]) - there for one in (plain, told)])
        inside.append(told["lo"] < np.exp(new) < told["hi"])
    plain, auto = np.sqrt((np.array(errors) ** 2).mean(axis=0))
    return plain, auto, float(np.mean(inside))


@pytest.mark.filterwarnings("ignore::scalefit.errors.ExtrapolationWarning")
def test_auto_is_little_worse_than_the_straight_law_when_straight_and_much_better_when_bent():
    plain, auto, inside = far_off(0.0, 12)
    assert auto < plain + 0.15
    assert inside >= 0.85
    plain, auto, inside = far_off(0.08, 12)
    assert auto < 0.65 * plain
    assert inside >= 0.7


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::scalefit.errors.ExtrapolationWarning")
def test_coverage_of_the_average_ten_times_out():
    for bend, least in ((0.0, 0.94), (0.03, 0.89), (0.08, 0.86)):
        plain, auto, inside = far_off(bend, 120)
        assert inside >= least
        assert auto < (plain + 0.08 if bend == 0 else 0.87 * plain)  # two more laws share the weight


def test_a_law_that_cannot_be_fitted_is_left_out_and_noted():
    found = average_laws(draw(2), ["lr_power", "lr_power_batch"])
    assert found.weights.tolist() == [1.0]
    assert "lr_power_batch" in "".join(note.text for note in found.notes if note.code == "not_fitted")
    with pytest.raises(FitError, match="laws="):
        average_laws(draw(2), "lr_power")
    with pytest.raises(FitError, match="empty"):
        average_laws(draw(2), [])


# ---------------------------------------------------------------- auto


def test_fit_takes_auto_and_every_other_law(sweep):
    optima = find_optima(sweep, over="lr", by=("params", "tokens", "batch"))
    found = fit("auto", optima)
    assert isinstance(found, Average)
    assert "lr_power_batch" in set(found.table["law"])
    assert isinstance(fit("lr_power", optima), Fit)
    with pytest.raises(FitError, match="belong to one law"):
        fit("auto", optima, start={"a": 1.0})


def test_auto_through_edges_uses_them_as_bounds():
    cells = grid(4, 4)
    best = log_lr(cells, 0.0) + 0.2 * np.random.default_rng(4).standard_normal(len(cells))
    first = np.rint(log_lr(cells, 0.0) / np.log(2) - 1 - 1.5 * np.log10(cells["params"] / 6e7))
    runs = []
    for j in range(4):
        u = (first + j) * np.log(2) - best
        loss = 2.5 + 0.03 * u**2 + 0.001 * np.random.default_rng([4, j]).standard_normal(len(cells))
        runs.append(cells.assign(lr=np.exp2(first + j), loss=loss, diverged=False))
    optima = find_optima(Sweep.from_frame(pd.concat(runs, ignore_index=True)), method=GridMinimum())
    found = average_laws(optima)
    assert found.fits[0].is_bound.sum() == (optima.table["status"] == "edge").sum() > 2
    assert any(note.code == "bounds" for note in found.notes)


@pytest.mark.parametrize("method", [NearMinimum(), Basin()])
def test_an_entrant_with_auto_predicts_near_the_one_with_the_true_law(sweep, method):
    plain, auto = (Entrant(law, method, law, "batch_power").train(sweep) for law in ("lr_power", "auto"))
    there, told = plain.optimum(**PLACE).iloc[0], auto.optimum(**PLACE).iloc[0]
    assert np.log2(told["lr"] / there["lr"]) == pytest.approx(0.0, abs=0.5)
    assert told["lr_lo"] < told["lr"] < told["lr_hi"]
    assert told["batch"] == pytest.approx(there["batch"])
    both = Entrant("both", method, "auto", "auto").train(sweep).optimum(**PLACE).iloc[0]
    assert both["batch"] == pytest.approx(there["batch"], rel=1.0)


def test_auto_sees_the_training_cells_only(sweep):
    """Held-out runs have no influence on the weights of an entrant."""
    small = sweep.where("params < 5e8")
    there = Entrant("a", NearMinimum(), "auto").train(small).optimum(**PLACE)
    spoilt = sweep.table.assign(lr=lambda t: np.where(t["params"] >= 5e8, t["lr"] * 7, t["lr"]))
    again = Entrant("a", NearMinimum(), "auto").train(Sweep.from_frame(spoilt).where("params < 5e8")).optimum(**PLACE)
    pd.testing.assert_frame_equal(there, again)


def test_usual_competitors_with_auto(sweep):
    names = [entrant.name for entrant in usual_competitors("auto", "batch_power", None, [])]
    assert names[3:] == ["surface: auto", "Basin: auto", "Parabola: auto"]
    assert label("auto") == "auto"
    both = [entrant.name for entrant in usual_competitors(["lr_power", "auto"], "batch_power", [Basin()], [])]
    assert both[3:] == ["surface: lr_power", "surface: auto", "Basin: lr_power", "Basin: auto"]
    surface = usual_competitors("auto", "batch_power", None, [])[3].train(sweep)
    straight = fit_surface(sweep).optimum(**PLACE).iloc[0]
    assert surface.optimum(**PLACE)["lr"].iloc[0] == pytest.approx(straight["lr"], rel=0.35)


def test_a_surface_is_averaged_through_the_centres_of_its_cells(sweep):
    surface = fit_surface(sweep)
    found = average_laws(surface)
    assert found.fits[0].n == surface.lr_fit.n
    own = next(one for one in found.fits if one.law.name == "lr_power")
    assert own.values["a"] == pytest.approx(surface.lr_fit.values["a"], abs=1e-6)
    assert average_laws(surface, target="batch").fits[0].law.target == "B"
    pair = surface_or_average(sweep, "auto", "auto").optimum(**PLACE)
    assert set(pair.columns) >= {"lr", "batch", "lr_lo", "batch_hi"}
