"""ASGI middleware: counts requests, ends connections in order, closes WebSockets, tells readiness.

    app = lifecycle.asgi(app, ready="/readyz", live="/livez")

It works under any ASGI server, also one that knows nothing of it: then it takes the signals when
the application starts, and passes them on to the server once nothing is left to lose.

Source: ASGI specification 3.0, HTTP, WebSocket and lifespan; RFC 9112, 9.6; RFC 6455, 7.4.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from itertools import count
from time import monotonic

from lastcall.app.http import health
from lastcall.app.http.serving import serving_of
from lastcall.app.voice import WARNING, voice
from lastcall.app.work import Request, _inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from typing import Any, TypeAlias

    from lastcall.app.http.serving import Serving
    from lastcall.app.lifecycle import Lifecycle
    from lastcall.app.work import Gate

    Message: TypeAlias = MutableMapping[str, Any]
    Receive: TypeAlias = Callable[[], Awaitable[Message]]
    Send: TypeAlias = Callable[[Message], Awaitable[None]]
    App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

_mark = count(2).__next__  # not 0 or 1, which are False and True
_CLOSE = (b"connection", b"close")
GOING_AWAY, SERVICE_RESTART = 1001, 1012
# A message that came before the end was announced is read before the WebSocket is closed.
_AT_HAND_S = 0.05


class Middleware:
    """See `Lifecycle.asgi`.

    Args:
        app: the application.
        lifecycle: of this process.
        ready: a path that answers whether new work is welcome: 200 or 503; empty: none.
        live: a path that answers 200 as long as the process runs; empty: none.
        close_code: what WebSockets are closed with.
        guest: whether the server knows nothing of us.
        closing: whether answers that begin once the end is announced say `Connection: close`; not
            if the server itself says it.
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
        closing: bool = True,
    ) -> None:
        self.lifecycle = lifecycle
        self._app = app
        self._gate: Gate = lifecycle.house.gate
        self._health = health.paths(ready, live)
        self._close_code = close_code
        self._guest = guest
        self.closing = closing
        self._arrived = False  # on the server's loop
        self._plain = False  # nothing but requests in flight is to be kept
        self._soon = False  # the end was announced
        self._requests: dict[int, tuple[Message, float, Any]] = {}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass on one request, one WebSocket, or the server's own start and end."""
        if not self._plain or scope["type"] != "http":
            await self._pass(scope, receive, send)
            return
        # This is what each request costs: no call that is not needed.
        if self.closing:
            send = partial(send)
            if self._soon:
                self._exchange(scope, send)
        # Timers made meanwhile may keep the mark in memory: it is but a number.
        mark = _mark()
        self._requests[mark] = scope, monotonic(), send
        token = _inside.set(mark)
        try:
            await self._app(scope, receive, send)
        finally:
            del self._requests[mark]
            _inside.reset(token)
            if self._gate.closed:
                self._gate.left()

    async def _pass(self, scope: Message, receive: Receive, send: Send) -> None:
        """The same for whatever needs more than that."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._live(scope, receive, send)
            return
        if not self._arrived:
            self._arrive()
        if kind == "http" and self._health.get(scope["path"]):
            await self._tell_health(self._health[scope["path"]], send)
        elif kind == "http":
            with Request(self._gate, scope, accepted=True):
                await self._app(scope, receive, self._sending(scope, send))
        elif kind == "websocket":
            with Request(self._gate, scope, accepted=True):
                await self._serve(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one WebSocket."""
        socket = WebSocket(self.lifecycle, receive, send, self._close_code)
        await socket.serve(self._app, scope)

    def _sending(self, scope: Message, send: Send) -> Send:
        if not self.closing:
            return send

        def sending(message: Message) -> Awaitable[None]:
            return send(self._end(scope, message) if self._soon else message)

        return sending

    def _hear(self) -> None:
        """Called in the coordinator's thread."""
        loop = self.lifecycle.house.loop
        with suppress(RuntimeError):  # it is closed
            if loop is not None:
                loop.call_soon_threadsafe(self._announce)

    def _announce(self) -> None:
        """The end is announced: answers say so from now on."""
        self._soon = True
        if self.closing:
            for scope, _, send in list(self._requests.values()):
                self._exchange(scope, send)

    def _exchange(self, scope: Message, send: partial[Awaitable[None]]) -> None:
        """Have what a request sends pass by us from now on.

        Of the callables that cost next to nothing, `partial` is the one whose function can be
        exchanged while somebody has it.
        """

        def sending(message: Message) -> Awaitable[None]:
            return straight(self._end(scope, message))

        # A server's own `send` may be a partial, too: they are made into one.
        straight = partial(send.func, *send.args, **send.keywords)
        send.__setstate__((sending, (), {}, None))  # type: ignore[attr-defined]

    def _end(self, scope: Message, message: Message) -> Message:
        """The same, with `Connection: close` if an answer begins with it."""
        if (
            message["type"] != "http.response.start"
            or scope.get("http_version", "1.1") >= "2"
            or not self.lifecycle.announced.is_set()  # it was called off
        ):
            return message
        headers = [h for h in message.get("headers", ()) if h[0].lower() != b"connection"]
        return {**message, "headers": [*headers, _CLOSE]}

    async def _tell_health(self, name: str, send: Send) -> None:
        good, body = health.answer(self.lifecycle, name)
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
        headers += [] if good else [(b"retry-after", b"1")]
        status = 200 if good else 503
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _arrive(self) -> Serving | None:
        """Called on the server's loop for the first time: a guest takes the signals now.

        Returns:
            The server that knows nothing of us; None: it does know.
        """
        lifecycle, house = self.lifecycle, self.lifecycle.house
        self._arrived = True
        house.loop = asyncio.get_running_loop()
        guest = self._guest and not house.main.inside
        if self._guest and not guest and not house.web:
            voice.say(
                WARNING,
                "a web server that knows nothing of the Lifecycle runs inside its `with`: both "
                "will take the signals. Leave the `with` away, or use lastcall.app.servers",
            )
        if guest and lifecycle.state == "ended":
            house.revive()  # a test client starts and ends the application again and again
        if guest:
            house.guest = True
            lifecycle.install()
        self._soon = False
        lifecycle.announced.add_callback(self._hear)
        if isinstance(self._gate.requests, dict):
            self._requests = self._gate.requests
        self._plain = not self._health and self._gate.ledger is None
        if not guest:
            return None
        serving = serving_of(lifecycle)
        # Until it proves to have a lifespan: nothing else can hold its end back.
        serving.late = True
        return serving

    async def _live(self, scope: Message, receive: Receive, send: Send) -> None:
        """The server's start and end: the end of one that knows nothing of us is held back."""
        serving = self._arrive()
        if serving is None:
            await self._app(scope, receive, send)
        else:
            await Lifespan(self.lifecycle, serving, receive, send).run(self._app, scope)


