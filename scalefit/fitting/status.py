"""How a fit ended: four named outcomes, each with its meaning and its remedy."""

from __future__ import annotations

from enum import Enum


class FitStatus(Enum):
    """The outcome of a fit.

    Examples
    --------
    >>> FitStatus.ILL_CONDITIONED.remedy
    'vary the inputs more independently, fix or tie a parameter, or fit a law with fewer parameters'
    """

    CONVERGED = (
        "the minimum was found and every parameter is identified by the data",
        "none needed",
    )
    AT_BOUND = (
        "the minimum lies at the bound of a parameter, whose error is therefore not given",
        "drop the parameter (a simpler law says the same), widen its bound, or bring data that need it",
    )
    ILL_CONDITIONED = (
        "the data do not identify every parameter; the ones marked have no meaningful value or error",
        "vary the inputs more independently, fix or tie a parameter, or fit a law with fewer parameters",
    )
    NOT_CONVERGED = (
        "the solver stopped before it reached a minimum; no number here should be used",
        "give a start close to the answer, scale the inputs, or fit a law with fewer parameters",
    )

    def __init__(self, sentence: str, remedy: str) -> None:
        self.sentence = sentence
        self.remedy = remedy

    def __str__(self) -> str:
        return self.name
