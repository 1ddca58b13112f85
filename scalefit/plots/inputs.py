"""The result a picture is made of: the right one, or a word on how to come by it."""

from __future__ import annotations

from typing import Any, TypeVar

from scalefit.errors import ScalefitError

T = TypeVar("T")

_COMES_FROM = {
    "Backtest": "sf.backtest(sweep, ...)",
    "Curves": "sf.read_curves(...)",
    "Draws": "sf.bootstrap(fit)",
    "Fit": "sf.fit(law, optima)",
    "Forecast": "sf.extrapolate(fit, ...)",
    "Optima": "sf.find_optima(sweep)",
    "Surface": "sf.fit_surface(sweep)",
    "Sweep": "sf.read_sweep(...)",
    "Tradeoff": "sf.fit_tradeoff(points)",
}

_FITS_IN = {
    "Average": "its laws are average.fits, together plots.compare(average.fits)",
    "Choice": "its law is choice.fit",
    "Comparison": "its laws are comparison.fits, the best comparison.best",
    "Draws": "what it resampled is draws.fit",
    "Ladder": "its laws are in ladder.fits, together plots.compare(ladder.fits)",
    "Surface": "its laws are surface.lr_fit and surface.batch_fit",
}
"""Where results that hold fits keep them."""


def expect(given: Any, kind: type[T], call: str) -> T:
    """Return a result after checking that it is what a picture shows.

    Raises
    ------
    ScalefitError
        If it is anything else, saying how to come by the right one.

    Examples
    --------
    >>> expect("chinchilla", str, "law")
    'chinchilla'
    """
    if isinstance(given, kind):
        return given
    found, wanted = type(given).__name__, kind.__name__
    holds = _FITS_IN.get(found) if wanted == "Fit" else None
    advice = holds or f"one is made by {_COMES_FROM[wanted]}"
    raise ScalefitError(f"plots.{call} expected a {wanted}, found {found}; {advice}")
