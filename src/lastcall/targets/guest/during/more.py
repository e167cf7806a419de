"""How much longer a guest should get that works on its shutdown. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.targets.guest.during.condition import of_machine
from lastcall.targets.guest.during.facts import best, detail, reached, services_end, stands, still
from lastcall.targets.guest.during.shown import WAITS, claimed, limited, named
from lastcall.targets.guest.screen.wordings import Kind as Says
from lastcall.targets.guest.words import Power

if TYPE_CHECKING:
    from lastcall.targets.guest.evidence import Evidence

# Each look asks anew, so these need only last until the next one finds it still at work.
_UPDATE_S = 180.0
_SERVICE_S = 90.0
_WORK_S = 60.0


def progress(seen: Evidence) -> tuple[float, str] | None:
    """How much longer it should get, in seconds from now, and why; None: no longer.

    Only what can be seen to work gets more; one that waits for a person gets nothing, whatever
    else in it is busy. The caller's ceiling holds in any case.
    """
    if seen.power not in {Power.RUNNING, Power.UNKNOWN} or not reached(seen):
        return None
    claims = {sign.kind for sign in claimed(seen)}
    if of_machine(seen) is not None or claims & (WAITS | {Says.PANIC, Says.HALTED}):
        return None
    sign = named(seen)
    active = still(seen) is False
    if sign is not None and sign.kind in {Says.UPDATING, Says.DISK_CHECK}:
        what = "installs updates" if sign.kind is Says.UPDATING else "checks a disk"
        done = detail(sign)
        moves = active or (still(seen) is True and seen.rates is not None and not stands(seen))
        return (_UPDATE_S, f"it {what}{done}") if moves else None
    if sign is not None and sign.kind is Says.STOP_JOB:
        unit = "it waits for a service to end" + detail(sign, ": {}")
        return (_SERVICE_S, unit) if limited(seen) else None
    if not active:
        return None
    if services_end(seen):
        return _SERVICE_S, "its services are ending"
    if Says.SHUTTING_DOWN in best(seen):
        return _SERVICE_S, "it shuts down, and is still at work"
    if seen.rates is not None and seen.rates.writes:
        return _WORK_S, "it took the ask, and still writes to its disks"
    return None
