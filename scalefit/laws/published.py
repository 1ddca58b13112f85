"""Published laws as callable constants, with the units and the range in which their authors found them.

Only laws whose formula, constants and units could be confirmed are here. All take and give scalefit's units: the
batch in tokens per step, whatever the paper counted in; the conversion is written in the formula.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from scalefit._values import FrozenMap
from scalefit.errors import ExtrapolationWarning, LawError
from scalefit.laws.formula import Law
from scalefit.laws.learning_rate import SGD, SURGE
from scalefit.vocabulary import READ_OFF, column_of, format_number, quantity_of, unit_of


@dataclass(frozen=True, eq=False)
class PublishedLaw:
    """A law with the constants its authors printed.

    Parameters
    ----------
    law : Law
        The form; its parameters can be fitted anew with `scalefit.fit`.
    values : mapping of str to float
        The published constants.
    convention : str
        How inputs are counted and under which training recipe the law was found.
    validity : mapping of str to (float, float)
        Range of each input (by column) that the authors covered, where they state it.
    data_unit : str
        What its batch and data are counted in.

    Examples
    --------
    >>> law = get_published("steplaw2025_lr")
    >>> round(float(law(params=1e9, tokens=1e11)), 5)
    0.00163
    """

    law: Law
    values: Mapping[str, float]
    convention: str
    validity: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    data_unit: str = "tokens"

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", FrozenMap(self.values))
        object.__setattr__(self, "validity", FrozenMap(self.validity))

    @property
    def name(self) -> str:
        """Key in the catalogue."""
        return self.law.name

    def check_data_unit(self, data_unit: str) -> None:
        """Raise unless a table counts its data as this law does.

        Raises
        ------
        LawError
            If the law takes or gives tokens, or a loss per token, and the table counts anything else.
        """
        names = (*self.law.inputs, self.law.target) if data_unit != self.data_unit else ()
        counted = [column_of(name) for name in names if _is_counted_in_data(name)]
        if counted:
            raise LawError(
                f"{self.name} counts {', '.join(counted)} in {self.data_unit}; these data are counted in {data_unit}. "
                f"Fit its form to them instead: sf.fit({self.name!r}, ...)"
            )

    def __call__(self, *, data_unit: str = "tokens", **inputs: Any) -> np.ndarray:
        """Evaluate the law at inputs given by column (``params=1e9``) or symbol (``N=1e9``).

        Parameters
        ----------
        data_unit : str
            What the inputs count; refused when the law counts tokens.
        **inputs : float or array_like
            Every input of the law.

        Warns
        -----
        ExtrapolationWarning
            Outside the range the authors covered.

        Raises
        ------
        LawError
            If an input is missing, does not belong to the law, is given twice or is not a positive number, or data are
            not counted in tokens.
        """
        self.check_data_unit(data_unit)
        given = {column_of(name): _positive_numbers(name, value) for name, value in inputs.items()}
        if len(given) < len(inputs):
            raise LawError(f"{self.name}: an input is given twice, by letter and by word: {', '.join(inputs)}")
        wanted = [column_of(name) for name in self.law.inputs]
        if set(given) != set(wanted):
            raise LawError(f"{self.name} takes {', '.join(wanted)}; given: {', '.join(given) or 'nothing'}")
        self._warn_outside(given)
        return self.law(self.values, given)

    def _warn_outside(self, given: Mapping[str, np.ndarray]) -> None:
        for name, (low, high) in self.validity.items():
            outside = (given[name] < low) | (given[name] > high)
            if outside.any():
                span = f"{format_number(low)} to {format_number(high)}"
                reach = np.atleast_1d(np.maximum(low / given[name], given[name] / high))
                worst = format_number(float(np.atleast_1d(given[name])[np.argmax(reach)]))
                text = f"{self.name} was found for {name} from {span}; {worst} lies outside"
                warnings.warn(text, ExtrapolationWarning, stacklevel=3)


def _is_counted_in_data(name: str) -> bool:
    quantity = quantity_of(name)
    return name in READ_OFF if quantity is None else unit_of(quantity.column, "data") != quantity.unit


def _positive_numbers(name: str, value: Any) -> np.ndarray:
    try:
        numbers = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        numbers = np.array(np.nan)
    if not (np.isfinite(numbers) & (numbers > 0)).all():
        raise LawError(f"{name} ({column_of(name)}): expected positive numbers, found {value!r}")
    return numbers


def _published(
    name: str,
    formula: str,
    values: Mapping[str, float],
    source: str,
    convention: str,
    validity: Mapping[str, tuple[float, float]] | None = None,
    positive: Set[str] = frozenset(),
) -> PublishedLaw:
    return PublishedLaw(Law(formula, name=name, source=source, positive=positive), values, convention, validity or {})


_STEPLAW = "non-embedding params; AdamW, cosine to a fixed floor of 1e-5, 2000 warm-up steps, sequences of 2048"
_STEPLAW_RANGE = {"params": (6e7, 1.08e9), "tokens": (2e9, 1e11)}
_OPENEURO = "params counted so that C = 6 N D; AdamW, WSD schedule, sequences of 4096 (converted to tokens)"
_OPENEURO_RANGE = {"params": (4.7e7, 9.9e8), "tokens": (6e9, 3e11)}
_DEEPSEEK = "flops = non-embedding FLOPs per token, attention included, times tokens; multi-step schedule"
_DEEPSEEK_RANGE = {"flops": (1e17, 1e20)}
_PORIAN = "params with output head, without input embedding; constant schedule, near compute-optimal runs"

PUBLISHED = (
    _published(
        "kaplan2020_lr",
        "eta = a - b * ln(N)",
        {"a": 3.239e-3, "b": 1.395e-4},
        "Kaplan et al. 2020, arXiv:2001.08361, appendix D.6",
        "non-embedding params; turns negative at 1.2e10",
        {"params": (1e3, 1.5e9)},
    ),
    _published(
        "kaplan2020_bcrit",
        "B_crit = B_star / L**(1/alpha_B)",
        {"B_star": 2e8, "alpha_B": 0.21},
        "Kaplan et al. 2020, arXiv:2001.08361, eq. 5.3",
        "critical batch size in tokens; loss in nats per token on WebText2",
        positive={"B_star", "alpha_B"},
    ),
    _published(
        "zhang2024_cbs_chin",
        "B_crit = 512 * c * (N/1e6)**a",
        {"c": 93.197, "a": 0.4683},
        "Zhang et al. 2024, arXiv:2410.21676, constants of their notebook",
        "critical batch size by 20 % overhead in steps, not E_min/S_min, which is several times larger; params along "
        "D = 20 N; Adam, constant rate with averaged weights; c counts sequences of 512 (converted to tokens)",
        {"params": (8.5e7, 1.3e9)},
    ),
    _published(
        "deepseek2024_lr",
        "eta = c * C**a",
        {"c": 0.3118, "a": -0.1250},
        "Bi et al. 2024, arXiv:2401.02954, eq. 1",
        _DEEPSEEK,
        _DEEPSEEK_RANGE,
    ),
    _published(
        "deepseek2024_bs",
        "B = c * C**a",
        {"c": 0.2920, "a": 0.3271},
        "Bi et al. 2024, arXiv:2401.02954, eq. 1",
        _DEEPSEEK,
        _DEEPSEEK_RANGE,
    ),
    _published(
        "porian2024_lr",
        "eta = c * (N/108e6)**a",
        {"c": 0.0047, "a": -1 / 3},
        "Porian et al. 2024, arXiv:2406.19146",
        _PORIAN,
    ),
    _published(
        "porian2024_bs",
        "B = 2048 * c * (N/108e6)**a",
        {"c": 160.0, "a": 2 / 3},
        "Porian et al. 2024, arXiv:2406.19146",
        f"{_PORIAN}; c counts sequences of 2048",
    ),
    _published(
        "steplaw2025_lr",
        "eta = c * N**a * D**b",
        {"c": 1.79, "a": -0.713, "b": 0.307},
        "Li et al. 2025, arXiv:2503.04715",
        _STEPLAW,
        _STEPLAW_RANGE,
    ),
    _published(
        "steplaw2025_bs",
        "B = c * D**b",
        {"c": 0.58, "b": 0.571},
        "Li et al. 2025, arXiv:2503.04715",
        _STEPLAW,
        {"tokens": _STEPLAW_RANGE["tokens"]},
    ),
    _published(
        "powerlines2025_tau",
        "tau = c * (D/N)**a",
        {"c": 1.084, "a": -0.527},
        "Bergsma et al. 2025, arXiv:2505.13738",
        "optimal AdamW timescale tau = B/(eta lambda D), as a share of training; muP, linear decay to zero",
        positive={"c"},
    ),
    _published(
        "filatov2025_lr",
        "eta = 2**c * (B/4096)**a * D**b",
        {"c": 9.8, "a": 0.62, "b": -0.56},
        "Filatov et al. 2025, arXiv:2510.03871v2",
        "Scion optimizer only, no momentum, no weight decay, 69M proxy; sequences of 4096 (converted to tokens)",
        {"tokens": (2.0**31, 2.0**37)},
    ),
    _published(
        "schaipp2026_bs",
        "B = c * D**b",
        {"c": 0.667, "b": 0.566},
        "Schaipp 2026, arXiv:2607.01487",
        f"from the Step Law runs: {_STEPLAW}",
        {"tokens": _STEPLAW_RANGE["tokens"]},
    ),
    _published(
        "oellm2026_lr",
        "eta = c * N**a * D**b",
        {"c": 0.371396, "a": -0.417, "b": 0.086},
        "Ajroldi et al. 2026, arXiv:2608.28308",
        _OPENEURO,
        _OPENEURO_RANGE,
    ),
    _published(
        "oellm2026_bs",
        "B = 4096 * c * N**a * D**b",
        {"c": 9.901e-5, "a": 0.145, "b": 0.460},
        "Ajroldi et al. 2026, arXiv:2608.28308",
        _OPENEURO,
        _OPENEURO_RANGE,
    ),
    _published(
        "bayes_lw",
        "eta = k * N * B / D",
        {"k": 2.0},
        "comment jzJ5uxZiGBGfFE9Jr on LessWrong: SGD noise matched to a Bayes posterior",
        "an order of magnitude for SGD, called a bad prediction by its author; fit k to judge it on your data",
    ),
)

FORMS = (
    replace(SGD, name="mccandlish2018_lr"),
    Law(
        "S = S_min * (1 + B_crit/B)",
        positive={"S_min", "B_crit"},
        meanings={"S_min": "fewest steps that reach the loss", "B_crit": "critical batch size"},
        units={"S_min": "steps", "B_crit": "data unit"},
        name="mccandlish2018_tradeoff",
        source="McCandlish et al. 2018, arXiv:1812.06162, eq. 2.11 solved for the steps",
    ),
    replace(SURGE, name="li2024_surge"),
    Law(
        "eta = q / sqrt(S)",
        positive={"q"},
        meanings={"q": "learning rate after one step, q1/q2"},
        name="convexdom2026_lr",
        source="Convex Dominance I, arXiv:2602.07145; q = q1/q2",
    ),
    Law(
        "B = c * D**0.45",
        positive={"c"},
        meanings={"c": "prefactor"},
        units={"c": "data unit"},
        name="filatov2025_bs",
        source="Filatov et al. 2025, arXiv:2510.03871v2; exponent only (0.45 +/- 0.07), Scion",
    ),
    Law(
        "B = c * D**0.383",
        positive={"c"},
        meanings={"c": "prefactor"},
        units={"c": "data unit"},
        name="powerlines2025_bopt",
        source="Power Lines, arXiv:2505.13738, second-hand; exponent only (0.367 to 0.391), muP, linear decay to zero",
    ),
    Law(
        "B_crit = c * D**0.462",
        positive={"c"},
        meanings={"c": "prefactor"},
        units={"c": "data unit"},
        name="powerlines2025_bcrit",
        source="Power Lines, arXiv:2505.13738, second-hand; exponent only, D is the least data that reaches the loss",
    ),
    Law(
        "B_crit = c * D**0.47",
        positive={"c"},
        meanings={"c": "prefactor"},
        units={"c": "data unit"},
        name="zhang2024_cbs_D",
        source="Zhang et al. 2024, arXiv:2410.21676, second-hand; exponent only, one size (302M), 20 % overhead",
    ),
    Law(
        "eta = c * D**(-0.3)",
        positive={"c"},
        meanings={"c": "prefactor"},
        name="delphi2026_lr",
        source="Open Athena, Delphi blog: eta0 (T0/T)^0.3 with AdamH",
    ),
    Law(
        "B = c * eta * D",
        positive={"c"},
        meanings={"c": "tokens per step at learning rate 1, as a share of the training tokens"},
        name="smithle2018",
        source="Smith and Le 2018, arXiv:1710.06451: noise scale eta D/B constant; SGD at constant rate",
    ),
)
"""Published forms whose constants belong to a workload, or were not printed: to be fitted."""


def get_published(name: str) -> PublishedLaw:
    """Return a published law by its key.

    Raises
    ------
    LawError
        If there is none of that name.
    """
    for law in PUBLISHED:
        if law.name == name:
            return law
    raise LawError(f"no published law {name!r}; there are: {', '.join(law.name for law in PUBLISHED)}")
