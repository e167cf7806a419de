"""aiohttp's own server, so that it ends well.

    python -m lastcall.app.servers.aiohttp -H 127.0.0.1 -P 8080 shop:make_app

in place of `python -m aiohttp.web`; or from code, in place of `web.run_app(app)`:

    from lastcall.app.servers.aiohttp import serve

    serve(app, port=8080)

What holds beyond the common order (see `Serving`):

- aiohttp discards whatever arrives once its own shutdown has begun, and waits for its
  `shutdown_timeout` twice: it is told last, and what is left then is cut off at once. The limits
  are the lifecycle's.
- WebSockets are closed with 1012 as soon as the handler waits for a message that is not there; one
  that it works on is answered first. A handler that only sends has to look at `draining`.
- `on_shutdown`, `on_cleanup` and `cleanup_ctx` run after the drain and before the lifecycle's phase
  `work`. The event loop runs until the lifecycle's last phase is over.

Source: aiohttp/web.py (run_app), web_runner.py, web_protocol.py, web_ws.py (3.14).
"""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from lastcall.app.http.serving import Serving
from lastcall.app.lifecycle import Lifecycle
from lastcall.app.work import Flight
from lastcall.errors import MissingExtra

try:
    from aiohttp import web
    from aiohttp.log import access_logger
    from aiohttp.web_log import AccessLogger
except ModuleNotFoundError as _error:
    raise MissingExtra("this needs aiohttp", "pip install aiohttp, then try again") from _error

from lastcall.app.servers.aiohttp_sockets import WebSockets

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Awaitable, Callable, Iterable
    from os import PathLike

    from aiohttp.abc import AbstractAccessLogger

    Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

# aiohttp takes 0 for "no limit".
_NOTHING_LEFT_S = 0.01


