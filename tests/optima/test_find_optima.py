"""Optima of a sweep: cells, statuses, notes, and what a law gets to see of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from scalefit.errors import SweepError
from scalefit.fitting.problem import collect
from scalefit.laws import get_law
from scalefit.loading.read_sweep import read_sweep
from scalefit.optima.find_optima import find_optima
from scalefit.optima.optimum_estimators import Basin, GridMinimum, NearMinimum, Parabola
from scalefit.simulation import Design, Truth, simulate_sweep
from scalefit.sweep import Sweep

METHODS = (GridMinimum(), NearMinimum(), Parabola())
LR = 2.0 ** np.arange(-13, -6)


def cell(best=1.3e-3, params=1e8, tokens=2e9, lr=LR, height=0.02):
    return pd.DataFrame({"lr": lr, "params": params, "tokens": tokens, "loss": 3 + height * np.log(lr / best) ** 2})


def sweep_of(*cells):
    return Sweep.from_frame(pd.concat(cells, ignore_index=True))


@pytest.fixture(scope="module")
def simulated():
    return simulate_sweep(seed=3)


def ols(observations, target, columns):
    table = observations.table
    weights = np.ones(len(table)) if observations.weights is None else observations.weights
    design = np.column_stack([np.ones(len(table)), np.log(table[columns].to_numpy())])
    root = np.sqrt(weights)
    return np.linalg.lstsq(design * root[:, None], np.log(table[target].to_numpy()) * root, rcond=None)[0]


def test_the_table_has_one_row_a_cell_with_the_stated_columns(simulated):
    one = find_optima(Sweep.from_frame(simulated))
    assert one.by == ("params", "tokens", "batch")
    assert list(one.table.columns) == [
        *("params", "tokens", "batch", "lr", "lr_lo", "lr_hi", "log_lr_stderr"),
        *("loss", "curvature", "n_runs", "weight", "status"),
    ]
    assert len(one) == 80
    assert (one.table["n_runs"] == 7).all()
    two = find_optima(Sweep.from_frame(simulated), over=("lr", "batch"))
    assert two.by == ("params", "tokens")
    assert {"lr_status", "batch_status", "lr_curvature", "batch_lo", "log_batch_stderr"} <= set(two.table.columns)
    assert len(two) == 16


def test_the_result_cannot_be_changed(simulated):
    optima = find_optima(Sweep.from_frame(simulated))
    taken = optima.table
    taken["lr"] = 1.0
    assert not (optima.table["lr"] == 1.0).any()
    with pytest.raises(dataclasses.FrozenInstanceError):
        optima.by = ()


def test_the_default_methods_find_the_laws_of_a_simulated_sweep(simulated):
    truth = Truth()
    two = find_optima(Sweep.from_frame(simulated), over=("lr", "batch"), method=Parabola())
    _, a, b = ols(two.observations("lr"), "lr", ["params", "tokens"])
    assert (a, b) == pytest.approx((truth.lr_params_power, truth.lr_tokens_power), abs=0.03)
    _, b = ols(two.observations("B"), "batch", ["tokens"])
    assert b == pytest.approx(truth.batch_tokens_power, abs=0.03)
    default = find_optima(Sweep.from_frame(simulated), over=("lr", "batch"))
    assert default.method == Basin()
    _, a, b = ols(default.observations("eta"), "lr", ["params", "tokens"])
    assert (a, b) == pytest.approx((truth.lr_params_power, truth.lr_tokens_power), abs=0.06)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_rows_changes_nothing(simulated, method):
    base = find_optima(Sweep.from_frame(simulated), over=("lr", "batch"), method=method).table
    mixed = simulated.sample(frac=1, random_state=5)
    again = find_optima(Sweep.from_frame(mixed), over=("lr", "batch"), method=method).table
    pd.testing.assert_frame_equal(base, again, rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_a_change_of_the_unit_of_lr_moves_only_lr(simulated, method):
    base = find_optima(Sweep.from_frame(simulated), method=method).table
    scaled = find_optima(Sweep.from_frame(simulated.assign(lr=simulated["lr"] * 1000)), method=method).table
    moved = ["lr", "lr_lo", "lr_hi"]
    pd.testing.assert_frame_equal(base.drop(columns=moved), scaled.drop(columns=moved), rtol=1e-6)
    np.testing.assert_allclose(scaled[moved], base[moved] * 1000, rtol=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_jitter_does_not_split_cells(simulated, method):
    rng = np.random.default_rng(1)
    jittered = simulated.copy()
    for column in ("lr", "batch", "params", "tokens"):
        jittered[column] *= 1 + 1e-9 * rng.standard_normal(len(jittered))
    base = find_optima(Sweep.from_frame(simulated), method=method)
    again = find_optima(Sweep.from_frame(jittered), method=method)
    assert len(again) == len(base) == 80
    np.testing.assert_allclose(again.table["lr"], base.table["lr"], rtol=1e-6)
    assert (again.table["status"] == base.table["status"]).all()


@pytest.mark.parametrize("method", METHODS)
def test_the_first_run_of_a_cell_is_never_an_optimum_for_being_first(method):
    equal = cell(height=0.0)
    assert find_optima(sweep_of(equal), method=method).table["status"].tolist() == ["flat"]
    tied = cell(best=LR[3])
    tied.loc[[2, 3, 4], "loss"] = 3.0
    found = find_optima(sweep_of(tied), method=method).table
    assert found["lr"].tolist() == pytest.approx([LR[3]])


def test_statuses_are_counted_and_only_points_reach_a_law():
    cells = [cell(params=p) for p in (1e7, 1e8, 1e9)]
    cells += [cell(params=2e9, best=1.0), cell(params=3e9, lr=LR[:2]), cell(params=4e9, height=0.0)]
    optima = find_optima(sweep_of(*cells), method=GridMinimum())
    assert optima.table["status"].tolist() == ["interior"] * 3 + ["edge", "too_few", "flat"]
    edge = optima.table.iloc[3]
    assert (edge["lr"], edge["lr_lo"], edge["lr_hi"]) == pytest.approx((LR[-1], LR[-2], np.inf))
    assert optima.table["lr"].isna().tolist() == [False] * 4 + [True] * 2
    assert {"edge", "flat", "too_few"} <= {note.code for note in optima.notes if note.caution}
    seen = optima.observations("eta")
    assert seen.table["params"].tolist() == [1e7, 1e8, 1e9]
    left = [note.text for note in seen.notes if note.code == "left_out"]
    assert left == ["lr: of 6 cells 1 bounds (edge), 1 flat, 1 short of levels (too_few); left out of the fit"]


def test_the_lower_edge_is_open_below():
    found = find_optima(sweep_of(cell(best=1e-6))).table.iloc[0]
    assert (found["status"], found["lr_lo"]) == ("edge", 0.0)
    assert found["lr"] == pytest.approx(LR[0])


def test_no_point_at_all_is_an_error_that_says_why():
    optima = find_optima(sweep_of(cell(best=1.0)))
    with pytest.raises(SweepError, match=r"no cell .* interior optimum in lr \(1 edge\)"):
        optima.observations("lr")
    with pytest.raises(SweepError, match="over lr, not 'batch'"):
        optima.observations("batch")


def test_diverged_runs_count_and_bound_but_are_never_optima():
    runs = cell(best=LR[4])
    runs["diverged"] = runs["lr"] > LR[4]
    found = find_optima(Sweep.from_frame(runs), method=GridMinimum()).table.iloc[0]
    assert (found["status"], found["n_runs"]) == ("interior", 7)
    assert (found["lr"], found["lr_hi"]) == pytest.approx((LR[4], LR[5]))
    without = find_optima(Sweep.from_frame(runs[~runs["diverged"]]), method=GridMinimum()).table.iloc[0]
    assert without["status"] == "edge"


def test_averaging_seeds_is_asked_for_and_noted():
    runs = pd.concat([cell(best=LR[3]).assign(seed=s) for s in range(3)], ignore_index=True)
    lucky = (runs["seed"] == 1) & (runs["lr"] == LR[1])
    runs.loc[lucky, "loss"] = 2.99
    sweep = Sweep.from_frame(runs)
    each = find_optima(sweep, method=GridMinimum())
    mean = find_optima(sweep, method=GridMinimum(), seeds="mean")
    assert each.table["lr"].tolist() == pytest.approx([LR[1]])
    assert mean.table["lr"].tolist() == pytest.approx([LR[3]])
    assert (each.table["n_runs"] == 21).all()
    assert (mean.table["n_runs"] == 21).all()
    told = {o: [n.text for n in r.notes if n.code == "seeds"] for o, r in (("all", each), ("mean", mean))}
    assert "one by one" in told["all"][0]
    assert "averaged" in told["mean"][0]


def test_what_varies_within_a_cell_is_a_caution(simulated):
    optima = find_optima(Sweep.from_frame(simulated), by=("params", "tokens"))
    assert any(note.code == "mixed" and note.caution and "batch" in note.text for note in optima.notes)
    clean = find_optima(Sweep.from_frame(simulated))
    assert not any(note.code == "mixed" for note in clean.notes)


def test_a_sweep_without_params_is_one_cell():
    runs = cell().drop(columns=["params", "tokens"])
    optima = find_optima(Sweep.from_frame(runs))
    assert optima.by == ()
    assert len(optima) == 1
    assert optima.table["lr"].tolist() == pytest.approx([1.3e-3], rel=1e-3)


def test_bad_arguments_are_named():
    sweep = sweep_of(cell())
    for bad, text in [
        (lambda: find_optima(cell()), "expects a Sweep, found DataFrame"),
        (lambda: find_optima(sweep, over="params"), "over should be"),
        (lambda: find_optima(sweep, over=("lr", "lr")), "over should be"),
        (lambda: find_optima(sweep, over="batch"), "needs the column"),
        (lambda: find_optima(sweep, by=("params", "lr")), "other than those searched"),
        (lambda: find_optima(sweep, by="width"), "needs the column"),
        (lambda: find_optima(sweep, method="parabola"), "method should be"),
        (lambda: find_optima(sweep, method=Parabola), "method should be"),
        (lambda: find_optima(sweep, seeds="first"), "seeds should be"),
    ]:
        with pytest.raises(SweepError, match=text):
            bad()


def test_the_faces_show_counts_spans_and_notes(simulated):
    optima = find_optima(Sweep.from_frame(simulated))
    text = repr(optima)
    assert "80 of (params, tokens, batch)" in text
    assert "80 interior" in text
    assert "68 more cells" in text
    assert "basins share the asymmetry" in text
    assert "not symmetric" in repr(find_optima(Sweep.from_frame(simulated), method=Parabola()))
    assert optima._repr_html_().count("<tr ") > 12
    assert "<script" not in find_optima(Sweep.from_frame(cell(), source="<script>"))._repr_html_()


def test_ragged_sweeps_keep_every_cell():
    table = simulate_sweep(design=Design(missing=0.3, off_centre=2.0), seed=8)
    assert table["loss"].isna().sum() > 10
    optima = find_optima(read_sweep(table, batch_unit="tokens", nonfinite="diverged"))
    assert optima.table["n_runs"].sum() == len(table)
    assert set(optima.table["status"]) >= {"interior", "edge"}
    edge = optima.table[optima.table["status"] == "edge"]
    assert (edge["lr_lo"] == 0).all()


def steplaw(path):
    raw = pd.read_csv(path)
    return pd.DataFrame(
        {
            "lr": raw["lr"],
            "batch": raw["bs"] * 2048.0,
            "params": raw["N"].astype(float),
            "tokens": raw["D"].astype(float),
            "loss": raw["smooth loss"],
        }
    )


def test_step_law_recipe(shared_data):
    sweep = Sweep.from_frame(steplaw(shared_data("steplaw_dense_lr_bs.csv")))
    near = find_optima(sweep, over=("lr", "batch"), method=NearMinimum(0.0025))
    assert len(near) == 17
    assert near.table["weight"].sum() == 129
    assert (near.table["status"] == "interior").all()
    _, a, b = ols(near.observations("lr"), "lr", ["params", "tokens"])
    assert (a, b) == pytest.approx((-0.768, 0.198), abs=0.005)
    c, b = ols(near.observations("batch"), "batch", ["tokens"])
    assert b == pytest.approx(0.611, abs=0.005)
    assert np.exp(c) == pytest.approx(0.214, rel=0.05)


def test_repeatability_on_step_law(shared_data):
    by = ["params", "tokens", "batch"]
    table = steplaw(shared_data("steplaw_dense_lr_bs.csv")).sort_values("lr")
    halves = {0: [], 1: []}
    for _, runs in table.groupby(by):
        if len(runs) >= 10 and 2 <= int(np.argmin(runs["loss"].to_numpy())) < len(runs) - 2:
            for half, parts in halves.items():
                parts.append(runs.iloc[half::2])
    assert len(halves[0]) == 142

    def gap(method):
        even, odd = (
            np.log2(find_optima(sweep_of(*halves[half]), method=method).table.set_index(by)["lr"]) for half in (0, 1)
        )
        return (even - odd).abs()

    default, grid = gap(None), gap(GridMinimum())
    assert default.median() < 0.08
    # Runs above the optimum are noisier there and count for less, so that halves of a cell agree a little less.
    assert default.quantile(0.9) < 0.21
    assert default.median() < grid.median() / 5


def test_levels_closer_than_a_percent_stay_cells_of_their_own_in_a_fit():
    lr = 1e-3 * 2.0 ** np.arange(-3, 4)
    sizes = np.array([1e8, 1.005e8, 4e8, 1.6e9])
    runs = pd.DataFrame({"lr": np.tile(lr, 4), "params": np.repeat(sizes, 7)})
    runs["loss"] = 3 + 0.03 * np.log(runs["lr"] / (1e-3 * (runs["params"] / 1e8) ** -0.3)) ** 2
    for rtol, cells in ((1e-3, 4), (0.01, 3)):
        optima = find_optima(Sweep.from_frame(runs, rtol=rtol), over="lr")
        assert optima.rtol == optima.observations("lr").rtol == rtol
        assert len(optima) == cells
        assert len(np.unique(collect(get_law("eta = c * N**a"), optima, None)[1].cells)) == cells


def test_replicates_that_differ_in_a_column_nobody_named_are_doubted():
    lr, size, seed = (axis.ravel() for axis in np.meshgrid(2.0 ** np.arange(-3, 4), [1e7, 1e8], [1, 2]))
    u = np.log(lr) + 0.3 * np.log(size / 1e8) - 0.7 * (seed - 1)
    table = pd.DataFrame({"lr": lr, "params": size, "loss": 3 + 0.02 * u**2, "Global Batch (tokens)": 1e5 * seed})
    doubted = [note.text for note in find_optima(Sweep.from_frame(table)).notes if note.code == "mixed"]
    assert doubted == ["runs that repeat each other differ in Global Batch (tokens); if it is a setting, add it to by="]
    apart = find_optima(Sweep.from_frame(table), by=("params", "Global Batch (tokens)"))
    assert len(apart) == 4
    assert not any(note.code == "mixed" for note in apart.notes)
    seeds = table.rename(columns={"Global Batch (tokens)": "seed"}).assign(seconds=np.arange(len(table)) * 1.5)
    assert not any(note.code == "mixed" for note in find_optima(Sweep.from_frame(seeds)).notes)
    tagged = seeds.assign(tags=[["a"], ["b"]] * (len(seeds) // 2))
    assert len(find_optima(Sweep.from_frame(tagged))) == 2


@pytest.mark.parametrize("bounds", [False, True])
def test_what_is_handed_out_can_be_changed_and_the_optima_do_not_notice(bounds):
    cells = [cell(best=best, params=n) for n, best in [(1e8, 2e-3), (2e8, 1.5e-3), (4e8, 1e-3), (8e8, 1.0)]]
    sweep = sweep_of(*cells, cells[0].assign(loss=cells[0]["loss"] * 1.001))
    optima = find_optima(sweep, method=NearMinimum())

    def ask():
        return optima.bounded_observations("lr") if bounds else optima.observations("lr")

    before, given = ask(), ask()
    given.table["lr"] = 1.0
    given.weights[:] = 7.0
    if bounds:
        assert set(given.censored) == {0, 1}
        given.censored[:] = -1
    after = ask()
    pd.testing.assert_frame_equal(after.table, before.table)
    np.testing.assert_array_equal(after.weights, before.weights)
    np.testing.assert_array_equal(after.censored, before.censored)


@pytest.mark.parametrize(
    ("method", "expected"), [(Basin(asymmetry=0.8), 0.8), (Parabola(), 0.0), (GridMinimum(), None)], ids=repr
)
def test_the_asymmetry_of_the_fitted_curves_is_a_value(method, expected):
    lr = 1e-3 * 2.0 ** np.arange(-4, 5)
    u = np.log(lr / 1e-3)
    runs = pd.DataFrame({"lr": lr, "params": 1e8, "loss": 3 + 0.02 * (np.exp(0.8 * u) - 0.8 * u - 1) / 0.64})
    assert find_optima(Sweep.from_frame(runs), over="lr", method=method).asymmetry == expected
