"""Forecasts: a prediction for a larger run with interval, reach, the error last measured there, and every caveat."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import FrozenMap, Note, merge
from scalefit.backtesting._backtest import Backtest
from scalefit.backtesting.competitors import AUTO, label
from scalefit.display import Face, Shown
from scalefit.errors import FitError, LawError, ScalefitWarning
from scalefit.fitting.fit_result import Fit, reach_of
from scalefit.fitting.fit_values import FitStatus, check_level
from scalefit.selection.average_laws import Average
from scalefit.surface.surface import Surface
from scalefit.vocabulary import column_of, format_number

Source = Fit | Surface | Average

_SLACK = 1 + 1e-9
_FARTHER = 1.1
"""How much farther than the tested reach a forecast may go before it is called untested."""


@dataclass(frozen=True, eq=False, repr=False)
class Forecast(Shown):
    """A prediction with all that is known against it; made by `extrapolate`.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a point: the inputs; per predicted quantity (`lr` here) `lr`, `lr_lo`, `lr_hi`; `reach_params`, ... per
        input and `reach`, the largest: by what factor the point lies outside the fitted range (1 inside). With a
        backtest also `tested_reach`, `tested_regret_pct` and `tested_lr_log2`: how far the nearest held-out cells lay
        beyond those learnt from, and the mean regret and mean absolute log2 error there; NaN for points inside the
        data, unless it held out cells inside.
    laws : mapping of str to Fit
        By predicted column.
    level : float
        Coverage of the intervals, which are for a new observation.
    notes : tuple of Note
        Cautions first: the fits' status, reach, the backtest's verdict, and every note since the table was read.
    source : str
    """

    _table: pd.DataFrame
    laws: Mapping[str, Fit]
    level: float = 0.95
    notes: tuple[Note, ...] = field(default=())
    source: str = "table"

    @property
    def table(self) -> pd.DataFrame:
        """The predictions, as a copy."""
        return self._table.copy()

    def _face(self) -> Face:
        facts = [(name, fit.law.written(fit.values)) for name, fit in self.laws.items()]
        facts += [("status", "; ".join(f"{name} {fit.status}" for name, fit in self.laws.items()))]
        facts += [("interval", f"{self.level:.0%}, for a new observation"), ("source", self.source)]
        shown = pd.DataFrame({name: self._table[name].map(_short) for name in self._table})
        return Face(f"Forecast of {' and '.join(self.laws)}", tuple(facts), shown, self.notes)


def extrapolate(
    source: Source,
    *,
    backtest: Backtest | None = None,
    entrant: str | None = None,
    level: float = 0.95,
    **inputs: Any,
) -> Forecast:
    """Predict a run beyond the data and say all that is known about how far off that may be.

    Parameters
    ----------
    source : Fit, Surface or Average
    backtest : Backtest, optional
        From `backtest` on the same sweep. The forecast then quotes the error it measured at the nearest reach, in the
        same direction (params, tokens or both) if it has one.
    entrant : str, optional
        Whose error to quote; by default the entrant with the same law (for a surface, the same surface), the best
        ranked of several.
    level : float
        Coverage of the intervals.
    **inputs : float or array_like
        Inputs by column or symbol: ``params=7e9, tokens=1.4e12``.

    Returns
    -------
    Forecast
        It says what `Fit.predict` would warn of, so there is no warning.

    Raises
    ------
    LawError
        An input is missing, unknown, not finite or not positive.
    FitError
        If `source` is none of these, or the backtest has no such entrant.

    Examples
    --------
    >>> import pandas as pd
    >>> from scalefit.fitting.fit_law import fit_law as fit
    >>> table = pd.DataFrame({"tokens": [1e9, 2e9, 4e9, 8e9, 16e9], "lr": [4.1e-3, 3.3e-3, 2.8e-3, 2.3e-3, 1.9e-3]})
    >>> forecast = extrapolate(fit("eta = c * D**b", table), tokens=16e10)
    >>> float(forecast.table["reach_tokens"].iloc[0]), [note.code for note in forecast.notes]
    (10.0, ['reach', 'untested'])
    """
    check_level(level)
    laws = _laws_of(source)
    if backtest is not None and not isinstance(backtest, Backtest):
        raise FitError(f"backtest: expected the report of sf.backtest, found {type(backtest).__name__}")
    with warnings.catch_warnings():  # what they warn of is in the notes
        warnings.simplefilter("ignore", ScalefitWarning)
        table = _predict(source, laws, inputs, level)
    own = [*_status_notes(laws), *_interval_notes(table, laws), *_reach_notes(table)]
    if isinstance(source, Average):
        own.append(Note("average", f"the average of {len(source.fits)} laws, of which one is shown: {source.reason}"))
    if backtest is not None:
        tested, told = _tested(backtest, _entrant(backtest, source, laws, entrant), table, laws)
        table = pd.concat([table, tested], axis=1)
        own += told + _other_data(source, backtest)
    elif (table["reach"] > _SLACK).any():
        text = "how far off such predictions are was not measured: give backtest=sf.backtest(sweep, ...)"
        own.append(Note("untested", text, caution=True))
    carried = merge(getattr(source, "notes", ()), *(fit.notes for fit in laws.values()))
    notes = sorted(merge(own, carried), key=lambda note: not note.caution)
    return Forecast(table, FrozenMap(laws), level, tuple(notes), source.source)


def _laws_of(source: Source) -> dict[str, Fit]:
    if isinstance(source, Fit):
        return {column_of(source.law.target): source}
    if isinstance(source, Surface):
        return {"lr": source.lr_fit} | ({"batch": source.batch_fit} if source.batch_fit is not None else {})
    if isinstance(source, Average):
        return {column_of(source.law.target): source.widest}
    raise FitError(f"expected a Fit, a Surface or an Average to extrapolate, found {type(source).__name__}")


def _predict(source: Source, laws: Mapping[str, Fit], inputs: Mapping[str, Any], level: float) -> pd.DataFrame:
    """Return inputs, predictions with bounds, and the reach of every input."""
    if isinstance(source, Surface):
        if lacking := {"params", "tokens"}.intersection(_inputs(laws)) - {column_of(name) for name in inputs}:
            raise LawError(f"this surface predicts from {', '.join(_inputs(laws))}; missing {', '.join(lacking)}")
        table = source.optimum(level=level, **inputs).drop(columns="reach")
    else:
        (name,) = laws
        found = source.predict(level=level, **inputs).drop(columns=["reach", "between"], errors="ignore")
        table = found.rename(columns={"prediction": name, "lo": f"{name}_lo", "hi": f"{name}_hi"})
    reach = pd.concat([reach_of(fit, table) for fit in laws.values()], axis=1)
    reach = reach.T.groupby(level=0, sort=False).max().T  # an input of both laws lies outside by the larger factor
    named = {f"reach_{input_}": reach[input_] for input_ in reach if input_}
    return table.assign(**named, reach=reach.max(axis=1))


def _inputs(laws: Mapping[str, Fit]) -> list[str]:
    return list(dict.fromkeys(column_of(name) for fit in laws.values() for name in fit.law.inputs))


def _status_notes(laws: Mapping[str, Fit]) -> Iterator[Note]:
    for name, fit in laws.items():
        if fit.status is not FitStatus.CONVERGED:
            yield Note("status", f"{name}: {fit.status}: {fit.status.sentence}. Remedy: {fit.status.remedy}", True)


def _interval_notes(table: pd.DataFrame, laws: Mapping[str, Fit]) -> Iterator[Note]:
    for name in laws:
        open_ = ~np.isfinite(table[[f"{name}_lo", f"{name}_hi"]]).all(axis=1)
        if open_.any():
            text = f"{name}: {int(open_.sum())} of {len(table)} predictions have no finite interval"
            yield Note("interval", f"{text}, the data do not bound them", caution=True)


def _reach_notes(table: pd.DataFrame) -> Iterator[Note]:
    columns = [name for name in table if str(name).startswith("reach_")]
    beyond = {str(name)[6:]: float(table[name].max()) for name in columns if table[name].max() > _SLACK}
    if beyond:
        told = ", ".join(f"{name} by {format_number(factor, 3)}x" for name, factor in beyond.items())
        yield Note("reach", f"predicted beyond the fitted range: {told}; the interval takes the law for true", True)


def _entrant(backtest: Backtest, source: Source, laws: Mapping[str, Fit], asked: str | None) -> str:
    """Return the entrant whose record counts for this forecast; empty if there is none."""
    ranked = list(backtest.summary()["entrant"])
    if asked is not None:
        if asked not in ranked:
            raise FitError(f"the backtest has no entrant {asked!r}; it has: {', '.join(ranked)}")
        return asked
    names = {AUTO} if isinstance(source, Average) else {label(fit.law) for fit in laws.values()}
    if isinstance(source, Surface):
        found = [name for name in ranked if name.startswith("surface") and name.rpartition(": ")[2] in names]
        found = found or [name for name in ranked if name.startswith("surface")]
    else:
        found = [name for name in ranked if not name.startswith("surface") and name.rpartition(": ")[2] in names]
    return found[0] if found else ""


def _tested(
    backtest: Backtest, name: str, table: pd.DataFrame, laws: Mapping[str, Fit]
) -> tuple[pd.DataFrame, list[Note]]:
    """Look up, point by point, what the backtest measured nearest to it."""
    axes = [axis for axis in backtest.axes if axis in laws]
    if not axes:
        told = f"the backtest scored {' and '.join(backtest.axes)}, not {' and '.join(laws)}: it says nothing here"
        return pd.DataFrame(index=table.index), [Note("untested", told, caution=True)]
    if not name:
        told = "the backtest has no entrant with this law: name one with entrant=, or enter it"
        return pd.DataFrame(index=table.index), [Note("untested", told, caution=True)]
    record = _record(backtest, name, axes)
    if not len(record):
        told = f"the backtest could not score {name}: it says nothing here"
        return pd.DataFrame(index=table.index), [Note("untested", told, caution=True)]
    asked = list(zip(_kinds(table), table["reach"], strict=True))
    rows = record.reindex([_nearest(record, kind, reach) for kind, reach in asked]).reset_index(drop=True)
    notes = [
        note
        for row, (kind, reach) in zip(rows.to_dict("records"), asked, strict=True)
        if np.isfinite(row["reach"])
        for note in _verdict(row, name, axes, kind, float(reach))
    ]
    columns = {"tested_reach": rows["reach"], "tested_regret_pct": rows["regret_pct"]}
    columns |= {f"tested_{axis}_log2": rows[axis] for axis in axes}
    return pd.DataFrame(columns), list(merge(notes))


def _record(backtest: Backtest, name: str, axes: list[str]) -> pd.DataFrame:
    """Return one row per fold and direction: cells, reach, regret and mean absolute log2 errors of one entrant."""
    table = backtest.table
    table = table[(table["entrant"] == name) & (table["error"] == "")]
    rows = []
    for (fold, beyond), group in table.groupby(["fold", "beyond"], sort=False):
        row = {"fold": fold, "beyond": beyond, "cells": len(group), "regret_pct": group["regret_pct"].mean()}
        row["reach"] = float(np.exp(np.log(group["reach"]).mean()))
        for axis in axes:
            errors = group.loc[group[f"{axis}_status"] == "interior", f"log2_{axis}_error"]
            row[axis], row[f"{axis}_points"] = errors.abs().mean(), int(errors.count())
        rows.append(row)
    return pd.DataFrame(rows)


def _kinds(table: pd.DataFrame) -> list[str]:
    """Say in which direction each point lies beyond the data, in the words of the backtest."""
    params, tokens = (
        table.get(f"reach_{name}", pd.Series(1.0, index=table.index)) > _SLACK for name in ("params", "tokens")
    )
    return list(np.select([params & tokens, params, tokens], ["both", "params", "tokens"], "neither"))


def _nearest(record: pd.DataFrame, kind: str, reach: float) -> int:
    """Return the index of the fold nearest in reach, among those in the same direction if there are any.

    For a point inside the data only tests inside count; without any it is -1, which is no index.
    """
    same = record[record["beyond"] == kind]
    if kind == "neither" and not len(same):
        return -1
    distance = np.abs(np.log((same if len(same) else record)["reach"] / reach))
    return int(distance.idxmin())


def _verdict(row: Mapping[Any, Any], name: str, axes: list[str], kind: str, reach: float) -> Iterator[Note]:
    where = {"both": "params and tokens", "neither": "neither params nor tokens"}.get(row["beyond"], row["beyond"])
    place = (
        f"{int(row['cells'])} held-out cell(s) of {row['fold']!r}, {format_number(row['reach'], 3)}x beyond in {where}"
    )
    errors = [
        f"{axis} was off by {format_number(row[axis], 2)} octaves on average ({int(row[f'{axis}_points'])} cells)"
        if row[f"{axis}_points"]
        else f"{axis} has no observed optimum to compare with"
        for axis in axes
    ]
    cost = f", at a mean regret of {format_number(row['regret_pct'], 2)} %" if np.isfinite(row["regret_pct"]) else ""
    yield Note("tested", f"backtest of {name} on {place}: {', '.join(errors)}{cost}")
    if row["beyond"] != kind and kind != "neither":
        asked = {"both": "params and tokens at once"}.get(kind, f"{kind} alone")
        text = f"the backtest holds out no cell beyond in {asked}; the nearest test is beyond in {where}"
        yield Note("direction", text, caution=True)
    if reach > row["reach"] * _FARTHER:
        text = (
            f"the reach asked for, {format_number(reach, 3)}x, is beyond the tested reach, "
            f"{format_number(row['reach'], 3)}x: the error measured there is a lower guide, not a bound"
        )
        yield Note("untested", text, caution=True)


def _other_data(source: Source, backtest: Backtest) -> list[Note]:
    if source.source == backtest.source:
        return []
    text = f"the backtest is of {backtest.source}, the forecast of {source.source}: is that the same recipe?"
    return [Note("other_data", text, caution=True)]


def _short(value: Any) -> str:
    return format_number(float(value), 3)
