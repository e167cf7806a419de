"""A press that never came to the system in the guest: dropped, or not taken. Pure.

An idle processor that halts with interrupts on takes a press at once; so a press that waits, while
the machine runs, tells that interrupts are not taken.

Source: QEMU 7.2 hw/acpi/core.c (acpi_pm1_evt_power_down); ACPI 6.5, 4.8.3; Intel SDM, HLT.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lastcall.model import Confidence, Finding, Severity
from lastcall.targets.guest.advice import AGENT_NEXT, FORCE, NOT_NOW, YOUNG_S
from lastcall.targets.guest.during.facts import (
    activity_lines,
    ask_lines,
    asked_ago_s,
    best,
    detail,
    picture_lines,
    said,
)
from lastcall.targets.guest.press import Press
from lastcall.targets.guest.screen.wordings import Kind as Says

if TYPE_CHECKING:
    from lastcall.targets.guest.evidence import Evidence

# A loaded machine may take this long until it takes a press.
_MOMENT_S = 2.0
_IDLE_CPU = 0.05
_SPINS_CPU = 0.8
# A firmware says the rest of what it says also on its way to a system.
_STUCK = re.compile(
    r"no bootable|not a bootable|could not read|not found|missing|shell|failed|rescue|proper boot"
    r"|no such device",
    re.IGNORECASE,
)


def of_press(seen: Evidence) -> list[Finding]:
    """Why the press did not come to the system, most decisive first; nothing: it did."""
    if seen.press is Press.DROPPED:
        return [*_text(seen), _dropped(seen), *_why_dropped(seen)]
    if seen.press is Press.PENDING:
        return [*_text(seen), _pending(seen)]
    return []


def _age_s(seen: Evidence) -> float | None:
    if seen.setup.started_s is None or seen.setup.started_s > seen.now_s:
        return None
    return seen.now_s - seen.setup.started_s


def _text(seen: Evidence) -> list[Finding]:
    """What the screen says, where that goes together with a press that nobody took."""
    found = best(seen)
    if (sign := found.get(Says.PANIC)) is not None:
        cause = detail(sign, ": {}")
        return [
            Finding(
                "panicked",
                f"its system crashed, says its screen{cause}",
                Severity.BLOCKER,
                Confidence.LIKELY,
                evidence=(said(sign), *ask_lines(seen), *picture_lines(seen)),
                advice=f"save a memory dump first if you want to know why; {FORCE}",
            )
        ]
    if (sign := found.get(Says.DISK_CHECK)) is not None and seen.press is Press.DROPPED:
        done = detail(sign)
        return [
            Finding(
                "disk-check",
                f"it is starting, and checks a disk{done}: it does not listen to the button yet",
                Severity.WARNING,
                Confidence.LIKELY,
                evidence=(said(sign), *activity_lines(seen), *picture_lines(seen)),
                advice=f"wait until it is up, and press again; {NOT_NOW}",
            )
        ]
    return []


def _dropped(seen: Evidence) -> Finding:
    before, now = seen.before, seen.registers
    updates = best(seen).get(Says.UPDATING)
    if now is not None and now.hears:
        advice = "it listens now: press again (--press-again auto does so by itself)"
    elif before is not None and not before.acpi_on:
        advice = "wait until a system is up in it, and press again (--press-again auto does both)"
    else:
        advice = f"on Linux: modprobe button, and have logind or acpid act on it; or {AGENT_NEXT}"
    return Finding(
        "press-dropped",
        "the press was dropped: nobody in it listened to the power button",
        Severity.BLOCKER,
        evidence=(*ask_lines(seen), *((said(updates),) if updates else ())),
        advice=f"{advice}; {NOT_NOW}" if updates else advice,
    )


def _why_dropped(seen: Evidence) -> list[Finding]:
    """What it does instead of listening, where that is known."""
    registers, age_s = seen.registers or seen.before, _age_s(seen)
    if registers is None or registers.hears:
        return []
    sign = best(seen).get(Says.FIRMWARE)
    up = any(agent is not None and agent.answers for agent in (seen.agent, seen.agent_before))
    young = age_s is not None and age_s < YOUNG_S and not up
    started = () if age_s is None else (f"its machine was started {age_s:.0f} s ago",)
    evidence = (str(registers), *started, *((said(sign),) if sign else ()), *picture_lines(seen))
    likely = Confidence.LIKELY
    if sign is not None and (not young or _STUCK.search(sign.words)):
        what = "no system runs in it: it is in firmware or a boot loader"
        advice = f"start a system in it; {FORCE}"
        return [Finding("firmware", what, Severity.BLOCKER, likely, evidence, advice)]
    if young:
        advice = "press again once it is up (--press-again auto does so by itself)"
        what = "it seems to be starting"
        return [Finding("booting", what, Severity.WARNING, likely, evidence, advice)]
    if not registers.acpi_on:
        what = (
            "no system in it has switched ACPI on: it is in firmware or a boot loader, is "
            "starting again, or runs without ACPI"
        )
        advice = f"look at its screen; if no system runs in it, {FORCE}"
        return [Finding("firmware", what, Severity.BLOCKER, likely, evidence, advice)]
    return []


def _pending(seen: Evidence) -> Finding:
    ago_s = asked_ago_s(seen) or 0.0
    evidence = (*ask_lines(seen), *activity_lines(seen), *picture_lines(seen))
    if ago_s < _MOMENT_S:
        return Finding("press-pending", "it has not taken the press yet", evidence=evidence)
    cpu = None if seen.rates is None else seen.rates.cpu
    advice = f"nothing in it can react to an ask; look at its screen; {FORCE}"
    if cpu is not None and cpu <= _IDLE_CPU and not (seen.rates and seen.rates.writes):
        return Finding(
            "halted",
            "it does not take the press, and its processors stand still: it has halted with "
            "interrupts off, and cannot end by itself any more",
            Severity.BLOCKER,
            Confidence.LIKELY,
            evidence,
            advice,
        )
    if cpu is not None and cpu >= _SPINS_CPU:
        return Finding(
            "spinning",
            "it does not take the press, and its processors are busy: it runs in circles without "
            "taking interrupts, or has far too much to do",
            Severity.BLOCKER,
            Confidence.LIKELY,
            evidence,
            f"give it some time in case it is only overloaded; {advice}",
        )
    return Finding(
        "press-not-serviced",
        "it does not take the press: it hangs, or nobody in it serves the interrupt",
        Severity.BLOCKER,
        evidence=evidence,
        advice=advice,
    )
