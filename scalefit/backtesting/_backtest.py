"""How far off predictions were when they could be checked: laws fitted to some cells, scored on others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from scalefit._values import Note, merge
from scalefit.backtesting.competitors import Competitor
from scalefit.backtesting.folds import FLAGS, Setup, folds_of, score_fold
from scalefit.backtesting.regret import group_runs, searched_axes
from scalefit.backtesting.scores import Scores, too_few
from scalefit.backtesting.usual_competitors import usual_competitors
from scalefit.display import Display, Displayable
from scalefit.errors import SweepError
from scalefit.laws.formula import Law
from scalefit.optima.cells import Estimator, Floats
from scalefit.optima.find_optima import find_optima
from scalefit.optima.optimum_estimators import Basin
from scalefit.sweep import Sweep
from scalefit.vocabulary import format_error, format_number

_OF_METHOD = ("asymmetry", "touching", "mixed", "unfinished")
"""Cautions about the optima that predictions are compared with."""


@dataclass(frozen=True, eq=False, repr=False)
class Backtest(Displayable):
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
        What to think of before trusting the scores.
    source : str
        Where the runs came from.

    See Also
    --------
    backtest
    extrapolate : a prediction that quotes the error measured here.

    Notes
    -----
    *Regret*: the loss interpolated at the prediction over the lowest loss of the cell, minus one. The interpolation is
    linear over a Delaunay triangulation of the cell's runs in ln lr and ln batch (over the line of its learning rates
    when the batch was not varied), at the point clipped to the range of each axis.

    *Error*: log2 of predicted over observed. Where the observed optimum is an edge of its grid (`censored`) it is a
    bound, and the error is the least it can have been: 0 when the prediction lies beyond the bound. Such errors
    enter no mean, and nothing is said of the interval.

    *Inside*: the observed optimum has an error too. With the half-widths, in logs, of the predicted and the observed
    interval on the sides facing each other, inside means that their distance is at most the root of the sum of squares.
    For a law's own interval, which already holds the scatter of single optima, that is lenient. It is None where the
    optimum is no point or either interval is open or missing.

    Examples
    --------
    >>> import scalefit as sf
    >>> report = sf.backtest(sf.load_dataset("tiny-lm"), "largest params", entrants=[sf.Baseline("plain", 0.0)])
    >>> report.axes, report.table["beyond"].unique().tolist()
    (('lr', 'batch'), ['params'])
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

    @cached_property
    def _scores(self) -> Scores:
        return Scores(self._table, self._draws, self.axes, self.level)

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

        Examples
        --------
        >>> import scalefit as sf
        >>> plain = [sf.Baseline("best run", 0.0), sf.Baseline("within 1 %", 0.01)]
        >>> scores = sf.backtest(sf.load_dataset("tiny-lm"), "largest params", entrants=plain).summary()
        >>> float(scores["behind_pct"].iloc[0])
        0.0
        """
        return self._scores.summary.copy()

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

        Examples
        --------
        >>> import scalefit as sf
        >>> folds = ["largest params", "largest tokens"]
        >>> report = sf.backtest(sf.load_dataset("tiny-lm"), folds, entrants=[sf.Baseline("best run", 0.0)])
        >>> report.by_axis()["beyond"].tolist()
        ['params', 'tokens']
        """
        return self._scores.by_axis.copy()

    def coverage(self) -> pd.DataFrame:
        r"""Say how often the intervals held the observed optimum, by kind of extrapolation, entrant and setting.

        Returns
        -------
        pandas.DataFrame
            One row per `beyond`, entrant and `setting` (lr, batch, and "lr and batch" for both at once): `folds` and
            `cells` where optimum and interval are bounded; `inside`, the share of observed optima in the interval when
            their own error is added in squares; `held`, the share when they are taken as exact; `half_width`, the
            median, and `score`, the mean interval score, both in octaves. All are for the intervals' `level`.

        Notes
        -----
        An observed optimum is the truth plus an error of its reading. An interval that is right for the truth holds a
        reading less often than its level says, so `held` is a lower bound of its coverage. `inside` counts that error
        and is the one to compare with the level, unless the interval holds the scatter of readings already, as that of
        a `Fit` does: then it is an upper bound. Cells of a fold miss together, so that few folds prove little.

        The *interval score* of (l, u) at level 1 - a is u - l + (2/a) times the distance by which the observed optimum
        lies outside, in log2: lower is better, and only the right interval is lowest on average (Gneiting and Raftery
        2007, JASA 102, 359).

        Examples
        --------
        >>> import scalefit as sf
        >>> fits = [sf.Entrant("parabola", sf.Parabola(), "lr_power", "batch_power")]
        >>> sf.backtest(sf.load_dataset("tiny-lm"), "largest params", entrants=fits).coverage()["setting"].tolist()
        ['lr', 'batch', 'lr and batch']
        """
        return self._scores.coverage.copy()

    def _display(self) -> Display:
        scores, cells, folds = self.summary(), _held_cells(self._table), self.holdout
        held = "; ".join(folds) if len(folds) < 4 else f"{folds[0]}; ...; {folds[-1]} ({len(folds)} folds)"
        where = {"params": "beyond in params", "tokens": "beyond in tokens", "both": "in both", "neither": "within"}
        counts = cells["beyond"].value_counts()
        beyond = ", ".join(f"{counts[kind]} {text}" for kind, text in where.items() if kind in counts)
        floor = format_number(cells["observed_regret_pct"].mean(), 3)
        facts = (
            ("held out", held),
            ("cells", f"{len(cells)}, {beyond}"),
            ("reach", f"{format_number(cells['reach'].min(), 3)} .. {format_number(cells['reach'].max(), 3)}"),
            ("regret", f"mean loss excess over the best run of each cell, %; {floor} at the observed optima"),
            (
                "intervals",
                f"{self.level:.0%}; inside allows for the error of the observed optimum; coverage() gives both",
            ),
            ("source", self.source),
        )
        shown = pd.DataFrame({"entrant": scores["entrant"], "cells": scores["cells"].astype(str)})
        for name in ("regret", "worst", "behind"):
            shown[name] = list(map(format_error, scores[f"{name}_pct"], scores[f"{name}_stderr"]))
        for axis in self.axes:
            shown[f"{axis} log2"] = [format_number(value, 2) for value in scores[f"{axis}_log2"]]
            shown[f"{axis} inside"] = _percent(scores[f"{axis}_coverage"])
        shown["clipped"] = _percent(scores["clipped"])
        for kind in ("params", "tokens"):
            if f"regret_{kind}" in scores:
                shown[f"beyond {kind}"] = [format_number(value, 3) for value in scores[f"regret_{kind}"]]
        return Display("Backtest", facts, shown, self.notes)


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
        The runs, with lr or batch varied within cells of equal params and tokens.
    holdout : str or sequence of str
        A condition on whole cells, ``"params > 1e9"`` (grammar of `Sweep.where`); ``"largest params"``,
        ``"largest tokens"``, or ``"largest both"`` for the cells largest in either; ``"rolling params"`` or
        ``"rolling tokens"``: one fold per level, learnt from everything strictly smaller, once that is six cells
        (four where only one axis varies) that vary in every axis; ``"rolling both"``: one fold per cell, learnt from
        cells smaller in both. Several make several folds.
    laws : sequence of Law or str, or "auto"
        Laws for the learning rate; "auto" is the average of the usual ones.
    batch_law : Law or str
        The law for the batch size that goes with them.
    methods : sequence of Basin, Parabola, NearMinimum or GridMinimum, optional
        How optima are estimated; ``Basin()`` and ``Parabola()`` by default. Each is paired with each law.
    published : sequence of str
        Published laws to enter: ``"porian2024"`` for a pair, ``"kaplan2020_lr"`` for one.
    entrants : sequence of Competitor, optional
        Exactly these in place of all the above: `Entrant`, `EffectiveEntrant`, `Baseline`, `PublishedEntrant`,
        `Custom`, or anything with a `name` and `train(sweep)`.
    observed : Basin, Parabola, NearMinimum or GridMinimum, optional
        How the optima of the held-out cells are estimated; ``Basin(level=level)`` by default.
    level : float
        Coverage of the intervals.

    Returns
    -------
    Backtest
        By default three reference procedures compete too: grid minimum + OLS, runs within 0.25 % + OLS, and the
        published Step Law coefficients.

    Raises
    ------
    SweepError
        If nothing is left to hold out or to train on, a cell would be split, two entrants share a name, all runs
        diverged, or the sweep varied neither setting. An entrant that cannot learn or predict is no error: its rows
        say why.

    See Also
    --------
    extrapolate, Competitor

    Examples
    --------
    >>> import scalefit as sf
    >>> report = sf.backtest(sf.load_dataset("tiny-lm"), "params > 2e5")
    >>> list(report.summary().columns[:4]), len(report.summary())
    (['entrant', 'cells', 'failed', 'regret_pct'], 6)
    """
    if not isinstance(sweep, Sweep):
        raise SweepError(f"backtest expects a Sweep, found {type(sweep).__name__}: read_sweep(table, ...) makes one")
    if not 0 < level < 1:
        raise SweepError(f"level: expected a number between 0 and 1, found {level!r}")
    sweep.require_losses("no prediction to score")
    keys, cell, runs = group_runs(sweep)
    folds = folds_of(sweep, keys, cell, holdout)
    competitors = usual_competitors(laws, batch_law, methods, published) if entrants is None else tuple(entrants)
    _check_competitors(competitors)
    axes = searched_axes(sweep)
    found = find_optima(sweep, over=axes, by=tuple(keys.columns), method=observed or Basin(level=level))
    truth = found.table.rename(columns={"status": f"{axes[0]}_status"} if len(axes) == 1 else {})
    setup = Setup(sweep, keys, cell, runs, axes, truth, competitors, level)
    tables, draws, fold_notes = zip(*(score_fold(setup, fold) for fold in folds), strict=True)
    scores = Scores(pd.concat(tables, ignore_index=True), np.concatenate(draws), axes, level)
    names = tuple(fold.name for fold in folds)
    kept = (note for note in found.notes if note.caution and note.code in _OF_METHOD)
    cautions = [Note(note.code, f"observed optima: {note.text}", True) for note in kept]
    # Notes of several folds may differ only in their numbers; the last one is kept.
    once = {(note.code, re.sub(r"\d+", "", note.text)): note for notes in fold_notes for note in notes}
    notes = merge(sweep.notes, _notes(scores, names), cautions, once.values())
    return Backtest(scores.table, scores.draws, names, axes, level, notes, sweep.source)


