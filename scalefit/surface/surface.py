"""The fitted surface: each cell's own optimum, laws through all of them, what they say of any size and budget."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note
from scalefit.display import Face, Shown
from scalefit.errors import FitError, LawError
from scalefit.fitting.fit_law import fit_law as fit
from scalefit.fitting.fit_result import Fit
from scalefit.fitting.fit_values import check_level
from scalefit.fitting.shrinkage import refits
from scalefit.laws.formula import Law
from scalefit.optima.basin_shape import BasinShape, pool_noise
from scalefit.solvers.students_t import t_quantile
from scalefit.surface.joint import Problem, State, equations, evaluate
from scalefit.vocabulary import column_of, format_number

Array = np.ndarray

_OUTLIER = 10.0
_LEAST_DOF = 0.02
"""Degrees of freedom below which a cell says nothing of its noise."""

_NEWTON = 100
"""Steps to a between-cell variance; a handful is usual."""


@dataclass(frozen=True, eq=False)
class CellCentres:
    """The centre of every cell's basin.

    Parameters
    ----------
    value, variance : ndarray (axes, cells)
        Log of the optimum and its variance from the noise of the cell's own runs, the shape taken for known.
    response : ndarray (axes, cells, q)
        How far a centre moves when a shape parameter rises.
    shape_covariance : ndarray (q, q)
    noise : float
        Standard deviation of a run's loss, in units of the loss.
    """

    value: Array
    variance: Array
    response: Array
    shape_covariance: Array
    noise: float


@dataclass(frozen=True, eq=False)
class Pooled:
    """A finished fit of all runs, with what a refit starts from."""

    problem: Problem
    own: Array
    shape: Array
    centres: CellCentres
    fits: tuple[Fit, ...]
    between: tuple[float, ...]
    settled: bool

    @property
    def state(self) -> State:
        """Where the parameters leave the runs: worked out anew, since it is most of what a surface would hold."""
        return evaluate(self.problem, self.own, self.shape)


def centres_of_cells(problem: Problem, state: State) -> CellCentres:
    """Read the centres off one fit, with sandwich variances: runs of a cell scatter alike and count unequally."""
    system = equations(problem, state)
    residual, own, shared = state.residual[0], state.slopes[0][0], state.slopes[1][0]
    weight = problem.runs.weight
    response, inverse = np.linalg.solve(system.own, system.cross)[0], np.linalg.inv(system.own[0])
    filling = (own * weight[:, None] ** 2) @ own.swapaxes(1, 2)
    dof = _freedom(problem, weight.sum(axis=1) - np.einsum("cab,cba->c", inverse, filling))
    noise = _noise(problem, residual, dof)[:, None, None]
    prior = np.diag(problem.own_prior)
    own_covariance = inverse @ (noise * filling + problem.scatter**2 * prior) @ inverse
    left = shared - response.swapaxes(1, 2) @ own
    filling = (noise * ((left * weight[:, None] ** 2) @ left.swapaxes(1, 2))).sum(axis=0)
    filling = filling + problem.scatter**2 * np.diag(problem.shape_prior[1])
    inverse = np.linalg.inv(system.remainder(response[None], system.shared)[0])
    return CellCentres(
        value=state.centre[0].T,
        variance=np.maximum(np.einsum("cmm->mc", own_covariance)[1:], 1e-8),
        response=-np.moveaxis(response[:, 1:], 0, 1),
        shape_covariance=inverse @ filling @ inverse,
        noise=_plain_noise(problem, residual, dof),
    )


def _freedom(problem: Problem, dof: Array) -> Array:
    """Return the degrees of freedom of the cells once the shape has taken its share."""
    dof = np.where(dof > _LEAST_DOF, dof, 0.0)
    return dof * max(1 - problem.basin.size / max(dof.sum(), 1e-9), 0.3)


def _plain_noise(problem: Problem, residual: Array, dof: Array) -> float:
    """Return the standard deviation of runs in units of the loss, outliers drawn in: what a new run may do."""
    drawn = np.clip(residual, -_OUTLIER * problem.scatter, _OUTLIER * problem.scatter) * problem.runs.lowest[:, None]
    known = dof > 0
    total = (problem.runs.weight * drawn**2)[known].sum()
    return float(np.sqrt(total / dof.sum())) if known.any() else float("nan")


def _noise(problem: Problem, residual: Array, dof: Array) -> Array:
    """Return the variance of a run in every cell, shrunk towards all cells'."""
    squares = problem.runs.weight * problem.loss.weight(residual) * residual**2
    variance, _ = pool_noise(np.where(dof > 0, squares.sum(axis=1), 0.0), dof, np.ones(len(dof)))
    return np.where(np.isfinite(variance), variance, problem.scatter**2)


