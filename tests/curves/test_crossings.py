"""Data to a target loss: brackets, bounds, and how far off each way of reading a noisy curve is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from scalefit.curves.crossings import CROSSINGS, count_above, locate
from scalefit.curves.curves import Curves
from scalefit.curves.smoothing import Layout, LocalLine
from scalefit.errors import SweepError
from scalefit.loading.read_curves import read_curves


def power_laws(batches: tuple[int, ...] = (1000, 4000), n: int = 50) -> Curves:
    """Noise-free L = 2 + 3 tokens**-0.2, one run a batch."""
    steps = np.tile(np.arange(1, n + 1) * 10, len(batches))
    batch = np.repeat(batches, n)
    table = pd.DataFrame({"run": batch.astype(str), "step": steps, "batch": batch, "tokens": steps * batch, "lr": 0.1})
    return read_curves(table.assign(loss=2 + 3 * (steps * batch) ** -0.2))


def brute(loss: np.ndarray, target: float, crossing: str) -> tuple[int, int]:
    """Smallest and largest k by trying all."""
    above, n = loss > target, len(loss)
    if crossing == "first":
        k = int(np.argmax(~above)) if (~above).any() else n
        return k, k
    if crossing == "last":
        k = int(np.flatnonzero(above)[-1]) + 1 if above.any() else 0
        return k, k
    right = [above[:k].sum() - (~above)[:k].sum() for k in range(n + 1)]
    best = [k for k in range(n + 1) if right[k] == max(right)]
    none = [k for k in best if k in (0, n)]
    return (none[0], none[0]) if none else (best[0], best[-1])


losses = st.lists(st.lists(st.sampled_from([1.0, 2.0, 3.0, 4.0]), max_size=9), min_size=1, max_size=5)


@pytest.mark.parametrize("crossing", CROSSINGS)
@given(losses)
def test_all_runs_at_once_are_each_run_by_definition(crossing: str, runs: list[list[float]]) -> None:
    layout = Layout(np.concatenate([[0], np.cumsum([len(run) for run in runs])]))
    flat = np.array([value for run in runs for value in run], dtype=float)
    low, high = count_above(layout, flat, 2.0, crossing)
    expected = [brute(np.array(run), 2.0, crossing) if run else (0, 0) for run in runs]
    assert list(zip(low.tolist(), high.tolist(), strict=True)) == expected


@pytest.mark.parametrize("crossing", CROSSINGS)
@given(st.lists(st.floats(1.0, 4.0), min_size=1, max_size=30), st.floats(1.2, 3.8), st.booleans())
def test_a_crossing_lies_in_its_bracket(crossing: str, run: list[float], target: float, zero: bool) -> None:
    loss, x = np.array(run), np.arange(0 if zero else 1, len(run) + (0 if zero else 1), dtype=float)
    layout = Layout(np.array([0, len(run)]))
    above = count_above(layout, loss, target, crossing)
    found = locate(layout, x, loss, target, above)[0]
    low, high = int(above[0][0]), int(above[1][0])
    if not 0 < low < len(run):
        assert np.isnan(found)
        return
    assert x[low - 1] <= found <= x[high]
    for k in (low, high):
        assert loss[k - 1] > target >= loss[k]


def test_power_laws_are_crossed_where_they_should() -> None:
    curves = power_laws()
    targets = [2.4, 2.3]
    found = curves.tokens_to_target(targets)
    exact = (3 / (np.array(targets) - 2)) ** 5
    assert found["run"].tolist() == ["1000", "1000", "4000", "4000"]
    assert found["target"].tolist() == targets * 2
    assert found["status"].tolist() == ["reached", "reached", "before_start", "reached"]
    reached = found[found["status"] == "reached"]
    assert_allclose(reached["tokens"], exact[(reached["target"] == 2.3).astype(int)], rtol=5e-3)
    assert_allclose(reached["tokens"], reached["steps"] * reached["batch"], rtol=1e-12)


def test_what_is_not_reached_is_a_bound_and_what_is_below_at_once_another() -> None:
    curves = power_laws()
    found = curves.tokens_to_target([2.0, 2.9]).set_index(["run", "target"])
    assert found.loc[("1000", 2.0), "status"] == "bound"
    assert found.loc[("1000", 2.0), "tokens"] == 500 * 1000
    assert found.loc[("4000", 2.9), "status"] == "before_start"
    assert found.loc[("4000", 2.9), "tokens"] == 10 * 4000
    assert found.loc[("4000", 2.9), "steps"] == 10


def test_a_target_that_is_a_points_loss_gives_that_point() -> None:
    curves = power_laws()
    own = curves.table.query("run == '1000'")
    found = curves.tokens_to_target(own["loss"].tolist()[1:]).query("run == '1000'")
    assert_allclose(found["tokens"], own["tokens"][1:], rtol=1e-12)


@given(st.floats(0.01, 100), st.floats(0.1, 10))
def test_units_do_not_matter(data: float, loss: float) -> None:
    rng = np.random.default_rng(3)
    x, y = np.arange(1.0, 101.0), 2 + np.arange(1.0, 101.0) ** -0.3 + 0.02 * rng.standard_normal(100)
    table = pd.DataFrame({"run": "a", "tokens": x, "loss": y, "lr": 0.1})
    one = read_curves(table).tokens_to_target(2.4)["tokens"]
    other = read_curves(table.assign(tokens=data * x, loss=loss * y)).tokens_to_target(2.4 * loss)["tokens"]
    assert_allclose(other, data * one, rtol=1e-9)


def test_order_of_rows_and_runs_does_not_matter() -> None:
    table = power_laws().table.assign(lr=0.1).astype({"run": str})
    table["loss"] += 0.01 * np.random.default_rng(0).standard_normal(len(table))
    one = read_curves(table).tokens_to_target(2.3).sort_values("run", ignore_index=True)
    shuffled = table.sample(frac=1, random_state=1)
    other = read_curves(shuffled, restarts="sort").tokens_to_target(2.3).sort_values("run", ignore_index=True)
    pd.testing.assert_frame_equal(one, other)


def test_runs_in_steps_alone_have_no_tokens() -> None:
    table = power_laws().table[["run", "steps", "loss"]].assign(lr=0.1)
    found = read_curves(table).tokens_to_target(2.4)
    assert list(found) == ["run", "target", "steps", "status", "lr", "diverged"]


def noisy(noise: float, n: int = 200, reps: int = 400, spikes: float = 0.0) -> tuple[Curves, float, float]:
    """Many noisy copies of L = 2 + 0.8 x**-0.25 on (0, 1], and a target with its true place."""
    rng = np.random.default_rng(5)
    x = np.arange(1, n + 1) / n
    loss = 2 + 0.8 * x**-0.25 + noise * rng.standard_normal((reps, n))
    loss += (rng.random((reps, n)) < spikes) * rng.exponential(1.0, (reps, n))
    table = pd.DataFrame({"run": np.repeat(np.arange(reps), n), "tokens": np.tile(x, reps), "lr": 0.1})
    return read_curves(table.assign(loss=loss.ravel())), 2 + 0.8 * 0.35**-0.25, 0.35


@pytest.mark.parametrize(("noise", "spikes"), [(0.003, 0.0), (0.03, 0.0), (0.01, 0.01)])
def test_the_monotone_crossing_has_no_bias_that_its_scatter_would_show(noise: float, spikes: float) -> None:
    curves, target, truth = noisy(noise, spikes=spikes)
    off = {how: np.log(curves.tokens_to_target(target, crossing=how)["tokens"] / truth) for how in CROSSINGS}
    error = off["monotone"].std() / np.sqrt(len(curves))
    assert abs(off["monotone"].mean()) < 4 * error
    assert abs(off["monotone"].mean()) < 0.01
    assert off["first"].mean() < off["monotone"].mean() < off["last"].mean()
    if noise > 0.005:
        assert off["first"].mean() < -0.01
        assert off["last"].mean() > 0.1


def test_a_local_line_halves_the_scatter() -> None:
    curves, target, truth = noisy(0.03)
    raw = np.log(curves.tokens_to_target(target)["tokens"] / truth)
    smooth = np.log(curves.smooth(LocalLine(0.2)).tokens_to_target(target)["tokens"] / truth)
    assert smooth.std() < 0.6 * raw.std()
    assert abs(smooth.mean()) < 0.005


def test_what_is_no_target_is_refused() -> None:
    curves = power_laws()
    for wrong in (0, -1.0, [np.nan], [], [[2.0]]):
        with pytest.raises(SweepError, match="targets should be positive losses"):
            curves.tokens_to_target(wrong)  # type: ignore[arg-type]
    with pytest.raises(SweepError, match="crossing should be one of 'monotone', 'first', 'last'"):
        curves.tokens_to_target(2.3, crossing="best")


def test_the_runs_columns_come_along() -> None:
    found = power_laws().tokens_to_target(2.3)
    assert list(found) == ["run", "target", "tokens", "steps", "status", "lr", "batch", "diverged"]
    assert_array_equal(found["batch"], [1000, 4000])
