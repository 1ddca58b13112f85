"""The loss curves of many runs as one frozen value, and what may be asked of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note, Tabular, merge
from scalefit.curves.crossings import CROSSINGS, count_above, locate
from scalefit.curves.smoothing import Layout, Smoother
from scalefit.display import Display, Displayable
from scalefit.errors import LawError, SweepError
from scalefit.laws.expressions import evaluate_condition, names, parse
from scalefit.sweep import Sweep
from scalefit.vocabulary import AXES, BY_COLUMN, BY_SYMBOL, QUANTITIES, column_of, format_number, format_span, unit_of

Array = np.ndarray

# Columns of which the last point is the value of the finished run.
_ALONG = ("steps", "tokens", "loss", "flops", "weight_norm")


@dataclass(frozen=True, eq=False, repr=False)
class Curves(Displayable, Tabular):
    """The loss along training of many runs; made by `read_curves`, never changed.

    Attributes
    ----------
    table : pandas.DataFrame
        A copy of the points, one row each, run after run: `run`, `steps` and `tokens` (those known), `loss`, and every
        column that changes along the runs.
    runs : pandas.DataFrame
        A copy of the runs, one row each: `run`, the columns with one value a run, `points`, and `diverged`; where a run
        did, also `diverged_at`, the tokens (else steps) of its first loss that was not finite.
    units : mapping of str to str
        The unit of each column of the vocabulary that is present.
    notes : tuple of Note
        All that was done to the input, or doubted about it.
    source : str
        Where the curves came from.
    data_unit : str
        What `tokens` and `batch` count.
    params_convention : str or None
        What `params` counts, when it is known.

    See Also
    --------
    read_curves : Makes them.
    plots.curves : Draws them.

    Examples
    --------
    >>> import scalefit as sf
    >>> rows = [{"run": r, "lr": 0.1, "tokens": t, "loss": 2 + t**-0.5} for r in "ab" for t in (1, 4, 16, 64)]
    >>> curves = sf.read_curves(rows)
    >>> len(curves), len(curves.where("tokens > 1").table)
    (2, 6)
    >>> curves.final().table["loss"].tolist()
    [2.125, 2.125]
    """

    _points: pd.DataFrame
    _runs: pd.DataFrame
    _layout: Layout
    notes: tuple[Note, ...] = ()
    source: str = "table"
    data_unit: str = "tokens"
    params_convention: str | None = None

    @classmethod
    def of(
        cls,
        points: pd.DataFrame,
        runs: pd.DataFrame,
        layout: Layout,
        notes: tuple[Note, ...],
        source: str,
        data_unit: str,
        params_convention: str | None,
    ) -> Curves:
        """Put curves together from points that are in order; `read_curves` sees to that."""
        first = [name for name in ("run", *(q.column for q in QUANTITIES if q.column != "run")) if name in runs]
        last = [name for name in runs if name not in first and name != "diverged"]
        known = [name for name in ("steps", "tokens", "loss") if name in points]
        points = points[[*known, *(name for name in points if name not in known)]]
        return cls(points, runs[[*first, *last, "diverged"]], layout, notes, source, data_unit, params_convention)

    @property
    def table(self) -> pd.DataFrame:
        """The points, as a copy that can be changed without changing the curves."""
        run = pd.Categorical.from_codes(self._layout.code, dtype=pd.CategoricalDtype(self._runs["run"]))
        table = self._points.copy()
        table.insert(0, "run", pd.Series(run))
        return table

    @property
    def runs(self) -> pd.DataFrame:
        """The runs, as a copy that can be changed without changing the curves."""
        runs = self._runs.copy()
        runs.insert(len(runs.columns) - 1, "points", self._layout.counts)
        return runs

    @property
    def units(self) -> Mapping[str, str]:
        """The unit of each column of the vocabulary that is present."""
        present = [name for name in BY_COLUMN if name in self._points or name in self._runs]
        return MappingProxyType({name: unit_of(name, self.data_unit) for name in present})

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self._runs)

    @property
    def _x(self) -> str:
        return "tokens" if "tokens" in self._points else "steps"

    def where(self, condition: str) -> Curves:
        """Return the curves of the runs, or the points of the curves, that satisfy a condition.

        Parameters
        ----------
        condition : str
            A comparison of columns or symbols: of the runs, such as ``"params < 1e9"``, which selects whole runs; or
            one with columns that change along the runs, such as ``"lr_share == 1"`` or ``"tokens > 1e8"``, which
            selects points, and leaves out runs without any. `lr` is the peak.

        Returns
        -------
        Curves
            With a note of what was selected.

        Raises
        ------
        SweepError
            If the text is not a condition on these columns, or nothing satisfies it.

        Examples
        --------
        >>> import scalefit as sf
        >>> rows = [{"run": r, "lr": 0.1, "tokens": t, "loss": 2 + t**-0.5} for r in "ab" for t in (1, 4, 16, 64)]
        >>> sf.read_curves(rows).where("tokens > 4").runs[["run", "points"]].values.tolist()
        [['a', 2], ['b', 2]]
        """
        try:
            asked = [column_of(name) for name in names(parse(condition, condition=True))]
            along = [name for name in asked if name in self._points and name not in self._runs]
            columns = {name: self._runs[name].to_numpy() for name in asked if name in self._runs}
            if along:
                columns = {name: self._layout.spread(values) for name, values in columns.items()}
                columns |= {name: self._points[name].to_numpy() for name in along}
            symbols = {symbol: columns[q.column] for symbol, q in BY_SYMBOL.items() if q.column in columns}
            found = evaluate_condition(condition, columns | symbols)
        except LawError as error:
            there = ", ".join(map(str, [*self._runs, *self._points]))
            raise SweepError(f"{error}; the columns of these curves are {there}") from None
        size, what = (len(self._points), "points") if along else (len(self), "runs")
        keep = np.broadcast_to(np.asarray(found, dtype=bool), size)
        if not keep.any():
            raise SweepError(f"none of the {size} {what} satisfies {condition!r}")
        note = Note("where", f"{int(keep.sum())} of {size} {what} selected by {condition!r}")
        points = keep if along else self._layout.spread(keep)
        counts = self._layout.select(points).counts
        runs = counts > 0 if along else keep  # a run selected whole stays, though it may have no point
        return replace(
            self,
            _points=self._points[points].reset_index(drop=True),
            _runs=self._runs[runs].reset_index(drop=True),
            _layout=Layout(np.concatenate([[0], np.cumsum(counts[runs])])),
            notes=merge(self.notes, [note]),
        )

    def smooth(self, method: Smoother) -> Curves:
        """Return the curves with their losses smoothed, which a note records.

        Parameters
        ----------
        method : Smoother
            ``LocalLine(0.2)``, ``MovingAverage(11)``, ``Gaussian(5)``, ``Exponential(5)``: see each for what it does to
            a falling curve. No method reaches across the border of a run.

        Returns
        -------
        Curves
            The same runs and points.

        Raises
        ------
        SweepError
            If it is no such method.

        See Also
        --------
        LocalLine, MovingAverage, Gaussian, Exponential : The methods.

        Examples
        --------
        >>> import scalefit as sf
        >>> rows = [{"run": r, "lr": 0.1, "tokens": t, "loss": 2 + t**-0.5} for r in "ab" for t in (1, 4, 16, 64)]
        >>> sf.read_curves(rows).smooth(sf.MovingAverage(3)).table["loss"].round(3).tolist()[:4]
        [3.0, 2.583, 2.292, 2.125]
        """
        if not callable(getattr(method, "smooth", None)) or isinstance(method, type):
            raise SweepError(f"method should be one such as LocalLine(0.2) or MovingAverage(11), found {method!r}")
        x, loss = self._points[self._x].to_numpy(dtype=float), self._points["loss"].to_numpy()
        smoothed = method.smooth(self._layout, x, loss)
        note = Note("smooth", f"the losses were smoothed by {method!r}")
        return replace(self, _points=self._points.assign(loss=smoothed), notes=merge(self.notes, [note]))

    def final(self, share: float | None = None, *, rtol: float = 0.01) -> Sweep:
        """Return the sweep of the runs' final losses.

        Parameters
        ----------
        share : float, optional
            Average the loss over the last share of each run, ``0.05`` say, in data (in steps where data are not known);
            the last point alone without it. The mean is higher than the end of a falling curve; the last point after
            ``smooth(LocalLine(0.2))`` is as little noisy and is not (``docs/curves.md``).
        rtol : float
            Values within this relative tolerance are one level of the sweep.

        Returns
        -------
        Sweep
            One row a run: its columns, with the tokens and steps of its last point. Diverged runs are in it, marked,
            with those at which they ended.

        Raises
        ------
        SweepError
            If `share` has no meaning, or nothing tells where the runs sit in a sweep: no lr, batch, params or tokens.

        Examples
        --------
        >>> import scalefit as sf
        >>> rows = [{"run": r, "lr": 0.1, "tokens": t, "loss": 2 + t**-0.5} for r in "ab" for t in (1, 4, 16, 64)]
        >>> sf.read_curves(rows).final(0.8).table["loss"].round(4).tolist()
        [2.1875, 2.1875]
        """
        if share is not None and not 0 < share <= 1:
            raise SweepError(f"share should be above 0 and at most 1, found {share!r}")
        layout = self._layout
        along = [name for name in _ALONG if name in self._points and name not in self._runs]
        ends = {name: layout.at_end(self._points[name].to_numpy(dtype=float)) for name in along}
        text = "loss is that of the last point of each run"
        if share is not None:
            x = self._points[self._x].to_numpy(dtype=float)
            late = x >= (1 - share) * layout.spread(layout.at_end(x))
            chosen = layout.select(late)
            sums = np.bincount(chosen.code, self._points["loss"].to_numpy()[late], minlength=len(self))
            with np.errstate(invalid="ignore"):
                ends["loss"] = sums / chosen.counts
            text = f"loss is the mean over the last {share:g} of each run's {self._x}, {_range(chosen.counts)} points"
        notes = [Note("final", text)]
        if lost := int(self._runs["diverged"].sum()):
            empty = layout.counts == 0
            ends[self._x] = np.where(empty, self._runs["diverged_at"], ends[self._x])
            text = f"{lost} diverged runs have the {self._x} at which they ended, and so may be in cells of their own"
            notes.append(Note("ended", text, caution=True))
        return Sweep.from_frame(
            self._runs.drop(columns="diverged_at", errors="ignore").assign(**ends),
            notes=merge(self.notes, notes),
            source=self.source,
            rtol=rtol,
            params_convention=self.params_convention,
            data_unit=self.data_unit,
        )

    def tokens_to_target(self, targets: float | Sequence[float], *, crossing: str = "monotone") -> pd.DataFrame:
        r"""Return how much data, and how many steps, every run takes to reach each target loss.

        Parameters
        ----------
        targets : float or sequence of float
            Losses, in the unit of the curves.
        crossing : {"monotone", "first", "last"}
            What counts as reaching a target on a noisy curve: the place that has most points above the target before
            it and most points below after it; the first point below; or the last point above.

        Returns
        -------
        pandas.DataFrame
            One row a run and target: run, target, tokens and steps (those known), status, and the run's columns.
            Status "reached": a value, on a straight line in (log data, log loss) between two neighbouring points.
            "bound": not reached; tokens and steps are those of the last point, a lower bound. "before_start": below
            the target at the first point, whose tokens and steps are an upper bound.

        Raises
        ------
        SweepError
            If a target is not a positive number, or `crossing` is none of these.

        See Also
        --------
        tradeoff_points : Turns the crossings of several batch sizes into points for a trade-off.

        Notes
        -----
        On a noisy curve the first point below the target comes early and the last one above late, the more so the more
        points there are. In simulated power-law curves of 40 to 1000 points with noise of 0.003 to 0.05 nats "first" is
        up to 36 % early and "last" up to 57 % late, or doubled by one point in a hundred on a spike; "monotone" is
        within 0.4 % throughout (``docs/curves.md``). Its scatter is that of single points: where there are many and no
        spikes, `smooth` with ``LocalLine(0.2)`` first, which halves it.

        Whether a run whose end is as far from the target as its noise has reached it, no estimator can tell; reading it
        as reached or as a bound then differs by little data.

        Examples
        --------
        >>> import scalefit as sf
        >>> rows = [{"run": "a", "tokens": t, "lr": 0.1, "loss": 2 + t**-0.5} for t in (1, 4, 16, 64)]
        >>> found = sf.read_curves(rows).tokens_to_target([2.2, 2.1])
        >>> found[["target", "tokens", "status"]].round(1).values.tolist()
        [[2.2, 27.6, 'reached'], [2.1, 64.0, 'bound']]
        """
        try:
            wanted = np.atleast_1d(np.asarray(targets, dtype=float))
        except (TypeError, ValueError):
            raise SweepError(f"targets should be losses to reach, found {targets!r}") from None
        if wanted.ndim != 1 or not len(wanted) or not (np.isfinite(wanted) & (wanted > 0)).all():
            raise SweepError(f"targets should be positive losses, found {targets!r}")
        if crossing not in CROSSINGS:
            raise SweepError(f"crossing should be one of {', '.join(map(repr, CROSSINGS))}, found {crossing!r}")
        found = pd.concat([self._reach(target, crossing) for target in wanted], ignore_index=True)
        order = np.arange(len(found)).reshape(len(wanted), len(self)).T.ravel()
        return found.iloc[order].reset_index(drop=True)

    def _reach(self, target: float, crossing: str) -> pd.DataFrame:
        layout, loss = self._layout, self._points["loss"].to_numpy()
        above = count_above(layout, loss, target, crossing)
        never, before = above[1] == layout.counts, (above[1] == 0) & (layout.counts > 0)
        columns: dict[str, Any] = {"run": self._runs["run"], "target": target}
        for name in (name for name in ("tokens", "steps") if name in self._points):
            x = self._points[name].to_numpy(dtype=float)
            value = locate(layout, x, loss, target, above)
            end = layout.at_end(x)
            if name == self._x and "diverged_at" in self._runs:  # of runs without a point, how far they went
                end = np.where(layout.counts == 0, self._runs["diverged_at"], end)
            columns[name] = np.where(never, end, np.where(before, layout.at_start(x), value))
        columns["status"] = np.select([never, before], ["bound", "before_start"], "reached").astype(object)
        others = [name for name in self._runs if name not in columns]
        return pd.concat([pd.DataFrame(columns), self._runs[others]], axis=1)

    def _display(self) -> Display:
        counts = self._layout.counts
        lost = int(self._runs["diverged"].sum())
        facts = [
            ("runs", f"{len(self)}" + (f", {lost} diverged" if lost else "")),
            ("points", f"{len(self._points)}, {_range(counts)} a run"),
            *(
                (name, f"{format_span(self._points[name])} {self.units[name] if name != 'steps' else ''}".rstrip())
                for name in ("steps", "tokens", "loss")
                if name in self._points
            ),
            ("source", self.source),
        ]
        changing = [str(name) for name in self._points if name not in ("steps", "tokens", "loss")]
        facts += [("along", ", ".join(changing))] if changing else []
        rows = [
            (name, self.units[name], str(len(levels)), format_number(levels.min()), format_number(levels.max()))
            for name in AXES
            if name in self._runs and len(levels := self._runs[name].dropna().unique())
        ]
        table = pd.DataFrame(rows, columns=["axis", "unit", "values", "from", "to"])
        return Display("Curves", tuple(facts), table, self.notes)


def _range(counts: Array) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low} to {high}"
