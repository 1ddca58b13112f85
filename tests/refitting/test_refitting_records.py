"""Records that were damaged, or made to do damage: they cost a refit of their own sweep, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from refitting_samples import QUICK, contents, quickly, runs, write_sweeps

from scalefit.refitting import summary
from scalefit.refitting.output_folder import OutputFolder, read_record, read_records
from scalefit.refitting.settings import Analysis, Settings

MOST = 1_000
LR = {"quantity": "lr: a", "value": -0.5, "stderr": 0.1, "law": "eta = c * N**a"}
MOVED = {"quantity": "lr: a", "before": -0.5, "after": -0.25, "errors": 5.0}
MANY = [LR | {"quantity": f"lr: a{number}"} for number in range(MOST + 1)]

BROKEN = {
    "nested": "[" * 10**5,
    "nested inside": '{"schema": 1, "name": ' + "[" * 10**5,
    "cut off": '{"schema": 1, "na',
    "not text": b"\x80\x04cos\nsystem\n.",
    "too large": '{"schema": 1, "name": "' + "x" * (1 << 20) + '"}',
    "a number of thousands of digits": '{"schema": ' + "9" * 5000 + "}",
    "another version": {"schema": 99},
    "no version": {"schema": []},
    "nothing but a version": '{"schema": 1}',
    "other numbers": {"findings": [LR | {"more": 1}]},
    "one field more": {"more": 1},
    **{f"source {value!r}": {"source": value} for value in (3, [], {}, None, "a\0b")},
    **{f"name {value!r}": {"name": value} for value in (3, [], None, "../x", "\ud800")},
    **{f"relative {value!r}": {"relative": value} for value in (3, None)},
    **{f"n_runs {value!r}": {"n_runs": value} for value in (10**30, -1, 1.5, True, [], "many", None)},
    **{f"n_cautions {value!r}": {"n_cautions": value} for value in (10**30, 1.5)},
    **{f"outputs {value!r}": {"outputs": value} for value in (None, [], ["fit.json"], "fit.json")},
    **{f"outputs {name!r}": {"outputs": {name: 1}} for name in ("a\0b", "../a", "/etc/passwd", "\ud800")},
    **{f"a size {value!r}": {"outputs": {"fit.json": value}} for value in (-1, 1.5, "two", None, 10**30)},
    **{f"findings {value!r}": {"findings": value} for value in (None, 3, {}, "lr: a", [3], [[]])},
    **{f"drift {value!r}": {"drift": value} for value in (None, 3, {}, "lr: a", [3], [[]])},
    **{
        f"quantity {value!r}": {"findings": [LR | {"quantity": value}]}
        for value in (5, [], "name", "report", "status", "n_runs", "lr: a stderr", "lr: \ud800", "lr: " + "a" * 200)
    },
    **{f"value {value!r:.9}": {"findings": [LR | {"value": value}]} for value in ("x", [1], 10**400, None, True)},
    **{f"stderr {value!r:.9}": {"findings": [LR | {"stderr": value}]} for value in ("x", [1], 10**400, None)},
    **{f"law {value!r}": {"findings": [LR | {"law": value}]} for value in (3, None, "\ud800", "a\0b")},
    **{f"before {value!r}": {"drift": [MOVED | {"before": value}]} for value in ([], None, "\ud800")},
    **{f"after {value!r:.9}": {"drift": [MOVED | {"after": value}]} for value in ({}, 10**400)},
    **{f"errors {value!r}": {"drift": [MOVED | {"errors": value}]} for value in ("far", [], None)},
    "a number twice": {"findings": [LR, LR]},
    "too many numbers": {"findings": MANY},
    "too much that moved": {"drift": [MOVED] * (MOST + 1)},
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Return a folder of one sweep and its results, summarised; they are not changed but for a folder more."""
    folder = tmp_path_factory.mktemp("done")
    write_sweeps(folder / "in", 1)
    quickly(folder / "in", folder / "out")
    return folder


def plant(out: Path, what: str | bytes | dict, name: str = "x") -> Path:
    """Put a record beside the results in an output folder: as it is, or a good one with some fields changed."""
    folder = out / name
    folder.mkdir()
    if isinstance(what, dict):
        good = json.loads((out / "sweep0" / "record.json").read_text())
        what = json.dumps(good | {"name": name, "source": __file__} | what)
    (folder / "record.json").write_bytes(what if isinstance(what, bytes) else what.encode())
    return folder


@pytest.fixture
def planted(done):
    """Return what plants a record, and takes it away in the end."""
    folders = []
    yield lambda what, name="x": folders.append(plant(done / "out", what, name)) or folders[-1]
    for folder in folders:
        shutil.rmtree(folder)


