"""What a later owner of a guest's stop knows of it from the journal."""

from __future__ import annotations

from guests.fake_machine import LISTENS, FakeMachine
from lastcall.clock import now_s
from lastcall.model import (
    Address,
    Asked,
    Cause,
    Depth,
    Ended,
    Event,
    Finding,
    Intended,
    Looked,
    LookStarted,
    Outcome,
    Reached,
    Resumed,
    Stage,
    Started,
)
from lastcall.targets.guest.ended import ended, off_again, off_words
from lastcall.targets.guest.memory import recalled
from lastcall.targets.guest.press import Press
from lastcall.targets.guest.target import GuestTarget
from lastcall.targets.guest.wish import Allow, GuestWish
from lastcall.targets.guest.words import Happening, Kind

ADDRESS = Address("qmp", "fake")


def test_what_the_journal_says_of_what_became_of_a_press() -> None:
    """A later owner knows what an earlier one saw of a press: lost, taken, used up by waking."""
    rungs = GuestTarget(ADDRESS, FakeMachine(), GuestWish(allow=frozenset({Allow.WAKE}))).ladder
    at = {rung.id: index for index, rung in enumerate(rungs)}
    begun: list[Event] = [Started(rungs, 10, 10), Intended(0, 1, {"rung": "press", "hears": 0})]
    asked = Asked(0, 1, Outcome.DONE)
    lost = Looked(Depth.QUICK, (Finding("press-dropped", "nobody listened"),))
    again = (
        Intended(at["press-again"], 1, {"hears": 1}),
        Asked(at["press-again"], 1, Outcome.DONE),
    )
    look, taken = LookStarted(Depth.QUICK), Reached(Stage.TAKEN)
    woken = (Intended(at["wake"], 1), Asked(at["wake"], 1, Outcome.DONE))
    for events, became in (
        ((asked,), Press.UNSURE),
        ((asked, look, lost), Press.DROPPED),
        ((Resumed("me"), look, lost), Press.DROPPED),
        # It was begun before the second press, and says nothing of it.
        ((asked, look, *again, lost), Press.TAKEN),
        ((Resumed("me"), taken), Press.TAKEN),
        ((Resumed("me"), taken, *woken), Press.UNSURE),
    ):
        memory = recalled([(1.0, event) for event in (*begun, *events)], rungs)
        memory.sampled(LISTENS, now_s(), memory.pressed)
        assert memory.press is became, events
        assert memory.woken is (woken[0] in events)


def test_a_power_off_is_told_to_a_later_owner() -> None:
    """What the journal says of a power-off is the same again, and what nobody heard is unknown."""
    off = Happening(Kind.SHUTDOWN, 5.0, guest=True, reason="guest-shutdown")
    for before, cause in (
        ((), Cause.BY_ITSELF),
        ((Happening(Kind.SUSPEND_DISK, 5.0),), Cause.HIBERNATED),
        ((Happening(Kind.PANICKED, 5.0),), Cause.PANICKED),
    ):
        again = off_again(off_words(off, (*before, off)), 5.0)
        end = ended((*again, Happening(Kind.GONE, 6.0)), 1.0)
        assert isinstance(end, Ended)
        assert end.cause is cause
    unheard = Happening(Kind.SHUTDOWN, 5.0)
    assert off_again(off_words(unheard, (unheard,)), 5.0) == ()