class Request(Flight):
    """One request in flight."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """Such as `GET /orders/17`."""
        request: Any = self._name
        return f"{request.method} {request.path}"


def serve(  # noqa: PLR0913 (as `web.run_app`, all by name)
    app: web.Application | Awaitable[web.Application],
    *,
    lifecycle: Lifecycle | None = None,
    host: str | Iterable[str] | None = None,
    port: int | None = None,
    path: str | PathLike[str] | Iterable[str | PathLike[str]] | None = None,
    sock: socket.socket | Iterable[socket.socket] | None = None,
    keepalive_timeout: float = 75.0,
    ssl_context: ssl.SSLContext | None = None,
    print: Callable[..., object] | None = print,  # noqa: A002 (the same name)
    backlog: int = 128,
    access_log_class: type[AbstractAccessLogger] = AccessLogger,
    access_log_format: str = AccessLogger.LOG_FORMAT,
    access_log: logging.Logger | None = access_logger,
    reuse_address: bool | None = None,
    reuse_port: bool | None = None,
    handler_cancellation: bool = False,
    loop: asyncio.AbstractEventLoop | None = None,
    shutdown_timeout: float | None = None,
    handle_signals: bool = False,
    **more: Any,  # noqa: ANN401 (the same)
) -> None:
    """Serve an application until the process is to end. The settings are those of `web.run_app`.

    Args:
        app: the application, or a coroutine that makes it.
        lifecycle: of this process; None: the current one. It may be entered already.
        host: one or several; None: all addresses.
        port: None: 8080, with TLS 8443.
        path: of Unix sockets, one or several; None: none.
        sock: sockets that are bound already, one or several; None: none.
        keepalive_timeout: how long an idle connection is kept, in seconds.
        ssl_context: None: no TLS.
        print: says where it runs; None: nothing.
        backlog: how many connections may wait to be accepted.
        access_log_class: as in aiohttp.
        access_log_format: as in aiohttp.
        access_log: None: no such log.
        reuse_address: as in aiohttp.
        reuse_port: as in aiohttp.
        handler_cancellation: whether a handler is cancelled when its client leaves.
        loop: None: a new one.
        shutdown_timeout: without effect: the limits are the lifecycle's.
        handle_signals: without effect: the signals are the lifecycle's.
        more: for `web.AppRunner`.

    Raises:
        SystemExit: the process is to end.
        OSError: the address is taken.
    """
    del shutdown_timeout, handle_signals
    lifecycle = lifecycle or Lifecycle.current()
    loop = loop or asyncio.new_event_loop()
    _show_access(loop, access_log)
    server = _Server(
        lifecycle,
        dict(
            more,
            keepalive_timeout=keepalive_timeout,
            access_log_class=access_log_class,
            access_log_format=access_log_format,
            access_log=access_log,
            handler_cancellation=handler_cancellation,
        ),
        print,
    )

    def sites(runner: web.AppRunner) -> list[web.BaseSite]:
        common: dict[str, Any] = {"ssl_context": ssl_context, "backlog": backlog}
        reuse: dict[str, Any] = {"reuse_address": reuse_address, "reuse_port": reuse_port}
        hosts = [None] if host is None else _each(host)
        if host is None and not (path is None and sock is None) and port is None:
            hosts = []
        return [
            *(web.TCPSite(runner, one, port, **common, **reuse) for one in hosts),
            *(web.UnixSite(runner, one, **common) for one in _each(path)),
            *(web.SockSite(runner, one, **common) for one in _each(sock)),
        ]

    with ExitStack() as stack:
        ours = not lifecycle.house.main.inside
        if ours:
            stack.enter_context(lifecycle)
        _run(loop, server.run(app, sites, ours=ours), lifecycle)


def _each(given: Any) -> list[Any]:  # noqa: ANN401 (one or several, of several types)
    if given is None:
        return []
    several = hasattr(given, "__iter__") and not isinstance(given, str | bytes)
    return list(given) if several else [given]


def _show_access(loop: asyncio.AbstractEventLoop, log: logging.Logger | None) -> None:
    """As `run_app` does: in debug mode its own log is to be seen."""
    if loop.get_debug() and log is not None and log.name == "aiohttp.access":
        if log.level == logging.NOTSET:
            log.setLevel(logging.DEBUG)
        if not log.hasHandlers():
            log.addHandler(logging.StreamHandler())


def _run(loop: asyncio.AbstractEventLoop, main: Any, lifecycle: Lifecycle) -> None:  # noqa: ANN401 (a coroutine)
    task = loop.create_task(main)
    asyncio.set_event_loop(loop)
    try:
        while not task.done():
            try:
                loop.run_until_complete(task)
            except (web.GracefulExit, KeyboardInterrupt):
                # A handler raised it to end the server: it comes right through the loop.
                lifecycle.request_stop("web.GracefulExit")
        with suppress(web.GracefulExit):
            task.result()
    finally:
        left = asyncio.all_tasks(loop)
        for one in left:
            one.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


class _Server:
    """One run of a server.

    Args:
        lifecycle: of this process.
        settings: for `web.AppRunner`.
        say: tells where it runs; None: nothing.
    """

    def __init__(
        self, lifecycle: Lifecycle, settings: dict[str, Any], say: Callable[..., object] | None
    ) -> None:
        self._lifecycle = lifecycle
        self._settings = settings
        self._say = say
        self._sockets = WebSockets(lifecycle)
        self._end = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._starting: asyncio.Task[None] | None = None

    async def run(
        self,
        app: web.Application | Awaitable[web.Application],
        sites: Callable[[web.AppRunner], list[web.BaseSite]],
        *,
        ours: bool,
    ) -> None:
        """Serve until the end.

        Args:
            app: see `serve`.
            sites: makes the sites.
            ours: whether nobody but us waits for the lifecycle's end.
        """
        lifecycle, loop = self._lifecycle, asyncio.get_running_loop()
        lifecycle.house.loop = loop
        lifecycle.install()
        serving = Serving(
            lifecycle,
            stop=lambda: loop.call_soon_threadsafe(self._stop),
            stop_accepting=lambda: self._stop_accepting(loop),
        )
        forget = self._sockets.drain_with(loop)
        try:
            self._starting = loop.create_task(self._start(app, sites))
            # Stopped while it starts: that is cancelled, as by aiohttp itself.
            with suppress(asyncio.CancelledError):
                await self._starting
                self._starting = None
                await self._end.wait()
        finally:
            await self._cleanup()
            forget()
            serving.has_stopped()
            if not lifecycle.stopping:
                serving.forget()
        if ours:
            # Hooks may need this loop until the very end.
            lifecycle.house.main.back("the server ended")
            await lifecycle.ended.wait_async()

    async def _start(
        self,
        app: web.Application | Awaitable[web.Application],
        sites: Callable[[web.AppRunner], list[web.BaseSite]],
    ) -> None:
        made = app if isinstance(app, web.Application) else await app
        made.on_response_prepare.append(self._prepare)
        runner = web.AppRunner(
            made, handle_signals=False, shutdown_timeout=_NOTHING_LEFT_S, **self._settings
        )
        await runner.setup()
        self._runner = runner
        self._count(runner)
        for site in sites(runner):
            await site.start()
        if self._say is not None:
            names = ", ".join(sorted(str(site.name) for site in runner.sites))
            self._say(f"======== Running on {names} ========\n(Press CTRL+C to quit)")

    def _count(self, runner: web.AppRunner) -> None:
        """Count requests from the call of their handler until their answer is written.

        Each is handled in a task of its own (aiohttp#3406), which writes the answer, too.
        """
        server = runner.server
        assert server is not None  # noqa: S101 (it has been set up)
        handler, gate = server.request_handler, self._lifecycle.house.gate

        async def counted(request: web.BaseRequest) -> web.StreamResponse:
            flight = Request(gate, request, accepted=True).__enter__()
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 (a coroutine runs in one)
            task.add_done_callback(lambda _: flight.__exit__())
            return await handler(request)

        server.request_handler = counted

    async def _prepare(self, request: web.Request, answer: web.StreamResponse) -> None:
        """An answer begins: the connection ends behind it, if no other request waits there."""
        if isinstance(answer, web.WebSocketResponse):
            self._sockets.add(answer)
        elif self._lifecycle.announced.is_set() and not getattr(request.protocol, "_messages", ()):
            # The header has been decided on before this signal is sent (web_response.py, _start).
            answer.force_close()
            answer.headers["Connection"] = "close"

    # -- the end

    def _stop(self) -> None:
        self._end.set()
        if self._starting is not None:
            self._starting.cancel()

    def _stop_accepting(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a hook's thread."""
        asyncio.run_coroutine_threadsafe(self._close_sites(), loop).result(1.0)

    async def _close_sites(self) -> None:
        if self._runner is not None:
            for site in self._runner.sites:
                await site.stop()

    async def _cleanup(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()


def main(argv: list[str] | None = None) -> None:
    """The command line of `python -m aiohttp.web`, with `serve` in it.

    Args:
        argv: the words behind the command; None: those of this process.
    """
    # It calls the `run_app` of its own module, and has no setting for it (aiohttp/web.py, 3.14).
    web.run_app = serve
    web.main(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    main()
