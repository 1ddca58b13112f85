"""Pictures of fitted laws along one input: one with its band and points, or several side by side."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scalefit._levels import group_levels
from scalefit._values import Observations
from scalefit.errors import ExtrapolationWarning, LawError
from scalefit.fitting.fit_result import Fit
from scalefit.laws.formula import Law
from scalefit.optima.find_optima import Optima
from scalefit.plots._style import BAND, QUIET, ROLES, Look, draw_marks, family
from scalefit.plots.axes import axes_of, expect, key, label_ends
from scalefit.plots.scales import letter_of, log_axis, widen, write_value
from scalefit.sweep import Sweep
from scalefit.vocabulary import column_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = np.ndarray

_FINE = 160
_MOST_LEVELS = 6


@dataclass(frozen=True, eq=False)
class Slice:
    """Where a law is drawn.

    Parameters
    ----------
    fit : Fit
    along : str
        The input on the x axis, as a column.
    by : str or None
        The input that tells the lines apart.
    levels : tuple of float
        Its levels, one line each; one NaN without `by`.
    fixed : mapping of str to float
        The inputs held.
    """

    fit: Fit
    along: str
    by: str | None
    levels: tuple[float, ...]
    fixed: Mapping[str, float]

    @property
    def target(self) -> str:
        """The predicted column."""
        return column_of(self.fit.law.target)

    def place(self, x: Any, level: float) -> dict[str, Any]:
        """Return the inputs at places along one line."""
        own = {} if self.by is None else {self.by: level}
        return {self.along: np.asarray(x, dtype=float), **own, **self.fixed}

    def curve(self, low: float, high: float, level: float, coverage: float) -> pd.DataFrame:
        """Return the line of one level with its interval and reach, from low to high."""
        with warnings.catch_warnings():  # what lies beyond the data is drawn as such
            warnings.simplefilter("ignore", ExtrapolationWarning)
            return self.fit.predict(level=coverage, **self.place(np.geomspace(low, high, _FINE), level))

    def move(self, rows: pd.DataFrame, values: Any, level: float) -> Array:
        """Return values observed at the rows' inputs as they would be on one line: times the law's ratio."""
        law, own = (
            self.fit.law,
            {column_of(name): rows[column_of(name)].to_numpy(float) for name in self.fit.law.inputs},
        )
        there = own | {name: np.full(len(rows), value) for name, value in self.place(1.0, level).items()}
        there[self.along] = own[self.along]
        ratio = law(self.fit.values, there) / law(self.fit.values, own)
        return np.asarray(np.asarray(values, dtype=float) * ratio)

    def line_of(self, rows: pd.DataFrame) -> Array:
        """Return for every row which line it is nearest to."""
        if self.by is None:
            return np.zeros(len(rows), dtype=int)
        distance = np.abs(np.log(rows[self.by].to_numpy(dtype=float)[:, None] / np.array(self.levels)))
        return np.asarray(distance.argmin(axis=1))


def slice_of(fit: Fit, along: str | None, by: str | None, at: Mapping[str, float] | None) -> Slice:
    """Choose where to draw a fit.

    By default `along` is the input that spans most, `by` none, and every other input is held at the geometric mean of
    the rows fitted.

    Raises
    ------
    LawError
        If an input is named that the law does not have, or twice, or a row is not positive.
    """
    inputs = [column_of(name) for name in fit.law.inputs]
    if not inputs:
        raise LawError(f"{fit.law.formula!r} has no input to draw it along")
    rows, held = fit.rows, {column_of(name): float(value) for name, value in (at or {}).items()}
    if not (rows.to_numpy(dtype=float) > 0).all():
        raise LawError(f"the axes of a picture are logarithmic; the rows of {fit.law.formula!r} are not all positive")
    free = [name for name in inputs if name not in held and (by is None or name != column_of(by))]
    asked = [column_of(name) for name in (along, by) if name is not None]
    strange = [name for name in [*asked, *held] if name not in inputs]
    if strange or len({*asked, *held}) < len(asked) + len(held) or not free:
        raise LawError(
            f"a picture of {fit.law.formula!r} can be along, by or at {', '.join(inputs)}, each once; found "
            f"along={along!r}, by={by!r}, at={dict(at or {})!r}"
        )
    spans = {name: float(np.ptp(np.log(rows[name]))) for name in free}
    x = column_of(along) if along is not None else max(spans, key=spans.__getitem__)
    line = column_of(by) if by is not None else None
    means = {name: float(np.exp(np.log(rows[name]).mean())) for name in inputs}
    fixed = {name: held.get(name, means[name]) for name in inputs if name not in (x, line)}
    return Slice(fit, x, line, _levels(rows, line), fixed)


def _levels(rows: pd.DataFrame, by: str | None) -> tuple[float, ...]:
    if by is None:
        return (np.nan,)
    found = np.unique(group_levels(rows[by].to_numpy(dtype=float), 0.01))
    if len(found) <= _MOST_LEVELS:
        return tuple(found)
    return tuple(found[np.round(np.linspace(0, len(found) - 1, _MOST_LEVELS)).astype(int)])


Rows = pd.DataFrame | Optima | Sweep | Observations

INSIDE = 1 + 1e-9


def law(
    fit: Fit,
    along: str | None = None,
    by: str | None = None,
    *,
    at: Mapping[str, float] | None = None,
    heldout: Rows | None = None,
    to: float | None = None,
    level: float = 0.95,
    ax: Axes | None = None,
) -> Axes:
    """Draw a fitted law along one input, with its band and the points it was fitted to.

    Parameters
    ----------
    fit : Fit
    along : str, optional
        The input on the x axis, as column or symbol; by default the one that spans most.
    by : str, optional
        An input to draw one line for each level of, six at most.
    at : mapping of str to float, optional
        Where the other inputs are held; by default at the geometric mean of the rows.
    heldout : DataFrame, Optima or Sweep, optional
        Rows the law has not seen, with its inputs and target.
    to : float, optional
        How far along the line goes; by default as far as there are points.
    level : float
        Coverage of the band.
    ax : Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    LawError
        If the law has no such input, or the held-out rows lack a column.

    Notes
    -----
    The band is that of `Fit.predict`: for a new observation, so it holds the scatter of single points too. Beyond the
    rows fitted the line is dashed. Points are moved along the law to the inputs the line is drawn at (times the law's
    ratio between the two places), as in a partial residual plot: their distance from the line is their residual.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from scalefit.fitting.fit_law import fit_law as fit
    >>> table = pd.DataFrame({"params": [1e8, 3e8, 1e9, 3e9], "lr": [2.1e-3, 1.2e-3, 7e-4, 4e-4]})
    >>> ax = law(fit("eta = c * N**a", table), ax=Figure().subplots())
    >>> ax.get_xlabel(), ax.get_xscale()
    ('model size $N$ (parameters)', 'log')
    """
    cut = slice_of(expect(fit, Fit, "law"), along, by, at)
    looks = [ROLES["law"]] if cut.by is None else family(len(cut.levels))
    rows, kept = fit.rows, None if heldout is None else _rows_of(heldout, fit)
    ax = axes_of(ax)
    span = [rows[cut.along], *([] if kept is None else [kept[cut.along]]), pd.Series([] if to is None else [to])]
    low, high = prepare(ax, cut, np.concatenate(span))
    tops = [
        draw_line(ax, cut, cut_level, look, (low, high), level, alone=cut.by is None)
        for cut_level, look in zip(cut.levels, looks, strict=True)
    ]
    draw_points(ax, cut, rows, looks, fit.censored)
    if kept is not None:
        draw_points(
            ax,
            cut,
            kept,
            [Look(look.color, ROLES["heldout"].marker, hollow=True) for look in looks]
            if cut.by
            else [ROLES["heldout"]],
        )
    frame_lines(ax, cut)
    if cut.by is not None:
        label_ends(
            ax,
            [
                (top, f"{letter_of(cut.by)} {write_value(cut.by, value)}", look.color)
                for top, value, look in zip(tops, cut.levels, looks, strict=True)
            ],
        )
    _explain(ax, cut, kept is not None, level)
    return ax


def _rows_of(source: Rows, fit: Fit) -> pd.DataFrame:
    """Return the rows of a table or result as a frame with the law's columns."""
    wanted = [column_of(name) for name in (*fit.law.inputs, fit.law.target)]
    if isinstance(source, Optima | Sweep):
        source = source.observations(fit.law.target)
    table = source.table if isinstance(source, Observations) else source
    table = table.rename(columns={name: column_of(str(name)) for name in table.columns})
    if lacking := [name for name in wanted if name not in table.columns]:
        raise LawError(f"rows beside {fit.law.formula!r} need {', '.join(wanted)}; missing {', '.join(lacking)}")
    return table[wanted].reset_index(drop=True)


