"""`read_curves`: long tables of losses along training, from anywhere, recognised, checked and converted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note, merge
from scalefit.curves.curves import Curves
from scalefit.errors import SweepError
from scalefit.loading import curve_rows, numbers
from scalefit.loading.columns import Names, Overrides, new_names, recognise, shorten
from scalefit.loading.frames import RawTable, Rows, gather, gather_by_column
from scalefit.loading.parsing import ParquetTable
from scalefit.loading.read_sweep import CONVENTIONS, one_of
from scalefit.loading.units import units
from scalefit.schema import refuse
from scalefit.vocabulary import check_data_unit

Array = np.ndarray
RunColumns = str | Sequence[str] | None

_AXES = ("steps", "tokens")
_COUNTERS = ("step", "steps", "global_step", "trainer_global_step", "iteration", "iter")
_LOGGED = "_step"  # counts the calls of a tracker; taken for steps if no other column counts them
_CURVE = ("run", "steps", "tokens", "loss")
_OUTCOMES = ("loss", "steps", "tokens", "weight_norm")
"""Columns that follow from the curves; a table of runs keeps its own values of them under other names."""


def read_curves(
    source: Any,
    *,
    columns: Mapping[str, str | None] | None = None,
    run: str | Sequence[str] | None = None,
    runs: Any = None,
    extras: Sequence[str] | None = None,
    batch_unit: str | None = None,
    seq_len: float | None = None,
    nonfinite: str = "raise",
    restarts: str = "raise",
    params_convention: str | None = None,
    data_unit: str = "tokens",
) -> Curves:
    """Read loss curves: one row a point, from one file or thousands.

    Parameters
    ----------
    source : path, str, DataFrame, Arrow table, or list
        What `scalefit.read_sweep` takes: a file or a glob of files (CSV, TSV, JSON lines, Parquet; gzip of these), a
        DataFrame, an Arrow table, a list of dictionaries, or a list of files and tables. Each row has a loss, the step
        or the tokens so far, and whatever else is known of the run or was logged along it.
    columns : mapping of str to str or None, optional
        Which column holds which quantity, where the usual names do not say it; None sets a quantity aside.
    run : str or sequence of str, optional
        The column that identifies runs, or several columns that do so together. Without it: a column with a usual name
        (`run`, `run_id`, `run_name`, ...); else each of several files is one run; else the columns that change exactly
        where the steps go back, if there are such.
    runs : path, DataFrame or list of dictionaries, optional
        A table of settings, one row a run, matched by the name of the run. Its losses, steps and tokens are kept as
        `input_loss`, `input_steps` and `input_tokens`.
    extras : sequence of str, optional
        Which further columns to read; all by default, none if empty.
    batch_unit : {"tokens", "sequences"} or the data unit, optional
        The unit of the batch column. Without it, steps, batch and tokens at the end of every run must prove the unit.
    seq_len : float, optional
        Tokens (or whatever the data unit is) per sequence, for a batch in sequences.
    nonfinite : {"raise", "diverged", "drop"}
        What to do with losses that are NaN or infinite: refuse the table, end the run there and mark it as diverged, or
        leave out these points alone (a loss that is only logged now and then).
    restarts : {"raise", "later", "sort"}
        What to do where the steps of a run go back: refuse the table, take what was logged later (a restart from a
        checkpoint), or sort (rows that are in no order). A step that a run has twice is refused unless "later".
    params_convention : {"non_embedding", "total"}, optional
        What `params` counts; recorded, not converted.
    data_unit : str
        What the data are counted in, as a plural noun: "tokens", "images", "samples", "epochs", ...

    Returns
    -------
    Curves
        With notes on all that was recognised, converted, marked or left out.

    Raises
    ------
    SweepError
        If anything would have to be guessed or repaired: names the column, how many values, the run and the first row,
        what to try.

    Notes
    -----
    Steps and tokens are converted into each other when the batch is known. A learning rate that changes along the runs
    is a schedule: the run's `lr` is its peak, and the schedule stays in the curves' table under its own name. A
    batch or model size that changes along a run is refused. Tokens or steps that do not change along any run are
    totals, and kept as `input_tokens` or `input_steps`.

    Ten million rows of Parquet with eight columns take about 2 s of processor time and 1 GB
    (``benchmarks/read_curves.py``).

    See Also
    --------
    read_sweep : Reads one row a run.
    load_curves : Loads the curves of a bundled or public data set.

    Examples
    --------
    >>> import scalefit as sf
    >>> rows = [{"run": run, "step": s, "lr": lr, "loss": 3 + lr * 100 / s} for run, lr in [("a", 0.1), ("b", 0.2)]
    ...         for s in (10, 20, 40)]
    >>> curves = sf.read_curves(rows)
    >>> curves.runs[["run", "lr"]].to_dict("records")
    [{'run': 'a', 'lr': 0.1}, {'run': 'b', 'lr': 0.2}]
    >>> curves.final().table[["lr", "steps", "loss"]].to_dict("records")
    [{'lr': 0.1, 'steps': 40.0, 'loss': 3.25}, {'lr': 0.2, 'steps': 40.0, 'loss': 3.5}]
    """
    check_data_unit(data_unit)
    one_of("batch_unit", batch_unit, units(data_unit))
    one_of("nonfinite", nonfinite, numbers.NONFINITE)
    one_of("restarts", restarts, curve_rows.RESTARTS)
    one_of("params_convention", params_convention, CONVENTIONS)
    stack = _Stack.of(gather_by_column(source))
    found, notes = _recognise(stack, columns, run, data_unit)
    x: dict[str, Array] = {name: _positions(stack, found[name], name) for name in _AXES if name in found}
    loss = numbers.to_numbers(stack.column(found["loss"]), "loss", stack.rows)
    unfit = np.isfinite(loss) & (loss <= 0)
    refuse("loss", "positive", loss, unfit, stack.rows.name, "a loss in nats is above zero")
    others = _others(stack.columns, found, run, extras)
    code, names, run_notes = _identify(stack, found, run, x, others)
    x, others, totals = _without_totals(code, x, others, found)
    arranged = curve_rows.arrange(code, names, x, loss, stack.rows, restarts)
    del code, loss
    found_settings, along, schedules = curve_rows.split(arranged, others, stack.column)
    settings, added = _settings(found_settings, runs, names)
    x, settings, unit_notes = curve_rows.settle_units(arranged, settings, batch_unit, seq_len, data_unit)
    keep, diverged, lost = curve_rows.settle_nonfinite(arranged, nonfinite)
    table = pd.DataFrame({**x, "loss": arranged.loss, **along}, copy=False)
    settings = settings.assign(run=arranged.names, diverged=diverged)
    layout = arranged.layout.select(keep)
    if diverged.any():
        starts = arranged.layout.starts
        at = table["tokens" if "tokens" in x else "steps"].to_numpy()[starts + np.where(diverged, layout.counts, 0)]
        settings["diverged_at"] = np.where(diverged, at, np.nan)
    table = table if keep.all() else table[keep].reset_index(drop=True)
    notes_on_all = merge(stack.notes, notes, run_notes, totals, schedules, added, unit_notes, lost)
    return Curves.of(table, settings, layout, notes_on_all, stack.rows.title, data_unit, params_convention)


@dataclass(frozen=True, eq=False)
class _Stack:
    """Several tables, one after the other; only the columns asked for are joined."""

    tables: Sequence[RawTable | ParquetTable]
    columns: list[str]
    rows: Rows
    notes: tuple[Note, ...]

    @classmethod
    def of(cls, tables: Sequence[RawTable | ParquetTable]) -> _Stack:
        shared = set.intersection(*(set(table.columns) for table in tables))
        every = dict.fromkeys(name for table in tables for name in table.columns)
        notes = [note for table in tables for note in table.notes]
        if partial_names := [name for name in every if name not in shared]:
            text = f"not every one of {len(tables)} sources has these columns, which are left out: "
            notes.append(Note("files", text + shorten(partial_names, 10, ", ..."), caution=True))
        rows = Rows.of([table.name for table in tables], [len(table) for table in tables])
        return cls(tables, [name for name in every if name in shared], rows, tuple(notes))

    def column(self, name: str) -> pd.Series:
        parts = [table.column(name) for table in self.tables]
        if len(parts) == 1:  # a copy, since the user may change the frame later
            return parts[0] if isinstance(self.tables[0], ParquetTable) else parts[0].copy()
        if any(isinstance(part.dtype, pd.CategoricalDtype) for part in parts):
            parts = [part.astype("category") for part in parts]
            return pd.Series(pd.api.types.union_categoricals(parts), name=name)
        return pd.concat(parts, ignore_index=True)


def _recognise(stack: _Stack, columns: Overrides, run: RunColumns, data_unit: str) -> tuple[dict[str, str], list[Note]]:
    """Find the columns of the curve and of the run's settings."""
    names = stack.columns
    try:
        wanted = _wanted(names, columns, run)
        found, notes = recognise(names, wanted, data_unit)
    except SweepError as error:
        raise SweepError(f"{stack.rows.title}: {error}") from None
    _, moved = new_names(names, found)
    lacking = [] if "loss" in found else ["loss"]
    lacking += [] if {"steps", "tokens"} & set(found) else ["steps or tokens"]
    if lacking:
        raise SweepError(
            f"{stack.rows.title} has no column for {' nor '.join(lacking)}; its columns are: {', '.join(names)}. Name "
            f"it: read_curves(..., columns={{{lacking[0].split()[0]!r}: '<its name>'}})"
        )
    return found, [*notes, *moved]


