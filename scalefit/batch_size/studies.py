"""One study at one target: its name, its points as arrays, and small batch sizes that need more data than the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note
from scalefit.batch_size.hyperbola import Profile, Study, bend, fit_hyperbola
from scalefit.batch_size.points import TradeoffPoints
from scalefit.errors import SweepError
from scalefit.vocabulary import column_of

Array = np.ndarray

_SETTINGS = ("params", "weight_decay", "seq_len", "optimizer", "schedule")


def told_study(keys: list[str], name: tuple[Any, ...]) -> str:
    """Write which study is meant: "params 1e+08, optimizer adam"."""
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in zip(keys, name, strict=True)
    )


def check_known(keys: pd.DataFrame, cell: Array) -> None:
    """Raise if a level that tells points apart is unknown for some runs, whose cells are numbered by rows of `keys`."""
    for name in (name for name in keys if keys[name].isna().any()):
        missing = int(keys[name].isna().to_numpy()[cell].sum())
        raise SweepError(f"{name} is unknown for {missing} of {len(cell)} runs; points need it of every run")


def edge_notes(status: Array, things: str) -> list[Note]:
    """Remark on optima over the learning rate that are no interior ones; `things` is what they are optima of."""
    notes = []
    meaning = {
        "edge": "have their best learning rate at the edge of the grid: better ones may lie beyond",
        "too_few": "have fewer than three learning rates: the best of them is taken, lucky or not",
    }
    for key, text in meaning.items():
        if count := int((status == key).sum()):
            notes.append(Note(f"lr_{key}", f"{count} of {len(status)} {things} {text}", caution=True))
    return notes


def confounders(table: pd.DataFrame, names: list[str]) -> list[Note]:
    """Remark on settings that differ between runs that are compared."""
    settings = [name for name in _SETTINGS if name in table and name not in names and table[name].nunique() > 1]
    return [
        Note("mixed", f"{name} varies within the studies, whose points mix its values; add it to by=", caution=True)
        for name in settings
    ]


def study_columns(by: str | Sequence[str] | None, columns: list[Any]) -> list[str]:
    """Return the columns that tell studies apart: those asked for, else params where it is there."""
    if by is None:
        return ["params"] if "params" in columns else []
    names = [column_of(name) for name in ([by] if isinstance(by, str) else by)]
    missing = [name for name in names if name not in columns]
    if missing or set(names) & {"batch", "tokens", "loss", "lr", "target"}:
        raise SweepError(f"by should name columns that tell studies apart, found {by!r}; there are {columns}")
    return names


def checked_targets(targets: Sequence[float]) -> list[float]:
    """Return the losses to reach as numbers after checking that they are positive."""
    try:
        values = [float(value) for value in targets]
    except (TypeError, ValueError):
        raise SweepError(f"targets should be losses to reach, found {targets!r}") from None
    if not values or not np.isfinite(values).all() or min(values) <= 0:
        raise SweepError(f"targets should be positive losses, found {targets!r}")
    return values


def ordered(points: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return points with their columns and rows in order."""
    first = [*keys, "batch", "steps", "examples", "log_stderr", "n", "status"]
    rest = [name for name in points if name not in first]
    return points[[*first, *rest]].sort_values([*keys, "batch"]).reset_index(drop=True)


SIGNIFICANCE = 0.05
"""Chance, for a whole study that obeys the hyperbola, of calling its smallest batch sizes out."""

KEPT = 4
"""Batch sizes that must remain, and no fewer than half of them, to judge the smaller ones by."""

CLOSEST = 0.02
"""Scatter about the curve, in ln examples, that is reckoned with even where the remaining batch sizes show less."""


@dataclass(frozen=True, eq=False)
class Excess:
    """What the test says.

    Parameters
    ----------
    count : int
        Smallest batch sizes that need too much data; 0 if none.
    amount : ndarray (count,)
        Log of what they needed over what the hyperbola of the others allows.
    chance : float
        Probability of so large an excess by noise alone, for the largest of them; 1 if none is called out.
    """

    count: int
    amount: Array
    chance: float


