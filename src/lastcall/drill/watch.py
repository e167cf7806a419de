"""The server's side of a drill, as the kernel tells it: who was accepted, and who still listens.

A client cannot know whether its connection waits in the accept queue or was taken by a process,
and whether its bytes were read. The kernel of the same machine can. Where it does not (another
machine, another network namespace, a Unix socket), nothing is claimed.

Source: sock_diag(7); `lastcall.targets.process.tcpinfo`.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from lastcall.drill.history import Found
from lastcall.drill.result import Look
from lastcall.targets.process import tcpinfo

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from lastcall.drill.place import Place

# How often the listening sockets are looked at: nothing wakes us when one is closed.
_EVERY_S = 0.01
_MOST_LOOKS = 20_000


class Watch:
    """Looks at the listening sockets of a place, over and over.

    Args:
        place: where the server listens.
    """

    def __init__(self, place: Place) -> None:
        self._port = place.port if place.on_this_machine else 0
        self._hosts = ("127.0.0.1", "::1") if place.host == "localhost" else (place.host,)
        self._looks: list[tuple[float, int, int]] = []
        self._last: tuple[float, int, int] | None = None

    async def found(self) -> dict[int, Found]:
        """Where the server's side has each connection now, by the client's port.

        Empty when the kernel does not tell. It takes the kernel a millisecond to go through all
        its connections: in a thread, so that no client is handled late for it.
        """
        if not self._port:
            return {}
        told = await asyncio.to_thread(tcpinfo.traffic, [self._port])
        return {one.peer_port: _found(one) for one in told or ()}

    def between(self, ports: Collection[int]) -> dict[int, Found]:
        """The same for a few connections, at once: it takes the kernel microseconds for each."""
        found: dict[int, Found] = {}
        for host in self._hosts if self._port else ():
            told = tcpinfo.between(host, self._port, ports)
            found.update((port, _found(one)) for port, one in told.items())
        return found

    def look(self) -> bool:
        """Look once. Returns whether anybody listens; True when that cannot be known."""
        told = tcpinfo.listeners(self._port) if self._port else None
        if told is None:
            return True
        self._last = latest = (monotonic(), len(told), sum(told.values()))
        # What has not changed is not kept again: the times of the changes are what matters.
        new = not self._looks or self._looks[-1][1:] != latest[1:]
        if new and len(self._looks) < _MOST_LOOKS:
            self._looks.append(latest)
        return bool(told)

    async def go_on(self, closed: Callable[[float], None] = lambda _: None) -> None:
        """Look again and again, until cancelled.

        Args:
            closed: told the time when the last listening socket is found closed.
        """
        open_ = False
        while self._port:
            was, open_ = open_, self.look()
            if was and not open_:
                closed(self._looks[-1][0])
            await asyncio.sleep(_EVERY_S)

    @property
    def knows(self) -> bool:
        """Whether the kernel tells anything of this place."""
        return bool(self._looks)

    def looks(self, zero: float) -> tuple[Look, ...]:
        """What was seen: each change once, and how it was at the last look.

        Args:
            zero: the moment of the stop.
        """
        seen = list(self._looks)
        if self._last is not None and self._last != seen[-1]:
            seen.append(self._last)
        return tuple(Look(round(at - zero, 4), open_, queued) for at, open_, queued in seen)

    def closed(self, zero: float) -> float | None:
        """How long after the stop somebody last listened, in seconds; None: still at the end.

        Also None when nothing is known.
        """
        if not self._looks or self._looks[-1][1]:
            return None
        last = len(self._looks) - 1
        while last and not self._looks[last - 1][1]:
            last -= 1
        return round(self._looks[last][0] - zero, 4)


def _found(one: tcpinfo.Traffic) -> Found:
    if one.inode == 0:
        return Found.QUEUED
    return Found.UNREAD if one.unread_bytes else Found.TAKEN
