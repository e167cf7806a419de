"""How late the event loop handles what happens: that is the error of every time in the history.

A client's times are taken when the loop comes to handle an event, not when it happens. How long
that takes is measured the same way as it strikes the clients: by events of our own whose exact
moment is known, some 600 a second. The loop's own timers will not do for that: `epoll_wait` counts
in milliseconds, so they come up to one late on an idle machine. A timerfd is exact to microseconds
and is one more readable file to the loop.

Source: timerfd_create(2), epoll_wait(2); Python's selectors.EpollSelector rounds up to 1 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
from array import array
from time import monotonic_ns
from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

# Off the beat of anything else, so that it does not always meet the same work.
_EVERY_S = 0.0017
_NS = 1_000_000_000
_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1
_COUNT_BYTES = 8


class _Timerspec(ctypes.Structure):
    """`struct itimerspec`."""

    _fields_: ClassVar = [
        ("every_s", ctypes.c_long),
        ("every_ns", ctypes.c_long),
        ("first_s", ctypes.c_long),
        ("first_ns", ctypes.c_long),
    ]


class Ticker:
    """Calls back at first_s, first_s + every_s, ... on the clock of `time.monotonic`.

    What is missed is not made up for: the call says nothing of how many times have passed.

    Args:
        first_s: when to begin.
        every_s: the period, in seconds.
        call: what is called, in the running event loop.

    Raises:
        OSError: there is no timer to be had.
    """

    def __init__(self, first_s: float, every_s: float, call: Callable[[], None]) -> None:
        self._call = call
        # os.timerfd_create came with Python 3.13.
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "no timer: timerfd_create failed")
        first, every = divmod(int(first_s * _NS), _NS), divmod(max(1, int(every_s * _NS)), _NS)
        spec = _Timerspec(*every, *first)
        if libc.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(spec), None) < 0:
            error = ctypes.get_errno()
            os.close(self._fd)
            raise OSError(error, "no timer: timerfd_settime failed")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._expired)

    def _expired(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, _COUNT_BYTES)
        self._call()

    def close(self) -> None:
        """No more calls."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)


class Lag:
    """Measures, while it is entered, how late the running event loop handles what happens.

    Args:
        every_s: one sample so often, in seconds.
    """

    def __init__(self, every_s: float = _EVERY_S) -> None:
        self._every_ns = int(every_s * _NS)
        self._late_ns = array("q")
        self._begun_ns = self._next_ns = 0
        self._ticker: Ticker | None = None

    def __enter__(self) -> Self:
        self._begun_ns = monotonic_ns()
        self._next_ns = self._begun_ns + self._every_ns
        self._ticker = Ticker(self._next_ns / _NS, self._every_ns / _NS, self._look)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._look()  # what the loop is late for right now counts
        if self._ticker is not None:
            self._ticker.close()
            self._ticker = None

    def _look(self) -> None:
        """Every moment that has passed since the last look is a sample, the missed ones too."""
        now = monotonic_ns()
        while self._next_ns <= now:
            self._late_ns.append(now - self._next_ns)
            self._next_ns += self._every_ns

    @property
    def count(self) -> int:
        """How many samples there are."""
        return len(self._late_ns)

    @property
    def worst_s(self) -> float:
        """The largest delay, in seconds; 0 before the first sample."""
        return max(self._late_ns, default=0) / _NS

    def worst_between_s(self, begin: float, end: float) -> float:
        """The largest delay of what was due between two times, in seconds; 0: nothing was.

        Args:
            begin: on the clock of `time.monotonic`.
            end: the same.
        """
        first, last = (
            max(0, int((at * _NS - self._begun_ns) // self._every_ns)) for at in (begin, end)
        )
        return max(self._late_ns[first:last], default=0) / _NS

    def within_s(self, part: float = 0.999) -> float:
        """This part of the samples came within so many seconds.

        Args:
            part: between 0 and 1.
        """
        if not self._late_ns:
            return 0.0
        late = sorted(self._late_ns)
        return late[min(len(late) - 1, int(part * len(late)))] / _NS


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No pauses of the garbage collector: a full collection stops everything for milliseconds.

    What is there already is set aside, so that a collection afterwards is cheap as well; the
    trails of a drill hold no cycles and need none. As before at the end.
    """
    collected, frozen = gc.isenabled(), gc.get_freeze_count()
    gc.collect()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()
        if collected:
            gc.enable()
