"""Which laws compete for a target, and the simplest of them that predicts unseen cells about as well as the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note, Observations
from scalefit.display import Display, Displayable
from scalefit.errors import FitError, LawError, SweepError
from scalefit.fitting.fit_law import fit_law as fit
from scalefit.fitting.fit_result import Fit
from scalefit.fitting.fit_values import FitStatus
from scalefit.laws import BUILT_IN, get_law
from scalefit.laws.formula import Law
from scalefit.optima.find_optima import Optima
from scalefit.schema import group_levels
from scalefit.selection.compare import Comparison, compare, is_judged
from scalefit.selection.criteria import name_of
from scalefit.solvers.losses import Loss
from scalefit.sweep import Sweep
from scalefit.vocabulary import column_of, format_error, format_number

_ALONE = (
    Law("eta = c * N**a", positive={"c"}, name="lr_params"),
    Law("eta = c * D**b", positive={"c"}, name="lr_tokens"),
    Law("B = c * N**a", positive={"c"}, name="batch_params"),
)
"""The straight laws of one input, for data that vary one."""

_FAMILIES: dict[str, tuple[Law, ...]] = {
    "lr": tuple(
        BUILT_IN[name]
        for name in ("lr_power", "lr_curved", "lr_curved_params", "lr_curved_tokens", "lr_quadratic", "lr_power_batch")
    )
    + _ALONE[:2],
    "batch": (BUILT_IN["batch_power_tokens"], BUILT_IN["batch_power"], _ALONE[2]),
    "loss": tuple(BUILT_IN[name] for name in ("loss_tokens", "loss_params", "kaplan", "chinchilla", "skaling")),
}
"""Candidates by target."""


@dataclass(frozen=True, eq=False, repr=False)
class Choice(Displayable):
    """The law chosen, and why; made by `choose_law`.

    Attributes
    ----------
    fit : Fit
        The chosen law, fitted to all rows.
    comparison : Comparison
        All candidates that could be fitted.
    reason : str
        One or two sentences.
    notes : tuple of Note
        Candidates that were left out, and why.

    See Also
    --------
    choose_law

    Examples
    --------
    >>> import scalefit as sf
    >>> choice = sf.choose_law(sf.find_optima(sf.load_dataset("tiny-lm"), over=("lr", "batch")), target="lr")
    >>> choice.fit.law.name, choice.comparison.best.law.name
    ('lr_power', 'lr_power')
    """

    fit: Fit
    comparison: Comparison
    reason: str
    notes: tuple[Note, ...] = field(default=())

    def _display(self) -> Display:
        inner = self.comparison._display()
        facts = (("law", self.fit.law.written(self.fit.values)), ("reason", self.reason), *inner.facts)
        return Display(f"Choice of {name_of(self.fit)}", facts, inner.table, (*self.notes, *inner.notes))


def choose_law(
    data: Any,
    laws: str | Sequence[Law | str] = "auto",
    *,
    target: str | None = None,
    loss: Loss | None = None,
    space: str = "auto",
    weights: Any = None,
    bounds: str = "auto",
    shrink: bool | float = False,
) -> Choice:
    """Fit several laws and choose the simplest whose error on unseen cells is as good as the best one's.

    As good means: behind the best by no more than one standard error of the paired difference. See `compare` for the
    error. Among laws with equally many parameters the one with the smaller error is chosen.

    Parameters
    ----------
    data : Optima, Sweep, DataFrame or mapping of columns
        As for `fit`.
    laws : "auto" or sequence of Law or str
        "auto" tries, for the learning rate, the straight law, the one with the ln N ln D interaction and the full
        quadratic (and the one with the batch, where optima differ by it); for the batch, the power laws of
        the tokens and of both; for the loss, the saturating laws; each as far as the data vary its inputs.
    target : str, optional
        The column to choose a law for, where the data leave it open.
    loss, space, weights, bounds, shrink
        As for `fit`.

    Returns
    -------
    Choice
        The chosen fit, the comparison it rests on, and the reason in words.

    Raises
    ------
    FitError
        If the target is open, or no law can be fitted and judged.
    SweepError
        If a law for a setting is to be chosen from runs; find their optima first.

    See Also
    --------
    average_laws : the laws as one prediction, none of them chosen.
    compare : the error on unseen cells.
    nested_test : a test of one law within another.

    Notes
    -----
    In simulated sweeps a straight truth is called straight in 96 to 98 %. An interaction of 0.08 is found in 56 to 83 %
    of grids of 5 x 8 and 5 x 15 cells, and in 5 % of sweeps of 17 cells (docs/statistics.md).

    References
    ----------
    Breiman, Friedman, Olshen and Stone, Classification and Regression Trees (1984), section 3.4.3: the rule of one
    standard error.

    Examples
    --------
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> pairs = [(n, d) for n in (1e8, 3e8, 1e9) for d in (1e10, 3e10, 1e11)]
    >>> cells = pd.DataFrame(pairs, columns=["params", "tokens"])
    >>> cells["lr"] = 2.0 * cells["params"] ** -0.7 * cells["tokens"] ** 0.3 * [1.1, 0.9, 1, 0.95, 1.2, 1, 1, 1.1, 0.9]
    >>> sf.choose_law(cells).fit.law.name
    'lr_power'
    """
    how = {"loss": loss, "space": space, "weights": weights, "bounds": bounds, "shrink": shrink}
    comparison, notes = fit_laws(data, laws, target, **how)
    table, judged = comparison.table, is_judged(comparison.table)
    near = judged & (table["behind"] <= table["behind_stderr"].fillna(0.0))
    chosen = int(table[near].sort_values("parameters", kind="stable").index[0])
    return Choice(comparison.fits[chosen], comparison, _reason(table[judged], chosen), tuple(notes))


def fit_laws(data: Any, laws: Sequence[Law | str], target: str | None, **how: Any) -> tuple[Comparison, list[Note]]:
    """Fit the laws, for "auto" the usual ones, and compare those that can be fitted; note why the others cannot.

    Raises FitError if there are none, none can be fitted, or none can be judged on cells left out.
    """
    if isinstance(laws, str):
        if laws != "auto":
            raise FitError(f"laws: expected 'auto' or a list of laws, found {laws!r}; try laws=[{laws!r}]")
        laws = usual_laws(data, target)
    if not laws:
        raise FitError("no law to choose from: the list is empty")
    fits: list[Fit] = []
    notes: list[Note] = []
    for law in map(get_law, laws):
        try:
            found = fit(law, data, **how)
            usable = found.status in (FitStatus.CONVERGED, FitStatus.AT_BOUND)
            why = "" if usable else f"{found.status}: {found.status.sentence}"
        except (FitError, LawError) as error:
            why = str(error)
        if why:
            notes.append(Note("not_fitted", f"{law.name or law.formula}: {why}", caution=True))
        else:
            fits.append(found)
    if isinstance(data, Sweep):
        text = "every run counts, tuned or not; a law for the lowest loss of each cell: choose_law(sweep.cells, ...)"
        notes.append(Note("all_runs", text, caution=True))
    if not fits:
        raise FitError("none of the laws can be fitted: " + "; ".join(note.text for note in notes))
    comparison = compare(fits)
    if not is_judged(comparison.table)[0]:
        text = "no law can be refitted to part of these cells, so none can be judged; bring more cells"
        raise FitError(text, comparison)
    return comparison, notes


def usual_laws(data: Any, target: str | None = None) -> tuple[Law, ...]:
    """Return the usual laws for a target, as far as the data vary their inputs."""
    if not isinstance(data, Optima | Sweep | Observations | Mapping | pd.DataFrame):
        raise FitError(f"expected optima, a sweep or a table, found {type(data).__name__}")
    target = _only_target(data) if target is None else column_of(target)
    if target not in _FAMILIES:
        raise FitError(f"there are no usual laws for {target!r}; list them: choose_law(data, laws=[...])")
    table = _observed(data, target)
    varied = {name for name in ("params", "tokens", "batch") if name in table and _varies(table[name])}
    laws = [law for law in _FAMILIES[target] if {column_of(name) for name in law.inputs} <= varied]
    if {"params", "tokens"} <= varied:
        laws = [law for law in laws if law not in _ALONE]
    if not laws:
        raise FitError("no law to choose from: the data vary none of params and tokens")
    return tuple(laws)


def _only_target(data: Any) -> str:
    """Return the one column of lr, batch and loss that the data hold; the loss of a sweep."""
    if isinstance(data, Sweep):
        return "loss"
    names = data.over if isinstance(data, Optima) else data.table if isinstance(data, Observations) else data
    found = [name for name in _FAMILIES if name in {column_of(str(column)) for column in names}]
    if len(found) != 1:
        what = f"the data hold {' and '.join(found)}" if found else "the data hold none of lr, batch and loss"
        raise FitError(f"{what}: say which to choose a law for, target='lr' for example")
    return found[0]


def _observed(data: Any, target: str) -> pd.DataFrame:
    """Return the rows that a law for the target would be fitted to."""
    if isinstance(data, Sweep) and target != "loss":
        raise SweepError(f"find the optima first: choose_law(find_optima(sweep, over={target!r}))")
    if isinstance(data, Optima):  # a second searched setting is an optimum itself and does not separate cells
        return data.observations(target).table.filter([*data.by, target])
    if isinstance(data, Sweep | Observations):
        return data.observations(target).table if isinstance(data, Sweep) else data.table
    return pd.DataFrame({column_of(str(name)): np.atleast_1d(data[name]) for name in data})


def _varies(column: pd.Series) -> bool:
    values = pd.to_numeric(column, errors="coerce").dropna().to_numpy(dtype=float)
    return len(np.unique(group_levels(values))) > 1


def _reason(table: pd.DataFrame, chosen: int) -> str:
    """Return the reason for the choice: the rule, and the distance to the best or the nearest simpler law."""
    rows = table.to_dict("records")
    own, best = rows[list(table.index).index(chosen)], rows[0]
    error = f"{format_error(own['error'], own['error_stderr'])} on held-out cells"
    simpler = [row for row in rows if row["parameters"] < own["parameters"]]
    if len(rows) == 1:
        return f"{own['law']} is the only law that could be judged; its error is {error}."
    if own is not best:
        return (
            f"{own['law']} ({own['parameters']} parameters) is the simplest of {len(rows)} laws within one paired "
            f"standard error of the best: its error is {error}, behind {best['law']} ({best['parameters']} parameters) "
            f"by {_gap(own)}."
        )
    text = f"{own['law']} has the smallest error of {len(rows)} laws, {error}"
    if not simpler:
        return f"{text}, and none is simpler."
    text = f"{text}. The best simpler law, {simpler[0]['law']}, is behind by {_gap(simpler[0])}"
    return f"{text}: more than one standard error of the paired difference."


def _gap(row: Mapping[Any, Any]) -> str:
    return f"{format_number(row['behind'], 2)}, standard error {format_number(row['behind_stderr'], 2)}"
