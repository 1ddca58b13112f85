"""What a formula declares: names, inputs, equality, evaluation and storage."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pandas as pd
import pytest

from scalefit import Law
from scalefit.errors import LawError
from scalefit.laws import BUILT_IN


@pytest.mark.parametrize(
    ("formula", "inputs", "parameters"),
    [
        ("eta = c * N**a * D**b", ("N", "D"), ("c", "a", "b")),
        ("eta = c * B**b", ("B",), ("c", "b")),
        ("eta = c * batch**b", ("batch",), ("c", "b")),
        ("lr = c * params**a * weight_decay**w", ("params", "weight_decay"), ("c", "a", "w")),
        ("L = E + A/N**alpha + B/D**beta", ("N", "D"), ("E", "A", "alpha", "B", "beta")),
        ("loss = E + A/N**alpha + B/D**beta", ("N", "D"), ("E", "A", "alpha", "B", "beta")),
        ("L = B/D**beta + E", ("D",), ("B", "beta", "E")),
        ("L = B*D**beta + E", ("D",), ("B", "beta", "E")),
        ("L = (A/N**a + B/D**b)**k + E", ("N", "D"), ("A", "a", "b", "k", "E", "B")),
        ("L = E + A/N**a + B/D**b + C/S**g", ("N", "D", "S"), ("E", "A", "a", "B", "b", "C", "g")),
        ("L = E + k*B**g", ("B",), ("E", "k", "g")),
        ("L = E + k*B", ("B",), ("E", "k")),
        ("L = E + k*ln(B) + A/N", ("B", "N"), ("E", "k", "A")),
        ("eta = B/D**beta + E", ("B", "D"), ("beta", "E")),  # only a loss has coefficients named like letters
        ("y = b1 * (1 - exp(-b2*x))", (), ("b1", "b2", "x")),
    ],
)
def test_letters_and_words_of_the_vocabulary_are_inputs(formula, inputs, parameters):
    law = Law(formula)
    assert set(law.inputs) == set(inputs)
    assert set(law.parameters) == set(parameters)
    assert set(law.names) == set(inputs) | set(parameters)


def test_declared_inputs_override_the_rule():
    assert Law("L = E + A/N**alpha + B/D**beta", inputs=["N", "D", "B"]).parameters == ("E", "A", "alpha", "beta")
    assert Law("y = a * x", inputs=["x"]).parameters == ("a",)
    assert Law("eta = c * N**a", inputs=[]).parameters == ("c", "N", "a")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inputs": ["D"]}, "inputs names 'D', which is not in 'eta = c \\* N\\*\\*a' \\(there: c, N, a\\)"),
        ({"positive": {"d"}}, "positive names 'd'"),
        ({"bounds": {"d": (0, 1)}}, "bounds names 'd'"),
        ({"meanings": {"d": "x"}}, "meanings names 'd'"),
        ({"units": {"d": "x"}}, "units names 'd'"),
        ({"bounds": {"a": (1, 1)}}, "expected low < high, found \\(1, 1\\)"),
        ({"bounds": {"a": (float("nan"), 1)}}, "expected low < high"),
    ],
)
def test_declarations_must_name_what_is_there(settings, message):
    with pytest.raises(LawError, match=message):
        Law("eta = c * N**a", **settings)


def test_the_target_may_not_stand_on_both_sides():
    with pytest.raises(LawError, match="'L' also stands on the right"):
        Law("L = a * L")


def test_bind_reads_unknown_columns_as_inputs():
    law = Law("y = b1 * (1 - exp(-b2*x))")
    assert law.bind(["x", "y"]).inputs == ("x",)
    assert law.bind(["x", "y"]).parameters == ("b1", "b2")
    assert law.bind(["y"]) is law
    assert Law("eta = c * width**a").bind(["lr", "width"]).inputs == ("width",)


def test_bind_keeps_declared_parameters_even_if_a_column_has_their_name():
    law = Law("eta = c * N**a", meanings={"a": "exponent"})
    assert law.bind(["params", "a", "lr"]).parameters == ("c", "a")
    assert Law("eta = c * N**a").bind(["params", "a", "lr"]).parameters == ("c",)


def test_a_missing_input_is_named_with_its_meaning_and_what_there_is():
    law = Law("eta = c * N**a * D**b")
    with pytest.raises(LawError, match=r"needs D \(data trained on, column 'tokens'\); the table has: params, lr"):
        law.bind(["params", "lr"])
    with pytest.raises(LawError, match=r"needs N \(model size.*'params'\); the table has: tokens"):
        law({"c": 1.0, "a": 1.0, "b": 1.0}, {"tokens": [1e9]})
    with pytest.raises(LawError, match=r"no value for b in .*; given: c, a"):
        law({"c": 1.0, "a": 1.0}, {"tokens": [1e9], "params": [1e9]})
    with pytest.raises(LawError, match="needs numbers in column 'params'"):
        law({"c": 1.0, "a": 1.0, "b": 1.0}, {"tokens": [1e9], "params": ["7B"]})


def test_evaluation_equals_numpy_written_by_hand():
    rng = np.random.default_rng(0)
    n, d = 10 ** rng.uniform(7, 10, 50), 10 ** rng.uniform(9, 12, 50)
    sets = {
        "E": rng.uniform(1, 2, 7),
        "A": rng.uniform(100, 500, 7),
        "B": rng.uniform(100, 3000, 7),
        "alpha": rng.uniform(0.2, 0.5, 7),
        "beta": rng.uniform(0.2, 0.5, 7),
    }
    law = BUILT_IN["chinchilla"]
    column = {name: values[:, None] for name, values in sets.items()}
    expected = column["E"] + column["A"] / n ** column["alpha"] + column["B"] / d ** column["beta"]
    table = pd.DataFrame({"params": n, "tokens": d})
    assert law(sets, table).shape == (7, 50)
    np.testing.assert_allclose(law(sets, table), expected, rtol=1e-13)
    one = {name: float(values[0]) for name, values in sets.items()}
    assert law(one, table).shape == (50,)
    np.testing.assert_allclose(law(one, table), expected[0], rtol=1e-13)
    mixed = one | {"E": sets["E"]}
    np.testing.assert_allclose(law(mixed, table)[:, 3] - sets["E"], expected[0, 3] - one["E"], rtol=1e-12)
    np.testing.assert_allclose(law(one, {"N": n, "D": d}), expected[0], rtol=1e-13)
    assert law(one, {"N": 1e9, "D": 1e11}).shape == ()


def test_a_law_of_constants_and_of_inputs_alone_evaluates():
    np.testing.assert_allclose(Law("L = 3")({}, {"params": [1.0, 2.0]}), 3.0)
    np.testing.assert_allclose(Law("C = 6 * N * D")({}, {"params": [1e9], "tokens": [2e10]}), 1.2e20)


def test_whole_numbers_beyond_64_bits_stay_numbers():
    law = Law("y = a * x / 1e9**3 + 10**27 * b", inputs=["x"])
    values = {"a": np.array([2.0, 4.0]), "b": 1e-27}
    np.testing.assert_allclose(law(values, {"x": [1e27, 2e27]}), [[3.0, 5.0], [5.0, 9.0]])
    value, _ = law.derivation.function("plain")(np.array([[2.0, 1e-27]]), [np.array([1e27, 2e27])])
    np.testing.assert_allclose(value, [[3.0, 5.0]])


def test_names_that_numpy_also_uses_are_safe():
    law = Law("y = arcsin * asin(x) + log1p * x0 + array * numpy + u_x", inputs=["x"])
    values = {"arcsin": 2.0, "log1p": 3.0, "x0": 0.5, "array": 5.0, "numpy": 7.0, "u_x": 0.25}
    np.testing.assert_allclose(law(values, {"x": [0.5]}), 2 * np.arcsin(0.5) + 1.5 + 35 + 0.25)
    phi = law.derivation.to_fit(np.array([values[name] for name in law.parameters]))[None]
    value, _ = law.derivation.function("plain")(phi, [np.array([0.5])])
    np.testing.assert_allclose(value, [[2 * np.arcsin(0.5) + 36.75]])


def test_equality_and_hash_follow_formula_inputs_and_signs():
    law = Law("eta = c * N**a", positive={"c"})
    assert law == Law("eta  =  c *  N**a", positive={"c"}, name="other", source="elsewhere")
    assert hash(law) == hash(Law("eta = c * N**a", positive={"c"}))
    assert law != Law("eta = c * N**a")
    assert law != Law("eta = c * N**a", inputs=[], positive={"c"})
    assert law != "eta = c * N**a"
    assert len({law, Law("eta = c * N**a", positive=["c"])}) == 1


def test_laws_are_frozen_and_do_not_share_their_mappings():
    bounds = {"a": (-1.0, 0.0)}
    law = Law("eta = c * N**a", bounds=bounds)
    bounds["a"] = (0.0, 1.0)
    assert law.bounds["a"] == (-1.0, 0.0)
    with pytest.raises(TypeError):
        law.bounds["a"] = (0.0, 1.0)
    with pytest.raises(AttributeError):
        law.formula = "eta = N"


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_laws_survive_dict_json_and_pickle(name):
    law = BUILT_IN[name]
    law.derivation.function("plain")
    for copy in (
        Law.from_dict(law.to_dict()),
        Law.from_dict(json.loads(json.dumps(law.to_dict()))),
        pickle.loads(pickle.dumps(law)),
    ):
        assert copy == law
        assert copy.to_dict() == law.to_dict()


def test_a_stored_formula_passes_through_the_parser_again():
    record = Law("eta = c * N**a").to_dict() | {"formula": "eta = c * __import__('os').getpid()"}
    with pytest.raises(LawError):
        Law.from_dict(record)


def test_infinite_bounds_survive_storage():
    law = Law("eta = c * N**a", bounds={"a": (-np.inf, 0.0)})
    assert Law.from_dict(law.to_dict()).bounds["a"] == (-np.inf, 0.0)


@pytest.mark.parametrize(
    ("formula", "latex"),
    [
        ("eta = c * N**a * D**b", r"\eta = c D^{b} N^{a}"),
        ("L = E + A/N**alpha", r"L = A N^{- \alpha} + E"),
        ("B = c * (N/108e6)**a", r"B = c \left(\frac{N}{108 \cdot 10^{6}}\right)^{a}"),
        ("lr = q / sqrt(steps)", r"\eta = \frac{q}{\sqrt{S}}"),
        ("y = a * log(b_0)", r"y = a \log{\left(b_{0} \right)}"),
        ("y = max(a, b)", r"y = \max\left(a, b\right)"),
        ("y = max(a, b)**2", r"y = \max^{2}\left(a, b\right)"),
    ],
)
def test_latex(formula, latex):
    law = Law(formula)
    assert law.to_latex() == latex
    assert law._repr_latex_() == f"${latex}$"


def test_repr_shows_what_matters():
    assert repr(Law("eta = c*N**a", name="mine")) == "Law('eta = c*N**a', inputs=('N',), name='mine')"
