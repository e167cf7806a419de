"""Why a guest has not stopped yet, from what one look gathered. Pure.

Up to the moment at which the guest's kernel takes the press, the machine's own registers and
states tell, and what is said is certain. What follows rests on the screen and the agent alone: a
cause is named only where they tell it clearly, otherwise all that it may be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.kernel.run import printable
from lastcall.model import Confidence, Finding, Severity
from lastcall.targets.guest.during.condition import of_machine
from lastcall.targets.guest.during.facts import last, reached
from lastcall.targets.guest.during.more import progress
from lastcall.targets.guest.during.pressed import of_press
from lastcall.targets.guest.during.shown import of_screen
from lastcall.targets.guest.during.unknown import CANDIDATE_SETS, unexplained
from lastcall.targets.guest.press import Press
from lastcall.targets.guest.words import Kind, Power

if TYPE_CHECKING:
    from lastcall.targets.guest.evidence import Evidence

__all__ = ["CANDIDATE_SETS", "diagnose", "progress"]


def diagnose(seen: Evidence) -> tuple[Finding, ...]:
    """What holds it up, the most decisive first; nothing when nothing is known to.

    The first finding is the answer; what follows tells more of it.
    """
    machine = of_machine(seen)
    if machine is not None:
        return (machine, *_beside(seen))
    pressed = of_press(seen)
    # A dropped press leaves the agent to go by; one that nobody takes tells of the whole system.
    if pressed and (seen.press is not Press.DROPPED or seen.agent_asked_s is None):
        return (*pressed, *_beside(seen))
    if not reached(seen):
        return (*_unasked(seen), *_beside(seen))
    shown = of_screen(seen) or unexplained(seen)
    return (shown, *_agent(seen), *pressed, *_beside(seen))


def _unasked(seen: Evidence) -> list[Finding]:
    """Nobody was asked, for there is no agent that would hear it."""
    now = seen.agent
    if not seen.agent_failed or seen.pressed_s or now is None or now.answers:
        return []
    return [
        Finding(
            "agent-silent",
            "no guest agent answers: nobody was asked",
            Severity.BLOCKER,
            evidence=(printable(now.detail) or "it did not answer in time",),
            advice="start qemu-guest-agent in it, or ask by the power button: --ask press",
        )
    ]


def _agent(seen: Evidence) -> list[Finding]:
    """The agent, where it holds its port open and answers no more."""
    before, now = seen.agent_before, seen.agent
    if now is None or now.answers is not False or now.connected is False:
        return []
    alone = seen.agent_asked_s is not None and seen.press is not Press.TAKEN
    said = (printable(now.detail) or "it holds its port open, and does not answer in time",)
    if before is not None and before.answers:
        return [
            Finding(
                "agent-hung",
                "its guest agent answered before the ask, and does not any more",
                Severity.BLOCKER if alone else Severity.WARNING,
                Confidence.LIKELY,
                evidence=said,
                advice="ask by the power button: --ask press"
                if alone
                else "it may be ending, or hang with its system: look at its screen",
            )
        ]
    if not alone:
        return []
    return [
        Finding(
            "agent-silent",
            "no guest agent answers: whether the ask came to it is not known",
            Severity.WARNING,
            evidence=said,
            advice="ask by the power button: --ask press",
        )
    ]


def _beside(seen: Evidence) -> list[Finding]:
    """What else happened meanwhile while it ran, and speaks of a system in trouble."""
    if seen.power is not Power.RUNNING:
        return []
    found = []
    if (fired := last(seen, Kind.WATCHDOG)) is not None:
        found.append(
            Finding(
                "watchdog-fired",
                "its watchdog fired: nobody in it has reset that for too long",
                Severity.WARNING,
                evidence=(f"{max(0.0, seen.now_s - fired.at_s):.0f} s ago: {fired.kind}",),
                advice="its system hangs, or the service that serves the watchdog has ended",
            )
        )
    if (failed := last(seen, Kind.IO_ERROR)) is not None:
        found.append(
            Finding(
                "disk-failed",
                "its disk failed meanwhile, and it was told so",
                Severity.WARNING,
                evidence=(f"{max(0.0, seen.now_s - failed.at_s):.0f} s ago: {failed.kind}",),
                advice="look at its disk on the host: full? unreachable?",
            )
        )
    return found
