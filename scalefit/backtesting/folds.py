"""Which cells a backtest holds out, and what is predicted for them from the others, scored against their runs."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scalefit._values import Note, merge
from scalefit.backtesting.competitors import Competitor
from scalefit.backtesting.regret import CellRuns
from scalefit.errors import LawError, ScalefitError, ScalefitWarning, SweepError
from scalefit.laws.expressions import evaluate_condition, parse
from scalefit.sweep import Sweep
from scalefit.vocabulary import BY_SYMBOL, column_of, format_number

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

FLAGS = ("clipped", "off_hull", "beside_diverged")
"""What makes a regret a lower bound."""

_PHRASE = re.compile(r"\s*(largest|rolling)(?:\s+(\w+))?\s*\Z")
_AXES = ("params", "tokens", "both")
"""What a phrase may be followed by, as columns."""

_ENDS = ("", "_lo", "_hi")
_COUNTED = ("edge", "flat", "too_few")  # the note "left_out" of a fit counts these optima too
_FAILURES = (ScalefitError, ValueError, ArithmeticError, np.linalg.LinAlgError)  # others are faults of ours


@dataclass(frozen=True, eq=False)
class Fold:
    """One split of the cells into those that are scored and those that competitors learn from."""

    name: str
    held: Bools
    trained: Bools


def check_holdout(text: str) -> None:
    """Raise SweepError if a text can be no holdout, whatever the sweep: no phrase and no condition.

    Examples
    --------
    >>> check_holdout("rolling D")
    >>> check_holdout("params > 1e9 and tokens > 1e10")
    >>> check_holdout("rolling lr")
    Traceback (most recent call last):
    scalefit.errors.SweepError: expected 'rolling params', 'rolling tokens' or 'rolling both', found 'rolling lr'
    """
    if _read_phrase(text) is None:
        try:
            parse(text, condition=True)
        except LawError as error:
            raise _no_condition(error) from None


def _read_phrase(text: str) -> tuple[str, str] | None:
    """Return the kind of a phrase and its column, or both; None of a text that can only be a condition."""
    phrase = _PHRASE.match(text)
    if phrase is None:
        return None
    kind, name = phrase[1], column_of(phrase[2] or "")
    if name not in _AXES:
        *others, last = (f"'{kind} {axis}'" for axis in _AXES)
        raise SweepError(f"expected {', '.join(others)} or {last}, found {text!r}")
    return kind, name


def _no_condition(error: LawError) -> SweepError:
    phrases = "'largest params', 'largest tokens', 'largest both', or 'rolling' in place of 'largest'"
    return SweepError(f"{error}. A holdout is a condition such as 'params > 1e9', or {phrases}")


def folds_of(sweep: Sweep, keys: pd.DataFrame, cell: NDArray[np.int64], holdout: str | Sequence[str]) -> list[Fold]:
    """Return the folds that one or more holdouts ask for, given the cells and the cell of each run; see `backtest`."""
    asked = [holdout] if isinstance(holdout, str) else list(holdout) if isinstance(holdout, Iterable) else []
    if not asked or not all(isinstance(text, str) for text in asked):
        raise SweepError(
            "holdout: expected a condition such as 'params > 1e9', 'largest params', 'rolling tokens', or a list of "
            f"these, found {holdout!r}"
        )
    for text in asked:
        check_holdout(text)
    found: dict[bytes, Fold] = {}
    for fold in (fold for text in dict.fromkeys(asked) for fold in _folds(sweep, keys, cell, text)):
        cells = fold.held.tobytes() + fold.trained.tobytes()
        same = found.get(cells)  # two holdouts may ask for the same fold; its cells count once
        found[cells] = fold if same is None else replace(same, name=f"{same.name}, {fold.name}")
    return list(found.values())


def _folds(sweep: Sweep, keys: pd.DataFrame, cell: NDArray[np.int64], text: str) -> list[Fold]:
    phrase = _read_phrase(text)
    if phrase is None:
        return [_complement(text, _by_condition(sweep, keys, cell, text))]
    kind, name = phrase
    columns = {column: _values(keys, column, text) for column in (("params", "tokens") if name == "both" else (name,))}
    if kind == "rolling":
        return _rolling(keys, pd.DataFrame(columns), text)
    return [_complement(text, np.any([values == values.max() for values in columns.values()], axis=0))]


def _rolling(keys: pd.DataFrame, levels: pd.DataFrame, text: str) -> list[Fold]:
    """Return one fold for every level, or pair of levels, that has enough smaller cells to learn from."""
    varied = [str(column) for column in keys if keys[column].nunique() > 1]
    enough = 2 * (1 + len(varied))  # fewest cells to learn from: twice the parameters of a law linear in logs
    folds = []
    for level in np.unique(levels.to_numpy(), axis=0):
        held, smaller = ((levels == level).all(axis=1).to_numpy(), (levels < level).all(axis=1).to_numpy())
        below = keys.loc[smaller, varied]
        if len(below) >= enough and (below.nunique() > 1).all():
            where = " and ".join(f"{n} = {format_number(x)}" for n, x in zip(levels, level, strict=True))
            folds.append(Fold(f"{where}, from smaller", held, smaller))
    if not folds:
        raise SweepError(
            f"{text!r}: no level of {' and '.join(map(str, levels))} has enough below it to learn from: {enough} "
            f"cells, with at least two levels of {' and '.join(varied)}; the sweep has {len(keys)} cells"
        )
    return folds


def _values(keys: pd.DataFrame, column: str, text: str) -> Floats:
    if column not in keys.columns:
        raise SweepError(f"{text!r}: expected one of {', '.join(keys.columns)}, which tell the cells apart")
    values = keys[column].to_numpy(dtype=float)
    if np.ptp(values) == 0:
        raise SweepError(f"{text!r}: all cells have {column} {format_number(values[0])}; nothing is left to train on")
    return values


def _by_condition(sweep: Sweep, keys: pd.DataFrame, cell: NDArray[np.int64], text: str) -> Bools:
    """Return which cells satisfy a condition on their levels; jitter of single runs cannot split a cell."""
    table = sweep.table
    columns = {str(name): table[name].to_numpy() for name in table.columns}
    columns |= {str(name): keys[name].to_numpy()[cell] for name in keys.columns}
    symbols = {symbol: columns[q.column] for symbol, q in BY_SYMBOL.items() if q.column in columns}
    try:
        runs = np.broadcast_to(evaluate_condition(text, columns | symbols), len(table))
    except LawError as error:
        raise _no_condition(error) from None
    share = np.bincount(cell, weights=runs) / np.bincount(cell)
    if (split := (share > 0) & (share < 1)).any():
        where = ", ".join(f"{name} {format_number(keys[name][split.argmax()])}" for name in keys.columns)
        raise SweepError(
            f"{text!r} holds out part of {int(split.sum())} of {len(keys)} cells (first {where}), whose other runs "
            f"would be learnt from; hold out whole cells, by {' and '.join(keys.columns)}"
        )
    return np.asarray(share == 1)


def _complement(text: str, held: Bools) -> Fold:
    if held.all() or not held.any():
        what, left = ("every", "train on") if held.all() else ("no", "hold out")
        raise SweepError(f"{text!r} holds out {what} cell of {len(held)}: nothing is left to {left}")
    return Fold(text, held, ~held)


@dataclass(frozen=True, eq=False)
class Setup:
    """What all folds of a backtest share: runs and optima of the cells (rows of `keys`), and the competitors."""

    sweep: Sweep
    keys: pd.DataFrame
    cell: NDArray[np.int64]
    runs: tuple[CellRuns, ...]
    axes: tuple[str, ...]
    observed: pd.DataFrame
    competitors: tuple[Competitor, ...]
    level: float

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


def score_fold(setup: Setup, fold: Fold) -> tuple[pd.DataFrame, Floats, tuple[Note, ...]]:
    """Train every competitor on a fold and score its predictions for the cells held out.

    Returns the rows, cell by cell and competitor by competitor, the simulated regrets of each in percent, and notes.
    """
    training, held, count = setup.training(fold), np.flatnonzero(fold.held), len(setup.competitors)
    places = setup.keys.iloc[held].reset_index(drop=True)
    made = [_predict(competitor, training, places, setup) for competitor in setup.competitors]
    predicted = pd.concat([columns for columns, _, _ in made]).sort_index(kind="stable", ignore_index=True)
    axes = list(setup.axes)
    settings = np.log(predicted[axes].to_numpy()).reshape(len(held), count, len(axes))
    found = np.log(setup.observed[axes].to_numpy(dtype=float))
    regrets = [setup.runs[k].regret(settings[row]) for row, k in enumerate(held)]
    floor = np.array([setup.runs[k].regret(found[k][None], draws=1).value[0] for k in held])

    row = np.repeat(np.arange(len(held)), count)
    table = places.iloc[row].reset_index(drop=True)
    table.insert(0, "fold", fold.name)
    table["entrant"] = [competitor.name for competitor in setup.competitors] * len(held)
    observed = setup.observed.iloc[held[row]].reset_index(drop=True)
    for axis in axes:
        own = predicted[[f"{axis}{end}" for end in _ENDS]]
        table = pd.concat([table, own, _compare(own, observed, axis)], axis=1)
    table["censored"] = np.any([observed[f"{axis}_status"] == "edge" for axis in axes], axis=0)
    for name, values in (("regret_pct", "value"), ("regret_stderr", "stderr")):
        table[name] = 100 * np.concatenate([getattr(one, values) for one in regrets])
    for flag in FLAGS:
        table[flag] = np.concatenate([getattr(one, flag) for one in regrets])
    beyond, reach = _reach(places, setup.keys[fold.trained])
    table = table.assign(observed_regret_pct=100 * floor[row], beyond=beyond[row], reach=reach[row])
    table["error"] = [error for _, error, _ in made] * len(held)
    draws = 100 * np.concatenate([one.draws for one in regrets])
    return table, draws, merge(*(notes for _, _, notes in made))


def _predict(
    competitor: Competitor, training: Sweep, places: pd.DataFrame, setup: Setup
) -> tuple[pd.DataFrame, str, list[Note]]:
    """Return one competitor's predictions (NaN where it has none), the reason if it has none, and notes."""
    names = [f"{axis}{end}" for axis in setup.axes for end in _ENDS]
    try:
        predictor = competitor.train(training)
        with warnings.catch_warnings():  # every held-out cell lies beyond the training range; the table says how far
            warnings.simplefilter("ignore", ScalefitWarning)
            found = predictor.optimum(level=setup.level, **{str(n): places[n].to_numpy() for n in places})
        if len(found) != len(places):
            raise SweepError(f"expected one prediction for each of {len(places)} cells, found {len(found)} rows")
        columns = found.reset_index(drop=True).reindex(columns=names).astype(float)
        for axis in setup.axes:
            value = columns[axis].to_numpy()
            if not (np.isnan(value) | ((value > 0) & np.isfinite(value))).all():
                raise SweepError(f"{axis} is predicted as {value[~(value > 0)]}: not a setting")
    except _FAILURES as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        note = Note("failed", f"{competitor.name} made no prediction: {text}", caution=True)
        return pd.DataFrame(np.nan, index=places.index, columns=names), text, [note]
    notes = (n for n in getattr(predictor, "notes", ()) if n.caution and n not in training.notes)
    cautions = [Note(n.code, f"{competitor.name}: {n.text}", True) for n in notes if n.code not in _COUNTED]
    return columns, "", cautions


