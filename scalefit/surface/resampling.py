"""Refits of a whole surface to resampled cells."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from scalefit.errors import FitError
from scalefit.faces import Face, Shown
from scalefit.fitting.result import check_level
from scalefit.formatting import format_error, format_number
from scalefit.notes import Note
from scalefit.surface.centres import Pooled, refit_law
from scalefit.surface.joint import State, descend
from scalefit.surface.result import Surface

Array = np.ndarray

_BLOCK = 8
"""Refits made at once; more fall out of the cache."""


@dataclass(frozen=True, eq=False, repr=False)
class SurfaceDraws(Shown):
    """Refits of a surface; made by `scalefit.bootstrap`.

    Parameters
    ----------
    surface : Surface
        The surface that was resampled.
    phi : mapping of str to ndarray (n, p)
        By setting, "lr" and "batch": the laws' parameters in fit coordinates; failed refits are left out and noted.
    shape : ndarray (n, q)
        Shape of the basin.
    between : mapping of str to ndarray (n,)
        Scatter of optima between cells, in logs.
    seed : int
        Replays the same draws.
    notes : tuple of Note
    """

    surface: Surface
    phi: dict[str, Array]
    shape: Array
    between: dict[str, Array]
    seed: int
    notes: tuple[Note, ...] = field(default=())

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a refit; columns are (setting, parameter), natural units."""
        named = {name: pd.DataFrame(fit.natural(self.phi[name])) for name, fit in self.surface.laws.items()}
        return pd.concat(named, axis=1)

    @property
    def stderr(self) -> pd.Series:
        """Standard deviation of every parameter over the refits, by (setting, parameter)."""
        return self.table.std(ddof=1)

    def intervals(self, level: float = 0.95) -> pd.DataFrame:
        """Return setting, parameter, value, stderr, lo and hi (percentiles), and the surface's own stderr beside."""
        check_level(level)
        low, high = self.table.quantile([0.5 - level / 2, 0.5 + level / 2]).to_numpy()
        own = {name: fit.table.set_index("parameter") for name, fit in self.surface.laws.items()}
        pairs: list[Any] = list(self.table.columns)
        columns = {
            "setting": [name for name, _ in pairs],
            "parameter": [parameter for _, parameter in pairs],
            "value": [own[name].at[parameter, "value"] for name, parameter in pairs],
            "stderr": self.stderr.to_numpy(),
            "lo": low,
            "hi": high,
            "surface_stderr": [own[name].at[parameter, "stderr"] for name, parameter in pairs],
        }
        return pd.DataFrame(columns)

    def optimum(self, *, level: float = 0.95, **inputs: Any) -> pd.DataFrame:
        """Predict as `Surface.optimum` does, with percentiles of the refits in place of the covariances.

        Each refit's prediction strays by its own scatter between cells: the interval is for the optimum of a new cell.
        """
        check_level(level)
        table = self.surface.optimum(level=level, **inputs)
        rng = np.random.default_rng([self.seed, 1])
        for name, fit in self.surface.laws.items():
            entered = fit.law.derivation.enter(fit.law.read_inputs(table))
            values, _ = fit.law.derivation.function("log")(self.phi[name], entered)
            values = np.broadcast_to(values, (len(self.phi[name]), len(table)))
            values = values + self.between[name][:, None] * rng.normal(size=values.shape)
            low, high = np.exp(np.quantile(values, [0.5 - level / 2, 0.5 + level / 2], axis=0))
            table = table.assign(**{f"{name}_lo": low, f"{name}_hi": high})
        return table

    def _face(self) -> Face:
        table = self.intervals()
        shown = pd.DataFrame(
            {
                "setting": table["setting"],
                "parameter": table["parameter"],
                "value": [format_error(v, e) for v, e in zip(table["value"], table["stderr"], strict=True)],
                "lo 95%": table["lo"].map(format_number),
                "hi 95%": table["hi"].map(format_number),
                "stderr of the surface": table["surface_stderr"].map(lambda v: format_number(v, 2)),
            }
        )
        facts = (("refits", f"{len(self.shape)} by cell, seed {self.seed}"), ("source", self.surface.source))
        return Face("Bootstrap of a surface", facts, shown, self.notes)


def resample_surface(surface: Surface, n: int, seed: int) -> SurfaceDraws:
    """Refit shape, centres and laws to cells drawn with replacement; each refit starts at the surface.

    A cell drawn m times counts m times. The scatter of the runs, the window, and what each cell's runs say of its own
    error are those of the surface; the scatter between cells is judged anew in every refit.

    Raises
    ------
    FitError
        If fewer than two refits identify the laws.
    """
    pooled = _pooled(surface)
    cells = len(surface.cells)
    count = np.random.default_rng(seed).multinomial(cells, np.full(cells, 1 / cells), size=n).astype(float)
    state = pooled.state
    blocks = [_refit(pooled, state, count[start : start + _BLOCK]) for start in range(0, n, _BLOCK)]
    centre, shape, settled = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    phi, between, usable = {}, {}, settled
    for axis, (name, fit) in enumerate(surface.laws.items()):
        phi[name], tau, good = refit_law(fit, centre[..., axis], pooled.centres.variance[axis], count)
        between[name], usable = tau, usable & good
    if usable.sum() < 2:
        raise FitError(f"{n - int(usable.sum())} of {n} resamples did not identify the laws; there are too few cells")
    notes = []
    if not usable.all():
        text = f"{int((~usable).sum())} of {n} resamples did not identify the laws and were left out"
        notes.append(Note("lost refits", text, caution=True))
    phi, between = ({name: values[usable] for name, values in parts.items()} for parts in (phi, between))
    return SurfaceDraws(surface, phi, shape[usable], between, seed, tuple(notes))


def _pooled(surface: Surface) -> Pooled:
    if surface.pooled is None:
        raise FitError("this surface does not hold its runs; fit it again with sf.fit_surface")
    return surface.pooled


def _refit(pooled: Pooled, start: State, count: Array) -> tuple[Array, Array, Array]:
    state, settled = descend(replace(pooled.problem, count=count), start.repeated(len(count)))
    return state.centre, state.shape, settled
