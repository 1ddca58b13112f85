"""The rows of a long table of curves: the run of each row, their order, and the columns with one value a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note
from scalefit.curves.smoothing import Layout
from scalefit.errors import SweepError
from scalefit.loading.frames import Rows
from scalefit.loading.numbers import check_numbers, to_numbers
from scalefit.loading.units import CONTRADICTION, settle_batch
from scalefit.vocabulary import BY_COLUMN

Array = np.ndarray
Identity = tuple[Array, list[str], list[Note]]
Split = tuple[dict[str, pd.Series], dict[str, pd.Series], list[Note]]

RESTARTS = ("raise", "later", "sort")

_FIXED = ("batch", "params", "seq_len", "seed", "optimizer", "schedule")
"""Settings that a run has once; one that changes along the run is refused."""


def by_columns(names: Sequence[str], column: Callable[[str], pd.Series], rows: Rows) -> Identity:
    """Number the runs by one column or several, in the order of first appearance; every row must have a value."""
    keys, texts = [], []
    for name in names:
        key, uniques = pd.factorize(column(name))
        if (key < 0).any():
            row = int(np.flatnonzero(key < 0)[0])
            raise SweepError(
                f"{int((key < 0).sum())} of {len(key)} rows have no {name!r}, first {rows.name(row)}: the run they "
                "belong to is not known"
            )
        keys.append(key)
        texts.append(_texts(uniques))
    code = keys[0]
    for key, text in zip(keys[1:], texts[1:], strict=True):
        code = pd.factorize(code.astype(np.int64) * len(text) + key)[0]
    first = first_rows(code)
    written = _join([text[key[first]] for key, text in zip(keys, texts, strict=True)], names)
    notes = [Note("run", f"runs are told apart by {_and(names)}: {len(written)} runs")] if len(names) > 1 else []
    return code.astype(np.int32), written, notes


def first_rows(code: Array) -> Array:
    """Return the first row of every run; runs are numbered as they appear."""
    return np.flatnonzero(np.diff(np.maximum.accumulate(code), prepend=-1))


def _texts(values: Iterable[Any]) -> Array:
    whole = (isinstance(value, float | np.floating) and float(value).is_integer() for value in values)
    return np.array([str(int(v) if w else v) for v, w in zip(values, whole, strict=True)], dtype=object)


def _join(parts: Sequence[Array], columns: Sequence[str]) -> list[str]:
    """Return the names of runs, put together from one text a column."""
    names = ["/".join(each) for each in zip(*parts, strict=True)]
    if len(set(names)) < len(names):
        raise SweepError(f"{'/'.join(columns)!r} holds different values that are written alike; make it text")
    return names


def _and(names: Sequence[str]) -> str:
    return " and ".join(map(repr, names))


def by_file(rows: Rows) -> Identity:
    """Take every file for one run, and its name, without the ending, for the run's."""
    names = [PurePath(name).name.split(".")[0] for name in rows.names]
    if len(set(names)) < len(names):
        names = list(rows.names)
    text = f"no column names the run: each of {len(names)} sources is one, called after its file"
    return rows.source.astype(np.int32), names, [Note("run", text)]


