"""How far off predictions were when they could be checked: laws fitted to some cells, scored on others."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scalefit._values import Note, merge
from scalefit.backtesting.competitors import (
    AUTO,
    REFERENCES,
    Competitor,
    Custom,
    Entrant,
    LawPair,
    Predictor,
    Rule,
    label,
    published_entrant,
)
from scalefit.backtesting.folds import folds_of
from scalefit.backtesting.regret import terrains
from scalefit.backtesting.scores import Arena, Standings, score_fold
from scalefit.display import Face, Shown
from scalefit.errors import SweepError
from scalefit.laws.formula import Law
from scalefit.optima.cells import Estimator
from scalefit.optima.find_optima import find_optima
from scalefit.optima.optimum_estimators import Basin, Parabola
from scalefit.selection.average_laws import average_laws
from scalefit.surface.fit_surface import fit_surface
from scalefit.sweep import Sweep
from scalefit.vocabulary import format_error, format_number


def line_up(
    laws: str | Sequence[Law | str],
    batch_law: Law | str,
    methods: Sequence[Estimator] | None,
    published: Sequence[str],
) -> tuple[Competitor, ...]:
    """Return the usual entrants: references, joint surfaces, every method with every law, published laws asked for.

    Parameters
    ----------
    laws : sequence of Law or str, or str
        Laws for the learning rate; "auto" stands for the average of the usual ones.
    batch_law : Law or str
    methods : sequence of Estimator or None
        None is ``Basin()`` and ``Parabola()``.
    published : sequence of str
        Keys (``"porian2024_lr"``), or what a pair of keys begins with (``"porian2024"``).
    """
    laws = (laws,) if isinstance(laws, str) else laws
    chosen = (Basin(), Parabola()) if methods is None else tuple(methods)
    kinds = [type(method).__name__ for method in chosen]
    pairs = [
        Entrant(f"{kind if kinds.count(kind) == 1 else repr(method)}: {label(law)}", method, law, batch_law)
        for law in laws
        for method, kind in zip(chosen, kinds, strict=True)
    ]
    surfaces = [Custom(f"surface: {label(law)}", _surface_recipe(law, batch_law)) for law in laws]
    known = {entrant.name for entrant in REFERENCES}
    return (
        *REFERENCES,
        *surfaces,
        *pairs,
        *(published_entrant(key) for key in dict.fromkeys(published) if key not in known),
    )


def _surface_recipe(law: Law | str, batch_law: Law | str) -> Callable[[Sweep], Predictor]:
    if AUTO not in (law, batch_law):
        return partial(fit_surface, lr_law=law, batch_law=batch_law, loss_law=None)
    return partial(averaged_surface, lr_law=law, batch_law=batch_law)


def averaged_surface(sweep: Sweep, lr_law: Law | str = AUTO, batch_law: Law | str = "batch_power") -> LawPair:
    """Return a surface's prediction with "auto" laws replaced by averages through the centres of its cells.

    Parameters
    ----------
    sweep : Sweep
        The only runs seen.
    lr_law, batch_law : Law or str
        Where "auto", the surface is fitted with the straight law first.
    """
    straight = {"lr": "lr_power", "batch": "batch_power"}
    asked = {"lr": lr_law, "batch": batch_law}
    posed = {name: straight[name] if law == AUTO else law for name, law in asked.items()}
    surface = fit_surface(sweep, lr_law=posed["lr"], batch_law=posed["batch"], loss_law=None)
    fits = {"lr": surface.lr_fit, "batch": surface.batch_fit}
    rules: dict[str, Rule] = {
        name: average_laws(surface, target=name) if asked[name] == AUTO else found
        for name, found in fits.items()
        if found is not None
    }
    return LawPair(rules, merge(*(getattr(rule, "notes", ()) for rule in rules.values())))


Floats = NDArray[np.float64]

_OF_METHOD = ("asymmetry", "touching", "mixed", "unfinished")
"""Doubts about the optima that predictions are compared with."""


@dataclass(frozen=True, eq=False, repr=False)
class Backtest(Shown):
    """Predictions for held-out cells beside what was found there; made by `backtest`.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a held-out cell and entrant: `fold`, `params`, `tokens`, `entrant`; per setting (`lr` here) the
        prediction `lr`, `lr_lo`, `lr_hi`, the observed optimum `observed_lr`, `observed_lr_lo`, `observed_lr_hi`,
        `observed_log_lr_stderr` (of its natural log; NaN at an edge), `lr_status`, the error `log2_lr_error` and
        `lr_inside`; `censored`; `regret_pct`, `regret_stderr`, the flags `clipped`, `off_hull` and `beside_diverged`;
        `observed_regret_pct`, the regret of the observed optimum;
        `beyond` (the axes on which the cell lies outside the training cells: params, tokens, both or neither),
        `reach` (by what factor, 1 inside); `error`, why an entrant failed.
    holdout : tuple of str
        The folds.
    axes : tuple of str
        The settings predicted.
    level : float
        Coverage of the intervals.
    notes : tuple of Note
    source : str

    Notes
    -----
    *Error*: log2 of predicted over observed. Where the observed optimum is an edge of its grid (`censored`) it is a
    bound, and the error is the least it can have been: 0 when the prediction lies beyond the bound. Such errors
    enter no mean, and nothing is said of the interval.

    *Inside*: the observed optimum has an error too. With the half-widths, in logs, of the predicted and the observed
    interval on the sides facing each other, inside means that their distance is at most the root of the sum of squares.
    For a law's own interval, which already holds the scatter of single optima, that is lenient. It is None where the
    optimum is no point or either interval is open or missing.
    """

    _table: pd.DataFrame
    _draws: Floats
    holdout: tuple[str, ...]
    axes: tuple[str, ...]
    level: float = 0.95
    notes: tuple[Note, ...] = field(default=())
    source: str = "table"

    @property
    def table(self) -> pd.DataFrame:
        """The predictions and their scores, as a copy."""
        return self._table.copy()

    def summary(self) -> pd.DataFrame:
        """Return one row per entrant, best first.

        Returns
        -------
        pandas.DataFrame
            `entrant`; `cells` scored, `failed`; `regret_pct`, the mean, with `regret_stderr`; `worst_pct` and
            `worst_stderr`; `behind_pct`, the mean over the best entrant's, with `behind_stderr` (the noise of the
            cells is common to both, so this is more certain than either); per setting the mean absolute log2 error
            (`lr_log2`), the mean absolute percentage error (`lr_mape`) and the share of observed optima inside the
            interval (`lr_coverage`), all three over the uncensored cells; the shares `censored` and `clipped` (any of
            the flags that make a regret a lower bound); and, when some cells extrapolate in params alone and others
            in tokens alone, the mean regret of each kind, `regret_params` and `regret_tokens`.

        Notes
        -----
        Ranked by mean regret among the entrants that have one for every cell; those with fewer cells follow.
        """
        return self._standings.summary.copy()

    @cached_property
    def _standings(self) -> Standings:
        return Standings(self._table, self._draws, self.axes)

    def by_axis(self) -> pd.DataFrame:
        """Compare extrapolation in params with extrapolation in tokens, entrant by entrant.

        Returns
        -------
        pandas.DataFrame
            One row per `beyond` and entrant: `cells`, `reach` (geometric mean), `regret_pct`, `regret_stderr`, and the
            mean absolute log2 error of each setting.

        Notes
        -----
        arXiv:2606.29158 reports that laws extrapolate better in data than in model size. Compare at equal reach.
        """
        return self._standings.by_axis

    def _face(self) -> Face:
        scores = self.summary()
        cells = self._table.drop_duplicates(["fold", *(n for n in ("params", "tokens") if n in self._table)])
        folds = self.holdout
        held = "; ".join(folds) if len(folds) < 4 else f"{folds[0]}; ...; {folds[-1]} ({len(folds)} folds)"
        facts = [("held out", held), ("cells", f"{len(cells)}, {_told(cells['beyond'])}")]
        facts += [("reach", f"{format_number(cells['reach'].min(), 3)} .. {format_number(cells['reach'].max(), 3)}")]
        floor = f"mean loss excess over the best run of each cell, %; {_floor(cells)} at the observed optima"
        facts += [("regret", floor), ("source", self.source)]
        shown = pd.DataFrame({"entrant": scores["entrant"], "cells": scores["cells"].astype(str)})
        for heading, name in (("regret", "regret"), ("worst", "worst"), ("behind", "behind")):
            shown[heading] = _with_errors(scores[f"{name}_pct"], scores[f"{name}_stderr"])
        for axis in self.axes:
            shown[f"{axis} log2"] = scores[f"{axis}_log2"].map(lambda value: format_number(value, 2))
            shown[f"{axis} inside"] = scores[f"{axis}_coverage"].map(_percent)
        shown["clipped"] = scores["clipped"].map(_percent)
        for kind in ("params", "tokens"):
            if f"regret_{kind}" in scores:
                shown[f"beyond {kind}"] = scores[f"regret_{kind}"].map(lambda value: format_number(value, 3))
        return Face("Backtest", tuple(facts), shown, self.notes)


def backtest(
    sweep: Sweep,
    holdout: str | Sequence[str],
    *,
    laws: Sequence[Law | str] = ("lr_power",),
    batch_law: Law | str = "batch_power",
    methods: Sequence[Estimator] | None = None,
    published: Sequence[str] = (),
    entrants: Sequence[Competitor] | None = None,
    observed: Estimator | None = None,
    level: float = 0.95,
) -> Backtest:
    """Hold cells out, learn from the rest, and score the predictions for the cells held out.

    Parameters
    ----------
    sweep : Sweep
    holdout : str or sequence of str
        A condition on whole cells, ``"params > 1e9"`` (grammar of `Sweep.where`); ``"largest params"``,
        ``"largest tokens"``, or ``"largest both"`` for the cells largest in either; ``"rolling params"`` or
        ``"rolling tokens"``: one fold per level, learnt from everything strictly smaller, once that is six cells
        (four where only one axis varies) that vary in every axis. Several make several folds.
    laws : sequence of Law or str
        Laws for the learning rate.
    batch_law : Law or str
        The law for the batch size that goes with them.
    methods : sequence of Estimator, optional
        How optima are read off; ``Basin()`` and ``Parabola()`` by default. Each is paired with each law.
    published : sequence of str
        Published laws to enter: ``"porian2024"`` for a pair, ``"kaplan2020_lr"`` for one.
    entrants : sequence, optional
        Exactly these in place of the line-up: `Entrant`, `Baseline`, `PublishedEntrant`, `Custom`, or anything with a
        `name` and `train(sweep)`.
    observed : Estimator, optional
        How the optima of the held-out cells are read off; ``Basin(level=level)`` by default.
    level : float
        Coverage of the intervals.

    Returns
    -------
    Backtest
        The reference procedures are always in the line-up: grid minimum + OLS, runs within 0.25 % + OLS, and the
        published Step Law coefficients.

    Raises
    ------
    SweepError
        If nothing is left to hold out or to train on, a cell would be split, two entrants share a name, all runs
        diverged, or the sweep varied neither setting. An entrant that cannot learn or predict is no error: its rows
        say why.

    Examples
    --------
    >>> from scalefit.simulation import simulate_sweep
    >>> runs = simulate_sweep(seed=1)
    >>> report = backtest(Sweep.from_frame(runs.assign(diverged=runs["loss"].isna())), "params >= 1e9")
    >>> len(report.table), list(report.summary()["cells"])
    (24, [4, 4, 4, 4, 4, 4])
    """
    if not isinstance(sweep, Sweep):
        raise SweepError(f"backtest expects a Sweep, found {type(sweep).__name__}: read_sweep(table, ...) makes one")
    if not 0 < level < 1:
        raise SweepError(f"level: expected a number between 0 and 1, found {level!r}")
    sweep.require_losses("no prediction to score")
    keys, cell, grounds = terrains(sweep)
    folds = folds_of(sweep, keys, cell, holdout)
    chosen = line_up(laws, batch_law, methods, published) if entrants is None else tuple(entrants)
    _check_entrants(chosen)
    axes = grounds[0].axes
    found = find_optima(sweep, over=axes, by=tuple(keys.columns), method=observed or Basin(level=level))
    truth = found.table.rename(columns={"status": f"{axes[0]}_status"} if len(axes) == 1 else {})
    arena = Arena(sweep, keys, cell, grounds, truth, chosen, level)
    scores = [score_fold(arena, fold) for fold in folds]
    table = pd.concat([score.table for score in scores], ignore_index=True)
    draws = np.concatenate([score.draws for score in scores])
    names = tuple(fold.name for fold in folds)
    report = Backtest(table, draws, names, axes, level, sweep.notes, sweep.source)
    doubted = (note for note in found.notes if note.caution and note.code in _OF_METHOD)
    doubts = [Note(note.code, f"observed optima: {note.text}", True) for note in doubted]
    told = _once(note for score in scores for note in score.notes)
    final = replace(report, notes=merge(sweep.notes, _remarks(report), doubts, told))
    vars(final)["_standings"] = report._standings  # notes do not change them
    return final


def _check_entrants(entrants: Sequence[Competitor]) -> None:
    for entrant in entrants:
        if not isinstance(getattr(entrant, "name", None), str) or not callable(getattr(entrant, "train", None)):
            raise SweepError(f"entrants: expected objects with a name and train(sweep), found {entrant!r}")
    names = [entrant.name for entrant in entrants]
    if not names or len(set(names)) != len(names):
        twice = next((name for name in names if names.count(name) > 1), None)
        raise SweepError("no entrant to score" if twice is None else f"two entrants are called {twice!r}")


def _once(notes: Iterable[Note]) -> list[Note]:
    """Keep one of the notes that differ from fold to fold in their numbers only: the last."""
    return list({(note.code, re.sub(r"\d+", "", note.text)): note for note in notes}.values())


def _remarks(report: Backtest) -> list[Note]:
    """Return what a reader of the scores should know."""
    table = report._table
    cells = table.drop_duplicates(["fold", *(name for name in ("params", "tokens") if name in table)])
    notes = []
    for axis in report.axes:
        status = cells[f"{axis}_status"].value_counts()
        if bounds := status.get("edge", 0):
            text = f"{axis}: in {bounds} of {len(cells)} held-out cells the best is at the edge of the grid, a bound; "
            notes.append(Note("censored", f"{text}the error there is a least value and enters no mean", caution=True))
        if unknown := status.get("flat", 0) + status.get("too_few", 0):
            text = f"{axis}: in {unknown} of {len(cells)} held-out cells no optimum can be read off; regret only"
            notes.append(Note("unobserved", text, caution=True))
    meaning = {
        "clipped": "lie outside the grid of their cell; their regret is read at its border",
        "off_hull": "lie outside the hull of their cell's runs; their regret is read at the nearest place on it",
        "beside_diverged": "lie beside a diverged run; it counts with the highest loss of the cell",
    }
    for flag, text in meaning.items():
        if count := int(table[flag].sum()):
            text = f"{count} of {len(table)} predictions {text}, which understates it"
            notes.append(Note(flag, text, caution=True))
    return [*notes, *_rolls(report), *_against(report)]


def _rolls(report: Backtest) -> list[Note]:
    if not any("from smaller" in name for name in report.holdout):
        return []
    return [Note("rolling", "folds start once enough smaller cells vary in every axis; levels below are not scored")]


def _against(report: Backtest) -> list[Note]:
    """Compare extrapolation in params with extrapolation in tokens, for the best entrant."""
    scores = report._standings.summary
    if "regret_tokens" not in scores:
        return []
    best = scores["entrant"].iloc[0]
    rows = {kind: report._standings.along(kind, best) for kind in ("params", "tokens")}
    told = " and ".join(
        f"{format_error(row['regret_pct'], row['regret_stderr'])} % beyond {kind} "
        f"({row['cells']} cell(s), reach {format_number(row['reach'], 2)}x)"
        for kind, row in rows.items()
    )
    return [Note("params_tokens", f"mean regret of {best}: {told}")]


def _told(beyond: pd.Series) -> str:
    texts = {"params": "beyond in params", "tokens": "beyond in tokens", "both": "in both", "neither": "within"}
    counts = beyond.value_counts()
    return ", ".join(f"{counts[kind]} {text}" for kind, text in texts.items() if kind in counts)


def _floor(cells: pd.DataFrame) -> str:
    return format_number(cells["observed_regret_pct"].mean(), 3)


def _with_errors(values: pd.Series, errors: pd.Series) -> list[str]:
    return [format_error(value, error) for value, error in zip(values, errors, strict=True)]


def _percent(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.0%}"
