"""Simulated sweeps from a stated truth, to test methods on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scalefit.errors import SweepError

__all__ = ["Design", "Truth", "simulate_sweep", "true_cells", "write_bundle"]

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

    Examples
    --------
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
        positive = ("lr", "batch", "lr_curvature", "batch_curvature", "floor")
        for name in positive:
            if not 0 < getattr(self, name) < np.inf:
                raise SweepError(f"{name} of a Truth should be positive and finite, found {getattr(self, name)!r}")
        for name in ("noise", "cliff_width", "lr_scatter", "batch_scatter", "floor_scatter"):
            if not 0 <= getattr(self, name) < np.inf:
                raise SweepError(f"{name} of a Truth should be finite and not negative, found {getattr(self, name)!r}")
        if not self.noise_dof > 2 or not self.cliff > 1:
            raise SweepError(
                "a Truth needs noise_dof above 2 (a finite variance) and cliff above 1, "
                f"found {self.noise_dof!r} and {self.cliff!r}"
            )
        # A truth read back from JSON comes with a list.
        object.__setattr__(self, "diverged_excess", tuple(self.diverged_excess))
        low, high = self.diverged_excess
        if not 0 <= self.diverged_nan <= 1 or not 0 <= low <= high < np.inf:
            raise SweepError(
                "a Truth needs diverged_nan from 0 to 1 and diverged_excess as (low, high) in nats, "
                f"found {self.diverged_nan!r} and {self.diverged_excess!r}"
            )

    def optimum(self, params: ArrayLike, tokens: ArrayLike, batch: ArrayLike | None = None) -> dict[str, Floats]:
        """Return the best `lr` and `batch`; with `batch` given, the best `lr` at that batch."""
        n, d = np.asarray(params, dtype=float), np.asarray(tokens, dtype=float)
        best_batch = self.batch * n**self.batch_params_power * d**self.batch_tokens_power
        best_lr = self.lr * n**self.lr_params_power * d**self.lr_tokens_power
        if batch is None:
            return {"lr": best_lr, "batch": best_batch}
        chosen = np.asarray(batch, dtype=float)
        return {"lr": best_lr * (chosen / best_batch) ** self.lr_batch_power, "batch": chosen}

    def lowest_loss(self, params: ArrayLike, tokens: ArrayLike) -> Floats:
        """Return the loss at the optimum, nats per token."""
        n, d = np.asarray(params, dtype=float), np.asarray(tokens, dtype=float)
        by_params = self.floor_params * n**-self.floor_params_power
        return self.floor + by_params + self.floor_tokens * d**-self.floor_tokens_power

    def loss(self, lr: ArrayLike, batch: ArrayLike, params: ArrayLike, tokens: ArrayLike) -> Floats:
        """Return the loss without noise or scatter, nats per token; NaN where most runs diverge."""
        best = self.optimum(params, tokens)
        excess = self.excess(lr, batch, best["lr"], best["batch"])
        survives = self.divergence(lr, batch, best["lr"], best["batch"]) <= 0.5
        return np.where(survives, self.lowest_loss(params, tokens) + excess, np.nan)

    def excess(self, lr: ArrayLike, batch: ArrayLike, best_lr: ArrayLike, best_batch: ArrayLike) -> Floats:
        """Return the loss above a cell's lowest, in nats, for runs that do not diverge."""
        u, v = self._place(lr, batch, best_lr, best_batch)
        return self.lr_curvature * _basin(u, self.asymmetry) + 0.5 * self.batch_curvature * v**2

    def divergence(self, lr: ArrayLike, batch: ArrayLike, best_lr: ArrayLike, best_batch: ArrayLike) -> Floats:
        """Return the probability that a run diverges."""
        above = self._place(lr, batch, best_lr, best_batch)[0] - np.log(self.cliff)
        if self.cliff_width == 0:
            return np.where(above > 0, 1.0, 0.0)
        return 0.5 * (1 + np.tanh(above / (2 * self.cliff_width)))

    def _place(
        self, lr: ArrayLike, batch: ArrayLike, best_lr: ArrayLike, best_batch: ArrayLike
    ) -> tuple[Floats, Floats]:
        v = np.log(np.asarray(batch, dtype=float) / np.asarray(best_batch, dtype=float))
        centre = np.asarray(best_lr, dtype=float) * np.exp(self.lr_batch_power * v)
        return np.log(np.asarray(lr, dtype=float) / centre), v


def _basin(u: Floats, k: float) -> Floats:
    # The series near 0 keeps digits that expm1(ku) - ku loses to cancellation, and gives the parabola at k = 0.
    t = np.asarray(k * u, dtype=float)
    exact = (np.expm1(t) - t) / (k * k if k else 1.0)
    series = u**2 * (0.5 + t / 6 + t**2 / 24 + t**3 / 120)
    return np.where(np.abs(t) < 1e-3, series, exact)


_SCATTER, _EDGE, _DIVERGENCE = 1, 2, 3
"""Streams of random numbers apart from that of the noise: switching one on leaves the other draws as they were."""


