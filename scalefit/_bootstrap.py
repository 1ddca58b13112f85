"""Resampling: how much a fit or a whole surface would move on other data of the same kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Integral
from typing import Any, overload

import numpy as np
import pandas as pd

from scalefit._values import Note
from scalefit.display import Display, Displayable
from scalefit.errors import FitError
from scalefit.fitting.clusters import check_groups
from scalefit.fitting.fit_result import Fit, predict
from scalefit.fitting.fit_values import check_level
from scalefit.fitting.search import refits
from scalefit.surface.fit_surface import refit_law
from scalefit.surface.joint import State, descend
from scalefit.surface.surface import Pooled, Surface
from scalefit.vocabulary import format_error, format_number

Array = np.ndarray

# How much is done at once; larger blocks fall out of the processor's cache.
_BLOCK = 8  # refits of a surface
_CHUNK = 30_000  # rows times refits of a law


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
        low, high = _percentiles(self.table, level)
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
        check_level(level)
        table = self.surface.optimum(level=level, **inputs)
        # A stream of its own: the noise must not repeat the numbers that drew the resamples.
        rng = np.random.default_rng([self.seed, 1])
        for name, fit in self.surface.laws.items():
            entered = fit.law.derivation.enter(fit.law.read_inputs(table))
            values, _ = fit.law.derivation.function("log")(self.phi[name], entered)
            values = np.broadcast_to(values, (len(self.phi[name]), len(table)))
            values = values + self.between[name][:, None] * rng.normal(size=values.shape)
            low, high = np.exp(np.quantile(values, [0.5 - level / 2, 0.5 + level / 2], axis=0))
            table = table.assign(**{f"{name}_lo": low, f"{name}_hi": high})
        return table

    def _display(self) -> Display:
        table = self.intervals()
        own = table["surface_stderr"].map(lambda v: format_number(v, 2))
        shown = pd.DataFrame({"setting": table["setting"], **_shown(table), "stderr of the surface": own})
        facts = (("refits", f"{len(self.shape)} by cell, seed {self.seed}"), ("source", self.surface.source))
        return Display("Bootstrap of a surface", facts, shown, self.notes)


def resample_surface(surface: Surface, n: int, seed: int) -> SurfaceDraws:
    """Refit shape, centres and laws to cells drawn with replacement; each refit starts at the surface."""
    pooled = surface.pooled
    if pooled is None:
        raise FitError("this surface does not hold its runs; fit it again with sf.fit_surface")
    cells = len(surface.cells)
    # A cell drawn m times counts m times. The scatter of the runs, the window, and what each cell's runs say of its own
    # error are those of the surface; the scatter between cells is judged anew in every refit.
    count = np.random.default_rng(seed).multinomial(cells, np.full(cells, 1 / cells), size=n).astype(float)
    state = pooled.state
    blocks = [_refit(pooled, state, count[start : start + _BLOCK]) for start in range(0, n, _BLOCK)]
    centre, shape, settled = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    phi, between, usable = {}, {}, settled
    for axis, (name, fit) in enumerate(surface.laws.items()):
        phi[name], tau, good = refit_law(fit, centre[..., axis], pooled.centres.variance[axis], count)
        between[name], usable = tau, usable & good
    notes = _lost_refits(usable, "the laws", "there are too few cells")
    phi, between = ({name: values[usable] for name, values in parts.items()} for parts in (phi, between))
    return SurfaceDraws(surface, phi, shape[usable], between, seed, notes)


def _refit(pooled: Pooled, start: State, count: Array) -> tuple[Array, Array, Array]:
    state, settled = descend(replace(pooled.problem, count=count), start.repeated(len(count)))
    return state.centre, state.shape, settled


@dataclass(frozen=True, eq=False, repr=False)
class Draws(Displayable):
    """Refits of a law to resampled data; made by `scalefit.bootstrap`.

    Parameters
    ----------
    fit : Fit
        The fit that was resampled.
    phi : ndarray (n, p)
        Refits in fit coordinates; those that failed are left out and noted.
    by : str
        What was resampled: "row", "cell" or "parametric".
    seed : int
        Replays the same draws.
    notes : tuple of Note

    See Also
    --------
    bootstrap : makes them
    SurfaceDraws : the same for a whole surface

    Examples
    --------
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> table = pd.DataFrame({"params": [1e7, 3e7, 1e8, 3e8, 1e9], "loss": [4.0, 3.6, 3.22, 2.9, 2.56]})
    >>> draws = sf.bootstrap(sf.fit("L = c * N**a", table), n=200, by="parametric")
    >>> draws.intervals()["parameter"].tolist(), len(draws.table)
    (['c', 'a'], 200)
    """

    fit: Fit
    phi: Array
    by: str
    seed: int
    notes: tuple[Note, ...] = field(default=())

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a refit, one column a parameter, natural units, tied parameters included."""
        return pd.DataFrame(self.fit.natural(self.phi))

    @property
    def stderr(self) -> pd.Series:
        """Standard deviation of every parameter over the refits."""
        return self.table.std(ddof=1)

    def intervals(self, level: float = 0.95) -> pd.DataFrame:
        """Return the parameters with percentiles of the refits.

        Parameters
        ----------
        level : float
            Coverage of the intervals, between 0 and 1.

        Returns
        -------
        pandas.DataFrame
            Columns parameter, value, stderr, lo and hi.
        """
        low, high = _percentiles(self.table, level)
        values = [self.fit.values[str(name)] for name in self.table]
        names, stderr = list(self.table), self.stderr.to_numpy()
        return pd.DataFrame({"parameter": names, "value": values, "stderr": stderr, "lo": low, "hi": high})

    def predict(self, *, level: float = 0.95, **inputs: Any) -> pd.DataFrame:
        """Predict as `Fit.predict` does, with the spread of the refits in place of the covariance.

        To each refit's prediction one normal residual of the fit's scatter is added; lo and hi are percentiles.

        Parameters
        ----------
        level : float
            Coverage of the interval.
        **inputs : float or array_like
            Inputs by column (``params=7e9``) or symbol (``N=7e9``).

        Returns
        -------
        pandas.DataFrame
            As from `Fit.predict`.
        """
        table = predict(self.fit, None, inputs, level)
        law = self.fit.law
        entered = law.derivation.enter(law.read_inputs(table))
        values, _ = law.derivation.function(self.fit.space)(self.phi, entered)
        # A stream of its own: the noise must not repeat the numbers that drew the resamples.
        noise = np.random.default_rng([self.seed, 1]).normal(scale=self.fit.scatter, size=values.shape)
        low, high = np.quantile(values + noise, [0.5 - level / 2, 0.5 + level / 2], axis=0)
        if self.fit.space == "log":
            low, high = np.exp(low), np.exp(high)
        return table.assign(lo=low, hi=high)

    def _display(self) -> Display:
        facts = (("refits", f"{len(self.phi)} by {self.by}, seed {self.seed}"),)
        shown = pd.DataFrame(_shown(self.intervals()))
        return Display(f"Bootstrap of {self.fit.law.formula}", facts, shown, self.notes)


