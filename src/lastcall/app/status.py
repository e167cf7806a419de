"""Who is stuck, for whoever asks from outside: a private socket that tells how far the end is.

An abstract Unix socket (Linux) named `lastcall/PID/START`, by the pid as the process knows it and
its start time in clock ticks since boot (field 22 of `/proc/PID/stat`). So it is found whatever
the environment, the user's folders or the state of the disk; it needs no file, leaves none behind,
and goes with the process. What a file with mode 0600 would do, credentials do here: nothing is
sent to anybody but this user and root (SO_PEERCRED), and whoever reads checks the same way that the
process at the other end is the one it meant. An abstract name belongs to a network namespace:
from outside a container with a network of its own it cannot be reached.

Who connects gets one line of JSON at once, and one with each change; `lastcall.app.snapshot` says
what is in it. A line `{"ask": "look"}` has what is stuck looked at now; it is looked at anyway
about once a second while somebody listens and a hook takes longer than that. The socket ends after
the line of the end.

The coordinator's thread serves it, and waits for nobody: who does not take a whole line at once
is dropped, and may come back.

Source: unix(7), "Abstract sockets" and SO_PEERCRED; proc_pid_stat(5).
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from time import monotonic

from lastcall.app.inbox import file_of
from lastcall.app.looking import look_at
from lastcall.app.phases import State
from lastcall.app.snapshot import Look, line_of
from lastcall.app.voice import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from lastcall.app.house import House
    from lastcall.app.notify import Notifier

CLIENTS = 8
# So many strangers, and the door is closed for good: nobody may keep us busy.
_STRANGERS = 1000
_AT_ONCE = 16
_ASK_BYTES = 1024
_ROOM_BYTES = 262144
# Between two lines, so that a thousand hooks do not make a thousand lines.
_GAP_S = 0.05
# What takes longer than this is looked at, about so often.
LOOK_S = 1.0
# A look may take no more than this share of the time.
_SHARE = 20
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def address_of(pid: int, start_ticks: str) -> str:
    """The name of a process's socket."""
    return f"\0lastcall/{pid}/{start_ticks}"


