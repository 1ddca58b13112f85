"""Reading loss curves: which rows are a run, what is refused, what follows from what."""

from __future__ import annotations

import dataclasses
import gzip
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from scalefit._datasets.load_dataset import load_curves
from scalefit.curves.curves import Curves
from scalefit.errors import SweepError
from scalefit.loading.read_curves import read_curves


def points(**columns: Any) -> pd.DataFrame:
    """Three runs of five points, the batch in tokens; steps 10 to 50."""
    steps = np.tile(np.arange(10, 60, 10), 3)
    batch = np.repeat([1000, 1000, 2000], 5)
    table = {
        "run": np.repeat(["a", "b", "c"], 5),
        "step": steps,
        "tokens": steps * batch,
        "loss": 2 + 3 * (steps * batch) ** -0.1 + 0.001 * batch / 1000,
        "lr": np.repeat([1e-3, 2e-3, 4e-3], 5),
        "batch": batch,
    }
    return pd.DataFrame({**table, **columns})


def refusal(source: Any, **options: Any) -> str:
    with pytest.raises(SweepError) as caught:
        read_curves(source, **options)
    return str(caught.value)


def noted(curves: Curves, code: str) -> str:
    return " | ".join(note.text for note in curves.notes if note.code == code)


def same(one: Curves, other: Curves) -> bool:
    pd.testing.assert_frame_equal(one.table, other.table)
    pd.testing.assert_frame_equal(one.runs, other.runs)
    return True


# -- what a curve is ---------------------------------------------------------------------------------------------------


def test_points_and_runs_are_told_apart() -> None:
    curves = read_curves(points(width=np.repeat([8, 8, 16], 5), grad_norm=np.linspace(1, 2, 15)))
    assert list(curves.table) == ["run", "steps", "tokens", "loss", "grad_norm"]
    assert list(curves.runs) == ["run", "lr", "batch", "width", "points", "diverged"]
    assert curves.runs["width"].tolist() == [8, 8, 16]
    assert curves.runs["points"].tolist() == [5, 5, 5]
    assert curves.table["run"].tolist() == list("aaaaabbbbbccccc")
    assert curves.units == {
        "lr": "1",
        "batch": "tokens",
        "tokens": "tokens",
        "loss": "nats/token",
        "steps": "steps",
        "run": "",
    }
    assert len(curves) == 3


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".tsv", ".jsonl", ".parquet"])
def test_every_format_reads_alike(tmp_path: Path, ending: str) -> None:
    path, table = tmp_path / f"curves{ending}", points()
    if ending == ".parquet":
        table.to_parquet(path)
    elif ending == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in table.to_dict("records")))
    else:
        text = table.to_csv(index=False, sep="\t" if ending == ".tsv" else ",").encode()
        path.write_bytes(gzip.compress(text) if ending.endswith("gz") else text)
    assert same(read_curves(path), read_curves(points()))


@pytest.mark.parametrize("long", [0, 10**9])
def test_parquet_reads_alike_by_column_and_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: int) -> None:
    table = points(host=np.repeat(["x", "y", None], 5), note=[f"n{i}" for i in range(15)])
    table.set_index("run").to_parquet(tmp_path / "a.parquet", row_group_size=4)
    monkeypatch.setattr("scalefit.loading.frames._LONG", long)
    curves = read_curves(tmp_path / "a.parquet")
    assert curves.runs["host"].tolist()[:2] == ["x", "y"]
    assert curves.runs["host"].isna().tolist() == [False, False, True]
    assert curves.table["note"].astype(str).tolist() == table["note"].tolist()
    assert_array_equal(curves.table["loss"], table["loss"])


def test_long_parquet_files_are_joined_column_by_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalefit.loading.frames._LONG", 0)
    table = points(host=np.repeat(["x", "y", "y"], 5))
    table.iloc[:7].to_parquet(tmp_path / "a.parquet")
    table.iloc[7:].to_parquet(tmp_path / "b.parquet")
    assert same(read_curves(str(tmp_path / "*.parquet")), read_curves(table))


