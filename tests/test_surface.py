"""The joint surface: exact derivatives, the truth of simulated sweeps, regret on held-out cells of a real one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.interpolate import LinearNDInterpolator

import scalefit as sf
from scalefit.simulation import Design, Truth, simulate_sweep
from scalefit.surface.basin import BasinShape, bend
from scalefit.surface.centres import between_cells

TRUTH = Truth()


def sweep_of(design: Design | None = None, seed: int = 0) -> sf.Sweep:
    return sf.read_sweep(simulate_sweep(TRUTH, design, seed=seed), batch_unit="tokens", nonfinite="diverged")


@pytest.fixture(scope="module")
def surface() -> sf.Surface:
    return sf.fit_surface(sweep_of())


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("trends", [0, 2])
def test_basin_derivatives_are_exact(axes, trends):
    rng = np.random.default_rng(0)
    shape = BasinShape(rng.normal(size=(15, trends)), axes)
    psi = shape.start + 0.3 * rng.normal(size=(2, shape.size))
    offsets = rng.normal(size=(axes, 2, 15))
    _, gradient, jacobian = shape(psi, offsets)
    step = 1e-6
    for j in range(shape.size):
        move = step * np.eye(shape.size)[j]
        slope = (shape(psi + move, offsets)[0] - shape(psi - move, offsets)[0]) / (2 * step)
        np.testing.assert_allclose(jacobian[:, j], slope, atol=1e-8)
    for a in range(axes):
        move = np.zeros_like(offsets)
        move[a] = step
        slope = (shape(psi, offsets + move)[0] - shape(psi, offsets - move)[0]) / (2 * step)
        np.testing.assert_allclose(gradient[a], slope, atol=1e-8)


def test_basin_has_its_minimum_at_the_optimum_and_is_steeper_above():
    shape = BasinShape(np.empty((2, 0)), 1)
    height, gradient, _ = shape(shape.start[None], np.array([[[0.0, 0.0]]]))
    assert height[0, 0] == gradient[0, 0, 0] == 0
    below, above = shape(shape.start[None], np.array([[[-1.0, 1.0]]]))[0][0]
    assert above > below > 0


def test_bend_is_smooth_through_zero_curvature():
    u = np.array([1.7])
    for near in (1e-4, 9e-4, 1.1e-3):
        for mine, parabola in zip(bend(u, np.array([near])), bend(u, np.array([0.0])), strict=True):
            np.testing.assert_allclose(mine, parabola, rtol=3e-3)


def test_recovers_the_laws_of_a_simulated_sweep(surface):
    lr, batch = surface.lr_fit.table.set_index("parameter"), surface.batch_fit.table.set_index("parameter")
    assert lr.at["a", "value"] == pytest.approx(TRUTH.lr_params_power, abs=0.01)
    assert lr.at["b", "value"] == pytest.approx(TRUTH.lr_tokens_power, abs=0.01)
    assert batch.at["b", "value"] == pytest.approx(TRUTH.batch_tokens_power, abs=0.02)


def test_predicts_the_optimum_and_its_loss_ten_times_further(surface):
    with pytest.warns(sf.ExtrapolationWarning):
        found = surface.optimum(params=1e10, tokens=6.4e11).iloc[0]
    truth = TRUTH.optimum(1e10, 6.4e11)
    assert found["lr_lo"] < truth["lr"] < found["lr_hi"]
    assert found["batch_lo"] < truth["batch"] < found["batch_hi"]
    assert found["reach"] == pytest.approx(10)
    place = {"lr": 2e-3, "batch": 2.0**19, "params": 2e8, "tokens": 1.6e10}
    assert surface.loss(**place) == pytest.approx(TRUTH.loss(**place), abs=0.01)


def test_loss_is_lowest_at_the_optimum(surface):
    best = surface.optimum(params=2e8, tokens=1.6e10).iloc[0]
    lrs = best["lr"] * 2.0 ** np.linspace(-1, 1, 41)
    losses = surface.loss(lr=lrs, batch=best["batch"], params=2e8, tokens=1.6e10)
    assert np.argmin(losses) == 20


def test_row_order_changes_nothing():
    table = sweep_of().table
    shuffled = table.sample(frac=1, random_state=1)
    place = {"params": 1e9, "tokens": 6.4e10}
    first, second = (
        sf.fit_surface(sf.read_sweep(t.drop(columns="diverged"), batch_unit="tokens")).optimum(**place)
        for t in (table, shuffled)
    )
    pd.testing.assert_frame_equal(first, second, rtol=1e-6)


def test_sweep_of_one_batch_size_gives_a_surface_in_the_learning_rate():
    sweep = sweep_of().where("batch > 2e5 and batch < 3e5")
    surface = sf.fit_surface(sweep)
    assert surface.batch_fit is None
    assert "batch" not in surface.optimum(params=2e8, tokens=1.6e10)
    with pytest.raises(sf.LawError, match="width"):
        surface.optimum(params=2e8, tokens=1.6e10, width=3)
    with pytest.raises(sf.LawError, match="missing: tokens"):
        surface.optimum(params=2e8)


def test_off_centre_and_ragged_grids_need_no_help_and_are_noted():
    surface = sf.fit_surface(sweep_of(Design(off_centre=3.0, missing=0.25), seed=3))
    assert surface.lr_fit.values["a"] == pytest.approx(TRUTH.lr_params_power, abs=0.03)
    outside = int((~surface.cells["inside"]).sum())
    assert outside == 0 or any(note.code == "beyond grid" for note in surface.notes)


def test_too_few_cells_and_foreign_inputs_are_refused():
    with pytest.raises(sf.FitError, match="cells"):
        sf.fit_surface(sweep_of().where("params < 2e7 and tokens < 5e9"))
    with pytest.raises(sf.FitError, match="also needs B"):
        sf.fit_surface(sweep_of(), lr_law="lr_power_batch")


def test_scatter_between_cells_is_found_when_it_is_there():
    rng = np.random.default_rng(5)
    law = sf.laws.get_law("batch_power_tokens")
    found = []
    for _ in range(40):
        tokens = 10 ** rng.uniform(9, 11, 30)
        rows = pd.DataFrame({"tokens": tokens, "batch": 0.6 * tokens**0.57 * np.exp(rng.normal(0, 0.3, 30))})
        found.append(between_cells(law, rows, np.full(30, 0.01)))
    assert np.mean(found) == pytest.approx(0.09 - 0.01, abs=0.02)
    exact = pd.DataFrame({"tokens": tokens, "batch": 0.6 * tokens**0.57})
    assert between_cells(law, exact, np.full(30, 0.01)) == 0.0


def regret(cell: pd.DataFrame, lr: float, batch: float) -> float:
    """Interpolated loss over the cell's lowest, minus one, at the point clipped to the grid."""
    x, y = np.log2(cell["lr"].to_numpy()), np.log2(cell["batch"].to_numpy())
    excess = LinearNDInterpolator(np.c_[x, y], cell["loss"].to_numpy() / cell["loss"].min() - 1)
    return float(excess(np.clip(np.log2(lr), x.min(), x.max()), np.clip(np.log2(batch), y.min(), y.max())))


