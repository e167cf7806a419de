"""What a test hears of a guest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from helpers import PATIENCE_S

if TYPE_CHECKING:
    from lastcall.targets.guest.machine import Machine
    from lastcall.targets.guest.words import Happening, Kind


class Heard:
    """Everything that a machine told, in order."""

    def __init__(self, machine: Machine) -> None:
        self.all: list[Happening] = []
        self._news = asyncio.Event()
        machine.listen(self._hear)

    def _hear(self, happening: Happening) -> None:
        self.all.append(happening)
        self._news.set()

    @property
    def kinds(self) -> list[Kind]:
        """The kinds of all of it."""
        return [each.kind for each in self.all]

    async def wait(self, kind: Kind, times: int = 1) -> Happening:
        """Wait until something is told for the n-th time.

        Raises:
            AssertionError: it did not come in time.
        """
        try:
            async with asyncio.timeout(PATIENCE_S):
                while self.kinds.count(kind) < times:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"waited in vain for {kind.name}: {self.all}") from None
        return [each for each in self.all if each.kind is kind][times - 1]