def test_numbers_written_as_text_are_read_once_a_text_and_refused_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalefit.loading.frames._LONG", 0)
    points(loss=[f"{v:.3f}" for v in points()["loss"]]).to_parquet(tmp_path / "a.parquet")
    assert_allclose(read_curves(tmp_path / "a.parquet").table["loss"], points()["loss"], atol=5e-4)
    points(loss=["3.0"] * 7 + ["high"] + ["3.0"] * 7).to_parquet(tmp_path / "b.parquet")
    assert re.search(r"loss should hold numbers.*'high' in row 8 of .*b\.parquet", refusal(tmp_path / "b.parquet"))


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    points().to_parquet(tmp_path / "a.parquet")
    cut = (tmp_path / "a.parquet").read_bytes()[:-200]
    (tmp_path / "a.parquet").write_bytes(cut)
    assert "cut short or damaged" in refusal(tmp_path / "a.parquet")


def test_curves_cannot_be_changed_through_what_they_hand_out() -> None:
    curves = read_curves(points())
    before = curves.table
    table, runs = curves.table, curves.runs
    table.loc[:, "loss"] = 99.0
    runs.loc[:, "lr"] = 99.0
    assert same(curves, read_curves(points()))
    pd.testing.assert_frame_equal(curves.table, before)
    with pytest.raises(dataclasses.FrozenInstanceError):
        curves.source = "other"  # type: ignore[misc]
    assert same(pickle.loads(pickle.dumps(curves)), curves)


def test_curves_do_not_follow_changes_of_the_table_they_were_made_from() -> None:
    table = points()
    curves = read_curves(table)
    table.loc[:, "loss"] = 99.0
    assert curves.table["loss"].max() < 4


# -- which run ---------------------------------------------------------------------------------------------------------


def test_interleaved_runs_are_put_in_order_of_appearance() -> None:
    by_step = points().sort_values("step", kind="stable")
    assert same(read_curves(by_step), read_curves(points()))


