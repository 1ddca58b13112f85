"""Where a fit begins: candidates for the nonlinear parameters, read off how the law meets the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from scalefit.fitting.problem import Problem
from scalefit.solvers.varpro import project

if TYPE_CHECKING:
    from scalefit.laws.derivation import Derivation, Scale

Array = np.ndarray

_MAGNITUDES = np.geomspace(0.15, 12.0, 8)
_QUANTILES = np.linspace(0.02, 0.98, 7)
_MARGINS = np.array([0.3, 1.0, 3.0])
_FALLBACK = np.array([0.03, 0.1, 0.3, 1.0, 3.0, 10.0])
_LIMIT = 600


def starting_points(problem: Problem, start: Mapping[str, float], keep: int) -> Array:
    """Return `keep` or a few more promising starting points, in fit coordinates.

    A grid over the nonlinear parameters is projected and the best points of the grid are returned. A complete `start`
    comes before them, as given and as projected (its nonlinear values with the best linear ones); a partial one adds a
    grid in which its parameters are held.

    Parameters
    ----------
    problem : Problem
    start : mapping of str to float
        Values, in natural units, the user gave.
    keep : int

    Returns
    -------
    ndarray (k, p), the user's first, then best first
    """
    held, given = _held(problem), _given(problem, start)
    whole = np.empty((0, len(problem.parameters)))
    grids = [held]
    if len(given) == len(problem.parameters):
        point = np.array([[given[name] for name in problem.parameters]])
        whole = np.concatenate([point, _projected(problem, point, _free_linear(problem, held))])
    elif len(given) > len(held):
        grids.append(given)
    linears = [_free_linear(problem, fixed) for fixed in grids]
    parts = [_projected(problem, _grid(problem, f, linear), linear) for f, linear in zip(grids, linears, strict=True)]
    points = np.concatenate(parts)
    order = np.argsort(problem.objective(points), kind="stable")
    return np.concatenate([whole, points[order[:keep]]])


def _held(problem: Problem) -> dict[str, float]:
    where = np.flatnonzero(problem.lower == problem.upper)
    return {problem.parameters[j]: float(problem.lower[j]) for j in where}


def _given(problem: Problem, start: Mapping[str, float]) -> dict[str, float]:
    """Fixed parameters and the user's starts, in fit coordinates."""
    natural = np.array([start.get(name, np.nan) for name in problem.parameters])
    phi = np.clip(problem.derivation.to_fit(natural), problem.lower, problem.upper)
    named = {n: float(v) for n, v in zip(problem.parameters, phi, strict=True) if np.isfinite(v)}
    return named | _held(problem)


def _free_linear(problem: Problem, fixed: Mapping[str, float]) -> Array:
    """Indices of the linear parameters to project out; the form with more of them is used."""
    names = [n for n in problem.derivation.linear(problem.projection_space) if n not in fixed]
    return np.array([problem.parameters.index(n) for n in names], dtype=int)


def _projected(problem: Problem, phi: Array, linear: Array) -> Array:
    if len(linear) == 0:
        return phi
    target, weights = problem.projection_target()
    logged = problem.derivation.logged & (problem.projection_space == "plain")
    points = project(problem.values(problem.projection_space), phi, linear, logged, target, weights)
    return np.clip(points, problem.lower, problem.upper)


def _grid(problem: Problem, fixed: Mapping[str, float], linear: Array) -> Array:
    """Candidates of the nonlinear parameters: all combinations if few, an even sample of them otherwise."""
    axes = []
    for j, name in enumerate(problem.parameters):
        if name in fixed:
            axes.append(np.array([fixed[name]]))
        elif j in linear:
            axes.append(np.zeros(1))
        else:
            values = candidates(problem.derivation, name, problem.inputs)
            axes.append(np.unique(np.clip(values, problem.lower[j], problem.upper[j])))
    sizes = np.array([len(axis) for axis in axes])
    if sizes.prod(dtype=float) <= _LIMIT:
        return np.stack([g.ravel() for g in np.meshgrid(*axes, indexing="ij")], axis=1)
    # Additive recurrence (Roberts' generalised golden ratio): evenly spread, no random numbers.
    free = np.flatnonzero(sizes > 1)
    golden = np.roots([1.0, *np.zeros(len(free) - 1), -1.0, -1.0])
    ratio = 1 / float(golden[np.abs(golden.imag) < 1e-9].real.max())
    share = (0.5 + np.outer(np.arange(1, _LIMIT + 1), ratio ** np.arange(1, len(free) + 1))) % 1.0
    points = np.array([[axis[0] for axis in axes]]).repeat(_LIMIT, axis=0)
    for k, axis in enumerate(free):
        points[:, axis] = axes[axis][(share[:, k] * sizes[axis]).astype(int)]
    return points


def candidates(derivation: Derivation, name: str, inputs: Sequence[Array]) -> Array:
    """Return values worth trying for one nonlinear parameter, in its fit coordinate.

    Parameters
    ----------
    derivation : Derivation
    name : str
    inputs : sequence of ndarray (n,)
        Entered inputs.
    """
    logged = bool(derivation.logged[derivation.parameters.index(name)])
    found = [_from_scale(scale, inputs, logged) for scale in derivation.scales[name]]
    found = [values[np.isfinite(values)] for values in found]
    if not any(len(values) for values in found):
        found = [np.log(_FALLBACK) if logged else np.concatenate([-_FALLBACK, _FALLBACK])]
    return np.concatenate(found)


def _from_scale(scale: Scale, inputs: Sequence[Array], logged: bool) -> Array:
    values = scale.cofactor(inputs)
    values = values[np.isfinite(values)] if np.ndim(values) else np.atleast_1d(values)
    if len(values) == 0:
        return np.empty(0)
    spread = float(np.ptp(values)) or float(np.abs(values).max())
    if scale.kind == "location":
        outside = np.concatenate([values.min() - _MARGINS * spread, values.max() + _MARGINS * spread])
        return np.concatenate([np.quantile(values, _QUANTILES), outside])
    sizes = _MAGNITUDES / spread if spread > 0 else _FALLBACK
    return np.log(sizes) if logged else np.concatenate([-sizes, sizes])
