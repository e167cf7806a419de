"""How many targets are brought down at once, so that each is still asked early.

A limit that waits for the end of each would let one that hangs keep all that come after it from
being asked at all: a turn is over when its target has ended, or has had its share of time.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SHARE_S = 20.0
# What is done to or asked of a target has limits in time, which are meant for the target. Were
# thousands asked at once, they would all be over before this program came round to the last one.
# Whoever takes longer than a moment does not keep the others waiting.
_MOMENT_S = 0.25
_ASKS, _LOOKS = 64, 16


class Turns:
    """See the module.

    Args:
        at_once: how many have a turn at the same time.
        share_s: after how many seconds a turn is over though its target has not ended.
    """

    def __init__(self, at_once: int, share_s: float = SHARE_S) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._share_s = share_s

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it."""
        await self._free.acquire()
        over = False

        def finish() -> None:
            nonlocal over
            if not over:
                over = True
                self._free.release()

        timer = asyncio.get_running_loop().call_later(self._share_s, finish)
        try:
            yield
        finally:
            timer.cancel()
            finish()


@dataclass(slots=True)
class Crowd:
    """How many of one command's targets are asked, and looked at, in the same moment.

    Looks are fewer: they are not to delay those that were not asked yet.
    """

    asks: Turns = field(default_factory=lambda: Turns(_ASKS, _MOMENT_S))
    looks: Turns = field(default_factory=lambda: Turns(_LOOKS, _MOMENT_S))
