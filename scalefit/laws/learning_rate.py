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

_UNIT = {"B_noise": "data unit"}
_PLATEAU = {"eta_max": "learning rate for very large batches", "B_noise": "noise scale: the batch where it bends"}

LAWS_OVER_BATCH = (
    Law(
        "eta = eta_max / (1 + B_noise/B)**alpha",
        positive={"eta_max", "B_noise"},
        meanings={**_PLATEAU, "alpha": "exponent of B far below the noise scale"},
        units=_UNIT,
        name="lr_sgd",
        source="McCandlish et al. 2018, arXiv:1812.06162, eq. 2.6; alpha = 1 for SGD, 0.5 to 1 for Adam",
    ),
    Law(
        "eta = 2 * eta_max / (sqrt(B_noise/B) + sqrt(B/B_noise))",
        positive={"eta_max", "B_noise"},
        meanings={"eta_max": "learning rate at the peak", "B_noise": "batch size at the peak"},
        units=_UNIT,
        name="lr_surge",
        source="Li et al. 2024, arXiv:2405.14578, theorem 3: rises as sqrt(B), falls as 1/sqrt(B); "
        "disputed by arXiv:2510.03871",
    ),
    Law(
        "eta = eta_max / (1 + B_noise/B)",
        positive={"eta_max", "B_noise"},
        meanings=_PLATEAU,
        units=_UNIT,
        name="lr_sgd_exact",
        source="McCandlish et al. 2018, arXiv:1812.06162, eq. 2.6 with alpha = 1: exact for one step of SGD",
    ),
    Law(
        "eta = eta_max / sqrt(1 + B_noise/B)",
        positive={"eta_max", "B_noise"},
        meanings=_PLATEAU,
        units=_UNIT,
        name="lr_saturating",
        source="the same with alpha = 1/2: a square root that saturates, as in Li et al. 2024, arXiv:2405.14578",
    ),
    Law(
        "eta = k * sqrt(B)",
        positive={"k"},
        meanings={"k": "learning rate at a batch of 1"},
        name="lr_sqrt",
        source="square-root rule for Adam far below the noise scale",
    ),
    Law(
        "eta = k * B",
        positive={"k"},
        meanings={"k": "learning rate at a batch of 1"},
        name="lr_linear",
        source="linear rule for SGD far below the noise scale; Goyal et al. 2017, arXiv:1706.02677",
    ),
    Law(
        "eta = k * B**g",
        positive={"k"},
        meanings={"k": "learning rate at a batch of 1", "g": "exponent of B"},
        name="lr_batch_power",
        source="power rule; HyperP, arXiv:2603.28743, finds 0.56",
    ),
    Law(
        "eta = eta_b * (B/B_noise)**p / ((1 + B/B_noise)/2)**q",
        positive={"eta_b", "B_noise"},
        meanings={
            "eta_b": "learning rate at B = B_noise",
            "B_noise": "noise scale: the batch where it bends",
            "p": "exponent of B far below the noise scale",
            "q": "how much the exponent falls across the bend: p - q far above",
        },
        units=_UNIT,
        name="lr_bent",
        source="a power law with one bend (ours): holds the SGD and the surge law, so that data can choose",
    ),
    Law(
        "dL = dL_max / (1 + B_noise/B)",
        positive={"dL_max", "B_noise"},
        meanings={
            "dL_max": "largest fall of the loss in one step, for very large batches",
            "B_noise": "noise scale: the batch that gives half of it",
        },
        units={"dL_max": "unit of the loss", "B_noise": "data unit"},
        name="drop_batch",
        source="McCandlish et al. 2018, arXiv:1812.06162, eq. 2.7; Li et al. 2024, arXiv:2405.14578, theorem 5",
    ),
)
