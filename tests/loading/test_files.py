"""Reading sweeps from files: formats, compression, encodings, and everything that can be wrong with bytes."""

from __future__ import annotations

import gzip
import io
import json
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from scalefit.errors import SweepError
from scalefit.loading import files, parsing
from scalefit.loading.read_sweep import read_sweep
from scalefit.sweep import Sweep

RUNS = pd.DataFrame(
    {
        "lr": [1 / 3000, 2e-3, 4e-3, 8e-3],
        "params": [1e8, 1e8, 4e8, 4e8],
        "tokens": [2e9] * 4,
        "loss": [3.31234567, 3.21234567, 3.41234567, 3.61234567],
        "host": ["a", "b", "a", 'ü, "é"\n'],
    }
)


def csv_bytes(frame: pd.DataFrame = RUNS, sep: str = ",", end: str = "\n") -> bytes:
    return frame.to_csv(index=False, sep=sep, lineterminator=end).encode()


def json_bytes(frame: pd.DataFrame = RUNS) -> bytes:
    return "\n".join(json.dumps(row) for row in frame.to_dict("records")).encode()


def parquet_bytes(frame: pd.DataFrame = RUNS) -> bytes:
    return frame.to_parquet(index=False)


FORMATS: dict[str, bytes] = {
    "runs.csv": csv_bytes(),
    "runs.tsv": csv_bytes(sep="\t"),
    "runs.txt": csv_bytes(sep="\t"),
    "RUNS.CSV": csv_bytes(),
    "runs": csv_bytes(),
    "semicolon.csv": csv_bytes(sep=";"),
    "tabs.csv": csv_bytes(sep="\t"),
    "windows.csv": b"\xef\xbb\xbf" + csv_bytes(end="\r\n"),
    "blank.csv": b"\n\r\n" + csv_bytes() + b"\n\n",
    "runs.jsonl": json_bytes(),
    "runs.ndjson": json_bytes().replace(b"\n", b"\r\n"),
    "lines.json": b"\xef\xbb\xbf" + json_bytes() + b"\n\n",
    "array.json": json.dumps(RUNS.to_dict("records"), indent=1).encode(),
    "lines": json_bytes(),
    "runs.parquet": parquet_bytes(),
    "runs.pq": parquet_bytes(),
}
FORMATS |= {f"{name}.gz": gzip.compress(data) for name, data in FORMATS.items()}
FORMATS["unpacked_name.csv"] = gzip.compress(csv_bytes())


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def write(name: str, data: bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    return write


def refusal(source: Any, **options: Any) -> str:
    with pytest.raises(SweepError) as caught:
        read_sweep(source, **options)
    return str(caught.value)


# -- formats -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_runs_to_the_last_bit(name: str, write: Callable[[str, bytes], Path]) -> None:
    path = write(name, FORMATS[name])
    expected = read_sweep(RUNS)
    for source in (path, str(path)):
        sweep = read_sweep(source)
        frame = sweep.table
        if name.startswith("windows"):
            frame["host"] = frame["host"].str.replace("\r", "")
        pd.testing.assert_frame_equal(frame, expected.table, check_dtype=False, check_exact=True)
        assert sweep.source == str(path)


def test_a_separator_that_the_name_does_not_say_is_noted(write: Callable[[str, bytes], Path]) -> None:
    sweep = read_sweep(write("runs.csv", csv_bytes(sep=";")))
    assert [note.code for note in sweep.notes] == ["separator"]
    assert "semicolon-separated" in sweep.notes[0].text


def test_a_separator_that_is_not_clear_is_refused(write: Callable[[str, bytes], Path]) -> None:
    assert "comma and semicolon" in refusal(write("a.csv", b"lr;x,loss\n1;2,3\n"))
    assert "a point" in refusal(write("b.csv", b"lr;loss\n0,001;3,1\n0,002;3,2\n"))
    assert list(read_sweep(write("c.csv", b'lr,loss,"x; y"\n1,2,3\n')).table) == ["lr", "loss", "x; y", "diverged"]


def test_the_row_numbers_that_an_export_adds_are_left_out_and_noted(write: Callable[[str, bytes], Path]) -> None:
    frame = pd.concat([RUNS, RUNS], ignore_index=True)
    path = write("runs.csv", frame.to_csv().encode())
    assert "row 5 of" in refusal(path)
    sweep = read_sweep(path, duplicates="drop")
    assert sweep.notes[0].code == "index"
    assert list(sweep.table) == list(read_sweep(RUNS).table)
    assert "index" in [note.code for note in read_sweep(pd.read_csv(path), duplicates="drop").notes]


def test_nested_json_is_flattened(write: Callable[[str, bytes], Path]) -> None:
    rows = [{"config": {"lr": {"value": 1e-3}, "a": {"b": {"c": i}}}, "summary": {"loss": 3.0 + i}} for i in range(3)]
    sweep = read_sweep(write("runs.jsonl", "\n".join(map(json.dumps, rows)).encode()))
    assert sweep.table["config.a.b.c"].tolist() == [0, 1, 2]
    assert sweep.table["loss"].tolist() == [3.0, 4.0, 5.0]


def test_json_may_escape_characters(write: Callable[[str, bytes], Path]) -> None:
    sweep = read_sweep(write("runs.jsonl", rb'{"lr": 1, "loss": 2, "x": "\ud83d\ude00"}'))
    assert sweep.table["x"].tolist() == ["\U0001f600"]


def test_json_writes_a_diverged_loss_as_nan(write: Callable[[str, bytes], Path]) -> None:
    path = write("runs.jsonl", b'{"lr": 1, "loss": NaN}\n{"lr": 2, "loss": "Infinity"}\n{"lr": 3, "loss": 2.5}')
    assert "2 of 3 values" in refusal(path)
    assert read_sweep(path, nonfinite="diverged").table["diverged"].tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"lr": 1, "loss": 2}\n{"lr": 1, "loss"', "line 2 of"),
        (
            b'{"lr": 1, "loss": 2}\n[1, 2]',
            "line 2 of runs.jsonl holds an array; expected one object a run, each on a line",
        ),
        (b"[1, 2]", "run 1 of runs.jsonl is a number; expected one object a run, each on a line"),
        (b"[1, 2]\n[3, 4]\n", "line 1 of runs.jsonl holds an array; expected one object a run, each on a line"),
        (b'[{"lr": 1}]\n\n{"lr": 2}', "line 1 of runs.jsonl holds an array"),
        (b'\n\n{"lr": 1, "loss": 2}\n3', "line 4 of runs.jsonl holds a number"),
        (b'{"lr": 1, "lr": 2, "loss": 2}', "the same name twice"),
        (b'{"a.lr": 1, "a": {"lr": 2}, "loss": 2}', "2 columns named 'a.lr'"),
        (b'{"a": ' * 30 + b"1" + b"}" * 30, "more than 20 deep"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"lr": ' + b"9" * 5000 + b', "loss": 1}', "is not JSON"),
        (b'{"lr": [1, 2], "loss": [3, 4]}', "lr should hold numbers"),
        (b"[]", "no columns"),
        (rb'{"lr": 1, "loss": 2, "x": "\ud83d"}', "half a character"),
        (rb'{"lr": 1, "loss": 2, "x": "\ude00\ude00"}', "half a character"),
    ],
)
def test_json_that_is_no_list_of_runs(text: bytes, message: str, write: Callable[[str, bytes], Path]) -> None:
    assert message in refusal(write("runs.jsonl", text))