def _percent(shares: pd.Series) -> list[str]:
    return ["" if np.isnan(share) else f"{share:.0%}" for share in shares]


def _held_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each cell of each fold."""
    return table.drop_duplicates(["fold", *(name for name in ("params", "tokens") if name in table)])


def _check_competitors(competitors: Sequence[Competitor]) -> None:
    for one in competitors:
        if not isinstance(getattr(one, "name", None), str) or not callable(getattr(one, "train", None)):
            raise SweepError(f"entrants: expected objects with a name and train(sweep), found {one!r}")
    names = [one.name for one in competitors]
    if not names or len(set(names)) != len(names):
        twice = next((name for name in names if names.count(name) > 1), None)
        raise SweepError("no entrant to score" if twice is None else f"two entrants are called {twice!r}")


def _notes(scores: Scores, folds: Sequence[str]) -> list[Note]:
    """Return what a reader of the scores should know."""
    table, cells, notes = scores.table, _held_cells(scores.table), []
    for axis in scores.axes:
        status = cells[f"{axis}_status"].value_counts()
        if bounds := status.get("edge", 0):
            text = f"{axis}: in {bounds} of {len(cells)} held-out cells the best is at the edge of the grid, a bound; "
            notes.append(Note("censored", f"{text}the error there is a least value and enters no mean", caution=True))
        if unknown := status.get("flat", 0) + status.get("too_few", 0):
            text = f"{axis}: in {unknown} of {len(cells)} held-out cells no optimum can be read off; regret only"
            notes.append(Note("unobserved", text, caution=True))
    meanings = (
        "lie outside the grid of their cell; their regret is read at its border",
        "lie outside the hull of their cell's runs; their regret is read at the nearest place on it",
        "lie beside a diverged run; it counts with the highest loss of the cell",
    )
    for flag, text in zip(FLAGS, meanings, strict=True):
        if count := int(table[flag].sum()):
            text = f"{count} of {len(table)} predictions {text}, which understates it"
            notes.append(Note(flag, text, caution=True))
    notes += _coverage_notes(scores)
    if any("from smaller" in name for name in folds):
        text = "folds start once enough smaller cells vary in every axis; levels below are not scored"
        notes.append(Note("rolling", text))
    if "regret_tokens" in scores.summary:
        best = scores.summary["entrant"].iloc[0]
        rows = scores.by_axis[scores.by_axis["entrant"] == best].set_index("beyond")
        both = " and ".join(
            f"{format_error(rows.at[kind, 'regret_pct'], rows.at[kind, 'regret_stderr'])} % beyond {kind} "
            f"({rows.at[kind, 'cells']} cell(s), reach {format_number(rows.at[kind, 'reach'], 2)}x)"
            for kind in ("params", "tokens")
        )
        notes.append(Note("params_tokens", f"mean regret of {best}: {both}"))
    return notes


def _coverage_notes(scores: Scores) -> list[Note]:
    """Say in how many cells the leading entrant's intervals hold the optimum; a caution where those are too few."""
    table = scores.coverage
    own = table[table["entrant"] == next((n for n in scores.summary["entrant"] if n in set(table["entrant"])), None)]
    notes = []
    for beyond, rows in own.groupby("beyond", sort=False):
        where = {"both": "beyond in params and tokens", "neither": "inside"}.get(str(beyond), f"beyond in {beyond}")
        counts = ", ".join(
            f"{s} in {round(n * share)} of {n}"
            for s, n, share in zip(rows["setting"], rows["cells"], rows["inside"], strict=True)
        )
        text = f"{scores.level:.0%} intervals of {rows['entrant'].iloc[0]} hold {counts} cells {where}"
        short = too_few(rows["inside"] * rows["cells"], rows["cells"], scores.level)[rows["setting"] != "lr and batch"]
        text += ": too narrow there; extrapolate(..., conformal=) widens by these errors" if short.any() else ""
        notes.append(Note("coverage", text, caution=bool(short.any())))
    return notes
