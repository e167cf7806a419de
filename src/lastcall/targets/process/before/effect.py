"""What one signal would do to a process: everything the kernel shows, judged before it is sent.

Source: signal(7), signalfd(2), sigwaitinfo(2), pid_namespaces(7) ("signals to the init process"),
Linux kernel/signal.c (sig_task_ignored, do_sigtimedwait), fs/signalfd.c (fdinfo "sigmask"); Go
package os/signal ("Default behavior of signals in Go programs").
"""

from __future__ import annotations

import os
import signal
from dataclasses import field
from enum import StrEnum
from typing import TYPE_CHECKING

from lastcall.kernel import procfs
from lastcall.record import record
from lastcall.targets.process import runtime, signals
from lastcall.targets.process.condition import wchan
from lastcall.targets.process.runtime import Recognised, Runtime

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_DESCRIPTORS = 4096

_TERM, _INT, _HUP = int(signal.SIGTERM), int(signal.SIGINT), int(signal.SIGHUP)
_QUIT, _USR1, _USR2 = int(signal.SIGQUIT), int(signal.SIGUSR1), int(signal.SIGUSR2)
# What Go does by itself: these end the program, all others are caught and thrown away.
_GO_ENDS_ON = frozenset(
    int(s)
    for s in (
        *(signal.SIGHUP, signal.SIGINT, signal.SIGTERM),
        *(signal.SIGQUIT, signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGSYS),
    )
)
# What each runtime catches without being asked; see `lastcall.targets.process.runtime` for sources.
_CAUGHT_BY: dict[Runtime, frozenset[int]] = {
    Runtime.GO: frozenset(range(1, signals.LAST + 1)),
    Runtime.NODE: frozenset({_INT, _TERM, _USR1}),
    Runtime.JVM: frozenset({_HUP, _INT, _TERM, _QUIT, _USR2}),
    Runtime.DOTNET: frozenset({_INT, _QUIT, _TERM}),
    Runtime.RUBY: frozenset({_HUP, _INT, _QUIT, _TERM, _USR1, _USR2, int(signal.SIGALRM)}),
    Runtime.SHELL: frozenset({_INT}),
}


class Effect(StrEnum):
    """What a signal would do."""

    HANDLED = "handled by the program"
    READ = "read by the program"
    RUNTIME = "caught by the runtime"
    IGNORED = "ignored"
    BLOCKED = "blocked"
    DROPPED = "dropped by the kernel"
    KILLS = "kills at once"
    PAUSES = "pauses it"
    NOTHING = "does nothing"


@record
class Sight:
    """What can be seen of a process's signals before anything is sent.

    Args:
        runs_on: its runtime, with the evidence.
        init: whether it is PID 1 of a pid namespace.
        read: (signal, how) for signals that a thread fetches with sigwait or a signalfd instead of
            a handler.
        waits_unseen: whether a thread fetches signals, and this user may not see which.
    """

    pid: int
    states: dict[int, signals.SignalState]
    runs_on: Recognised
    init: bool
    read: dict[int, str] = field(default_factory=dict)
    waits_unseen: bool = False


def sight(pid: int, asked: Sequence[int]) -> Sight:
    """Look at the process, closely at the asked signals. Raises as `procfs.read_bytes`."""
    status = procfs.status(pid)
    states = signals.states(pid, status)
    read: dict[int, str] = {}
    if any(states[s].blocked for s in asked):
        read.update(_by_signalfd(pid, asked))
    unseen = False
    if any(not (states[s].handled or states[s].ignored) for s in asked):
        waited, unseen = _by_sigwait(pid)
        read.update({s: "sigwait" for s in asked if waited >> (s - 1) & 1})
    init = status.get("NSpid", str(pid)).split()[-1:] == ["1"]
    return Sight(pid, states, runtime.look(pid), init, read, unseen)


def effect(seen: Sight, signum: int) -> Effect:
    """What this signal would do."""
    state = seen.states[signum]
    if signum == signal.SIGKILL:
        return Effect.KILLS
    if signum == signal.SIGSTOP:
        return Effect.PAUSES
    if signum in seen.read:
        return Effect.READ
    if state.ignored:
        return Effect.IGNORED
    if state.blocked:
        return Effect.BLOCKED
    if state.handled:
        return _handled(seen, signum)
    if signum in signals.DOES_NOTHING:
        return Effect.NOTHING
    if seen.init:
        return Effect.DROPPED
    return Effect.PAUSES if signum in signals.PAUSES else Effect.KILLS


def _handled(seen: Sight, signum: int) -> Effect:
    """Whose handler it is: the program's, or one that its runtime always has."""
    runs_on = seen.runs_on
    if runs_on.runtime is Runtime.CPYTHON and signum == _INT:
        # Python's own handler and a program's own look alike; a program that handles no SIGTERM
        # hardly handles SIGINT.
        return Effect.HANDLED if seen.states[_TERM].handled else Effect.RUNTIME
    if signum not in _CAUGHT_BY.get(runs_on.runtime, ()):
        return Effect.HANDLED
    if runs_on.asks_for_signals is False:
        return Effect.KILLS if signum in _GO_ENDS_ON else Effect.NOTHING
    return Effect.RUNTIME


def _by_signalfd(pid: int, asked: Sequence[int]) -> dict[int, str]:
    """Which of the asked signals a signalfd of the process delivers; nothing where unreadable."""
    try:
        fds = os.listdir(f"/proc/{pid}/fd")[:_MOST_DESCRIPTORS]
    except (PermissionError, FileNotFoundError):
        return {}
    mask = 0
    for fd in fds:
        try:
            if os.readlink(f"/proc/{pid}/fd/{fd}") == "anon_inode:[signalfd]":
                info = procfs.parse_status(procfs.read_bytes(f"/proc/{pid}/fdinfo/{fd}"))
                mask |= int(info.get("sigmask", "0"), 16)
        except OSError:
            continue
    return {s: "signalfd" for s in asked if mask >> (s - 1) & 1}


def _by_sigwait(pid: int) -> tuple[int, bool]:
    """The signals that threads wait for in sigwait, and whether one waits for unseen ones.

    While a thread waits so, the kernel takes these signals out of its blocked mask, and they do
    not kill although they have no handler: the masks alone would tell the very opposite.
    """
    mask, unseen = 0, False
    for tid in procfs.tids(pid):
        try:
            if "sigtimedwait" in wchan(pid, tid):
                mask |= _waited_for(pid, tid)
        except ProcessLookupError:
            continue
        except OSError:  # reading its memory needs ptrace permission, its wchan less
            unseen = True
    return mask, unseen


def _waited_for(pid: int, tid: int) -> int:
    """The set that a thread gave to rt_sigtimedwait, its first argument."""
    words = procfs.read_bytes(f"/proc/{pid}/task/{tid}/syscall").split()
    if len(words) < 2:  # noqa: PLR2004 ("running" alone: it has just left the call)
        return 0
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int.from_bytes(os.pread(fd, 8, int(words[1], 16)), "little")
    finally:
        os.close(fd)
