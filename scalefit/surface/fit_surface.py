"""`fit_surface`: a sweep and two laws in, a `Surface` out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note, merge
from scalefit.errors import FitError, SweepError
from scalefit.fitting.fit_law import fit_law as fit
from scalefit.fitting.fit_result import Fit
from scalefit.fitting.fit_values import FitStatus
from scalefit.laws import get_law
from scalefit.laws.formula import Law
from scalefit.optima.basin_shape import BasinShape
from scalefit.surface.joint import NARROW, ROUNDS, Runs, arrange, begin, descend, judge
from scalefit.surface.surface import Pooled, Surface, centres_of_cells, refit_law
from scalefit.surface.surface import law_through_centres as fit_law
from scalefit.sweep import Sweep
from scalefit.vocabulary import column_of

Array = np.ndarray

_TREND_CELLS = 8
"""Cells below which the basin's curvature is one number, not a trend."""


def fit_surface(
    sweep: Sweep,
    lr_law: Law | str = "lr_power",
    batch_law: Law | str = "batch_power",
    loss_law: Law | str | None = "chinchilla",
    *,
    window: float | None = None,
) -> Surface:
    r"""Fit all runs of a sweep at once.

    A run's loss is the floor of its (params, tokens) cell plus a basin in ln lr and ln batch about the cell's centre
    (`scalefit.basin_shape`). The basin's shape is shared by all cells, its curvatures (in units of the loss) following
    power laws in params and tokens. Runs count by their excess e over the cell's best, :math:`(1 + (e/w)^{3/2})^{-2}`,
    and residuals enter by a soft absolute value. The laws are fitted to the centres with random-effects weights
    :math:`1/(v_c + \tau^2)`: a centre's own variance plus scatter between cells; cells whose runs say little are held
    loosely to the laws, and the two are fitted in turn until they agree.

    Parameters
    ----------
    sweep : Sweep
        With lr, params or tokens, and loss; batch if it varies.
    lr_law, batch_law : Law or str
        Laws in params and tokens.
    loss_law : Law or str or None
        Law of the floors, for `Surface.loss`; None where only optima are asked for.
    window : float, optional
        Relative excess at which a run's weight has fallen to a quarter. By default 0.0225, wider where the typical cell
        would keep fewer than two runs' worth an axis (grids of few batches or coarse learning rates).

    Returns
    -------
    Surface
        Errors of its laws hold those of the centres and of the shared shape; `bootstrap(surface)` refits everything to
        resampled cells.

    Raises
    ------
    SweepError
        If it is no sweep.
    FitError
        If there are fewer cells than a law has parameters, or a law needs inputs other than params and tokens.

    Notes
    -----
    The defaults come from leave-out inside training cells: of the public Step Law sweep, whole, thinned to factors of
    two in lr, then to every second batch, and with 70 % of its runs dropped; of the bundled tiny-lm sweep; and of
    simulated sweeps of 45 cells with curved laws. About 50 variants were tried. Held-out figures, what was dropped, and
    bias and coverage in simulated sweeps: docs/statistics.md.

    Examples
    --------
    >>> from scalefit.simulation import simulate_sweep
    >>> runs = simulate_sweep(seed=1)
    >>> surface = fit_surface(Sweep.from_frame(runs.assign(diverged=runs["loss"].isna())))
    >>> surface.optimum(params=1e9, tokens=6.4e10)[["lr", "batch"]].shape
    (1, 2)
    """
    if not isinstance(sweep, Sweep):
        raise SweepError(f"fit_surface expects a Sweep, found {type(sweep).__name__}: read_sweep(table, ...) makes one")
    laws = [get_law(lr_law)]
    runs = arrange(sweep, window)
    if runs.axes == 2:
        laws.append(get_law(batch_law))
    _check_laws(laws, runs)
    pooled = _pool(runs, laws)
    cells = _tabulate(runs, pooled)
    notes = merge(sweep.notes, _widened(runs), _doubts(cells), _unsettled(pooled))
    floor = None if loss_law is None else _fit_floor(get_law(loss_law), cells)
    fits = [replace(fitted, data_unit=sweep.data_unit) for fitted in pooled.fits]
    return Surface(
        lr_fit=fits[0],
        batch_fit=fits[1] if len(fits) > 1 else None,
        floor_fit=None if floor is None else replace(floor, data_unit=sweep.data_unit),
        cells=cells,
        shape=pooled.shape[0],
        reference=np.log(runs.keys).mean(),
        scatter=pooled.problem.scatter,
        noise=pooled.centres.noise,
        between={column_of(law.target): tau for law, tau in zip(laws, pooled.between, strict=True)},
        window=runs.window,
        notes=notes,
        source=sweep.source,
        pooled=pooled,
    )