def _wanted(names: Sequence[str], columns: Any, run: Any) -> Any:
    """Add the column that counts steps along the run to what was asked for; names such as total_steps do not."""
    if not isinstance(columns or {}, Mapping):
        return columns  # a later step refuses it by name
    wanted = dict(columns or {})
    if run is not None:
        wanted["run"] = run if isinstance(run, str) and run in names else None
    taken = {*map(str, wanted), *wanted.values()}
    counters = [name for name in names if re.sub(r"[\s\-/]+", "_", name.lower()) in _COUNTERS]
    counters = counters or [name for name in names if name == _LOGGED]
    if {"steps", "S"} & taken or not (counters := [name for name in counters if name not in taken]):
        return wanted
    if len(counters) > 1:
        shown = " and ".join(map(repr, counters))
        raise SweepError(
            f"{len(counters)} columns could be steps along the run: {shown}. Choose one: "
            f"read_curves(..., columns={{'steps': {counters[0]!r}}})"
        )
    return {**wanted, "steps": counters[0]}


def _positions(stack: _Stack, stored: str, name: str) -> Array:
    values = numbers.to_numbers(stack.column(stored), name, stack.rows)
    unfit = ~((values >= 0) & np.isfinite(values))
    fix = "correct or remove these rows"
    refuse(f"{name} (column {stored!r})", "finite and not negative", values, unfit, stack.rows.name, fix)
    return values


