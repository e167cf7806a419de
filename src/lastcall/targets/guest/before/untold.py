"""What could not be found out about a guest, and why. Pure.

Source: libvirt 9.0 src/qemu/qemu_driver.c (monitor commands taint the domain).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.kernel.run import printable
from lastcall.model import Finding, Severity
from lastcall.targets.guest.machine import Fault
from lastcall.targets.guest.words import Power

if TYPE_CHECKING:
    from lastcall.targets.guest.before.known import Known
    from lastcall.targets.guest.machine import Trouble


# One call that hangs may be the agent's.
_SEVERAL = 2


def untold(known: Known) -> list[Finding]:
    """Each trouble that a look before the ask ran into, once."""
    found = []
    hung = sum(trouble.fault is Fault.HUNG for trouble in known.troubles)
    for trouble in known.troubles:
        if trouble.fault is Fault.NOT_ALLOWED:
            found.append(_unconsented(trouble))
        elif trouble.fault is Fault.HUNG and (known.power is Power.UNKNOWN or hung >= _SEVERAL):
            found.append(_busy(trouble))
        else:
            found.append(
                Finding(
                    "not-found-out",
                    printable(trouble.what),
                    evidence=tuple(map(printable, trouble.evidence)),
                    advice=trouble.advice,
                )
            )
    return list({(finding.code, finding.title): finding for finding in found}.values())


def _unconsented(trouble: Trouble) -> Finding:
    return Finding(
        "monitor-unread",
        "whether it will hear the power button is not known: that stands in QEMU's monitor, which "
        "is read only with your consent",
        evidence=(
            *map(printable, trouble.evidence),
            "reading it through libvirt marks the domain as tainted (custom-monitor)",
            "that mark stays until it is started anew; nothing else changes",
        ),
        advice="to learn before the press whether it is heard, and after it whether it was taken: "
        "--allow monitor",
    )


def _busy(trouble: Trouble) -> Finding:
    return Finding(
        "monitor-busy",
        "its hypervisor does not answer: what the guest does is not known, and an ask may not get "
        "through",
        Severity.WARNING,
        evidence=(printable(trouble.what), *map(printable, trouble.evidence)),
        advice=trouble.advice
        or "QEMU's monitor serves one client at a time: end the other one, or go by libvirt if "
        "that has it",
    )
