"""The dictionary between words and letters."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from scalefit.laws.expressions import CONSTANTS, FUNCTIONS, names, parse
from scalefit.vocabulary import AXES, BY_COLUMN, BY_SYMBOL, QUANTITIES, column_of, latex_of, quantity_of


def test_every_name_means_one_thing():
    written = [q.column for q in QUANTITIES] + [alias for q in QUANTITIES for alias in q.aliases.split()]
    assert [name for name, count in Counter(written).items() if count > 1] == []
    symbols = [q.symbol for q in QUANTITIES if q.symbol]
    assert len(symbols) == len(set(symbols))
    assert not set(symbols) & set(written)


def test_columns_and_symbols_can_stand_in_formulas():
    for quantity in QUANTITIES:
        for name in filter(None, (quantity.column, quantity.symbol)):
            assert names(parse(name)) == (name,)
            assert name not in FUNCTIONS
            assert name not in CONSTANTS


def test_aliases_are_in_lower_case_and_every_quantity_says_what_it_is():
    for quantity in QUANTITIES:
        assert quantity.aliases == quantity.aliases.lower()
        assert quantity.meaning
        assert quantity.latex
        assert quantity.unit or quantity.column in ("seed", "optimizer", "schedule", "run")
        assert re.fullmatch(r"[a-z_]+", quantity.column)


@pytest.mark.parametrize(
    ("symbol", "column", "unit"),
    [
        ("eta", "lr", "1"),
        ("B", "batch", "tokens"),
        ("N", "params", "parameters"),
        ("D", "tokens", "tokens"),
        ("L", "loss", "nats/token"),
        ("S", "steps", "steps"),
        ("C", "flops", "FLOP"),
    ],
)
def test_symbols_stand_for_columns(symbol, column, unit):
    assert column_of(symbol) == column
    assert quantity_of(symbol) is quantity_of(column) is BY_SYMBOL[symbol] is BY_COLUMN[column]
    assert quantity_of(symbol).unit == unit
    assert latex_of(symbol) == latex_of(column)


def test_names_outside_the_vocabulary_stand_for_themselves():
    assert column_of("width") == "width"
    assert quantity_of("width") is latex_of("width") is None
    assert column_of("n") == "n"
    assert set(AXES) <= set(BY_COLUMN)


def test_the_dictionaries_are_read_only():
    with pytest.raises(TypeError):
        BY_COLUMN["lr"] = BY_COLUMN["loss"]
    with pytest.raises(TypeError):
        FUNCTIONS["system"] = 1
