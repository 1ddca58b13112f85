"""`fit.json` is read from regular files only; the error about a bad one names what is wrong with it."""

from __future__ import annotations

import os

import pytest
from refitting_samples import quickly, write_sweeps
from typer.testing import CliRunner

from scalefit.cli import app
from scalefit.errors import RefitError
from scalefit.refitting import results
from scalefit.refitting.results import is_study, read_fits


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    quickly(write_sweeps(folder / "in", 1), folder / "out")
    return (folder / "out" / "sweep0" / "fit.json").read_text()


def predict(path, *how):
    return CliRunner().invoke(app, ["predict", str(path), *how, "params=1e9", "tokens=1e10"])


def broken(whole: str, kind: str) -> str:
    return {"cut off": whole[: len(whole) // 2], "nested": "[" * 10**5, "empty": ""}[kind]


@pytest.mark.parametrize("kind", ["cut off", "nested", "empty"])
def test_what_is_not_json_is_said_to_be_none(tmp_path, whole, kind):
    path = tmp_path / "half.json"
    path.write_text(broken(whole, kind))
    for reading in (is_study, read_fits):
        with pytest.raises(RefitError, match=r"half\.json is not JSON"):
            reading(path)
    for how in ([], ["--law", "lr"]):
        result = predict(path, *how)
        assert result.exit_code == 2
        assert "half.json is not JSON" in result.stderr
        assert "leave --law out" not in result.stderr


def test_a_law_is_asked_for_by_name_only_where_there_are_several(tmp_path, whole):
    path = tmp_path / "fit.json"
    path.write_text(whole)
    assert is_study(path)
    assert predict(path, "--law", "lr").exit_code == 0
    read_fits(path)["lr"].to_json(tmp_path / "single.json")
    assert not is_study(tmp_path / "single.json")
    assert "leave --law out" in predict(tmp_path / "single.json", "--law", "lr").stderr
    assert predict(tmp_path / "single.json").exit_code == 0


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for reading in (is_study, read_fits):
        with pytest.raises(RefitError, match="pipe is a named pipe; expected a file"):
            reading(tmp_path / "pipe")
    result = predict(tmp_path / "pipe")
    assert result.exit_code == 2
    assert result.stderr.endswith("pipe is a named pipe; expected a file\n")


def test_a_file_that_is_not_there_is_said_not_to_be(tmp_path):
    for reading in (is_study, read_fits):
        with pytest.raises(RefitError, match=r"cannot read .*none\.json: No such file or directory"):
            reading(tmp_path / "none.json")
    assert "none.json: No such file" in predict(tmp_path / "none.json", "--law", "lr").stderr


def test_a_file_out_of_all_bounds_is_refused(tmp_path, whole, monkeypatch):
    path = tmp_path / "fit.json"
    path.write_text(whole)
    monkeypatch.setattr(results, "_LARGEST", len(whole.encode()))
    assert "lr" in read_fits(path)
    monkeypatch.setattr(results, "_LARGEST", len(whole.encode()) - 1)
    with pytest.raises(RefitError, match=r"fit\.json holds [\d,]+ bytes; expected [\d,]+ at most"):
        read_fits(path)
