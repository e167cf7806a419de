"""How far each request of a Tornado server has come.

Source: Tornado 6.6: http1connection.py (HTTP1Connection._read_message_inner, write_headers,
_finish_request), web.py (_HandlerDelegate), routing.py (_RoutingDelegate), websocket.py
(WebSocketProtocol13._receive_frame, close).
"""

# What decides when a connection ends, and what it has read, has no public name in Tornado.
# ruff: noqa: SLF001

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tornado import httputil

from lastcall.app.http.leftover import unread
from lastcall.app.work import _inside

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any, TypeAlias

    from tornado.http1connection import HTTP1Connection
    from tornado.websocket import WebSocketHandler

    from lastcall.app.servers.tornado import Drained
    from lastcall.app.work import Flight

    StartLine: TypeAlias = httputil.RequestStartLine | httputil.ResponseStartLine

_FINAL = 200  # what comes before is no answer yet, or a WebSocket (101)


def heard_bytes(handler: WebSocketHandler) -> int | None:
    """How much has come on a WebSocket that waits for more; None: it is busy, closing or gone."""
    socket = handler.ws_connection
    stream = getattr(socket, "stream", None)
    if socket is None or stream is None or socket.is_closing():
        return None
    # While a message is being handled nothing is read.
    if not stream.reading() or stream._read_buffer_size or unread(_number(stream)):
        return None
    return int(getattr(socket, "_wire_bytes_in", 0))


class Request:
    """One request, from its headers until its answer is sent and its handler has returned.

    Args:
        drained: whose.
        delegate: what takes it.
        connection: where its answer goes.
        line: its first line.
        continued: whether its client waits to be told to send the body.
    """

    def __init__(
        self,
        drained: Drained,
        delegate: httputil.HTTPMessageDelegate,
        connection: HTTP1Connection,
        line: StartLine,
        *,
        continued: bool,
    ) -> None:
        self.flight: Flight = drained.lifecycle.accepted(self)
        self.begun: bool = False
        self.taken_bytes = 0
        self.continued = continued
        self._drained = drained
        self._delegate = delegate
        self._connection: Any = connection
        self._line = line
        self._waits: set[asyncio.Future[Any]] = set()
        self._announced = False
        drained.requests.add(self)

    def __str__(self) -> str:
        line = self._line
        return f"{getattr(line, 'method', '?')} {getattr(line, 'path', '').partition('?')[0]}"

    def announce(self) -> None:
        """Let its answer say that the connection ends, unless it is begun already."""
        connection = self._connection
        if self._announced or connection._response_start_line is not None:
            return
        self._announced = True
        write = connection.write_headers

        def writing(line: httputil.ResponseStartLine, *rest: object) -> object:
            if line.code >= _FINAL and not self._has_next():
                self._disconnect()
            return write(line, *rest)

        connection.write_headers = writing

    def _has_next(self) -> bool:
        """Whether another request is behind it: then that one's answer is to say so."""
        connection = self._connection
        stream = connection.stream
        return bool(
            connection._read_finished and (stream._read_buffer_size or unread(_number(stream)))
        )

    def _disconnect(self) -> None:
        connection = self._connection
        connection._disconnect_on_finish = True
        headers = connection._request_headers
        if headers is not None and "Connection" in headers:
            # Of HTTP/1.0: it would be promised to be kept alive.
            connection._request_headers = headers.copy()
            del connection._request_headers["Connection"]

    def begin(self) -> None:
        """The application has it now."""
        self.begun = True
        self.flight.__enter__()
        self.last_until(self._connection._finish_future)

    def last_until(self, done: asyncio.Future[Any]) -> None:
        """It is not over before this is."""
        if done not in self._waits:
            self._waits.add(done)
            done.add_done_callback(self._one_done)

    def _one_done(self, done: asyncio.Future[Any]) -> None:
        self._waits.discard(done)
        if not self._waits:
            self.end()

    def end(self) -> None:
        """It is over, or was broken off before the application had it whole."""
        self._drained.requests.discard(self)
        if self.begun:
            self.flight.__exit__()

    def cancel(self) -> list[asyncio.Task[Any]]:
        """Cancel its handler. Returns what is left to wait for."""
        tasks = [one for one in self._waits if isinstance(one, asyncio.Task) and not one.done()]
        for task in tasks:
            task.cancel()
        return tasks

    def handler(self) -> object:
        """The handler of a `tornado.web.Application`, behind its routers; None: not yet, or no."""
        found: object = self._delegate
        while found is not None and not hasattr(found, "handler"):
            found = getattr(found, "delegate", None)
        return getattr(found, "handler", None)


class Watched(httputil.HTTPMessageDelegate):
    """Takes a request as the application's own delegate does, and tells how far it has come.

    Args:
        drained: whose.
        inner: the application's.
        connection: where the answer goes.
    """

    def __init__(
        self, drained: Drained, inner: httputil.HTTPMessageDelegate, connection: HTTP1Connection
    ) -> None:
        self._drained = drained
        self._inner = inner
        self._connection = connection
        self._request: Request | None = None

    def headers_received(
        self, start_line: StartLine, headers: httputil.HTTPHeaders
    ) -> Awaitable[None] | None:
        """Its headers are there."""
        request = self._request = Request(
            self._drained,
            self._inner,
            self._connection,
            start_line,
            continued=headers.get("Expect", "").lower() == "100-continue",
        )
        done = self._enter(request, lambda: self._inner.headers_received(start_line, headers))
        if done is not None:
            self._begin(request)  # a handler that takes the body as it comes
        return done

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """A piece of its body."""
        if self._request is not None:
            self._request.taken_bytes += len(chunk)
        return self._inner.data_received(chunk)

    def finish(self) -> None:
        """It is whole."""
        request = self._request
        if request is None:
            self._inner.finish()
            return
        if not request.begun:
            self._begin(request)
        self._enter(request, self._inner.finish)

    def on_connection_close(self) -> None:
        """It never became whole."""
        self._inner.on_connection_close()
        if self._request is not None and not self._request.begun:
            self._request.end()

    def _begin(self, request: Request) -> None:
        request.begin()
        if self._drained.lifecycle.announced.is_set():
            request.announce()

    def _enter(
        self, request: Request, call: Callable[[], Awaitable[None] | None]
    ) -> Awaitable[None] | None:
        """Call the application: the task that it makes is its handler."""
        drained = self._drained
        before, drained.entering = drained.entering, request
        token = _inside.set(request.flight)  # for that task, too
        try:
            return call()
        finally:
            _inside.reset(token)
            drained.entering = before


def _number(stream: Any) -> int:  # noqa: ANN401 (an IOStream; others have no number)
    number = stream.fileno()
    return number if isinstance(number, int) else -1
