"""A frozen table of runs in the package's own words and units, grouped into cells within a tolerance.

What every table of runs must hold, and what a reader should know about its rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np
import pandas as pd

from scalefit._levels import group_levels, group_rows, lowest_of, number_groups, unordered
from scalefit._values import Note, Observations, merge
from scalefit.display import Face, Shown
from scalefit.errors import LawError, SweepError
from scalefit.laws.expressions import evaluate_condition
from scalefit.vocabulary import (
    AXES,
    BY_COLUMN,
    BY_SYMBOL,
    QUANTITIES,
    check_data_unit,
    column_of,
    format_number,
    format_span,
    unit_of,
)


@dataclass(frozen=True, eq=False, repr=False)
class Sweep(Shown):
    """A table of runs: words for columns, one unit of data, one row a run; it never changes.

    Sweeps come from `scalefit.read_sweep`; `Sweep.from_frame` takes a table that already uses these words and
    units.

    Attributes
    ----------
    table : pandas.DataFrame
        A copy of the runs: `lr` (peak), `batch` (data per optimizer step), `params`, `tokens` (data trained on),
        `loss` (nats) and the other words of the vocabulary first, then every further column of the input, then
        `diverged`, which marks runs whose loss was not finite (their loss is NaN).
    columns : tuple of str
        The names of the table's columns.
    units : mapping of str to str
        The unit of each column of the vocabulary that is present.
    notes : tuple of Note
        All that was done to the input, or doubted about it.
    source : str
        Where the runs came from.
    rtol : float
        Values within this relative tolerance are one level.
    params_convention : str or None
        ``"non_embedding"`` or ``"total"``, when it is known what `params` counts.
    data_unit : str
        What `tokens` and `batch` count: tokens, images, samples, epochs, ...

    Examples
    --------
    >>> runs = pd.DataFrame({"lr": [1e-3, 2e-3, 4e-3], "params": 1e8, "tokens": 2e9, "loss": [3.3, 3.2, 3.4]})
    >>> sweep = Sweep.from_frame(runs)
    >>> sweep.cells[["params", "n_runs", "n_lr", "loss"]].to_dict("records")
    [{'params': 100000000.0, 'n_runs': 3, 'n_lr': 3, 'loss': 3.2}]
    >>> len(sweep.where("eta < 3e-3"))
    2
    """

    _table: pd.DataFrame
    notes: tuple[Note, ...] = ()
    source: str = "table"
    rtol: float = 0.01
    params_convention: str | None = None
    data_unit: str = "tokens"

    @classmethod
    def from_frame(
        cls,
        table: pd.DataFrame,
        *,
        notes: Iterable[Note] = (),
        source: str = "table",
        rtol: float = 0.01,
        params_convention: str | None = None,
        data_unit: str = "tokens",
    ) -> Sweep:
        """Build a sweep from a table whose columns already are the package's words, in its units.

        Parameters
        ----------
        table : pandas.DataFrame
            One row a run, with `loss` (nats) and at least one of `lr`, `batch` (data per step), `params`
            and `tokens` (data trained on); an optional bool column `diverged` marks runs that may have no loss.
        notes : iterable of Note
            Remarks to carry along; remarks on diverged, repeated and far-off runs are added.
        source : str
            Where the runs came from, for faces and reports.
        rtol : float
            Values within this relative tolerance are one level.
        params_convention : str or None
            ``"non_embedding"`` or ``"total"``.
        data_unit : str
            What `tokens` and `batch` count, as a plural noun.

        Raises
        ------
        SweepError
            If the table is empty, lacks these columns, or holds values that no run can have.

        Notes
        -----
        Use `scalefit.read_sweep` for anything that still has to be recognised, converted or doubted.
        """
        if not 0 <= rtol < 0.5:
            raise SweepError(f"rtol is a relative tolerance between 0 and 0.5, found {rtol!r}")
        sweep = cls(canonical(table), (), source, rtol, params_convention, check_data_unit(data_unit))
        kept = [note for note in notes if note.code not in STATED]
        return replace(sweep, notes=merge(kept, remark(sweep._table, sweep._labels)))

    @property
    def table(self) -> pd.DataFrame:
        """The runs, as a copy that can be changed without changing the sweep."""
        return self._table.copy()

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the table's columns."""
        return tuple(self._table.columns)

    @property
    def units(self) -> Mapping[str, str]:
        """The unit of each column of the vocabulary that is present."""
        present = (name for name in BY_COLUMN if name in self._table.columns)
        return MappingProxyType({name: unit_of(name, self.data_unit) for name in present})

    def __len__(self) -> int:
        """Return the number of runs, diverged ones included."""
        return len(self._table)

    def where(self, condition: str) -> Sweep:
        """Return the sweep of the runs that satisfy a condition.

        Parameters
        ----------
        condition : str
            A comparison of columns or symbols, such as ``"params < 1e9 and tokens >= 2e9"`` or ``"N < 1e9"``.

        Raises
        ------
        SweepError
            If the text is not a condition on this table, or if no run satisfies it.
        """
        columns = {str(name): self._table[name].to_numpy() for name in self._table.columns}
        symbols = {symbol: columns[q.column] for symbol, q in BY_SYMBOL.items() if q.column in columns}
        try:
            keep = np.broadcast_to(evaluate_condition(condition, columns | symbols), len(self))
        except LawError as error:
            raise SweepError(str(error)) from None
        if not keep.any():
            spans = ", ".join(f"{name} {format_span(self._table[name])}" for name in AXES if name in columns)
            raise SweepError(f"none of the {len(self)} runs satisfies {condition!r}; the sweep spans {spans}")
        note = Note("where", f"{int(keep.sum())} of {len(self)} runs selected by {condition!r}")
        return self._subset(keep, note)

    def _subset(self, keep: np.ndarray, note: Note) -> Sweep:
        return Sweep.from_frame(
            self._table[keep],
            notes=(*self.notes, note),
            source=self.source,
            rtol=self.rtol,
            params_convention=self.params_convention,
            data_unit=self.data_unit,
        )

    def require(self, *columns: str) -> None:
        """Raise unless the sweep has all of these columns.

        Parameters
        ----------
        *columns : str
            Columns or symbols.

        Raises
        ------
        SweepError
            Naming what is missing, what is present, what was not recognised, and how to name it.
        """
        missing = [column_of(name) for name in columns if column_of(name) not in self._table.columns]
        if not missing:
            return
        others = [str(name) for name in self._table.columns if name not in BY_COLUMN and name != "diverged"]
        hint = f"; not recognised: {', '.join(others)}" if others else ""
        raise SweepError(
            f"this needs the column{'s' * (len(missing) > 1)} {', '.join(missing)}; {self.source} has "
            f"{', '.join(self.units)}{hint}. If the values are there under another name, say so: "
            f"read_sweep(..., columns={{{missing[0]!r}: '<its name>'}})"
        )

    def require_losses(self, lacking: str) -> np.ndarray:
        """Return which runs have a loss; raise unless there is one.

        Parameters
        ----------
        lacking : str
            What there is not if all runs diverged, for the error: ``"no loss to fit a surface to"``.

        Returns
        -------
        numpy.ndarray of bool, shape (n_runs,)
            False for diverged runs.

        Raises
        ------
        SweepError
            If all runs diverged.

        Examples
        --------
        >>> runs = pd.DataFrame({"lr": [1e-3, 1.0], "loss": [3.3, np.nan], "diverged": [False, True]})
        >>> Sweep.from_frame(runs).require_losses("no loss to fit").tolist()
        [True, False]
        """
        finished = ~self._table["diverged"].to_numpy(dtype=bool)
        if not finished.any():
            raise SweepError(
                f"all {len(self)} runs of {self.source} diverged: there is {lacking}; widen the sweep towards lower "
                "learning rates"
            )
        return finished

    def levels(self, column: str) -> np.ndarray:
        """Return the distinct levels of a column in ascending order, values within `rtol` taken as one.

        Parameters
        ----------
        column : str
            A column or a symbol.

        Raises
        ------
        SweepError
            If there is no such column, or its values have no order.
        """
        self.require(column)
        labels = self._labels(column_of(column))
        known = labels[~pd.isna(labels)]
        try:
            return np.unique(known)
        except TypeError:
            raise unordered(column, known) from None

    def labels(self, columns: str | Sequence[str]) -> pd.DataFrame:
        """Return the level of every run in the given columns, row by row, for grouping.

        Measured quantities are grouped within `rtol`; seeds, texts and columns of whole numbers outside the
        vocabulary (an epoch, a width) are taken as they are.

        Parameters
        ----------
        columns : str or sequence of str
            Columns or symbols.

        Returns
        -------
        pandas.DataFrame
            One column each, in the given order, one row a run.

        Raises
        ------
        SweepError
            If a column is missing.
        """
        wanted = [column_of(name) for name in ([columns] if isinstance(columns, str) else columns)]
        self.require(*wanted)
        return pd.DataFrame({name: self._labels(name) for name in wanted}, index=range(len(self)))

    def group(self, columns: str | Sequence[str]) -> tuple[pd.DataFrame, np.ndarray]:
        """Return the combinations of levels that occur, in ascending order, and which of them each run has.

        Parameters
        ----------
        columns : str or sequence of str
            Columns or symbols; with none of them all runs are one group. Missing values are a level, put last.

        Returns
        -------
        keys : pandas.DataFrame
            One row a group.
        group : numpy.ndarray of int, shape (n_runs,)
            The row of `keys` of every run.

        Raises
        ------
        SweepError
            If a column is missing, or its values have no order.

        Examples
        --------
        >>> runs = pd.DataFrame({"params": [4e8, 1e8, 1.001e8], "seed": [0, 0, 1], "loss": 3.0})
        >>> keys, group = Sweep.from_frame(runs).group("params")
        >>> keys["params"].tolist(), group.tolist()
        ([100000000.0, 400000000.0], [1, 0, 0])
        """
        return group_rows(self.labels(columns))

    def _labels(self, column: str) -> np.ndarray:
        known = self._known_labels
        if column not in known:
            known[column] = label(self._table[column], column, self.rtol)
        return known[column].copy()

    @cached_property
    def _known_labels(self) -> dict[str, np.ndarray]:
        return {}

    @property
    def cells(self) -> pd.DataFrame:
        """One row per (params, tokens): n_runs, n_lr, n_batch, the best loss, n_diverged."""
        return self._cells.copy()

    @cached_property
    def _cells(self) -> pd.DataFrame:
        by = [name for name in ("params", "tokens") if name in self.columns]
        keys, cell = self.group(by)
        columns = {"n_runs": np.bincount(cell)}
        for name in (name for name in ("lr", "batch") if name in self.columns):
            first, _ = number_groups(cell, self._labels(name))
            columns[f"n_{name}"] = np.bincount(cell[first])
        lowest = lowest_of(cell, self._table["loss"].to_numpy(), len(keys))
        diverged = np.bincount(cell, self._table["diverged"].to_numpy()).astype(np.int64)
        return keys.assign(**columns, loss=lowest, n_diverged=diverged)

    def observations(self, target: str) -> Observations:
        """Return the rows that a law is fitted to: the runs that did not diverge.

        Parameters
        ----------
        target : str
            The column or symbol that the law predicts.

        Raises
        ------
        SweepError
            If the sweep has no such column, or all of its runs diverged.
        """
        self.require(target)
        kept = self.require_losses(f"no {column_of(target)} to fit")
        notes = self.notes
        if not kept.all():
            text = f"{int((~kept).sum())} of {len(self)} runs diverged and are left out of the fit"
            notes = (*notes, Note("left_out", text, caution=True))
        return Observations(self._table[kept].reset_index(drop=True), None, notes, self.source, self.data_unit)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the runs and their units, as hex; the order of the rows does not change it."""
        texts = [name for name in self._table.columns if self._table[name].dtype == object]
        rows = self._table.assign(**{str(name): self._table[name].map(ascii) for name in texts})
        digest = hashlib.sha256(repr((list(map(str, rows.columns)), sorted(self.units.items()))).encode())
        digest.update(np.sort(pd.util.hash_pandas_object(rows, index=False).to_numpy()).astype("<u8").tobytes())
        return digest.hexdigest()

    def _face(self) -> Face:
        axes = [name for name in AXES if name in self._table.columns]
        runs = f"{len(self)}" + (f", {n} diverged" if (n := int(self._table["diverged"].sum())) else "")
        cells = [name for name in ("params", "tokens") if name in axes]
        facts = [
            ("runs", runs),
            ("loss", f"{format_span(self._table['loss'])} {self.units['loss']}"),
            ("source", self.source),
        ]
        if cells:
            facts.insert(1, ("cells", f"{len(self.cells)} of ({', '.join(cells)})"))
        if self.params_convention:
            facts.append(("params", self.params_convention.replace("_", "-")))
        rows = [
            (
                name,
                self.units[name],
                str(len(levels)),
                format_number(levels[0]),
                format_number(levels[-1]),
            )
            for name in axes
            if len(levels := self.levels(name))
        ]
        table = pd.DataFrame(rows, columns=["axis", "unit", "levels", "from", "to"])
        return Face("Sweep", tuple(facts), table, self.notes)


POSITIVE: tuple[str, ...] = ("lr", "batch", "params", "tokens", "loss", "steps", "flops", "seq_len")
"""Columns whose values must be greater than zero."""

FAR_OFF = 0.5
"""Nats above the best run of its cell from which a run is noted as far from tuned."""

STATED = ("diverged", "repeats", "far_off")
"""Codes of the notes on the rows themselves, which are stated anew for every subset."""


def label(values: pd.Series, column: str, rtol: float) -> np.ndarray:
    """Return levels for a measured quantity, the values themselves for anything that only names."""
    kinds = pd.api.types
    if not kinds.is_numeric_dtype(values) or kinds.is_bool_dtype(values) or kinds.is_complex_dtype(values):
        return values.to_numpy(dtype=object)
    numbers = values.to_numpy(dtype=float, na_value=np.nan)
    finite = numbers[np.isfinite(numbers)]
    counted = column not in BY_COLUMN and bool(np.all(finite == np.round(finite)))
    return numbers if column == "seed" or counted else group_levels(numbers, rtol)


def canonical(table: pd.DataFrame) -> pd.DataFrame:
    """Return a new table in canonical order with float columns, after checking what every sweep promises.

    Raises
    ------
    SweepError
        If the table is empty, lacks a column that every sweep has, or holds values that no run can have.
    """
    if "loss" not in table.columns or not any(name in table.columns for name in AXES):
        raise SweepError(
            f"a sweep needs loss and at least one of {', '.join(AXES)}; found the columns {', '.join(map(str, table))}"
        )
    if not len(table):
        raise SweepError("a sweep needs at least one run; the table has no rows")
    if not table.columns.is_unique:
        raise SweepError(f"the column {table.columns[table.columns.duplicated()][0]!r} occurs twice")
    known = [q.column for q in QUANTITIES if q.column in table.columns]
    others = [name for name in table.columns if name not in BY_COLUMN and name != "diverged"]
    result = table[[*known, *others]].reset_index(drop=True)
    diverged = table["diverged"].to_numpy(dtype=bool) if "diverged" in table.columns else np.zeros(len(table), bool)
    for name in (name for name in known if BY_COLUMN[name].numeric):
        try:
            result[name] = table[name].to_numpy(dtype=float, na_value=np.nan)
        except (TypeError, ValueError):
            raise SweepError(
                f"{name} should be numbers, found {table[name].dtype}; read_sweep names the rows"
            ) from None
    result["loss"] = result["loss"].where(~diverged)
    result["diverged"] = diverged
    _check_values(result)
    return result


def _check_values(table: pd.DataFrame) -> None:
    for name in (name for name in POSITIVE if name in table.columns):
        values = table[name].to_numpy()
        bad = ~((values > 0) & np.isfinite(values))
        if name == "loss":
            bad &= ~table["diverged"].to_numpy()
        if name not in ("loss", *AXES):
            bad &= ~np.isnan(values)  # may be unknown for some runs, such as those of one file among several
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise SweepError(
                f"{name} should be positive and finite: {int(bad.sum())} of {len(table)} values are not, first in "
                f"row {row + 1}: {values[row]:g}. A diverged run is marked by a true value in the column diverged"
            )


def remark(table: pd.DataFrame, levels: Callable[[str], np.ndarray]) -> list[Note]:
    """Return what a reader should know about the rows: diverged, repeated and far-off runs.

    Parameters
    ----------
    table : pandas.DataFrame
        A canonical table of runs.
    levels : callable
        The level of every run in a column.
    """
    notes = []
    diverged, loss = table["diverged"].to_numpy(), table["loss"].to_numpy()
    if diverged.any():
        text = f"{int(diverged.sum())} of {len(table)} runs have no finite loss; kept and marked as diverged"
        notes.append(Note("diverged", text, caution=True))
    axes = [name for name in AXES if name in table.columns]
    if repeated := len(table) - len(number_groups(*(levels(name) for name in axes))[0]):
        text = f"{repeated} of {len(table)} runs repeat the {', '.join(axes)} of another run; all are kept"
        notes.append(Note("repeats", text))
    by = [name for name in ("params", "tokens") if name in axes]
    first, cell = number_groups(*(levels(name) for name in by), rows=len(table))
    if far := int((loss - lowest_of(cell, loss, len(first))[cell] > FAR_OFF).sum()):
        where = f"over {FAR_OFF} nats above the best of their cell"
        text = f"{far} of {len(table)} runs lie {where}: diverged or far from tuned; all are kept"
        notes.append(Note("far_off", text))
    return notes
