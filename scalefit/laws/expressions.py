"""Expressions in text, read by an allow-list over Python's syntax tree; nothing is ever executed.

Two kinds exist: arithmetic (the right-hand side of a law) and conditions (``params < 1e9 and optimizer == "adamw"``).
`parse` refuses everything that is not on the list: attributes, subscripts, lambdas, keyword arguments, strings in
arithmetic, unknown functions, names with double underscores, and texts long or deep enough to be an attack.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from types import MappingProxyType
from typing import Any

import numpy as np

from scalefit.errors import LawError

FUNCTIONS: Mapping[str, int] = MappingProxyType(
    {
        **dict.fromkeys(("exp", "log", "ln", "log2", "log10", "sqrt", "abs", "erf"), 1),
        **dict.fromkeys(("sin", "cos", "tan", "asin", "acos", "atan", "arctan", "sinh", "cosh", "tanh"), 1),
        "min": 2,
        "max": 2,
    }
)
"""Functions an expression may call, and how many arguments each takes."""

CONSTANTS: Mapping[str, float] = MappingProxyType({"pi": float(np.pi)})
"""Names that stand for numbers."""

_MAX_LENGTH, _MAX_NODES, _MAX_DEPTH = 2000, 400, 60
_MAX_CALLS = 8  # deep enough for any law; the time for derivatives grows with a power of the depth
_LARGEST = 1e300
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_TEXTS = re.compile(r'"[^"]*"|\'[^\']*\'')
_NUMBER = re.compile(r"(?<![\w.])[0-9][\w.]*|\.[0-9][\w.]*")  # with all letters that follow
_WHOLE_NUMBER = re.compile(r"0[xX][0-9a-fA-F_]+|0[oObB][0-9_]+|[0-9_]*\.?[0-9_]*([eE][0-9_]*)?[jJ]?")
_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)
_COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)


def parse(text: str, *, condition: bool = False) -> ast.expr:
    """Read an expression and return its checked syntax tree.

    Parameters
    ----------
    text : str
        Arithmetic such as ``"E + A/N**alpha"``, or a condition such as ``"params < 1e9"``.
    condition : bool
        Allow comparisons, ``and``, ``or``, ``not`` (also ``&``, ``|``, ``~``) and strings.

    Raises
    ------
    LawError
        If the text is not an expression or uses anything that is not on the allow-list.

    Examples
    --------
    >>> names(parse("c * N**a"))
    ('c', 'N', 'a')
    >>> parse("().__class__")
    Traceback (most recent call last):
    scalefit.errors.LawError: '().__class__': attribute access is not allowed in an expression
    """
    if not isinstance(text, str):
        raise LawError(f"expected an expression as text, found {type(text).__name__}")
    if len(text) > _MAX_LENGTH:
        raise LawError(f"an expression may have {_MAX_LENGTH} characters, this one has {len(text)}")
    if not (condition or text.isascii()):
        strange = next(character for character in text if not character.isascii())
        raise LawError(f"{_shorten(text)!r}: {strange!r} is not allowed; letters are written out, as in eta or alpha")
    _check_letters(text)
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError, Warning) as error:
        reason = getattr(error, "msg", None) or str(error) or type(error).__name__
        raise LawError(f"{_shorten(text)!r} is not an expression: {reason}") from None
    _measure(tree, text)
    _check(tree, text, condition)
    if not condition and (deep := _calls(tree)) > _MAX_CALLS:
        raise LawError(
            f"{_shorten(text)!r} nests functions {deep} deep, expected at most {_MAX_CALLS}; "
            "write the law with fewer of them inside each other"
        )
    return tree


def _check_letters(text: str) -> None:
    """Refuse what Python reads with no more than a warning, such as "1or 2".

    Warnings cannot be made errors here: their filters belong to all threads of the process.
    """
    if "\\" in text:
        raise LawError(f"{_shorten(text)!r} is not an expression: it holds a backslash")
    for found in _NUMBER.finditer(_TEXTS.sub('""', text)):
        if not _WHOLE_NUMBER.fullmatch(found[0]):
            raise LawError(f"{_shorten(text)!r} is not an expression: {_shorten(found[0])!r} is not a number")


def _calls(node: ast.AST) -> int:
    """Return how many functions stand inside each other."""
    return isinstance(node, ast.Call) + max(map(_calls, ast.iter_child_nodes(node)), default=0)


def names(tree: ast.expr) -> tuple[str, ...]:
    """Return the variable names of a checked tree in order of appearance, without functions and constants."""
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called]
    found.sort(key=lambda node: (node.lineno, node.col_offset))
    return tuple(dict.fromkeys(node.id for node in found if node.id not in CONSTANTS))


def evaluate_condition(text: str, columns: Mapping[str, Any]) -> np.ndarray:
    """Evaluate a condition on columns of equal length and return a boolean array.

    Parameters
    ----------
    text : str
        A condition such as ``"params < 1e9 and tokens >= 2e9"``.
    columns : mapping of str to array_like
        The columns the condition may name.

    Raises
    ------
    LawError
        If the text is not a condition or names a column that is not there.

    Examples
    --------
    >>> evaluate_condition("params < 1e9", {"params": [1e8, 1e10]})
    array([ True, False])
    """
    tree = parse(text, condition=True)
    for name in names(tree):
        if name not in columns:
            raise LawError(f"{_shorten(text)!r} names {name!r}, which is not a column; there are: {', '.join(columns)}")
    try:
        with np.errstate(all="ignore"):
            result = np.asarray(_walk(tree, columns))
    except (TypeError, ValueError, OverflowError) as error:
        raise LawError(f"{_shorten(text)!r} cannot be evaluated on this table: {error}") from None
    if result.dtype != bool:
        raise LawError(f"{_shorten(text)!r} is not a condition: expected a comparison such as 'params < 1e9'")
    return result


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def _measure(tree: ast.expr, text: str) -> None:
    nodes, level, depth = 0, [tree], 0
    while level:
        nodes, depth = nodes + len(level), depth + 1
        if nodes > _MAX_NODES or depth > _MAX_DEPTH:
            raise LawError(f"{_shorten(text)!r} is too long or too deeply nested for a law")
        level = [child for node in level for child in ast.iter_child_nodes(node)]  # type: ignore[misc]


def _check(tree: ast.expr, text: str, condition: bool) -> None:
    """Refuse everything that is not on the allow-list, saying which it was."""
    try:
        _visit(tree, condition)
    except LawError as error:
        raise LawError(f"{_shorten(text)!r}: {error}") from None


def _visit(node: ast.AST, condition: bool) -> bool:
    """Check a node and all below it; return whether it is a constant."""
    children = _operands(node, condition)
    constants = [_visit(child, condition) for child in children]
    constant = all(constants) and not (isinstance(node, ast.Name) and node.id not in CONSTANTS)
    if constant and children and not condition:
        with np.errstate(all="ignore"):
            value = float(_walk(node, {}))
        if not abs(value) < _LARGEST:
            raise LawError(f"{ast.unparse(node)} is not a finite real number")
    return constant


def _operands(node: ast.AST, condition: bool) -> Sequence[ast.AST]:
    """Return what an allowed node is made of."""
    match node:
        case ast.BinOp(op=op) if isinstance(op, _ARITHMETIC) or (condition and isinstance(op, ast.BitAnd | ast.BitOr)):
            return node.left, node.right
        case ast.UnaryOp(op=op) if isinstance(op, ast.UAdd | ast.USub) or condition:
            return (node.operand,)
        case ast.BoolOp() if condition:
            return node.values
        case ast.Compare() if condition and all(isinstance(op, _COMPARISONS) for op in node.ops):
            return node.left, *node.comparators
        case ast.Call(func=ast.Name(id=name), keywords=[]):
            if name not in FUNCTIONS:
                raise LawError(f"unknown function {name!r}; allowed are {', '.join(FUNCTIONS)}")
            if len(node.args) != FUNCTIONS[name]:
                raise LawError(f"{name} takes {FUNCTIONS[name]} argument(s), not {len(node.args)}")
            return node.args
        case ast.Name(id=name):
            check_name(name)
            return ()
        case ast.Constant(value=value):
            _check_constant(value, condition)
            return ()
        case ast.Attribute():
            raise LawError("attribute access is not allowed in an expression")
    raise LawError(f"{type(node).__name__} is not allowed in an expression")


def check_name(name: str) -> None:
    """Raise `LawError` unless the name may stand for a variable."""
    if not _NAME.match(name) or "__" in name:
        raise LawError(f"{name!r} is not a plain name (letters, digits, single underscores)")
    if name in FUNCTIONS:
        raise LawError(f"{name!r} is a function; call it or choose another name")


def _check_constant(value: object, condition: bool) -> None:
    if isinstance(value, str) and condition:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LawError(f"{value!r} is not a number")
    if not abs(value) < _LARGEST:
        raise LawError("a number is too large")


_BINARY: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
    ast.BitAnd: np.logical_and,
    ast.BitOr: np.logical_or,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
}
_CALLS: Mapping[str, Callable[..., Any]] = {
    **{name: getattr(np, name) for name in FUNCTIONS if hasattr(np, name) and name not in ("min", "max")},
    "ln": np.log,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "min": np.minimum,
    "max": np.maximum,
    "erf": np.vectorize(math.erf, otypes=[float]),
}


def _walk(node: ast.AST, columns: Mapping[str, Any]) -> Any:
    """Evaluate a checked tree with numpy."""
    match node:
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.Constant():
            return node.value
        case ast.Name(id=name):
            return CONSTANTS[name] if name in CONSTANTS else np.asarray(columns[name])
        case ast.UnaryOp(op=ast.USub()):
            return -_walk(node.operand, columns)
        case ast.UnaryOp(op=ast.Not() | ast.Invert()):
            return np.logical_not(_truth(node.operand, columns))
        case ast.UnaryOp():
            return _walk(node.operand, columns)
        case ast.BinOp(op=ast.BitAnd() | ast.BitOr()):
            return _BINARY[type(node.op)](_truth(node.left, columns), _truth(node.right, columns))
        case ast.BinOp():
            return _BINARY[type(node.op)](_walk(node.left, columns), _walk(node.right, columns))
        case ast.BoolOp():
            join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            return reduce(join, [_truth(value, columns) for value in node.values])
        case ast.Compare():
            values = [_walk(side, columns) for side in (node.left, *node.comparators)]
            parts = [_compare(op, a, b) for op, a, b in zip(node.ops, values, values[1:], strict=False)]
            return reduce(np.logical_and, parts)
        case ast.Call(func=ast.Name(id=name)):
            return _CALLS[name](*(_walk(arg, columns) for arg in node.args))
    raise LawError(f"{type(node).__name__} is not allowed in an expression")


def _truth(node: ast.AST, columns: Mapping[str, Any]) -> Any:
    """Evaluate an operand of and, or, not; refuse numbers, since ``a < 1 & b > 2`` means ``a < (1 & b) > 2``."""
    value = np.asarray(_walk(node, columns))
    if value.dtype != bool:
        raise LawError(
            f"{ast.unparse(node)!r} is neither true nor false; join comparisons with 'and' and 'or', "
            f"or put each in parentheses: (params < 1e9) & (tokens > 1e10)"
        )
    return value


def _compare(op: ast.cmpop, left: Any, right: Any) -> Any:
    if isinstance(op, ast.Eq | ast.NotEq):  # texts can be compared too
        equal = np.asarray(left == right)
        return equal if isinstance(op, ast.Eq) else ~equal
    return _BINARY[type(op)](left, right)
