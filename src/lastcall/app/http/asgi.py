"""ASGI middleware: counts requests, ends connections in order, closes WebSockets, tells readiness.

    app = lifecycle.asgi(app, ready="/readyz", live="/livez")

It works under any ASGI server, also one that knows nothing of it: then it takes the signals when
the application starts, and passes them on to the server once nothing is left to lose.

Source: ASGI specification 3.0, HTTP, WebSocket and lifespan; RFC 9112, 9.6; RFC 6455, 7.4.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import monotonic

from lastcall.app.http.serving import serving_of
from lastcall.app.work import Flight, _inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from typing import Any, TypeAlias

    from lastcall.app.lifecycle import Lifecycle
    from lastcall.app.work import Gate

    Message: TypeAlias = MutableMapping[str, Any]
    Receive: TypeAlias = Callable[[], Awaitable[Message]]
    Send: TypeAlias = Callable[[Message], Awaitable[None]]
    App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

_CLOSE = (b"connection", b"close")
GOING_AWAY, SERVICE_RESTART = 1001, 1012
# A message that came before the end was announced is read before the WebSocket is closed.
_AT_HAND_S = 0.05


class Request(Flight):
    """One request in flight."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """Such as `GET /orders/17`."""
        scope: Any = self._name
        return f"{scope.get('method', 'WebSocket')} {scope['path']}"


class Middleware:
    """See `Lifecycle.asgi`.

    Args:
        app: the application.
        lifecycle: of this process.
        ready: a path that answers whether new work is welcome: 200 or 503; empty: none.
        live: a path that answers 200 as long as the process runs; empty: none.
        close_code: what WebSockets are closed with.
        guest: whether the server knows nothing of us.
    """

    def __init__(
        self,
        app: App,
        lifecycle: Lifecycle,
        *,
        ready: str = "",
        live: str = "",
        close_code: int = SERVICE_RESTART,
        guest: bool = True,
    ) -> None:
        self._app = app
        self._lifecycle = lifecycle
        self._gate: Gate = lifecycle.house.gate
        self._announced = lifecycle.announced
        self._health = {path: name for path, name in ((ready, "ready"), (live, "live")) if path}
        self._close_code = close_code
        self._guest = guest

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass on one request, one WebSocket, or the server's own start and end."""
        kind = scope["type"]
        if kind == "http":
            if self._health and scope["path"] in self._health:
                await self._tell_health(self._health[scope["path"]], send)
                return
            gate = self._gate
            flight = Request(gate, scope, accepted=True)
            flight.since_s = monotonic()
            gate.flights[flight] = None
            slot = -1 if gate.ledger is None else gate.ledger.enter(flight.name)
            token = _inside.set(True)
            try:
                if scope.get("http_version", "1.1") < "2":
                    await self._app(scope, receive, self._closing(send))
                else:
                    await self._app(scope, receive, send)
            finally:
                del gate.flights[flight]
                if slot >= 0 and gate.ledger is not None:
                    gate.ledger.leave(slot)
                _inside.reset(token)
                if gate.closed:
                    gate.left()
        elif kind == "websocket":
            with Request(self._gate, scope, accepted=True):
                await WebSocket(self._lifecycle, receive, send, self._close_code).serve(
                    self._app, scope
                )
        elif kind == "lifespan":
            await self._live(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _closing(self, send: Send) -> Send:
        """The same, with `Connection: close` on answers that begin once the end is announced."""
        announced = self._announced

        def sending(message: Message) -> Awaitable[None]:
            if announced.is_set() and message["type"] == "http.response.start":
                headers = [h for h in message.get("headers", ()) if h[0].lower() != b"connection"]
                message = {**message, "headers": [*headers, _CLOSE]}
            return send(message)

        return sending

    async def _tell_health(self, name: str, send: Send) -> None:
        good = name == "live" or self._lifecycle.ready()
        body = (f"{name}\n" if good else "stopping\n").encode()
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
        headers += [] if good else [(b"retry-after", b"1")]
        status = 200 if good else 503
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _live(self, scope: Message, receive: Receive, send: Send) -> None:
        """The server's start and end: where a guest takes the signals, and holds the end back."""
        lifecycle = self._lifecycle
        lifecycle.house.loop = asyncio.get_running_loop()
        guest = self._guest and not lifecycle.house.main.inside
        if guest:
            lifecycle.house.guest = True
            lifecycle.install()
            serving = serving_of(lifecycle)

        async def sending(message: Message) -> None:
            if guest and message["type"].startswith("lifespan.shutdown."):
                serving.has_stopped()
                if lifecycle.stopping:
                    await lifecycle.ended.wait_async()
            await send(message)

        async def receiving() -> Message:
            message = await receive()
            if guest and message["type"] == "lifespan.shutdown" and not lifecycle.stopping:
                lifecycle.request_stop("the server ends")
            return message

        try:
            await self._app(scope, receiving, sending)
        finally:
            if guest:
                serving.has_stopped()


class WebSocket:
    """One WebSocket: closed as soon as the application waits for a message that is not there.

    Args:
        lifecycle: of this process.
        receive: of the server.
        send: of the server.
        code: what it is closed with.
    """

    def __init__(self, lifecycle: Lifecycle, receive: Receive, send: Send, code: int) -> None:
        self._lifecycle = lifecycle
        self._receive = receive
        self._send = send
        self._code = code
        self._loop = asyncio.get_running_loop()
        self._open = False
        self._waiting = False  # the application waits for a message
        self._closing: asyncio.Task[None] | None = None

    async def serve(self, app: App, scope: Message) -> None:
        """Run the application on it."""
        remove = self._lifecycle.draining.add_callback(self._drain)
        try:
            await app(scope, self._receiving, self._sending)
        finally:
            remove()
            if self._closing is not None:
                await asyncio.wait([self._closing])

    async def _receiving(self) -> Message:
        self._waiting = True
        try:
            if self._lifecycle.draining.is_set():
                self._close_soon()
            return await self._receive()
        finally:
            self._waiting = False

    async def _sending(self, message: Message) -> None:
        if message["type"] == "websocket.accept":
            await self._send(message)
            self._open = True
            return
        if message["type"] == "websocket.close":
            self._open = False
        elif self._closing is not None and not self._open:
            return  # closed by us meanwhile: nobody hears it any more
        await self._send(message)

    def _drain(self) -> None:
        """Called in the coordinator's thread."""
        try:
            self._loop.call_soon_threadsafe(self._drain_here)
        except RuntimeError:
            return

    def _drain_here(self) -> None:
        if self._waiting:
            self._close_soon()

    def _close_soon(self) -> None:
        if self._closing is None:
            self._closing = self._loop.create_task(self._close())

    async def _close(self) -> None:
        """Close it, unless a message is at hand: that one is answered first."""
        await asyncio.sleep(_AT_HAND_S)
        if not self._waiting:
            self._closing = None  # asked again when the application waits again
            return
        if self._open:
            self._open = False
            # The client may have gone meanwhile: servers say so in many ways.
            with suppress(Exception):
                await self._send({"type": "websocket.close", "code": self._code, "reason": ""})
