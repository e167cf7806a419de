"""In which state an attempt really was when the stop came, and whether that is proved. Pure.

Asked for is one thing: a request that was to be in the handler may stand in the accept queue, as
all workers are busy. Then it is told as what it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.drill.history import Found, Kind

if TYPE_CHECKING:
    from lastcall.drill.trail import Trail

# A whole request was sent, and the server has it in hand only if a process has read it.
_IN_HAND = {Kind.IN_HANDLER, Kind.LONG_POLL}
# They are in no state: whatever happens to them counts.
_ANYWHERE = {Kind.NEWCOMER, Kind.LOAD}


def proved(trail: Trail, zero: float, *, begun: bool = False) -> bool:
    """Whether an attempt was proved to be in the state of its kind; corrects the kind.

    Args:
        trail: the attempt, with what the server's side said of it at the stop in `found`.
        zero: the moment of the stop.
        begun: whether the server's ledger had it by then.
    """
    if trail.kind in _ANYWHERE:
        return True
    if trail.over is not None and trail.over <= zero:
        return False
    if trail.connected is None or trail.connected > zero:
        return False
    if trail.found in {Found.QUEUED, Found.OVERFLOWN}:
        trail.kind = Kind.BACKLOG
        return True
    if trail.kind is Kind.BACKLOG:
        # It was taken, or nobody can tell: then it is one that came at the last moment.
        trail.kind = Kind.JUST_SENT
        return trail.sent_all is not None and trail.sent_all <= zero
    if not trail.steady:
        return False
    if trail.kind in _IN_HAND and not begun:
        if trail.found is Found.UNKNOWN:
            trail.kind = Kind.SENT
            return trail.sent_all is not None and trail.sent_all <= zero
        if trail.found is Found.UNREAD:
            trail.kind = Kind.UNREAD
    return True
