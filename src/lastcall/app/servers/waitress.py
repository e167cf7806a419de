"""waitress, drained: `serve`, and `python -m lastcall.app.servers.waitress` for `waitress-serve`.

    from lastcall.app.servers.waitress import serve

    serve(app, listen="127.0.0.1:8080", threads=8)

waitress itself has no handler for SIGTERM, and its loop looks up once a second. Here it is told to
end when every request that was accepted has its answer, and the loop is woken to hear it. The
service manager (systemd, `Type=notify`) hears READY=1 once it listens.

Source: waitress 3.0.2: server.py (create_server, BaseWSGIServer), channel.py (HTTPChannel.service),
task.py (ThreadedTaskDispatcher, Task.build_response_header), trigger.py, runner.py (run).
"""

from __future__ import annotations

import logging
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING

from lastcall.app.http.leftover import Moving, unread
from lastcall.app.http.serving import PATIENCE_S, Serving
from lastcall.app.http.wsgi import Middleware
from lastcall.app.lifecycle import Lifecycle
from lastcall.app.servers.extra import needs
from lastcall.app.servers.hosting import around, do_in
from lastcall.app.work import Request

with needs("waitress"):
    from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer, create_server
from waitress.task import WSGITask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any
    from wsgiref.types import WSGIApplication

# Threads that have nothing to do end at once; one that hangs is not waited for: its time is over.
_THREADS_END_S = 0.2
# select() knows descriptors below 1024 only; some are files, and connections of the application.
_MOST_BY_SELECT = 900


def serve(
    app: WSGIApplication,
    *,
    lifecycle: Lifecycle | None = None,
    **settings: Any,  # noqa: ANN401 (waitress's own)
) -> None:
    """Serve until the lifecycle ends it. Main thread only.

    Args:
        app: the application.
        lifecycle: None: the process's one. It is entered, unless it is already.
        settings: as for `waitress.serve`: `listen`, `threads`, `channel_timeout`, ...

    Raises:
        OSError: the port is taken.
        ValueError: a setting makes no sense.
    """
    ours = Lifecycle.current() if lifecycle is None else lifecycle
    quiet = settings.pop("_quiet", False)
    if not quiet:
        logging.basicConfig()  # as waitress.serve does
    server = create_server(app, **settings)
    if not quiet:
        server.print_listen("Serving on http://{}:{}")
    Drained(server, app, ours).run()


