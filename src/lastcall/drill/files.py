"""Files that a user names: read without waiting for anybody, and never more than asked for."""

from __future__ import annotations

import os
import stat
import tomllib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lastcall.errors import UsageError


def read_named(path: str, most_bytes: int, wrong: type[UsageError]) -> bytes:
    """Read a whole file.

    Args:
        path: its name. A pipe or a device is none: it could keep us waiting for ever.
        most_bytes: how large it may be.
        wrong: what is raised when it cannot be read.

    Raises:
        UsageError: as `wrong`: there is none, it may not be read, it is no file, or too large.
    """
    try:
        # Source: open(2): O_NONBLOCK lets the opening of a FIFO that nobody writes to return.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            kind = os.fstat(fd).st_mode
            if not stat.S_ISREG(kind):
                what = "a folder" if stat.S_ISDIR(kind) else "a pipe or a device"
                raise wrong(f"{path} is {what}, no file", "put it into a file, and name that")
            raw = file.read(most_bytes + 1)
    except OSError as error:
        raise wrong(f"{path} cannot be read: {error.strerror}", "check its name") from error
    except ValueError as error:
        raise wrong(f"{path!r} cannot be the name of a file", "check its name") from error
    if len(raw) > most_bytes:
        raise wrong(f"{path} is larger than {most_bytes >> 20} MiB", "name a smaller file")
    return raw


def parse_toml(path: str, raw: bytes, wrong: type[UsageError]) -> dict[str, Any]:
    """The table of a TOML file.

    Args:
        path: for the error.
        raw: what stands in it.
        wrong: what is raised when it is not TOML.

    Raises:
        UsageError: as `wrong`.
    """
    try:
        return tomllib.loads(raw.decode())
    except ValueError as error:  # not UTF-8, not TOML, or a number of thousands of digits
        raise wrong(f"{path} is not TOML: {error}", "mend it there") from error
    except RecursionError as error:
        raise wrong(f"{path} is not TOML: it is nested too deeply", "mend it there") from error
