"""How a guest ended, from what happened to it. Pure.

The first SHUTDOWN counts: with `-no-shutdown`, which libvirt always gives, a SIGTERM that only
clears QEMU away adds a second one (softmmu/runstate.c, QEMU 7.2). Ended means that the machine is
gone, not that the guest is off.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from lastcall.model import Cause, Ended, Missing
from lastcall.targets.guest.words import Happening, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

# QEMU's ShutdownCause (qapi/run-state.json), in words. Others are told as they are.
_REASONS = {
    "guest-shutdown": "the guest powered itself off",
    "guest-reset": "the guest wanted to start again, and its machine ends instead (-no-reboot)",
    "guest-panic": "the guest's kernel panicked",
    "host-signal": "a signal ended QEMU",
    "host-qmp-quit": "somebody ended QEMU by its monitor",
    "host-qmp-system-reset": "somebody reset it by QEMU's monitor",
    "host-ui": "somebody closed QEMU's window",
    "host-error": "QEMU failed",
    "subsystem-reset": "its firmware reset it",
    "snapshot-load": "a snapshot was loaded",
}
_CAUSES = {
    "guest-shutdown": Cause.BY_ITSELF,
    "guest-reset": Cause.REBOOTED,
    "guest-panic": Cause.PANICKED,
    "host-error": Cause.FAILED,
}


def powered_off(happened: Sequence[Happening]) -> Happening | None:
    """The power-off that counts: the first since the machine last came back; None: none yet."""
    first = None
    for each in happened:
        if each.kind is Kind.SHUTDOWN and first is None:
            first = each
        elif each.kind in {Kind.RESET, Kind.WAKEUP}:
            first = None
    return first


def rebooted(happened: Sequence[Happening], asked_s: float | None) -> Happening | None:
    """The guest's own reset after it was asked; None: there was none.

    Args:
        happened: everything, oldest first.
        asked_s: when it was first asked; None: it was not.
    """
    if asked_s is None:
        return None
    for each in happened:
        if each.kind is Kind.RESET and each.guest is not False and each.at_s >= asked_s:
            return each
    return None


def ended(happened: Sequence[Happening], asked_s: float | None) -> Ended | Missing | None:
    """How it ended; None: it has not.

    A guest that starts again instead of powering off has come to the end of this stop, too.

    Args:
        happened: everything, oldest first.
        asked_s: when it was first asked; None: it was not.
    """
    reset = rebooted(happened, asked_s)
    if reset is not None:
        why = f" ({reset.reason})" if reset.reason else ""
        return Ended(Cause.REBOOTED, f"the guest started again instead of powering off{why}")
    last = happened[-1] if happened else None
    if last is None or last.kind not in {Kind.GONE, Kind.MIGRATED}:
        return None
    if last.kind is Kind.MIGRATED:
        return Missing("it runs on another host now; it was not stopped here")
    off = powered_off(happened)
    if off is None:
        return _without_a_word(last)
    return _by_word(off, happened)


def _by_word(off: Happening, happened: Sequence[Happening]) -> Ended:
    detail = _REASONS.get(off.reason, off.reason or "its machine said that it powered off")
    by_guest = False if off.reason.startswith("host-") else off.guest
    cause = _CAUSES.get(off.reason)
    if cause is None and by_guest is None:
        cause = Cause.UNKNOWN
    elif cause is None:
        cause = Cause.BY_ITSELF if by_guest else Cause.TAKEN_AWAY
    panicked = any(each.kind is Kind.PANICKED for each in happened)
    if cause is Cause.BY_ITSELF and panicked:
        return Ended(Cause.PANICKED, "the guest's kernel panicked, and it powered off")
    if cause is Cause.BY_ITSELF and _to_disk(happened, off):
        detail = (
            "the guest wrote its memory to disk and powered off: its file systems are not clean"
        )
        cause = Cause.HIBERNATED
    return Ended(cause, detail)


def _to_disk(happened: Sequence[Happening], off: Happening) -> bool:
    """Whether the power-off is that of a hibernation: the word for it came right before."""
    before = happened[: happened.index(off)]
    return any(each.kind is Kind.SUSPEND_DISK for each in before[-3:])


def _without_a_word(gone: Happening) -> Ended | Missing:
    """Its machine went without saying that it powers off: killed, or crashed."""
    if gone.status is None:
        detail = gone.detail or "its machine is gone, and said nothing"
        return Ended(Cause.UNKNOWN, detail)
    if os.WIFSIGNALED(gone.status):
        signum = os.WTERMSIG(gone.status)
        name = signal.Signals(signum).name if signum in set(signal.Signals) else f"signal {signum}"
        if signum in {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}:
            return Ended(Cause.TAKEN_AWAY, f"{name} ended QEMU")
        return Ended(Cause.FAILED, f"QEMU crashed ({name})")
    code = os.WEXITSTATUS(gone.status)
    if code:
        return Ended(Cause.FAILED, f"QEMU failed with status {code}")
    return Ended(Cause.UNKNOWN, "QEMU exited with status 0, and nobody heard why")
