"""Laws for the final loss in model size, data, steps and batch."""

from __future__ import annotations

from scalefit.laws.formula import Law

_FLOOR = "irreducible loss"
_UNIT = "unit of the loss"

LAWS = (
    Law(
        "L = E + A/N**alpha + B/D**beta",
        inputs=("N", "D"),
        positive={"E", "A", "B", "alpha", "beta"},
        meanings={
            "E": _FLOOR,
            "A": "size coefficient",
            "B": "data coefficient",
            "alpha": "exponent of N",
            "beta": "exponent of D",
        },
        units={"E": _UNIT},
        name="chinchilla",
        source="Hoffmann et al. 2022, arXiv:2203.15556, eq. 2",
    ),
    Law(
        "L = ((N_c/N)**(alpha_N/alpha_D) + D_c/D)**alpha_D",
        positive={"N_c", "alpha_N", "alpha_D", "D_c"},
        meanings={"N_c": "size scale", "D_c": "data scale", "alpha_N": "exponent of N", "alpha_D": "exponent of D"},
        units={"N_c": "parameters", "D_c": "data unit"},
        name="kaplan",
        source="Kaplan et al. 2020, arXiv:2001.08361, eq. 1.5",
    ),
    Law(
        "L = (A/N**a + B/D**b)**k + E",
        inputs=("N", "D"),
        positive={"A", "B", "a", "b", "k", "E"},
        meanings={
            "E": _FLOOR,
            "A": "size coefficient",
            "B": "data coefficient",
            "a": "exponent of N inside",
            "b": "exponent of D inside",
            "k": "outer exponent",
        },
        units={"E": _UNIT},
        name="skaling",
        source="Skaling, arXiv:2608.07222; k about 0.31 to 0.45 there",
    ),
    Law(
        "L = E + A/N**alpha",
        positive={"E", "A", "alpha"},
        meanings={"E": _FLOOR, "A": "size coefficient", "alpha": "exponent of N"},
        units={"E": _UNIT},
        name="loss_params",
        source="saturating power law in N",
    ),
    Law(
        "L = E + B/D**beta",
        inputs=("D",),
        positive={"E", "B", "beta"},
        meanings={"E": _FLOOR, "B": "data coefficient", "beta": "exponent of D"},
        units={"E": _UNIT},
        name="loss_tokens",
        source="saturating power law in D",
    ),
    Law(
        "L = E + a/N**alpha + b/S**beta + c/B**gamma",
        inputs=("N", "S", "B"),
        positive={"E", "a", "alpha", "b", "beta", "c", "gamma"},
        meanings={
            "E": _FLOOR,
            "a": "size coefficient",
            "alpha": "exponent of N",
            "b": "step coefficient",
            "beta": "exponent of S",
            "c": "batch coefficient",
            "gamma": "exponent of B",
        },
        units={"E": _UNIT},
        name="three_term",
        source="form of Schaipp 2026, arXiv:2607.01487; with D = B S it has a best batch at every D, see best_batch",
    ),
)