@given(st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(random) -> None:
    """Any order will do when asked to sort; an order that keeps each run's own will always do."""
    table = points(grad_norm=np.linspace(1, 2, 15))
    order = list(range(15))
    random.shuffle(order)
    shuffled = read_curves(table.iloc[order], restarts="sort")
    kept = read_curves(table.iloc[order].sort_values("step", kind="stable"))
    for curves in (shuffled, kept):
        assert_array_equal(np.sort(curves.runs["run"]), ["a", "b", "c"])
        ordered = curves.table.astype({"run": str}).sort_values(["run", "steps"], ignore_index=True)
        expected = read_curves(table).table.astype({"run": str})
        pd.testing.assert_frame_equal(ordered, expected)
        assert_array_equal(
            curves.runs.sort_values("run")[["lr", "batch"]], read_curves(table).runs[["lr", "batch"]].to_numpy()
        )


def test_every_file_is_a_run_when_no_column_says_otherwise(tmp_path: Path) -> None:
    for name, table in points().groupby("run"):
        table.drop(columns="run").to_csv(tmp_path / f"run-{name}.log.csv", index=False)
    curves = read_curves(tmp_path / "*.csv")
    assert curves.runs["run"].tolist() == ["run-a", "run-b", "run-c"]
    assert "each of 3 sources is one" in noted(curves, "run")
    assert_array_equal(curves.table["loss"], points()["loss"])
    bad = pd.read_csv(tmp_path / "run-b.log.csv")
    bad.loc[1, "loss"] = -1.0
    bad.to_csv(tmp_path / "run-b.log.csv", index=False)
    assert re.search(r"loss should be positive.*row 2 of .*run-b", refusal(tmp_path / "*.csv"))


def test_hundreds_of_files_are_one_table(tmp_path: Path) -> None:
    for i in range(300):
        (tmp_path / f"{i:04d}.csv").write_text(f"step,loss,lr\n1,{3 + i / 1000},0.1\n2,{2 + i / 1000},0.1\n")
    curves = read_curves(str(tmp_path / "*.csv"))
    assert len(curves) == 300
    assert_allclose(curves.final().table["loss"], 2 + np.arange(300) / 1000)


def test_a_run_may_go_on_in_another_file() -> None:
    table = points()
    early, late = table[table["step"] <= 20], table[table["step"] > 20]
    assert same(read_curves([early, late]), read_curves(table))


def test_columns_missing_in_some_files_are_left_out_and_said() -> None:
    curves = read_curves([points(host="x"), points(run=np.repeat(["d", "e", "f"], 5))])
    assert "host" not in curves.runs
    assert "not every one of 2 sources has these columns, which are left out: host" in noted(curves, "files")


def test_several_columns_tell_runs_apart() -> None:
    table = points(size=np.repeat([25, 25, 100], 5), curve=np.repeat(["x", "y", "x"], 5)).drop(columns="run")
    proven = read_curves(table)
    assert proven.runs["run"].tolist() == ["25/x", "25/y", "100/x"]
    assert "the steps go back between 3 pieces, told apart by 'size' and 'curve'" in noted(proven, "run")
    said = read_curves(table, run=("size", "curve"))
    assert said.runs["run"].tolist() == ["25/x", "25/y", "100/x"]
    assert said.runs["curve"].tolist() == ["x", "y", "x"]
    shuffled = read_curves(table.sample(frac=1, random_state=0), run=("size", "curve"), restarts="sort")
    assert shuffled.runs["points"].tolist() == [5, 5, 5]


def test_one_column_may_be_named_in_either_way() -> None:
    table = points().rename(columns={"run": "trial"})
    for curves in (read_curves(table, run="trial"), read_curves(table, columns={"run": "trial"})):
        assert list(curves.runs) == ["run", "lr", "batch", "points", "diverged"]
    assert same(read_curves(points(), run="run"), read_curves(points()))
    assert not noted(read_curves(points(), run="run"), "names").count("not used")


def test_a_table_of_one_run_needs_no_name() -> None:
    assert read_curves(points().query("run == 'a'").drop(columns="run")).runs["run"].tolist() == ["table"]


def test_runs_that_cannot_be_told_apart_are_refused() -> None:
    table = points()[["step", "loss"]]
    assert re.search(r"no column of table names the run.* 2 times, first in row 6", refusal(table))
    assert "run=('<column>', ...)" in refusal(table)
    assert "names no columns" in refusal(points(), run="nobody")
    assert "3 of 15 rows have no 'run', first row 2" in refusal(points(run=["a", None, None, None, *"abcdefghijk"]))


# -- going forward -----------------------------------------------------------------------------------------------------


def restarted() -> pd.DataFrame:
    """Run a goes to step 50, starts again from 30 and ends at 60."""
    again = points().iloc[2:5].assign(loss=[2.9, 2.8, 2.7])
    return pd.concat([points().iloc[:5], again, points().iloc[5:]], ignore_index=True)


def test_a_restarted_run_is_refused_with_the_row_where_it_goes_back() -> None:
    text = refusal(restarted())
    assert "1 times a run goes back, the first where steps goes from 50 to 30 in run 'a', row 6 of the table" in text
    assert "restarts='later'" in text


def test_a_restarted_run_keeps_what_was_logged_later_when_asked() -> None:
    curves = read_curves(restarted(), restarts="later")
    kept = curves.table.query("run == 'a'")
    assert kept["steps"].tolist() == [10, 20, 30, 40, 50]
    assert kept["loss"].tolist()[2:] == [2.9, 2.8, 2.7]
    assert len(curves.table) == 15


def test_a_point_that_is_there_twice_is_refused() -> None:
    table = points(step=[10, 20, 20, 40, 50] + [10, 20, 30, 40, 50] * 2).drop(columns="tokens")
    text = refusal(table, batch_unit="tokens")
    assert "1 points have the steps of the point before" in text
    assert "row 3 of the table" in text
    assert "twice" not in refusal(table.drop(columns="batch"), restarts="sort")
    later = read_curves(table.drop(columns="batch"), restarts="later")
    assert later.table["steps"].tolist()[:4] == [10, 20, 40, 50]
    assert later.table["loss"].tolist()[1] == table["loss"][2]


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"loss": [3.0] * 14 + [-1.0]}, r"loss should be positive: 1 of 15 .* first -1 in row 15"),
        ({"loss": [3.0] * 14 + ["low"]}, r"loss should hold numbers: 1 of 15 .*'low' in row 15"),
        ({"step": [np.nan, *range(1, 15)]}, r"steps \(column 'step'\) should be finite.*first missing or NaN in row 1"),
        ({"step": [-1, *range(1, 15)]}, r"steps .*not negative: 1 of 15 .*first -1 in row 1"),
        ({"lr": [0.0] * 5 + [1e-3] * 10}, r"lr should be positive: 1 of 3 .*first 0 in row 5"),
        (
            {"batch": [1000] * 4 + [2000] + [1000] * 10},
            r"batch should be one value a run and goes from 1000.* in run 'a'",
        ),
        ({"params": np.arange(1, 16)}, r"params should be one value a run"),
        ({"tokens": [1, 2, 3, 4, 5] * 3}, r"the unit of batch is not clear"),
    ],
)
def test_what_no_curve_can_have_is_refused(columns: dict[str, Any], text: str) -> None:
    assert re.search(text, refusal(points(**columns)))


