"""Points of a trade-off from final losses: the best of every budget, a law in the budget, inverted at the target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scalefit._levels import lowest_of
from scalefit._values import Note, merge
from scalefit.batch_size.points import TradeoffPoints
from scalefit.batch_size.studies import (
    check_known,
    checked_targets,
    confounders,
    edge_notes,
    ordered,
    study_columns,
    told_study,
)
from scalefit.errors import SweepError
from scalefit.optima.basin_shape import bend
from scalefit.optima.cells import Cells, Floats, average, pad, repeats
from scalefit.optima.local_fit import Quadratic, fit_quadratic, read_vertices
from scalefit.optima.optimum_estimators import Basin
from scalefit.sweep import Sweep

_FEW_CELLS = 3
"""Cells below which the basins' asymmetry keeps its usual value."""


@dataclass(frozen=True, eq=False)
class Bottoms:
    """The lowest value of each cell.

    Parameters
    ----------
    value, stderr : ndarray (cells,)
        At the bottom of the basin where there is one, elsewhere at the rate of the lowest mean; NaN where no run
        finished. The standard error is NaN where nothing is left to judge noise from.
    status : ndarray of str (cells,)
        That of the optimum over the learning rate: interior, edge, flat or too_few.
    count : ndarray of int (cells,)
        Runs that finished.
    """

    value: Floats
    stderr: Floats
    status: NDArray[np.object_]
    count: NDArray[np.int64]


def best_over_lr(
    cell: NDArray[Any], log_lr: Floats, value: Floats, n_cells: int, *, window: float, rtol: float = 0.01
) -> Bottoms:
    """Read the lowest value of every cell off a basin in ln lr.

    Parameters
    ----------
    cell : ndarray of int (runs,)
    log_lr, value : ndarray (runs,)
        Value is what is to be small (a loss, or data to a target), NaN where a run failed.
    n_cells : int
    window : float
        Relative excess at which a run's weight has fallen to a quarter.
    rtol : float
    """
    block = pad(np.asarray(cell, dtype=np.int64), log_lr[:, None], value, n_cells, rtol)
    basin = Basin(window=window)
    k = basin.shared_asymmetry(block)[0] if n_cells >= _FEW_CELLS else 0.5
    fit = fit_quadratic(block, window, k)
    found = read_vertices(block, fit, basin.level, k)
    status, noise = found.status[:, 0], np.sqrt(fit.variance)
    interior = status == "interior"
    mean, scatter = _lowest_place(np.asarray(cell, dtype=np.int64), log_lr, value, n_cells, rtol)
    noise = np.where(
        interior, _bottom_stderr(fit, found.value[:, 0], k), np.where(np.isfinite(scatter), scatter, noise)
    )
    lowest = np.where(interior, found.loss, mean)
    return Bottoms(lowest, noise, status, _finished(block))


def _lowest_place(
    cell: NDArray[np.int64], log_lr: Floats, value: Floats, n_cells: int, rtol: float
) -> tuple[Floats, Floats]:
    """Return the lowest mean over the runs of one rate, and its error from how far repeated runs scatter."""
    place = repeats(cell, log_lr[:, None], rtol)
    own, _, mean = average(cell, log_lr[:, None], value, place)
    done = np.isfinite(value)
    count = np.bincount(place[done], minlength=len(mean))
    off = np.where(done, value / mean[place] - 1, 0.0)
    spare = int((count - 1)[count > 1].sum())
    relative = (off**2).sum() / spare if spare else np.nan
    lowest = lowest_of(own, mean, n_cells)
    runs = np.ones(n_cells)
    chosen = mean == lowest[own]
    runs[own[chosen]] = count[chosen]
    return lowest, lowest * np.sqrt(relative / runs)


