r"""The hyperbolas of several targets or studies tied together by power laws.

.. math:: E_{min} = e_0 \prod_j z_j^{-p_j},\qquad B_{crit} = b_0 \prod_j z_j^{-q_j}

in the target loss (Kaplan's :math:`B_{crit} = B_* / L^{1/\alpha_B}`) or other columns z; S_min is their ratio.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scalefit.errors import FitError
from scalefit.solvers.levenberg import minimize
from scalefit.solvers.losses import Squared
from scalefit.tradeoff.estimate import Estimate, Value
from scalefit.tradeoff.hyperbola import Array, Study, bend, t_quantile

_STARTS = np.linspace(-3.0, 3.0, 7)
"""Starting ln B_crit, from the middle of the batch sizes."""


@dataclass(frozen=True, eq=False)
class TiedFit:
    """One law for ln E_min and one for ln B_crit, linear in the same covariates.

    Parameters
    ----------
    floor, critical : ndarray (q,)
        Coefficients: a constant, then one a covariate.
    covariance : ndarray (2 q, 2 q)
        Of (floor, critical).
    noise : float
        Variance of ln examples about the curves, noise of runs included.
    dof : int
        Distinct batch sizes minus two: targets of one study share its runs and add no independent ones.
    open_below, open_above : bool
        Whether B_crit near 0, or without limit, fits nearly as well.
    """

    floor: Array
    critical: Array
    covariance: Array
    noise: float
    dof: int
    open_below: bool
    open_above: bool

    def exponents(self, names: list[str]) -> list[dict[str, object]]:
        """Return the powers of the covariates in E_min, S_min and B_crit, one row each.

        Standard errors are widened by Student's t, so that 1.96 of them hold 95 %.
        """
        q = len(self.floor)
        eye = np.eye(q)
        blocks = {"E_min": (eye, 0 * eye), "S_min": (eye, -eye), "B_crit": (0 * eye, eye)}
        wide = t_quantile(0.95, self.dof) / t_quantile(0.95, np.inf)
        lines: list[dict[str, object]] = []
        for quantity, (floor, critical) in blocks.items():
            rows = np.concatenate([floor, critical], axis=1)
            powers = rows @ np.concatenate([self.floor, self.critical])
            errors = np.sqrt(np.einsum("ij,jk,ik->i", rows, self.covariance, rows)) * wide
            for name, power, error in zip(names, powers[1:], errors[1:], strict=True):
                lines.append({"quantity": quantity, "of": name, "exponent": float(power), "stderr": float(error)})
        return lines

    def estimate(self, study: Study, covariates: Array, level: float) -> Estimate:
        """Return what the laws say of one study and target."""
        q = len(self.floor)
        rows = np.zeros((3, 2 * q))
        rows[0, :q] = rows[1, q:] = rows[2, :q] = covariates
        rows[2, q:] = -covariates
        errors = np.sqrt(np.einsum("ij,jk,ik->i", rows, self.covariance, rows))
        values = np.array([covariates @ self.floor, covariates @ self.critical, 0.0])
        values[2] = values[0] - values[1]
        half = errors * t_quantile(level, self.dof)
        below, above = self.open_below, self.open_above
        lows = np.where([below, below, above], -np.inf, values - half)
        highs = np.where([False, above, False], np.inf, values + half)
        floor, critical, steps = (Value(*map(float, part)) for part in zip(values, lows, highs, strict=True))
        residual = study.y - values[0] - bend(study.x, values[1])
        curve = _TiedCurve(self, covariates)
        return Estimate(
            floor, critical, steps, float(np.sqrt(np.mean(residual**2))), np.sqrt(self.noise), residual, curve
        )


@dataclass(frozen=True, eq=False)
class _TiedCurve:
    fit: TiedFit
    covariates: Array

    def examples(self, x: Array, level: float) -> tuple[Array, Array, Array]:
        """Return ln examples for ln batch, with the interval of one more run."""
        floor, critical = self.covariates @ self.fit.floor, self.covariates @ self.fit.critical
        share = 1 / (1 + np.exp(critical - x))
        rows = np.concatenate([np.outer(np.ones_like(x), self.covariates), -np.outer(share, self.covariates)], axis=1)
        variance = np.einsum("ni,ij,nj->n", rows, self.fit.covariance, rows) + self.fit.noise
        half = t_quantile(level, self.fit.dof) * np.sqrt(variance)
        value = floor + bend(x, critical)
        return value, value - half, value + half


def fit_tied(studies: list[Study], covariates: Array, places: int, level: float) -> TiedFit:
    """Fit all studies at once.

    Parameters
    ----------
    studies : list of Study
    covariates : ndarray (studies, q)
        A column of ones, then logs of what the laws follow.
    places : int
        Distinct batch sizes, over studies that do not share runs.
    level : float
        Coverage at which B_crit counts as bounded.
    """
    x, y = np.concatenate([s.x for s in studies]), np.concatenate([s.y for s in studies])
    design = np.repeat(covariates, [len(s.x) for s in studies], axis=0)
    q = covariates.shape[1]
    if len(x) <= 2 * q or places < 3:
        raise FitError(
            f"tied curves have {2 * q} coefficients; {len(x)} points at {places} batch sizes do not tell them"
        )
    phi = _solve(x, y, design)
    misfit, jacobian = _residuals(phi[None], x, y, design)
    least = float((misfit[0] ** 2).sum())
    # Runs are shared by the targets of a study: n points tell no more than their batch sizes.
    variance = least / (len(x) - 2 * q)
    inflated = variance * len(x) / places
    covariance = np.linalg.pinv(jacobian[0] @ jacobian[0].T, hermitian=True) * inflated
    dof = places - 2
    limit = t_quantile(level, dof) ** 2 * inflated
    below, above = (_straight(y - part, design) - least <= limit for part in (x, np.zeros_like(x)))
    return TiedFit(phi[:q], phi[q:], covariance, variance, dof, bool(below), bool(above))


def _solve(x: Array, y: Array, design: Array) -> Array:
    q = design.shape[1]
    start = np.zeros((len(_STARTS), 2 * q))
    for row, shift in zip(start, _STARTS, strict=True):
        critical = float(np.median(x)) + shift
        row[q] = critical
        row[:q] = np.linalg.lstsq(design, y - bend(x, critical), rcond=None)[0]
    wide = np.full(2 * q, 1e6)
    found = minimize(
        lambda phi: _residuals(phi, x, y, design),
        start,
        loss=Squared(),
        weights=np.ones(len(x)),
        lower=-wide,
        upper=wide,
    )
    return np.asarray(found.phi[found.best()])


def _residuals(phi: Array, x: Array, y: Array, design: Array) -> tuple[Array, Array]:
    q = design.shape[1]
    floor, critical = phi[:, :q] @ design.T, phi[:, q:] @ design.T
    share = 1 / (1 + np.exp(np.clip(critical - x, -500, 500)))
    value = floor + np.logaddexp(0.0, x - critical)
    slopes = np.concatenate([np.broadcast_to(design.T, (len(phi), q, len(x))), -share[:, None, :] * design.T], axis=1)
    return value - y, slopes


def _straight(rest: Array, design: Array) -> float:
    """Return the misfit of the laws where the curve is straight."""
    return float(((rest - design @ np.linalg.lstsq(design, rest, rcond=None)[0]) ** 2).sum())
