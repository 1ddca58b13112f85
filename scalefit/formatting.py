"""How numbers read: value and error rounded together, 7B and 1.4T."""

from __future__ import annotations

import math
import re
import sys
from decimal import ROUND_HALF_UP, Context, Decimal

import pandas as pd

_SUFFIXES = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12, "p": 1e15}
_DIGITS = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_NUMBER = re.compile(rf"({_DIGITS}(?:e[+-]?\d+)?(?=\Z)|{_DIGITS}(?=\s*[kmgbtp]\Z))\s*(\w?)\Z", re.IGNORECASE | re.ASCII)


def parse_number(text: str) -> float:
    """Read a number as people write it: ``7e9``, ``7B``, ``1.4T``, ``125M``, ``2_000``.

    Raises
    ------
    ValueError
        If the text is not a finite number.

    Examples
    --------
    >>> parse_number("1.4T"), parse_number("7e9"), parse_number("125M")
    (1400000000000.0, 7000000000.0, 125000000.0)
    """
    match = _NUMBER.match(text.strip().replace("_", ""))
    value = float(match[1]) * _SUFFIXES.get(match[2].lower(), 1.0) if match else math.nan
    if not math.isfinite(value):
        raise ValueError(f"expected a number such as 7e9, 7B or 1.4T, found {text!r}")
    return value


def format_number(value: float, digits: int = 4) -> str:
    """Write a number compactly; large counts get the suffixes of the field, whole ones below a million stay whole.

    Examples
    --------
    >>> format_number(7e9), format_number(1.4e12), format_number(0.00123456), format_number(16384)
    ('7B', '1.4T', '0.001235', '16384')
    """
    if value is None or not math.isfinite(value):
        return "nan" if value is None or math.isnan(value) else ("inf" if value > 0 else "-inf")
    rounded = abs(float(f"{value:.{digits}g}"))
    for suffix, size in (("T", 1e12), ("B", 1e9), ("M", 1e6)):
        if size <= rounded < 1e15:
            return f"{value / size:.{digits}g}{suffix}"
    text = f"{value:.{digits}g}"
    if "e+" in text and rounded < 1e6:
        return f"{value if value == round(value) else float(text):.0f}"
    return text


def format_span(values: pd.Series) -> str:
    """Write from where to where numbers reach.

    Examples
    --------
    >>> format_span(pd.Series([2e9, 1e9, 8e9]))
    '1B .. 8B'
    """
    return f"{format_number(values.min())} .. {format_number(values.max())}"


def format_error(value: float, error: float) -> str:
    """Write a value with its error in brackets, both rounded at the same digit.

    The error keeps two digits when its first three are 100 to 354, one when they are 355 to 949, and is rounded up to
    10 otherwise: the rule of the Particle Data Group (Review of Particle Physics, introduction, section 5.3). An error
    without a decimal point counts in units of the value's last digit.

    Examples
    --------
    >>> format_error(0.34731, 0.0154), format_error(477.8, 124.5), format_error(-0.768, 0.0543), format_error(2, 0)
    ('0.347(15)', '480(120)', '-0.77(5)', '2')
    >>> format_error(3.2e-6, 4e-8), format_error(0.4, 1.7)
    ('3.20(4)e-06', '0.4(1.7)')
    """
    if not math.isfinite(value):
        return format_number(value)
    if not math.isfinite(error):
        return f"{value:.4g}(?)"
    if error <= abs(value) * sys.float_info.epsilon:
        return f"{value:.6g}"
    rounded = _round_error(Decimal(repr(float(error))))
    number = Decimal(repr(float(value))).quantize(rounded, context=_WIDE)
    size = max(abs(number), rounded)
    if Decimal("1e-3") <= size < Decimal("1e6"):
        return _brackets(number, rounded)
    power = size.adjusted()
    return f"{_brackets(number.scaleb(-power), rounded.scaleb(-power))}e{power:+03d}"


_WIDE = Context(prec=700)


def _round_error(error: Decimal) -> Decimal:
    lead = int(error.scaleb(2 - error.adjusted()).to_integral_value(ROUND_HALF_UP))
    digits = 2 if lead < 355 else 1 if lead < 950 else 0
    return error.quantize(Decimal(1).scaleb(error.adjusted() + 1 - max(digits, 1)), ROUND_HALF_UP, context=_WIDE)


def _brackets(value: Decimal, error: Decimal) -> str:
    decimals = max(-int(error.as_tuple().exponent), 0)
    shown = f"{error:.{decimals}f}" if decimals == 0 or error >= 1 else f"{error.scaleb(decimals):.0f}"
    return f"{value:.{decimals}f}({shown})"