@pytest.mark.parametrize("what", BROKEN.values(), ids=BROKEN)
def test_a_record_that_does_not_hold_together_stops_nothing_and_is_reported_once(done, planted, what):
    (done / "out" / "summary.parquet").unlink()
    folder = planted(what)
    result = quickly(done / "in", done / "out")
    assert list(result.table["status"]) == ["skipped"]
    assert [place for place, _ in result.unreadable] == [str(folder)]
    told = result.unreadable[0][1]
    assert str(folder / "record.json") in told
    assert len(told) < 500 + len(str(folder))
    assert result.exit_code == 1
    assert "unreadable" in {note.code for note in result._display().notes}
    assert list(pd.read_parquet(done / "out" / "summary.parquet")["name"]) == ["sweep0"]
    assert read_record(folder) is None


def test_a_record_as_large_as_may_be_is_read(done, planted):
    folder = planted({"findings": MANY[:MOST], "drift": [MOVED] * MOST})
    result = quickly(done / "in", done / "out")
    assert result.unreadable == ()
    row = result.summary.set_index("name").loc["x"]
    assert row["lr: a0"] == row[f"lr: a{MOST - 1}"] == -0.5
    assert len(read_record(folder).drift) == MOST


@pytest.mark.parametrize("value", [5, 1.7e308, 5e-324, "nan", "inf", "-inf"])
def test_numbers_of_every_size_reach_every_table(done, planted, value):
    planted({"findings": [LR | {"value": value, "stderr": 5e-324}], "n_runs": 2**63 - 1})
    result = quickly(done / "in", done / "out")
    assert result.unreadable == ()
    row = pd.read_parquet(done / "out" / "summary.parquet").set_index("name").loc["x"]
    pd.testing.assert_series_equal(row, result.summary.set_index("name").loc["x"])
    assert str(float(value)) == str(row["lr: a"])


@pytest.mark.parametrize("kind", ["nested", "source []", "n_runs 1.5", "outputs None", "quantity 'name'", "too large"])
def test_a_sweep_whose_record_is_damaged_is_refitted(tmp_path, kind):
    folder, out = write_sweeps(tmp_path / "in", 2), tmp_path / "out"
    quickly(folder, out)
    whole, what = contents(out), BROKEN[kind]
    if isinstance(what, dict):
        what = json.dumps(json.loads(whole["sweep1/record.json"]) | what)
    (out / "sweep1" / "record.json").write_text(what)
    result = quickly(folder, out)
    assert result.table.set_index("name")["status"].to_dict() == {"sweep0": "skipped", "sweep1": "ok"}
    assert result.exit_code == 0
    assert contents(out) == whole


def test_a_record_that_is_a_pipe_is_not_waited_for(done, planted):
    folder = planted("")
    (folder / "record.json").unlink()
    os.mkfifo(folder / "record.json")
    result = quickly(done / "in", done / "out")
    assert list(result.table["status"]) == ["skipped"]
    assert result.unreadable == ((str(folder), f"{folder}/record.json is a named pipe; expected a file"),)


def test_a_record_that_leads_to_a_device_is_not_read(done, planted):
    folder = planted("")
    (folder / "record.json").unlink()
    (folder / "record.json").symlink_to("/dev/zero")
    assert read_records(done / "out")[1] == [(str(folder), f"{folder}/record.json is a device; expected a file")]


@pytest.mark.parametrize("text", ["{}", "[]", '{"mine": 1}'])
def test_a_record_that_is_not_ours_is_none_of_our_business(done, planted, text):
    folder = planted(text)
    assert quickly(done / "in", done / "out").unreadable == ()
    (folder / "fit.json").write_text("{}")
    assert [place for place, _ in quickly(done / "in", done / "out").unreadable] == [str(folder)]


def test_a_record_cannot_make_a_link_that_runs(done, planted):
    planted({"outputs": {"report.html": 1}}, "javascript:alert(1)")
    result = quickly(done / "in", done / "out")
    assert "javascript:" not in (done / "out" / "index.html").read_text()
    assert len(result.unreadable) == 1


FORGOTTEN = {
    "nested": "[" * 10**5,
    "nested inside": '{"/in": {"name": ' + "[" * 10**5,
    "cut off": '{"/in": ',
    "a list": "[]",
    "a number": '{"/": 3}',
    "no error": '{"/": {"name": "root"}}',
    "an error that is a list": '{"/": {"name": "root", "error": []}}',
    "a name that is none": '{"/": {"name": null, "error": ""}}',
}


