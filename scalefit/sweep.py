"""A frozen table of runs in the package's own words and units, grouped into cells within a tolerance."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np
import pandas as pd

from scalefit._values import Note, Observations, Tabular, merge
from scalefit.display import Display, Displayable
from scalefit.errors import LawError, SweepError
from scalefit.laws.expressions import evaluate_condition
from scalefit.schema import ROW_NOTES, Groups, check_runs, count_levels, lowest_of, notes_on_rows
from scalefit.vocabulary import AXES, BY_SYMBOL, check_data_unit, column_of, format_number, format_span, units_of


@dataclass(frozen=True, eq=False, repr=False)
class Sweep(Displayable, Tabular):
    """A table of runs: words for columns, one unit of data, one row a run; it never changes.

    `read_sweep` and `load_dataset` make sweeps; `len` counts diverged runs too.

    Attributes
    ----------
    notes : tuple of Note
        What was done to the input, and cautions about it.
    source : str
        Where the runs came from.
    rtol : float
        Values within this relative tolerance are one level.
    params_convention : {None, "non_embedding", "total"}
        What `params` counts, when it is known.
    data_unit : str
        What `tokens` and `batch` count: tokens, images, samples, epochs, ...

    See Also
    --------
    read_sweep : Reads a sweep from files or tables under their own words and units.
    find_optima : The best learning rate and batch size of each cell of a sweep.

    Examples
    --------
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> runs = pd.DataFrame({"lr": [1e-3, 2e-3, 4e-3], "params": 1e8, "tokens": 2e9, "loss": [3.3, 3.2, 3.4]})
    >>> sweep = sf.Sweep.from_frame(runs)
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
            Notes to carry along; those on diverged, repeated and far-off runs are added.
        source, rtol, params_convention, data_unit
            As the attributes of the sweep.

        Returns
        -------
        Sweep

        Raises
        ------
        SweepError
            If the table is empty, lacks these columns, or holds values that no run can have.

        Examples
        --------
        >>> import scalefit as sf
        >>> table = sf.load_dataset("simulated", raw=True)
        >>> sf.Sweep.from_frame(table, source="notebook").levels("N").tolist()
        [10000000.0, 50000000.0, 200000000.0, 1000000000.0]
        """
        if not 0 <= rtol < 0.5:
            raise SweepError(f"rtol is a relative tolerance between 0 and 0.5, found {rtol!r}")
        sweep = cls(check_runs(table), tuple(notes), source, rtol, params_convention, check_data_unit(data_unit))
        return sweep._with_notes_on_rows()

    def _with_notes_on_rows(self) -> Sweep:
        levels = {name: self._groups.levels(name) for name in AXES if name in self.columns}
        kept = [note for note in self.notes if note.code not in ROW_NOTES]
        return replace(self, notes=merge(kept, notes_on_rows(self._table, levels)))

    @property
    def table(self) -> pd.DataFrame:
        """A copy of the runs: the words of the vocabulary first, then every further column, then `diverged`.

        `lr` is the peak, `batch` the data per optimizer step, `tokens` the data trained on, `loss` in nats; runs whose
        loss was not finite are marked as diverged, and their loss is NaN.
        """
        return self._table.copy()

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the table's columns."""
        return tuple(self._table.columns)

    @property
    def units(self) -> Mapping[str, str]:
        """The unit of each column of the vocabulary that is present."""
        return MappingProxyType(units_of(self.columns, self.data_unit))

    def __len__(self) -> int:
        return len(self._table)

    def where(self, condition: str) -> Sweep:
        """Return the sweep of the runs that satisfy a condition.

        Parameters
        ----------
        condition : str
            A comparison of columns or symbols, such as ``"params < 1e9 and tokens >= 2e9"`` or ``"N < 1e9"``.

        Returns
        -------
        Sweep
            With a note on the condition.

        Raises
        ------
        SweepError
            If the text is not a condition on this table, or if no run satisfies it.

        Examples
        --------
        >>> import scalefit as sf
        >>> len(sf.load_dataset("simulated").where("N < 1e9 and D > 2e9"))
        315
        """
        columns = {str(name): self._table[name].to_numpy() for name in self.columns}
        symbols = {symbol: columns[q.column] for symbol, q in BY_SYMBOL.items() if q.column in columns}
        try:
            keep = np.broadcast_to(evaluate_condition(condition, columns | symbols), len(self))
        except LawError as error:
            raise SweepError(str(error)) from None
        if not keep.any():
            spans = ", ".join(f"{name} {format_span(self._table[name])}" for name in AXES if name in columns)
            raise SweepError(f"none of the {len(self)} runs satisfies {condition!r}; the sweep spans {spans}")
        note = Note("where", f"{int(keep.sum())} of {len(self)} runs selected by {condition!r}")
        kept = replace(self, _table=self._table[keep].reset_index(drop=True), notes=(*self.notes, note))
        return kept._with_notes_on_rows()

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

        Examples
        --------
        >>> import scalefit as sf
        >>> sf.load_dataset("simulated").require("lr", "N", "loss")
        """
        missing = [name for name in map(column_of, columns) if name not in self._table.columns]
        if not missing:
            return
        others = [str(name) for name in self.columns if name not in self.units and name != "diverged"]
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
            What there is not if all runs diverged, for the error, such as ``"no loss to fit a surface to"``.

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
        >>> import scalefit as sf
        >>> int(sf.load_dataset("tiny-lm").require_losses("no loss to fit").sum())
        872
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

        Returns
        -------
        numpy.ndarray
            Missing values are left out.

        Raises
        ------
        SweepError
            If the column is missing, or its values have no order.

        Examples
        --------
        >>> import scalefit as sf
        >>> sf.load_dataset("simulated").levels("N").tolist()
        [10000000.0, 50000000.0, 200000000.0, 1000000000.0]
        """
        return self._groups.distinct(*self._names(column))

    def labels(self, columns: str | Sequence[str]) -> pd.DataFrame:
        """Return the level of every run in the given columns, row by row, for grouping.

        Seeds, texts and columns of whole numbers outside the vocabulary (an epoch, a width) are taken as they are.

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

        Examples
        --------
        >>> import scalefit as sf
        >>> sf.load_dataset("simulated").labels(["N", "D"]).iloc[-1].tolist()
        [1000000000.0, 64000000000.0]
        """
        names = self._names(columns)
        return pd.DataFrame({name: self._groups.levels(name).copy() for name in names}, index=range(len(self)))

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
        >>> import scalefit as sf
        >>> keys, group = sf.load_dataset("simulated").group(["N", "D"])
        >>> keys.iloc[group[-1]].to_dict()
        {'params': 1000000000.0, 'tokens': 64000000000.0}
        """
        keys, group = self._groups.number(self._names(columns))
        return keys.copy(), group

    def _names(self, columns: str | Sequence[str]) -> tuple[str, ...]:
        names = tuple(column_of(name) for name in ([columns] if isinstance(columns, str) else columns))
        self.require(*names)
        return names

    @cached_property
    def _groups(self) -> Groups:
        return Groups(self._table, self.rtol)

    @property
    def cells(self) -> pd.DataFrame:
        """One row per (params, tokens): n_runs, n_lr, n_batch, the best loss, n_diverged."""
        return self._cells.copy()

    @cached_property
    def _cells(self) -> pd.DataFrame:
        keys, cell = self.group([name for name in ("params", "tokens") if name in self.columns])
        columns = {"n_runs": np.bincount(cell)}
        for name in (name for name in ("lr", "batch") if name in self.columns):
            columns[f"n_{name}"] = count_levels(cell, self._groups.levels(name))
        lowest = lowest_of(cell, self._table["loss"].to_numpy(), len(keys))
        diverged = np.bincount(cell, self._table["diverged"].to_numpy()).astype(np.int64)
        return keys.assign(**columns, loss=lowest, n_diverged=diverged)

    def observations(self, target: str) -> Observations:
        """Return the rows that a law is fitted to: the runs that did not diverge.

        Parameters
        ----------
        target : str
            The column or symbol that the law predicts.

        Returns
        -------
        Observations
            What `fit` takes: the table of these runs, notes and the unit of the data.

        Raises
        ------
        SweepError
            If the sweep has no such column, or all of its runs diverged.

        Examples
        --------
        >>> import scalefit as sf
        >>> len(sf.load_dataset("simulated").observations("loss").table)
        560
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

    def _display(self) -> Display:
        axes = [name for name in AXES if name in self.columns]
        by = [name for name in ("params", "tokens") if name in axes]
        diverged = int(self._table["diverged"].sum())
        facts = [("runs", f"{len(self)}, {diverged} diverged" if diverged else f"{len(self)}")]
        if by:
            facts.append(("cells", f"{len(self.group(by)[0])} of ({', '.join(by)})"))
        facts += [("loss", f"{format_span(self._table['loss'])} {self.units['loss']}"), ("source", self.source)]
        if self.params_convention:
            facts.append(("params", self.params_convention.replace("_", "-")))
        rows = []
        for name, levels in ((name, self.levels(name)) for name in axes):
            ends = format_number(levels[0]), format_number(levels[-1])
            rows.append((name, self.units[name], str(len(levels)), *ends))
        table = pd.DataFrame(rows, columns=["axis", "unit", "levels", "from", "to"])
        return Display("Sweep", tuple(facts), table, self.notes)