def prepare(ax: Axes, cut: Slice, places: Any) -> tuple[float, float]:
    """Set up both axes; return from where to where lines go."""
    unit = cut.fit.data_unit
    log_axis(ax, "x", cut.along, unit)
    log_axis(ax, "y", cut.target, unit, best=True)
    low, high = widen(places, 0.05)
    ax.set_xlim(low, high)
    return low, high


def draw_line(
    ax: Axes, cut: Slice, value: float, look: Look, ends: tuple[float, float], level: float, *, alone: bool
) -> float:
    """Draw one line and its band; return its height at the right edge."""
    curve = cut.curve(*ends, value, level)
    x, y = curve[cut.along], curve["prediction"]
    inside = cut.fit.rows[cut.along].agg(["min", "max"])
    known = x.between(inside["min"] / INSIDE, inside["max"] * INSIDE)
    ax.fill_between(x, curve["lo"], curve["hi"], color=look.color, alpha=BAND if alone else 0.4 * BAND, linewidth=0)
    ax.plot(x[known], y[known], **look.line(linestyle="-"))
    ax.plot(x, y, **look.line(linestyle=(0, (3, 1.8)), linewidth=0.8))
    return float(y.iloc[-1])


def draw_points(ax: Axes, cut: Slice, rows: pd.DataFrame, looks: Sequence[Look], side: Any = None) -> None:
    """Draw rows on the line each is nearest to; the only line's points in the colour of points."""
    line = cut.line_of(rows)
    sides = np.zeros(len(rows), dtype=int) if side is None else np.asarray(side)
    for j, (level, look) in enumerate(zip(cut.levels, looks, strict=True)):
        own = rows[line == j]
        shown = ROLES["points"] if look is ROLES["law"] else look
        draw_marks(ax, own[cut.along], cut.move(own, own[cut.target], level), shown, sides[line == j])


