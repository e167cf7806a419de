"""A worker of granian's: its application is wrapped, its core is told of the stop last.

The core waits for each connection until its client has gone, if that was accepted at the very
moment of the stop (it wakes the tasks that wait for the stop, and a new one does not wait yet). So
it is told when no connection is left, and what is left after that is cut.

Its listening socket cannot be closed from outside. Once newcomers are turned away and its queue is
empty, another socket is put under the same descriptor, to which nobody can connect.

Source: granian 2.8.7: server/mp.py, _signals.py, wsgi.py; of its core (2.8.1) src/workers.rs
(acceptor_impl_loop: notify_waiters), src/serve.rs (TaskTracker.wait). epoll(7): a descriptor leaves
the set when the last one of its open file description is closed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from contextlib import ExitStack, suppress
from multiprocessing import util
from typing import TYPE_CHECKING

from granian import _signals
from granian._granian import WorkerSignal
from granian.server.mp import MPServer

from lastcall.app import leave
from lastcall.app.http import descriptors
from lastcall.app.http.connections import own_connections
from lastcall.app.http.listeners import own_listeners
from lastcall.app.http.serving import Serving
from lastcall.app.lifecycle import Lifecycle
from lastcall.app.servers.granian_apps import Asgi, Rsgi, Wsgi
from lastcall.errors import TooLate

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable
    from typing import Any

# HTTP/2 connections get a GOAWAY when the core is told: it needs one round trip for that.
_GOODBYE_S = 0.25
_REQUEST = "future_watcher"  # in granian/_futures.py: the coroutine around each request


class Listening:
    """Where a server listens; to be found again in the process that does.

    Args:
        port: of TCP; None: unknown (it was 0), or it is a Unix socket.
        path: of a Unix socket.
    """

    def __init__(self, port: int | None = None, path: str = "") -> None:
        self.port = port
        self.path = path
        self.found_ports: frozenset[int] = frozenset()

    def ports(self) -> set[int] | None:
        """The TCP ports; None: all of this process."""
        return None if self.port is None else {self.port}

    def close(self) -> None:
        """Put mute sockets in the place of those that listen."""
        listeners = own_listeners(self.ports())
        ours = [one for one in listeners if not self.path or one.path == self.path]
        self.found_ports = frozenset(one.port for one in ours if one.port is not None)
        inodes = {one.inode for one in ours}
        for one in listeners:
            one.close()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as mute:
            mute.bind("")  # a name of the kernel's choice, that no one is told
            mute.listen(1)
            mute.setblocking(False)
            for fd in descriptors.numbers():
                with suppress(OSError):
                    if os.fstat(fd).st_ino in inodes:
                        os.dup2(mute.fileno(), fd, inheritable=False)

    def end(
        self, lifecycle: Lifecycle, tell: Callable[[], object], stopped: Callable[[], bool]
    ) -> None:
        """Tell the server to end, and cut what it still waits for.

        Args:
            lifecycle: of this process.
            tell: tells it.
            stopped: whether it has ended.
        """
        if lifecycle.house.shutdown == "immediate" or lifecycle.in_flight:
            self._cut()
            cancel_requests(lifecycle.house.loop)
            tell()
        else:
            tell()
            threading.Thread(target=self._cut_rest, args=(stopped,), daemon=True).start()

    def _cut_rest(self, stopped: Callable[[], bool]) -> None:
        waiting = threading.Event()
        while not waiting.wait(_GOODBYE_S) and not stopped():
            self._cut()

    def _cut(self) -> None:
        kernel = descriptors.kernel()
        ports = self.found_ports or (self.ports() or frozenset())
        for one in own_connections(ports, {self.path} if self.path else ()):
            if kernel is not None:
                kernel.end_listening(one.fd)  # both ways: the core sees the end of the file


def cancel_requests(loop: AbstractEventLoop | None) -> None:
    """Cancel what answers requests: the core lets it run on, and nobody waits for it any more.

    Args:
        loop: of the application; None: it has none.
    """

    def cancel() -> None:
        for task in asyncio.all_tasks(loop):
            if getattr(task.get_coro(), "__name__", "") == _REQUEST:
                task.cancel()

    if loop is not None:
        with suppress(RuntimeError):  # it is closed
            loop.call_soon_threadsafe(cancel)


class Worker:
    """This process.

    Args:
        listening: where it does.
    """

    def __init__(self, listening: Listening) -> None:
        self.listening = listening
        self.stack: ExitStack = ExitStack()
        self.lifecycle: Lifecycle | None = None
        self.serving: Serving | None = None

    def enter(self) -> Lifecycle:
        """The application is loaded: from now on signals are the lifecycle's."""
        self.lifecycle = Lifecycle.current()
        return self.stack.enter_context(self.lifecycle)

    def loop_signals(self, loop: AbstractEventLoop) -> WorkerSignal:
        """In the place of granian's `set_loop_signals`."""
        if self.lifecycle is not None:
            self.lifecycle.attach(loop)
        return self.sync_signals()

    def sync_signals(self) -> WorkerSignal:
        """In the place of granian's `set_sync_signals`."""
        event = WorkerSignal()
        assert self.lifecycle is not None  # noqa: S101 (the application is loaded before)
        ours = self.lifecycle
        try:
            self.serving = serving = Serving(
                ours,
                stop=lambda: self.listening.end(ours, event.set, lambda: serving.stopped),
                stop_accepting=self.listening.close,
                ports=self.listening.ports,
            )
        except TooLate:
            event.set()  # the stop came before the start, and is over
        return event

    def die_if_asked(self) -> None:
        """Die of the signal that asked for the end, if the lifecycle wants that.

        It does so when the interpreter ends, which a process of multiprocessing leaves out.
        """
        report = None if self.lifecycle is None else self.lifecycle.report
        if self.lifecycle is None or report is None or report.signum is None:
            return
        if self.lifecycle.house.by_signal(report):
            util._exit_function()  # type: ignore[attr-defined]  # noqa: SLF001 (as multiprocessing does)
            leave.flush_all()
            leave.die_of(report.signum)

    def ended(self) -> None:
        """The core has ended, or never began."""
        if self.serving is not None:
            self.serving.forget()


