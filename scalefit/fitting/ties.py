"""Tied parameters are written into the formula, so that they have exact derivatives like everything else."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from scalefit import expressions
from scalefit.errors import FitError, LawError
from scalefit.laws.formula import Law


def write_ties(law: Law, ties: Mapping[str, str]) -> tuple[Law, dict[str, str]]:
    """Return the law of the remaining parameters, and every tie as an expression of those alone.

    Parameters
    ----------
    law : Law
    ties : mapping of str to str
        Parameter = expression of other parameters, which may be tied themselves.

    Raises
    ------
    FitError
        If a tie is not arithmetic over parameters of the law, or ties run in a circle.

    Examples
    --------
    >>> write_ties(Law("L = E + A/N**alpha + B/D**beta"), {"beta": "2 * alpha"})[0].formula
    'L = E + A / N ** alpha + B / D ** (2 * alpha)'
    """
    if not ties:
        return law, {}
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
