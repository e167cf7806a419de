"""What all gunicorn workers have in common: what they share with their arbiter, and their end.

A worker that is asked to end goes on as ever: it is drained by the lifecycle of its process (see
`lastcall.app.http.serving`), and told to end when nothing is left to lose. Whether the whole
service ends (then the accept queue is this worker's to empty) or only this worker (a reload, one
worker too many: then the queue is left to the others) is the arbiter's word, in a page of memory
that they share.

Source: gunicorn 27.0.1, workers/base.py, arbiter.py.
"""

from __future__ import annotations

import enum
import mmap
import os
import signal
import struct
import threading
from contextlib import contextmanager
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from gunicorn.workers import base  # type: ignore[import-untyped]

from lastcall.app import leave
from lastcall.app.http.serving import Serving
from lastcall.app.lifecycle import Lifecycle

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from lastcall.app.hooks import HookRun
    from lastcall.app.http.listeners import Listener

GRACEFUL_TIMEOUT_S = 30  # gunicorn's, when nobody sets it
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
# A signal for the whole group reaches a worker sooner than the arbiter can shut the door.
_WORD_S = 0.5
_LOOK_S = 0.002
_LEAST_S = 0.1
# Once all is over, threads that still hold a request get so long.
_CUT_S = 0.5


class Word(enum.IntEnum):
    """What the arbiter tells a worker beside the signal."""

    NONE = 0
    RETIRE = 1  # only this worker ends, or the sockets outlive us all
    LEAVE = 2  # the whole service ends, newcomers are still let in
    SHUT = 3  # and are not any more


class Note:
    """A page of memory that the arbiter and one worker share."""

    _WORD = struct.Struct("=B")
    _TIMES = struct.Struct("=dd")

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    @property
    def word(self) -> Word:
        """The arbiter's."""
        return Word(self._WORD.unpack_from(self._page, 0)[0])

    @word.setter
    def word(self, word: Word) -> None:
        self._WORD.pack_into(self._page, 0, word)

    @property
    def grace_s(self) -> float:
        """How long the worker may take to end, in seconds; 0: it has not told yet."""
        return float(self._TIMES.unpack_from(self._page, 8)[0])

    @property
    def announce_s(self) -> float:
        """How long it goes on taking work once it is asked to end, in seconds."""
        return float(self._TIMES.unpack_from(self._page, 8)[1])

    def promise(self, grace_s: float, announce_s: float) -> None:
        """Tell the arbiter how long the end of this worker takes at most, in seconds."""
        self._TIMES.pack_into(self._page, 8, grace_s, announce_s)


class Drain(Serving):
    """The drain of one worker, which heeds the arbiter's word.

    Args:
        worker: whose.
        given: as for `Serving`.
    """

    def __init__(self, worker: Drained, **given: Any) -> None:  # noqa: ANN401 (as Serving's)
        # With --reuse-port each worker has sockets of its own.
        super().__init__(worker.lifecycle, shared=not worker.cfg.reuse_port, **given)
        self.empties: bool = False  # the accept queue is ours to empty
        self._note = worker.note

    def _turn_away(self, run: HookRun, listeners: Sequence[Listener]) -> bool:
        self.empties = super()._turn_away(run, listeners)
        return self.empties

    def _wait_for_parent(self, run: HookRun, listeners: Sequence[Listener]) -> bool:
        report = self.lifecycle.report
        asked = report is not None and report.signum is not None
        until_s = monotonic() + (_WORD_S if asked else 0.0)
        while True:
            if (word := self._note.word) in {Word.RETIRE, Word.SHUT}:
                return word is Word.SHUT
            # An arbiter that knows nothing of us says no word; another one may still have done it.
            if any(one.turned_away() for one in listeners):
                return True
            if monotonic() >= until_s or run.cancelled.is_set():
                return word is Word.LEAVE
            sleep(_LOOK_S)