@dataclass(frozen=True)
class Design:
    """Which runs a simulated sweep has.

    Parameters
    ----------
    params, tokens : tuple of float
        Model sizes and token budgets; every pair is a cell.
    lr_levels, batch_levels : int
        Levels per cell, around the cell's optimum.
    lr_ratio, batch_ratio : float
        Ratio of neighbouring levels; levels lie on one lattice shared by all cells.
    off_centre, drift, drift_tokens : float
        Octaves by which the middle of the lr grid lies above the optimum, and how much that grows per decade of params
        and of tokens above their smallest.
    batch_off_centre : float
        Octaves by which the middle of the batch grid lies above the optimum.
    follow_batch : bool
        Whether the lr grid moves with the batch as the best lr does; otherwise all batches of a cell share one grid.
    edge : float
        Fraction of the cells, chosen at random, whose lr grid does not reach the optimum (whatever `off_centre` says).
    edge_steps : float
        By how many steps of the grid it misses the optimum, give or take half a step; positive puts the grid below the
        optimum, negative above.
    missing : float
        Fraction of the runs left out at random, 0 to below 1.
    repeats : int
        Runs (seeds) per setting.

    Notes
    -----
    Grids are laid around the laws' optima; a cell's own optimum may have strayed from there (`Truth.lr_scatter`).

    Examples
    --------
    >>> len(simulate_sweep(design=Design(params=(1e8,), tokens=(2e9,), lr_levels=5, batch_levels=3), seed=1))
    15
    """

    params: tuple[float, ...] = (1e7, 5e7, 2e8, 1e9)
    tokens: tuple[float, ...] = (1e9, 4e9, 1.6e10, 6.4e10)
    lr_levels: int = 7
    lr_ratio: float = 2.0
    batch_levels: int = 5
    batch_ratio: float = 2.0
    off_centre: float = 0.0
    drift: float = 0.0
    drift_tokens: float = 0.0
    batch_off_centre: float = 0.0
    follow_batch: bool = False
    edge: float = 0.0
    edge_steps: float = 1.0
    missing: float = 0.0
    repeats: int = 1

    def __post_init__(self) -> None:
        if min(self.lr_levels, self.batch_levels, self.repeats, len(self.params), len(self.tokens)) < 1:
            raise SweepError("a Design needs at least one level of everything and one repeat")
        if not (self.lr_ratio > 1 and self.batch_ratio > 1 and 0 <= self.missing < 1):
            raise SweepError("a Design needs ratios above 1 and a missing fraction from 0 to below 1")
        if not 0 <= self.edge <= 1 or not 1 <= abs(self.edge_steps) < np.inf:
            raise SweepError(
                "a Design needs an edge fraction from 0 to 1 and edge_steps of at least 1 (or at most -1), "
                f"found {self.edge!r} and {self.edge_steps!r}"
            )


def simulate_sweep(truth: Truth | None = None, design: Design | None = None, *, seed: int = 0) -> pd.DataFrame:
    """Simulate the runs of a sweep.

    Parameters
    ----------
    truth : Truth, optional
        The laws; `Truth` as it stands by default.
    design : Design, optional
        The runs; 16 cells of 7 learning rates by 5 batch sizes by default.
    seed : int
        Seed of all that is random; the same seed gives the same table.

    Returns
    -------
    pandas.DataFrame
        One row a run: lr, batch (tokens per step), params, tokens, loss (nats/token; NaN where it diverged), seed and
        steps, ready for ``read_sweep(table, batch_unit="tokens")``.

    Examples
    --------
    >>> table = simulate_sweep(seed=1)
    >>> len(table), list(table.columns)
    (560, ['lr', 'batch', 'params', 'tokens', 'loss', 'seed', 'steps'])

    Half-octave steps, a grid that drifts off, a third of the cells out of reach, and a ragged cliff above the optimum:

    >>> hard = Design(lr_ratio=2**0.5, lr_levels=9, off_centre=0.5, drift=0.3, edge=1 / 3)
    >>> table = simulate_sweep(Truth(cliff=3.0, cliff_width=0.3, lr_scatter=0.1), hard, seed=1)
    >>> bool(0.03 < table["loss"].isna().mean() < 0.3)
    True
    """
    truth, design = truth or Truth(), design or Design()
    rng = np.random.default_rng(seed)
    rows, cell = _settings(truth, design, seed)
    own = _own_optima(truth, design, seed)
    best_lr, best_batch, lowest = (own[name].to_numpy()[cell] for name in ("lr", "batch", "loss"))
    lr, batch, size = rows["lr"].to_numpy(), rows["batch"].to_numpy(), len(rows)
    loss = lowest + truth.excess(lr, batch, best_lr, best_batch)
    loss = loss + truth.noise * _unit_noise(rng, truth.noise_dof, size)
    luck, place, kind = np.random.default_rng([seed, _DIVERGENCE]).random((3, size))
    low, high = truth.diverged_excess
    ended = np.where(kind < truth.diverged_nan, np.nan, lowest + low + (high - low) * place)
    loss = np.where(luck < truth.divergence(lr, batch, best_lr, best_batch), ended, loss)
    table = rows.assign(loss=loss)[["lr", "batch", "params", "tokens", "loss", "seed"]]
    table["steps"] = np.rint(table["tokens"] / table["batch"])
    kept = rng.random(size) >= design.missing
    return table[kept].reset_index(drop=True)


