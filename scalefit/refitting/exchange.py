"""Two paths that change places in one step, where the system can do that."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

_HERE = -100
"""AT_FDCWD: paths are relative to the working folder."""

_EXCHANGE = 2
"""RENAME_EXCHANGE of linux/fs.h."""

_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


def swap(first: Path, second: Path) -> bool:
    """Let two existing paths on one file system change places, so that at no moment either is missing.

    Returns
    -------
    bool
        False if the system or the file system cannot do this; then nothing has happened.

    Raises
    ------
    OSError
        If it can and refuses.
    """
    rename = _renameat2()
    if rename is None:
        return False
    if rename(_HERE, os.fsencode(first), _HERE, os.fsencode(second), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT:
        return False
    raise OSError(code, os.strerror(code), str(second))


@cache
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    if sys.platform != "linux":
        return None
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    function.restype = ctypes.c_int
    return function