def _bottom_stderr(fit: Quadratic, place: Floats, k: float) -> Floats:
    """Standard error of the height of the bottom; its place does not matter to first order."""
    scale = fit.scale[:, 0]
    z = np.where(np.isfinite(place), (place - fit.centre[:, 0]) / scale, 0.0)
    row = np.stack([np.ones_like(z), z, bend(z, k * scale)[0]], axis=1)
    return np.sqrt(np.maximum(np.einsum("ck,ckl,cl->c", row, fit.covariance, row), 0.0))


def _finished(block: Cells) -> NDArray[np.int64]:
    return np.asarray(block.finished.sum(axis=1), dtype=np.int64)


Array = np.ndarray

_FLOORS = np.linspace(0.0, 0.97, 98)
"""Floors tried, as shares of the lowest loss."""


@dataclass(frozen=True, eq=False)
class BudgetLaws:
    """The laws of one study's batch sizes.

    Parameters
    ----------
    batch : ndarray (b,)
    floor : float
    level, slope : ndarray (b,)
        ln(L - floor) = level - slope (ln D - centre).
    covariance : ndarray (b, 2, 2)
    centre, first, last : ndarray (b,)
        Mean, lowest and highest ln D of each batch size.
    count : ndarray (b,)
        Budgets.
    lowest, highest : ndarray (b,)
        Lowest and highest loss.
    """

    batch: Array
    floor: float
    level: Array
    slope: Array
    covariance: Array
    centre: Array
    first: Array
    last: Array
    count: Array
    lowest: Array
    highest: Array

    @property
    def spans(self) -> bool:
        """Whether some batch size has two budgets of different losses, so that targets can lie between them."""
        return bool((self.lowest < self.highest).any())

    def invert(self, target: float) -> tuple[Array, Array]:
        """Return ln D at the target and its standard error, NaN where the batch size's law never gets there."""
        usable = (self.slope > 0) & (self.count > 1)
        if target <= self.floor:
            return np.full(len(self.batch), np.nan), np.full(len(self.batch), np.nan)
        slope = np.where(usable, self.slope, 1.0)
        away = (self.level - np.log(target - self.floor)) / slope
        row = np.stack([np.ones_like(away), -away], axis=1)
        error = np.sqrt(np.einsum("bi,bij,bj->b", row, self.covariance, row)) / slope
        return np.where(usable, self.centre + away, np.nan), np.where(usable, error, np.nan)


def fit_budgets(batch: Array, tokens: Array, loss: Array, variance: Array) -> BudgetLaws:
    """Fit the law of every batch size of one study.

    Parameters
    ----------
    batch, tokens, loss : ndarray (cells,)
        Best loss of each batch size and budget.
    variance : ndarray (cells,)
        Of that loss; NaN where unknown.
    """
    levels, place = np.unique(batch, return_inverse=True)
    known = variance[np.isfinite(variance) & (variance > 0)]
    spare = np.median(known) if len(known) else 0.0
    variance = np.where(np.isfinite(variance) & (variance > 0), variance, spare or 1.0)
    log_tokens = np.log(tokens)
    count = np.bincount(place)
    dof = int((count - 2)[count > 2].sum()) - 1
    floors = _FLOORS * loss.min() if dof > 0 else np.zeros(1)
    misfits = [_lines(place, log_tokens, loss, variance, floor)[-1] for floor in floors]
    best = int(np.argmin(misfits))
    floor = float(floors[best])
    level, slope, centre, covariance, misfit = _lines(place, log_tokens, loss, variance, floor)
    scale = misfit / dof if dof > 0 else 1.0
    first, lowest = (lowest_of(place, values, len(levels)) for values in (log_tokens, loss))
    last, highest = (-lowest_of(place, -values, len(levels)) for values in (log_tokens, loss))
    factor = max(scale, 1.0) if spare else (scale if dof > 0 else np.nan)
    return BudgetLaws(levels, floor, level, slope, covariance * factor, centre, first, last, count, lowest, highest)