def _pool(runs: Runs, laws: list[Law]) -> Pooled:
    """Fit shape and cells, then the laws through the centres; then again about those laws, scatter judged anew."""
    basin = BasinShape(_trend(runs), runs.axes)
    middle = _start(runs)
    problem, state = begin(runs, basin, middle)
    starts = [fit(law, runs.keys.assign(**{column_of(law.target): np.exp(middle[:, a])})) for a, law in enumerate(laws)]
    once = np.ones((1, len(runs.keys)))
    for round_ in range(ROUNDS):
        state, settled = descend(problem, state)
        centres = centres_of_cells(problem, state)
        found = [refit_law(s, centres.value[a][None], centres.variance[a], once) for a, s in enumerate(starts)]
        if round_ < ROUNDS - 1:
            problem = replace(judge(problem, state), around=_law_centres(starts, [phi for phi, _, _ in found]))
    between = tuple(float(scatter[0]) for _, scatter, _ in found)
    fits = tuple(fit_law(law, runs.keys, centres, a, between[a]) for a, law in enumerate(laws))
    return Pooled(problem, state.own, state.shape, centres, fits, between, bool(settled[0]))


def _law_centres(starts: list[Fit], phis: list[Array]) -> Array:
    """Return the centres the laws give, (cells, axes)."""
    centres = [start.problem.values("log")(phi)[0] for start, phi in zip(starts, phis, strict=True)]
    return np.concatenate(centres).T


def _start(runs: Runs) -> Array:
    """Start every cell halfway between the middle of its good runs and a straight law through all such middles."""
    good = runs.weight > 0.5 * np.quantile(runs.weight[runs.there], 0.9)  # half of what the best tenth counts
    good = good | (runs.there & (runs.excess == 0))
    middle = ((runs.settings * good).sum(axis=2) / good.sum(axis=1)).T
    logs = np.log(runs.keys.to_numpy())
    design = np.column_stack([np.ones(len(logs)), logs - logs.mean(axis=0)])
    return (middle + design @ np.linalg.lstsq(design, middle, rcond=None)[0]) / 2


def _check_laws(laws: list[Law], runs: Runs) -> None:
    for law in laws:
        strange = [name for name in law.inputs if column_of(name) not in runs.keys]
        if strange:
            allowed = ", ".join(map(str, runs.keys))
            raise FitError(f"a surface's centre may follow {allowed}; {law.formula!r} also needs {', '.join(strange)}")
        if len(runs.keys) < len(law.parameters) + 1:
            raise FitError(
                f"{law.formula!r} has {len(law.parameters)} parameters and the sweep {len(runs.keys)} (params, tokens) "
                "cells; bring more cells or choose a law with fewer parameters"
            )


def _trend(runs: Runs) -> Array:
    """Centred log covariates of the cells, or none when there are too few cells to see a trend."""
    logs = np.log(runs.keys.to_numpy())
    varied = (np.ptp(logs, axis=0) > 0) & (len(logs) >= _TREND_CELLS)
    return (logs - logs.mean(axis=0))[:, varied] if varied.all() else np.empty((len(logs), 0))


def _tabulate(runs: Runs, pooled: Pooled) -> pd.DataFrame:
    columns: dict[str, Any] = {}
    inside = np.ones(len(runs.keys), dtype=bool)
    for a, name in enumerate(("lr", "batch")[: runs.axes]):
        centre = pooled.centres.value[a]
        columns[name] = np.exp(centre)
        columns[f"log_{name}_stderr"] = np.sqrt(pooled.centres.variance[a])
        low, high = (
            np.where(runs.there, runs.settings[a], np.inf).min(axis=1),
            np.where(runs.there, runs.settings[a], -np.inf).max(axis=1),
        )
        inside &= (centre >= low) & (centre <= high)
    floor = runs.lowest * (1 + pooled.own[0, :, 0])
    return runs.keys.assign(**columns, loss=floor, n_runs=runs.there.sum(axis=1), inside=inside)


def _widened(runs: Runs) -> list[Note]:
    if runs.window <= NARROW:
        return []
    text = f"the grid is coarse: runs up to {runs.window:.3g} above their cell's best, relative, shape the basin"
    return [Note("window", text)]


def _unsettled(pooled: Pooled) -> list[Note]:
    """Say what did not converge, with the remedy."""
    found = []
    if not pooled.settled:
        text = "the joint fit stopped before its minimum: use no number here; fewer cells or a simpler law may help"
        found.append(Note("unfinished", text, caution=True))
    for fitted in pooled.fits:
        if fitted.status is not FitStatus.CONVERGED:
            told = f"{fitted.status}: {fitted.status.sentence}; {fitted.status.remedy}"
            found.append(Note("law", f"the law of {fitted.law.target} is {told}", caution=True))
    return found


def _doubts(cells: pd.DataFrame) -> list[Note]:
    outside = int((~cells["inside"]).sum())
    if not outside:
        return []
    where = f"the centre of {outside} of {len(cells)} cells lies beyond their own grid"
    text = f"{where}: it rests on the shared basin's shape"
    return [Note("beyond grid", text, caution=True)]


def _fit_floor(law: Law, cells: pd.DataFrame) -> Fit | None:
    named = {column_of(name) for name in law.inputs}
    varied = all(name in cells and cells[name].nunique() > 2 for name in named)
    return fit(law, cells[[*named, "loss"]]) if varied and len(cells) > len(law.parameters) else None
