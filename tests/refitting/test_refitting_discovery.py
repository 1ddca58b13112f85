"""Which files are refitted, and under which name."""

from __future__ import annotations

import errno
import json
import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scalefit.errors import SweepError
from scalefit.refitting.discovery import _slug, discover


@pytest.fixture
def folder(tmp_path):
    for name in (
        "a.csv",
        "b.parquet",
        "c.csv.gz",
        "notes.md",
        ".hidden.csv",
        "deep/a.csv",
        ".git/x.csv",
        "out/old.csv",
    ):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "in"


def test_a_folder_is_searched_through_all_levels(folder):
    found = discover(folder, folder / "out")
    assert [source.name for source in found.sources] == ["a", "b", "c", "deep--a"]
    assert [source.relative for source in found.sources] == ["a.csv", "b.parquet", "c.csv.gz", "deep/a.csv"]
    assert found.unreadable == ()


def test_a_file_named_twice_is_found_once(folder):
    found = discover([folder, folder / "a.csv", str(folder / "*.csv")], folder / "out")
    assert [source.name for source in found.sources] == ["a", "b", "c", "deep--a"]


def test_files_that_would_share_a_name_are_distinguished(folder):
    (folder / "a.jsonl").write_bytes(b"x")
    names = [source.name for source in discover(folder, folder / "out").sources]
    assert len(names) == len(set(names)) == 5
    assert sum(name.startswith("a-") for name in names) == 2


def test_a_loop_of_links_ends(folder):
    os.symlink(folder, folder / "deep" / "loop")
    os.symlink(folder / "self.csv", folder / "self.csv")
    names = [source.name for source in discover(folder, folder / "out").sources]
    assert names == ["a", "b", "c", "deep--a", "self"]


def test_a_folder_that_cannot_be_searched_is_listed(folder, monkeypatch):
    scan = os.scandir

    def closed(path):
        if str(path).endswith("deep"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", closed)
    found = discover(folder, folder / "out")
    assert [source.name for source in found.sources] == ["a", "b", "c"]
    assert found.unreadable == ((str(folder / "deep"), "Permission denied"),)


def test_results_are_no_input_even_where_both_share_a_folder(folder):
    label = {"name": "deep", "source": "/in/deep.csv", "sha256": "0", "outputs": {}}
    (folder / "deep" / "record.json").write_text(json.dumps(label))
    (folder / "summary.csv").write_bytes(b"x")
    names = [source.name for source in discover(folder, folder).sources]
    assert names == ["a", "b", "c", "out--old"]
    assert discover(str(folder / "deep" / "*.csv"), folder).sources == ()


def test_no_sweep_takes_the_name_of_a_file_of_the_summary(folder):
    (folder / "index.html.csv").write_bytes(b"x")
    names = [source.name for source in discover(folder / "index.html.csv", folder / "out").sources]
    assert names[0].startswith("index.html-")


def test_nothing_there_is_an_error(tmp_path):
    with pytest.raises(SweepError, match=r"nowhere.*no file, folder or glob of any"):
        discover(str(tmp_path / "nowhere*.csv"), tmp_path / "out")


@given(st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=300))
@example("\ud800")  # half a character, as file names may hold on Windows
def test_a_name_is_one_plain_path_component(relative):
    name = _slug(relative)
    assert name
    assert name not in (".", "..")
    assert not set(name) & set("/\\:\0<>\"'&|?* \n")
    assert len(name) < 120
