"""uvicorn, drained before it is told to end.

    python -m lastcall.app.servers.uvicorn shop:app --port 8000    # uvicorn's own options

    from lastcall.app.servers.uvicorn import serve
    serve(app, port=8000)                                          # those of `uvicorn.run`

Whose work must not be lost is the same as ever: a `Lifecycle` that the application's module makes
is used, and hooks registered there count. Async hooks run on uvicorn's loop, which goes on until
the last phase is over.

With `--workers` each worker process drains by itself, see `uvicorn_workers`. With `--reload`
uvicorn's own supervisor is left as it is, and its child drains.

Source: uvicorn 0.54, server.py (`Server.serve`, `main_loop`, `on_tick`, `shutdown`), main.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any

from lastcall.app.http.asgi import Middleware
from lastcall.app.http.serving import LINGER_S, Serving
from lastcall.app.lifecycle import Lifecycle
from lastcall.app.servers.extra import needs
from lastcall.app.servers.hosting import let_nobody_in
from lastcall.app.servers.uvicorn_requests import A_REQUEST, Light, Requests
from lastcall.app.work import _inside

with needs("uvicorn"):
    import uvicorn
from uvicorn.config import STARTUP_FAILURE

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from uvicorn._types import ASGIApplication

    Application = ASGIApplication | Callable[..., Any] | str

logger: logging.Logger = logging.getLogger("uvicorn.error")
# `date` and the like are made anew once a second: each tenth tick of uvicorn's own loop.
_TICK_S, _TICKS = 1.0, 10
# What is left once the server is told is cut off; it gets so long to clean up after itself.
_CUT_S = 0.25
_LOOK_S = 0.002
_DEEP = 10
# The implementations of HTTP/1.1 that are known to end a connection whose answer says so.
_CLOSING = frozenset({"h11_impl", "httptools_impl"})
_CLOSE = (b"connection", b"close")
_NOTHING = (b"",)


class Server(uvicorn.Server):
    """A uvicorn server that drains when its lifecycle ends, and whose lifecycle ends with it.

    Args:
        config: uvicorn's.
        lifecycle: None: the process's, once the application is loaded. It is entered for as long
            as the server runs, unless it is already.
        shared: whether other processes listen on the same sockets (workers).
    """

    def __init__(
        self, config: uvicorn.Config, lifecycle: Lifecycle | None = None, *, shared: bool = False
    ) -> None:
        self.lifecycle = lifecycle
        self._shared = shared
        self._exiting = False
        self._told = False
        self._closes = False  # answers are made to end their connections here
        self._requests: Requests | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news: asyncio.Event | None = None
        super().__init__(config)

    # Whoever sets it has uvicorn end: it need not be looked for ten times a second.
    @property
    def should_exit(self) -> bool:
        """Whether the server is to end."""
        return self._exiting

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self._exiting = value
        if value and self._loop is not None and self._news is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._news.set)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The lifecycle has them."""
        yield

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until the lifecycle has ended.

        Args:
            sockets: listening ones; None: as the settings say.

        Raises:
            SystemExit: the process is to end; not if the lifecycle was entered before.
        """
        config = self.config
        if not config.loaded:
            config.load()
        lifecycle = self.lifecycle = self.lifecycle or Lifecycle.current()
        self._closes = config.http_protocol_class.__module__.rpartition(".")[2] in _CLOSING
        if config.ws_protocol_class is not None:
            config.ws_protocol_class = _upgrading(config.ws_protocol_class)
        self._wrap(lifecycle)
        self._loop, self._news = asyncio.get_running_loop(), asyncio.Event()
        main = lifecycle.house.main
        ours = not main.inside
        lifecycle.attach(self._loop)
        if ours:
            main.enter()
        serving = self._serving(lifecycle)
        remove = lifecycle.announced.add_callback(self._hear)
        error: BaseException | None = None
        try:
            await super().serve(sockets)
        except BaseException as caught:
            error = caught
            raise
        finally:
            remove()
            if self.started:
                serving.has_stopped()
            else:
                serving.forget()
            if ours:
                main.back("the web server ended")
                await lifecycle.ended.wait_async()
                lifecycle._after(error)  # noqa: SLF001 (the end of its `with`)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; whatever comes of it inherits the mark of requests. READY=1 once it does.

        Args:
            sockets: listening ones; None: as the settings say.
        """
        begin = self.lifespan.startup

        async def begun() -> None:
            await begin()  # what the application starts there is no part of a request
            _inside.set(A_REQUEST)

        self.lifespan.startup = begun
        before = _inside.get()
        try:
            await super().startup(sockets)
        finally:
            _inside.set(before)
        if self.lifecycle is not None and self.started and not self._shared:
            self.lifecycle.notify_ready()

    def _wrap(self, lifecycle: Lifecycle) -> None:
        """Put the middleware around the application, unless the program did."""
        config, gate = self.config, lifecycle.house.gate
        around = _wrapped(config.loaded_app, lifecycle)
        # A run record wants to know of each as it begins.
        if around is None and self._closes and not lifecycle.house.name:
            gate.requests = self._requests = Requests(gate, self.server_state.tasks)
            around = config.loaded_app = Light(config.loaded_app, lifecycle, self._requests)
        elif around is None:
            around = config.loaded_app = Middleware(config.loaded_app, lifecycle, guest=False)
        around.closing = not self._closes

    def _serving(self, lifecycle: Lifecycle) -> Serving:
        config = self.config
        return Serving(
            lifecycle,
            stop=self._tell,
            stop_accepting=self._stop_accepting,
            ports=self._ports,
            pending=lambda: len(self.server_state.tasks),
            shared=self._shared,
            kept=config.fd is not None,
            # Somebody waits for the new code.
            linger_s=0.0 if config.should_reload else LINGER_S,
            limit_s=config.timeout_graceful_shutdown,
        )

    async def main_loop(self) -> None:
        """Serve until the lifecycle says that nothing is left to lose."""
        assert self._news is not None  # noqa: S101 (set when it began)
        assert self.lifecycle is not None  # noqa: S101 (as well)
        counter, ticks = 0, _TICKS if self.limit_max_requests is None else 1
        while not self._told:
            over = await self.on_tick(counter)
            if over and not self.lifecycle.stopping:
                reason = "should_exit was set" if self._exiting else "the limit of requests"
                self.lifecycle.request_stop(reason)
                self.limit_max_requests: int | None = None  # once is enough
                ticks = _TICKS
            counter = (counter + ticks) % (_TICKS * 86400)
            self._news.clear()
            if not self._told:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), _TICK_S * ticks / _TICKS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End: what could be finished is finished, the rest is cut off.

        Args:
            sockets: those it was started with.
        """
        logger.info("Shutting down")
        for server in getattr(self, "servers", ()):
            server.close()
        for sock in sockets or ():
            sock.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        await asyncio.sleep(0)
        if state.tasks:
            logger.error("Cut off: %d running task(s)", len(state.tasks))
            for task in state.tasks:
                task.cancel("the server ends")
            await asyncio.wait(list(state.tasks), timeout=_CUT_S)
        until_s = monotonic() + _CUT_S
        while state.connections and monotonic() < until_s:  # noqa: ASYNC110 (uvicorn's own set)
            await asyncio.sleep(_LOOK_S)
        for connection in list(state.connections):
            connection.transport.abort()
        if not self.force_exit:
            await self.lifespan.shutdown()

    # -- answers that end their connections

    async def on_tick(self, counter: int) -> bool:
        """As uvicorn's own; the headers it makes anew say `close` once the end is announced.

        Args:
            counter: of ticks.
        """
        over = await super().on_tick(counter)
        if self._requests is not None:
            self._requests.tick(self.server_state.default_headers)
        if self.lifecycle is not None and self.lifecycle.announced.is_set():
            self._say_close()
        return over

    def _hear(self) -> None:
        assert self._loop is not None  # noqa: S101 (set when it began)
        self._loop.call_soon_threadsafe(self._end_soon)

    def _end_soon(self) -> None:
        self._say_close()

    def _say_close(self) -> None:
        """Let the last answer of each connection say that it is the last."""
        state = self.server_state
        if not self._closes or _CLOSE in state.default_headers:
            return
        state.default_headers = [*state.default_headers, _CLOSE]
        for connection in state.connections:
            # With httptools the newest request, whose answer comes last; with h11 the one in hand.
            cycle = getattr(connection, "cycle", None)
            h11 = getattr(connection, "conn", None)
            if cycle is not None and not getattr(h11, "trailing_data", _NOTHING)[0]:
                cycle.default_headers = [*cycle.default_headers, _CLOSE]

    # -- what the drain asks for, in its own thread

    def _tell(self) -> None:
        self._told = True
        self.should_exit = True

    def _ports(self) -> list[int] | None:
        """Those it serves; None: not only TCP ports."""
        found = []
        for server in getattr(self, "servers", ()):
            for sock in server.sockets:
                name = sock.getsockname()
                if not isinstance(name, tuple):
                    return None
                found.append(name[1])
        return found

    def _stop_accepting(self) -> None:
        assert self._loop is not None  # noqa: S101 (set when it began)
        let_nobody_in(self._loop, lambda: getattr(self, "servers", ()))


def _upgrading(made_by: Callable[..., Any]) -> Any:  # noqa: ANN401 (a class, for uvicorn)
    """The same WebSockets, whose handshake does not say `Connection: close`.

    Args:
        made_by: uvicorn's class; it takes the headers when it is made.
    """

    def make(*, server_state: Any, **named: Any) -> Any:  # noqa: ANN401 (as uvicorn's)
        headers = server_state.default_headers
        server_state.default_headers = [each for each in headers if each != _CLOSE]
        try:
            return made_by(server_state=server_state, **named)
        finally:
            server_state.default_headers = headers

    return make


def _wrapped(app: object, lifecycle: Lifecycle) -> Middleware | None:
    """The lifecycle's middleware, if it is around the application already."""
    for _ in range(_DEEP):
        if isinstance(app, Middleware):
            return app if app.lifecycle is lifecycle else None
        app = getattr(app, "app", None)
    return None