def find_excess(study: Study, lack: float | None = None, significance: float = SIGNIFICANCE) -> Excess:
    """Find the smallest batch sizes that lie above the hyperbola of all larger ones.

    By the hyperbola the data needed never rise as the batch shrinks. For m = 1, 2, ... the curve is fitted without the
    m smallest batch sizes and its lack of fit is estimated there (`CLOSEST` at least: a few batch sizes on one curve by
    luck are no yardstick). What the misfit gains when they are taken back is compared with F(m, k - m - 2), and its
    chance is multiplied by the number of m tried. m is accepted when that
    chance is below `significance` and all m lie above the curve; of the accepted m the one of least chance counts.
    """
    trials = range(1, len(study.x) - max(KEPT, (len(study.x) + 1) // 2) + 1)
    found = Excess(0, np.zeros(0), 1.0)
    for m in trials:
        rest = fit_hyperbola(study.drop(m), lack)
        above = study.y[:m] - rest.floor - bend(study.x[:m], rest.clipped)
        if (above <= 0).any():
            continue
        chance = min(len(trials) * _chance(rest, study), 1.0)
        if chance < min(significance, found.chance):
            found = Excess(m, above, chance)
    return found


def _chance(rest: Profile, whole: Study) -> float:
    """Return the probability of the misfit that the batch sizes left out add."""
    from scipy.special import chdtrc, fdtrc

    m = len(whole.x) - len(rest.study.x)
    again = fit_hyperbola(whole, max(rest.lack * rest.scale, CLOSEST**2))
    before = fit_hyperbola(rest.study, max(rest.lack * rest.scale, CLOSEST**2))
    added = max(again.least - before.least, 0.0)
    if np.isinf(rest.dof):
        return float(chdtrc(m, added))
    return float(fdtrc(m, rest.dof, added / m)) if rest.dof > 0 else 1.0


@dataclass(frozen=True, eq=False)
class Part:
    """One study at one target.

    Parameters
    ----------
    name : tuple
        Values of the columns that tell fits apart.
    rows : pandas.DataFrame
        Its points and bounds, by batch.
    study : Study
        What is fitted.
    excess : Excess
        What the test of the small batch sizes said.
    left : int
        How many of them are left out.
    """

    name: tuple[Any, ...]
    rows: pd.DataFrame
    study: Study
    excess: Excess
    left: int

    @property
    def highest(self) -> float:
        """The largest batch size that needs too much data; 0 if none does."""
        if not self.excess.count:
            return 0.0
        points = self.rows["batch"].to_numpy()[(self.rows["status"] == "point").to_numpy()]
        return float(points[self.excess.count - 1])


def divide(points: TradeoffPoints, lack: float | None, leave_out: bool) -> tuple[list[Part], list[tuple[Any, ...]]]:
    """Return what can be fitted, and the names of studies that have fewer than two batch sizes.

    Parameters
    ----------
    points : TradeoffPoints
    lack : float or None
        Variance of ln examples about the curve, where it is known.
    leave_out : bool
        Whether small batch sizes that need too much data are left out.
    """
    keys, rows = points.keys, points.table.sort_values("batch", kind="stable")
    parts, lonely = [], []
    for key, group in rows.groupby(keys, sort=True) if keys else [((), rows)]:
        name = key if isinstance(key, tuple) else (key,)
        study = _study(group[(group["status"] == "point").to_numpy()], points.replicated)
        if len(study.x) < 2:
            lonely.append(name)
            continue
        excess = find_excess(study, lack)
        left = excess.count if leave_out else 0
        parts.append(Part(name, group, study.drop(left), excess, left))
    return parts, lonely


def _study(points: pd.DataFrame, replicated: bool) -> Study:
    """Return points as arrays; a batch size without an error of its own gets that of the study's typical run."""
    variance = points["log_stderr"].to_numpy(dtype=float) ** 2
    runs = points["n"].to_numpy(dtype=float) if replicated else np.ones(len(points))
    known = np.isfinite(variance)
    single = float(np.mean((variance * runs)[known])) if known.any() else 0.0
    filled = np.where(known, variance, single / runs)
    return Study(np.log(points["batch"].to_numpy()), np.log(points["examples"].to_numpy()), filled, single)
