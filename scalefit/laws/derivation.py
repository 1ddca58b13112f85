"""What follows from a formula: log form, exact derivatives, LaTeX, linear parameters, natural scales (by sympy)."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy
from sympy import Symbol

from scalefit.errors import LawError
from scalefit.vocabulary import latex_of, quantity_of

if TYPE_CHECKING:
    from scalefit.laws.formula import Law

Array = np.ndarray

_CALLS: Mapping[str, Callable[..., Any]] = {
    "ln": sympy.log,
    "log": sympy.log,
    "log2": lambda x: sympy.log(x) / sympy.log(2),
    "log10": lambda x: sympy.log(x) / sympy.log(10),
    "abs": sympy.Abs,
    "arctan": sympy.atan,
    "min": sympy.Min,
    "max": sympy.Max,
    **{
        name: getattr(sympy, name)
        for name in [
            "exp",
            "sqrt",
            "sin",
            "cos",
            "tan",
            "asin",
            "acos",
            "atan",
            "sinh",
            "cosh",
            "tanh",
            "erf",
        ]
    },
}
_BINARY: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: lambda a, b: _power(a, b),
}


@dataclass(frozen=True)
class Scale:
    """How a parameter meets the data, for choosing where to look for it.

    ``kind`` is "slope" when the parameter multiplies a function of the inputs inside a nonlinear function, and
    "location" when it is added to one; ``cofactor`` evaluates that function of the inputs.
    """

    kind: str
    cofactor: Callable[[Sequence[Array]], Array]


@lru_cache(maxsize=256)
def derive(law: Law) -> Derivation:
    """Return the derivation of a law, from the cache when the formula was seen before."""
    return Derivation(law)


class Derivation:
    """Everything sympy knows about a law, in the coordinates in which it is fitted.

    Inputs of the vocabulary are positive and enter as logs; so do positive parameters. The fit coordinates phi of
    a parameter are therefore ln(theta) where `logged` is true and theta itself elsewhere.

    Parameters
    ----------
    law : Law
        A law whose inputs are settled.
    """

    def __init__(self, law: Law) -> None:
        self.law = law
        self.parameters, self.inputs = law.parameters, law.inputs
        self.input_logged = tuple(quantity_of(name) is not None for name in self.inputs)
        theta = {name: Symbol(name, real=True) for name in self.parameters}
        x = {
            name: Symbol(name, positive=True) if logged else Symbol(name, real=True)
            for name, logged in zip(self.inputs, self.input_logged, strict=True)
        }
        self.expression = _to_sympy(law.tree, theta | x)
        self._theta, self._x = theta, x
        inferred = _necessarily_positive(self.expression, theta, x, quantity_of(law.target) is not None)
        self.positive = frozenset(law.positive) | inferred
        self.logged = np.array([name in self.positive for name in self.parameters], dtype=bool)
        self._phi = {name: Symbol(f"phi_{name}", real=True) for name in self.parameters}
        self._u = {name: Symbol(f"u_{name}", real=True) for name in self.inputs}
        self._symbols = [*self._phi.values(), *self._u.values()]
        raw = {
            x[n]: sympy.exp(self._u[n]) if log else self._u[n]
            for n, log in zip(self.inputs, self.input_logged, strict=True)
        }
        self._raw = _join_exponentials(self.expression.subs(raw))
        fitted = {theta[n]: sympy.exp(p) if n in self.positive else p for n, p in self._phi.items()}
        self.plain_form = _join_exponentials(self._raw.subs(fitted))

    @cached_property
    def log_form(self) -> sympy.Expr:
        """The logarithm of the law in fit coordinates."""
        return sympy.expand_log(sympy.log(self.plain_form))

    @cached_property
    def latex(self) -> str:
        """The formula as LaTeX."""
        symbols = {**self._theta, **self._x, self.law.target: Symbol(self.law.target)}
        spelled = {
            s: latex_of(name) or sympy.latex(Symbol(name)) for name, s in symbols.items() if isinstance(s, Symbol)
        }
        left = latex_of(self.law.target) or sympy.latex(Symbol(self.law.target))
        return f"{left} = {sympy.latex(self.expression, symbol_names=spelled)}"

    def form(self, space: str) -> sympy.Expr:
        """Return the law in fit coordinates, as it is ("plain") or as its logarithm ("log")."""
        return self.log_form if space == "log" else self.plain_form

    @cached_property
    def _linear(self) -> dict[str, tuple[str, ...]]:
        free = [self._theta[name] for name in self.parameters]
        plain = _largest_linear_set(self._raw, free)
        log = _largest_linear_set(self.log_form, list(self._phi.values()))
        names = {symbol: name for table in (self._theta, self._phi) for name, symbol in table.items()}
        return {"plain": tuple(names[s] for s in plain), "log": tuple(names[s] for s in log)}

    def linear(self, space: str) -> tuple[str, ...]:
        """Return the parameters that jointly enter linearly.

        In "plain" the parameters themselves enter the law linearly; in "log" their fit coordinates (ln of the
        positive ones) enter its logarithm linearly.
        """
        return self._linear[space]

    @cached_property
    def _direct(self) -> Callable[..., Any]:
        arguments = [*self._theta.values(), *self._u.values()]
        return _compile(arguments, self._raw)

    @cached_property
    def _with_jacobian(self) -> dict[str, Callable[..., Any]]:
        return {}

    def evaluate(self, values: Sequence[Array], inputs: Sequence[Array]) -> Array:
        """Evaluate the law at parameter values in natural units."""
        with np.errstate(all="ignore"):
            return np.asarray(self._direct(*values, *self.enter(inputs)), dtype=float)

    def enter(self, inputs: Sequence[Array]) -> list[Array]:
        """Bring inputs into the coordinates of the compiled functions (logs where positive)."""
        with np.errstate(all="ignore"):
            return [np.log(v) if log else v for v, log in zip(inputs, self.input_logged, strict=True)]

    def function(self, space: str) -> Callable[[Array, Sequence[Array]], tuple[Array, Array]]:
        """Return f(phi, u) giving values (K, n) and the exact Jacobian (K, p, n).

        ``phi`` has shape (K, p), in fit coordinates; ``u`` holds the entered inputs, each of shape (n,) or (K, n).
        """
        if space not in self._with_jacobian:
            form = self.form(space)
            outputs = [form, *(form.diff(symbol) for symbol in self._phi.values())]
            self._with_jacobian[space] = _compile(self._symbols, outputs)
        compiled = self._with_jacobian[space]

        def function(phi: Array, u: Sequence[Array]) -> tuple[Array, Array]:
            columns = [phi[:, j : j + 1] for j in range(phi.shape[1])]
            rows = max((np.shape(v)[-1] for v in u), default=1)
            shape = (len(phi), rows)
            with np.errstate(all="ignore"):
                value, *slopes = compiled(*columns, *u)
            jacobian = np.empty((len(phi), len(slopes), rows))
            for j, slope in enumerate(slopes):
                jacobian[:, j] = slope
            return np.broadcast_to(value, shape), jacobian

        return function

    def to_fit(self, theta: Array) -> Array:
        """Natural parameter values to fit coordinates."""
        with np.errstate(all="ignore"):
            return np.where(self.logged, np.log(np.where(self.logged, theta, 1.0)), theta)

    def to_natural(self, phi: Array) -> Array:
        """Fit coordinates to natural parameter values."""
        with np.errstate(all="ignore"):
            return np.where(self.logged, np.exp(np.where(self.logged, phi, 0.0)), phi)

    @cached_property
    def scales(self) -> dict[str, tuple[Scale, ...]]:
        """For every parameter, the ways it meets the inputs inside nonlinear functions."""
        u = list(self._u.values())
        return {
            name: _scales_of(self.plain_form, symbol, set(self._phi.values()), u) for name, symbol in self._phi.items()
        }


def _compile(arguments: list[Symbol], outputs: Any) -> Callable[..., Any]:
    needs_scipy = any(output.has(sympy.erf) for output in (outputs if isinstance(outputs, list) else [outputs]))
    modules = ["scipy", "numpy"] if needs_scipy else "numpy"
    return sympy.lambdify(arguments, outputs, modules=modules, cse=True, docstring_limit=0)


def _join_exponentials(expression: sympy.Expr) -> sympy.Expr:
    """Write exp(a) exp(b) as exp(a + b): one call instead of two for every row."""
    return sympy.powsimp(expression, combine="exp", deep=True)


def _to_sympy(node: ast.AST, symbols: Mapping[str, Symbol]) -> sympy.Expr:
    match node:
        case ast.Constant(value=value):
            return sympy.Integer(value) if isinstance(value, int) and abs(value) < 10**15 else sympy.Float(value)
        case ast.Name(id="pi"):
            return sympy.pi
        case ast.Name(id=name):
            return symbols[name]
        case ast.UnaryOp(op=ast.USub()):
            return -_to_sympy(node.operand, symbols)
        case ast.UnaryOp():
            return _to_sympy(node.operand, symbols)
        case ast.BinOp():
            result = _BINARY[type(node.op)](_to_sympy(node.left, symbols), _to_sympy(node.right, symbols))
        case ast.Call(func=ast.Name(id=name)):
            result = _CALLS[name](*(_to_sympy(arg, symbols) for arg in node.args))
        case _:
            raise LawError(f"{type(node).__name__} is not allowed in a law")
    if result.has(sympy.zoo, sympy.nan, sympy.oo, sympy.I):
        raise LawError(f"{ast.unparse(node)!r} has no finite real value")
    return result


def _power(base: sympy.Expr, exponent: sympy.Expr) -> sympy.Expr:
    if base.is_number and exponent.is_number and abs(float(exponent)) > 16:
        try:  # an exact 9**(9**9) would never end
            return sympy.Float(float(base) ** float(exponent))
        except (OverflowError, TypeError, ZeroDivisionError):
            raise LawError("a constant power in the law is too large") from None
    return base**exponent


def _necessarily_positive(
    expression: sympy.Expr, theta: Mapping[str, Symbol], x: Mapping[str, Symbol], target_positive: bool
) -> frozenset[str]:
    """Parameters that must be positive for the law to be real: bases of powers, arguments of logs, overall scale."""
    names = {symbol: name for name, symbol in theta.items()}

    def scale_of(product: sympy.Expr) -> set[str]:
        factors = [f.as_base_exp() for f in sympy.Mul.make_args(product)]
        unknown = [
            (base, power) for base, power in factors if not (base**power).is_positive and not _power_of_positive(base)
        ]
        if len(unknown) == 1 and unknown[0][0] in names:
            return {names[unknown[0][0]]}
        return set()

    found: set[str] = set()
    for node in sympy.preorder_traversal(expression):
        if isinstance(node, sympy.log):
            found |= scale_of(node.args[0])
        elif isinstance(node, sympy.Pow) and not node.exp.is_integer:
            found |= scale_of(node.base)
    if target_positive and not isinstance(expression, sympy.Add):
        found |= scale_of(expression)
    return frozenset(found)


def _power_of_positive(base: sympy.Expr) -> bool:
    return bool(base.is_positive) or isinstance(base, sympy.exp)


def _largest_linear_set(expression: sympy.Expr, symbols: list[Symbol]) -> tuple[Symbol, ...]:
    """Return the largest set of symbols in which the expression is jointly affine (first in order on ties)."""
    alone = [s for s in symbols if sympy.expand(expression.diff(s, 2)) == 0]
    apart = {pair for pair in combinations(alone, 2) if sympy.expand(expression.diff(pair[0]).diff(pair[1])) != 0}
    for size in range(len(alone), 0, -1):
        for chosen in combinations(alone, size):
            if not any(pair in apart for pair in combinations(chosen, 2)):
                return chosen
    return ()


def _scales_of(expression: sympy.Expr, symbol: Symbol, fitted: set[Symbol], u: list[Symbol]) -> tuple[Scale, ...]:
    found: dict[tuple[str, sympy.Expr], None] = {}
    for node in sympy.preorder_traversal(expression):
        if isinstance(node, sympy.Mul) and symbol in node.args:
            cofactor = sympy.Mul(*(f for f in node.args if not f.free_symbols & fitted and f.free_symbols))
            if cofactor.free_symbols:
                found["slope", cofactor] = None
        elif isinstance(node, sympy.Pow) and symbol in node.exp.free_symbols and not node.base.free_symbols & fitted:
            found["slope", sympy.log(sympy.Abs(node.base))] = None
        elif isinstance(node, sympy.Add):
            share = node.coeff(symbol)
            rest = sympy.Add(*(t for t in node.args if not t.free_symbols & fitted and t.free_symbols))
            if share.is_number and share != 0 and rest.free_symbols:
                found["location", -rest / share] = None
    return tuple(Scale(kind, _entered(u, cofactor)) for kind, cofactor in found)


def _entered(u: list[Symbol], expression: sympy.Expr) -> Callable[[Sequence[Array]], Array]:
    compiled = _compile(u, expression)

    def function(inputs: Sequence[Array]) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(compiled(*inputs), dtype=float)

    return function
