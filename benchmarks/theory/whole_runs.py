"""Whole training runs: steps to a target loss with the learning rate tuned, and the noise scales along one run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from theory.noisy_quadratic import SGD, Floats, NoisyQuadratic, positive
from theory.one_step import jackknife, longest_rate, lowest_point, rate_grid

_COARSE = 2.0 ** np.arange(-14, 2)
_MIDDLE = 2.0 ** np.linspace(-1.0, 1.0, 9)
_FINE = 2.0 ** np.linspace(-0.5, 0.5, 9)
_COARSE_REPLICATES = 32
_RUINED = 1e3  # a run whose mean loss is this many times the first has diverged
_NOTHING = 1e-300
_GROUPS = 16  # of replicates left out in turn: first crossings jump, which leaving out one run at a time magnifies


@dataclass(frozen=True, eq=False)
class TargetRuns:
    """Steps to a target loss over batches and learning rates; made by `steps_to_target`.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a batch and learning rate: batch, lr, steps, log_stderr (of ln steps) and status: "reached";
        "bound", given up after that many steps; or "diverged", with no steps.
    best : pandas.DataFrame
        One row a batch at its best learning rate: batch, target, lr, steps, examples, log_stderr (of ln steps and of
        ln examples), log_lr_stderr, status ("reached") and lr_status: "interior", or "edge" where the best rate is the
        first or last that reached the target. Batches that never reached it are absent.
    target : float
        The loss to reach.
    """

    table: pd.DataFrame
    _best: pd.DataFrame
    target: float

    @property
    def best(self) -> pd.DataFrame:
        """The best learning rate of every batch."""
        return self._best


def steps_to_target(
    problem: NoisyQuadratic,
    optimizer: SGD,
    batches: ArrayLike,
    *,
    target: float,
    lrs: ArrayLike | None = None,
    replicates: int = 32,
    max_steps: int = 20_000,
    patience: float = 1.5,
    seed: int = 0,
) -> TargetRuns:
    r"""Train from the start to a target loss at every batch and constant learning rate, and keep the fastest rate.

    S is where the mean loss over replicates first falls to the target, interpolated in ln loss between steps; at the
    best rate a parabola of ln S in ln lr through the lowest three points. All batches, rates and replicates train side
    by side; replicates and rates of a batch share no more than the noise, batches not even that.

    Parameters
    ----------
    problem : NoisyQuadratic
        The loss, its noise and where training begins.
    optimizer : SGD, SignSGD or Adam
        How the weights move; moments begin empty.
    batches : array_like, shape (batches,)
        Samples per step, positive (fractions are allowed).
    target : float
        Loss to reach, between 0 and the loss at the start.
    lrs : array_like, shape (lrs,) or (batches, lrs), optional
        Learning rates swept, increasing; by default an octave about the best of coarser sweeps, the first over 15.
    replicates : int
        Runs per batch and learning rate, with noise of their own.
    max_steps : int
        Where to give up.
    patience : float
        Runs are also given up at this many times the steps of the batch's fastest learning rate.
    seed : int
        Seed of the noise.

    Notes
    -----
    Standard errors come from a jackknife over 16 groups of replicates and include the choice of the learning rate. In
    25 repetitions of eight settings (64 replicates; the tests repeat two) the scatter of ln S was 0.003 to 0.05, and
    0.7 to 1.5 times the median error quoted. Where noise alone holds the loss near the target the first crossing of a
    mean over few replicates comes early; an error is NaN where leaving a group out keeps a batch from the target.
    """
    sizes, first = positive("batches", batches), float(problem.loss(problem.start))
    if not 0 < target < first:
        raise ValueError(f"target should lie between 0 and the loss at the start, {first:.4g}; found {target!r}")
    if replicates < 2 or max_steps < 1 or patience < 1:
        raise ValueError("steps_to_target needs two replicates or more, a step or more, and a patience of 1 or more")

    def train(grid: Floats, replicates: int, seed: int | list[int]) -> tuple[Floats, Floats]:
        race = _Race(problem, optimizer, sizes, grid, target, replicates, patience)
        return race.run(max_steps, np.random.default_rng(seed))

    if lrs is None:
        # Beyond the fastest rate there may be a cliff, so the last sweep is finer than a smooth curve would need.
        grid = np.tile(longest_rate(problem, optimizer) * _COARSE, (len(sizes), 1))
        for sweep, finer in enumerate((_MIDDLE, _FINE), start=1):
            times, _ = train(grid, min(replicates, _COARSE_REPLICATES), [seed, sweep])
            grid = np.take_along_axis(grid, np.argmin(times[:, :, 0], axis=1)[:, None], axis=1) * finer
    else:
        grid = rate_grid(lrs, len(sizes))
    return _read_runs(sizes, grid, *train(grid, replicates, seed), target)


@dataclass(frozen=True, eq=False)
class _Race:
    """Runs at every batch and learning rate, side by side."""

    problem: NoisyQuadratic
    optimizer: SGD
    batches: Floats
    lrs: Floats
    target: float
    replicates: int
    patience: float

    def run(self, max_steps: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Return steps to the target, inf where not reached, and the step each run ended at, NaN where it diverged.

        The last axis of the former, shape (batches, lrs, 1 + groups), holds the mean over all replicates and then over
        all but one group.
        """
        problem, level = self.problem, np.log(self.target)
        rows, row_lr = np.repeat(np.arange(len(self.batches)), self.lrs.shape[1]), self.lrs.ravel()[:, None, None]
        spread = problem.noise / np.sqrt(self.batches)[:, None, None]
        shape, start = (self.replicates, len(problem.start)), np.log(problem.loss(problem.start))
        x = np.broadcast_to(problem.start, (len(rows), *shape)).copy()
        moments, active = self.optimizer.prepare(x.shape), np.arange(len(rows))
        before = np.full(self._log_means(x).shape, start)
        times, ended = np.full(before.shape, np.inf), np.zeros(len(rows))
        deadline = np.full(len(self.batches), float(max_steps))
        for step in range(1, max_steps + 1):
            noise = spread * rng.standard_normal((len(self.batches), *shape))
            with np.errstate(over="ignore", invalid="ignore"):
                gradient = problem.gradient(x) + noise[rows[active]]
                direction, moments = self.optimizer.direction(gradient, moments, step)
                x = x - row_lr[active] * direction
            now = self._log_means(x)
            crossed = np.isinf(times[active]) & (now <= level)
            share = (before - level) / np.where(crossed, before - now, 1.0)
            times[active] = np.where(crossed, step - 1 + share, times[active])
            lost = ~(now[:, 0] < np.log(_RUINED) + start)
            ended[active] = np.where(lost, np.nan, step)
            quickest = np.min(times[:, 0].reshape(self.lrs.shape), axis=1)
            deadline = np.minimum(deadline, np.ceil(self.patience * quickest))
            going = ~lost & ~np.isfinite(times[active]).all(axis=1) & (step < deadline[rows[active]])
            if not going.any():
                break
            before = now
            if not going.all():
                x, before, active = x[going], now[going], active[going]
                moments = tuple(moment[going] for moment in moments)
        return times.reshape(*self.lrs.shape, -1), ended.reshape(self.lrs.shape)

    def _log_means(self, x: Floats) -> Floats:
        """Return logs of the mean loss over all replicates, then over all but one group, shape (rows, 1 + groups)."""
        groups = min(_GROUPS, self.replicates)
        members = np.equal.outer(np.arange(groups), np.arange(self.replicates) % groups).astype(float)
        with np.errstate(over="ignore", invalid="ignore"):
            loss = self.problem.loss(x)
            total = loss.sum(axis=1, keepdims=True)
            rest = (total - loss @ members.T) / (self.replicates - members.sum(axis=1))
            # A loss of exactly 0 is possible: sign steps can land on the optimum.
            return np.log(np.maximum(np.concatenate([total / self.replicates, rest], axis=1), _NOTHING))


