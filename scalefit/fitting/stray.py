"""How far optima stray from their law together by size and by budget, and what that says of the next one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from scalefit.fitting.bends import curvatures
from scalefit.fitting.fit_values import FitValues
from scalefit.schema import group_levels
from scalefit.solvers.distributions import hazard, hazard_slope
from scalefit.vocabulary import column_of, format_number

Array = np.ndarray

# Priors, in ln of the setting, chosen on simulated laboratories and folds of public sweeps: halving or doubling any of
# them changes interval scores by a few per cent (docs/statistics.md).
_WALK = {"params": 0.2, "tokens": 0.1}  # half-t with 3 degrees, of a walk's standard deviation per root of an e-fold
_BEND = {"params": 0.1, "tokens": 0.05}  # standard deviation of a bend, per squared e-fold
_STILL, _STRAIGHT = 0.35, 0.6  # chances that there is no walk, and no bend
_SCATTER = 0.15  # half-normal, of single cells beyond their own errors

_STEPS = np.array([0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4])  # scales of a walk that are tried, over its prior's
_SCATTERS, _SMALLEST = 10, 0.02  # scatters tried, from this share of the largest that the residuals allow
_RARE = 1e-3  # how rarely the residuals are smaller than the largest scatter says
_FAINT = 1e-4  # members that weigh less than this share of the heaviest move no quantile visibly
_KNOTS = 16  # a walk over more levels is laid through as many of their quantiles
_ROUNDING = 1e-5
_LIKELY = 0.8  # chance from which a bend is named
_BISECTIONS = 50
_WORK = 2e7  # numbers of one table at once, places times members times coefficients


@dataclass(frozen=True, eq=False)
class Stray:
    r"""Walks, bends and scatter about a law, inferred from its rows.

    .. math:: \ln y_c = \ln f(x_c) + \sum_i [w_i(\ln x_{ci}) + b_i (\ln x_{ci} - m_i)^2] + u_c + e_c

    with :math:`w_i` Brownian, :math:`u_c` the scatter of cells, :math:`e_c` the known errors of the rows, and flat
    priors for the parameters of the law. A member of the mixture holds one choice of scales; given them everything is
    normal. It is a model discrepancy in the sense of Kennedy and O'Hagan (2001, J. R. Stat. Soc. B 63, 425).
    """

    inputs: tuple[str, ...]
    levels: tuple[int, ...]  # sizes and budgets that it rests on
    basis: Basis
    weights: Array  # (members,)
    walks: Array  # (members, inputs): standard deviation per root of an e-fold
    bent: Array  # (members, inputs): whether there is a bend
    scatter: Array  # (members,)
    amplitudes: Array  # (members, q): prior standard deviations of the coefficients; one for those of the law
    mean: Array  # (members, q): coefficients over their amplitudes
    root: Array  # (members, q, q): of their covariance

    @property
    def table(self) -> pd.DataFrame:
        """One row an input: the levels it rests on, the mean walk per root of an e-fold, the chance of a bend."""
        columns = {"input": self.inputs, "levels": self.levels}
        return pd.DataFrame(columns | {"walk": self.weights @ self.walks, "bend": self.weights @ self.bent})

    @property
    def sentence(self) -> str:
        """How large it is, what it rests on, and what would shrink it."""
        parts = [
            f"{format_number(row['walk'], 2)} per root of an e-fold of {row['input']} ({row['levels']} levels)"
            + (f", a bend likely (chance {row['bend']:.2f})" if row["bend"] > _LIKELY else "")
            for row in self.table.to_dict("records")
        ]
        fewest = self.inputs[int(np.argmin(self.levels))]
        told = " and ".join(parts)
        return f"optima stray from the law together by {told}; more levels of {fewest} would narrow the intervals"

    def shifts(self, slopes: Array, logs: Array, shares: tuple[float, ...], *, new: bool) -> Array:
        """Return quantiles (shares, m) of what is added to the law at m places; a `new` cell adds its scatter."""
        work = len(slopes) * self.mean.size
        if work > _WORK and len(slopes) > 1:  # many places at once would not fit in memory
            half = len(slopes) // 2
            parts = (self.shifts(slopes[k], logs[:, k], shares, new=new) for k in (slice(half), slice(half, None)))
            return np.hstack(list(parts))
        features = self.basis.features(slopes, logs) * self.amplitudes[:, None, : self.basis.size]
        middle = np.einsum("kmq,kq->km", features, self.mean[:, : self.basis.size])
        variance = (np.einsum("kmq,kqr->kmr", features, self.root[:, : self.basis.size]) ** 2).sum(axis=2)
        variance += self.walks**2 @ self.basis.unseen(logs) + (self.scatter[:, None] ** 2 if new else 0.0)
        shift = self.basis.offset(slopes)
        return shift + np.stack([_quantile(self.weights, middle, np.sqrt(variance), share) for share in shares])


@dataclass(frozen=True, eq=False)
class Basis:
    """What coefficients stand for: parameters of the law, steps of the walks, bends, curvatures drawn to zero."""

    whiten: Array  # (p, flat): turns slopes of the law into orthogonal ones
    knots: tuple[Array, ...]
    middles: Array  # (inputs,): where the bends are centred
    drawn: Array  # (p,): prior standard deviation of a parameter that is drawn to zero, 0 for the others
    phi: Array  # (p,): where the law was made linear

    @property
    def size(self) -> int:
        """How many coefficients there are."""
        return self.whiten.shape[1] + sum(map(len, self.knots)) + int((self.drawn > 0).sum())

    def features(self, slopes: Array, logs: Array) -> Array:
        """Return what each coefficient adds at m places, (m, size), from slopes (m, p) and logs (inputs, m)."""
        ramps, squares = [], []
        for knots, middle, x in zip(self.knots, self.middles, logs, strict=True):
            gaps = np.diff(knots)
            # A Brownian motion is a sum of independent steps between the knots, straight between them on average.
            ramps.append(np.sqrt(gaps) * np.clip((x[:, None] - knots[:-1]) / gaps, 0, 1))
            squares.append((x - middle)[:, None] ** 2)
        own = slopes[:, self.drawn > 0] * self.drawn[self.drawn > 0]
        return np.hstack([slopes @ self.whiten, *ramps, *squares, own])

    def amplitudes(self, scales: Scales, shared: int) -> Array:
        """Return prior standard deviations of all coefficients, those of `shared` errors last; one for the law's."""
        members, widths = len(scales.scatter), [len(knots) - 1 for knots in self.knots]
        walks = np.repeat(scales.walks, widths, axis=1)
        ones = [np.ones((members, count)) for count in (self.whiten.shape[1], int((self.drawn > 0).sum()) + shared)]
        return np.hstack([ones[0], walks, scales.bends, ones[1]])

    def offset(self, slopes: Array) -> Array:
        """Return what the drawn parameters' values add to the law: their prior is centred on zero, not on them."""
        return -slopes[:, self.drawn > 0] @ self.phi[self.drawn > 0]

    def unseen(self, logs: Array) -> Array:
        """Return the variance of walks of unit scale that no coefficient holds: beyond the knots, and between them."""
        return np.stack([_unseen(*pair) for pair in zip(self.knots, logs, strict=True)])


