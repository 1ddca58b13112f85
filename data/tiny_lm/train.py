"""One cell of the sweep: a stack of runs that differ in their learning rate alone, trained side by side."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
from corpus import VOCAB, read_corpus, spaced, windows
from model import AdamW, Shape, evaluate, initial, losses
from plan import Cell

SEQ_LEN = 64
WEIGHT_DECAY = 0.1
WARMUP, DECAY = 0.05, 0.2  # fractions of the steps: linear up, constant, linear down to zero
FINAL_ROWS, CURVE_ROWS, CURVE_POINTS = 2048, 128, 100
CURVE_TOKENS = 2**21  # shorter runs get no curve: reading one would cost more than half the run
PROTOCOL = {
    "seq_len": SEQ_LEN, "vocab": VOCAB, "weight_decay": WEIGHT_DECAY, "warmup": WARMUP, "decay": DECAY,
    "final_rows": FINAL_ROWS, "curve_rows": CURVE_ROWS,
}  # fmt: skip

Record = dict[str, object]


@lru_cache
def _text(root: Path | None) -> tuple[torch.Tensor, torch.Tensor]:
    corpus = read_corpus(root)
    return torch.from_numpy(windows(corpus.train, SEQ_LEN)), torch.from_numpy(windows(corpus.valid, SEQ_LEN))


def training_rows(rows: torch.Tensor, tokens: int, seed: int) -> torch.Tensor:
    """The sequences a run reads, in order: a prefix of one permutation a seed, whatever the batch or model."""
    if tokens > len(rows) * SEQ_LEN:
        raise ValueError(f"{tokens} tokens asked for, the text has {len(rows) * SEQ_LEN}: no byte is read twice")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1000 + seed))
    return rows[order[: tokens // SEQ_LEN]]


def schedule(step: int, steps: int) -> float:
    """Learning rate of a step (from 0) as a share of the peak: warm-up, constant, linear decay to zero."""
    return min(1.0, (step + 1) / max(1, WARMUP * steps), (steps - step) / max(1, DECAY * steps))


def gradients(stack: torch.Tensor, text: torch.Tensor, shape: Shape, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses of a batch and their gradient, summed over pieces of ``rows`` sequences that fit the cache."""
    total, gradient = torch.zeros(len(stack), device=stack.device), torch.zeros_like(stack)
    for piece in text.split(rows):
        share = losses(stack, piece.long(), shape) * (len(piece) / len(text))
        gradient += torch.autograd.grad(share.sum(), stack)[0]
        total += share.detach()
    return total, gradient


@dataclass
class _Run:
    """What training a cell needs and gathers."""

    cell: Cell
    shape: Shape
    stack: torch.Tensor
    rows: int  # sequences a forward pass takes at once
    short: torch.Tensor  # validation text of the curves
    curves: list[Record] = field(default_factory=list)

    def read_curve(self, step: int) -> None:
        """Note the validation losses after ``step`` (from 0), if it is one of the curve's points."""
        cell = self.cell
        marks = {round(cell.steps * i / CURVE_POINTS) for i in range(1, CURVE_POINTS + 1)}
        if cell.tokens < CURVE_TOKENS or step + 1 not in marks:
            return
        values = evaluate(self.stack, self.short, self.shape, self.rows).tolist()
        point = {"steps": step + 1, "tokens": (step + 1) * cell.batch, "lr_share": schedule(step, cell.steps)}
        self.curves += [{"run": cell.run(lr), "loss": loss} | point for lr, loss in zip(cell.lrs, values, strict=True)]

    def train(self, text: torch.Tensor) -> torch.Tensor:
        """Take all steps; the mean training loss of the last 5 % of them."""
        cell, steps, per_step = self.cell, self.cell.steps, self.cell.batch // SEQ_LEN
        peak = torch.tensor(cell.lrs, device=self.stack.device)
        optimizer = AdamW(self.stack, peak, WEIGHT_DECAY)
        tail, tail_steps = torch.zeros_like(peak), max(1, steps // 20)
        for step in range(steps):
            batch = text[step * per_step : (step + 1) * per_step]
            loss, gradient = gradients(self.stack, batch, self.shape, self.rows)
            optimizer.step(gradient, schedule(step, steps))
            if step >= steps - tail_steps:
                tail += loss / tail_steps
            self.read_curve(step)
        return tail

    def records(self, loss: torch.Tensor, train_loss: torch.Tensor, seconds: float) -> list[Record]:
        """A record of each finished run."""
        cell, shape = self.cell, self.shape
        # in double and row by row: a diverged model overflows alone
        weights = self.stack.detach().double()
        each = {
            "run": [cell.run(lr) for lr in cell.lrs],
            "lr": list(cell.lrs),
            "loss": loss.tolist(),
            "train_loss": train_loss.tolist(),
            "weight_norm": weights[:, shape.params_embedding :].norm(dim=1).tolist(),
            "weight_norm_total": weights.norm(dim=1).tolist(),
            "diverged": [not value < math.log(VOCAB) for value in loss.tolist()],  # NaN too
        }
        shared = {
            "batch": cell.batch, "params": shape.params, "tokens": cell.tokens, "steps": cell.steps,
            "flops": shape.flops_per_token * cell.tokens, "seq_len": SEQ_LEN, "weight_decay": WEIGHT_DECAY,
            "seed": cell.seed, "optimizer": "adamw", "schedule": "warmup-constant-linear",
            "warmup_fraction": WARMUP, "decay_fraction": DECAY, "params_total": shape.params_total,
            "width": cell.width, "layers": cell.layers, "stack": len(cell.lrs), "wall_seconds": seconds,
        }  # fmt: skip
        return [dict(zip(each, row, strict=True)) | shared for row in zip(*each.values(), strict=True)]


def train_cell(cell: Cell, root: Path | None = None, device: str = "cpu") -> dict[str, list[Record]]:
    """Train all learning rates of a cell.

    Parameters
    ----------
    cell : Cell
        What to train.
    root : Path, optional
        Folder of the text, by default the standard library.
    device : str
        Where to train.

    Returns
    -------
    dict
        ``runs``, a record a learning rate, and ``curves``, their validation losses on the way (may be empty).
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # second moments near zero would slow the optimizer tenfold
    torch.use_deterministic_algorithms(True, warn_only=True)
    shape = Shape(cell.width, cell.layers, VOCAB, SEQ_LEN)
    train, valid = _text(root)
    text = training_rows(train, cell.tokens, cell.seed).to(device)
    final, short = (spaced(valid, count).to(device).long() for count in (FINAL_ROWS, CURVE_ROWS))
    models = len(cell.lrs)
    stack = initial(shape, cell.seed).expand(models, -1).clone().to(device).requires_grad_()
    run = _Run(cell, shape, stack, max(1, (128 if device == "cpu" else 16384) // models), short)
    begin = time.perf_counter()
    train_loss = run.train(text)
    loss = evaluate(stack, final, shape, run.rows)
    return {
        "runs": run.records(loss, train_loss, (time.perf_counter() - begin) / models),
        "curves": run.curves,
    }
