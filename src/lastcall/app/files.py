"""Files that concern nobody else."""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def write_private(path: str, data: Mapping[str, object]) -> str:
    """Write JSON into a file that only this user can read (0600), whole or not at all.

    What is no plain file (a pipe, `/dev/stdout`) is written to as it is, without waiting.

    Args:
        path: where to.
        data: what.

    Returns:
        What went wrong; empty: nothing.
    """
    text = json.dumps(data, indent=1, default=str) + "\n"
    try:
        if _is_plain(path):
            _replace(path, text)
        else:
            _write(os.open(path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NONBLOCK", 0)), text)
    except OSError as error:
        return f"the report could not be written: {path}: {error.strerror or error}"
    return ""


def _is_plain(path: str) -> bool:
    """Whether it is a file, or none yet; standard output is not, even where that is a file."""
    real = os.path.abspath(path)
    if real.startswith(("/dev/", "/proc/")) and not real.startswith("/dev/shm/"):  # noqa: S108 (a folder of files)
        return False
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return True


def _replace(path: str, text: str) -> None:
    partial = f"{path}.{os.getpid()}.part"
    with suppress(FileNotFoundError):  # of a process that had our number, and was killed
        os.unlink(partial)
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        _write(fd, text)
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial)
        raise


def _write(fd: int, text: str) -> None:
    with os.fdopen(fd, "w", encoding="utf-8", errors="replace") as file:
        file.write(text)
