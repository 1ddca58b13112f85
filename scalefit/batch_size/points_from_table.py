"""Points of a trade-off from a table of steps or examples to a target, replicates as rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from scalefit._values import Note
from scalefit.batch_size.critical_batch import positive
from scalefit.errors import SweepError
from scalefit.schema import group_levels
from scalefit.vocabulary import QUANTITIES, check_data_unit, column_of, format_number

Array = np.ndarray

_AGREE = 0.02  # relative scatter of examples / (batch x steps) up to which the two columns agree
_MEASURES = ("examples", "epochs", "tokens")  # columns of the data used: the first that exists is taken, else `steps`
_OWN = {"batch", "steps", "target", "log_stderr", "n", "status", "reach", "lr_status", *_MEASURES}
_OF_RUNS = {"seed", "run", "lr", "loss", "replicate"}  # columns that separate runs, never studies


def read_table(
    table: pd.DataFrame, by: str | Sequence[str] | None, data_unit: str, unit: str | None, size: float | None
) -> tuple[pd.DataFrame, list[str], str, float | None, list[Note]]:
    """Return points, the columns that separate studies, the unit of examples, its size and notes."""
    table = table.rename(columns=lambda name: column_of(str(name))).reset_index(drop=True)
    check_data_unit(data_unit)
    _check_columns(table)
    names, notes = _studies(table, by)
    keys = [*names, *(["target"] if "target" in table else [])]
    measure = next((name for name in (*_MEASURES, data_unit) if name in table), None)
    unit = unit or (measure if measure in ("epochs", "tokens", data_unit) else data_unit)
    size = 1.0 if size is None and unit == data_unit else size
    if size is not None:
        positive("unit_size", size, SweepError, f"the positive number of {data_unit} in one of {unit}")
    batch = _positive(table, "batch")
    steps = _positive(table, "steps") if "steps" in table else None
    used = _positive(table, measure) if measure else None
    if steps is None and used is None:
        found = ", ".join(map(str, table))
        raise SweepError(f"a trade-off needs steps, examples or {data_unit} up to the target; found {found}")
    size, size_notes = _unit_size(batch, steps, used, size, measure or "", unit, data_unit)
    if used is None:
        used = batch * steps / (size or 1.0)
    elif steps is None:
        steps = used * size / batch if size else np.full(len(table), np.nan)
    rows = pd.DataFrame({name: _levels(table[name]) for name in keys}, index=table.index)
    rows = rows.assign(batch=group_levels(batch), steps=steps, examples=used, reached=_reached(table))
    rows["given"] = table["log_stderr"].astype(float) if "log_stderr" in table else np.nan
    rows["count"] = table["n"].astype(float) if "n" in table else 1.0
    rate_notes = _rate_notes(table, rows, keys)
    points, average_notes = _average(rows, keys)
    return points, names, unit, size, [*notes, *size_notes, *rate_notes, *average_notes]


def study_columns(by: str | Sequence[str] | None, columns: Iterable[str], own: set[str]) -> list[str]:
    """Return the columns that separate studies: those asked for (none that is in `own`), else params."""
    if by is None:
        return [name for name in columns if name == "params"]
    if not isinstance(by, str | Sequence):
        raise SweepError(f"by should name columns of the table, found {by!r}; estimators are given as method=")
    names = [column_of(name) for name in ([by] if isinstance(by, str) else by)]
    if set(names) - set(columns) or set(names) & own:
        there = ", ".join(map(str, columns))
        raise SweepError(f"by should name columns that tell studies apart, found {by!r}; there are {there}")
    return names


def _check_columns(table: pd.DataFrame) -> None:
    """Raise unless a table has rows, and columns that can hold a trade-off."""
    if not table.columns.is_unique:
        raise SweepError(f"the column {table.columns[table.columns.duplicated()][0]!r} occurs twice")
    if "batch" not in table or len(table.columns) == 1:
        needs = "a trade-off needs batch (data per step) and steps or examples (data used up to the target)"
        rename = "Rename the columns: table.rename(columns={'<its name>': 'batch'})"
        raise SweepError(f"{needs}; found {', '.join(map(str, table))}. {rename}")
    if not len(table):
        raise SweepError("the table of steps or examples to a target has no rows")


def _studies(table: pd.DataFrame, by: str | Sequence[str] | None) -> tuple[list[str], list[Note]]:
    """Return the columns that separate studies, and notes on guesses and on columns that were not used."""
    if by is not None:
        return study_columns(by, table.columns, _OWN), []
    hidden = _OWN | _OF_RUNS | {q.column for q in QUANTITIES} - {"params", "optimizer", "schedule"}
    others = [str(name) for name in table if name not in hidden]
    names, notes = [name for name in others if name == "params"], []
    for name in others:
        # A column of text whose values span batch sizes separates studies; a second such column only if it separates
        # runs of one batch size.
        if name in names or pd.api.types.is_numeric_dtype(table[name]) or table[name].isna().any():
            continue
        spans = table.groupby(name)["batch"].nunique()
        guessed = set(names) - {"params"}
        if len(spans) > 1 and (spans > 1).mean() > 0.5 and (not guessed or _varies(table, name, [*names, "batch"])):
            names.append(name)
    if set(names) - {"params"}:
        notes.append(Note("studies", f"studies are told apart by {', '.join(names)}; by= says it outright"))
    if "target" not in table and "loss" in table and table["loss"].nunique() > 1:
        text = "loss varies and is not used; if it is the loss to reach, call the column target"
        notes.append(Note("mixed", text, caution=True))
    if left := [name for name in others if _varies(table, name, names)]:
        varies = "varies within the studies and is" if len(left) == 1 else "vary within the studies and are"
        text = f"{', '.join(left)} {varies} not used; by= names what tells studies apart"
        notes.append(Note("mixed", text, caution=True))
    return names, notes


def _varies(table: pd.DataFrame, name: str, within: list[str]) -> bool:
    """Return whether a column has several values among rows that agree in others."""
    return bool(table.groupby(within or (lambda _: 0), dropna=False)[name].nunique(dropna=False).max() > 1)


def _positive(table: pd.DataFrame, name: str) -> Array:
    """Return a column after checking that it holds positive numbers, saying which row does not."""
    values = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if len(bad):
        found = table[name].iloc[bad[0]]
        found = found.item() if isinstance(found, np.generic) else found
        text = f"{name}: expected positive numbers, found {len(bad)} row(s) that are not, first row {bad[0] + 1}: "
        bound = "a run that never reached the target is a bound: give what it used, and 'bound' in a column status"
        raise SweepError(f"{text}{found!r}; {bound}")
    return values


def _levels(values: pd.Series) -> Array:
    """Return the levels of a column that separates fits."""
    if values.isna().any():
        first = int(np.flatnonzero(values.isna())[0])
        raise SweepError(f"{values.name}: expected a value in every row, found none in row {first + 1}")
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return values.to_numpy(dtype=object)
    numbers = values.to_numpy(dtype=float)
    return numbers if values.name == "target" else group_levels(numbers)  # targets may differ by less than a level


def _reached(table: pd.DataFrame) -> Array:
    """Return which rows reached their target."""
    status = table["status"].astype(str) if "status" in table else pd.Series("point", table.index)
    if strange := set(status) - {"point", "reached", "bound"}:
        raise SweepError(f"status should be 'point', 'reached' or 'bound', found {min(strange)!r}")
    return (status != "bound").to_numpy()


def _unit_size(
    batch: Array, steps: Array | None, used: Array | None, size: float | None, measure: str, unit: str, data_unit: str
) -> tuple[float | None, list[Note]]:
    """Return how much of the batch's unit one unit of examples holds, as given or as steps prove it."""
    if used is None:
        return size or 1.0, []
    if steps is None:
        if size is not None and np.median(used * size / batch) >= 1:
            return size, []
        text = f"{measure} are not {data_unit}: steps are unknown unless unit_size= says how many {data_unit} one holds"
        if size is not None:
            text = f"{measure} / batch is less than one step: they are not counted in the same unit, and steps are "
            text += f"unknown. Say so: examples_unit='epochs', unit_size=<{data_unit} in one epoch>"
        return None, [Note("unit_size", text, caution=True)]
    ratio = np.log(batch * steps / used)
    middle = float(np.median(ratio))
    expected = middle if size is None else float(np.log(size))
    if max(np.abs(ratio - middle).max(), abs(middle - expected)) > _AGREE:
        first = int(np.argmax(np.abs(ratio - expected)))
        values = f"{batch[first] * steps[first]:.6g} {data_unit} against {used[first]:.6g} {unit}"
        text = f"batch x steps and {measure} contradict each other, worst in row {first + 1}: {values}"
        raise SweepError(f"{text}; leave one of the two columns out, or state unit_size=")
    if size is not None:
        return size, []
    size = float(np.exp(middle))
    return size, [Note("unit_size", f"one of {unit} holds {format_number(size)} {data_unit}, as the steps prove")]


