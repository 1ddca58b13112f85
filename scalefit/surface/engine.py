"""`fit_surface`: a sweep and two laws in, a `Surface` out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from scalefit.errors import FitError
from scalefit.fitting import Fit, FitStatus, fit
from scalefit.laws import get_law
from scalefit.laws.formula import Law
from scalefit.notes import Note, merge
from scalefit.surface.basin import BasinShape
from scalefit.surface.centres import CellCentres, between_cells, centres_of_cells
from scalefit.surface.joint import fit_jointly, law_centres
from scalefit.surface.result import Surface
from scalefit.surface.runs import NARROW, Runs, arrange
from scalefit.sweep import Sweep
from scalefit.vocabulary import column_of

Array = np.ndarray

_TREND_CELLS = 8
"""Cells below which the basin's curvature is one number, not a trend."""


def fit_surface(
    sweep: Sweep,
    lr_law: Law | str = "lr_power",
    batch_law: Law | str = "batch_power",
    loss_law: Law | str = "chinchilla",
    *,
    window: float | None = None,
) -> Surface:
    r"""Fit all runs of a sweep at once.

    Log loss of a run is the floor of its (params, tokens) cell plus a basin of one shape in ln lr and ln batch
    (`scalefit.surface.basin`), whose centre follows the two laws. Floors are profiled out, runs count by their excess
    over the cell's best, :math:`(1 + (e/w)^{3/2})^{-2}`, and residuals enter by a soft absolute value. Each cell's own
    centre then follows from that shape, and the laws are fitted to the centres with random-effects weights
    :math:`1/(v_c + \tau^2)`: own variance plus scatter between cells.

    Parameters
    ----------
    sweep : Sweep
        With lr, params or tokens, and loss; batch if it varies.
    lr_law, batch_law : Law or str
        Laws in params and tokens.
    loss_law : Law or str
        Law of the floors, for `Surface.loss`.
    window : float, optional
        Relative excess at which a run's weight has fallen to a quarter. By default 0.0225, wider where the typical cell
        would keep fewer than four runs' worth an axis (grids of few batches or coarse learning rates).

    Returns
    -------
    Surface

    Raises
    ------
    FitError
        If there are fewer cells than a law has parameters, or a law needs inputs other than params and tokens.

    Notes
    -----
    The window, the prior on the curvatures' trends and the bent valley come from leave-out inside the training cells of
    two splits of the public Step Law sweep (14 inner splits, in N and in D): mean inner regret 0.087 %, against 0.097 %
    for a straight valley. Windows from 0.0175 to 0.0225 could not be told apart and the widest was taken. On the
    held-out cells the mean regret is 0.093 % (N > 1e9) and 0.060 % (D >= 5e10); those figures were in view while the
    form was explored, so they are no blind test. The rule that widens the window comes from the bundled tiny-lm sweep,
    whose cells hold 2 to 8 batch sizes a factor of 4 apart: at 0.0225 three runs' worth a cell were left.

    In 500 simulated sweeps (heavy-tailed noise, grids up to one level off centre, 15 % of runs missing) the 95 %
    intervals held the truth in 94.8 % (exponent of N) and 96.2 % (exponent of D) for the learning rate, 94.8 %
    (exponent of D) for the batch, and 96.8 and 97.6 % for learning rate and batch at ten times the size and data.
    """
    laws = [get_law(lr_law)]
    runs = arrange(sweep, window)
    if len(runs.settings) == 2:
        laws.append(get_law(batch_law))
    _check_laws(laws, runs)
    trend = _trend(runs)
    shape = BasinShape(trend[runs.cell], len(runs.settings))
    phi, scatter, settled = fit_jointly(runs, laws, shape)
    psi = phi[-shape.size :]
    centres = centres_of_cells(runs, shape, psi, law_centres(runs, laws, phi)[0], scatter)
    fits, between = [], {}
    for axis, law in enumerate(laws):
        fitted, tau = _fit_law(law, centres, axis)
        fits.append(fitted)
        between[column_of(law.target)] = tau
    cells = _tabulate(runs, centres)
    notes = merge(sweep.notes, _widened(runs), _doubts(cells), _unsettled(settled, centres, fits))
    reference = np.log(runs.keys).mean()
    floor = _fit_floor(get_law(loss_law), cells)
    batch_fit = fits[1] if len(fits) > 1 else None
    return Surface(fits[0], batch_fit, floor, cells, psi, reference, scatter, between, runs.window, notes, sweep.source)


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


def _fit_law(law: Law, centres: CellCentres, axis: int) -> tuple[Fit, float]:
    """Fit a law to the cells' centres with random-effects weights."""
    rows = centres.keys.assign(**{column_of(law.target): np.exp(centres.value[axis])})
    variance = centres.variance[axis]
    tau2 = between_cells(law, rows, variance)
    weights = 1 / (variance + tau2)
    return fit(law, rows, weights=weights / weights.mean()), float(np.sqrt(tau2))


def _tabulate(runs: Runs, centres: CellCentres) -> pd.DataFrame:
    columns: dict[str, Any] = {}
    inside = np.ones(len(runs.keys), dtype=bool)
    for a, name in enumerate(("lr", "batch")[: len(runs.settings)]):
        columns[name] = np.exp(centres.value[a])
        columns[f"log_{name}_stderr"] = np.sqrt(centres.variance[a])
        low, high = (np.full(len(runs.keys), s * np.inf) for s in (1, -1))
        np.minimum.at(low, runs.cell, runs.settings[a])
        np.maximum.at(high, runs.cell, runs.settings[a])
        inside &= (centres.value[a] >= low) & (centres.value[a] <= high)
    n_runs = np.bincount(runs.cell, minlength=len(runs.keys))
    return runs.keys.assign(**columns, loss=np.exp(centres.floor), n_runs=n_runs, inside=inside)


def _widened(runs: Runs) -> list[Note]:
    if runs.window <= NARROW:
        return []
    text = f"the grid is coarse: runs up to {runs.window:.3g} above their cell's best, relative, shape the basin"
    return [Note("window", text)]


def _unsettled(settled: bool, centres: CellCentres, fits: list[Fit]) -> list[Note]:
    """Say what did not converge, with the remedy."""
    found = []
    if not settled:
        text = "the joint fit stopped before its minimum: use no number here; fewer cells or a simpler law may help"
        found.append(Note("unfinished", text, caution=True))
    if moving := int((~centres.settled).sum()):
        text = f"the centres of {moving} of {len(centres.keys)} cells were still moving when the search stopped"
        found.append(Note("moving", text, caution=True))
    for fitted in fits:
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