def _lines(
    place: Array, log_tokens: Array, loss: Array, variance: Array, floor: float
) -> tuple[Array, Array, Array, Array, float]:
    """Fit a line in (ln D, ln(L - floor)) to every batch size; the misfit is in units of the losses' noise."""
    height = np.log(loss - floor)
    weight = (loss - floor) ** 2 / variance
    total = np.bincount(place, weight)
    centre = np.bincount(place, weight * log_tokens) / total
    away = log_tokens - centre[place]
    level = np.bincount(place, weight * height) / total
    moment = np.bincount(place, weight * away**2)
    several = moment > 1e-12 * total
    slope = -np.bincount(place, weight * away * height) / np.where(several, moment, 1.0)
    slope = np.where(several, slope, 0.0)
    covariance = np.zeros((len(total), 2, 2))
    covariance[:, 0, 0] = 1 / total
    covariance[:, 1, 1] = 1 / np.where(several, moment, 1.0)
    residual = height - level[place] + slope[place] * away
    return level, slope, centre, covariance, float((weight * residual**2).sum())


_LOSS_WINDOW = 0.015

_NAMED = 3
"""Studies that a note names."""


def from_sweep(
    sweep: Sweep, targets: Sequence[float] | int, by: str | Sequence[str] | None, max_reach: float
) -> TradeoffPoints:
    """Find the data to each target from a sweep; see `tradeoff_points`."""
    sweep.require("batch", "tokens", "loss")
    names = study_columns(by, list(sweep.columns))
    sweep.require(*names)
    sweep.require_losses("no loss to reach")
    wanted = _targets(targets)
    cells, notes = _best_losses(sweep, names)
    studies = dict(_laws(cells, names))
    flat = [study for study, (laws, _) in studies.items() if not laws.spans]
    if len(flat) == len(studies):
        raise SweepError(
            f"no batch size of {sweep.source} has two budgets of different losses: nothing tells what data a target "
            "needs; run more budgets"
        )
    if isinstance(wanted, int):  # a study without a law still has bounds to offer at targets that are given
        notes += _flat_notes(flat, len(studies), names)
        studies = {study: found for study, found in studies.items() if study not in flat}
    parts = [
        _reach_targets(laws, wanted, max_reach, runs).assign(**dict(zip(names, study, strict=True)))
        for study, (laws, runs) in studies.items()
    ]
    points = pd.concat(parts, ignore_index=True)
    notes += _inversion_notes(points, max_reach)
    points = points[points["status"] != "before_start"].reset_index(drop=True)
    if not (points["status"] == "point").any():
        raise SweepError(
            f"no batch size of {sweep.source} brackets a target; choose targets inside the range of losses"
        )
    unit, told = sweep.data_unit, merge(sweep.notes, notes, confounders(sweep.table, names))
    rows = ordered(points, [*names, "target"])
    return TradeoffPoints(rows, tuple(names), unit, unit, 1.0, told, sweep.source, replicated=False)


def _best_losses(sweep: Sweep, names: list[str]) -> tuple[pd.DataFrame, list[Note]]:
    """Return the best loss of every (study, batch, budget), with the variance of that."""
    axes = [*names, "batch", "tokens"]
    table = sweep.table
    keys, cell = sweep.group(axes)
    check_known(keys, cell)
    loss = table["loss"].to_numpy()
    if "lr" not in table:
        mean = pd.Series(loss).groupby(cell).agg(["mean", "var", "count"])
        spare = (mean["count"] - 1).clip(lower=0)
        pooled = (mean["var"].fillna(0) * spare).sum() / spare.sum() if spare.sum() else np.nan
        count = mean["count"].to_numpy()
        return keys.assign(loss=mean["mean"].to_numpy(), variance=pooled / count, count=count).dropna(subset="loss"), []
    lr = np.log(table["lr"].to_numpy(dtype=float))
    found = best_over_lr(cell, lr, loss, len(keys), window=_LOSS_WINDOW, rtol=sweep.rtol)
    cells = keys.assign(loss=found.value, variance=found.stderr**2, count=found.count)
    there = np.isfinite(found.value)
    return cells[there].reset_index(drop=True), edge_notes(found.status[there], "best losses")


