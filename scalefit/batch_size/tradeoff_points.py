"""`tradeoff_points`: what each batch size needs to reach a target, from curves, final losses or a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from scalefit._levels import group_levels, group_rows, lowest_of
from scalefit._values import Note, merge
from scalefit.batch_size.final_losses import best_over_lr, from_sweep
from scalefit.batch_size.points import TradeoffPoints, read_points
from scalefit.batch_size.studies import check_known, checked_targets, confounders, edge_notes, ordered, study_columns
from scalefit.errors import SweepError
from scalefit.sweep import Sweep

Array = np.ndarray

_DATA_WINDOW = 0.3
"""Relative excess that still counts for the best learning rate: data to a target rise far faster than the loss."""

_STATUSES = ("reached", "bound", "before_start")


def tradeoff_points(
    data: Any,
    targets: Sequence[float] | int | None = None,
    by: str | Sequence[str] | None = None,
    *,
    max_reach: float = 2.0,
    data_unit: str = "tokens",
    examples_unit: str | None = None,
    unit_size: float | None = None,
) -> TradeoffPoints:
    r"""Find the steps and examples that each batch size needs to reach each target, at its best learning rate.

    Parameters
    ----------
    data : Curves, Sweep or DataFrame
        *Curves*: each run's own crossing of the target. *A sweep* of final losses: for every study and batch size a law
        :math:`L_B(D) = E + c_B D^{-\beta_B}` over the budgets at hand, inverted at the target. *A table* of steps or
        examples to a target, see `fit_tradeoff`.
    targets : sequence of float, or int
        Losses to reach; for a sweep also how many to spread evenly (in log) over what half of the batch sizes of each
        study bracket (studies where none has two budgets are left out). A table brings its own in a column `target`.
    by : str or sequence of str, optional
        Columns that tell studies apart; by default params, where there is such a column.
    max_reach : float
        How far beyond the budgets of its batch size a point of a sweep may lie, as a factor of the data. A target
        further off gives a bound.
    data_unit, examples_unit, unit_size
        For a table, see `fit_tradeoff`.

    Returns
    -------
    TradeoffPoints

    Raises
    ------
    SweepError
        If the targets or the columns are missing, or no batch size reaches a target.

    Notes
    -----
    With three learning rates or more at a batch size, the least data (or the lowest loss) is the bottom of a basin in
    ln lr fitted to all of them, with the noise that its residuals show: the luckiest run does not decide. Where the
    optimum lies at the edge of the grid the point is too high, which `lr_status` and a note say. With fewer rates the
    lowest is taken.

    The law in the data is Power Lines' way. Its floor E is shared by the batch sizes of a study, and is 0 where every
    batch size has two budgets only: then the target is interpolated in (ln D, ln L).

    References
    ----------
    McCandlish et al. 2018, arXiv:1812.06162, appendix A; Bergsma et al. 2025 (Power Lines), arXiv:2505.13738.

    Examples
    --------
    >>> batch, tokens = (axis.ravel() for axis in np.meshgrid([1e5, 4e5, 1.6e6, 6.4e6], [1e9, 4e9, 1.6e10]))
    >>> loss = 20 * (tokens / (1 + batch / 1e6)) ** -0.1
    >>> sweep = Sweep.from_frame(pd.DataFrame({"batch": batch, "tokens": tokens, "loss": loss}))
    >>> points = tradeoff_points(sweep, targets=[2.2])
    >>> (points.table["examples"] / 1e9).round(2).tolist()
    [4.24, 5.4, 10.02, 28.53]
    """
    if isinstance(data, pd.DataFrame):
        if targets is not None:
            raise SweepError(
                "a table of steps or examples brings its targets along, in a column target; leave targets="
            )
        return read_points(data, by, data_unit=data_unit, examples_unit=examples_unit, unit_size=unit_size)
    if isinstance(data, TradeoffPoints):
        return data
    if not isinstance(data, Sweep) and not hasattr(data, "tokens_to_target"):
        raise SweepError(f"expected curves, a sweep or a table of steps to a target, found {type(data).__name__}")
    if targets is None:
        raise SweepError("say which losses to reach: tradeoff_points(data, targets=[3.2, 3.0])")
    if isinstance(data, Sweep):
        if not max_reach >= 1:
            raise SweepError(f"max_reach is a factor of the data, at least 1, found {max_reach!r}")
        return from_sweep(data, targets, by, max_reach)
    return _from_curves(data, targets, by)


def _from_curves(curves: Any, targets: Sequence[float] | int, by: str | Sequence[str] | None) -> TradeoffPoints:
    if isinstance(targets, int):
        raise SweepError(f"for curves, list the losses to reach, targets=[3.2, 3.0]; found {targets!r}")
    table = curves.tokens_to_target(checked_targets(targets))
    if "batch" not in table or "tokens" not in table:
        found = ", ".join(map(str, table))
        raise SweepError(f"a trade-off needs the batch of every run and the data along it; the curves have {found}")
    names = study_columns(by, list(table))
    strange = set(table["status"]) - set(_STATUSES)
    if strange:
        raise SweepError(f"tokens_to_target gave the unknown status {strange.pop()!r}")
    notes = []
    early = (table["status"] == "before_start").to_numpy()
    if early.any():
        text = f"{int(early.sum())} crossings lie before the first point of their curve: upper bounds, left out"
        notes.append(Note("before_start", text, caution=True))
    table = table[~early].reset_index(drop=True)
    if not (table["status"] == "reached").any():
        raise SweepError("no run reaches any of the targets; take higher losses")
    keys = [*names, "target"]
    rows = table[keys].assign(batch=group_levels(table["batch"]), tokens=table["tokens"], reached=table["status"])
    tuned = "lr" in table
    if tuned:
        points, told = _tuned(rows.assign(lr=table["lr"]), keys)
        points["steps"] = points["examples"] / points["batch"]
        notes += told
    else:
        made = read_points(
            rows.rename(columns={"tokens": "examples", "reached": "status"}), names, data_unit=curves.data_unit
        )
        points, notes = made.table, [*notes, *made.notes]
    unit, remarks = curves.data_unit, merge(curves.notes, notes, confounders(table, names))
    return TradeoffPoints(ordered(points, keys), tuple(names), unit, unit, 1.0, remarks, curves.source, not tuned)


def _tuned(rows: pd.DataFrame, keys: list[str]) -> tuple[pd.DataFrame, list[Note]]:
    """Take the least data over learning rates in every cell; runs that did not get there count as failed."""
    points, cell = group_rows(rows[[*keys, "batch"]])
    check_known(points, cell)
    used = rows["tokens"].to_numpy(dtype=float)
    reached = (rows["reached"] == "reached").to_numpy()
    lr = np.log(rows["lr"].to_numpy(dtype=float))
    found = best_over_lr(cell, lr, np.where(reached, used, np.nan), len(points), window=_DATA_WINDOW)
    there = np.isfinite(found.value)
    points["examples"] = np.where(there, found.value, -lowest_of(cell, -used, len(points)))
    points["log_stderr"] = np.where(there, found.stderr / np.where(there, found.value, 1.0), np.nan)
    points["n"] = np.where(there, found.count, np.bincount(cell))
    points["status"], points["lr_status"] = np.where(there, "point", "bound"), found.status
    return points, edge_notes(found.status[there], "points")
