"""Laws for the optimal peak learning rate in model size, data and batch."""

from __future__ import annotations

from scalefit.laws.formula import Law

_CENTER = {
    "c": "optimal learning rate at N = 1e9, D = 1e11",
    "a": "local exponent of N there",
    "b": "local exponent of D there",
}

LAWS = (
    Law(
        "eta = c * N**a * D**b",
        positive={"c"},
        meanings={"c": "prefactor", "a": "exponent of N", "b": "exponent of D"},
        name="lr_power",
        source="log-linear form of Step Law, arXiv:2503.04715, and arXiv:2606.29158",
    ),
    Law(
        "eta = c * N**a * D**b * B**g",
        positive={"c"},
        meanings={"c": "prefactor", "a": "exponent of N", "b": "exponent of D", "g": "exponent of B"},
        name="lr_power_batch",
        source="log-linear form with the batch, as in arXiv:2510.03871",
    ),
    Law(
        "eta = c * (N/1e9)**a * (D/1e11)**b * exp(d * ln(N/1e9) * ln(D/1e11))",
        positive={"c"},
        meanings={**_CENTER, "d": "interaction: change of either exponent per e-fold of the other input"},
        name="lr_curved",
        source="ln N * ln D interaction; upward curvature reported by arXiv:2606.29158",
    ),
    Law(
        "eta = c * (N/1e9)**a * (D/1e11)**b * exp(d * ln(N/1e9) * ln(D/1e11) + e * ln(N/1e9)**2 + f * ln(D/1e11)**2)",
        positive={"c"},
        meanings={**_CENTER, "d": "interaction", "e": "curvature in ln N", "f": "curvature in ln D"},
        name="lr_quadratic",
        source="full log-quadratic; extrapolates poorly unless the data ask for it",
    ),
)