# -- what can be wrong with a file -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"\xef\xbb\xbf \r\n\t\n", "is empty"),
        ("a.csv.gz", b"", "is empty"),
        ("a.csv", b"lr,loss\n", "has a header but no runs; its columns are: lr, loss"),
        ("a.csv", b"1e-3,2\n2e-3,3\n", "no column for loss"),
        ("a.csv", b"lr,loss,lr\n1,2,3\n", "2 columns named 'lr'"),
        ("a.csv", b"lr,loss, lr\n1,2,3\n", "2 columns named 'lr'"),
        ("a.csv", b"lr,loss,,\n1,2,3,4\n", "2 columns without a name"),
        ("a.csv", b"lr,loss\n1,2\n1,2,3\n", "line 3 of a.csv has 3 values, expected 2 as in its header; complete"),
        ("a.csv", b"lr,loss\n1,2\n1,2,\n", "line 3 of a.csv has 3 values, expected 2"),
        ("a.csv", b"lr,loss\n1,2,3\n2,3,4\n", "row 1 of a.csv has 3 values, expected 2"),
        ("a.csv", b"lr,loss\n1,2,\n2,3,4\n", "row 2 of a.csv has 3 values, expected 2"),
        ("a.csv", b"lr,loss\n1,2,3,4\n", "line 2 of a.csv has 4 values, expected 2"),
        ("a.csv", b"lr,loss\n1,2,\n1,2,3,4\n", "line 3 of a.csv has 4 values, expected "),
        ("a.csv", b'lr,loss\n1,"2\n', "line 2 of a.csv opens a double quote that is never closed"),
        (
            "a.csv",
            b"lr,loss\n1,3.1\n2\n",
            "loss should be finite: 1 of 2 values are not, first missing or NaN in row 2 of",
        ),
        ("a.csv", b"lr,loss\n1,3.1\n2,x\n", "loss should hold numbers: 1 of 2 values are not, first 'x' in row 2 of"),
        ("a.csv", "lr,loss,Größe\n1,2,3\n".encode("latin-1"), "not UTF-8 text (byte 11 is 0xf6)"),
        ("a.csv", "lr,loss\n1,2\n".encode("utf-16"), "UTF-16"),
        ("a.csv", b"lr,loss\n1,\0\n", "binary file"),
        ("a.csv", b"\x89PNG\r\n\x1a\n\0\0", "binary file"),
        ("a.csv", b'{"lr": 1, "loss": 2}', "its first line is JSON"),
        ("a.jsonl", b"lr,loss\n1,2\n", "no JSON object"),
        ("a.csv.gz", b"lr,loss\n1,2\n", "is not gzip"),
        ("a.csv.gz", gzip.compress(b"lr,loss\n1,2\n")[:-9], "not a whole gzip file"),
        ("a.csv.gz", gzip.compress(b"lr,loss\n1,2\n")[:12], "not a whole gzip file"),
        ("a.csv.gz", gzip.compress(b"lr,loss\n1,2\n") + b"tail", "not a whole gzip file"),
        ("a.csv.gz", b"\x1f\x8b\xff" + bytes(30), "not a whole gzip file"),
        ("a.csv.gz", gzip.compress(gzip.compress(b"lr,loss\n1,2\n")), "binary file"),
        ("a.parquet", b"lr,loss\n1,2\n", "is not Parquet"),
        ("a.parquet", b"PAR1", "cannot be read as Parquet"),
        ("a.parquet", parquet_bytes()[:-7], "cannot be read as Parquet"),
        ("a.parquet", parquet_bytes()[:300], "cannot be read as Parquet"),
        ("a.parquet", parquet_bytes(RUNS.iloc[:0]), "has a header but no runs"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_a_reason(
    name: str, data: bytes, message: str, write: Callable[[str, bytes], Path]
) -> None:
    path = write(name, data)
    found = refusal(path)
    assert message in found
    assert str(path) in found or name in found


def test_rows_that_all_end_in_a_separator_are_read(write: Callable[[str, bytes], Path]) -> None:
    assert list(read_sweep(write("a.csv", b"lr,loss\n1,2,\n2,3,\n")).table) == ["lr", "loss", "diverged"]


def test_a_byte_that_is_no_text_is_found_far_into_a_file(write: Callable[[str, bytes], Path]) -> None:
    text = b"lr,loss\n" + "é".encode() * (1 << 19) + b"x"  # two bytes each, so that one lies across every border
    assert f"byte {len(text) + 1} is 0xff" in refusal(write("a.csv", text + b"\xff"))
    assert f"byte {len(text) + 1} is 0xc3" in refusal(write("a.csv", text + b"\xc3"))


def test_a_bomb_is_refused_before_it_fills_the_memory(
    write: Callable[[str, bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 10_000_000)
    line = b"1,2\n" * 250_000
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as stream:
        stream.write(b"lr,loss\n")
        for _ in range(20):
            stream.write(line)
    found = refusal(write("a.csv.gz", packed.getvalue()))
    assert "GiB of data" in found
    assert "save it as Parquet" in found
    wide = pd.DataFrame({"lr": np.ones(200_000), "loss": np.ones(200_000)})
    monkeypatch.setattr(parsing, "MAX_PARQUET", 1_000_000)
    found = refusal(write("a.parquet", wide.to_parquet()))
    assert "200000 rows of 2 columns, which unpack to 0.00298 GiB" in found
    assert "expected at most 0.000931 GiB" in found


# -- how large a table may be ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["{%s}", '{"lr": 1, "loss": 2, "config": {%s}}'], ids=["flat", "nested"])
def test_rows_that_share_no_name_are_refused_before_the_table_is_built(
    inner: str, write: Callable[[str, bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("the table was built")

    few = "\n".join(inner % f'"k{i}": 1' for i in range(40))
    path = write("runs.jsonl", few.encode())
    with monkeypatch.context() as patch:
        patch.setattr(parsing, "MAX_CELLS", 1500)
        if inner == "{%s}":
            patch.setattr(pd, "DataFrame", fail)
        found = refusal(path)
        assert "runs.jsonl makes a table of 40 rows x 40 columns" in found
        assert "split it by runs" in found
    monkeypatch.setattr(parsing, "MAX_COLUMNS", 39)
    assert "runs.jsonl has 40 columns, expected at most 39" in refusal(path)


def test_the_rows_of_a_list_in_memory_are_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "MAX_CELLS", 1500)
    assert "40 rows x 40 columns" in refusal([{f"k{i}": 1} for i in range(40)])


def test_a_long_name_is_not_repeated_for_every_name_below_it(write: Callable[[str, bytes], Path]) -> None:
    record = {"lr": 1, "loss": 2, "a" * 1000: {"b": 1}}
    assert "a name of 1002 characters" in refusal(write("runs.jsonl", json.dumps(record).encode()))


def test_the_values_of_json_are_counted_before_they_are_read(
    write: Callable[[str, bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parsing, "MAX_VALUES", 100)
    assert "runs.jsonl holds 120 values" in refusal(write("runs.jsonl", b'{"lr": [' + b"[]," * 59 + b"1]}"))


@pytest.mark.parametrize(
    "text",
    [
        b",".join(b"c%d" % i for i in range(10_001)) + b"\n1\n",
        b"," * 10_001 + b"\nlr,loss\n1,2\n",
        b'"a\n",' * 10_001 + b"loss\n1\n",
    ],
    ids=["names", "separators", "names of two lines"],
)
def test_a_header_of_too_many_columns_is_refused_unread(
    text: bytes, write: Callable[[str, bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("the header was parsed")

    monkeypatch.setattr(pd, "read_csv", fail)
    assert "columns, expected at most 10000" in refusal(write("wide.csv", text))


def test_short_rows_under_a_wide_header_count_as_whole_rows(
    write: Callable[[str, bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b",".join(b"c%d" % i for i in range(100)) + b"\n" + b"1\r\n" * 50
    path = write("a.csv", text)
    monkeypatch.setattr(parsing, "MAX_CELLS", 4999)
    assert "50 rows x 100 columns, expected at most 4,999 cells" in refusal(path)
    monkeypatch.setattr(parsing, "MAX_CELLS", 5000)
    assert "no column for loss" in refusal(path)


def test_a_row_of_too_many_values_is_refused_unread(
    write: Callable[[str, bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parsing, "MAX_CELLS", 1000)
    assert "a.csv holds 1001 commas" in refusal(write("a.csv", b"lr,loss\n" + b"1," * 1000 + b"\n"))


def numbered(kind: str, texts: list[str], codes: list[int], store_schema: bool = False) -> bytes:
    """Return Parquet in which few texts stand for many rows, as a column of texts, structures or lists."""
    column: Any = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), texts)
    if kind == "struct":
        column = pa.StructArray.from_arrays([column], ["a.b"])
    if kind == "list":
        column = pa.ListArray.from_arrays(pa.array(range(len(codes) + 1), pa.int32()), column)
    numbers = pa.array(np.arange(len(codes)) + 1.0)
    out = io.BytesIO()
    table = pa.table({"lr": numbers, "loss": numbers, "the.note": column})
    pq.write_table(table, out, store_schema=store_schema, row_group_size=700)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["text", "struct", "list"])
def test_parquet_in_which_few_bytes_stand_for_many(
    kind: str, write: Callable[[str, bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand rows of one text of 20 kB are 20 MB; a thousand rows with that text in one of them are not."""
    monkeypatch.setattr(parsing, "MAX_PARQUET", 1_000_000)
    texts = ["x" * 20_000, "y"]
    found = refusal(write("a.parquet", numbered(kind, texts, [0] * 1000)))
    assert "a.parquet holds texts in column 'the.note" in found
    assert "unpack to 0.0186 GiB, expected at most 0.000931 GiB" in found
    sweep = read_sweep(write("b.parquet", numbered(kind, texts, [0] + [1] * 999)))
    assert len(sweep) == 1000
    assert "the.note" in " ".join(sweep.table.columns)


def test_nested_texts_that_cannot_be_numbered_are_measured_piece_by_piece(
    write: Callable[[str, bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Any) -> int:
        raise pa.ArrowException("as for chunked nested arrays")

    monkeypatch.setattr(parsing, "MAX_PARQUET", 1_000_000)
    monkeypatch.setattr(parsing, "_length", refuse)
    texts = ["x" * 20_000, "y"]
    found = refusal(write("a.parquet", numbered("list", texts, [0] * 1000)))
    assert "texts in column 'the.note.list.element', which unpack to 0.00" in found, "it stops at the limit"
    assert len(read_sweep(write("b.parquet", numbered("list", texts, [0] + [1] * 999)))) == 1000


def test_parquet_whose_texts_stay_numbered_is_read(
    write: Callable[[str, bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parsing, "MAX_PARQUET", 1_000_000)
    data = numbered("text", ["x" * 20_000], [0] * 1000, store_schema=True)
    assert isinstance(read_sweep(write("a.parquet", data)).table["the.note"].dtype, pd.CategoricalDtype)


def test_parquet_of_long_values_of_one_length_is_measured(
    write: Callable[[str, bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parsing, "MAX_PARQUET", 1_000_000)
    out = io.BytesIO()
    fixed = pa.array([b"x" * 20_000] * 1000, pa.binary(20_000))
    pq.write_table(pa.table({"lr": np.ones(1000), "loss": np.ones(1000), "x": fixed}), out)
    assert "1000 rows of 3 columns, which unpack to 0.0186 GiB" in refusal(write("a.parquet", out.getvalue()))


# -- several threads ---------------------------------------------------------------------------------------------------


def test_reading_leaves_the_warnings_of_the_process_alone(
    write: Callable[[str, bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two readers overlap in time: if each saved and restored the warning filters, the wrong filters would remain."""
    path = write("a.csv", csv_bytes())
    before = list(warnings.filters)
    seen: list[Any] = []
    done: list[Sweep] = []
    together = threading.Barrier(2, timeout=30)
    first_done = threading.Event()
    parse = pd.read_csv

    def in_turn(*args: Any, **options: Any) -> Any:
        seen.append(list(warnings.filters))
        if options.get("nrows") is None:
            together.wait()  # both are within the parser now
            if threading.current_thread().name == "second":
                assert first_done.wait(30)
        return parse(*args, **options)

    def read() -> None:
        done.append(read_sweep(path))
        first_done.set()

    monkeypatch.setattr(pd, "read_csv", in_turn)
    threads = [threading.Thread(target=read, name=name) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(done) == 2
    assert all(filters == before for filters in seen)
    assert list(warnings.filters) == before


def test_paths_that_name_no_file(tmp_path: Path) -> None:
    assert "there is no file" in refusal(tmp_path / "absent.csv")
    assert "is a folder" in refusal(tmp_path)
    assert "no file matches" in refusal(str(tmp_path / "*.csv"))
    assert "not a path" in refusal("a\0b")


# -- several files -----------------------------------------------------------------------------------------------------


def test_a_glob_reads_all_files_in_order_and_names_them(write: Callable[[str, bytes], Path], tmp_path: Path) -> None:
    second = RUNS.assign(loss=RUNS["loss"] + 0.1).rename(columns={"lr": "learning_rate", "host": "place"})
    paths = [write("b/two.jsonl", json_bytes(second)), write("a/one.csv", csv_bytes()), write("c/note.md", b"# no")]
    for source in (str(tmp_path / "[ab]" / "*.*"), [paths[1], str(paths[0])]):
        sweep = read_sweep(source)
        assert len(sweep) == 8
        assert sweep.table["source"].tolist() == [str(paths[1])] * 4 + [str(paths[0])] * 4
        assert sweep.source == f"{paths[1]} and 1 more"
    mixed = read_sweep([second, paths[1]])
    assert mixed.table["source"].tolist() == ["table 1"] * 4 + [str(paths[1])] * 4
    assert "note.md" in refusal(str(tmp_path / "*" / "*"))


def test_a_file_read_twice_is_found(write: Callable[[str, bytes], Path]) -> None:
    path = write("runs.csv", csv_bytes())
    assert "4 of 8 runs" in refusal([path, path])


# -- any bytes ---------------------------------------------------------------------------------------------------------

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".json", ".parquet", ".csv.gz", ".jsonl.gz", ".gz", "")


def ends_well(path: Path) -> None:
    """Whatever a file holds, reading it gives a sweep with valid values or a `SweepError`; pytest forbids warnings."""
    try:
        sweep = read_sweep(path, nonfinite="diverged", duplicates="keep", batch_unit="tokens")
    except SweepError:
        return
    assert isinstance(sweep, Sweep)
    assert np.all(sweep.table["loss"][~sweep.table["diverged"]] > 0)
    repr(sweep)
    sweep.cells  # noqa: B018


# Each example writes its own file over that of the one before.
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@relaxed
@given(data=st.binary(max_size=200), suffix=st.sampled_from(SUFFIXES))
@example(data=b"lr,loss\n1,2\r3", suffix=".csv")
@example(data=b"lr,loss\n1e999,1e-999\n", suffix=".csv")
@example(data=b'"', suffix=".csv")
@example(data=b";", suffix=".csv")
@example(data=b"{}", suffix=".jsonl")
@example(data=b"[{}]", suffix=".json")
def test_any_bytes_end_in_a_sweep_or_a_sweep_error(tmp_path: Path, data: bytes, suffix: str) -> None:
    path = tmp_path / f"any{suffix}"
    path.write_bytes(data)
    ends_well(path)


@relaxed
@given(
    text=st.text(alphabet='lrosbatchNDS,;\t\n\r"{}[]:.eE+-0123456789 \u00e9\u2028_', max_size=120),
    suffix=st.sampled_from(SUFFIXES),
    head=st.sampled_from(["", "lr,loss\n", "lr\tbatch\tloss\n", "lr,batch,steps,tokens,loss\n", '{"lr": 1, "loss": ']),
)
def test_any_text_ends_in_a_sweep_or_a_sweep_error(tmp_path: Path, text: str, suffix: str, head: str) -> None:
    path = tmp_path / f"any{suffix}"
    data = (head + text).encode()
    path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    ends_well(path)


VALID = {
    ".csv": csv_bytes(),
    ".tsv": csv_bytes(sep="\t"),
    ".jsonl": json_bytes(),
    ".parquet": parquet_bytes(),
    ".csv.gz": gzip.compress(csv_bytes()),
}


@relaxed
@given(
    suffix=st.sampled_from(sorted(VALID)),
    edits=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=3), st.integers(0, 3)), min_size=1, max_size=4),
    cut=st.floats(0, 1),
)
def test_damaged_files_end_in_a_sweep_or_a_sweep_error(
    tmp_path: Path, suffix: str, edits: list[tuple[float, bytes, int]], cut: float
) -> None:
    data = VALID[suffix]
    for where, put, drop in edits:
        at = int(where * len(data))
        data = data[:at] + put + data[at + drop :]
    if cut < 0.3:
        data = data[: int(cut / 0.3 * len(data))]
    path = tmp_path / f"any{suffix}"
    path.write_bytes(data)
    ends_well(path)


@given(
    values=st.lists(
        st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=5), st.lists(st.integers())),
        min_size=2,
        max_size=6,
    ),
    column=st.sampled_from(["lr", "batch", "loss", "steps", "seq_len", "seed", "run", "diverged", "source", "x"]),
)
def test_any_values_end_in_a_sweep_or_a_sweep_error(values: list[Any], column: str) -> None:
    table = pd.DataFrame({"lr": 1e-3, "batch": 2.0, "loss": np.arange(len(values)) + 2.5})
    table[column] = pd.Series(values, dtype=object)
    try:
        sweep = read_sweep(table, nonfinite="drop", batch_unit="tokens")
    except SweepError:
        return
    assert np.isfinite(sweep.table["loss"]).all()
