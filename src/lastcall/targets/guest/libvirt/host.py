"""One host that libvirt manages: its calls, each with a limit, and what it tells.

libvirt's calls block, and some never come back: QEMU's monitor has no limit in libvirt, nor has a
command to the agent. So each runs on a daemon thread of its own; one that hangs is left to itself.

A connection carries one call at a time. While one thread waits on it, libvirt 9.0's client now and
then does not send what a second one asks over it: one guest that hangs would hold up any other.
(Seen; a g_main_loop_quit that comes before g_main_loop_run would explain it.) And libvirtd serves
five calls of a connection at once, and then does not even read its keepalives
(max_client_requests).

libvirtd has twenty workers for all its clients (max_workers): so no more than sixteen calls of ours
that wait for QEMU can hang in it. Ending a guest has workers of its own there (prio_workers).

Source: libvirt 9.0, src/remote/libvirtd.conf.in, src/rpc/virnetserverclient.c,
src/rpc/virnetclient.c.
"""

from __future__ import annotations

import asyncio
import threading
import time
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from lastcall.targets.guest.libvirt import library
from lastcall.targets.guest.libvirt.ear import Ear, open_connection
from lastcall.targets.guest.libvirt.faults import trouble_of
from lastcall.targets.guest.libvirt.telling import Raw, Source
from lastcall.targets.guest.machine import Fault, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from lastcall.targets.guest.libvirt.library import Connection

T = TypeVar("T")

CALL_LIMIT_S = 5.0
_OPEN_LIMIT_S = 3.0
_OPEN_REMOTE_LIMIT_S = 20.0  # ssh takes its time
# A call that had to wait for its turn gets at least so long.
_LEAST_S = 0.05


class Lane(StrEnum):
    """Calls of the same danger share their connections."""

    LOOK = "look"  # libvirt answers by itself
    ACT = "act"  # waits for QEMU's monitor
    GUEST = "guest"  # waits for QEMU's monitor, and may be given up
    AGENT = "agent"  # waits for the guest's agent, which may never answer
    FORCE = "force"  # waits for QEMU's end


_LINES = {Lane.LOOK: 4, Lane.ACT: 8, Lane.GUEST: 4, Lane.AGENT: 4, Lane.FORCE: 8}


class _Line:
    """One connection, made when first wanted and again when it is dead."""

    def __init__(self, uri: str | None, *, read_only: bool) -> None:
        self._uri = uri
        self._read_only = read_only
        self._lock = threading.Lock()
        self._connection: Connection = None
        self.busy = False

    def connection(self) -> Connection:
        """The connection; blocks while it is made."""
        with self._lock:
            if self._connection is None or not self._connection.isAlive():
                self._connection = open_connection(self._uri, read_only=self._read_only)
            return self._connection

    def close(self) -> None:
        """Give it back; blocks. A call that hangs in it keeps it until it returns.

        Not closed in so many words: that would take it away from under such a call.
        """
        with self._lock:
            self._connection = None


class _Calls:
    """The calls of one lane."""

    def __init__(self, uri: str | None, lines: int, *, read_only: bool) -> None:
        self.lines = [_Line(uri, read_only=read_only) for _ in range(lines)]
        self.places = asyncio.Semaphore(lines)
        self.running: dict[str, asyncio.Future[None]] = {}
        self.hung: dict[object, str] = {}

    def line(self) -> _Line:
        """The first that is free: more connections only when they are needed."""
        return next(line for line in self.lines if not line.busy)


_hosts: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str | None, Host]] = WeakKeyDictionary()


