"""How much a whole surface would move on other cells of the same kind."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note
from scalefit.display import Display, Displayable
from scalefit.errors import FitError
from scalefit.fitting.draws import lost_refits, percentiles, shown, stretch
from scalefit.fitting.fit_values import check_level
from scalefit.schema import group_levels, number_groups
from scalefit.surface.fit_surface import refit_law
from scalefit.surface.joint import State, descend
from scalefit.surface.surface import Pooled, Surface
from scalefit.vocabulary import format_number

Array = np.ndarray

# Refits at once; larger blocks fall out of the processor's cache.
_BLOCK = 8
_FEWEST = 4  # sizes or budgets: of three, every draw that fits the laws is the surface itself


@dataclass(frozen=True, eq=False, repr=False)
class SurfaceDraws(Displayable):
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
    by : str
        What was resampled: "cell", "params" or "tokens".
    dof : float
        Degrees of freedom of the intervals, as of `Draws`: sizes or budgets minus one, infinite for cells.

    See Also
    --------
    bootstrap : makes them
    fit_surface : the surface that is resampled
    Draws : the same for one law

    Examples
    --------
    >>> import scalefit as sf
    >>> runs = sf.simulation.simulate_sweep(seed=1)
    >>> surface = sf.fit_surface(sf.Sweep.from_frame(runs.assign(diverged=runs["loss"].isna())))
    >>> sf.bootstrap(surface, n=20).table.shape[1]
    6
    """

    surface: Surface
    phi: dict[str, Array]
    shape: Array
    between: dict[str, Array]
    seed: int
    notes: tuple[Note, ...] = field(default=())
    by: str = "cell"
    dof: float = np.inf

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a refit; columns are (setting, parameter), natural units."""
        return self._natural(self.phi)

    def _natural(self, phi: dict[str, Array]) -> pd.DataFrame:
        return pd.concat(
            {name: pd.DataFrame(fit.natural(phi[name])) for name, fit in self.surface.laws.items()}, axis=1
        )

    def _stretched(self, level: float) -> dict[str, Array]:
        check_level(level)
        return {name: stretch(fit.phi, self.phi[name], level, self.dof) for name, fit in self.surface.laws.items()}

    @property
    def stderr(self) -> pd.Series:
        """Standard deviation of every parameter over the refits, by (setting, parameter)."""
        return self.table.std(ddof=1)

    def intervals(self, level: float = 0.95) -> pd.DataFrame:
        """Return the parameters with percentiles of the refits, and the surface's own errors beside them.

        Parameters
        ----------
        level : float
            Coverage of the intervals, between 0 and 1.

        Returns
        -------
        pandas.DataFrame
            Columns setting, parameter, value, stderr, lo, hi and surface_stderr.
        """
        low, high = percentiles(self._natural(self._stretched(level)), level)
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
        The laws are taken for true: that optima stray from them together, only `Surface.optimum` knows.

        Parameters
        ----------
        level : float
            Coverage of the intervals.
        **inputs : float or array_like
            Inputs by column (``params=7e9``) or symbol (``N=7e9``).

        Returns
        -------
        pandas.DataFrame
            As from `Surface.optimum`.
        """
        phi = self._stretched(level)
        table = self.surface.optimum(level=level, **inputs)
        # A stream of its own: the noise must not repeat the numbers that drew the resamples.
        rng = np.random.default_rng([self.seed, 1])
        for name, fit in self.surface.laws.items():
            entered = fit.law.derivation.enter(fit.law.read_inputs(table))
            values, _ = fit.law.derivation.function("log")(phi[name], entered)
            values = np.broadcast_to(values, (len(phi[name]), len(table)))
            values = values + self.between[name][:, None] * rng.normal(size=values.shape)
            low, high = np.exp(np.quantile(values, [0.5 - level / 2, 0.5 + level / 2], axis=0))
            table = table.assign(**{f"{name}_lo": low, f"{name}_hi": high})
        return table

    def _display(self) -> Display:
        table = self.intervals()
        own = table["surface_stderr"].map(lambda v: format_number(v, 2))
        columns = pd.DataFrame({"setting": table["setting"], **shown(table), "stderr of the surface": own})
        facts = (("refits", f"{len(self.shape)} by {self.by}, seed {self.seed}"), ("source", self.surface.source))
        return Display("Bootstrap of a surface", facts, columns, self.notes)


def resample_surface(surface: Surface, n: int, by: str, seed: int) -> SurfaceDraws:
    """Refit shape, centres and laws to cells, or whole sizes, drawn with replacement; each from the surface."""
    pooled = surface.pooled
    if pooled is None:
        raise FitError("this surface does not hold its runs; fit it again with sf.fit_surface")
    cells = surface.cells
    if by not in ("cell", "params", "tokens") or (by != "cell" and (by not in cells or cells[by].nunique() < 2)):
        there = [name for name in ("params", "tokens") if name in cells and cells[name].nunique() > 1]
        expected = " or ".join(map(repr, ["cell", *there]))
        raise FitError(
            f"by: this surface is resampled by {expected}, found {by!r}: runs of a cell share floor and centre"
        )
    groups = np.arange(len(cells)) if by == "cell" else number_groups(group_levels(cells[by].to_numpy()))[1]
    if by != "cell" and groups.max() + 1 < _FEWEST:
        raise FitError(
            f"by={by!r}: expected {_FEWEST} groups to draw from, found {groups.max() + 1}: too many draws would be the "
            "surface itself; resample by cell"
        )
    number = int(groups.max()) + 1
    # A cell drawn m times counts m times. The scatter of the runs, the window, and what each cell's runs say of its own
    # error are those of the surface; the scatter between cells is judged anew in every refit.
    count = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=n).astype(float)
    count = count[:, groups]
    state = pooled.state
    blocks = [_refit(pooled, state, count[start : start + _BLOCK]) for start in range(0, n, _BLOCK)]
    centre, shape, settled = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    phi, between, usable = {}, {}, settled
    for axis, (name, fit) in enumerate(surface.laws.items()):
        phi[name], tau, good = refit_law(fit, centre[..., axis], pooled.centres.variance[axis], count)
        between[name], usable = tau, usable & good
    notes = lost_refits(usable, "the laws", "there are too few cells")
    phi, between = ({name: values[usable] for name, values in parts.items()} for parts in (phi, between))
    dof = np.inf if by == "cell" else number - 1.0
    return SurfaceDraws(surface, phi, shape[usable], between, seed, notes, by, dof)


def _refit(pooled: Pooled, start: State, count: Array) -> tuple[Array, Array, Array]:
    state, settled = descend(replace(pooled.problem, count=count), start.repeated(len(count)))
    return state.centre, state.shape, settled
