"""Two paths change places, or nothing happens and the caller learns why."""

from __future__ import annotations

import ctypes
import errno
import os
import sys

import pytest

from scalefit.refitting import folders as exchange
from scalefit.refitting.folders import swap


@pytest.fixture
def two(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
    return tmp_path / "first", tmp_path / "second"


def names(*folders):
    return [[path.name for path in folder.iterdir()] for folder in folders]


def failing(code):
    def rename(*_):
        ctypes.set_errno(code)
        return -1

    return lambda: rename


# Another system may always answer that it cannot.
@pytest.mark.skipif(sys.platform != "linux", reason="paths change places in one step on Linux only")
def test_two_folders_change_places(two):
    assert swap(*two)
    assert names(*two) == [["second"], ["first"]]


@pytest.mark.skipif(sys.platform != "linux", reason="paths change places in one step on Linux only")
@pytest.mark.parametrize("missing", [0, 1])
def test_a_path_that_is_not_there_is_an_error(two, missing):
    paths = list(two)
    paths[missing] = two[0].parent / "nowhere"
    with pytest.raises(FileNotFoundError):
        swap(*paths)
    assert names(*two) == [["first"], ["second"]]
    assert not (two[0].parent / "nowhere").exists()


@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO, errno.EXDEV], ids=errno.errorcode.get
)
def test_a_refusal_is_raised_with_its_reason_and_place(two, monkeypatch, code):
    monkeypatch.setattr(exchange, "_renameat2", failing(code))
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        swap(*two)
    assert caught.value.errno == code
    assert caught.value.filename == str(two[1])


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_where_the_file_system_cannot_do_it_nothing_has_happened(two, monkeypatch, code):
    monkeypatch.setattr(exchange, "_renameat2", failing(code))
    assert not swap(*two)
    assert names(*two) == [["first"], ["second"]]


def test_where_the_system_has_no_such_call_nothing_has_happened(two, monkeypatch):
    monkeypatch.setattr(exchange, "_renameat2", lambda: None)
    assert not swap(*two)
    assert names(*two) == [["first"], ["second"]]
