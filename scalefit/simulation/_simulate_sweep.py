"""Simulated sweeps: the design of their runs, and their losses drawn from the laws of a truth."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scalefit.simulation.truth import Floats, Truth, check_fields

# Separate streams of random numbers, so that switching one effect on leaves all other draws unchanged.
_SCATTER, _EDGE, _DIVERGENCE = 1, 2, 3


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

    Raises
    ------
    SweepError
        If a value is outside its range; the field is named.

    Notes
    -----
    Grids are laid around the laws' optima; a cell's own optimum may have strayed from there (`Truth.lr_scatter`).

    See Also
    --------
    simulate_sweep, Truth

    Examples
    --------
    >>> from scalefit.simulation import Design, simulate_sweep
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
        check_fields(self, ("lr_levels", "batch_levels", "repeats"), "at least 1", lambda count: count >= 1)
        check_fields(self, ("params", "tokens"), "at least one value", len)
        check_fields(self, ("lr_ratio", "batch_ratio"), "above 1", lambda ratio: ratio > 1)
        check_fields(self, ("missing",), "from 0 to below 1", lambda share: 0 <= share < 1)
        check_fields(self, ("edge",), "from 0 to 1", lambda share: 0 <= share <= 1)
        check_fields(self, ("edge_steps",), "at least 1, or at most -1", lambda steps: 1 <= abs(steps) < np.inf)


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

    See Also
    --------
    true_cells : Where the optimum of each cell really lies.

    Examples
    --------
    >>> from scalefit.simulation import Design, Truth, simulate_sweep
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
    """Return the true optimum of each cell of `simulate_sweep` with the same arguments.

    Parameters
    ----------
    truth, design, seed
        As in `simulate_sweep`.

    Returns
    -------
    pandas.DataFrame
        One row a (params, tokens) cell: params, tokens, lr, batch and loss at its own optimum (laws and scatter), and
        edge, whether its lr grid was laid so as to miss it.

    See Also
    --------
    simulate_sweep : The runs of these cells.

    Examples
    --------
    >>> from scalefit.simulation import Design, Truth, true_cells
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
    grid = np.meshgrid(np.array(design.params, float), np.array(design.tokens, float), indexing="ij")
    n, d = (axis.ravel() for axis in grid)
    stray = np.random.default_rng([seed, _SCATTER]).standard_normal((3, len(n)))
    best = truth.optimum(n, d)
    lr, batch = best["lr"] * np.exp(truth.lr_scatter * stray[0]), best["batch"] * np.exp(truth.batch_scatter * stray[1])
    loss = truth.lowest_loss(n, d) + truth.floor_scatter * stray[2]
    return pd.DataFrame({"params": n, "tokens": d, "lr": lr, "batch": batch, "loss": loss})


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

    See Also
    --------
    simulate_sweep : The runs as a table.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from scalefit.simulation import write_bundle
    >>> [path.name for path in write_bundle(mkdtemp(), seed=1)]
    ['runs.csv', 'truth.json']
    """
    truth, design = Truth(), Design()
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    runs, facts = out / "runs.csv", out / "truth.json"
    table = simulate_sweep(truth, design, seed=seed).astype({"seed": int, "steps": int})
    table["loss"] = table["loss"].round(5)
    table.to_csv(runs, index=False, float_format="%.8g", lineterminator="\n")
    stated = {"schema": 1, "seed": seed, "truth": asdict(truth), "design": asdict(design)}
    facts.write_text(json.dumps(stated, indent=2) + "\n", encoding="utf-8", newline="\n")
    return runs, facts
