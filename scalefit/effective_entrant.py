"""An entrant of backtests whose law is for the effective learning rate, relative to the weights, and converted back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from scalefit.effective_rates import effective_lr, from_effective
from scalefit.entrants import Entrant, LawPair, Rule
from scalefit.errors import LawError
from scalefit.extractors import Extractor
from scalefit.fitting import Fit, fit
from scalefit.laws.formula import Law
from scalefit.levels import near_lowest
from scalefit.notes import merge
from scalefit.regret import cell_axes
from scalefit.sweep import Sweep
from scalefit.vocabulary import column_of

NORM_LAW = Law("weight_norm = c * lr**k * N**a * D**b", positive={"c"}, name="weight_norm_power")
"""How the weights' norm at the end follows size, data and the learning rate itself."""


@dataclass(frozen=True)
class EffectiveEntrant:
    """A law for eta/||W|| and one for ||W||, solved together for the learning rate to set.

    Parameters
    ----------
    name : str
    method : Extractor or None
        How optima are read off; None is the default of `find_optima`.
    lr_law : Law or str
        For the effective rate, in params and tokens.
    batch_law : Law or str
    norm_law : Law
        For `weight_norm`; its inputs other than lr must be those of `lr_law`.
    near : float
        Relative excess over its cell's lowest loss up to which a run takes part in the norm law: far from the optimum
        the norm is another.

    References
    ----------
    arXiv:2606.29158 reports that optimal rates curve less, and extrapolate better, as effective rates.

    Examples
    --------
    >>> from scalefit.collection import load_dataset
    >>> predictor = EffectiveEntrant("effective").train(load_dataset("tiny-lm"))
    >>> 1e-3 < float(predictor.optimum(params=1e6, tokens=1e7)["lr"].iloc[0]) < 3e-3
    True
    """

    name: str
    method: Extractor | None = None
    lr_law: Law | str = "lr_power"
    batch_law: Law | str = "batch_power"
    norm_law: Law = NORM_LAW
    near: float = 0.02

    def train(self, sweep: Sweep) -> LawPair:
        """Fit the three laws to the training cells.

        Raises
        ------
        SweepError, LawError, FitError
            If the runs have no `weight_norm`, or as `Entrant.train` does.
        """
        pair = Entrant(self.name, self.method, self.lr_law, self.batch_law).train(effective_lr(sweep))
        norm = fit(self.norm_law, self._good_runs(sweep))
        lacking = {column_of(name) for name in norm.law.inputs} - {"lr", *map(column_of, pair.rules["lr"].law.inputs)}
        if lacking:
            raise LawError(
                f"{self.name}: the norm law needs {', '.join(sorted(lacking))}, which the law for lr does not"
            )
        rules: Mapping[str, Rule] = {**pair.rules, "lr": _Converted(pair.rules["lr"], norm)}
        return LawPair(rules, merge(pair.notes, norm.notes))

    def _good_runs(self, sweep: Sweep) -> pd.DataFrame:
        table = sweep.table
        keys, cell = sweep.group(cell_axes(sweep))
        kept = near_lowest(cell, table["loss"].to_numpy(), len(keys), self.near)
        return table[kept].reset_index(drop=True)


@dataclass(frozen=True)
class _Converted:
    """The law of the effective rate as a rule for the rate to set."""

    effective: Rule
    norm: Fit

    @property
    def law(self) -> Law:
        return self.effective.law

    def predict(self, table: pd.DataFrame | None = None, *, level: float = 0.95) -> pd.DataFrame:
        found = self.effective.predict(table, level=level)
        return from_effective(found, weight_norm=self.norm, level=level)
