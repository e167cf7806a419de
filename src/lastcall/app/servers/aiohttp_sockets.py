"""aiohttp's WebSockets: closed as soon as the handler waits for a message that is not there.

Source: aiohttp/web_ws.py (3.14); RFC 6455, 5.5.1 and 7.4.
"""

from __future__ import annotations

import asyncio
import struct
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiohttp import web

from lastcall.app.servers.hosting import in_loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from lastcall.app.lifecycle import Lifecycle

SERVICE_RESTART = 1012
# A message that came before the end was announced is read before the WebSocket is closed.
_AT_HAND_S = 0.05
# How long a client may take to answer a close frame.
_ANSWER_S = 1.0
_TALK = frozenset({web.WSMsgType.TEXT, web.WSMsgType.BINARY})


class WebSockets:
    """Those of one server.

    Args:
        lifecycle: of this process.
    """

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._draining = lifecycle.draining
        self._all: weakref.WeakSet[_WebSocket] = weakref.WeakSet()

    def add(self, answer: web.WebSocketResponse) -> None:
        """One is about to be opened."""
        self._all.add(_WebSocket(answer, self._draining.is_set))

    def drain_with(self, loop: asyncio.AbstractEventLoop) -> Callable[[], object]:
        """Close them once the drain begins.

        Args:
            loop: that they live on.

        Returns:
            To be called when nothing is to be done any more.
        """

        def drain() -> None:
            for each in tuple(self._all):
                each.look()

        return self._draining.add_callback(lambda: in_loop(loop, drain))


class _WebSocket:
    """One of them; its `receive` is replaced, so that it is known who waits for a message."""

    def __init__(self, answer: web.WebSocketResponse, draining: Callable[[], bool]) -> None:
        self._answer = answer
        self._draining = draining
        self._receive = answer.receive
        self._waiting = False
        self._closed = False  # by us
        self._closing: asyncio.Task[None] | None = None
        answer.receive = self._receiving  # type: ignore[method-assign]

    async def _receiving(self, timeout: float | None = None) -> Any:  # noqa: ANN401, ASYNC109 (as aiohttp's)
        self._waiting = True
        try:
            if self._draining():
                self.look()
            while True:
                message = await self._receive(timeout)
                # What crossed our close frame cannot be answered any more: the client is told by
                # its code that it is to come again.
                if not (self._closed and message.type in _TALK):
                    return message
        finally:
            self._waiting = False

    def look(self) -> None:
        """Close it soon, if its handler waits."""
        if self._waiting and self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())

    async def _close(self) -> None:
        """Close it, unless a message is at hand: that one is answered first."""
        await asyncio.sleep(_AT_HAND_S)
        if not self._waiting:
            self._closing = None  # asked again when the handler waits again
            return
        self._closed = True
        # The client may have gone meanwhile. `close()` would end the connection at once when the
        # handler waits: the client is to answer first, which ends the handler's wait.
        with suppress(Exception):
            await self._answer.send_frame(struct.pack("!H", SERVICE_RESTART), web.WSMsgType.CLOSE)
            await asyncio.sleep(_ANSWER_S)
            if self._waiting:
                await self._answer.close(code=SERVICE_RESTART)
