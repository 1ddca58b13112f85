"""The best split of a budget of data into steps and batch, as the three-term law of the loss implies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note, merge
from scalefit.batch_size.critical_batch import positive
from scalefit.display import Display, Displayable
from scalefit.errors import FitError, LawError
from scalefit.fitting.draws import Draws
from scalefit.fitting.fit_result import Fit
from scalefit.fitting.fit_values import check_level
from scalefit.laws import get_law
from scalefit.solvers.distributions import t_quantile
from scalefit.vocabulary import format_error

Array = np.ndarray

_NEEDED = ("b", "beta", "c", "gamma")
_LOST = ("at bound", "unidentified")
_STEP = 1e-5  # of a central difference in logs; its error is near 1e-10


@dataclass(frozen=True, eq=False, repr=False)
class BestBatch(Displayable):
    r"""The batch that loses least at every budget of data, B*(D) = M D^m; made by `best_batch`.

    Attributes
    ----------
    prefactor, prefactor_stderr, exponent, exponent_stderr : float
        M and m.
    identified : bool
        Whether the fit knows the step and the batch term.
    covariance : ndarray (2, 2)
        Of (ln M, m).
    fit : Fit
    draws : ndarray (k, 2) or None
        (ln M, m) of every refit, when a bootstrap was given.
    notes : tuple of Note

    See Also
    --------
    best_batch : Makes one.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> steps, sizes = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e3, 1e5, 6), np.geomspace(1e4, 1e7, 6)))
    >>> runs = pd.DataFrame({"steps": steps, "batch": sizes, "loss": 2 + 8 / steps**0.3 + 90 / sizes**0.5})
    >>> found = sf.best_batch(sf.fit("L = E + b/S**beta + c/B**gamma", runs))
    >>> found.predict(1e10)["batch"].round(-3).tolist()
    [219000.0]
    """

    prefactor: float
    prefactor_stderr: float
    exponent: float
    exponent_stderr: float
    identified: bool
    covariance: Array
    fit: Fit
    draws: Array | None = None
    notes: tuple[Note, ...] = field(default=())

    def predict(self, tokens: Any, *, level: float = 0.95) -> pd.DataFrame:
        """Return the best batch at budgets of data, with its interval.

        Parameters
        ----------
        tokens : float or array_like
            Data to spend, in the unit of the fit.
        level : float
            Coverage of the interval.

        Returns
        -------
        pandas.DataFrame
            `tokens`, `batch`, `lo` and `hi`; the interval is open when the terms are not identified.

        Raises
        ------
        FitError
            If a budget is not positive, or the level is no share.
        """
        data = positive("tokens", tokens)
        check_level(level)
        design = np.stack([np.ones(len(data)), np.log(data)], axis=1)
        center = design @ np.array([np.log(self.prefactor), self.exponent])
        spread = np.sqrt(np.einsum("ij,jk,ik->i", design, self.covariance, design))
        half = t_quantile(level, self.fit.dof) * spread if self.identified else np.full(len(data), np.inf)
        low, high = center - half, center + half
        if self.identified and self.draws is not None:
            low, high = np.quantile(self.draws @ design.T, [0.5 - level / 2, 0.5 + level / 2], axis=0)
        columns = {"tokens": data, "batch": np.exp(center), "lo": np.exp(low), "hi": np.exp(high)}
        return pd.DataFrame(columns, index=tokens.index if isinstance(tokens, pd.Series) else None)

    def _display(self) -> Display:
        facts = (
            ("law", f"B* = {self.prefactor:.4g} * D ** {self.exponent:.4g}"),
            ("prefactor", format_error(self.prefactor, self.prefactor_stderr)),
            ("exponent", format_error(self.exponent, self.exponent_stderr)),
            ("identified", "yes" if self.identified else "no: the step or the batch term is not known"),
            ("from", f"{self.fit.n} rows from {self.fit.source}"),
        )
        return Display("Best batch at a budget of data", facts, None, self.notes)


def best_batch(fit: Fit, *, draws: Draws | None = None) -> BestBatch:
    r"""Return the batch size that minimises a fitted three-term law at a fixed budget of data D = B S.

    .. math::

        B^*(D) = \Big(\frac{\gamma c}{\beta b}\Big)^{1/(\beta+\gamma)} D^{\beta/(\beta+\gamma)}

    It does not depend on the model size or on the floor of the loss.

    Parameters
    ----------
    fit : Fit
        Of ``three_term``, ``L = E + a/N**alpha + b/S**beta + c/B**gamma``, or of a law with the same last two terms.
    draws : Draws, optional
        A bootstrap of that fit, for percentile intervals; otherwise errors are those of its covariance, to first order.

    Returns
    -------
    BestBatch
        `identified` is False, and intervals are open, where the step or the batch term ran to a bound or is not known.

    Raises
    ------
    LawError
        If the fit is of another law.
    FitError
        If the draws are of another fit.

    See Also
    --------
    fit : Fits the three-term law.
    fit_tradeoff : Steps against data at a target loss.

    References
    ----------
    Schaipp 2026, arXiv:2607.01487; the minimum is derived here.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> steps, sizes = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e3, 1e5, 6), np.geomspace(1e4, 1e7, 6)))
    >>> runs = pd.DataFrame({"steps": steps, "batch": sizes, "loss": 2 + 8 / steps**0.3 + 90 / sizes**0.5})
    >>> found = sf.best_batch(sf.fit("L = E + b/S**beta + c/B**gamma", runs))
    >>> round(found.exponent, 4)
    0.375
    """
    _check_law(fit)
    if draws is not None and draws.fit is not fit:
        raise FitError("draws: expected the bootstrap of this fit")
    states = dict(zip(fit.law.parameters, fit.states, strict=True))
    lost = [name for name in _NEEDED if states.get(name) in _LOST]
    moved = fit.phi + _STEP * np.vstack([np.eye(len(fit.phi)), -np.eye(len(fit.phi))])
    ahead, behind = np.split(_power_law(fit.natural(moved)), 2)
    slopes = ((ahead - behind) / (2 * _STEP)).T
    covariance = slopes @ np.where(np.isfinite(fit.covariance), fit.covariance, 0.0) @ slopes.T
    center, error = _power_law(fit.natural(fit.phi)), np.sqrt(np.diag(covariance))
    identified = not lost and bool(np.isfinite([*center, *error]).all())
    refits = None if draws is None else _power_law(fit.natural(draws.phi))
    if not identified:
        error = np.full(2, np.inf)
    elif refits is not None:
        error = refits.std(axis=0, ddof=1)
    prefactor = float(np.exp(center[0]))
    notes = []
    if lost:
        text = f"{', '.join(lost)} of the step or batch term are not identified: neither is the best batch"
        notes.append(Note("no_best_batch", text, caution=True))
    if states.get("E") in _LOST:
        text = "the floor of the loss is not identified by these data; the best batch does not depend on it"
        notes.append(Note("no_floor", text))
    values = (prefactor, float(prefactor * error[0]), float(center[1]), float(error[1]))
    return BestBatch(*values, identified, covariance, fit, refits, merge(fit.notes, notes))


def _check_law(fit: Fit) -> None:
    """Raise LawError unless a fit is of a law of the loss with a step and a batch term."""
    if not isinstance(fit, Fit):
        raise LawError(f"expected a fit, such as sf.fit('three_term', runs), found {type(fit).__name__}")
    inside = set(_NEEDED) <= set(fit.values) and {"S", "B"} <= set(fit.law.inputs)
    if not inside or fit.law.target not in ("L", "loss"):
        expected = f"a fit of {get_law('three_term').formula!r} or with its last two terms"
        raise LawError(f"expected {expected}, found {fit.law.formula!r}")


def _power_law(values: Mapping[str, Any]) -> Array:
    """Return (ln M, m) of every set of parameters, shape (..., 2)."""
    b, beta, c, gamma = (np.asarray(values[name], dtype=float) for name in _NEEDED)
    with np.errstate(all="ignore"):
        level = (np.log(gamma * c) - np.log(beta * b)) / (beta + gamma)
        return np.stack([level, beta / (beta + gamma)], axis=-1)
