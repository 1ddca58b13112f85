"""The fitted surface: what it says of optima and losses at any size and budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note
from scalefit.display import Display, Displayable
from scalefit.errors import FitError, LawError
from scalefit.fitting.fit_result import Fit
from scalefit.fitting.fit_values import check_level
from scalefit.fitting.prediction_inputs import rows_of
from scalefit.optima.basin_shape import BasinShape
from scalefit.solvers.distributions import t_quantile
from scalefit.surface.joint import CellCentres, Problem, State, evaluate
from scalefit.vocabulary import column_of, format_number

Array = np.ndarray


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


@dataclass(frozen=True, eq=False, repr=False)
class Surface(Displayable):
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
        Shape parameters of the basin, see `scalefit.optima.basin_shape`; curvatures in units of the loss.
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
        Those of the sweep and of the fit.
    source : str
        Where the runs came from.
    pooled : Pooled
        What a refit starts from.

    See Also
    --------
    fit_surface : Makes it.
    bootstrap : Refits it to resampled cells.

    Examples
    --------
    >>> import scalefit as sf
    >>> from scalefit.simulation import simulate_sweep
    >>> sweep = sf.read_sweep(simulate_sweep(seed=1), batch_unit="tokens", nonfinite="diverged")
    >>> surface = sf.fit_surface(sweep)
    >>> list(surface.laws), len(surface.cells)
    (['lr', 'batch'], 16)
    >>> best = surface.optimum(params=2e8, tokens=1.6e10).iloc[0]
    >>> bool(best["lr_lo"] < best["lr"] < best["lr_hi"])
    True
    >>> run = surface.predict_loss(lr=best["lr"], batch=best["batch"], params=2e8, tokens=1.6e10)
    >>> list(run)[-3:]
    ['loss', 'loss_lo', 'loss_hi']
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

    def optimum(self, *, level: float = 0.95, kind: str = "new", **inputs: Any) -> pd.DataFrame:
        """Return the best learning rate and batch with intervals at (params, tokens).

        The intervals are for the optimum of a new cell: what is not known of the laws, how far optima of one size and
        of one budget stray from them together, and the scatter of single cells (`Fit.predict`).

        Parameters
        ----------
        level : float
            Coverage of the intervals.
        kind : {"new", "mean"}
            What the intervals are for: the optimum of a new cell, or the mean of many, without their scatter.
        **inputs : float, str or array_like
            ``params=7e9, tokens="1.4T"`` (or N=, D=).

        Returns
        -------
        pandas.DataFrame
            params, tokens, lr, lr_lo, lr_hi, batch, batch_lo, batch_hi, reach; with the index of the series given.

        Raises
        ------
        LawError
            If an input is missing, or one is given that the laws do not take.

        See Also
        --------
        extrapolate : The same with its reach, the error last measured there and every caveat.

        Examples
        --------
        >>> import scalefit as sf
        >>> from scalefit.simulation import simulate_sweep
        >>> runs = sf.read_sweep(simulate_sweep(seed=1), batch_unit="tokens", nonfinite="diverged")
        >>> surface = sf.fit_surface(runs)
        >>> surface.optimum(params=[1e8, 2e8], tokens=1.6e10)[["lr", "reach"]].round(4).values.tolist()
        [[0.0032, 1.0], [0.0021, 1.0]]
        """
        given = {column_of(name): value for name, value in inputs.items()}
        wanted = {column_of(name) for fitted in self.laws.values() for name in fitted.law.inputs}
        strange = [name for name in given if name not in ("params", "tokens")]
        missing = sorted(wanted - given.keys())
        if strange or missing:
            found = f"missing: {', '.join(missing)}" if missing else f"not {', '.join(strange)}"
            raise LawError(f"an optimum is asked for at {', '.join(sorted(wanted))}; {found}")
        place = rows_of(given)
        parts, reach = [place], []
        for axis, fitted in self.laws.items():
            own = {*map(column_of, fitted.law.inputs), *fitted.places}
            table = fitted.predict(place[[name for name in place if name in own]], level=level, kind=kind)
            renamed = table.rename(columns={"prediction": axis, "lo": f"{axis}_lo", "hi": f"{axis}_hi"})
            parts.append(renamed[[axis, f"{axis}_lo", f"{axis}_hi"]])
            reach.append(table["reach"])
        return pd.concat([*parts, pd.concat(reach, axis=1).max(axis=1).rename("reach")], axis=1)

    def loss(self, *, lr: Any, batch: Any = None, params: Any, tokens: Any) -> np.ndarray:
        """Return the predicted loss of runs: the loss law's floor and the basin above it.

        Parameters
        ----------
        lr, batch, params, tokens : float or array_like
            `batch` only for a surface that spans it.

        Returns
        -------
        ndarray
            Nats per token, in the shape of the arguments.

        Raises
        ------
        FitError
            If there were too few cells for a loss law, or the batch is missing.

        Examples
        --------
        >>> import scalefit as sf
        >>> from scalefit.simulation import simulate_sweep
        >>> runs = sf.read_sweep(simulate_sweep(seed=1), batch_unit="tokens", nonfinite="diverged")
        >>> surface = sf.fit_surface(runs)
        >>> surface.loss(lr=[1e-3, 2e-3], batch=2.0**19, params=2e8, tokens=1.6e10).round(2).tolist()
        [2.76, 2.75]
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
            Coverage of the intervals.

        Returns
        -------
        pandas.DataFrame
            The inputs, loss, loss_lo, loss_hi.

        Raises
        ------
        FitError
            If there were too few cells for a loss law, or the batch is missing.

        Examples
        --------
        >>> import scalefit as sf
        >>> from scalefit.simulation import simulate_sweep
        >>> runs = sf.read_sweep(simulate_sweep(seed=1), batch_unit="tokens", nonfinite="diverged")
        >>> surface = sf.fit_surface(runs)
        >>> run = surface.predict_loss(lr=2e-3, batch=2.0**19, params=2e8, tokens=1.6e10)
        >>> run[["loss", "loss_lo", "loss_hi"]].round(2).values.tolist()
        [[2.75, 2.74, 2.76]]
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
        if all(np.ndim(value) < 2 for value in given.values()):
            return rows_of(given), np.broadcast_shapes(*map(np.shape, given.values()))
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

    def _display(self) -> Display:
        fits = [*self.laws.values(), *([self.floor_fit] if self.floor_fit is not None else [])]
        tables = [f.table.assign(law=f.law.target) for f in fits]
        table = pd.concat(tables)[["law", "parameter", "value", "stderr", "lo", "hi", "status"]]
        shown = table.map(lambda v: format_number(v) if isinstance(v, float) else v)
        facts = [
            *((f.law.target, f.law.formula) for f in fits),
            ("cells", f"{len(self.cells)}, {int((~self.cells['inside']).sum())} with the centre beyond their own grid"),
            ("run scatter", f"{format_number(self.scatter, 3)} of the loss"),
            ("cell scatter", ", ".join(f"{format_number(s, 3)} of log {axis}" for axis, s in self.between.items())),
            *((f"stray of {axis}", f.stray.sentence) for axis, f in self.laws.items() if f.stray is not None),
            ("source", self.source),
        ]
        return Display("Surface", tuple(facts), shown, self.notes)
