"""The learning rate that lowers the loss most in one step or a few, measured by sweeping it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scalefit.errors import SweepError
from theory.grids import longest_rate, positive, rate_grid
from theory.minima import jackknife, vertex
from theory.optimizers import Optimizer
from theory.quadratic import NoisyQuadratic

Floats = NDArray[np.float64]


_PILOT = 2.0 ** np.arange(-16, 7)
_FINE = 2.0 ** np.linspace(-1.0, 1.0, 7)
_PILOT_REPLICATES = 64
_RUINED = 1e30
"""Loss rise, in units of the first loss, that stands for one too large to compute."""


def optimal_step(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    batches: ArrayLike,
    *,
    lrs: ArrayLike | None = None,
    steps: int = 1,
    warmup: int | None = None,
    replicates: int = 1024,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Measure the learning rate that lowers the mean loss most, and by how much, at each batch size.

    .. math:: \eta^*(B) = \arg\max_\eta \; L(x_0) - E\,L(x_k(\eta, B))

    From `problem.start`, k steps are taken at every learning rate of a sweep, many times; the loss is averaged and the
    top of the curve is read off by a parabola through its highest three points. No formula for the optimum is used.

    Parameters
    ----------
    problem : NoisyQuadratic
        Where the steps start and how noisy their gradients are.
    optimizer : SGD, SignSGD or Adam
        How the weights move.
    batches : array_like, shape (batches,)
        Samples per step, positive (fractions are allowed).
    lrs : array_like, shape (lrs,) or (batches, lrs), optional
        Learning rates swept, increasing; by default two octaves about the best of a coarse sweep over 22 octaves.
    steps : int
        k.
    warmup : int, optional
        Steps during which the optimizer's moments see gradients while the weights stand still; by default its
        `memory`, so that moments are those of a long run. 0 begins with empty moments.
    replicates : int
        Independent noise draws per batch. Each is used twice, as z and as -z, which takes out most of the scatter of
        small batches; all learning rates of a batch share them.
    seed : int
        Seed of the noise.

    Returns
    -------
    pandas.DataFrame
        One row a batch: batch, lr, log_lr_stderr (of ln lr), loss_drop, loss_drop_stderr (both by jackknife) and
        status: "interior", or "edge" where the best rate is the first or last of the sweep and only a bound.

    Raises
    ------
    SweepError
        If batches or learning rates are not positive, or there are fewer than three rates or two replicates.

    References
    ----------
    McCandlish et al. 2018, arXiv:1812.06162; Li et al. 2024, arXiv:2405.14578.

    Examples
    --------
    >>> from theory import SGD, NoisyQuadratic
    >>> problem = NoisyQuadratic(curvature=np.ones(20), noise=1.0, start=0.5)
    >>> found = optimal_step(problem, SGD(), [4.0, 400.0], replicates=4000)
    >>> (1 / (1 + problem.noise_scale() / found["batch"])).round(2).tolist(), found["lr"].round(2).tolist()
    ([0.5, 0.99], [0.5, 0.99])
    """
    sizes = positive("batches", batches)
    if steps < 1 or replicates < 2:
        raise SweepError(f"optimal_step needs at least one step and two replicates, found {steps} and {replicates}")
    wait = optimizer.memory if warmup is None else warmup
    if wait < 0:
        raise SweepError(f"warmup should not be negative, found {warmup!r}")
    if lrs is None:
        rates = longest_rate(problem, optimizer) * np.broadcast_to(_PILOT, (len(sizes), len(_PILOT)))
        few = min(replicates, _PILOT_REPLICATES)
        pilot = _drops(problem, optimizer, sizes, rates, steps, wait, few, [seed, 1])
        best = np.argmax(pilot.mean(axis=2), axis=1)
        grid = np.take_along_axis(rates, best[:, None], axis=1) * _FINE
    else:
        grid = rate_grid(lrs, len(sizes))
    drop = _drops(problem, optimizer, sizes, grid, steps, wait, replicates, seed)
    return _read_top(sizes, grid, drop)


def _drops(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    batches: Floats,
    lrs: Floats,
    steps: int,
    warmup: int,
    replicates: int,
    seed: int | list[int],
) -> Floats:
    """Return the mean loss drop of every pair of mirrored runs, shape (batches, lrs, replicates)."""
    rng = np.random.default_rng(seed)
    spread = problem.noise / np.sqrt(batches)[:, None, None]
    shape = (len(batches), 2 * replicates, len(problem.start))

    def mirrored() -> Floats:
        z = rng.standard_normal((len(batches), replicates, len(problem.start)))
        return spread * np.concatenate([z, -z], axis=1)

    moments, slope = optimizer.prepare(shape), problem.gradient(problem.start)
    for step in range(1, warmup + 1):
        _, moments = optimizer.direction(slope + mirrored(), moments, step)
    # From here on every learning rate is a run of its own, on the same noise.
    moments = tuple(moment[:, None] for moment in moments)
    x = np.broadcast_to(problem.start, (*lrs.shape, *shape[1:]))
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(warmup + 1, warmup + steps + 1):
            # The first gradient is the same for all learning rates.
            gradient = problem.gradient(x if step > warmup + 1 else x[:, :1]) + mirrored()[:, None]
            direction, moments = optimizer.direction(gradient, moments, step)
            x = x - lrs[:, :, None, None] * direction
        drop = problem.loss(problem.start) - problem.loss(x)
    drop = np.where(np.isfinite(drop), drop, -_RUINED * problem.loss(problem.start))
    return 0.5 * (drop[:, :, :replicates] + drop[:, :, replicates:])


def _read_top(batches: Floats, lrs: Floats, drop: Floats) -> pd.DataFrame:
    count = drop.shape[2]
    total = drop.sum(axis=2)
    rest = np.moveaxis((total[:, :, None] - drop) / (count - 1), 2, 0)
    top, height, inside = vertex(lrs, -total / count)
    tops, heights, _ = vertex(lrs, -rest)
    return pd.DataFrame(
        {
            "batch": batches,
            "lr": top,
            "log_lr_stderr": jackknife(np.log(tops)),
            "loss_drop": -height,
            "loss_drop_stderr": jackknife(heights),
            "status": np.where(inside, "interior", "edge"),
        }
    )
