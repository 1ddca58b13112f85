"""`read_sweep`: tables of runs from anywhere, recognised, checked and converted, into one `Sweep`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note, merge
from scalefit.errors import SweepError
from scalefit.loading import numbers
from scalefit.loading.columns import Overrides, notes_on_tracking, recognise, require_runs, shorten, take_apart
from scalefit.loading.frames import RawTable, Rows, gather
from scalefit.loading.units import settle_batch, units
from scalefit.sweep import Sweep
from scalefit.vocabulary import AXES, BY_COLUMN, check_data_unit

CONVENTIONS = (None, "non_embedding", "total")
DUPLICATES = ("raise", "keep", "drop")

_DECIMALS = 6
"""A loss with more decimals than these is taken for a measured one; fewer may coincide by chance."""


def read_sweep(
    source: Any,
    *,
    columns: Mapping[str, str | None] | None = None,
    batch_unit: str | None = None,
    seq_len: float | None = None,
    nonfinite: str = "raise",
    duplicates: str = "raise",
    rtol: float = 0.01,
    params_convention: str | None = None,
    data_unit: str = "tokens",
) -> Sweep:
    """Read a sweep: one row a run, from files or tables, in the words and units of the package.

    Parameters
    ----------
    source : path, str, DataFrame, Arrow table, or list
        A file or a glob of files (CSV, TSV, semicolon-separated text, JSON lines, Parquet; gzip of these), a
        DataFrame (named levels of its index are columns), whatever has ``__arrow_c_stream__`` (tables of pyarrow and
        polars, relations of DuckDB) or is a LazyFrame, a list of dictionaries (one a run, may be nested), or a list of
        files and tables, put under each other.
    columns : mapping of str to str or None, optional
        Which column holds which quantity, such as ``{"loss": "smooth loss"}``, where the usual names do not say
        it; None sets a quantity aside.
    batch_unit : {"tokens", "sequences"} or the data unit, optional
        The unit of the batch column. Without it, steps, batch and tokens must prove the unit.
    seq_len : float, optional
        Tokens (or whatever the data unit is) per sequence, for a batch in sequences.
    nonfinite : {"raise", "diverged", "drop"}
        What to do with runs whose loss is NaN or infinite: refuse the table, keep them marked, or drop them.
    duplicates : {"raise", "keep", "drop"}
        What to do with exact copies of a run. Runs with equal settings and another loss are never copies.
    rtol : float
        Values within this relative tolerance are one level, so that rounding never splits a cell.
    params_convention : {"non_embedding", "total"}, optional
        What `params` counts; recorded, not converted.
    data_unit : str
        What the data are counted in, as a plural noun: "tokens", "images", "samples", "epochs", ... The columns keep
        their words: `tokens` is the data trained on and `batch` the data per step, both in this unit. A column that
        bears its name is read as `tokens`.

    Returns
    -------
    Sweep
        With notes on all that was recognised, converted, marked or dropped, and cautions.

    Raises
    ------
    SweepError
        If anything would have to be guessed or repaired: names the column, how many values, the first row, what
        to try.

    Notes
    -----
    What is read is limited, so that no file can fill the memory: 512 MiB of text or of a packed Parquet file, 10,000
    columns, 50 million cells (a million runs with fifty columns) from text, 20 million values from JSON, and Parquet
    that unpacks to 1 GiB. Near these limits reading takes up to 4 GB. Larger tables are read as a list of files, or
    put together as a DataFrame, which is not limited.

    See Also
    --------
    read_curves : Reads losses along training.
    load_dataset : Loads a bundled or public sweep by its name.
    Sweep.from_frame : Takes a table that already is in these words and units.

    Examples
    --------
    >>> import scalefit as sf
    >>> same = {"bs": 64, "N": 1e8, "steps": 1000, "D": 65536e3}
    >>> runs = [{"lr": 1e-3, "val_loss": 3.5, **same}, {"lr": 2e-3, "val_loss": 3.4, **same}]
    >>> sweep = sf.read_sweep(runs)
    >>> sweep.table["batch"].tolist()
    [65536.0, 65536.0]
    >>> print(sweep.notes[1].text)
    batch was in sequences of 1024 tokens and is now in tokens: tokens / (steps * batch) is 1024
    """
    check_data_unit(data_unit)
    one_of("batch_unit", batch_unit, units(data_unit))
    one_of("nonfinite", nonfinite, numbers.NONFINITE)
    one_of("duplicates", duplicates, DUPLICATES)
    one_of("params_convention", params_convention, CONVENTIONS)
    raws = gather(source)
    unit = batch_unit, seq_len, data_unit
    settled, params_names = zip(*(_settle(raw, columns, unit, nonfinite) for raw in raws), strict=True)
    table, notes = _join(settled)
    rows = Rows.of([raw.name for raw in raws], [len(raw) for raw in raws])
    table, rows, dropped = numbers.settle_nonfinite(table, rows, nonfinite)
    shared = set.intersection(*(set(part.columns) for part in settled)) | {"diverged"}
    table, rows, copies = _settle_duplicates(table, rows, duplicates, shared)
    if len(raws) > 1:
        table = table.assign(source=np.array(rows.names, dtype=object)[rows.source])
    convention, inferred = _convention(params_names, params_convention)
    every = merge(notes, inferred, dropped, copies, numbers.notes_on_units(table, data_unit))
    return Sweep.from_frame(
        table, notes=every, source=rows.title, rtol=rtol, params_convention=convention, data_unit=data_unit
    )


def one_of(name: str, value: Any, allowed: Iterable[Any]) -> None:
    """Raise a `SweepError` unless an option has one of its values."""
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in allowed):
        raise SweepError(f"{name} should be one of {', '.join(map(repr, allowed))}; found {value!r}")


BatchUnit = tuple[str | None, float | None, str]
"""Unit of the batch, data per sequence, and unit of the data, as the user gave them."""


def _settle(raw: RawTable, columns: Overrides, unit: BatchUnit, nonfinite: str) -> tuple[RawTable, str | None]:
    """Return one source, checked and in the words and units of the package, and the name of its column of params."""
    try:
        found, notes = recognise(raw.columns, columns, unit[-1])
    except SweepError as error:
        raise SweepError(f"{raw.name}: {error}") from None
    require_runs(found, raw.columns, raw.name)
    rows = Rows.of([raw.name], [len(raw)])
    given = _without_verdict(raw, found["loss"], rows)
    table, moved = numbers.to_words(given, found, rows)
    numbers.check_numbers(table, rows, nonfinite)
    table, units = settle_batch(table, rows, *unit)
    tracking = notes_on_tracking(raw.frame, table[[name for name in AXES if name in table.columns]], raw.name)
    return RawTable(raw.name, table, (*raw.notes, *notes, *moved, *units, *tracking)), found.get("params")


def _without_verdict(raw: RawTable, loss: str, rows: Rows) -> RawTable:
    """Drop a column `diverged` that repeats what the losses say, such as the one in the table of a sweep."""
    if "diverged" not in raw.columns or not pd.api.types.is_bool_dtype(raw.frame["diverged"]):
        return raw
    lost = ~np.isfinite(numbers.to_numbers(raw.frame[loss], "loss", rows))
    same = np.array_equal(raw.frame["diverged"], lost)
    return replace(raw, frame=raw.frame.drop(columns="diverged")) if same else raw


def _join(parts: Sequence[RawTable]) -> tuple[pd.DataFrame, tuple[Note, ...]]:
    """Join the tables row by row; columns that place a run on an axis must be in all of them or in none."""
    if len(parts) == 1:
        return parts[0].frame, parts[0].notes
    for column in AXES:
        having = [part.name for part in parts if column in part.columns]
        without = [part.name for part in parts if column not in part.columns]
        if having and without:
            raise SweepError(
                f"{len(without)} of {len(parts)} sources have no column for {column}, first {without[0]}, while "
                f"{having[0]} has one; name it with columns={{{column!r}: '<its name>'}} or read these apart"
            )
    table = pd.concat([part.frame for part in parts], ignore_index=True)
    notes = [Note("files", f"{len(table)} runs from {len(parts)} sources; `source` names them")]
    shared = set.intersection(*(set(part.notes) for part in parts))
    for part in parts:
        for note in part.notes:
            known = note in shared or part.name in note.text
            notes.append(note if known else replace(note, text=f"{part.name}: {note.text}"))
    if partial := [name for name in table.columns if any(name not in part.columns for part in parts)]:
        shown = shorten(partial, 10, ", ...")
        notes.append(Note("files", f"not every source has these columns, which are empty for its runs: {shown}"))
    return table, merge(notes)


def _convention(names: Sequence[str | None], given: str | None) -> tuple[str | None, list[Note]]:
    """Return what `params` counts: as said, or as every source's column name says."""
    telling = [name is not None and "non_embedding" in take_apart(name).leaves[-1].lower() for name in names]
    if given is not None or not all(telling):
        return given, []
    return "non_embedding", [Note("params_convention", "params counts no embeddings, as its column's name says")]


