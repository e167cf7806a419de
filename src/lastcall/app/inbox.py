"""What reaches the coordinator: words of other threads, and signals, through one pipe.

The pipe is the process's wakeup fd, too: the C part of a signal handler writes the signal's number
into it while the main thread may sit in C code for long.

Source: signal.set_wakeup_fd in Python's documentation; Modules/signalmodule.c, trip_signal().
"""

from __future__ import annotations

import os
import select
from collections import deque
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_READ_BYTES = 65536
_MS = 1000
_LONG_S = 86_400.0


class Inbox:
    """A queue whose reader can be woken from signal handlers and any thread."""

    wakeup_fd: int

    def __init__(self) -> None:
        self._items: deque[Callable[[], object]] = deque()
        if os.name == "nt":  # a wakeup fd has to be a socket there
            import socket

            one, two = socket.socketpair()
            self._read, self.wakeup_fd = one.detach(), two.detach()
        else:
            self._read, self.wakeup_fd = os.pipe()
            os.set_blocking(self._read, False)
            os.set_blocking(self.wakeup_fd, False)
        self._watched: dict[int, Callable[[], object]] = {}

    def put(self, job: Callable[[], object]) -> None:
        """Have the reader call something. Takes no lock and does not block."""
        self._items.append(job)
        self.poke()

    def poke(self, byte: bytes = b"\0") -> None:
        """Wake the reader."""
        try:
            os.write(self.wakeup_fd, byte)
        except OSError:
            return  # full: the reader is awake as it is; closed: nobody reads any more

    def watch(self, fd: int, ready: Callable[[], object]) -> None:
        """Have something called in the reader's thread whenever a file can be read."""
        self._watched[fd] = ready

    def unwatch(self, fd: int) -> None:
        """Watch a file no longer."""
        self._watched.pop(fd, None)

    def get(self, timeout_s: float | None) -> tuple[bytes, list[Callable[[], object]]]:
        """Wait for something.

        Args:
            timeout_s: for how long, in seconds; None: for ever.

        Returns:
            The numbers of signals that arrived, and what is to be called.
        """
        ready = self._wait(timeout_s)
        signals = b""
        if self._read in ready:
            with suppress(BlockingIOError):
                signals = os.read(self._read, _READ_BYTES).replace(b"\0", b"")
        jobs = [self._watched[fd] for fd in ready if fd in self._watched]
        while self._items:
            jobs.append(self._items.popleft())
        return signals, jobs

    def _wait(self, timeout_s: float | None) -> list[int]:
        fds = [self._read, *self._watched]
        if not hasattr(select, "poll"):
            return select.select(fds, [], [], timeout_s)[0]
        poll = select.poll()
        for fd in fds:
            poll.register(fd, select.POLLIN)
        if timeout_s is not None and timeout_s > _LONG_S:
            timeout_s = _LONG_S  # poll takes a C int of milliseconds; infinity is none
        # A whole millisecond more: waking a little early would only mean to wait again.
        wait_ms = None if timeout_s is None else int(max(0.0, timeout_s) * _MS) + (timeout_s > 0)
        return [fd for fd, _ in poll.poll(wait_ms)]

    def close(self) -> None:
        """Close the pipe."""
        fds = (self._read, self.wakeup_fd)
        # Who comes late must not write into a file that got the number meanwhile.
        self._read = self.wakeup_fd = -1
        for fd in fds:
            with suppress(OSError):
                os.close(fd)
