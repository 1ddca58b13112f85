"""What a run would have cost at another batch size: Kaplan's fewest steps and least compute, run by run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from scalefit.batch.critical import read_critical
from scalefit.errors import SweepError
from scalefit.notes import Note, merge
from scalefit.sweep import Sweep

Array = np.ndarray

_MADE = ("steps_min", "flops_min")


def adjust_batch(sweep: Sweep, critical: Any) -> Sweep:
    r"""Return the sweep with the steps and the compute each run would have needed at the best batch for either.

    .. math:: S_{min} = \frac{S}{1 + B_{crit}(L)/B}, \qquad C_{min} = \frac{C}{1 + B/B_{crit}(L)}

    `steps_min` is what is left at batches far above the critical one, `flops_min` at batches far below.

    Parameters
    ----------
    sweep : Sweep
        With `batch`, the inputs of the critical batch (`loss`, usually), `steps` or `tokens`, and `flops` or both
        `params` and `tokens` (or steps).
    critical : Fit, PublishedLaw, str or float
        A law for B_crit, the name of a published one, or one number for all runs.

    Returns
    -------
    Sweep
        With the columns `steps_min` and `flops_min`, NaN for runs that diverged, and notes that say where steps and
        compute come from. `flops_min` is left out when the sweep has neither compute nor params.

    Raises
    ------
    SweepError
        If a column is missing, or the sweep has been adjusted already.
    LawError
        If the law is not one for B_crit, or counts data in another unit than the sweep.

    Notes
    -----
    Steps that the sweep does not record are tokens / batch, compute is 6 N D. Errors of the critical batch are not
    carried into the columns: a critical batch wrong by a factor f moves `steps_min` by less than f, and hardly at all
    where the batch is far above it.

    References
    ----------
    Kaplan et al. 2020, arXiv:2001.08361, eqs. 5.4 and 5.5.

    Examples
    --------
    >>> runs = pd.DataFrame({"batch": [1e5, 1e6], "params": 1e8, "tokens": 2e9, "loss": [3.2, 3.3]})
    >>> adjust_batch(Sweep.from_frame(runs), 1e6).table["steps_min"].round(1).tolist()
    [1818.2, 1000.0]
    """
    if not isinstance(sweep, Sweep):
        raise SweepError(
            f"adjust_batch expects a Sweep, found {type(sweep).__name__}: read_sweep(table, ...) makes one"
        )
    law = read_critical(critical)
    law.check_data_unit(sweep.data_unit)
    table = sweep.table
    again = [name for name in _MADE if name in table]
    if again:
        raise SweepError(f"{again[0]} is there already: adjust the sweep that has not been adjusted")
    sweep.require("batch", *law.inputs)
    steps, how_steps = _steps(sweep, table)
    flops, how_flops = _flops(sweep, table, steps)
    batch, bcrit = table["batch"].to_numpy(), law.at(table)
    made: dict[str, Array] = {"steps_min": steps / (1 + bcrit / batch)}
    if flops is not None:
        made["flops_min"] = flops / (1 + batch / bcrit)
    text = f"steps_min = S/(1 + B_crit/B) and flops_min = C/(1 + B/B_crit) by {law.name}; {how_steps}, {how_flops}"
    kept = table[~table["diverged"].to_numpy(dtype=bool)]
    notes = merge(sweep.notes, [Note("adjusted", text)], law.doubts(kept))
    return replace(sweep, _table=table.assign(**made), notes=notes)


def _steps(sweep: Sweep, table: pd.DataFrame) -> tuple[Array, str]:
    if "steps" in table:
        return table["steps"].to_numpy(), "steps as recorded"
    sweep.require("tokens")
    return (table["tokens"] / table["batch"]).to_numpy(), f"steps are {sweep.data_unit} / batch"


def _flops(sweep: Sweep, table: pd.DataFrame, steps: Array) -> tuple[Array | None, str]:
    if "flops" in table:
        return table["flops"].to_numpy(), "compute as recorded"
    if "params" not in table:
        return None, "compute is not known (no flops, no params)"
    data = table["tokens"] if "tokens" in table else table["batch"] * steps
    if sweep.data_unit != "tokens":
        return None, f"compute is not known (no flops; 6 N D holds for tokens, not {sweep.data_unit})"
    return (6 * table["params"] * data).to_numpy(), "compute is 6 N D"
