"""A process that only starts workers: it ends with them, and as they did.

It has no lifecycle of its own: the application's hooks, limits and exit code are its workers'. What
it does on a signal is little, so that nothing can hold it up: it passes the wish on, and waits.
"""

from __future__ import annotations

import atexit
import os
import signal
import time
from typing import TYPE_CHECKING

from lastcall.app import leave
from lastcall.app.notify import Notifier
from lastcall.app.signals import default_signals, same_s
from lastcall.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType
    from typing import Any, NoReturn

_HURRIED = 2


class Wishes:
    """What the signals to a parent mean: the first to end, the second now, the third at once.

    Args:
        first: told which signal it was; in the main thread, between two bytecodes.
        second: the same.
        third: the same; it is to take the workers away, and leaves no other.
    """

    def __init__(
        self,
        first: Callable[[int], object],
        second: Callable[[int], object],
        third: Callable[[int], object],
    ) -> None:
        self.signum: int | None = None  # the first
        self._steps = (first, second, third)
        self._count = 0
        self._seen_s = float("-inf")
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Take the signals; one that is ignored (nohup) stays so."""
        for number in default_signals():
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:
                self._before[number] = before
                signal.signal(number, self.handle)

    def restore(self) -> None:
        """Give them back."""
        for number, before in self._before.items():
            if signal.getsignal(number) == self.handle:
                signal.signal(number, signal.SIG_DFL if before is None else before)
        self._before.clear()

    def handle(self, number: int, _frame: FrameType | None = None) -> None:
        """One signal has come; what comes right behind the last is the same wish once more."""
        now_s = time.monotonic()
        same = now_s - self._seen_s < same_s(number)
        self._seen_s = now_s
        if same:
            return
        if self.signum is None:
            self.signum = number
        step = self._steps[min(self._count, _HURRIED)]
        self._count += 1
        step(number)


def code_of(codes: Iterable[int | None], asked: int) -> int:
    """What a parent is to exit with whose workers have ended like this; negative: of a signal.

    Args:
        codes: the workers' exit codes; None: unknown.
        asked: the signal that the parent got; the workers get SIGTERM, or this one from whoever
            sends it to all.
    """
    # What their lifecycle decided counts for the whole; the worst where they differ.
    found = {code for code in codes if code is not None}
    sent = {int(signal.SIGTERM), asked}
    by_signal, by_code = {-number for number in sent}, {leave.code_for(n) for n in sent}
    if ExitCode.CUT_OFF in found:
        return int(ExitCode.CUT_OFF)
    others = sorted(found - {0} - by_signal - by_code)
    if others:
        return others[0]
    if found & by_signal or not found:
        return -asked
    return leave.code_for(asked) if found & by_code else 0


def notify_ready() -> None:
    """Tell the service manager (systemd, `Type=notify`) that the workers serve: READY=1.

    They cannot: it listens to its main process.
    """
    notifier = Notifier.of(None, os.environ)  # type: ignore[arg-type]  # (a parent has no house)
    if notifier is not None:
        notifier.ready()
        notifier.close()


def leave_with(code: int) -> NoReturn:
    """End this process.

    Args:
        code: the exit code; negative: the number of the signal that it is to die of.

    Raises:
        SystemExit: it is an exit code.
    """
    if code < 0:
        # Dying of a signal skips what the interpreter does at its end, so do it before.
        atexit._run_exitfuncs()  # noqa: SLF001 (there is no other way to run them)
        leave.flush_all()
        leave.die_of(-code)
    raise SystemExit(code)


def leave_at_once(signum: int) -> NoReturn:
    """End this process with nothing done."""
    os._exit(leave.code_for(signum))
