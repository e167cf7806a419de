"""The moment of the stop, as the clients of a drill wait for it."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lastcall.drill.trail import Trail


class Gate:
    """Opens once, when the stop was sent.

    Args:
        patience_s: how long after the stop a client waits for anything, in seconds.
    """

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self.stopped_at: float | None = None
        self._opened = asyncio.Event()

    def open(self, at: float) -> None:
        """The stop was sent, at this time of `time.monotonic`."""
        self.stopped_at = at
        self._opened.set()

    async def after(self, offset_s: float) -> None:
        """Wait until so many seconds after the stop."""
        await self._opened.wait()
        assert self.stopped_at is not None  # noqa: S101 (open() sets it first)
        await asyncio.sleep(max(0.0, self.stopped_at + offset_s - monotonic()))


@record
class Client:
    """One connection of a drill, with the attempts that it carries.

    Args:
        trails: its attempts.
        run: brings the connection into its state, waits for the stop, and follows every attempt
            to its end. It writes what happens into the trails and raises nothing but
            CancelledError, at which it closes its connection.
    """

    trails: tuple[Trail, ...]
    run: Callable[[], Awaitable[None]]
