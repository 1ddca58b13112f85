"""Tests of the rules for the learning rate over the batch, each within a wider one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import FrozenMap, Note, merge
from scalefit.display import Display, Displayable
from scalefit.errors import FitError
from scalefit.fitting.fit_law import fit_law as fit
from scalefit.fitting.fit_result import Fit
from scalefit.laws import get_law
from scalefit.selection.criteria import criteria, parameters_of
from scalefit.selection.nested_test import NestedTest, nested_test
from scalefit.vocabulary import format_number

_INSIDE = {
    "lr_bent": ("lr_sgd", "lr_surge"),
    "lr_sgd": ("lr_batch_power", "lr_saturating", "lr_sgd_exact", "lr_sqrt", "lr_linear"),
    "lr_surge": ("lr_sqrt",),
}
"""Which rules are tested in which, the widest first."""

_TOP = "lr_bent"
_FEWEST = 6


@dataclass(frozen=True, eq=False, repr=False)
class Ladder(Displayable):
    """Rules for the learning rate over the batch, tested within each other; made by `climb_ladder`.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a rule: `rule`, `formula`, `parameters`, `scatter` of the pairs about it (logs), `aicc`, and `stands`:
        whether a way leads from it up to the widest law without a rejection.
    tests : mapping of (str, str) to NestedTest
        By the names of the rule and of the law it was tested in.
    fits : mapping of str to Fit
        By the name of the rule.
    level : float
        Below which p rejects a rule.
    notes : tuple of Note
        What the tests assume.
    source : str
        Where the pairs came from.

    See Also
    --------
    climb_ladder

    Examples
    --------
    >>> import scalefit as sf
    >>> pairs = {"batch": [1e4, 3e4, 1e5, 3e5, 1e6, 3e6], "lr": [1.1e-3, 1.7e-3, 3.2e-3, 5.3e-3, 1e-2, 1.7e-2]}
    >>> ladder = sf.climb_ladder(pairs, n=99)
    >>> ladder.verdict
    'the simplest rule the data do not contradict is lr_sqrt; they reject lr_linear, lr_sgd_exact'
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
        """The rules not rejected that have the fewest parameters; the widest law alone when every rule is rejected."""
        kept = self._table[self._table["stands"]]
        return tuple(kept.loc[kept["parameters"] == kept["parameters"].min(), "rule"])

    @property
    def verdict(self) -> str:
        """One sentence."""
        simplest, rejected = self.supported, list(self._table.loc[~self._table["stands"], "rule"])
        if simplest == (_TOP,):
            return f"the data reject every rule nested in {_TOP}"
        rest = f"they reject {', '.join(rejected) or 'nothing'}"
        if len(simplest) == 1:
            return f"the simplest rule the data do not contradict is {simplest[0]}; {rest}"
        return f"the data do not tell {' and '.join(simplest)} apart; {rest}"

    def _display(self) -> Display:
        table, gap = self._table, self._table["aicc"] - self._table["aicc"].min()
        tested: dict[str, list[str]] = {rule: [] for rule in table["rule"]}
        for (small, large), test in self.tests.items():
            tested[small].append(f"{test.p:.2g} in {large}")
        shown = pd.DataFrame({"rule": table["rule"], "free": table["parameters"]})
        shown["scatter"] = [format_number(value, 3) for value in table["scatter"]]
        shown["AICc"] = [f"{value:+.1f}" if np.isfinite(value) else "nan" for value in gap]
        shown["p"] = [", ".join(tested[rule]) or "-" for rule in table["rule"]]
        shown["stands"] = table["stands"].map({True: "yes", False: "no"})
        pairs = f"{next(iter(self.fits.values())).n} from {self.source}"
        facts = (("pairs", pairs), ("verdict", self.verdict), ("level", format_number(self.level)))
        return Display("Rules for the learning rate over the batch", facts, shown, self.notes)


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
        Of the simulated errors.

    Returns
    -------
    Ladder
        The rules, their tests and which of them stand.

    Raises
    ------
    FitError
        With fewer than six pairs, or pairs that cannot be used.

    Notes
    -----
    A rule stands if it, and some chain of laws above it up to the widest, was not rejected. Pairs are read as
    independent, with normal errors of the log rate.

    In simulated studies at a level of 5 % the true rule was rejected in 0 to 7 %. A saturating root and a surge whose
    peak lies high in the range of the batches are hard to distinguish (docs/laws.md, "Tests").

    See Also
    --------
    nested_test : one of the tests.
    fit_rate_curve : the rate over the batch with the noise scale.

    Examples
    --------
    >>> import scalefit as sf
    >>> batch = np.geomspace(1e4, 1e7, 8)
    >>> rate = 3e-6 * np.sqrt(batch) * np.array([1.05, 0.93, 1.02, 1.08, 0.94, 1.01, 0.97, 1.03])
    >>> sf.climb_ladder({"batch": batch, "lr": rate}, n=99).supported
    ('lr_sqrt',)
    """
    pairwise = [(small, large) for large, rules in _INSIDE.items() for small in rules]
    names = dict.fromkeys(small for small, _ in pairwise)
    fits = {name: fit(get_law(name), pairs, weights=weights, bounds="drop") for name in names}
    first = next(iter(fits.values()))
    counted = int((first.weights > 0).sum())
    if counted < _FEWEST or len(np.unique(first.rows["batch"][first.weights > 0])) < 4:
        raise FitError(f"expected at least {_FEWEST} pairs at 4 or more batch sizes, found {counted} pairs")
    fits[_TOP] = fit(get_law(_TOP), pairs, weights=weights, bounds="drop")
    tests, supported = {}, {_TOP}
    for k, (small, large) in enumerate(pairwise):
        tests[small, large] = test = nested_test(fits[small], fits[large], level=level, n=n, seed=seed + k)
        if large in supported and not test.rejected:
            supported.add(small)
    rows = [
        (name, one.law.formula, parameters_of(one), one.scatter, criteria(one).aicc, name in supported)
        for name, one in fits.items()
    ]
    table = pd.DataFrame(rows, columns=["rule", "formula", "parameters", "scatter", "aicc", "stands"])
    table = table.sort_values("parameters", kind="stable", ignore_index=True)
    notes = [Note("independent", "p values are simulated with independent normal errors of the log rate")]
    if counted < 8:
        text = f"{counted} pairs are few: only large departures from a rule would be seen"
        notes.append(Note("few", text, caution=True))
    return Ladder(table, FrozenMap(tests), FrozenMap(fits), level, merge(first.notes, notes), first.source)
