"""Tables of other libraries go in by Arrow's protocol, results come out by it, and named indexes are columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from scalefit.errors import SweepError
from scalefit.loading import frames
from scalefit.loading.read_curves import read_curves
from scalefit.loading.read_sweep import read_sweep
from scalefit.optima.find_optima import find_optima

RUNS = pd.DataFrame(
    {
        "lr": [1e-3, 2e-3, 4e-3] * 2,
        "params": [1e8] * 3 + [4e8] * 3,
        "tokens": [2e9] * 6,
        "loss": [3.3, 3.2, 3.4, 3.0, 3.1, 3.3],
        "host": list("ababab"),
    }
)
POINTS = pd.DataFrame(
    [{"run": f"r{lr}", "step": s, "lr": lr, "loss": 3 + s**-0.3 + lr} for lr in (1e-3, 2e-3) for s in (100, 200, 400)]
)


class Stream:
    """Hands out a table by the protocol and has nothing else."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


class LazyFrame:
    """A query whose answer is a table, as in polars."""

    def collect(self) -> Stream:
        return Stream(pa.Table.from_pandas(RUNS))


class Grid(dict):  # an xarray.Dataset is a mapping too
    def to_dataframe(self) -> pd.DataFrame:
        return RUNS


def check_runs(source: Any) -> None:
    table, order = read_sweep(source).table, list(RUNS)
    assert set(table) == {*order, "diverged"}
    expected = RUNS.sort_values(["params", "lr"], ignore_index=True)
    found = table.sort_values(["params", "lr"], ignore_index=True)[order]
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


@pytest.mark.parametrize("index", ["lr", "params", "host", ["params", "tokens"], list(RUNS)[:3]], ids=str)
def test_the_named_index_of_pandas_is_kept(index: Any, tmp_path: Path) -> None:
    RUNS.set_index(index).to_parquet(tmp_path / "runs.parquet")
    check_runs(tmp_path / "runs.parquet")
    check_runs(RUNS.set_index(index))
    check_runs(pa.Table.from_pandas(RUNS.set_index(index)))


@pytest.mark.parametrize("long", [True, False])
@pytest.mark.parametrize("index", ["run", "step", ["run", "step"]], ids=str)
def test_curves_keep_the_named_index(index: Any, long: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_LONG", 1 if long else 1000)
    POINTS.set_index(index).to_parquet(tmp_path / "points.parquet")
    final = read_curves(str(tmp_path / "points.parquet")).final().table
    assert final["run"].tolist() == ["r0.001", "r0.002"]
    assert final["steps"].tolist() == [400, 400]


@pytest.mark.parametrize("long", [True, False])
def test_an_index_that_only_counts_is_kept_if_it_has_a_name(
    long: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "_LONG", 1 if long else 1000)
    counted = POINTS[POINTS["run"] == "r0.001"].drop(columns="step")
    counted.index = pd.RangeIndex(100, 400, 100, name="step")  # Parquet stores it as three numbers
    counted.to_parquet(tmp_path / "points.parquet")
    assert read_curves(str(tmp_path / "points.parquet")).table["steps"].tolist() == [100, 200, 300]


def test_an_index_without_a_name_is_no_column(tmp_path: Path) -> None:
    RUNS.iloc[::-1].to_parquet(tmp_path / "runs.parquet")
    check_runs(tmp_path / "runs.parquet")


def test_columns_of_several_levels_are_refused(tmp_path: Path) -> None:
    table = pd.DataFrame([[1.0, 2.0]], columns=pd.MultiIndex.from_tuples([("loss", "mean"), ("lr", "mean")]))
    table.to_parquet(tmp_path / "runs.parquet")
    for source in (table, str(tmp_path / "runs.parquet")):
        with pytest.raises(SweepError, match="several levels"):
            read_sweep(source)


def as_views(table: pa.Table) -> pa.Table:
    """Texts as polars hands them out."""
    host = pa.array(table["host"].to_pylist(), pa.string_view())
    return table.set_column(table.column_names.index("host"), "host", host)


@pytest.mark.parametrize(
    "made",
    [
        lambda table: table,
        lambda table: table.to_batches()[0],
        lambda table: table.to_reader(),
        lambda table: Stream(table),
        lambda table: Stream(as_views(table)),
        lambda table: LazyFrame(),
        lambda table: [table.slice(0, 3), RUNS[3:]],
        lambda table: table.set_column(0, "lr", table["lr"].cast(pa.decimal128(20, 6), safe=False)),
    ],
    ids=["table", "batch", "reader", "stream", "views", "lazy", "list", "decimals"],
)
def test_arrow_tables_are_read(made: Any) -> None:
    source = made(pa.Table.from_pandas(RUNS))
    if isinstance(source, list):
        assert len(read_sweep(source)) == len(RUNS)
    else:
        check_runs(source)


def test_curves_are_read_from_arrow() -> None:
    curves = read_curves(Stream(pa.Table.from_pandas(POINTS)))
    np.testing.assert_array_equal(curves.table["loss"], POINTS["loss"])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (Grid(RUNS), r"found Grid; give what its to_dataframe\(\) returns"),
        (RUNS.to_dict("list"), r"pandas\.DataFrame\("),
        (pa.chunked_array([[1.0, 2.0]]), "cannot be read as an Arrow table"),
        (pa.table([[1.0], [2.0]], names=["loss", "loss"]), "2 columns named 'loss'"),
        (pa.table({"loss": pa.array([], pa.float64())}), "no runs"),
    ],
    ids=["xarray", "dict", "array", "repeats", "empty"],
)
def test_what_is_no_table_is_refused_with_the_remedy(source: Any, words: str) -> None:
    with pytest.raises(SweepError, match=words):
        read_sweep(source)


def test_results_are_arrow_tables() -> None:
    sweep, curves = read_sweep(RUNS), read_curves(POINTS)
    for result in (sweep, find_optima(sweep, over="lr"), curves, sweep.where("lr > 1e-3")):
        found = pa.table(result)
        assert found.column_names == list(result.table)
        pd.testing.assert_frame_equal(found.to_pandas(), result.table, check_dtype=False, check_categorical=False)
    check_runs(pa.table(sweep))
