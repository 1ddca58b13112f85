"""`TradeoffPoints`: what each batch size needed to reach each target, from a table of steps or examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from scalefit._levels import group_levels
from scalefit._values import Note
from scalefit.display import Face, Shown
from scalefit.errors import SweepError
from scalefit.vocabulary import QUANTITIES, check_data_unit, column_of, format_number

Array = np.ndarray

_SHOWN = 12

_AGREE = 0.02
"""Relative scatter of examples / (batch x steps) up to which both columns tell the same story."""

_MEASURES = ("examples", "epochs", "tokens")
"""Columns that hold the data used up to the target, the first there counts; `steps` serves without them."""

_OWN = {"batch", "steps", "target", "log_stderr", "n", "status", "reach", "lr_status", *_MEASURES}
_UNTOLD = {"seed", "run", "lr", "loss", "replicate"}
"""Columns that tell runs apart, not studies."""


@dataclass(frozen=True, eq=False, repr=False)
class TradeoffPoints(Shown):
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
        """The columns that tell fits apart: those of `by`, and `target` where there is one."""
        return [*self.by, *(["target"] if "target" in self._table else [])]

    def __len__(self) -> int:
        """Return the number of rows, bounds included."""
        return len(self._table)

    def _face(self) -> Face:
        counts = self._table["status"].value_counts()
        facts = [
            ("points", f"{counts.get('point', 0)}, bounds {counts.get('bound', 0)}"),
            ("batch", f"in {self.data_unit}"),
            ("examples", f"in {self.examples_unit}"),
            ("source", self.source),
        ]
        names = [*self.keys, "batch", "steps", "examples", "log_stderr", "n", "status"]
        shown = self._table.loc[: _SHOWN - 1, names]
        text = pd.DataFrame({name: [cell_text(value) for value in shown[name]] for name in names})
        more = len(self) - _SHOWN
        notes = (*self.notes, Note("shown", f"{more} more points in .table")) if more > 0 else self.notes
        return Face("Trade-off points", tuple(facts), text, notes)


def cell_text(value: object) -> str:
    """Write one value of a shown table."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return format_number(float(value)) if isinstance(value, int | float | np.number) else str(value)


def read_points(
    table: pd.DataFrame,
    by: str | Sequence[str] | None = None,
    *,
    data_unit: str = "tokens",
    examples_unit: str | None = None,
    unit_size: float | None = None,
) -> TradeoffPoints:
    """Bring a table of steps or examples to a target, replicates as rows, into points; see `fit_tradeoff`."""
    table = table.rename(columns={name: column_of(str(name)) for name in table.columns}).reset_index(drop=True)
    check_data_unit(data_unit)
    _check_columns(table)
    if not len(table):
        raise SweepError("the table of steps or examples to a target has no rows")
    names, told = _studies(table, by)
    keys = [*names, *(["target"] if "target" in table else [])]
    measure = next((name for name in (*_MEASURES, data_unit) if name in table), None)
    unit = examples_unit or (measure if measure in ("epochs", "tokens", data_unit) else data_unit)
    batch = group_levels(_positive(table, "batch"))
    own = _positive(table, "batch")
    steps = _positive(table, "steps") if "steps" in table else None
    size, size_notes = _unit_size(table, measure, own, steps, unit, data_unit, unit_size)
    examples = _positive(table, measure) if measure else own * steps / (size or 1.0)
    if size is not None and steps is None:
        steps = examples * size / own
    rows = pd.DataFrame({name: _levels(table[name]) for name in keys}, index=table.index)
    rows = rows.assign(batch=batch, steps=np.nan if steps is None else steps, examples=examples)
    rows["reached"] = _reached(table)
    rows["given"] = table["log_stderr"].to_numpy(dtype=float) if "log_stderr" in table else np.nan
    rows["count"] = table["n"].to_numpy(dtype=float) if "n" in table else 1.0
    notes = _rate_notes(table, rows, keys)
    points, more = _average(rows, keys)
    return TradeoffPoints(points, tuple(names), data_unit, unit, size, (*told, *size_notes, *notes, *more))


def _check_columns(table: pd.DataFrame) -> None:
    if not table.columns.is_unique:
        raise SweepError(f"the column {table.columns[table.columns.duplicated()][0]!r} occurs twice")
    measures = [name for name in (*_MEASURES, "steps") if name in table]
    if "batch" not in table or not (measures or len(table.columns) > 1):
        raise SweepError(
            "a trade-off needs batch (data per step) and steps or examples (data used up to the target); found "
            f"{', '.join(map(str, table))}. Rename the columns: table.rename(columns={{'<its name>': 'batch'}})"
        )