def test_missing_columns_are_named() -> None:
    assert "no column for steps or tokens" in refusal(points()[["run", "loss"]])
    assert "no column for loss" in refusal(points().rename(columns={"loss": "train_loss"}))
    curves = read_curves(points().rename(columns={"loss": "train_loss"}), columns={"loss": "train_loss"})
    assert_array_equal(curves.table["loss"], points()["loss"])
    assert "extras='grad'" in refusal(points(), extras="grad")
    assert "restarts should be one of" in refusal(points(), restarts="ignore")


# -- losses that are not finite ----------------------------------------------------------------------------------------


def broken() -> pd.DataFrame:
    """Run a lacks one loss, run b ends in NaN and infinity, run c has none at all."""
    loss = points()["loss"].to_numpy().copy()
    loss[2], loss[8], loss[9], loss[10:] = np.nan, np.nan, np.inf, np.nan
    return points(loss=loss)


def test_losses_that_are_not_finite_are_refused() -> None:
    text = refusal(broken())
    assert "8 of 15 losses are not finite, first nan in run 'a', row 3 of the table" in text
    assert "nonfinite='diverged'" in text


def test_a_run_ends_where_it_diverged() -> None:
    curves = read_curves(broken(), nonfinite="diverged")
    assert curves.runs["points"].tolist() == [2, 3, 0]
    assert curves.runs["diverged"].all()
    assert curves.runs["diverged_at"].tolist() == [30e3, 40e3, 20e3]
    assert "2 finite losses came after and are left out" in noted(curves, "diverged")
    final = curves.final()
    assert final.table["diverged"].all()
    assert final.table["tokens"].tolist() == [20e3, 30e3, 20e3]
    reached = curves.tokens_to_target([2.0, 4.0])
    assert reached["status"].tolist() == ["bound", "before_start"] * 2 + ["bound", "bound"]
    assert reached["tokens"].tolist() == [20e3, 10e3, 30e3, 10e3, 20e3, 20e3]


def test_points_without_a_loss_are_dropped_when_asked() -> None:
    curves = read_curves(broken().iloc[:10], nonfinite="drop")
    assert curves.runs["points"].tolist() == [4, 3]
    assert not curves.runs["diverged"].any()
    assert "diverged_at" not in curves.runs
    assert "their runs go on" in noted(curves, "dropped")
    assert "nothing would be left" in refusal(broken().iloc[10:], nonfinite="drop")


# -- steps, tokens, units ----------------------------------------------------------------------------------------------


def test_tokens_follow_from_steps_and_batch_and_back() -> None:
    whole = read_curves(points())
    assert "steps * batch = tokens" in noted(whole, "batch_unit")
    from_steps = read_curves(points().drop(columns="tokens"), batch_unit="tokens")
    from_tokens = read_curves(points().drop(columns="step"), batch_unit="tokens")
    for curves in (from_steps, from_tokens):
        assert_allclose(curves.table[["steps", "tokens", "loss"]], whole.table[["steps", "tokens", "loss"]])
        assert noted(curves, "derived")


def test_an_unknown_batch_unit_is_refused_and_sequences_are_converted() -> None:
    table = points().drop(columns="tokens")
    assert "the unit of batch is not known: without tokens" in refusal(table)
    curves = read_curves(table, batch_unit="sequences", seq_len=64)
    assert_array_equal(curves.runs["batch"], [64e3, 64e3, 128e3])
    assert_array_equal(curves.table["tokens"], points()["tokens"] * 64)
    assert "steps" in read_curves(table, columns={"batch": None}).units
    assert "tokens" not in read_curves(table, columns={"batch": None}).table


