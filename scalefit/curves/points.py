"""Rows of a long table put in order: run after run, each in the order of its steps, nothing twice, nothing repaired."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from scalefit.curves.layout import Layout
from scalefit.errors import SweepError
from scalefit.loaders.rows import Rows
from scalefit.notes import Note

Array = np.ndarray

RESTARTS = ("raise", "later", "sort")


@dataclass(frozen=True, eq=False)
class Points:
    """The points of all runs.

    Parameters
    ----------
    layout : Layout
    names : list of str
        Names of the runs.
    x : dict of str to numpy.ndarray
        `steps`, `tokens` or both.
    loss : numpy.ndarray
    rows : Rows
        Where each point came from.
    index : numpy.ndarray of int or None
        The rows of the input that the points are; None when they are all rows in their order.
    """

    layout: Layout
    names: list[str]
    x: dict[str, Array]
    loss: Array
    rows: Rows
    index: Array | None

    def pick(self, values: pd.Series) -> pd.Series:
        """Return the values of a column of the input at these points."""
        return values if self.index is None else values.iloc[self.index].reset_index(drop=True)

    def select(self, keep: Array) -> Points:
        """Return the points that a mask keeps."""
        if keep.all():
            return self
        kept = np.flatnonzero(keep)
        return replace(
            self,
            layout=self.layout.select(keep),
            x={name: values[kept] for name, values in self.x.items()},
            loss=self.loss[kept],
            rows=self.rows.keep(kept),
            index=kept if self.index is None else self.index[kept],
        )

    def describe(self, point: int) -> str:
        """Name a point: its run, and its row in the input."""
        return f"run {self.names[int(self.layout.code[point])]!r}, {self.rows.name(point)}"


def arrange(code: Array, names: list[str], x: dict[str, Array], loss: Array, rows: Rows, restarts: str) -> Points:
    """Group the rows by run, and see to it that each run goes forward.

    Parameters
    ----------
    code : numpy.ndarray of int
        The run of every row, numbered in the order of first appearance.
    names : list of str
    x : dict of str to numpy.ndarray
        `steps`, `tokens` or both.
    loss : numpy.ndarray
    rows : Rows
    restarts : {"raise", "later", "sort"}
        What to do where a run goes back; see `read_curves`.

    Raises
    ------
    SweepError
        Where a run goes back or stands still, unless it was said what that means.
    """
    by = next(iter(x))
    forward = len(code) < 2 or bool((np.diff(code) >= 0).all())
    order = None if forward else np.argsort(code, kind="stable")
    if restarts == "sort":
        order = np.lexsort((x[by], code))
    if order is not None:
        code, loss, rows = code[order], loss[order], rows.keep(order)
        x = {name: values[order] for name, values in x.items()}
    points = Points(Layout.of(code, len(names)), names, x, loss, rows, order)
    if restarts == "later":
        points = points.select(_not_redone(points.x[by], points.layout))
    for name in x:
        _check_forward(points, name, restarts)
    return points


def _not_redone(x: Array, layout: Layout) -> Array:
    """Mark the points after which their run never comes back to the same place."""
    ahead = pd.Series(x[::-1]).groupby(layout.code[::-1], sort=False).cummin().to_numpy()[::-1]
    last = np.zeros(len(x), dtype=bool)
    last[layout.ends[layout.counts > 0] - 1] = True
    keep = np.ones(len(x), dtype=bool)
    keep[:-1] = x[:-1] < ahead[1:]
    return keep | last


def _check_forward(points: Points, name: str, restarts: str) -> None:
    x, code = points.x[name], points.layout.code
    stuck = (x[1:] <= x[:-1]) & (code[1:] == code[:-1])
    if not stuck.any():
        return
    at = int(np.flatnonzero(stuck)[0]) + 1
    moved = f"{name} goes from {x[at - 1]:.10g} to {x[at]:.10g} in {points.describe(at)}"
    if x[at] == x[at - 1]:
        remedy = "which of the two losses holds cannot be known; remove one, or restarts='later' takes the later one"
        if name != next(iter(points.x)):
            remedy = f"are they rounded? columns={{{name!r}: None}} sets them aside"
        raise SweepError(
            f"{int(stuck.sum())} points have the {name} of the point before, the first where {moved}; {remedy}"
        )
    remedy = "correct these rows"
    if restarts == "raise":
        remedy = (
            "after a restart from a checkpoint, restarts='later' takes what was logged later; restarts='sort' sorts "
            "rows that are in no order; if several runs share a name, run= names the columns that tell them apart"
        )
    raise SweepError(f"{int(stuck.sum())} times a run goes back, the first where {moved}; {remedy}")


def settle_nonfinite(points: Points, nonfinite: str) -> tuple[Array, Array, list[Note]]:
    """Refuse losses that are not finite, leave them out, or end the run where the first of them is.

    Returns
    -------
    tuple
        Which points to keep, which runs diverged, and notes.

    Raises
    ------
    SweepError
        With ``nonfinite="raise"``, naming the first of them; or if nothing would be left.
    """
    layout, lost = points.layout, ~np.isfinite(points.loss)
    diverged = np.zeros(len(layout), dtype=bool)
    if not lost.any():
        return ~lost, diverged, []
    at = int(np.flatnonzero(lost)[0])
    found = (
        f"{int(lost.sum())} of {len(lost)} losses are not finite, first {points.loss[at]:g} in {points.describe(at)}"
    )
    if nonfinite == "raise":
        raise SweepError(
            f"{found}; nonfinite='diverged' ends a run at its first such loss and marks it; nonfinite='drop' leaves "
            "out these points alone, when the loss was not logged at every step"
        )
    since = np.cumsum(lost)
    gone = lost if nonfinite == "drop" else since > layout.spread(np.concatenate([[0], since])[layout.starts])
    if gone.all():
        raise SweepError(f"{found}: nothing would be left")
    if nonfinite == "drop":
        return ~gone, diverged, [Note("dropped", f"{found}; these points are left out, and their runs go on")]
    diverged[np.unique(layout.code[gone])] = True
    text = f"{found}: {int(diverged.sum())} of {len(layout)} runs are marked as diverged and end before it"
    again = int((gone & ~lost).sum())
    text += f"; {again} finite losses came after and are left out" if again else ""
    return ~gone, diverged, [Note("diverged", text, caution=True)]
