"""The laws that a simulated sweep obeys, for its runs and its optima."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scalefit.errors import SweepError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Truth:
    r"""The laws a simulated sweep obeys.

    .. math::

        L = E + A N^{-\alpha} + B_0 D^{-\beta} + h\,\frac{e^{k u} - k u - 1}{k^2} + \tfrac12 h_B v^2, \qquad
        u = \ln\frac{\eta}{\eta^*} - s v,\quad v = \ln\frac{B}{B^*},

    with :math:`\eta^* = c\,N^a D^b` and :math:`B^* = c_B N^{a_B} D^{b_B}`. The power :math:`s` tilts the basin (a cross
    term :math:`-h s \ln(\eta/\eta^*)\,v`): away from the best batch the best learning rate is :math:`\eta^* (B/B^*)^s`.
    A run diverges with probability :math:`1/(1 + (\eta^*_B \text{cliff}/\eta)^{1/w})`, :math:`\eta^*_B` the best rate
    at its batch and :math:`w` the width of the cliff.

    Parameters
    ----------
    floor, floor_params, floor_params_power, floor_tokens, floor_tokens_power : float
        E, A, alpha, B_0 and beta of the loss at the optimum, in nats per token.
    lr, lr_params_power, lr_tokens_power, lr_batch_power : float
        c, a, b and s.
    batch, batch_params_power, batch_tokens_power : float
        c_B, a_B and b_B; batch in tokens per step.
    lr_curvature, asymmetry, batch_curvature : float
        h and h_B in nats, k per unit of ln lr (0 is a parabola; positive is steeper above the optimum).
    cliff, cliff_width : float
        Half of the runs at this many times the best learning rate for their batch diverge; the width w of the cliff in
        units of ln lr (0: all runs above it and none below).
    diverged_nan : float
        Fraction of the diverged runs whose loss is NaN; the others end high.
    diverged_excess : tuple of float
        Range, in nats above the cell's lowest loss, in which those end.
    noise, noise_dof : float
        Standard deviation of a run's loss in nats; degrees of freedom of its Student t, above 2 (inf is Gaussian).
    lr_scatter, batch_scatter, floor_scatter : float
        Standard deviations between (params, tokens) cells, normal and shared by all runs of a cell: of the ln of the
        best lr and of the best batch about their laws, and of the lowest loss in nats.

    Raises
    ------
    SweepError
        If a value is outside its range; the field is named.

    See Also
    --------
    simulate_sweep : Draws the runs.

    Examples
    --------
    >>> from scalefit.simulation import Truth
    >>> truth = Truth()
    >>> best = truth.optimum(params=1e9, tokens=2e10)
    >>> round(float(best["lr"]), 6), round(float(best["batch"]))
    (0.000768, 446415)
    """

    floor: float = 1.8
    floor_params: float = 480.0
    floor_params_power: float = 0.35
    floor_tokens: float = 2100.0
    floor_tokens_power: float = 0.37
    lr: float = 0.9
    lr_params_power: float = -0.65
    lr_tokens_power: float = 0.27
    lr_batch_power: float = 0.4
    batch: float = 0.6
    batch_params_power: float = 0.0
    batch_tokens_power: float = 0.57
    lr_curvature: float = 0.05
    asymmetry: float = 0.8
    batch_curvature: float = 0.035
    cliff: float = 32.0
    cliff_width: float = 0.0
    diverged_nan: float = 1.0
    diverged_excess: tuple[float, float] = (0.5, 3.0)
    noise: float = 0.003
    noise_dof: float = 5.0
    lr_scatter: float = 0.0
    batch_scatter: float = 0.0
    floor_scatter: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "diverged_excess", tuple(self.diverged_excess))  # JSON gives a list
        positive = ("lr", "batch", "lr_curvature", "batch_curvature", "floor")
        check_fields(self, positive, "positive and finite", lambda value: 0 < value < np.inf)
        spreads = ("noise", "cliff_width", "lr_scatter", "batch_scatter", "floor_scatter")
        check_fields(self, spreads, "finite and not negative", lambda value: 0 <= value < np.inf)
        check_fields(self, ("noise_dof",), "above 2, for a finite variance", lambda value: value > 2)
        check_fields(self, ("cliff",), "above 1", lambda value: value > 1)
        check_fields(self, ("diverged_nan",), "from 0 to 1", lambda value: 0 <= value <= 1)
        check_fields(self, ("diverged_excess",), "(low, high) in nats", lambda ends: 0 <= ends[0] <= ends[1] < np.inf)

    def optimum(self, params: ArrayLike, tokens: ArrayLike, batch: ArrayLike | None = None) -> dict[str, Floats]:
        """Return the best `lr` and `batch`; with `batch` given, the best `lr` at that batch.

        Parameters
        ----------
        params, tokens : array_like
            Model size and token budget.
        batch : array_like, optional
            Tokens per step.

        Returns
        -------
        dict of str to numpy.ndarray
            `lr` and `batch`.

        Examples
        --------
        >>> from scalefit.simulation import Truth
        >>> best = Truth(lr_batch_power=0.5).optimum(1e9, 2e10)
        >>> round(float(Truth(lr_batch_power=0.5).optimum(1e9, 2e10, batch=4 * best["batch"])["lr"] / best["lr"]), 6)
        2.0
        """
        n, d = np.asarray(params, dtype=float), np.asarray(tokens, dtype=float)
        best_batch = self.batch * n**self.batch_params_power * d**self.batch_tokens_power
        best_lr = self.lr * n**self.lr_params_power * d**self.lr_tokens_power
        if batch is None:
            return {"lr": best_lr, "batch": best_batch}
        chosen = np.asarray(batch, dtype=float)
        return {"lr": best_lr * (chosen / best_batch) ** self.lr_batch_power, "batch": chosen}

    def lowest_loss(self, params: ArrayLike, tokens: ArrayLike) -> Floats:
        """Return the loss at the optimum: E + A N^-alpha + B_0 D^-beta.

        Parameters
        ----------
        params, tokens : array_like
            Model size and token budget.

        Returns
        -------
        numpy.ndarray
            Nats per token.

        Examples
        --------
        >>> from scalefit.simulation import Truth
        >>> round(float(Truth().lowest_loss(1e9, 2e10)), 3)
        2.464
        """
        n, d = np.asarray(params, dtype=float), np.asarray(tokens, dtype=float)
        by_params = self.floor_params * n**-self.floor_params_power
        return self.floor + by_params + self.floor_tokens * d**-self.floor_tokens_power

    def loss(self, lr: ArrayLike, batch: ArrayLike, params: ArrayLike, tokens: ArrayLike) -> Floats:
        """Return the loss without noise or scatter.

        Parameters
        ----------
        lr, batch, params, tokens : array_like
            The settings of the runs; batch in tokens per step.

        Returns
        -------
        numpy.ndarray
            Nats per token; NaN where most runs diverge.

        Examples
        --------
        >>> from scalefit.simulation import Truth
        >>> Truth().loss([1e-3, 1.0], 5e5, 1e9, 2e10).round(3).tolist()
        [2.466, nan]
        """
        best = self.optimum(params, tokens)
        excess = self.excess(lr, batch, best["lr"], best["batch"])
        survives = self.divergence(lr, batch, best["lr"], best["batch"]) <= 0.5
        return np.where(survives, self.lowest_loss(params, tokens) + excess, np.nan)

    def excess(self, lr: ArrayLike, batch: ArrayLike, best_lr: ArrayLike, best_batch: ArrayLike) -> Floats:
        """Return the loss above a cell's lowest of runs that do not diverge.

        Parameters
        ----------
        lr, batch, best_lr, best_batch : array_like
            The settings of the runs, and the best ones of their cells.

        Returns
        -------
        numpy.ndarray
            Nats per token.

        Examples
        --------
        >>> from scalefit.simulation import Truth
        >>> Truth().excess([1e-3, 2e-3], 5e5, best_lr=1e-3, best_batch=5e5).round(4).tolist()
        [0.0, 0.0146]
        """
        u, v = self._place(lr, batch, best_lr, best_batch)
        return self.lr_curvature * _basin(u, self.asymmetry) + 0.5 * self.batch_curvature * v**2

    def divergence(self, lr: ArrayLike, batch: ArrayLike, best_lr: ArrayLike, best_batch: ArrayLike) -> Floats:
        """Return the probability that a run diverges.

        Parameters
        ----------
        lr, batch, best_lr, best_batch : array_like
            The settings of the runs, and the best ones of their cells.

        Returns
        -------
        numpy.ndarray
            1/2 at `cliff` times the best learning rate for the batch.

        Examples
        --------
        >>> from scalefit.simulation import Truth
        >>> Truth(cliff=4.0, cliff_width=0.3).divergence([1e-3, 4e-3], 5e5, 1e-3, 5e5).round(3).tolist()
        [0.01, 0.5]
        """
        above = self._place(lr, batch, best_lr, best_batch)[0] - np.log(self.cliff)
        if self.cliff_width == 0:
            return np.where(above > 0, 1.0, 0.0)
        return 0.5 * (1 + np.tanh(above / (2 * self.cliff_width)))

    def _place(self, lr: ArrayLike, batch: ArrayLike, best_lr: ArrayLike, best_batch: ArrayLike) -> tuple[Floats, ...]:
        v = np.log(np.asarray(batch, dtype=float) / np.asarray(best_batch, dtype=float))
        centre = np.asarray(best_lr, dtype=float) * np.exp(self.lr_batch_power * v)
        return np.log(np.asarray(lr, dtype=float) / centre), v


def _basin(u: Floats, k: float) -> Floats:
    # The series near 0 keeps digits that expm1(ku) - ku loses to cancellation, and gives the parabola at k = 0.
    t = np.asarray(k * u, dtype=float)
    exact = (np.expm1(t) - t) / (k * k if k else 1.0)
    series = u**2 * (0.5 + t / 6 + t**2 / 24 + t**3 / 120)
    return np.where(np.abs(t) < 1e-3, series, exact)


def check_fields(owner: object, names: tuple[str, ...], words: str, holds: Callable[[Any], object]) -> None:
    """Raise a `SweepError` that names the first of these fields for which a condition does not hold."""
    for name, value in ((name, getattr(owner, name)) for name in names):
        if not holds(value):
            raise SweepError(f"{name} of a {type(owner).__name__} should be {words}, found {value!r}")