def _read_runs(batches: Floats, lrs: Floats, times: Floats, ended: Floats, target: float) -> TargetRuns:
    """Return a table of all runs, and of the best rate of every batch that reached the target."""
    whole, rest = times[:, :, 0], np.moveaxis(times[:, :, 1:], 2, 0)
    reached = np.isfinite(whole)
    log_rest = np.log(np.where(np.isfinite(rest), rest, np.nan))
    columns = {
        "batch": np.repeat(batches, lrs.shape[1]),
        "lr": lrs,
        "steps": np.where(reached, whole, ended),
        "log_stderr": np.where(reached, jackknife(np.where(reached, log_rest, 0.0)), np.nan),
        "status": np.where(reached, "reached", np.where(np.isnan(ended), "diverged", "bound")),
    }
    table = pd.DataFrame({name: np.ravel(values) for name, values in columns.items()})
    usable = reached.any(axis=1)
    log_lr = np.log(lrs[usable])
    place, height, inside = lowest_point(log_lr, np.log(whole[usable]))
    places, heights, _ = lowest_point(log_lr, np.log(rest[:, usable]))
    best = {"batch": batches[usable], "target": target, "lr": np.exp(place), "steps": np.exp(height)}
    best |= {"examples": np.exp(height) * batches[usable], "log_stderr": jackknife(heights)}
    best |= {"log_lr_stderr": jackknife(places), "status": "reached"}
    return TargetRuns(table, pd.DataFrame(best | {"lr_status": np.where(inside, "interior", "edge")}), target)


