"""Steps to a target loss at every batch size, measured over whole training runs with the learning rate tuned."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scalefit._values import Note
from scalefit.display import Face, Shown
from scalefit.errors import SweepError
from scalefit.vocabulary import format_number
from theory.grids import longest_rate, positive, rate_grid
from theory.minima import jackknife, vertex
from theory.optimizers import Moments, Optimizer
from theory.quadratic import NoisyQuadratic

Floats = NDArray[np.float64]


_COARSE = 2.0 ** np.arange(-14, 2)
_MIDDLE = 2.0 ** np.linspace(-1.0, 1.0, 9)
_FINE = 2.0 ** np.linspace(-0.5, 0.5, 9)
_COARSE_REPLICATES = 32
_RUINED = 1e3
"""A run whose mean loss is this many times the first has diverged."""
_NOTHING = 1e-300
_GROUPS = 16
"""Groups of replicates left out in turn: first crossings jump, and leaving out one run at a time magnifies that."""


@dataclass(frozen=True, eq=False, repr=False)
class TargetRuns(Shown):
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
    notes : tuple of Note
        What to know before trusting the numbers.
    """

    _table: pd.DataFrame
    _best: pd.DataFrame
    target: float
    notes: tuple[Note, ...] = field(default=())

    @property
    def table(self) -> pd.DataFrame:
        """Every batch and learning rate, as a copy."""
        return self._table.copy()

    @property
    def best(self) -> pd.DataFrame:
        """The best learning rate of every batch, as a copy."""
        return self._best.copy()

    def _face(self) -> Face:
        facts = [("target", format_number(self.target)), ("batches", f"{len(self._best)} reached it")]
        shown = self._best[["batch", "lr", "steps", "examples", "lr_status"]]
        text = pd.DataFrame({name: [_shown(value) for value in shown[name]] for name in shown})
        return Face("Simulated runs to a target", tuple(facts), text, self.notes)


