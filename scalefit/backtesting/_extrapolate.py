"""A prediction for a larger run with its interval, its reach, the error last measured there, and every caveat."""

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
from scalefit.backtesting.conformal import check_conformal, widen
from scalefit.backtesting.fixed_values import COLUMNS, fixed_values
from scalefit.backtesting.folds import direction
from scalefit.display import Display, Displayable
from scalefit.errors import FitError, ScalefitWarning
from scalefit.fitting.fit_result import Fit
from scalefit.fitting.fit_values import FitStatus, check_level
from scalefit.fitting.reach import reach_of
from scalefit.selection.average_laws import Average
from scalefit.surface.surface import Surface
from scalefit.vocabulary import column_of, format_number

Source = Fit | Surface | Average

_SLACK = 1 + 1e-9
_FARTHER = 1.1
"""How much farther than the tested reach a forecast may go before it is called untested."""


@dataclass(frozen=True, eq=False, repr=False)
class Forecast(Displayable):
    """A prediction with all that is known against it; made by `extrapolate`.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a point: the inputs; per predicted quantity (`lr` here) `lr`, `lr_lo`, `lr_hi`; `reach_params`, ... per
        input and `reach`, the largest: by what factor the point lies outside the fitted range (1 inside). With a
        backtest also `tested_reach`, `tested_regret_pct` and `tested_lr_log2`: how far the nearest held-out cells lay
        beyond those learnt from, and the mean regret and mean absolute log2 error there; NaN for points inside the
        data, unless it held out cells inside. With `conformal=` also `lr_widened`: by what factor the interval grew,
        in logs.
    fixed : pandas.DataFrame
        One row a fixed value and point: what predictions owe to values that were fixed, not fitted; see `extrapolate`.
    laws : mapping of str to Fit
        By predicted column.
    level : float
        Coverage of the intervals, which are for a new observation.
    notes : tuple of Note
        Cautions first: the fits' status, reach, the backtest's verdict, and every note since the table was read.
    source : str
        Where the runs came from.

    See Also
    --------
    extrapolate

    Examples
    --------
    >>> import scalefit as sf
    >>> forecast = sf.extrapolate(sf.fit_surface(sf.load_dataset("tiny-lm")), params=1.3e6, tokens=8e6)
    >>> list(forecast.table.columns[2:5]), list(forecast.laws)
    (['lr', 'lr_lo', 'lr_hi'], ['lr', 'batch'])
    """

    _table: pd.DataFrame
    laws: Mapping[str, Fit]
    level: float = 0.95
    notes: tuple[Note, ...] = field(default=())
    source: str = "table"
    _fixed: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(COLUMNS)))

    @property
    def table(self) -> pd.DataFrame:
        """The predictions, as a copy."""
        return self._table.copy()

    @property
    def fixed(self) -> pd.DataFrame:
        """What predictions owe to values that were fixed, not fitted, as a copy; see `extrapolate`."""
        return self._fixed.copy()

    def _display(self) -> Display:
        facts = [(name, fit.law.written(fit.values)) for name, fit in self.laws.items()]
        facts += [("status", "; ".join(f"{name} {fit.status}" for name, fit in self.laws.items()))]
        widened = ", widened by the backtest's errors" if any("_widened" in str(name) for name in self._table) else ""
        facts += [("interval", f"{self.level:.0%}, for a new observation{widened}"), ("source", self.source)]
        shown = self._table.map(lambda value: format_number(float(value), 3))
        return Display(f"Forecast of {' and '.join(self.laws)}", tuple(facts), shown, self.notes)


