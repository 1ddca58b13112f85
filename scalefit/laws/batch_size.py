"""Laws for the optimal batch size, data per step, in model size, data and loss."""

from __future__ import annotations

from scalefit.laws.formula import Law

LAWS = (
    Law(
        "B = c * N**a * D**b",
        positive={"c"},
        meanings={"c": "prefactor", "a": "exponent of N", "b": "exponent of D"},
        units={"c": "data unit"},
        name="batch_power",
        source="log-linear form of OpenEuroLLM, arXiv:2608.28308",
    ),
    Law(
        "B = c * D**b",
        positive={"c"},
        meanings={"c": "prefactor", "b": "exponent of D"},
        units={"c": "data unit"},
        name="batch_power_tokens",
        source="form of Step Law, arXiv:2503.04715",
    ),
    Law(
        "B = B_star / L**(1/alpha_B)",
        positive={"B_star", "alpha_B"},
        meanings={"B_star": "optimal batch size at a loss of 1", "alpha_B": "1/alpha_B is its exponent of 1/L"},
        units={"B_star": "data unit"},
        name="batch_loss",
        source="form of MiniCPM, arXiv:2404.06395: the batch that needs the least data for a loss",
    ),
)
