"""Files of JSON are read in here: regular ones of bounded size, since anything may lie in a folder of results."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from scalefit.errors import RefitError

LABEL_BYTES = 1 << 20
"""What a record may hold: a real one has a few thousand bytes."""


class DamagedError(RefitError):
    """A file can be opened, but what it holds is not what should be there."""


def read_json(path: Path, largest: int = LABEL_BYTES) -> Any:
    """Read a file of JSON.

    Parameters
    ----------
    path : Path
    largest : int
        Bytes that it may hold.

    Raises
    ------
    DamagedError
        If it is a pipe, device or folder (a pipe would be waited for without end), too large, or not JSON.
    OSError
        If it cannot be opened.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise DamagedError(f"{path} is {_KINDS.get(stat.S_IFMT(status.st_mode), 'a device')}; expected a file")
    if status.st_size > largest:
        raise DamagedError(f"{path} holds {status.st_size:,} bytes; expected {largest:,} at most")
    with open(path, "rb") as file:
        data = file.read(status.st_size)
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is not JSON: {error}") from error


_KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket"}