def frame_lines(ax: Axes, cut: Slice) -> None:
    """Limit the height to what points and lines need, however wide the bands."""
    heights = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in ax.lines if len(line.get_ydata())])
    ax.set_ylim(*widen(heights, 0.08))


def _explain(ax: Axes, cut: Slice, heldout: bool, level: float) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    alone = cut.by is None
    points, line = (ROLES["points"], ROLES["law"]) if alone else (Look(QUIET), Look(QUIET))
    band = Patch(color=line.color, alpha=BAND, linewidth=0)
    kept = ROLES["heldout"] if alone else Look(QUIET, ROLES["heldout"].marker, hollow=True)
    entries: list[tuple[Any, str]] = [(Line2D([], [], **points.points()), "fitted")]
    if cut.fit.is_bound.any():
        entries.append((Line2D([], [], **points.points(markerfacecolor="white")), "a bound"))
    entries += [(Line2D([], [], **kept.points()), "held out")] if heldout else []
    entries += [(Line2D([], [], **line.line()), "law"), (band, f"{100 * level:g} %")]
    key(ax, entries, held_text(cut.fixed))


def held_text(held: Mapping[str, float]) -> str:
    """Say where the inputs off the axis are held."""
    told = [f"{letter_of(name)} = {write_value(name, value)}" for name, value in held.items()]
    return f"at {', '.join(told)}" if told else ""


