"""Will it stop? What is known of a guest before it is asked. Pure.

The registers of the power button tell whether the guest will hear a press, from outside and
without an agent in it: QEMU drops a press that nobody has asked for. Hearing is not obeying: what
the system makes of the press is up to its settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.model import Severity
from lastcall.targets.guest.before.agent import of_agent
from lastcall.targets.guest.before.button import of_button
from lastcall.targets.guest.before.condition import CONDITIONS, OVER, once_off
from lastcall.targets.guest.before.known import Known
from lastcall.targets.guest.before.untold import untold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lastcall.model import Finding
    from lastcall.targets.guest.machine import Trouble
    from lastcall.targets.guest.wish import GuestWish
    from lastcall.targets.guest.words import AgentSight, Pm1, Power, Setup

_GRAVEST_FIRST = (Severity.BLOCKER, Severity.WARNING, Severity.NOTE)


def findings(
    setup: Setup,
    power: Power,
    registers: Pm1 | None,
    agent: AgentSight | None,
    wish: GuestWish,
    troubles: Sequence[Trouble],
    now_s: float,
) -> tuple[Finding, ...]:
    """What is known before the guest is asked, gravest first.

    Args:
        setup: how its machine is built.
        power: what it does now.
        registers: those of its power button; None: not read.
        agent: the guest agent; None: it was not looked at.
        wish: how it is to be asked, and what may be done to it.
        troubles: what could not be found out, and why.
        now_s: the boot-time clock, in seconds.
    """
    age_s = None if setup.started_s is None else now_s - setup.started_s
    age_s = None if age_s is None or age_s < 0 else age_s
    known = Known(setup, power, registers, agent, wish, tuple(troubles), age_s)
    if power in OVER:
        return (OVER[power](known),)
    found = [CONDITIONS[power](known)] if power in CONDITIONS else []
    found += [*of_button(known), *once_off(known), *of_agent(known), *untold(known)]
    return tuple(sorted(found, key=lambda finding: _GRAVEST_FIRST.index(finding.severity)))
