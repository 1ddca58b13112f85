"""The optimum of every cell of a sweep, with what can be said of it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from scalefit._values import Note, Observations, Tabular, merge
from scalefit.display import Display, Displayable
from scalefit.errors import SweepError
from scalefit.optima.cells import STATUSES, Estimates, Estimator, average, cells_face, pad, repeats
from scalefit.optima.optimum_estimators import Basin, Parabola
from scalefit.schema import count_levels
from scalefit.sweep import Sweep
from scalefit.vocabulary import BY_COLUMN, column_of, format_number

_CELL_AXES = ("params", "tokens", "batch")
_CONFOUNDERS = ("params", "tokens", "lr", "batch", "weight_decay", "seq_len", "optimizer", "schedule")
_NO_SETTINGS = [*BY_COLUMN, "diverged", "source", "lr_nominal"]

# Values, and the share of the rows, up to which a column looks like a setting rather than an outcome.
_FEW_VALUES, _FEW_SHARE = 12, 1 / 4


def find_optima(
    sweep: Sweep,
    over: str | Sequence[str] = "lr",
    by: str | Sequence[str] | None = None,
    method: Estimator | None = None,
    *,
    seeds: str = "all",
) -> Optima:
    """Find the optimum of every cell of a sweep.

    Parameters
    ----------
    sweep : Sweep
        The runs, from `read_sweep`.
    over : str or sequence of str
        The axis or axes searched, as columns or symbols: ``"lr"``, ``"batch"`` or ``("lr", "batch")``.
    by : str or sequence of str, optional
        The columns whose levels make a cell; by default those of params, tokens and batch that the sweep has and
        that are not searched.
    method : optimum estimator, optional
        ``GridMinimum()``, ``NearMinimum(0.0025)``, ``Parabola()`` or ``Basin()``; by default `Parabola` over the batch
        alone, else `Basin`.
    seeds : {"all", "mean"}
        Whether runs repeated at the same place enter one by one or as their mean. Averaging is asked for, never
        done in silence.

    Returns
    -------
    Optima
        One row a cell, with bounds and a status.

    Raises
    ------
    SweepError
        If `sweep` is not a `Sweep`, lacks a column, or an argument has no meaning.

    See Also
    --------
    fit : Turns the optima into a law.
    fit_surface : Explains all runs at once instead.
    near_optimal, lr_sensitivity : How much a learning rate off the optimum costs.

    Notes
    -----
    Diverged runs are never an optimum. They count in `n_runs`, and they bound their axis: the best learning rate next
    to a diverged higher one is interior, not an edge. Cells are told apart by the sweep's levels, so jitter within its
    tolerance does not split one.

    The defaults were measured. Between odd and even learning rates of 142 Step Law cells the median and 90th percentile
    disagreement in octaves is 0.50 and 0.50 for the grid minimum and for runs within 0.25 %, 0.08 and 0.20 for the
    parabola, 0.06 and 0.17 for the basin. The windows of the last two were chosen on these cells, which flatters them.
    In simulated sweeps with asymmetric basins the parabola is 0.15 to 0.26 octaves low, the basin within 0.03.
    Over learning rate and batch see docs/statistics.md.

    Examples
    --------
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> table = {"lr": [5e-4, 1e-3, 2e-3, 4e-3], "params": [1e8] * 4, "loss": [3.10, 3.02, 3.01, 3.07]}
    >>> optima = sf.find_optima(sf.read_sweep(pd.DataFrame(table)), method=sf.NearMinimum(0.005))
    >>> optima.table[["params", "lr", "status"]].round(5).to_dict("records")
    [{'params': 100000000.0, 'lr': 0.00141, 'status': 'interior'}]
    """
    if not isinstance(sweep, Sweep):
        raise SweepError(
            f"find_optima expects a Sweep, found {type(sweep).__name__}; read the table first: read_sweep(table, ...)"
        )
    axes = _axes(over)
    sweep.require(*axes, "loss")
    cells_by = _cell_columns(sweep, axes, by)
    if seeds not in ("all", "mean"):
        raise SweepError(f"seeds should be 'all' or 'mean', found {seeds!r}")
    if method is None:
        # Basins over the batch are close to symmetric: an asymmetry to estimate would cost precision and mend little.
        method = Parabola() if axes == ("batch",) else Basin()
    if not callable(getattr(method, "estimate", None)) or isinstance(method, type):
        raise SweepError(
            f"method should be one such as Basin(), GridMinimum(), NearMinimum(0.0025) or Parabola(), found {method!r}"
        )
    keys, cell = _group(sweep, cells_by)
    table = sweep.table
    x = np.log(table[list(axes)].to_numpy(dtype=float))
    loss = table["loss"].to_numpy()
    n_runs = np.bincount(cell, minlength=len(keys))
    place = repeats(cell, x, sweep.rtol)
    notes = _mixed_notes(sweep, axes, cells_by, cell)
    if repeated := len(loss) - len(np.unique(place)):
        notes += _repeat_notes(sweep, axes, cells_by, cell, repeated, seeds)
    if seeds == "mean":
        cell, x, loss = average(cell, x, loss, place)
    found = method.estimate(pad(cell, x, loss, len(keys), sweep.rtol))
    result = _tabulate(keys, axes, found, n_runs)
    all_notes = merge(sweep.notes, notes, found.notes, _status_notes(result, axes))
    return Optima(result, axes, cells_by, method, all_notes, sweep.source, sweep.data_unit, sweep.rtol, found.asymmetry)


def _axes(over: str | Sequence[str]) -> tuple[str, ...]:
    names = tuple(column_of(name) for name in ((over,) if isinstance(over, str) else over))
    if not names or len(set(names)) != len(names) or not set(names) <= {"lr", "batch"}:
        raise SweepError(f"over should be 'lr', 'batch' or both, found {over!r}")
    return tuple(name for name in ("lr", "batch") if name in names)


def _cell_columns(sweep: Sweep, axes: tuple[str, ...], by: str | Sequence[str] | None) -> tuple[str, ...]:
    if by is None:
        return tuple(name for name in _CELL_AXES if name in sweep.columns and name not in axes)
    names = tuple(column_of(name) for name in ((by,) if isinstance(by, str) else by))
    if len(set(names)) != len(names) or set(names) & {*axes, "loss", "diverged"}:
        raise SweepError(
            f"by should name columns other than those searched ({', '.join(axes)}) once each, found {by!r}"
        )
    sweep.require(*names)
    return names


def _group(sweep: Sweep, by: tuple[str, ...]) -> tuple[pd.DataFrame, np.ndarray]:
    """Return one row of levels per cell, sorted, and the cell of every run."""
    keys, cell = sweep.group(by)
    if (unknown := keys.isna()).any(axis=None):
        column = keys.columns[unknown.any()][0]
        missing = np.flatnonzero(unknown.any(axis=1).to_numpy()[cell])
        raise SweepError(
            f"{column} is unknown for {len(missing)} of {len(sweep)} runs, first in row {missing[0] + 1}; cells cannot "
            "be told apart by it"
        )
    return keys, cell


def _named(quantity: str, axis: str, over: tuple[str, ...]) -> str:
    return quantity if len(over) == 1 else f"{axis}_{quantity}"


def _tabulate(keys: pd.DataFrame, axes: tuple[str, ...], found: Estimates, n_runs: np.ndarray) -> pd.DataFrame:
    columns: dict[str, np.ndarray] = {}
    for j, name in enumerate(axes):
        columns[name] = np.exp(found.value[:, j])
        columns[f"{name}_lo"], columns[f"{name}_hi"] = np.exp(found.lo[:, j]), np.exp(found.hi[:, j])
        columns[f"log_{name}_stderr"] = found.stderr[:, j]
    columns["loss"] = found.loss
    columns |= {_named("curvature", name, axes): found.curvature[:, j] for j, name in enumerate(axes)}
    columns["n_runs"], columns["weight"] = n_runs, found.weight
    if len(axes) > 1:
        columns |= {f"{name}_status": found.status[:, j] for j, name in enumerate(axes)}
    columns["status"] = np.array([max(row, key=STATUSES.index) for row in found.status.tolist()], dtype=object)
    return pd.concat([keys, pd.DataFrame(columns)], axis=1)


def _mixed_notes(sweep: Sweep, axes: tuple[str, ...], by: tuple[str, ...], cell: np.ndarray) -> list[Note]:
    """Return notes on settings that vary within a cell but perhaps should not."""
    names = [name for name in _CONFOUNDERS if name in sweep.columns and name not in (*axes, *by)]
    notes = []
    for name in names:
        counts = count_levels(cell, sweep.labels(name)[name].to_numpy())
        if mixed := int((counts > 1).sum()):
            text = f"{name} varies within {mixed} of {len(counts)} cells, whose optima mix its values; add it to by="
            notes.append(Note("mixed", f"{text}, or select one value with where()", caution=True))
    return notes


def _repeat_notes(
    sweep: Sweep, axes: tuple[str, ...], by: tuple[str, ...], cell: np.ndarray, repeated: int, seeds: str
) -> list[Note]:
    """Return notes on how repeated runs were treated, and on settings unknown to us in which they differ."""
    how = "averaged" if seeds == "mean" else "used one by one (seeds='mean' averages them)"
    notes = [Note("seeds", f"{repeated} runs repeat another run's place in its cell; they are {how}")]
    strange = sweep.table.drop(columns=_NO_SETTINGS, errors="ignore")
    table = strange.map(str) if len(strange.columns) else strange  # trackers keep lists in their columns
    most = min(_FEW_VALUES, len(table) * _FEW_SHARE)
    few = [str(name) for name in table if name not in by and 1 < table[name].nunique() <= most]
    if not few:
        return notes
    places = table[few].groupby([cell, *(sweep.labels([*axes])[name] for name in axes)])
    varied = places.nunique(dropna=False)[places.size() > 1] > 1
    text = "runs that repeat each other differ in {}; if it is a setting, add it to by="
    # An outcome that happens to take few values differs here and there; a setting tells most repeats apart.
    unknown = [name for name in few if varied[name].mean() > 0.5]
    return notes + [Note("mixed", text.format(name), caution=True) for name in unknown]


def _status_notes(table: pd.DataFrame, axes: tuple[str, ...]) -> list[Note]:
    or_alone = ", or in a cell of too few levels of the other axis" if len(axes) > 1 else ""
    meaning = {
        "edge": "at or beyond the end of their grid: a bound, not a point",
        "flat": f"flat within the noise{or_alone}: no optimum stands out",
        "too_few": "fewer than three levels with a loss: no optimum is read off",
    }
    notes = []
    for name in axes:
        status = table[_named("status", name, axes)]
        for key, text in meaning.items():
            if count := int((status == key).sum()):
                notes.append(Note(key, f"{name}: {count} of {len(table)} cells {text}", caution=True))
    return notes


@dataclass(frozen=True, eq=False, repr=False)
class Optima(Displayable, Tabular):
    """The optimum of each cell; made by `find_optima`.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a cell: the columns of `by`; for each searched axis (`lr` here) `lr`, `lr_lo`, `lr_hi` (0 or inf on an
        open side), `log_lr_stderr` (of ln lr; NaN where the method has no honest one); `loss` at the optimum,
        `curvature` (second derivative of the loss in ln lr), `n_runs` (diverged ones too), `weight` (observations the
        row counts for) and `status`. Over two axes there is one `curvature` and status per axis (`lr_curvature`,
        `lr_status`, ...) and `status` is the worse.
    over, by : tuple of str
        The axes searched, and the columns that tell cells apart.
    method : optimum estimator
        How the optima were read off.
    notes : tuple of Note
        The sweep's notes and those of the search.
    source : str
        Where the runs came from.
    data_unit : str
        What `tokens` and `batch` count.
    rtol : float
        Relative width of a level, as in the sweep.
    asymmetry : float or None
        The k that all basins share over the first axis, 0 for parabolas; None where the method fits no curve.

    Notes
    -----
    interior: a point. edge: the optimum is at or beyond a level, as a rule the last of its cell; the value is that
    level, a bound. flat: no minimum stands out of the noise; no value. too_few: fewer than three levels with a
    loss; no value. For a law, interior optima are points and edges bounds (`fit(..., bounds=)`).

    See Also
    --------
    find_optima : Makes it.

    Examples
    --------
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> table = {"lr": [5e-4, 1e-3, 2e-3, 4e-3] * 2, "params": [1e8] * 4 + [2e8] * 4}
    >>> sweep = sf.read_sweep(pd.DataFrame(table | {"loss": [3.1, 3.02, 3.01, 3.07, 2.9, 2.8, 2.7, 2.6]}))
    >>> optima = sf.find_optima(sweep, method=sf.GridMinimum())
    >>> optima.table[["lr", "lr_hi", "status"]].round(6).values.tolist()
    [[0.002, 0.004, 'interior'], [0.004, inf, 'edge']]
    >>> len(optima.observations("lr").table), len(optima.bounded_observations("lr").table)
    (1, 2)
    """

    _table: pd.DataFrame
    over: tuple[str, ...]
    by: tuple[str, ...]
    method: Estimator
    notes: tuple[Note, ...] = field(default=())
    source: str = "table"
    data_unit: str = "tokens"
    rtol: float = 0.01
    asymmetry: float | None = None

    @property
    def table(self) -> pd.DataFrame:
        """The optima, as a copy that can be changed without changing this result."""
        return self._table.copy()

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self._table)

    def observations(self, target: str) -> Observations:
        """Return the cells whose optimum in `target` is a point, as rows for a law.

        Parameters
        ----------
        target : str
            A searched axis or its symbol: ``"lr"``, ``"eta"``, ``"batch"`` or ``"B"``.

        Returns
        -------
        Observations
            One row a point, with its weight.

        Raises
        ------
        SweepError
            If that axis was not searched, or no cell has a point to offer.
        """
        return self._cached(column_of(target), False)

    def bounded_observations(self, target: str) -> Observations:
        """Return what `observations` does and the edges beside it, as bounds (`Observations.censored`)."""
        return self._cached(column_of(target), True)

    def _cached(self, column: str, bounds: bool) -> Observations:
        # Every law that is tried asks; a copy, as whoever asks may change the arrays.
        if (column, bounds) not in self._known:
            self._known[column, bounds] = self._rows(column, bounds)
        return deepcopy(self._known[column, bounds])

    @cached_property
    def _known(self) -> dict[tuple[str, bool], Observations]:
        return {}

    def _status(self, column: str) -> pd.Series:
        return self._table[_named("status", column, self.over)]

    def _rows(self, column: str, bounds: bool) -> Observations:
        if column not in self.over:
            raise SweepError(
                f"these optima are over {', '.join(self.over)}, not {column!r}; "
                f"search it with find_optima(sweep, over={column!r})"
            )
        status = self._status(column)
        points = (status == "interior").to_numpy()
        if not points.any():
            counts = ", ".join(f"{n} {name}" for name, n in status.value_counts().items())
            raise SweepError(
                f"no cell of {self.source} has an interior optimum in {column} ({counts}): there is no point to fit; "
                "widen the grid, or give the method more runs per cell"
            )
        table, side = self._table, np.zeros(len(status), dtype=int)
        if bounds and (status == "edge").any():
            limit, side = self._limits(column)
            table = table.assign(**{column: np.where(side != 0, limit, table[column])})
        kept = points | (side != 0)
        notes = [_used(column, side, int(kept.sum()))] if bounds and (status == "edge").any() else []
        if not kept.all():
            notes.append(_left_out(status[~kept], column, len(status)))
        rows = table.loc[kept, list(dict.fromkeys([*self.by, column, *self.over]))].reset_index(drop=True)
        counted, censored = table.loc[kept, "weight"].to_numpy(dtype=float), side[kept] if side.any() else None
        counted = None if (counted == counted[0]).all() else counted
        stderr = table.loc[kept, f"log_{column}_stderr"]
        typical = stderr[points[kept]].median()
        errors = None if np.isnan(typical) else stderr.fillna(typical).to_numpy(dtype=float)[:, None]
        told = (merge(self.notes, notes), self.source, self.data_unit, censored)
        return Observations(rows, counted, *told, self.rtol, errors)

    def _limits(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Return beyond which value the optimum of an edge lies, and on which side (-1 below, +1 above)."""
        value, low, high = (self._table[f"{column}{end}"].to_numpy(dtype=float) for end in ("", "_lo", "_hi"))
        below, above = low <= 0, np.isinf(high)
        # A curve's vertex is an edge when it passes the last level. A run is picked at the last level as soon as that
        # is better than the next one in, which is when the optimum passes the middle between the two.
        inner = np.where(below, high, low)
        limit = np.sqrt(value * inner) if getattr(self.method, "picks", False) else value
        # An interval open on both sides tells no side.
        one_sided = (self._status(column) == "edge").to_numpy() & (below != above)
        return limit, np.where(one_sided, np.where(below, -1, 1), 0)

    def _display(self) -> Display:
        facts = [("cells", f"{len(self)} of ({', '.join(self.by)})"), ("method", repr(self.method))]
        for name in self.over:
            status = self._status(name)
            counts = status.value_counts()
            listed = ", ".join(f"{counts[key]} {key}" for key in STATUSES if key in counts)
            points = self._table.loc[(status == "interior").to_numpy(), name]
            span = f", {format_number(points.min())} .. {format_number(points.max())}" if len(points) else ""
            facts.append((name, listed + span))
        facts += [("data in", self.data_unit)] if self.data_unit != "tokens" else []
        facts.append(("source", self.source))
        columns = [*self.by, *(f"{name}{end}" for name in self.over for end in ("", "_lo", "_hi"))]
        title = f"Optima over {', '.join(self.over)}"
        return cells_face(title, facts, self._table[[*columns, "loss", "n_runs", "status"]], self.notes)


def _left_out(status: pd.Series, column: str, cells: int) -> Note:
    kinds = {"edge": "bounds (edge)", "flat": "flat", "too_few": "short of levels (too_few)"}
    counts = status.value_counts()
    listed = ", ".join(f"{counts[key]} {text}" for key, text in kinds.items() if key in counts)
    return Note("left_out", f"{column}: of {cells} cells {listed}; left out of the fit", caution=True)


def _used(column: str, side: np.ndarray, usable: int) -> Note:
    above, below = int((side > 0).sum()), int((side < 0).sum())
    text = f"{column}: {above + below} of {usable} optima are bounds ({above} at or above, {below} at or below)"
    return Note("bounds", f"{text}; they are used as such", caution=True)
