"""What granian calls: the application, with the work in flight counted.

Its ASGI WebSockets cannot be closed while somebody waits for a message: closing waits for whoever
has the receiving half. So that wait is cancelled first (ASGIWebsocketProtocol::close).

granian's WSGI answers a list in one go, so a list stays one, and looks at the headers when the
application has returned; it may set `Connection` there, as it is the server's part. RSGI is
granian's own: https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md

Source: granian 2.8.7: wsgi.py (Response, _callback_wrapper), rsgi.py, _granian.pyi; of its core
(2.8.1) src/asgi/io.rs, src/callbacks.rs (PyFutureAwaitable: it can be cancelled), src/rsgi/io.rs.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING

from lastcall.app.http.asgi import _AT_HAND_S, SERVICE_RESTART, Middleware
from lastcall.app.http.wsgi import Answer
from lastcall.app.work import Request

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any
    from wsgiref.types import WSGIApplication, WSGIEnvironment

    from lastcall.app.http.asgi import App, Message, Receive, Send
    from lastcall.app.lifecycle import Lifecycle

_CLOSE = ("connection", "close")
_NORMAL = 1000


def _closing(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [*(each for each in headers if each[0].lower() != "connection"), _CLOSE]


class AsgiWebSocket:
    """One WebSocket, which can be closed while a message is waited for.

    Args:
        receive: granian's.
        send: granian's.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._waiting: Any = None
        self._code: int | None = None  # that it was closed with

    async def receive(self) -> Message:
        """The next message."""
        if self._code is not None:
            return {"type": "websocket.disconnect", "code": self._code}
        self._waiting = waiting = self._receive()
        try:
            return await waiting
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._code is None or (task is not None and task.cancelling()):
                raise
            return {"type": "websocket.disconnect", "code": self._code}
        finally:
            self._waiting = None

    async def send(self, message: Message) -> None:
        """Send a message, or close it."""
        if message["type"] == "websocket.close":
            self._code = message.get("code", _NORMAL)
            if hasattr(self._waiting, "cancel"):
                self._waiting.cancel()
        await self._send(message)


class Asgi(Middleware):
    """An ASGI application.

    Args:
        app: the application.
        lifecycle: of this process.
    """

    def __init__(self, app: App, lifecycle: Lifecycle) -> None:
        super().__init__(app, lifecycle, guest=False)

    async def _serve(self, scope: Message, receive: Receive, send: Send) -> None:
        socket = AsgiWebSocket(receive, send)
        await super()._serve(scope, socket.receive, socket.send)


class Wsgi:
    """A WSGI application.

    Args:
        app: the application.
        lifecycle: of this process.
    """

    def __init__(self, app: WSGIApplication, lifecycle: Lifecycle) -> None:
        self._app = app
        self._gate = lifecycle.house.gate
        self._announced = lifecycle.announced
        self._soon = False  # it was announced once; to ask that costs less
        self._announced.add_callback(self._hear)
        self._requests: dict[int, tuple[WSGIEnvironment, float]] = {}
        self._gate.requests = self._requests

    def __call__(self, environ: WSGIEnvironment, response: Any) -> Iterable[bytes]:  # noqa: ANN401 (granian's Response)
        """Pass on one request."""
        if self._gate.ledger is not None:
            return self._recorded(environ, response)
        # Each has a thread of its own (`Gate.within`), and may cost next to nothing.
        mark = get_ident()
        self._requests[mark] = environ, monotonic()
        flight = None
        try:
            answer = self._app(environ, response)
            if not isinstance(answer, list):
                flight = Request(self._gate, environ, accepted=True).__enter__()
        finally:
            del self._requests[mark]
            if self._gate.closed:
                self._gate.left()
        if self._soon:
            self._close(environ, response)
        return answer if flight is None else Answer(answer, flight.__exit__)

    def _recorded(self, environ: WSGIEnvironment, response: Any) -> Iterable[bytes]:  # noqa: ANN401 (as above)
        """The same; the record of the run hears of it before the application does."""
        flight = Request(self._gate, environ, accepted=True).__enter__()
        try:
            answer = self._app(environ, response)
        except BaseException:
            flight.__exit__()
            raise
        if self._soon:
            self._close(environ, response)
        if not isinstance(answer, list):
            return Answer(answer, flight.__exit__)
        flight.__exit__()
        return answer

    def _close(self, environ: WSGIEnvironment, response: Any) -> None:  # noqa: ANN401 (as above)
        if self._announced and environ["SERVER_PROTOCOL"].startswith("HTTP/1"):
            response.headers = _closing(response.headers)

    def _hear(self) -> None:
        self._soon = True


