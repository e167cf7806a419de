"""What a guest's screen and its agent say once the press was taken. Pure.

From there on, the screen and the agent are all there is to go by: a name is given only for words
that were read with certainty, that no other sign speaks against, and that go together with what
became of the press, with the system and with what moves.

No Windows ran in lastcall's tests. Source: learn.microsoft.com: "Shutdown Event Tracker", "Policy
CSP - ADMX_Reliability", "Shutdown Changes for Windows Vista", "Shutdown: Allow system to
be shut down without having to log on"; systemd 252 src/core/manager.c (stop jobs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.model import Confidence, Finding, Severity
from lastcall.targets.guest.advice import (
    END_TASKS,
    FORCE,
    LONGER,
    LOSES,
    NO_REASON,
    NOT_NOW,
    WITHOUT_LOGON,
)
from lastcall.targets.guest.during.facts import (
    EARLY_S,
    activity_lines,
    agent_lines,
    ask_lines,
    asked_ago_s,
    best,
    detail,
    picture_lines,
    said,
    services_end,
    stands,
    still,
    still_s,
    users,
)
from lastcall.targets.guest.screen.wordings import Kind as Says
from lastcall.targets.guest.words import System

if TYPE_CHECKING:
    from collections.abc import Callable

    from lastcall.targets.guest.evidence import Evidence
    from lastcall.targets.guest.screen.phrases import Sign

# What only goes together with one of these systems.
_ONLY = {
    Says.REASON: System.WINDOWS,
    Says.APP_BLOCKS: System.WINDOWS,
    Says.LOGON: System.WINDOWS,
    Says.STOP_JOB: System.LINUX,
}
# What waits for a person: more time is of no use.
WAITS = frozenset({Says.REASON, Says.APP_BLOCKS, Says.LOGON})
_STANDS_S = 30.0


def named(seen: Evidence) -> Sign | None:
    """The one sign on the screen that names what holds it up; None: none, or they disagree."""
    claims = claimed(seen)
    if len(claims) != 1:
        return None
    (sign,) = claims
    if not fits(sign, seen):
        return None
    return sign


def claimed(seen: Evidence) -> tuple[Sign, ...]:
    """The sure signs, each of which would name another cause."""
    found = best(seen)
    # These words stay on a screen until somebody writes over them; and anything goes with these.
    for kind in (Says.FIRMWARE, Says.SHUTTING_DOWN, Says.NO_DISPLAY):
        found.pop(kind, None)
    if Says.HALTED in found:  # the last thing a system says; the rest is from before
        found.pop(Says.STOP_JOB, None)
    if Says.LOGON in found and found[Says.LOGON].value != "dialog":
        found.pop(Says.LOGON)  # a console's prompt stands there all the time
    return tuple(found.values())


def fits(sign: Sign, seen: Evidence) -> bool:
    """Whether a sign goes together with all else that is known."""
    only = _ONLY.get(sign.kind)
    if only is not None and seen.system not in {only, System.UNKNOWN}:
        return False
    if sign.kind is Says.LOGON:
        # It shows all the time while nobody is at it: only stillness long after the ask tells.
        waited = (asked_ago_s(seen) or 0.0) >= EARLY_S
        return waited and still(seen) is not False and not users(seen) and not services_end(seen)
    return True


def of_screen(seen: Evidence) -> Finding | None:
    """What its screen says for certain enough; None: nothing does."""
    sign = named(seen)
    if sign is not None:
        return _NAMED[sign.kind](seen, sign)
    if claimed(seen):
        return None
    sign = best(seen).get(Says.SHUTTING_DOWN)
    if services_end(seen):
        return _services(seen, sign)
    return None if sign is None else _shutting_down(seen, sign)


def _evidence(seen: Evidence, sign: Sign | None) -> tuple[str, ...]:
    shown = () if sign is None else (said(sign),)
    rest = (*activity_lines(seen), *agent_lines(seen), *ask_lines(seen), *picture_lines(seen))
    return (*shown, *rest)


def _updating(seen: Evidence, sign: Sign) -> Finding:
    done = detail(sign)
    if stands(seen) and (still_s(seen) or 0.0) >= _STANDS_S:
        return Finding(
            "update-stands-still",
            f"its screen says that it installs updates{done}, but nothing moves: it may be stuck",
            Severity.BLOCKER,
            Confidence.POSSIBLE,
            _evidence(seen, sign),
            f"watch its screen and its disk for some more minutes before you give it up; {NOT_NOW} "
            f"unless you are sure: {FORCE}",
        )
    return Finding(
        "updating",
        f"it installs updates before it powers off{done}",
        Severity.WARNING,
        Confidence.POSSIBLE if still(seen) else Confidence.LIKELY,
        _evidence(seen, sign),
        f"{LONGER}; {NOT_NOW}",
    )


def _person(seen: Evidence) -> Confidence:
    """A screen that changes may have somebody at it already."""
    moved = seen.screen is not None and seen.screen.moved
    return Confidence.POSSIBLE if moved else Confidence.LIKELY


def _reason(seen: Evidence, sign: Sign) -> Finding:
    return Finding(
        "waits-for-reason",
        "it waits for a person to give the reason of the shutdown (Shutdown Event Tracker)",
        Severity.BLOCKER,
        _person(seen),
        _evidence(seen, sign),
        f"choose a reason at its console; to be asked no more: {NO_REASON} (policy Display "
        f"Shutdown Event Tracker); {FORCE}",
    )


def _app_blocks(seen: Evidence, sign: Sign) -> Finding:
    which = detail(sign)
    return Finding(
        "app-blocks",
        f"an application holds the shutdown up{which}: it waits for a person",
        Severity.BLOCKER,
        _person(seen),
        _evidence(seen, sign),
        "save the work and close it at its console; to have Windows close such programs by "
        f"itself, unsaved work and all: {END_TASKS}; {FORCE}",
    )


def _logon(seen: Evidence, sign: Sign) -> Finding:
    nobody = users(seen) == ()
    return Finding(
        "logon-screen",
        "it took the ask and still shows its logon screen: it seems that it may not be shut down "
        "while nobody is logged on",
        Severity.BLOCKER,
        Confidence.LIKELY if nobody and still(seen) else Confidence.POSSIBLE,
        (*_evidence(seen, sign), "it may also be that its power button is set to nothing"),
        f"log on at its console and shut it down there; to allow it: {WITHOUT_LOGON} (servers have "
        f"0 by default); {FORCE}",
    )


def _stop_job(seen: Evidence, sign: Sign) -> Finding:
    which = detail(sign, ": {}")
    if limited(seen):
        return Finding(
            "service-ending-slowly",
            f"systemd in it waits for a service to end{which}",
            Severity.WARNING,
            Confidence.LIKELY,
            _evidence(seen, sign),
            "systemd takes it away at its own limit (TimeoutStopSec, 90 s if nothing else is set); "
            f"{LONGER}",
        )
    hangs = ", and nothing moves: it may hang" if still(seen) else ""
    return Finding(
        "service-ending-slowly",
        f"systemd in it waits without limit for a service to end{which}{hangs}",
        Severity.BLOCKER if hangs else Severity.WARNING,
        Confidence.LIKELY,
        _evidence(seen, sign),
        "systemd never takes this one away: end it in the guest, and set it a TimeoutStopSec; "
        f"{LONGER}; {FORCE}",
    )


def limited(seen: Evidence) -> bool:
    """Whether systemd will take the service away by itself: it shows no limit where it will not."""
    return seen.screen is not None and "no limit" not in seen.screen.text


def _services(seen: Evidence, sign: Sign | None) -> Finding:
    quiet = still(seen)
    return Finding(
        "service-ending-slowly",
        "its services are ending, and "
        + ("nothing moves any more: one of them may hang" if quiet else "that takes long"),
        Severity.WARNING,
        Confidence.POSSIBLE if quiet and sign is None else Confidence.LIKELY,
        _evidence(seen, sign),
        f"{LONGER}; look at its console which service it is",
    )


def _shutting_down(seen: Evidence, sign: Sign) -> Finding:
    return Finding(
        "shutting-down",
        "it shuts down, says its screen; what it waits for does not show",
        Severity.WARNING,
        Confidence.LIKELY,
        _evidence(seen, sign),
        f"{LONGER}; if nothing moves for minutes, {FORCE}",
    )


def _panicked(seen: Evidence, sign: Sign) -> Finding:
    cause = detail(sign, ": {}")
    return Finding(
        "panicked",
        f"its system crashed, says its screen{cause}",
        Severity.BLOCKER,
        Confidence.LIKELY,
        _evidence(seen, sign),
        f"let it finish if it still writes a dump; then {FORCE}",
    )


def _halted(seen: Evidence, sign: Sign) -> Finding:
    return Finding(
        "ended-not-off",
        "its system has ended, and did not switch the machine off",
        Severity.BLOCKER,
        Confidence.LIKELY,
        _evidence(seen, sign),
        "nothing is left to lose in it: lastcall stop TARGET --force --reason 'halted'; have it "
        "power off instead of halt (on Linux: systemctl poweroff)",
    )


def _disk_check(seen: Evidence, sign: Sign) -> Finding:
    done = detail(sign)
    return Finding(
        "disk-check",
        f"it checks a disk{done}",
        Severity.WARNING,
        Confidence.LIKELY,
        _evidence(seen, sign),
        f"{LONGER}; {NOT_NOW} (force is {LOSES})",
    )


_NAMED: dict[Says, Callable[[Evidence, Sign], Finding]] = {
    Says.UPDATING: _updating,
    Says.REASON: _reason,
    Says.APP_BLOCKS: _app_blocks,
    Says.LOGON: _logon,
    Says.STOP_JOB: _stop_job,
    Says.PANIC: _panicked,
    Says.HALTED: _halted,
    Says.DISK_CHECK: _disk_check,
}