def _unseen(knots: Array, x: Array) -> Array:
    beyond = np.maximum(x - knots[-1], 0) + np.maximum(knots[0] - x, 0)
    if len(knots) == 1:
        return beyond
    after = np.clip(np.searchsorted(knots, x), 1, len(knots) - 1)
    low, high = knots[after - 1], knots[after]
    return beyond + np.maximum((x - low) * (high - x), 0) / (high - low)  # a Brownian bridge


def infer_stray(fit: FitValues, inputs: tuple[str, ...]) -> Stray | None:
    """Infer how optima stray from a fitted law by some inputs; None where that is not asked or nothing is left over.

    Scales are weighed on a grid by their restricted likelihood; given them the coefficients are normal.
    """
    if column_of(fit.law.target) not in ("lr", "batch") or fit.space != "log" or fit.dof <= 0 or not inputs:
        return None
    rows = fit.weights > 0
    slopes = fit.problem.values("log")(fit.phi[None])[1][0].T[rows]
    levels = np.stack([group_levels(fit.known[name].to_numpy(dtype=float)[rows]) for name in inputs])
    logs = np.log(levels)  # a size that jitters is one size
    curved = curvatures(fit)
    basis = _basis(fit, curved, slopes, logs)
    rest, own, relative = _observed(fit, rows)
    shared = np.zeros((len(rest), 0)) if fit.errors is None else fit.errors[rows, 1:]
    own_bends = {column_of(name) for i, name in enumerate(fit.law.inputs) if curved[:, i, i].any()}
    points = ~fit.is_bound[rows]
    scales = _grid(inputs, own_bends, (slopes @ basis.whiten)[points], rest[points])
    amplitudes = basis.amplitudes(scales, shared.shape[1])
    features = np.hstack([basis.features(slopes, logs), shared])
    rest = rest - basis.offset(slopes)
    flat = basis.whiten.shape[1]
    chosen, weights, mean, root = _weigh(scales, amplitudes, features, rest, own, relative, flat)
    counts = tuple(len(np.unique(row)) for row in levels)
    walks, bent, scatter = scales.walks[chosen], scales.bends[chosen] > 0, scales.scatter[chosen]
    return Stray(inputs, counts, basis, weights, walks, bent, scatter, amplitudes[chosen], mean, root)


