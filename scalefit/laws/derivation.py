"""What follows from a formula, by sympy: log form, exact derivatives, LaTeX, linear parameters, natural scales."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import sympy
from sympy import Symbol

from scalefit.errors import LawError
from scalefit.laws.expressions import FUNCTIONS, names, parse
from scalefit.laws.sympy_functions import COMPILED, Larger, Size
from scalefit.vocabulary import is_positive, latex_of, quantity_of

Array = np.ndarray

_CALLS: Mapping[str, Callable[..., Any]] = {
    **{name: getattr(sympy, name) for name in FUNCTIONS if hasattr(sympy, name)},
    "log2": lambda x: sympy.log(x) / sympy.log(2),
    "log10": lambda x: sympy.log(x) / sympy.log(10),
    "abs": Size,
    "arctan": sympy.atan,
    "min": lambda a, b: -Larger(-a, -b),
    "max": Larger,
}
_BINARY: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: lambda a, b: _power(a, b),
}


_LARGEST, _LARGEST_EXPONENT, _LONGEST = 1e300, 1000, 10**15
_UNREAL = (sympy.zoo, sympy.nan, sympy.oo, -sympy.oo, sympy.I)


@dataclass(frozen=True)
class Scale:
    """How a parameter acts on the inputs, from which a search takes its starting points.

    ``kind`` is "slope" when the parameter multiplies a function of the inputs inside a nonlinear function, and
    "location" when it is added to one; ``cofactor`` evaluates that function of the inputs.
    """

    kind: str
    cofactor: Callable[[Sequence[Array]], Array]


@lru_cache(maxsize=256)
def derive(formula: str, inputs: tuple[str, ...], positive: frozenset[str]) -> Derivation:
    """Return the derivation of a law; laws with the same formula, inputs and signs share the compiled functions."""
    return Derivation(formula, inputs, positive)


class Derivation:
    """Everything that sympy derives from a law, in the coordinates in which it is fitted.

    Inputs of the vocabulary are positive and enter as logs; so do positive parameters. The fit coordinates phi of
    a parameter are therefore ln(theta) where `logged` is true and theta itself elsewhere.
    """

    def __init__(self, formula: str, inputs: tuple[str, ...] = (), positive: Set[str] = frozenset()) -> None:
        left, _, right = formula.partition("=")
        tree = parse(right)
        self.formula, self.target, self.inputs = formula, left.strip(), inputs
        self.parameters = tuple(name for name in names(tree) if name not in inputs)
        self.input_logged = tuple(quantity_of(name) is not None for name in self.inputs)
        # No name in a law has two underscores, so these symbols clash with no parameter and with no function of numpy.
        theta = {name: Symbol(f"theta__{name}", real=True) for name in self.parameters}
        x = {
            name: Symbol(f"x__{name}", positive=True) if logged else Symbol(f"x__{name}", real=True)
            for name, logged in zip(self.inputs, self.input_logged, strict=True)
        }
        self.expression = _to_sympy(tree, theta | x)
        idle = [name for name, symbol in theta.items() if symbol not in self.expression.free_symbols]
        if idle:
            raise LawError(f"{formula!r} does not depend on {', '.join(idle)}: what holds it cancels")
        self._theta, self._x = theta, x
        inferred = _necessarily_positive(self.expression, theta, x, is_positive(self.target))
        self.positive = frozenset(positive) | inferred
        self.logged = np.array([name in self.positive for name in self.parameters], dtype=bool)
        self._phi = {name: Symbol(f"phi__{name}", real=True) for name in self.parameters}
        self._u = {name: Symbol(f"u__{name}", real=True) for name in self.inputs}
        self._symbols = [*self._phi.values(), *self._u.values()]
        self._compiled: dict[str, Callable[..., Any]] = {}
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
        symbols = {**self._theta, **self._x, self.target: Symbol(self.target)}
        spelled = {s: latex_of(name) or sympy.latex(Symbol(name)) for name, s in symbols.items()}
        left = spelled[symbols[self.target]]
        return f"{left} = {_powers_of_ten(sympy.latex(self.expression, symbol_names=spelled))}"

    def form(self, space: str) -> sympy.Expr:
        """Return the law in fit coordinates, as it is ("plain") or as its logarithm ("log")."""
        return self.log_form if space == "log" else self.plain_form

    def linear(self, space: str) -> tuple[str, ...]:
        """Return the parameters that jointly enter linearly.

        In "plain" the parameters themselves enter the law linearly; in "log" their fit coordinates (ln of the
        positive ones) enter its logarithm linearly.
        """
        return self._linear_log if space == "log" else self._linear_plain

    @cached_property
    def _linear_plain(self) -> tuple[str, ...]:
        return _jointly_linear(self._raw, self._theta)

    @cached_property
    def _linear_log(self) -> tuple[str, ...]:
        return _jointly_linear(self.log_form, self._phi)

    def evaluate(self, values: Sequence[Array], inputs: Sequence[Array]) -> Array:
        """Evaluate the law at parameter values in natural units."""
        if "direct" not in self._compiled:
            self._compiled["direct"] = _compile([*self._theta.values(), *self._u.values()], [self._raw])
        with np.errstate(all="ignore"):
            return np.asarray(self._compiled["direct"](*values, *self.enter(inputs))[0], dtype=float)

    def enter(self, inputs: Sequence[Array]) -> list[Array]:
        """Bring inputs into the coordinates of the compiled functions (logs where positive)."""
        with np.errstate(all="ignore"):
            return [np.log(v) if log else v for v, log in zip(inputs, self.input_logged, strict=True)]

    def function(self, space: str) -> Callable[[Array, Sequence[Array]], tuple[Array, Array]]:
        """Return f(phi, u) giving values (K, n) and the exact Jacobian (K, p, n).

        ``phi`` has shape (K, p), in fit coordinates; ``u`` holds the entered inputs, each of shape (n,) or (K, n).
        """
        if space not in self._compiled:
            form = self.form(space)
            outputs = [form, *(form.diff(symbol) for symbol in self._phi.values())]
            if any(output.has(*_UNREAL) for output in outputs):
                kind = "logarithm" if space == "log" else "value or derivative"
                raise LawError(f"{self.formula!r} has no real {kind}")
            self._compiled[space] = _compile(self._symbols, outputs)
        compiled = self._compiled[space]

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
        """For every parameter, its ways to act on the inputs inside nonlinear functions."""
        u = list(self._u.values())
        return {
            name: _scales_of(self.plain_form, symbol, set(self._phi.values()), u) for name, symbol in self._phi.items()
        }

    @cached_property
    def domains(self) -> tuple[tuple[int, int, Callable[[Sequence[Array]], Array]], ...]:
        """Parameters that a power or log keeps on one side of the rows, as x - m > 0: index, side, limits by row."""
        u, fitted = list(self._u.values()), set(self._phi.values())
        found: dict[tuple[int, int, sympy.Expr], None] = {}
        for node in sympy.preorder_traversal(self.plain_form):
            if isinstance(node, sympy.log) or (isinstance(node, sympy.Pow) and not node.exp.is_integer):
                base = sympy.expand(node.args[0])
                for j, (name, symbol) in enumerate(self._phi.items()):
                    place = sympy.exp(symbol) if name in self.positive else symbol
                    share = base.coeff(place)
                    rest = base - share * place
                    if share.is_number and share != 0 and rest.free_symbols and not rest.free_symbols & fitted:
                        found[j, 1 if share > 0 else -1, -rest / share] = None
        return tuple((j, side, _entered(u, limit)) for j, side, limit in found)


def _powers_of_ten(latex: str) -> str:
    r"""Write 108000000 as 108 \cdot 10^{6}."""

    def short(match: re.Match[str]) -> str:
        return ("" if match[1] == "1" else rf"{match[1]} \cdot ") + f"10^{{{len(match[2])}}}"

    return re.sub(r"\b([1-9]\d*?)(0{4,})\b", short, latex)


def _compile(arguments: list[Symbol], outputs: Sequence[sympy.Expr]) -> Callable[..., Any]:
    modules = [COMPILED, *(["scipy"] if any(o.has(sympy.erf) for o in outputs) else []), "numpy"]
    exact = {number for output in outputs for number in output.atoms(sympy.Rational)}
    long = {number: sympy.Float(number) for number in exact if max(abs(number.p), number.q) > _LONGEST}
    written = [output.xreplace(long) for output in outputs]
    return sympy.lambdify(arguments, written, modules=modules, cse=True, docstring_limit=0)


def _join_exponentials(expression: sympy.Expr) -> sympy.Expr:
    """Write exp(a) exp(b) as exp(a + b): one call instead of two for every row.

    This visits every part once, from the inside out. powsimp with deep=True visits a part twice as often as the part
    around it, which takes exponential time.
    """
    done: dict[sympy.Expr, sympy.Expr] = {}

    def joined(node: sympy.Expr) -> sympy.Expr:
        if node.args and node not in done:
            parts = [joined(part) for part in node.args]
            fresh = node if all(map(operator.is_, parts, node.args)) else node.func(*parts)
            done[node] = sympy.powsimp(fresh, combine="exp") if fresh.is_Mul else fresh
        return done.get(node, node)

    return joined(expression)


def _to_sympy(node: ast.AST, symbols: Mapping[str, Symbol]) -> sympy.Expr:
    match node:
        case ast.Constant(value=int() | float() as value):
            return sympy.Integer(value) if float(value).is_integer() and value < _LONGEST else sympy.Float(value)
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
    if result.has(*_UNREAL) or any(_is_huge(number) for number in result.atoms(sympy.Number)):
        raise LawError(f"{ast.unparse(node)!r} has no finite real value")
    return result


def _is_huge(number: sympy.Number) -> bool:
    parts = (number.p, number.q) if isinstance(number, sympy.Rational) else (number,)
    return any(abs(part) > _LARGEST for part in parts)


def _power(base: sympy.Expr, exponent: sympy.Expr) -> sympy.Expr:
    """Raise to a power without ever starting an exact one that would not end, such as (2*N)**(10**9)."""
    if base.is_negative and not exponent.is_integer:
        raise LawError("a negative number is raised to a power that is not whole: the law is not real")
    if exponent.is_number and abs(float(exponent)) > _LARGEST_EXPONENT:
        raise LawError(f"a law may not hold a power of {float(exponent):g}; the largest is {_LARGEST_EXPONENT}")
    if base.is_number and exponent.is_number and abs(float(exponent)) > 16:
        return sympy.Float(float(base) ** float(exponent))
    return base**exponent


def _necessarily_positive(
    expression: sympy.Expr, theta: Mapping[str, Symbol], x: Mapping[str, Symbol], target_positive: bool
) -> frozenset[str]:
    """Return parameters that must be positive for the law to be real: bases of powers, arguments of logs, the scale."""
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


def _jointly_linear(expression: sympy.Expr, symbols: Mapping[str, Symbol]) -> tuple[str, ...]:
    """Return names of symbols in which the expression is jointly affine.

    Starts from all symbols that enter linearly one by one. Drops the one that multiplies most others (the last on ties)
    until none multiplies another.
    """
    slopes = {name: expression.diff(symbol).free_symbols for name, symbol in symbols.items()}
    chosen = [name for name, symbol in symbols.items() if symbol not in slopes[name]]
    while chosen:
        met = {name: sum(symbols[other] in slopes[name] for other in chosen) for name in chosen}
        worst = max(reversed(chosen), key=met.__getitem__)
        if not met[worst]:
            break
        chosen.remove(worst)
    return tuple(chosen)


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
    compiled = _compile(u, [expression])

    def function(inputs: Sequence[Array]) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(compiled(*inputs)[0], dtype=float)

    return function