class Lifespan:
    """The start and the end of a server that knows nothing of us.

    Args:
        lifecycle: of this process.
        serving: the server.
        receive: of the server.
        send: of the server.
    """

    def __init__(
        self, lifecycle: Lifecycle, serving: Serving, receive: Receive, send: Send
    ) -> None:
        self._lifecycle = lifecycle
        self._serving = serving
        self._receive = receive
        self._send = send
        self._ending = False

    async def run(self, app: App, scope: Message) -> None:
        """Run the application's part, and hold the server's end back until all phases are over."""
        try:
            await app(scope, self._receiving, self._sending)
        finally:
            if self._ending:
                await self._hold()
            # Otherwise it has no lifespan, or it is over already.
            self._serving.late = True
            self._serving.look()

    async def _receiving(self) -> Message:
        message = await self._receive()
        if message["type"] == "lifespan.shutdown":
            self._ending = True
            self._serving.told.set()
            self._end()
            self._lifecycle.listen(self._hear)
        return message

    def _hear(self, what: str, _: object) -> None:
        if what == "called-off":
            self._end()

    def _end(self) -> None:
        """The server ends, whoever wanted that: nobody can object any more."""
        if not self._lifecycle.stopping:
            self._lifecycle.request_stop("the server ends")

    async def _sending(self, message: Message) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            self._serving.late = False
        elif kind.startswith("lifespan.shutdown."):
            await self._hold()
        await self._send(message)

    async def _hold(self) -> None:
        self._serving.has_stopped()
        await self._lifecycle.ended.wait_async()


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
