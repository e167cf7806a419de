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
- The service manager (systemd, `Type=notify`) hears READY=1 when `on_startup` is done and all
  addresses listen.

Source: aiohttp/web.py (run_app), web_runner.py, web_protocol.py, web_ws.py (3.14).
"""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from lastcall.app.http.serving import Serving
from lastcall.app.lifecycle import Lifecycle
from lastcall.app.servers.extra import needs
from lastcall.app.servers.hosting import around, in_loop, let_nobody_in, rest
from lastcall.app.work import Flight

with needs("aiohttp"):
    from aiohttp import web
from aiohttp.log import access_logger

from lastcall.app.servers.aiohttp_sockets import WebSockets

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Iterable
    from os import PathLike

    Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
    Made = web.Application | Awaitable[web.Application]
    Sites = Callable[[web.AppRunner], list[web.BaseSite]]

# aiohttp takes 0 for "no limit".
_NOTHING_LEFT_S = 0.01
_KEEPALIVE_S = 75.0  # of `run_app`; what is below it has another default
_TLS_AND_QUEUE = frozenset({"ssl_context", "backlog"})
_REUSE = frozenset({"reuse_address", "reuse_port"})
_THE_LIFECYCLES = frozenset({"shutdown_timeout", "handle_signals"})


class Request(Flight):
    """One request in flight."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """Such as `GET /orders/17`."""
        request: Any = self._name
        return f"{request.method} {request.path}"


def serve(  # noqa: PLR0913 (all by name)
    app: Made,
    *,
    lifecycle: Lifecycle | None = None,
    host: str | Iterable[str] | None = None,
    port: int | None = None,
    path: str | PathLike[str] | Iterable[str | PathLike[str]] | None = None,
    sock: socket.socket | Iterable[socket.socket] | None = None,
    print: Callable[..., object] | None = print,  # noqa: A002 (as `web.run_app`)
    access_log: logging.Logger | None = access_logger,
    loop: asyncio.AbstractEventLoop | None = None,
    **settings: Any,  # noqa: ANN401 (aiohttp's own)
) -> None:
    """Serve an application until the process is to end. The settings are those of `web.run_app`.

    Args:
        app: the application, or a coroutine that makes it.
        lifecycle: of this process; None: the current one. It may be entered already.
        host: one or several; None: all addresses.
        port: None: 8080, with TLS 8443.
        path: of Unix sockets, one or several; None: none.
        sock: sockets that are bound already, one or several; None: none.
        print: says where it runs; None: nothing.
        access_log: None: no such log.
        loop: None: a new one.
        settings: `keepalive_timeout`, `ssl_context`, `backlog`, ... `shutdown_timeout` and
            `handle_signals` are without effect: limits and signals are the lifecycle's.

    Raises:
        SystemExit: the process is to end.
        OSError: the address is taken.
    """
    lifecycle = lifecycle or Lifecycle.current()
    loop = loop or asyncio.new_event_loop()
    _show_access(loop, access_log)
    sites = partial(_sites, host=host, port=port, path=path, sock=sock, settings=settings)
    server = _Server(lifecycle, {"access_log": access_log, **_of_runner(settings)}, print)
    ours = not lifecycle.house.main.inside
    with around(lifecycle):
        _run(loop, server.run(app, sites, ours=ours), lifecycle)


def _of_runner(settings: dict[str, Any]) -> dict[str, Any]:
    others = settings.keys() - _TLS_AND_QUEUE - _REUSE - _THE_LIFECYCLES
    return {"keepalive_timeout": _KEEPALIVE_S, **{name: settings[name] for name in others}}


def _sites(
    runner: web.AppRunner,
    *,
    host: Any,  # noqa: ANN401 (one or several)
    port: int | None,
    path: Any,  # noqa: ANN401 (one or several)
    sock: Any,  # noqa: ANN401 (one or several)
    settings: dict[str, Any],
) -> list[web.BaseSite]:
    """Where it is to listen, in the same order and with the same defaults as `run_app`."""
    common = {name: settings[name] for name in settings.keys() & _TLS_AND_QUEUE}
    reuse = {name: settings[name] for name in settings.keys() & _REUSE}
    everywhere = host is None and ((path is None and sock is None) or port is not None)
    return [
        *(
            web.TCPSite(runner, one, port, **common, **reuse)
            for one in ([None] if everywhere else _each(host))
        ),
        *(web.UnixSite(runner, one, **common) for one in _each(path)),
        *(web.SockSite(runner, one, **common) for one in _each(sock)),
    ]


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

    async def run(self, app: Made, sites: Sites, *, ours: bool) -> None:
        """Serve until the end.

        Args:
            app: see `serve`.
            sites: makes the sites.
            ours: whether nobody but us waits for the lifecycle's end.
        """
        lifecycle, loop = self._lifecycle, asyncio.get_running_loop()
        lifecycle.attach(loop)
        serving = Serving(
            lifecycle,
            stop=lambda: in_loop(loop, self._stop),
            stop_accepting=lambda: let_nobody_in(loop, self._listening),
        )
        forget = self._sockets.drain_with(loop)
        try:
            self._starting = loop.create_task(self._start(app, sites))
            # Stopped while it starts: that is cancelled, as by aiohttp itself.
            with suppress(asyncio.CancelledError):
                await self._starting
                self._starting = None
                lifecycle.notify_ready()
                await self._end.wait()
        finally:
            if self._runner is not None:
                await self._runner.cleanup()
            forget()
            serving.forget()
        if ours:
            await rest(lifecycle)

    async def _start(self, app: Made, sites: Sites) -> None:
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

    def _listening(self) -> list[asyncio.Server]:
        sites = () if self._runner is None else self._runner.sites
        servers: list[Any] = [site._server for site in sites]  # noqa: SLF001 (sites do not show it)
        return [server for server in servers if server is not None]


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