def _studies(table: pd.DataFrame, by: str | Sequence[str] | None) -> tuple[list[str], list[Note]]:
    """Return the columns that tell studies apart, and notes on those guessed and those mixed."""
    if by is not None:
        if not isinstance(by, str | Sequence):
            raise SweepError(f"by should name columns of the table, found {by!r}; estimators are given as method=")
        names = [column_of(name) for name in ([by] if isinstance(by, str) else by)]
        missing = [name for name in names if name not in table]
        if missing or set(names) & _OWN:
            raise SweepError(f"by should name columns of the table other than batch and its measures, found {by!r}")
        return names, []
    known = {q.column for q in QUANTITIES} - {"params"}
    others = [
        str(name) for name in table if name not in _OWN | _UNTOLD and name not in known - {"optimizer", "schedule"}
    ]
    names = ["params"] if "params" in others else []
    texts = [name for name in others if not pd.api.types.is_numeric_dtype(table[name]) and table[name].notna().all()]
    guessed = _guess(table, names, texts)
    notes = []
    if guessed:
        text = f"studies are told apart by {', '.join([*names, *guessed])}; by= says it outright"
        notes.append(Note("studies", text))
    left = [name for name in others if _varies(table, name, [*names, *guessed])]
    if "target" not in table and "loss" in table and table["loss"].nunique() > 1:
        text = "loss varies and is not used; if it is the loss to reach, call the column target"
        notes.append(Note("mixed", text, caution=True))
    if left:
        varies = "varies within the studies and is" if len(left) == 1 else "vary within the studies and are"
        text = f"{', '.join(left)} {varies} not used; by= names what tells studies apart"
        notes.append(Note("mixed", text, caution=True))
    return [*names, *guessed], notes


def _guess(table: pd.DataFrame, names: list[str], texts: list[str]) -> list[str]:
    """Return the texts that span batch sizes; a second one only if it tells runs of one batch size apart."""
    guessed: list[str] = []
    for name in texts:
        spans = table.groupby(name)["batch"].nunique()
        apart = not guessed or _varies(table, name, [*names, *guessed, "batch"])
        if len(spans) > 1 and (spans > 1).mean() > 0.5 and apart:
            guessed.append(name)
    return guessed


def _varies(table: pd.DataFrame, name: str, within: list[str]) -> bool:
    """Return whether a column has several values among rows that agree in others."""
    if name in within:
        return False
    return bool(table.groupby(within or (lambda _: 0), dropna=False)[name].nunique(dropna=False).max() > 1)


def _positive(table: pd.DataFrame, name: str) -> Array:
    values = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    bad = ~(np.isfinite(values) & (values > 0))
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise SweepError(
            f"{name}: expected positive numbers, found {int(bad.sum())} row(s) that are not, first row {first + 1}: "
            f"{_shown(table[name].iloc[first])}; a run that never reached the target is a bound: give what it used, "
            "and 'bound' in a column status"
        )
    return values


def _shown(value: object) -> str:
    return repr(value.item() if isinstance(value, np.generic) else value)


def _levels(values: pd.Series) -> Array:
    if values.isna().any():
        first = int(np.flatnonzero(values.isna())[0])
        raise SweepError(f"{values.name}: expected a value in every row, found none in row {first + 1}")
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return values.to_numpy(dtype=object)
    numbers = values.to_numpy(dtype=float)
    return numbers if values.name == "target" else group_levels(numbers)


def _reached(table: pd.DataFrame) -> Array:
    if "status" not in table:
        return np.ones(len(table), dtype=bool)
    status = table["status"].astype(str)
    strange = ~status.isin(["point", "reached", "bound"])
    if strange.any():
        found = status[strange].iloc[0]
        raise SweepError(f"status should be 'point', 'reached' or 'bound', found {found!r}")
    return (status != "bound").to_numpy()


