"""Laws for the final loss in model size and data."""

from __future__ import annotations

from scalefit.laws.formula import Law

_FLOOR = "irreducible loss"

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
        units={"E": "nats/token"},
        name="chinchilla",
        source="Hoffmann et al. 2022, arXiv:2203.15556, eq. 2",
    ),
    Law(
        "L = ((N_c/N)**(alpha_N/alpha_D) + D_c/D)**alpha_D",
        positive={"N_c", "alpha_N", "alpha_D", "D_c"},
        meanings={
            "N_c": "size scale",
            "D_c": "data scale",
            "alpha_N": "exponent of N",
            "alpha_D": "exponent of D",
        },
        units={"N_c": "parameters", "D_c": "tokens"},
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
        units={"E": "nats/token"},
        name="skaling",
        source="Skaling, arXiv:2608.07222; k about 0.31 to 0.45 there",
    ),
    Law(
        "L = E + A/N**alpha",
        positive={"E", "A", "alpha"},
        meanings={"E": _FLOOR, "A": "size coefficient", "alpha": "exponent of N"},
        units={"E": "nats/token"},
        name="loss_params",
        source="saturating power law in N",
    ),
    Law(
        "L = E + B/D**beta",
        inputs=("D",),
        positive={"E", "B", "beta"},
        meanings={"E": _FLOOR, "B": "data coefficient", "beta": "exponent of D"},
        units={"E": "nats/token"},
        name="loss_tokens",
        source="saturating power law in D",
    ),
)
