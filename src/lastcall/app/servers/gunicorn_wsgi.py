"""gunicorn's workers for WSGI: `sync` takes one connection at a time, `gthread` has threads.

Both read a request in the thread that answers it. A client that brings nothing holds that thread,
and everybody behind it, so while they drain, silent connections get a moment, half requests as long
as they move, then reading from them ends.

Source: gunicorn 27.0.1, workers/sync.py (run_for_one, wait, handle), workers/gthread.py (run,
finish_request), http/wsgi.py (Response.should_close), util.py (close_graceful).
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

from gunicorn.workers import gthread, sync  # type: ignore[import-untyped]

from lastcall.app.http import descriptors
from lastcall.app.http.connections import own_connections
from lastcall.app.http.listeners import own_listeners
from lastcall.app.http.serving import LINGER_S, PATIENCE_S
from lastcall.app.http.verdict import verdict
from lastcall.app.http.wsgi import Middleware
from lastcall.app.servers.gunicorn_worker import Drain, Drained
from lastcall.app.servers.hosting import cut_off, do_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from lastcall.app.http.connections import Connection
    from lastcall.app.http.listeners import Listener


class Hand:
    """One thread that has a connection in hand.

    Args:
        number: tells the connection's descriptor; -1: it is gone.
    """

    __slots__ = ("busy", "number")

    def __init__(self, number: Callable[[], int]) -> None:
        self.number: Callable[[], int] = number
        self.busy: bool = False  # with the application, not with reading


class Hands:
    """What the threads of one worker have in hand."""

    def __init__(self) -> None:
        self._hands: dict[int, Hand] = {}
        self._began_s: float | None = None

    @contextlib.contextmanager
    def holding(self, number: Callable[[], int]) -> Iterator[None]:
        """This thread holds a connection."""
        ident = threading.get_ident()
        self._hands[ident] = Hand(number)
        try:
            yield
        finally:
            self._hands.pop(ident, None)

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """This thread's request is read: it is being answered."""
        hand = self._hands.get(threading.get_ident())
        if hand is None:
            yield
            return
        hand.busy = True
        try:
            yield
        finally:
            hand.busy = False

    def reading(self) -> list[Hand]:
        """Those that wait for a request."""
        return [hand for hand in list(self._hands.values()) if not hand.busy]

    def free_stalled(self, ports: Iterable[int], paths: Iterable[str]) -> int:
        """Let go of clients that bring nothing. How many hands still wait for one."""
        hands = self.reading()
        now_s = monotonic()
        if self._began_s is None:
            self._began_s = now_s
        if not hands:
            return 0
        kernel = descriptors.kernel()
        found = {one.fd: one for one in own_connections(ports, paths)}
        for hand in hands:
            one = found.get(hand.number())
            # Also of one that was let in later: while it waited in the queue it could send as well.
            if one is not None and kernel is not None and _stalls(one, now_s, self._began_s):
                kernel.end_writing(one.fd, one.cookie, reading=True)
        return len(hands)


def _number(sock: Any) -> int:  # noqa: ANN401 (a socket, or gone)
    try:
        return int(sock.fileno())
    except (OSError, AttributeError):
        return -1


def _stalls(one: Connection, now_s: float, since_s: float) -> bool:
    said = verdict(
        [one],
        0,
        now_s,
        began_s=since_s,
        progress_s=since_s,
        ended_s=None,
        linger_s=LINGER_S,
        patience_s=PATIENCE_S,
    )
    return bool(said.end or said.given_up)


class Closing:
    """The application, whose answers say `Connection: close` once the end is announced.

    Args:
        app: the application.
        announced: whether it is.
    """

    def __init__(self, app: WSGIApplication, announced: Callable[[], bool]) -> None:
        self._app = app
        self._announced = announced

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Pass on one request."""
        # The one way to gunicorn's answer, which knows how its connection goes on.
        answer = getattr(start_response, "__self__", None)

        def starting(status: str, headers: Any, exc_info: Any = None) -> Any:  # noqa: ANN401 (PEP 3333)
            if answer is not None and self._announced():
                answer.force_close()
            return start_response(status, headers, exc_info)

        return self._app(environ, starting)


class WSGIWorker(Drained):
    """What both have: hands that hold connections, and the application around which they close.

    Args:
        given: as for gunicorn's own.
    """

    def __init__(self, *given: Any, **named: Any) -> None:  # noqa: ANN401 (as gunicorn's)
        self.wsgi: Any = None  # the application
        super().__init__(*given, **named)
        self.hands: Hands = Hands()
        self._queues: list[Listener] = []
        self._ports: tuple[int, ...] = ()
        self._paths: tuple[str, ...] = ()

    @contextlib.contextmanager
    def drained(
        self,
        *,
        stop: Callable[[], object],
        stop_accepting: Callable[[], object],
        waiting: Callable[[], int] = int,
    ) -> Iterator[None]:
        """Around gunicorn's own run, until the lifecycle has ended.

        Args:
            stop: ends it; nothing is left to lose. In a hook's thread.
            stop_accepting: lets nobody more in. In a hook's thread.
            waiting: how many connections it has accepted that no thread has yet.
        """
        lifecycle = self.begin()
        names = [sock.getsockname() for sock in self.sockets]
        self._ports = tuple(name[1] for name in names if isinstance(name, tuple))
        self._paths = tuple(_path(name) for name in names if not isinstance(name, tuple))
        app = self.wsgi
        if not isinstance(app, Middleware):
            app = lifecycle.wsgi(app, guest=False)
        self.wsgi = Closing(app, lifecycle.announced.is_set)
        with self.leaving(), lifecycle:
            self.serving: Drain = Drain(
                self,
                stop=stop,
                stop_accepting=stop_accepting,
                ports=self._ports if not self._paths else None,
                pending=lambda: waiting() + self._pending(),
            )
            self.heed()
            try:
                yield
            finally:
                self._close_listeners()
                self.over()

    def handle_request(self, *given: Any) -> Any:  # noqa: ANN401 (as gunicorn's)
        """The application's part of a request."""
        with self.hands.busy():
            return super().handle_request(*given)

    def _pending(self) -> int:
        """How many connections wait in the queue, or have a thread and bring no request yet."""
        queued = sum(each.queued() for each in self._queues)
        return queued + self.hands.free_stalled(self._ports, self._paths)

    def _own_queues(self) -> list[Listener]:
        return own_listeners(self._ports if not self._paths else None)

    def _close_listeners(self) -> None:
        for each in (*self._queues, *self.sockets):
            each.close()
        self._queues = []