class Drained(base.Worker):  # type: ignore[misc]  # (no types)
    """A gunicorn worker whose process ends with its lifecycle.

    Args:
        given: as for gunicorn's own.
    """

    lifecycle: Lifecycle
    serving: Drain

    def __init__(self, *given: Any, **named: Any) -> None:  # noqa: ANN401 (as gunicorn's)
        self._alive = True
        self._begun = False
        self.told: bool = False  # nothing is left to lose
        self.note: Note = Note()  # made before the fork: it is the arbiter's, too
        self._early: list[int] = []
        super().__init__(*given, **named)

    # -- in the arbiter

    @classmethod
    def setup(cls) -> None:
        """Called by the arbiter before it loads anything."""
        Serving.hosted = True
        if hasattr(super(), "setup"):
            super().setup()

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:  # noqa: ANN401 (no types)
        """Called by the arbiter once it listens: gunicorn's own arbiter becomes ours here."""
        from lastcall.app.servers.gunicorn_arbiter import adopt_when_ready

        if hasattr(super(), "check_config"):
            super().check_config(cfg, log)
        adopt_when_ready(cfg)

    # -- gunicorn's flag: whoever clears it wants this worker to end

    @property
    def alive(self) -> bool:
        """Whether gunicorn's loops go on."""
        return self._alive

    @alive.setter
    def alive(self, value: bool) -> None:
        if value or self.told or not self._begun:
            self._alive = value
        else:
            self.retire("gunicorn replaces this worker")

    def retire(self, reason: str) -> None:
        """End, without a signal: the limit of requests, new code, a lost arbiter."""
        if not self.lifecycle.stopping:
            # Nobody is to be told: others serve on.
            self.lifecycle.house.plan.announce_s = 0.0
            self.lifecycle.request_stop(reason)

    # -- signals

    def init_signals(self) -> None:
        """Gunicorn's own, but those that end it: they are the lifecycle's, once it is there."""
        super().init_signals()
        loop = getattr(self, "loop", None)
        for number in STOPS:
            if loop is not None:
                loop.remove_signal_handler(number)
            # A terminal's SIGINT is for the arbiter: it passes it on. It is not ignored, as
            # programs that the application starts would inherit that.
            signal.signal(number, _nothing if number == signal.SIGINT else self._hear_early)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)  # blocked over the fork

    def _hear_early(self, number: int, _frame: FrameType | None) -> None:
        """The application is being loaded still."""
        self._early.append(number)

    def handle_abort(self, sig: int, frame: FrameType | None) -> None:
        """The arbiter has lost patience: it kills this worker in a second."""
        self.told = True
        super().handle_abort(sig, frame)

    # -- the lifecycle

    def begin(self) -> Lifecycle:
        """Find the lifecycle; the application is loaded by now."""
        lifecycle = self.lifecycle = getattr(self.app, "lifecycle", None) or current(self.cfg)
        house = lifecycle.house
        # The arbiter repeats SIGTERM, and says SIGQUIT if it is to be now.
        house.signals.numbers = (signal.SIGTERM, signal.SIGQUIT)
        house.insists = {signal.SIGQUIT: signal.SIGTERM}
        self.note.promise(house.plan.grace_s, house.plan.announce_s)
        house.start()
        if house.status is not None and house.status.notifier is not None:
            # The service manager would take a worker's end for the service's.
            house.status.notifier.close()
            house.status.notifier = None
        self._begun = True
        return lifecycle

    def heed(self) -> None:
        """Begin the stop that was asked for while the application was loaded."""
        if self._early:
            self.lifecycle.request_stop("SIGTERM while it started", signum=signal.SIGTERM)

    def over(self) -> None:
        """The server has ended; hooks may still run: the arbiter is not to take it for stuck."""
        self.told = True
        self.serving.has_stopped()
        self.retire("the server has ended")
        threading.Thread(target=self._keep_notifying, name="lastcall-notify", daemon=True).start()

    def _keep_notifying(self) -> None:
        every_s = max(_LEAST_S, min(1.0, self.timeout or 1.0))
        while not self.lifecycle.ended.wait(every_s):
            self.notify()

    @property
    def hurried(self) -> bool:
        """Whether the end is to be now."""
        report = self.lifecycle.report
        immediate = self.lifecycle.house.shutdown == "immediate"
        return immediate or (report is not None and bool(report.hurried))

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """Around all of its run: the process is to end, whatever was cut off."""
        try:
            yield
        except SystemExit:
            if self._begun:
                self._leave_for_sure()
            raise

    def _leave_for_sure(self) -> None:
        """Work was cut off: threads that hold it must not keep the interpreter from ending."""
        report = self.lifecycle.report
        if report is None or not (report.left or report.hurried):
            return

        def leave_soon() -> None:
            sleep(_CUT_S)
            leave.flush_all()
            self.lifecycle.house.leave_now(report)

        threading.Thread(target=leave_soon, name="lastcall-leave", daemon=True).start()


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """What is done about a signal that is somebody else's."""


def current(cfg: Any) -> Lifecycle:  # noqa: ANN401 (no types)
    """The process's lifecycle; without one, the grace period is gunicorn's, where it was set."""
    limit_s = cfg.graceful_timeout
    if Lifecycle._current is not None:  # noqa: SLF001 (`current` would make one)
        return Lifecycle.current()
    if "LASTCALL_GRACE_S" not in os.environ and limit_s != GRACEFUL_TIMEOUT_S:
        return Lifecycle(grace_s=max(limit_s, _LEAST_S))
    return Lifecycle()
