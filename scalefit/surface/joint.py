"""Laws and basin shape fitted to all runs together, floors profiled out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scalefit.fitting import fit
from scalefit.laws.formula import Law
from scalefit.solvers.levenberg import minimize
from scalefit.solvers.losses import Loss, SoftL1, Squared
from scalefit.surface.basin import BasinShape
from scalefit.surface.runs import Runs
from scalefit.vocabulary import column_of

Array = np.ndarray

_TREND_SPREAD = 0.03
"""Prior standard deviation of a curvature's exponent; curvatures change slowly with size and data."""


def fit_jointly(runs: Runs, laws: list[Law], shape: BasinShape) -> tuple[Array, float, bool]:
    """Fit laws and shape to all runs.

    Returns fit coordinates (laws first), the run-to-run scatter, and whether the minimum was reached. The first round
    is least squares; its scatter sets where the soft absolute value of the next two turns.
    """
    phi = np.concatenate([*_first_laws(runs, laws), shape.start])
    scatter = 3e-3
    for robust in (False, True, True):
        model, weights = _posed(runs, laws, shape, scatter)
        unbounded = np.full(len(phi), np.inf)
        loss: Loss = SoftL1(2.5 * scatter) if robust else Squared()
        solution = minimize(
            model, phi[None], loss=loss, weights=weights, lower=-unbounded, upper=unbounded, iterations=300
        )
        phi = solution.phi[0]
        residual = model(phi[None])[0][0, : len(runs.cell)]
        near = runs.weight > 0.25
        lost = len(runs.keys) + len(phi) - shape.trends.size
        scatter = 1.4826 * float(np.median(np.abs(residual[near]))) * np.sqrt(near.sum() / max(near.sum() - lost, 1))
    return phi, scatter, bool(solution.converged[0])


def _first_laws(runs: Runs, laws: list[Law]) -> list[Array]:
    """Start the laws at a fit to the best runs of every cell."""
    table = runs.keys.iloc[runs.cell].reset_index(drop=True)
    near = runs.weight > 0.5 * np.quantile(runs.weight, 0.9)  # half of what the best tenth counts
    starts = []
    for setting, law in zip(runs.settings, laws, strict=True):
        rows = table.assign(**{column_of(law.target): np.exp(setting)})[near]
        starts.append(fit(law, rows).phi)
    return starts


def _posed(
    runs: Runs, laws: list[Law], shape: BasinShape, scatter: float
) -> tuple[Callable[[Array], tuple[Array, Array]], Array]:
    """Return residuals and Jacobian of all runs, with a prior row for each trend of the curvature."""
    priors = shape.trends + sum(len(law.parameters) for law in laws)
    pull = scatter / _TREND_SPREAD

    def model(phi: Array) -> tuple[Array, Array]:
        centres, slopes = law_centres(runs, laws, phi[0])
        offsets = (runs.settings - centres[:, runs.cell])[:, None, :]
        height, gradient, in_shape = shape(phi[:, -shape.size :], offsets)
        residual = runs.centred(runs.log_loss - height)
        in_laws = [gradient[a, 0] * slope[:, runs.cell] for a, slope in enumerate(slopes)]
        jacobian = runs.centred(np.concatenate([*in_laws, -in_shape[0]]))
        held = np.zeros((phi.shape[1], len(priors)))
        held[priors, np.arange(len(priors))] = pull
        return (
            np.concatenate([residual, pull * phi[:, priors]], axis=1),
            np.concatenate([jacobian, held], axis=1)[None],
        )

    return model, np.concatenate([runs.weight, np.ones(len(priors))])


def law_centres(runs: Runs, laws: list[Law], phi: Array) -> tuple[Array, list[Array]]:
    """Return the centres (axes, cells) the laws give and their Jacobians (p_law, cells)."""
    centres, slopes, at = [], [], 0
    for law in laws:
        own = phi[at : at + len(law.parameters)]
        at += len(law.parameters)
        derivation = law.derivation
        value, slope = derivation.function("log")(own[None], derivation.enter(law.read_inputs(runs.keys)))
        centres.append(np.broadcast_to(value[0], len(runs.keys)))
        slopes.append(slope[0])
    return np.array(centres), slopes
