"""Turns: how many are brought down at once."""

from __future__ import annotations

import asyncio

from lastcall.stop.turns import Turns


def test_only_so_many_have_a_turn() -> None:
    """With two at once a third waits until one of them is over."""

    async def work() -> list[str]:
        turns, said, go = Turns(2), list[str](), asyncio.Event()

        async def one(name: str) -> None:
            async with turns.turn():
                said.append(name)
                await go.wait()

        tasks = [asyncio.create_task(one(name)) for name in "abc"]
        for _ in range(5):
            await asyncio.sleep(0)
        seen = list(said)
        go.set()
        await asyncio.gather(*tasks)
        assert said == ["a", "b", "c"]
        return seen

    assert asyncio.run(work()) == ["a", "b"]


def test_one_that_hangs_keeps_nobody_from_a_turn() -> None:
    """A turn is over after its share of time, though its target has not ended."""

    async def work() -> str:
        turns, second = Turns(1, share_s=0.05), asyncio.Event()

        async def hang() -> None:
            async with turns.turn():
                await second.wait()

        task = asyncio.create_task(hang())
        await asyncio.sleep(0)
        async with asyncio.timeout(20), turns.turn():
            second.set()
        await task
        # Both are over, and each gave its place back once.
        async with asyncio.timeout(20), turns.turn():
            return "free"

    assert asyncio.run(work()) == "free"
