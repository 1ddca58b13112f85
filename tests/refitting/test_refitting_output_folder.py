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
from scalefit.refitting import output_folder
from scalefit.refitting.output_folder import OutputFolder


def test_a_folder_is_replaced_whole(tmp_path):
    folder = OutputFolder(tmp_path)
    folder.put_folder("a", {"fit.json": b"1", "figures/law.svg": b"old"})
    folder.put_folder("a", {"fit.json": b"2"})
    assert contents(tmp_path) == {"a/fit.json": b"2"}
    assert [path.name for path in (tmp_path / ".staging").iterdir()] == ["folder.lock"]


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "/etc"])
def test_a_folder_has_one_plain_name(tmp_path, name):
    folder = OutputFolder(tmp_path / "out")
    with pytest.raises(RefitError):
        folder.put_folder(name, {"fit.json": b"x"})
    assert contents(tmp_path) == {}


def test_a_full_disk_is_a_clear_error_and_loses_nothing(tmp_path, monkeypatch):
    folder = OutputFolder(tmp_path)
    folder.put_folder("a", {"fit.json": b"1"})

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(output_folder.os, "fsync", full)
    with pytest.raises(RefitError, match="No space left on device; what was there before is kept"):
        folder.put_folder("a", {"fit.json": b"2"})
    with pytest.raises(RefitError, match="No space left"):
        folder.put_file("summary.csv", b"x")
    assert contents(tmp_path) == {"a/fit.json": b"1"}


def test_an_error_between_the_two_renames_puts_the_old_folder_back(tmp_path, monkeypatch):
    rename = os.rename

    def second_fails(source, target):
        if "being-written" in Path(source).parts:
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    folder = OutputFolder(tmp_path)
    folder.put_folder("a", {"fit.json": b"1"})
    monkeypatch.setattr(output_folder.os, "rename", second_fails)
    with pytest.raises(RefitError, match="Input/output error"):
        folder.put_folder("a", {"fit.json": b"2"})
    assert contents(tmp_path) == {"a/fit.json": b"1"}


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", ""])
def test_no_path_leaves_the_output_folder(tmp_path, name):
    folder = OutputFolder(tmp_path / "out")
    with pytest.raises(RefitError, match="would leave the output folder"):
        folder.put_file(name, b"x")
    with pytest.raises(RefitError, match="would leave the output folder"):
        folder.put_folder("a", {name: b"x"})
    assert contents(tmp_path / "out") == {}


WRITER = """
import sys
from pathlib import Path
from scalefit.refitting.output_folder import OutputFolder
folder = OutputFolder(Path(sys.argv[1]))
print("open", flush=True)
for n in range(10**6):
    folder.put_folder("a", {"x": b"%d" % n, "deep/y": b"%d" % n})
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
    OutputFolder(tmp_path)
    left = contents(tmp_path)
    assert set(left) == {"a/x", "a/deep/y"}
    assert len(set(left.values())) == 1
    assert [path.name for path in (tmp_path / ".staging").iterdir()] == ["folder.lock"]


@pytest.mark.parametrize("replaced", [False, True])
def test_what_a_dead_writer_had_set_aside_goes_back_unless_it_was_replaced(tmp_path, replaced):
    staging = tmp_path / ".staging"
    for name, content in (("set-aside/a", b"1"), ("being-written/b", b"half")):
        (staging / name).mkdir(parents=True)
        (staging / name / "fit.json").write_bytes(content)
    if replaced:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "fit.json").write_bytes(b"2")
    OutputFolder(tmp_path)
    assert contents(tmp_path) == {"a/fit.json": b"2" if replaced else b"1"}
    assert [path.name for path in staging.iterdir()] == ["folder.lock"]


@pytest.mark.parametrize("step", range(12))
def test_a_writer_that_dies_before_any_step_leaves_the_old_folder_or_the_new_one(tmp_path, step):
    """The steps are those of the system: a renaming, a flush to disk, a folder made."""
    OutputFolder(tmp_path).put_folder("a", {"x": b"old", "deep/y": b"old"})
    dies = subprocess.run([sys.executable, "-c", DIES, str(tmp_path), str(step)], check=False)
    OutputFolder(tmp_path)
    left = contents(tmp_path)
    assert set(left) == {"a/x", "a/deep/y"}
    assert set(left.values()) == ({b"new"} if dies.returncode == 0 else {left["a/x"]})
    assert [path.name for path in (tmp_path / ".staging").iterdir()] == ["folder.lock"]


DIES = """
import os, sys
from pathlib import Path
from scalefit.refitting.output_folder import OutputFolder

folder = OutputFolder(Path(sys.argv[1]))
left = [int(sys.argv[2])]

def dying(real):
    def step(*arguments, **options):
        if not left[0]:
            os._exit(9)
        left[0] -= 1
        return real(*arguments, **options)
    return step

for name in ("rename", "fsync", "rmdir", "unlink"):
    setattr(os, name, dying(getattr(os, name)))
folder.put_folder("a", {"x": b"new", "deep/y": b"new"})
"""


def test_two_writers_share_a_folder(tmp_path):
    first, second = OutputFolder(tmp_path), OutputFolder(tmp_path)
    second.put_folder("b", {"x": b"2"})
    first.put_folder("a", {"x": b"1"})
    assert contents(tmp_path) == {"a/x": b"1", "b/x": b"2"}
