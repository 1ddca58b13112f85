"""Laws side by side: what each costs, what it explains, and how it does on cells it has not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from scalefit._values import FrozenMap, Note
from scalefit.display import Display, Displayable
from scalefit.fitting.fit_result import Fit
from scalefit.fitting.fit_values import FitStatus
from scalefit.selection.criteria import Errors, Growth, criteria, hold_out, match, name_of, parameters_of
from scalefit.vocabulary import format_error, format_number

Array = np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Displayable):
    """Fits of one target to the same rows, ranked by their error on rows held out; made by `compare`.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a fit, best first: `law`, `parameters` (those not fixed), `status`, `aicc`, `bic`, `akaike_weight`;
        `lost`, how many held-out predictions could not be made because the other rows do not identify the law;
        `leave_out`, the error on cells left out one by one; `grow_params`, `grow_tokens`, the error on the largest
        cells, predicted from the smaller; `error`, which is what they are ranked by; `behind`, its distance to the best
        fit's. Each with its standard error, ``..._stderr``.
    fits : tuple of Fit
        In the order of the table.
    growths : mapping of str to (int, float)
        Per direction of growth, how many cells were held out and how far they reach beyond the others.
    space : {"log", "plain"}
        Errors are root mean squares of differences of log target, or of the target itself.
    notes : tuple of Note
        What to think of before trusting the table.
    source : str
        Where the rows came from.

    See Also
    --------
    compare, choose_law, average_laws

    Notes
    -----
    The rule of the ranking: `error` is the root mean square of all predictions of held-out rows, those of the cells
    left out one by one and those of the growths; every prediction counts once, with the weight of its row. Fits that
    cannot be refitted without some cell, or on the smaller cells alone, come last. How well a law fits the rows it has
    seen plays no part.

    Examples
    --------
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> table = pd.DataFrame({"tokens": [1e9, 2e9, 4e9, 8e9, 16e9, 32e9], "lr": [4.1, 3.2, 2.9, 2.3, 2.0, 1.6]})
    >>> found = sf.compare([sf.fit("eta = c * D**b", table), sf.fit("eta = c", table)])
    >>> found.best.law.formula, dict(found.growths)
    ('eta = c * D**b', {'tokens': (2, 4.0)})
    """

    _table: pd.DataFrame
    fits: tuple[Fit, ...]
    growths: Mapping[str, tuple[int, float]]
    space: str
    notes: tuple[Note, ...] = field(default=())
    source: str = "table"

    @property
    def table(self) -> pd.DataFrame:
        """The comparison, as a copy."""
        return self._table.copy()

    @property
    def best(self) -> Fit:
        """The fit with the smallest error on rows held out."""
        return self.fits[0]

    def _display(self) -> Display:
        table, target = self._table, self.fits[0].law.target
        unit = f"log {target}" if self.space == "log" else target
        facts = [("rows", f"{self.fits[0].n} from {self.source}"), ("errors", f"root mean square of {unit}")]
        for name, (cells, reach) in self.growths.items():
            facts.append((f"grow {name}", f"{cells} largest cells, {format_number(reach, 3)}x beyond those fitted"))
        shown = pd.DataFrame({"law": table["law"], "free": table["parameters"]})
        for heading in ("AICc", "BIC"):
            gap = table[heading.lower()] - table[heading.lower()].min()
            shown[heading] = [f"{value:+.1f}" if np.isfinite(value) else "nan" for value in gap]
        shown["weight"] = table["akaike_weight"].map("{:.2f}".format)
        for name in ("leave_out", *(f"grow_{axis}" for axis in self.growths), "error", "behind"):
            shown[name.replace("_", " ")] = list(map(format_error, table[name], table[f"{name}_stderr"]))
        return Display(f"Comparison of {len(self.fits)} laws for {target}", tuple(facts), shown, self.notes)


def compare(fits: Sequence[Fit]) -> Comparison:
    r"""Compare fits of one target to the same rows.

    Parameters
    ----------
    fits : sequence of Fit
        Same target, rows, weights and space; laws and losses may differ.

    Returns
    -------
    Comparison
        Ranked by prediction error on cells held out, never by the fit to the rows seen.

    Raises
    ------
    FitError
        If the fits differ in target, space, rows or weights; the message says in which.

    Notes
    -----
    *Held out.* A law is refitted without each (params, tokens) cell, and to the cells below the largest levels of
    params and of tokens (levels are taken from the top until a tenth of the cells is held out, and two). Errors are
    weighted means, with the weights of the fits. Parameters that a fit holds are held in its refits.

    *Standard errors* are a jackknife over cells. For the growths the smaller cells are refitted without each cell,
    because the cells of a level share the error of the law that predicts them; the refits of the cells left out are
    not redone. `behind_stderr` is that of the difference: both laws predict the same cells, so it is usually smaller,
    and the one to look at. In simulations `error_stderr` was right and `behind_stderr` rather too large
    (docs/statistics.md).

    *Bounds* (optima at the edge of their grid) are learnt from as bounds. Their error is the least it can be: nothing
    when the prediction lies on the side of the truth. Fits must agree on which rows are bounds.

    *AICc and BIC* rest on the likelihood that the fit maximises: normal for the squared loss; for `Huber` and `SoftL1`
    the density proportional to exp(-tau rho(r)), tau fitted, which is normal in the middle and exponential outside.
    They are comparable across losses. They take rows for independent.

    See Also
    --------
    choose_law, average_laws, nested_test

    References
    ----------
    Burnham and Anderson, Model Selection and Multimodel Inference (2002), sections 2.4 and 2.9; Stone 1974, J. R.
    Stat. Soc. B 36, 111, for leaving out.

    Examples
    --------
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> table = pd.DataFrame({"tokens": [1e9, 2e9, 4e9, 8e9, 16e9, 32e9], "lr": [4.1, 3.2, 2.9, 2.3, 2.0, 1.6]})
    >>> straight, bent = sf.fit("eta = c * D**b", table), sf.fit("eta = c * D**(b + f * ln(D/1e10))", table)
    >>> list(sf.compare([bent, straight]).table["parameters"])
    [2, 3]
    """
    matched, given = match(fits), list(fits)
    splits, unlearnt, errors = hold_out(matched)
    names, judged = _labels(given), [criteria(fit) for fit in given]
    columns: dict[str, object] = {
        "law": names,
        "parameters": [parameters_of(fit) for fit in given],
        "status": [fit.status.name for fit in given],
        "aicc": [one.aicc for one in judged],
        "bic": [one.bic for one in judged],
        "akaike_weight": akaike_weights(np.array([one.aicc for one in judged])),
        "lost": [error.lost for error in errors],
    }
    for name in errors[0].squares:  # the error, then the error without each of the cells
        roots = np.sqrt([error.squares[name] for error in errors])
        columns |= {name: roots[:, 0], f"{name}_stderr": jackknife(roots[:, 1:])}
    table = pd.DataFrame(columns)
    order = np.lexsort([table["error"], table["lost"]])
    behind = roots[order] - roots[order[0]]  # the last one is the error that laws are ranked by
    table = table.iloc[order].reset_index(drop=True)
    table = table.assign(behind=behind[:, 0], behind_stderr=jackknife(behind[:, 1:]))
    notes = _notes(given, names, errors, splits, int(matched.cells.max()) + 1)
    text = "the smaller cells identify no law; nothing is grown"
    notes += [Note("no_growth", f"{name}: {text}", caution=True) for name in unlearnt]
    reaches = FrozenMap({split.column: (split.cells, split.reach) for split in splits})
    ranked = tuple(given[k] for k in order)
    return Comparison(table, ranked, reaches, given[0].space, tuple(notes), given[0].source)


def is_judged(table: pd.DataFrame) -> pd.Series:
    """Return for which laws of a comparison every held-out prediction could be made."""
    return table["behind"].notna() & (table["lost"] == 0)


def _labels(fits: Sequence[Fit]) -> list[str]:
    """Return a name for every fit, no two the same."""
    names = [name_of(fit) for fit in fits]
    if len(set(names)) < len(names):
        names = [f"{name}, {fit.loss!r}" for name, fit in zip(names, fits, strict=True)]
    before = [names[:k].count(name) for k, name in enumerate(names)]
    return [f"{name} ({count + 1})" if count else name for name, count in zip(names, before, strict=True)]


def akaike_weights(aicc: Array) -> Array:
    """Return exp(-Delta/2) normalised over the fits that have an AICc; NaN for the others."""
    if np.isnan(aicc).all():
        return aicc
    share = np.exp(-0.5 * (aicc - np.nanmin(aicc)))
    return share / np.nansum(share)


def jackknife(without: Array) -> Array:
    """Return the standard error of a statistic from its values without each cell (last axis); Efron and Tibshirani."""
    count = without.shape[-1]
    return np.sqrt(count - 1) * without.std(axis=-1) if count > 1 else np.full(without.shape[:-1], np.nan)


def _notes(fits: list[Fit], names: list[str], errors: list[Errors], splits: Sequence[Growth], cells: int) -> list[Note]:
    """Return what a reader of the table should know."""
    rule = "ranked by error: the root mean square over cells left out and the largest cells predicted from the smaller"
    notes = [Note("rule", rule if splits else "ranked by the error on cells left out one by one: nothing grows here")]
    for fit, name, error in zip(fits, names, errors, strict=True):
        if fit.status is not FitStatus.CONVERGED:
            notes.append(Note("status", f"{name}: {fit.status}: {fit.status.sentence}", caution=True))
        if parameters_of(fit) == 0:
            text = f"{name}: every parameter is fixed; its errors are a test only if these rows had no part in that"
            notes.append(Note("fixed", text, caution=True))
        if error.lost:
            text = f"{name}: {error.lost} held-out prediction(s) cannot be made, the other cells do not identify it"
            notes.append(Note("lost", f"{text}; it is ranked last", caution=True))
        if error.guessed:
            text = f"{name}: without {error.guessed} cell(s) in turn the smaller cells do not identify it"
            notes.append(Note("stderr", f"{text}; its standard errors are too small", caution=True))
    for loss in dict.fromkeys(fit.loss for fit in fits if fit.loss.robust):
        text = f"AICc and BIC for {loss!r} are those of the density exp(-tau rho(r)), tau fitted"
        notes.append(Note("likelihood", text))
    rows = int((fits[0].weights > 0).sum())
    if rows > cells:
        text = f"AICc and BIC take {rows} rows for independent, but they share {cells} cells"
        notes.append(Note("dependent", f"{text}; the held-out errors do not", caution=True))
    if count := int(fits[0].is_bound.sum()):
        text = f"{count} of {fits[0].n} rows are bounds; the error of one is the least it can be"
        notes.append(Note("bounds_scored", text, caution=True))
    if cells < 6:
        notes.append(Note("few", f"{cells} cells are few: the standard errors are rough", caution=True))
    return notes
