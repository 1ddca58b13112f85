"""Optima of few rates and of runs that scatter more above the optimum: what the default reads, and how sure it is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import scalefit as sf
from scalefit._values import Observations
from scalefit.optima.brackets import bracket
from scalefit.optima.cells import pad
from scalefit.optima.run_weights import growth_of_noise
from scalefit.optima.settle_basins import settle_basins

STEPS = np.arange(-4, 4.5, 0.5) * np.log(2)


def noisy_cells(growth: float, seeds: int, seed: int, cells: int = 6) -> tuple[np.ndarray, pd.DataFrame]:
    """Parabolas a cell, whose runs scatter by exp(growth u) more at u e-folds above the optimum."""
    rng = np.random.default_rng(seed)
    best = rng.uniform(-0.3, 0.3, cells)
    x = np.broadcast_to(np.repeat(STEPS, seeds), (cells, len(STEPS) * seeds))
    u = x - best[:, None]
    loss = 3 + 0.02 * u**2 + 0.002 * np.exp(growth * np.maximum(u, 0)) * rng.standard_normal(u.shape)
    params = np.repeat(1e7 * 2.0 ** np.arange(cells), x.shape[1])
    return best, pd.DataFrame({"lr": 1e-3 * np.exp(x.ravel()), "params": params, "loss": loss.ravel()})


@pytest.mark.parametrize(("growth", "seeds"), [(0.0, 1), (1.5, 1), (1.5, 5)])
def test_the_optimum_does_not_follow_the_luckiest_run(growth: float, seeds: int) -> None:
    off, held = [], []
    for seed in range(12):
        best, table = noisy_cells(growth, seeds, seed)
        found = sf.find_optima(sf.read_sweep(table)).table
        assert (found["status"] == "interior").mean() > 0.8
        off.append(np.log(found["lr"] / 1e-3) - best)
        held.append((np.log(found["lr_lo"] / 1e-3) <= best) & (best <= np.log(found["lr_hi"] / 1e-3)))
    error = np.concatenate(off)
    error = error[np.isfinite(error)]
    assert abs(error.mean()) < 0.02
    assert np.sqrt(np.mean(error**2)) < (0.03 if growth == 0 else 0.08)
    assert np.concatenate(held).mean() > 0.88


def test_the_growth_of_the_noise_is_found_from_repeats_and_from_neighbours() -> None:
    for seeds, slack in ((1, 0.6), (5, 0.25)):
        found = []
        for seed in range(6):
            _, table = noisy_cells(1.2, seeds, seed)
            cell = np.unique(table["params"], return_inverse=True)[1]
            cells = pad(cell, np.log(table[["lr"]].to_numpy()), table["loss"].to_numpy(), 6)
            found.append(settle_basins(cells, 0.03, None).growth)
        below, above = np.mean(found, axis=0)
        assert below < 0.4
        assert above == pytest.approx(1.2, abs=slack)


def test_smooth_misfit_is_not_taken_for_noise_that_grows() -> None:
    x = np.tile(np.linspace(-2, 2, 17), 4)
    cells = pad(np.repeat(np.arange(4), 17), x[:, None], 3 + x**2, 4)
    white = np.random.default_rng(0).standard_normal(cells.loss.shape)
    bent = 30 * np.maximum(cells.x[:, :, 0], 0) ** 2
    assert growth_of_noise(cells, cells.x[:, :, 0], white + bent, np.ones(white.shape))[1] < 0.7
    assert growth_of_noise(cells, cells.x[:, :, 0], white * np.exp(cells.x[:, :, 0]), np.ones(white.shape))[1] > 0.6


SHAPES = {
    "parabola": lambda u: u**2,
    "steep": lambda u: 2 * (np.exp(0.8 * u) - 0.8 * u - 1) / 0.64,
    "cliff": lambda u: u**2 + np.where(u > 1.2, 3 * (u - 1.2), 0),
}


def read(x: np.ndarray, loss: np.ndarray) -> pd.Series:
    table = pd.DataFrame({"lr": 1e-3 * np.exp(x), "loss": loss, "params": 1e8})
    return sf.find_optima(sf.read_sweep(table)).table.iloc[0]


@pytest.mark.parametrize("rates", [4, 5, 6, 8])
def test_a_few_rates_of_one_deep_basin_hold_its_optimum(rates: int) -> None:
    rng, held, width = np.random.default_rng(rates), [], []
    for shape in SHAPES.values():
        for _ in range(12):
            best = rng.uniform(-0.24, 0.24)
            x = (np.arange(rates) - (rates - 1) / 2) * np.log(2)
            row = read(x, 3 + 0.05 * shape(x - best) + 0.0025 * rng.standard_normal(rates))
            assert row["status"] == "interior"
            assert 0 < row["lr_lo"] < row["lr_hi"] < np.inf
            held.append(row["lr_lo"] <= 1e-3 * np.exp(best) <= row["lr_hi"])
            width.append(np.log2(row["lr_hi"] / row["lr_lo"]))
    assert np.mean(held) > 0.9
    assert np.median(width) < 2.05


def test_noise_alone_seldom_looks_like_the_optimum_of_one_cell() -> None:
    rng = np.random.default_rng(1)
    for rates, share in ((4, 0.4), (6, 0.2), (9, 0.1)):
        rows = [read(np.arange(rates) * 0.7, 3 + 0.003 * rng.standard_normal(rates)) for _ in range(60)]
        assert np.mean([row["status"] == "interior" for row in rows]) <= share


def test_an_interval_open_on_one_side_is_a_bound_in_a_law() -> None:
    rng = np.random.default_rng(3)
    x = np.log([0.01, 0.1, 0.3, 0.5, 1.0])
    for best in np.log(np.repeat([0.9, 1.5, 3.0], 8)):
        row = read(x, 1.1 + 0.1 * SHAPES["steep"](x - best) + 0.01 * rng.standard_normal(5))
        assert (row["status"] == "edge") == ((row["lr_lo"] == 0) != np.isinf(row["lr_hi"]))
    sizes = np.array([1e7, 2e7, 4e7, 8e7, 1.6e8])
    best = -0.4 * np.log(sizes / 1e8) + np.array([0.0, 0.05, -0.05, 0.03, -3.0])
    grid = np.arange(-1.0, 2.1, 0.5)
    parts = [
        pd.DataFrame({"lr": np.exp(grid), "params": n, "loss": 3 + 0.05 * (grid - b) ** 2})
        for n, b in zip(sizes, best, strict=True)
    ]
    optima = sf.find_optima(sf.read_sweep(pd.concat(parts)))
    assert optima.table["status"].tolist() == ["interior"] * 4 + ["edge"]
    fit = sf.fit("lr = c * N**a", optima)
    assert fit.is_bound.tolist() == [False] * 4 + [True]


def test_the_bracket_reads_the_order_of_the_losses() -> None:
    x = np.arange(5.0)

    def ends(loss: list[float], error: float = np.nan) -> tuple[float, float, bool]:
        cells = pad(np.zeros(5, dtype=np.int64), x[:, None], np.array(loss), 1)
        low, high, honest = bracket(cells, np.full(cells.loss.shape, error))
        return float(low[0, 0]), float(high[0, 0]), bool(honest[0, 0])

    assert ends([3, 2, 1, 2, 3]) == (1.0, 3.0, True)
    assert ends([3, 2, 1, 2, np.nan]) == (1.0, 3.0, True)
    assert ends([5, 4, 3, 2, np.nan]) == (2.0, 4.0, True)  # a diverged run is a wall
    assert ends([5, 4, 3, 2, 1]) == (3.0, np.inf, True)
    assert not ends([3, 1, 2, 1.5, 3])[2]
    assert ends([3, 1, 1.2, 1.1, 3], error=0.1) == (0.0, 4.0, True)
    assert ends([3, 1, 1.2, 1.1, 3], error=1e-4) == (0.0, 2.0, True)


def test_few_optima_that_agree_by_luck_do_not_make_a_law_surer_than_they_are() -> None:
    rows = pd.DataFrame({"params": [1e7, 1e8, 1e9, 1e10], "lr": 1e-3 * np.exp([0.0, 1.0, 2.001, 3.0])})
    lucky, known = (
        sf.fit("lr = c * N**a", Observations(rows, errors=np.full((len(rows), 1), error))) for error in (0.0, 0.1)
    )
    assert lucky.scatter < 0.001
    assert 0.07 < known.scatter < 0.1
    assert sf.fit("lr = c * N**a", Observations(rows, errors=np.full((len(rows), 1), 1e-5))).scatter == pytest.approx(
        lucky.scatter
    )
