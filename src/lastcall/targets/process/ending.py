"""What a wait status says about how a process ended, given what it was asked. Pure.

Source: wait(2); the shell's 128 + n, which JVMs also use (143 for SIGTERM after their hooks).
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from lastcall.errors import ExitCode
from lastcall.model import Cause
from lastcall.record import record
from lastcall.targets.process.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Signals that a program brings upon itself.
_OWN_FAULTS = {
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGILL,
    signal.SIGFPE,
    signal.SIGABRT,
    signal.SIGSYS,
    signal.SIGTRAP,
    signal.SIGXCPU,
    signal.SIGXFSZ,
}
# Runtimes that catch a stop signal only to die of it: a death by signal proves no handler there.
_DIES_CAUGHT = {Runtime.GO, Runtime.NODE}
_SHOWN = 5
# From the gravest to the mildest: the cause of a set is the gravest of its members'.
_GRAVITY = (
    Cause.TAKEN_AWAY,
    Cause.UNKNOWN,
    Cause.CUT_OFF,
    Cause.FAILED,
    Cause.UNHANDLED,
    Cause.BY_ITSELF,
)


@record
class Asks:
    """What is known of a process when it is asked.

    Args:
        sent: the signals it was sent (or may have been, if that is in doubt).
        handled: those of them that it had a handler for at that time.
        runtime: what runs it.
    """

    sent: frozenset[int] = frozenset()
    handled: frozenset[int] = frozenset()
    runtime: Runtime = Runtime.OTHER


def explain(status: int | None, asks: Asks, *, lifecycle: bool = False) -> tuple[Cause, str]:
    """The cause of an end and its description.

    Args:
        status: the wait status; None: not known.
        asks: what it was asked.
        lifecycle: whether it has told, as a `lastcall.Lifecycle` does, that it was stopping.
    """
    if status is None:
        return Cause.UNKNOWN, "it is gone; the kernel does not say how it ended"
    if os.WIFSIGNALED(status):
        core = ", core dumped" if os.WCOREDUMP(status) else ""
        return _of_signal(os.WTERMSIG(status), core, asks)
    code = os.waitstatus_to_exitcode(status)
    if code > 128 and code - 128 in asks.sent:  # noqa: PLR2004 (128 + n is the shell's convention)
        return Cause.BY_ITSELF, f"exit status {code} (128 + {_name(code - 128)})"
    if lifecycle and code == ExitCode.CUT_OFF:
        return Cause.CUT_OFF, f"exit status {code}: its lifecycle cut work off at the deadline"
    aside = ""
    if asks.runtime is Runtime.JVM and asks.sent & {1, 2, 15}:
        aside = ", not the JVM's own after a signal: exit or halt was called by the program"
    if code == 0:
        return Cause.BY_ITSELF, f"exit status 0{aside}"
    return Cause.FAILED, f"exit status {code}: the program says that it failed{aside}"


def _of_signal(signum: int, core: str, asks: Asks) -> tuple[Cause, str]:
    name = _name(signum)
    if signum in asks.sent and signum != signal.SIGKILL:
        if signum not in asks.handled:
            return Cause.UNHANDLED, f"died of {name}{core}: it had no handler for it"
        if asks.runtime in _DIES_CAUGHT:
            runtime = asks.runtime.value
            return Cause.UNHANDLED, f"died of {name}{core}: caught by {runtime} only to die of it"
        return Cause.BY_ITSELF, f"handled {name}, then ended itself with it{core}"
    if signum in _OWN_FAULTS:
        return Cause.FAILED, f"crashed with {name}{core}"
    return Cause.TAKEN_AWAY, f"killed by {name}{core}"


def gravest(ends: Mapping[int, tuple[Cause, str]]) -> tuple[Cause, str]:
    """The end of a set of processes: the cause of its gravest member, and what each came to.

    Args:
        ends: how each pid ended, the root first.
    """
    cause = min((cause for cause, _ in ends.values()), key=_GRAVITY.index)
    if len(ends) == 1:
        return cause, next(iter(ends.values()))[1]
    alike: dict[tuple[Cause, str], list[int]] = {}
    for pid, end in ends.items():
        alike.setdefault(end, []).append(pid)
    ordered = sorted(alike.items(), key=lambda item: _GRAVITY.index(item[0][0]))
    return cause, "; ".join(f"{pids_in_words(pids)}: {detail}" for (_, detail), pids in ordered)


def pids_in_words(pids: Sequence[int]) -> str:
    """A few pids, and how many more."""
    shown = ", ".join(str(pid) for pid in pids[:_SHOWN])
    more = f" and {len(pids) - _SHOWN} more" if len(pids) > _SHOWN else ""
    return f"pid {shown}{more}"


def _name(signum: int) -> str:
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"
