"""What is proved of an attempt at the moment of the stop: a table of kinds and what was found."""

from __future__ import annotations

import pytest

from lastcall.drill.history import Found, Kind
from lastcall.drill.proof import proved
from lastcall.drill.trail import Trail

ZERO = 100.0
WAITING = sorted(
    set(Kind) - {Kind.NEWCOMER, Kind.LOAD, Kind.BACKLOG, Kind.IN_HANDLER, Kind.LONG_POLL}
)


def trail(kind: Kind, found: Found = Found.TAKEN, *, steady: bool = True) -> Trail:
    """An attempt that was connected and sent before the stop."""
    made = Trail(1, kind)
    made.attempted, made.connected, made.sent, made.sent_all = (
        ZERO - 4,
        ZERO - 3,
        ZERO - 2,
        ZERO - 1,
    )
    made.found, made.steady = found, steady
    return made


@pytest.mark.parametrize(
    ("kind", "found", "steady", "begun", "proof", "becomes"),
    [
        # In hand only if a process has read it, by the kernel's account or the ledger's.
        (Kind.IN_HANDLER, Found.TAKEN, True, False, True, Kind.IN_HANDLER),
        (Kind.IN_HANDLER, Found.UNREAD, True, False, True, Kind.UNREAD),
        (Kind.IN_HANDLER, Found.UNREAD, True, True, True, Kind.IN_HANDLER),
        (Kind.IN_HANDLER, Found.UNKNOWN, True, False, True, Kind.SENT),
        (Kind.IN_HANDLER, Found.UNKNOWN, True, True, True, Kind.IN_HANDLER),
        (Kind.IN_HANDLER, Found.TAKEN, False, False, False, Kind.IN_HANDLER),
        (Kind.LONG_POLL, Found.TAKEN, True, False, True, Kind.LONG_POLL),
        (Kind.LONG_POLL, Found.UNREAD, True, False, True, Kind.UNREAD),
        (Kind.LONG_POLL, Found.UNKNOWN, True, False, True, Kind.SENT),
        # What is in the accept queue is that, whatever it was to be.
        *(
            (kind, Found.QUEUED, True, False, True, Kind.BACKLOG)
            for kind in (*WAITING, Kind.BACKLOG)
        ),
        *((kind, Found.OVERFLOWN, False, False, True, Kind.BACKLOG) for kind in WAITING),
        (Kind.IN_HANDLER, Found.QUEUED, True, False, True, Kind.BACKLOG),
        # What was to be there and was taken came at the last moment.
        (Kind.BACKLOG, Found.TAKEN, False, False, True, Kind.JUST_SENT),
        (Kind.BACKLOG, Found.UNREAD, False, False, True, Kind.JUST_SENT),
        (Kind.BACKLOG, Found.UNKNOWN, False, False, True, Kind.JUST_SENT),
        # Others are where their clients brought them.
        *((kind, Found.TAKEN, True, False, True, kind) for kind in WAITING),
        *((kind, Found.UNKNOWN, True, False, True, kind) for kind in WAITING),
        *((kind, Found.TAKEN, False, False, False, kind) for kind in WAITING),
        # These are in no state.
        (Kind.NEWCOMER, Found.UNKNOWN, False, False, True, Kind.NEWCOMER),
        (Kind.LOAD, Found.QUEUED, False, False, True, Kind.LOAD),
    ],
)
def test_what_is_proved(
    kind: Kind,
    found: Found,
    steady: bool,  # noqa: FBT001 (a column)
    begun: bool,  # noqa: FBT001 (a column)
    proof: bool,  # noqa: FBT001 (a column)
    becomes: Kind,
) -> None:
    """Each kind is proved by what was found of it, and told as what it was."""
    made = trail(kind, found, steady=steady)
    assert proved(made, ZERO, begun=begun) is proof
    assert made.kind is becomes


@pytest.mark.parametrize("kind", [*WAITING, Kind.IN_HANDLER, Kind.LONG_POLL, Kind.BACKLOG])
def test_what_was_over_or_never_connected_proves_nothing(kind: Kind) -> None:
    """What ended before the stop, or connected after it, was in no state then."""
    over = trail(kind)
    over.over = ZERO
    late = trail(kind)
    late.connected = ZERO + 0.001
    never = trail(kind)
    never.connected = None
    for each in (over, late, never):
        assert not proved(each, ZERO, begun=True)
        assert each.kind is kind


def test_what_ended_after_the_stop_was_in_its_state() -> None:
    """An end after the stop takes nothing from what was proved at it."""
    made = trail(Kind.IN_HANDLER)
    made.over = ZERO + 0.001
    assert proved(made, ZERO)


def test_what_was_not_sent_in_time_was_not_just_sent() -> None:
    """A request whose last byte came after the stop proves nothing of the moment of the stop."""
    made = trail(Kind.BACKLOG)
    made.sent_all = ZERO + 0.001
    assert not proved(made, ZERO)
    made = trail(Kind.BACKLOG)
    made.sent_all = None
    assert not proved(made, ZERO)
