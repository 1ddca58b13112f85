"""How numbers read."""

from __future__ import annotations

import math
import re
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalefit._values import Note, merge
from scalefit.vocabulary import format_error, format_number, parse_number


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.827, 0.119, "0.83(12)"),  # the two examples of the Review of Particle Physics
        (0.827, 0.367, "0.8(4)"),
        (0.34731, 0.0154, "0.347(15)"),
        (477.8, 124.5, "480(120)"),
        (-0.768, 0.0543, "-0.77(5)"),
        (1.0, 0.0354, "1.000(35)"),
        (1.0, 0.0355, "1.00(4)"),
        (1.0, 0.0949, "1.00(9)"),
        (1.0, 0.0950, "1.00(10)"),
        (1.234, 0.0996, "1.23(10)"),
        (123.4, 9.99, "123(10)"),
        (123.4, 99.6, "120(100)"),
        (123.0, 0.996, "123.0(1.0)"),
        (1.797, 2.2, "1.8(2.2)"),
        (0.01, 3.2, "0.0(3.2)"),
        (0.0005, 0.2, "0.00(20)"),
        (-1.79, 0.0301, "-1.790(30)"),
        (0.0, 0.01, "0.000(10)"),
        (3.2e-6, 4e-8, "3.20(4)e-06"),
        (1e-5, 9.96e-7, "1.00(10)e-05"),
        (9.9996e8, 3e5, "9.9996(30)e+08"),
        (9.99996e8, 3e5, "1.00000(30)e+09"),
        (0.00099996, 0.0000012, "0.0010000(12)"),
        (999999.9, 120000.0, "1.00(12)e+06"),
        (12345678.0, 12345.0, "1.2346(12)e+07"),
        (1.5e9, 1e10, "0.2(1.0)e+10"),
        (1e300, 1e290, "1.00000000000(10)e+300"),
        (1e-300, 1e-310, "1.00000000000(10)e-300"),
        (0.0, 5e-324, "0(5)e-324"),
        (2.0, 0.0, "2"),
        (0.347, 1e-17, "0.347"),
        (1.5, math.nan, "1.5(?)"),
        (1.5, math.inf, "1.5(?)"),
        (math.nan, 0.1, "nan"),
        (math.inf, 0.1, "inf"),
        (-math.inf, math.nan, "-inf"),
    ],
)
def test_value_and_error_are_rounded_together(value, error, text):
    assert format_error(value, error) == text


@settings(max_examples=500, deadline=None)
@given(
    st.floats(-1e12, 1e12, allow_nan=False),
    st.floats(1e-9, 1e12),
)
def test_what_is_shown_is_the_value_within_half_a_digit_and_the_error_within_its_rounding(value, error):
    text = format_error(value, error)
    match = re.fullmatch(r"(-?[\d.]+)\(([\d.]+)\)(e[+-]\d+)?", text)
    if match is None:
        assert error <= abs(value) * 1e-15
        return
    unit = Decimal(f"1{match[3] or ''}")
    decimals = len(match[1].partition(".")[2])
    shown_value = Decimal(match[1]) * unit
    last = Decimal(10) ** -decimals * unit
    whole = "." in match[2] or decimals == 0
    shown_error = Decimal(match[2]) * (unit if whole else last)
    assert abs(shown_error - Decimal(error)) <= Decimal("0.15") * Decimal(error)
    assert abs(shown_value - Decimal(value)) <= Decimal("0.5000001") * max(last, shown_error)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7e9, "7B"),
        (-7e9, "-7B"),
        (1.4e12, "1.4T"),
        (1.25e8, "125M"),
        (999.96e9, "1T"),
        (999_999.7, "1M"),
        (2048, "2048"),
        (0.00123456, "0.001235"),
        (1e15, "1e+15"),
        (0, "0"),
        (math.nan, "nan"),
        (None, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers_are_written_with_the_suffixes_of_the_field(value, text):
    assert format_number(value) == text


@settings(max_examples=500, deadline=None)
@given(st.floats(-1e15, 1e15, allow_nan=False, allow_subnormal=False))
def test_numbers_survive_writing_and_reading(value):
    assert parse_number(format_number(value, 12)) == pytest.approx(value, rel=1e-11, abs=1e-300)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7e9", 7e9),
        ("7B", 7e9),
        ("7b", 7e9),
        ("7 B", 7e9),
        ("1.4T", 1.4e12),
        ("125M", 1.25e8),
        ("2k", 2e3),
        ("3G", 3e9),
        ("1P", 1e15),
        ("2_000", 2e3),
        ("-.5", -0.5),
        ("+1.e-3", 1e-3),
        ("  12 ", 12.0),
    ],
)
def test_numbers_are_read_as_people_write_them(text, value):
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "text", ["", "B", "seven", "1,000", "1.4TB", "7x", "1e9B", "1e", "0x10", "nan", "inf", "1e999", "--1", "٣", "1 2"]
)
def test_what_is_no_number_is_refused_with_examples(text):
    with pytest.raises(ValueError, match=r"expected a number such as 7e9, 7B or 1\.4T") as caught:
        parse_number(text)
    assert repr(text) in str(caught.value)


def test_notes_merge_without_repeats_in_order():
    first, second = Note("a", "one"), Note("b", "two", caution=True)
    assert merge([first, second], [], [first]) == (first, second)
    assert merge() == ()
