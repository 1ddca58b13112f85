"""The best rate over the batch as a result: its height under each rule, what it predicts, how far the pairs are off."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from scalefit.errors import FitError
from scalefit.faces import Face, Shown
from scalefit.fitting.result import t_quantile
from scalefit.formatting import format_error, format_number
from scalefit.notes import Note
from scalefit.surge.noise import NoiseScale
from scalefit.surge.shapes import SHAPES, shape_of

Array = np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class RateCurve(Shown):
    """Predicted learning rates over the batch; made by `fit_rate_curve`.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a rule (``adam``, ``sgd``, ``sgd_root``): `law`; `eta_max` with `stderr`, `lo` and `hi` (95 %);
        `eta_mean`, the arithmetic mean of the paper; `scatter` of the pairs about the curve in logs; `worst`, the
        factor by which the worst pair is off; `p` and `rejected`.
    noise : NoiseScale
        B_noise, where it is from, and the standard error of its logarithm.
    batch, lr, weights : ndarray (n,)
        The pairs.
    level : float
    data_unit : str
    notes : tuple of Note
    """

    _table: pd.DataFrame
    noise: NoiseScale
    batch: Array
    lr: Array
    weights: Array
    level: float = 0.05
    data_unit: str = "tokens"
    notes: tuple[Note, ...] = field(default=())

    @property
    def table(self) -> pd.DataFrame:
        """The rules, as a copy."""
        return self._table.copy()

    @property
    def residuals(self) -> pd.DataFrame:
        """The pairs, and the log of observed over predicted rate under each rule."""
        u = np.log(self.batch / self.noise.value)
        found = pd.DataFrame({"batch": self.batch, "lr": self.lr})
        for shape, height in zip(SHAPES, self._table["eta_max"], strict=True):
            found[shape.rule] = np.log(self.lr) - np.log(height) - shape.log(u)
        return found

    @property
    def verdict(self) -> str:
        """One sentence: which rules the pairs reject."""
        p = self._table["p"].to_numpy()
        if np.isnan(p).all():
            return "the pairs are too few to test the curves"
        rejected = list(self._table.loc[self._table["rejected"], "rule"])
        standing = [rule for rule in self._table["rule"] if rule not in rejected]
        if not rejected:
            return "the pairs reject none of the curves"
        if not standing:
            return "the pairs reject all curves: none describes these rates with this noise scale"
        return f"the pairs reject {' and '.join(rejected)}, not {' and '.join(standing)}"

    def predict(self, batch: Any, *, rule: str = "adam", level: float = 0.95) -> pd.DataFrame:
        """Predict the best learning rate at batch sizes.

        Parameters
        ----------
        batch : float or array_like
            Data per step.
        rule : {"adam", "sgd", "sgd_root"}
        level : float
            Coverage of the interval.

        Returns
        -------
        pandas.DataFrame
            `batch`, `lr`, `lo`, `hi` (for a new measured best rate: scatter of the pairs, error of the height and
            that of B_noise), and `reach`, the factor by which the batch lies outside those of the pairs.

        Raises
        ------
        FitError
            For a rule there is not, or batches that are not positive.
        """
        rules = [shape.rule for shape in SHAPES]
        if rule not in rules:
            raise FitError(f"rule: expected one of {', '.join(rules)}, found {rule!r}")
        sizes = np.atleast_1d(np.asarray(batch, dtype=float))
        if not (np.isfinite(sizes) & (sizes > 0)).all():
            raise FitError(f"batch: expected positive numbers, found {batch!r}")
        shape, row = shape_of(rule), self._table.set_index("rule").loc[rule]
        own, new = np.log(self.batch / self.noise.value), np.log(sizes / self.noise.value)
        center = np.log(row["eta_max"]) + shape.log(new)
        # The height was fitted with the same noise scale, so part of that error cancels.
        slope = shape.slope(new) - self.weights @ shape.slope(own) / len(own)
        spread = row["scatter"] ** 2 * (1 + 1 / len(own)) + (slope * self.noise.log_stderr) ** 2
        half = t_quantile(level, len(own) - 1) * np.sqrt(spread)
        reach = np.maximum.reduce([sizes / self.batch.max(), self.batch.min() / sizes, np.ones(len(sizes))])
        columns = {"batch": sizes, "lr": np.exp(center), "lo": np.exp(center - half), "hi": np.exp(center + half)}
        return pd.DataFrame(columns | {"reach": reach})

    def _face(self) -> Face:
        noise, table = self.noise, self._table
        facts = (
            (
                "B_noise",
                f"{format_error(noise.value, noise.value * noise.log_stderr)} {self.data_unit} ({noise.source})",
            ),
            (
                "pairs",
                f"{len(self.batch)}, batch {format_number(self.batch.min())} .. {format_number(self.batch.max())}",
            ),
            ("verdict", self.verdict),
        )
        shown = pd.DataFrame({"rule": table["rule"]})
        shown["eta_max"] = [format_error(v, e) for v, e in zip(table["eta_max"], table["stderr"], strict=True)]
        shown["scatter"] = table["scatter"].map(lambda value: format_number(value, 3))
        shown["worst"] = table["worst"].map(lambda value: f"{value:.2f}x")
        shown["p"] = table["p"].map(lambda value: f"{value:.2g}")
        shown["rejected"] = ["yes" if value else "no" for value in table["rejected"]]
        return Face("Learning rate over the batch", facts, shown, self.notes)
