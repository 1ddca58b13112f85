"""Who competes in a backtest by default: the plain recipes, published laws, joint surfaces, and laws through optima."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from scalefit._values import Note, merge
from scalefit.backtesting.competitors import AUTO, Competitor, Custom, Entrant, LawPair, check_targets, fit_pair, label
from scalefit.backtesting.regret import cell_axes, searched_axes
from scalefit.errors import LawError, SweepError
from scalefit.fitting.fit_law import fit_law as fit
from scalefit.laws import get_law
from scalefit.laws.formula import Law
from scalefit.laws.published import PUBLISHED, PublishedLaw, get_published
from scalefit.optima.cells import Estimator
from scalefit.optima.optimum_estimators import Basin, Parabola
from scalefit.schema import near_lowest
from scalefit.selection.average_laws import average_laws
from scalefit.surface.fit_surface import fit_surface
from scalefit.surface.surface import Surface
from scalefit.sweep import Sweep
from scalefit.vocabulary import BY_COLUMN, column_of, format_number


@dataclass(frozen=True)
class Baseline:
    r"""The plain recipe: the runs nearly as good as a cell's best, and least squares in logs through all of them.

    Nothing is left out: a best run at the edge of its grid counts as an optimum, as it does in the recipe.

    Parameters
    ----------
    name : str
        Row label in the backtest.
    excess : float
        Relative excess over the cell's lowest loss up to which runs are kept; 0 keeps the best run, 0.0025 is the
        rule of Li et al. 2025 (arXiv:2503.04715, ``code/fit_tool.py``).
    lr_law, batch_law : Law or str, optional
        By default the law linear in logs in those of params and tokens that the training cells vary.

    Raises
    ------
    SweepError
        If the excess is negative or not finite.
    LawError
        If a law is for another setting.

    See Also
    --------
    Entrant, PublishedEntrant

    Examples
    --------
    >>> import scalefit as sf
    >>> sf.Baseline("best runs", 0.0).train(sf.load_dataset("tiny-lm")).rules["lr"].law.formula
    'eta = c * N**a * D**b'
    """

    name: str
    excess: float
    lr_law: Law | str | None = None
    batch_law: Law | str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.excess < np.inf:
            raise SweepError(f"{self.name}: expected an excess of 0 or more, such as 0.0025, found {self.excess!r}")
        check_targets(self.name, lr=self.lr_law, batch=self.batch_law)

    def train(self, sweep: Sweep) -> LawPair:
        """Fit the laws to the runs kept; arguments, result and errors are those of `Entrant.train`."""
        by, axes = list(cell_axes(sweep)), list(searched_axes(sweep))
        keys, cell = sweep.group(by)
        kept = near_lowest(cell, sweep.table["loss"].to_numpy(), len(keys), self.excess)
        # Least squares over all runs kept gives the same coefficients as least squares over the cells' geometric means
        # weighted by the number of runs kept. The second form does not treat runs of one cell as independent. A cell
        # whose runs all diverged has no run left.
        logs = sweep.table.loc[kept, axes].apply(np.log).groupby(cell[kept])
        counts = logs.size()
        means = keys.loc[counts.index].assign(**logs.mean().apply(np.exp)).reset_index(drop=True)
        fitter = partial(fit, weights=counts.to_numpy(dtype=float))
        asked = {"lr": self.lr_law, "batch": self.batch_law}
        laws = {name: get_law(asked[name] or _log_linear(name, means[by])) for name in axes}
        return fit_pair(fitter, {name: (law, means) for name, law in laws.items()})


@dataclass(frozen=True)
class PublishedEntrant:
    """Published coefficients, as printed: nothing is learnt from the sweep.

    Parameters
    ----------
    name : str
        Row label in the backtest.
    lr, batch : str, optional
        Keys of published laws, see `scalefit.laws.catalog`. Without one of them that setting is not predicted, and no
        regret can be given. A law in training compute gets C = 6 N D.

    Raises
    ------
    LawError
        If a law is for another setting, or there is none.

    See Also
    --------
    Baseline
    scalefit.laws.get_published : the law itself.

    Examples
    --------
    >>> import scalefit as sf
    >>> step_law = sf.PublishedEntrant("Step Law", "steplaw2025_lr", "steplaw2025_bs")
    >>> step_law.train(sf.load_dataset("tiny-lm")).optimum(params=1e9, tokens=1e11)["lr"].round(5).tolist()
    [0.00163]
    """

    name: str
    lr: str | None = None
    batch: str | None = None

    def __post_init__(self) -> None:
        keys = {"lr": self.lr, "batch": self.batch}
        check_targets(self.name, **{name: get_published(key).law for name, key in keys.items() if key is not None})
        if self.lr is None and self.batch is None:
            raise LawError(f"{self.name}: expected the key of a published law for lr, for batch or for both")

    def train(self, sweep: Sweep) -> LawPair:
        """Return the printed laws for the settings that the sweep varied, as a `LawPair`.

        Raises
        ------
        LawError
            If there is no law for a setting that the sweep varied, or the sweep counts data in another unit.
        """
        keys = {"lr": self.lr, "batch": self.batch}
        chosen = {name: get_published(key) for name in searched_axes(sweep) if (key := keys[name]) is not None}
        if not chosen:
            raise LawError(f"{self.name} has no law for {', '.join(searched_axes(sweep))}")
        for law in chosen.values():
            law.check_data_unit(sweep.data_unit)
        computed = [law.name for law in chosen.values() if "flops" in map(column_of, law.law.inputs)]
        text = f"{', '.join(computed)}: the training compute is taken as 6 N D"
        notes = (Note("compute", text, caution=True),) if computed else ()
        return LawPair({name: _Printed(law.law, law) for name, law in chosen.items()}, notes)


def published_entrant(key: str) -> PublishedEntrant:
    """Return the competitor of a published law or pair of laws, ``"porian2024_lr"`` or ``"porian2024"``."""
    found = {column_of(one.law.target): one.name for one in PUBLISHED if key in (one.name, one.name.rpartition("_")[0])}
    if not found.keys() & {"lr", "batch"}:
        usable = [entry.name for entry in PUBLISHED if column_of(entry.law.target) in ("lr", "batch")]
        raise LawError(f"no published law {key!r} for the learning rate or the batch; there are: {', '.join(usable)}")
    return PublishedEntrant(key, found.get("lr"), found.get("batch"))


REFERENCES: tuple[Competitor, ...] = (
    Baseline("grid minimum + OLS", 0.0),
    Baseline("within 0.25 % + OLS", 0.0025),
    PublishedEntrant("steplaw2025", "steplaw2025_lr", "steplaw2025_bs"),
)
"""The procedures in common use that anything better has to beat."""


def usual_competitors(
    laws: str | Sequence[Law | str],
    batch_law: Law | str,
    methods: Sequence[Estimator] | None,
    published: Sequence[str],
) -> tuple[Competitor, ...]:
    """Return the competitors by default: references, surfaces and methods with every law, and published laws asked for.

    Methods are ``Basin()`` and ``Parabola()`` unless given. A published law is named by its key, a published pair by
    the common beginning of its two keys.
    """
    laws = (laws,) if isinstance(laws, str) else laws
    recipe = partial(surface_or_average, batch_law=batch_law)
    surfaces = [Custom(f"surface: {label(law)}", partial(recipe, lr_law=law)) for law in laws]
    chosen = (Basin(), Parabola()) if methods is None else tuple(methods)
    kinds = [type(method).__name__ for method in chosen]
    named = [(kind if kinds.count(kind) == 1 else repr(one), one) for one, kind in zip(chosen, kinds, strict=True)]
    pairs = [Entrant(f"{name}: {label(law)}", method, law, batch_law) for law in laws for name, method in named]
    known = {competitor.name for competitor in REFERENCES}
    further = (published_entrant(key) for key in dict.fromkeys(published) if key not in known)
    return (*REFERENCES, *surfaces, *pairs, *further)


def surface_or_average(sweep: Sweep, lr_law: Law | str, batch_law: Law | str) -> Surface | LawPair:
    """Fit a surface; where a law is "auto", average the usual laws through the centres of its cells instead."""
    # A surface needs a law through its cells; where an average is asked for, it is the straight law.
    lr, batch = ("lr_power" if lr_law == AUTO else lr_law), ("batch_power" if batch_law == AUTO else batch_law)
    surface, asked = fit_surface(sweep, lr_law=lr, batch_law=batch, loss_law=None), {"lr": lr_law, "batch": batch_law}
    if AUTO not in asked.values():
        return surface
    rules = {n: average_laws(surface, target=n) if asked[n] == AUTO else law for n, law in surface.laws.items()}
    return LawPair(rules, merge(*(rule.notes for rule in rules.values())))


def _log_linear(target: str, cells: pd.DataFrame) -> Law:
    """Return the law linear in logs in the columns that the cells vary, or in all when they vary none."""
    moving = [name for name in cells if cells[name].nunique() > 1] or list(cells)
    factors = " * ".join({"params": "N**a", "tokens": "D**b"}[str(name)] for name in moving)
    return Law(f"{BY_COLUMN[target].symbol} = c * {factors}", positive={"c"})


@dataclass(frozen=True)
class _Printed:
    """A published law as a `Rule`; its predictions have no interval."""

    law: Law
    published: PublishedLaw

    def predict(self, table: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
        value = self.law(self.published.values, table)
        if not (np.isfinite(value) & (value > 0)).all():
            worst = format_number(float(np.min(value)), 3)
            raise LawError(f"{self.published.name} gives {worst} here, which is no setting")
        return pd.DataFrame({"prediction": value, "lo": np.nan, "hi": np.nan}, index=table.index)
