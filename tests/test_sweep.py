"""The table of runs: frozen, grouped within a tolerance, honest about its rows."""

from __future__ import annotations

import dataclasses
import pickle
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from scalefit._values import Note
from scalefit.errors import SweepError
from scalefit.schema import group_levels, number_groups
from scalefit.sweep import Sweep


def runs(seed: int = 0) -> pd.DataFrame:
    """Two sizes, two token counts, three learning rates, two batch sizes; losses without a pattern."""
    rng = np.random.default_rng(seed)
    grid = pd.MultiIndex.from_product(
        [[1e-3, 2e-3, 4e-3], [65536.0, 131072.0], [1e8, 4e8], [2e9, 8e9]], names=["lr", "batch", "params", "tokens"]
    ).to_frame(index=False)
    return grid.assign(loss=3.0 + 0.3 * rng.random(len(grid)))


def codes(sweep: Sweep) -> list[str]:
    return [note.code for note in sweep.notes]


# -- levels ------------------------------------------------------------------------------------------------------------


def test_levels_join_jitter_and_rounding_but_not_neighbours() -> None:
    values = [0.000345, 0.0003453, 1.0, 1.0 + 1e-9, 1.05]
    assert_array_equal(group_levels(values), [0.000345, 0.000345, 1.0, 1.0, 1.05])


def test_level_is_represented_by_the_most_frequent_value_then_the_smallest() -> None:
    assert_array_equal(group_levels([1.000, 1.002, 1.002]), [1.002] * 3)
    assert_array_equal(group_levels([1.002, 1.000]), [1.0, 1.0])


def test_level_reaches_from_its_first_value_only() -> None:
    chain = 1.006 ** np.arange(4)  # each within 1 % of the next, the ends not
    assert_array_equal(group_levels(chain), [1.0, 1.0, chain[2], chain[2]])


def test_values_that_are_not_positive_and_finite_stand_for_themselves() -> None:
    assert_array_equal(group_levels([0.0, -1.0, -1.001, np.nan, np.inf]), [0.0, -1.0, -1.001, np.nan, np.inf])
    assert group_levels([]).shape == (0,)
    assert_array_equal(group_levels([1.79e308, 5e-324]), [1.79e308, 5e-324])


@given(st.lists(st.tuples(st.sampled_from([2.0, 1.0, np.nan]), st.sampled_from(["b", "a"]), st.integers(-2, 2))))
def test_groups_are_numbered_in_the_order_of_their_levels(rows) -> None:
    numbers, texts, counts = (
        np.array(column, dtype=kind)
        for column, kind in zip(zip(*rows, strict=True) if rows else ([], [], []), (float, object, int), strict=True)
    )
    first, group = number_groups(numbers, texts, counts)
    keys = [(np.isnan(a), 0.0 if np.isnan(a) else a, b, c) for a, b, c in rows]  # what is missing comes last
    ordered = sorted(set(keys))
    assert group.tolist() == [ordered.index(key) for key in keys]
    assert first.tolist() == [keys.index(key) for key in ordered]