def by_proof(x: Array, what: str, others: Sequence[str], column: Callable[[str], pd.Series], source: str) -> Identity:
    """Number the runs without a column that names them.

    A table in which steps never go back is one run. Otherwise a new run begins wherever they go back. Columns that are
    constant within these pieces must give each piece values of its own; otherwise the runs would be a guess.
    """
    begins = np.concatenate([[True], x[1:] <= x[:-1]])
    piece = (np.cumsum(begins) - 1).astype(np.int32)
    if piece[-1] == 0:
        return piece, [PurePath(source).name.split(".")[0]], []
    first = np.flatnonzero(begins)
    codes = {name: pd.factorize(column(name), use_na_sentinel=False)[0] for name in others}
    constant = {name: code[first] for name, code in codes.items() if np.array_equal(code[first][piece], code)}
    keys = pd.DataFrame({name: code for name, code in constant.items() if len(np.unique(code)) > 1})
    if keys.empty or keys.duplicated().any():
        raise SweepError(
            f"no column of {source} names the run, and {what} goes back {len(first) - 1} times, first in row "
            f"{int(first[1]) + 1}: name the column, or the columns that together tell runs apart: "
            "read_curves(..., run=('<column>', ...))"
        )
    for name in list(keys):  # drop columns that are not needed: few columns name a run better than many
        rest = keys.drop(columns=name)
        keys = rest if len(rest.columns) and not rest.duplicated().any() else keys
    names = [str(name) for name in keys]
    text = f"no column names the run: the {what} go back between {len(first)} pieces, told apart by {_and(names)}"
    return piece, _join([_texts(column(name).iloc[first]) for name in names], names), [Note("run", text)]


