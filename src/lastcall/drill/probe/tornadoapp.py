"""The probe application on Tornado's own server: `... tornadoapp PORT [lastcall]`.

Without the word it runs as Tornado's own documentation has it: no handler for any signal, so that
SIGTERM ends it on the spot. With it, `lastcall.app.servers.tornado` serves the same application.

Source: "Running and deploying" and "Asynchronous and non-blocking I/O" in Tornado's documentation.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING

from tornado import web, websocket

from lastcall.drill.probe import paths
from lastcall.drill.probe.ledger import order, pay, slow_boot

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Everything(web.RequestHandler):
    """Answers every path but the WebSocket's."""

    async def get(self) -> None:
        """Answer one request."""
        asked = _asked(self)
        if asked is None:
            self.set_status(404)
            self.write(b"no such path\n")
            return
        self.set_header("Content-Type", asked.content_type)
        pay(asked.key)
        if asked.path in paths.STREAMS:
            await self._stream(asked)
            return
        await asyncio.sleep(asked.wait_s)
        order(asked.key)
        taken = b"%d\n" % len(self.request.body)
        self.write(taken if asked.path == paths.UPLOAD else asked.text)

    async def _stream(self, asked: paths.Asked) -> None:
        if asked.length is not None:
            self.set_header("Content-Length", str(asked.length))
        await self.flush()
        for piece in asked.stream():
            await asyncio.sleep(asked.pause_s)
            self.write(piece)
            await self.flush()
        order(asked.key)
        self.write(asked.last)

    head: Callable[..., Awaitable[None] | None] = get
    post: Callable[..., Awaitable[None] | None] = get
    put: Callable[..., Awaitable[None] | None] = get

    def compute_etag(self) -> None:
        """No answer has one: it would be made of a whole answer, and turn some into a 304."""


class Echo(websocket.WebSocketHandler):
    """Sends each message back, after a while."""

    async def on_message(self, message: str | bytes) -> None:
        """Do the work of one message; the next one waits for it."""
        asked = _asked(self)
        if asked is None:
            return
        pay(asked.key)
        await asyncio.sleep(asked.wait_s)
        order(asked.key)
        with contextlib.suppress(websocket.WebSocketClosedError):
            await self.write_message(message, binary=isinstance(message, bytes))


def _asked(handler: web.RequestHandler) -> paths.Asked | None:
    """What a request asks for; None: there is no such path.

    Raises:
        HTTPError: 400, a parameter makes no sense.
    """
    try:
        return paths.understand(handler.request.path, handler.request.query)
    except paths.BadAsk as error:
        raise web.HTTPError(400, str(error)) from error


def application() -> web.Application:
    """The probe application, for any Tornado server."""
    return web.Application([(paths.WEBSOCKET, Echo), (r"/.*", Everything)])


async def _as_it_comes(port: int) -> None:
    application().listen(port, address="127.0.0.1")
    await asyncio.Event().wait()


def main() -> None:
    """Serve on the port that the command line names."""
    slow_boot()
    port = int(sys.argv[1])
    if sys.argv[2:] == ["lastcall"]:
        from lastcall.app.servers.tornado import serve

        serve(application(), port, address="127.0.0.1")
    else:
        asyncio.run(_as_it_comes(port))


if __name__ == "__main__":
    main()