def steps_to_target(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
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

    Returns
    -------
    TargetRuns
        `table`, and reduced to the best rate `best` with batch, steps and examples, as `fit_tradeoff` takes them.

    Raises
    ------
    SweepError
        If the target is not below the first loss, or batches or learning rates make no sense.

    Notes
    -----
    Standard errors come from a jackknife over 16 groups of replicates and include the choice of the learning rate. In
    25 repetitions of eight settings (64 replicates, tests/test_quadratic_runs.py repeats two) the scatter of ln S was
    0.003 to 0.05, and 0.7 to 1.5 times the median error quoted. Where noise alone holds the loss near the target the
    first crossing of a mean over few replicates comes early; an error is NaN where leaving a group out keeps a batch
    from the target.

    References
    ----------
    McCandlish et al. 2018, arXiv:1812.06162, section 2; Zhang et al. 2019, arXiv:1907.04164.

    Examples
    --------
    >>> from theory import SGD, NoisyQuadratic
    >>> problem = NoisyQuadratic(curvature=[1.0, 0.5], noise=1.0, start=[1.0, 1.0])
    >>> runs = steps_to_target(problem, SGD(), [4.0, 16.0, 64.0], target=0.05)
    >>> runs.best["steps"].is_monotonic_decreasing, runs.best["examples"].is_monotonic_increasing
    (True, True)
    """
    sizes, first = positive("batches", batches), float(problem.loss(problem.start))
    if not 0 < target < first:
        raise SweepError(f"target should lie between 0 and the loss at the start, {first:.4g}; found {target!r}")
    if replicates < 2 or max_steps < 1 or patience < 1:
        raise SweepError("steps_to_target needs two replicates or more, a step or more, and a patience of 1 or more")
    if lrs is None:
        # Beyond the fastest rate there may be a cliff, so the last sweep is finer than a smooth curve would need.
        grid = np.tile(longest_rate(problem, optimizer) * _COARSE, (len(sizes), 1))
        few = min(replicates, _COARSE_REPLICATES)
        for sweep, finer in enumerate((_MIDDLE, _FINE), start=1):
            race = _Race(problem, optimizer, sizes, grid, target, few, patience)
            times, _ = race.run(max_steps, np.random.default_rng([seed, sweep]))
            grid = np.take_along_axis(grid, np.argmin(times[:, :, 0], axis=1)[:, None], axis=1) * finer
    else:
        grid = rate_grid(lrs, len(sizes))
    race = _Race(problem, optimizer, sizes, grid, target, replicates, patience)
    times, ended = race.run(max_steps, np.random.default_rng(seed))
    return _read_runs(sizes, grid, times, ended, target)


@dataclass(frozen=True, eq=False)
class _Race:
    problem: NoisyQuadratic
    optimizer: Optimizer
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
        rows, row_lr = np.repeat(np.arange(len(self.batches)), self.lrs.shape[1]), self.lrs.ravel()[:, None, None]
        times, ended = np.full((len(rows), 1 + len(self._members())), np.inf), np.zeros(len(rows))
        spread = self.problem.noise / np.sqrt(self.batches)[:, None, None]
        shape = (self.replicates, len(self.problem.start))
        x = np.broadcast_to(self.problem.start, (len(rows), *shape)).copy()
        moments, active = self.optimizer.prepare(x.shape), np.arange(len(rows))
        before = np.full(times.shape, np.log(self.problem.loss(self.problem.start)))
        deadline = np.full(len(self.batches), float(max_steps))
        for step in range(1, max_steps + 1):
            noise = spread * rng.standard_normal((len(self.batches), *shape))
            x, moments = self._advance(x, moments, noise[rows[active]], row_lr[active], step)
            now = self._curves(x)
            times[active] = _crossings(times[active], before, now, step, np.log(self.target))
            lost = ~(now[:, 0] < np.log(_RUINED) + np.log(self.problem.loss(self.problem.start)))
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

    def _advance(self, x: Floats, moments: Moments, noise: Floats, lr: Floats, step: int) -> tuple[Floats, Moments]:
        with np.errstate(over="ignore", invalid="ignore"):
            direction, moments = self.optimizer.direction(self.problem.gradient(x) + noise, moments, step)
            return x - lr * direction, moments

    def _members(self) -> Floats:
        groups = min(_GROUPS, self.replicates)
        return np.equal.outer(np.arange(groups), np.arange(self.replicates) % groups).astype(float)

    def _curves(self, x: Floats) -> Floats:
        members = self._members()
        with np.errstate(over="ignore", invalid="ignore"):
            loss = self.problem.loss(x)
            total = loss.sum(axis=1, keepdims=True)
            rest = (total - loss @ members.T) / (self.replicates - members.sum(axis=1))
            # A loss of exactly 0 is possible: sign steps can land on the optimum.
            return np.log(np.maximum(np.concatenate([total / self.replicates, rest], axis=1), _NOTHING))


def _crossings(times: Floats, before: Floats, now: Floats, step: int, level: float) -> Floats:
    crossed = np.isinf(times) & (now <= level)
    share = (before - level) / np.where(crossed, before - now, 1.0)
    return np.where(crossed, step - 1 + share, times)


def _read_runs(batches: Floats, lrs: Floats, times: Floats, ended: Floats, target: float) -> TargetRuns:
    whole, rest = times[:, :, 0], np.moveaxis(times[:, :, 1:], 2, 0)
    reached = np.isfinite(whole)
    log_rest = np.log(np.where(np.isfinite(rest), rest, np.nan))
    table = pd.DataFrame(
        {
            "batch": np.repeat(batches, lrs.shape[1]),
            "lr": lrs.ravel(),
            "steps": np.where(reached, whole, ended).ravel(),
            "log_stderr": np.where(reached, jackknife(np.where(reached, log_rest, 0.0)), np.nan).ravel(),
            "status": np.where(reached, "reached", np.where(np.isnan(ended), "diverged", "bound")).ravel(),
        }
    )
    usable = np.asarray(reached.any(axis=1))
    place, height, inside = vertex(np.log(lrs[usable]), np.log(whole[usable]))
    places, heights, _ = vertex(np.log(lrs[usable]), np.log(rest[:, usable]))
    best = pd.DataFrame(
        {
            "batch": batches[usable],
            "target": target,
            "lr": np.exp(place),
            "steps": np.exp(height),
            "examples": np.exp(height) * batches[usable],
            "log_stderr": jackknife(heights),
            "log_lr_stderr": jackknife(places),
            "status": "reached",
            "lr_status": np.where(inside, "interior", "edge"),
        }
    )
    return TargetRuns(table, best, target, tuple(_remarks(usable, inside)))


def _remarks(usable: NDArray[np.bool_], inside: NDArray[np.bool_]) -> list[Note]:
    notes = []
    if not usable.all():
        notes.append(Note("unreached", f"{(~usable).sum()} batches never reached the target", caution=True))
    if not inside.all():
        text = f"the best learning rate of {(~inside).sum()} batches is the first or last that reached the target"
        notes.append(Note("edge", text, caution=True))
    return notes


def _shown(value: object) -> str:
    return format_number(float(value)) if isinstance(value, int | float) else str(value)
