"""Laws for the optimal peak learning rate in model size, data and batch.

Nested laws are compared by fitting both. `lr_power_batch` with a = 1, b = -1 and g = 1 is `bayes_lw`, the prediction of
SGD as Bayesian sampling, k N B / D with a free prefactor: fit `lr_power_batch`, and read off how many standard errors
its exponents lie from (1, -1, 1). In the same way `lr_power` is `lr_curved`, `lr_curved_params` and `lr_curved_tokens`
with no curvature, `lr_broken_params` with d = 0 and `lr_offset` with e_0 = 0.
"""

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
        meanings={
            "c": "prefactor",
            "a": "exponent of N",
            "b": "exponent of D",
            "g": "exponent of B",
        },
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
        "eta = c * (N/1e9)**a * (D/1e11)**b * exp(d * ln(N/1e9)**2)",
        positive={"c"},
        meanings={**_CENTER, "d": "curvature in ln N: positive bends upward; half the change of a per e-fold of N"},
        name="lr_curved_params",
        source="curvature in ln N only; arXiv:2606.29158 reports it upward at large scale",
    ),
    Law(
        "eta = c * (N/1e9)**a * (D/1e11)**b * exp(d * ln(D/1e11)**2)",
        positive={"c"},
        meanings={**_CENTER, "d": "curvature in ln D: positive bends upward; half the change of b per e-fold of D"},
        name="lr_curved_tokens",
        source="curvature in ln D only; arXiv:2606.29158 finds less of it than in ln N",
    ),
    Law(
        "eta = c * (N/1e9)**a * (D/1e11)**b * exp(d * ln(N/1e9) * ln(D/1e11) + e * ln(N/1e9)**2 + f * ln(D/1e11)**2)",
        positive={"c"},
        meanings={**_CENTER, "d": "interaction", "e": "curvature in ln N", "f": "curvature in ln D"},
        name="lr_quadratic",
        source="full log-quadratic; extrapolates poorly unless the data ask for it",
    ),
    Law(
        "eta = c * (N/1e9)**a * (D/1e11)**b + e_0",
        positive={"c", "e_0"},
        meanings={
            "c": "part that scales, at N = 1e9, D = 1e11",
            "a": "exponent of N of that part",
            "b": "exponent of D of that part",
            "e_0": "offset: learning rate that no scale takes away",
        },
        name="lr_offset",
        source="offset power law: bends upward towards a floor, as arXiv:2606.29158 reports at large scale",
    ),
    Law(
        "eta = c * (N/N_b)**a * (D/1e11)**b * exp(d * (sqrt(1 + ln(N/N_b)**2) - 1))",
        positive={"c", "N_b"},
        meanings={
            "c": "learning rate at the break, N = N_b, and D = 1e11",
            "a": "local exponent of N at the break: a - d far below it, a + d far above",
            "b": "exponent of D",
            "N_b": "size at the break",
            "d": "half the change of the exponent of N across the break: positive bends upward",
        },
        units={"N_b": "parameters"},
        name="lr_broken_params",
        source="smoothly broken power law in N, a hyperbola in logs (ours): 80 % of the bend takes a factor of 14 "
        "in N; compare BNSL, arXiv:2210.14891",
    ),
    Law(
        "eta = 2 * c * (D/1e11)**h / (sqrt(k*D/B) + sqrt(B/(k*D)))",
        positive={"c", "k"},
        meanings={
            "c": "largest learning rate over all batches, at D = 1e11; it is reached at B = B_crit",
            "h": "exponent of D of that largest rate: at fixed B the exponent of D is h + 1/2 where B is far above "
            "B_crit, h at B_crit, h - 1/2 far below; with h = 0 the regimes sqrt(D), flat, 1/sqrt(D)",
            "k": "B_crit = k D, the critical batch as a share of the training tokens: eta grows as sqrt(B) below it "
            "and falls as 1/sqrt(B) above",
        },
        name="lr_time_transfer",
        source="after Time Transfer, arXiv:2410.05838: B_crit in proportion to D and its three regimes; "
        "this form is ours (their fit is not known to us)",
    ),
)