def compare(
    fits: Sequence[Fit] | Mapping[str, Fit],
    along: str | None = None,
    *,
    at: Mapping[str, float] | None = None,
    heldout: Rows | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw several laws fitted to the same points, such as the learning rate against the batch for SGD and for a surge.

    Parameters
    ----------
    fits : sequence of Fit, or mapping of str to Fit
        Laws for one target, eight at most; a mapping gives them names.
    along, at, ax
        As for `law`; inputs held are those of every fit that has them.
    heldout : DataFrame, Optima or Sweep, optional
        Rows none of the laws has seen.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    LawError
        If there is no fit, two have the same name, or one is of another target or lacks the input on the axis.

    Notes
    -----
    Where laws have further inputs, points are moved along the first law to where those are held.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from scalefit.fitting.fit_law import fit_law as fit
    >>> table = pd.DataFrame({"batch": 2.0 ** np.arange(14, 20), "lr": [4e-4, 5.7e-4, 8e-4, 1e-3, 1.2e-3, 1.3e-3]})
    >>> laws = {"power": fit("eta = c * B**g", table), "SGD": fit("mccandlish2018_lr", table)}
    >>> [text.get_text() for text in compare(laws, ax=Figure().subplots()).get_legend().get_texts()]
    ['power', 'SGD']
    """
    from matplotlib.lines import Line2D

    named = _by_name(fits)
    check_held((fit.law for fit in named.values()), at)
    first = next(iter(named.values()))
    lead = slice_of(first, along, None, held_inputs(first, at))
    ax = axes_of(ax)
    kept = None if heldout is None else _rows_of(heldout, first)
    places = first.rows[lead.along] if kept is None else np.append(first.rows[lead.along], kept[lead.along])
    ends = prepare(ax, lead, places)
    draw_points(ax, lead, first.rows, [ROLES["law"]], first.censored)
    if kept is not None:
        draw_points(ax, lead, kept, [ROLES["heldout"]])
    looks = [ROLES["law"]] if len(named) == 1 else family(len(named))
    entries: list[tuple[Any, str]] = []
    for (name, fit), look in zip(named.items(), looks, strict=True):
        if column_of(fit.law.target) != lead.target:
            raise LawError(f"{name} is a law for {fit.law.target}, not for {lead.target}")
        curve = slice_of(fit, lead.along, None, held_inputs(fit, dict(lead.fixed) | dict(at or {}))).curve(
            *ends, np.nan, 0.95
        )
        ax.plot(curve[lead.along], curve["prediction"], **look.line())
        entries.append((Line2D([], [], **look.line()), name))
    frame_lines(ax, lead)
    entries += [] if kept is None else [(Line2D([], [], **ROLES["heldout"].points()), "held out")]
    key(ax, entries, held_text(lead.fixed))
    return ax


def _by_name(fits: Any) -> dict[str, Fit]:
    several = list(fits.values() if isinstance(fits, Mapping) else fits) if isinstance(fits, Iterable) else [fits]
    for one in several:
        expect(one, Fit, "compare")
    if not 0 < len(several) <= 8:
        raise LawError(f"fits: expected one to eight laws, found {len(several)}")
    names = fits if isinstance(fits, Mapping) else [fit.law.name or fit.law.formula for fit in several]
    named = dict(zip(names, several, strict=True))
    if len(named) < len(several):
        raise LawError("several of these fits are of the same law: name each, plots.compare({'2024': a, '2025': b})")
    return named


def held_inputs(fit: Fit, at: Mapping[str, float] | None) -> dict[str, float]:
    """Return the held inputs that a fit has."""
    own = {column_of(name) for name in fit.law.inputs}
    return {column_of(name): value for name, value in (at or {}).items() if column_of(name) in own}


def check_held(laws: Iterable[Law], at: Mapping[str, float] | None) -> None:
    """Raise LawError if an input is held that none of the laws has."""
    known = {column_of(name) for law in laws for name in law.inputs}
    if strange := [name for name in at or {} if column_of(name) not in known]:
        raise LawError(f"at={dict(at or {})!r}: none of these laws has the input {', '.join(strange)}")
