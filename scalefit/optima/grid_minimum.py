"""Optima picked from the runs themselves: the best run, or all runs nearly as good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from scalefit._values import Note
from scalefit.errors import SweepError
from scalefit.optima.cells import Block, Extraction, Floats, finish, some
from scalefit.optima.parabola import noise_scale, range_is_noise


@dataclass(frozen=True)
class GridMinimum:
    """The run with the lowest loss.

    Quantised to the grid and lucky by construction; the interval is the gap between the neighbouring levels and
    no standard error is given. A tie gives the middle of the tied runs, in logs, and a note. With repeated runs
    the luckiest repeat wins, unless `find_optima` is told ``seeds="mean"``.

    Examples
    --------
    >>> import numpy as np
    >>> from scalefit.optima.cells import pad
    >>> lr = np.array([1e-3, 2e-3, 4e-3])
    >>> block = pad(np.zeros(3, dtype=int), np.log(lr)[:, None], np.array([3.1, 3.0, 3.2]), n_cells=1)
    >>> np.exp(GridMinimum().extract(block).value).round(6).tolist()
    [[0.002]]
    """

    picks: ClassVar[bool] = True

    def extract(self, block: Block) -> Extraction:
        """Read the optimum of every cell; see the class."""
        value, tied = block.best()
        low, high = block.extent(block.excess <= 1e-12)
        lo, hi = block.neighbours(low)[0], block.neighbours(high)[1]
        unknown = np.full(value.shape, np.nan)
        found = Extraction(
            value, lo, hi, unknown, unknown, _blank(value), block.lowest, np.ones(len(value)), _tie_note(tied)
        )
        return finish(block, found, _within_noise(block, value.shape), np.isinf(lo) | np.isinf(hi))


@dataclass(frozen=True)
class NearMinimum:
    """All runs within a relative excess of the cell's lowest loss; their geometric mean.

    Parameters
    ----------
    excess : float
        Relative loss excess kept, 0.0025 for a quarter of a percent.

    Notes
    -----
    The rule of Li et al. 2025 (arXiv:2503.04715, ``code/fit_tool.py``). The published recipe is ordinary least
    squares over all runs kept; since the runs of a cell share its N and D, least squares over the cells' geometric
    means, weighted by the number of runs kept (the column `weight`), gives the same coefficients.

    The interval is the extremes of the set, open on a side where the set touches the last level. The optimum is an
    edge when the best run itself stands at the last level: then the set is cut off at its centre and its mean is only
    a bound. A set that merely touches the last level keeps its mean as a point, with the interval open there.

    No standard error is given. The runs kept are chosen by their loss, so their scatter tells the width of the
    threshold, not the error of its centre: on simulated basins, mean +- 1.96 sd/sqrt(n) held the truth in 91 to 100 %
    of cells, 100 % wherever the noise was small.
    """

    excess: float = 0.0025
    picks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.excess < np.inf:
            raise SweepError(f"NearMinimum expects a positive relative excess such as 0.0025, found {self.excess!r}")

    def extract(self, block: Block) -> Extraction:
        """Read the optimum of every cell; see the class."""
        kept = block.finished & (block.loss <= block.lowest[:, None] * (1 + self.excess))
        count = kept.sum(axis=1)
        total = np.where(kept[:, :, None], block.x, 0.0).sum(axis=1)
        value = np.divide(total, count[:, None], out=np.full(total.shape, np.nan), where=count[:, None] > 0)
        low, high = block.extent(kept)
        open_lo, open_hi = np.isinf(block.neighbours(low)[0]), np.isinf(block.neighbours(high)[1])
        best, tied = block.best()
        inner_lo, inner_hi = block.neighbours(best)
        below, above = np.isinf(inner_lo), np.isinf(inner_hi)
        value = np.where(below & ~above, low, np.where(above & ~below, high, value))
        unknown = np.full(value.shape, np.nan)
        touching = (open_lo | open_hi) & ~below & ~above
        found = Extraction(
            value=value,
            lo=np.where(open_lo, -np.inf, np.where(above, np.minimum(low, inner_lo), low)),
            hi=np.where(open_hi, np.inf, np.where(below, np.maximum(high, inner_hi), high)),
            stderr=unknown,
            curvature=unknown,
            status=_blank(value),
            loss=block.lowest,
            weight=count.astype(float),
            notes=_tie_note(tied) + _touch_note(touching),
        )
        return finish(block, found, _within_noise(block, value.shape), below | above)


def _within_noise(block: Block, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    noise = np.nan_to_num(noise_scale(block), nan=0.0)
    return np.broadcast_to(range_is_noise(block.spread(), block.finished.sum(axis=1), noise)[:, None], shape)


def _blank(value: Floats) -> NDArray[np.object_]:
    return np.full(value.shape, "interior", dtype=object)


def _tie_note(tied: NDArray[np.bool_]) -> tuple[Note, ...]:
    if not tied.any():
        return ()
    text = (
        f"{int(tied.sum())} of {len(tied)} cells have a tie for the lowest loss; the middle of the tied runs is taken"
    )
    return (Note("ties", text),)


def _touch_note(touching: NDArray[np.bool_]) -> tuple[Note, ...]:
    cells = some(touching, axis=1)
    if not cells.any():
        return ()
    text = (
        f"in {int(cells.sum())} of {len(cells)} cells the runs near the minimum reach the end of the grid; "
        "the interval is open there and the mean may lie too far inside"
    )
    return (Note("touching", text, caution=True),)
