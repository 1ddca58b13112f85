"""`load_curves`: loss curves by the name of their data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from scalefit.collection.loading import describe
from scalefit.collection.readers import read_table
from scalefit.collection.registry import get_dataset
from scalefit.collection.retrieval import find
from scalefit.curves import Curves, read_curves
from scalefit.errors import SweepError
from scalefit.notes import merge

HISTORIES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "tiny-lm-curves": {"batch_unit": "tokens", "params_convention": "non_embedding"},
        "mup-demo": {
            "columns": {"loss": "train_loss", "tokens": "epoch"},
            "run": ("parameterization", "width", "log2lr"),
            "data_unit": "epochs",
            "nonfinite": "diverged",
        },
    }
)
"""How `read_curves` is to read each data set that holds curves."""


def load_curves(name: str) -> Curves:
    """Load the loss curves of a bundled or public data set by its name.

    Parameters
    ----------
    name : str
        ``"tiny-lm"`` (bundled: 396 of its runs, 100 points each) or ``"mup-demo"`` (public: training loss by epoch).

    Returns
    -------
    Curves
        The source, the licence and what to know are among its notes.

    Raises
    ------
    SweepError
        If there is no such name, the data set holds no curves, or its file cannot be had.

    Examples
    --------
    >>> curves = load_curves("tiny-lm")
    >>> len(curves), len(curves.table), curves.units["tokens"]
    (396, 39600, 'tokens')
    """
    dataset = get_dataset(f"{name}-curves" if f"{name}-curves" in HISTORIES else name)
    if dataset.name not in HISTORIES:
        raise SweepError(
            f"{dataset.name} holds {dataset.holds}, no loss curves; there are curves of {', '.join(HISTORIES)}"
        )
    found = find(dataset)
    curves = read_curves(read_table(dataset, found), **HISTORIES[dataset.name])
    return replace(curves, source=dataset.name, notes=merge(describe(dataset, found), curves.notes))
