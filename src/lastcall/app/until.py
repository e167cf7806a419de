"""Iterators that end by themselves once the application drains.

An item that was taken is never lost to a stop that comes in that moment: work begun in the loop's
body belongs to the item, and is not refused.
"""

from __future__ import annotations

from contextlib import suppress

from lastcall.app.work import _inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import (
        AsyncIterable,
        AsyncIterator,
        Awaitable,
        Callable,
        Iterable,
        Iterator,
    )
    from typing import TypeVar

    from lastcall.app.events import Happening
    from lastcall.app.work import Flight, Gate

    T = TypeVar("T")


def each(source: Iterable[T], draining: Happening) -> Iterator[T]:
    """The items of an iterable; none is begun once the event has happened."""
    if draining.is_set():
        return
    for item in source:
        token = _inside.set(True)
        try:
            yield item
        finally:
            # Iterated from several contexts, or closed from another one.
            with suppress(ValueError):
                _inside.reset(token)
        if draining.is_set():
            return


async def each_async(
    source: AsyncIterable[T] | Callable[[], Awaitable[T]], draining: Happening, gate: Gate
) -> AsyncIterator[T]:
    """The items of an async iterable; waiting for the next one ends with the event.

    The wait is cancelled then, and the source closed if it can be.
    """
    import asyncio

    draining.heed()
    iterator = _again(source) if callable(source) else aiter(source)
    ended = asyncio.ensure_future(draining.wait_async())
    try:
        while not draining.is_set():
            taken = await _taken(iterator, ended, gate)
            if taken is None:
                return
            item, flight = taken
            # It counts until the body has had its turn, and has begun work of its own.
            asyncio.get_running_loop().call_soon(flight.__exit__)
            token = _inside.set(True)
            try:
                yield item
            finally:
                with suppress(ValueError):
                    _inside.reset(token)
    finally:
        ended.cancel()
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()


async def _again(function: Callable[[], Awaitable[T]]) -> AsyncIterator[T]:
    while True:
        yield await function()


async def _taken(
    iterator: AsyncIterator[T], ended: asyncio.Future[None], gate: Gate
) -> tuple[T, Flight] | None:
    """The next item, in flight from the moment it is there; None: there is none."""
    import asyncio

    coming = asyncio.ensure_future(_next(iterator, gate))
    try:
        await asyncio.wait((coming, ended), return_when=asyncio.FIRST_COMPLETED)
    except BaseException:
        await _given_up(coming)
        _drop(coming)
        raise
    await _given_up(coming)
    return None if coming.cancelled() else coming.result()


async def _given_up(coming: asyncio.Future[tuple[T, Flight] | None]) -> None:
    """Let nothing run in the source any more, so that it can be closed."""
    import asyncio

    if not coming.done():
        coming.cancel()
        await asyncio.wait((coming,))


def _drop(coming: asyncio.Future[tuple[T, Flight] | None]) -> None:
    """Nobody is there any more to take it."""
    if coming.cancelled() or coming.exception() is not None:
        return
    if taken := coming.result():
        taken[1].__exit__()


async def _next(iterator: AsyncIterator[T], gate: Gate) -> tuple[T, Flight] | None:
    # A task must not end with StopAsyncIteration.
    try:
        item = await anext(iterator)
    except StopAsyncIteration:
        return None
    return item, gate.enter("an item just taken", accepted=True).__enter__()
