"""Points of a trade-off from final losses: the best of every budget, a law in the budget, inverted at the target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from scalefit.errors import SweepError
from scalefit.notes import Note, merge
from scalefit.sweep import Sweep
from scalefit.tradeoff.budgets import BudgetLaws, fit_budgets
from scalefit.tradeoff.layout import checked_targets, confounders, edge_notes, ordered, study_columns
from scalefit.tradeoff.points import TradeoffPoints
from scalefit.tradeoff.tuning import best_over_lr

Array = np.ndarray

_LOSS_WINDOW = 0.015


def from_sweep(
    sweep: Sweep, targets: Sequence[float] | int, by: str | Sequence[str] | None, max_reach: float
) -> TradeoffPoints:
    """Find the data to each target from a sweep; see `tradeoff_points`."""
    sweep.require("batch", "tokens", "loss")
    names = study_columns(by, list(sweep.columns))
    sweep.require(*names)
    cells, notes = _best_losses(sweep, names)
    parts = []
    for key, rows in cells.groupby(names, sort=True) if names else [((), cells)]:
        columns = (rows[name].to_numpy(dtype=float) for name in ("batch", "tokens", "loss", "variance"))
        laws = fit_budgets(*columns)
        runs = rows.groupby("batch")["count"].sum().to_numpy()
        part = _reach_targets(laws, _spread(laws, rows, targets), max_reach, runs)
        levels: Any = key if isinstance(key, tuple) else (key,)
        for name, level in zip(names, levels, strict=True):
            part[name] = level
        parts.append(part)
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
    for name in (name for name in axes if keys[name].isna().any()):
        missing = int(keys[name].isna().to_numpy()[cell].sum())
        raise SweepError(f"{name} is unknown for {missing} of {len(table)} runs; points need it of every run")
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


def _spread(laws: BudgetLaws, rows: pd.DataFrame, targets: Sequence[float] | int) -> list[float]:
    if not isinstance(targets, int):
        return checked_targets(targets)
    if targets < 1:
        raise SweepError(f"targets should list losses or say how many to spread, found {targets!r}")
    edges = rows.groupby("batch")["loss"].agg(["min", "max"])[laws.count > 1].median()
    if not edges["min"] < edges["max"]:
        raise SweepError("no batch size has two budgets: targets cannot be spread between their losses")
    share = np.arange(1, targets + 1) / (targets + 1)
    return [float(value) for value in edges["max"] * (edges["min"] / edges["max"]) ** share]


def _reach_targets(laws: BudgetLaws, targets: list[float], max_reach: float, runs: Array) -> pd.DataFrame:
    """Invert the laws of one study at every target."""
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
