"""Reading sweeps: which column is which, what values are refused, what happens to copies and diverged runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from scalefit.errors import SweepError
from scalefit.loading.read_sweep import read_sweep
from scalefit.sweep import Sweep


def runs(**columns: Any) -> pd.DataFrame:
    """Four runs without a batch column, so that only the columns under test matter."""
    table = {
        "lr": [1e-3, 2e-3, 4e-3, 8e-3],
        "params": [1e8] * 4,
        "tokens": [2e9] * 4,
        "loss": [3.31234567, 3.21234567, 3.41234567, 3.61234567],
    }
    return pd.DataFrame({**table, **columns})


def noted(sweep: Sweep, code: str) -> str:
    return " | ".join(note.text for note in sweep.notes if note.code == code)


def refusal(source: Any, **options: Any) -> str:
    with pytest.raises(SweepError) as caught:
        read_sweep(source, **options)
    return str(caught.value)


# -- recognising columns -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("learning_rate", "lr"),
        ("Learning Rate", "lr"),
        ("peak-lr", "lr"),
        ("eta", "lr"),
        ("N", "params"),
        ("n_params", "params"),
        ("Model Size", "params"),
        ("D", "tokens"),
        ("train_tokens", "tokens"),
        ("L", "loss"),
        ("val_loss", "loss"),
        ("val/loss", "loss"),
        ("smooth loss", "loss"),
        ("config.lr", "lr"),
        ("config.optimizer.lr", "lr"),
        ("config.lr.value", "lr"),
        ("config/learning_rate", "lr"),
        ("params.lr", "lr"),
        ("params_lr", "lr"),
        ("hparams/lr", "lr"),
        ("user_attrs_N", "params"),
        ("user_attrs_train_tokens", "tokens"),
        ("summary.loss", "loss"),
        ("summary.val_loss", "loss"),
        ("summary.eval/loss", "loss"),
        ("metrics.loss", "loss"),
        ("metrics.val/loss", "loss"),
    ],
)
def test_usual_names_are_recognised_and_noted(name: str, column: str) -> None:
    sweep = read_sweep(runs().rename(columns={column: name}))
    pd.testing.assert_frame_equal(sweep.table, read_sweep(runs()).table)
    assert f"{name!r} as {column}" in noted(sweep, "names")


@pytest.mark.parametrize("name", ["n", "d", "b", "l", "s", "c", "ETA", "N_no_emb", "C4 Eval Loss", "lr_schedule_end"])
def test_other_names_are_kept_as_they_are(name: str) -> None:
    sweep = read_sweep(runs(**{name: [1.0, 2.0, 3.0, 4.0]}))
    assert list(sweep.table) == ["lr", "params", "tokens", "loss", name, "diverged"]
    assert not sweep.notes


def test_two_candidates_are_an_error_that_names_both_and_the_remedy() -> None:
    message = refusal(runs(**{"smooth loss": 3.0}))
    assert "2 columns could be loss (final loss): 'loss' and 'smooth loss'" in message
    assert "columns={'loss': 'loss'}" in message
    assert "'D' and 'train_tokens'" in refusal(runs(D=1.0, train_tokens=1.0).drop(columns="tokens"))


def test_override_chooses_and_keeps_the_other_under_a_name_that_cannot_be_mistaken() -> None:
    sweep = read_sweep(runs(**{"smooth loss": 2.5, "input_loss": 1.0}), columns={"L": "smooth loss"})
    assert sweep.table["loss"].tolist() == [2.5] * 4
    assert sweep.table["input_input_loss"].tolist() == runs()["loss"].tolist()
    assert "'loss' was not used and is kept as 'input_input_loss'" in noted(sweep, "names")


def test_a_symbol_left_over_is_renamed_so_that_conditions_mean_what_they_say() -> None:
    sweep = read_sweep(runs(N=7.0), columns={"params": "params"})
    assert sweep.table["input_N"].tolist() == [7.0] * 4
    assert len(sweep.where("N > 1e7")) == 4


def test_override_with_none_sets_a_quantity_aside() -> None:
    table = runs(flops=[np.nan, 1.0, 1.0, 1.0])
    assert "columns={'flops': None}" in refusal(table)
    assert "input_flops" in read_sweep(table, columns={"flops": None}).table


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"lr": "my_lr"}, "there is no such column; there are: 'lr', 'params'"),
        ({"width": "lr"}, "names no quantity; there are: lr, batch"),
        ({"my_lr": "lr"}, "The quantity comes first: {'lr': 'my_lr'}"),
        ({"lr": "loss", "loss": "loss"}, "'loss' for two quantities"),
        ({"lr": "lr", "eta": "loss"}, "names lr twice"),
        (["lr"], "should be a dictionary"),
    ],
)
def test_overrides_that_cannot_be_followed(columns: Any, text: str) -> None:
    assert text in refusal(runs(), columns=columns)


def test_missing_columns_are_listed_with_what_was_found() -> None:
    message = refusal(runs().rename(columns={"loss": "my final loss"}))
    assert "no column for loss; recognised: 'lr', 'params', 'tokens'; not recognised: 'my final loss'" in message
    assert "columns={'loss': 'my final loss'}" in message
    assert "nor any of lr, batch, params, tokens" in refusal(pd.DataFrame({"width": [1], "depth": [2]}))
    assert "a dictionary as text" in refusal(pd.DataFrame({"config": ["{'lr': 1}"], "loss": [3.0]}))


def test_loss_with_one_axis_is_enough() -> None:
    assert read_sweep(runs()[["loss", "params"]].iloc[:1]).cells["n_runs"].tolist() == [1]


# -- trackers ----------------------------------------------------------------------------------------------------------


def test_wandb_rows_with_nested_config_and_summary() -> None:
    rows = [
        {
            "name": f"run{i}",
            "state": "finished" if i else "crashed",
            "config": {"lr": {"value": lr}, "model": {"name": "small", "N": 1e8}, "loss": "cross-entropy", "D": 2e9},
            "summary": {"loss": 3.0 + lr, "lr": 0.0, "_step": 1000},
        }
        for i, lr in enumerate([1e-3, 2e-3])
    ]
    for source in (rows, pd.DataFrame(rows)):
        sweep = read_sweep(source)
        assert sweep.table["lr"].tolist() == [1e-3, 2e-3]
        assert sweep.table["loss"].tolist() == [3.001, 3.002]
        assert sweep.table["run"].tolist() == ["run0", "run1"]
        assert {"config.loss", "summary.lr", "config.model.name"} <= set(sweep.table)
        assert "'summary.lr' was not read as lr" in noted(sweep, "names")
        assert "'config.loss' was not read as loss" in noted(sweep, "names")
        assert "1 crashed" in noted(sweep, "unfinished")


def test_mlflow_frame_with_parameters_as_text() -> None:
    table = pd.DataFrame(
        {
            "run_id": ["a", "b"],
            "status": ["FINISHED", "FINISHED"],
            "metrics.loss": [3.1, 3.2],
            "metrics.lr": [1e-5, 1e-5],
            "params.lr": ["1e-3", "0.002"],
            "params.loss": ["xent", "xent"],
            "tags.mlflow.runName": ["x", "y"],
        }
    )
    sweep = read_sweep(table)
    assert sweep.table[["lr", "loss"]].to_numpy().tolist() == [[1e-3, 3.1], [2e-3, 3.2]]
    assert not noted(sweep, "unfinished")


def test_optuna_value_is_the_loss_and_pruned_trials_get_a_caution() -> None:
    table = pd.DataFrame(
        {
            "number": [0, 1, 2],
            "value": [3.1, 3.2, 4.0],
            "params_lr": [1e-3, 2e-3, 4e-3],
            "user_attrs_tokens": [2e9] * 3,
            "state": ["COMPLETE", "TrialState.COMPLETE", "PRUNED"],
        }
    )
    sweep = read_sweep(table)
    assert list(sweep.table)[:3] == ["lr", "tokens", "loss"]
    assert "1 pruned" in noted(sweep, "unfinished")
    assert "no column for loss" in refusal(runs().rename(columns={"loss": "value"}))


def test_candidates_within_one_tracker_are_still_ambiguous() -> None:
    rows = [{"config.lr": 1e-3, "config.optimizer.lr": 2e-3, "summary.loss": 3.0}]
    assert "'config.lr' and 'config.optimizer.lr'" in refusal(rows)
    assert "'summary.train/loss' and 'summary.val/loss'" in refusal(
        [{"lr": 1e-3, "summary.train/loss": 2.9, "summary.val/loss": 3.0}]
    )


def test_ids_and_names_of_a_run_do_not_compete() -> None:
    sweep = read_sweep(runs(exp_name="x", run_id=list("abcd")))
    assert sweep.table["run"].tolist() == list("abcd")
    assert sweep.table["exp_name"].tolist() == ["x"] * 4


def test_states_of_another_kind_are_not_taken_for_a_tracker_s() -> None:
    assert not read_sweep(runs(state=["Texas", "Ohio", "Iowa", "Utah"])).notes


def test_whole_curves_get_a_caution() -> None:
    curve = pd.DataFrame({"lr": 1e-3, "step": range(10), "loss": np.linspace(4, 3, 10)})
    assert "'step' suggests whole loss curves" in noted(read_sweep(curve), "curves")
    assert not noted(read_sweep(runs(step=1000)), "curves")


def test_convention_of_params_is_recorded() -> None:
    sweep = read_sweep(runs().rename(columns={"params": "non_embedding_params"}))
    assert sweep.params_convention == "non_embedding"
    assert "counts no embeddings" in noted(sweep, "params_convention")
    assert read_sweep(runs(), params_convention="total").params_convention == "total"
    assert read_sweep(runs()).params_convention is None


# -- values ------------------------------------------------------------------------------------------------------------


def test_numbers_written_as_text_are_numbers_to_the_last_bit() -> None:
    exact = [1 / 3, 1e-3, 2e-3, float(np.nextafter(8e-3, 1))]
    texts = runs(lr=[f" {value!r}" for value in exact])
    assert_array_equal(read_sweep(texts).table["lr"], exact)
    mixed = runs(params=pd.Series([10**8, "1e8", Decimal("1e8"), np.float32(1e8)], dtype=object))
    assert_array_equal(read_sweep(mixed).table["params"], [1e8] * 4)
    nullable = runs(params=pd.array([10**8] * 4, dtype="Int64"))
    assert_array_equal(read_sweep(nullable).table["params"], [1e8] * 4)


@pytest.mark.parametrize("value", ["abc", "1,5", "125M", True, 1j, [1.0], b"1.0"])
def test_text_in_a_number_column_names_column_count_row_and_value(value: Any) -> None:
    table = runs().astype({"lr": object})
    table.at[2, "lr"] = value
    message = refusal(table)
    assert message.startswith(f"lr should hold numbers: 1 of 4 values are not, first {value!r} in row 3 of the table")


def test_columns_of_another_kind_are_not_numbers() -> None:
    assert "lr should hold numbers: 4 of 4" in refusal(runs(lr=[True, False, True, True]))
    assert "lr should hold numbers: 4 of 4" in refusal(runs(lr=pd.to_datetime(["2020-01-01"] * 4)))
    assert "complex" in refusal(runs(lr=[1j] * 4))
    assert "a point" in refusal(runs(lr=["0,001", "0,002", "0,004", "0,008"]))


@pytest.mark.parametrize("column", ["lr", "params", "tokens", "loss", "steps"])
@pytest.mark.parametrize("value", [0.0, -2.0])
def test_values_that_are_not_positive_are_refused(column: str, value: float) -> None:
    table = runs(steps=100.0)
    table.loc[[1, 3], column] = value
    message = refusal(table)
    assert f"{column} should be positive: 2 of 4 values are not, first {value:g} in row 2 of the table" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_is_refused_marked_or_dropped(value: float) -> None:
    table = runs()
    table.loc[2, "loss"] = value
    message = refusal(table)
    assert "loss should be finite: 1 of 4 values are not, first" in message
    assert "row 3" in message
    assert "nonfinite='diverged'" in message
    kept = read_sweep(table, nonfinite="diverged")
    assert kept.table["diverged"].tolist() == [False, False, True, False]
    assert np.isnan(kept.table["loss"][2])
    assert "1 of 4" in noted(kept, "diverged")
    dropped = read_sweep(table, nonfinite="drop")
    assert len(dropped) == 3
    assert "row 3 of the table" in noted(dropped, "dropped")


def test_a_loss_spelled_as_text_counts_as_not_finite() -> None:
    table = runs(loss=["3.1", "NaN", "Infinity", "3.2"])
    assert "2 of 4 values are not, first missing or NaN in row 2" in refusal(table)
    assert read_sweep(table, nonfinite="diverged").table["diverged"].tolist() == [False, True, True, False]


def test_all_losses_lost_is_refused_where_nothing_would_be_left() -> None:
    assert "nothing would be left" in refusal(runs(loss=np.nan), nonfinite="drop")
    assert read_sweep(runs(loss=np.nan), nonfinite="diverged").table["diverged"].all()


@pytest.mark.parametrize("nonfinite", ["raise", "diverged", "drop"])
@pytest.mark.parametrize("column", ["lr", "tokens", "steps", "weight_decay"])
def test_other_columns_must_be_finite_always(column: str, nonfinite: str) -> None:
    table = runs(steps=100.0, weight_decay=0.0)
    table.loc[1, column] = np.nan
    message = refusal(table, nonfinite=nonfinite)
    assert f"{column} should be finite: 1 of 4 values are not, first missing or NaN in row 2" in message


@pytest.mark.parametrize(
    "option",
    [
        {"nonfinite": "ignore"},
        {"duplicates": True},
        {"batch_unit": "token"},
        {"params_convention": "all"},
        {"rtol": -1},
    ],
)
def test_options_out_of_range_are_refused(option: dict[str, Any]) -> None:
    assert next(iter(option)) in refusal(runs(), **option)


# -- copies and repeats ------------------------------------------------------------------------------------------------


def copied() -> pd.DataFrame:
    return pd.concat([runs(), runs().iloc[[1]]], ignore_index=True)


def test_huge_losses_overflow_nothing() -> None:
    assert len(read_sweep(runs(loss=[1e308, 1.1e308, 2.0, 2.0], lr=1.0, run=list("abcd")))) == 4


def test_exact_copies_are_found_and_named() -> None:
    message = refusal(copied())
    assert "1 of 5 runs (first: row 5 of the table copies row 2 of the table)" in message
    assert "duplicates='drop'" in message
    kept, dropped = read_sweep(copied(), duplicates="keep"), read_sweep(copied(), duplicates="drop")
    assert (len(kept), len(dropped)) == (5, 4)
    assert "kept" in noted(kept, "duplicates")
    assert "dropped" in noted(dropped, "duplicates")


def test_a_run_exported_twice_under_two_names_is_a_copy() -> None:
    assert "row 5 of the table copies row 2" in refusal(copied().assign(run=list("abcde")))


def test_rounded_losses_that_coincide_under_two_names_are_repeats() -> None:
    table = copied().round({"loss": 3}).assign(run=list("abcde"))
    assert "1 of 5 runs repeat" in noted(read_sweep(table), "repeats")
    assert "row 5 of the table copies row 2" in refusal(table.assign(run=list("abcdb")))


@pytest.mark.parametrize("column", ["seed", "weight_decay", "optimizer", "width", "dataset"])
def test_runs_that_differ_in_any_other_column_are_no_copies(column: str) -> None:
    values = ["1", "2", "3", "4", "5"] if column in ("optimizer", "dataset") else [1.0, 2.0, 3.0, 4.0, 5.0]
    assert len(read_sweep(copied().assign(**{column: values}))) == 5


def test_copies_are_found_beside_columns_that_cannot_be_hashed_or_are_categories() -> None:
    table = copied().assign(tags=[["a"]] * 5, note=None, host=pd.Categorical(["h"] * 5))
    assert "1 of 5 runs" in refusal(table)


def test_repeated_runs_are_kept_and_counted_not_averaged() -> None:
    table = pd.concat([runs(seed=0), runs(seed=1).assign(loss=runs()["loss"] + 0.01)], ignore_index=True)
    sweep = read_sweep(table)
    assert len(sweep) == 8
    assert "4 of 8 runs repeat the lr, params, tokens of another run; all are kept" in noted(sweep, "repeats")


def test_diverged_repeats_without_a_name_are_no_copies() -> None:
    table = copied()
    table.loc[[1, 4], "loss"] = np.nan
    assert len(read_sweep(table, nonfinite="diverged")) == 5
    assert "row 5 of the table copies row 2" in refusal(table.assign(run=list("abcdb")), nonfinite="diverged")


def test_a_hundred_copies_do_not_pass_for_a_hundred_runs() -> None:
    assert "36 of 40 runs" in refusal(pd.concat([runs()] * 10, ignore_index=True))


# -- several sources ---------------------------------------------------------------------------------------------------


def test_tables_are_put_under_each_other_and_named() -> None:
    other = runs(host="b").rename(columns={"lr": "learning_rate"}).assign(loss=runs()["loss"] + 0.1)
    sweep = read_sweep([runs(), other])
    assert len(sweep) == 8
    assert sweep.table["source"].tolist() == ["table 1"] * 4 + ["table 2"] * 4
    assert sweep.table["host"].isna().sum() == 4
    assert "table 2: columns read under another name: 'learning_rate' as lr" in noted(sweep, "names")
    assert "not every source has these columns, which are empty for its runs: host" in noted(sweep, "files")


def test_a_run_in_two_sources_is_a_copy() -> None:
    assert "row 1 of table 2 copies row 1 of table 1" in refusal([runs(), runs()])
    assert "4 of 8 runs (first: row 1 of table 2 copies row 1 of table 1)" in refusal([runs(seed=[1, 2, 3, 4]), runs()])
    rounded = runs().round({"loss": 3})
    assert len(read_sweep([rounded.assign(seed=[1, 2, 3, 4]), rounded])) == 8


def test_errors_name_the_source() -> None:
    bad = runs(loss=[3.0, -1.0, 3.0, 3.0])
    assert "row 2 of table 2" in refusal([runs(), bad])
    assert "table 2 has no column for loss" in refusal([runs(), runs().drop(columns="loss")])
    assert "1 of 2 sources have no column for tokens, first table 2" in refusal([runs(), runs().drop(columns="tokens")])


def test_optional_columns_may_be_missing_in_some_sources() -> None:
    sweep = read_sweep([runs(steps=100), runs(loss=[3.0, 3.1, 3.2, 3.3])])
    assert sweep.table["steps"].isna().sum() == 4


@pytest.mark.parametrize(
    "source", [None, 3, {"lr": [1.0]}, [], (), [None], [[{"lr": 1}]], [{"lr": 1}, 3], b"runs.csv", ""]
)
def test_sources_of_another_kind_are_refused(source: Any) -> None:
    refusal(source)


def test_frames_with_an_index_and_with_odd_columns() -> None:
    indexed = runs().set_index(["lr", "params"])
    pd.testing.assert_frame_equal(read_sweep(indexed).table, read_sweep(runs()).table)
    shuffled = runs().set_index(pd.Index([7, 3, 3, 1]))
    pd.testing.assert_frame_equal(read_sweep(shuffled).table, read_sweep(runs()).table)
    assert 7 not in read_sweep(runs().assign(**{"x": 1}).rename(columns={"x": 7})).table.columns
    assert "several levels" in refusal(pd.concat({"a": runs()}, axis=1))
    assert "2 columns named 'loss'" in refusal(pd.concat([runs(), runs()[["loss"]]], axis=1))
    assert "has a header but no runs" in refusal(runs().iloc[:0])
    assert "no columns" in refusal(pd.DataFrame())


def test_the_table_of_a_sweep_reads_back_as_the_same_sweep() -> None:
    table = runs()
    table.loc[1, "loss"] = np.nan
    sweep = read_sweep(table, nonfinite="diverged")
    again = read_sweep(sweep.table, nonfinite="diverged")
    assert again.fingerprint == sweep.fingerprint
    assert "input_diverged" in read_sweep(runs(diverged=[True, False, False, False])).table


def test_the_input_is_left_as_it_was() -> None:
    table = runs(batch=64.0)
    before = table.copy()
    read_sweep(table, batch_unit="sequences", seq_len=2048)
    pd.testing.assert_frame_equal(table, before)


def test_loading_needs_no_heavy_package() -> None:
    import subprocess

    heavy = ("scipy", "sympy", "lmfit", "matplotlib", "pyarrow.parquet")
    code = f"import sys, scalefit.loading; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# -- public sweeps -----------------------------------------------------------------------------------------------------


def test_step_law_proves_its_unit_and_keeps_its_17_cells(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("steplaw_dense_lr_bs.csv")
    assert "'loss' and 'smooth loss'" in refusal(path)
    sweep = read_sweep(path, columns={"loss": "smooth loss"})
    assert (len(sweep), len(sweep.cells)) == (1911, 17)
    raw = pd.read_csv(path)
    assert_array_equal(sweep.table["batch"], raw["bs"] * 2048.0)
    assert_array_equal(sweep.table["input_loss"], raw["loss"])
    assert "sequences of 2048 tokens" in noted(sweep, "batch_unit")
    assert noted(sweep, "far_off").startswith("182 of 1911")
    assert len(sweep.levels("lr")) == 14  # 26 spellings
    assert sweep.cells["n_lr"].max() == 12
    assert sweep.cells["n_runs"].min() == 47
    tokens = raw.assign(bs=raw["bs"] * 2048)  # already in tokens: never multiplied again
    assert_array_equal(read_sweep(tokens, columns={"loss": "smooth loss"}).table["batch"], raw["bs"] * 2048.0)


def test_step_law_with_jittered_sizes_keeps_its_17_cells(shared_data: Callable[[str], Path]) -> None:
    raw = pd.read_csv(shared_data("steplaw_dense_lr_bs.csv"))
    raw["N"] *= 1 + 1e-9 * np.random.default_rng(0).normal(size=len(raw))
    assert len(read_sweep(raw, columns={"loss": "smooth loss"}).cells) == 17


def test_misfitting_has_one_run_twice_and_81_cells(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("misfitting_last_ckpt.csv")
    assert "'D' and 'train_tokens'" in refusal(path)
    assert "1 of 261 runs" in refusal(path, columns={"tokens": "D"})
    sweep = read_sweep(path, columns={"tokens": "D"}, duplicates="drop")
    assert (len(sweep), len(sweep.cells)) == (260, 81)
    assert {"N_no_emb", "C4 Eval Loss", "train_tokens"} <= set(sweep.table)


def test_mup_demo_marks_its_54_diverged_runs(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("mup_demo_mlp_lr_width.csv")
    assert "54 of 3774 values are not" in refusal(path, columns={"loss": "train_loss"})
    sweep = read_sweep(path, columns={"loss": "train_loss"}, nonfinite="diverged")
    assert sweep.table["diverged"].sum() == 54
    assert "whole loss curves" in noted(sweep, "curves")


def test_chinchilla_points_read_without_a_word(shared_data: Callable[[str], Path]) -> None:
    sweep = read_sweep(shared_data("chinchilla_epoch_svg.csv"))
    assert_allclose(sweep.table[["params", "flops"]].to_numpy()[0], [6795600349.289497, 9.993852799709755e18], rtol=0)
