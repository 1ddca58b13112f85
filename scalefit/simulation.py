"""Simulated sweeps from a stated truth: to test methods on, to plan with, and to bundle."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scalefit.errors import SweepError

Floats = NDArray[np.float64]

SCHEMA = 1


@dataclass(frozen=True)
class Truth:
    r"""The laws a simulated sweep obeys.

    .. math::

        L = E + A N^{-\alpha} + B_0 D^{-\beta} + h\,\frac{e^{k u} - k u - 1}{k^2} + \tfrac12 h_B v^2, \qquad
        u = \ln\frac{\eta}{\eta^*} - s v,\quad v = \ln\frac{B}{B^*},

    with :math:`\eta^* = c\,N^a D^b` and :math:`B^* = c_B N^{a_B} D^{b_B}`. The power :math:`s` tilts the basin (a cross
    term :math:`-h s \ln(\eta/\eta^*)\,v`): away from the best batch the best learning rate is :math:`\eta^* (B/B^*)^s`.

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
    cliff : float
        Runs at more than this many times the best learning rate for their batch diverge.
    noise, noise_dof : float
        Standard deviation of a run's loss in nats; degrees of freedom of its Student t, above 2 (inf is Gaussian).

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
    noise: float = 0.003
    noise_dof: float = 5.0

    def __post_init__(self) -> None:
        positive = ("lr", "batch", "lr_curvature", "batch_curvature", "floor")
        for name in positive:
            if not 0 < getattr(self, name) < np.inf:
                raise SweepError(f"{name} of a Truth should be positive and finite, found {getattr(self, name)!r}")
        if not self.noise >= 0:
            raise SweepError(f"noise of a Truth should not be negative, found {self.noise!r}")
        if not self.noise_dof > 2 or not self.cliff > 1:
            raise SweepError(
                "a Truth needs noise_dof above 2 (a finite variance) and cliff above 1, "
                f"found {self.noise_dof!r} and {self.cliff!r}"
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
        """Return the loss without noise, nats per token; NaN above the cliff."""
        u = np.log(np.asarray(lr, dtype=float) / self.optimum(params, tokens, batch)["lr"])
        v = np.log(np.asarray(batch, dtype=float) / self.optimum(params, tokens)["batch"])
        loss = self.lowest_loss(params, tokens) + self.lr_curvature * _basin(u, self.asymmetry)
        return np.where(u <= np.log(self.cliff), loss + 0.5 * self.batch_curvature * v**2, np.nan)


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
    off_centre, drift : float
        Octaves by which the middle of the lr grid lies above the optimum, and how much that grows per decade of params.
    missing : float
        Fraction of the runs left out at random, 0 to below 1.
    repeats : int
        Runs (seeds) per setting.

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
    missing: float = 0.0
    repeats: int = 1

    def __post_init__(self) -> None:
        if min(self.lr_levels, self.batch_levels, self.repeats, len(self.params), len(self.tokens)) < 1:
            raise SweepError("a Design needs at least one level of everything and one repeat")
        if not (self.lr_ratio > 1 and self.batch_ratio > 1 and 0 <= self.missing < 1):
            raise SweepError("a Design needs ratios above 1 and a missing fraction from 0 to below 1")


def simulate_sweep(truth: Truth | None = None, design: Design | None = None, *, seed: int = 0) -> pd.DataFrame:
    """Simulate the runs of a sweep.

    Parameters
    ----------
    truth : Truth, optional
        The laws; `Truth` as it stands by default.
    design : Design, optional
        The runs; 16 cells of 7 learning rates by 5 batch sizes by default.
    seed : int
        Seed of the noise and of the runs left out; the same seed gives the same table.

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
    """
    truth, design = truth or Truth(), design or Design()
    rng = np.random.default_rng(seed)
    n, d, i, j, repeat = (
        axis.ravel()
        for axis in np.meshgrid(
            np.array(design.params, dtype=float),
            np.array(design.tokens, dtype=float),
            np.arange(design.batch_levels),
            np.arange(design.lr_levels),
            np.arange(design.repeats),
            indexing="ij",
        )
    )
    best = truth.optimum(n, d)
    shift = design.off_centre + design.drift * np.log10(n / min(design.params))
    batch = _lattice(best["batch"], i, design.batch_levels, design.batch_ratio)
    lr = _lattice(best["lr"] * 2.0**shift, j, design.lr_levels, design.lr_ratio)
    loss = truth.loss(lr, batch, n, d) + truth.noise * _unit_noise(rng, truth.noise_dof, len(n))
    table = pd.DataFrame(
        {"lr": lr, "batch": batch, "params": n, "tokens": d, "loss": loss, "seed": repeat, "steps": np.rint(d / batch)}
    )
    kept = rng.random(len(table)) >= design.missing
    return table[kept].reset_index(drop=True)


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


def _basin(u: Floats, k: float) -> Floats:
    # The series near 0 keeps digits that expm1(ku) - ku loses to cancellation, and gives the parabola at k = 0.
    t = np.asarray(k * u, dtype=float)
    exact = (np.expm1(t) - t) / (k * k if k else 1.0)
    series = u**2 * (0.5 + t / 6 + t**2 / 24 + t**3 / 120)
    return np.where(np.abs(t) < 1e-3, series, exact)


def _lattice(centre: Floats, index: NDArray[np.int64], levels: int, ratio: float) -> Floats:
    middle = np.rint(np.log(centre) / np.log(ratio) - (levels - 1) / 2)
    return np.exp2((middle + index) * np.log2(ratio))


def _unit_noise(rng: np.random.Generator, dof: float, size: int) -> Floats:
    if np.isinf(dof):
        return rng.standard_normal(size)
    return rng.standard_t(dof, size) / np.sqrt(dof / (dof - 2))


def _main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m scalefit.simulation", description="Write a simulated sweep.")
    parser.add_argument("folder", help="where runs.csv and truth.json go")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    for path in write_bundle(options.folder, options.seed):
        print(path)


if __name__ == "__main__":
    _main()
