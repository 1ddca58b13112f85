"""Smoothing loss curves: a constant stays, runs do not touch, each method does to a falling curve what it says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from scalefit.curves.smoothing import Exponential, Gaussian, Layout, LocalLine, MovingAverage, Smoother
from scalefit.errors import SweepError
from scalefit.loading.read_curves import read_curves

METHODS: list[Smoother] = [
    MovingAverage(5),
    MovingAverage(4, trailing=True),
    Gaussian(2.0),
    Exponential(3.0),
    LocalLine(0.3),
]


def runs_of(lengths: list[int], seed: int = 0) -> tuple[Layout, np.ndarray, np.ndarray]:
    """Positions and losses of runs of these lengths, the losses without a pattern."""
    rng = np.random.default_rng(seed)
    layout = Layout(np.concatenate([[0], np.cumsum(lengths)]).astype(int))
    x = np.concatenate([np.cumsum(rng.uniform(0.5, 2, n)) for n in lengths] + [np.empty(0)])
    return layout, x, rng.uniform(2, 4, len(x))


def by_hand(method: Smoother, x: np.ndarray, loss: np.ndarray, i: int) -> float:
    """One point of one run, by definition."""
    at = np.arange(len(loss))
    if isinstance(method, LocalLine):
        near = np.abs(np.log(x / x[i])) <= np.log1p(method.share)
        if near.sum() < 3:
            return loss[i]
        line = np.polyfit(np.log(x[near]), np.log(loss[near]), 1)
        return float(np.exp(np.polyval(line, np.log(x[i]))))
    if isinstance(method, Gaussian):
        weight = np.exp(-0.5 * ((at - i) / method.width) ** 2) * (np.abs(at - i) <= 4 * method.width)
    elif isinstance(method, Exponential):
        weight = np.where(at <= i, 0.5 ** ((i - at) / method.halflife), 0)
    elif method.trailing:
        weight = ((at <= i) & (at > i - method.points)).astype(float)
    else:
        half = min(i, len(loss) - 1 - i, method.points // 2)
        weight = (np.abs(at - i) <= half).astype(float)
    return float((weight * loss).sum() / weight.sum())


@pytest.mark.parametrize("method", METHODS, ids=repr)
@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=6), st.integers(0, 99))
def test_all_runs_at_once_are_each_run_by_definition(method: Smoother, lengths: list[int], seed: int) -> None:
    layout, x, loss = runs_of(lengths, seed)
    smoothed = method.smooth(layout, x, loss)
    assert smoothed.shape == loss.shape
    for start, end in zip(layout.starts, layout.ends, strict=True):
        own = slice(start, end)
        expected = [by_hand(method, x[own], loss[own], i) for i in range(end - start)]
        assert_allclose(smoothed[own], expected, rtol=1e-6)


@pytest.mark.parametrize("method", METHODS, ids=repr)
@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.floats(0.01, 100))
def test_a_constant_stays_constant(method: Smoother, lengths: list[int], level: float) -> None:
    layout, x, _ = runs_of(lengths)
    assert_allclose(method.smooth(layout, x, np.full(len(x), level)), level, rtol=1e-12)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_units_of_loss_and_position_do_not_matter(method: Smoother) -> None:
    layout, x, loss = runs_of([30, 7, 50])
    assert_allclose(method.smooth(layout, 1e9 * x, 7 * loss), 7 * method.smooth(layout, x, loss), rtol=1e-9)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_what_another_run_is_does_not_matter(method: Smoother) -> None:
    layout, x, loss = runs_of([20, 20])
    other = loss.copy()
    other[20:] = 1e6
    assert_allclose(method.smooth(layout, x, other)[:20], method.smooth(layout, x, loss)[:20], rtol=1e-9)


def test_a_power_law_is_kept_by_a_local_line_and_not_by_averages() -> None:
    x = np.arange(1.0, 201.0)
    loss = 3 * x**-0.1
    layout = Layout(np.array([0, 200]))
    off = {type(m).__name__: np.abs(m.smooth(layout, x, loss) / loss - 1).max() for m in METHODS}
    assert off["LocalLine"] < 1e-9
    assert all(off[name] > 1e-3 for name in ("Gaussian", "Exponential", "MovingAverage"))


def test_trailing_means_lag_by_what_they_say() -> None:
    x = np.arange(400.0)
    line, layout = 1000 - x, Layout(np.array([0, 400]))
    late = MovingAverage(11, trailing=True).smooth(layout, x, line) - line
    assert_allclose(late[20:], 5)
    late = Exponential(10).smooth(layout, x, line) - line
    assert_allclose(late[-1], 14.4, atol=0.6)
    assert_allclose(MovingAverage(11).smooth(layout, x, line), line)


def test_noise_falls_with_the_root_of_the_window() -> None:
    rng = np.random.default_rng(1)
    layout, x = Layout(np.arange(0, 4001, 400)), np.tile(np.arange(1.0, 401.0), 10)
    noise = 3 + 0.1 * rng.standard_normal(4000)
    inner = (x > 50) & (x < 350)
    assert_allclose(np.std(MovingAverage(25).smooth(layout, x, noise)[inner]), 0.1 / 5, rtol=0.15)
    assert_allclose(
        np.std(Gaussian(5).smooth(layout, x, noise)[inner]), 0.1 / np.sqrt(2 * np.sqrt(np.pi) * 5), rtol=0.15
    )


def test_positions_of_zero_stay_out_of_a_local_line() -> None:
    layout, x = Layout(np.array([0, 21])), np.arange(21.0)
    loss = np.concatenate([[9.0], 3 * np.arange(1.0, 21.0) ** -0.1])
    assert_allclose(LocalLine(0.5).smooth(layout, x, loss), loss)


def test_a_method_is_recorded_and_must_be_one() -> None:
    table = pd.DataFrame({"step": range(1, 9), "loss": 3.0 + np.arange(8) % 2, "lr": 0.1, "run": "a"})
    curves = read_curves(table)
    smooth = curves.smooth(MovingAverage(3))
    assert "smoothed by MovingAverage(points=3, trailing=False)" in smooth.notes[-1].text
    assert_array_equal(curves.table["loss"], table["loss"])
    assert smooth.table["loss"].std() < curves.table["loss"].std()
    assert "smoothed" in " ".join(note.text for note in smooth.final().notes)
    for wrong in ("mean", MovingAverage, None):
        with pytest.raises(SweepError, match="method should be one such as"):
            curves.smooth(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: MovingAverage(4),
        lambda: MovingAverage(0),
        lambda: Gaussian(-1.0),
        lambda: Exponential(np.nan),
        lambda: LocalLine(0),
        lambda: MovingAverage(2.5),
    ],
)
def test_windows_that_are_none_are_refused(make) -> None:
    with pytest.raises(SweepError, match=r"should be a positive|odd number"):
        make()
