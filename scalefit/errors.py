"""The errors and warnings scalefit raises; every one can be caught by a single base class."""

from __future__ import annotations

from typing import Any


class ScalefitError(Exception):
    """Base class of every error that scalefit raises on purpose.

    See Also
    --------
    SweepError, LawError, FitError, RefitError : The four kinds.

    Examples
    --------
    >>> import scalefit as sf
    >>> try:
    ...     sf.load_dataset("steplaw")
    ... except sf.ScalefitError as error:
    ...     print(error)
    there is no data set 'steplaw'; did you mean 'steplaw-dense'? scalefit.datasets() describes all
    """


class SweepError(ScalefitError, ValueError):
    """A table of runs cannot be used as given: says which column and row, and what to try.

    See Also
    --------
    ScalefitError : Base class of all errors.

    Examples
    --------
    >>> import scalefit as sf
    >>> try:
    ...     sf.read_sweep([{"lr": 1e-3, "loss": 3.2}, {"lr": 0.0, "loss": 3.1}])
    ... except sf.SweepError as error:
    ...     print(error)
    lr should be positive: 1 of 2 values are not, first 0 in row 2 of the list of runs; correct or remove these runs
    """


class LawError(ScalefitError, ValueError):
    """A formula is not a law: unknown function, forbidden syntax, or names that do not fit the table.

    See Also
    --------
    ScalefitError : Base class of all errors.

    Examples
    --------
    >>> import scalefit as sf
    >>> try:
    ...     sf.Law("L = E + f(N)")
    ... except sf.LawError as error:
    ...     print(type(error).__name__)
    LawError
    """


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

    See Also
    --------
    ScalefitError : Base class of all errors.

    Examples
    --------
    >>> import scalefit as sf
    >>> try:
    ...     sf.fit("chinchilla", sf.load_dataset("simulated").cells.head(2))
    ... except sf.FitError as error:
    ...     print(type(error).__name__)
    FitError
    """

    def __init__(self, message: str, partial: Any = None) -> None:
        super().__init__(message)
        self.partial = partial


class RefitError(ScalefitError, RuntimeError):
    """A folder of results cannot be written to or read back; what it held before is intact.

    See Also
    --------
    ScalefitError : Base class of all errors.

    Examples
    --------
    >>> import scalefit as sf
    >>> try:
    ...     sf.read_fits("no-such-folder")
    ... except sf.RefitError as error:
    ...     print(type(error).__name__)
    RefitError
    """


class ScalefitWarning(UserWarning):
    """Base class of scalefit's warnings.

    See Also
    --------
    ExtrapolationWarning

    Examples
    --------
    >>> import warnings
    >>> import scalefit as sf
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", sf.ScalefitWarning)  # makes errors of them
    ...     sf.find_optima(sf.load_dataset("simulated")).table.shape[0]
    80
    """


class ExtrapolationWarning(ScalefitWarning):
    """A prediction lies outside the range of the data its law was fitted to.

    See Also
    --------
    ScalefitWarning : Base class of all warnings.

    Examples
    --------
    >>> import warnings
    >>> import scalefit as sf
    >>> fit = sf.fit("chinchilla", sf.load_dataset("simulated").cells)
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always", sf.ExtrapolationWarning)
    ...     _ = fit.predict(params=1e12, tokens=1e13)
    >>> caught[0].category.__name__
    'ExtrapolationWarning'
    """
