"""The picture of training: loss along the data of every run, and where it reaches its targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from scalefit.curves.curves import Curves
from scalefit.errors import SweepError
from scalefit.plots._style import DOTTED, QUIET, ROLES, Look, family, size
from scalefit.plots.axes import expect, key, label_ends, panel
from scalefit.plots.scales import label_of, widen, write_value
from scalefit.schema import group_levels
from scalefit.vocabulary import column_of

_MOST_LEVELS = 8


def curves(
    curves: Curves, targets: float | Sequence[float] = (), *, by: str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the loss of every run along its training, with target losses and where each run reaches them.

    Parameters
    ----------
    curves : Curves
    targets : float or sequence of float
        Losses to mark.
    by : str, optional
        A column of the runs that gives lines their colour: batch, lr, params ...; eight levels at most. By default the
        one of these with most levels, if it has no more than eight.
    ax : Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SweepError
        If the runs have no such column, or too many levels of it.

    Notes
    -----
    Small marks are where `Curves.tokens_to_target` says a run reaches a target. The loss axis is logarithmic; runs that
    diverged end in a cross.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from matplotlib.figure import Figure
    >>> import scalefit as sf
    >>> tokens = np.geomspace(1e8, 1e10, 20)
    >>> table = pd.DataFrame({"run": "a", "tokens": tokens, "loss": 30 * tokens**-0.1})
    >>> ax = sf.plots.curves(sf.read_curves(table), [3.2], ax=Figure().subplots())
    >>> [text.get_text() for text in ax.texts]
    ['$L$ = 3.2']

    See Also
    --------
    tradeoff : the data each batch size takes to a target
    """
    expect(curves, Curves, "curves")
    wanted = np.atleast_1d(np.asarray(targets, dtype=float))
    table, runs = curves.table, curves.runs
    x = "tokens" if "tokens" in table else "steps"
    column = _column(runs, by)
    level = group_levels(runs[column].to_numpy(dtype=float), 0.01) if column else np.zeros(len(runs))
    levels = np.unique(level)
    looks = family(len(levels)) if column else [ROLES["points"]]
    ax = panel(ax, x, "loss", curves.data_unit)
    look_of = {run: looks[int(np.searchsorted(levels, own))] for run, own in zip(runs["run"], level, strict=True)}
    for run, points in table.groupby("run", sort=False, observed=True):
        ax.plot(points[x], points["loss"], color=look_of[run].color, linewidth=0.8, alpha=0.85, zorder=2)
    diverged = table["run"].isin(runs.loc[runs["diverged"], "run"])
    ends = table[diverged & np.isfinite(table["loss"])].groupby("run", observed=True).last()
    ax.plot(ends[x], ends["loss"], **ROLES["diverged"].points())
    finite = table[np.isfinite(table["loss"]) & (table[x] > 0)]
    ax.set_xlim(*widen(finite[x], 0.03))
    ax.set_ylim(*widen([*finite["loss"], *wanted], 0.05))
    if len(wanted):
        _mark_targets(ax, curves, wanted, x, look_of)
    lost = (ROLES["diverged"].points(), "diverged" if runs["diverged"].any() else "")
    if column is None:
        key(ax, [lost])
    else:
        marks = [{"color": look.color, "marker": look.marker, "markersize": size(0.9)} for look in looks]
        names = [write_value(column, float(value)) for value in levels]
        key(ax, [*zip(marks, names, strict=True), lost], label_of(column, curves.data_unit))
    return ax


def _column(runs: pd.DataFrame, by: str | None) -> str | None:
    """Return the column that gives each line its colour, or None."""
    counts = {
        name: len(np.unique(group_levels(runs[name].to_numpy(dtype=float), 0.01)))
        for name in ("batch", "lr", "params", *([column_of(by)] if by else []))
        if name in runs and pd.api.types.is_numeric_dtype(runs[name]) and runs[name].notna().all()
    }
    if by is not None:
        name = column_of(by)
        if name not in counts or counts[name] > _MOST_LEVELS:
            found = f"{counts[name]} levels" if name in counts else "no such column of numbers"
            raise SweepError(
                f"by={by!r}: expected a column of the runs with {_MOST_LEVELS} levels at most, found {found}"
            )
        return name
    fitting = [name for name, n in counts.items() if 1 < n <= _MOST_LEVELS]
    return max(fitting, key=counts.__getitem__) if fitting else None


def _mark_targets(ax: Axes, curves: Curves, targets: np.ndarray, x: str, look_of: dict[Any, Look]) -> None:
    reached = curves.tokens_to_target(list(targets))
    reached = reached[reached["status"] == "reached"]
    for target in targets:
        ax.axhline(target, color=QUIET, linewidth=0.7, linestyle=DOTTED, zorder=1)
    for run, own in reached.groupby("run", observed=True):
        small = {"markersize": size(0.95), "markeredgecolor": "white", "markeredgewidth": 0.4}
        ax.plot(own[x], own["target"], **look_of[run].points(**small))
    label_ends(ax, [(float(target), f"$L$ = {target:.3g}", QUIET) for target in targets])
