"""Curvature drawn towards zero, so that a term the data do not need costs a prediction little."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from scalefit._values import Note
from scalefit.errors import FitError
from scalefit.fitting.bends import bends
from scalefit.fitting.covariance import Errors, invert, judge
from scalefit.fitting.fit_result import Fit
from scalefit.fitting.fit_values import FREE, FitStatus, FitValues
from scalefit.vocabulary import format_number

Array = np.ndarray

SCALE = 0.05
"""How much the exponents of a law are thought to change per e-fold of an input: the scale of a half-normal prior for
the standard deviation of that change."""

_NODES, _REACH = 16, 3.0
"""Values of tau, and how far on either side of what it seems the scatter is looked for, in its standard errors."""


def prior_scale(shrink: bool | float) -> float:
    """Read the argument `shrink` of `fit`."""
    scale = SCALE if shrink is True else float(shrink)
    if not 0 < scale < np.inf:
        raise FitError(f"shrink: expected True, False or a positive scale such as {SCALE}, found {shrink!r}")
    return scale


def shrunk(fit: Fit, scale: float) -> Fit:
    r"""Return a fit with its curvature terms drawn towards zero.

    A term is a curvature when the law, linear in its parameters in logs, becomes straight in the logs of its inputs as
    the parameter is set to zero: d, e and f of ``lr_quadratic``. Such a parameter q bends the law by
    :math:`h_q = \max|\partial^2 \ln f/\partial \ln x_i\,\partial \ln x_j|` per unit, and is given the prior
    :math:`q\,h_q \sim N(0, \tau^2)`, :math:`\tau` half-normal with the scale asked for and common to all curvatures.
    Parameters that are not curvatures have no prior. Against the fit's own estimate and covariance as a normal
    likelihood this is solved in closed form for each tau, and tau is integrated over.

    Values are posterior means; errors, and those of predictions, hold the prior and what is not known of tau. Where the
    estimate and the prior contradict each other on few degrees of freedom, the scatter is raised (`posterior`).

    What it costs and gains in simulated sweeps: docs/statistics.md.

    References
    ----------
    Gelman, Bayesian Data Analysis, 3rd ed. (2013), section 5.7, for priors of a scale.
    """
    if fit.space != "log":
        raise FitError("shrink: curvature is drawn towards a law straight in logs; fit in space='log'")
    bend = bends(fit)
    names = [name for name, own in zip(fit.law.parameters, bend, strict=True) if own > 0]
    if not names:
        return fit.with_notes(Note("shrink", "no term of this law is a curvature linear in logs: nothing is shrunk"))
    fit = _with_scatter_of_straight(fit, bend) if fit.dof <= 0 else fit
    if fit.dof <= 0 or fit.status.name == "NOT_CONVERGED" or not np.isfinite(fit.covariance).all():
        text = f"{', '.join(names)} cannot be drawn towards 0: {fit.status.sentence}"
        return fit.with_notes(Note("shrink", text, caution=True))
    phi, covariance, larger = posterior(fit.phi[None], fit.covariance[None], bend, scale, fit.dof)
    before = fit.values
    states, status = _states_anew(fit, covariance[0])
    moved = replace(
        fit,
        phi=phi[0],
        states=states,
        status=status,
        covariance=covariance[0],
        scale=fit.scale * float(larger[0]),
        objective=float(fit.problem.objective(phi)[0]),
        shrinkage=scale,
    )
    changes = ", ".join(f"{n} from {format_number(before[n], 3)} to {format_number(moved.values[n], 3)}" for n in names)
    return moved.with_notes(Note("shrink", f"curvature drawn towards 0 (scale {scale:g} per e-fold): {changes}"))


def _states_anew(fit: Fit, covariance: Array) -> tuple[tuple[str, ...], FitStatus]:
    """Say anew what is identified: the prior may have settled what the rows left open."""
    free = fit.is_free
    _, jacobian = fit.problem.values(fit.space)(fit.phi[None])
    none = np.zeros(int(free.sum()), dtype=bool)
    errors = Errors(covariance[np.ix_(free, free)], fit.scale, fit.dof, fit.condition, none)
    loose = judge(fit.problem, jacobian[0], free, errors).unidentified
    states = tuple(
        state if state not in FREE else "unidentified" if wide else "free"
        for state, wide in zip(fit.states, loose, strict=True)
    )
    if "unidentified" in states:
        return states, FitStatus.ILL_CONDITIONED
    return states, FitStatus.AT_BOUND if "at bound" in states else FitStatus.CONVERGED


def _with_scatter_of_straight(fit: Fit, bend: Array) -> Fit:
    """Give an exact fit the scatter about the law without its curvatures, where that leaves rows to judge it by."""
    value, jacobian = fit.problem.values(fit.space)(fit.phi[None])
    root = np.sqrt(fit.weights)
    free = fit.is_free
    straight = free & (bend == 0)
    curved = np.where(bend > 0, fit.phi, 0.0) @ jacobian[0]
    target = (fit.problem.observed - value[0] + curved) * root
    design = jacobian[0, straight].T * root[:, None]
    # Rows minus parameters of the straight law: what is left to judge the scatter by.
    spare = int((fit.weights > 0).sum()) - int(straight.sum())
    if spare <= 0:
        return fit
    rest = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
    scale = float(np.sqrt((rest**2).sum() / spare))
    inverse, _, _ = invert(jacobian[0, free].T * root[:, None])
    covariance = np.zeros_like(fit.covariance)
    covariance[np.ix_(free, free)] = scale**2 * inverse
    notes = (
        *(note for note in fit.notes if note.code != "exact"),
        Note("exact", "as many parameters as rows: the scatter is that about the law without curvature", caution=True),
    )
    return replace(fit, covariance=covariance, scale=scale, dof=spare, notes=notes)


def posterior(phi: Array, covariance: Array, bend: Array, scale: float, dof: int) -> tuple[Array, Array, Array]:
    """Return posterior mean and covariance of K estimates, and by what factor the scatter is larger than it seemed.

    With few degrees of freedom an estimate far from what the prior allows says that the scatter was judged too small:
    the scatter is weighed over its own distribution first.
    """
    from scipy.special import logsumexp, softmax

    own = np.flatnonzero(bend)
    estimate, block = phi[:, own], covariance[:, own[:, None], own]
    prior = _priors(bend[own], scale)
    ratio = np.exp(np.linspace(-_REACH, 3 * _REACH, 2 * _NODES) / np.sqrt(dof))
    chi = -dof * np.log(ratio) - 0.5 * dof / ratio**2
    # How likely the estimate is at each scatter, tau integrated over: (K, ratios).
    likely = logsumexp(
        _log_marginal(estimate, ratio[:, None, None, None] ** 2 * block[:, None, None] + prior, None), -1
    )
    seemed, seen = (softmax(chi + extra, axis=-1) @ np.log(ratio) for extra in (np.zeros(1), likely))
    # Only ever raised: an estimate near zero is no evidence that the scatter is smaller than the residuals say.
    larger = np.exp(np.maximum(seen - seemed, 0.0))
    covariance = covariance * larger[:, None, None] ** 2
    marginal = covariance[:, None][..., own[:, None], own] + prior
    weight = softmax(_log_marginal(estimate, marginal, dof), axis=-1)
    # Conditioning a normal on its curvatures: the parameters without a prior move along with those that have one.
    gain = covariance[:, None][..., own] @ np.linalg.inv(marginal)
    moved = phi[:, None] - np.einsum("kmpi,ki->kmp", gain, estimate)
    left = covariance[:, None] - gain @ covariance[:, None][..., own, :]
    mean = np.einsum("km,kmp->kp", weight, moved)
    # What is not known of tau: the covariances' mean, plus the covariance of the means (law of total variance).
    apart = moved - mean[:, None]
    spread = np.einsum("km,kmpq->kpq", weight, left) + np.einsum("km,kmp,kmq->kpq", weight, apart, apart)
    return mean, spread, larger


def _priors(bend: Array, scale: float) -> Array:
    """Return prior covariances (nodes, s, s) at equally likely values of a half-normal tau."""
    from scipy.special import ndtri

    # Nodes of equal probability need no weights, and none lies at tau = 0, where a curvature could not be other than 0.
    spreads = scale * ndtri(0.5 + (np.arange(_NODES) + 0.5) / _NODES / 2)
    return (spreads[:, None, None] / bend) ** 2 * np.eye(len(bend))


def _log_marginal(estimate: Array, marginal: Array, dof: int | None) -> Array:
    """Return log densities (K, ...) of estimates (K, s), normal or Student, with covariances (K, ..., s, s)."""
    distance = np.einsum("ki,k...ij,kj->k...", estimate, np.linalg.inv(marginal), estimate)
    spread = -0.5 * np.linalg.slogdet(marginal)[1]
    if dof is None:
        return spread - 0.5 * distance
    return spread - 0.5 * (dof + estimate.shape[1]) * np.log1p(distance / dof)


def shrink_refits(fit: FitValues, phi: Array, hessian: Array) -> Array:
    """Shrink refits (K, p) as the fit was, each by its own normal matrix (K, free, free)."""
    bend, free = bends(fit), fit.is_free
    if not bend.any():
        return phi
    covariance = np.zeros((len(phi), len(bend), len(bend)))
    sound = np.isfinite(hessian).all(axis=(1, 2), keepdims=True)
    # A resample that overflowed is marked as unusable later; here it must only not stop the others.
    inverse = np.linalg.pinv(np.where(sound, hessian, np.eye(hessian.shape[1])), hermitian=True, rcond=1e-13)
    covariance[np.ix_(np.arange(len(phi)), free, free)] = fit.scale**2 * inverse
    return posterior(phi, covariance, bend, fit.shrinkage, max(fit.dof, 1))[0]