def extrapolate(
    source: Source,
    *,
    backtest: Backtest | None = None,
    entrant: str | None = None,
    conformal: str | None = None,
    level: float = 0.95,
    **inputs: Any,
) -> Forecast:
    """Predict a run beyond the data and say all that is known about how far off that may be.

    Parameters
    ----------
    source : Fit, Surface or Average
        What predicts: a fitted law, a surface of runs, or averaged laws.
    backtest : Backtest, optional
        From `backtest` on the same sweep. The forecast then quotes the error it measured at the nearest reach, in the
        same direction (params, tokens or both) if it has one.
    entrant : str, optional
        Whose error to quote; by default the entrant with the same law (for a surface, the same surface), the best
        ranked of several.
    conformal : {"folds", "cells"}, optional
        Widen the intervals by the errors of the backtest's held-out cells in the same direction and at a similar reach
        (its log within a factor of 3), measured in half-widths of their own intervals. "folds" counts each fold as one
        test, since its cells miss together, and needs 19 of them for 95 %, 4 for 80 %; "cells" takes every cell for a
        test of its own. Points inside the data keep their intervals.
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
        If `source` is none of these, the backtest has no such entrant, or it has too few tests for the conformal
        quantile at this level to be finite.

    See Also
    --------
    backtest : measures the error that is quoted.

    Notes
    -----
    With K tests whose ratios of error to half-width are r, the conformal factor is the quantile of r in which each test
    weighs 1/(K + 1) and the rest lies at infinity. If the run predicted is exchangeable with the tests, the interval
    holds its optimum, as read off its own runs, with at least the probability of the level, whatever the distribution
    (Lee, Barber and Willett 2023, arXiv:2306.06342). Folds of one sweep share data, and a run farther out than all of
    them is not one of their kind: that much remains an assumption. Intervals are never made narrower.

    *Fixed values*: a parameter that was fixed (``params=`` with ``vary=False``) and a number in the formula that is the
    exponent of inputs (``B**0.5``, ``sqrt(B)``, ``(N/1e9)**-0.25``; not the 1 of a plain ``B``) are assumptions, and
    far from the data they may be the whole answer. Each is freed in turn, the law fitted again to the same rows, and
    `Forecast.fixed` says: `setting`, `parameter` (`B_exponent` for an exponent of B), the value `fixed`, the one
    `preferred` by the data with `preferred_stderr`, and `z`, by how many standard errors the fixed value lies above it;
    for every point (row of the table) `moved_by`, the factor by which the prediction changes when the fixed value grows
    by 10 % (by 0.1, for 0) and all else is fitted again, `freed_by`, the factor when it is freed, and `freed_lo` and
    `freed_hi`, the interval of the freed law. NaN where the data cannot tell. A note says the same: with caution where
    the data reject the value, where the 10 % move the prediction by more than half of its half-width or the freed law
    leaves its interval, and where the data cannot tell a value whose whole share moves the prediction by over 1.65x.

    Examples
    --------
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> table = pd.DataFrame({"tokens": [1e9, 2e9, 4e9, 8e9, 16e9], "lr": [4.1e-3, 3.3e-3, 2.8e-3, 2.3e-3, 1.9e-3]})
    >>> forecast = sf.extrapolate(sf.fit("eta = c * D**b", table), tokens=16e10)
    >>> float(forecast.table["reach_tokens"].iloc[0]), [note.code for note in forecast.notes]
    (10.0, ['reach', 'untested', 'stray'])
    >>> assumed = sf.extrapolate(sf.fit("eta = c * D**-0.5", table), tokens=16e10)
    >>> assumed.fixed[["parameter", "fixed", "preferred", "freed_by"]].round(2).values.tolist()
    [['D_exponent', -0.5, -0.27, 2.3]]
    """
    check_level(level)
    laws = _laws_of(source)
    if backtest is not None and not isinstance(backtest, Backtest):
        raise FitError(f"backtest: expected the report of sf.backtest, found {type(backtest).__name__}")
    check_conformal(conformal, backtest, laws)
    table = _predict(source, laws, inputs, level)
    own = list(_notes(table, laws))
    if isinstance(source, Average):
        own.append(Note("average", f"the average of {len(source.fits)} laws, of which one is shown: {source.reason}"))
    if backtest is not None:
        name = _competitor(backtest, source, laws, entrant)
        tested, notes = _tested(backtest, name, table, laws)
        if conformal is not None:
            alike = _predict(source, laws, inputs, backtest.level)
            table, widened = widen(table, alike, backtest, name, conformal, level)
            own += widened
        table = pd.concat([table, tested], axis=1)
        own += notes
        if source.source != backtest.source:
            text = f"the backtest is of {backtest.source}, the forecast of {source.source}: is that the same recipe?"
            own.append(Note("other_data", text, caution=True))
    elif (table["reach"] > _SLACK).any():
        text = "how far off such predictions are was not measured: give backtest=sf.backtest(sweep, ...)"
        own.append(Note("untested", text, caution=True))
    carried = merge(getattr(source, "notes", ()), *(fit.notes for fit in laws.values()))
    # An average predicts with several laws, of which `laws` holds one.
    fixed, notes_on_fixed = fixed_values({} if isinstance(source, Average) else laws, table, level)
    ordered = sorted(merge(own, notes_on_fixed, carried), key=lambda note: not note.caution)
    return Forecast(table, FrozenMap(laws), level, tuple(ordered), source.source, fixed)