@dataclass(frozen=True, eq=False)
class Scales:
    """Choices of scales that are tried, one a member, and the chance that the prior gives each."""

    walks: Array  # (members, inputs)
    bends: Array  # (members, inputs)
    scatter: Array  # (members,)
    prior: Array  # (members,)


def _basis(fit: FitValues, curved: Array, slopes: Array, logs: Array) -> Basis:
    # A curvature that is drawn to zero has the prior of a bend where it is one, and else that of the fit.
    scale = np.full(curved.shape[1:], fit.shrinkage)
    for i, name in enumerate(map(column_of, fit.law.inputs)):
        scale[i, i] = 2 * _BEND.get(name, fit.shrinkage)
    allowed = np.divide(scale, curved, out=np.zeros_like(curved), where=curved > 0)
    drawn = allowed.max(axis=(1, 2), initial=0.0) if fit.shrinkage else np.zeros(len(fit.phi))
    flat = fit.is_free & np.isfinite(np.diag(fit.covariance)) & (drawn == 0)
    _, size, turned = np.linalg.svd(np.where(flat, slopes, 0.0), full_matrices=False)
    told = size > 1e-10 * size[0]  # what the rows leave open is infinite in the covariance, and said there
    whiten = turned[told].T / size[told] * np.sqrt(len(slopes))
    return Basis(whiten, tuple(map(_knots, logs)), logs.mean(axis=1), drawn, fit.phi)


def _knots(logs: Array) -> Array:
    levels = np.unique(logs)
    return levels if len(levels) <= _KNOTS else np.quantile(levels, np.linspace(0, 1, _KNOTS))


def _observed(fit: FitValues, rows: Array) -> tuple[Array, Array, Array]:
    """Return residuals of the rows, variances of their own errors, and of their scatter relative to a typical one.

    A bound takes part as the point that would say the same of a normal about the law: its site in expectation
    propagation (Minka 2001), after one step.
    """
    weights, residual, bound = fit.weights[rows], fit.residuals[rows], fit.is_bound[rows]
    relative = np.ones(len(weights)) if fit.errors is not None else fit.typical_weight / weights
    # What a robust loss holds down scatters more.
    relative = relative / np.maximum(fit.loss.weight(residual), _ROUNDING)
    own = np.zeros(len(weights)) if fit.errors is None else fit.errors[rows, 0] ** 2
    if bound.any():
        side, spread = fit.problem.censored[rows][bound], fit.scale / np.sqrt(weights[bound])  # type: ignore[index]
        z = -side * residual[bound] / spread
        share = np.clip(hazard_slope(z), _ROUNDING, 1 - _ROUNDING)
        residual, own = residual.copy(), own.copy()
        residual[bound] = side * spread * hazard(z) / share
        own[bound] = spread**2 * (1 - share) / share
    return residual, own, relative


