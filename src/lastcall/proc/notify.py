"""What a program tells its supervisor by sd_notify: a receiver of the datagrams.

The socket lies in a directory that only this user (and root) can enter, and the kernel says who
sent each datagram; who does not belong to the program is not listened to.

Source: sd_notify(3), unix(7) (SO_PASSCRED), systemd `src/core/manager.c`
(manager_dispatch_notify_fd).
"""

from __future__ import annotations

import array
import asyncio
import os
import shutil
import socket
import struct
import tempfile
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

# As systemd has it: NOTIFY_BUFFER_MAX is PIPE_BUF.
DATAGRAM_BYTES = 4096
KEPT_NOTICES = 256
_AT_ONCE = 64
_PATH_BYTES = 107
_CREDENTIALS = struct.Struct("3i")
_ROOM_FOR_FDS = 16
_DIGITS = 20


@record
class Notice:
    """One message of a program.

    Args:
        at: when it was received, on the clock of `time.monotonic`.
        pid: who sent it, as seen from here; 0 when the kernel cannot say.
        fields: its lines `NAME=value`, in order.
    """

    at: float
    pid: int
    fields: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str | None:
        """The last value of a field; None: it is not there."""
        return next((value for key, value in reversed(self.fields) if key == name), None)

    @property
    def ready(self) -> bool:
        """Whether it says that start-up (or a reload) is finished."""
        return self.get("READY") == "1"

    @property
    def stopping(self) -> bool:
        """Whether it says that the program is on its way out."""
        return self.get("STOPPING") == "1"

    @property
    def status(self) -> str | None:
        """What it says about itself, for people to read; None: nothing."""
        return self.get("STATUS")

    @property
    def main_pid(self) -> int | None:
        """Which process is the main one, in the sender's own numbers; None: not said."""
        return _number(self.get("MAINPID"))

    @property
    def extend_s(self) -> float | None:
        """For how long from now it asks not to be given up, in seconds; None: not said."""
        value = _number(self.get("EXTEND_TIMEOUT_USEC"))
        return None if value is None else value / 1e6


def parse_notice(raw: bytes, at: float = 0.0, pid: int = 0) -> Notice:
    """Read a datagram; lines that are not `NAME=value` are left out."""
    fields = []
    for line in raw.decode(errors="replace").split("\n"):
        name, equals, value = line.partition("=")
        if equals and name.isascii() and name.replace("_", "").isalnum():
            fields.append((name, value))
    return Notice(at, pid, tuple(fields))


class Notify:
    """Receives the messages of one program. Made by `Notify.open`; close it.

    Attributes:
        path: what the program gets as NOTIFY_SOCKET.
        notices: its last messages.
        refused: how many messages were too long or came from somebody else.
        ready_at: when it first said READY=1 (`time.monotonic`); None: not yet.
    """

    def __init__(self, link: socket.socket, path: str) -> None:
        self.path = path
        self.notices: deque[Notice] = deque(maxlen=KEPT_NOTICES)
        self.refused: int = 0
        self.ready_at: float | None = None
        self._link = link
        self._watchers: list[Callable[[Notice], None]] = []
        self._trusts: Callable[[int], bool] = _everybody
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def open(cls) -> Self:
        """Make the socket.

        Raises:
            OSError: there is no place for it.
        """
        folder = tempfile.mkdtemp(prefix="lastcall-")
        if len(os.fsencode(folder)) + len("/notify") > _PATH_BYTES:
            os.rmdir(folder)
            folder = tempfile.mkdtemp(prefix="lastcall-", dir="/tmp")
        path = os.path.join(folder, "notify")
        link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            link.setblocking(False)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            link.bind(path)
        except BaseException:
            link.close()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return cls(link, path)

    def follow(self, trusts: Callable[[int], bool] | None = None) -> None:
        """Receive from now on, on the running event loop.

        Args:
            trusts: told a sender's pid, whether it may speak; None: everybody who can reach the
                socket may.
        """
        self._trusts = trusts or _everybody
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._link, self.receive)

    def watch(self, watcher: Callable[[Notice], None]) -> Callable[[], None]:
        """Be told each message; returns what ends it."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def receive(self) -> None:
        """Take what is there."""
        for _ in range(_AT_ONCE):
            try:
                notice = self._take()
            except (BlockingIOError, InterruptedError):
                return
            if notice is None:
                self.refused += 1
                continue
            self.notices.append(notice)
            if notice.ready and self.ready_at is None:
                self.ready_at = notice.at
            for watcher in tuple(self._watchers):
                watcher(notice)

    def _take(self) -> Notice | None:
        """The next message; None: it is not to be listened to."""
        room = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(4 * _ROOM_FOR_FDS)
        raw, extras, flags, _ = self._link.recvmsg(DATAGRAM_BYTES, room, socket.MSG_CMSG_CLOEXEC)
        pid = 0
        for level, kind, data in extras:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                # BARRIER=1 and FDSTORE=1 send descriptors: a barrier waits for them to be closed.
                fds = array.array("i")
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
                for fd in fds:
                    os.close(fd)
            elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                pid = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])[0]
        if flags & socket.MSG_TRUNC or not self._trusts(pid):
            return None
        return parse_notice(raw, monotonic(), pid)

    def close(self) -> None:
        """Receive no more, and leave nothing behind. Harmless to repeat."""
        if self._loop is not None:
            self._loop.remove_reader(self._link)
            self._loop = None
        self._link.close()
        with suppress(OSError):
            os.unlink(self.path)
        with suppress(OSError):
            os.rmdir(os.path.dirname(self.path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _everybody(_pid: int) -> bool:
    return True


def _number(text: str | None) -> int | None:
    """A number of at most 64 bits, as all of them are."""
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > _DIGITS:
        return None
    return int(text)