def _laws_of(source: Source) -> dict[str, Fit]:
    if isinstance(source, Surface):
        return source.laws
    if isinstance(source, Fit | Average):
        return {column_of(source.law.target): source.widest if isinstance(source, Average) else source}
    raise FitError(f"expected a Fit, a Surface or an Average to extrapolate, found {type(source).__name__}")


def _predict(source: Source, laws: Mapping[str, Fit], inputs: Mapping[str, Any], level: float) -> pd.DataFrame:
    """Return inputs, predictions with bounds, and the reach of every input."""
    with warnings.catch_warnings():  # the notes hold what these warnings say
        warnings.simplefilter("ignore", ScalefitWarning)
        if isinstance(source, Surface):
            table = source.optimum(level=level, **inputs).drop(columns="reach")
        else:
            (name,) = laws
            found = source.predict(level=level, **inputs).drop(columns=["reach", "between"], errors="ignore")
            table = found.rename(columns={"prediction": name, "lo": f"{name}_lo", "hi": f"{name}_hi"})
    reach = pd.concat([reach_of(fit, table) for fit in laws.values()], axis=1)
    reach = reach.T.groupby(level=0, sort=False).max().T  # an input of both laws gets the larger of its two factors
    return table.assign(**{f"reach_{name}": reach[name] for name in reach if name}, reach=reach.max(axis=1))


_LOPSIDED = 4.0
"""How many times longer one side of an interval is where the rows bend away from the law."""


def _notes(table: pd.DataFrame, laws: Mapping[str, Fit]) -> Iterator[Note]:
    """Return cautions: laws that did not converge, open intervals, inputs beyond the fitted range."""
    for name, fit in laws.items():
        if fit.status is not FitStatus.CONVERGED:
            yield Note("status", f"{name}: {fit.status}: {fit.status.sentence}. Remedy: {fit.status.remedy}", True)
    for name in laws:
        if unbounded := int((~np.isfinite(table[[f"{name}_lo", f"{name}_hi"]]).all(axis=1)).sum()):
            text = f"{name}: {unbounded} of {len(table)} predictions have no finite interval"
            yield Note("interval", f"{text}, the data do not bound them", caution=True)
    farthest = table.filter(regex="^reach_").max()
    beyond = farthest[farthest > _SLACK].rename(lambda column: column.removeprefix("reach_"))
    if len(beyond):
        factors = ", ".join(f"{name} by {format_number(factor, 3)}x" for name, factor in beyond.items())
        kept = [name for name, fit in laws.items() if fit.stray is None]
        text = f"; the interval takes the law of {' and '.join(kept)} for true" if kept else ""
        yield Note("reach", f"predicted beyond the fitted range: {factors}{text}", caution=True)
    for name, fit in laws.items():
        if fit.stray is not None:
            if absent := [place for place in fit.places if place not in table]:
                text = f"{name}: {' and '.join(absent)} vary between the rows; give them too, for optima stray by them"
                yield Note("place", text, caution=True)
            else:
                yield Note("stray", f"{name}: {fit.stray.sentence}")
            below, above = (np.abs(np.log(table[name] / table[f"{name}_{end}"])) for end in ("lo", "hi"))
            if (np.maximum(below, above) > _LOPSIDED * np.minimum(below, above)).any():
                text = "the rows bend away from the law, to where the interval reaches; choose_law finds another law"
                yield Note("bend", f"{name}: {text}", caution=True)


def _competitor(backtest: Backtest, source: Source, laws: Mapping[str, Fit], asked: str | None) -> str:
    """Return the name of the competitor that predicts as this forecast does; empty if there is none."""
    ranked = list(backtest.summary()["entrant"])
    if asked is not None:
        if asked not in ranked:
            raise FitError(f"the backtest has no entrant {asked!r}; it has: {', '.join(ranked)}")
        return asked
    alike = [name for name in ranked if name.startswith("surface") == isinstance(source, Surface)]
    names = {AUTO} if isinstance(source, Average) else {label(fit.law) for fit in laws.values()}
    found = [name for name in alike if name.rpartition(": ")[2] in names]
    if isinstance(source, Surface):  # another surface's scores say more about it than those of laws through optima
        found += alike
    return found[0] if found else ""


