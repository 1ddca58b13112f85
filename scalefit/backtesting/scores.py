"""Competitors trained on one fold and scored against its held-out cells, and what all folds say of each."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scalefit._values import Note, merge
from scalefit.backtesting.competitors import Competitor
from scalefit.backtesting.folds import Fold
from scalefit.backtesting.regret import Regrets, Terrain
from scalefit.errors import ScalefitError, ScalefitWarning, SweepError
from scalefit.sweep import Sweep

Floats = NDArray[np.float64]

FLAGS = ("clipped", "off_hull", "beside_diverged")
"""What makes a regret a lower bound."""

_ENDS = ("", "_lo", "_hi")
_PERCENT = 100.0
_SUMMED = ("edge", "flat", "too_few")  # a fit's left_out note counts them too
_FAILURES = (ScalefitError, ValueError, ArithmeticError, np.linalg.LinAlgError)


@dataclass(frozen=True, eq=False)
class Arena:
    """What every fold of a backtest shares.

    Parameters
    ----------
    sweep : Sweep
    keys : pandas.DataFrame
        The cells, one row each.
    cell : ndarray of int (runs,)
        The row of `keys` each run belongs to.
    grounds : tuple of Terrain
        The runs of each cell.
    truth : pandas.DataFrame
        The observed optimum of each cell: per axis its value, bounds and status.
    entrants : tuple of Competitor
    level : float
    """

    sweep: Sweep
    keys: pd.DataFrame
    cell: NDArray[np.int64]
    grounds: tuple[Terrain, ...]
    truth: pd.DataFrame
    entrants: tuple[Competitor, ...]
    level: float

    @property
    def axes(self) -> tuple[str, ...]:
        """The settings searched."""
        return self.grounds[0].axes

    def training(self, fold: Fold) -> Sweep:
        """Return the runs of the cells learnt from, and nothing else."""
        sweep, kept = self.sweep, fold.trained[self.cell]
        return Sweep.from_frame(
            sweep.table[kept],
            notes=sweep.notes,
            source=sweep.source,
            rtol=sweep.rtol,
            params_convention=sweep.params_convention,
            data_unit=sweep.data_unit,
        )


@dataclass(frozen=True, eq=False)
class Scores:
    """Rows of a backtest: cell by cell, and within a cell in the order of the entrants.

    Parameters
    ----------
    table : pandas.DataFrame
    draws : ndarray (rows, draws)
        Simulated repetitions of the regret, in percent.
    notes : tuple of Note
    """

    table: pd.DataFrame
    draws: Floats
    notes: tuple[Note, ...]


@dataclass(frozen=True, eq=False)
class _Attempt:
    """The predictions of one entrant, NaN where there are none."""

    columns: dict[str, Floats]
    error: str = ""
    notes: tuple[Note, ...] = field(default=())


def score_fold(arena: Arena, fold: Fold) -> Scores:
    """Train every entrant on a fold and score it on the cells held out."""
    training, held = arena.training(fold), np.flatnonzero(fold.held)
    places = arena.keys.iloc[held].reset_index(drop=True)
    attempts = [_attempt(entrant, training, places, arena) for entrant in arena.entrants]
    names = [f"{axis}{end}" for axis in arena.axes for end in _ENDS]
    predicted = {name: np.column_stack([attempt.columns[name] for attempt in attempts]) for name in names}
    settings = np.log(np.stack([predicted[axis] for axis in arena.axes], axis=2))
    regrets = [arena.grounds[k].regret(settings[row]) for row, k in enumerate(held)]
    found_there = np.log(arena.truth[list(arena.axes)].to_numpy(dtype=float))
    floor = [arena.grounds[k].regret(found_there[k][None], draws=1).value[0] for k in held]

    repeated = np.repeat(np.arange(len(held)), len(attempts))
    table = places.iloc[repeated].reset_index(drop=True)
    table.insert(0, "fold", fold.name)
    table["entrant"] = [entrant.name for entrant in arena.entrants] * len(held)
    truth = arena.truth.iloc[held[repeated]].reset_index(drop=True)
    for axis in arena.axes:
        table = table.assign(**{name: predicted[name].ravel() for name in (f"{axis}{end}" for end in _ENDS)})
        table = pd.concat([table, _compare(table, truth, axis)], axis=1)
    table["censored"] = np.any([truth[f"{axis}_status"] == "edge" for axis in arena.axes], axis=0)
    table = table.assign(**_regret_columns(regrets), observed_regret_pct=_PERCENT * np.array(floor)[repeated])
    table = table.assign(**_reach(places, arena.keys[fold.trained], repeated))
    table["error"] = [attempt.error for attempt in attempts] * len(held)
    draws = _PERCENT * np.concatenate([found.draws for found in regrets])
    return Scores(table, draws, merge(*(attempt.notes for attempt in attempts)))


def _attempt(entrant: Competitor, training: Sweep, places: pd.DataFrame, arena: Arena) -> _Attempt:
    names = [f"{axis}{end}" for axis in arena.axes for end in _ENDS]
    try:
        predictor = entrant.train(training)
        with warnings.catch_warnings():  # every held-out cell lies beyond the training range; the table says how far
            warnings.simplefilter("ignore", ScalefitWarning)
            found = predictor.optimum(level=arena.level, **{str(n): places[n].to_numpy() for n in places})
        columns = {name: _column(found, name, len(places)) for name in names}
        for axis in arena.axes:
            if not (np.isnan(columns[axis]) | ((columns[axis] > 0) & np.isfinite(columns[axis]))).all():
                raise SweepError(f"{axis} is predicted as {columns[axis][~(columns[axis] > 0)]}: not a setting")
    except _FAILURES as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        note = Note("failed", f"{entrant.name} made no prediction: {text}", caution=True)
        return _Attempt({name: np.full(len(places), np.nan) for name in names}, text, (note,))
    told = getattr(predictor, "notes", ())
    doubts = (n for n in told if n.caution and n not in training.notes and n.code not in _SUMMED)
    return _Attempt(columns, "", tuple(Note(n.code, f"{entrant.name}: {n.text}", True) for n in doubts))


def _column(found: pd.DataFrame, name: str, rows: int) -> Floats:
    if len(found) != rows:
        raise SweepError(f"expected one prediction for each of {rows} cells, found {len(found)} rows")
    return found[name].to_numpy(dtype=float) if name in found.columns else np.full(rows, np.nan)


def _compare(table: pd.DataFrame, truth: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Return the observed optimum of a setting, the error of its prediction and whether it lies inside."""
    status = truth[f"{axis}_status"].to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):  # an open bound is 0
        predicted, low, high = (np.log(table[f"{axis}{end}"].to_numpy()) for end in _ENDS)
        observed, first, last = (np.log(truth[f"{axis}{end}"].to_numpy(dtype=float)) for end in _ENDS)
    error = predicted - observed
    edge = status == "edge"
    error = np.where(edge & np.isinf(last), np.minimum(error, 0.0), error)
    error = np.where(edge & np.isinf(first), np.maximum(error, 0.0), error)
    above = observed > predicted
    allowed = np.hypot(
        np.where(above, high - predicted, predicted - low), np.where(above, observed - first, last - observed)
    )
    bounded = np.isfinite([low, high, first, last]).all(axis=0)  # an open interval excludes nothing
    known = (status == "interior") & bounded
    inside = np.where(known, np.abs(error) <= allowed, None)
    columns = {f"observed_{axis}{end}": truth[f"{axis}{end}"] for end in _ENDS}
    columns[f"observed_log_{axis}_stderr"] = truth[f"log_{axis}_stderr"]
    scores = {f"{axis}_status": status, f"log2_{axis}_error": error / np.log(2), f"{axis}_inside": inside}
    return pd.DataFrame(columns | scores)


