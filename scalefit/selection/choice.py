"""Choosing a law: the simplest one whose error on unseen cells the best does not beat beyond doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from scalefit.errors import FitError
from scalefit.faces import Face, Shown
from scalefit.fitting import Fit
from scalefit.formatting import format_error, format_number
from scalefit.laws.formula import Law
from scalefit.notes import Note
from scalefit.selection.candidates import fit_each, target_of, usual_laws
from scalefit.selection.comparison import Comparison, compare
from scalefit.solvers.losses import Loss


@dataclass(frozen=True, eq=False, repr=False)
class Choice(Shown):
    """The law chosen, and why; made by `choose_law`.

    Attributes
    ----------
    fit : Fit
        The chosen law, fitted to all rows.
    comparison : Comparison
        All candidates that could be fitted.
    reason : str
        One or two sentences.
    notes : tuple of Note
        Candidates that were left out, and why.
    """

    fit: Fit
    comparison: Comparison
    reason: str
    notes: tuple[Note, ...] = field(default=())

    def _face(self) -> Face:
        inner = self.comparison._face()
        label = self.fit.law.name or self.fit.law.formula
        facts = (("law", self.fit.law.written(self.fit.values)), ("reason", self.reason), *inner.facts)
        return Face(f"Choice of {label}", facts, inner.table, (*self.notes, *inner.notes))


def choose_law(
    data: Any,
    laws: str | Sequence[Law | str] = "auto",
    *,
    target: str | None = None,
    loss: Loss | None = None,
    space: str = "auto",
    weights: Any = None,
    bounds: str = "auto",
    shrink: bool | float = False,
) -> Choice:
    """Fit several laws and choose the simplest whose error on unseen cells is as good as the best one's.

    As good means: behind the best by no more than one standard error of the paired difference. See `compare` for the
    error. Among laws with equally many parameters the one with the smaller error is chosen.

    Parameters
    ----------
    data : Optima, Sweep, DataFrame or mapping of columns
        As for `fit`.
    laws : "auto" or sequence of Law or str
        "auto" tries, for the learning rate, the straight law, the one with the ln N ln D interaction and the full
        quadratic (and the one with the batch, where the optima are told apart by it); for the batch, the power laws of
        the tokens and of both; for the loss, the saturating laws; each as far as the data vary its inputs.
    target : str, optional
        The column to choose a law for, where the data leave it open.
    loss, space, weights, bounds, shrink
        As for `fit`.

    Returns
    -------
    Choice

    Raises
    ------
    FitError
        If the target is open, or no law can be fitted and judged.

    Notes
    -----
    Shares of 500 simulated sweeps (normal scatter of 0.2 in ln eta) in which each law was chosen:

    ========================================  ========  ===========  =========
    cells and truth                           straight  interaction  quadratic
    ========================================  ========  ===========  =========
    17 cells of Step Law, straight            0.96      0.04         0.00
    5 x 8 grid, straight                      0.98      0.01         0.00
    5 x 15 grid, straight                     0.98      0.01         0.00
    17 cells of Step Law, ln N ln D by 0.08   0.95      0.05         0.00
    5 x 8 grid, ln N ln D by 0.08             0.35      0.64         0.01
    5 x 8 grid, ln N ln D by -0.08            0.43      0.56         0.00
    5 x 15 grid, ln N ln D by 0.08            0.16      0.83         0.01
    ========================================  ========  ===========  =========

    The grids span 6e7 to 1.07e9 parameters and 2e9 to 1e11 tokens. On the 17 cells an interaction of that size cannot
    be told from none, and there the straight law also predicts a run of 7 times the size and 14 times the data better
    (median error 1.0 against 1.25 in ln eta). Counting growths as much as cells left out finds the bend of the 5 x 8
    grid in fewer sweeps (0.53 against 0.65 of 150); cells left out alone call the 17 straight cells bent in 0.09.

    References
    ----------
    Breiman, Friedman, Olshen and Stone, Classification and Regression Trees (1984), section 3.4.3: the rule of one
    standard error.

    Examples
    --------
    >>> import pandas as pd
    >>> pairs = [(n, d) for n in (1e8, 3e8, 1e9) for d in (1e10, 3e10, 1e11)]
    >>> cells = pd.DataFrame(pairs, columns=["params", "tokens"])
    >>> cells["lr"] = 2.0 * cells["params"] ** -0.7 * cells["tokens"] ** 0.3 * [1.1, 0.9, 1, 0.95, 1.2, 1, 1, 1.1, 0.9]
    >>> choose_law(cells).fit.law.name
    'lr_power'
    """
    if isinstance(laws, str) and laws != "auto":
        raise FitError(f"laws: expected 'auto' or a list of laws, found {laws!r}; try laws=[{laws!r}]")
    chosen = usual_laws(data, target_of(data, target)) if isinstance(laws, str) else tuple(laws)
    how = {"loss": loss, "space": space, "weights": weights, "bounds": bounds, "shrink": shrink}
    fits, notes = fit_each(chosen, data, **how)
    comparison = compare(fits)
    return _choose(comparison, notes)


def _choose(comparison: Comparison, notes: Sequence[Note]) -> Choice:
    table = comparison.table
    judged = table["behind"].notna() & (table["lost"] == 0)
    if not judged[0]:
        raise FitError(
            "no law can be refitted to part of these cells, so none can be judged; bring more cells", comparison
        )
    near = judged & (table["behind"] <= table["behind_stderr"].fillna(0.0))
    chosen = int(table[near].sort_values("parameters", kind="stable").index[0])
    return Choice(comparison.fits[chosen], comparison, _reason(table[judged], chosen), tuple(notes))


def _reason(table: pd.DataFrame, chosen: int) -> str:
    """Say why: the rule, and how far the best or the nearest simpler law is."""
    rows = table.to_dict("records")
    own, best = rows[list(table.index).index(chosen)], rows[0]
    error = f"{format_error(own['error'], own['error_stderr'])} on held-out cells"
    if len(rows) == 1:
        return f"{own['law']} is the only law that could be judged; its error is {error}."
    if own is not best:
        return (
            f"{own['law']} ({own['parameters']} parameters) is the simplest of {len(rows)} laws within one paired "
            f"standard error of the best: its error is {error}, behind {best['law']} ({best['parameters']} parameters) "
            f"by {_gap(own)}."
        )
    simpler = [row for row in rows if row["parameters"] < own["parameters"]]
    if not simpler:
        return f"{own['law']} has the smallest error of {len(rows)} laws, {error}, and none is simpler."
    return (
        f"{own['law']} has the smallest error of {len(rows)} laws, {error}. The best simpler law, {simpler[0]['law']}, "
        f"is behind by {_gap(simpler[0])}: more than one standard error of the paired difference."
    )


def _gap(row: Mapping[Any, Any]) -> str:
    return f"{format_number(row['behind'], 2)}, standard error {format_number(row['behind_stderr'], 2)}"
