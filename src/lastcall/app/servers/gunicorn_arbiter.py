"""gunicorn's arbiter, which ends its service in order.

When the whole service ends (SIGTERM, SIGINT or SIGQUIT to the arbiter) newcomers are turned away
first, then the workers are told and drain, and the arbiter ends as they did. The second such signal
means now, the third at once.

Newcomers are let in as ever where somebody goes on using the sockets: on a reload (HUP), when one
worker is replaced, when another arbiter shares them (USR2), or when somebody else made them
(systemd's socket activation, `--bind fd://3`).

Source: gunicorn 27.0.1, arbiter.py (run, stop, halt, reload, spawn_worker, kill_worker,
manage_workers, murder_workers).
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from gunicorn import arbiter as bare  # type: ignore[import-untyped]
from gunicorn.errors import HaltServer  # type: ignore[import-untyped]
from gunicorn.workers import gasgi, gthread, sync  # type: ignore[import-untyped]

from lastcall.app.http.listeners import own_listeners
from lastcall.app.http.serving import Serving
from lastcall.app.servers.gunicorn_worker import STOPS, Drained, Word
from lastcall.app.servers.parents import code_of, leave_at_once, leave_with
from lastcall.app.signals import same_s
from lastcall.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

# A worker leaves by itself a second after its own deadline, whatever hangs.
_MARGIN_S = 2.0
# After a second signal: hooks that close and flush have a second each.
_HURRY_S = 3.0
_TURN_S = 1.0
_KILLED_S = 2.0
_NOW, _AT_ONCE = 2, 3


class _Asked(Exception):
    """A stop was asked for while a reload waits for the old workers."""


class Arbiter(bare.Arbiter):  # type: ignore[misc]  # (no types)
    """gunicorn's parent process, whose workers drain.

    Args:
        app: gunicorn's application.
    """

    LISTENERS: list[Any]
    worker_class: Any
    # Of the class: an arbiter that became one of ours was never made by us.
    asked: int | None = None  # the first signal
    _asks = 0
    _seen_s = float("-inf")
    _reloading = False
    _word = Word.RETIRE
    _codes: tuple[int | None, ...] | None = None  # the workers', once they are waited for

    def setup(self, app: Any) -> None:  # noqa: ANN401 (no types)
        """Read the settings, also on a reload: gunicorn's workers become ours."""
        Serving.hosted = True
        super().setup(app)
        self.worker_class = drained(self.worker_class, self.log)

    # -- signals

    def signal(self, sig: int, frame: FrameType | None) -> None:
        """A signal has come: between two bytecodes of the main thread."""
        if sig in STOPS:
            now_s = monotonic()
            same = now_s - self._seen_s < same_s(sig)
            self._seen_s = now_s
            if self.asked is not None and same:
                return  # the same wish once more
            self.asked = self.asked or sig
            self._asks += 1
        super().signal(sig, frame)

    def handle_int(self) -> None:
        """Ctrl+C loses no work either; gunicorn's own arbiter cuts it off.

        Raises:
            StopIteration: always; its main loop halts.
        """
        raise StopIteration

    handle_quit = handle_int

    # -- workers

    def spawn_workers(self) -> None:
        """Start those that are missing, unless all are to end."""
        for _ in range(self.num_workers - len(self.WORKERS)):
            if self.asked is not None:
                return
            self.spawn_worker()
            time.sleep(0.1 * random.random())  # noqa: S311 (they need not all load at once)

    def spawn_worker(self) -> Any:  # noqa: ANN401 (as gunicorn's)
        """Start one; a signal that comes before it has handlers of its own waits."""
        if not issubclass(self.worker_class, Drained):
            return super().spawn_worker()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            return super().spawn_worker()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def kill_worker(self, pid: int, sig: int) -> None:
        """Send one a signal; SIGTERM with our word, and once: its loop repeats itself."""
        note = getattr(self.WORKERS.get(pid), "note", None)
        if sig == signal.SIGTERM and note is not None:
            if note.word is not Word.NONE:
                return
            note.word = self._word
        super().kill_worker(pid, sig)

    def reload(self) -> None:
        """New workers for old ones; a stop does not wait until the old ones have ended."""
        self._reloading = True
        try:
            super().reload()
        except _Asked:
            self.log.info("Reload cut short: %s", signal.Signals(self.asked or 0).name)
        finally:
            self._reloading = False

    def reap_workers(self) -> None:
        """Collect those that have ended."""
        if self._codes is not None:
            ended = map(_ended, tuple(self.WORKERS))
            self._codes += tuple(code for code in ended if code is not None)
        super().reap_workers()
        if self._reloading and self.asked is not None:
            raise _Asked

    # -- the end

    def stop(self, graceful: bool = True) -> None:  # noqa: ARG002, FBT001, FBT002 (as gunicorn's)
        """End the workers.

        Args:
            graceful: workers drain in any case; a second signal means now.
        """
        self._codes = self._codes or ()
        if not (self.WORKERS or self.LISTENERS or self.dirty_arbiter_pid):
            return
        self.maybe_promote_master()
        ends = not self._is_shared()
        notes = [worker.note for worker in self.WORKERS.values() if hasattr(worker, "note")]
        announce_s = max((note.announce_s for note in notes), default=0.0)
        limit_s = max([self.cfg.graceful_timeout, *(note.grace_s + _MARGIN_S for note in notes)])
        until_s = monotonic() + limit_s
        if ends and announce_s:
            self._word = Word.LEAVE
            self.kill_workers(signal.SIGTERM)
            self._wait(lambda: bool(self.WORKERS), monotonic() + announce_s, hurried=False)
        self._close_door(ends=ends)
        self._word = Word.SHUT if ends else Word.RETIRE
        for note in notes:
            if note.word is Word.LEAVE:
                note.word = self._word
        self.kill_workers(signal.SIGTERM)
        self._wait(lambda: bool(self.WORKERS), until_s)
        if self.dirty_arbiter_pid:  # requests in flight may have needed it
            self.kill_dirty_arbiter(signal.SIGTERM)
            self._wait(lambda: bool(self.dirty_arbiter_pid), max(until_s, monotonic() + _MARGIN_S))
        self._kill(limit_s)

    def _is_shared(self) -> bool:
        """Whether somebody goes on using the sockets when all of us have ended."""
        passed = any(isinstance(each, int) for each in self.cfg.address)
        return bool(self.reexec_pid or self.master_pid or self.systemd or passed)

    def _close_door(self, *, ends: bool) -> None:
        inodes = {os.fstat(each.fileno()).st_ino for each in self.LISTENERS}
        for each in own_listeners():
            if ends and each.inode in inodes:
                each.turn_newcomers_away()
                if each.path and not each.path.startswith("@") and not self.cfg.reuse_port:
                    with suppress(OSError):  # newcomers do not find it any more
                        os.unlink(each.path)
            each.close()
        for each in self.LISTENERS:
            each.close()
        self.LISTENERS = []

    def _wait(self, some: Callable[[], bool], until_s: float, *, hurried: bool = True) -> None:
        """Wait as long as there are some; each one's end is a signal, so nothing is polled.

        Args:
            some: whether there are any.
            until_s: for how long, on the monotonic clock.
            hurried: whether a second signal is passed on; if not, it ends the wait.
        """
        told = False
        while some() and (left_s := until_s - monotonic()) > 0:
            if self._asks >= _AT_ONCE:
                self.kill_workers(signal.SIGKILL)
                leave_at_once(self.asked or signal.SIGTERM)
            if self._asks >= _NOW and not hurried:
                return
            if self._asks >= _NOW and not told:
                told = True
                self.log.info("Quick shutdown requested")
                self.kill_workers(signal.SIGQUIT)
                self.kill_dirty_arbiter(signal.SIGQUIT)
                until_s = min(until_s, monotonic() + _HURRY_S)
                continue
            for sig in self.wait_for_signals(timeout=min(left_s, _TURN_S)):
                if sig == signal.SIGUSR1:
                    self.handle_usr1()
            with suppress(HaltServer):  # one that could not even begin
                self.reap_workers()
                self.reap_dirty_arbiter()

    def _kill(self, limit_s: float) -> None:
        """Those that hang are taken away."""
        if not (self.WORKERS or self.dirty_arbiter_pid):
            return
        if self.WORKERS:
            pids = ", ".join(map(str, self.WORKERS))
            self.log.error("Workers still there after %g s, killed: %s", limit_s, pids)
            self._codes = (*(self._codes or ()), int(ExitCode.CUT_OFF))
        self._asks = 0
        self.kill_workers(signal.SIGKILL)
        self.kill_dirty_arbiter(signal.SIGKILL)
        until_s = monotonic() + _KILLED_S
        self._wait(lambda: bool(self.WORKERS or self.dirty_arbiter_pid), until_s)

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        """End the service, and this process as the workers did.

        Args:
            reason: what went wrong, if anything.
            exit_status: of gunicorn.

        Raises:
            SystemExit: always, unless it dies of a signal.
        """
        self.stop()
        try:
            super().halt(reason, exit_status)
        except SystemExit:
            if exit_status or self.asked is None or getattr(self.app, "inside", False):
                raise
            asked = signal.SIGTERM if self.asked == signal.SIGQUIT else self.asked
            leave_with(code_of(self._codes or (), asked))


