"""daphne, drained: `serve`, and `python -m lastcall.app.servers.daphne` for `daphne`.

    from lastcall.app.servers.daphne import serve

    serve(app, host="127.0.0.1", port=8000)

daphne itself stops Twisted's reactor at SIGTERM, and whatever is in flight with it. Here it is told
to end when every request that was accepted has its answer. As daphne knows no ASGI lifespan, the
application's start-up and shutdown handlers do not run under it, with or without lastcall: use the
hooks of the lifecycle. HTTP/2, which daphne speaks over TLS only, gets no GOAWAY: such connections
are ended when they are idle. The service manager (systemd, `Type=notify`) hears READY=1 when all
endpoints listen.

Source: daphne 4.2.3, server.py (Server.run, handle_reply, kill_all_applications), http_protocol.py,
cli.py (CommandLineInterface.server_class); Twisted 25, web/http.py (HTTPChannel.requestDone),
internet/asyncioreactor.py; autobahn, websocket/protocol.py (sendClose refuses codes below 3000).
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

from lastcall.app.http.asgi import Middleware
from lastcall.app.http.leftover import Moving, unread
from lastcall.app.http.serving import PATIENCE_S, Serving
from lastcall.app.lifecycle import Lifecycle
from lastcall.app.servers.extra import needs
from lastcall.app.servers.hosting import around, rest

with needs("daphne"):
    from daphne import server as daphne  # first: it chooses Twisted's reactor
from asgiref.compatibility import guarantee_single_callable
from daphne.cli import DEFAULT_HOST, DEFAULT_PORT, CommandLineInterface
from daphne.endpoints import build_endpoint_description_strings
from daphne.http_protocol import WebRequest
from daphne.ws_protocol import WebSocketProtocol
from twisted.internet import defer, tcp
from twisted.internet import reactor as the_reactor
from twisted.web.http import HTTPChannel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from lastcall.app.http.asgi import App, Message

    class _Theirs:
        """daphne's server, which has no types."""

        def __init__(self, **settings: Any) -> None: ...  # noqa: ANN401 (daphne's own)
        def __getattr__(self, name: str) -> Any: ...  # noqa: ANN401 (daphne's own)
        def run(self) -> None: ...
        def listen_success(self, port: Any) -> None: ...  # noqa: ANN401 (Twisted's)
        async def handle_reply(self, protocol: Any, message: Message) -> None: ...  # noqa: ANN401 (daphne's own)
else:
    _Theirs = daphne.Server

reactor: Any = the_reactor  # a module that is an object
_LOOP_ANSWERS_S = 5.0
_NORMAL, _FREE = 1000, 3000  # the only codes, and from there on, that autobahn lets us close with


def serve(
    app: App,
    *,
    lifecycle: Lifecycle | None = None,
    host: str | None = None,
    port: int | None = None,
    unix_socket: str | None = None,
    file_descriptor: int | None = None,
    endpoints: Iterable[str] = (),
    **settings: Any,  # noqa: ANN401 (daphne's own)
) -> None:
    """Serve until the lifecycle ends it. Main thread only, and once in a process, as Twisted is.

    Args:
        app: the application.
        lifecycle: None: the process's one. It is entered, unless it is already; then async hooks of
            later phases find this loop at rest, and run on another.
        host: None: 127.0.0.1, if none of the others is given.
        port: None: 8000, if none of the others is given.
        unix_socket: a path.
        file_descriptor: of a socket that listens already, and that the next start gets too.
        endpoints: Twisted's server strings, such as `ssl:8443:privateKey=key.pem`.
        settings: as for `daphne.server.Server`: `http_timeout`, `proxy_forwarded_address_header`...

    Raises:
        SystemExit: 1: it cannot listen; daphne has said why.
    """
    strings = list(endpoints)
    if host is not None or port is not None or not (strings or unix_socket or file_descriptor):
        host, port = host or DEFAULT_HOST, DEFAULT_PORT if port is None else port
    strings += build_endpoint_description_strings(
        host=host, port=port, unix_socket=unix_socket, file_descriptor=file_descriptor
    )
    whole = guarantee_single_callable(app)  # type: ignore[no-untyped-call]
    server = Server(application=whole, endpoints=strings, lifecycle=lifecycle, **settings)
    server.run()
    if server.abort_start:
        raise SystemExit(1)


