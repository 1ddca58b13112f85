"""Laws for the optimal learning rate in the batch size at a fixed model and horizon, by way of the noise scale.

What is nested in what (and at which value, "border" where that is an end of the parameter's range):

- `lr_sqrt` and `lr_linear` in `lr_batch_power`: g = 1/2 and 1;
- `lr_batch_power` in `lr_sgd`: B_noise -> infinity, with g = alpha (border);
- `lr_saturating` and `lr_sgd_exact` in `lr_sgd`: alpha = 1/2 and 1;
- `lr_sqrt` in `lr_saturating` and in `lr_surge`, `lr_linear` in `lr_sgd_exact`: B_noise -> infinity (border);
- `lr_sgd` and `lr_surge` in `lr_bent`: q = p, and p = 1/2 with q = 1.
"""

from __future__ import annotations

from scalefit.laws.formula import Law

_UNIT = {"B_noise": "data unit"}
_PLATEAU = {"eta_max": "learning rate for very large batches", "B_noise": "noise scale: the batch where it bends"}

SGD = Law(
    "eta = eta_max / (1 + B_noise/B)**alpha",
    positive={"eta_max", "B_noise"},
    meanings={**_PLATEAU, "alpha": "exponent of B far below the noise scale"},
    units=_UNIT,
    name="lr_sgd",
    source="McCandlish et al. 2018, arXiv:1812.06162, eq. 2.6; alpha = 1 for SGD, 0.5 to 1 for Adam",
)

SURGE = Law(
    "eta = 2 * eta_max / (sqrt(B_noise/B) + sqrt(B/B_noise))",
    positive={"eta_max", "B_noise"},
    meanings={"eta_max": "learning rate at the peak", "B_noise": "batch size at the peak"},
    units=_UNIT,
    name="lr_surge",
    source="Li et al. 2024, arXiv:2405.14578, theorem 3: rises as sqrt(B), falls as 1/sqrt(B); "
    "disputed by arXiv:2510.03871",
)

LAWS = (
    SGD,
    SURGE,
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
