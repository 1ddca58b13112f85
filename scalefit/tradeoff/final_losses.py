"""Points of a trade-off from final losses: the best of every budget, a law in the budget, inverted at the target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from scalefit.errors import SweepError
from scalefit.notes import Note, merge
from scalefit.sweep import Sweep
from scalefit.tradeoff.budgets import BudgetLaws, fit_budgets
from scalefit.tradeoff.layout import (
    check_known,
    checked_targets,
    confounders,
    edge_notes,
    ordered,
    study_columns,
    told_study,
)
from scalefit.tradeoff.points import TradeoffPoints
from scalefit.tradeoff.tuning import best_over_lr

Array = np.ndarray

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
