"""Points of a trade-off from final losses: the best of every budget, a law in the budget, inverted at the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scalefit._values import Note
from scalefit.errors import SweepError
from scalefit.optima.basin_shape import bend
from scalefit.optima.cells import Floats, average, pad, repeats
from scalefit.optima.local_fit import Quadratic, fit_quadratic
from scalefit.optima.optimum_estimators import Basin
from scalefit.optima.vertices import read_vertices
from scalefit.schema import lowest_of
from scalefit.sweep import Sweep

Ints = NDArray[np.int64]

_FEW_CELLS = 3  # with fewer cells the asymmetry of the basins keeps its usual value
_FLOORS = np.linspace(0.0, 0.97, 98)  # floors of the law that are tried, as shares of the lowest loss
_LOSS_WINDOW = 0.015
_NAMED = 3  # a note names at most so many studies


def study_name(keys: list[str], values: tuple[Any, ...]) -> str:
    """Write which study is meant: "params 1e+08, optimizer adam"."""
    pairs = zip(keys, values, strict=True)
    return ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in pairs)


def check_known(keys: pd.DataFrame, cell: NDArray[Any]) -> None:
    """Raise if some runs lack a value that separates studies; `keys` has a row for each cell."""
    for name in (name for name in keys if keys[name].isna().any()):
        missing = int(keys[name].isna().to_numpy()[cell].sum())
        raise SweepError(f"{name} is unknown for {missing} of {len(cell)} runs; points need it of every run")


def edge_notes(status: NDArray[Any], things: str) -> list[Note]:
    """Note optima over the learning rate that are no interior ones; `things` is what they are optima of."""
    meaning = {
        "edge": "have their best learning rate at the edge of the grid: better ones may lie beyond",
        "too_few": "have fewer than three learning rates: the best of them is taken, lucky or not",
    }
    counts = {key: f"{(status == key).sum()} of {len(status)} {things}" for key in meaning if (status == key).any()}
    return [Note(f"lr_{key}", f"{count} {meaning[key]}", caution=True) for key, count in counts.items()]


@dataclass(frozen=True, eq=False)
class LowestValues:
    """The lowest value of each cell over the learning rate; NaN where no run finished."""

    value: Floats  # at the bottom of the basin where there is one, else at the learning rate with the lowest mean
    stderr: Floats  # NaN where the noise cannot be estimated
    status: NDArray[np.object_]  # of the optimum over the learning rate: interior, edge, flat or too_few
    count: Ints  # runs that finished


def best_over_lr(
    cell: NDArray[Any], log_lr: Floats, value: Floats, n_cells: int, *, window: float, rtol: float = 0.01
) -> LowestValues:
    """Read the lowest value of every cell off a basin in ln lr; a failed run has the value NaN.

    `window` is the relative excess at which a run's weight has fallen to a quarter.
    """
    cell = np.asarray(cell, dtype=np.int64)
    block = pad(cell, log_lr[:, None], value, n_cells, rtol)
    basin = Basin(window=window)
    k = basin.settle(block).bends.shared if n_cells >= _FEW_CELLS else 0.5
    fit = fit_quadratic(block, window, k)
    found = read_vertices(block, fit, basin.level, k)
    status = found.status[:, 0]
    interior = status == "interior"
    mean, scatter = _lowest_mean(cell, log_lr, value, n_cells, rtol)
    elsewhere = np.where(np.isfinite(scatter), scatter, np.sqrt(fit.variance))
    stderr = np.where(interior, _bottom_stderr(fit, found.value[:, 0], k), elsewhere)
    return LowestValues(np.where(interior, found.loss, mean), stderr, status, block.finished.sum(axis=1))


def _lowest_mean(cell: Ints, log_lr: Floats, value: Floats, n_cells: int, rtol: float) -> tuple[Floats, Floats]:
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
    """Return the standard error of the lowest value; an error of its position has no effect to first order."""
    scale = fit.scale[:, 0]
    z = np.where(np.isfinite(place), (place - fit.centre[:, 0]) / scale, 0.0)
    row = np.stack([np.ones_like(z), z, bend(z, k * scale)[0]], axis=1)
    return np.sqrt(np.maximum(np.einsum("ck,ckl,cl->c", row, fit.covariance, row), 0.0))


@dataclass(frozen=True, eq=False)
class BudgetLaws:
    """The laws ln(L - floor) = level - slope (ln D - centre) of one study's batch sizes; arrays over these."""

    batch: Floats
    floor: float
    level: Floats
    slope: Floats
    covariance: Floats  # (b, 2, 2), of level and slope
    centre: Floats
    first: Floats  # lowest and highest ln D
    last: Floats
    count: Ints  # budgets
    lowest: Floats  # lowest and highest loss
    highest: Floats

    @property
    def several(self) -> NDArray[np.bool_]:
        """Which batch sizes have two budgets of different losses, so that targets can lie between them."""
        return self.lowest < self.highest

    def invert(self, target: float) -> tuple[Floats, Floats]:
        """Return ln D at the target and its standard error, NaN where the batch size's law never gets there."""
        usable = (self.slope > 0) & (self.count > 1) & (target > self.floor)
        slope = np.where(usable, self.slope, 1.0)
        away = (self.level - np.log(np.where(usable, target - self.floor, 1.0))) / slope
        row = np.stack([np.ones_like(away), -away], axis=1)
        error = np.sqrt(np.einsum("bi,bij,bj->b", row, self.covariance, row)) / slope
        return np.where(usable, self.centre + away, np.nan), np.where(usable, error, np.nan)

    def spread(self, count: int) -> list[float]:
        """Spread targets evenly in log over what half of the batch sizes bracket."""
        low, high = np.median(self.lowest[self.several]), np.median(self.highest[self.several])
        return [float(value) for value in high * (low / high) ** (np.arange(1, count + 1) / (count + 1))]


