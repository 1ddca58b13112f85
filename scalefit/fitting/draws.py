"""How much a fitted law would move on other data of the same kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note
from scalefit.display import Display, Displayable
from scalefit.errors import FitError
from scalefit.fitting.clusters import check_groups, luck_by
from scalefit.fitting.fit_result import Fit, predict
from scalefit.fitting.fit_values import check_level
from scalefit.fitting.search import refits
from scalefit.solvers.distributions import t_quantile
from scalefit.vocabulary import format_error, format_number

Array = np.ndarray

# Rows times refits at once; larger blocks fall out of the processor's cache.
_CHUNK = 30_000

_ROWS = ("cell", "row", "parametric")  # what is drawn when it is no column


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
        What was resampled: "row", "cell", "parametric" or the column whose groups were.
    seed : int
        Replays the same draws.
    notes : tuple of Note
    dof : float
        Degrees of freedom of the intervals: groups minus one, infinite for rows and cells. Percentiles of few groups
        are too narrow; the refits' distance from the fit is stretched as Student's t is wider than the normal.

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
    dof: float = np.inf

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
        check_level(level)
        low, high = percentiles(pd.DataFrame(self.fit.natural(stretch(self.fit.phi, self.phi, level, self.dof))), level)
        values = [self.fit.values[str(name)] for name in self.table]
        names, stderr = list(self.table), self.stderr.to_numpy()
        return pd.DataFrame({"parameter": names, "value": values, "stderr": stderr, "lo": low, "hi": high})

    def predict(self, *, level: float = 0.95, **inputs: Any) -> pd.DataFrame:
        """Predict as `Fit.predict` does, with the spread of the refits in place of the covariance.

        To each refit's prediction one normal residual of the fit's scatter is added; lo and hi are percentiles. The law
        is taken for true: that optima stray from it together, only the interval of `Fit.predict` knows.

        Parameters
        ----------
        level : float
            Coverage of the interval.
        **inputs : float, str or array_like
            Inputs by column (``params=7e9``) or symbol (``N=7e9``).

        Returns
        -------
        pandas.DataFrame
            As from `Fit.predict`.
        """
        table = predict(self.fit, None, inputs, level, "new")
        law = self.fit.law
        entered = law.derivation.enter(law.read_inputs(table))
        values, _ = law.derivation.function(self.fit.space)(stretch(self.fit.phi, self.phi, level, self.dof), entered)
        # A stream of its own: the noise must not repeat the numbers that drew the resamples.
        noise = np.random.default_rng([self.seed, 1]).normal(scale=self.fit.scatter, size=values.shape)
        low, high = np.quantile(values + noise, [0.5 - level / 2, 0.5 + level / 2], axis=0)
        if self.fit.space == "log":
            low, high = np.exp(low), np.exp(high)
        return table.assign(lo=low, hi=high)

    def _display(self) -> Display:
        facts = (("refits", f"{len(self.phi)} by {self.by}, seed {self.seed}"),)
        columns = pd.DataFrame(shown(self.intervals()))
        return Display(f"Bootstrap of {self.fit.law.formula}", facts, columns, self.notes)


def lost_refits(usable: Array, what: str, why: str) -> tuple[Note, ...]:
    """Note how many refits are left out; raise FitError when fewer than two are left."""
    lost = f"{int((~usable).sum())} of {len(usable)} resamples did not identify {what}"
    if usable.sum() < 2:
        raise FitError(f"{lost}; {why}")
    return () if usable.all() else (Note("lost refits", f"{lost} and were left out", caution=True),)


def percentiles(table: pd.DataFrame, level: float) -> tuple[Array, Array]:
    """Return the ends of the middle `level` of every column."""
    check_level(level)
    return table.quantile([0.5 - level / 2, 0.5 + level / 2]).to_numpy()  # type: ignore[return-value]


def shown(table: pd.DataFrame) -> dict[str, Any]:
    """Return the columns that both kinds of draws show, as text."""
    return {
        "parameter": table["parameter"],
        "value": [format_error(v, e) for v, e in zip(table["value"], table["stderr"], strict=True)],
        "lo 95%": table["lo"].map(format_number),
        "hi 95%": table["hi"].map(format_number),
    }


def stretch(centre: Array, phi: Array, level: float, dof: float) -> Array:
    """Return refits as far from the fit as Student's t with these degrees of freedom is wider than the normal."""
    return centre + (phi - centre) * (t_quantile(level, dof) / t_quantile(level, np.inf))


def resample_law(fit: Fit, n: int, by: str, seed: int) -> Draws:
    """Refit a law n times to resampled data, each from the fit."""
    groups = np.arange(fit.n) if by == "parametric" else _groups(fit, by)
    with np.errstate(all="ignore"):
        solve = refits(fit)
        parts = [solve(weights, observed) for weights, observed in _resamples(fit, n, by, groups, seed)]
    phi, good = np.concatenate([p for p, _ in parts]), np.concatenate([g for _, g in parts])
    notes = lost_refits(good, "the law", "there is too little data")
    return Draws(fit, phi[good], by, seed, notes, np.inf if by in _ROWS else float(groups.max()))


def _groups(fit: Fit, by: str) -> Array:
    """Return the group of every row, which are drawn together."""
    if by not in _ROWS:
        return check_groups(fit.labels, by)
    groups = fit.cells if by == "cell" else np.arange(fit.n)
    if groups.max() < 1:
        raise FitError(f"by={by!r}: there is one {by} only; resample by row or parametric")
    return groups


def _resamples(fit: Fit, n: int, by: str, groups: Array, seed: int) -> Iterator[tuple[Array, Array]]:
    """Yield blocks of (weights (K, rows), observed target (K, rows) or (rows,)) until n resamples are made."""
    rng = np.random.default_rng(seed)
    base, observed = fit.weights, fit.problem.observed
    count, block = int(groups.max()) + 1, max(1, _CHUNK // len(base))
    expected = observed - fit.residuals
    # Outliers and bounds cannot be drawn as noise of one kind: whole groups are drawn instead.
    wild = by not in _ROWS and not (fit.loss.robust or fit.is_bound.any())
    # A row of weight zero takes no part in a refit; its noise must only be a number.
    sigma = fit.scale / np.sqrt(np.where(base > 0, base, np.inf))
    noise = _grown_residuals(fit, groups, by) if wild else sigma
    for start in range(0, n, block):
        size = min(block, n - start)
        if wild or by == "parametric":
            yield base[None], expected - rng.normal(size=(size, count))[:, groups] * noise
        else:
            draws = rng.multinomial(count, np.full(count, 1 / count), size=size)
            yield base * draws[:, groups], observed


def _grown_residuals(fit: Fit, groups: Array, by: str) -> Array:
    """Return residuals (rows,) made up for what the law took of each group."""
    luck = luck_by(fit.problem, fit.phi, fit.is_free, fit.scale)(groups)
    if not luck.can_be_judged:
        raise FitError(f"by={by!r}: {len(luck.size)} groups are too few to tell their luck from {fit.law.formula!r}")
    grown = np.zeros(fit.n)
    # Halfway in the exponent between CR2 and CR3: the one is too narrow on five groups, the other too wide.
    grown[fit.weights > 0] = luck.grown(-0.75) / luck.root
    return grown
