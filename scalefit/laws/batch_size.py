"""Laws for the optimal batch size, in tokens, in model size and data."""

from __future__ import annotations

from scalefit.laws.formula import Law

LAWS = (
    Law(
        "B = c * N**a * D**b",
        positive={"c"},
        meanings={"c": "prefactor", "a": "exponent of N", "b": "exponent of D"},
        units={"c": "tokens"},
        name="batch_power",
        source="log-linear form of OpenEuroLLM, arXiv:2608.28308",
    ),
    Law(
        "B = c * D**b",
        positive={"c"},
        meanings={"c": "prefactor", "b": "exponent of D"},
        units={"c": "tokens"},
        name="batch_power_tokens",
        source="form of Step Law, arXiv:2503.04715",
    ),
)
