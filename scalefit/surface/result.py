"""The fitted surface: where the optimum is and what a run would lose, for any size and budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from scalefit.errors import FitError, LawError
from scalefit.fitting import Fit
from scalefit.formatting import Face, format_number, to_html, to_text
from scalefit.notes import Note
from scalefit.surface.basin import BasinShape
from scalefit.vocabulary import column_of

Array = np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Surface:
    """Loss around the optimum for every size and budget; made by `fit_surface`.

    Parameters
    ----------
    lr_fit, batch_fit : Fit
        The laws, fitted to the cells' centres with random-effects weights; `batch_fit` is None for a sweep of one
        batch size a cell.
    floor_fit : Fit or None
        The loss law of the floors, when there are enough cells for one.
    cells : pandas.DataFrame
        One row a (params, tokens) cell: its centre with standard errors, floor, number of runs, and whether the centre
        lies inside the cell's own grid.
    shape : ndarray (q,)
        Shape parameters of the basin, see `scalefit.surface.basin`.
    reference : pandas.Series
        Mean log params and log tokens, where the curvatures' trends are centred.
    scatter : float
        Run-to-run scatter of log loss near the optimum.
    between : mapping of str to float
        Scatter of cells' optima around each law beyond their own errors, in logs.
    window : float
        Relative excess at which a run's weight has fallen to a quarter.
    notes : tuple of Note
    source : str
    """

    lr_fit: Fit
    batch_fit: Fit | None
    floor_fit: Fit | None
    cells: pd.DataFrame
    shape: Array
    reference: pd.Series
    scatter: float
    between: dict[str, float]
    window: float
    notes: tuple[Note, ...] = field(default=())
    source: str = "table"

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
        if self.floor_fit is None:
            raise FitError("the floors of these cells allow no loss law; predict the optimum instead")
        inputs = {"params": np.asarray(params, dtype=float), "tokens": np.asarray(tokens, dtype=float)}
        settings = [lr] if self.batch_fit is None else [lr, batch]
        if any(setting is None for setting in settings):
            raise FitError("this surface spans learning rate and batch: give both")
        fits = [f for f in (self.lr_fit, self.batch_fit) if f is not None]
        best = [f.law(f.values, {n: inputs[n] for n in map(column_of, f.law.inputs)}) for f in fits]
        arrays = np.broadcast_arrays(*settings, *best, *inputs.values())
        shape = arrays[0].shape
        flat = [np.asarray(a, dtype=float).ravel() for a in arrays]
        axes = len(settings)
        offsets = np.log(np.array(flat[:axes]) / np.array(flat[axes : 2 * axes]))[:, None, :]
        logs = np.log(np.column_stack(flat[2 * axes :])) - self.reference.to_numpy()
        trend = logs if self.shape.size > axes * 2 + 3 * (axes == 2) else logs[:, :0]
        height, _, _ = BasinShape(trend, axes)(self.shape[None], offsets)
        law = self.floor_fit.law
        floor = law(self.floor_fit.values, {"params": flat[-2], "tokens": flat[-1]})
        return (floor * np.exp(height[0])).reshape(shape)

    def _face(self) -> Face:
        fits = [f for f in (self.lr_fit, self.batch_fit, self.floor_fit) if f is not None]
        tables = [f.table.assign(law=f.law.target) for f in fits]
        table = pd.concat(tables)[["law", "parameter", "value", "stderr", "lo", "hi", "status"]]
        shown = table.map(lambda v: format_number(v) if isinstance(v, float) else v)
        facts = [
            *((f.law.target, f.law.formula) for f in fits),
            ("cells", f"{len(self.cells)}, {int((~self.cells['inside']).sum())} with the centre beyond their own grid"),
            ("run scatter", f"{format_number(self.scatter, 3)} of log loss"),
            ("cell scatter", ", ".join(f"{format_number(s, 3)} of log {axis}" for axis, s in self.between.items())),
            ("source", self.source),
        ]
        return Face("Surface", tuple(facts), shown, self.notes)

    def __repr__(self) -> str:
        return to_text(self._face())

    def _repr_html_(self) -> str:
        return to_html(self._face())
