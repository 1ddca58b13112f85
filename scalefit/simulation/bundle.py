"""A simulated sweep as two files: its runs, and beside them its seed and truth."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from scalefit.simulation.sweeps import Design, simulate_sweep
from scalefit.simulation.truths import Truth

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