def _identify(
    stack: _Stack, found: Names, run: RunColumns, x: Mapping[str, Array], others: Names
) -> curve_rows.Identity:
    asked = [found["run"]] if "run" in found else []
    if run is not None:
        asked = [run] if isinstance(run, str) else list(run)
        if not asked or not set(asked) <= set(stack.columns):
            raise SweepError(f"run={run!r} names no columns; there are: {', '.join(stack.columns)}")
    if asked:
        return curve_rows.by_columns(asked, stack.column, stack.rows)
    if len(stack.tables) > 1:
        return curve_rows.by_file(stack.rows)
    what, values = next(iter(x.items()))
    return curve_rows.by_proof(values, what, list(others.values()), stack.column, stack.rows.title)


def _settings(found: Mapping[str, pd.Series], listed: Any, names: list[str]) -> tuple[pd.DataFrame, list[Note]]:
    """Join the settings in the curves with those in the table of runs; the two must agree."""
    runs = pd.DataFrame(found, index=range(len(names)))
    if listed is None:
        return runs, []
    settings, notes = _read_settings(listed, names)
    both = [str(name) for name in settings if name in runs]
    differ = [name for name in both if not runs[name].equals(settings[name].astype(runs[name].dtype, errors="ignore"))]
    if differ:
        raise SweepError(f"the curves and runs= do not agree on {', '.join(differ)}; leave it out of one of them")
    return pd.concat([runs, settings.drop(columns=both)], axis=1), notes


