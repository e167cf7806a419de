"""What became of a press, and whether to press again. Pure.

QEMU says POWERDOWN even when it drops the press: it sets the status bit only if the guest has
enabled the button (hw/acpi/core.c, acpi_pm1_evt_power_down). So the registers are what tells:
enabled before the press, it is pending until the guest's kernel takes it; not enabled, it is lost.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from lastcall.targets.guest.words import Pm1, System

if TYPE_CHECKING:
    from collections.abc import Sequence

# A guest that has just switched its button on may not have anybody yet who reacts to it; one that
# wakes throws presses away until its drivers are awake (Linux 6.1 drivers/acpi/button.c).
SETTLE_S = 2.0
# So long must nothing have moved before a Windows guest is pressed once more.
STILL_S = 10.0
MOST_PRESSES = 3


class Press(StrEnum):
    """What became of a press.

    TAKEN means that the guest's kernel has it, not that anybody in the guest agreed.
    """

    UNREAD = "the registers could not be read"
    DROPPED = "dropped: nobody listened"
    PENDING = "pending: nobody has taken it"
    TAKEN = "taken by the guest's kernel"
    UNSURE = "dropped or taken: the registers do not tell"


def became(before: Pm1 | None, after: Sequence[Pm1]) -> Press:
    """What became of one press.

    Args:
        before: the registers right before it; None: they could not be read.
        after: the registers since then, oldest first.
    """
    if not after:
        return Press.UNREAD
    if after[-1].pending:
        return Press.PENDING
    if any(sample.pending for sample in after) or (before is not None and before.hears):
        return Press.TAKEN
    if before is not None and not after[0].hears:
        return Press.DROPPED
    return Press.UNSURE


def press_again(
    press: Press,
    *,
    listens_s: float | None,
    still_s: float | None,
    system: System,
    presses: int,
    woken: bool = False,
) -> str:
    """Why to press once more; empty when it would not help or could harm.

    A second press makes some systems cancel the first one (illumos), so there are two reasons
    only: nobody heard the first; or a Windows guest took it and nothing moved since, as the first
    press may only have woken its screen.

    Args:
        press: what became of the last press.
        listens_s: for how long the guest has been listening to the button, in seconds; None: it
            does not, or that is not known.
        still_s: for how long nothing has moved in the guest, in seconds; None: not known.
        system: what runs in it.
        presses: how many presses it has had.
        woken: whether it woke from sleep since the last press.
    """
    if presses >= MOST_PRESSES:
        return ""
    settled = listens_s is not None and listens_s >= SETTLE_S
    if woken and press is not Press.PENDING and settled:
        return "it is awake and listens; the press before it woke is used up"
    if press is Press.DROPPED and settled:
        return "the press was dropped, and the guest listens now"
    if (
        press is Press.TAKEN
        and system is System.WINDOWS
        and still_s is not None
        and still_s >= STILL_S
    ):
        return "taken, and nothing moves: Windows may only have woken its screen"
    return ""
