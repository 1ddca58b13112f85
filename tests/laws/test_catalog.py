"""The catalogue of laws: complete, unambiguous, with sources and units."""

from __future__ import annotations

import pytest

from scalefit import Law, laws
from scalefit.errors import LawError
from scalefit.laws import BUILT_IN, catalog, get_law
from scalefit.laws.published import PUBLISHED, get_published
from scalefit.vocabulary import BY_COLUMN, BY_SYMBOL, READ_OFF, is_positive, quantity_of


def test_names_are_unique_and_lead_back_to_the_law():
    table = catalog()
    assert table["name"].is_unique
    assert len(table) == len(BUILT_IN) + len(PUBLISHED)
    for name in table["name"]:
        assert get_law(name).name == name


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_says_where_it_is_from_and_what_its_parameters_mean(name):
    law = BUILT_IN[name]
    assert law.source
    assert set(law.meanings) == set(law.parameters)
    assert all(law.meanings.values())
    assert is_positive(law.target)
    assert all(quantity_of(symbol) is not None for symbol in law.inputs)


def test_the_laws_the_foundation_promises_are_there():
    forms = {law.formula for law in BUILT_IN.values()}
    assert {
        "eta = c * N**a * D**b",
        "B = c * N**a * D**b",
        "L = E + A/N**alpha + B/D**beta",
        "L = ((N_c/N)**(alpha_N/alpha_D) + D_c/D)**alpha_D",
        "L = (A/N**a + B/D**b)**k + E",
        "L = E + A/N**alpha",
        "L = E + B/D**beta",
    } <= forms
    curved, quadratic = BUILT_IN["lr_curved"], BUILT_IN["lr_quadratic"]
    assert set(curved.derivation.linear("log")) == set(curved.parameters)
    assert set(quadratic.derivation.linear("log")) == set(quadratic.parameters)
    assert len(quadratic.parameters) == 6


def test_targets_read_off_many_runs_are_no_words_of_the_vocabulary_and_stay_parameters_on_the_right():
    assert not set(READ_OFF) & (set(BY_COLUMN) | set(BY_SYMBOL))
    assert all(READ_OFF.values())
    for name in READ_OFF:
        assert Law(f"eta = c * B**{name}").parameters == ("c", name)
        assert Law(f"{name} = c * D**b").derivation.positive == {"c"}  # the scale of what is positive
    assert Law("score = c * D**b").derivation.positive == set()


def test_forms_take_any_data_unit_and_constants_say_theirs():
    table = catalog().set_index("name")
    assert table.loc["bcrit_tokens", "inputs"] == "D (data unit)"
    assert table.loc["lr_surge", "inputs"] == "B (data unit)"
    assert table.loc["bcrit_loss", "inputs"] == "L (nats)"
    assert table.loc["kaplan2020_bcrit", "inputs"] == "L (nats/token)"
    assert not [law.name for law in BUILT_IN.values() if "tokens" in law.units.values()]
    assert {entry.data_unit for entry in PUBLISHED} == {"tokens"}


def test_the_catalogue_shows_constants_units_and_conventions():
    table = catalog().set_index("name")
    assert (table["source"] != "").all()
    assert set(table["kind"]) == {"form", "constants"}
    row = table.loc["steplaw2025_lr"]
    assert row["parameters"] == "c = 1.79, a = -0.713, b = 0.307"
    assert row["inputs"] == "N (parameters), D (tokens)"
    assert "non-embedding" in row["convention"]
    assert (table.loc[table["kind"] == "constants", "convention"] != "").all()
    assert table.loc["lr_power", "parameters"] == "c, a, b"


def test_a_law_is_found_by_itself_by_name_or_by_formula():
    law = Law("eta = c * N**a")
    assert get_law(law) is law
    assert get_law("lr_power") is BUILT_IN["lr_power"]
    assert get_law("eta = c * N**a") == law
    assert get_law("steplaw2025_lr") is get_published("steplaw2025_lr").law
    assert get_law(get_published("steplaw2025_lr")) is get_published("steplaw2025_lr").law
    assert laws.get_law is get_law


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("lr_powr", "did you mean lr_power"),
        ("chinchila", "did you mean chinchilla"),
        ("steplaw_lr", "steplaw2025_lr"),
        ("nothing like it", r"see sf\.laws\.catalog\(\)"),
        ("", r"see sf\.laws\.catalog\(\)"),
    ],
)
def test_an_unknown_name_suggests_near_ones(name, hint):
    with pytest.raises(LawError, match=hint):
        get_law(name)


@pytest.mark.parametrize("law", [None, 3, ["lr_power"], {"formula": "eta = c"}])
def test_what_is_no_law_is_refused(law):
    with pytest.raises(LawError, match="expected a Law, its name or a formula"):
        get_law(law)


@pytest.mark.parametrize(
    ("name", "latex"),
    [
        ("bcrit_loss", r"B_{crit} = B_{star} L^{- \frac{1}{\alpha_{B}}}"),
        ("lr_surge", r"\eta = "),
        ("lr_sgd", r"\eta = \eta_{max} \left(\frac{B_{noise}}{B} + 1\right)^{- \alpha}"),
        ("three_term", r"L = E + a N^{- \alpha} + b S^{- \beta} + c B^{- \gamma}"),
    ],
)
def test_latex_of_the_laws_of_the_batch(name, latex):
    assert BUILT_IN[name].to_latex().startswith(latex)


def test_auto_is_no_law_and_says_what_chooses_one():
    with pytest.raises(LawError, match=r"'auto' names no single law.*choose_law.*average_laws"):
        get_law("auto")
