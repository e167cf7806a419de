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
    "host-qmp-quit": "QEMU was told to end by its monitor",
    "host-qmp-system-reset": "it was reset by QEMU's monitor",
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


# How the journal tells what came right before a power-off (`off_words`).
_ON_DISK, _PANICKED = ", with its memory on disk", ", after its kernel panicked"
_SAYS_SO = "its machine says so"


def powered_off(happened: Sequence[Happening]) -> Happening | None:
    """The power-off that counts: the first since the machine last came back; None: none yet."""
    first = None
    for each in happened:
        if each.kind is Kind.SHUTDOWN and first is None:
            first = each
        elif each.kind in {Kind.RESET, Kind.WAKEUP}:
            first = None
    return first


def off_words(off: Happening, happened: Sequence[Happening]) -> str:
    """A power-off for the journal, so that `off_again` can tell it to a later owner.

    Args:
        off: as `powered_off` has it.
        happened: everything, oldest first.
    """
    words = off.reason or _SAYS_SO
    if _panicked(happened):
        return words + _PANICKED
    return words + _ON_DISK if _to_disk(happened, off) else words


def off_again(words: str, at_s: float) -> tuple[Happening, ...]:
    """What happened, by the journal's words for it; none: they do not say how it powered off."""
    reason = words.removesuffix(_PANICKED).removesuffix(_ON_DISK)
    if reason not in _REASONS:
        return ()
    off = Happening(Kind.SHUTDOWN, at_s, guest=reason.startswith("guest-"), reason=reason)
    before = {_PANICKED: Kind.PANICKED, _ON_DISK: Kind.SUSPEND_DISK}.get(words.removeprefix(reason))
    return (off,) if before is None else (Happening(before, at_s), off)


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
        words = f"the guest started again instead of powering off{why}"
        return Ended(Cause.REBOOTED, words, runs=True)
    last = happened[-1] if happened else None
    if last is None or last.kind not in {Kind.GONE, Kind.MIGRATED}:
        return None
    if last.kind is Kind.MIGRATED:
        return Missing("it runs on another host now; it was not stopped here")
    off = powered_off(happened)
    if off is None:
        return _by_libvirt(last, happened) or _without_a_word(last)
    return _by_word(off, happened)


def _by_word(off: Happening, happened: Sequence[Happening]) -> Ended:
    unheard = f"the guest powered off, and nobody heard how ({off.detail})" if off.detail else ""
    detail = _REASONS.get(
        off.reason, off.reason or unheard or "its machine said that it powered off"
    )
    by_guest = False if off.reason.startswith("host-") else off.guest
    cause = _CAUSES.get(off.reason)
    if cause is None and by_guest is None:
        cause = Cause.UNKNOWN
    elif cause is None:
        cause = Cause.BY_ITSELF if by_guest else Cause.TAKEN_AWAY
    if cause is Cause.BY_ITSELF and _panicked(happened):
        return Ended(Cause.PANICKED, "the guest's kernel panicked, and it powered off")
    if cause is Cause.BY_ITSELF and _to_disk(happened, off):
        detail = (
            "the guest wrote its memory to disk and powered off: its file systems are not clean"
        )
        cause = Cause.HIBERNATED
    return Ended(cause, detail)


def _panicked(happened: Sequence[Happening]) -> bool:
    return any(each.kind is Kind.PANICKED for each in happened)


def _to_disk(happened: Sequence[Happening], off: Happening) -> bool:
    """Whether the power-off is that of a hibernation: the word for it came right before."""
    before = happened[: happened.index(off)]
    return any(each.kind is Kind.SUSPEND_DISK for each in before[-3:])


def _by_libvirt(gone: Happening, happened: Sequence[Happening]) -> Ended | None:
    """What libvirt says of a machine that it took away before QEMU's last word could be heard."""
    if gone.status is not None and gone.status != 0:
        return None  # how the process ended tells more
    if gone.reason == "destroyed":
        return Ended(Cause.TAKEN_AWAY, gone.detail)
    if gone.reason == "saved":
        return Ended(Cause.HIBERNATED, f"{gone.detail}: its file systems are not clean")
    if gone.reason == "crashed" and _panicked(happened):
        return Ended(Cause.PANICKED, "the guest's kernel panicked, and libvirt took it away")
    return None


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
