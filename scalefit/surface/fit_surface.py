"""All runs of a sweep at once: one shape of basin, a floor and a centre for every cell, laws through the centres."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note, Observations
from scalefit.errors import FitError, SweepError
from scalefit.fitting.fit_law import fit_law as fit
from scalefit.fitting.fit_result import Fit
from scalefit.fitting.fit_values import FitStatus
from scalefit.fitting.search import refits
from scalefit.laws import get_law
from scalefit.laws.formula import Law
from scalefit.optima.basin_shape import BasinShape
from scalefit.surface.joint import NARROW, CellCentres, Runs, arrange, begin, centres_of_cells, descend, judge
from scalefit.surface.surface import Pooled, Surface
from scalefit.sweep import Sweep
from scalefit.vocabulary import column_of

Array = np.ndarray

# How often scatters, laws and joint fit are brought into line: centres of cells that say little follow the laws, which
# follow the centres. After five rounds exponents on Step Law are within 2e-6 of where they settle.
_ROUNDS = 5

# A shared error below this share of the smallest of single cells changes nothing.
_SLIGHT = 0.02

# Steps to a between-cell variance; a handful is usual.
_NEWTON = 100


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
    (`scalefit.optima.basin_shape`). The basin's shape is shared by all cells, its curvatures (in units of the loss)
    following power laws in params and tokens. Runs count by their excess e over the cell's best,
    :math:`(1 + (e/w)^{3/2})^{-2}`, and residuals enter by a soft absolute value. The laws are fitted to the centres
    with random-effects weights :math:`1/(v_c + \tau^2)`: a centre's own variance plus scatter between cells; cells
    whose runs say little are held loosely to the laws, and the two are fitted in turn until they agree.

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
        If it is no sweep, or lacks a column or any loss.
    FitError
        If there are fewer cells than a law has parameters, or a law needs inputs other than params and tokens.

    See Also
    --------
    find_optima : The optima cell by cell, without laws.
    Surface.optimum : What it is asked for most.
    bootstrap : Refits to resampled cells.

    Notes
    -----
    The defaults come from leave-out inside training cells: of the public Step Law sweep, whole, thinned to factors of
    two in lr, then to every second batch, and with 70 % of its runs dropped; of the bundled tiny-lm sweep; and of
    simulated sweeps of 45 cells with curved laws. About 50 variants were tried. Held-out figures, what was dropped, and
    bias and coverage in simulated sweeps: docs/statistics.md.

    Examples
    --------
    >>> import scalefit as sf
    >>> from scalefit.simulation import simulate_sweep
    >>> runs = simulate_sweep(seed=1)
    >>> sweep = sf.read_sweep(runs, batch_unit="tokens", nonfinite="diverged")
    >>> surface = sf.fit_surface(sweep)
    >>> surface.optimum(params=2e8, tokens=1.6e10)[["lr", "batch"]].shape
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
        notes=(*sweep.notes, *_notes(runs, cells, pooled)),
        source=sweep.source,
        pooled=pooled,
    )


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


def _pool(runs: Runs, laws: list[Law]) -> Pooled:
    """Fit shape and cells, then the laws through the centres; then again about those laws, scatter judged anew."""
    middle = _start(runs)
    problem, state = begin(runs, BasinShape(_trend(runs), runs.axes), middle)
    # The laws are posed once; the rounds only solve them again for other centres and weights.
    starts = [fit(law, runs.keys.assign(**{column_of(law.target): np.exp(middle[:, a])})) for a, law in enumerate(laws)]
    once = np.ones((1, len(runs.keys)))
    for round_ in range(_ROUNDS):
        state, settled = descend(problem, state)
        centres = centres_of_cells(problem, state)
        found = [refit_law(s, centres.value[a][None], centres.variance[a], once) for a, s in enumerate(starts)]
        if round_ < _ROUNDS - 1:
            around = [s.problem.values("log")(phi)[0] for s, (phi, _, _) in zip(starts, found, strict=True)]
            problem = replace(judge(problem, state), around=np.concatenate(around).T)
    between = tuple(float(scatter[0]) for _, scatter, _ in found)
    fits = tuple(_law_through(law, runs.keys, centres, a, between[a]) for a, law in enumerate(laws))
    return Pooled(problem, state.own, state.shape, centres, fits, between, bool(settled[0]))


def _start(runs: Runs) -> Array:
    """Start every cell halfway between the middle of its good runs and a straight law through all such middles."""
    good = runs.weight > 0.5 * np.quantile(runs.weight[runs.there], 0.9)  # half of what the best tenth counts
    good = good | (runs.there & (runs.excess == 0))
    middle = ((runs.settings * good).sum(axis=2) / good.sum(axis=1)).T
    logs = np.log(runs.keys.to_numpy())
    design = np.column_stack([np.ones(len(logs)), logs - logs.mean(axis=0)])
    return (middle + design @ np.linalg.lstsq(design, middle, rcond=None)[0]) / 2


def _trend(runs: Runs) -> Array:
    """Centred log covariates of the cells, or none where one of them does not vary."""
    logs = np.log(runs.keys.to_numpy())
    varied = (np.ptp(logs, axis=0) > 0).all()
    return logs - logs.mean(axis=0) if varied else np.empty((len(logs), 0))


def refit_law(start: Fit, centre: Array, variance: Array, count: Array) -> tuple[Array, Array, Array]:
    """Fit a law to K sets of centres (K, cells) with random-effects weights, beginning at a fit of it.

    Cells count `count` (K, cells) times. Returns fit coordinates (K, p), scatter between cells (K,), and which are
    usable (K,).
    """
    tau2 = between_cells(start, centre, variance, count)
    with np.errstate(all="ignore"):
        phi, usable = refits(start)(count / (variance + tau2[:, None]), centre)
    return phi, np.sqrt(tau2), usable


def between_cells(start: Fit, observed: Array, variance: Array, count: Array) -> Array:
    """Return the variances of optima between cells beyond their own (K,), by Paule and Mandel's equation.

    tau**2 is where the weighted squared residuals of the law, taken as linear about `start`, equal their degrees of
    freedom; zero if they never exceed them (Paule and Mandel 1982, J. Res. NBS 87, 377).
    """
    value, _ = start.problem.values("log")(start.phi[None])
    design, rest = _design(start), observed - value[0]
    dof = count.sum(axis=1) - design.shape[1]

    def excess(tau2: Array) -> tuple[Array, Array]:
        """Return how far the squared residuals exceed their degrees of freedom, and the slope of that in tau2."""
        precision = 1 / (variance + tau2[:, None])
        weight = count * precision
        hessian = np.einsum("np,kn,nq->kpq", design, weight, design)
        moved = np.einsum("kpq,kq->kp", np.linalg.pinv(hessian, hermitian=True), (weight * rest) @ design)
        squares = weight * (rest - moved @ design.T) ** 2
        return squares.sum(axis=1) - dof, -(precision * squares).sum(axis=1)

    tau2 = np.zeros(len(rest))
    for _ in range(_NEWTON):  # the excess falls and is convex: from zero, Newton's steps never pass the root
        over, slope = excess(tau2)
        step = np.where((dof > 0) & (over > 0), -over / slope, 0.0)
        tau2 = tau2 + step
        if (step <= 1e-10 * tau2).all():
            break
    return tau2


def _law_through(law: Law, keys: pd.DataFrame, centres: CellCentres, axis: int, scatter: float) -> Fit:
    """Fit a law to the centres, which scatter about it by their own errors and by `scatter`."""
    rows = keys.assign(**{column_of(law.target): np.exp(centres.value[axis])})
    weights = 1 / (centres.variance[axis] + scatter**2)
    # The errors of the shared shape as independent ones that all cells share.
    values, vectors = np.linalg.eigh(centres.shape_covariance)
    shared = centres.response[axis] @ (vectors * np.sqrt(np.maximum(values, 0.0)))
    own = np.sqrt(centres.variance[axis])
    errors = np.column_stack([own, shared[:, np.abs(shared).max(axis=0) > _SLIGHT * own.min()]])
    fitted = fit(law, Observations(rows, weights / weights.mean(), errors=errors))
    if not np.isfinite(fitted.covariance).all():
        return fitted
    # The fit's covariance holds the errors of the cells; that of the shape moves all centres together.
    root = np.sqrt(weights)
    moved = (np.linalg.pinv(_design(fitted) * root[:, None]) * root) @ centres.response[axis]
    return replace(fitted, covariance=fitted.covariance + moved @ centres.shape_covariance @ moved.T)


def _design(fitted: Fit) -> Array:
    """Return the slopes of the law's log in its fit coordinates (rows, p)."""
    return fitted.problem.values("log")(fitted.phi[None])[1][0].T


