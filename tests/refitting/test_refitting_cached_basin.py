"""A cached estimator gives the answer for the cells asked for, and for no others."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from scalefit.optima.cells import Cells
from scalefit.optima.optimum_estimators import Basin
from scalefit.refitting.study import CachedBasin


@dataclass(frozen=True)
class Counted(Basin):
    """A `Basin` that notes what it is asked."""

    asked: list[Cells] = field(default_factory=list)

    def estimate(self, block):
        self.asked.append(block)
        return super().estimate(block)


@pytest.fixture
def block():
    """Three cells of seven learning rates; the last has one run less and one that diverged."""
    x = np.log(2.0 ** np.arange(-12, -5)) + np.zeros((3, 1))
    loss = 3 + 0.02 * (x - np.array([[-6.2], [-5.9], [-5.5]])) ** 2
    loss += 1e-4 * np.random.default_rng(0).standard_normal(loss.shape)
    loss[2, 5] = loss[2, 6] = x[2, 6] = np.nan
    return Cells(x[:, :, None], loss)


def copied(block):
    return Cells(block.x.copy(), block.loss.copy(), block.rtol)


def check_same(found, expected):
    for entry in fields(expected):
        assert_array_equal(getattr(found, entry.name), getattr(expected, entry.name))


def test_the_same_cells_are_read_once(block):
    method = Counted()
    memory = CachedBasin(method)
    first = memory.estimate(block)
    check_same(first, Basin().estimate(block))
    assert memory.estimate(copied(block)) is first
    assert len(method.asked) == 1


def lower(block):
    loss = block.loss.copy()
    loss[0, 1] -= 0.05
    return replace(block, loss=loss)


def diverged(block):
    loss = block.loss.copy()
    loss[0, -1] = np.nan
    return replace(block, loss=loss)


def moved(block):
    return replace(block, x=block.x + 0.5)


def fewer(block):
    return Cells(block.x[:2], block.loss[:2], block.rtol)


@pytest.mark.parametrize("change", [lower, diverged, moved, fewer])
def test_other_cells_have_their_own_answer(block, change):
    method = Counted()
    memory = CachedBasin(method)
    first, other = memory.estimate(block), memory.estimate(change(block))
    check_same(other, Basin().estimate(change(block)))
    assert len(method.asked) == 2
    assert memory.estimate(copied(block)) is first, "the first are forgotten when others are asked for"
    assert memory.estimate(change(block)) is other


def test_it_passes_for_the_method_it_remembers_for():
    method = Basin(level=0.9)
    assert CachedBasin(method).level == 0.9
    assert repr(CachedBasin(method)) == repr(method)