def _path(name: str | bytes) -> str:
    said = os.fsdecode(name)
    return f"@{said[1:]}" if said[:1] == "\0" else said


class SyncWorker(WSGIWorker, sync.SyncWorker):  # type: ignore[misc]  # (no types)
    """gunicorn's `sync`, drained: the accept queue is served until nobody is left in it.

    Args:
        given: as for gunicorn's own.
    """

    _last = False  # nobody new comes: end when nobody is left in the queue

    def run(self) -> None:
        """Serve until the lifecycle has ended."""
        with self.drained(stop=self._end, stop_accepting=self._stop_accepting):
            super().run()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:  # noqa: ANN401 (as gunicorn's)
        """Serve one connection."""
        # TLS wraps the socket and leaves this one without a descriptor: it keeps its number.
        number = client.fileno()
        with self.hands.holding(lambda: number):
            super().handle(listener, client, addr)

    def wait(self, timeout: float) -> Any:  # noqa: ANN401 (as gunicorn's)
        """Wait for the next connection, unless there will be none."""
        ready = super().wait(0 if self._last else timeout)
        if self._last and not any(sock in (ready or ()) for sock in self.sockets):
            raise sync.StopWaiting
        return ready

    def _stop_accepting(self) -> None:
        """If the queue is ours it is served to its end, otherwise it is left to the others."""
        if self.serving.empties:
            self._queues = self._own_queues()
        else:
            self.told = True
            self._alive = False
            self._wake()

    def _end(self) -> None:
        """End, after whoever has come at this very moment."""
        self.told: bool = True
        self._last = True
        if self.hurried:
            self._alive = False
            cut_off(self.lifecycle)
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake
            os.write(self.PIPE[1], b"1")


class ThreadWorker(WSGIWorker, gthread.ThreadWorker):  # type: ignore[misc]  # (no types)
    """gunicorn's `gthread`, drained: accepted connections that wait for a thread are served.

    Args:
        given: as for gunicorn's own.
    """

    def __init__(self, *given: Any, **named: Any) -> None:  # noqa: ANN401 (as gunicorn's)
        super().__init__(*given, **named)
        self._waiting: dict[int, Any] = {}  # accepted, and no thread has them yet
        self._shut = False

    def run(self) -> None:
        """Serve until the lifecycle has ended."""
        with self.drained(
            stop=self._tell,
            stop_accepting=lambda: do_in(self._in_loop, self._shut_door),
            waiting=lambda: len(self._waiting),
        ):
            super().run()

    def enqueue_req(self, conn: Any) -> None:  # noqa: ANN401 (no types)
        """Give a connection to the threads."""
        self._waiting[id(conn)] = conn
        super().enqueue_req(conn)

    def handle(self, conn: Any) -> Any:  # noqa: ANN401 (no types)
        """Serve what has come on a connection, in a thread."""
        with self.hands.holding(lambda: _number(conn.sock)):
            self._waiting.pop(id(conn), None)
            return super().handle(conn)

    def handle_http2_request(self, *given: Any) -> Any:  # noqa: ANN401 (as gunicorn's)
        """The application's part of a request over HTTP/2."""
        with self.hands.busy():
            return super().handle_http2_request(*given)

    def set_accept_enabled(self, enabled: bool) -> None:  # noqa: FBT001 (as gunicorn's)
        """Its loop switches this on whenever there is room."""
        if not (enabled and self._shut):
            super().set_accept_enabled(enabled)

    def _shut_door(self) -> None:
        """Let whoever is in the accept queue in, if it is ours, and nobody more."""
        if self.serving.empties:
            self.worker_connections: int = sys.maxsize
            queues = self._own_queues()
            for each in self.sockets:
                for _ in range(sum(one.queued() for one in queues)):
                    self.accept(each)
            for one in queues:
                one.close()
        self._shut = True
        self.set_accept_enabled(False)

    def _tell(self) -> None:
        """End; idle connections have been ended, their clients need not have done the same."""
        self._in_loop(self._end)
        if self.hurried:
            cut_off(self.lifecycle)

    def _end(self) -> None:
        self.told = True
        self.murder_keepalived(force=True)
        self.nr_conns = 0  # nobody is left whom gunicorn's own end is to wait for
        self._alive = False

    def _in_loop(self, job: Callable[[], object]) -> bool:
        if self.serving.stopped:
            return False
        self.method_queue.defer(job)
        return True
