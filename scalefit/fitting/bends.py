"""Which parameters of a law are curvatures in logs, and how much each bends it by which inputs."""

from __future__ import annotations

import numpy as np

from scalefit.fitting.fit_values import FitValues

Array = np.ndarray

_ROUNDING = 1e-8


def bends(fit: FitValues) -> Array:
    """Return how much each parameter bends the law in logs per unit; 0 for those that are no curvature or are held."""
    return curvatures(fit).max(axis=(1, 2), initial=0.0)


def curvatures(fit: FitValues) -> Array:
    """Return the size of every parameter's second derivatives in the logs of the inputs, (p, inputs, inputs)."""
    derivation, law = fit.law.derivation, fit.law
    curved = [j for j, logged in enumerate(derivation.logged) if not logged and fit.is_free[j]]
    found = np.zeros((len(law.parameters), len(law.inputs), len(law.inputs)))
    if fit.space != "log" or set(law.parameters) - set(derivation.linear("log")) or not curved:
        return found
    entered = np.array(derivation.enter(law.read_inputs(fit.rows))).reshape(len(law.inputs), -1).mean(axis=1)
    axes = [i for i, logged in enumerate(derivation.input_logged) if logged]
    for i in axes:
        for j in axes:
            # The second difference in logs is exact for terms quadratic in logs, whatever the step.
            steps = np.array([(s, t) for s in (-0.5, 0.5) for t in (-0.5, 0.5)])
            places = np.tile(entered[:, None], 4)
            places[i] += steps[:, 0]
            places[j] += steps[:, 1]
            columns = derivation.function("log")(fit.phi[None], list(places))[1][0]
            second = np.abs(columns @ (steps[:, 0] * steps[:, 1] * 4))[curved]
            found[curved, i, j] = np.where(second > _ROUNDING, second, 0.0)
    return found