@overload
def bootstrap(fit: Fit, n: int | None = None, by: str = "cell", seed: int = 0) -> Draws: ...


@overload
def bootstrap(fit: Surface, n: int | None = None, by: str = "cell", seed: int = 0) -> SurfaceDraws: ...


def bootstrap(fit: Fit | Surface, n: int | None = None, by: str = "cell", seed: int = 0) -> Draws | SurfaceDraws:
    """Refit a law, or a whole surface, to resampled data.

    Parameters
    ----------
    fit : Fit or Surface
        Parameters that a fit holds (fixed, or at a bound) are held in every refit. A surface is resampled by cell, and
        its shape, its cells' centres and its laws are all fitted again.
    n : int, optional
        Number of refits; 1000 by default, 200 for a surface.
    by : {"cell", "row", "parametric"}
        Draw whole (params, tokens) cells, single rows, or the fitted curve plus normal residuals of the fit's scatter.
        Runs of a cell share its luck: rows are right only when they are independent.
    seed : int
        The same seed gives the same refits.

    Returns
    -------
    Draws or SurfaceDraws

    Raises
    ------
    FitError
        If the fit itself did not converge, or there are too few cells to draw from.

    See Also
    --------
    Fit.intervals : intervals from the covariance, without refits
    Draws.predict, SurfaceDraws.optimum : predictions with percentiles of the refits

    References
    ----------
    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 6 and 9.

    Examples
    --------
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> table = pd.DataFrame({"params": [1e7, 3e7, 1e8, 3e8, 1e9], "loss": [4.0, 3.6, 3.22, 2.9, 2.56]})
    >>> draws = sf.bootstrap(sf.fit("L = c * N**a", table), n=200, by="parametric")
    >>> bool(abs(draws.table["a"].mean() + 0.096) < 0.01)
    True
    """
    n = (1000 if isinstance(fit, Fit) else 200) if n is None else n
    _check_settings(n, by, seed)
    if not isinstance(fit, Fit):
        if not isinstance(fit, Surface):
            raise FitError(f"expected a Fit or a Surface to resample, found {type(fit).__name__}")
        if by != "cell":
            raise FitError(f"by: a surface is resampled by 'cell', found {by!r}: runs of a cell share floor and centre")
        return resample_surface(fit, n, seed)
    if not np.isfinite(fit.phi).all() or fit.status.name == "NOT_CONVERGED":
        raise FitError(f"only a converged fit can be resampled; this one: {fit.status.sentence}", partial=fit)
    if by == "parametric" and fit.is_bound.any():
        raise FitError(
            "a parametric bootstrap draws points, and some rows are bounds whose grids it does not know; resample by "
            "cell or row, or fit with bounds='drop'"
        )
    if by == "parametric" and fit.dof <= 0:
        raise FitError("a parametric bootstrap needs the residual scatter, and an exact fit has none")
    with np.errstate(all="ignore"):
        solve = refits(fit)
        parts = [solve(weights, observed) for weights, observed in _resamples(fit, n, by, seed)]
    phi, good = np.concatenate([p for p, _ in parts]), np.concatenate([g for _, g in parts])
    return Draws(fit, phi[good], by, seed, _lost_refits(good, "the law", "there is too little data"))


