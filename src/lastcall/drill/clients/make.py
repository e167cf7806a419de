"""The clients of one state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.drill.clients import http1, http2, message, websocket
from lastcall.drill.clients.follow import client
from lastcall.drill.history import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lastcall.drill.clients.gate import Client, Gate
    from lastcall.drill.clients.wire import Wire
    from lastcall.drill.place import Place
    from lastcall.drill.scenario import State

WEBSOCKETS: dict[Kind, http1.Way] = {
    Kind.WEBSOCKET_IDLE: websocket.idle,
    Kind.WEBSOCKET_ECHO: websocket.echo,
}


def clients(place: Place, state: State, gate: Gate, ids: Iterator[int]) -> list[Client]:
    """The clients that bring connections into one state, and follow them.

    For `PIPELINED` each has two attempts, the first of them of the kind `IN_HANDLER`. For
    `HTTP2_STREAM` there is one client with `count` streams, and one more that is opened after the
    stop. A place without TLS has no `TLS_HALF`: none are made.

    Args:
        place: where the server is.
        state: which state, how often.
        gate: the moment of the stop.
        ids: numbers for the attempts.

    Raises:
        ValueError: the kind is none of a client that waits for the stop (`BACKLOG`, `NEWCOMER`,
            `LOAD`).
    """
    if state.kind is Kind.HTTP2_STREAM:
        return [_http2(place, state, gate, ids)] if state.count else []
    if state.kind is Kind.TLS_HALF and not place.tls:
        return []
    return [_one(place, state, gate, ids) for _ in range(state.count)]


def _one(place: Place, state: State, gate: Gate, ids: Iterator[int]) -> Client:
    if state.kind is Kind.PIPELINED:
        return _pipelined(place, state, gate, ids)
    way = WEBSOCKETS.get(state.kind) or http1.WAYS.get(state.kind)
    if way is None:
        raise ValueError(f"{state.kind.key} has clients of its own")
    trail = message.trail(state.kind, ids)
    return client(place, [trail], gate, lambda wire: way(wire, trail, state, gate))


def _pipelined(place: Place, state: State, gate: Gate, ids: Iterator[int]) -> Client:
    first, second = message.trail(Kind.IN_HANDLER, ids), message.trail(state.kind, ids)
    return client(
        place, [first, second], gate, lambda wire: http1.pipelined(wire, first, second, state)
    )


def _http2(place: Place, state: State, gate: Gate, ids: Iterator[int]) -> Client:
    trails = [message.trail(state.kind, ids) for _ in range(state.count)]
    late = message.trail(state.kind, ids)

    async def walk(wire: Wire) -> None:
        await http2.streams(wire, trails, late, state, gate)

    return client(place, [*trails, late], gate, walk)