def _tested(
    backtest: Backtest, name: str, table: pd.DataFrame, laws: Mapping[str, Fit]
) -> tuple[pd.DataFrame, tuple[Note, ...]]:
    """Return, for every point, the measured errors of the tests nearest to it."""
    axes = [axis for axis in backtest.axes if axis in laws]
    scores = _scores(backtest, name, axes)
    if not axes or not len(scores):
        text = f"the backtest could not score {name}: it says nothing here"
        if not axes:
            text = f"the backtest scored {' and '.join(backtest.axes)}, not {' and '.join(laws)}: it says nothing here"
        elif not name:
            text = "the backtest has no entrant with this law: name one with entrant=, or enter it"
        return pd.DataFrame(index=table.index), (Note("untested", text, caution=True),)
    factors = table.filter(regex="^reach_").rename(columns=lambda column: column.removeprefix("reach_"))
    asked = list(zip(direction(factors, _SLACK), table["reach"], strict=True))
    rows = scores.reindex([_nearest(scores, beyond, reach) for beyond, reach in asked]).set_axis(table.index)
    notes = [
        _quote(row, name, axes, beyond, reach)
        for row, (beyond, reach) in zip(rows.to_dict("records"), asked, strict=True)
        if np.isfinite(row["reach"])
    ]
    columns = {"tested_reach": rows["reach"], "tested_regret_pct": rows["regret_pct"]}
    return pd.DataFrame(columns | {f"tested_{axis}_log2": rows[axis] for axis in axes}), merge(*notes)


def _scores(backtest: Backtest, name: str, axes: list[str]) -> pd.DataFrame:
    """Return one row per fold and direction: cells, reach, regret and mean absolute log2 errors of one competitor."""
    table = backtest.table
    table = table[(table["entrant"] == name) & (table["error"] == "")].assign(reach=lambda rows: np.log(rows["reach"]))
    for axis in axes:
        table[axis] = table[f"log2_{axis}_error"].abs().where(table[f"{axis}_status"] == "interior")
    groups = table.groupby(["fold", "beyond"], sort=False)
    scores = groups[["regret_pct", "reach", *axes]].mean()
    scores = scores.assign(reach=np.exp(scores["reach"]), cells=groups.size())
    return scores.join(groups[axes].count().add_suffix("_points")).reset_index()


def _nearest(scores: pd.DataFrame, beyond: str, reach: float) -> int:
    """Return the row of the test nearest in reach, among those in the same direction if there are any; -1 for none.

    For a point inside the data only tests inside the data count.
    """
    same = scores[scores["beyond"] == beyond]
    if beyond == "neither" and not len(same):
        return -1
    return int(np.abs(np.log((same if len(same) else scores)["reach"] / reach)).idxmin())


def _quote(row: Mapping[Any, Any], name: str, axes: list[str], beyond: str, reach: float) -> Iterator[Note]:
    """Return a sentence on the test nearest to a point, and on how far the point reaches beyond that test."""
    where = {"both": "params and tokens", "neither": "neither params nor tokens"}.get(row["beyond"], row["beyond"])
    tested = format_number(row["reach"], 3)
    errors = [
        f"{axis} was off by {format_number(row[axis], 2)} octaves on average ({int(row[f'{axis}_points'])} cells)"
        if row[f"{axis}_points"]
        else f"{axis} has no observed optimum to compare with"
        for axis in axes
    ]
    cost = f", at a mean regret of {format_number(row['regret_pct'], 2)} %" if np.isfinite(row["regret_pct"]) else ""
    place = f"{int(row['cells'])} held-out cell(s) of {row['fold']!r}, {tested}x beyond in {where}"
    yield Note("tested", f"backtest of {name} on {place}: {', '.join(errors)}{cost}")
    if row["beyond"] != beyond and beyond != "neither":
        asked = "params and tokens at once" if beyond == "both" else f"{beyond} alone"
        text = f"the backtest holds out no cell beyond in {asked}; the nearest test is beyond in {where}"
        yield Note("direction", text, caution=True)
    if reach > row["reach"] * _FARTHER:
        text = f"the reach asked for, {format_number(reach, 3)}x, is beyond the tested reach, {tested}x"
        yield Note("untested", f"{text}: the error measured there is a lower guide, not a bound", caution=True)
