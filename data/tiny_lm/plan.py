"""Which cells to train, in which order: the table must be balanced and useful wherever the clock stops it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

SIZES = ((16, 1), (24, 1), (32, 2), (48, 2), (64, 3))  # width, layers: 3k to 147k non-embedding parameters
LARGEST = (96, 4)  # 442k: for backtests
FEWEST_STEPS = 128

# octaves from the centre of a cell's learning rates; "half" fills the gaps, "low" and "high" go on where the best
# run of "main" lies at or next to an end; "short" saves time where neighbours tell where the optimum is
GRIDS = {
    "main": (-3, -2, -1, 0, 1, 2, 3),
    "short": (-3, -2, -1, 0, 1),
    "half": (-1.5, -0.5, 0.5, 1.5),
    "low": (-6, -5, -4),
    "high": (4, 5, 6),
}


@dataclass(frozen=True)
class Cell:
    """A stack of runs that share all but the learning rate; ``batch`` and ``tokens`` in tokens."""

    width: int
    layers: int
    tokens: int
    batch: int
    seed: int = 0
    grid: str = "main"

    @property
    def name(self) -> str:
        """Name of the cell, and of its file."""
        return f"w{self.width}-l{self.layers}-D{self.tokens}-B{self.batch}-s{self.seed}-{self.grid}"

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        if self.tokens % self.batch:
            raise ValueError(f"{self.name}: the batch does not divide the tokens")
        return self.tokens // self.batch

    @property
    def lrs(self) -> tuple[float, ...]:
        """Peak learning rates: octave (or half-octave) steps on one lattice of powers of two for all."""
        return tuple(2.0 ** (self.centre + step) for step in GRIDS[self.grid])

    @property
    def centre(self) -> int:
        """Binary logarithm of the learning rate expected to be best, from a pilot of a few cells."""
        rough = -7.0 - 0.5 * math.log2(self.width / 32) + 0.35 * math.log2(self.batch / 1024)
        return round(rough)

    @property
    def cost(self) -> float:
        """Work, in FLOPs of the blocks plus a constant per token for the softmax and the calls."""
        return len(self.lrs) * self.tokens * (12 * self.layers * self.width**2 + 100 * self.width + 2000)

    def run(self, lr: float) -> str:
        """Name of one run of the cell."""
        return f"{self.name}-lr{math.log2(lr):+.1f}"


def _block(
    sizes: Iterable[tuple[int, int]],
    tokens: Iterable[int],
    batches: Iterable[int],
    seed: int = 0,
    grid: str = "main",
) -> Iterator[Cell]:
    """All cells of a product that take enough steps, the larger budgets last."""
    for budget, batch, (width, layers) in product(tokens, batches, sizes):
        if budget // batch >= FEWEST_STEPS:
            yield Cell(width, layers, budget, batch, seed, grid)


def full_plan() -> list[Cell]:
    """Every cell of the sweep in the order to train them.

    Returns
    -------
    list of Cell
        Small budgets first; the largest size in the middle, so that an early stop leaves it its cells; repeats and
        refinements last.
    """
    ends, middle, between = (256, 16384), (1024, 4096), (512, 2048, 8192)
    blocks = [
        _block(SIZES, (2**17, 2**19), (64, 256, 1024, 4096)),
        _block(SIZES, (2**21,), middle),
        _block((LARGEST,), (2**17,), (256, 1024)),
        _block((LARGEST,), (2**19,), (256,)),
        _block((*SIZES, LARGEST), (2**15,), (64, 256)),
        _block(SIZES[:4], (2**21,), ends),
        _block(SIZES[:4], (2**19,), middle, seed=1),
        _block((LARGEST,), (2**19,), middle),
        _block((LARGEST,), (2**21,), (1024,), grid="short"),
        _block(SIZES[4:], (2**21,), ends),
        _block(SIZES[:2], (2**23,), middle),
        _block((LARGEST,), (2**21,), (256,), grid="short"),
        _block(SIZES[:4], (2**19,), middle, seed=2),
        _block(SIZES[:3], (2**21,), (64,)),
        _block(SIZES[2:3], (2**23,), middle),
        _block(SIZES[:3], (2**21,), between),
        _block((LARGEST,), (2**21,), (4096,), grid="short"),
        _block(SIZES[4:], (2**22,), (1024,), grid="short"),
        _block(SIZES[:3], (2**21,), middle, grid="half"),
        _block(SIZES[:2], (2**23,), ends),
        _block(SIZES[:4], (2**21,), middle, seed=1),
        _block(SIZES[3:4], (2**23,), (4096,)),
        _block(SIZES[2:3], (2**23,), ends),
        _block(SIZES[3:4], (2**21,), between),
        _block(SIZES[3:4], (2**21,), middle, grid="half"),
        _block(SIZES[4:], (2**23,), (4096,)),
        _block(SIZES, (2**20,), middle),
        _block(SIZES[:4], (2**22,), middle),
        _block(SIZES[4:], (2**22,), (4096,)),
        _block(SIZES[:4], (2**21,), middle, seed=2),
    ]
    return list(dict.fromkeys(cell for block in blocks for cell in block))


def extension(cell: Cell, losses: dict[float, float]) -> Cell | None:
    """The cell that goes on past the end of a finished one, if its best run lies at or next to that end."""
    if cell.grid != "main":
        return None
    finite = {lr: loss for lr, loss in losses.items() if math.isfinite(loss)}
    place = sorted(losses).index(min(finite, key=finite.__getitem__)) if finite else 0
    if 2 <= place < len(losses) - 2:
        return None
    grid = "low" if place < 2 else "high"
    return Cell(cell.width, cell.layers, cell.tokens, cell.batch, cell.seed, grid)