def _settle_duplicates(
    table: pd.DataFrame, rows: Rows, duplicates: str, shared: Collection[str]
) -> tuple[pd.DataFrame, Rows, list[Note]]:
    """Refuse, keep or drop runs that are in the table twice.

    Two rows are one run when they agree in every column to the last bit. When the rows bear different names, or come
    from sources with different columns (then only the `shared` ones can be compared), the loss must also have more
    than six decimals: rounded losses of repeated runs coincide by chance, full ones do not. Diverged runs without a
    name are never copies, since a missing loss proves nothing.
    """
    first_of = _copies(table)
    if len(set(shared)) < len(table.columns):
        across = _copies(table[[name for name in table.columns if name in shared]])
        apart = (across >= 0) & (rows.source[across] != rows.source) & ~_rounded(table)
        first_of = np.where((first_of < 0) & apart, across, first_of)
    twice = first_of >= 0
    if not twice.any():
        return table, rows, []
    row = int(np.flatnonzero(twice)[0])
    pair = f"{rows.name(row)} copies {rows.name(int(first_of[row]))}"
    found = f"exact copies of another run, loss included: {int(twice.sum())} of {len(table)} runs (first: {pair})"
    if duplicates == "raise":
        raise SweepError(
            f"{found}. Copies make errors look smaller than they are: duplicates='drop' leaves them out; "
            "duplicates='keep' keeps them, if they really are separate runs"
        )
    if duplicates == "keep":
        return table, rows, [Note("duplicates", f"{found}; all were kept, as asked", caution=True)]
    note = Note("duplicates", f"{found}; the copies were dropped, as asked")
    return table[~twice].reset_index(drop=True), rows.keep(~twice), [note]


