"""Published laws as callable constants: numbers recomputed by hand, units, ranges."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
import pytest

from scalefit.errors import ExtrapolationWarning, LawError
from scalefit.laws import BUILT_IN
from scalefit.laws.published import PUBLISHED, get_published

N, D = 1e9, 1e11

# Where the laws disagree: at N = 1e9, D = 1e11, to the three figures their authors' formulas give there.
AT_ONE_POINT = [
    ("steplaw2025_lr", {"params": N, "tokens": D}, 1.63e-3),
    ("steplaw2025_bs", {"tokens": D}, 1.11e6),
    ("oellm2026_lr", {"params": N, "tokens": D}, 5.79e-4),
    ("oellm2026_bs", {"params": N, "tokens": D}, 0.94e6),
    ("deepseek2024_lr", {"flops": 6 * N * D}, 7.88e-4),
    ("deepseek2024_bs", {"flops": 6 * N * D}, 1.83e6),
    ("porian2024_lr", {"params": N}, 2.24e-3),
    ("porian2024_bs", {"params": N}, 1.44e6),
    ("kaplan2020_lr", {"params": N}, 3.48e-4),
    ("kaplan2020_bcrit", {"loss": 2.08}, 6.1e6),
    ("schaipp2026_bs", {"tokens": D}, 1.12e6),
]

# The same by hand, to full precision.
BY_HAND = [
    ("steplaw2025_lr", {"N": N, "D": D}, 1.79 * N**-0.713 * D**0.307),
    ("steplaw2025_bs", {"D": D}, 0.58 * D**0.571),
    ("oellm2026_lr", {"N": N, "D": D}, 0.371396 * N**-0.417 * D**0.086),
    ("oellm2026_bs", {"N": N, "D": D}, 4096 * 9.901e-5 * N**0.145 * D**0.460),
    ("deepseek2024_lr", {"C": 1e20}, 0.3118 * 1e20**-0.1250),
    ("deepseek2024_bs", {"C": 1e20}, 0.2920 * 1e20**0.3271),
    ("porian2024_lr", {"N": 108e6}, 0.0047),
    ("porian2024_bs", {"N": 108e6}, 160 * 2048),
    ("kaplan2020_lr", {"N": N}, 0.003239 - 0.0001395 * math.log(N)),
    ("kaplan2020_bcrit", {"L": 2.0}, 2e8 * 2 ** (-1 / 0.21)),
    ("schaipp2026_bs", {"D": D}, 0.667 * D**0.566),
    ("powerlines2025_tau", {"D": 20e9, "N": 1e9}, 1.084 * 20**-0.527),
    ("filatov2025_lr", {"B": 4096 * 64, "D": 2.0**34}, 2 ** (9.8 + 0.62 * 6 - 0.56 * 34)),
    ("zhang2024_cbs_chin", {"N": 302e6}, 512 * 93.197 * 302**0.4683),
    ("bayes_lw", {"N": 1e8, "B": 1e6, "D": 1e10}, 2e4),
]

# Every row of the survey marked OK: a law with constants, or a form to fit where the paper gives no constants.
CONSTANTS = {name for name, _, _ in BY_HAND}
FORMS = {
    "mccandlish2018_lr",
    "mccandlish2018_tradeoff",
    "li2024_surge",
    "filatov2025_bs",
    "powerlines2025_bopt",
    "powerlines2025_bcrit",
    "zhang2024_cbs_D",
    "convexdom2026_lr",
    "delphi2026_lr",
    "smithle2018",
}
# Rows with an unconfirmed prefactor, unit or range: they do not ship as constants.
UNCONFIRMED = {
    "minicpm2024_bs",
    "bjorck2024_lr",
    "zhang2024_cbs_N",
    "zhou2026_lr",
    "mm1_2024_lr",
}


def evaluate(name: str, inputs: dict[str, float]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        return float(get_published(name)(**inputs))


@pytest.mark.parametrize(("name", "inputs", "printed"), AT_ONE_POINT, ids=lambda v: v if isinstance(v, str) else "")
def test_the_table_of_disagreement_is_reproduced(name, inputs, printed):
    digits = 2 if printed in (6.1e6, 0.94e6) else 3
    assert float(f"{evaluate(name, inputs):.{digits}g}") == pytest.approx(printed, rel=1e-12)


@pytest.mark.parametrize(("name", "inputs", "expected"), BY_HAND, ids=lambda v: v if isinstance(v, str) else "")
def test_constants_and_units_by_hand(name, inputs, expected):
    assert evaluate(name, inputs) == pytest.approx(expected, rel=1e-12)


def test_laws_of_the_batch_agree_within_two_and_those_of_the_rate_span_six():
    values = {name: evaluate(name, inputs) for name, inputs, _ in AT_ONE_POINT}
    batches = [values[n] for n in ("steplaw2025_bs", "oellm2026_bs", "deepseek2024_bs", "porian2024_bs")]
    rates = [value for name, value in values.items() if name.endswith("_lr")]
    assert max(batches) / min(batches) < 2
    assert 6 < max(rates) / min(rates) < 7


def test_what_is_confirmed_is_there_and_what_is_not_is_not():
    assert {entry.name for entry in PUBLISHED} == CONSTANTS
    assert set(BUILT_IN) >= FORMS
    assert not UNCONFIRMED & (set(BUILT_IN) | {entry.name for entry in PUBLISHED})


@pytest.mark.parametrize("entry", PUBLISHED, ids=lambda entry: entry.name)
def test_every_entry_states_source_units_and_recipe(entry):
    assert entry.law.source
    assert len(entry.convention) > 20
    assert set(entry.values) == set(entry.law.parameters)
    words = {"params": ("param", "order of magnitude", "AdamW timescale"), "flops": ("flops =",), "loss": ("nats",)}
    columns = {"N": "params", "C": "flops", "L": "loss"}
    for symbol in set(entry.law.inputs) & set(columns):
        assert any(word in entry.convention for word in words[columns[symbol]]), symbol
    assert all(low < high for low, high in entry.validity.values())
    with pytest.raises(TypeError):
        entry.values["c"] = 1.0


def test_outside_the_authors_range_there_is_a_warning_that_says_how_far():
    law = get_published("steplaw2025_lr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        law(params=[6e7, 1.08e9], tokens=[2e9, 1e11])
    with pytest.warns(ExtrapolationWarning, match=r"found for params from 60M to 1.08B; 70B lies outside"):
        law(params=[1e9, 7e9, 7e10], tokens=1e11)
    with pytest.warns(ExtrapolationWarning, match=r"found for tokens from 2B to 100B; 1M lies outside"):
        law(params=1e9, tokens=[1e6, 1e9, 1e10])
    with pytest.warns(ExtrapolationWarning, match="1.2e"):
        get_published("kaplan2020_lr")(params=1.2e-10)


def test_exponents_known_second_hand_come_as_forms_with_a_free_prefactor():
    for name, exponent in (("powerlines2025_bopt", 0.383), ("powerlines2025_bcrit", 0.462), ("zhang2024_cbs_D", 0.47)):
        law = BUILT_IN[name]
        assert law.parameters == ("c",)
        assert "exponent only" in law.source
        assert law({"c": 2.0}, {"tokens": 1e10}) == pytest.approx(2 * 1e10**exponent)


def test_the_constants_of_zhang_are_those_of_their_five_sizes(shared_data):
    """Their critical batches, in sequences, against the sizes that their file of steps names."""
    sizes = np.sort(pd.read_csv(shared_data("cbs_zhang_steps_to_target.csv"))["N_nominal"].unique() / 1e6)
    batch = np.array([745.3, 955.2, 1393.7, 1888.5, 2533.4])
    slope, level = np.polyfit(np.log(sizes), np.log(batch), 1)
    assert (np.exp(level), slope) == pytest.approx((93.197, 0.4683), rel=2e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = get_published("zhang2024_cbs_chin")(params=sizes * 1e6)
    np.testing.assert_allclose(fitted, 512 * batch, rtol=0.06)


def test_constants_counted_in_tokens_refuse_another_unit():
    law = get_published("kaplan2020_bcrit")
    law.check_data_unit("tokens")
    with pytest.raises(LawError, match=r"kaplan2020_bcrit counts loss, B_crit in tokens.*images"):
        law.check_data_unit("images")


def test_arrays_broadcast():
    law = get_published("oellm2026_lr")
    values = law(params=np.array([1e8, 5e8]), tokens=1e10)
    assert values.shape == (2,)
    assert values[0] / values[1] == pytest.approx(5**0.417)
    assert law(N=1e8, D=1e10).shape == ()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "takes params, tokens; given: nothing"),
        ({"params": 1e9}, "takes params, tokens; given: params"),
        ({"params": 1e9, "tokens": 1e11, "batch": 1e6}, "given: params, tokens, batch"),
        ({"N": 1e9, "params": 1e9, "D": 1e11}, "given twice, by letter and by word"),
        ({"n": 1e9, "D": 1e11}, "given: n, tokens"),
    ],
)
def test_wrong_inputs_are_named(inputs, message):
    with pytest.raises(LawError, match=message):
        get_published("steplaw2025_lr")(**inputs)


@pytest.mark.parametrize("value", ["7B", None, [1e9, None], 0.0, -1e9, np.nan, np.inf])
def test_inputs_that_are_no_positive_numbers_are_refused(value):
    with pytest.raises(LawError, match="params"):
        get_published("porian2024_lr")(params=value)


def test_an_unknown_key_lists_what_there_is():
    with pytest.raises(LawError, match="no published law 'steplaw'; there are: kaplan2020_lr"):
        get_published("steplaw")


def test_published_forms_can_be_fitted_anew():
    for entry in PUBLISHED:
        assert entry.law.derivation.logged.shape == (len(entry.law.parameters),)
        assert all(entry.values[name] > 0 for name in entry.law.derivation.positive)