def refit_law(start: Fit, centre: Array, variance: Array, count: Array) -> tuple[Array, Array, Array]:
    """Fit a law to K sets of centres with random-effects weights, beginning at a fit of it.

    Parameters
    ----------
    start : Fit
        The law fitted to the same cells.
    centre : ndarray (K, cells)
        Logs of the optima.
    variance : ndarray (cells,)
    count : ndarray (K, cells)
        How often each cell counts.

    Returns
    -------
    phi : ndarray (K, p)
        Fit coordinates.
    scatter : ndarray (K,)
        Standard deviation of optima between cells.
    usable : ndarray of bool (K,)
    """
    tau2 = between_cells(start, centre, variance, count)
    with np.errstate(all="ignore"):
        phi, usable = refits(start)(count / (variance + tau2[:, None]), centre)
    return phi, np.sqrt(tau2), usable


def law_through_centres(law: Law, keys: pd.DataFrame, centres: CellCentres, axis: int, scatter: float) -> Fit:
    """Fit a law to the centres, which scatter about it by their own errors and by `scatter`.

    The covariance of the law holds the errors of the cells, and that of the shape, which moves all centres together.
    """
    rows = keys.assign(**{column_of(law.target): np.exp(centres.value[axis])})
    weights = 1 / (centres.variance[axis] + scatter**2)
    fitted = fit(law, rows, weights=weights / weights.mean())
    if not np.isfinite(fitted.covariance).all():
        return fitted
    root = np.sqrt(weights)
    moved = (np.linalg.pinv(_design(fitted) * root[:, None]) * root) @ centres.response[axis]
    return replace(fitted, covariance=fitted.covariance + moved @ centres.shape_covariance @ moved.T)


def _design(fitted: Fit) -> Array:
    """Return the slopes of the law's log in its fit coordinates (rows, p)."""
    return fitted.problem.values("log")(fitted.phi[None])[1][0].T