def _rounded(table: pd.DataFrame) -> np.ndarray:
    loss = table["loss"].to_numpy()
    with np.errstate(over="ignore"):
        return ~np.isfinite(loss) | (np.round(loss, _DECIMALS) == loss)


def _copies(table: pd.DataFrame) -> np.ndarray:
    """Return, for each row, the first row that is the same run, or -1."""
    numeric = [name for name in table.columns if name in BY_COLUMN and BY_COLUMN[name].numeric]
    alike = np.flatnonzero(table.duplicated(numeric, keep=False))  # few rows, so that few texts are compared
    first_of = np.full(len(table), -1)
    if not len(alike):
        return first_of
    few = table.iloc[alike].reset_index(drop=True)
    named = "run" in table.columns
    apart = _rounded(few) if named else ~np.isfinite(few["loss"].to_numpy())
    run = np.where(apart, few["run"].map(ascii) if named else alike.astype(str), "")
    few = few.drop(columns="run", errors="ignore")
    texts = [name for name in few.columns if not pd.api.types.is_numeric_dtype(few[name])]
    few = few.assign(**{str(name): few[name].map(ascii) for name in texts})  # lists cannot be compared, texts can
    keys = [*(few[name] for name in few.columns), run]
    earliest = pd.Series(alike).groupby(keys, sort=False, dropna=False).transform("min").to_numpy()
    first_of[alike] = np.where(earliest == alike, -1, earliest)
    return first_of
