"""What a program prints: read always, cut into lines, kept within bounds."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

KEPT_LINES = 1000
LINE_BYTES = 4096
_CHUNK_BYTES = 65536
_PIPE_BYTES = 1024 * 1024
_F_SETPIPE_SZ = 1031


class Output:
    """The reading end of a pipe, as its last lines.

    Args:
        fd: the reading end; closed by `close`.
    """

    def __init__(self, fd: int) -> None:
        self.lines: deque[tuple[float, str]] = deque(maxlen=KEPT_LINES)
        self._fd = fd
        self._rest = b""
        self._skipping = False
        self._watchers: list[Callable[[float, str], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        os.set_blocking(fd, False)

    def follow(self) -> None:
        """Read whatever comes, from now on."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._read)

    def watch(self, watcher: Callable[[float, str], None]) -> Callable[[], None]:
        """Be told each line with its time (`time.monotonic`); returns what ends it."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def drain(self) -> None:
        """Read what is there by now, as much as a pipe can hold."""
        for _ in range(_PIPE_BYTES // _CHUNK_BYTES):
            if not self._read():
                break

    def close(self) -> None:
        """Read no more. Harmless to repeat."""
        self._stop()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _stop(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._fd)
            self._loop = None

    def _read(self) -> bool:
        """Take one chunk; whether there may be more."""
        if self._loop is None:
            return False
        try:
            chunk = os.read(self._fd, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not chunk:
            self._stop()
            if self._rest:
                rest, self._rest = self._rest, b""
                self._take(monotonic(), [rest])
            return False
        self._cut(monotonic(), chunk)
        return True

    def _cut(self, at: float, chunk: bytes) -> None:
        if self._skipping:
            _, newline, chunk = chunk.partition(b"\n")
            if not newline:
                return
            self._skipping = False
        # Without a watcher only the last lines matter, and a flood costs no more than they do.
        limit = -1 if self._watchers else KEPT_LINES + 1
        lines = (self._rest + chunk).rsplit(b"\n", limit)
        self._rest = lines.pop()
        if len(lines) > KEPT_LINES and not self._watchers:
            del lines[0]  # many lines in one
        if len(self._rest) > LINE_BYTES:
            lines.append(self._rest)
            self._rest, self._skipping = b"", True
        self._take(at, lines)

    def _take(self, at: float, lines: list[bytes]) -> None:
        for raw in lines:
            text = raw[:LINE_BYTES].decode(errors="replace").removesuffix("\r")
            self.lines.append((at, text))
            for watcher in tuple(self._watchers):
                watcher(at, text)


def make_pipe() -> tuple[int, int]:
    """A pipe, roomy where that is allowed: a program should not wait while we are busy."""
    import fcntl
    from contextlib import suppress

    reading, writing = os.pipe()
    with suppress(OSError):
        fcntl.fcntl(writing, _F_SETPIPE_SZ, _PIPE_BYTES)
    return reading, writing
