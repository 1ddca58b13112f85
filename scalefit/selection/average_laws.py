"""Several laws as one prediction, weighted by their errors on cells they have not seen."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note, Observations, merge
from scalefit.display import Display, Displayable
from scalefit.errors import ExtrapolationWarning
from scalefit.fitting.fit_result import Fit
from scalefit.laws.formula import Law
from scalefit.selection.choose_law import fit_laws
from scalefit.selection.compare import Comparison, is_judged
from scalefit.solvers.distributions import t_quantile
from scalefit.vocabulary import column_of, format_error, format_number

Array = np.ndarray

_HEAVY = 0.05
"""A law that weighs less than this is not named in the reason."""


@dataclass(frozen=True, eq=False, repr=False)
class Average(Displayable):
    """Laws averaged by their error on unseen cells; made by `average_laws`.

    Attributes
    ----------
    comparison : Comparison
        The laws, best first, and their errors.
    weights : numpy.ndarray
        In the order of `comparison.fits`; they sum to one.
    reason : str
        Why the weights are what they are.
    notes : tuple of Note
        Cautions of the comparison, and which laws could not be fitted.
    source : str
        Where the rows came from.

    See Also
    --------
    average_laws
    extrapolate : a prediction with every caveat.

    Examples
    --------
    >>> import scalefit as sf
    >>> average = sf.fit("auto", sf.find_optima(sf.load_dataset("tiny-lm"), over=("lr", "batch")), target="lr")
    >>> average.predict(params=4e5, tokens=8e6).columns.tolist()
    ['params', 'tokens', 'prediction', 'lo', 'hi', 'reach', 'between']
    """

    comparison: Comparison
    weights: Array
    reason: str
    notes: tuple[Note, ...] = field(default=())
    source: str = "table"

    @property
    def fits(self) -> tuple[Fit, ...]:
        """The laws fitted, best first."""
        return self.comparison.fits

    @property
    def table(self) -> pd.DataFrame:
        """One row a law: law, weight, parameters, error on unseen cells, and how far it is behind the best."""
        columns = ["law", "parameters", "error", "error_stderr", "behind", "behind_stderr"]
        table = self.comparison.table[columns]
        table.insert(1, "weight", self.weights)
        return table

    @property
    def law(self) -> Law:
        """The law with the most inputs (of several, the one of largest weight); a prediction needs these inputs."""
        return self.widest.law

    @property
    def widest(self) -> Fit:
        """The fit of that law."""
        order = sorted(range(len(self.fits)), key=lambda k: (-len(self.fits[k].law.inputs), -self.weights[k]))
        return self.fits[order[0]]

    def predict(
        self, table: pd.DataFrame | None = None, *, level: float = 0.95, kind: str = "new", **inputs: Any
    ) -> pd.DataFrame:
        r"""Predict the target with intervals for a new observation.

        With weights :math:`w_k`, predictions :math:`m_k` (logs, for fits in log space) and half-widths :math:`h_k` the
        prediction is :math:`m = \sum w_k m_k` and its half-width
        :math:`\sqrt{\sum w_k h_k^2 + t^2 \sum w_k (m_k - m)^2}`: what the laws do not know and where they differ. Of
        laws of optima, whose own intervals hold how they may be bent (`Fit.predict`), the ends are averaged instead
        (Lichtendahl, Grushka-Cockayne and Winkler 2013, Management Science 59, 1594).

        Parameters
        ----------
        table : DataFrame, optional
            Inputs as columns; or give them by name.
        level : float
            Coverage of the interval.
        kind : {"new", "mean"}
            What the interval is for, as in `Fit.predict`.
        **inputs : float or array_like
            Inputs by column (``params=7e9``) or symbol (``N=7e9``).

        Returns
        -------
        pandas.DataFrame
            The inputs, prediction, lo, hi, reach, and `between`, the factor by which the laws differ (one standard
            deviation; a difference for fits in plain space).

        Raises
        ------
        LawError
            An input is missing, unknown, not finite or not positive.

        Warns
        -----
        ExtrapolationWarning
            When a point lies beyond the fitted range.

        Examples
        --------
        >>> import scalefit as sf
        >>> average = sf.average_laws({"tokens": [1e9, 2e9, 4e9, 8e9, 16e9], "lr": [4.1, 3.2, 2.9, 2.3, 2.0]})
        >>> average.predict(tokens=8e9)["prediction"].round(2).tolist()
        [2.35]
        """
        given = {column_of(str(name)): value for name, value in inputs.items()}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ExtrapolationWarning)
            widest = self.widest.predict(table, level=level, kind=kind, **given)  # first: it refuses unknown names
            own = (
                {n: given[n] for n in (*map(column_of, fit.law.inputs), *fit.places) if n in given} for fit in self.fits
            )
            found = [fit.predict(table, level=level, kind=kind, **one) for fit, one in zip(self.fits, own, strict=True)]
        for one in caught[:1]:
            warnings.warn(str(one.message), ExtrapolationWarning, stacklevel=2)
        logged = self.comparison.space == "log"
        values = np.array([one[["prediction", "lo", "hi"]].to_numpy(dtype=float) for one in found])
        with np.errstate(all="ignore"):
            values = np.log(values) if logged else values
        value, low, high = np.moveaxis(values, 2, 0)
        middle = self.weights @ value
        apart = np.sqrt(self.weights @ (value - middle) ** 2)
        if all(fit.stray is not None for fit in self.fits):
            # Laws of optima hold in their own intervals how they may be bent: that they differ would count it twice.
            low, high = self.weights @ low, self.weights @ high
        else:
            quantile = float(self.weights @ [t_quantile(level, fit.dof) for fit in self.fits])
            half = np.sqrt(self.weights @ ((high - low) / 2) ** 2 + (quantile * apart) ** 2)
            low, high = middle - half, middle + half
        numbers = (middle, low, high, apart)
        prediction, lo, hi, between = [np.exp(v) for v in numbers] if logged else numbers
        reach = np.max([one["reach"] for one in found], axis=0)
        return widest.assign(prediction=prediction, lo=lo, hi=hi, reach=reach, between=between)

    def _display(self) -> Display:
        table, target = self.table, self.fits[0].law.target
        shown = pd.DataFrame({"law": table["law"], "weight": table["weight"].map("{:.2f}".format)})
        for name in ("error", "behind"):
            shown[name] = [format_error(v, e) for v, e in zip(table[name], table[f"{name}_stderr"], strict=True)]
        heavy = self.fits[int(np.argmax(self.weights))]
        law, rows = heavy.law.written(heavy.values), f"{self.fits[0].n} from {self.source}"
        facts = (("heaviest", law), ("reason", self.reason), ("rows", rows))
        return Display(f"Average of {len(self.fits)} laws for {target}", facts, shown, self.notes)


def average_laws(
    data: Any,
    laws: str | Sequence[Law | str] = "auto",
    *,
    target: str | None = None,
    bounds: str = "auto",
    shrink: bool | float = True,
    weights: Any = None,
) -> Average:
    r"""Average the laws that could hold, by their error on cells they have not seen.

    A law z paired standard errors behind the best, on cells left out and on the largest predicted from the smaller (see
    `compare`), weighs :math:`e^{-z^2/2}`. Curvature is drawn towards zero in every law that has some.

    Parameters
    ----------
    data : Optima, Sweep, DataFrame, mapping of columns, or Surface
        As for `fit`; of a surface, the centres of its cells with their weights.
    laws : "auto" or sequence of Law or str
        "auto" as in `choose_law`.
    target : str, optional
        The column, where the data leave it open.
    bounds, shrink, weights
        As for `fit`.

    Returns
    -------
    Average
        The laws, their weights and the reason in words; it predicts as a `Fit` does.

    Raises
    ------
    FitError
        If the target is open, or no law can be fitted and judged.

    See Also
    --------
    choose_law : one of the laws instead.
    compare : the error on unseen cells.

    Notes
    -----
    In simulated sweeps the 95 % interval of a prediction ten times beyond the data holds the truth in 91 to 100 % (82 %
    where 17 cells cannot show a bend). The average costs 0.05 in ln eta when the truth is straight, and halves the
    error of the straight law when a bend can be seen (docs/statistics.md).

    Examples
    --------
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> pairs = [(n, d) for n in (1e8, 3e8, 1e9) for d in (1e10, 3e10, 1e11)]
    >>> cells = pd.DataFrame(pairs, columns=["params", "tokens"])
    >>> cells["lr"] = 2.0 * cells["params"] ** -0.7 * cells["tokens"] ** 0.3 * [1.1, 0.9, 1, 0.95, 1.2, 1, 1, 1.1, 0.9]
    >>> average = sf.average_laws(cells)
    >>> average.table["law"].tolist(), bool(abs(average.weights.sum() - 1) < 1e-9)
    (['lr_power', 'lr_curved', 'lr_curved_params', 'lr_curved_tokens', 'lr_quadratic'], True)
    """
    if (centres := getattr(data, "lr_fit" if target in (None, "lr", "eta") else "batch_fit", None)) is not None:
        # a surface: take the centres of its cells, with their random-effects weights
        target = column_of(centres.law.target)
        data = Observations(
            centres.known, centres.weights, data.notes, data.source, centres.data_unit, errors=centres.errors
        )
    comparison, notes = fit_laws(data, laws, target, bounds=bounds, shrink=shrink, weights=weights)
    table = comparison.table
    behind, error = table["behind"].to_numpy(dtype=float), table["behind_stderr"].to_numpy(dtype=float)
    apart = np.divide(behind, error, out=np.zeros(len(table)), where=(behind > 0) & (error > 0))
    share = np.where(is_judged(table), np.exp(-0.5 * apart**2), 0.0)
    share /= share.sum()
    own = (note for note in comparison.fits[0].notes if note.code != "shrink")
    merged = merge(own, notes, comparison.notes)
    return Average(comparison, share, _reason(table, share), merged, comparison.source)


def _reason(table: pd.DataFrame, share: Array) -> str:
    order = [k for k in np.argsort(-share, kind="stable") if share[k] >= _HEAVY]
    heavy = []
    for k in order:
        behind = f", {format_number(table['behind'][k], 2)} behind" if k else ""
        heavy.append(f"{table['law'][k]} {share[k]:.2f} (error {format_number(table['error'][k], 3)}{behind})")
    rest = len(table) - len(order)
    text = f"weights by the error on cells left out and on the largest predicted from the smaller: {', '.join(heavy)}"
    return f"{text}; {rest} more below {_HEAVY:g}" if rest else text