def _grid(inputs: tuple[str, ...], bent: set[str], design: Array, rest: Array) -> Scales:
    """Lay out every combination of scales; no bend by what the law itself is `bent` by.

    Scatters reach as far as the residuals about the law allow, those of rows that are points.
    """
    from scipy.special import chdtri

    left = rest - design @ np.linalg.lstsq(design, rest, rcond=None)[0]
    dof = max(len(rest) - design.shape[1], 1)
    largest = np.sqrt((left**2).sum() / chdtri(dof, 1 - _RARE)) + _ROUNDING
    scatter = np.append(0.0, np.geomspace(_SMALLEST, 1, _SCATTERS) * min(largest, _STEPS[-1] * _SCATTER))
    walk, walk_prior = _STEPS, (1 + _STEPS**2 / 3) ** -2 * np.gradient(_STEPS)
    walk_prior = (1 - _STILL) * walk_prior / walk_prior.sum() + _STILL * (walk == 0)
    chance = np.array([_STRAIGHT, 1 - _STRAIGHT])
    free_bends = [(name, name not in bent) for name in inputs]
    axes = [
        *((_WALK[name] * walk, walk_prior) for name in inputs),
        *((np.array([0.0, _BEND[name]])[: 1 + free], chance[: 1 + free]) for name, free in free_bends),
        (scatter, np.exp(-((scatter / _SCATTER) ** 2) / 2) * np.gradient(scatter)),
    ]
    values, chances = (np.meshgrid(*parts, indexing="ij") for parts in zip(*axes, strict=True))
    members = np.stack([part.ravel() for part in values], axis=1)
    d = len(inputs)
    return Scales(members[:, :d], members[:, d:-1], members[:, -1], np.prod(chances, axis=0).ravel())


def _weigh(
    scales: Scales, amplitudes: Array, features: Array, rest: Array, own: Array, relative: Array, flat: int
) -> tuple[Array, Array, Array, Array]:
    """Return which members count and, for each, its weight, its coefficients and a root of their covariance.

    With features F times amplitudes and variances D of the rows, coefficients have precision A = F'F/D + 1 (without the
    1 for the first `flat`, the law's), and the restricted likelihood is |D A|^(-1/2) exp(-(r'r/D - b'b/A)/2), b = F'r/D
    (Patterson and Thompson 1971, Biometrika 58, 545).
    """
    scatter, same = np.unique(scales.scatter, return_inverse=True)
    floor = _ROUNDING + 1e-3 * float(np.std(rest))  # rows that agree to rounding would else make D singular
    variance = own + relative * scatter[:, None] ** 2 + floor**2
    # Sums over rows depend on the scatter alone; all the rest is as small as there are coefficients.
    gram = np.einsum("nq,tn,nr->tqr", features, 1 / variance, features, optimize=True)
    precision = gram[same] * amplitudes[:, :, None] * amplitudes[:, None, :]
    place = np.arange(len(amplitudes[0]))
    precision[:, place, place] += np.where(place < flat, 1e-12 * precision[:, place, place], 1.0)
    factor = np.linalg.cholesky(precision)
    side = ((rest / variance) @ features)[same] * amplitudes
    white = np.linalg.solve(factor, side[..., None])[..., 0]
    fixed = np.log(variance).sum(axis=1) + (rest**2 / variance).sum(axis=1)
    twice = (white**2).sum(axis=1) - fixed[same] - 2 * np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
    weight = scales.prior * np.exp((twice - twice.max()) / 2)
    chosen = weight > _FAINT * weight.max()
    root = np.swapaxes(np.linalg.inv(factor[chosen]), 1, 2)
    mean = np.einsum("kqr,kr->kq", root, white[chosen])
    return chosen, weight[chosen] / weight[chosen].sum(), mean, root


def _quantile(weights: Array, middle: Array, deviation: Array, share: float) -> Array:
    """Return where mixtures of normals (members, m) have a share below, by bisection."""
    from scipy.special import ndtr

    # Twelve deviations hold every share that is not zero in double precision.
    low, high = (middle + way * 12 * deviation for way in (-1, 1))
    low, high = low.min(axis=0), high.max(axis=0)
    for _ in range(_BISECTIONS):
        half = (low + high) / 2
        below = weights @ ndtr((half - middle) / np.maximum(deviation, _ROUNDING**2)) < share
        low, high = np.where(below, half, low), np.where(below, high, half)
    return (low + high) / 2
