"""Every way a connection can end lands in its trails, and never in the face of the experiment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lastcall.drill.clients.gate import Client
from lastcall.drill.clients.wire import Broken, Wire
from lastcall.drill.history import Failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from lastcall.drill.clients.gate import Gate
    from lastcall.drill.place import Place
    from lastcall.drill.trail import Trail

_ENDS = {Failure.CLOSED, Failure.RESET}


def client(
    place: Place, trails: Sequence[Trail], gate: Gate, walk: Callable[[Wire], Awaitable[None]]
) -> Client:
    """A client that goes this way over a connection of its own.

    Args:
        place: where the server is.
        trails: its attempts.
        gate: the moment of the stop, and for how long after it anything is waited for.
        walk: what is done on the connection, from connecting to the end; it may raise anything.
    """

    async def run() -> None:
        await follow(trails, Wire(place, trails), walk, gate.after(gate.patience_s))

    return Client(tuple(trails), run)


async def follow(
    trails: Sequence[Trail],
    wire: Wire,
    walk: Callable[[Wire], Awaitable[None]],
    limit: Coroutine[None, None, None],
) -> None:
    """Go this way to its end, or to its limit; the connection is closed in any case.

    Args:
        trails: the attempts on this connection.
        wire: the connection, open or not yet.
        walk: what is done on it.
        limit: returns when nothing is waited for any more.
    """
    walking = asyncio.ensure_future(_walk(trails, wire, walk))
    limiting = asyncio.ensure_future(limit)
    try:
        await asyncio.wait({walking, limiting}, return_when=asyncio.FIRST_COMPLETED)
        if not walking.done():
            for trail in trails:
                trail.fail(Failure.HUNG, _so_far(trail, wire))
    finally:
        walking.cancel()
        limiting.cancel()
        try:
            await asyncio.gather(walking, limiting, return_exceptions=True)
        finally:
            wire.close()


async def _walk(
    trails: Sequence[Trail], wire: Wire, walk: Callable[[Wire], Awaitable[None]]
) -> None:
    try:
        await walk(wire)
    except Broken as broken:
        for trail in trails:
            break_off(trail, broken, wire.answered)
    except Exception as error:  # noqa: BLE001 (a parser's bug is no reason to lose the drill)
        for trail in trails:
            trail.fail(Failure.GARBAGE, f"{type(error).__name__}: {error}")
    for trail in trails:
        trail.fail(Failure.CLOSED, "its client left it")  # only where a walk forgot one


def break_off(trail: Trail, broken: Broken, answered: int) -> None:
    """An attempt ends with its connection.

    Args:
        trail: the attempt; nothing happens to one that is over.
        broken: how the connection ended.
        answered: how many bytes of an answer had come.
    """
    if trail.first_byte is not None and broken.failure in _ENDS:
        how = f"{broken.failure} after {answered} bytes of the answer"
        trail.fail(Failure.TRUNCATED, f"{how}: {broken.note}" if broken.note else how)
    else:
        trail.fail(broken.failure, broken.note or trail.note)


def _so_far(trail: Trail, wire: Wire) -> str:
    if trail.first_byte is None:
        return trail.note
    return f"{wire.answered} bytes of the answer had come"
