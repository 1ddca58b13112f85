"""Optima drawn from known laws."""

from __future__ import annotations

import numpy as np
import pandas as pd

STEPLAW = (
    "214.7 4, 214.7 11.4, 214.7 20, 214.7 100, 268.4 5, 268.4 14.2, 268.4 25, 268.4 80, 429.5 8, 429.5 22.7, 429.5 40, "
    "429.5 50, 536.9 10, 536.9 28.4, 536.9 50, 1073.7 20, 1073.7 56.9"
)
"""The 17 cells of the Step Law dense sweep, in millions of parameters and billions of tokens."""


def steplaw_cells() -> pd.DataFrame:
    pairs = [tuple(map(float, text.split())) for text in STEPLAW.split(",")]
    return pd.DataFrame(pairs, columns=["params", "tokens"]) * [1e6, 1e9]


def grid(sizes: int, budgets: int) -> pd.DataFrame:
    levels = np.geomspace(6e7, 1.07e9, sizes), np.geomspace(2e9, 1e11, budgets)
    return pd.DataFrame([(n, d) for n in levels[0] for d in levels[1]], columns=["params", "tokens"])


def optima(cells: pd.DataFrame, seed: object, interaction: float = 0.0, noise: float = 0.2) -> pd.DataFrame:
    """Draw optima from a law linear in logs, but for an interaction about the middle of the cells."""
    n, d = np.log(cells["params"]), np.log(cells["tokens"])
    log_lr = 0.6 - 0.71 * n + 0.31 * d + interaction * (n - n.mean()) * (d - d.mean())
    return cells.assign(lr=np.exp(log_lr + noise * np.random.default_rng(seed).standard_normal(len(cells))))
