"""Which laws compete for a target, as far as the data vary their inputs, and their fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from scalefit.errors import FitError, LawError, SweepError
from scalefit.fitting import Fit, FitStatus, fit
from scalefit.laws import BUILT_IN, get_law
from scalefit.laws.formula import Law
from scalefit.levels import group_levels
from scalefit.notes import Note
from scalefit.observations import Observations
from scalefit.optima import Optima
from scalefit.sweep import Sweep
from scalefit.vocabulary import column_of

_ALONE = (
    Law("eta = c * N**a", positive={"c"}, name="lr_params"),
    Law("eta = c * D**b", positive={"c"}, name="lr_tokens"),
    Law("B = c * N**a", positive={"c"}, name="batch_params"),
)
"""The straight laws of one input, for data that vary one."""

_FAMILIES: dict[str, tuple[Law, ...]] = {
    "lr": tuple(BUILT_IN[name] for name in ("lr_power", "lr_curved", "lr_quadratic", "lr_power_batch")) + _ALONE[:2],
    "batch": (BUILT_IN["batch_power_tokens"], BUILT_IN["batch_power"], _ALONE[2]),
    "loss": tuple(BUILT_IN[name] for name in ("loss_tokens", "loss_params", "kaplan", "chinchilla", "skaling")),
}
"""Candidates by target."""

_REFUSED = (FitStatus.NOT_CONVERGED, FitStatus.ILL_CONDITIONED)


def usual_laws(data: Any, target: str) -> tuple[Law, ...]:
    """Return the usual laws for a target, as far as the data vary their inputs."""
    laws = _varied_laws(_observed(data, target), target)
    if not laws:
        raise FitError("no law to choose from: the data vary none of params and tokens")
    return laws


def fit_each(laws: Sequence[Law | str], data: Any, **how: Any) -> tuple[list[Fit], list[Note]]:
    """Fit every law that can be; say why the others cannot.

    Parameters
    ----------
    laws : sequence of Law or str
    data
        As for `fit`.
    **how
        Arguments of `fit`.

    Raises
    ------
    FitError
        If none can be fitted.
    """
    if not laws:
        raise FitError("no law to choose from: the list is empty")
    fits: list[Fit] = []
    notes: list[Note] = []
    for law in map(get_law, laws):
        try:
            found = fit(law, data, **how)
        except (FitError, LawError) as error:
            notes.append(Note("not_fitted", f"{law.name or law.formula}: {error}", caution=True))
            continue
        if found.status in _REFUSED:
            name = law.name or law.formula
            notes.append(Note("not_fitted", f"{name}: {found.status}: {found.status.sentence}", caution=True))
        else:
            fits.append(found)
    if isinstance(data, Sweep):
        text = "every run counts, tuned or not; a law for the lowest loss of each cell: choose_law(sweep.cells, ...)"
        notes.append(Note("all_runs", text, caution=True))
    if not fits:
        raise FitError("none of the laws can be fitted: " + "; ".join(note.text for note in notes))
    return fits, notes


def target_of(data: Any, asked: str | None) -> str:
    """Return the column a law is wanted for."""
    if asked is not None:
        return column_of(asked)
    if isinstance(data, Sweep):
        return "loss"
    data = data.table if isinstance(data, Observations) else data
    if not isinstance(data, Optima | Mapping | pd.DataFrame):
        raise FitError(f"expected optima, a sweep or a table, found {type(data).__name__}")
    there = data.over if isinstance(data, Optima) else list(data)
    open_ = [name for name in _FAMILIES if name in {column_of(str(column)) for column in there}]
    if len(open_) != 1:
        told = f"the data hold {' and '.join(open_)}" if open_ else "the data hold none of lr, batch and loss"
        raise FitError(f"{told}: say which to choose a law for, target='lr' for example")
    return open_[0]


def _observed(data: Any, target: str) -> pd.DataFrame:
    if target not in _FAMILIES:
        raise FitError(f"there are no usual laws for {target!r}; list them: choose_law(data, laws=[...])")
    if isinstance(data, Sweep | Optima):
        if isinstance(data, Sweep) and target != "loss":
            raise SweepError(f"find the optima first: choose_law(find_optima(sweep, over={target!r}))")
        found: Observations = data.observations(target)
        others = [name for name in found.table if isinstance(data, Optima) and name not in (*data.by, target)]
        return found.table.drop(columns=others)  # another searched setting is an optimum, not what tells cells apart
    if isinstance(data, Observations):
        return data.table
    if isinstance(data, Mapping | pd.DataFrame):
        return pd.DataFrame({column_of(str(name)): np.atleast_1d(data[name]) for name in data})
    raise FitError(f"expected optima, a sweep or a table, found {type(data).__name__}")


def _varied_laws(table: pd.DataFrame, target: str) -> tuple[Law, ...]:
    """Return the usual laws whose inputs all vary; those of one input alone where the other does not."""
    varied = {name for name in ("params", "tokens", "batch") if name in table and _varies(table[name])}
    laws = [law for law in _FAMILIES[target] if {column_of(name) for name in law.inputs} <= varied]
    if target == "lr" and {"params", "tokens"} <= varied:
        laws = [law for law in laws if law not in _ALONE]
    return tuple(law for law in laws if law is not _ALONE[2] or len(laws) == 1)


def _varies(column: pd.Series) -> bool:
    values = pd.to_numeric(column, errors="coerce").dropna().to_numpy(dtype=float)
    return len(np.unique(group_levels(values))) > 1
