"""What it may be, where nothing tells for certain: one finding with all that is possible. Pure.

Naming one cause out of weak signs would send a person the wrong way, so all of them are named,
with what would decide between them.

Source: learn.microsoft.com, "Power button action" and "Shutdown: Allow system to be shut down
without having to log on"; logind.conf(5); vm-bhyve issues 11 (the first press only wakes the
display of Windows) and 350 (illumos cancels on a second press).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.kernel.run import printable
from lastcall.model import Confidence, Finding, Severity
from lastcall.targets.guest.advice import (
    AGENT_NEXT,
    FORCE,
    LONGER,
    NOT_NOW,
    SHUTS_DOWN,
    WITHOUT_LOGON,
)
from lastcall.targets.guest.during.facts import (
    EARLY_S,
    activity_lines,
    agent_lines,
    ask_lines,
    asked_ago_s,
    best,
    last,
    picture_lines,
    said,
    still,
    trouble_lines,
    users,
)
from lastcall.targets.guest.during.shown import claimed
from lastcall.targets.guest.machine import Fault
from lastcall.targets.guest.press import Press
from lastcall.targets.guest.screen.wordings import Kind as Says
from lastcall.targets.guest.words import Kind, System

if TYPE_CHECKING:
    from lastcall.targets.guest.evidence import Evidence

# What the findings of this module may name as possible, by the code that would name it alone.
CANDIDATE_SETS = frozenset(
    {
        "just-asked",
        "press-unread",
        "signs-disagree",
        "taken-nothing-moves",
        "taken-still-working",
        "taken-unexplained",
        "agent-no-effect",
    }
)
_SAYS = {
    Says.UPDATING: "updating",
    Says.REASON: "waits-for-reason",
    Says.APP_BLOCKS: "app-blocks",
    Says.LOGON: "logon-screen",
    Says.STOP_JOB: "service-ending-slowly",
    Says.PANIC: "panicked",
    Says.HALTED: "ended-not-off",
    Says.DISK_CHECK: "disk-check",
    Says.FIRMWARE: "firmware",
}


def unexplained(seen: Evidence) -> Finding:
    """All that may hold it up, after an ask that reached it or may have."""
    claims = claimed(seen)
    if len(claims) > 1:
        return _disagree(seen)
    ago_s = asked_ago_s(seen) or 0.0
    if ago_s < EARLY_S:
        return _early(seen, ago_s)
    quiet = still(seen)
    evidence = _evidence(seen, _candidates(seen, quiet=quiet))
    rest = (Confidence.POSSIBLE, evidence, _advice(seen, quiet=quiet))
    if seen.press is Press.TAKEN:
        return _taken(rest, quiet=quiet)
    if seen.agent_asked_s is not None:
        what = "its guest agent was asked to shut it down, and it still runs: why is not certain"
        return Finding("agent-no-effect", what, Severity.BLOCKER, *rest)
    what = "whether it heard the press is not known, nor what holds it up"
    return Finding("press-unread", what, Severity.WARNING, *rest)


def _taken(rest: tuple[Confidence, tuple[str, ...], str], *, quiet: bool | None) -> Finding:
    took = "its kernel took the press"
    if quiet is None:
        what = f"{took}; what it does since is not known"
        return Finding("taken-unexplained", what, Severity.WARNING, *rest)
    if quiet:
        what = f"{took}, and nothing moves since: what holds it up is not certain"
        return Finding("taken-nothing-moves", what, Severity.BLOCKER, *rest)
    what = f"{took}, and it is still at work: at what is not certain"
    return Finding("taken-still-working", what, Severity.WARNING, *rest)


def _early(seen: Evidence, ago_s: float) -> Finding:
    taken = seen.press is Press.TAKEN
    what = "its kernel took the press" if taken else "it was asked"
    return Finding(
        "just-asked",
        f"{what} {ago_s:.0f} s ago; nothing tells yet what it makes of it",
        evidence=(*ask_lines(seen), *activity_lines(seen)),
    )


def _disagree(seen: Evidence) -> Finding:
    claims = claimed(seen)
    lines = tuple(f"may be {_SAYS[sign.kind]}: {said(sign)}" for sign in claims)
    careful = any(sign.kind in {Says.UPDATING, Says.DISK_CHECK} for sign in claims)
    return Finding(
        "signs-disagree",
        "its screen says several things that do not go together: what holds it up is not certain",
        Severity.WARNING,
        Confidence.POSSIBLE,
        (*lines, *_facts(seen)),
        "look at its screen" + (f"; {NOT_NOW}" if careful else f"; {FORCE}"),
    )


def _evidence(seen: Evidence, candidates: list[str]) -> tuple[str, ...]:
    return (*(f"may be {each}" for each in candidates), *_facts(seen))


def _facts(seen: Evidence) -> tuple[str, ...]:
    told = {said(sign) for sign in claimed(seen)}
    signs = () if seen.screen is None else seen.screen.signs
    weak = tuple(
        f"{said(sign)}; that is not enough to go by" for sign in signs if said(sign) not in told
    )
    rest = (*agent_lines(seen), *picture_lines(seen), *trouble_lines(seen))
    return (*ask_lines(seen), *activity_lines(seen), *weak, *rest)


def _candidates(seen: Evidence, *, quiet: bool | None) -> list[str]:
    found = []
    if seen.press in {Press.UNREAD, Press.UNSURE}:
        found.append("press-dropped: nobody in it listened to the power button")
        if (sign := best(seen).get(Says.FIRMWARE)) is not None:
            found.append(f"firmware: {said(sign)}")
    found += [
        f"{_SAYS[sign.kind]}: {said(sign)}; but that does not go with the rest"
        for sign in claimed(seen)
    ]
    if quiet is not True:
        found.append("updating, or service-ending-slowly: it may be at work on its shutdown")
    if seen.system is not System.LINUX:
        found += _on_windows(seen)
    if seen.system is not System.WINDOWS:
        found += _elsewhere(seen)
    if len(seen.pressed_s) > 1 and seen.system is not System.WINDOWS:
        found.append("a cancel: some systems take a second press as that")
    found.append("a damaged system, or malware that keeps it from shutting down")
    return found


def _pressed(seen: Evidence) -> bool:
    """Whether a press came, or may have come, to its system."""
    return seen.press in {Press.TAKEN, Press.UNREAD, Press.UNSURE}


def _on_windows(seen: Evidence) -> list[str]:
    found = []
    if _pressed(seen):
        found.append("its power button set to nothing, or to turning the display off")
    if not users(seen):
        found.append("logon-screen: nobody is logged on, and it may not be shut down so")
    screen = seen.screen
    read = screen is not None and bool(screen.text) and not screen.unread
    unread = "in words that lastcall does not know" if read else "that could not be read"
    if screen is not None and screen.blank:
        unread = "that does not show, its display being off"
    found.append(f"waits-for-reason, or app-blocks: a window {unread}")
    if len(seen.pressed_s) == 1:
        found.append("its display: the first press may only have woken it")
    return found


def _elsewhere(seen: Evidence) -> list[str]:
    found = []
    if _pressed(seen):
        found.append(
            "its power button ignored: nobody acts on it (logind, acpid), HandlePowerKey=ignore, "
            "or a program forbids it (systemd-inhibit --list)"
        )
    found.append("a desktop that asks whether to shut down")
    return found


def _advice(seen: Evidence, *, quiet: bool | None) -> str:
    steps = _deciders(seen)
    windows, linux = seen.system is System.WINDOWS, seen.system is System.LINUX
    if _pressed(seen) and not linux:
        steps.append(f"on Windows, let the button shut it down: {SHUTS_DOWN}; and {WITHOUT_LOGON}")
    if seen.agent_asked_s is None:
        warned = "" if linux else " (on Windows that closes applications by force)"
        steps.append(f"{AGENT_NEXT}{warned}")
    if quiet is False:
        steps.append(LONGER)
    if not windows and len(seen.pressed_s) == 1 and seen.press is Press.TAKEN and not linux:
        steps.append("if it is Windows, say so, and it is pressed once more: --guest-os windows")
    return "; ".join([*steps, FORCE])


def _deciders(seen: Evidence) -> list[str]:
    """What would tell which of them it is."""
    steps = []
    screen = seen.screen
    if screen is None:
        steps.append("look at its screen yourself: no picture of it could be taken")
    elif screen.kept:
        steps.append("look at the picture of its screen")
    else:
        steps.append("look at its screen")
    if screen is not None and screen.unread and not screen.blank:
        steps.append(f"to have its screen read: {printable(screen.unread)}")
    if any(trouble.fault is Fault.NOT_ALLOWED for trouble in seen.troubles):
        steps.append("to know whether it took the press: --allow monitor")
    agent = seen.agent or seen.agent_before
    opened = last(seen, Kind.AGENT_OPEN, Kind.AGENT_CLOSED)
    if (agent is None or not agent.answers) and opened is None:
        steps.append("a guest agent in it would tell who is logged on")
    return steps