def _unit_size(
    table: pd.DataFrame,
    measure: str | None,
    batch: Array,
    steps: Array | None,
    unit: str,
    data_unit: str,
    given: float | None,
) -> tuple[float | None, list[Note]]:
    """Return how much of the batch's unit one unit of examples holds, as given or as steps prove it."""
    if given is not None and not 0 < given < np.inf:
        raise SweepError(f"unit_size should be the positive number of {data_unit} in one of {unit}, found {given!r}")
    if measure is None and steps is None:
        raise SweepError(
            f"a trade-off needs steps, examples or {data_unit} up to the target; found {', '.join(map(str, table))}"
        )
    plain = 1.0 if unit == data_unit else None
    size = given if given is not None else plain
    if measure is None or steps is None:
        return _plausible(table, measure, batch, size, data_unit)
    ratio = np.log(batch * steps / _positive(table, measure))
    middle = float(np.median(ratio))
    if np.abs(ratio - middle).max() > _AGREE or (size is not None and abs(middle - np.log(size)) > _AGREE):
        first = int(np.argmax(np.abs(ratio - (middle if size is None else np.log(size)))))
        raise SweepError(
            f"batch x steps and {measure} contradict each other, worst in row {first + 1}: "
            f"{batch[first] * steps[first]:.6g} {data_unit} against {_positive(table, measure)[first]:.6g} {unit}; "
            "leave one of the two columns out, or state unit_size="
        )
    if size is None:
        size = float(np.exp(middle))
        return size, [Note("unit_size", f"one of {unit} holds {format_number(size)} {data_unit}, as the steps prove")]
    return size, []


def _plausible(
    table: pd.DataFrame, measure: str | None, batch: Array, size: float | None, data_unit: str
) -> tuple[float | None, list[Note]]:
    """Doubt a unit that would make a run shorter than one step."""
    if measure is None:
        return 1.0 if size is None else size, []
    if size is None:
        text = f"{measure} are not {data_unit}: steps are unknown unless unit_size= says how many {data_unit} one holds"
        return None, [Note("unit_size", text, caution=True)]
    if np.median(_positive(table, measure) * size / batch) >= 1:
        return size, []
    text = (
        f"{measure} / batch is less than one step: they are not counted in the same unit, and steps are unknown. "
        f"Say so: examples_unit='epochs', unit_size=<{data_unit} in one epoch>"
    )
    return None, [Note("unit_size", text, caution=True)]


def _rate_notes(table: pd.DataFrame, rows: pd.DataFrame, keys: list[str]) -> list[Note]:
    """Doubt points that average learning rates: the mean of tuned and untuned runs is nobody's best."""
    if "lr" not in table:
        return []
    groups = table["lr"].groupby([rows[name] for name in [*keys, "batch"]])
    count = int((groups.nunique() > 1).sum())
    if not count:
        return []
    text = (
        f"{count} of {groups.ngroups} batch sizes average runs at different lr, as if they repeated each other; keep "
        "the best rate of each, or give curves or final losses to tradeoff_points, which finds it"
    )
    return [Note("lr_mixed", text, caution=True)]


def _average(rows: pd.DataFrame, keys: list[str]) -> tuple[pd.DataFrame, list[Note]]:
    """Average replicates in logs; the noise of a run is pooled over the batch sizes of a study."""
    if rows["steps"].isna().any():
        rows["steps"] = np.nan
    mixed = rows.groupby([*keys, "batch"])["reached"].transform("any") & ~rows["reached"]
    notes = []
    if mixed.any():
        text = (
            f"{int(mixed.sum())} replicates did not reach the target while others at the same batch size did; they are "
            "left out, so those points are too low"
        )
        notes.append(Note("unreached", text, caution=True))
    rows = rows[~mixed].assign(log_examples=np.log(rows["examples"]), log_steps=np.log(rows["steps"]))
    groups = rows.groupby([*keys, "batch"], sort=True)
    points = groups.agg(
        steps=("log_steps", "mean"),
        examples=("log_examples", "mean"),
        given=("given", "mean"),
        variance=("log_examples", "var"),
        rows=("log_examples", "size"),
        n=("count", "sum"),
        reached=("reached", "any"),
    ).reset_index()
    bound = groups["log_examples"].max().to_numpy()
    points["examples"] = np.exp(np.where(points["reached"], points["examples"], bound))
    points["steps"] = np.exp(points["steps"])
    points["log_stderr"] = _noise(points, keys)
    points["status"] = np.where(points["reached"], "point", "bound")
    points["n"] = points["n"].astype(int)
    return points[[*keys, "batch", "steps", "examples", "log_stderr", "n", "status"]], notes


def _noise(points: pd.DataFrame, keys: list[str]) -> Array:
    spare = (points["rows"] - 1).where(points["reached"], 0)
    square = (points["variance"].fillna(0.0) * (points["rows"] - 1)).where(points["reached"], 0.0)
    group = [points[name] for name in keys] or [pd.Series(0, index=points.index)]
    own = spare.groupby(group).transform("sum")
    pooled = square.groupby(group).transform("sum") / own.where(own > 0)
    return np.where(own > 0, np.sqrt(pooled / points["rows"]), points["given"])
