"""New connections at a fixed rate, whatever becomes of the ones before: an open loop."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from lastcall.drill.clients import message
from lastcall.drill.clients.answer import Answer
from lastcall.drill.clients.follow import follow
from lastcall.drill.clients.wire import Wire
from lastcall.drill.history import Kind
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from lastcall.drill.place import Place
    from lastcall.drill.scenario import Newcomers
    from lastcall.drill.trail import Trail

IN_FLIGHT = 2_000


@record
class Untried:
    """Newcomers that were due and not tried.

    Args:
        crowded: because so many before them had no end yet.
        late: because this process was not in time for them.
    """

    crowded: int = 0
    late: int = 0


async def run(
    place: Place,
    spec: Newcomers,
    trails: list[Trail],
    ids: Iterator[int],
    until: asyncio.Event,
    *,
    limit_s: float = 10.0,
    in_flight: int = IN_FLIGHT,
) -> Untried:
    """Try newcomers until told to end, and wait for those under way.

    The n-th is due n/rate after the start, so that it does not drift. One whose time has passed
    when this process gets to it is left out: a burst would measure us and not the server.

    Args:
        place: where the server is.
        spec: what each carries, and how many a second.
        trails: is filled with the attempts, in order.
        ids: numbers for them.
        until: no new ones once this is set.
        limit_s: how long the ones under way are waited for after that, in seconds.
        in_flight: so many at once at most: each holds a file descriptor.
    """
    ending = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()
    start, number, crowded, late = monotonic(), 0, 0, 0

    async def limit() -> None:
        await ending.wait()

    try:
        while spec.rate > 0 and not await _set_within(until, start + number / spec.rate):
            if len(tasks) >= in_flight:
                crowded += 1
            else:
                trail = message.trail(Kind.NEWCOMER, ids)
                trails.append(trail)
                task = asyncio.ensure_future(_try(place, spec, trail, limit()))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            due = max(number + 1, int((monotonic() - start) * spec.rate))
            late += due - number - 1
            number = due
        await until.wait()
        if tasks:
            await asyncio.wait(tasks, timeout=limit_s)
        ending.set()
        if tasks:
            await asyncio.wait(tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return Untried(crowded, late)


async def _try(
    place: Place, spec: Newcomers, trail: Trail, limit: Coroutine[None, None, None]
) -> None:
    request = message.filled(spec.request, trail.key)
    said = message.message(place, request, ("Connection", "close"))

    async def walk(wire: Wire) -> None:
        await wire.open()
        trail.steady = True
        if spec.think_s <= 0 or not await wire.stirred(asyncio.sleep(spec.think_s)):
            await wire.send(said.whole, trail, last=True)
        await Answer(wire, trail, said.method).whole()

    await follow([trail], Wire(place, [trail]), walk, limit)


async def _set_within(event: asyncio.Event, due: float) -> bool:
    """Whether it is set before this time of `time.monotonic`."""
    if (wait_s := due - monotonic()) > 0 and not event.is_set():
        try:
            async with asyncio.timeout(wait_s):
                await event.wait()
        except TimeoutError:
            pass
    return event.is_set()
