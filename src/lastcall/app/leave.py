"""Leaving: the right exit code whatever happens, also when nothing in Python can run any more.

Source: signal(7); timer_create(2), sigevent(7): SIGEV_THREAD makes the C library call a function on
a thread of its own, which needs neither the interpreter nor its lock; `_exit(2)` is such a
function. faulthandler.dump_traceback_later in Python's documentation.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from time import monotonic

from lastcall.app.voice import voice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# The backstop comes so long after the deadline: time to log what was cut off.
MARGIN_S = 1.0
_DUMP_S = 0.5
FLUSH_S = 1.0
_SHELL_SIGNAL = 128
_CLOCK_MONOTONIC, _SIGEV_THREAD = 1, 2


def prepare() -> None:
    """Load what leaving needs, while there are files to be had.

    A daemon thread that outlives the interpreter ends by pthread_exit, for which the GNU C library
    loads libgcc_s then: if it cannot, the process dies of SIGABRT.
    """
    if sys.platform.startswith("linux"):
        with suppress(ImportError, OSError):
            import ctypes

            ctypes.CDLL("libgcc_s.so.1")


class Backstop:
    """Ends the process at a moment, even if some C code never lets go of the interpreter's lock.

    Half a second before, faulthandler writes the stacks of all threads to stderr (it has one slot:
    a timer of the program's own is replaced).
    """

    def __init__(self) -> None:
        self._timer: tuple[Any, Any] | None = None
        self._dumping = False
        self._exact = False
        self._dump_at_s = 0.0

    def arm(self, after_s: float, code: int) -> None:
        """Set it, or set it anew.

        Args:
            after_s: in how many seconds.
            code: what the process exits with.
        """
        self._end_timer()
        self._exact = self._start_timer(after_s, code)
        self._dump_at_s = monotonic() + after_s - (_DUMP_S if self._exact else 0.0)
        self._dump_later()

    def _dump_later(self) -> None:
        import faulthandler

        try:
            wait_s = max(0.001, self._dump_at_s - monotonic())
            # Without a timer of our own the exit status is 1: faulthandler knows no other.
            exits = not self._exact
            faulthandler.dump_traceback_later(wait_s, exit=exits, file=sys.__stderr__ or 2)
            self._dumping = True
        except (OSError, ValueError, AttributeError, RuntimeError):
            self._dumping = False  # stderr is closed or no file

    def before_fork(self) -> None:
        """Pause: a child would wait for ever for faulthandler's thread, which it does not have.

        Source: Modules/faulthandler.c, cancel_dump_traceback_later() and _PyFaulthandler_Fini().
        """
        if self._dumping:
            import faulthandler

            faulthandler.cancel_dump_traceback_later()

    def after_fork(self) -> None:
        """Go on, in the parent."""
        if self._dumping:
            self._dump_later()

    def disarm(self) -> None:
        """Take it back."""
        self._end_timer()
        if self._dumping:
            import faulthandler

            faulthandler.cancel_dump_traceback_later()
            self._dumping = False

    def _start_timer(self, after_s: float, code: int) -> bool:
        if not sys.platform.startswith("linux"):
            return False
        try:
            import ctypes

            libc = ctypes.CDLL(None, use_errno=True)
            leave = ctypes.cast(libc["_exit"], ctypes.c_void_p).value
            # struct sigevent: value, signal and kind of notice, function, attributes; 64 bytes
            event = (ctypes.c_uint64 * 8)(code, _SIGEV_THREAD << 32, leave or 0, 0)
            timer = ctypes.c_void_p()
            if sys.byteorder != "little" or ctypes.sizeof(ctypes.c_void_p) != 8:  # noqa: PLR2004
                return False
            if libc.timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)):
                return False
            seconds, rest = divmod(after_s, 1.0)
            # struct itimerspec: it_interval, it_value; no interval
            when = (ctypes.c_long * 4)(0, 0, int(seconds), max(1, int(rest * 1e9)))
            if libc.timer_settime(timer, 0, ctypes.byref(when), None):
                libc.timer_delete(timer)
                return False
        except (ImportError, OSError, AttributeError, ValueError):
            return False
        self._timer = (libc, timer)
        return True

    def _end_timer(self) -> None:
        if self._timer is not None:
            libc, timer = self._timer
            libc.timer_delete(timer)
            self._timer = None


def within(limit_s: float, *jobs: Callable[[], object]) -> bool:
    """Do some last things, each on a thread, so that none can hold us. Whether all came back."""
    done = []
    for job in jobs:
        ended = threading.Event()

        def run(job: Callable[[], object] = job, ended: threading.Event = ended) -> None:
            with suppress(Exception):  # nobody is left to be told
                job()
            ended.set()

        try:
            threading.Thread(target=run, daemon=True).start()
        except RuntimeError:  # none to be had, or the interpreter ends: the backstop still holds
            run()
        done.append(ended.wait(limit_s))
    return all(done)


def flush_all(limit_s: float = FLUSH_S) -> bool:
    """Write out what is buffered: our own lines, stdout and stderr, the handlers of `logging`."""
    voice.finish(limit_s)

    def streams() -> None:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()

    def logs() -> None:
        logging = sys.modules.get("logging")
        if logging is not None:
            logging.shutdown()

    return within(limit_s, streams, _log_queues, logs)


def _log_queues() -> None:
    """Let listeners of `logging`'s queues write what they have been given."""
    handlers = sys.modules.get("logging.handlers")
    if handlers is None:
        return
    import logging

    for reference in logging._handlerList[:]:  # type: ignore[attr-defined]  # noqa: SLF001 (as shutdown does)
        handler = reference()
        if isinstance(handler, handlers.QueueHandler) and hasattr(handler.queue, "join"):
            handler.queue.join()


def die_of(signum: int) -> None:
    """End by a signal, so that whoever waits for us sees that; without atexit and `finally`.

    As PID 1 the default action of a signal is nothing: then it is 128 + its number.
    """
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signum, signal.SIG_DFL)
        else:
            import ctypes

            ctypes.CDLL(None).signal(signum, None)  # SIG_DFL; `signal.signal` is main's alone
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signum])
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(threading.get_ident(), signum)
    except (OSError, ValueError, ImportError, AttributeError):
        pass
    halt(code_for(signum))


def halt(code: int) -> None:
    """End at once: no hook, no atexit, no `finally`, nothing flushed."""
    os._exit(code)


def code_for(signum: int) -> int:
    """The exit code that a shell reports for a signal."""
    return _SHELL_SIGNAL + signum
