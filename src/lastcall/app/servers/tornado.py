"""Tornado's HTTP server, drained.

    from lastcall.app.servers.tornado import serve

    serve(application, 8080, address="127.0.0.1")

Any application that Tornado serves will do: a `tornado.web.Application`, a router, a callback, or
an `HTTPServer` with settings or methods of your own. Where the program runs the event loop itself:

    async with lifecycle:
        await serve_here(application, 8080)

Tornado itself has no handler for SIGTERM. Here it is told to end when every request that was
accepted has its answer, and each handler has returned. The service manager (systemd,
`Type=notify`) hears READY=1 once it listens.

Source: Tornado 6.6, httpserver.py (start_request, close_all_connections), tcpserver.py (stop).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from lastcall.app.http.asgi import SERVICE_RESTART
from lastcall.app.http.leftover import Moving
from lastcall.app.http.serving import PATIENCE_S, Serving
from lastcall.app.lifecycle import Lifecycle
from lastcall.app.servers.extra import needs
from lastcall.app.servers.hosting import around_here, do_in, in_loop

with needs("tornado"):
    from tornado.http1connection import HTTP1Connection
from tornado.httpserver import HTTPServer
from tornado.websocket import WebSocketHandler

from lastcall.app.servers.tornado_requests import Watched, heard_bytes

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Iterable, Iterator
    from typing import Any, TypeAlias

    from tornado import httputil

    from lastcall.app.servers.tornado_requests import Request

    Served: TypeAlias = (
        HTTPServer
        | httputil.HTTPServerConnectionDelegate
        | Callable[[httputil.HTTPServerRequest], None]
    )

_CLOSE_S = 1.0
# A WebSocket is idle when nothing came for so long and no message is being handled.
_IDLE_S = 0.05
_LISTEN = frozenset({"family", "backlog", "flags", "reuse_port"})


def serve(
    served: Served,
    port: int | None = None,
    *,
    address: str | None = None,
    sockets: Iterable[socket.socket] = (),
    lifecycle: Lifecycle | None = None,
    **settings: Any,  # noqa: ANN401 (Tornado's own)
) -> None:
    """Serve on an event loop of its own until the lifecycle ends it. Main thread only.

    Args:
        served: the application, or an `HTTPServer` that does not listen yet.
        port: TCP port; None: `sockets` only.
        address: host name or IP address; None: every interface.
        sockets: that listen already, as from `tornado.netutil.bind_sockets`.
        lifecycle: None: the process's one. It is entered, unless it is already; then async hooks of
            later phases find this loop closed, and run on another.
        settings: as for `HTTPServer.listen` (`backlog`, `reuse_port`, ...) and, unless one is
            given, for `HTTPServer` (`xheaders`, `ssl_options`, `max_body_size`, ...).

    Raises:
        OSError: the port is taken.
    """
    ours = Lifecycle.current() if lifecycle is None else lifecycle

    async def here() -> None:
        server = _listening(served, port, address, sockets, settings)
        async with around_here(ours):
            await Drained(server, ours).run()

    asyncio.run(here())


async def serve_here(
    served: Served,
    port: int | None = None,
    *,
    address: str | None = None,
    sockets: Iterable[socket.socket] = (),
    lifecycle: Lifecycle | None = None,
    **settings: Any,  # noqa: ANN401 (Tornado's own)
) -> None:
    """The same on the running event loop, inside `async with lifecycle`.

    Args:
        served: as in `serve`.
        port: as in `serve`.
        address: as in `serve`.
        sockets: as in `serve`.
        lifecycle: None: the process's one.
        settings: as in `serve`.

    Raises:
        OSError: the port is taken.
    """
    server = _listening(served, port, address, sockets, settings)
    await Drained(server, Lifecycle.current() if lifecycle is None else lifecycle).run()


def _listening(
    served: Served,
    port: int | None,
    address: str | None,
    sockets: Iterable[socket.socket],
    settings: dict[str, Any],
) -> HTTPServer:
    listen = {name: value for name, value in settings.items() if name in _LISTEN}
    others = {name: value for name, value in settings.items() if name not in _LISTEN}
    if not isinstance(served, HTTPServer):
        served = HTTPServer(served, **others)
    elif others:
        raise TypeError(f"these are for HTTPServer, which is made already: {', '.join(others)}")
    given = list(sockets)
    if port is None and not given:
        raise TypeError("serve() needs a port, or sockets")
    if port is not None:
        served.listen(port, address=address, **listen)
    served.add_sockets(given)
    return served


class Drained:
    """One Tornado server, its requests, and how it comes to its end.

    Args:
        server: listens already.
        lifecycle: of this process.
    """

    def __init__(self, server: HTTPServer, lifecycle: Lifecycle) -> None:
        self.lifecycle = lifecycle
        self.requests: set[Request] = set()
        self.entering: Request | None = None  # whose handler is being started right now
        self._server = server
        self._start_request = server.start_request
        self._loop = asyncio.get_running_loop()
        self._told = asyncio.Event()
        self._moving = Moving(PATIENCE_S)
        # Of this one server: whatever class it is, what its own method makes is what we wrap.
        server.start_request = self._start  # type: ignore[method-assign]

    async def run(self) -> None:
        """Serve until it is told to end, and end."""
        lifecycle, loop = self.lifecycle, self._loop
        if loop.get_task_factory() is None:
            loop.set_task_factory(self._task)  # type: ignore[arg-type]  # (a generic protocol)
        serving = Serving(
            lifecycle,
            stop=lambda: self._in_loop(self._told.set),
            stop_accepting=lambda: do_in(self._in_loop, self._server.stop),
            pending=self._pending,
            shared=None,
        )
        watching: asyncio.Task[None] | None = None

        def drain() -> None:
            nonlocal watching
            watching = loop.create_task(self._close_websockets())

        removes = [
            lifecycle.announced.add_callback(lambda: self._in_loop(self._announce)),
            lifecycle.draining.add_callback(lambda: self._in_loop(drain)),
        ]
        try:
            lifecycle.notify_ready()
            await self._told.wait()
        finally:
            for remove in removes:
                remove()
            if watching is not None:
                watching.cancel()
            self._server.stop()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._end_all(), _CLOSE_S)
            serving.forget()

    async def _end_all(self) -> None:
        """End what is left: nothing, unless its time was over or it is to end at once."""
        await self._server.close_all_connections()
        handlers = [task for request in self.requests for task in request.cancel()]
        if handlers:
            await asyncio.wait(handlers)

    # -- requests

    def _start(
        self, server_conn: object, request_conn: httputil.HTTPConnection
    ) -> httputil.HTTPMessageDelegate:
        """Instead of `HTTPServer.start_request`."""
        inner = self._start_request(server_conn, request_conn)
        if not isinstance(request_conn, HTTP1Connection):
            return inner
        return Watched(self, inner, request_conn)

    def _task(
        self,
        loop: asyncio.AbstractEventLoop,
        coro: Coroutine[Any, Any, Any],
        **words: Any,  # noqa: ANN401 (asyncio's own)
    ) -> asyncio.Task[Any]:
        """Makes tasks: a request lasts until its handler has returned, and that is such a task."""
        task = asyncio.Task(coro, loop=loop, **words)
        if self.entering is not None:
            self.entering.last_until(task)
        return task

    # -- the drain

    def _announce(self) -> None:
        for request in self.requests:
            request.announce()

    def _pending(self) -> int:
        """Uploads that were told to go on: to the kernel they look answered."""
        return self._moving.count(
            (one, one.taken_bytes)
            for one in tuple(self.requests)
            if one.continued and not one.begun
        )

    async def _close_websockets(self) -> None:
        """Close each as soon as it is idle, also those that open during the drain."""
        before: dict[WebSocketHandler, int] = {}
        while True:
            now = {}
            for handler in self._websockets():
                heard = heard_bytes(handler)
                if heard is not None and before.get(handler) == heard:
                    handler.close(SERVICE_RESTART)
                elif heard is not None:
                    now[handler] = heard
            before = now
            await asyncio.sleep(_IDLE_S)

    def _websockets(self) -> Iterator[WebSocketHandler]:
        for request in tuple(self.requests):
            handler = request.handler()
            if isinstance(handler, WebSocketHandler):
                yield handler

    def _in_loop(self, job: Callable[[], object]) -> bool:
        return in_loop(self._loop, job)
