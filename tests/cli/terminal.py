"""A real terminal (a pty) with the command in its foreground, as a person has it."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from fcntl import ioctl
from typing import TYPE_CHECKING

from helpers import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Terminal:
    """What the command shows, and a way to type."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self.raw = ""
        self._fd = fd
        self._code: int | None = None

    @property
    def text(self) -> str:
        """What it has shown, without colours and cursor movements."""
        return _ESCAPES.sub("", self.raw)

    def type(self, keys: str) -> None:
        """Press these keys."""
        os.write(self._fd, keys.encode())

    def until(self, words: str) -> None:
        """Read until it has shown these words."""
        end_s = time.monotonic() + PATIENCE_S
        while words not in self.text:
            if time.monotonic() > end_s or not self._read(end_s):
                raise AssertionError(f"it never showed {words!r}:\n{self.text}")

    def wait(self) -> int:
        """Read to its end; returns the exit status, negative for a signal."""
        end_s = time.monotonic() + PATIENCE_S
        while self._read(end_s):
            assert time.monotonic() < end_s, f"it never ended:\n{self.text}"
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code

    def _read(self, end_s: float) -> bool:
        if not select.select([self._fd], [], [], max(end_s - time.monotonic(), 0))[0]:
            raise AssertionError(f"it showed nothing more:\n{self.text}")
        try:
            chunk = os.read(self._fd, 65536)
        except OSError:  # EIO: nobody has the other side open any more
            return False
        self.raw += chunk.decode(errors="replace")
        return bool(chunk)

    def close(self) -> None:
        """End it if it still runs."""
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)


@contextlib.contextmanager
def terminal(command: Sequence[str], env: dict[str, str], columns: int = 100) -> Iterator[Terminal]:
    """The command in a terminal of its own, in the foreground.

    Its size is the terminal's, whatever our environment says: readline exports LINES and COLUMNS
    behind Python's back in a pytest, which hands them to the workers of pytest-xdist.
    """
    env = {name: value for name, value in env.items() if name not in {"LINES", "COLUMNS"}}
    pid, fd = pty.fork()
    if pid == 0:
        try:
            # Here, so that it is never seen in another size.
            ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
            os.execve(command[0], list(command), env)  # noqa: S606 (no shell is wanted)
        finally:
            os._exit(127)
    opened = Terminal(pid, fd)
    try:
        yield opened
    finally:
        opened.close()