@dataclass(frozen=True, eq=False)
class Points:
    """The points of all runs, run after run: their x (`steps`, `tokens` or both), loss, and origin.

    `index` holds the rows of the input that the points are; None when they are all rows in their order.
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
    """Group the rows by run and make every run go forward; for `restarts` see `read_curves`."""
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
    """Mark the points whose place the run never reaches again later."""
    ahead = pd.Series(x[::-1]).groupby(layout.code[::-1], sort=False).cummin().to_numpy()[::-1]
    keep = np.append(x[:-1] < ahead[1:], True)
    keep[layout.ends[layout.counts > 0] - 1] = True
    return keep


def _check_forward(points: Points, name: str, restarts: str) -> None:
    x, code = points.x[name], points.layout.code
    stuck = (x[1:] <= x[:-1]) & (code[1:] == code[:-1])
    if not stuck.any():
        return
    count, at = int(stuck.sum()), int(stuck.argmax()) + 1
    moved = f"the first where {name} goes from {x[at - 1]:.10g} to {x[at]:.10g} in {points.describe(at)}"
    if x[at] == x[at - 1]:
        found = f"{count} points have the {name} of the point before, {moved}"
        fix = "which of the two losses holds cannot be known; remove one, or restarts='later' takes the later one"
        if name != next(iter(points.x)):
            fix = f"are they rounded? columns={{{name!r}: None}} sets them aside"
    else:
        found, fix = f"{count} times a run goes back, {moved}", "correct these rows"
        if restarts == "raise":
            fix = (
                "after a restart from a checkpoint, restarts='later' takes what was logged later; restarts='sort' "
                "sorts rows that are in no order; if runs share a name, run= names the columns that tell them apart"
            )
    raise SweepError(f"{found}; {fix}")


def settle_nonfinite(points: Points, nonfinite: str) -> tuple[Array, Array, list[Note]]:
    """Refuse losses that are not finite, leave them out, or end the run where the first of them is.

    Returns which points to keep, which runs diverged, and notes.
    """
    layout, lost = points.layout, ~np.isfinite(points.loss)
    diverged = np.zeros(len(layout), dtype=bool)
    if not lost.any():
        return ~lost, diverged, []
    at = int(np.flatnonzero(lost)[0])
    first = f"first {points.loss[at]:g} in {points.describe(at)}"
    found = f"{int(lost.sum())} of {len(lost)} losses are not finite, {first}"
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


def split(points: Points, columns: Mapping[str, str], read: Callable[[str], pd.Series]) -> Split:
    """Separate settings, which have one value a run, from columns that change along the run.

    `columns` maps names in the result to those in the input, which `read` returns. A setting that a run has only once
    must not change along it.
    """
    runs: dict[str, pd.Series] = {}
    along: dict[str, pd.Series] = {}
    notes: list[Note] = []
    for name, stored in columns.items():
        values = points.pick(read(stored))
        if name in BY_COLUMN and BY_COLUMN[name].numeric:
            values = pd.Series(to_numbers(values, name, points.rows), name=stored)
        elif pd.api.types.is_numeric_dtype(values) and not isinstance(values.dtype, np.dtype):  # holds missing values
            values = pd.Series(values.to_numpy(dtype=float, na_value=np.nan), name=stored)
        own, at = _per_run(points.layout, values)
        if at is None:
            runs[name] = own
        elif name in _FIXED:
            start = points.layout.starts[points.layout.code[at]]
            raise SweepError(
                f"{name} should be one value a run and goes from {values.iloc[start]} to {values.iloc[at]} in "
                f"{points.describe(at)}; if rows of several runs share a name, run= names the columns that tell them "
                f"apart; if it was changed on purpose, set the column aside with columns={{{name!r}: None}}, if tokens "
                "tell how far a run is"
            )
        elif name == "lr":
            runs[name], along[stored] = own, values
            text = f"{stored!r} changes along the runs: lr is the peak of each, and the schedule is kept as {stored!r}"
            notes.append(Note("schedule", text))
        else:
            along[name] = values
    return runs, along, notes


def _per_run(layout: Layout, values: pd.Series) -> tuple[pd.Series, int | None]:
    """Return the value of every run, and the first point that has another; a number may be missing at some points.

    Where a number changes, the value of the run is the largest.
    """
    if values.dtype.kind == "f":
        numbers = values.to_numpy()
        missing = np.isnan(numbers)
        largest = layout.largest(np.where(missing, -np.inf, numbers))
        own = pd.Series(np.where(largest == -np.inf, np.nan, largest))
        differs = (numbers != layout.spread(own.to_numpy())) & ~missing
    else:
        codes = values.to_numpy() if values.dtype.kind in "iub" else _codes(values)
        differs = codes != layout.spread(codes[layout.starts])
        own = values.iloc[layout.starts].reset_index(drop=True)
        if isinstance(own.dtype, pd.CategoricalDtype):
            own = own.astype(own.cat.categories.dtype)
    return own, int(differs.argmax()) if differs.any() else None


def _codes(values: pd.Series) -> Array:
    try:
        return pd.factorize(values, use_na_sentinel=False)[0]
    except TypeError:  # values such as lists
        return pd.factorize(values.map(repr))[0]


def settle_units(
    points: Points, runs: pd.DataFrame, batch_unit: str | None, seq_len: float | None, data_unit: str
) -> tuple[dict[str, Array], pd.DataFrame, list[Note]]:
    """Return steps and tokens of all points as far as they follow, and the runs with their batch in the data unit."""
    x, layout = dict(points.x), points.layout
    last = points.rows.keep(layout.ends - 1)
    check_numbers(runs, last, "raise")
    ends = runs.assign(**{name: layout.at_end(values) for name, values in x.items()})
    ends, notes = settle_batch(ends, last, batch_unit, seq_len, data_unit)
    if "batch" not in ends:
        return x, runs, notes
    batch = ends["batch"].to_numpy()
    each = layout.spread(batch)
    if "tokens" not in x:
        x["tokens"] = x["steps"] * each
    elif "steps" not in x:
        x["steps"] = x["tokens"] / each
        notes.append(Note("derived", "there was no column for steps; steps = tokens / batch"))
    elif (off := np.abs(x["steps"] * each - x["tokens"]) > CONTRADICTION * x["tokens"] + 1.001 * each).any():
        at = int(np.flatnonzero(off)[0])  # they differ by more than one step and the usual tolerance
        raise SweepError(
            f"steps * batch contradicts tokens in {int(off.sum())} of {len(off)} points, first "
            f"{x['steps'][at] * each[at]:.6g} against {x['tokens'][at]:.6g} in {points.describe(at)}; if the batch was "
            "changed along the run, set it aside with columns={'batch': None}"
        )
    return x, runs.assign(batch=batch), notes
