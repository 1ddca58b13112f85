"""What a wrong learning rate costs, against basins whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import scalefit as sf
from scalefit import Basin, FitStatus, SweepError
from scalefit.optima.lr_sensitivity import Sensitivity, lr_sensitivity
from scalefit.optima.near_optimal import near_optimal
from scalefit.simulation import Design, Truth, simulate_sweep

SMOOTH = Truth(noise=0.0, cliff=1e6, lr_batch_power=0.0)
DESIGN = Design(params=(1e7, 4e7, 1.6e8), tokens=(1e9, 4e9, 1.6e10), batch_levels=1, lr_levels=13, lr_ratio=2**0.5)


def swept(truth: Truth, design: Design = DESIGN, seed: int = 0) -> sf.Sweep:
    table = simulate_sweep(truth, design, seed=seed)
    return sf.read_sweep(table, batch_unit="tokens", nonfinite="diverged")


def expected(truth: Truth, row: pd.Series, span: float, cap: float) -> float:
    """Integrate the noiseless basin of a cell finely."""
    u = np.linspace(-np.log(span), np.log(span), 40001)
    best = float(truth.optimum(row["params"], row["tokens"], row["batch"])["lr"])
    loss = truth.loss(best * np.exp(u), row["batch"], row["params"], row["tokens"])
    counted = np.where(np.isfinite(loss), np.minimum(loss, cap), cap)
    bottom = float(truth.loss(best, row["batch"], row["params"], row["tokens"]))
    return float(np.mean((counted[1:] + counted[:-1]) / 2)) - bottom


def one_cell(loss: np.ndarray, lr: np.ndarray) -> sf.Sweep:
    diverged = ~np.isfinite(loss)
    return sf.Sweep.from_frame(pd.DataFrame({"lr": lr, "params": 1e8, "loss": loss, "diverged": diverged}))


# -- the number --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("span", [2.0, 3.0, 5.0])
@pytest.mark.parametrize(("levels", "ratio"), [(13, 2**0.5), (9, 2.0)])
def test_a_noiseless_basin_gives_its_integral(span: float, levels: int, ratio: float) -> None:
    sweep = swept(SMOOTH, replace(DESIGN, lr_levels=levels, lr_ratio=ratio))
    found = lr_sensitivity(sweep, span=span).table
    assert (found["status"] == "whole").all()
    truth = [expected(SMOOTH, row, span, np.inf) for _, row in found.iterrows()]
    # The bottom is exact; parabolas through rates an octave apart miss this much of a mean over two octaves.
    np.testing.assert_allclose(found["sensitivity"], truth, rtol=0.04)
    np.testing.assert_allclose(found["lr_hi"] / found["lr_lo"], span**2, rtol=1e-12)


def test_a_parabola_is_integrated_exactly_on_a_ragged_grid() -> None:
    lr = 1e-3 * np.exp(np.array([-3.0, -2.1, -1.0, -0.4, 0.2, 0.9, 1.5, 2.9]))
    found = lr_sensitivity(one_cell(3 + 0.03 * np.log(lr / 1e-3) ** 2, lr), span=4.0, method=Basin(asymmetry=0))
    assert found.table["sensitivity"][0] == pytest.approx(0.03 * np.log(4) ** 2 / 3, rel=1e-8)
    assert found.table["n_runs"][0] == 4


def test_neither_units_of_the_rate_nor_the_order_of_rows_matter() -> None:
    table = swept(replace(SMOOTH, noise=0.002)).table
    plain = lr_sensitivity(sf.Sweep.from_frame(table)).table
    shuffled = lr_sensitivity(sf.Sweep.from_frame(table.sample(frac=1, random_state=1))).table
    pd.testing.assert_frame_equal(plain, shuffled, rtol=1e-12)
    scaled = lr_sensitivity(sf.Sweep.from_frame(table.assign(lr=table["lr"] * 100))).table
    np.testing.assert_allclose(scaled["sensitivity"], plain["sensitivity"], rtol=1e-9)


def test_the_standard_error_is_the_scatter() -> None:
    noisy = replace(SMOOTH, noise=0.003)
    runs = [lr_sensitivity(swept(noisy, seed=seed)).table for seed in range(25)]
    truth = np.array([expected(SMOOTH, row, 3.0, np.inf) for _, row in runs[0].iterrows()])
    off = np.array([run["sensitivity"] - truth for run in runs])
    z = off / np.array([run["stderr"] for run in runs])
    assert 0.75 < np.std(z) < 1.3
    assert abs(np.mean(off)) < 0.05 * truth.mean()


def test_repeated_seeds_shrink_the_error() -> None:
    noisy = replace(SMOOTH, noise=0.003)
    once = lr_sensitivity(swept(noisy)).table["stderr"].median()
    nine = lr_sensitivity(swept(noisy, replace(DESIGN, repeats=9))).table["stderr"].median()
    assert nine == pytest.approx(once / 3, rel=0.35)


# -- the cap -----------------------------------------------------------------------------------------------------------


def test_diverged_runs_count_at_the_cap() -> None:
    cliff = replace(SMOOTH, cliff=2.5)
    found = lr_sensitivity(swept(cliff), span=4.0, cap=9.0)
    table = found.table
    assert (table["n_capped"] >= 1).all()
    assert (table["cap"] == 9.0).all()
    truth = np.array([expected(cliff, row, 4.0, 9.0) for _, row in table.iterrows()])
    # the cliff lies somewhere between two rates half an octave apart
    slack = 0.5 * np.log(2) * (9.0 - table["loss"]) / (2 * np.log(4))
    assert (np.abs(table["sensitivity"] - truth) < slack).all()
    assert (table["sensitivity"] > 0.5).all()


def test_a_finite_loss_above_the_cap_counts_as_a_diverged_run() -> None:
    lr = 1e-3 * 2.0 ** np.arange(-4.0, 5.0)
    loss = 3 + 0.03 * np.log(lr / 1e-3) ** 2
    high, none = loss.copy(), loss.copy()
    high[-2:], none[-2:] = [60.0, 400.0], np.nan
    both = [lr_sensitivity(one_cell(values, lr), span=12.0, cap=11.0).table for values in (high, none)]
    assert both[0]["sensitivity"][0] == pytest.approx(both[1]["sensitivity"][0], rel=0.01)
    assert both[0]["n_capped"][0] == both[1]["n_capped"][0] == 1


def test_without_a_cap_the_highest_finite_loss_of_the_cell_serves_and_is_told_of() -> None:
    lr = 1e-3 * 2.0 ** np.arange(-4.0, 5.0)
    loss = 3 + 0.03 * np.log(lr / 1e-3) ** 2
    loss[-3:] = np.nan
    found = lr_sensitivity(one_cell(loss, lr), span=4.0)
    assert found.table["cap"][0] == np.nanmax(loss)
    note = next(note for note in found.notes if note.code == "sensitivity")
    assert note.caution
    assert "highest finite loss" in note.text
    capped = lr_sensitivity(one_cell(loss, lr), span=4.0, cap=11.0)
    assert capped.table["sensitivity"][0] > found.table["sensitivity"][0] + 0.2


def test_settings_that_mean_nothing() -> None:
    sweep = swept(SMOOTH)
    for span in (1.0, 0.5, np.inf, np.nan):
        with pytest.raises(SweepError, match="span is the factor"):
            lr_sensitivity(sweep, span=span)
    for cap in (1.0, -3.0, np.inf, np.nan):
        with pytest.raises(SweepError, match="cap is the loss at initialisation"):
            lr_sensitivity(sweep, cap=cap)
    with pytest.raises(SweepError, match="expects a Sweep"):
        lr_sensitivity(sweep.table)
    for excess in (0.0, -0.1, np.inf):
        with pytest.raises(SweepError, match="excess should be"):
            near_optimal(sweep, excess)
    with pytest.raises(SweepError, match="expects a Sweep"):
        near_optimal(sf.find_optima(sweep))
    with pytest.raises(SweepError, match=r"method should be Basin"):
        near_optimal(sweep, method=sf.GridMinimum())


# -- which cells -------------------------------------------------------------------------------------------------------


def test_a_range_cut_off_by_the_grid_is_averaged_as_far_as_it_goes_and_says_so() -> None:
    lr = 1e-3 * 2.0 ** np.arange(-4.0, 2.0)
    loss = 3 + 0.03 * np.log(lr / 1e-3) ** 2
    found = lr_sensitivity(one_cell(loss, lr), span=8.0, method=Basin(asymmetry=0))
    row = found.table.iloc[0]
    assert row["status"] == "part"
    assert row["covered"] == pytest.approx(4 / 6)
    assert row["lr_hi"] == pytest.approx(2e-3)
    ends = np.log(2.0) * np.array([-3, 1])
    assert row["sensitivity"] == pytest.approx(0.03 * np.diff(ends**3)[0] / (3 * np.diff(ends)[0]), rel=1e-6)
    assert any(note.code == "part" and note.caution for note in found.notes)
    with pytest.raises(SweepError, match="take a smaller span"):
        found.trend()


def test_a_cell_without_an_optimum_has_no_sensitivity() -> None:
    lr = 1e-3 * 2.0 ** np.arange(6.0)
    table = pd.DataFrame({"lr": np.tile(lr, 3), "params": np.repeat([1e8, 2e8, 3e8], 6)})
    table["loss"] = np.concatenate([3 - 0.1 * np.log(lr / 1e-3), 3 + 0.05 * np.log(lr / 6e-3) ** 2, np.full(6, np.nan)])
    found = lr_sensitivity(sf.Sweep.from_frame(table.assign(diverged=table["loss"].isna())), span=2.0)
    assert found.table["status"].tolist() == ["edge", "whole", "too_few"]
    assert found.table["sensitivity"].isna().tolist() == [True, False, True]
    assert len(found.observations("s").table) == 1


def test_the_result_is_frozen_and_shows_itself() -> None:
    found = lr_sensitivity(swept(SMOOTH))
    mine = found.table
    mine["sensitivity"] = 0.0
    assert (found.table["sensitivity"] > 0).all()
    with pytest.raises(AttributeError):
        found.span = 2.0  # type: ignore[misc]
    assert len(found) == 9
    assert "9 whole" in repr(found)
    assert "<table" in found._repr_html_()
    assert isinstance(found, Sensitivity)


# -- the trend ---------------------------------------------------------------------------------------------------------


def curved(power_params: float, power_tokens: float, noise: float = 0.0, seed: int = 0) -> sf.Sweep:
    """Cells whose basins have a curvature that is itself a power law in N and D."""
    rng, parts = np.random.default_rng(seed), []
    for n in (1e7, 1e8, 1e9):
        for d in (1e9, 1e10, 1e11):
            u = np.log(2) * np.arange(-5, 6) / 2 + 0.1
            height = 0.05 * (n / 1e8) ** power_params * (d / 1e10) ** power_tokens
            loss = 3 + height * (np.exp(0.8 * u) - 0.8 * u - 1) / 0.64 + noise * rng.normal(size=11)
            parts.append(pd.DataFrame({"lr": 1e-3 * np.exp(u), "params": n, "tokens": d, "loss": loss}))
    return sf.Sweep.from_frame(pd.concat(parts, ignore_index=True))


def test_the_trend_is_found() -> None:
    fit = lr_sensitivity(curved(0.0, -0.3)).trend()
    assert fit.law.formula == "s = c * N**a * D**b"
    assert fit.status is FitStatus.CONVERGED
    assert fit.values["a"] == pytest.approx(0.0, abs=0.01)
    assert fit.values["b"] == pytest.approx(-0.3, abs=0.01)


def test_noise_moves_the_trend_little() -> None:
    """Errors of the optimum raise the sensitivity of flat basins a little, which tilts the trend by a few percent."""
    fits = [lr_sensitivity(curved(0.1, -0.3, noise=0.001, seed=seed)).trend() for seed in range(20)]
    found = np.array([[fit.values["a"], fit.values["b"]] for fit in fits])
    np.testing.assert_allclose(found.mean(axis=0), [0.1, -0.3], atol=0.015)
    quoted = np.array([fit.table.set_index("parameter").loc[["a", "b"], "stderr"] for fit in fits])
    ratio = found.std(axis=0) / np.sqrt((quoted**2).mean(axis=0))
    assert ((ratio > 0.5) & (ratio < 2.0)).all()


def test_the_trend_is_in_what_tells_cells_apart_or_as_asked() -> None:
    sweep = curved(0.0, -0.3)
    only = lr_sensitivity(sweep.where("params < 2e7")).trend()
    assert only.law.formula == "s = c * D**b"
    assert only.values["b"] == pytest.approx(-0.3, abs=0.01)
    asked = lr_sensitivity(sweep).trend("s = q * D**b")
    assert set(asked.values) == {"q", "b"}
    with pytest.raises(sf.FitError, match="differ in params, tokens or batch"):
        lr_sensitivity(sweep.where("params < 2e7 and tokens < 2e9")).trend()


def test_cells_left_out_of_the_trend_are_told_of() -> None:
    sweep = curved(0.0, -0.3)
    short = sweep.where("params < 5e8 or lr < 1.5e-3")
    fit = lr_sensitivity(short).trend()
    assert fit.n == 6
    assert any(note.code == "left_out" for note in fit.notes)


def test_step_law_basins_grow_milder_with_more_data(shared_data: Callable[[str], Path]) -> None:
    """As Time Transfer reports of its own runs."""
    raw = pd.read_csv(shared_data("steplaw_dense_lr_bs.csv"))
    runs = {"lr": raw["lr"], "batch": raw["bs"] * 2048.0, "params": raw["N"], "tokens": raw["D"]}
    sweep = sf.Sweep.from_frame(pd.DataFrame(runs | {"loss": raw["smooth loss"]}))
    found = lr_sensitivity(sweep, cap=11.0)
    assert found.table["status"].value_counts()["whole"] > 100
    trend = found.trend().table.set_index("parameter")
    assert trend.loc["b", "hi"] < -0.2
    assert trend.loc["b", "stderr"] < 0.05


# -- the interval ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("excess", [0.0005, 0.0025, 0.01])
@pytest.mark.parametrize("asymmetry", [0.0, 0.8, 1.2])
def test_the_ends_of_the_interval_cost_the_stated_excess(excess: float, asymmetry: float) -> None:
    truth = replace(SMOOTH, asymmetry=asymmetry)
    near = near_optimal(swept(truth), excess, method=Basin(asymmetry=asymmetry))
    place = near["batch"], near["params"], near["tokens"]
    lowest = truth.loss(near["lr"], *place)
    for end in ("lr_lo", "lr_hi"):
        np.testing.assert_allclose(truth.loss(near[end], *place) / lowest - 1, excess, rtol=1e-3)
    assert not near[["open_lo", "open_hi"]].any(axis=None)
    np.testing.assert_allclose(near["octaves"], np.log2(near["lr_hi"] / near["lr_lo"]), rtol=1e-12)


def test_the_shared_asymmetry_is_found_for_the_interval() -> None:
    near = near_optimal(swept(SMOOTH), 0.0025)
    given = near_optimal(swept(SMOOTH), 0.0025, method=Basin(asymmetry=0.8))
    np.testing.assert_allclose(near["lr_hi"], given["lr_hi"], rtol=0.01)
    up, down = np.log(near["lr_hi"] / near["lr"]), np.log(near["lr"] / near["lr_lo"])
    assert (up < down).all()  # steeper above


def test_an_interval_that_outruns_the_grid_is_open_there() -> None:
    lr = 1e-3 * 2.0 ** np.array([-4.0, -3.0, -2.0, -1.0, 0.0, 0.5])
    sweep = one_cell(3 + 0.004 * np.log(lr / 1e-3) ** 2, lr)
    row = near_optimal(sweep, 0.0025, method=Basin(asymmetry=0)).iloc[0]
    assert row["status"] == "interior"
    assert (row["open_lo"], row["open_hi"]) == (False, True)
    assert row["lr_hi"] == np.inf
    assert row["octaves"] == np.inf
    assert row["lr_lo"] == pytest.approx(1e-3 * np.exp(-np.sqrt(0.0075 / 0.004)), rel=1e-6)


def test_a_cell_whose_optimum_is_a_bound_is_open_on_both_sides() -> None:
    lr = 1e-3 * 2.0 ** np.arange(6.0)
    row = near_optimal(one_cell(3 - 0.1 * np.log(lr / 1e-3), lr)).iloc[0]
    assert row["status"] == "edge"
    assert row["open_lo"]
    assert row["open_hi"]
    assert (row["lr_lo"], row["lr_hi"]) == (0.0, np.inf)


def test_a_real_width_sweep_tells_mup_from_the_standard_parametrisation(shared_data) -> None:
    """The best rate falls as width**-0.69 under SP and hardly moves under muP, nor does the sensitivity there."""
    raw = pd.read_csv(shared_data("mup_demo_mlp_lr_width.csv")).rename(columns={"train_loss": "loss"})
    slope, trend = {}, {}
    for name, runs in raw[raw["epoch"] == 10].groupby("parameterization"):
        sweep = sf.read_sweep(runs[["width", "lr", "loss"]], nonfinite="diverged")
        method = Basin(window=0.1)  # losses near 0.01 make a percent of the loss less than the step between runs
        slope[name] = sf.fit("eta = c * width**a", sf.find_optima(sweep, by="width", method=method)).values["a"]
        found = lr_sensitivity(sweep, span=4.0, by="width", method=method, cap=np.log(10))
        trend[name] = found.table["status"].tolist()
        if name == "muP":
            flat = sf.fit("s = c * width**a", found, space="log").table.set_index("parameter").loc["a"]
    assert slope["SP"] == pytest.approx(-0.69, abs=0.03)
    assert abs(slope["muP"]) < 0.15
    assert abs(flat["value"]) < 2 * flat["stderr"] < 0.2
    assert trend["muP"] == ["whole"] * 6
    assert trend["SP"][-1] == "edge"  # the best rate of the widest lies below the grid: a bound, no sensitivity


def test_more_data_make_the_learning_rate_matter_less(shared_data) -> None:
    raw = pd.read_csv(shared_data("steplaw_dense_lr_bs.csv"))
    runs = {"lr": raw["lr"], "batch": raw["bs"] * 2048.0, "params": raw["N"].astype(float), "tokens": raw["D"]}
    sweep = sf.read_sweep(pd.DataFrame(runs | {"loss": raw["smooth loss"]}), batch_unit="tokens")
    table = lr_sensitivity(sweep, span=2.0, cap=11.0).trend().table.set_index("parameter")
    assert table.loc["b", "hi"] < -0.2
    assert table.loc["g", "lo"] > 0.1  # and a larger batch makes it matter more


# -- the ends of the near-optimal interval -----------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0.0, 0.8])
@pytest.mark.parametrize(("levels", "ratio"), [(13, 2**0.5), (7, 2.0)])
def test_ends_of_the_interval_have_honest_errors(k: float, levels: int, ratio: float) -> None:
    truth = replace(SMOOTH, noise=0.003, asymmetry=k, noise_dof=np.inf)
    design = replace(DESIGN, lr_levels=levels, lr_ratio=ratio)
    off: dict[str, list[np.ndarray]] = {"lo": [], "hi": []}
    for seed in range(20):
        found = near_optimal(swept(truth, design, seed), 0.0025)
        best = truth.optimum(found["params"], found["tokens"], found["batch"])["lr"]
        excess = 0.0025 * truth.loss(best, found["batch"], found["params"], found["tokens"])
        u = np.linspace(-3, 3, 60001)
        rise = truth.lr_curvature * (u**2 / 2 if k == 0 else (np.expm1(k * u) - k * u) / k**2)
        for end, inside in (("lo", u < 0), ("hi", u > 0)):
            true = np.log(best) + u[inside][np.abs(rise[inside][None] - excess[:, None]).argmin(axis=1)]
            error = np.log(found[f"lr_{end}"]) - true
            off[end].append(np.column_stack([error, found[f"log_lr_{end}_stderr"]]))
    for rows in off.values():
        error, quoted = np.concatenate(rows).T
        assert abs(error.mean()) < 0.5 * np.sqrt(np.mean(quoted**2))
        # The errors allow a cell an asymmetry of its own, which these basins do not have.
        assert 0.9 < (np.abs(error) < 1.96 * quoted).mean() < 0.997


def test_an_open_end_has_no_error() -> None:
    lr = 1e-3 * 2.0 ** np.arange(-4.0, 2.0)
    noise = 1e-4 * np.array([1, -1, 1, -1, 1, -1])
    near = near_optimal(one_cell(3 + 0.003 * np.log(lr / 1e-3) ** 2 + noise, lr), 0.0025, method=Basin(asymmetry=0))
    assert near["open_hi"][0]
    assert np.isinf(near["lr_hi"][0])
    assert np.isnan(near["log_lr_hi_stderr"][0])
    assert near["log_lr_lo_stderr"][0] > 0


@pytest.mark.parametrize("k", [0.0, 1e-5, 3e-4, 0.01, 0.8, -0.5])
def test_the_interval_is_where_the_basin_says_whatever_the_asymmetry(k: float) -> None:
    lr = 1e-3 * 2.0 ** np.arange(-6.0, 7.0)
    u = np.log(lr / 1e-3)
    rise = u**2 / 2 + k * u**3 / 6 if abs(k) < 1e-3 else (np.expm1(k * u) - k * u) / k**2
    near = near_optimal(one_cell(3 + 0.03 * rise, lr), 0.0025, method=Basin(asymmetry=k)).iloc[0]
    for end in ("lr_lo", "lr_hi"):
        at = np.log(near[end] / 1e-3)
        height = at**2 / 2 + k * at**3 / 6 if abs(k) < 1e-3 else (np.expm1(k * at) - k * at) / k**2
        assert 0.03 * height == pytest.approx(0.0025 * 3, rel=1e-3)
