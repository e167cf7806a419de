"""Iterators that end by themselves once the application drains."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
    from typing import TypeVar

    from lastcall.app.events import Happening

    T = TypeVar("T")


def each(source: Iterable[T], draining: Happening) -> Iterator[T]:
    """The items of an iterable; none is begun once the event has happened."""
    if draining.is_set():
        return
    for item in source:
        yield item
        if draining.is_set():
            return


async def each_async(source: AsyncIterable[T], draining: Happening) -> AsyncIterator[T]:
    """The items of an async iterable; waiting for the next one ends with the event.

    The wait is cancelled then, and the source closed if it can be.
    """
    import asyncio

    iterator = aiter(source)
    ended = asyncio.ensure_future(draining.wait_async())
    try:
        while not draining.is_set():
            coming = asyncio.ensure_future(_next(iterator))
            try:
                await asyncio.wait((coming, ended), return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not coming.done():
                    coming.cancel()
                    await asyncio.wait((coming,))
            if coming.cancelled():
                return
            found, item = coming.result()
            if not found:
                return
            yield item  # type: ignore[misc]
    finally:
        ended.cancel()
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()


async def _next(iterator: AsyncIterator[T]) -> tuple[bool, T | None]:
    # A task must not end with StopAsyncIteration.
    try:
        return True, await anext(iterator)
    except StopAsyncIteration:
        return False, None
