"""Resampling: how much a fit would move on other data of the same kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from typing import Any, overload

import numpy as np
import pandas as pd

from scalefit.errors import FitError
from scalefit.faces import Face, Shown
from scalefit.fitting.refits import refits
from scalefit.fitting.result import Fit, check_level
from scalefit.formatting import format_error, format_number
from scalefit.notes import Note
from scalefit.surface import Surface, SurfaceDraws
from scalefit.surface.resampling import resample_surface

Array = np.ndarray

_CHUNK = 30_000
"""Rows times resamples handled at once; larger blocks fall out of the cache."""


@dataclass(frozen=True, eq=False, repr=False)
class Draws(Shown):
    """Refits of a law to resampled data.

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
        """Return parameter, value, stderr, lo and hi, where lo and hi are percentiles of the refits."""
        check_level(level)
        low, high = self.table.quantile([0.5 - level / 2, 0.5 + level / 2]).to_numpy()
        values = [self.fit.values[str(name)] for name in self.table]
        columns = {
            "parameter": list(self.table),
            "value": values,
            "stderr": self.stderr.to_numpy(),
            "lo": low,
            "hi": high,
        }
        return pd.DataFrame(columns)

    def predict(self, *, level: float = 0.95, **inputs: Any) -> pd.DataFrame:
        """Predict as `Fit.predict` does, with the spread of the refits in place of the covariance.

        To each refit's prediction one normal residual of the fit's scatter is added; lo and hi are percentiles.
        """
        from scalefit.fitting.prediction import predict

        table = predict(self.fit, None, inputs, level)
        law = self.fit.law
        entered = law.derivation.enter(law.read_inputs(table))
        values, _ = law.derivation.function(self.fit.space)(self.phi, entered)
        noise = np.random.default_rng([self.seed, 1]).normal(scale=self.fit.scatter, size=values.shape)
        low, high = np.quantile(values + noise, [0.5 - level / 2, 0.5 + level / 2], axis=0)
        if self.fit.space == "log":
            low, high = np.exp(low), np.exp(high)
        return table.assign(lo=low, hi=high)

    def _face(self) -> Face:
        table = self.intervals()
        shown = pd.DataFrame(
            {
                "parameter": table["parameter"],
                "value": [format_error(v, e) for v, e in zip(table["value"], table["stderr"], strict=True)],
                "lo 95%": table["lo"].map(format_number),
                "hi 95%": table["hi"].map(format_number),
            }
        )
        facts = (("refits", f"{len(self.phi)} by {self.by}, seed {self.seed}"),)
        return Face(f"Bootstrap of {self.fit.law.formula}", facts, shown, self.notes)


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

    References
    ----------
    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 6 and 9.

    Examples
    --------
    >>> import pandas as pd
    >>> from scalefit.fitting import fit
    >>> table = pd.DataFrame({"params": [1e7, 3e7, 1e8, 3e8, 1e9], "loss": [4.0, 3.6, 3.22, 2.9, 2.56]})
    >>> draws = bootstrap(fit("L = c * N**a", table), n=200, by="parametric")
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
    if good.sum() < 2:
        raise FitError(f"{n - int(good.sum())} of {n} resamples did not identify the law; there is too little data")
    notes = []
    if not good.all():
        text = f"{int((~good).sum())} of {n} resamples did not identify the law and were left out"
        notes.append(Note("lost refits", text, caution=True))
    return Draws(fit, phi[good], by, seed, tuple(notes))


def _check_settings(n: Any, by: Any, seed: Any) -> None:
    if by not in ("cell", "row", "parametric"):
        raise FitError(f"by: expected 'cell', 'row' or 'parametric', found {by!r}")
    if not isinstance(n, Integral):
        raise FitError(f"n: expected a whole number, found {n!r}")
    if n < 2:
        raise FitError(f"n: expected at least 2 refits, found {n}")
    if not isinstance(seed, Integral) or seed < 0:
        raise FitError(f"seed: expected a whole number from 0 up, found {seed!r}")


def _resamples(fit: Fit, n: int, by: str, seed: int) -> Iterator[tuple[Array, Array]]:
    """Yield blocks of (weights (K, rows), observed target (K, rows) or (rows,)) until n resamples are made."""
    rng = np.random.default_rng(seed)
    base, observed = fit.weights, fit.problem.observed
    block = max(1, _CHUNK // len(base))
    groups = fit.cells if by == "cell" else np.arange(len(base))
    count = int(groups.max()) + 1
    if by != "parametric" and count < 2:
        raise FitError(f"by={by!r}: there is one {by} only; resample by row or parametric")
    expected = observed - fit.residuals
    sigma = fit.scale / np.sqrt(np.where(base > 0, base, np.inf))
    for start in range(0, n, block):
        size = min(block, n - start)
        if by == "parametric":
            yield base[None], expected - rng.normal(size=(size, len(base))) * sigma
        else:
            draws = rng.multinomial(count, np.full(count, 1 / count), size=size)
            yield base * draws[:, groups], observed
