"""hypercorn, drained: `serve`, and `python -m lastcall.app.servers.hypercorn` for `hypercorn`.

    from lastcall.app.servers.hypercorn import serve

    serve(app, bind="127.0.0.1:8000")

Its asyncio and uvloop workers are run as they are, one hypercorn function each, with a shutdown
trigger of ours that fires once nothing is left to lose. What differs from the bare server:

- `graceful_timeout` counts for nothing: the lifecycle's own limits do.
- A worker that has reached `max_requests` drains like one that is stopped.
- HUP and `--reload` start the new workers first; the old ones end once those serve.
- trio workers are refused: the lifecycle lives in asyncio. HTTP/3 is served, but not drained.
- The service manager (systemd, `Type=notify`) hears READY=1 when the lifespan has started and all
  sockets listen; with workers, of their parent, when all of them serve.

Source: hypercorn 0.18.0: run.py (run), asyncio/run.py (worker_serve, asyncio_worker),
asyncio/tcp_server.py, protocol/h11.py, protocol/h2.py, __main__.py (main).
"""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
import sys
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from importlib import import_module
from random import randint
from typing import TYPE_CHECKING

from lastcall.app.http.asgi import Middleware
from lastcall.app.http.serving import Serving
from lastcall.app.lifecycle import Lifecycle
from lastcall.app.servers.extra import needs
from lastcall.app.servers.hosting import around_here, in_loop, let_nobody_in
from lastcall.errors import BadPolicy, TooLate, Unsupported

with needs("hypercorn"):
    from hypercorn.config import Config
from hypercorn.asyncio.run import worker_serve
from hypercorn.utils import load_application, wrap_app, write_pid_file

from lastcall.app.servers.hypercorn_connections import Connections
from lastcall.app.servers.hypercorn_workers import Parent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection
    from typing import Any

    from hypercorn.config import Sockets
    from hypercorn.protocol.h2 import H2Protocol
    from hypercorn.protocol.h11 import H11Protocol
    from hypercorn.typing import AppWrapper

# Nothing is left when the server is told; a moment for transports to close, no more.
_CLOSE_S = 1.0


def serve(
    app: Any,  # noqa: ANN401 (an ASGI or WSGI application)
    config: Config | None = None,
    *,
    lifecycle: Lifecycle | None = None,
    **settings: Any,  # noqa: ANN401 (hypercorn's own)
) -> None:
    """Serve until the lifecycle ends it. Main thread only.

    Args:
        app: the application, or where it is: `module:name`, which several workers need.
        config: hypercorn's; None: its defaults.
        lifecycle: None: the process's one. It is entered, unless it is already. With several
            workers each has one of its own, and this process has none.
        settings: attributes of `hypercorn.Config`: `bind`, `workers`, `keep_alive_timeout`, ...

    Raises:
        BadPolicy: several workers, and an application or a lifecycle that they cannot have.
        OSError: the port is taken.
        SystemExit: with several workers, once they have ended.
        Unsupported: a worker class that is not there.
    """
    config = Config() if config is None else config
    for name, value in settings.items():
        setattr(config, name, value)
    if isinstance(app, str):
        config.application_path = app
    if config.workers > 1:
        if not isinstance(app, str) or lifecycle is not None:
            what = "an application by name" if lifecycle is None else "a lifecycle each"
            raise BadPolicy(f"several workers need {what}", "serve('module:app', workers=2)")
        raise SystemExit(run(config))
    if isinstance(app, str):
        app = load_application(app, config.wsgi_max_body_size)
    else:
        app = wrap_app(app, config.wsgi_max_body_size, None)
    ours = Lifecycle.current() if lifecycle is None else lifecycle
    Drained(app, config, ours, config.create_sockets()).run()


def run(config: Config) -> int:
    """What `hypercorn.run.run` does. Returns the exit code; it does not if it is to be a signal.

    Args:
        config: hypercorn's, with the application's path.
    """
    if config.pid_path is not None:
        write_pid_file(config.pid_path)
    _loop_factory(config)  # here it is refused once, not by each worker
    sockets = config.create_sockets()
    if config.workers:
        parent = Parent(config, serve_worker, sockets)
        parent.run()
        return parent.leave()
    if config.use_reloader:
        raise RuntimeError("Cannot reload without workers")
    serve_worker(config, sockets)
    return 0