def forget(out: Path, text: str) -> None:
    (out / "failures.json").write_text(text)


@pytest.mark.parametrize("text", FORGOTTEN.values(), ids=FORGOTTEN)
def test_damaged_failures_stop_nothing_and_are_reported_once(done, text):
    forget(done / "out", text)
    result = quickly(done / "in", done / "out")
    assert list(result.table["status"]) == ["skipped"]
    assert [place for place, _ in result.unreadable] == [str(done / "out" / "failures.json")]
    assert "without what failed before" in result.unreadable[0][1]
    assert (done / "out" / "failures.json").read_text() == "{}\n"
    assert quickly(done / "in", done / "out").exit_code == 0


def test_failures_that_are_a_pipe_or_too_large_are_reported(done, monkeypatch):
    place = done / "out" / "failures.json"
    place.unlink()
    os.mkfifo(place)
    assert "is a named pipe" in quickly(done / "in", done / "out").unreadable[0][1]
    assert place.is_file()
    forget(done / "out", json.dumps({"/": {"name": "root", "error": "x" * 1000}}))
    monkeypatch.setattr(summary, "_LARGEST", 1000)
    assert "; expected 1,000 at most" in quickly(done / "in", done / "out").unreadable[0][1]


def test_a_failure_that_is_no_unicode_reaches_every_table(done, tmp_path):
    half = {"name": "\ud800", "error": "\ud800 is half a character"}
    forget(done / "out", json.dumps({str(tmp_path): half, "\ud800": half}))
    result = quickly(done / "in", done / "out")
    assert result.unreadable == ()
    rows = pd.read_parquet(done / "out" / "summary.parquet").set_index("source")
    assert rows.loc[str(tmp_path), ["name", "error"]].tolist() == ["\\ud800", "\\ud800 is half a character"]
    assert len(rows) == 2
    assert (done / "out" / "failures.json").read_text().isascii()
    assert "\\ud800 is half a character" in (done / "out" / "index.html").read_text()
    forget(done / "out", "{}")


def test_a_parameter_called_law_and_the_formula_are_two_columns(tmp_path):
    folder, out = write_sweeps(tmp_path / "in", 2), tmp_path / "out"
    quickly(folder / "sweep0.csv", out)
    formula = "eta = law * N**a"
    called = Settings(QUICK.reading, Analysis(draws=0, lr_laws=(formula,)))
    result = quickly(folder / "sweep1.csv", out, config=called)
    assert result.exit_code == 0
    row = pd.read_parquet(out / "summary.parquet").set_index("name").loc["sweep1"]
    assert row["lr: law"] == formula
    record = {finding.quantity: finding for finding in read_record(out / "sweep1").findings}
    assert row["lr: law (parameter)"] == record["lr: law"].value > 0
    assert row["lr: law (parameter) stderr"] == record["lr: law"].stderr
    page = (out / "index.html").read_text()
    assert page.count('<button type="button">lr: law</button>') == 1
    assert page.count('<button type="button">lr: law (parameter)</button>') == 1
    assert quickly(folder, out).exit_code == 0, "and the next refit finds its way too"


def test_a_sweep_whose_file_is_gone_says_so_and_keeps_its_results(tmp_path):
    folder, out = write_sweeps(tmp_path / "in", 2), tmp_path / "out"
    quickly(folder, out)
    (folder / "sweep1.csv").unlink()
    result = quickly(folder, out)
    rows = result.summary.set_index("name")
    assert rows["status"].to_dict() == {"sweep0": "ok", "sweep1": "gone"}
    assert rows.loc["sweep1", "n_runs"] == len(runs())
    assert rows["lr: a"].notna().all()
    assert result.exit_code == 0, "a file may be deleted"
    assert "1 done, 0 failed, 1 whose file is gone" in (out / "index.html").read_text()
    runs(1).to_csv(folder / "sweep1.csv", index=False)
    again = quickly(folder, out)
    assert again.table["status"].tolist() == ["skipped", "skipped"]
    assert again.summary["status"].tolist() == ["ok", "ok"]


def test_a_file_that_cannot_be_reached_is_not_called_gone(tmp_path, monkeypatch):
    folder, out = write_sweeps(tmp_path / "in", 2), tmp_path / "out"
    quickly(folder, out)
    real = os.lstat

    def refused(path, **options):
        if str(path) == str(folder / "sweep1.csv"):
            raise PermissionError(13, "Permission denied")
        return real(path, **options)

    monkeypatch.setattr(os, "lstat", refused)
    table, _ = summary.write_summary(OutputFolder(out), [])
    assert table["status"].tolist() == ["ok", "ok"]