class Rsgi:
    """An RSGI application.

    Args:
        app: the application: a function, or an object with `__rsgi__`.
        lifecycle: of this process.
    """

    def __init__(self, app: Any, lifecycle: Lifecycle) -> None:  # noqa: ANN401 (RSGI has no types)
        self._target = app
        self._app = getattr(app, "__rsgi__", app)
        self._lifecycle = lifecycle

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        if hasattr(self._target, "__rsgi_init__"):
            self._target.__rsgi_init__(loop)

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        if hasattr(self._target, "__rsgi_del__"):
            self._target.__rsgi_del__(loop)

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:  # noqa: ANN401 (as above)
        """Pass on one request or WebSocket."""
        lifecycle = self._lifecycle
        with lifecycle.accepted(f"{scope.method} {scope.path}"):
            if scope.proto == "http":
                if scope.http_version < "2":
                    protocol = Closing(protocol, lifecycle)
                await self._app(scope, protocol)
            else:
                socket = WebSocket(protocol, lifecycle)
                remove = lifecycle.draining.add_callback(socket.drain)
                try:
                    await self._app(scope, socket)
                finally:
                    remove()


class Closing:
    """The protocol of an HTTP/1 request: answers say `Connection: close` once it is announced.

    Args:
        inner: granian's.
        lifecycle: of this process.
    """

    __slots__ = ("_announced", "_inner")

    def __init__(self, inner: Any, lifecycle: Lifecycle) -> None:  # noqa: ANN401 (granian's)
        self._inner = inner
        self._announced = lifecycle.announced

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (granian's)
        found = getattr(self._inner, name)
        if name.startswith("response_") and self._announced.is_set():
            return lambda status, headers, *rest: found(status, _closing(headers), *rest)
        return found

    def __call__(self) -> Any:  # noqa: ANN401 (granian's)
        """The whole body, as granian's."""
        return self._inner()

    def __aiter__(self) -> Any:  # noqa: ANN401 (granian's)
        return self._inner.__aiter__()


class WebSocket:
    """The protocol of a WebSocket, and its transport: closed when nobody says anything.

    Args:
        inner: granian's protocol.
        lifecycle: of this process.
    """

    def __init__(self, inner: Any, lifecycle: Lifecycle) -> None:  # noqa: ANN401 (granian's)
        self._inner = inner
        self._draining = lifecycle.draining
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._waiting = 0  # which message is waited for; 0: none
        self._count = 0

    async def accept(self) -> WebSocket:
        """As granian's."""
        self._transport = await self._inner.accept()
        return self

    def close(self, *status: Any) -> Any:  # noqa: ANN401 (granian's)
        """As granian's."""
        return self._inner.close(*status)

    async def receive(self) -> Any:  # noqa: ANN401 (granian's)
        """As granian's."""
        self._count += 1
        self._waiting = self._count
        try:
            if self._draining.is_set():
                self._close_soon()
            return await self._transport.receive()
        finally:
            self._waiting = 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (granian's)
        return getattr(self._transport, name)

    def drain(self) -> None:
        """The drain has begun; called in another thread."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._close_soon)

    def _close_soon(self) -> None:
        if self._waiting:
            self._loop.call_later(_AT_HAND_S, self._close_if_waiting, self._waiting)

    def _close_if_waiting(self, number: int) -> None:
        if self._waiting == number:
            # The client may have gone meanwhile.
            with suppress(Exception):
                self._inner.close(SERVICE_RESTART)
