"""The rungs of a guest's stop.

The way up is what the caller wishes (press, agent), then force. Beside it stand the rungs that
the guest target itself calls for when their moment comes: it wakes a guest, lets a paused one go
on, presses once more, or clears away a QEMU whose guest is off already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.model import Consent, Rung
from lastcall.targets.guest.wish import PRESS_WAIT_S, Allow, Ask
from lastcall.targets.guest.words import System

if TYPE_CHECKING:
    from lastcall.targets.guest.wish import GuestWish

PRESS, AGAIN, WAKE, RESUME, FINISH = "press", "press-again", "wake", "resume", "finish"
AGENT, AGENT_FORCE, END, KILL = "agent", "agent-force", "end", "kill"

# QEMU writes out its own caches when it is told to end; libvirt itself waits 10 s (or 30).
END_WAIT_S = 15.0
KILL_WAIT_S = 10.0
# Windows' own time for services after the applications were closed.
AGENT_FORCE_WAIT_S = 60.0

_SOFT = {Ask.PRESS: "ACPI power button", Ask.AGENT: "guest agent"}
_ON_CALL = (
    Rung(RESUME, "resume after a pause", repeatable=True, on_call=True),
    Rung(WAKE, "wake from sleep", repeatable=True, on_call=True),
    Rung(AGAIN, "ACPI power button, once more", on_call=True),
    Rung(FINISH, "clear away QEMU: the guest is off", repeatable=True, on_call=True),
)


def ladder_of(wish: GuestWish, system: System) -> tuple[Rung, ...]:
    """How this guest is asked.

    On Windows the agent closes applications by force (qemu-ga 7.2, qga/commands-win32.c: it calls
    ExitWindowsEx with EWX_FORCE), so there it needs consent, like all that takes work away.

    Args:
        wish: what the caller wants.
        system: what runs in it, as far as is known.
    """
    windows = system is System.WINDOWS
    soft = [
        Rung(ask.value, _SOFT[ask], wait_s)
        for ask, wait_s in wish.asks
        if not (windows and ask is Ask.AGENT)
    ]
    if not soft:  # the agent alone, on Windows: what may be asked without consent is the button
        soft = [Rung(PRESS, _SOFT[Ask.PRESS], PRESS_WAIT_S)]
    on_call = [rung for rung in _ON_CALL if _wanted(rung.id, wish)]
    force = [
        Rung(END, "end QEMU (to the guest a power cut)", END_WAIT_S, Consent.FORCE),
        Rung(KILL, "SIGKILL to QEMU", KILL_WAIT_S, Consent.FORCE),
    ]
    # Of one that does not say what it is the same is to be feared.
    maybe_windows = system in {System.WINDOWS, System.UNKNOWN}
    if maybe_windows and any(ask is Ask.AGENT for ask, _ in wish.asks):
        means = "guest agent, which closes applications by force"
        force.insert(0, Rung(AGENT_FORCE, means, AGENT_FORCE_WAIT_S, Consent.FORCE))
    return (*soft, *on_call, *force)


def _wanted(rung_id: str, wish: GuestWish) -> bool:
    if rung_id == RESUME:
        return Allow.RESUME in wish.allow
    if rung_id == WAKE:
        return Allow.WAKE in wish.allow
    # Waking uses up the press that was made before it.
    return rung_id == FINISH or wish.press_again or Allow.WAKE in wish.allow