def serve_worker(config: Config, sockets: Sockets, parent: Connection | None = None) -> None:
    """Serve in this process: what hypercorn's `asyncio_worker` and `uvloop_worker` do.

    Args:
        config: hypercorn's, with the application's path.
        sockets: to serve on.
        parent: whoever started this worker, and has the sockets, too; None: nobody.
    """
    app = load_application(config.application_path, config.wsgi_max_body_size)
    if parent is not None and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ours was to be left alone so far
    Drained(app, config, Lifecycle.current(), sockets, parent).run()


def _loop_factory(config: Config) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if config.worker_class == "asyncio":
        return None
    if config.worker_class == "uvloop":
        with needs("uvloop"):
            uvloop = import_module("uvloop")
        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
        return factory
    if config.worker_class == "trio":
        raise Unsupported(
            "hypercorn's trio workers cannot be drained: a lifecycle lives in asyncio",
            "use the asyncio or uvloop worker class, or hypercorn without lastcall",
        )
    raise ValueError(f"No worker of class {config.worker_class} exists")


class Drained:
    """One hypercorn server in this process, and how it comes to its end.

    Args:
        app: what hypercorn calls.
        config: hypercorn's.
        lifecycle: of this process.
        sockets: to serve on.
        parent: the process that started us, and has the sockets, too; None: nobody.
    """

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        lifecycle: Lifecycle,
        sockets: Sockets,
        parent: Connection | None = None,
    ) -> None:
        self._lifecycle = lifecycle
        self._config = config
        self._sockets = sockets
        self._parent = parent
        self._loops = _loop_factory(config)
        most = config.max_requests
        self._most = None if most is None else most + randint(0, config.max_requests_jitter)  # noqa: S311 (hypercorn's way)
        config.max_requests = None
        config.graceful_timeout = _CLOSE_S
        self._app = Application(app, lifecycle, self._count if self._most else None)
        self._servers: list[asyncio.Server] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end = asyncio.Event()

    def run(self) -> None:
        """Run it in this thread until it is told to end."""
        with asyncio.Runner(debug=self._config.debug, loop_factory=self._loops) as runner:
            runner.get_loop().set_exception_handler(_tell_fault)
            runner.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with around_here(self._lifecycle):
            await self._serve(self._loop)

    async def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        lifecycle = self._lifecycle
        self._remember_servers(loop)
        try:
            serving = Serving(
                lifecycle,
                stop=lambda: self._call(self._stop_here),
                stop_accepting=lambda: let_nobody_in(loop, lambda: self._servers),
                shared=self._parent is not None,
                kept=any(bind.startswith("fd://") for bind in self._binds()),
            )
        except TooLate:
            return  # the stop came before the start, and is over
        removes = [
            lifecycle.draining.add_callback(lambda: self._call(self._app.connections.leave)),
            lifecycle.draining.add_callback(lambda: self._tell_parent("draining")),
        ]
        try:
            await worker_serve(
                self._app, self._config, sockets=self._sockets, shutdown_trigger=self._end.wait
            )
        finally:
            for remove in removes:
                remove()
            serving.forget()

    def _binds(self) -> list[str]:
        return [*self._config.bind, *self._config.insecure_bind]

    def _remember_servers(self, loop: asyncio.AbstractEventLoop) -> None:
        """worker_serve keeps its servers to itself: they are noted as this loop makes them."""
        create = loop.create_server
        wanted = len(self._sockets.secure_sockets) + len(self._sockets.insecure_sockets)

        async def create_server(factory: Any, *given: Any, **named: Any) -> asyncio.Server:  # noqa: ANN401 (asyncio's)
            watched = partial(self._app.connections.watched, factory)
            made = await create(watched, *given, **named)
            self._servers.append(made)
            if len(self._servers) == wanted:
                self._tell_ready()
            return made

        loop.create_server = create_server  # type: ignore[assignment,method-assign]

    def _tell_ready(self) -> None:
        if self._parent is None:
            self._lifecycle.notify_ready()
        else:
            self._tell_parent("ready")

    def _tell_parent(self, word: str) -> None:
        if self._parent is not None:
            with suppress(OSError):  # it is gone
                self._parent.send(word)

    def _count(self) -> None:
        """A request has begun."""
        assert self._most is not None  # noqa: S101 (only then it is called)
        self._most -= 1
        if self._most < 0:
            self._app.counted = None
            self._lifecycle.request_stop("the worker has had its number of requests")

    # -- what the drain asks for, in its own thread

    def _call(self, function: Callable[[], object]) -> bool:
        assert self._loop is not None  # noqa: S101 (it serves)
        return in_loop(self._loop, function)

    def _stop_here(self) -> None:
        lifecycle = self._lifecycle
        if lifecycle.house.shutdown == "immediate" or lifecycle.in_flight:
            self._config.graceful_timeout = 0.0
            self._app.connections.abort()
        self._end.set()


