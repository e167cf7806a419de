"""The parent of hypercorn's workers: it starts them, replaces them, and ends with them.

What differs from hypercorn's own: workers are stopped by SIGTERM, for which they have a handler
here, and end each by itself, not when the first one has; newcomers are turned away as soon as the
workers drain, and only if all of them are to; new workers serve before old ones end.

Source: hypercorn 0.18.0, run.py (run).
"""

from __future__ import annotations

import os
import signal
import socket
from contextlib import contextmanager, suppress
from multiprocessing import connection, get_context
from typing import TYPE_CHECKING

from hypercorn.utils import check_for_updates, files_to_watch, load_application

from lastcall.app.http.listeners import own_listeners
from lastcall.app.servers.parents import Wishes, code_of, leave_at_once, leave_with, notify_ready
from lastcall.app.voice import ERROR, INFO, voice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from hypercorn.config import Config, Sockets

    Target = Callable[[Config, Sockets, Connection], None]

_LOOK_AT_FILES_S = 1.0


class Worker:
    """One worker process.

    Args:
        process: started.
        words: what it says: `ready`, `draining`.
    """

    def __init__(self, process: SpawnProcess, words: Connection) -> None:
        self.process = process
        self.words: Connection | None = words
        self.ready = False
        self.draining = False
        self.retired = False  # another one takes its place

    def send(self, signum: int) -> None:
        """Send it a signal, if it still is there."""
        if self.process.is_alive() and self.process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signum)