def serve(app: Application, *, lifecycle: Lifecycle | None = None, **settings: Any) -> None:  # noqa: ANN401 (uvicorn's)
    """Run an application, as `uvicorn.run` does, with a lifecycle around it.

    Args:
        app: the application, or where it is: `module:name`.
        lifecycle: None: the process's one, once the application is loaded. Workers and reloaded
            code have one of their own in any case.
        settings: as for `uvicorn.run`.

    Raises:
        SystemExit: the process is to end, or could not begin.
    """
    app_dir = settings.pop("app_dir", None)
    if app_dir is not None:
        sys.path.insert(0, app_dir)
    config = uvicorn.Config(app, **settings)
    many = config.workers > 1
    if (config.reload or many) and not isinstance(app, str):
        logger.warning("Workers and reloading need the application as `module:name`.")
        sys.exit(STARTUP_FAILURE)
    code: int | None = None
    try:
        if config.should_reload:
            _reload(config)
        elif many:
            from lastcall.app.servers.uvicorn_workers import Multiprocess

            parent = Multiprocess(config, [config.bind_socket()])
            parent.run()
            code = parent.code
        else:
            config.load_app()  # before a loop runs, as uvicorn does
            server = Server(config, lifecycle)
            server.run()
            if not server.started:
                sys.exit(STARTUP_FAILURE)
    except KeyboardInterrupt:
        pass
    finally:
        if config.uds and os.path.exists(config.uds):
            os.remove(config.uds)
    if code is not None:
        from lastcall.app.servers.parents import leave_with

        leave_with(code)


def _reload(config: uvicorn.Config) -> None:
    from uvicorn.supervisors import ChangeReload

    ChangeReload(config, Server(config, shared=True).run, [config.bind_socket()]).run()


def main() -> None:
    """Be uvicorn's own command line, drained."""
    # Its command hands all its options to `run` of its module, and has no other place where one
    # could come in: here that name is ours. Read in uvicorn 0.54, main.py.
    from uvicorn import main as command

    module = sys.modules[command.callback.__module__]
    module.run = serve  # type: ignore[attr-defined]
    command()


if __name__ == "__main__":
    # Not this module's copy of the name `__main__`: workers are to find the classes where they are.
    from lastcall.app.servers import uvicorn as ourselves  # noqa: PLW0406 (the reason above)

    ourselves.main()
