"""What each batch size needs to reach a target: the points of a trade-off, from curves, final losses or a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note, merge
from scalefit.batch_size.critical_batch import positive
from scalefit.batch_size.points_from_sweep import best_over_lr, check_known, edge_notes, from_sweep
from scalefit.batch_size.points_from_table import read_table, study_columns
from scalefit.display import Display, Displayable
from scalefit.errors import SweepError
from scalefit.schema import group_levels, group_rows, lowest_of
from scalefit.sweep import Sweep
from scalefit.vocabulary import format_number

_SHOWN = 12
_DATA_WINDOW = 0.3  # window of the basin in ln lr, as a relative excess of data; data rise far faster than the loss
_STATUSES = {"reached", "bound", "before_start"}
_SETTINGS = ("params", "weight_decay", "seq_len", "optimizer", "schedule")
_OWN = {"batch", "tokens", "loss", "lr", "target"}
_COLUMNS = ("batch", "steps", "examples", "log_stderr", "n", "status")


@dataclass(frozen=True, eq=False, repr=False)
class TradeoffPoints(Displayable):
    """Steps and examples to reach each target, one row a batch size; made by `tradeoff_points`.

    Attributes
    ----------
    table : pandas.DataFrame
        The columns of `by`; `target` where there is one; `batch`; `steps` (NaN where the units do not tell);
        `examples`; `log_stderr`, the standard error of ln examples (NaN where unknown); `n`, the runs behind it;
        `status`: point, or bound (the target was not reached: `examples` is what was used without reaching it); further
        columns say how the point was made, such as `reach`, the factor by which it lies beyond the budgets at hand.
    by : tuple of str
        The columns that tell studies apart, `target` aside.
    data_unit, examples_unit : str
        What `batch` and `examples` count.
    unit_size : float or None
        How much of `data_unit` one `examples_unit` holds; None where unknown.
    notes : tuple of Note
    source : str
    replicated : bool
        Whether the `n` runs behind a point repeat each other, so that its noise is that of one run over sqrt(n).

    See Also
    --------
    fit_tradeoff : Fits the hyperbola to them.

    Examples
    --------
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> points = sf.tradeoff_points(pd.DataFrame({"batch": [64, 64, 256], "steps": [900, 1100, 300]}))
    >>> points.table[["batch", "examples", "n", "status"]].round().to_dict("records")[0]
    {'batch': 64.0, 'examples': 63679.0, 'n': 2, 'status': 'point'}
    """

    _table: pd.DataFrame
    by: tuple[str, ...]
    data_unit: str = "tokens"
    examples_unit: str = "tokens"
    unit_size: float | None = 1.0
    notes: tuple[Note, ...] = field(default=())
    source: str = "table"
    replicated: bool = True

    @property
    def table(self) -> pd.DataFrame:
        """The points, as a copy that can be changed without changing this result."""
        return self._table.copy()

    @property
    def keys(self) -> list[str]:
        """The columns that separate fits: those of `by`, and `target` where there is one."""
        return [*self.by, *(["target"] if "target" in self._table else [])]

    def __len__(self) -> int:
        """Return the number of rows, bounds included."""
        return len(self._table)

    def _display(self) -> Display:
        counts = self._table["status"].value_counts()
        points = f"{counts.get('point', 0)}, bounds {counts.get('bound', 0)}"
        units = (("batch", f"in {self.data_unit}"), ("examples", f"in {self.examples_unit}"))
        facts = (("points", points), *units, ("source", self.source))
        text = self._table[[*self.keys, *_COLUMNS]].head(_SHOWN).map(cell_text)
        return Display("Trade-off points", facts, text, note_hidden(self.notes, len(self) - _SHOWN, "points"))


def cell_text(value: object) -> str:
    """Write one value of a shown table."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return format_number(float(value)) if isinstance(value, int | float | np.number) else str(value)


