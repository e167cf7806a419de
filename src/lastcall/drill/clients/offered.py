"""What a server speaks besides HTTP/1.1, asked before anything is counted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lastcall.drill.clients.follow import follow
from lastcall.drill.clients.http2 import Session
from lastcall.drill.clients.make import WEBSOCKETS
from lastcall.drill.clients.websocket import SWITCHED, Socket, part
from lastcall.drill.clients.wire import Wire
from lastcall.drill.history import Kind
from lastcall.drill.trail import Trail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lastcall.drill.place import Place
    from lastcall.drill.scenario import State


async def offered(place: Place, states: Sequence[State], limit_s: float) -> frozenset[Kind]:
    """Which of these states of WebSocket and HTTP/2 a server that is ready can be brought into.

    Each is tried on a connection of its own that is thrown away. HTTP/2 is asked for by ALPN where
    there is TLS, and without asking where there is none (RFC 9113, section 3.3).

    Args:
        place: where the server is.
        states: those to be tried; others are passed over.
        limit_s: how long each try may take, in seconds.
    """
    asked = [s for s in states if s.kind is Kind.HTTP2_STREAM or s.kind in WEBSOCKETS]
    said = await asyncio.gather(*(_speaks(place, state, limit_s) for state in asked))
    return frozenset(state.kind for state, yes in zip(asked, said, strict=True) if yes)


async def _speaks(place: Place, state: State, limit_s: float) -> bool:
    trail = Trail(0, state.kind, f"offered-{state.kind.key}")
    heard = False

    async def walk(wire: Wire) -> None:
        nonlocal heard
        if state.kind is Kind.HTTP2_STREAM:
            session = Session(wire)
            await session.start()
            heard = True
            await session.leave()
            return
        socket = Socket(wire)
        await wire.open()
        await socket.shake(state, trail)
        heard = trail.status == SWITCHED
        await part(socket)

    await follow([trail], Wire(place, [trail]), walk, asyncio.sleep(limit_s))
    return heard