def test_a_batch_that_changes_along_the_run_contradicts_its_tokens() -> None:
    tokens = points()["tokens"].to_numpy().copy()
    tokens[:4] = [2e3, 4e3, 7e3, 20e3]  # the last point still agrees
    text = refusal(points(tokens=tokens))
    assert "steps * batch contradicts tokens in 4 of 15 points, first 10000 against 2000 in run 'a', row 1" in text
    assert read_curves(points(tokens=tokens), columns={"batch": None}).table["tokens"].tolist()[0] == 2e3


def test_steps_counted_from_zero_are_no_contradiction() -> None:
    long = pd.DataFrame({"step": np.arange(500), "loss": 3.0, "batch": 1000, "lr": 0.1, "run": "a"})
    curves = read_curves(long.assign(tokens=(long["step"] + 1) * 1000))
    assert curves.table["tokens"].iloc[0] == 1000
    assert curves.table["steps"].iloc[0] == 0


def test_totals_are_no_curve() -> None:
    table = points(tokens=np.repeat([50e3, 50e3, 100e3], 5))
    curves = read_curves(table, batch_unit="tokens")
    assert_array_equal(curves.runs["input_tokens"], [50e3, 50e3, 100e3])
    assert_array_equal(curves.table["tokens"], points()["tokens"])
    assert "a total, kept as input_tokens" in noted(curves, "totals")
    both = read_curves(points(total_steps=50))
    assert both.runs["total_steps"].tolist() == [50] * 3


@pytest.mark.parametrize(
    "name", ["step", "steps", "global_step", "_step", "iteration", "iter", "Step", "trainer/global_step"]
)
def test_usual_names_of_steps(name: str) -> None:
    assert_array_equal(read_curves(points().rename(columns={"step": name})).table["steps"], points()["step"])


def test_the_column_that_counts_steps_must_be_the_only_one() -> None:
    table = points(global_step=points()["step"] + 1, epoch=np.tile(range(5), 3))
    assert "2 columns could be steps along the run: 'step' and 'global_step'" in refusal(table)
    chosen = read_curves(table, columns={"steps": "step"})
    assert list(chosen.table) == ["run", "steps", "tokens", "loss", "global_step", "epoch"]
    assert_array_equal(read_curves(points(_step=range(15))).table["steps"], points()["step"])
    assert "no column for steps or tokens" in refusal(table[["run", "epoch", "loss"]])


def test_settings_may_be_missing_at_some_points() -> None:
    lr = points()["lr"].to_numpy().copy()
    lr[[0, 3, 14]] = np.nan
    accuracy = np.full(15, np.nan)
    accuracy[[4, 9]] = [0.5, 0.6]
    curves = read_curves(points(lr=lr, accuracy=accuracy))
    assert curves.runs["lr"].tolist() == [1e-3, 2e-3, 4e-3]
    assert_array_equal(curves.runs["accuracy"], [0.5, 0.6, np.nan])
    assert not noted(curves, "schedule")
    lr[:5] = np.nan
    assert re.search(r"lr should be finite: 1 of 3 .*missing or NaN in row 5", refusal(points(lr=lr)))


def test_odd_columns_are_settings_too() -> None:
    odd = points(
        betas=[[0.9, 0.95]] * 15,
        when=pd.Timestamp("2026-01-01"),
        layers=pd.array([2] * 5 + [None] * 5 + [4] * 5, dtype="Int64"),
        best=[True] * 14 + [False],
    )
    curves = read_curves(odd)
    assert curves.runs["betas"].tolist() == [[0.9, 0.95]] * 3
    assert_array_equal(curves.runs["layers"], [2, np.nan, 4])
    assert list(curves.table) == ["run", "steps", "tokens", "loss", "best"]


def test_rounded_tokens_that_stand_still_are_refused_with_advice() -> None:
    rounded = np.round(points()["tokens"], -5)
    assert "are they rounded? columns={'tokens': None}" in refusal(points(tokens=rounded))