def _compare(predicted: pd.DataFrame, truth: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Return the observed optimum of a setting, the error of its prediction and whether it lies inside."""
    names, status = [f"{axis}{end}" for end in _ENDS], truth[f"{axis}_status"].to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):  # an open end of the interval is 0, whose log is -inf
        value, low, high = np.log(predicted[names].to_numpy().T)
        observed, first, last = np.log(truth[names].to_numpy(dtype=float).T)
    error, edge = value - observed, status == "edge"
    # At an edge the optimum is a bound, so only the least possible error is known.
    error = np.where(edge & np.isinf(last), np.minimum(error, 0.0), error)
    error = np.where(edge & np.isinf(first), np.maximum(error, 0.0), error)
    above = observed > value
    allowed = np.hypot(np.where(above, high - value, value - low), np.where(above, observed - first, last - observed))
    bounded = np.isfinite([low, high, first, last]).all(axis=0)  # an open interval contains every prediction
    inside = np.where((status == "interior") & bounded, np.abs(error) <= allowed, None)
    columns = {f"observed_{name}": truth[name] for name in names}
    columns[f"observed_log_{axis}_stderr"] = truth[f"log_{axis}_stderr"]
    scores = {f"{axis}_status": status, f"log2_{axis}_error": error / np.log(2), f"{axis}_inside": inside}
    return pd.DataFrame(columns | scores)


def _reach(places: pd.DataFrame, trained: pd.DataFrame) -> tuple[NDArray[np.object_], Floats]:
    """Return on which axes the held-out cells lie outside the training cells, and by what factor."""
    factors = pd.DataFrame(np.maximum(places / trained.max(), trained.min() / places)).clip(lower=1.0)
    return direction(factors), factors.max(axis=1).to_numpy()


def direction(factors: pd.DataFrame, inside: float = 1.0) -> NDArray[np.object_]:
    """Return on which of params and tokens each point lies outside by more than a factor: one, both or neither."""
    params, tokens = (
        factors[n] > inside if n in factors else np.zeros(len(factors), bool) for n in ("params", "tokens")
    )
    return np.select([params & tokens, params, tokens], ["both", "params", "tokens"], "neither").astype(object)