def fit_budgets(batch: Floats, tokens: Floats, loss: Floats, variance: Floats) -> BudgetLaws:
    """Fit the law of every batch size of one study to the best loss of each budget and its variance (NaN: unknown)."""
    levels, place = np.unique(batch, return_inverse=True)
    known = np.isfinite(variance) & (variance > 0)
    usual = float(np.median(variance[known])) if known.any() else 0.0
    variance = np.where(known, variance, usual or 1.0)
    log_tokens, count = np.log(tokens), np.bincount(place)
    dof = int((count - 2)[count > 2].sum()) - 1  # parameters: a line in logs for each batch size, and one floor for all
    floors = _FLOORS * loss.min() if dof > 0 else np.zeros(1)
    misfits = [_lines(place, log_tokens, loss, variance, floor)[0] for floor in floors]
    floor = float(floors[int(np.argmin(misfits))])
    misfit, level, slope, covariance, centre = _lines(place, log_tokens, loss, variance, floor)
    first, lowest = (lowest_of(place, values, len(levels)) for values in (log_tokens, loss))
    last, highest = (-lowest_of(place, -values, len(levels)) for values in (log_tokens, loss))
    # If the noise is unknown, the misfit gives it. If it is known, the misfit can only widen the errors.
    scale = misfit / dof if dof > 0 else (1.0 if usual else np.nan)
    covariance *= max(scale, 1.0) if usual else scale
    return BudgetLaws(levels, floor, level, slope, covariance, centre, first, last, count, lowest, highest)


def _lines(place: Ints, log_tokens: Floats, loss: Floats, variance: Floats, floor: float) -> tuple[Any, ...]:
    """Return the misfit, in units of the losses' noise, of lines in (ln D, ln(L - floor)), and these lines."""
    height = np.log(loss - floor)
    weight = (loss - floor) ** 2 / variance
    total = np.bincount(place, weight)
    centre = np.bincount(place, weight * log_tokens) / total
    away = log_tokens - centre[place]
    level = np.bincount(place, weight * height) / total
    moment = np.bincount(place, weight * away**2)
    several = moment > 1e-12 * total  # one budget gives no slope, though rounding may suggest one
    moment = np.where(several, moment, 1.0)
    slope = np.where(several, -np.bincount(place, weight * away * height) / moment, 0.0)
    covariance = np.stack([1 / total, 1 / moment], axis=1)[:, :, None] * np.eye(2)
    residual = height - level[place] + slope[place] * away
    return float((weight * residual**2).sum()), level, slope, covariance, centre