def _lost_refits(usable: Array, what: str, why: str) -> tuple[Note, ...]:
    """Note how many refits are left out; raise FitError when fewer than two are left."""
    lost = f"{int((~usable).sum())} of {len(usable)} resamples did not identify {what}"
    if usable.sum() < 2:
        raise FitError(f"{lost}; {why}")
    return () if usable.all() else (Note("lost refits", f"{lost} and were left out", caution=True),)


def _percentiles(table: pd.DataFrame, level: float) -> tuple[Array, Array]:
    check_level(level)
    return table.quantile([0.5 - level / 2, 0.5 + level / 2]).to_numpy()  # type: ignore[return-value]


def _shown(table: pd.DataFrame) -> dict[str, Any]:
    """Return the columns that both kinds of draws show, as text."""
    return {
        "parameter": table["parameter"],
        "value": [format_error(v, e) for v, e in zip(table["value"], table["stderr"], strict=True)],
        "lo 95%": table["lo"].map(format_number),
        "hi 95%": table["hi"].map(format_number),
    }


def _check_settings(n: Any, by: Any, seed: Any) -> None:
    if not isinstance(by, str):
        raise FitError(f"by: expected 'cell', 'row', 'parametric' or the name of a column, found {by!r}")
    if not isinstance(n, Integral):
        raise FitError(f"n: expected a whole number, found {n!r}")
    if n < 2:
        raise FitError(f"n: expected at least 2 refits, found {n}")
    if not isinstance(seed, Integral) or seed < 0:
        raise FitError(f"seed: expected a whole number from 0 up, found {seed!r}")


def _groups(fit: Fit, by: str) -> Array:
    """Return the group of every row that is drawn as one."""
    if by not in ("cell", "row", "parametric"):
        return check_groups(fit.labels, by)
    groups = fit.cells if by == "cell" else np.arange(fit.n)
    if by != "parametric" and groups.max() < 1:
        raise FitError(f"by={by!r}: there is one {by} only; resample by row or parametric")
    return groups


def _resamples(fit: Fit, n: int, by: str, seed: int) -> Iterator[tuple[Array, Array]]:
    """Yield blocks of (weights (K, rows), observed target (K, rows) or (rows,)) until n resamples are made."""
    rng = np.random.default_rng(seed)
    base, observed = fit.weights, fit.problem.observed
    block = max(1, _CHUNK // len(base))
    groups = _groups(fit, by)
    count = int(groups.max()) + 1
    expected = observed - fit.residuals
    # A row of weight zero takes no part in a refit; its noise must only be a number.
    sigma = fit.scale / np.sqrt(np.where(base > 0, base, np.inf))
    for start in range(0, n, block):
        size = min(block, n - start)
        if by == "parametric":
            yield base[None], expected - rng.normal(size=(size, len(base))) * sigma
        else:
            draws = rng.multinomial(count, np.full(count, 1 / count), size=size)
            yield base * draws[:, groups], observed
