"""`sf.fit`: one law, or "auto" for the average of the usual ones; and a law fitted to a whole sweep."""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, overload

from scalefit._values import Note, Observations
from scalefit.errors import FitError
from scalefit.fitting.fit_law import fit_law
from scalefit.fitting.fit_result import Fit
from scalefit.laws import get_law
from scalefit.laws.formula import Law
from scalefit.optima.find_optima import Optima, find_optima
from scalefit.selection.average_laws import Average, average_laws
from scalefit.sweep import Sweep
from scalefit.vocabulary import column_of

if TYPE_CHECKING:
    from scalefit.optima.cells import Estimator
    from scalefit.solvers.losses import Loss


@overload
def fit(law: Literal["auto"], data: Any, **settings: Any) -> Average: ...
@overload
def fit(law: Law | str, data: Any, **settings: Any) -> Fit: ...
@wraps(fit_law, assigned=("__doc__",))  # and not its name: errors, help and pickles should say `fit`
def fit(law: Law | str, data: Any, **settings: Any) -> Fit | Average:
    """Fit a law; "auto" averages the usual ones. At import this gets the docstring of the `fit` it wraps."""
    if law != "auto":
        return fit_law(law, data, **settings)
    known = {"bounds", "shrink", "weights", "target"}
    if strange := sorted(name for name, value in settings.items() if name not in known and value is not None):
        raise FitError(f"fit('auto', ...) takes {', '.join(sorted(known))}; {', '.join(strange)} belong to one law")
    return average_laws(data, **{name: value for name, value in settings.items() if name in known})


@dataclass(frozen=True)
class Answer:
    """A fit and the optima it rests on (None for a law fitted to runs)."""

    fit: Fit
    optima: Optima | None


def fit_sweep(
    law: Law | str,
    sweep: Sweep,
    *,
    method: Estimator | None = None,
    loss: Loss | None = None,
    space: str = "auto",
    bounds: str = "auto",
    shrink: bool | float = False,
) -> Answer:
    """Fit one law to a sweep.

    A law for the learning rate or the batch is fitted to the optima of the cells, searched over learning rate and
    batch together unless the law has the other one as an input. A law for the loss is fitted to the best run of each
    cell when the sweep searched a setting, and to the runs otherwise.
    """
    law = get_law(law)
    target = column_of(law.target)
    if target in ("lr", "batch"):
        optima = find_optima(sweep, over=_axes(law, sweep), method=method)
        return Answer(fit_law(law, optima, loss=loss, space=space, bounds=bounds, shrink=shrink), optima)
    rows = _best_runs(sweep) if target == "loss" else sweep
    return Answer(fit_law(law, rows, loss=loss, space=space, bounds=bounds, shrink=shrink), None)


def _axes(law: Law, sweep: Sweep) -> tuple[str, ...]:
    """The settings to search: the target, and the other one unless the law holds it fixed or it was not varied."""
    target = column_of(law.target)
    inputs = {column_of(name) for name in law.inputs}
    others = (name for name in ("lr", "batch") if name != target and name not in inputs and name in sweep.columns)
    chosen = {target, *(name for name in others if len(sweep.levels(name)) > 1)}
    return tuple(name for name in ("lr", "batch") if name in chosen)


@dataclass(frozen=True)
class _BestRuns:
    sweep: Sweep

    def observations(self, target: str) -> Observations:
        note = Note("best runs", f"the loss of a cell is that of its best run; {len(self.sweep)} runs were searched")
        cells = self.sweep.cells.dropna(subset=["loss"]).reset_index(drop=True)
        return Observations(cells, None, (*self.sweep.notes, note), self.sweep.source, self.sweep.data_unit)


def _best_runs(sweep: Sweep) -> Sweep | _BestRuns:
    searched = [name for name in ("lr", "batch") if name in sweep.columns and len(sweep.levels(name)) > 1]
    return _BestRuns(sweep) if searched and len(sweep.cells) < len(sweep) else sweep