@pytest.mark.parametrize(("held", "most"), [("params > 1e9", 0.095), ("tokens > 4.9e10", 0.065)])
def test_regret_on_held_out_cells_of_a_real_sweep(shared_data, held, most):
    sweep = sf.read_sweep(shared_data("steplaw_dense_lr_bs.csv"), columns={"loss": "smooth loss"})
    opposite = held.replace(">", "<=")
    surface = sf.fit_surface(sweep.where(opposite))
    regrets = []
    for (params, tokens), cell in sweep.where(held).table.groupby(["params", "tokens"]):
        with pytest.warns(sf.ExtrapolationWarning):
            best = surface.optimum(params=params, tokens=tokens).iloc[0]
        regrets.append(100 * regret(cell, best["lr"], best["batch"]))
    assert np.mean(regrets) <= most


def coverage(sweeps: int) -> pd.DataFrame:
    """Share of simulated sweeps whose 95 % intervals hold the truth, for exponents and a tenfold extrapolation."""
    truth = TRUTH.optimum(1e10, 6.4e11)
    rows = []
    for seed in range(sweeps):
        surface = sf.fit_surface(sweep_of(Design(off_centre=float(seed % 3) - 1, missing=0.15), seed=seed))
        lr, batch = surface.lr_fit.table.set_index("parameter"), surface.batch_fit.table.set_index("parameter")
        with pytest.warns(sf.ExtrapolationWarning):
            far = surface.optimum(params=1e10, tokens=6.4e11).iloc[0]
        rows.append(
            {
                "lr exponent of N": lr.at["a", "lo"] < TRUTH.lr_params_power < lr.at["a", "hi"],
                "lr exponent of D": lr.at["b", "lo"] < TRUTH.lr_tokens_power < lr.at["b", "hi"],
                "batch exponent of D": batch.at["b", "lo"] < TRUTH.batch_tokens_power < batch.at["b", "hi"],
                "lr tenfold": far["lr_lo"] < truth["lr"] < far["lr_hi"],
                "batch tenfold": far["batch_lo"] < truth["batch"] < far["batch_hi"],
            }
        )
    return pd.DataFrame(rows)


def test_intervals_cover_the_truth_of_simulated_sweeps():
    share = coverage(30).mean()
    assert (share >= 0.8).all(), share  # 7 misses or more of 30 at 95 % have a chance below 0.1 % each
    assert share.mean() >= 0.9, share


@pytest.mark.slow
def test_intervals_cover_the_truth_of_many_simulated_sweeps():
    share = coverage(500).mean()
    assert ((share > 0.92) & (share < 0.98)).all(), share


def test_a_coarse_grid_widens_the_window_and_says_so(surface):
    coarse = sf.fit_surface(sweep_of(Design(lr_levels=5, batch_levels=3, lr_ratio=2.0, batch_ratio=4.0), seed=2))
    assert surface.window == 0.0225
    assert coarse.window > 0.0225
    assert any(note.code == "window" for note in coarse.notes)
    assert coarse.lr_fit.values["a"] == pytest.approx(TRUTH.lr_params_power, abs=0.05)


def test_a_joint_fit_that_stopped_early_says_so(monkeypatch):
    from scalefit.surface import joint

    real = joint.minimize
    monkeypatch.setattr(joint, "minimize", lambda *a, **k: real(*a, **{**k, "iterations": 1}))
    surface = sf.fit_surface(sweep_of())
    assert any(note.code == "unfinished" and note.caution for note in surface.notes)


def test_a_good_fit_has_no_caution(surface):
    assert not any(note.code in ("unfinished", "moving", "law") for note in surface.notes)