class Server(_Theirs):
    """daphne's server, told last.

    Args:
        application: the application.
        lifecycle: None: the process's one.
        settings: as for daphne's own.
    """

    def __init__(
        self,
        application: App,
        *,
        lifecycle: Lifecycle | None = None,
        **settings: Any,  # noqa: ANN401 (daphne's own)
    ) -> None:
        self.lifecycle: Lifecycle = Lifecycle.current() if lifecycle is None else lifecycle
        if not isinstance(application, Middleware):
            application = self.lifecycle.asgi(application, guest=False)
        super().__init__(application=application, **settings)
        self._ports: list[Any] = []
        self._moving = Moving(PATIENCE_S)
        self._serving: Serving | None = None
        self._stack = ExitStack()
        self._when_ready: Callable[[], object] | None = settings.get("ready_callable")
        # Called when it listens, before the reactor runs.
        self.ready_callable: Callable[[], object] = self._ready

    def run(self) -> None:
        """Serve until it is told to end."""
        ours = not self.lifecycle.house.main.inside
        with self._stack:
            try:
                super().run()
            finally:
                if self._serving is not None:
                    self._ended(self._serving, rests=ours)

    def _ready(self) -> None:
        lifecycle = self.lifecycle
        self._stack.enter_context(around(lifecycle))
        self._serving = Serving(
            lifecycle,
            stop=lambda: reactor.callFromThread(self.stop),
            stop_accepting=self._stop_accepting,
            pending=self._pending,
            shared=None,
            # Whoever passed the socket has it still.
            kept=any(str(one).startswith("fd:") for one in self.endpoints),
        )
        lifecycle.house.loop = reactor._asyncioEventloop  # noqa: SLF001 (as daphne itself)
        # Twisted's own handlers stand then; the one for SIGCHLD is of use to who spawns processes.
        reactor.callWhenRunning(lifecycle.install)
        lifecycle.notify_ready()
        if self._when_ready is not None:
            self._when_ready()

    def _ended(self, serving: Serving, *, rests: bool) -> None:
        """The reactor is at rest. Its loop goes on for the hooks of the later phases."""

        async def end() -> None:
            serving.forget()  # not before the loop runs again: hooks are waiting for it
            await rest(self.lifecycle)

        if rests:
            reactor._asyncioEventloop.run_until_complete(end())  # noqa: SLF001 (as above)
        else:
            serving.forget()

    # -- what daphne calls

    def listen_success(self, port: Any) -> None:  # noqa: ANN401 (no types)
        """It listens on one of its endpoints."""
        self._ports.append(port)
        super().listen_success(port)

    async def handle_reply(self, protocol: Any, message: Message) -> None:  # noqa: ANN401 (no types)
        """The application says something."""
        if self.lifecycle.announced.is_set():
            if message["type"] == "http.response.start":
                message = self._last_answer(protocol, message)
            elif message["type"] == "websocket.close" and self._close(protocol, message):
                return
        await super().handle_reply(protocol, message)

    def kill_all_applications(self) -> Any:  # noqa: ANN401 (no types)
        """Cancel what is left: nothing, unless its time was over or it is to end at once.

        daphne's own fails where a connection has no application yet, and leaves the others.
        """
        left = [
            task
            for details in self.connections.values()
            if (task := details.get("application_instance")) is not None and not task.done()
        ]
        for task in left:
            task.cancel()
        if not left:
            return None
        return defer.Deferred.fromFuture(asyncio.gather(*left, return_exceptions=True))

    # -- answers and WebSockets, in the loop

    @staticmethod
    def _last_answer(protocol: Any, message: Message) -> Message:  # noqa: ANN401 (no types)
        """The beginning of an answer, and of the end of its connection."""
        channel = getattr(protocol, "channel", None)
        if not isinstance(channel, HTTPChannel):
            return message
        number = getattr(channel.transport, "fileno", lambda: -1)()
        if not any(channel._dataBuffer) and not unread(number):  # noqa: SLF001 (no other way)
            channel.persistent = False
            return message
        # Another request has come behind this one: that one's answer is to say so.
        headers = [one for one in message.get("headers", ()) if one[0].lower() != b"connection"]
        return {**message, "headers": headers}

    def _close(self, protocol: Any, message: Message) -> bool:  # noqa: ANN401 (no types)
        """Close a WebSocket with a code that is not for applications, such as 1012."""
        code = message.get("code") or _NORMAL
        if code == _NORMAL or code >= _FREE or not isinstance(protocol, WebSocketProtocol):
            return False
        details = self.connections.get(protocol)
        if details is None or details.get("disconnected") or protocol.state != protocol.STATE_OPEN:
            return False
        protocol.sendCloseFrame(code=code)
        return True

    # -- what the drain asks for, in its own thread

    def _pending(self) -> int:
        return self._moving.count([*self._unsent(), *self._continued()])

    @staticmethod
    def _unsent() -> Iterator[tuple[object, object]]:
        """The rest of answers, in Twisted's own buffers."""
        for one in reactor.getWriters():
            if isinstance(one, tcp.Server):
                yield one, (len(one.dataBuffer), one.offset, one._tempDataLen)  # noqa: SLF001 (as above)

    def _continued(self) -> Iterator[tuple[object, object]]:
        """Uploads that were told to go on: to the kernel they look answered."""
        for one, details in tuple(self.connections.items()):
            if not isinstance(one, WebRequest) or one.content is None:
                continue
            begun = "application_instance" in details or "disconnected" in details
            if not begun and one.requestHeaders.hasHeader(b"Expect"):
                yield one, one.content.tell()

    def _stop_accepting(self) -> None:
        done = threading.Event()

        def close() -> None:
            left = [defer.maybeDeferred(port.stopListening) for port in self._ports]
            defer.DeferredList(left).addBoth(lambda _: done.set())

        reactor.callFromThread(close)
        done.wait(_LOOP_ANSWERS_S)


class _CommandLine(CommandLineInterface):  # type: ignore[misc]  # (no types)
    """daphne's own command line, for our server."""

    server_class = Server


def main(words: Sequence[str] | None = None) -> None:
    """`daphne`, drained.

    Args:
        words: the command line without the program; None: this process's.
    """
    if words is None:
        _CommandLine.entrypoint()
    else:
        _CommandLine().run(list(words))


if __name__ == "__main__":
    main()
