"""What a reader of a fitted trade-off should know: poor small batches, contradicted bounds, what is not identified."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from scalefit.notes import Note
from scalefit.tradeoff.estimate import VERDICTS
from scalefit.tradeoff.excess import SIGNIFICANCE
from scalefit.tradeoff.layout import told_study
from scalefit.tradeoff.parts import Part


def remark(
    parts: list[Part], lonely: list[tuple[Any, ...]], keys: list[str], table: pd.DataFrame, judged: pd.DataFrame
) -> list[Note]:
    """Return the notes on a fitted trade-off.

    Parameters
    ----------
    parts : list of Part
    lonely : list of tuple
        Studies without a fit.
    keys : list of str
        Columns that tell fits apart.
    table : pandas.DataFrame
        One row a fit.
    judged : pandas.DataFrame
        The points of all fits with what the curves say of them.
    """
    notes = _small_batches(parts, keys)
    if lonely:
        first = told_study(keys, lonely[0])
        text = f"{len(lonely)} studies have fewer than two batch sizes that reach the target, the first {first}"
        notes.append(Note("no_fit", text, caution=True))
    if count := int(judged["contradicts"].sum()):
        text = f"{count} bounds lie above the interval of their curve (contradicts in .points): those fits are doubtful"
        notes.append(Note("bounds_contradict", text, caution=True))
    for status, count in table["status"].value_counts().items():
        if status != "identified":
            text = f"{int(count)} of {len(table)} fits: {VERDICTS[str(status)]}"
            notes.append(Note(str(status), text, caution=True))
    return notes


def _small_batches(parts: list[Part], keys: list[str]) -> list[Note]:
    poor = [part for part in parts if part.excess.count]
    if not poor:
        return []
    worst = max(poor, key=lambda part: float(part.excess.amount.max()))
    more = 100 * np.expm1(worst.excess.amount.max())
    count = sum(part.excess.count for part in poor)
    action = "left out of the fits (small_batches='keep' fits them)" if worst.left else "fitted all the same, as asked"
    place = f" at {told_study(keys, worst.name)}" if keys else ""
    text = (
        f"in {len(poor)} of {len(parts)} fits the smallest batch sizes need more data than the hyperbola of the others "
        f"allows (F test, p < {SIGNIFICANCE:g}), worst{place}: up to {more:.0f} % more at batch {worst.highest:.6g} "
        f"and below. Their learning rate may not be tuned, or not free to fall. {count} points {action}"
    )
    return [Note("small_batches", text, caution=True)]
