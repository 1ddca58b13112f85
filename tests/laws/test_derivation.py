"""What follows from a formula: forms, derivatives, linear parameters and signs, for every law there is."""

from __future__ import annotations

import sys
import zlib

import numpy as np
import pytest
import sympy

from scalefit import Law
from scalefit.laws import BUILT_IN
from scalefit.laws.derivation import Derivation
from scalefit.laws.published import PUBLISHED
from scalefit.vocabulary import column_of

LAWS = BUILT_IN | {entry.name: entry.law for entry in PUBLISHED}
VALUES = {entry.name: dict(entry.values) for entry in PUBLISHED}
SPANS = {
    "lr": (1e-4, 1e-2),
    "batch": (1e5, 1e7),
    "params": (1e7, 1e9),
    "tokens": (1e9, 1e11),
    "loss": (2.0, 4.0),
    "steps": (1e3, 1e5),
    "flops": (1e17, 1e20),
}
PLAUSIBLE = {
    "E": 1.8, "A": 480.0, "alpha": 0.35, "beta": 0.37, "N_c": 8.8e13, "D_c": 5.4e13, "alpha_N": 0.076,
    "alpha_D": 0.095, "k": 0.4, "eta_max": 3e-3, "B_noise": 1e6, "B_crit": 1e6, "S_min": 1e4,
    "S_c": 1e7, "alpha_S": 0.3, "B_star": 2e8, "alpha_B": 0.21,
}  # fmt: skip


def place(name: str, rows: int = 6) -> tuple[Law, np.ndarray, list[np.ndarray], np.random.Generator]:
    """Return a law, a plausible point in fit coordinates and entered inputs."""
    law = LAWS[name]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    table = {column: np.exp(rng.uniform(np.log(low), np.log(high), rows)) for column, (low, high) in SPANS.items()}
    drawn = PLAUSIBLE | VALUES.get(name, {})
    if name in ("chinchilla", "loss_tokens", "skaling"):
        drawn["B"] = 2085.0
    theta = np.array([drawn.get(parameter, rng.uniform(0.1, 0.3)) for parameter in law.parameters])
    derivation = law.derivation
    inputs = derivation.enter([table[column_of(symbol)] for symbol in law.inputs])
    return law, derivation.to_fit(theta), inputs, rng


@pytest.mark.parametrize("space", ["plain", "log"])
@pytest.mark.parametrize("name", LAWS)
def test_the_jacobian_is_the_derivative(name, space):
    law, phi, inputs, _ = place(name)
    function = law.derivation.function(space)
    value, jacobian = function(phi[None], inputs)
    count, rows = len(phi), len(inputs[0])
    assert value.shape == (1, rows)
    assert jacobian.shape == (1, count, rows)
    assert np.isfinite(jacobian).all()
    for j in range(count):
        step = np.zeros(count)
        step[j] = 3e-5 * abs(phi[j])
        ahead, behind = (function((phi + s * step)[None], inputs)[0] for s in (1, -1))
        further, before = (function((phi + s * step)[None], inputs)[0] for s in (2, -2))
        slope = (8 * (ahead - behind) - (further - before)) / (12 * step[j])
        scale = np.abs(jacobian[:, j]).max() + 1e-9 * np.abs(value).max()
        np.testing.assert_allclose(jacobian[:, j] / scale, slope / scale, atol=1e-6)


