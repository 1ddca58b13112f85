"""What a user asked of the parameters of a fit: starts, bounds, fixed values and ties."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from scalefit.errors import FitError, LawError
from scalefit.laws import expressions
from scalefit.laws.formula import Law

if TYPE_CHECKING:
    import lmfit


@dataclass(frozen=True)
class Settings:
    """What a user asked of the parameters."""

    start: Mapping[str, float] = field(default_factory=dict)
    fixed: Mapping[str, float] = field(default_factory=dict)
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    ties: Mapping[str, str] = field(default_factory=dict)  # parameter = expression of the others


def read_settings(params: lmfit.Parameters | None, start: Mapping[str, float] | None, law: Law) -> Settings:
    """Read what the user gave: starts by name, and everything an lmfit.Parameters can say."""
    start = dict(start or {})
    _check_known("start", start, law)
    strange = [name for name, value in start.items() if not _is_finite(value)]
    if strange:
        raise FitError(f"start of {strange[0]}: expected a finite number, found {start[strange[0]]!r}")
    if params is None:
        return Settings(start, {}, dict(law.bounds), {})
    _check_known("params", params, law)
    ties = {name: p.expr for name, p in params.items() if p.expr}
    fixed = {name: float(p.value) for name, p in params.items() if not p.vary and not p.expr}
    given = {n: float(p.value) for n, p in params.items() if p.vary and not p.expr and np.isfinite(p.value)}
    limits = {n: (float(p.min), float(p.max)) for n, p in params.items() if np.isfinite([p.min, p.max]).any()}
    bounded = [name for name in ties if name in limits]
    if bounded:
        raise FitError(f"{bounded[0]} is tied and bounded; bound the parameters its tie is made of instead")
    # `start` is the plainer wish: it wins over the values that every lmfit parameter has.
    return Settings(given | start, fixed, dict(law.bounds) | limits, ties)


def _is_finite(value: Any) -> bool:
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError):
        return False


def _check_known(what: str, names: Any, law: Law) -> None:
    for name in names:
        if name not in law.parameters:
            raise FitError(f"{what} names {name!r}; the parameters of {law.formula!r} are {', '.join(law.parameters)}")


def write_ties(law: Law, ties: Mapping[str, str]) -> tuple[Law, dict[str, str]]:
    """Return the law of the remaining parameters, and every tie as an expression of those alone."""
    trees: dict[str, ast.expr] = {}
    for name, text in ties.items():
        try:
            trees[name] = expressions.parse(text)
        except LawError as error:
            raise FitError(f"the tie of {name}: {error}") from None
        strange = [n for n in expressions.names(trees[name]) if n not in law.parameters]
        if strange:
            raise FitError(f"the tie {name} = {text} names {', '.join(strange)}; parameters are {law.parameters}")
    for _ in ties:  # a chain of ties is at most this long
        trees = {name: _substitute(tree, trees) for name, tree in trees.items()}
    circular = [name for name, tree in trees.items() if set(expressions.names(tree)) & ties.keys()]
    if circular:
        raise FitError(f"the ties of {', '.join(circular)} run in a circle")
    # Written into the formula, a tie has exact derivatives and the solver never hears of the tied parameter.
    body = ast.unparse(_substitute(expressions.parse(law.formula.partition("=")[2]), trees))
    kept = law.to_dict() | {"formula": f"{law.target} = {body}"}
    for key in ("positive", "bounds", "meanings", "units"):
        names = [name for name in kept[key] if name not in ties]
        kept[key] = {name: kept[key][name] for name in names} if isinstance(kept[key], dict) else names
    return Law.from_dict(kept), {name: ast.unparse(tree) for name, tree in trees.items()}


def _substitute(tree: ast.expr, replaced: Mapping[str, ast.expr]) -> ast.expr:
    class Substitute(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return replaced.get(node.id, node)

    # A fresh tree every time: one node in two places would be changed twice.
    return expressions.parse(ast.unparse(Substitute().visit(expressions.parse(ast.unparse(tree)))))