_tools: ContextVar[tuple[Any, Any]] = ContextVar("lastcall_hypercorn_tools")


class Application:
    """What hypercorn calls: the application with our middleware around it, ASGI or WSGI.

    Args:
        app: as hypercorn has wrapped it.
        lifecycle: of this process.
        counted: called with each request; None: nobody counts.
    """

    def __init__(
        self, app: AppWrapper, lifecycle: Lifecycle, counted: Callable[[], None] | None
    ) -> None:
        self.connections: Connections = Connections(lifecycle)
        self.counted = counted
        self._announced = lifecycle.announced
        self._app = app
        self._middleware = Middleware(self._call, lifecycle, guest=False)

    async def __call__(
        self,
        scope: Any,  # noqa: ANN401 (hypercorn's types are narrower than ASGI's)
        receive: Any,  # noqa: ANN401 (the same)
        send: Any,  # noqa: ANN401 (the same)
        sync_spawn: Callable[..., Any],
        call_soon: Callable[..., Any],
    ) -> None:
        """Pass on one request, one WebSocket, or the server's own start and end."""
        _tools.set((sync_spawn, call_soon))
        if scope["type"] == "lifespan":
            await self._middleware(scope, receive, send)
            return
        if self.counted is not None:
            self.counted()
        with self.connections.note(send) as protocol:
            await self._middleware(scope, receive, self._sending(send, protocol))

    def _sending(self, send: Any, protocol: H11Protocol | H2Protocol | None) -> Any:  # noqa: ANN401 (the same)
        def sending(message: Any) -> Any:  # noqa: ANN401 (the same)
            if (
                message["type"] == "http.response.start"
                and self._announced.is_set()
                and self.connections.more_behind(protocol)
            ):
                # The middleware says `Connection: close`, and hypercorn would drop the request
                # that has come behind this one: the answer to that one says it.
                headers = [h for h in message["headers"] if h[0].lower() != b"connection"]
                message = {**message, "headers": headers}
            return send(message)

        return sending

    async def _call(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 (the same)
        await self._app(scope, receive, send, *_tools.get())


def _tell_fault(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # As hypercorn's own: a TLS handshake that fails is nobody's fault here.
    if not isinstance(context.get("exception"), ssl.SSLError):
        loop.default_exception_handler(context)


def main(words: Sequence[str] | None = None) -> int:
    """The command `hypercorn`, drained. Returns its exit code.

    Args:
        words: its arguments; None: this process's.
    """
    from hypercorn import __main__ as command

    logging.getLogger("lastcall").setLevel(logging.INFO)
    # Its command line is parsed and run by one function, which has no other place for ours.
    command.run = run  # type: ignore[attr-defined]
    try:
        return command.main(None if words is None else list(words))
    except Unsupported as refused:
        sys.stderr.write(f"{refused}\n")
        return int(refused.exit_code)


if __name__ == "__main__":
    # Workers find what they are to run by this name, not by `__main__`.
    from lastcall.app.servers.hypercorn import main as _main

    sys.exit(_main())
