"""Sign, maximum and absolute value for sympy, whose own spend long on which arguments are real or larger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import sympy


class Sign(sympy.Function):
    """-1, 0 or 1; sympy.sign and sympy.Heaviside spend long on whether their argument is real."""

    nargs = 1

    @classmethod
    def eval(cls, a: sympy.Expr) -> sympy.Expr | None:
        """Return the sign of a number; anything else stays as it is."""
        return sympy.sign(a) if a.is_number else None


class Larger(sympy.Function):
    """The larger of two values; sympy.Max tries to order its arguments, which takes minutes when they are nested."""

    nargs = 2

    @classmethod
    def eval(cls, a: sympy.Expr, b: sympy.Expr) -> sympy.Expr | None:
        """Return the larger of two numbers; anything else stays as it is."""
        return sympy.Max(a, b) if a.is_number and b.is_number else None

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        """Return the slope in an argument: 1 where it is the larger, a half where both are equal."""
        a, b = self.args
        return (1 + Sign(a - b if argindex == 1 else b - a)) / 2

    def _latex(self, printer: Any, exp: str | None = None) -> str:  # sympy's printer calls a method of this name
        power = "" if exp is None else f"^{{{exp}}}"
        return rf"\max{power}\left({', '.join(printer._print(a) for a in self.args)}\right)"


class Size(sympy.Function):
    """The absolute value of an argument that may not be real, as a logarithm; sympy.Abs uses real parts."""

    nargs = 1
    is_extended_nonnegative = True

    @classmethod
    def eval(cls, a: sympy.Expr) -> sympy.Expr | None:
        """Return sympy's own absolute value of what is known to be real."""
        return sympy.Abs(a) if a.is_extended_real else None

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        """Return the slope."""
        return Sign(self.args[0])

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        power = "" if exp is None else f"^{{{exp}}}"
        return rf"\left|{{{printer._print(self.args[0])}}}\right|{power}"


COMPILED: Mapping[str, Callable[..., Any]] = {"Larger": np.maximum, "Size": np.abs, "Sign": np.sign}
"""What these functions are compiled to, by the names under which sympy writes them."""