def test_a_schedule_becomes_its_peak_and_stays_in_the_table() -> None:
    rate = np.tile([0.1, 0.4, 0.3, 0.2, 0.0], 3)
    curves = read_curves(points(lr=rate).rename(columns={"lr": "learning_rate"}))
    assert curves.runs["lr"].tolist() == [0.4] * 3
    assert_array_equal(curves.table["learning_rate"], rate)
    assert "lr is the peak of each, and the schedule is kept as 'learning_rate'" in noted(curves, "schedule")


def test_settings_may_come_in_a_table_of_their_own(tmp_path: Path) -> None:
    history = points()[["run", "step", "loss"]]
    listed = points().groupby("run", as_index=False).last().rename(columns={"run": "name", "lr": "learning_rate"})
    listed = listed.assign(host="x").sample(frac=1, random_state=0)
    listed.to_csv(tmp_path / "runs.csv", index=False)
    curves = read_curves(history, runs=tmp_path / "runs.csv", batch_unit="tokens")
    assert_array_equal(curves.runs[["lr", "batch"]], read_curves(points()).runs[["lr", "batch"]])
    assert_array_equal(curves.table["tokens"], points()["tokens"])
    assert_array_equal(curves.runs["input_loss"], points()["loss"][4::5])
    assert "matched by run" in noted(curves, "runs")
    assert "1 of its 3 runs have no curve" in noted(
        read_curves(history.query("run != 'b'"), runs=listed, batch_unit="tokens"), "runs"
    )
    both = read_curves(points(host="x"), runs=listed[["name", "host", "batch"]])
    assert same(both, read_curves(points(host="x")))
    assert "runs= lacks 1 of 3 runs, first 'b'" in refusal(history, runs=listed.query("name != 'b'"))
    assert "names the run 'a' twice" in refusal(history, runs=pd.concat([listed, listed.query("name == 'a'")]))
    assert "lr should be positive: 1 of 3 values are not, first 0 in row 1 of the table" in refusal(
        history, runs=listed.assign(learning_rate=[0.0, 0.1, 0.1])
    )
    assert "do not agree on batch" in refusal(points(), runs=listed.assign(batch=7))
    assert "no column that names the run" in refusal(history, runs=listed.drop(columns="name"))


def test_only_columns_asked_for_are_read() -> None:
    table = points(host="x", grad_norm=np.linspace(1, 2, 15))
    assert "host" not in read_curves(table, extras=[]).runs
    curves = read_curves(table, extras=["grad_norm"])
    assert list(curves.table) == ["run", "steps", "tokens", "loss", "grad_norm"]
    assert curves.runs["lr"].tolist() == [1e-3, 2e-3, 4e-3]


def test_data_may_be_counted_in_images() -> None:
    table = points().rename(columns={"tokens": "images", "batch": "batch_size"})
    curves = read_curves(table, data_unit="images")
    assert curves.units["tokens"] == curves.units["batch"] == "images"
    assert curves.units["loss"] == "nats"
    assert "batch is in images" in noted(curves, "batch_unit")
    assert curves.final().data_unit == "images"
    assert "images" in repr(curves)
    assert "tokens" not in refusal(table.drop(columns="step"), data_unit="images").split("cannot be checked")[1]


# -- selecting ---------------------------------------------------------------------------------------------------------


def test_where_selects_runs_or_points() -> None:
    curves = read_curves(points(lr_share=np.tile([0.5, 1, 1, 1, 0.2], 3)))
    assert curves.where("eta < 3e-3").runs["run"].tolist() == ["a", "b"]
    flat = curves.where("lr_share == 1")
    assert flat.runs["points"].tolist() == [3, 3, 3]
    assert flat.table["steps"].tolist() == [20, 30, 40] * 3
    late = curves.where("tokens > 5e4")
    assert late.runs["run"].tolist() == ["c"]
    assert "of 15 points selected" in noted(late, "where")
    mixed = curves.where("run == 'b' and S >= 40")
    assert mixed.table["steps"].tolist() == [40, 50]
    assert len(mixed) == 1
    with pytest.raises(SweepError, match="none of the 3 runs"):
        curves.where("lr > 1")
    with pytest.raises(SweepError, match="the columns of these curves are run, lr"):
        curves.where("depth > 1")