_here: list[Worker] = []


def work(listening: Listening, spawner: str, *given: Any) -> None:  # noqa: ANN401 (granian's own)
    """What a worker process runs.

    Args:
        listening: where it does.
        spawner: the name of granian's function for its interface.
        given: for that.
    """
    _give_up_parents_signals()
    worker = Worker(listening)
    _here[:] = [worker]
    # granian's functions look these up when they run, and have no other place for ours. Only in
    # this process, which does nothing else.
    _signals.set_loop_signals = worker.loop_signals
    _signals.set_sync_signals = worker.sync_signals
    try:
        with worker.stack:
            try:
                getattr(MPServer, spawner)(*given)
            finally:
                worker.ended()
    except SystemExit:
        worker.die_if_asked()
        raise


def _give_up_parents_signals() -> None:
    """A forked worker has its parent's handlers: what they are told here reaches nobody."""
    for number in (signal.SIGTERM, signal.SIGINT):
        handler: Any = signal.getsignal(number)
        parent = getattr(handler, "__self__", None)
        if handler is not signal.SIG_IGN:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)
        if isinstance(parent, MPServer) and parent.interrupt_signal:
            sys.exit(0)  # it came between the fork and here
    if hasattr(signal, "SIGHUP") and callable(signal.getsignal(signal.SIGHUP)):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the parent's reload; it does as much here


def load(interface: str, loader: Callable[[], Any]) -> Any:  # noqa: ANN401 (any application)
    """Load the application, in a worker.

    Args:
        interface: granian's name of it.
        loader: loads it.
    """
    app = loader()
    return wrapped(interface, app, _here[0].enter())


def wrapped(interface: str, app: Any, lifecycle: Lifecycle) -> Any:  # noqa: ANN401 (any application)
    """The application with our middleware around it.

    Args:
        interface: granian's name of it: `asgi`, `asginl`, `wsgi`, `rsgi`.
        app: the application.
        lifecycle: of this process.
    """
    if interface == "wsgi":
        return Wsgi(app, lifecycle)
    if interface == "rsgi":
        return Rsgi(app, lifecycle)
    return Asgi(app, lifecycle)