class Drained:
    """One waitress server, its listeners, and how it comes to its end.

    Args:
        server: what `waitress.create_server` made, not yet run.
        app: what it serves.
        lifecycle: of this process.
    """

    def __init__(self, server: Any, app: WSGIApplication, lifecycle: Lifecycle) -> None:  # noqa: ANN401 (no types)
        self.lifecycle = lifecycle
        self.serving: Serving | None = None
        # Whoever has wrapped the application counts already.
        self.counts: bool = not isinstance(app, Middleware)
        self._server = server
        self._map = server.map if hasattr(server, "map") else server._map  # noqa: SLF001 (as its loop)
        self._listeners = [one for one in self._map.values() if isinstance(one, BaseWSGIServer)]
        self._dispatcher = server.task_dispatcher
        self._busy: set[Channel] = set()
        self._moving = Moving(PATIENCE_S)
        self._lock = threading.Lock()
        self._over = False
        for one in self._listeners:
            one.channel_class = partial(Channel, self)

    def run(self) -> None:
        """Run it in this thread until it is told to end."""
        lifecycle = self.lifecycle
        with around(lifecycle):
            serving = self.serving = Serving(
                lifecycle,
                stop=self._stop,
                stop_accepting=lambda: do_in(self._in_loop, self._close_listeners),
                pending=self._pending,
                shared=None,
            )
            remove = lifecycle.draining.add_callback(self._let_all_in)
            try:
                lifecycle.notify_ready()
                self._server.run()
                self._dispatcher.shutdown(timeout=_THREADS_END_S)
            finally:
                with self._lock:
                    self._over = True
                remove()
                serving.forget()

    # -- what its channels tell

    def enter(self, channel: Channel) -> None:
        """A thread begins with a channel's next request."""
        self._busy.add(channel)

    def leave(self, channel: Channel) -> None:
        """It has done with it."""
        self._busy.discard(channel)
        if self.serving is not None and self.lifecycle.draining.is_set():
            self.serving.look()

    # -- what the drain asks for, in its own thread

    def _pending(self) -> int:
        queued = len(self._dispatcher.queue)
        return queued + len(self._busy) + self._moving.count(self._half())

    def _half(self) -> Iterator[tuple[Channel, object]]:
        for one in self._listeners:
            for channel in list(one.active_channels.values()):
                if channel.total_outbufs_len or channel.sent_continue:
                    yield channel, (channel.total_outbufs_len, channel.last_activity)

    def _let_all_in(self) -> None:
        """Those in the queue are ours: the limit of connections must not keep them there."""
        for one in self._listeners:
            most = sys.maxsize if one.adj.asyncore_use_poll else _MOST_BY_SELECT
            one.adj.connection_limit = max(one.adj.connection_limit, most)
        self._in_loop(lambda: None)

    def _close_listeners(self) -> None:
        for one in self._listeners:
            wasyncore.dispatcher.close(one)  # its own `close` ends its trigger as well

    def _stop(self) -> None:
        if self.lifecycle.house.shutdown == "immediate":
            for flight in self.lifecycle.flights():
                if isinstance(flight, Request):
                    flight.__exit__()  # its thread may go on: nobody waits for it
        # Its loop runs as long as there is something in its map.
        self._in_loop(lambda: wasyncore.close_all(self._map, ignore_all=True))

    def _in_loop(self, job: Callable[[], object]) -> bool:
        with self._lock:
            if self._over:
                return False
            self._listeners[0].trigger.pull_trigger(job)
        return True


class Task(WSGITask):  # type: ignore[misc]  # (no types)
    """One request: in flight until its answer is written, and told that the connection ends."""

    def service(self) -> None:
        """Answer it."""
        drained = self.channel.drained
        if not drained.counts:
            super().service()
            return
        with Request(drained.lifecycle.house.gate, self.get_environment(), accepted=True):
            super().service()

    def build_response_header(self) -> bytes:
        """Its answer's headers, with `Connection: close` once the end is announced."""
        if self.channel.drained.lifecycle.announced.is_set() and self.channel.is_last():
            # As if the client had asked for it: the one way that is right for HTTP/1.0, too.
            self.request.headers["CONNECTION"] = "close"
        return bytes(super().build_response_header())


class Channel(HTTPChannel):  # type: ignore[misc]  # (no types)
    """One connection.

    Args:
        drained: whose.
        given: as for waitress's own.
    """

    task_class: type[WSGITask] = Task

    def __init__(self, drained: Drained, *given: Any, **named: Any) -> None:  # noqa: ANN401 (as above)
        self.drained = drained
        super().__init__(*given, **named)

    def service(self) -> None:
        """Answer the next request, in a thread."""
        self.drained.enter(self)
        try:
            super().service()
        finally:
            self.drained.leave(self)

    def is_last(self) -> bool:
        """Whether no other request has come behind the one in hand: it would go unanswered."""
        behind = len(self.requests) > 1 or self.request is not None
        return not behind and not unread(self._fileno or -1)


def main(words: Sequence[str] | None = None) -> int:
    """`waitress-serve`, drained. Returns its exit code.

    Args:
        words: the command line, the program's name first; None: this process's.
    """
    from waitress import runner

    Serving.hosted = True
    logger = logging.getLogger("lastcall")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)  # as the runner does for waitress's own
    code = runner.run(sys.argv if words is None else words, _serve=serve)
    return int(code or 0)


if __name__ == "__main__":
    sys.exit(main())
