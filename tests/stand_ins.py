"""Simulated files in the formats of the public sweeps, from stated truths, for the same code in a plain clone."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scalefit.simulation import Design, Truth, simulate_sweep

SEQUENCE = 2048
TRUTH = Truth(noise=0.0005)


def step_law(seed: int = 3) -> pd.DataFrame:
    """Runs as Step Law publishes them: batch in sequences, steps, two columns of loss, one rate spelt in two ways."""
    runs = simulate_sweep(TRUTH, Design(lr_levels=13, lr_ratio=2**0.5, batch_levels=7), seed=seed)
    runs = runs[runs["loss"].notna() & (runs["loss"] < runs["loss"].min() + 3)].reset_index(drop=True)
    batch = np.maximum(np.round(runs["batch"] / SEQUENCE), 1).astype(int)
    steps = np.round(runs["tokens"] / (batch * SEQUENCE)).astype(int)
    spelt = np.where(np.arange(len(runs)) % 2 == 0, runs["lr"].round(7), runs["lr"].round(6))
    noise = 0.03 * np.random.default_rng(seed).normal(size=len(runs))
    columns = {"lr": spelt, "bs": batch, "ti": steps, "loss": runs["loss"] + noise, "smooth loss": runs["loss"]}
    return pd.DataFrame(columns | {"D": batch * steps * SEQUENCE, "N": runs["params"].astype(int)})


SIZES = np.array([85e6, 151e6, 302e6, 604e6, 1.2e9])
CRITICAL = 1.2e6 * (SIZES / 1e8) ** 0.6
"""Critical batch in tokens of every size of the steps to a target."""


def steps_to_target(seed: int = 0) -> pd.DataFrame:
    """Steps to a target loss by size and batch, S = S_min (1 + B_crit / B) with 3 % of scatter."""
    batch = 512.0 * 2 ** np.arange(6, 15)
    rng = np.random.default_rng(seed)
    rows = []
    for size, critical in zip(SIZES, CRITICAL, strict=True):
        steps = 4000 * (size / 1e8) ** 0.2 * (1 + critical / batch) * np.exp(0.03 * rng.normal(size=batch.size))
        rows.append(pd.DataFrame({"params": size, "target": 3.0, "batch": batch, "steps": steps}))
    return pd.concat(rows, ignore_index=True)


def replicates(seed: int = 0, critical: float = 1e4) -> pd.DataFrame:
    """Examples to a target with twenty seeds a batch size, E = E_min (1 + B / B_crit) with 5 % from seed to seed."""
    batch = np.repeat([256.0, 448, 1024, 2048, 4096, 8192, 16384], 20)
    noise = np.exp(0.05 * np.random.default_rng(seed).normal(size=batch.size))
    return pd.DataFrame({"batch": batch, "examples": 2.5e6 * (1 + batch / critical) * noise})


def points_of_a_loss_law(seed: int = 0) -> pd.DataFrame:
    """Sizes, compute and loss of Chinchilla's law with 0.3 % of scatter, as digitised from a figure."""
    rng = np.random.default_rng(seed)
    params, tokens = np.exp(rng.uniform(np.log(5e7), np.log(1.6e10), 240)), np.exp(rng.uniform(21, 26, 240))
    loss = (1.8 + 480 / params**0.35 + 2100 / tokens**0.37) * np.exp(0.003 * rng.normal(size=240))
    return pd.DataFrame({"Model Size": params, "Training FLOP": 6 * params * tokens, "loss": loss})


def narrow_grids(seed: int = 0) -> pd.DataFrame:
    """Cells of three or four rates, half of whose optima lie at the end of the grid; the first row is there twice."""
    rng = np.random.default_rng(seed)
    rows = []
    for params in np.geomspace(1e7, 1e9, 6):
        for tokens in np.geomspace(1e9, 5e10, 6):
            best = 0.02 * (params / 1e7) ** -0.6 * (tokens / 1e9) ** 0.1 * np.exp(0.2 * rng.normal())
            for rate in (5e-4, 1e-3, 2e-3, 4e-3):
                loss = 1.8 + 480 / params**0.35 + 2100 / tokens**0.37 + 0.05 * np.log(rate / best) ** 2
                rows.append((rate, params, tokens, tokens, loss * np.exp(0.001 * rng.normal())))
    return pd.DataFrame([rows[0], *rows], columns=["peak_lr", "N", "D", "train_tokens", "loss"])


def widths(seed: int = 0) -> pd.DataFrame:
    """Loss by epoch for widths under muP and SP; the largest rates diverge and have no loss."""
    rng = np.random.default_rng(seed)
    rows = []
    for kind, slope in (("muP", 0.0), ("SP", -0.7)):
        for width in (64, 128, 256, 512):
            for log2lr in np.arange(-14.0, -3):
                off = log2lr + 8 - slope * np.log2(width / 64)
                for epoch in range(1, 4):
                    loss = 0.2 + 1 / epoch + 0.03 * off**2 + 0.002 * rng.normal()
                    rows.append((kind, width, log2lr, 2.0**log2lr, epoch, np.nan if off > 4 else loss))
    names = ["parameterization", "width", "log2lr", "lr", "epoch", "train_loss"]
    return pd.DataFrame(rows, columns=names)


def schedules() -> pd.DataFrame:
    """Loss curves of two schedules and two sizes, a point every 128 steps."""
    steps = np.arange(1, 101) * 128.0
    rows = []
    for size in (25, 100):
        for name, floor in (("constant", 2.6), ("cosine", 2.5)):
            loss = floor - 0.2 * np.log10(size / 25) + 30 / (steps + 200) ** 0.5
            rows.append(pd.DataFrame({"model_size_M": size, "curve": name, "step": steps, "loss": loss}))
    return pd.concat(rows, ignore_index=True)
