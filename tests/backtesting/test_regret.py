"""Regret: by hand on tiny grids, against scipy, under noise, and where the definition runs out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scalefit.backtesting.regret import CellRuns, group_runs, searched_axes
from scalefit.errors import SweepError
from scalefit.simulation import Design, Truth, simulate_sweep
from scalefit.sweep import Sweep

LN2 = np.log(2.0)


def grid(losses: np.ndarray, noise: float = 0.0) -> CellRuns:
    """A cell with lr = 1, 2, 4 ... along rows and batch = 1, 2, 4 ... along columns, in logs."""
    rows, columns = np.indices(losses.shape)
    return CellRuns(LN2 * np.column_stack([rows.ravel(), columns.ravel()]), losses.ravel(), noise)


def simulated(truth: Truth, design: Design | None = None, seed: int = 0) -> Sweep:
    runs = simulate_sweep(truth, design, seed=seed)
    return Sweep.from_frame(runs.assign(diverged=runs["loss"].isna()))


def regret(sweep: Sweep, points: pd.DataFrame) -> pd.DataFrame:
    """Return settings, one row each with the params and tokens of its cell, with their regret in percent."""
    keys, _, cells = group_runs(sweep)
    x = np.log(points[list(searched_axes(sweep))].to_numpy())
    places = points[list(keys.columns)].to_numpy()
    own = [int(np.abs(np.log(keys.to_numpy() / place)).max(axis=1).argmin()) for place in places]
    return points.assign(regret_pct=[100 * cells[k].regret(x[[row]]).value[0] for row, k in enumerate(own)])


PLANE = 2.0 + 0.1 * np.arange(3)[:, None] + 0.02 * np.arange(3)[None, :]


def test_plane_is_interpolated_exactly():
    places = np.array([[0.0, 0.0], [0.5, 0.25], [1.3, 1.9], [2.0, 2.0]])
    expected = (0.1 * places[:, 0] + 0.02 * places[:, 1]) / 2.0
    found = grid(PLANE).regret(LN2 * places)
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert not found.clipped.any()
    assert not found.off_hull.any()


def test_hand_computed_triangle():
    # The diagonal runs from (lr 2, batch 1) to (lr 1, batch 2): the point (1/4, 1/4) is 1/2, 1/4, 1/4 of three corners.
    found = grid(np.array([[2.0, 2.2], [2.4, 9.0]])).regret(LN2 * np.array([[0.25, 0.25], [0.75, 0.75]]))
    assert found.value[0] == pytest.approx((0.5 * 2.0 + 0.25 * 2.2 + 0.25 * 2.4) / 2 - 1)
    assert found.value[1] == pytest.approx((0.5 * 9.0 + 0.25 * 2.2 + 0.25 * 2.4) / 2 - 1)


def test_point_outside_the_grid_is_clipped():
    found = grid(PLANE).regret(LN2 * np.array([[5.0, -1.0], [1.0, 1.0]]))
    assert found.value[0] == pytest.approx(0.2 / 2.0)
    assert found.clipped.tolist() == [True, False]


def test_ragged_runs_are_read_at_the_nearest_place_of_the_hull():
    x = LN2 * np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    cell = CellRuns(x, np.array([2.0, 2.2, 2.4]), 0.0)
    found = cell.regret(LN2 * np.array([[2.0, 2.0], [0.5, 0.5], [1.0, 1.0]]))
    assert found.off_hull.tolist() == [True, False, False]
    assert found.value[0] == pytest.approx((2.2 + 2.4) / 2 / 2.0 - 1)
    assert found.value[2] == pytest.approx(found.value[0])


def test_one_axis_is_interpolated_along_its_line():
    cell = CellRuns(LN2 * np.array([[2.0], [0.0], [1.0]]), np.array([2.4, 2.2, 2.0]), 0.0)
    found = cell.regret(LN2 * np.array([[0.25], [1.5], [9.0], [np.nan]]))
    assert found.value[:3] == pytest.approx([0.075, 0.1, 0.2])
    assert np.isnan(found.value[3])
    assert found.clipped.tolist() == [False, False, True, False]


def test_axis_constant_within_a_cell_is_clipped_to_its_level():
    cell = CellRuns(LN2 * np.array([[0.0, 3.0], [1.0, 3.0]]), np.array([2.0, 2.2]), 0.0)
    found = cell.regret(LN2 * np.array([[0.5, 3.0], [0.5, 4.0]]))
    assert found.value == pytest.approx([0.05, 0.05])
    assert found.clipped.tolist() == [False, True]


def test_runs_on_a_slanted_line_span_nothing():
    x = LN2 * np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    found = CellRuns(x, np.array([2.0, 2.1, 2.2]), 0.0).regret(LN2 * np.array([[0.5, 0.5]]))
    assert np.isnan(found.value).all()


def test_diverged_run_counts_with_the_highest_loss():
    cell = CellRuns(LN2 * np.array([[0.0], [1.0], [2.0]]), np.array([2.6, 2.0, np.nan]), 0.0)
    found = cell.regret(LN2 * np.array([[1.5], [0.5]]))
    assert found.value == pytest.approx([0.15, 0.15])
    assert found.beside_diverged.tolist() == [True, False]


def test_repeated_runs_are_averaged_but_the_best_run_is_the_luckiest():
    cell = CellRuns(LN2 * np.array([[0.0], [0.0], [1.0]]), np.array([2.0, 2.2, 2.4]), 0.0)
    assert cell.regret(np.array([[0.0]])).value == pytest.approx([0.05])


def test_cell_of_diverged_runs_has_no_regret():
    found = CellRuns(LN2 * np.array([[0.0], [1.0]]), np.array([np.nan, np.nan]), 0.1).regret(np.zeros((1, 1)))
    assert np.isnan(found.value).all()
    assert np.isnan(found.stderr).all()


def test_row_order_does_not_matter():
    rng = np.random.default_rng(3)
    losses, places = 2 + rng.random((5, 4)), LN2 * rng.uniform(-0.5, 4.5, (40, 2))
    cell = grid(losses, noise=0.01)
    order = rng.permutation(20)
    shuffled = CellRuns(cell.x[order], cell.loss[order], 0.01)
    assert shuffled.regret(places).value == pytest.approx(cell.regret(places).value, abs=1e-14)
    assert shuffled.regret(places).stderr == pytest.approx(cell.regret(places).stderr, abs=1e-14)


def test_agrees_with_scipy_where_the_triangles_are_unique():
    from scipy.interpolate import LinearNDInterpolator

    rng = np.random.default_rng(5)
    x, loss, places = rng.random((60, 2)), 2 + rng.random(60), rng.uniform(0.2, 0.8, (50, 2))
    tilt = np.array([[1.0, 0.01], [0.01, 1.0]])
    expected = LinearNDInterpolator(x @ tilt, loss / loss.min() - 1)(places @ tilt)
    assert np.isfinite(expected).all()
    assert CellRuns(x, loss, 0.0).regret(places).value == pytest.approx(expected, abs=1e-12)


def test_stderr_by_hand_far_from_the_minimum():
    # At the run with loss 3 the noise is that of this run and of the best one, scaled: no third run competes.
    cell = CellRuns(LN2 * np.arange(3.0)[:, None], np.array([2.0, 3.0, 4.0]), noise=0.01)
    found = cell.regret(LN2 * np.array([[1.0]]), draws=20_000)
    expected = 0.01 / 2 * np.hypot(1.0, 3.0 / 2.0)
    assert found.stderr[0] == pytest.approx(expected, rel=0.03)


def test_stderr_is_the_spread_over_repeated_sweeps():
    design, truth = Design(params=(1e8, 1e9), tokens=(2e9, 2e10)), Truth(noise=0.004, noise_dof=np.inf)
    values, errors = [], []
    for seed in range(60):
        keys, _, runs = group_runs(simulated(truth, design, seed))
        best = truth.optimum(keys["params"], keys["tokens"])
        points = np.log(np.column_stack([1.5 * best["lr"], 0.8 * best["batch"]]))
        found = [one.regret(points[k : k + 1]) for k, one in enumerate(runs)]
        values.append([each.value[0] for each in found])
        errors.append([each.stderr[0] for each in found])
    ratio = np.mean(errors) / np.std(values, axis=0).mean()
    assert 0.9 < ratio < 1.5


def test_unknown_noise_gives_no_stderr():
    assert np.isnan(grid(PLANE, noise=np.nan).regret(np.zeros((1, 2))).stderr).all()


def test_optimum_of_a_fine_noiseless_grid_costs_nothing():
    truth = Truth(noise=0.0)
    design = Design(params=(1e8,), tokens=(2e9, 2e10), lr_levels=41, lr_ratio=1.2, batch_levels=31, batch_ratio=1.2)
    sweep = simulated(truth, design)
    points = sweep.cells[["params", "tokens"]]
    best = truth.optimum(points["params"], points["tokens"])
    found = regret(sweep, points.assign(lr=best["lr"], batch=best["batch"]))
    assert (found["regret_pct"] < 0.02).all()
    worse = regret(sweep, points.assign(lr=3 * best["lr"], batch=best["batch"]))
    exact = truth.loss(3 * best["lr"], best["batch"], points["params"], points["tokens"])
    lowest = truth.lowest_loss(points["params"], points["tokens"])
    assert worse["regret_pct"].to_numpy() == pytest.approx(100 * (exact / lowest - 1), abs=0.05)


def test_step_law_regret_follows_the_definition(shared_data):
    from scipy.interpolate import LinearNDInterpolator

    raw = pd.read_csv(shared_data("steplaw_dense_lr_bs.csv"))
    runs = pd.DataFrame(
        {
            "lr": raw["lr"],
            "batch": raw["bs"] * 2048.0,
            "params": raw["N"],
            "tokens": raw["D"],
            "loss": raw["smooth loss"],
        }
    )
    points = runs[["params", "tokens"]].drop_duplicates().astype(float)
    points = points.assign(lr=1.79 * points["params"] ** -0.713 * points["tokens"] ** 0.307)
    points = points.assign(batch=0.58 * points["tokens"] ** 0.571)
    found = regret(Sweep.from_frame(runs), points)
    for row in found.iloc[::16].itertuples():  # scipy's search is slow on a busy machine
        cell = runs[(runs["params"] == row.params) & (runs["tokens"] == row.tokens)]
        x = np.log2(cell[["lr", "batch"]].to_numpy())
        at = np.clip(np.log2([row.lr, row.batch]), x.min(axis=0), x.max(axis=0))
        plain = [LinearNDInterpolator(x @ t, cell["loss"] / cell["loss"].min() - 1)(at @ t)[0] for t in _tilts()]
        assert 100 * min(plain) - 1e-9 <= row.regret_pct <= 100 * max(plain) + 1e-9


def _tilts() -> list[np.ndarray]:
    """Both ways to settle the diagonals of a rectangular grid."""
    return [np.array([[1.0, s], [s, 1.0]]) for s in (0.01, -0.01)]


def test_searched_axes_are_those_varied_within_cells():
    runs = pd.DataFrame({"lr": [1e-3, 2e-3] * 2, "params": [1e8, 1e8, 2e8, 2e8], "batch": [1e5, 1e5, 2e5, 2e5]})
    assert searched_axes(Sweep.from_frame(runs.assign(loss=3.0))) == ("lr",)
    with pytest.raises(SweepError, match="no cell"):
        searched_axes(Sweep.from_frame(runs.assign(loss=3.0, lr=1e-3)))
    with pytest.raises(SweepError, match="params"):
        searched_axes(Sweep.from_frame(pd.DataFrame({"lr": [1e-3, 2e-3], "loss": 3.0})))
