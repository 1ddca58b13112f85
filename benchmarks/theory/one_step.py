"""The learning rate that lowers the loss most in one step or a few, measured by sweeping it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from theory.noisy_quadratic import SGD, Floats, NoisyQuadratic, positive

_PILOT = 2.0 ** np.arange(-16, 7)
_FINE = 2.0 ** np.linspace(-1.0, 1.0, 7)
_PILOT_REPLICATES = 64
_RUINED = 1e30  # loss rise, in units of the first loss, that stands for one too large to compute


def optimal_step(
    problem: NoisyQuadratic,
    optimizer: SGD,
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
    """
    sizes = positive("batches", batches)
    wait = optimizer.memory if warmup is None else warmup
    if steps < 1 or replicates < 2 or wait < 0:
        raise ValueError(f"expected steps >= 1, replicates >= 2, warmup >= 0, found {steps}, {replicates}, {wait}")
    if lrs is None:
        rates = np.tile(longest_rate(problem, optimizer) * _PILOT, (len(sizes), 1))
        few = min(replicates, _PILOT_REPLICATES)
        pilot = _drops(problem, optimizer, sizes, rates, steps, wait, few, [seed, 1])
        best = np.argmax(pilot.mean(axis=2), axis=1)
        grid = np.take_along_axis(rates, best[:, None], axis=1) * _FINE
    else:
        grid = rate_grid(lrs, len(sizes))
    drop = _drops(problem, optimizer, sizes, grid, steps, wait, replicates, seed)
    total = drop.sum(axis=2)
    rest = np.moveaxis((total[:, :, None] - drop) / (replicates - 1), 2, 0)
    top, height, inside = lowest_point(grid, -total / replicates)
    tops, heights, _ = lowest_point(grid, -rest)
    columns = {"batch": sizes, "lr": top, "log_lr_stderr": jackknife(np.log(tops))}
    columns |= {"loss_drop": -height, "loss_drop_stderr": jackknife(heights)}
    return pd.DataFrame(columns | {"status": np.where(inside, "interior", "edge")})


def _drops(
    problem: NoisyQuadratic,
    optimizer: SGD,
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


def longest_rate(problem: NoisyQuadratic, optimizer: SGD) -> float:
    """Return the learning rate beyond which a first noiseless step raises the loss: where sweeps begin to look."""
    slope = problem.gradient(problem.start)
    direction, _ = optimizer.direction(slope, optimizer.prepare(slope.shape), step=1)
    return float(2 * (slope @ direction) / (direction @ problem.gradient(direction)))


def rate_grid(lrs: ArrayLike, batches: int) -> Floats:
    """Return learning rates as one increasing row per batch, shape (batches, lrs)."""
    grid = np.atleast_2d(np.asarray(lrs, dtype=float))
    if grid.ndim != 2 or len(grid) not in (1, batches) or grid.shape[1] < 3:
        raise ValueError(f"lrs should have shape (lrs,) or ({batches}, lrs) with three or more, found {grid.shape}")
    if not (np.isfinite(grid).all() and grid.min() > 0 and (np.diff(grid, axis=1) > 0).all()):
        raise ValueError("lrs should be positive, finite and increasing")
    return np.broadcast_to(grid, (batches, grid.shape[1]))


def lowest_point(x: Floats, y: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Return place and height of the lowest point of curves, and whether it lies inside, shapes (..., rows).

    A parabola through the lowest of the points y, shape (..., rows, points), and its neighbours at x, shape
    (rows, points). Where the lowest point is the first or the last, or a neighbour is infinite, it is that point.
    """

    def take(array: Floats, index: NDArray[np.int64]) -> Floats:
        return np.take_along_axis(array, index[..., None], axis=-1)[..., 0]

    at = np.argmin(y, axis=-1)
    middle = np.clip(at, 1, y.shape[-1] - 2)
    places = np.broadcast_to(x, y.shape)
    x0, x1, x2 = (take(places, middle + k) for k in (-1, 0, 1))
    heights = np.stack([take(y, middle + k) for k in (-1, 0, 1)])
    inside = (at == middle) & np.isfinite(heights).all(axis=0)
    y0, y1, y2 = np.where(inside, heights, 0.0)
    left, right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    bend = (right - left) / (x2 - x0)
    slope = left + bend * (x1 - x0)
    move = -slope / np.where(bend > 0, 2 * bend, np.inf)
    return take(places, at) + move, take(y, at) + move * slope / 2, inside


def jackknife(values: Floats) -> Floats:
    """Return the standard error from leave-one-out values, shape (replicates, ...); NaN where one is not finite."""
    with np.errstate(invalid="ignore"):
        return np.sqrt((len(values) - 1) * np.var(values, axis=0))
