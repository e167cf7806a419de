"""The standard library's servers, so that they end well: `serve(server)` for `serve_forever()`.

    from http.server import ThreadingHTTPServer
    from lastcall.app.servers.stdlib import serve

    serve(ThreadingHTTPServer(("", 8000), Handler))

For `ThreadingHTTPServer`, `HTTPServer`, `wsgiref`'s `WSGIServer`, Werkzeug's, and whatever else is
a `socketserver.TCPServer` with an HTTP handler. What holds beyond the common order (see `Serving`):

- A server that serves one request at a time serves its whole accept queue, one after the other. Who
  is at its head and sends nothing holds up the others for a second at the most, half a request for
  five.
- Connections of HTTP/1.1 handlers are kept until the end is announced; then an answer says
  `Connection: close`, unless another request waits behind it already.
- With `ForkingMixIn` each connection is served by a child process. Children outlive SIGTERM until
  their request is done, and the server waits for them; those that are left at the limit are killed.
  They do not learn that the end is announced: a connection that is kept open is given up then, too.
- A TLS listener that shakes hands in `accept` serves nobody meanwhile, as ever.
- The service manager (systemd, `Type=notify`) hears READY=1 when `serve` begins: the server has
  listened since it was made.

Source: Lib/socketserver.py, Lib/http/server.py (CPython 3.11 to 3.14).
"""

from __future__ import annotations

import selectors
import signal
import socket
import socketserver
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from lastcall.app.http.descriptors import supported
from lastcall.app.http.serving import LINGER_S, PATIENCE_S, Serving
from lastcall.app.http.wsgi import Middleware
from lastcall.app.lifecycle import Lifecycle
from lastcall.app.servers.hosting import around, cut_off
from lastcall.app.servers.stdlib_children import Children
from lastcall.app.servers.stdlib_handler import Line, Request, polite

if TYPE_CHECKING:
    from types import FrameType

    from lastcall.app.work import Flight

# How often `service_actions` is called where there are some, as `serve_forever` does.
_SERVICE_S = 0.5
# How long a request's thread may take to end once nothing more comes from its client.
_JOIN_S = 1.0
_LOOK_S = 0.05


class _Cut(BaseException):
    """The request that the main thread works on is cut off."""


def serve(server: socketserver.TCPServer, *, lifecycle: Lifecycle | None = None) -> None:
    """Serve until the application ends, then close the server. In place of `serve_forever()`.

    Args:
        server: bound and listening already.
        lifecycle: of this process; None: the current one. It may be entered already.

    Raises:
        SystemExit: the process is to end.
    """
    lifecycle = lifecycle or Lifecycle.current()
    with around(lifecycle):
        Door(server, lifecycle).run()


