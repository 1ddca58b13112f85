"""Laws for the optimal and the critical batch size, and the trade-off of steps against data."""

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

CRITICAL_LAWS = (
    Law(
        "B_crit = B_star / L**(1/alpha_B)",
        positive={"B_star", "alpha_B"},
        meanings={"B_star": "critical batch size at a loss of 1", "alpha_B": "1/alpha_B is its exponent of 1/L"},
        units={"B_star": "data unit"},
        name="bcrit_loss",
        source="Kaplan et al. 2020, arXiv:2001.08361, eq. 5.3; 2e8 tokens and 0.21 there",
    ),
    Law(
        "B_crit = c * D**b",
        positive={"c"},
        meanings={"c": "prefactor", "b": "exponent of D"},
        units={"c": "data unit"},
        name="bcrit_tokens",
        source="form of Power Lines, arXiv:2505.13738 (b about 0.46), and of Zhang et al., arXiv:2410.21676 (0.47)",
    ),
    Law(
        "B_crit = c * N**a",
        positive={"c"},
        meanings={"c": "prefactor", "a": "exponent of N"},
        units={"c": "data unit"},
        name="bcrit_params",
        source="form of Zhang et al. 2024, arXiv:2410.21676, along a ray of constant D/N",
    ),
    Law(
        "B_crit = c * N**a * D**b",
        positive={"c"},
        meanings={"c": "prefactor", "a": "exponent of N", "b": "exponent of D"},
        units={"c": "data unit"},
        name="bcrit_power",
        source="log-linear form in both; Zhang et al. 2024, arXiv:2410.21676, find it to rest on D, hardly on N",
    ),
    Law(
        "B_crit = k * D",
        positive={"k"},
        meanings={"k": "critical batch size as a share of the training data"},
        name="bcrit_linear",
        source="Time Transfer, arXiv:2410.05838: in proportion to the horizon",
    ),
    Law(
        "D = E_min * (1 + B/B_crit)",
        positive={"E_min", "B_crit"},
        meanings={"E_min": "least data that reaches the loss", "B_crit": "critical batch size"},
        units={"E_min": "data unit", "B_crit": "data unit"},
        name="tradeoff_examples",
        source="McCandlish et al. 2018, arXiv:1812.06162, eq. 2.11 solved for the data",
    ),
    Law(
        "S = S_c / L**(1/alpha_S) * (1 + B_star / (B * L**(1/alpha_B)))",
        positive={"S_c", "alpha_S", "B_star", "alpha_B"},
        meanings={
            "S_c": "fewest steps to a loss of 1",
            "alpha_S": "1/alpha_S is the exponent of 1/L of the fewest steps",
            "B_star": "critical batch size at a loss of 1",
            "alpha_B": "1/alpha_B is its exponent of 1/L",
        },
        units={"S_c": "steps", "B_star": "data unit"},
        name="tradeoff_loss",
        source="S = S_min(L) (1 + B_crit(L)/B) with both power laws in the loss, after Kaplan et al. 2020, "
        "arXiv:2001.08361, eqs. 5.3 and 5.4; one model size",
    ),
)