def from_sweep(
    sweep: Sweep, targets: list[float] | int, names: list[str], max_reach: float
) -> tuple[pd.DataFrame, list[Note]]:
    """Return the data to each target from the final losses of a sweep, with notes; see `tradeoff_points`."""
    sweep.require("batch", "tokens", "loss", *names)
    sweep.require_losses("no loss to reach")
    cells, notes = _best_losses(sweep, names)
    studies: dict[tuple[Any, ...], tuple[BudgetLaws, Ints]] = {}
    for key, rows in cells.groupby(names, sort=True) if names else [((), cells)]:
        columns = (rows[name].to_numpy(dtype=float) for name in ("batch", "tokens", "loss", "variance"))
        runs = rows.groupby("batch")["count"].sum().to_numpy()
        studies[key if isinstance(key, tuple) else (key,)] = fit_budgets(*columns), runs
    flat = [study for study, (laws, _) in studies.items() if not laws.several.any()]
    if len(flat) == len(studies):
        lack = f"no batch size of {sweep.source} has two budgets of different losses"
        raise SweepError(f"{lack}: nothing tells what data a target needs; run more budgets")
    if isinstance(targets, int) and flat:  # a study without a law still gives bounds, if targets are given
        named = "; ".join(study_name(names, study) for study in flat[:_NAMED]) + "; ..." * (len(flat) > _NAMED)
        lack = "have no batch size with two budgets of different losses to spread targets between"
        text = f"{len(flat)} of {len(studies)} studies {lack}, and are left out: {named}"
        notes.append(Note("left_out", text, caution=True))
        studies = {study: found for study, found in studies.items() if study not in flat}
    parts = []
    for study, (laws, runs) in studies.items():
        part = _reach_targets(laws, targets, max_reach, runs)
        parts.append(part.assign(**dict(zip(names, study, strict=True))))
    points = pd.concat(parts, ignore_index=True)
    notes += _inversion_notes(points, max_reach)
    points = points[points["status"] != "before_start"]
    if not (points["status"] == "point").any():
        raise SweepError(f"no batch size of {sweep.source} brackets a target; take targets in the range of losses")
    return points, notes


def _best_losses(sweep: Sweep, names: list[str]) -> tuple[pd.DataFrame, list[Note]]:
    """Return the best loss of every (study, batch, budget), with its variance."""
    keys, cell = sweep.group([*names, "batch", "tokens"])
    check_known(keys, cell)
    table = sweep.table
    if "lr" not in table:
        runs = table["loss"].groupby(cell).agg(["mean", "var", "count"])
        spare = (runs["count"] - 1).clip(lower=0)
        pooled = (runs["var"].fillna(0) * spare).sum() / spare.sum() if spare.sum() else np.nan
        cells = keys.assign(loss=runs["mean"], variance=pooled / runs["count"], count=runs["count"])
        return cells.dropna(subset="loss"), []
    lr = np.log(table["lr"].to_numpy(dtype=float))
    found = best_over_lr(cell, lr, table["loss"].to_numpy(), len(keys), window=_LOSS_WINDOW, rtol=sweep.rtol)
    cells = keys.assign(loss=found.value, variance=found.stderr**2, count=found.count)
    there = np.isfinite(found.value)
    return cells[there].reset_index(drop=True), edge_notes(found.status[there], "best losses")


def _reach_targets(laws: BudgetLaws, targets: list[float] | int, max_reach: float, runs: Ints) -> pd.DataFrame:
    """Invert the laws of one study at every target."""
    targets = laws.spread(targets) if isinstance(targets, int) else targets
    target = np.array(targets)[:, None]
    place, error = np.stack([laws.invert(one) for one in targets], axis=1)  # (targets, batches)
    far = np.exp(np.maximum(np.maximum(place - laws.last, laws.first - place), 0.0))
    # A batch size without a law of its own only shows on which side of the target its budgets lie.
    early = np.where(np.isnan(place), laws.lowest <= target, place < laws.first - np.log(max_reach))
    bound = ~early & ~(place <= laws.last + np.log(max_reach))
    point = ~early & ~bound
    examples = np.exp(np.where(point, place, laws.last))
    status = np.select([early, bound], ["before_start", "bound"], "point")
    columns = {"target": target, "batch": laws.batch, "examples": examples, "steps": examples / laws.batch}
    columns |= {"log_stderr": np.where(point, error, np.nan), "n": runs, "status": status}
    columns |= {"reach": np.where(point, far, np.nan)}
    return pd.DataFrame({name: np.broadcast_to(values, place.shape).ravel() for name, values in columns.items()})


def _inversion_notes(points: pd.DataFrame, max_reach: float) -> list[Note]:
    """Say how many points are extrapolated, bounds or left out."""
    notes, counts = [], points["status"].value_counts()
    if count := int((points["reach"] > 1.001).sum()):
        text = f"{count} of {counts['point']} points are extrapolated beyond the budgets of their batch size, by up to "
        text += f"a factor {points['reach'].max():.3g} in the data (column reach)"
        notes.append(Note("extrapolated", text, caution=True))
    if "bound" in counts:
        text = f"{counts['bound']} targets lie more than {max_reach:g} times beyond the budgets of their batch size, "
        notes.append(Note("bounds", text + "or beyond its only budget: bounds"))
    if "before_start" in counts:
        text = "targets are met by the smallest budget of their batch size already, and are left out"
        notes.append(Note("before_start", f"{counts['before_start']} {text}"))
    return notes
