"""Information criteria: the likelihood that a fit maximises, and what a parameter costs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scalefit.fitting import Fit
from scalefit.fitting.censoring import log_likelihood as censored_likelihood
from scalefit.solvers.losses import Huber, Loss, SoftL1

Array = np.ndarray

_WIDEST = 60.0
"""Half-width, in logs, of the range searched for the precision about that of the typical residual."""


@dataclass(frozen=True)
class Criteria:
    """Information criteria of one fit; NaN where they do not exist.

    Parameters
    ----------
    log_likelihood : float
        Of the observed target in the space of the fit.
    aicc, bic : float
    """

    log_likelihood: float
    aicc: float
    bic: float


def criteria(fit: Fit) -> Criteria:
    r"""Return AICc and BIC of a fit.

    .. math:: \mathrm{AICc} = -2\ln\hat L + 2K + \frac{2K(K+1)}{n-K-1}, \qquad \mathrm{BIC} = -2\ln\hat L + K\ln n

    with K the parameters that are not fixed and the scale of the residuals, n the rows of positive weight.

    Parameters
    ----------
    fit : Fit

    Notes
    -----
    NaN when the fit is exact, did not converge, was drawn towards a prior, or (AICc) has no more than K + 1 rows. Rows
    that are bounds enter by the normal probability of lying beyond them.

    References
    ----------
    Hurvich and Tsai 1989, Biometrika 76, 297; Burnham and Anderson, Model Selection and Multimodel Inference (2002),
    section 2.4: K counts the variance.
    """
    counted = fit.weights > 0
    rows, cost = int(counted.sum()), parameters_of(fit) + 1
    exact = fit.objective <= fit.problem.rounding() or fit.dof <= 0
    if fit.status.name == "NOT_CONVERGED" or exact or fit.shrinkage > 0:
        return Criteria(np.nan, np.nan, np.nan)
    if fit.is_bound.any():
        likelihood = _censored_likelihood(fit)
    else:
        likelihood = log_likelihood(fit.loss, fit.residuals[counted], fit.weights[counted])
    spare = rows - cost - 1
    correction = 2 * cost * (cost + 1) / spare if spare > 0 else np.nan
    return Criteria(likelihood, -2 * likelihood + 2 * cost + correction, -2 * likelihood + cost * np.log(rows))


def parameters_of(fit: Fit) -> int:
    """Return how many parameters the data were free to choose, those that ended at a bound included."""
    return sum(state != "fixed" for state in fit.states)


def log_likelihood(loss: Loss, residuals: Array, weights: Array) -> float:
    r"""Return the highest log likelihood that the minimum of a loss stands for.

    Minimising :math:`\sum w\rho(r)` maximises a likelihood whose density is
    :math:`\exp(-\tau w\rho(r))/Z(\tau w)` for any precision tau; tau is fitted too. For the squared loss that is the
    normal density of variance 1/(tau w); Huber's has normal shoulders and exponential tails, and SoftL1's is the
    symmetric hyperbolic distribution. All are normalised, so fits with different losses can be compared.

    Parameters
    ----------
    loss : Loss
    residuals, weights : ndarray (n,)
        Weights positive, proportional to inverse variances.

    Examples
    --------
    >>> from scalefit.solvers.losses import Squared
    >>> float(np.round(log_likelihood(Squared(), np.array([1.0, -1.0]), np.ones(2)) + np.log(2 * np.pi) + 1, 9))
    0.0
    """
    total, rows = float(weights @ loss.value(residuals)), len(residuals)
    if not loss.robust:
        return 0.5 * float(np.log(weights).sum()) - 0.5 * rows * (np.log(4 * np.pi * total / rows) + 1)
    from scipy.optimize import minimize_scalar

    # The logarithm of Z is convex in tau, so there is one minimum; the normal precision is where to look.
    middle = np.log(rows / (2 * total))

    def cost(log_tau: float) -> float:
        tau = np.exp(log_tau)
        return tau * total + float(_log_partition(loss, tau * weights).sum())

    found = minimize_scalar(
        cost, bounds=(middle - _WIDEST, middle + _WIDEST), method="bounded", options={"xatol": 1e-9}
    )
    return -float(found.fun)


def _log_partition(loss: Loss, precision: Array) -> Array:
    """Return the log of the integral of exp(-precision rho(r)) over r."""
    from scipy.special import erf, k1e

    if isinstance(loss, Huber):
        shoulders = np.sqrt(2 * np.pi / precision) * erf(loss.delta * np.sqrt(precision / 2))
        tails = 2 / (precision * loss.delta) * np.exp(-precision * loss.delta**2 / 2)
        return np.log(shoulders + tails)
    if isinstance(loss, SoftL1):
        return np.log(2 * loss.scale * k1e(precision * loss.scale**2))
    return np.full_like(precision, np.nan)


def _censored_likelihood(fit: Fit) -> float:
    """Return the log likelihood of points and bounds at the scatter that is best for it."""
    from scipy.optimize import minimize_scalar

    def cost(log_scale: float) -> float:
        return -censored_likelihood(replace(fit.problem, scale=float(np.exp(log_scale))), fit.phi)

    middle = float(np.log(fit.scale))
    return -float(minimize_scalar(cost, bounds=(middle - 3, middle + 3), method="bounded").fun)


def akaike_weights(aicc: Array) -> Array:
    """Return exp(-Delta/2) normalised over the fits that have an AICc; NaN for the others."""
    known = np.isfinite(aicc)
    if not known.any():
        return np.full(len(aicc), np.nan)
    share = np.exp(-0.5 * (aicc - aicc[known].min()))
    return share / share[known].sum()