class Door:
    """Accepts connections, and ends in order.

    Args:
        server: see `serve`.
        lifecycle: of this process.
    """

    def __init__(self, server: socketserver.TCPServer, lifecycle: Lifecycle) -> None:
        self._server = server
        self._lifecycle = lifecycle
        self._alone = not isinstance(server, socketserver.ThreadingMixIn)
        self._children = Children.of(server)
        self._lines: dict[Line, None] = {}
        self._leaving = False  # once the queue is empty
        self._at_once = False
        self._busy = False  # the thread that accepts works on a connection itself
        self._left = threading.Event()  # nobody is accepted any more
        self._told = threading.Event()  # nothing is left to lose, or nothing to be done about it
        self._wake, self._woken = socket.socketpair()
        self.counts: bool = not _counted(server)
        self._serving: Serving | None = None

    # -- what a handler asks

    @property
    def announced(self) -> bool:
        """Whether connections are not kept any more."""
        return self._lifecycle.announced.is_set()

    def enter(self, sock: socket.socket) -> Line:
        """A connection has got its handler."""
        self._children.begin()
        line = Line(sock)
        self._lines[line] = None
        return line

    def leave(self, line: Line) -> None:
        """Its handler is done with it."""
        self._lines.pop(line, None)
        if self._leaving and self._serving is not None:
            self._serving.look()

    def flight(self, handler: object) -> Flight:
        """A request begins."""
        return Request(self._lifecycle.house.gate, handler, accepted=True)

    # -- running

    def run(self) -> None:
        """Serve, in this thread."""
        server = self._server
        self._prepare()
        serving = self._serving = Serving(
            self._lifecycle,
            stop=self._stop,
            stop_accepting=self._stop_accepting,
            pending=self._pending,
        )
        remove = self._lifecycle.draining.add_callback(self._watch)
        try:
            self._lifecycle.notify_ready()
            with suppress(_Cut):
                self._accept()
            with suppress(OSError):
                server.socket.close()
            self._left.set()
            serving.look()
            self._children.wait(self._told)
            self._told.wait()
        finally:
            self._told.set()
            self._left.set()
            remove()
            self._close()
            serving.forget()

    def _prepare(self) -> None:
        server = self._server
        server.RequestHandlerClass = polite(server.RequestHandlerClass, self)  # type: ignore[assignment]
        server.shutdown = self._shutdown  # type: ignore[method-assign]
        # Whoever connects and is gone before `accept` must not leave us waiting there.
        server.socket.setblocking(False)
        if isinstance(server, socketserver.ThreadingMixIn):
            # They are counted and waited for here; the interpreter's end need not do so again.
            server.daemon_threads = True
        elif threading.current_thread() is threading.main_thread():
            self._take_cut()

    def _accept(self) -> None:
        server = self._server
        pause_s = None
        if type(server).service_actions is not socketserver.BaseServer.service_actions:
            pause_s = _SERVICE_S
        with selectors.DefaultSelector() as selector:
            selector.register(server, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select(0 if self._leaving else pause_s)}
                if self._at_once:
                    return
                if server in ready:
                    self._busy = True
                    server._handle_request_noblock()  # type: ignore[attr-defined]  # noqa: SLF001 (as serve_forever does)
                    self._busy = False
                elif self._leaving:
                    return
                server.service_actions()

    def _close(self) -> None:
        lines = tuple(self._lines)
        for line in lines:
            line.cut()
        until_s = monotonic() + _JOIN_S
        for line in lines:
            # Who works on a request still was given up: it ends with the process.
            if line.thread is not threading.current_thread() and not line.busy:
                line.thread.join(max(0.0, until_s - monotonic()))
        self._children.end()
        self._server.server_close()
        self._wake.close()
        self._woken.close()

    # -- the end; called in other threads

    def _shutdown(self) -> None:
        """For `server.shutdown()`: the application ends, as nothing is left to do."""
        self._lifecycle.request_stop("server.shutdown()")
        here = threading.current_thread()
        if not any(line.thread is here for line in tuple(self._lines)):
            self._left.wait()

    def _stop_accepting(self) -> None:
        self._leaving = True
        self._poke()
        if not self._alone:
            self._left.wait(1.0)

    def _pending(self) -> int:
        """The queue is not empty, or somebody is at work whom the kernel does not show us."""
        unseen = 0 if supported() else len(self._lines)
        return int(not self._left.is_set()) + self._children.count() + unseen

    def _stop(self) -> None:
        lifecycle = self._lifecycle
        self._at_once = True
        self._told.set()
        self._poke()
        immediate = lifecycle.house.shutdown == "immediate"
        for line in tuple(self._lines):
            line.cut()
            if immediate:
                line.land()  # nobody waits for it
        if immediate and lifecycle.in_flight:  # the application counts, and waits
            cut_off(lifecycle)
        if self._busy and self._alone:
            report = lifecycle.report
            signum = None if report is None else report.signum
            if signum is None or not lifecycle.house.signals.pass_on(signum):
                lifecycle.house.signals.pass_on_any()

    def _poke(self) -> None:
        with suppress(OSError):
            self._wake.send(b"\0")

    # -- cutting off the request that the main thread works on

    def _take_cut(self) -> None:
        """Have a handler of ours behind the lifecycle's: it is what `pass_on` calls."""
        lifecycle = self._lifecycle
        if not lifecycle.install():
            return
        signals = lifecycle.house.signals
        for number in signals.numbers:
            if number not in signals.ignored:
                signal.signal(number, self._cut)
        lifecycle.install()

    def _cut(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._busy and self._at_once:
            raise _Cut

    # -- clients that send nothing, or do not go on

    def _watch(self) -> None:
        """Called in the coordinator's thread."""
        threading.Thread(target=self._watching, name="lastcall-lines", daemon=True).start()

    def _watching(self) -> None:
        began_s = monotonic()
        while not self._told.wait(_LOOK_S):
            now_s = monotonic()
            for line in tuple(self._lines):
                if line.reading and now_s >= self._until_s(line, began_s):
                    line.cut()

    def _until_s(self, line: Line, began_s: float) -> float:
        """How long this connection's client is waited for."""
        if not line.busy and not self._alone and supported():
            return float("inf")  # the kernel tells more, and ends it more gently: see `Serving`
        if not line.busy and not line.got:
            return began_s + LINGER_S
        # Whoever reads behind his own answer only wants to see the client go.
        return max(began_s, line.moved_s) + (LINGER_S if line.answering else PATIENCE_S)


def _counted(server: socketserver.TCPServer) -> bool:
    """Whether the application counts its requests itself."""
    for name in ("app", "application"):  # of Werkzeug, of wsgiref
        app = getattr(server, name, None)
        if Middleware in {type(app), type(getattr(app, "wsgi_app", None))}:
            return True
    return False
