"""The errors and warnings scalefit raises; every one can be caught by a single base class."""

from __future__ import annotations

from typing import Any


class ScalefitError(Exception):
    """Base class of every error that scalefit raises on purpose."""


class SweepError(ScalefitError, ValueError):
    """A table of runs cannot be used as given: says which column and row, and what to try."""


class LawError(ScalefitError, ValueError):
    """A formula is not a law: unknown function, forbidden syntax, or names that do not fit the table."""


class FitError(ScalefitError, RuntimeError):
    """A law cannot be fitted to these data.

    Parameters
    ----------
    message : str
        What went wrong and what to try.
    partial : object, optional
        Whatever had been computed when the fit was given up, for inspection.

    Attributes
    ----------
    partial : object or None
        The partial answer, if there is one.
    """

    def __init__(self, message: str, partial: Any = None) -> None:
        super().__init__(message)
        self.partial = partial


class RefitError(ScalefitError, RuntimeError):
    """A folder of results cannot be written to or read back; what it held before is intact."""


class ScalefitWarning(UserWarning):
    """Base class of scalefit's warnings."""


class ExtrapolationWarning(ScalefitWarning):
    """A prediction lies outside the range of the data its law was fitted to."""
