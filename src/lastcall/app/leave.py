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

from lastcall.app.voice import voice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# The backstop comes so long after the deadline: time to log what was cut off.
MARGIN_S = 1.0
_DUMP_S = 0.5
_FLUSH_S = 1.0
_SHELL_SIGNAL = 128
_CLOCK_MONOTONIC, _SIGEV_THREAD = 1, 2


class Backstop:
    """Ends the process at a moment, even if some C code never lets go of the interpreter's lock.

    Half a second before, faulthandler writes the stacks of all threads to stderr (it has one slot:
    a timer of the program's own is replaced).
    """

    def __init__(self) -> None:
        self._timer: tuple[Any, Any] | None = None
        self._dumping = False

    def arm(self, after_s: float, code: int) -> None:
        """Set it, or set it anew.

        Args:
            after_s: in how many seconds.
            code: what the process exits with.
        """
        self._end_timer()
        exact = self._start_timer(after_s, code)
        import faulthandler

        try:
            wait_s = max(0.001, after_s - _DUMP_S) if exact else after_s
            # Without a timer of our own the exit status is 1: faulthandler knows no other.
            faulthandler.dump_traceback_later(wait_s, exit=not exact, file=sys.__stderr__ or 2)
            self._dumping = True
        except (OSError, ValueError, AttributeError, RuntimeError):
            self._dumping = False  # stderr is closed or no file

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
        except RuntimeError:
            continue
        done.append(ended.wait(limit_s))
    return all(done)


def flush_all(limit_s: float = _FLUSH_S) -> bool:
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

    return within(limit_s, streams, logs)


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
    halt(_SHELL_SIGNAL + signum)


def halt(code: int) -> None:
    """End at once: no hook, no atexit, no `finally`, nothing flushed."""
    os._exit(code)


def code_for(signum: int) -> int:
    """The exit code that a shell reports for a signal."""
    return _SHELL_SIGNAL + signum