def _rate_notes(table: pd.DataFrame, rows: pd.DataFrame, keys: list[str]) -> list[Note]:
    """Note points that average several learning rates, since their mean is above the result of the best rate."""
    if "lr" not in table:
        return []
    groups = table["lr"].groupby([rows[name] for name in [*keys, "batch"]])
    count = int((groups.nunique() > 1).sum())
    text = f"{count} of {groups.ngroups} batch sizes average runs at different lr, as if they repeated each other; "
    text += "keep the best rate of each, or give curves or final losses to tradeoff_points, which finds it"
    return [Note("lr_mixed", text, caution=True)] if count else []


def _average(rows: pd.DataFrame, keys: list[str]) -> tuple[pd.DataFrame, list[Note]]:
    """Average replicates in logs; a batch size that no run reached the target at is a bound."""
    mixed = rows.groupby([*keys, "batch"])["reached"].transform("any") & ~rows["reached"]
    notes = []
    if mixed.any():
        count = f"{int(mixed.sum())} replicates did not reach the target while others at the same batch size did"
        text = f"{count}; they are left out, so those points are too low"
        notes.append(Note("unreached", text, caution=True))
    rows = rows[~mixed].assign(log_examples=np.log(rows["examples"]), log_steps=np.log(rows["steps"]))
    means = {name: (name, "mean") for name in ("log_steps", "log_examples", "given")}
    spread = {how: ("log_examples", how) for how in ("max", "var", "size")}
    groups = rows.groupby([*keys, "batch"], sort=True)
    points = groups.agg(**means, **spread, n=("count", "sum"), reached=("reached", "any")).reset_index()
    points["examples"] = np.exp(points["log_examples"].where(points["reached"], points["max"]))
    points["steps"] = np.exp(points["log_steps"])
    points["log_stderr"] = _noise(points, keys)
    points["status"] = np.where(points["reached"], "point", "bound")
    points["n"] = points["n"].astype(int)
    return points[[*keys, "batch", "steps", "examples", "log_stderr", "n", "status"]], notes


def _noise(points: pd.DataFrame, keys: list[str]) -> Array:
    """Return the standard error of ln examples, the noise of a run pooled over the batch sizes of a study."""
    spare = (points["size"] - 1).where(points["reached"], 0)
    points = points.assign(spare=spare, square=points["var"].fillna(0.0) * spare)
    pooled = points.groupby(keys or (lambda _: 0))[["spare", "square"]].transform("sum")
    noise = (pooled["square"] / pooled["spare"] / points["size"]) ** 0.5
    return noise.where(pooled["spare"] > 0, points["given"]).to_numpy()