def _tabulate(runs: Runs, pooled: Pooled) -> pd.DataFrame:
    columns: dict[str, Any] = {}
    inside = np.ones(len(runs.keys), dtype=bool)
    for a, name in enumerate(("lr", "batch")[: runs.axes]):
        centre = pooled.centres.value[a]
        columns[name] = np.exp(centre)
        columns[f"log_{name}_stderr"] = np.sqrt(pooled.centres.variance[a])
        inside &= centre >= np.where(runs.there, runs.settings[a], np.inf).min(axis=1)
        inside &= centre <= np.where(runs.there, runs.settings[a], -np.inf).max(axis=1)
    floor = runs.lowest * (1 + pooled.own[0, :, 0])
    return runs.keys.assign(**columns, loss=floor, n_runs=runs.there.sum(axis=1), inside=inside)


def _fit_floor(law: Law, cells: pd.DataFrame) -> Fit | None:
    named = {column_of(name) for name in law.inputs}
    varied = all(name in cells and cells[name].nunique() > 2 for name in named)
    return fit(law, cells[[*named, "loss"]]) if varied and len(cells) > len(law.parameters) else None


def _notes(runs: Runs, cells: pd.DataFrame, pooled: Pooled) -> list[Note]:
    """Say what was widened, what lies beyond its grid, and what did not converge, with the remedy."""
    notes = []
    if runs.window > NARROW:
        text = f"the grid is coarse: runs up to {runs.window:.3g} above their cell's best, relative, shape the basin"
        notes.append(Note("window", text))
    if outside := int((~cells["inside"]).sum()):
        text = f"the centre of {outside} of {len(cells)} cells lies beyond their own grid"
        notes.append(Note("beyond grid", f"{text}: it rests on the shared basin's shape", caution=True))
    if not pooled.settled:
        text = "the joint fit stopped before its minimum: use no number here; fewer cells or a simpler law may help"
        notes.append(Note("unfinished", text, caution=True))
    for fitted in pooled.fits:
        if fitted.status is not FitStatus.CONVERGED:
            status = f"{fitted.status}: {fitted.status.sentence}; {fitted.status.remedy}"
            notes.append(Note("law", f"the law of {fitted.law.target} is {status}", caution=True))
    return notes