def note_hidden(notes: tuple[Note, ...], count: int, things: str) -> tuple[Note, ...]:
    """Add how many rows of a table are not shown."""
    return (*notes, Note("shown", f"{count} more {things} in .table")) if count > 0 else notes


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

    See Also
    --------
    fit_tradeoff : Fits the hyperbola to the points.

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
    >>> import numpy as np
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> batch, tokens = (axis.ravel() for axis in np.meshgrid([1e5, 4e5, 1.6e6, 6.4e6], [1e9, 4e9, 1.6e10]))
    >>> loss = 20 * (tokens / (1 + batch / 1e6)) ** -0.1
    >>> sweep = sf.Sweep.from_frame(pd.DataFrame({"batch": batch, "tokens": tokens, "loss": loss}))
    >>> points = sf.tradeoff_points(sweep, targets=[2.2])
    >>> (points.table["examples"] / 1e9).round(2).tolist()
    [4.24, 5.4, 10.02, 28.53]
    """
    if isinstance(data, TradeoffPoints):
        return data
    if isinstance(data, pd.DataFrame):
        if targets is not None:
            raise SweepError("a table of steps or examples brings its targets in a column target; leave targets=")
        points, names, unit, size, notes = read_table(data, by, data_unit, examples_unit, unit_size)
        return TradeoffPoints(points, tuple(names), data_unit, unit, size, tuple(notes))
    if not isinstance(data, Sweep) and not hasattr(data, "tokens_to_target"):
        raise SweepError(f"expected curves, a sweep or a table of steps to a target, found {type(data).__name__}")
    if targets is None or np.size(targets) == 0:
        raise SweepError("say which losses to reach: tradeoff_points(data, targets=[3.2, 3.0])")
    losses = positive("targets", targets, SweepError, "positive losses to reach, or how many to spread").tolist()
    counted = isinstance(targets, int | np.integer)
    if isinstance(data, Sweep):
        if not max_reach >= 1:
            raise SweepError(f"max_reach is a factor of the data, at least 1, found {max_reach!r}")
        names = study_columns(by, data.columns, _OWN)
        points, notes = from_sweep(data, int(losses[0]) if counted else losses, names, max_reach)
        runs, replicated = data.table, False
    elif counted:
        raise SweepError(f"for curves, list the losses to reach, targets=[3.2, 3.0]; found {targets!r}")
    else:
        runs = data.tokens_to_target(losses)
        names = study_columns(by, runs.columns, _OWN)
        points, notes = _from_crossings(runs, names, data.data_unit)
        replicated = "lr" not in runs
    for name in _SETTINGS:
        if name in runs and name not in names and runs[name].nunique() > 1:
            text = f"{name} varies within the studies, whose points mix its values; add it to by="
            notes.append(Note("mixed", text, caution=True))
    first = [*names, "target", *_COLUMNS]
    points = points[[*first, *(name for name in points if name not in first)]]
    points = points.sort_values([*names, "target", "batch"], ignore_index=True)
    units = (data.data_unit, data.data_unit, 1.0)
    return TradeoffPoints(points, tuple(names), *units, merge(data.notes, notes), data.source, replicated)


def _from_crossings(runs: pd.DataFrame, names: list[str], data_unit: str) -> tuple[pd.DataFrame, list[Note]]:
    """Return points from the data that every run of a set of curves used to each target, with notes."""
    if "batch" not in runs or "tokens" not in runs:
        found = ", ".join(map(str, runs))
        raise SweepError(f"a trade-off needs the batch of every run and the data along it; the curves have {found}")
    if strange := set(runs["status"]) - _STATUSES:
        raise SweepError(f"tokens_to_target gave the unknown status {strange.pop()!r}")
    notes = []
    early = runs["status"] == "before_start"
    if early.any():
        text = f"{int(early.sum())} crossings lie before the first point of their curve: upper bounds, left out"
        notes.append(Note("before_start", text, caution=True))
    runs = runs[~early].reset_index(drop=True)
    if not (runs["status"] == "reached").any():
        raise SweepError("no run reaches any of the targets; take higher losses")
    keys = [*names, "target"]
    rows = runs[[*keys, "status"]].assign(batch=group_levels(runs["batch"]), examples=runs["tokens"])
    if "lr" not in runs:
        points, *_, more = read_table(rows, names, data_unit, None, None)
        return points, [*notes, *more]
    points, cell = group_rows(rows[[*keys, "batch"]])
    check_known(points, cell)
    used, log_lr = rows["examples"].to_numpy(dtype=float), np.log(runs["lr"].to_numpy(dtype=float))
    to_target = np.where(rows["status"] == "reached", used, np.nan)  # NaN: failed, for lack of the target
    least = best_over_lr(cell, log_lr, to_target, len(points), window=_DATA_WINDOW)
    there = np.isfinite(least.value)
    points["examples"] = np.where(there, least.value, -lowest_of(cell, -used, len(points)))
    points["steps"] = points["examples"] / points["batch"]
    points["log_stderr"] = np.where(there, least.stderr / np.where(there, least.value, 1.0), np.nan)
    points["n"] = np.where(there, least.count, np.bincount(cell))
    points["status"], points["lr_status"] = np.where(there, "point", "bound"), least.status
    return points, [*notes, *edge_notes(least.status[there], "points")]