class Host:
    """One host, shared by all its guests of one event loop. Make it by `shared`."""

    def __init__(self, uri: str | None) -> None:
        self.uri = uri
        self._loop = asyncio.get_running_loop()
        self._users = 0
        self._opening: asyncio.Future[None] | None = None
        self._ear = Ear(uri, self._heard)
        self._calls: dict[Lane, _Calls] = {}
        self._listeners: dict[str, list[Callable[[Raw], None]]] = {}
        self.name: str = uri or ""

    @classmethod
    async def shared(cls, uri: str | None) -> Host:
        """The host of a URI, connected. Give each back by `release`.

        Args:
            uri: libvirt's connection URI; None: its own default.

        Raises:
            Trouble: it cannot be reached.
            MissingExtra: libvirt-python is not installed.
        """
        library.load()
        hosts = _hosts.setdefault(asyncio.get_running_loop(), {})
        host = hosts.get(uri)
        if host is None:
            host = hosts[uri] = cls(uri)
        host._users += 1
        try:
            await host._ready()
        except BaseException:
            host.release()
            raise
        return host

    async def _ready(self) -> None:
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open())
        # Whoever is cancelled does not take the connection away from the others.
        await asyncio.shield(self._opening)

    async def _open(self) -> None:
        limit_s = _OPEN_LIMIT_S if self.local else _OPEN_REMOTE_LIMIT_S
        await self._ear.open(limit_s)
        for lane, lines in _LINES.items():
            self._calls[lane] = _Calls(self.uri, lines, read_only=self._ear.read_only)
        self.name = await self.call(lambda connection: str(connection.getURI()), "asking libvirt")

    @property
    def local(self) -> bool:
        """Whether its guests' processes run on this machine, as far as the URI tells."""
        parts = urlsplit(self.name or self.uri or "")
        transport = parts.scheme.partition("+")[2]
        return not parts.netloc and transport in {"", "unix"}

    @property
    def read_only(self) -> bool:
        """Whether this user may only look."""
        return self._ear.read_only

    @property
    def monitor_events(self) -> bool:
        """Whether QEMU's own events come."""
        return self._ear.monitor

    @property
    def hung(self) -> tuple[str, ...]:
        """The calls that were given up and have not come back."""
        return tuple(what for calls in self._calls.values() for what in calls.hung.values())

    def subscribe(self, uuid: str, heard: Callable[[Raw], None]) -> Callable[[], None]:
        """Be told of what happens to a guest, and of the connection. Returns what ends it."""
        listeners = self._listeners.setdefault(uuid, [])
        listeners.append(heard)

        def end() -> None:
            if heard in listeners:
                listeners.remove(heard)
            if not listeners and self._listeners.get(uuid) is listeners:
                del self._listeners[uuid]

        return end

    def _heard(self, raw: Raw) -> None:
        if raw.source in {Source.CUT, Source.BACK}:
            concerned = [each for listeners in self._listeners.values() for each in listeners]
        else:
            concerned = list(self._listeners.get(raw.uuid, ()))
        for heard in concerned:
            heard(raw)

    async def call(
        self,
        function: Callable[[Connection], T],
        what: str,
        lane: Lane = Lane.LOOK,
        owner: str = "",
        limit_s: float = CALL_LIMIT_S,
    ) -> T:
        """Call libvirt.

        Args:
            function: is given a connection, on a thread.
            what: what is done, as the beginning of a sentence: "pressing the button of web1".
            lane: what may hold it up.
            owner: the guest that it concerns: its calls on a lane go one after another, so that
                one guest takes one place at most; while one hangs, the others fail at once.
                Empty: none in particular.
            limit_s: how long it may take, in seconds.

        Raises:
            Trouble: it came to nothing; HUNG: it may still be carried out.
        """
        calls = self._calls[lane]
        end_s = time.monotonic() + limit_s
        await _turn(calls, owner, what, end_s)
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if owner:
            calls.running[owner] = over
        try:
            await _place(calls, what, end_s)
        except BaseException:
            _returned(calls, None, owner, over)
            raise
        line = calls.line()
        line.busy = True
        try:
            future = library.in_thread(lambda: function(line.connection()))
        except RuntimeError as error:  # no more threads
            _returned(calls, line, owner, over)
            raise trouble_of(error, what, library.load()[0]) from error
        future.add_done_callback(lambda _: _returned(calls, line, owner, over))
        done, _ = await asyncio.wait({future}, timeout=max(end_s - time.monotonic(), _LEAST_S))
        if not done:
            calls.hung[over] = what
            raise Trouble(
                Fault.HUNG,
                f"{what}: libvirt has not answered within {limit_s:g} s",
                "QEMU or libvirt hangs; what was asked for may still be carried out",
                tuple(f"not come back: {each}" for each in self.hung),
            )
        failed = future.exception()
        if failed is not None:
            raise trouble_of(failed, what, library.load()[0]) from failed
        return future.result()

    def release(self) -> None:
        """Give it back: with the last one the connections are closed."""
        self._users -= 1
        if self._users > 0:
            return
        hosts = _hosts.get(self._loop, {})
        if hosts.get(self.uri) is self:
            del hosts[self.uri]
        if self._opening is not None:
            self._opening.cancel()
        self._ear.close()
        for calls in self._calls.values():
            for line in calls.lines:
                library.apart(line.close)


def _returned(calls: _Calls, line: _Line | None, owner: str, over: asyncio.Future[None]) -> None:
    """A call is over, or did not come about (then it has no line)."""
    calls.hung.pop(over, None)
    if calls.running.get(owner) is over:
        del calls.running[owner]
    if not over.done():
        over.set_result(None)
    if line is not None:
        line.busy = False
        calls.places.release()


async def _turn(calls: _Calls, owner: str, what: str, end_s: float) -> None:
    """Wait until no other call of the same guest is on the lane."""
    while (earlier := calls.running.get(owner)) is not None:
        if earlier not in calls.hung:
            await asyncio.wait({earlier}, timeout=max(end_s - time.monotonic(), 0))
        if not earlier.done():
            held = calls.hung.get(earlier, "another call")
            raise Trouble(
                Fault.HUNG,
                f"{what}: an earlier call for this guest has not come back ({held})",
                "QEMU or the agent does not answer libvirt; look into the guest's log",
            )


class NoRoomError(Trouble):
    """Nothing was asked: calls for other guests hang, and hold all places of the lane."""


async def _place(calls: _Calls, what: str, end_s: float) -> None:
    """Wait for room on a lane."""
    try:
        async with asyncio.timeout(max(end_s - time.monotonic(), 0)):
            await calls.places.acquire()
    except TimeoutError:
        raise NoRoomError(
            Fault.HUNG,
            f"{what}: {len(calls.hung)} earlier calls to libvirt have not come back",
            "libvirt or several guests' QEMU hang; look into libvirt's log",
            tuple(f"not come back: {each}" for each in calls.hung.values()),
        ) from None
