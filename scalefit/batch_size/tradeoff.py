"""The fitted trade-off between steps and examples, with its predictions and the rows for laws over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note, Observations, merge
from scalefit.batch_size.critical_batch import positive
from scalefit.batch_size.hyperbola import Curve, Estimator
from scalefit.batch_size.tradeoff_points import TradeoffPoints, cell_text, note_hidden
from scalefit.display import Display, Displayable
from scalefit.errors import FitError, SweepError
from scalefit.fitting.fit_values import check_level
from scalefit.vocabulary import column_of, format_error, format_number

Array = np.ndarray

_SHOWN = 12
_TARGETS = ("B_crit", "S_min", "E_min")
_ENDS = ("", "_lo", "_hi")
_ALIKE = 2.0  # ratio of standard errors up to which fits count alike in a law


@dataclass(frozen=True, eq=False, repr=False)
class Tradeoff(Displayable):
    r"""Steps against examples, one fit a study and target; made by `fit_tradeoff`.

    .. math:: S = S_{min}(1 + B_{crit}/B),\qquad E = E_{min}(1 + B/B_{crit}),\qquad B_{crit} = E_{min}/S_{min}

    Attributes
    ----------
    table : pandas.DataFrame
        One row a fit: the columns of `by` and `target`; `S_min`, `E_min` and `B_crit`, each with `_stderr`, `_lo` and
        `_hi` (where not identified: where the curve fits best, which may be 0 or inf, a standard error of NaN, and
        bounds of which one is 0 or inf); `rms` of the residuals in ln examples;
        `lack_of_fit`, the relative scatter of batch sizes beyond the noise of their runs; `n_batch` and `n_left_out`,
        batch sizes fitted and left out; `excess`, the largest share of data that the smallest batch sizes need beyond
        the hyperbola of the others, and `excess_p`, its chance (0 and 1 where none is called out); `identified`;
        `status` (identified, no_S_min, no_E_min, unknown, too_few) and `verdict`, a sentence. Standard errors are
        the longer side of the interval over the normal quantile, 1.96 for 95 %.
    points : pandas.DataFrame
        The points with `used` (whether fitted), `fitted` examples, `residual` (ln observed - ln fitted) and, for
        bounds, `contradicts` (the bound lies above the curve's interval).
    by : tuple of str
    method : Estimator
    level : float
        Coverage of the intervals.
    exponents : pandas.DataFrame or None
        For tied fits: powers of the tied columns in `E_min`, `S_min` and `B_crit`, with standard errors.
    data_unit, examples_unit : str
        What batch and examples count.
    unit_size : float or None
        How much of `data_unit` one `examples_unit` holds.
    notes : tuple of Note
    source : str

    See Also
    --------
    fit_rate_curve : The best learning rate over the batch, from B_crit.
    plots.tradeoff : Draws it.

    Examples
    --------
    >>> import scalefit as sf
    >>> table = {"batch": [64, 128, 256, 512, 1024], "steps": [8900, 4900, 2970, 1980, 1480]}
    >>> trade = sf.fit_tradeoff(table, data_unit="samples")
    >>> trade.predict(batch=2048)[["steps", "examples", "reach"]].round().to_dict("records")
    [{'steps': 1236.0, 'examples': 2531934.0, 'reach': 2.0}]
    """

    _table: pd.DataFrame
    _points: pd.DataFrame
    _curves: Mapping[tuple[Any, ...], Curve]
    _origin: TradeoffPoints
    method: Estimator
    level: float
    _exponents: pd.DataFrame | None = None
    notes: tuple[Note, ...] = field(default=())

    @property
    def table(self) -> pd.DataFrame:
        """The fits, as a copy that can be changed without changing this result."""
        return self._table.copy()

    @property
    def points(self) -> pd.DataFrame:
        """The points, as a copy."""
        return self._points.copy()

    @property
    def exponents(self) -> pd.DataFrame | None:
        """The exponents of the tied columns, as a copy; None where nothing is tied."""
        return None if self._exponents is None else self._exponents.copy()

    @property
    def by(self) -> tuple[str, ...]:
        """The columns that separate studies, without `target`."""
        return self._origin.by

    @property
    def data_unit(self) -> str:
        """What the batch counts."""
        return self._origin.data_unit

    @property
    def examples_unit(self) -> str:
        """What the examples count."""
        return self._origin.examples_unit

    @property
    def unit_size(self) -> float | None:
        """How much of `data_unit` one `examples_unit` holds; None where unknown."""
        return self._origin.unit_size

    @property
    def source(self) -> str:
        """Where the points came from."""
        return self._origin.source

    def __len__(self) -> int:
        """Return the number of fits."""
        return len(self._table)

    def predict(self, batch: Any, *, level: float | None = None, **where: Any) -> pd.DataFrame:
        """Predict steps and examples to the target at other batch sizes.

        Parameters
        ----------
        batch : float or array_like
            In the unit of the points.
        level : float, optional
            Coverage of the intervals, which are for one more run: the curve's error, the lack of fit and the noise of a
            run; by default that of the result.
        **where : scalar
            Study and target, ``params=1e9, target=3.0``; left out, every fit is used.

        Returns
        -------
        pandas.DataFrame
            The columns of `by` and `target`, batch, steps, steps_lo, steps_hi, examples, examples_lo, examples_hi, and
            reach: the factor by which the batch lies outside the batch sizes fitted (1 inside).

        Raises
        ------
        FitError
            If a batch is not positive, or no fit matches.

        Examples
        --------
        >>> import scalefit as sf
        >>> table = {"batch": [64, 128, 256, 512, 1024], "steps": [8900, 4900, 2970, 1980, 1480]}
        >>> ahead = sf.fit_tradeoff(table, data_unit="samples").predict([512, 2048])
        >>> ahead["steps"].round().tolist(), ahead["reach"].tolist()
        ([1975.0, 1236.0], [1.0, 2.0])
        """
        given = positive("batch", batch, expected="positive numbers to predict at")
        level = self.level if level is None else level
        check_level(level)
        x, keys, index = np.log(given), self._origin.keys, batch.index if isinstance(batch, pd.Series) else None
        size = np.nan if self.unit_size is None else np.log(self.unit_size)
        parts = []
        for _, row in self._select(where).iterrows():
            ends = self._curves[tuple(row[name] for name in keys)](x, level)
            steps = {f"steps{end}": np.exp(value + size - x) for end, value in zip(_ENDS, ends, strict=True)}
            examples = {f"examples{end}": np.exp(value) for end, value in zip(_ENDS, ends, strict=True)}
            reach = np.maximum(np.maximum(given / row["_last"], row["_first"] / given), 1.0)
            columns = {name: [row[name]] * len(x) for name in keys}
            parts.append(pd.DataFrame(columns | {"batch": given} | steps | examples | {"reach": reach}, index=index))
        return pd.concat(parts, ignore_index=index is None)

    def _select(self, where: Mapping[str, Any]) -> pd.DataFrame:
        """Return the fits at some place, with the smallest and the largest batch fitted."""
        keys = self._origin.keys
        spans = self._points[self._points["used"]].groupby(keys or (lambda _: 0))["batch"].agg(["min", "max"])
        table = self._table.assign(_first=spans["min"].to_numpy(), _last=spans["max"].to_numpy())
        for given, value in where.items():
            name = column_of(given)
            if name not in keys:
                there = f"they differ by {', '.join(keys)}" if keys else "there is one, of all points"
                raise FitError(f"{name} does not tell these fits apart; {there}")
            same = table[name] == value
            if isinstance(value, int | float | np.number):
                same |= np.isclose(pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=float), value, rtol=0.01)
            if not same.any():
                there = ", ".join(map(cell_text, table[name].unique()))
                raise FitError(f"no fit has {name}={value!r}; there are {there}")
            table = table[same]
        return table

    def observations(self, target: str) -> Observations:
        """Return the rows a law for B_crit, S_min or E_min is fitted to: those that are identified.

        Parameters
        ----------
        target : str
            ``"B_crit"``, ``"S_min"`` or ``"E_min"``.

        Returns
        -------
        Observations
            What `fit` takes: the columns of `by`, the target as `loss`, the three quantities, weights and notes.

        Raises
        ------
        SweepError
            For another target, or if nothing is identified.

        Notes
        -----
        The target loss becomes the column `loss`. Rows count by the inverse variance of the log where their standard
        errors differ by more than a factor 2, and alike otherwise: errors estimated from few batch sizes are themselves
        uncertain by a quarter or more, and studies also scatter about a law. (Predicting Zhang's largest size from
        the four smaller errs by 16 % so, by 17 % with inverse variances.) Fits at several targets of one study share
        its runs, so the errors of a law over targets are optimistic; a note says so.
        """
        if target not in _TARGETS:
            raise SweepError(f"a trade-off is read for {', '.join(_TARGETS)}, not {target!r}")
        kept = self._table["identified"].to_numpy(dtype=bool) & self._table[target].notna().to_numpy()
        if not kept.any():
            verdicts = "; ".join(self._table["verdict"].unique()[:3])
            raise SweepError(f"{target} is identified by none of the {len(self)} fits of {self.source}: {verdicts}")
        notes = list(self.notes)
        if not kept.all():
            text = f"{int((~kept).sum())} of {len(kept)} fits do not identify {target}; left out of the law"
            notes.append(Note("left_out", text, caution=True))
        rows = self._table[kept].reset_index(drop=True)
        if "target" in rows and (rows.groupby(list(self.by) or (lambda _: 0))["target"].nunique() > 1).any():
            text = "targets of one study share its runs: errors of a law over them are optimistic"
            notes.append(Note("shared_runs", text, caution=True))
        relative = (rows[f"{target}_stderr"] / rows[target]).to_numpy(dtype=float)
        known = np.isfinite(relative).all() and (relative > 0).all()
        weights = 1 / relative**2 if known and relative.max() > _ALIKE * relative.min() else None
        table = rows[[*self._origin.keys, *_TARGETS]].rename(columns={"target": "loss"}).dropna(axis=1, how="all")
        return Observations(table, weights, merge(notes), self.source, data_unit=self.data_unit)

    def _display(self) -> Display:
        table = self._table.head(_SHOWN)
        shown = pd.DataFrame({name: [cell_text(value) for value in table[name]] for name in self._origin.keys})
        for name in _TARGETS:
            shown[name] = [_with_error(row, name) for _, row in table.iterrows()]
        ends = zip(table["B_crit_lo"], table["B_crit_hi"], strict=True)
        shown[f"{100 * self.level:g} %"] = [f"{format_number(lo, 3)} .. {format_number(hi, 3)}" for lo, hi in ends]
        shown["misfit"] = [f"{100 * value:.1f} %" for value in table["rms"]]
        shown["batches"] = table["n_batch"].astype(str)
        shown["status"] = table["status"]
        units = f"batch in {self.data_unit}, examples in {self.examples_unit}"
        facts = (("method", repr(self.method)), ("units", units), ("source", self.source))
        notes = note_hidden(self.notes, len(self) - _SHOWN, "fits")
        return Display("Trade-off of steps and examples", facts, shown, notes)


def _with_error(row: pd.Series, name: str) -> str:
    """Write a value with its error, or its bound where only that is known."""
    value, error = row[name], row[f"{name}_stderr"]
    if np.isfinite(error):
        return format_error(value, error)
    low, high = row[f"{name}_lo"], row[f"{name}_hi"]
    if np.isfinite(high) and high > 0:
        return f"< {format_number(high, 3)}"
    return f"> {format_number(low, 3)}" if low > 0 else "?"