def test_runs_are_grouped_by_their_levels_in_ascending_order() -> None:
    table = runs().assign(optimizer=["sgd", "adam"] * 12)
    table.loc[0, "params"] *= 1.001
    sweep = Sweep.from_frame(table)
    keys, group = sweep.group(["optimizer", "N"])
    assert keys.to_dict("list") == {"optimizer": ["adam", "adam", "sgd", "sgd"], "params": [1e8, 4e8] * 2}
    expected = sweep.labels(["optimizer", "params"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(keys.iloc[group].reset_index(drop=True), expected)
    keys, group = sweep.group([])
    assert keys.shape == (1, 0)
    assert (group == 0).all()
    with pytest.raises(SweepError, match="needs the column seed"):
        sweep.group("seed")


def test_cells_count_what_they_hold() -> None:
    table = runs()
    table.loc[table["params"] == 4e8, "loss"] = np.nan
    sweep = Sweep.from_frame(table.assign(diverged=table["loss"].isna()))
    cells = sweep.cells
    assert list(cells) == ["params", "tokens", "n_runs", "n_lr", "n_batch", "loss", "n_diverged"]
    assert (
        cells[["n_runs", "n_lr", "n_batch", "n_diverged"]].to_numpy().tolist()
        == [[6, 3, 2, 0]] * 2 + [[6, 3, 2, 6]] * 2
    )
    best = table.groupby(["params", "tokens"])["loss"].min()
    assert_array_equal(cells["loss"], best)
    bare = Sweep.from_frame(table.dropna()[["lr", "loss"]]).cells
    assert bare[["n_runs", "n_lr"]].to_numpy().tolist() == [[12, 3]]


@given(st.lists(st.floats(1e-8, 1e12), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_levels_do_not_depend_on_the_order_and_are_stable(values: list[float], random) -> None:
    levels = group_levels(values)
    order = list(range(len(values)))
    random.shuffle(order)
    assert_array_equal(group_levels(np.array(values)[order]), levels[order])
    assert np.all(np.abs(levels / values - 1) <= 0.0101)
    assert set(levels) <= set(values)


# -- the table ---------------------------------------------------------------------------------------------------------


def test_columns_stand_in_the_order_of_the_vocabulary_and_extras_follow() -> None:
    table = runs()[["loss", "tokens", "params", "lr", "batch"]].assign(host="a", steps=100)
    sweep = Sweep.from_frame(table)
    assert list(sweep.table) == ["lr", "batch", "params", "tokens", "loss", "steps", "host", "diverged"]
    assert sweep.table["steps"].dtype == float
    assert sweep.units["batch"] == "tokens"
    assert set(sweep.units) == {"lr", "batch", "params", "tokens", "loss", "steps"}


def test_sweep_cannot_be_changed_through_what_it_hands_out() -> None:
    sweep = Sweep.from_frame(runs())
    before = sweep.fingerprint
    table = sweep.table
    table.loc[0, "loss"] = 99.0
    labels = sweep.labels("lr")
    labels["lr"] = -1.0
    cells = sweep.cells
    cells["loss"] = 0.0
    levels = sweep.levels("lr")
    levels[:] = 0
    keys, group = sweep.group("lr")
    keys["lr"] = -1.0
    assert_array_equal(sweep.group("lr")[0]["lr"], [1e-3, 2e-3, 4e-3])
    with pytest.raises(ValueError, match="read-only"):
        group[0] = 5
    observed = sweep.observations("loss").table
    observed["loss"] = 0.0
    assert Sweep.from_frame(sweep.table).fingerprint == before
    assert_array_equal(sweep.levels("lr"), [1e-3, 2e-3, 4e-3])
    with pytest.raises(dataclasses.FrozenInstanceError):
        sweep.source = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        sweep.units["lr"] = "other"  # type: ignore[index]


def test_sweep_travels_to_other_processes() -> None:
    sweep = Sweep.from_frame(runs(), notes=[Note("names", "kept")], source="a.csv")
    again = pickle.loads(pickle.dumps(sweep))
    assert (again.fingerprint, again.notes, again.source) == (sweep.fingerprint, sweep.notes, sweep.source)


def test_sweep_does_not_follow_changes_of_the_table_it_was_made_from() -> None:
    table = runs()
    sweep = Sweep.from_frame(table)
    table.loc[0, "loss"] = 99.0
    assert sweep.table["loss"].max() < 4


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("loss", np.nan, "loss should be finite: 1 of 24"),
        ("lr", 0.0, "first 0 in row 1"),
        ("tokens", np.inf, "tokens"),
    ],
)
def test_from_frame_refuses_values_no_run_can_have(column: str, value: float, text: str) -> None:
    table = runs()
    table.loc[0, column] = value
    with pytest.raises(SweepError, match=text):
        Sweep.from_frame(table)


def test_from_frame_refuses_a_table_that_is_no_sweep() -> None:
    with pytest.raises(SweepError, match=r"needs loss and at least one of .*; found the columns lr"):
        Sweep.from_frame(runs()[["lr"]])
    with pytest.raises(SweepError, match="no rows"):
        Sweep.from_frame(runs().iloc[:0])
    with pytest.raises(SweepError, match="lr should be numbers"):
        Sweep.from_frame(runs().assign(lr="high"))
    with pytest.raises(SweepError, match="'loss' occurs twice"):
        Sweep.from_frame(pd.concat([runs(), runs()[["loss"]]], axis=1))
    with pytest.raises(SweepError, match="rtol"):
        Sweep.from_frame(runs(), rtol=0.7)


# -- cells, labels, selection ------------------------------------------------------------------------------------------


def test_cells_count_runs_levels_and_the_best_loss() -> None:
    table = runs()
    cells = Sweep.from_frame(table).cells
    assert list(cells) == ["params", "tokens", "n_runs", "n_lr", "n_batch", "loss", "n_diverged"]
    assert cells["n_runs"].tolist() == [6] * 4
    assert cells["n_lr"].tolist() == [3] * 4
    assert cells["n_batch"].tolist() == [2] * 4
    assert_array_equal(cells["loss"], table.groupby(["params", "tokens"])["loss"].min())


def test_cells_without_params_or_tokens_are_one_cell() -> None:
    cells = Sweep.from_frame(runs()[["lr", "loss"]]).cells
    assert list(cells) == ["n_runs", "n_lr", "loss", "n_diverged"]
    assert cells["n_runs"].tolist() == [24]


def test_jitter_never_splits_a_cell() -> None:
    table = runs()
    rng = np.random.default_rng(1)
    jittered = table.assign(
        **{name: table[name] * (1 + 1e-9 * rng.normal(size=24)) for name in ("lr", "params", "tokens")}
    )
    cells, expected = Sweep.from_frame(jittered).cells, Sweep.from_frame(table).cells
    pd.testing.assert_frame_equal(cells, expected, rtol=1e-7)
    assert len(Sweep.from_frame(jittered).levels("N")) == 2


def test_row_order_changes_nothing() -> None:
    table = runs()
    table["params"] *= 1 + 1e-9 * np.arange(24)
    shuffled = table.sample(frac=1, random_state=3)
    first, second = Sweep.from_frame(table), Sweep.from_frame(shuffled)
    pd.testing.assert_frame_equal(first.cells, second.cells)
    assert_array_equal(first.levels("params"), second.levels("params"))
    assert first.fingerprint == second.fingerprint
    assert first.notes == second.notes


def test_labels_group_measured_quantities_and_leave_names_alone() -> None:
    table = runs().assign(seed=np.arange(24) + 1000, epoch=np.arange(24) + 1000, dropout=0.1, host="a")
    table.loc[0, "dropout"] = 0.1001
    table.loc[0, "host"] = None
    sweep = Sweep.from_frame(table)
    assert len(sweep.levels("seed")) == 24
    assert len(sweep.levels("epoch")) == 24
    assert sweep.levels("dropout").tolist() == [0.1]
    assert sweep.levels("host").tolist() == ["a"]
    assert list(sweep.labels(["N", "lr"])) == ["params", "lr"]


def test_where_takes_words_and_symbols() -> None:
    sweep = Sweep.from_frame(runs())
    assert len(sweep.where("params < 2e8")) == 12
    small = sweep.where("N < 2e8 and eta >= 2e-3")
    assert len(small) == 8
    assert small.table.index.tolist() == list(range(8))
    assert small.notes[-1] == Note("where", "8 of 24 runs selected by 'N < 2e8 and eta >= 2e-3'")


@pytest.mark.parametrize(
    "condition", ["width > 3", "params", "__import__('os')", "params < 'a'", "params < (", "1 < 0"]
)
def test_where_refuses_what_is_no_condition_or_leaves_nothing(condition: str) -> None:
    with pytest.raises(SweepError):
        Sweep.from_frame(runs()).where(condition)


def test_where_that_matches_nothing_says_what_the_sweep_spans() -> None:
    with pytest.raises(SweepError, match=re.escape("none of the 24 runs satisfies 'N > 1e9'; the sweep spans")):
        Sweep.from_frame(runs()).where("N > 1e9")


def test_where_states_the_notes_on_rows_anew() -> None:
    table = runs()
    table.loc[0, "loss"] = 9.0
    sweep = Sweep.from_frame(table, notes=[Note("names", "kept")])
    assert codes(sweep) == ["names", "far_off"]
    assert codes(sweep.where("loss < 5")) == ["names", "where"]


def test_require_says_what_is_there_and_how_to_name_the_rest() -> None:
    sweep = Sweep.from_frame(runs()[["lr", "loss"]].assign(width=256))
    sweep.require("lr", "eta", "L")
    with pytest.raises(SweepError) as caught:
        sweep.require("lr", "N", "tokens")
    message = str(caught.value)
    assert "columns params, tokens; table has lr, loss; not recognised: width" in message
    assert "columns={'params': '<its name>'}" in message


# -- diverged, repeated and far-off runs -------------------------------------------------------------------------------


def test_diverged_runs_are_kept_marked_noted_and_left_out_of_fits() -> None:
    table = runs().assign(diverged=False)
    table.loc[[2, 5], "diverged"] = True
    sweep = Sweep.from_frame(table)
    assert sweep.table["loss"].isna().sum() == 2
    assert sweep.cells["n_diverged"].sum() == 2
    note = next(note for note in sweep.notes if note.code == "diverged")
    assert note.caution
    assert "2 of 24" in note.text
    observed = sweep.observations("L")
    assert len(observed.table) == 22
    assert "2 of 24 runs diverged" in observed.notes[-1].text


def test_observations_of_nothing_are_refused() -> None:
    with pytest.raises(SweepError, match="all 24 runs of table diverged"):
        Sweep.from_frame(runs().assign(diverged=True)).observations("loss")
    with pytest.raises(SweepError, match="steps"):
        Sweep.from_frame(runs()).observations("S")


def test_repeated_and_far_off_runs_are_counted() -> None:
    table = pd.concat([runs(0), runs(1).iloc[:5]], ignore_index=True)
    table.loc[0, "loss"] = 3.9
    sweep = Sweep.from_frame(table)
    assert len(sweep) == 29
    assert [note.text.split(" of ")[0] for note in sweep.notes] == ["5", "1"]
    assert codes(sweep) == ["repeats", "far_off"]


# -- identity and display ----------------------------------------------------------------------------------------------


def test_fingerprint_follows_the_content() -> None:
    table = runs()
    first = Sweep.from_frame(table).fingerprint
    assert re.fullmatch("[0-9a-f]{64}", first)
    table.loc[0, "loss"] = np.nextafter(table.loc[0, "loss"], 9)
    assert Sweep.from_frame(table).fingerprint != first
    tagged = table.assign(tags=[["a"]] * 24)  # lists cannot be hashed, and need not be
    assert Sweep.from_frame(tagged).fingerprint != first


def test_displays_show_spans_cells_levels_source_and_notes() -> None:
    table = runs()
    table.loc[0, "loss"] = 9.0
    sweep = Sweep.from_frame(table, source="<b>runs</b>.csv", params_convention="non_embedding")
    text, page = repr(sweep), sweep._repr_html_()
    for part in (
        "24",
        "4 of (params, tokens)",
        "<b>runs</b>.csv",
        "non-embedding",
        "9 nats/token",
        "100M",
        "1 of 24 runs",
    ):
        assert part in text
    assert [line.split() for line in text.splitlines() if line.startswith("  lr")] == [
        ["lr", "1", "3", "0.001", "0.004"]
    ]
    assert "&lt;b&gt;runs&lt;/b&gt;.csv" in page
    assert "<b>runs</b>" not in page


# -- grouping and losses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [[["a"], ["b"]] * 12, [1 + 2j, 2.0] * 12, [(1, 2), 3] * 12])
def test_values_without_an_order_cannot_tell_groups_apart(values: list) -> None:
    sweep = Sweep.from_frame(runs().assign(tags=pd.Series(values, dtype=object)))
    with pytest.raises(SweepError, match="tags: expected numbers or texts"):
        sweep.group(["params", "tags"])
    with pytest.raises(SweepError, match=r"kind: expected numbers or texts.*found values.*int, str"):
        Sweep.from_frame(runs().assign(kind=[1, "a", None] * 8)).levels("kind")


def test_missing_values_are_a_level_and_the_last() -> None:
    keys, group = Sweep.from_frame(runs().assign(steps=[np.nan, 10.0] * 12)).group("S")
    assert_array_equal(keys["steps"], [10.0, np.nan])
    assert group.tolist() == [1, 0] * 12


def test_losses_are_there_or_asked_for() -> None:
    sweep = Sweep.from_frame(runs().assign(diverged=[True, False] * 12))
    assert sweep.require_losses("no loss to fit").tolist() == [False, True] * 12
    with pytest.raises(SweepError, match=r"all 24 runs of a\.csv diverged: there is no loss to reach; widen"):
        Sweep.from_frame(runs().assign(diverged=True), source="a.csv").require_losses("no loss to reach")
