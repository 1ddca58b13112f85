"""What a prediction owes to values that were fixed, not fitted: how it moves with them, how far the data disagree."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from scalefit._values import Note, Observations
from scalefit.errors import ScalefitError, ScalefitWarning
from scalefit.fitting.fit_law import fit_law
from scalefit.fitting.fit_result import Fit
from scalefit.laws import expressions
from scalefit.laws.formula import Law
from scalefit.solvers.distributions import t_quantile
from scalefit.vocabulary import format_error, format_number

Array = np.ndarray

_STEP = 0.1
"""By which share of itself a fixed value is moved."""
_HEAVY = 0.5
"""A value matters when that step moves the prediction by more than this share of its half-width."""
_FELT = 0.5
"""How much of a log of the prediction may rest on a value that no data speak of before that is a caution."""

COLUMNS = (
    *("setting", "parameter", "fixed", "preferred", "preferred_stderr", "z", "point"),
    *("moved_by", "freed_by", "freed_lo", "freed_hi"),
)


def fixed_values(laws: Mapping[str, Fit], table: pd.DataFrame, level: float) -> tuple[pd.DataFrame, list[Note]]:
    """Return what the predictions of a forecast owe to every fixed value, and a note on each value."""
    parts, notes, table = [pd.DataFrame(columns=list(COLUMNS))], [], table.reset_index(drop=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScalefitWarning)
        for setting, fit in laws.items():
            opened = _Opened(fit)
            for name in opened.fixed:
                part = opened.freed(name, table, level).assign(setting=setting, parameter=name)[list(COLUMNS)]
                notes.append(_note(part, table, setting, opened.meaning(name), fit.dof - 1))
                parts.append(part)
    found = parts[1:] or parts
    return pd.concat(found, ignore_index=True), notes


@dataclass(frozen=True, eq=False)
class _Opened:
    """A fit whose law has a parameter in place of every fixed exponent, so that all that is fixed can be freed."""

    fit: Fit

    @cached_property
    def _parts(self) -> tuple[Law, dict[str, float]]:
        return open_exponents(self.fit.law)

    @cached_property
    def fixed(self) -> dict[str, float]:
        """Parameters the user fixed, and exponents that the formula holds as numbers."""
        states = zip(self.fit.law.parameters, self.fit.states, strict=True)
        return {name: self.fit.values[name] for name, state in states if state == "fixed"} | self._parts[1]

    def meaning(self, name: str) -> str:
        return f"the exponent of {name.partition('_exponent')[0]}" if name in self._parts[1] else name

    def refit(self, fixed: Mapping[str, float]) -> Fit:
        """Fit the opened law to the same rows, with these values fixed and every other parameter free."""
        import lmfit

        fit, (law, exponents) = self.fit, self._parts
        own, params = fit.params, lmfit.Parameters()
        for name in law.parameters:
            old = own.get(name)
            params.add(name, value=exponents[name] if old is None else old.value)
            if old is not None and old.vary:
                params[name].set(min=old.min, max=old.max)
            if name in fixed:
                params[name].set(value=fixed[name], vary=False)
        named = {str(name): fit.labels[name] for name in fit.labels if name not in fit.known}
        rows = Observations(
            fit.known.assign(**named), fit.weights, data_unit=fit.data_unit, censored=fit.censored, errors=fit.errors
        )
        return fit_law(law, rows, loss=fit.loss, space=fit.space, params=params, shrink=fit.shrinkage or False)

    @cached_property
    def _as_fixed(self) -> Fit:
        return self.refit(self.fixed)

    def freed(self, name: str, table: pd.DataFrame, level: float) -> pd.DataFrame:
        """Return what the data prefer to a fixed value, and by what factors predictions move with it."""
        value, others = self.fixed[name], {n: v for n, v in self.fixed.items() if n != name}
        step = _STEP * value if value else _STEP
        row = dict.fromkeys(COLUMNS, np.nan) | {"fixed": value, "point": np.arange(len(table))}
        as_fixed = self._as_fixed.predict(table)["prediction"]
        try:
            row["moved_by"] = self.refit({**others, name: value + step}).predict(table)["prediction"] / as_fixed
            found = self.refit(others)
        except ScalefitError:  # a value outside its domain, or too few rows to free one more parameter
            return pd.DataFrame(row)
        j = found.law.parameters.index(name)
        error = np.sqrt(found.covariance[j, j])
        if found.states[j] != "free" or not 0 < error < np.inf:
            return pd.DataFrame(row)
        # In fit coordinates, where the errors are symmetric.
        at = found.law.derivation.to_fit(np.array([{**found.values, name: value}[n] for n in found.law.parameters]))
        freed = found.predict(table, level=level)
        stderr = found.table.set_index("parameter").at[name, "stderr"]
        row |= {"preferred": found.values[name], "preferred_stderr": stderr, "z": (at[j] - found.phi[j]) / error}
        row |= {"freed_by": freed["prediction"] / as_fixed, "freed_lo": freed["lo"], "freed_hi": freed["hi"]}
        return pd.DataFrame(row)


def open_exponents(law: Law) -> tuple[Law, dict[str, float]]:
    """Return a law with a parameter in place of every number that is the exponent of inputs, and those numbers.

    Examples
    --------
    >>> opened, exponents = open_exponents(Law("eta = c * sqrt(B) * (N/1e9)**-0.25 * D**b"))
    >>> opened.formula, exponents
    ('eta = c * B ** B_exponent * (N / 1000000000.0) ** N_exponent * D ** b', {'B_exponent': 0.5, 'N_exponent': -0.25})
    """
    found: dict[str, float] = {}
    tree = _Open(law, found).visit(expressions.parse(ast.unparse(law.tree)))
    if not found:
        return law, found
    return replace(law, formula=f"{law.target} = {ast.unparse(tree)}", name=""), found


class _Open(ast.NodeTransformer):
    """Replaces the exponents."""

    def __init__(self, law: Law, found: dict[str, float]) -> None:
        self._law, self._found = law, found

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        if isinstance(node.op, ast.Pow) and self._is_power(node.left) and not expressions.names(node.right):
            value = Law(f"x = {ast.unparse(node.right)}", inputs=()).derivation.evaluate([], [])
            return self._power(node.left, float(value))
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id == "sqrt" and self._is_power(node.args[0]):
            return self._power(node.args[0], 0.5)
        return self.generic_visit(node)

    def _is_power(self, base: ast.expr) -> bool:
        """Tell whether a base is an input, or a product or ratio of inputs and numbers."""
        if isinstance(base, ast.BinOp):
            return (
                isinstance(base.op, ast.Mult | ast.Div)
                and bool(expressions.names(base))
                and all(self._is_power(part) or isinstance(part, ast.Constant) for part in (base.left, base.right))
            )
        return isinstance(base, ast.Name) and base.id in self._law.inputs

    def _power(self, base: ast.expr, value: float) -> ast.AST:
        name = "_".join((*expressions.names(base), "exponent"))
        while name in self._found or name in self._law.names:
            name += "_too"
        self._found[name] = value
        return ast.BinOp(base, ast.Pow(), ast.Name(name, ast.Load()))


def _note(part: pd.DataFrame, table: pd.DataFrame, setting: str, name: str, dof: int) -> Note:
    """Say in a sentence what the predictions owe to one fixed value, at the point that owes most."""
    with np.errstate(all="ignore"):
        moved, freed = (np.log(part[column].astype(float).to_numpy()) for column in ("moved_by", "freed_by"))
        half = np.log(table[f"{setting}_hi"].to_numpy() / table[f"{setting}_lo"].to_numpy()) / 2
    k = int(np.nan_to_num(np.abs(moved)).argmax())
    row = part.iloc[k]
    text = f"{setting}: {name} is fixed at {format_number(row['fixed'])}"
    if np.isfinite(moved[k]):
        text += f"; {_STEP:.0%} more of it moves the prediction by {format_number(np.exp(moved[k]), 3)}x"
        text += f" (interval {format_number(np.exp(half[k]), 3)}x either way)" if np.isfinite(half[k]) else ""
    if not np.isfinite(row["z"]):
        # Nothing says how wrong the value may be, so all of its share in the prediction is in doubt.
        text += "; the data cannot tell what it is: this share of the prediction is your assumption"
        return Note("fixed", text, caution=not abs(moved[k]) / _STEP <= _FELT)
    against = abs(row["z"]) > t_quantile(0.95, dof)
    text += f"; the data prefer {format_error(row['preferred'], row['preferred_stderr'])}, which gives "
    text += f"{format_number(row['freed_by'], 3)}x the prediction; the fixed value lies "
    text += f"{format_number(abs(row['z']), 2)} standard errors from it" + (", and they reject it" if against else "")
    heavy = abs(moved[k]) > _HEAVY * half[k] or not abs(freed[k]) <= half[k]
    return Note("fixed", text, caution=bool(against or heavy))