def _without_totals(
    code: Array, x: dict[str, Array], others: dict[str, str], found: Names
) -> tuple[dict[str, Array], dict[str, str], list[Note]]:
    """Set aside steps or tokens with one value in every run, if the other of the two counts along the run."""
    if len(x) < 2:
        return x, others, []
    first = curve_rows.first_rows(code)
    fixed = [name for name, values in x.items() if np.array_equal(values[first][code], values)]
    if len(fixed) != 1:
        return x, others, []
    name = fixed[0]
    text = f"{found[name]!r} is the same at all points of a run: a total, kept as input_{name}"
    left = {key: values for key, values in x.items() if key != name}
    return left, {**others, f"input_{name}": found[name]}, [Note("totals", text)]


def _others(names: list[str], found: Names, run: RunColumns, extras: Sequence[str] | None) -> dict[str, str]:
    """Return the columns beside the curve, from their name in the result to their name in the input."""
    wanted = {new: old for new, old in zip(new_names(names, found)[0], names, strict=True) if new not in _CURVE}
    if extras is None:
        return wanted
    absent = [name for name in extras if name not in names]
    if absent or isinstance(extras, str):
        raise SweepError(f"extras={extras!r} should list columns; there are: {', '.join(names)}")
    asked = {*extras, *((run,) if isinstance(run, str) else run or ())}
    return {new: old for new, old in wanted.items() if old in asked or new in found}


def _read_settings(source: Any, names: list[str]) -> tuple[pd.DataFrame, list[Note]]:
    """Return the settings of the named runs, in their order, from a table with one row a run and their names."""
    raws = gather(source)
    if len(raws) != 1:
        raise SweepError(f"runs= should be one table with a row a run, found {len(raws)} tables")
    raw, columns = raws[0], raws[0].columns
    found, notes = recognise(columns, None)
    if "run" not in found:
        raise SweepError(f"runs= has no column that names the run; its columns are: {', '.join(columns)}")
    rows = Rows.of([raw.name], [len(raw)])
    table, _ = numbers.to_words(raw, found, rows)
    numbers.check_numbers(table.drop(columns=list(_OUTCOMES), errors="ignore"), rows, "raise")
    table = table.rename(columns={name: f"input_{name}" for name in _OUTCOMES})
    table["run"] = table["run"].astype(str)
    place = _match(table["run"], names, rows)
    left = len(table) - len(names)
    more = f"; {left} of its {len(table)} runs have no curve" if left else ""
    settings = table.drop(columns=["run", "diverged"], errors="ignore").iloc[place].reset_index(drop=True)
    return settings, [Note("runs", f"settings from {raw.name}, matched by run{more}"), *notes]


def _match(listed: pd.Series, names: list[str], rows: Rows) -> np.ndarray:
    """Return the row of every named run."""
    if listed.duplicated().any():
        row = int(np.flatnonzero(listed.duplicated())[0])
        raise SweepError(f"runs= names the run {listed.iloc[row]!r} twice, the second time in {rows.name(row)}")
    place = pd.Index(listed).get_indexer(pd.Index(names))
    if (place < 0).any():
        lacking = [name for name, at in zip(names, place, strict=True) if at < 0]
        raise SweepError(
            f"runs= lacks {len(lacking)} of {len(names)} runs, first {lacking[0]!r}; it names {listed.iloc[0]!r}"
        )
    return place