def test_runs_that_diverged_at_once_can_be_selected() -> None:
    curves = read_curves(broken(), nonfinite="diverged")
    assert curves.where("lr > 3e-3").runs["run"].tolist() == ["c"]
    assert curves.where("lr > 1.5e-3").final().table["diverged"].tolist() == [True, True]
    assert curves.where("steps > 15").runs["run"].tolist() == ["a", "b"]


def test_face_says_how_many_and_from_where_to_where() -> None:
    text = repr(read_curves(broken(), nonfinite="diverged"))
    assert re.search(r"runs +3, 3 diverged", text)
    assert re.search(r"points +5, 0 to 3 a run", text)
    assert "<table" in read_curves(points())._repr_html_()


# -- the last loss -----------------------------------------------------------------------------------------------------


def test_final_takes_the_last_point_or_a_mean() -> None:
    curves = read_curves(points(weight_norm=np.arange(1, 16)), params_convention="total")
    last = curves.final()
    assert_array_equal(last.table["loss"], points()["loss"][4::5])
    assert_array_equal(last.table["tokens"], points()["tokens"][4::5])
    assert_array_equal(last.table["weight_norm"], [5, 10, 15])
    assert (last.params_convention, last.rtol) == ("total", 0.01)
    mean = curves.final(0.4)  # from 30 of 50 steps on
    expected = points()["loss"].to_numpy().reshape(3, 5)[:, 2:].mean(axis=1)
    assert_allclose(mean.table["loss"], expected)
    assert any("mean over the last 0.4 of each run's tokens, 3 points" in note.text for note in mean.notes)
    with pytest.raises(SweepError, match="share should be above 0"):
        curves.final(0)


# -- real curves -------------------------------------------------------------------------------------------------------


def test_tiny_lm_curves() -> None:
    curves = load_curves("tiny-lm")
    assert (len(curves), len(curves.table)) == (396, 39600)
    assert set(curves.runs["points"]) == {100}
    assert list(curves.table) == ["run", "steps", "tokens", "loss", "lr_share"]
    assert_allclose(curves.table["tokens"], curves.table["steps"] * curves.runs["batch"].to_numpy().repeat(100))
    reached = curves.where("lr_share == 1").tokens_to_target([1.2, 2.0])
    assert (reached.query("target == 1.2")["status"] == "bound").all()
    counts = reached.query("target == 2.0")["status"].value_counts()
    assert counts["reached"] > 150
    assert counts["bound"] > 100
    bound = reached.query("target == 1.2").set_index("run")["tokens"]
    assert_array_equal(bound, curves.where("lr_share == 1").final().table.set_index("run").loc[bound.index, "tokens"])


def test_no_curves_under_that_name() -> None:
    with pytest.raises(SweepError, match="simulated holds runs, no loss curves"):
        load_curves("simulated")


def test_multipowerlaw_curves(shared_data) -> None:
    curves = read_curves(shared_data("multipowerlaw_curves.csv"))
    assert (len(curves), len(curves.table)) == (27, 6265)
    assert_allclose(curves.runs["lr"], 3e-4, rtol=0.01)
    assert set(curves.runs["model_size_M"]) == {25, 100, 400}
    assert "lr is the peak" in noted(curves, "schedule")
    reached = curves.tokens_to_target([2.9, 3.3]).set_index(["run", "target"])
    assert "tokens" not in reached.columns
    assert reached["status"].value_counts().to_dict() == {"reached": 32, "bound": 22}
    bound = reached.loc[("25/constant_24000", 2.9)]
    assert (bound["status"], bound["steps"]) == ("bound", 23936)
    table = curves.table
    for run in ("100/cosine_24000", "400/constant_72000"):
        own, at = table[table["run"] == run], reached.loc[(run, 3.3), "steps"]
        before, after = own[own["steps"] <= at], own[own["steps"] >= at]
        assert (before["loss"] > 3.3).mean() > 0.9
        assert (after["loss"] <= 3.3).mean() > 0.9


def test_mup_demo_counts_in_epochs(shared_data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALEFIT_DATA", str(shared_data("mup_demo_mlp_lr_width.csv").parent))
    curves = load_curves("mup-demo")
    assert (len(curves), int(curves.runs["diverged"].sum())) == (240, 54)
    assert curves.units["tokens"] == "epochs"
    assert curves.final().units["tokens"] == "epochs"
