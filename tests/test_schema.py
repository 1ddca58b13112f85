"""Rows that are equal numbered, and the lowest value of each group of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from scalefit.errors import SweepError
from scalefit.schema import count_levels, group_rows, lowest_of, near_lowest, number_groups


def test_without_a_column_all_rows_are_one_group() -> None:
    first, group = number_groups(rows=3)
    assert (first.tolist(), group.tolist()) == ([0], [0, 0, 0])
    keys, group = group_rows(pd.DataFrame(index=range(3)))
    assert (keys.shape, group.tolist()) == ((1, 0), [0, 0, 0])


def test_without_a_row_there_is_no_group() -> None:
    for first, group in (number_groups(), number_groups(np.array([])), number_groups(np.array([], dtype=object))):
        assert (len(first), len(group)) == (0, 0)


def test_groups_are_numbered_as_pandas_numbers_them() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.integers(0, 3, 50) / 2, "b": rng.choice(["x", "y", None], 50)}, index=range(50, 100))
    table.iloc[:5, 0] = np.nan
    keys, group = group_rows(table)
    assert_array_equal(group, table.groupby(["a", "b"], dropna=False).ngroup())
    pd.testing.assert_frame_equal(keys.iloc[group].reset_index(drop=True), table.reset_index(drop=True))


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ([["a"], ["b"]], "list"),
        ([1 + 2j, 2.0], "complex, float"),
        ([(1, 2), 3], "int, tuple"),
        ([{}, None], "NoneType, dict"),
    ],
)
def test_values_without_an_order_are_named_with_their_kinds(values: list, kinds: str) -> None:
    table = pd.DataFrame({"lr": [1.0, 2.0], "tags": pd.Series(values, dtype=object)})
    with pytest.raises(SweepError, match=rf"tags: expected numbers or texts, .*\({kinds}\); turn .*\['tags'\]\.map"):
        group_rows(table)


def test_the_lowest_of_a_group_leaves_out_what_is_missing() -> None:
    group, values = np.array([2, 0, 0, 2, 3]), np.array([5.0, np.nan, 4.0, 3.0, np.nan])
    assert_array_equal(lowest_of(group, values, 5), [4.0, np.nan, 3.0, np.nan, np.nan])
    assert_array_equal(near_lowest(group, values, 5, 0.0), [False, False, True, True, False])
    assert_array_equal(near_lowest(group, values, 5, 1.0), [True, False, True, True, False])


def test_levels_of_a_group_are_counted_once_each_and_what_is_missing_is_one() -> None:
    group = np.array([0, 0, 0, 1, 1])
    assert count_levels(group, np.array([1.0, np.nan, np.nan, 2.0, 2.0])).tolist() == [2, 1]
    assert count_levels(group, np.array(["a", None, 1, "b", "a"], dtype=object)).tolist() == [3, 2]
