"""Iterators that end with the drain: an item that was taken is never lost to a stop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from lastcall.app.lifecycle import Lifecycle
from lastcall.errors import Draining

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


def test_the_item_in_hand_is_not_refused() -> None:
    """A stop between taking an item and beginning its work: the work is let in, and is the last."""
    lifecycle = Lifecycle(exit_with="nothing")
    done = []

    def source() -> Iterator[int]:
        yield 1
        lifecycle.house.begin_draining()
        yield 2
        raise AssertionError("the source was asked again")

    for item in lifecycle.until_draining(source()):
        with lifecycle.work(f"item {item}"):
            done.append(item)
    assert done == [1, 2]
    with pytest.raises(Draining), lifecycle.work("another"):
        pass


def test_the_item_in_hand_is_not_refused_in_a_task() -> None:
    """The same with `async for`, where the stop comes while the item is on its way."""
    lifecycle = Lifecycle(exit_with="nothing")
    done = []

    async def source() -> AsyncIterator[int]:
        yield 1
        lifecycle.house.begin_draining()
        yield 2

    async def main() -> None:
        async for item in lifecycle.until_draining_async(source()):
            async with lifecycle.work(f"item {item}"):
                await asyncio.sleep(0)
                done.append(item)
        with pytest.raises(Draining):
            async with lifecycle.work("another"):
                pass

    asyncio.run(main())
    assert done == [1, 2]
    assert lifecycle.in_flight == 0


def test_an_item_counts_from_the_moment_it_is_taken() -> None:
    """There is no gap between taking an item and its work in which nothing is in flight."""
    lifecycle = Lifecycle(exit_with="nothing")
    seen = []

    async def main() -> None:
        queue = asyncio.Queue[int]()

        async def source() -> AsyncIterator[int]:
            while True:
                yield await queue.get()

        async def look() -> None:
            while not queue.empty():  # noqa: ASYNC110 (each turn of the loop counts)
                await asyncio.sleep(0)
            while "work" not in seen:
                seen.append("work" if lifecycle.flights()[-1].name == "work" else "taken")
                await asyncio.sleep(0)
            lifecycle.house.begin_draining()

        looking = asyncio.create_task(look())
        queue.put_nowait(1)
        async for _ in lifecycle.until_draining_async(source()):
            async with lifecycle.work("work"):
                await looking

    asyncio.run(main())
    assert seen[0] == "taken"
    assert seen[-1] == "work"
    assert lifecycle.in_flight == 0


def test_waiting_for_an_item_ends_with_the_drain() -> None:
    """The wait is cancelled, the source closed, and what stays in a queue stays there."""
    lifecycle = Lifecycle(exit_with="nothing")
    closed = []

    async def main() -> int:
        queue = asyncio.Queue[int]()

        async def source() -> AsyncIterator[int]:
            try:
                while True:
                    yield await queue.get()
            finally:
                closed.append(True)

        async def consume() -> None:
            async for _ in lifecycle.until_draining_async(source()):
                raise AssertionError("nothing was there")

        consuming = asyncio.create_task(consume())
        await asyncio.sleep(0)
        lifecycle.house.begin_draining()
        await consuming
        queue.put_nowait(7)
        return queue.qsize()

    assert asyncio.run(main()) == 1
    assert closed == [True]


def test_a_cancelled_consumer_leaves_nothing_in_flight() -> None:
    """Cancelled while it waits, the consumer ends, its source is closed, and nothing counts."""
    lifecycle = Lifecycle(exit_with="nothing")
    closed = []

    async def main() -> None:
        async def source() -> AsyncIterator[int]:
            try:
                await asyncio.Event().wait()
                yield 1
            finally:
                closed.append(True)

        async def consume() -> None:
            async for _ in lifecycle.until_draining_async(source()):
                pass

        consuming = asyncio.create_task(consume())
        while len(asyncio.all_tasks()) < 4:  # noqa: ASYNC110 (until it waits; both of its waits are tasks)
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        consuming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consuming

    asyncio.run(main())
    assert closed == [True]
    assert lifecycle.in_flight == 0


def test_a_source_that_fails_is_told() -> None:
    """What the source raises comes out of the loop."""
    lifecycle = Lifecycle(exit_with="nothing")

    async def source() -> AsyncIterator[int]:
        yield 1
        raise LookupError("no more of these")

    async def main() -> None:
        async for _ in lifecycle.until_draining_async(source()):
            pass

    with pytest.raises(LookupError, match="no more of these"):
        asyncio.run(main())
    assert lifecycle.in_flight == 0
