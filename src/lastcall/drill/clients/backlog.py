"""Connections that are made in the last moment, so that nobody has accepted them at the stop."""

from __future__ import annotations

import asyncio
import errno
import socket
from time import monotonic
from typing import TYPE_CHECKING

from lastcall.drill.clients import message
from lastcall.drill.clients.answer import Answer
from lastcall.drill.clients.follow import follow
from lastcall.drill.clients.gate import Client
from lastcall.drill.clients.reach import Address, connect, is_itself, prepared
from lastcall.drill.clients.tls import Tls
from lastcall.drill.clients.wire import (
    CONNECT_S,
    Broken,
    Wire,
    addresses,
    unconnected,
    worse,
)
from lastcall.drill.history import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lastcall.drill.clients.gate import Gate
    from lastcall.drill.place import Place
    from lastcall.drill.scenario import State


class Backlog:
    """Connections, each with a whole request, that are made at once.

    A connect to this machine is complete when the call returns, even a non-blocking one: the
    kernel carries its packets within the call. Where it is not (a full backlog, another machine),
    the clients go on with it after the stop, and the attempt is not steady.

    Args:
        place: where the server is.
        state: what they carry, and how many.
        gate: the moment of the stop.
        ids: numbers for the attempts.
    """

    def __init__(self, place: Place, state: State, gate: Gate, ids: Iterator[int]) -> None:
        self._gate = gate
        self._each = [_Queued(place, state, ids) for _ in range(state.count)]
        self.clients: tuple[Client, ...] = tuple(self._client(each) for each in self._each)
        """They follow the connections once the gate is open."""

    def fill(self) -> None:
        """Make the connections and send the requests, without waiting for anything."""
        for each in self._each:
            each.go()

    def _client(self, each: _Queued) -> Client:
        async def run() -> None:
            try:
                await self._gate.after(0)
                limit = self._gate.after(self._gate.patience_s)
                await follow([each.trail], each.wire, each.walk, limit)
            finally:
                each.close()

        return Client((each.trail,), run)


class _Queued:
    """One of them."""

    def __init__(self, place: Place, state: State, ids: Iterator[int]) -> None:
        self.trail = message.trail(state.kind, ids)
        self.wire = Wire(place, [self.trail])
        said = message.message(place, message.filled(state.request, self.trail.key))
        self._method, self._whole = said.method, said.whole
        self._tls: Tls | None = None
        self._sock: socket.socket | None = None
        self._addresses: tuple[tuple[socket.AddressFamily, Address], ...] = ()
        self._address: Address = ()
        self._broken: Broken | None = None
        self._first = self._whole
        if place.tls:
            # There is no handshake without the server, so that its first bytes are all we can say.
            self._tls = Tls(place)
            self._tls.shake()
            self._first = self._tls.outgoing()
        try:
            self._addresses = addresses(place)
        except Broken as broken:
            self._broken = broken

    def go(self) -> None:
        """Connect and send, without waiting: to the first address that does not refuse."""
        self.trail.attempted = monotonic()
        for family, address in self._addresses:
            self.close()
            self._sock, self._address = None, address
            try:
                self._sock = prepared(family)
                self._connect(self._sock)
            except OSError as error:
                where = address if self._sock is not None else ()
                self._broken = worse(self._broken, unconnected(error, family, where))
            else:
                self._broken = None
                return

    def _connect(self, sock: socket.socket) -> None:
        """The first write tells whether the connection stands. Raises OSError: it does not."""
        try:
            sock.connect(self._address)
        except BlockingIOError:
            if sock.family == socket.AF_UNIX:  # its backlog is full, and it is not being connected
                return
        at = monotonic()
        try:
            sent = sock.send(self._first)
        except BlockingIOError:
            return
        except ConnectionResetError:
            self.wire.adopt(sock, "ECONNRESET")
            return
        if is_itself(sock):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nothing listens (it met itself)")
        self.wire.adopt(sock)
        self._first = self._first[sent:]
        if self._tls is None:
            self.trail.sent = at
            if not self._first:
                self.trail.sent_all = monotonic()
        self.trail.steady = not self._first

    async def walk(self, wire: Wire) -> None:
        """Follow it to its end."""
        if self.trail.attempted is None:
            raise Broken(Failure.UNREACHED, "never tried")
        if self._broken is not None:
            raise self._broken
        if self.trail.connected is None:
            await self._connected(wire)
        if self._tls is None:
            await wire.send(self._first, self.trail, last=bool(self._first))
        else:
            await wire.send(self._first)
            await wire.secure(self._tls)
            await wire.send(self._whole, self.trail, last=True)
        await Answer(wire, self.trail, self._method).whole()

    def close(self) -> None:
        """Let go of the socket."""
        if self._sock is not None:
            self._sock.close()

    async def _connected(self, wire: Wire) -> None:
        """Go on with a connect that was not complete at once."""
        assert self._sock is not None  # noqa: S101 (broken otherwise)
        try:
            async with asyncio.timeout(CONNECT_S):
                reset = await connect(self._sock, self._address)
        except TimeoutError as error:
            raise Broken(Failure.UNREACHED, f"none within {CONNECT_S:g} s") from error
        except OSError as error:
            raise unconnected(error, self._sock.family, self._address) from error
        wire.adopt(self._sock, reset)
