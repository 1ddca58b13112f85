"""Which rule for the learning rate over the batch do (batch, best rate) pairs support? Nested tests, rung by rung."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import FrozenMap, Note, merge
from scalefit.display import Face, Shown
from scalefit.errors import FitError
from scalefit.fitting.fit_law import fit_law as fit
from scalefit.fitting.fit_result import Fit
from scalefit.laws import get_law
from scalefit.selection.criteria import criteria, parameters_of
from scalefit.selection.nested_test import NestedTest, nested_test
from scalefit.vocabulary import format_number

RUNGS: tuple[tuple[str, str], ...] = (
    ("lr_sgd", "lr_bent"),
    ("lr_surge", "lr_bent"),
    ("lr_batch_power", "lr_sgd"),
    ("lr_saturating", "lr_sgd"),
    ("lr_sgd_exact", "lr_sgd"),
    ("lr_sqrt", "lr_sgd"),
    ("lr_linear", "lr_sgd"),
    ("lr_sqrt", "lr_surge"),
)
"""Which rule is tested in which, the widest first."""

_TOP = "lr_bent"
_FEWEST = 6


@dataclass(frozen=True, eq=False, repr=False)
class Ladder(Shown):
    """Rules for the learning rate over the batch, tested within each other; made by `climb_ladder`.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a rule: `rule`, `formula`, `parameters`, `scatter` of the pairs about it (logs), `aicc`, and `stands`:
        whether a way leads from it up to the widest law without a rejection.
    tests : mapping of (str, str) to NestedTest
        By the names of the rule and of the law it was tested in.
    fits : mapping of str to Fit
    level : float
    notes : tuple of Note
    source : str
    """

    _table: pd.DataFrame
    tests: Mapping[tuple[str, str], NestedTest]
    fits: Mapping[str, Fit]
    level: float
    notes: tuple[Note, ...] = field(default=())
    source: str = "table"

    @property
    def table(self) -> pd.DataFrame:
        """The rules, as a copy."""
        return self._table.copy()

    @property
    def supported(self) -> tuple[str, ...]:
        """The rules that stand with the fewest parameters; the widest law alone when every rule is rejected."""
        standing = self._table[self._table["stands"]]
        return tuple(standing.loc[standing["parameters"] == standing["parameters"].min(), "rule"])

    @property
    def verdict(self) -> str:
        """One sentence."""
        simplest, fallen = self.supported, list(self._table.loc[~self._table["stands"], "rule"])
        if simplest == (_TOP,):
            return f"the data reject every rule nested in {_TOP}"
        told = f"; they reject {', '.join(fallen)}" if fallen else "; they reject nothing"
        if len(simplest) == 1:
            return f"the simplest rule the data do not contradict is {simplest[0]}{told}"
        return f"the data do not tell {' and '.join(simplest)} apart{told}"

    def _face(self) -> Face:
        table = self._table
        shown = pd.DataFrame({"rule": table["rule"], "free": table["parameters"]})
        shown["scatter"] = table["scatter"].map(lambda value: format_number(value, 3))
        shown["AICc"] = [
            f"{value:+.1f}" if np.isfinite(value) else "nan" for value in table["aicc"] - table["aicc"].min()
        ]
        shown["p"] = [self._told(rule) for rule in table["rule"]]
        shown["stands"] = ["yes" if value else "no" for value in table["stands"]]
        facts = (
            ("pairs", f"{next(iter(self.fits.values())).n} from {self.source}"),
            ("verdict", self.verdict),
            ("level", format_number(self.level)),
        )
        return Face("Rules for the learning rate over the batch", facts, shown, self.notes)

    def _told(self, rule: str) -> str:
        found = [f"{test.p:.2g} in {large}" for (small, large), test in self.tests.items() if small == rule]
        return ", ".join(found) or "-"


def climb_ladder(pairs: Any, *, weights: Any = None, level: float = 0.05, n: int = 299, seed: int = 0) -> Ladder:
    """Test the rules for the learning rate over the batch within each other.

    The widest law, ``lr_bent``, holds the SGD law and the surge law; the SGD law holds the power, square-root and
    linear rules and both saturating ones; the surge law holds the square-root rule.

    Parameters
    ----------
    pairs : DataFrame, Optima or mapping
        `batch` and the best `lr` there; at least six pairs. Optima at the edge of their grid are left out.
    weights : array_like or str, optional
        As in `fit`.
    level : float
        Below which p rejects a rule.
    n : int
        Simulated data sets for every test.
    seed : int

    Returns
    -------
    Ladder

    Raises
    ------
    FitError
        With fewer than six pairs, or pairs that cannot be used.

    Notes
    -----
    A rule stands if it, and some chain of laws above it up to the widest, was not rejected. Pairs are read as
    independent, with normal errors of the log rate.

    Simulated at ten batches over three decades, scatter 0.1, level 5 %: the true rule fell in 5 of 100 studies
    (``lr_sqrt``), 3 of 60 (``lr_saturating``), 0 of 60 (``lr_surge``) and 4 of 60 (``lr_sgd_exact``). It was the only
    simplest rule left in 95, 28, 100 and 93 %: a saturating root and a surge whose peak lies high in the range of the
    batches are hard to tell apart.

    Examples
    --------
    >>> batch = np.geomspace(1e4, 1e7, 8)
    >>> rate = 3e-6 * np.sqrt(batch) * np.array([1.05, 0.93, 1.02, 1.08, 0.94, 1.01, 0.97, 1.03])
    >>> climb_ladder({"batch": batch, "lr": rate}, n=99).supported
    ('lr_sqrt',)
    """
    names = dict.fromkeys(name for rung in RUNGS for name in rung)
    fits = {name: fit(get_law(name), pairs, weights=weights, bounds="drop") for name in names if name != _TOP}
    first = next(iter(fits.values()))
    counted = int((first.weights > 0).sum())
    if counted < _FEWEST or len(np.unique(first.rows["batch"][first.weights > 0])) < 4:
        raise FitError(f"expected at least {_FEWEST} pairs at 4 or more batch sizes, found {counted} pairs")
    fits[_TOP] = fit(get_law(_TOP), pairs, weights=weights, bounds="drop")
    tests = {
        (small, large): nested_test(fits[small], fits[large], level=level, n=n, seed=seed + k)
        for k, (small, large) in enumerate(RUNGS)
    }
    standing = {_TOP}
    for (small, large), test in tests.items():
        if large in standing and not test.rejected:
            standing.add(small)
    table = pd.DataFrame(
        {
            "rule": list(fits),
            "formula": [one.law.formula for one in fits.values()],
            "parameters": [parameters_of(one) for one in fits.values()],
            "scatter": [one.scatter for one in fits.values()],
            "aicc": [criteria(one).aicc for one in fits.values()],
            "stands": [name in standing for name in fits],
        }
    ).sort_values("parameters", kind="stable", ignore_index=True)
    notes = merge(first.notes, _remarks(counted))
    return Ladder(table, FrozenMap(tests), FrozenMap(fits), level, notes, first.source)


def _remarks(rows: int) -> list[Note]:
    notes = [Note("independent", "p values are simulated with independent normal errors of the log rate")]
    if rows < 8:
        notes.append(
            Note("few", f"{rows} pairs are few: only large departures from a rule would be seen", caution=True)
        )
    return notes