class Parent:
    """Starts workers and waits for them.

    Args:
        config: hypercorn's.
        target: what a worker runs.
        sockets: that they serve on.
    """

    def __init__(self, config: Config, target: Target, sockets: Sockets) -> None:
        self._config = config
        self._target = target
        self._sockets = sockets
        self._context = get_context("spawn")
        self._workers: list[Worker] = []
        self._coming: list[Worker] = []  # started by a reload, not yet serving
        self._codes: list[int | None] = []
        self._failed = 0
        self._notified = False  # the service manager, once
        self._stopping = False
        self._reload_asked = False
        self._wishes = Wishes(self._stop, self._hurry, self._take_away)
        self._files: dict[object, float] | None = None
        self._wake_read, self._wake = os.pipe()
        for fd in (self._wake_read, self._wake):
            os.set_blocking(fd, False)

    def run(self) -> None:
        """Until all workers have ended."""
        if self._config.use_reloader:
            # To know which files it is made of; as hypercorn does.
            load_application(self._config.application_path, self._config.wsgi_max_body_size)
        self._wishes.install()
        before = signal.signal(signal.SIGHUP, self._ask_reload) if _HUP else None
        try:
            self._start_all(self._workers)
            if self._config.use_reloader:
                self._files = files_to_watch()  # type: ignore[assignment]
            while self._workers:
                self._turn()
        finally:
            if _HUP:
                signal.signal(signal.SIGHUP, before)
            self._close_sockets()

    def leave(self) -> int:
        """End as the workers have ended. Returns an exit code, or does not return at all."""
        signum = self._wishes.signum
        if self._failed or signum is None:
            return self._failed
        code = code_of(self._codes, signum)
        if code < 0:
            leave_with(code)
        return code

    # -- signals; they come in the main thread, between two bytecodes

    def _stop(self, signum: int = signal.SIGTERM) -> None:
        if not self._stopping:
            self._stopping = True
            voice.say(INFO, f"{signal.Signals(signum).name}: stopping {len(self._all())} workers")
        for worker in self._all():
            worker.send(signal.SIGTERM)
        self._poke()

    def _hurry(self, signum: int) -> None:
        for worker in self._all():
            worker.send(signum)

    def _take_away(self, signum: int) -> None:
        for worker in self._all():
            worker.send(signal.SIGKILL)
        leave_at_once(signum)

    def _ask_reload(self, *_: object) -> None:
        self._reload_asked = True
        self._poke()

    def _poke(self) -> None:
        with suppress(BlockingIOError):
            os.write(self._wake, b"\0")

    # -- workers

    def _all(self) -> list[Worker]:
        return [*self._workers, *self._coming]

    def _start_all(self, group: list[Worker]) -> None:
        for _ in range(self._config.workers):
            self._add(group)

    def _add(self, group: list[Worker]) -> None:
        worker = self._start()
        group.append(worker)
        if self._stopping:  # asked since
            worker.send(signal.SIGTERM)

    def _start(self) -> Worker:
        words, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=self._target, args=(self._config, self._sockets, theirs)
        )
        process.daemon = self._config.daemon
        with _ignored(signal.SIGINT):  # until the application is loaded: it would break that off
            process.start()
        theirs.close()
        return Worker(process, words)

    def _turn(self) -> None:
        by_words = {worker.words: worker for worker in self._all() if worker.words is not None}
        by_end = {worker.process.sentinel: worker for worker in self._all()}
        wait_s = None if self._files is None else _LOOK_AT_FILES_S
        ready = connection.wait([self._wake_read, *by_words, *by_end], wait_s)
        if self._wake_read in ready:
            with suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
        for each in ready:
            if isinstance(each, connection.Connection):
                self._hear(by_words[each])
        for each in ready:
            if isinstance(each, int) and each in by_end:
                self._ended(by_end[each])
        if self._files is not None and check_for_updates(self._files):  # type: ignore[arg-type]
            self._reload_asked = True
        if self._reload_asked and not self._stopping and not self._coming:
            self._reload()

    def _hear(self, worker: Worker) -> None:
        assert worker.words is not None  # noqa: S101 (it was waited for)
        try:
            word = worker.words.recv()
        except (EOFError, OSError):
            worker.words = None
            return
        if word == "ready":
            worker.ready = True
            if not self._notified and all(each.ready for each in self._workers):
                self._notified = True
                notify_ready()
            if self._coming and all(each.ready for each in self._coming):
                self._replace()
        elif word == "draining":
            worker.draining = True
            if self._stopping:
                self._close_door()

    def _ended(self, worker: Worker) -> None:
        worker.process.join()
        code = worker.process.exitcode
        if worker in self._coming:
            self._coming.remove(worker)
            if not self._stopping:
                self._give_up_reload(code)
            return
        self._workers.remove(worker)
        if self._stopping:
            self._codes.append(code)
        elif worker.retired:
            return
        elif code == 0 or worker.draining:
            self._add(self._workers)  # as after max_requests
        else:
            self._failed = code or 1
            self._stop()

    # -- reload

    def _reload(self) -> None:
        self._reload_asked = False
        if self._files is not None:
            self._files = files_to_watch()  # type: ignore[assignment]
        self._start_all(self._coming)

    def _replace(self) -> None:
        """The new workers serve: the old ones may end."""
        old, self._workers, self._coming = self._workers, self._coming, []
        for worker in old:
            worker.retired = True
            worker.send(signal.SIGTERM)
        self._workers += old

    def _give_up_reload(self, code: int | None) -> None:
        voice.say(ERROR, f"a new worker ended with {code} before it served: the old ones go on")
        for worker in self._coming:
            worker.retired = True
            worker.send(signal.SIGTERM)
        self._workers += self._coming
        self._coming = []

    # -- the door

    def _close_door(self) -> None:
        """All workers end: newcomers are turned away, and our copy of the sockets is closed."""
        binds = (*self._config.bind, *self._config.insecure_bind)
        if any(bind.startswith("fd://") for bind in binds):
            return  # whoever gave them to us keeps them for the next start
        ports = {sock.getsockname()[1] for sock in self._tcp_sockets() if sock.fileno() >= 0}
        for listener in own_listeners(ports) if ports else ():
            listener.turn_newcomers_away()
            listener.close()
        self._close_sockets()

    def _tcp_sockets(self) -> list[socket.socket]:
        each = (*self._sockets.secure_sockets, *self._sockets.insecure_sockets)
        return [sock for sock in each if sock.family in {socket.AF_INET, socket.AF_INET6}]

    def _close_sockets(self) -> None:
        sockets = self._sockets
        for sock in (*sockets.secure_sockets, *sockets.insecure_sockets, *sockets.quic_sockets):
            sock.close()


_HUP = hasattr(signal, "SIGHUP")


@contextmanager
def _ignored(signum: int) -> Iterator[None]:
    before = signal.signal(signum, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signum, before)