@pytest.mark.parametrize("name", LAWS)
def test_the_log_form_is_the_log_of_the_plain_form(name):
    law, phi, inputs, rng = place(name)
    many = phi * (1 + 0.005 * rng.standard_normal((5, len(phi))))
    value, slope = law.derivation.function("plain")(many, inputs)
    log_value, log_slope = law.derivation.function("log")(many, inputs)
    assert (value > 0).all()
    np.testing.assert_allclose(np.exp(log_value), value, rtol=1e-12)
    np.testing.assert_allclose(log_slope, slope / value[:, None, :], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", LAWS)
def test_the_compiled_form_is_the_law(name):
    law, phi, inputs, _ = place(name)
    derivation = law.derivation
    theta = derivation.to_natural(phi)
    np.testing.assert_allclose(derivation.to_fit(theta), phi, rtol=1e-14)
    table = {s: np.exp(u) for s, u in zip(law.inputs, inputs, strict=True)}
    values = dict(zip(law.parameters, theta, strict=True))
    np.testing.assert_allclose(derivation.function("plain")(phi[None], inputs)[0][0], law(values, table), rtol=1e-11)


@pytest.mark.parametrize("space", ["plain", "log"])
@pytest.mark.parametrize("name", LAWS)
def test_linear_parameters_are_linear_together(name, space):
    law, phi, inputs, rng = place(name)
    derivation = law.derivation
    chosen = derivation.linear(space)
    columns = [law.parameters.index(n) for n in chosen]
    if not columns:
        return
    start = phi if space == "log" else derivation.to_natural(phi)
    step = np.zeros(len(phi))
    step[columns] = 0.2 * np.abs(start[columns]) * rng.uniform(0.5, 1.0, len(columns))
    points = start + np.array([-1.0, 0.0, 1.0])[:, None] * step
    coordinates = points if space == "log" else derivation.to_fit(points)
    values, jacobian = derivation.function(space)(coordinates, inputs)
    assert (np.abs(jacobian[0][columns]).max(axis=1) > 0).all()
    np.testing.assert_allclose(values[0] - 2 * values[1] + values[2], 0, atol=1e-10 * np.abs(values).max())


@pytest.mark.parametrize(
    ("formula", "plain", "log"),
    [
        ("eta = c * N**a * D**b", ("c",), ("c", "a", "b")),
        ("L = E + A/N**alpha + B/D**beta", ("E", "A", "B"), ()),
        ("eta = a - b * ln(N)", ("a", "b"), ()),
        ("S = S_min * (1 + B_crit/B)", ("S_min",), ()),
        ("y = a * b", ("a",), ("a", "b")),
        ("y = a*b + a*c + d", ("b", "c", "d"), ()),  # dropping a frees two
        ("y = (a + b)**60", (), ()),
        ("y = abs(a * x + b)", (), ()),
    ],
)
def test_which_parameters_are_linear(formula, plain, log):
    law = Law(formula, positive=[n for n in "ab" if formula == "y = a * b"]).bind(["x", "batch", *SPANS])
    assert set(law.derivation.linear("plain")) == set(plain)
    assert set(law.derivation.linear("log")) == set(log)


@pytest.mark.parametrize(
    ("formula", "positive"),
    [
        ("eta = c * N**a * D**b", {"c"}),  # the scale of a positive quantity
        ("eta = N**a / c", {"c"}),
        ("eta = -c * N**a", set()),
        ("L = E + A/N**alpha", set()),
        ("L = (N_c/N)**alpha", {"N_c"}),  # a base of a power that need not be whole
        ("L = (A/N**a + B/D**b)**k", set()),  # a sum: either sign may do
        ("eta = a + b * ln(c * N)", {"c"}),
        ("eta = a + b * ln(c + N)", set()),
        ("S = S_min * (1 + B_crit/B)", set()),  # both factors might be negative
        ("eta = eta_max * exp(-(N/D)**alpha)", {"eta_max"}),
        ("y = a * x", set()),  # y may be negative
        ("y = a * sqrt(b) * x", {"b"}),
        ("y = a * b**2", set()),
        ("eta = a * b * N", set()),  # only the product is known to be positive
        ("eta = a * exp(b * N)", {"a"}),
    ],
)
def test_signs_that_follow_from_the_formula(formula, positive):
    law = Law(formula).bind(["x", *SPANS])
    assert law.derivation.positive == positive
    assert [n for n, log in zip(law.parameters, law.derivation.logged, strict=True) if log] == [
        n for n in law.parameters if n in positive
    ]


def test_declared_signs_are_kept():
    law = Law("L = E + A/N**alpha", positive={"alpha"})
    assert law.derivation.positive == {"alpha"}
    np.testing.assert_allclose(law.derivation.to_fit(np.array([-1.0, 2.0, np.e])), [-1.0, 2.0, 1.0])


def test_stacked_inputs_belong_to_their_own_problem():
    """A bootstrap of rows gives every problem its own inputs, shape (K, n)."""
    law, phi, inputs, rng = place("chinchilla")
    stacked = [rng.permuted(np.stack([u, u, u]), axis=1) for u in inputs]
    function = law.derivation.function("log")
    value, jacobian = function(np.stack([phi] * 3), stacked)
    for k in range(3):
        alone, slopes = function(phi[None], [u[k] for u in stacked])
        np.testing.assert_allclose(value[k], alone[0], rtol=1e-14)
        np.testing.assert_allclose(jacobian[k], slopes[0], rtol=1e-13)


def test_a_law_without_inputs_has_one_row():
    value, jacobian = Law("y = a * b").derivation.function("plain")(np.array([[2.0, 3.0]]), [])
    np.testing.assert_allclose(value, [[6.0]])
    np.testing.assert_allclose(jacobian, [[[3.0], [2.0]]])


def test_equal_laws_share_what_is_compiled_and_nothing_else():
    first = Law("eta = c * N**a * D**q", name="first", meanings={"a": "one"}, bounds={"a": (-1, 0)})
    second = Law("eta = c *  N**a * D**q", name="second", bounds={"a": (-2, 0)})
    compiled = first.derivation.function("log")
    assert first.derivation._compiled["log"] is second.derivation._compiled["log"]
    assert first.derivation is second.derivation
    assert second.bounds["a"] == (-2, 0)
    other = Law("eta = c * N**a * D**q", positive={"a"})
    assert other.derivation.logged.tolist() != first.derivation.logged.tolist()
    point = np.array([[-1.0, -0.3, 0.2]]), [np.array([20.0]), np.array([25.0])]
    np.testing.assert_array_equal(compiled(*point)[0], second.derivation.function("log")(*point)[0])


def test_minimum_maximum_and_absolute_value_have_exact_slopes():
    law = Law("y = max(a*x, b) + min(a, b*x) + abs(a - x)", inputs=["x"])
    x = np.array([0.1, 0.9, 5.0])
    a, b = 1.3, 0.6
    value, jacobian = law.derivation.function("plain")(np.array([[a, b]]), [x])
    np.testing.assert_allclose(value[0], np.maximum(a * x, b) + np.minimum(a, b * x) + np.abs(a - x))
    np.testing.assert_allclose(jacobian[0, 0], (a * x > b) * x + (a < b * x) + np.sign(a - x))
    np.testing.assert_allclose(jacobian[0, 1], (a * x < b) * 1.0 + (a > b * x) * x)


def test_scales_say_how_parameters_meet_the_data():
    scales = Law("y = b1 * exp(-b2 * x) + tanh(x - b3)", inputs=["x"]).derivation.scales
    x = np.array([0.5, 2.0])
    assert {scale.kind for scale in scales["b2"]} == {"slope"}
    np.testing.assert_allclose(np.abs(scales["b2"][0].cofactor([x])), x)
    assert [scale.kind for scale in scales["b3"]] == ["location"]
    np.testing.assert_allclose(scales["b3"][0].cofactor([x]), x)


def test_hand_written_derivatives_of_the_chinchilla_law():
    law, phi, inputs, _ = place("chinchilla")
    big, a, alpha, b, beta = np.exp(phi[[law.parameters.index(n) for n in ("E", "A", "alpha", "B", "beta")]])
    size, data = a * np.exp(-alpha * inputs[0]), b * np.exp(-beta * inputs[1])
    expected = {"E": 0 * size + big, "A": size, "alpha": -alpha * inputs[0] * size, "B": data}
    expected["beta"] = -beta * inputs[1] * data
    value, jacobian = law.derivation.function("plain")(phi[None], inputs)
    np.testing.assert_allclose(value[0], big + size + data, rtol=1e-13)
    for name, slope in expected.items():
        np.testing.assert_allclose(jacobian[0, law.parameters.index(name)], slope, rtol=1e-12)


@pytest.mark.parametrize("around", ["exp(a - {})", "abs(a - {})", "min({}, b*D) - c", "sqrt(a - {})"])
def test_the_work_grows_with_the_depth_and_not_with_a_power_of_it(around, monkeypatch):
    module = sys.modules["sympy.simplify.powsimp"]
    simplify, calls = module.powsimp, []
    monkeypatch.setattr(module, "powsimp", lambda *args, **options: calls.append(1) or simplify(*args, **options))
    monkeypatch.setattr(sympy, "powsimp", module.powsimp)

    def work(depth):
        text = "a*N*D"
        for _ in range(depth):
            text = around.format(text)
        calls.clear()
        Derivation(f"eta = b * c * {text}", ("N", "D"))
        return len(calls)

    assert 0 < work(8) <= 4 * work(3)


@pytest.mark.parametrize("inner", ["abs(b - sqrt(c - {}))", "max(b - log(c - {}), b)", "min(sqrt(c - {}), b)"])
def test_slopes_of_what_may_not_be_real_are_taken_without_real_parts(inner):
    derivation = Law(f"y = a + {inner.format('x')}", inputs=["x"]).derivation
    slopes = [derivation.plain_form.diff(symbol) for symbol in derivation.plain_form.free_symbols]
    assert not any(slope.has(sympy.re, sympy.im, sympy.arg, sympy.atan2, sympy.Heaviside) for slope in slopes)


def test_the_slope_of_a_size_and_of_a_tie():
    law = Law("y = a + abs(b - log(c - x)) + max(b, x)", inputs=["x"])
    values, x = {"a": 0.5, "b": 1.0, "c": 9.0}, np.array([1.0, 3.0, 8.5])
    size = 1.0 - np.log(9.0 - x)
    np.testing.assert_allclose(law(values, {"x": x}), 0.5 + np.abs(size) + np.maximum(1.0, x))
    phi = law.derivation.to_fit(np.array([values[name] for name in law.parameters]))
    slopes = law.derivation.function("plain")(phi[None], law.derivation.enter([x]))[1][0]
    by_name = dict(zip(law.parameters, slopes, strict=True))
    np.testing.assert_allclose(by_name["a"], 1.0)
    np.testing.assert_allclose(by_name["b"], np.sign(size) + np.array([0.5, 0.0, 0.0]))  # a tie counts half
    assert r"\left|{" in law.to_latex()