def true_cells(truth: Truth | None = None, design: Design | None = None, *, seed: int = 0) -> pd.DataFrame:
    """Return where the optimum of each cell of `simulate_sweep` with the same arguments really lies.

    Returns
    -------
    pandas.DataFrame
        One row a (params, tokens) cell: params, tokens, lr, batch and loss at its own optimum (laws and scatter), and
        edge, whether its lr grid was laid so as to miss it.

    Examples
    --------
    >>> cells = true_cells(Truth(lr_scatter=0.1), Design(edge=0.25), seed=1)
    >>> len(cells), int(cells["edge"].sum())
    (16, 4)
    """
    truth, design = truth or Truth(), design or Design()
    return _own_optima(truth, design, seed).assign(edge=_edge_cells(design, seed))


def _settings(truth: Truth, design: Design, seed: int) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Lay the grid of every cell: lr, batch, params, tokens and seed of each run, and the number of its cell."""
    sizes, budgets = np.array(design.params, dtype=float), np.array(design.tokens, dtype=float)
    levels = (len(sizes), len(budgets), design.batch_levels, design.lr_levels, design.repeats)
    at_n, at_d, i, j, repeat = (axis.ravel() for axis in np.indices(levels))
    n, d, cell = sizes[at_n], budgets[at_d], at_n * len(budgets) + at_d
    best = truth.optimum(n, d)
    middle = best["batch"] * 2.0**design.batch_off_centre
    batch = _lattice(middle, i, design.batch_levels, design.batch_ratio)
    octaves = design.off_centre + design.drift * np.log10(n / sizes.min())
    octaves = octaves + design.drift_tokens * np.log10(d / budgets.min())
    centre = truth.optimum(n, d, batch)["lr"] if design.follow_batch else best["lr"]
    miss = -np.sign(design.edge_steps) * (design.lr_levels - 1) / 2 - design.edge_steps
    shift = np.where(_edge_cells(design, seed)[cell], design.lr_ratio**miss, 2.0**octaves)
    lr = _lattice(centre * shift, j, design.lr_levels, design.lr_ratio)
    rows = pd.DataFrame({"lr": lr, "batch": batch, "params": n, "tokens": d, "seed": repeat})
    return rows, cell


def _own_optima(truth: Truth, design: Design, seed: int) -> pd.DataFrame:
    n, d = (
        axis.ravel()
        for axis in np.meshgrid(np.array(design.params, float), np.array(design.tokens, float), indexing="ij")
    )
    stray = np.random.default_rng([seed, _SCATTER]).standard_normal((3, len(n)))
    best = truth.optimum(n, d)
    return pd.DataFrame(
        {
            "params": n,
            "tokens": d,
            "lr": best["lr"] * np.exp(truth.lr_scatter * stray[0]),
            "batch": best["batch"] * np.exp(truth.batch_scatter * stray[1]),
            "loss": truth.lowest_loss(n, d) + truth.floor_scatter * stray[2],
        }
    )


def _edge_cells(design: Design, seed: int) -> NDArray[np.bool_]:
    """Choose the cells whose grid misses the optimum: the stated share of them, rounded."""
    cells = len(design.params) * len(design.tokens)
    chosen = np.random.default_rng([seed, _EDGE]).permutation(cells)[: round(design.edge * cells)]
    return np.isin(np.arange(cells), chosen)


def _lattice(centre: Floats, index: NDArray[np.int64], levels: int, ratio: float) -> Floats:
    middle = np.rint(np.log(centre) / np.log(ratio) - (levels - 1) / 2)
    return np.exp2((middle + index) * np.log2(ratio))


def _unit_noise(rng: np.random.Generator, dof: float, size: int) -> Floats:
    if np.isinf(dof):
        return rng.standard_normal(size)
    return rng.standard_t(dof, size) / np.sqrt(dof / (dof - 2))


SCHEMA = 1


def write_bundle(folder: str | Path, seed: int = 0) -> tuple[Path, Path]:
    """Write a simulated sweep, and beside it its seed and truth.

    Parameters
    ----------
    folder : str or Path
        Where ``runs.csv`` and ``truth.json`` go; made if absent.
    seed : int
        Seed of the noise.

    Returns
    -------
    tuple of Path
        The two files.
    """
    truth, design = Truth(), Design()
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    runs, facts = out / "runs.csv", out / "truth.json"
    table = simulate_sweep(truth, design, seed=seed).astype({"seed": int, "steps": int})
    table["loss"] = table["loss"].round(5)
    table.to_csv(runs, index=False, float_format="%.8g", lineterminator="\n")
    stated = {"schema": SCHEMA, "seed": seed, "truth": asdict(truth), "design": asdict(design)}
    facts.write_text(json.dumps(stated, indent=2) + "\n", encoding="utf-8", newline="\n")
    return runs, facts
