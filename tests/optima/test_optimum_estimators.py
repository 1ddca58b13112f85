"""Reading optima off arrays: every way on every kind of cell, and whether the errors quoted are honest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalefit.errors import SweepError
from scalefit.optima.cells import Cells, average, pad, repeats
from scalefit.optima.optimum_estimators import GridMinimum, NearMinimum, Parabola

LR = 2.0 ** np.arange(-13, -6)
METHODS = (GridMinimum(), NearMinimum(), Parabola())


def one_cell(lr, loss):
    return pad(np.zeros(len(lr), dtype=np.int64), np.log(lr)[:, None], np.asarray(loss, dtype=float), 1)


def basins(cells, levels, step, asymmetry, noise, seed, curvature=0.041, floor=3.0):
    """Simulate cells of one axis; the optima lie away from the ends. Returns the optima (ln) and the cells."""
    rng = np.random.default_rng(seed)
    x = np.arange(levels) * step * np.log(2)
    margin = step * np.log(2) * (2 if levels > 7 else 1.2)
    optimum = rng.uniform(x[0] + margin, x[-1] - margin, cells)
    u = x - optimum[:, None]
    shape = (np.expm1(asymmetry * u) - asymmetry * u) / asymmetry**2 if asymmetry else u**2 / 2
    loss = floor + curvature * shape + floor * noise * rng.standard_normal(u.shape)
    return optimum, Cells(np.broadcast_to(x[None, :, None], (*u.shape, 1)).copy(), loss)


def status(method, lr, loss):
    return method.estimate(one_cell(lr, loss)).status[0, 0]


@pytest.mark.parametrize("method", METHODS)
def test_a_clean_basin_is_interior_and_found_within_a_level(method):
    best = 1.3e-3
    found = method.estimate(one_cell(LR, 3 + 0.02 * np.log(LR / best) ** 2))
    assert found.status[0, 0] == "interior"
    assert abs(found.value[0, 0] - np.log(best)) < np.log(2)
    assert found.lo[0, 0] <= found.value[0, 0] <= found.hi[0, 0]


def test_the_parabola_is_exact_on_a_parabola():
    best, h = 1.3e-3, 0.04
    found = Parabola().estimate(one_cell(LR, 3 + h / 2 * np.log(LR / best) ** 2))
    assert found.value[0, 0] == pytest.approx(np.log(best), abs=1e-9)
    assert found.curvature[0, 0] == pytest.approx(h, rel=1e-9)
    assert found.loss[0] == pytest.approx(3, abs=1e-10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_monotone_basin_is_an_edge_with_the_open_side_open(method, sign):
    found = method.estimate(one_cell(LR, 3 - sign * 0.05 * np.log(LR)))
    assert found.status[0, 0] == "edge"
    assert np.exp(found.value[0, 0]) == pytest.approx(LR[-1] if sign > 0 else LR[0])
    assert (found.hi if sign > 0 else found.lo)[0, 0] == sign * np.inf
    assert np.isfinite((found.lo if sign > 0 else found.hi)[0, 0])
    assert np.isnan(found.stderr[0, 0])


@pytest.mark.parametrize("method", METHODS)
def test_a_concave_cell_never_reports_its_maximum(method):
    top = LR[2]
    found = method.estimate(one_cell(LR, 3 - 0.02 * np.log(LR / top) ** 2))
    assert found.status[0, 0] == "edge"
    assert np.exp(found.value[0, 0]) == pytest.approx(LR[-1])


@pytest.mark.parametrize("method", METHODS)
def test_an_optimum_beyond_the_grid_is_a_bound_at_its_end(method):
    found = method.estimate(one_cell(LR, 3 + 0.02 * np.log(LR / (6 * LR[-1])) ** 2))
    assert found.status[0, 0] == "edge"
    assert (np.exp(found.value[0, 0]), found.hi[0, 0]) == (pytest.approx(LR[-1]), np.inf)


@pytest.mark.parametrize("method", METHODS)
def test_equal_losses_are_flat_and_have_no_value(method):
    found = method.estimate(one_cell(LR, np.full(7, 3.0)))
    assert found.status[0, 0] == "flat"
    assert np.isnan(found.value[0, 0])
    assert (found.lo[0, 0], found.hi[0, 0]) == (-np.inf, np.inf)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("noise", [1e-4, 3e-3])
def test_noise_alone_is_hardly_ever_an_optimum(method, noise):
    _, cells = basins(200, 8, 0.5, 0.0, noise, seed=3, curvature=0.0)
    assert (method.estimate(cells).status == "interior").mean() < 0.1


@pytest.mark.parametrize("method", METHODS)
def test_two_levels_are_too_few_however_often_repeated(method):
    assert status(method, np.repeat(LR[:2], 5), 3 + 0.01 * np.arange(10)) == "too_few"
    assert status(method, LR[:3], [3.1, 3.0, np.nan]) == "too_few"
    assert status(method, LR[:3], [np.nan] * 3) == "too_few"


@pytest.mark.parametrize("method", METHODS)
def test_three_blown_up_runs_of_twelve_do_not_drag_the_optimum(method):
    # A plain parabola through these twelve runs reads 9e-4.
    lr = 2.0 ** np.arange(-13, -7, 0.5)
    loss = 3 + 0.03 * np.log(lr / 2e-3) ** 2
    loss[-3:] = [7.5, 9.0, 10.5]
    naive = np.polyfit(np.log(lr), loss, 2)
    assert np.exp(-naive[1] / 2 / naive[0]) < 1.3e-3
    found = method.estimate(one_cell(lr, loss))
    assert found.status[0, 0] == "interior"
    assert abs(np.log2(np.exp(found.value[0, 0]) / 2e-3)) < (0.01 if isinstance(method, Parabola) else 0.3)


@pytest.mark.parametrize("method", METHODS)
def test_a_diverged_neighbour_bounds_the_axis(method):
    loss = 3 + 0.02 * np.log(LR / LR[4]) ** 2
    loss[5:] = np.nan
    assert status(method, LR, loss) == "interior"
    assert status(method, LR[:5], loss[:5]) == "edge"


def test_a_vertex_beyond_a_diverged_run_is_bounded_by_it():
    loss = 3 + 0.02 * np.log(LR / LR[6]) ** 2
    loss[4:] = np.nan
    found = Parabola().estimate(one_cell(LR, loss))
    assert found.status[0, 0] == "edge"
    assert np.exp([found.value[0, 0], found.lo[0, 0], found.hi[0, 0]]) == pytest.approx([LR[3], LR[2], LR[4]])


def test_a_tie_gives_the_middle_not_the_first_row():
    loss = [3.2, 3.0, 3.1, 3.0, 3.2]
    found = GridMinimum().estimate(one_cell(LR[:5], loss))
    assert np.exp(found.value[0, 0]) == pytest.approx(LR[2])
    assert np.exp([found.lo[0, 0], found.hi[0, 0]]) == pytest.approx([LR[0], LR[4]])
    assert [note.code for note in found.notes] == ["ties"]


def test_the_near_minimum_set_keeps_exactly_the_runs_within_its_excess():
    found = NearMinimum(0.01).estimate(one_cell(LR[:5], [3.5, 3.029, 3.0, 3.0301, 3.5]))
    assert found.weight[0] == 2
    assert found.value[0, 0] == pytest.approx(np.log(LR[1:3]).mean())
    assert np.exp([found.lo[0, 0], found.hi[0, 0]]) == pytest.approx(LR[1:3])
    assert np.isnan(found.stderr[0, 0])


def test_a_near_minimum_set_that_touches_the_end_is_a_point_with_an_open_side():
    found = NearMinimum(0.01).estimate(one_cell(LR[:5], [3.5, 3.4, 3.2, 3.0, 3.01]))
    assert (found.status[0, 0], found.hi[0, 0]) == ("interior", np.inf)
    assert [note.code for note in found.notes] == ["touching"]


def test_three_runs_have_a_vertex_but_no_error():
    found = Parabola().estimate(one_cell(LR[:3], [3.02, 3.0, 3.01]))
    assert found.status[0, 0] == "interior"
    assert np.isnan(found.stderr[0, 0])
    assert np.exp([found.lo[0, 0], found.hi[0, 0]]) == pytest.approx([LR[0], LR[2]])


@pytest.mark.parametrize("method", METHODS)
def test_units_and_row_order_change_nothing(method):
    _, cells = basins(30, 7, 1.0, 0.8, 1e-3, seed=5)
    cell = np.repeat(np.arange(30), 7)
    x, loss = cells.x.reshape(-1, 1), cells.loss.ravel()
    base = method.estimate(pad(cell, x, loss, 30))
    order = np.random.default_rng(0).permutation(len(cell))
    mixed = method.estimate(pad(cell[order], x[order], loss[order], 30))
    moved = method.estimate(pad(cell, x + np.log(1000.0), loss, 30))
    scaled = method.estimate(pad(cell, x, loss * 1.4427, 30))
    for name in ("value", "lo", "hi", "stderr", "curvature", "loss", "weight"):
        assert np.array_equal(getattr(base, name), getattr(mixed, name), equal_nan=True)
    np.testing.assert_allclose(moved.value, base.value + np.log(1000.0), rtol=0, atol=1e-9)
    np.testing.assert_allclose(moved.stderr, base.stderr, rtol=1e-6)
    np.testing.assert_allclose(scaled.value, base.value, rtol=0, atol=1e-9)
    np.testing.assert_allclose(scaled.curvature, base.curvature * 1.4427, rtol=1e-8)
    assert (moved.status == base.status).all()
    assert (scaled.status == base.status).all()


def test_ragged_cells_are_as_if_alone_for_methods_that_pool_nothing():
    sizes, rng = [3, 12, 5, 1], np.random.default_rng(2)
    cell = np.repeat(np.arange(4), sizes)
    x = np.concatenate([np.arange(n) * 0.7 for n in sizes])[:, None]
    loss = 3 + 0.05 * (x[:, 0] - 0.8) ** 2 + 0.001 * rng.standard_normal(len(x))
    together = NearMinimum().estimate(pad(cell, x, loss, 4))
    for k in range(4):
        alone = NearMinimum().estimate(pad(np.zeros(sizes[k], dtype=int), x[cell == k], loss[cell == k], 1))
        assert np.array_equal(alone.value[0], together.value[k], equal_nan=True)
    assert together.status[:, 0].tolist() == ["interior", "interior", "interior", "too_few"]


def test_levels_within_the_tolerance_are_one_level():
    x = np.log([1e-3, 1.0001e-3, 2e-3, 4e-3, 4e-3])[:, None]
    cell = np.zeros(5, dtype=int)
    assert pad(cell, x, np.arange(5) + 3.0, 1).level_counts().tolist() == [[3]]
    assert len(set(repeats(cell, x).tolist())) == 3


def test_averaging_keeps_places_and_ignores_diverged_repeats():
    x = np.log([1e-3, 1e-3, 2e-3, 2e-3, 4e-3])[:, None]
    cell = np.zeros(5, dtype=int)
    _, places, loss = average(cell, x, np.array([3.0, 3.2, 3.5, np.nan, np.nan]), repeats(cell, x))
    np.testing.assert_allclose(np.exp(places[:, 0]), [1e-3, 2e-3, 4e-3])
    np.testing.assert_allclose(loss, [3.1, 3.5, np.nan])


def grid_2d(best=(-6.3, 12.2), tilt=0.4, noise=0.0, cells=1, seed=0):
    lr, batch = np.meshgrid(np.arange(-9, -3, 0.7), np.arange(10, 15, 0.7), indexing="ij")
    x = np.column_stack([lr.ravel(), batch.ravel()])
    u, v = x[:, 0] - best[0] - tilt * (x[:, 1] - best[1]), x[:, 1] - best[1]
    loss = 3 + 0.02 * u**2 + 0.015 * v**2
    rng = np.random.default_rng(seed)
    loss = np.tile(loss, cells) + noise * rng.standard_normal(cells * len(x))
    return np.repeat(np.arange(cells), len(x)), np.tile(x, (cells, 1)), loss


def test_a_tilted_basin_over_two_axes_is_found_also_without_a_corner():
    cell, x, loss = grid_2d()
    kept = ~((x[:, 0] > -4.5) & (x[:, 1] > 13))
    for rows in (slice(None), kept):
        found = Parabola().estimate(pad(cell[rows], x[rows], loss[rows], 1))
        np.testing.assert_allclose(found.value[0], [-6.3, 12.2], atol=1e-8)
        assert found.status.tolist() == [["interior", "interior"]]
    assert found.curvature[0, 0] == pytest.approx(0.04, rel=1e-6)


def test_over_two_axes_each_has_its_own_status():
    cell, x, loss = grid_2d(best=(-2.0, 12.2), tilt=0.0)
    for method in METHODS:
        found = method.estimate(pad(cell, x, loss, 1))
        assert found.status.tolist() == [["edge", "interior"]]


def test_the_two_axis_interval_covers():
    cell, x, loss = grid_2d(noise=0.003, cells=300, seed=4)
    found = Parabola().estimate(pad(cell, x, loss, 300))
    inside = (found.lo <= [-6.3, 12.2]) & (found.hi >= [-6.3, 12.2])
    assert (found.status == "interior").all()
    assert 0.92 < inside.mean() < 0.99
    z = (found.value - [-6.3, 12.2]) / found.stderr
    assert 0.85 < z.std() < 1.15


def coverage(levels, step, asymmetry, noise, sweeps, cells=16):
    inside, shift = [], []
    for seed in range(sweeps):
        optimum, simulated = basins(cells, levels, step, asymmetry, noise, seed=1000 + seed)
        found = Parabola().estimate(simulated)
        point = found.status[:, 0] == "interior"
        inside.append(((found.lo[:, 0] <= optimum) & (optimum <= found.hi[:, 0]))[point])
        shift.append((found.value[:, 0] - optimum)[point])
    return np.concatenate(inside).mean(), np.median(np.concatenate(shift)) / np.log(2)


def test_the_interval_covers_symmetric_basins():
    covered, shift = coverage(12, 0.5, 0.0, 0.0012, sweeps=40)
    assert 0.94 < covered < 1
    assert abs(shift) < 0.01


def test_asymmetry_shifts_the_parabola_low_and_the_interval_reaches_for_it():
    covered, shift = coverage(7, 1.0, 0.8, 0.0012, sweeps=40)
    assert -0.30 < shift < -0.15
    assert covered > 0.94
    _, cells = basins(30, 7, 1.0, 0.8, 0.0012, seed=1)
    assert [note.code for note in Parabola().estimate(cells).notes] == ["asymmetry"]
    _, cells = basins(30, 7, 1.0, 0.0, 0.0012, seed=1)
    assert Parabola().estimate(cells).notes == ()


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0005, 0.0012, 0.003])
@pytest.mark.parametrize(
    ("levels", "step", "asymmetry", "least"),
    [(12, 0.5, 0, 0.95), (7, 1, 0, 0.95), (5, 1, 0, 0.95), (12, 0.5, 0.8, 0.85), (7, 1, 0.8, 0.95), (5, 1, 0.8, 0.93)],
)
def test_the_coverage_table_of_the_docs(levels, step, asymmetry, least, noise):
    assert coverage(levels, step, asymmetry, noise, sweeps=120)[0] > least


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_cells_give_consistent_answers(method, seed):
    rng = np.random.default_rng(seed)
    cells, axes = rng.integers(1, 20), rng.integers(1, 3)
    cell = np.r_[np.arange(cells), rng.integers(0, cells, rng.integers(1, 60))]
    x = np.round(rng.normal(-7, rng.choice([1e-6, 0.1, 1, 10]), (len(cell), axes)), rng.integers(0, 4))
    loss = np.exp(rng.normal(1, rng.choice([0, 1e-12, 1e-3, 0.1, 2]), len(cell)))
    loss[rng.random(len(cell)) < rng.choice([0, 0.2, 0.9])] = np.nan
    found = method.estimate(pad(cell, x, loss, cells))
    interior, bound = found.status == "interior", found.status == "edge"
    assert np.isfinite(found.value[interior | bound]).all()
    assert np.isnan(found.value[~(interior | bound)]).all()
    assert np.isnan(found.stderr[~interior]).all()
    assert (found.lo[interior] <= found.value[interior] + 1e-9).all()
    assert (found.hi[interior] >= found.value[interior] - 1e-9).all()
    assert np.isfinite(found.loss[interior.any(axis=1)]).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: NearMinimum(0),
        lambda: NearMinimum(-0.01),
        lambda: Parabola(window=0),
        lambda: Parabola(window=float("nan")),
        lambda: Parabola(level=1),
    ],
)
def test_settings_without_meaning_are_refused(make):
    with pytest.raises(SweepError, match="expects"):
        make()