class Status:
    """The socket of one process, and what its listeners are told.

    Args:
        house: what is told of.
        notifier: tells the service manager; None: there is none.
    """

    def __init__(self, house: House, notifier: Notifier | None = None) -> None:
        self.notifier = notifier
        self._house = house
        self._inbox = house.coordinator.inbox
        self._listener: socket.socket | None = None
        self._is: tuple[int, int] | None = None
        self._deaf = True
        self._clients: dict[int, _Client] = {}
        self._strangers = 0
        self._granted_s: list[float] = []
        self._sent_s = float("-inf")
        self._due = self._late = self._wanted = self._over = False
        self._wake = threading.Event()
        self._looker: threading.Thread | None = None
        self.look: Look = Look()

    def open(self) -> bool:
        """Make the socket.

        Returns:
            Whether there is one: not without `/proc` and abstract sockets, and not for a second
            lifecycle of the same process.
        """
        self._house.listeners.append(self.heed)
        if not sys.platform.startswith("linux"):
            return False
        try:
            import json  # noqa: F401 (loaded for later: while nothing is stuck, nor out of reach)
            import socket
            import struct  # noqa: F401 (as above)

            with open("/proc/self/stat", "rb") as file:
                start = file.read(4096).rpartition(b")")[2].split()[19].decode()
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except (OSError, IndexError, ImportError):
            return False
        try:
            made.setblocking(False)
            made.bind(address_of(os.getpid(), start))
            made.listen(CLIENTS)
        except OSError:
            made.close()
            return False
        self._listener, self._is = made, file_of(made.fileno())
        self._inbox.put(self._hear_again)
        return True

    def close(self) -> None:
        """Close it; what was sent still arrives."""
        self._over = True
        self._wake.set()
        for client in tuple(self._clients.values()):
            self._drop(client)
        if self._listener is not None:
            self._inbox.unwatch(self._listener.fileno())
            if file_of(self._listener.fileno()) == self._is:
                self._listener.close()
            else:  # the program has closed it, and its number may be another file's
                self._listener.detach()
            self._listener = None

    def forget_in_child(self) -> None:
        """After a fork: it is the parent's, and the child neither serves nor holds it."""
        if self.notifier is not None:
            self.notifier.close()
            self.notifier = None
        if self.heed in self._house.listeners:
            self._house.listeners.remove(self.heed)
        self._wake = threading.Event()  # the old one may be locked by a thread that is not here
        self.close()

    # -- changes, in the coordinator's thread

    def heed(self, what: str, words: Mapping[str, object]) -> None:
        """A change; see `Lifecycle.listen`."""
        if what == "stopping":
            self._granted_s = []
            self._due = self._late = False
        elif what == "extended":
            more_s = words.get("more_s")
            moment_s = self._house.coordinator.now_s()
            self._granted_s.append(moment_s + (more_s if isinstance(more_s, float) else 0.0))
        if self.notifier is not None:
            self.notifier.heed(what, words)
        if what == "ended":
            self._send_all()
            self.close()
            return
        if what == "called-off":
            self.look = Look(self.look.looks)
        self._follow()
        self._change()

    def _change(self) -> None:
        if not self._due:
            self._due = True
            self._inbox.put(self._publish)

    def _publish(self) -> None:
        """Send a line, unless one went a moment ago: then a moment later."""
        if not self._clients:
            self._due = False
        elif monotonic() - self._sent_s >= _GAP_S:
            self._send_all()
        elif self._running_looker():
            self._late = True
            self._wake.set()
        else:
            self._send_all()

    def _send_all(self) -> None:
        self._due = False
        self._hear_again()
        if not self._clients:
            return
        self._sent_s = monotonic()
        line = self._line()
        for client in tuple(self._clients.values()):
            if not client.send(line):
                self._drop(client)

    def _line(self) -> bytes:
        try:
            return line_of(self._house, self.look, self._granted_s)
        except Exception:  # noqa: BLE001 (what is told must not hold what is done)
            complain("the status cannot be told")
            return b""

    # -- clients, in the coordinator's thread

    def _hear_again(self) -> None:
        """Listen, or listen again after there was no room for a client."""
        if self._deaf and self._listener is not None and not self._over:
            self._deaf = False
            self._inbox.watch(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if self._listener is None:
                return
            try:
                link, _address = self._listener.accept()
            except OSError as error:
                if error.errno in _NO_ROOM:  # it would be ready for ever
                    self._deaf = True
                    self._inbox.unwatch(self._listener.fileno())
                return
            client = _Client(link)
            if len(self._clients) >= CLIENTS or not client.trusted():
                client.close()
                self._strangers += 1
                if self._strangers >= _STRANGERS:
                    self.close()
                continue
            self._clients[client.fd] = client
            self._inbox.watch(client.fd, lambda client=client: self._heard(client))  # type: ignore[misc]
            if not client.send(self._line()):
                self._drop(client)
            self._follow()

    def _heard(self, client: _Client) -> None:
        if self._clients.get(client.fd) is not client:
            return  # it was dropped in this very turn
        said = client.hear()
        if said is None:
            self._drop(client)
        elif said:
            self._wanted = True
            if self._house.state is State.STOPPING and self._follow():
                self._wake.set()
            else:
                self.look = Look(self.look.looks + 1)
                self._change()

    def _drop(self, client: _Client) -> None:
        if self._clients.pop(client.fd, None) is client:
            self._inbox.unwatch(client.fd)
        client.close()

    # -- looking, in a thread of its own

    def _running_looker(self) -> bool:
        return self._looker is not None and self._looker.is_alive()

    def _follow(self) -> bool:
        """Have a thread look at what is stuck, once somebody wants to know. Whether one does."""
        if self._running_looker():
            return True
        told = self._clients or self.notifier is not None
        if self._over or not told or self._house.state is not State.STOPPING:
            return False
        thread = threading.Thread(target=self._watch, name="lastcall-status", daemon=True)
        self._looker = thread
        try:
            thread.start()
        except RuntimeError:  # no thread to be had any more
            self._looker = None
            return False
        return True

    def _watch(self) -> None:
        next_s = monotonic() + LOOK_S
        while not self._over:
            self._wake.wait(max(0.0, next_s - monotonic()))
            self._wake.clear()
            if self._house.state is not State.STOPPING:
                # In this order: a change from now on is not left to us.
                self._looker = None
                if self._due:
                    self._inbox.put(self._send_all)
                return
            began_s = monotonic()
            if self._wanted or began_s >= next_s:
                wanted, self._wanted, self._late = self._wanted, False, False
                self._take_a_look(0.0 if wanted else LOOK_S)
                ended_s = monotonic()
                next_s = ended_s + max(LOOK_S, _SHARE * (ended_s - began_s))
                self._inbox.put(self._looked)
            elif self._late:
                self._late = False
                time.sleep(_GAP_S)
                self._inbox.put(self._publish)

    def _looked(self) -> None:
        if not self._over:
            if self.notifier is not None:
                self.notifier.tell_stuck(self.look)
            self._send_all()

    def _take_a_look(self, at_least_s: float) -> None:
        looks = self.look.looks + 1
        try:
            found, rings = look_at(self._house, at_least_s)
            self.look = Look(looks, found, rings)
        except Exception:  # noqa: BLE001 (an explanation that fails must not hold the stop)
            self.look = Look(looks)
            complain("cannot tell what is stuck")


class _Client:
    """Somebody who listens.

    Args:
        link: to them; the client owns it.
    """

    __slots__ = ("_is", "_said", "fd", "link")

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self.fd = link.fileno()
        self._is = file_of(self.fd)
        self._said = b""
        link.setblocking(False)

    def close(self) -> None:
        """Let go of them; not of what has got the number since: programs close all files."""
        if file_of(self.fd) == self._is:
            self.link.close()
        else:
            self.link.detach()

    def trusted(self) -> bool:
        """Whether it is this user or root."""
        import socket
        import struct

        try:
            self.link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM_BYTES)
            raw = self.link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        except OSError:
            return False
        _pid, uid, _gid = struct.unpack("3i", raw)
        return uid in {0, os.geteuid()}

    def send(self, line: bytes) -> bool:
        """Send a line. Whether all of it went: half of one is of no use."""
        import socket

        if file_of(self.fd) != self._is:
            return False
        try:
            return self.link.send(line, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) == len(line)
        except OSError:
            return False

    def hear(self) -> bool | None:
        """Whether it asks for a look; None: it is gone, or says too much."""
        import json

        try:
            more = self.link.recv(_ASK_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return None
        *lines, self._said = (self._said + more).split(b"\n")
        if not more or len(self._said) > _ASK_BYTES:
            return None
        asks = False
        for line in lines:
            try:
                asks |= json.loads(line) == {"ask": "look"}
            except (ValueError, RecursionError):
                continue
        return asks