def _regret_columns(regrets: Sequence[Regrets]) -> dict[str, NDArray[np.generic]]:
    joined: dict[str, NDArray[np.generic]] = {
        "regret_pct": _PERCENT * np.concatenate([found.value for found in regrets]),
        "regret_stderr": _PERCENT * np.concatenate([found.stderr for found in regrets]),
    }
    return joined | {name: np.concatenate([getattr(found, name) for found in regrets]) for name in FLAGS}


def _reach(places: pd.DataFrame, trained: pd.DataFrame, repeated: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
    """Say on which axes the held-out cells lie outside the training cells, and by what factor."""
    low, high = trained.min().to_numpy(dtype=float), trained.max().to_numpy(dtype=float)
    values = places.to_numpy(dtype=float)
    factor = np.maximum(np.maximum(values / high, low / values), 1.0)
    outside = {str(name): factor[:, j] > 1 for j, name in enumerate(places.columns)}
    params, tokens = (outside.get(name, np.zeros(len(places), dtype=bool)) for name in ("params", "tokens"))
    beyond = np.select([params & tokens, params, tokens], ["both", "params", "tokens"], "neither").astype(object)
    return {"beyond": beyond[repeated], "reach": factor.max(axis=1)[repeated]}


Rows = NDArray[np.intp]

_KINDS = ("params", "tokens")


@dataclass(frozen=True, eq=False)
class Standings:
    """The entrants of a backtest compared.

    Parameters
    ----------
    table : pandas.DataFrame
        As `Backtest.table`; not changed.
    draws : ndarray (rows, draws)
        Simulated repetitions of the regrets, in percent.
    axes : tuple of str
        The settings predicted.
    """

    table: pd.DataFrame
    draws: Floats
    axes: tuple[str, ...]

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per entrant, best first; see `Backtest.summary`."""
        ranked = sorted(dict.fromkeys(self._text("entrant")), key=self._rank)
        return pd.DataFrame([self._score(name, best=ranked[0]) for name in ranked])

    @property
    def by_axis(self) -> pd.DataFrame:
        """One row per kind of extrapolation and entrant; see `Backtest.by_axis`."""
        pairs = dict.fromkeys(zip(self._text("beyond"), self._text("entrant"), strict=True))
        return pd.DataFrame([self.along(*pair) for pair in pairs])

    def along(self, beyond: str, name: str) -> dict[str, Any]:
        """Return the scores of one entrant in the cells that lie beyond the training cells in one way."""
        rows = np.flatnonzero((self._text("beyond") == beyond) & (self._text("entrant") == name))
        mean, stderr = self._mean_regret(rows)
        row = {"beyond": beyond, "entrant": name, "cells": int((~np.isnan(self._regret[rows])).sum())}
        row |= {"reach": float(np.exp(np.log(self._numbers("reach")[rows]).mean()))}
        row |= {"regret_pct": mean, "regret_stderr": stderr}
        return row | {f"{axis}_log2": _mean_of(np.abs(self._point_errors(rows, axis))) for axis in self.axes}

    def _text(self, name: str) -> NDArray[np.object_]:
        return self.table[name].to_numpy(dtype=object)

    def _numbers(self, name: str) -> Floats:
        return self.table[name].to_numpy(dtype=float)

    @cached_property
    def _regret(self) -> Floats:
        return self._numbers("regret_pct")

    @cached_property
    def _stderr(self) -> Floats:
        return self._numbers("regret_stderr")

    def _rank(self, name: str) -> tuple[int, float]:
        """Return what entrants are put in order by: cells without a regret, then the mean of the others."""
        regret = self._regret[self._text("entrant") == name]
        known = ~np.isnan(regret)
        return int((~known).sum()), float(regret[known].mean()) if known.any() else np.inf

    def _score(self, name: str, best: str) -> dict[str, Any]:
        rows = np.flatnonzero(self._text("entrant") == name)
        regret, failed = self._regret[rows], self._text("error")[rows] != ""
        known, scored = ~np.isnan(regret), rows[~failed]
        mean, stderr = self._mean_regret(rows)
        worst = rows[np.where(known, regret, -np.inf).argmax()]
        row: dict[str, Any] = {"entrant": name, "cells": int(known.sum()), "failed": int(failed.sum())}
        row |= {"regret_pct": mean, "regret_stderr": stderr}
        row |= {"worst_pct": self._regret[worst], "worst_stderr": self._stderr[worst]}
        row |= self._gap(name, best)
        for axis in self.axes:
            row |= self._accuracy(scored, axis)
        row["censored"] = _mean_of(self._numbers("censored")[scored])
        row["clipped"] = _mean_of(np.max([self._numbers(flag)[scored] for flag in FLAGS], axis=0))
        beyond = self._text("beyond")
        if set(_KINDS) <= set(beyond):
            row |= {f"regret_{kind}": _mean_of(regret[known & (beyond[rows] == kind)]) for kind in _KINDS}
        return row

    def _mean_regret(self, rows: Rows) -> tuple[float, float]:
        known = rows[~np.isnan(self._regret[rows])]
        if not len(known):
            return np.nan, np.nan
        spread = float(self.draws[known].mean(axis=0).std())
        return float(self._regret[known].mean()), np.nan if np.isnan(self._stderr[known]).any() else spread

    def _gap(self, name: str, best: str) -> dict[str, float]:
        entrant = self._text("entrant")
        mine, other = (np.flatnonzero(entrant == who) for who in (name, best))
        both = ~np.isnan(self._regret[mine]) & ~np.isnan(self._regret[other])
        if not both.any():
            return {"behind_pct": np.nan, "behind_stderr": np.nan}
        mine, other = mine[both], other[both]
        spread = float((self.draws[mine] - self.draws[other]).mean(axis=0).std())
        gap = float((self._regret[mine] - self._regret[other]).mean())
        return {"behind_pct": gap, "behind_stderr": np.nan if np.isnan(self._stderr[mine]).any() else spread}

    def _accuracy(self, rows: Rows, axis: str) -> dict[str, float]:
        inside = self._text(f"{axis}_inside")[rows]
        error = self._point_errors(rows, axis)
        return {
            f"{axis}_log2": _mean_of(np.abs(error)),
            f"{axis}_mape": _mean_of(100 * np.abs(np.exp2(error) - 1)),
            f"{axis}_coverage": _mean_of(inside[~pd.isna(inside)].astype(float)),
        }

    def _point_errors(self, rows: Rows, axis: str) -> Floats:
        error = self._numbers(f"log2_{axis}_error")[rows]
        return error[(self._text(f"{axis}_status")[rows] == "interior") & ~np.isnan(error)]


def _mean_of(values: Floats) -> float:
    """Return the mean; NaN of nothing."""
    return float(values.mean()) if len(values) else np.nan