def between_cells(start: Fit, observed: Array, variance: Array, count: Array) -> Array:
    """Return the variances of optima between cells beyond their own, by Paule and Mandel's equation.

    tau**2 is where the weighted squared residuals of the law equal their degrees of freedom; zero if they never exceed
    them. The law is taken as linear about `start`.

    Parameters
    ----------
    start : Fit
        The law fitted to the cells.
    observed : ndarray (K, cells)
        Logs of the optima.
    variance : ndarray (cells,)
    count : ndarray (K, cells)
        How often each cell counts.

    Returns
    -------
    ndarray (K,)

    References
    ----------
    Paule and Mandel 1982, J. Res. NBS 87, 377.
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


@dataclass(frozen=True, eq=False, repr=False)
class Surface(Shown):
    """Loss around the optimum for every size and budget; made by `fit_surface`.

    Parameters
    ----------
    lr_fit, batch_fit : Fit
        The laws, fitted to the cells' centres with random-effects weights; `batch_fit` is None for a sweep of one
        batch size a cell.
    floor_fit : Fit or None
        The loss law of the floors; None where none was asked for, or there are too few cells for one.
    cells : pandas.DataFrame
        One row a (params, tokens) cell: its centre with standard errors, floor, number of runs, and whether the centre
        lies inside the cell's own grid.
    shape : ndarray (q,)
        Shape parameters of the basin, see `scalefit.basin_shape`; curvatures in units of the loss.
    reference : pandas.Series
        Mean log params and log tokens, where the curvatures' trends are centred.
    scatter : float
        Run-to-run scatter of the loss near the optimum, as a fraction of it.
    noise : float
        Standard deviation of a run's loss, in units of the loss; above the robust `scatter` where tails are heavy.
    between : mapping of str to float
        Scatter of cells' optima around each law beyond their own errors, in logs.
    window : float
        Relative excess at which a run's weight has fallen to a quarter.
    notes : tuple of Note
    source : str
    pooled : Pooled
        What a refit starts from.
    """

    lr_fit: Fit
    batch_fit: Fit | None
    floor_fit: Fit | None
    cells: pd.DataFrame
    shape: Array
    reference: pd.Series
    scatter: float
    noise: float
    between: dict[str, float]
    window: float
    notes: tuple[Note, ...] = field(default=())
    source: str = "table"
    pooled: Pooled | None = field(default=None, repr=False)

    @property
    def laws(self) -> dict[str, Fit]:
        """The fitted laws by setting: lr, and batch if the surface spans it."""
        return {"lr": self.lr_fit} | ({"batch": self.batch_fit} if self.batch_fit is not None else {})

    def optimum(self, *, level: float = 0.95, **inputs: Any) -> pd.DataFrame:
        """Return the best learning rate and batch with intervals at (params, tokens).

        The intervals are for the optimum of a new cell: parameter covariance and scatter between cells.

        Parameters
        ----------
        level : float
        **inputs : float or array_like
            ``params=7e9, tokens=1.4e12`` (or N=, D=).

        Returns
        -------
        pandas.DataFrame
            params, tokens, lr, lr_lo, lr_hi, batch, batch_lo, batch_hi, reach.
        """
        given = {column_of(name): value for name, value in inputs.items()}
        wanted = {column_of(n) for f in (self.lr_fit, self.batch_fit) if f is not None for n in f.law.inputs}
        strange = [name for name in given if name not in ("params", "tokens")]
        missing = sorted(wanted - given.keys())
        if strange or missing:
            found = f"missing: {', '.join(missing)}" if missing else f"not {', '.join(strange)}"
            raise LawError(f"an optimum is asked for at {', '.join(sorted(wanted))}; {found}")
        arrays = np.broadcast_arrays(*(np.atleast_1d(np.asarray(value, dtype=float)) for value in given.values()))
        place = pd.DataFrame(dict(zip(given, arrays, strict=True)))
        parts, reach = [], []
        for axis, fitted in (("lr", self.lr_fit), ("batch", self.batch_fit)):
            if fitted is None:
                continue
            own = {column_of(name) for name in fitted.law.inputs}
            fitted = replace(fitted, scale=self.between[axis] * np.sqrt(fitted.typical_weight))
            table = fitted.predict(place[[name for name in place if name in own]], level=level)
            renamed = table.rename(columns={"prediction": axis, "lo": f"{axis}_lo", "hi": f"{axis}_hi"})
            parts.append(renamed[[axis, f"{axis}_lo", f"{axis}_hi"]])
            reach.append(table["reach"])
        return pd.concat([place, *parts, pd.concat(reach, axis=1).max(axis=1).rename("reach")], axis=1)

    def loss(self, *, lr: Any, batch: Any = None, params: Any, tokens: Any) -> np.ndarray:
        """Return the predicted loss of runs: the loss law's floor and the basin above it.

        Raises
        ------
        FitError
            If there were too few cells for a loss law.
        """
        floor_fit = self._floor_law()
        place, shape = self._places(lr, batch, params, tokens)
        height, _ = self._rise(place, [fitted.law(fitted.values, place) for fitted in self.laws.values()])
        return (floor_fit.law(floor_fit.values, place) + height).reshape(shape)

    def predict_loss(
        self, *, lr: Any, batch: Any = None, params: Any, tokens: Any, level: float = 0.95
    ) -> pd.DataFrame:
        r"""Predict the loss of single runs in new cells, with intervals.

        To first order :math:`\sigma_L^2 = \sigma_f^2 + \sum_a (\partial h/\partial m_a)^2 \sigma_a^2 + s^2`: the
        error of the loss law and the scatter of floors about it, those of the optimum (see `optimum`) times the slope
        of the basin, and the run-to-run scatter. The basin's own shape is taken as known.

        Parameters
        ----------
        lr, batch, params, tokens : float or array_like
            `batch` only for a surface that spans it.
        level : float

        Returns
        -------
        pandas.DataFrame
            The inputs, loss, loss_lo, loss_hi.

        Raises
        ------
        FitError
            If there were too few cells for a loss law.
        """
        floor_fit = self._floor_law()
        place, _ = self._places(lr, batch, params, tokens)
        best = self.optimum(level=level, params=place["params"], tokens=place["tokens"])
        floor = floor_fit.predict(place[["params", "tokens"]], level=level)
        height, gradient = self._rise(place, [best[name] for name in self.laws])
        loss = floor["prediction"].to_numpy() + height
        check_level(level)
        halves = [(floor["hi"] - floor["lo"]) / 2, t_quantile(level, floor_fit.dof) * self.noise * np.ones(len(place))]
        for slope, name in zip(gradient, self.laws, strict=True):
            halves.append(slope * np.log(best[f"{name}_hi"] / best[f"{name}_lo"]) / 2)
        half = np.sqrt(sum(np.asarray(part) ** 2 for part in halves))
        return place.assign(loss=loss, loss_lo=loss - half, loss_hi=loss + half)

    def _floor_law(self) -> Fit:
        if self.floor_fit is None:
            raise FitError(
                "this surface has no loss law, because none was asked for or its cells allow none; predict the optimum "
                "instead"
            )
        return self.floor_fit

    def _places(self, lr: Any, batch: Any, params: Any, tokens: Any) -> tuple[pd.DataFrame, tuple[int, ...]]:
        """Return one row a run, and the shape in which they were asked for."""
        given = {"lr": lr, "batch": batch, "params": params, "tokens": tokens}
        if self.batch_fit is None:
            del given["batch"]
        if any(value is None for value in given.values()):
            raise FitError("this surface spans learning rate and batch: give both")
        arrays = np.broadcast_arrays(*(np.asarray(value, dtype=float) for value in given.values()))
        return pd.DataFrame({name: a.ravel() for name, a in zip(given, arrays, strict=True)}), arrays[0].shape

    def _rise(self, place: pd.DataFrame, best: list[Any]) -> tuple[Array, Array]:
        """Return the basin's height at the runs and its slopes in their log settings, (n,) and (axes, n)."""
        axes = len(best)
        settings = np.log(place[list(self.laws)].to_numpy().T)
        logs = np.log(place[list(self.reference.index)].to_numpy()) - self.reference.to_numpy()
        trend = logs if self.shape.size > axes * 2 + 3 * (axes == 2) else logs[:, :0]
        offsets = settings - np.log(np.array([np.broadcast_to(values, len(place)) for values in best]))
        height, gradient, _ = BasinShape(trend, axes)(self.shape[None], offsets[:, None])
        return height[0], gradient[:, 0]

    def _face(self) -> Face:
        fits = [f for f in (self.lr_fit, self.batch_fit, self.floor_fit) if f is not None]
        tables = [f.table.assign(law=f.law.target) for f in fits]
        table = pd.concat(tables)[["law", "parameter", "value", "stderr", "lo", "hi", "status"]]
        shown = table.map(lambda v: format_number(v) if isinstance(v, float) else v)
        facts = [
            *((f.law.target, f.law.formula) for f in fits),
            ("cells", f"{len(self.cells)}, {int((~self.cells['inside']).sum())} with the centre beyond their own grid"),
            ("run scatter", f"{format_number(self.scatter, 3)} of the loss"),
            ("cell scatter", ", ".join(f"{format_number(s, 3)} of log {axis}" for axis, s in self.between.items())),
            ("source", self.source),
        ]
        return Face("Surface", tuple(facts), shown, self.notes)