def _ended(pid: int) -> int | None:
    """How a child has ended, without collecting it; None: not yet.

    Source: waitid(2), WNOWAIT.
    """
    try:
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return None
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def drained(worker_class: Any, log: Any) -> Any:  # noqa: ANN401 (no types)
    """The same class of workers, drained; those of other kinds are left as they are.

    Args:
        worker_class: as gunicorn's settings name it.
        log: gunicorn's.
    """
    if issubclass(worker_class, Drained):
        return worker_class
    ours = _ours(worker_class)
    if ours is None:
        log.warning("lastcall does not drain workers of class %s", worker_class.__name__)
        return worker_class
    if worker_class is ours.__bases__[1]:
        return ours
    # Somebody's own class that descends from gunicorn's: what it changes stays changed.
    return type(
        worker_class.__name__, (ours, worker_class), {"__module__": worker_class.__module__}
    )


def _ours(worker_class: Any) -> Any:  # noqa: ANN401 (no types)
    """Our class of the same kind; None: there is none."""
    if issubclass(worker_class, gthread.ThreadWorker):
        from lastcall.app.servers.gunicorn_wsgi import ThreadWorker

        return ThreadWorker
    if issubclass(worker_class, sync.SyncWorker):
        from lastcall.app.servers.gunicorn_wsgi import SyncWorker

        return SyncWorker
    if issubclass(worker_class, gasgi.ASGIWorker):
        from lastcall.app.servers.gunicorn_asgi import AsgiWorker

        return AsgiWorker
    theirs = sys.modules.get("uvicorn_worker")
    if theirs is not None and issubclass(worker_class, theirs.UvicornWorker):
        from lastcall.app.servers.gunicorn_uvicorn import UvicornWorker

        return UvicornWorker
    return None


def adopt_when_ready(cfg: Any) -> None:  # noqa: ANN401 (no types)
    """Make gunicorn's own arbiter one of ours once it listens, before its first worker starts.

    So `-k lastcall.app.servers.gunicorn.ThreadWorker` is enough, with gunicorn's own command: none
    of its server hooks is called when a stop begins, and its end is one method. It is done by its
    class, as its state is the same.

    Args:
        cfg: gunicorn's settings.
    """
    theirs = cfg.when_ready

    def when_ready(arbiter: Any) -> None:  # noqa: ANN401 (no types)
        if type(arbiter) is bare.Arbiter:
            arbiter.__class__ = Arbiter
            arbiter.init_signals()
        elif not isinstance(arbiter, Arbiter):
            arbiter.log.warning(
                "lastcall does not know the arbiter %s: at a stop newcomers may be reset",
                type(arbiter).__name__,
            )
        theirs(arbiter)

    cfg.set("when_ready", when_ready)
