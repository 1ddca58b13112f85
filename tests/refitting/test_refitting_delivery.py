"""Results replace older ones whole or not at all, whatever happens to the writer."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from refitting_samples import contents

from scalefit.errors import RefitError
from scalefit.refitting import folders as delivery
from scalefit.refitting.folders import Outbox


def test_a_folder_is_replaced_whole(tmp_path):
    with Outbox(tmp_path) as outbox:
        outbox.put_folder("a", {"fit.json": b"1", "figures/law.svg": b"old"})
        outbox.put_folder("a", {"fit.json": b"2"})
    assert contents(tmp_path) == {"a/fit.json": b"2"}
    assert [path.name for path in (tmp_path / ".staging").iterdir()] == ["folder.lock"]


def test_where_paths_cannot_change_places_the_old_folder_steps_aside(tmp_path, monkeypatch):
    monkeypatch.setattr(delivery, "swap", lambda *_: False)
    with Outbox(tmp_path) as outbox:
        outbox.put_folder("a", {"fit.json": b"1", "figures/law.svg": b"old"})
        outbox.put_folder("a", {"fit.json": b"2"})
    assert contents(tmp_path) == {"a/fit.json": b"2"}


@pytest.mark.skipif(sys.platform != "linux", reason="paths change places in one step on Linux only")
def test_a_reader_always_finds_a_whole_folder(tmp_path):
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        while not (tmp_path / "a").exists():
            time.sleep(0.001)
        looks = []
        for _ in range(2000):
            looks.append((tmp_path / "a" / "x").is_file())
            time.sleep(0.0001)
        writer.send_signal(signal.SIGKILL)
    assert all(looks)


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "/etc"])
def test_a_folder_has_one_plain_name(tmp_path, name):
    with Outbox(tmp_path / "out") as outbox, pytest.raises(RefitError):
        outbox.put_folder(name, {"fit.json": b"x"})
    assert contents(tmp_path) == {}


def test_a_full_disk_is_a_clear_error_and_loses_nothing(tmp_path, monkeypatch):
    with Outbox(tmp_path) as outbox:
        outbox.put_folder("a", {"fit.json": b"1"})

        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(delivery.os, "fsync", full)
        with pytest.raises(RefitError, match="No space left on device; what was there before is kept"):
            outbox.put_folder("a", {"fit.json": b"2"})
        with pytest.raises(RefitError, match="No space left"):
            outbox.put_file("summary.csv", b"x")
    assert contents(tmp_path) == {"a/fit.json": b"1"}


def test_an_error_between_the_two_renames_puts_the_old_folder_back(tmp_path, monkeypatch):
    rename = os.rename

    def second_fails(source, target):
        if "fresh" in Path(source).parts:
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(delivery, "swap", lambda *_: False)
    with Outbox(tmp_path) as outbox:
        outbox.put_folder("a", {"fit.json": b"1"})
        monkeypatch.setattr(delivery.os, "rename", second_fails)
        with pytest.raises(RefitError, match="Input/output error"):
            outbox.put_folder("a", {"fit.json": b"2"})
    assert contents(tmp_path) == {"a/fit.json": b"1"}


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", ""])
def test_no_path_leaves_the_output_folder(tmp_path, name):
    with Outbox(tmp_path / "out") as outbox:
        with pytest.raises(RefitError, match="would leave the output folder"):
            outbox.put_file(name, b"x")
        with pytest.raises(RefitError, match="would leave the output folder"):
            outbox.put_folder("a", {name: b"x"})
    assert contents(tmp_path / "out") == {}


WRITER = """
import sys
from pathlib import Path
from scalefit.refitting.folders import Outbox
with Outbox(Path(sys.argv[1])) as outbox:
    print("open", flush=True)
    for n in range(10**6):
        outbox.put_folder("a", {"x": b"%d" % n, "deep/y": b"%d" % n})
"""


@pytest.mark.parametrize("delay", [0.0, 0.011, 0.023, 0.037])
def test_a_killed_writer_leaves_the_old_folder_or_the_new_one(tmp_path, delay):
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        while not (tmp_path / "a").exists():
            time.sleep(0.001)
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
    with Outbox(tmp_path):
        left = contents(tmp_path)
    assert set(left) == {"a/x", "a/deep/y"}
    assert len(set(left.values())) == 1
    assert [path.name for path in (tmp_path / ".staging").iterdir()] == ["folder.lock"]


def test_what_a_dead_writer_had_set_aside_goes_back(tmp_path):
    dead = tmp_path / ".staging" / ("d" * 32)
    (dead / "old" / "a").mkdir(parents=True)
    (dead / "old" / "a" / "fit.json").write_bytes(b"1")
    (dead / "fresh" / "b").mkdir(parents=True)
    (dead / "owner.lock").touch()
    with Outbox(tmp_path):
        assert contents(tmp_path) == {"a/fit.json": b"1"}
    assert not dead.exists()


def test_a_living_writer_is_left_alone(tmp_path):
    with Outbox(tmp_path) as first:
        mine = set((tmp_path / ".staging").iterdir())
        with Outbox(tmp_path) as second:
            second.put_folder("b", {"x": b"2"})
        assert mine <= set((tmp_path / ".staging").iterdir())
        first.put_folder("a", {"x": b"1"})
    assert contents(tmp_path) == {"a/x": b"1", "b/x": b"2"}
