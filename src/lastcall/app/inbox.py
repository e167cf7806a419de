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
        self._heard: deque[int] = deque()
        self._watched: dict[int, Callable[[], object]] = {}
        self._closed = False
        self.renewals: int = 0
        self._open()

    def _open(self) -> None:
        if os.name == "nt":  # a wakeup fd has to be a socket there
            import socket

            one, two = socket.socketpair()
            self._read, self.wakeup_fd = one.detach(), two.detach()
        else:
            self._read, self.wakeup_fd = os.pipe()
            os.set_blocking(self._read, False)
            os.set_blocking(self.wakeup_fd, False)
        self._are = file_of(self._read), file_of(self.wakeup_fd)

    def put(self, job: Callable[[], object]) -> None:
        """Have the reader call something. Takes no lock and does not block."""
        self._items.append(job)
        self.poke()

    def poke(self) -> None:
        """Wake the reader."""
        if file_of(self.wakeup_fd) != self._are[1]:
            return  # closed: nobody reads any more, and the number may be another file's
        try:
            os.write(self.wakeup_fd, b"\0")
        except OSError:
            return  # full: the reader is awake as it is

    def hear(self, number: int) -> None:
        """Take a signal that the C part has not written into the pipe. As `put`."""
        self._heard.append(number)
        self.poke()

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
        ready = [] if self._renewed() else self._wait(timeout_s)
        signals = b""
        if not self._renewed() and self._read in ready:
            with suppress(BlockingIOError):
                signals = os.read(self._read, _READ_BYTES).replace(b"\0", b"")
        while self._heard:
            signals += bytes([self._heard.popleft()])
        jobs = [self._watched[fd] for fd in ready if fd in self._watched]
        while self._items:
            jobs.append(self._items.popleft())
        return signals, jobs

    def _renewed(self) -> bool:
        """The program has closed all files, as daemons do, and ours among them: take new ones.

        The next signal's handler tells the C part.
        """
        if self._closed or file_of(self._read) == self._are[0]:
            return False
        if file_of(self.wakeup_fd) == self._are[1]:
            os.close(self.wakeup_fd)
        self._watched.clear()
        self._open()
        self.renewals += 1
        return True

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
        found = poll.poll(wait_ms)
        for fd, event in found:
            if event & select.POLLNVAL:  # closed by somebody else: it would be ready for ever
                self.unwatch(fd)
        return [fd for fd, _ in found]

    def close(self) -> None:
        """Close the pipe."""
        self._closed = True
        fds = (self._read, self.wakeup_fd)
        # Who comes late must not write into a file that got the number meanwhile.
        self._read = self.wakeup_fd = -1
        for fd, file in zip(fds, self._are, strict=True):
            if file_of(fd) == file:  # not what has got its number since
                with suppress(OSError):
                    os.close(fd)


def file_of(fd: int) -> tuple[int, int] | None:
    """Which file a descriptor is; None: none."""
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino
