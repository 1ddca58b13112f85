"""A critical batch size to work with: a fitted law, a published one or a number, and how well it is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scalefit.errors import FitError, LawError
from scalefit.fitting import Fit
from scalefit.fitting.prediction import reach_of
from scalefit.formatting import format_number
from scalefit.laws import get_published
from scalefit.laws.published import PublishedLaw
from scalefit.notes import Note
from scalefit.vocabulary import column_of

Array = np.ndarray

_TARGETS = ("B_crit", "B_noise")


@dataclass(frozen=True, eq=False)
class Critical:
    """Critical batch sizes on demand.

    Parameters
    ----------
    source : Fit, PublishedLaw or float
    name : str
        For notes and faces.
    inputs : tuple of str
        Columns it reads.
    data_unit : str or None
        What it counts; None for a bare number, which counts whatever it is used with.
    """

    source: Fit | PublishedLaw | float
    name: str
    inputs: tuple[str, ...]
    data_unit: str | None

    def check_data_unit(self, data_unit: str) -> None:
        """Raise LawError unless the data are counted in the unit of the critical batch size."""
        if self.data_unit not in (None, data_unit):
            raise LawError(f"{self.name} counts {self.data_unit}, these data {data_unit}: fit it to data of this unit")

    def at(self, table: pd.DataFrame | Mapping[str, Any]) -> Array:
        """Return the critical batch size of every row, NaN where an input is missing.

        Raises
        ------
        LawError
            If a column it reads is not there.
        """
        missing = [name for name in self.inputs if name not in table]
        if missing:
            raise LawError(f"{self.name} needs {', '.join(missing)}; there: {', '.join(map(str, table))}")
        rows = len(next(iter(table.values()))) if isinstance(table, Mapping) else len(table)
        if isinstance(self.source, float):
            return np.full(rows, self.source)
        return np.broadcast_to(self.source.law(self.source.values, table), rows)

    def draws(self, table: pd.DataFrame, n: int, seed: int) -> Array | None:
        """Return `n` critical batch sizes of every row, (n, rows), as the errors of the fit allow; None without errors.

        Parameters come from the multivariate Student t of the fit's covariance.
        """
        if not isinstance(self.source, Fit) or self.source.dof <= 0 or not np.isfinite(self.source.covariance).all():
            return None
        fit, rng = self.source, np.random.default_rng(seed)
        values, vectors = np.linalg.eigh(fit.covariance)
        normal = rng.normal(size=(n, len(fit.phi))) * np.sqrt(np.maximum(values, 0.0))
        heavy = np.sqrt(fit.dof / rng.chisquare(fit.dof, size=n))[:, None]
        phi = fit.phi + heavy * (normal @ vectors.T)
        return fit.law(fit.natural(phi), table)

    def doubts(self, table: pd.DataFrame) -> tuple[Note, ...]:
        """Return what a user of these values should know: their errors, and how far they reach beyond the data."""
        if not isinstance(self.source, Fit):
            return (
                Note("no_errors", f"{self.name} comes without errors: no intervals are given"),
                *self._outside(table),
            )
        notes = []
        if self.source.status.name != "CONVERGED":
            text = f"{self.name}: {self.source.status}: {self.source.status.sentence}"
            notes.append(Note("status", text, caution=True))
        worst = reach_of(self.source, table[list(self.inputs)]).max() if self.inputs else pd.Series(dtype=float)
        beyond = [f"{name} by {format_number(factor, 3)}x" for name, factor in worst.items() if factor > 1 + 1e-9]
        if beyond:
            text = f"{self.name} is used beyond the range it was fitted to: {', '.join(beyond)}"
            notes.append(Note("beyond", text, caution=True))
        return tuple(notes)

    def _outside(self, table: pd.DataFrame) -> tuple[Note, ...]:
        """Remark on inputs outside the range that the authors of a published law covered."""
        validity = self.source.validity if isinstance(self.source, PublishedLaw) else {}
        outside = [
            f"{name} from {format_number(low)} to {format_number(high)}"
            for name, (low, high) in validity.items()
            if ((table[name] < low) | (table[name] > high)).any()
        ]
        text = f"{self.name} was found for {', '.join(outside)}; these data lie partly outside"
        return (Note("beyond", text, caution=True),) if outside else ()


def read_critical(source: Any) -> Critical:
    """Return a critical batch size from a fit, a published law, its name or a number.

    Parameters
    ----------
    source : Fit, PublishedLaw, str or float
        A fit or published law for B_crit (or B_noise), the name of a published one, or data per step.

    Raises
    ------
    LawError
        If it is none of these, is a law for something else, or is not positive.

    Examples
    --------
    >>> read_critical("kaplan2020_bcrit").at({"loss": [2.0, 3.0]}).round(-3)
    array([7371000., 1069000.])
    """
    if isinstance(source, str):
        source = get_published(source)
    if isinstance(source, Fit | PublishedLaw):
        law = source.law
        if law.target not in _TARGETS:
            raise LawError(f"expected a law for B_crit, found one for {law.target}: {law.formula!r}")
        if isinstance(source, Fit) and not np.isfinite(source.phi).all():
            raise FitError(f"{law.formula!r} was not fitted: {source.status.sentence}", partial=source)
        unit = getattr(source, "data_unit", "tokens")
        return Critical(source, law.name or law.formula, tuple(column_of(name) for name in law.inputs), unit)
    if isinstance(source, bool) or not isinstance(source, int | float | np.number):
        kind = type(source).__name__
        raise LawError(
            f"expected a fit of B_crit such as sf.fit('bcrit_loss', trade), a name or a number, found {kind}"
        )
    if not (np.isfinite(source) and source > 0):
        raise LawError(f"expected a positive critical batch size, found {source}")
    return Critical(float(source), f"B_crit = {format_number(float(source))}", (), None)
