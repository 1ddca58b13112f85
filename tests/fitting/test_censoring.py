"""Optima at the edge of their grids, used in a law as the bounds they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.stats import norm

from scalefit._bootstrap import bootstrap
from scalefit._values import Observations
from scalefit.errors import FitError, SweepError
from scalefit.fitting.censoring import estimate, log_likelihood
from scalefit.fitting.fit_law import fit_law as fit
from scalefit.fitting.fit_result import Fit
from scalefit.optima.find_optima import find_optima
from scalefit.optima.optimum_estimators import Basin, GridMinimum, NearMinimum
from scalefit.selection.compare import compare
from scalefit.solvers.losses import Huber
from scalefit.sweep import Sweep

A, B = -0.65, 0.27


def cells(sizes: int = 6, budgets: int = 5) -> pd.DataFrame:
    pairs = [(n, d) for n in np.geomspace(1e7, 1e9, sizes) for d in np.geomspace(1e9, 6e10, budgets)]
    return pd.DataFrame(pairs, columns=["params", "tokens"])


def truth(table: pd.DataFrame) -> np.ndarray:
    return 0.1 + A * np.log(table["params"].to_numpy()) + B * np.log(table["tokens"].to_numpy())


def bounded(seed: object, *, drift: float = 0.5, room: float = 0.35, scatter: float = 0.25, weights: bool = False):
    """Draw optima whose grids end above the truth at small sizes and below it at large ones."""
    table, rng = cells(), np.random.default_rng(seed)
    end = truth(table) + room - drift * np.log10(table["params"].to_numpy() / 1e7) / 2
    heft = rng.integers(1, 5, len(table)).astype(float) if weights else np.ones(len(table))
    log_lr = truth(table) + scatter / np.sqrt(heft) * rng.standard_normal(len(table))
    side = (log_lr > end).astype(int)
    table["lr"] = np.exp(np.minimum(log_lr, end))
    return Observations(table, heft if weights else None, censored=side)


def sweep(rng: np.random.Generator, levels: int = 4, drift: float = 0.7, off: float = 0.3) -> Sweep:
    """Draw runs an octave apart whose grids drift up from the optimum by `drift` octaves a decade of size."""
    table = cells(5, 4)
    best = truth(table) + 0.25 * rng.standard_normal(len(table))
    middle = truth(table) / np.log(2) + off + drift * np.log10(table["params"].to_numpy() / 1e7)
    first = np.rint(middle - (levels - 1) / 2)
    parts = []
    for j in range(levels):
        u = (first + j) * np.log(2) - best
        loss = 2.5 + 0.05 * (np.exp(0.8 * u) - 0.8 * u - 1) / 0.64 + 0.003 * rng.standard_normal(len(table))
        parts.append(table.assign(lr=np.exp2(first + j), loss=loss))
    return Sweep.from_frame(pd.concat(parts, ignore_index=True).assign(diverged=False))


# ---------------------------------------------------------------- the likelihood


def likelihood(v: np.ndarray, data: Observations, correction: float) -> float:
    """Minus the log likelihood, written out anew; the correction allows the scatter for the fitted parameters."""
    t, side = data.table, data.censored
    spread = np.exp(v[3]) / np.sqrt(1.0 if data.weights is None else data.weights)
    away = np.log(t["lr"]) - v[0] - v[1] * np.log(t["params"]) - v[2] * np.log(t["tokens"])
    point = norm.logpdf(away[side == 0], scale=spread if np.ndim(spread) == 0 else spread[side == 0]).sum()
    bound = norm.logcdf((side * -away / spread)[side != 0]).sum()
    return -(point + bound) - correction * v[3]


@pytest.mark.parametrize("weights", [False, True])
def test_the_fit_is_the_maximum_of_the_censored_likelihood(weights):
    data = bounded(3, weights=weights)
    found = fit("lr_power", data)
    start = np.array([0.1, A, B, np.log(0.25)])
    bounds = found.is_bound
    z = (data.censored * -found.residuals * np.sqrt(found.weights) / found.scale)[bounds]
    rate = np.exp(norm.logpdf(z) - norm.logcdf(z))
    points = (~bounds).sum()
    correction = 3 * points / (points + (rate * (rate + z)).sum())
    best = minimize(
        likelihood,
        start,
        args=(data, correction),
        method="Nelder-Mead",
        options={"maxiter": 9000, "xatol": 1e-9, "fatol": 1e-12},
    )
    assert found.status.name == "CONVERGED"
    assert found.values["a"] == pytest.approx(best.x[1], abs=1e-4)
    assert found.values["b"] == pytest.approx(best.x[2], abs=1e-4)
    assert found.scale == pytest.approx(np.exp(best.x[3]), rel=1e-3)
    own = np.array([*found.phi, np.log(found.scale)])
    assert log_likelihood(found.problem, found.phi) == pytest.approx(-likelihood(own, data, 0), abs=1e-8)


def test_the_errors_are_those_of_the_observed_information():
    data = bounded(4)
    found = fit("lr_power", data)
    at, step = np.array([*found.phi, np.log(found.scale)]), np.array([1e-3, 1e-4, 1e-4, 1e-3])

    def second(i: int, j: int) -> float:
        moves = [(s, t, s * t) for s in (-1, 1) for t in (-1, 1)]
        values = [
            sign * likelihood(at + s * step * (np.arange(4) == i) + t * step * (np.arange(4) == j), data, 0)
            for s, t, sign in moves
        ]
        return sum(values) / (4 * step[i] * step[j])

    information = np.array([[second(i, j) for j in range(4)] for i in range(4)])
    assert found.covariance == pytest.approx(np.linalg.inv(information)[:3, :3], rel=2e-2)


def test_no_bounds_is_least_squares_and_far_bounds_change_nothing():
    data = bounded(5)
    plain = Observations(data.table, censored=np.zeros(len(data.table), dtype=int))
    assert fit("lr_power", plain).censored is None
    points = fit("lr_power", data, bounds="drop")
    far = np.where(data.censored != 0, data.table["lr"] * 1e-6, data.table["lr"])
    kept = fit("lr_power", replace(data, table=data.table.assign(lr=far)))
    assert dict(kept.values) == pytest.approx(dict(points.values), rel=1e-5)
    assert kept.scale == pytest.approx(points.scale, rel=1e-6)
    assert kept.table["stderr"].to_numpy() == pytest.approx(points.table["stderr"].to_numpy(), rel=0.05)


def test_an_upper_bound_pulls_down_and_a_lower_one_up():
    table = cells().assign(lr=lambda t: np.exp(truth(t) + 0.1 * np.random.default_rng(1).standard_normal(len(t))))
    last = table.index == len(table) - 1
    for side, sign in ((1, 1), (-1, -1)):
        moved = table.assign(lr=np.where(last, table["lr"] * np.exp(2.0 * sign), table["lr"]))
        with_it = fit("lr_power", Observations(moved, censored=np.where(last, side, 0)))
        without = fit("lr_power", table[~last])
        assert sign * (with_it.values["a"] - without.values["a"]) > 0.01


def test_order_of_rows_changes_nothing():
    data = bounded(6)
    order = np.random.default_rng(0).permutation(len(data.table))
    mixed = Observations(data.table.iloc[order].reset_index(drop=True), censored=data.censored[order])
    assert fit("lr_power", mixed).phi == pytest.approx(fit("lr_power", data).phi, rel=1e-12)


def test_a_law_that_is_not_linear_takes_bounds_too():
    table, rng = cells(), np.random.default_rng(7)
    best = 3e-4 * (table["params"] / 1e9) ** -0.7 * (table["tokens"] / 1e11) ** 0.3 + 1e-3
    end = best * np.where(table["params"] > 1e8, 0.98, 1.4)
    drawn = best * np.exp(0.03 * rng.standard_normal(len(table)))
    data = Observations(table.assign(lr=np.minimum(drawn, end)), censored=(drawn > end).to_numpy().astype(int))
    found = fit("lr_offset", data)
    assert data.censored.sum() == 9
    errors = found.table.set_index("parameter")
    for name, value in (("a", -0.7), ("b", 0.3), ("e_0", 1e-3)):
        assert abs(errors.at[name, "value"] - value) < 3 * errors.at[name, "stderr"]
    assert errors.at["e_0", "stderr"] < 2e-4


# ---------------------------------------------------------------- simulation


def coverage(draws: int, **how: float) -> pd.DataFrame:
    rows = []
    for seed in range(draws):
        data = bounded([seed, 1], **how)
        for bounds in ("censor", "drop"):
            found = fit("lr_power", data, bounds=bounds)
            table = found.table.set_index("parameter")
            place = {"params": [1e10], "tokens": [6e11]}
            there = found.predict(**place).iloc[0]
            new = truth(pd.DataFrame(place))[0] + 0.25 * np.random.default_rng([seed, 2]).standard_normal()
            row = {"bounds": bounds, "share": float((data.censored != 0).mean())}
            for name, value in (("a", A), ("b", B)):
                error = table.loc[name]
                row |= {
                    name: error["value"] - value,
                    f"{name}_se": error["stderr"],
                    f"{name}_in": error["lo"] < value < error["hi"],
                }
            rows.append(row | {"new_in": there["lo"] < np.exp(new) < there["hi"]})
    return pd.DataFrame(rows)


@pytest.mark.filterwarnings("ignore::scalefit.errors.ExtrapolationWarning")
def test_bounds_used_remove_the_bias_that_dropping_them_has():
    found = coverage(30).groupby("bounds").mean()
    assert 0.3 < found.loc["censor", "share"] < 0.7
    assert found.loc["drop", "a"] < -0.5 * found.loc["drop", "a_se"]
    assert abs(found.loc["censor", "a"]) < 0.35 * found.loc["censor", "a_se"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::scalefit.errors.ExtrapolationWarning")
@pytest.mark.parametrize(
    "how", [{}, {"drift": 0.0, "room": 0.0}, {"drift": -0.6, "room": -0.3}, {"scatter": 0.25, "weights": True}]
)
def test_intervals_cover_with_a_third_or_more_of_the_rows_bounds(how):
    rows = coverage(200, **how)
    rows = rows[rows["bounds"] == "censor"]
    found = rows.drop(columns="bounds").mean()
    assert found["share"] > 0.3
    for name in ("a", "b"):
        assert abs(found[name]) < found[f"{name}_se"] / 3
        # With half of the rows bounds 0.98: the error is large where the estimate is off.
        assert found[f"{name}_in"] >= 0.93
        assert 0.85 <= rows[f"{name}_se"].median() / rows[name].std() <= 1.2
    if "weights" not in how:
        assert found["new_in"] >= 0.93  # it holds how far optima might stray from the law, which these do not


@pytest.mark.parametrize("method", [Basin(), GridMinimum()])
def test_grids_that_drift_off_the_optimum_bias_the_law_less_when_bounds_are_used(method):
    errors = {"drop": [], "censor": []}
    for seed in range(12):
        optima = find_optima(sweep(np.random.default_rng(seed)), method=method)
        for bounds, found in errors.items():
            found.append(fit("lr_power", optima, bounds=bounds).values["a"] - A)
    drop, censor = (np.mean(errors[bounds]) for bounds in ("drop", "censor"))
    assert drop > 0.03
    assert abs(censor) < drop / 2


# ---------------------------------------------------------------- from optima


def test_the_bound_of_a_picked_run_is_the_middle_between_the_last_two_levels():
    rows = pd.DataFrame(
        {
            "params": np.repeat([1e8, 2e8, 4e8], 4),
            "lr": np.tile([1e-3, 2e-3, 4e-3, 8e-3], 3),
            "loss": [3.0, 3.1, 3.3, 3.6, 3.6, 3.3, 3.1, 3.0, 3.2, 3.0, 3.1, 3.4],
        }
    )
    for method in (GridMinimum(), NearMinimum(0.0025)):
        found = find_optima(Sweep.from_frame(rows.assign(diverged=False)), method=method).bounded_observations("lr")
        assert found.censored.tolist() == [-1, 1, 0]
        assert found.table["lr"].to_numpy() == pytest.approx([np.sqrt(2) * 1e-3, 4e-3 * np.sqrt(2), 2e-3])
        assert "2 of 3 optima are bounds (1 at or above, 1 at or below)" in "".join(n.text for n in found.notes)


def test_the_bound_of_a_fitted_curve_is_its_last_level():
    optima = find_optima(sweep(np.random.default_rng(2)), method=Basin())
    found = optima.bounded_observations("lr")
    edges = optima.table["status"] == "edge"
    assert edges.sum() == (found.censored != 0).sum() > 0
    assert set(found.table["lr"][found.censored != 0]) == set(optima.table["lr"][edges])
    assert optima.observations("lr").censored is None


def test_the_report_says_how_many_optima_are_bounds():
    optima = find_optima(sweep(np.random.default_rng(2)), method=GridMinimum())
    found = fit("lr_power", optima)
    count = int((optima.table["status"] == "edge").sum())
    assert found.is_bound.sum() == count
    assert f"{found.n} rows, {count} of them bounds" in repr(found)
    (note,) = (note.text for note in found.notes if note.code == "bounds")
    assert f"{count} of {found.n} optima are bounds" in note
    (left,) = (n.text for n in fit("lr_power", optima, bounds="drop").notes if n.code == "left_out")
    assert f"{count} bounds (edge)" in left


def test_censoring_moves_the_law_of_a_real_sweep_more_than_dropping_does(shared_data):
    raw = pd.read_csv(shared_data("misfitting_last_ckpt.csv"))
    columns = {"peak_lr": "lr", "N": "params", "D": "tokens"}
    runs = raw.rename(columns=columns)[["lr", "params", "tokens", "loss"]].drop_duplicates()
    picked = find_optima(Sweep.from_frame(runs.assign(diverged=False)), method=GridMinimum())
    seen = picked.table[picked.table["status"].isin(["interior", "edge"])]
    edges = int((seen["status"] == "edge").sum())
    assert edges / len(seen) > 0.5
    as_points = fit("lr_power", seen)
    drop, censor = (fit("lr_power", picked, bounds=bounds) for bounds in ("drop", "censor"))
    for name in ("a", "b"):
        assert abs(censor.values[name] - as_points.values[name]) > 2 * abs(drop.values[name] - as_points.values[name])
    assert censor.values["b"] > as_points.values["b"] + as_points.table.set_index("parameter").at["b", "stderr"]
    assert f"{edges} of {len(seen)} optima are bounds ({edges} at or above, 0 at or below)" in repr(censor)


# ---------------------------------------------------------------- what may be asked of such a fit


@pytest.fixture(scope="module")
def found() -> Fit:
    return fit("lr_power", bounded(8))


def test_round_trip(found):
    again = Fit.from_json(found.to_json())
    assert np.array_equal(again.censored, found.censored)
    assert repr(again) == repr(found)
    assert again.predict(params=1e8, tokens=1e10).equals(found.predict(params=1e8, tokens=1e10))
    broken = found.to_json().replace('"censored": [', '"censored": [5, ')
    with pytest.raises(FitError, match="censored"):
        Fit.from_json(broken)


def test_resampling_keeps_bounds_bounds(found):
    draws = bootstrap(found, n=300, by="row", seed=1)
    error = found.table.set_index("parameter").loc[["a", "b"], "stderr"]
    low, high = (draws.table[["a", "b"]].quantile(q).to_numpy() for q in (0.16, 0.84))
    assert (high - low) / 2 == pytest.approx(error.to_numpy(), rel=0.35)
    assert draws.table["a"].mean() == pytest.approx(found.values["a"], abs=0.5 * error["a"])
    with pytest.raises(FitError, match="bounds"):
        bootstrap(found, n=10, by="parametric")


def test_comparison_counts_a_bound_only_when_it_is_broken():
    data = bounded(9)
    fits = [fit(law, data) for law in ("lr_power", "lr_curved")]
    table = compare(fits).table.set_index("law")
    assert (table["lost"] == 0).all()
    assert np.isfinite(table["aicc"]).all()
    row, squares = fits[0], []
    for k in range(len(data.table)):
        kept = np.arange(len(data.table)) != k
        held = replace(row.problem, scale=row.scale).take(kept.nonzero()[0])
        from scalefit.fitting.search import refine

        phi = refine(held, row.phi[None], 1000).phi[0]
        away = (row.problem.values("log")(phi[None])[0][0] - row.problem.observed)[k]
        squares.append(0.0 if data.censored[k] * away > 0 else away**2)
    assert table.at["lr_power", "leave_out"] == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-6)
    points = fit("lr_power", data, bounds="drop")
    with pytest.raises(FitError, match="rows"):
        compare([row, points])
    as_points = fit("lr_power", data.table)
    with pytest.raises(FitError, match="bounds"):
        compare([row, as_points])


def test_lmfit_has_no_place_for_bounds(found):
    with pytest.raises(FitError, match="bounds"):
        found.to_lmfit()
    assert found.params["a"].value == pytest.approx(found.values["a"])


# ---------------------------------------------------------------- refusals


def test_bounds_alone_fit_no_law():
    data = bounded(10)
    with pytest.raises(FitError, match="all on the same side"):
        fit("lr_power", replace(data, censored=np.ones(len(data.table), dtype=int)))
    few = np.where(np.arange(len(data.table)) < 3, 0, 1)
    with pytest.raises(FitError, match=r"3 point\(s\)"):
        fit("lr_power", replace(data, censored=few))


def test_a_direction_known_from_one_side_only_is_not_identified():
    table = cells(3, 4).assign(lr=lambda t: np.exp(truth(t) + 0.05 * np.random.default_rng(0).standard_normal(len(t))))
    side = (table["params"] > 2e7).astype(int)  # all sizes but the smallest only say: at least this
    found = fit("lr_power", Observations(table, censored=side.to_numpy()))
    assert found.status.name in ("ILL_CONDITIONED", "NOT_CONVERGED")


def test_requests_that_contradict_each_other():
    data = bounded(11)
    with pytest.raises(FitError, match="squared loss"):
        fit("lr_power", data, loss=Huber(0.1), bounds="censor")
    assert fit("lr_power", data, loss=Huber(0.1)).censored is None
    with pytest.raises(FitError, match="'auto', 'censor' or 'drop'"):
        fit("lr_power", data, bounds="use")
    with pytest.raises(SweepError, match="censored"):
        fit("lr_power", Observations(data.table, censored=np.array([1, 0])))


def test_information_of_points_alone_is_that_of_least_squares():
    data = bounded(12)
    points = fit("lr_power", data, bounds="drop")
    posed = replace(points.problem, censored=np.zeros(points.n, dtype=int))
    errors = estimate(posed, points.phi, np.ones(3, dtype=bool))
    assert errors.dof == points.dof
    assert errors.covariance == pytest.approx(points.covariance, rel=1e-9)
