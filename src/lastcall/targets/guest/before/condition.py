"""What a guest does before it is asked, and what happens once it is off. Pure.

Source: QEMU 7.2 softmmu/runstate.c, qapi/machine.json (query-current-machine); libvirt 9.0 docs/
formatdomain.rst (on_poweroff), virsh(1) (set-lifecycle-action).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.model import Confidence, Finding, Severity
from lastcall.targets.guest.advice import FORCE
from lastcall.targets.guest.wish import Allow
from lastcall.targets.guest.words import Power

if TYPE_CHECKING:
    from collections.abc import Callable

    from lastcall.targets.guest.before.known import Known


def _is(known: Known) -> str:
    return f"its machine is: {known.power}"


# What it does


def _off(known: Known) -> Finding:
    return Finding("off", "it is off already: there is nothing to ask", evidence=(_is(known),))


def _panicked(known: Known) -> Finding:
    return Finding(
        "panicked",
        "its kernel has panicked: nothing in it can hear an ask any more",
        Severity.BLOCKER,
        evidence=(_is(known),),
        advice=f"save a memory dump first if you want to know why; {FORCE}",
    )


def _failed(known: Known) -> Finding:
    return Finding(
        "machine-failed",
        "QEMU has stopped it after an error: it cannot hear an ask",
        Severity.BLOCKER,
        evidence=(_is(known),),
        advice="look at QEMU's log; after a disk error, mend it and let the guest go on "
        f"(virsh resume, or cont in the monitor); {FORCE}",
    )


def _paused(known: Known) -> Finding:
    allowed = Allow.RESUME in known.wish.allow
    return Finding(
        "paused",
        "it is paused, and is let go on before it is asked"
        if allowed
        else "it is paused: a press waits until it goes on",
        Severity.NOTE if allowed else Severity.BLOCKER,
        evidence=(_is(known),),
        advice="" if allowed else "let it go on, or allow that: --allow resume",
    )


def _asleep(known: Known) -> Finding:
    if known.setup.wakes is False:
        return Finding(
            "no-wakeup",
            "it sleeps, and its machine cannot be woken: it cannot hear an ask",
            Severity.BLOCKER,
            evidence=(_is(known), "wake-up from sleep is not supported by this machine"),
            advice=f"keep it from sleeping in the first place (in its power settings); {FORCE}",
        )
    allowed = Allow.WAKE in known.wish.allow
    doubt = () if known.setup.wakes else ("whether it can be woken is not known",)
    return Finding(
        "asleep",
        "it sleeps, and is woken before it is asked"
        if allowed
        else "it sleeps: a press would only be used up as the reason to wake, or wait",
        Severity.NOTE if allowed else Severity.BLOCKER,
        evidence=(_is(known), *doubt),
        advice="" if allowed else "wake it, or allow that: --allow wake",
    )


def _migrating(known: Known) -> Finding:
    return Finding(
        "migrating",
        "it is being moved from or to another host: an ask here may reach nobody",
        Severity.BLOCKER,
        Confidence.LIKELY,
        evidence=(_is(known),),
        advice="wait until that is over, and stop it where it runs then",
    )


OVER: dict[Power, Callable[[Known], Finding]] = {
    Power.OFF: _off,
    Power.GONE: _off,
    Power.PANICKED: _panicked,
    Power.FAILED: _failed,
    Power.MIGRATING: _migrating,
}
CONDITIONS: dict[Power, Callable[[Known], Finding]] = {
    Power.PAUSED: _paused,
    Power.SUSPENDED: _asleep,
}


def once_off(known: Known) -> list[Finding]:
    """What happens when the guest powers off."""
    setup = known.setup
    if setup.on_poweroff == "restart":
        return [
            Finding(
                "poweroff-restarts",
                "libvirt starts it again when it powers off",
                Severity.BLOCKER,
                evidence=("its domain says: on_poweroff = restart",),
                advice="virsh set-lifecycle-action NAME poweroff destroy --live",
            )
        ]
    if setup.on_poweroff == "preserve":
        return [
            Finding(
                "stays-when-off",
                "libvirt keeps its machine when it powers off: it will be off, but not gone",
                Severity.WARNING,
                evidence=("its domain says: on_poweroff = preserve",),
                advice="virsh set-lifecycle-action NAME poweroff destroy --live, "
                "or clear it away afterwards: virsh destroy NAME",
            )
        ]
    if setup.stays_when_off:
        return [
            Finding(
                "stays-when-off",
                "QEMU stays when the guest powers off; lastcall then clears it away",
                evidence=("QEMU runs with -no-shutdown",),
            )
        ]
    return []