def _targets(targets: Sequence[float] | int) -> list[float] | int:
    if not isinstance(targets, int):
        return checked_targets(targets)
    if targets < 1:
        raise SweepError(f"targets should list losses or say how many to spread, found {targets!r}")
    return targets


def _laws(cells: pd.DataFrame, names: list[str]) -> Iterator[tuple[tuple[Any, ...], tuple[BudgetLaws, Array]]]:
    """Yield each study with the laws of its batch sizes and how many runs these have."""
    for key, rows in cells.groupby(names, sort=True) if names else [((), cells)]:
        columns = (rows[name].to_numpy(dtype=float) for name in ("batch", "tokens", "loss", "variance"))
        runs = rows.groupby("batch")["count"].sum().to_numpy()
        yield key if isinstance(key, tuple) else (key,), (fit_budgets(*columns), runs)


def _spread(laws: BudgetLaws, count: int) -> list[float]:
    """Spread targets evenly in log over what half of the batch sizes of a study bracket."""
    several = laws.lowest < laws.highest
    low, high = np.median(laws.lowest[several]), np.median(laws.highest[several])
    share = np.arange(1, count + 1) / (count + 1)
    return [float(value) for value in high * (low / high) ** share]


def _flat_notes(flat: list[tuple[Any, ...]], studies: int, names: list[str]) -> list[Note]:
    if not flat:
        return []
    told = "; ".join(told_study(names, study) for study in flat[:_NAMED]) + "; ..." * (len(flat) > _NAMED)
    text = (
        f"{len(flat)} of {studies} studies have no batch size with two budgets of different losses to spread targets "
        f"between, and are left out: {told}"
    )
    return [Note("left_out", text, caution=True)]


def _reach_targets(laws: BudgetLaws, wanted: list[float] | int, max_reach: float, runs: Array) -> pd.DataFrame:
    """Invert the laws of one study at every target."""
    targets = _spread(laws, wanted) if isinstance(wanted, int) else wanted
    target = np.array(targets)[:, None]
    place, error = np.stack([laws.invert(one) for one in targets], axis=1)  # (targets, batches)
    far = np.exp(np.maximum(np.maximum(place - laws.last, laws.first - place), 0.0))
    # Without a law of its own a batch size only tells on which side of the target its budgets lie.
    early = np.where(np.isnan(place), laws.lowest <= target, place < laws.first - np.log(max_reach))
    bound = ~early & ~(place <= laws.last + np.log(max_reach))
    point = ~early & ~bound
    examples = np.exp(np.where(point, place, laws.last))
    columns = {
        "target": target,
        "batch": laws.batch,
        "examples": examples,
        "steps": examples / laws.batch,
        "log_stderr": np.where(point, error, np.nan),
        "n": runs,
        "status": np.select([early, bound], ["before_start", "bound"], "point"),
        "reach": np.where(point, far, np.nan),
    }
    return pd.DataFrame({name: np.broadcast_to(values, place.shape).ravel() for name, values in columns.items()})


def _inversion_notes(points: pd.DataFrame, max_reach: float) -> list[Note]:
    notes = []
    status = points["status"]
    if count := int((points["reach"] > 1.001).sum()):
        text = (
            f"{count} of {int((status == 'point').sum())} points are extrapolated beyond the budgets of their batch "
            f"size, by up to a factor {points['reach'].max():.3g} in the data (column reach)"
        )
        notes.append(Note("extrapolated", text, caution=True))
    if count := int((status == "bound").sum()):
        text = (
            f"{count} targets lie more than {max_reach:g} times beyond the budgets of their batch size, or beyond its "
            "only budget: bounds"
        )
        notes.append(Note("bounds", text))
    if count := int((status == "before_start").sum()):
        text = f"{count} targets are met by the smallest budget of their batch size already, and are left out"
        notes.append(Note("before_start", text))
    return notes
