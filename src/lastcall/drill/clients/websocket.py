"""The states of a WebSocket (RFC 6455)."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from wsproto import ConnectionType, WSConnection, events
from wsproto.connection import ConnectionState
from wsproto.utilities import RemoteProtocolError

from lastcall.drill.clients.message import filled
from lastcall.drill.clients.wire import Broken
from lastcall.drill.history import Failure
from lastcall.drill.scenario import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lastcall.drill.clients.gate import Gate
    from lastcall.drill.clients.wire import Wire
    from lastcall.drill.scenario import State
    from lastcall.drill.trail import Trail

SWITCHED = 101
_HEARD_BYTES = 16 * 1024 * 1024
_AFTERWARDS_S = 8.0
_GOING_AWAY_S = 2.0
_FAREWELL_S = 1.0
_NORMAL = 1000
_CLOSING = {ConnectionState.REMOTE_CLOSING, ConnectionState.CLOSED}


class Socket:
    """A WebSocket over a wire. Its methods may raise `Broken`.

    Args:
        wire: open.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._bytes = 0
        self._events: list[events.Event] = []

    async def shake(self, state: State, trail: Trail) -> None:
        """The handshake; the trail gets the status of its answer."""
        request = filled(state.request, trail.key)
        headers = [(name.encode(), value.encode()) for name, value in request.headers]
        host = self._wire.place.authority
        await self.say(events.Request(host, request.path, extra_headers=headers))
        answer = await self.hear()
        if isinstance(answer, events.RejectConnection):
            trail.status = answer.status_code
            raise Broken(Failure.TURNED_AWAY, f"no WebSocket: answered {answer.status_code}")
        if not isinstance(answer, events.AcceptConnection):
            raise Broken(Failure.GARBAGE, f"no answer to the handshake: {answer!r}")
        trail.status = SWITCHED

    async def say(
        self, event: events.Event, trail: Trail | None = None, *, last: bool = False
    ) -> None:
        """Send one event."""
        await self._wire.send(self._protocol.send(event), trail, last=last)

    async def hear(self) -> events.Event:
        """The next event; pings are answered on the way."""
        while not self._events:
            data = await self._wire.recv()
            if not data:
                raise Broken(Failure.CUT)
            self._bytes += len(data)
            if self._bytes > _HEARD_BYTES:
                raise Broken(Failure.TOO_LONG, f"more than {_HEARD_BYTES} bytes")
            try:
                self._protocol.receive_data(data)
                pongs = b"".join(self._sorted())
            except RemoteProtocolError as error:
                raise Broken(Failure.GARBAGE, f"{error}") from error
            await self._wire.send(pongs)
        return self._events.pop(0)

    def _sorted(self) -> Iterator[bytes]:
        """Keep the events that have come, and answer the pings among them before any close."""
        for event in self._protocol.events():
            if isinstance(event, events.Ping):
                yield self._protocol.send(event.response())
                continue
            if isinstance(event, events.CloseConnection) and self._protocol.state not in _CLOSING:
                # What cannot be read is told by wsproto as if the server had closed.
                raise RemoteProtocolError(event.reason or f"{event.code}")
            self._events.append(event)

    async def stirred(self, gate: Gate, offset_s: float) -> bool:
        """Wait until so long after the stop; True: before it there was something to hear."""
        return bool(self._events) or await self._wire.stirred(gate.after(offset_s))

    async def closed_by(self, event: events.CloseConnection) -> str:
        """Answer the server's close frame; what it said, for the note."""
        await self.say(event.response())
        return f"{event.code} {event.reason or ''}".strip()


async def idle(wire: Wire, trail: Trail, state: State, gate: Gate) -> None:
    """Open, and nothing is said. What counts is how it is ended: nothing is sent, so nothing lost.

    A client that is not told goes away by itself in the end, so that a server that waits for its
    clients is not blamed for having waited.
    """
    socket = Socket(wire)
    await wire.open()
    await socket.shake(state, trail)
    trail.steady = True
    # What the server does once it has left is still to be seen.
    at_most_s = max(gate.patience_s / 2, gate.patience_s - _AFTERWARDS_S)
    leaves_s = min(state.after_s + _GOING_AWAY_S, at_most_s)
    leaving = False
    while True:
        if not leaving and not await socket.stirred(gate, leaves_s):
            leaving = True
            trail.note = "after our own close frame"
            await socket.say(events.CloseConnection(_NORMAL))
        event = await socket.hear()
        if isinstance(event, events.CloseConnection):
            said = "closed by us" if leaving else await socket.closed_by(event)
            trail.fail(Failure.CLOSED, said)
            return


async def echo(wire: Wire, trail: Trail, state: State, _gate: Gate) -> None:
    """A message was sent, and is to be answered with one that holds it."""
    socket = Socket(wire)
    await wire.open()
    await socket.shake(state, trail)
    trail.status = None
    message = state.message.replace(KEY, trail.key)
    trail.attempted = monotonic()
    await socket.say(events.TextMessage(message), trail, last=True)
    trail.steady = True
    heard = ""
    while True:
        event = await socket.hear()
        if isinstance(event, events.CloseConnection):
            trail.fail(Failure.CLOSED, await socket.closed_by(event))
            return
        if isinstance(event, events.Message):
            data = event.data
            heard += data if isinstance(data, str) else bytes(data).decode(errors="replace")
            if message in heard:
                trail.first_byte = monotonic()
                trail.status = SWITCHED
                trail.done()
                await part(socket)
                return
            heard = "" if event.message_finished else heard


async def part(socket: Socket) -> None:
    """Close in order; the attempt is over, so whatever comes of it is all right."""
    try:
        async with asyncio.timeout(_FAREWELL_S):
            await socket.say(events.CloseConnection(_NORMAL))
            while not isinstance(await socket.hear(), events.CloseConnection):
                pass
    except (Broken, TimeoutError):
        pass
