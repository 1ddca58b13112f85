"""A law is its formula: one readable line that declares target, inputs and parameters."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from scalefit.errors import LawError
from scalefit.laws import expressions
from scalefit.vocabulary import BY_COLUMN, BY_SYMBOL, column_of, quantity_of

if TYPE_CHECKING:
    import pandas as pd

    from scalefit.laws.derivation import Derivation


@dataclass(frozen=True, eq=False)
class Law:
    r"""A scaling law, declared by its formula.

    The left side names the target, the right side is arithmetic over inputs and parameters. Letters of the
    vocabulary (eta, B, N, D, L, S, C) and its words (``lr``, ``tokens``, ...) are inputs; other names are parameters,
    unless the fitted table has a column of that name. From the formula follow, when first needed, the log form, the
    exact derivatives, the LaTeX and the parameters that enter linearly.

    Parameters
    ----------
    formula : str
        For example ``"eta = c * N**a * D**b"``. Functions: exp, log (= ln), sqrt, sin, ..., see
        `scalefit.laws.expressions.FUNCTIONS`.
    inputs : iterable of str, optional
        The names to read from the table, when the rule above would get them wrong. In a law for the loss, a letter
        that is only the coefficient of its own term, like B in ``E + A/N**alpha + B/D**beta``, is a parameter.
    positive : iterable of str
        Parameters known to be positive. They are fitted in logs.
    bounds : mapping of str to (float, float)
        Lower and upper bounds of parameters, in natural units; either may be infinite. They hold in every fit, unless
        the fit is given its own, and a parameter that ends on one is reported "at bound".
    meanings, units : mapping of str to str
        What a parameter means and its unit, for tables and reports. The formula itself is in the units of a `Sweep`:
        params and tokens as plain counts, the batch in tokens per step, the loss in nats per token.
    name : str
        Short name in the catalogue.
    source : str
        Paper and equation.

    Raises
    ------
    LawError
        If the formula is not on the allow-list or the declarations name something that is not in it.

    See Also
    --------
    scalefit.laws.catalog : the laws that have names
    scalefit.laws.get_law : a law from its name or formula

    Examples
    --------
    >>> import scalefit as sf
    >>> law = sf.Law("eta = c * N**a * D**b")
    >>> law.target, law.inputs, law.parameters
    ('eta', ('N', 'D'), ('c', 'a', 'b'))
    >>> law({"c": 1.79, "a": -0.713, "b": 0.307}, {"params": [1e9], "tokens": [1e11]}).round(6)
    array([0.001632])
    """

    formula: str
    inputs: tuple[str, ...] = None  # type: ignore[assignment]  # resolved below
    positive: Set[str] = frozenset()
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    meanings: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "formula", " ".join(str(self.formula).split()))
        declared = None if self.inputs is None else tuple(self.inputs)
        put(self, "positive", frozenset(self.positive))
        for attribute in ("bounds", "meanings", "units"):
            put(self, attribute, MappingProxyType(dict(getattr(self, attribute) or {})))
        self._check_names("inputs", declared or ())
        put(self, "inputs", declared if declared is not None else self._inputs_by_vocabulary())
        for attribute in ("positive", "bounds", "meanings", "units"):
            self._check_names(attribute, getattr(self, attribute))
        for name, (low, high) in self.bounds.items():
            if not low < high:
                raise LawError(f"bounds of {name}: expected low < high, found ({low}, {high})")

    def _check_names(self, what: str, given: Iterable[str]) -> None:
        for name in given:
            if name not in self.names:
                raise LawError(
                    f"{what} names {name!r}, which is not in {self.formula!r} (there: {', '.join(self.names)})"
                )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Law) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __reduce__(self) -> tuple[Any, ...]:
        return Law.from_dict, (self.to_dict(),)

    @property
    def key(self) -> tuple[str, tuple[str, ...], frozenset[str]]:
        """What the derivation depends on."""
        return self.formula, self.inputs, frozenset(self.positive)

    @cached_property
    def _sides(self) -> tuple[str, ast.expr]:
        left, equals, right = self.formula.partition("=")
        target = left.strip()
        if not equals or "=" in right or not target.isidentifier():
            raise LawError(f"{self.formula!r}: expected 'target = expression', for example 'eta = c * N**a * D**b'")
        expressions.check_name(target)
        tree = expressions.parse(right)
        if target in expressions.names(tree):
            raise LawError(f"{self.formula!r}: the target {target!r} also stands on the right side")
        return target, tree

    @property
    def target(self) -> str:
        """The name on the left side."""
        return self._sides[0]

    @property
    def tree(self) -> ast.expr:
        """The checked syntax tree of the right side."""
        return self._sides[1]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All names of the right side, in order of appearance."""
        return expressions.names(self.tree)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names that are fitted: all that are not inputs."""
        return tuple(name for name in self.names if name not in self.inputs)

    def _inputs_by_vocabulary(self) -> tuple[str, ...]:
        known = [name for name in self.names if name in BY_SYMBOL or name in BY_COLUMN]
        if column_of(self.target) == "loss":
            known = [name for name in known if not _is_bare_coefficient(self.tree, name, frozenset(known))]
        return tuple(known)

    def bind(self, columns: Iterable[str]) -> Law:
        """Return the law with every name that is a column of the table read as an input.

        Parameters
        ----------
        columns : iterable of str
            Names of the table's columns.

        Returns
        -------
        Law

        Raises
        ------
        LawError
            If an input has no column.

        Examples
        --------
        >>> import scalefit as sf
        >>> sf.Law("eta = c * width**a").bind(["width", "lr"]).inputs
        ('width',)
        """
        columns = list(columns)
        inputs = tuple(n for n in self.names if n in self.inputs or (n in columns and n not in self._settled))
        for name in inputs:
            if name not in columns and column_of(name) not in columns:
                raise LawError(_missing_input(self, name, columns))
        return self if inputs == self.inputs else replace(self, inputs=inputs)

    @property
    def _settled(self) -> frozenset[str]:
        """The names already known to be parameters, which no column of a table can turn into inputs."""
        return frozenset(self.positive) | self.bounds.keys() | self.meanings.keys() | self.units.keys()

    def read_inputs(self, table: Mapping[str, Any] | pd.DataFrame) -> list[np.ndarray]:
        """Return the input columns of a table as float arrays, in the order of `inputs`.

        Raises
        ------
        LawError
            If a column is missing or holds anything but numbers.
        """
        found = []
        for name in self.inputs:
            column = column_of(name) if column_of(name) in table else name
            if column not in table:
                raise LawError(_missing_input(self, name, [str(column) for column in table]))
            try:
                found.append(np.asarray(table[column], dtype=float))
            except (TypeError, ValueError) as error:
                raise LawError(f"{self.formula!r} needs numbers in column {column!r}: {error}") from None
        return found

    @cached_property
    def derivation(self) -> Derivation:
        """What sympy derives from the formula; computed once for each formula and process."""
        from scalefit.laws.derivation import derive

        return derive(*self.key)

    def __call__(self, values: Mapping[str, Any], table: Mapping[str, Any] | pd.DataFrame) -> np.ndarray:
        """Evaluate the law.

        Parameters
        ----------
        values : mapping of str to float or array_like (K,)
            A value, or K values, for every parameter.
        table : mapping of str to array_like (n,)
            Columns (or symbols) with the inputs.

        Returns
        -------
        numpy.ndarray
            Shape (n,), or (K, n) when the values are arrays.

        Raises
        ------
        LawError
            If a parameter has no value, or an input no column of numbers.

        Examples
        --------
        >>> import scalefit as sf
        >>> sf.Law("eta = c * N**a")({"c": 2.0, "a": -0.5}, {"params": [1e4, 1e6]})
        array([0.02 , 0.002])
        """
        law = self if set(values) >= set(self.parameters) else self.bind(str(column) for column in table)
        absent = [name for name in law.parameters if name not in values]
        if absent:
            raise LawError(f"no value for {', '.join(absent)} in {self.formula!r}; given: {', '.join(values)}")
        given = [np.asarray(values[name], dtype=float) for name in law.parameters]
        stacked = any(value.ndim for value in given)
        sets = [value.reshape(-1, 1) if stacked else value for value in given]
        inputs = law.read_inputs(table)
        shape = np.broadcast_shapes(*(array.shape for array in (*sets, *inputs)))
        return np.broadcast_to(law.derivation.evaluate(sets, inputs), shape)

    def written(self, values: Mapping[str, float], digits: int = 4) -> str:
        """Return the formula with numbers in place of parameters.

        Parameters
        ----------
        values : mapping of str to float
            Values of parameters; a name without one stays.
        digits : int
            Significant digits.

        Returns
        -------
        str

        Examples
        --------
        >>> import scalefit as sf
        >>> sf.Law("eta = c * N**a").written({"c": 1.79, "a": -0.71298})
        'eta = 1.79 * N ** (-0.713)'
        """

        class Insert(ast.NodeTransformer):
            def visit_Name(self, node: ast.Name) -> ast.expr:
                return ast.parse(f"{values[node.id]:.{digits}g}", mode="eval").body if node.id in values else node

        fresh = expressions.parse(self.formula.partition("=")[2])
        return f"{self.target} = {ast.unparse(Insert().visit(fresh))}"

    def to_latex(self) -> str:
        r"""Return the law as LaTeX, in the letters of the vocabulary.

        Examples
        --------
        >>> import scalefit as sf
        >>> print(sf.Law("eta = c * N**a").to_latex())
        \eta = c N^{a}
        """
        return self.derivation.latex

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` needs to rebuild the law; plain values only."""
        return {
            "formula": self.formula,
            "inputs": list(self.inputs),
            "positive": sorted(self.positive),
            "bounds": {name: list(pair) for name, pair in self.bounds.items()},
            "meanings": dict(self.meanings),
            "units": dict(self.units),
            "name": self.name,
            "source": self.source,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Law:
        """Rebuild a law from `to_dict`; the formula passes through the parser again.

        Raises
        ------
        LawError
            If the formula is not a law.

        Examples
        --------
        >>> import scalefit as sf
        >>> law = sf.Law("eta = c * N**a", positive={"c"})
        >>> sf.Law.from_dict(law.to_dict()) == law
        True
        """
        bounds = {name: (float(low), float(high)) for name, (low, high) in record.get("bounds", {}).items()}
        rest = {key: record[key] for key in ("meanings", "units", "name", "source") if key in record}
        return cls(record["formula"], tuple(record["inputs"]), frozenset(record["positive"]), bounds, **rest)

    def __repr__(self) -> str:
        label = f", name={self.name!r}" if self.name else ""
        return f"Law({self.formula!r}, inputs={self.inputs!r}{label})"

    def _repr_latex_(self) -> str:
        return f"${self.to_latex()}$"


def _missing_input(law: Law, name: str, columns: list[str]) -> str:
    quantity = quantity_of(name)
    words = f"{name} ({quantity.meaning}, column {quantity.column!r})" if quantity else f"column {name!r}"
    return (
        f"{law.formula!r} needs {words}; the table has: {', '.join(map(str, columns))}. "
        f"Rename the column, or say which names are inputs with Law(..., inputs=[...])"
    )


def _is_bare_coefficient(tree: ast.expr, name: str, known: frozenset[str]) -> bool:
    """Tell whether a vocabulary letter is only the coefficient of its own term in a sum.

    Such a letter stands once, to the first power, in a term whose other factors hold no parameter as a factor: read
    as an input it would leave the term without a scale.
    """
    sums = [terms for node in ast.walk(tree) if len(terms := _terms(node)) > 1]
    homes = [term for terms in sums for term in terms if name in expressions.names(term)]
    if not homes or _count(tree, name) != 1:
        return False
    numerator, denominator = _factors(homes[-1])  # innermost term: ast.walk goes inwards
    plain = [f.id for f in numerator if isinstance(f, ast.Name)]
    others = [f.id for f in (*numerator, *denominator) if isinstance(f, ast.Name) and f.id not in known]
    return name in plain and not others


def _count(tree: ast.expr, name: str) -> int:
    return sum(isinstance(node, ast.Name) and node.id == name for node in ast.walk(tree))


def _terms(tree: ast.AST) -> list[ast.expr]:
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Add | ast.Sub):
        return _terms(tree.left) + _terms(tree.right)
    return [tree] if isinstance(tree, ast.expr) else []


def _factors(tree: ast.expr) -> tuple[list[ast.expr], list[ast.expr]]:
    """Return the factors above and below the fraction line of a product."""
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Mult | ast.Div):
        left, right = _factors(tree.left), _factors(tree.right)
        if isinstance(tree.op, ast.Div):
            right = right[::-1]
        return left[0] + right[0], left[1] + right[1]
    return [tree], []
