"""Whose a folder of the output is: nobody's results, and nobody's files, are replaced by another's."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from refitting_samples import quickly, runs, write_sweeps

from scalefit.errors import RefitError
from scalefit.refitting import _refit, output_folder
from scalefit.refitting.output_folder import foreign_files, is_free, is_results

GONE = "/nowhere/gone.csv"


def one_file(folder: Path, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    runs(seed).to_csv(folder / "a.csv", index=False)
    return folder


def sources(out: Path) -> dict[str, str]:
    return {path.parent.name: json.loads(path.read_text())["source"] for path in out.glob("*/record.json")}


def label(folder: Path, **changes) -> None:
    folder.mkdir(exist_ok=True)
    told = {"name": folder.name, "source": GONE, "sha256": "0", "outputs": {"fit.json": 2}}
    (folder / "record.json").write_text(json.dumps(told | changes))


def test_two_refits_at_once_of_files_of_one_name_keep_both(tmp_path, monkeypatch):
    first, second = one_file(tmp_path / "d1"), one_file(tmp_path / "d2", 1)
    real = _refit.produce

    def interrupted_by_another(order):
        monkeypatch.setattr(_refit, "produce", real)
        assert quickly(second, tmp_path / "out").exit_code == 0
        return real(order)

    monkeypatch.setattr(_refit, "produce", interrupted_by_another)
    result = quickly(first, tmp_path / "out")
    assert sorted(sources(tmp_path / "out").values()) == [str(first / "a.csv"), str(second / "a.csv")]
    assert sorted(result.summary["source"]) == sorted(sources(tmp_path / "out").values())


def test_what_someone_else_made_stays(tmp_path):
    folder, out = write_sweeps(tmp_path / "in", 1), tmp_path / "out"
    theirs = out / "sweep0"
    theirs.mkdir(parents=True)
    (theirs / "record.json").write_text('{"mine": 1}')
    (theirs / "thesis.tex").write_text("all of it")
    result = quickly(folder, out)
    assert result.exit_code == 0
    assert (theirs / "thesis.tex").read_text() == "all of it"
    assert result.table["name"].str.startswith("sweep0-").all()


def test_files_put_beside_results_are_taken_along(tmp_path):
    folder, out = write_sweeps(tmp_path / "in", 1), tmp_path / "out"
    quickly(folder, out)
    (out / "sweep0" / "figures").mkdir()
    (out / "sweep0" / "figures" / "mine.png").write_bytes(b"drawn by hand")
    (out / "sweep0" / "remarks.md").write_text("learning rates of May")
    (out / "sweep0" / "optima.csv").write_text("not what was written")
    assert foreign_files(out / "sweep0") == ["figures/mine.png", "remarks.md"]
    assert quickly(folder, out, force=True).exit_code == 0
    assert (out / "sweep0" / "figures" / "mine.png").read_bytes() == b"drawn by hand"
    assert (out / "sweep0" / "remarks.md").read_text() == "learning rates of May"
    assert (out / "sweep0" / "optima.csv").read_text().startswith("params,")


def test_results_of_a_deleted_file_are_not_given_to_another(tmp_path):
    first, second, out = one_file(tmp_path / "d1"), one_file(tmp_path / "d2", 1), tmp_path / "out"
    quickly(first, out)
    shutil.rmtree(first)
    result = quickly(second, out)
    assert sources(out)["a"] == str(first / "a.csv")
    assert sorted(sources(out).values()) == [str(first / "a.csv"), str(second / "a.csv")]
    assert not result.summary["moved"].any(), "two sweeps are not compared with each other"


def test_a_file_that_was_moved_keeps_its_results(tmp_path):
    first, out = one_file(tmp_path / "d1"), tmp_path / "out"
    quickly(first, out)
    first.rename(tmp_path / "d2")
    result = quickly(tmp_path / "d2", out)
    assert sources(out) == {"a": str(tmp_path / "d2" / "a.csv")}
    assert list(result.table["status"]) == ["ok"]
    assert list(quickly(tmp_path / "d2", out).table["status"]) == ["skipped"]


def test_a_failure_is_reported_for_the_file_that_failed(tmp_path):
    first, second, out = one_file(tmp_path / "d1"), one_file(tmp_path / "d2", 1), tmp_path / "out"
    (first / "a.csv").write_text("broken\n1\n")
    assert quickly(first, out).exit_code == 1
    summary = quickly(second, out).summary.set_index("source")
    assert summary.loc[str(first / "a.csv"), "status"] == "failed"
    assert summary.loc[str(second / "a.csv"), "status"] == "ok"
    assert summary.loc[str(second / "a.csv"), "error"] == ""
    runs().to_csv(first / "a.csv", index=False)
    assert list(quickly(first, out).summary["status"]) == ["ok", "ok"]


def test_an_odd_thing_in_the_output_stops_nothing(tmp_path):
    folder, out = write_sweeps(tmp_path / "in", 1), tmp_path / "out"
    (out / "other" / "record.json").mkdir(parents=True)
    (out / "sweep0").write_text("a plain file")
    result = quickly(folder, out)
    assert result.exit_code == 0
    assert (out / "sweep0").read_text() == "a plain file"
    assert list(result.summary["status"]) == ["ok"]


def test_a_record_that_cannot_be_read_is_reported(tmp_path, monkeypatch):
    folder, out = write_sweeps(tmp_path / "in", 2), tmp_path / "out"
    quickly(folder, out)

    def refused(path, *args):
        if path == out / "sweep1" / "record.json":
            raise PermissionError(13, "Permission denied")
        return open(path, *args)

    monkeypatch.setattr(output_folder, "open", refused, raising=False)
    result = quickly(folder / "sweep0.csv", out)
    assert result.exit_code == 1
    place = out / "sweep1"
    assert result.unreadable == ((str(place), f"cannot read {place}/record.json: Permission denied"),)


def test_an_output_that_is_a_file_is_refused_by_name(tmp_path):
    folder = write_sweeps(tmp_path / "in", 1)
    with pytest.raises(RefitError, match=r"sweep0\.csv is a file; expected a folder"):
        quickly(folder, folder / "sweep0.csv")


def test_forcing_an_unchanged_sweep_keeps_what_moved(tmp_path):
    folder, out = write_sweeps(tmp_path / "in", 1), tmp_path / "out"
    quickly(folder, out)
    table = runs()
    table["lr"] *= (table["params"] / 1e8) ** 0.4
    table.to_csv(folder / "sweep0.csv", index=False)
    moved = quickly(folder, out).summary["moved"][0]
    assert moved
    assert quickly(folder, out, force=True).summary["moved"][0] == moved


@pytest.mark.parametrize(
    ("changes", "sha256", "free"),
    [
        ({"source": "/in/a.csv"}, "1", True),
        ({"source": "/in/a.csv", "schema": 99}, "1", True),
        ({"source": GONE}, "1", False),
        ({"source": GONE}, "0", True),
        ({"source": __file__}, "0", False),
    ],
)
def test_a_folder_is_free_for_its_file_and_for_a_file_moved(tmp_path, changes, sha256, free):
    label(tmp_path / "a", **changes)
    assert is_results(tmp_path / "a")
    assert is_free(tmp_path / "a", "/in/a.csv", sha256) is free


def test_a_damaged_label_is_ours_if_nothing_else_is_there(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "record.json").write_text('{"schema": 1, "na')
    (folder / "fit.json").write_text("{}")
    assert is_results(folder)
    assert is_free(folder, "/in/a.csv", "0")
    assert foreign_files(folder) == []
    (folder / "thesis.tex").write_text("")
    assert not is_results(folder)
    assert not is_free(folder, "/in/a.csv", "0")


@pytest.mark.parametrize("outputs", [None, "fit.json", [["fit.json"]], 3])
def test_a_label_whose_outputs_are_none_says_nothing(tmp_path, outputs):
    label(tmp_path / "a", outputs=outputs)
    assert is_results(tmp_path / "a")
    assert is_free(tmp_path / "a", "/in/a.csv", "0")
    assert foreign_files(tmp_path / "a") == []
    (tmp_path / "a" / "thesis.tex").write_text("")
    assert not is_results(tmp_path / "a")


def test_a_label_out_of_all_bounds_says_nothing(tmp_path):
    for name, source in (("large", "x" * (1 << 20)), ("good", "x")):
        label(tmp_path / name, source=source)
        (tmp_path / name / "thesis.tex").write_text("")
    assert not is_results(tmp_path / "large")
    assert is_results(tmp_path / "good")


def test_a_label_that_is_a_pipe_is_not_waited_for(tmp_path):
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "record.json")
    assert not is_results(tmp_path / "a")
    assert not is_free(tmp_path / "a", "/in/a.csv", "0")
    assert foreign_files(tmp_path / "a") == []


def test_a_link_is_not_ours(tmp_path):
    label(tmp_path / "a", source="/in/a.csv")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert not is_free(tmp_path / "b", "/in/a.csv", "0")
    assert is_free(tmp_path / "c", "/in/a.csv", "0")
