"""How a program ended, as its wait status says. Source: wait(2)."""

from __future__ import annotations

import os
import signal

from lastcall.record import record


@record
class Exit:
    """How the main process of a program ended.

    Args:
        status: its wait status, see wait(2).
        at: when, on the clock of `time.monotonic`.
    """

    status: int
    at: float

    def __str__(self) -> str:
        return status_in_words(self.status)


def status_in_words(status: int) -> str:
    """A wait status, for people to read."""
    if not os.WIFSIGNALED(status):
        return f"exit status {os.waitstatus_to_exitcode(status)}"
    try:
        name = signal.Signals(os.WTERMSIG(status)).name
    except ValueError:
        name = f"signal {os.WTERMSIG(status)}"
    return f"died of {name}{', core dumped' if os.WCOREDUMP(status) else ''}"