def trace_run(
    problem: NoisyQuadratic,
    optimizer: SGD,
    *,
    batch: float,
    lr: float,
    steps: int,
    replicates: int = 32,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Train at one batch size and constant learning rate, and record the loss and the noise scales of every step.

    Returns
    -------
    pandas.DataFrame
        One row a step, from 0: steps, loss, ``B_noise = tr(H Sigma)/(G'HG)``, whose mean along the path is B_crit by
        McCandlish et al. 2018 (arXiv:1812.06162), and B_sign, the noise scale of sign-SGD, inf where coordinates are
        not coupled so that steps get dearer. Numerators and denominators are averaged over the replicates apart.
    """
    if not (batch > 0 and lr > 0 and steps >= 1 and replicates >= 1):
        raise ValueError("trace_run needs a positive batch and lr, a step or more and a replicate or more")
    rng, shape = np.random.default_rng(seed), (replicates, len(problem.start))
    x, moments = np.broadcast_to(problem.start, shape), optimizer.prepare(shape)
    diagonal = np.diagonal(problem.hessian)
    records = np.empty((steps + 1, 4))
    for step in range(steps + 1):
        slope = problem.gradient(x)
        ratio = slope / problem.noise
        alone = ratio**2 @ diagonal
        terms = (problem.loss(x), 2 * problem.loss(slope), 2 * problem.loss(ratio) - alone, alone)
        records[step] = [np.mean(term) for term in terms]
        noise = problem.noise / np.sqrt(batch) * rng.standard_normal(shape)
        direction, moments = optimizer.direction(slope + noise, moments, step + 1)
        x = x - lr * direction
    loss, curved, pairs, alone = records.T
    dear = pairs > 1e-12 * alone  # less is rounding
    sign = np.where(dear, np.pi * diagonal.sum() / (2 * np.where(dear, pairs, 1.0)), np.inf)
    noise_scale = np.sum(diagonal * problem.noise**2) / curved
    return pd.DataFrame({"steps": np.arange(steps + 1), "loss": loss, "B_noise": noise_scale, "B_sign": sign})
