"""The oracle of the crash suite of guests finds what it is there for: each planted fault."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crash.guest_oracle import Case, Told, Truth, complaints
from crash.oracle import Book
from lastcall.model import (
    Asked,
    Cause,
    Ended,
    Ending,
    Event,
    Finished,
    ForceConsent,
    Intended,
    Missing,
    Outcome,
    Resumed,
    Started,
    Why,
)
from lastcall.targets.guest.ladder import ladder_of
from lastcall.targets.guest.wish import GuestWish
from lastcall.targets.guest.words import System

LADDER = ladder_of(GuestWish(), System.UNKNOWN)
AT = {rung.id: index for index, rung in enumerate(LADDER)}
BEGUN = Started(LADDER, 10.0, 10.0)
ALLOWED = Started(LADDER, 10.0, 10.0, ForceConsent("test", "me"))
OFF = Told("SHUTDOWN", guest=True, reason="guest-shutdown", at_s=5.0)
QUIT = Told("SHUTDOWN", reason="host-qmp-quit", at_s=12.0)
SIGNAL = Told("SHUTDOWN", reason="host-signal", at_s=12.0)
PRESSED, TO_DISK = Told("POWERDOWN"), Told("SUSPEND_DISK")
DEED = {"press": "system_powerdown", "press-again": "system_powerdown", "finish": "quit"}


def carried(rung: str, attempt: int = 1) -> tuple[Event, Event]:
    """A rung that was carried out."""
    return Intended(AT[rung], attempt), Asked(AT[rung], attempt, Outcome.DONE)


def did(rung: str, attempt: int = 1) -> tuple[str, str]:
    """The ledger of that."""
    committed = f"point after commit intended 1 {AT[rung]}:{attempt}"
    return committed, f"doing {DEED.get(rung, 'quit')} /qmp"


def over(cause: Cause, ending: Ending) -> tuple[Event, Event]:
    """The last two events of a stop whose end was seen."""
    return Ended(cause, ""), Finished(ending, Why.ENDED, "")


def book(*events: Event) -> Book:
    """One stop of pid 7, an event a second; its deadline is at 10 s, so force comes after that."""
    timed, at_s = [], 0.0
    for event in events:
        late = isinstance(event, Intended) and event.rung >= AT["end"]
        at_s = max(at_s + 1, 11.0) if late else at_s + 1
        timed.append((at_s, event))
    finished = [event for event in events if isinstance(event, Finished)]
    return Book(1, (7,), finished[-1].ending if finished else None, owned=False, events=(*timed,))


def case(
    events: tuple[Event, ...],
    told: tuple[Told, ...],
    ledger: tuple[str, ...],
    *,
    status: int | None = 0,
    said: tuple[str, ...] = ("up", "taken", "off"),
    over_at: int | None = None,
    snapshot: tuple[Event, ...] | None = None,
    outside: bool = False,
) -> Case:
    """A case with one guest, pid 7 at /qmp, that was cut off once when `snapshot` was written."""
    truth = Truth(7, "/qmp", told, said, status, over_at, outside=outside)
    snapshots = ((book(*snapshot),),) if snapshot is not None else ()
    consent = any(isinstance(event, Started) and event.consent for event in events)
    return Case((book(*events),), snapshots, (truth,), (ledger,), consent=consent)


PRESS, END = carried("press"), carried("end")
BY_ITSELF = (PRESSED, OFF)
ORDERLY = (BEGUN, *PRESS, *over(Cause.BY_ITSELF, Ending.ORDERLY))
FORCED = (ALLOWED, *PRESS, *END, *over(Cause.TAKEN_AWAY, Ending.FORCED))
BY_FORCE = (*did("press"), *did("end"))
CLEARED = (BEGUN, *PRESS, *carried("finish"), *over(Cause.BY_ITSELF, Ending.ORDERLY))
CLEARING = (*did("press"), *did("finish"))
LEFT = Finished(Ending.STILL_RUNNING, Why.DEADLINE, "")
GONE = (Missing("gone"), Finished(Ending.UNKNOWN, Why.UNSEEN, "gone"))
KILLED = (BEGUN, *PRESS, *over(Cause.TAKEN_AWAY, Ending.KILLED_OUTSIDE))
STILL = ("up", "taken")


@pytest.mark.parametrize(
    "sound",
    [
        case(ORDERLY, BY_ITSELF, did("press")),
        case(
            (*ORDERLY[:-1], Finished(Ending.HIBERNATED, Why.ENDED, "")),
            (PRESSED, TO_DISK, OFF),
            did("press"),
        ),
        case(FORCED, (PRESSED, QUIT), BY_FORCE, said=STILL),
        case(FORCED, (PRESSED, SIGNAL), (*BY_FORCE, "sent 7 15"), said=STILL),
        case(CLEARED, (PRESSED, OFF, QUIT), CLEARING),
        case((BEGUN, *PRESS, LEFT), (PRESSED,), did("press"), status=None, said=STILL),
        case((BEGUN, *PRESS, *GONE), BY_ITSELF, did("press"), over_at=1, snapshot=(BEGUN, *PRESS)),
        case(KILLED, (PRESSED,), did("press"), status=-9, said=STILL, outside=True),
    ],
)
def test_nothing_is_said_against_what_is_sound(sound: Case) -> None:
    """The oracle does not complain of a journal that agrees with QEMU's record."""
    assert complaints(sound) == []


@pytest.mark.parametrize(
    ("planted", "complaint"),
    [
        # A second press, in QEMU's record, in the guest's words, or in what was done.
        (case(ORDERLY, (PRESSED, *BY_ITSELF), did("press")), "pressed 2 times"),
        (case(ORDERLY, (PRESSED, *BY_ITSELF), did("press")), "from nobody we know"),
        (case(ORDERLY, BY_ITSELF, did("press"), said=("up", "taken", "taken", "off")), "took 2"),
        (case(ORDERLY, BY_ITSELF, (*did("press"), did("press")[1])), "without a record before"),
        (case((BEGUN, *PRESS, LEFT), (PRESSED,), did("press"), status=None,
              said=("up", "taken", "cancelled")), "cancelled its shutdown"),
        # A force without consent, without a record, twice, or too early.
        (case((BEGUN, *FORCED[1:]), (PRESSED, QUIT), BY_FORCE, said=STILL), "without consent"),
        (case((BEGUN, *FORCED[1:]), (PRESSED, QUIT), BY_FORCE, said=STILL), "valid consent"),
        (case(KILLED, (PRESSED, QUIT), did("press"), said=STILL), "quit from nobody we know"),
        (case(KILLED, (PRESSED,), did("press"), status=-9, said=STILL), "died of signal 9"),
        (case(FORCED, (PRESSED, QUIT), (*BY_FORCE, "sent 7 9"), said=STILL), "9 came without"),
        (case((*FORCED[:-2], *carried("end", 2), *FORCED[-2:]), (PRESSED, QUIT),
              (*BY_FORCE, *did("end", 2)), said=STILL), "with nothing in doubt"),
        # A QEMU that was cleared away though its guest was not off.
        (case(CLEARED, (PRESSED, QUIT), CLEARING, said=STILL), "the guest was not off"),
        # Endings that QEMU's record does not have.
        (case(ORDERLY, (PRESSED, TO_DISK, OFF), did("press")), "orderly, says the journal; QEMU"),
        (case(ORDERLY, (PRESSED, SIGNAL), did("press"), outside=True), "QEMU says host-signal"),
        (case(ORDERLY, (PRESSED,), did("press"), status=-9, outside=True), "exit status -9"),
        (case(ORDERLY, BY_ITSELF, did("press"), status=None), "and QEMU runs"),
        (case(FORCED, BY_ITSELF, BY_FORCE), "forced, says the journal; QEMU says guest-shutdown"),
        (case(KILLED, BY_ITSELF, did("press"), outside=True), "killed from outside, says the"),
        (case((BEGUN, *PRESS, LEFT), BY_ITSELF[:1], did("press")), "and QEMU is gone"),
        (case((BEGUN, *PRESS, *over(Cause.BY_ITSELF, Ending.ENDED_BEFORE)), BY_ITSELF,
              did("press")), "ended before, says the journal"),
        (case((BEGUN, *PRESS, *over(Cause.UNKNOWN, Ending.UNKNOWN)), BY_ITSELF, did("press")),
         "it could be known"),
        # Endings that nobody can have seen, or that somebody had.
        (case((*ORDERLY[:-2], ORDERLY[-1]), BY_ITSELF, did("press"), over_at=1,
              snapshot=(BEGUN, *PRESS)), "nobody can have seen"),
        (case((BEGUN, *PRESS, ORDERLY[-2], *GONE), BY_ITSELF, did("press"), over_at=1,
              snapshot=ORDERLY[:-1]), "it could be known"),
        # A journal that is not whole.
        (case((*ORDERLY, ORDERLY[-1]), BY_ITSELF, did("press")), "2 endings"),
        (case((*ORDERLY, Resumed("me")), BY_ITSELF, did("press")), "after its ending"),
    ],
)  # fmt: skip
def test_each_planted_fault_is_found(planted: Case, complaint: str) -> None:
    """The oracle complains of a double press, a wrong force, and an ending that is not true."""
    assert complaint in "\n".join(complaints(planted))


def test_a_force_in_doubt_that_is_told_as_certain_is_found() -> None:
    """A force that nobody saw answered must be told as doubtful."""
    events = (*FORCED[:4], *FORCED[-2:])
    assert "as if it were certain" in "\n".join(
        complaints(case(events, (PRESSED, QUIT), BY_FORCE, said=STILL))
    )


def test_a_touched_guest_without_a_record_is_found() -> None:
    """A guest that was pressed while the journal knows nothing of it is complained of."""
    lost = replace(case(ORDERLY, BY_ITSELF, ()), books=())
    assert "the journal knows nothing" in "\n".join(complaints(lost))


def test_two_stops_of_one_guest_are_found() -> None:
    """A resume that began a second stop instead of going on is complained of."""
    sound = case(ORDERLY, BY_ITSELF, did("press"))
    [told] = sound.books
    double = replace(sound, books=(told, replace(told, stop=2)))
    assert "has 2 stops" in "\n".join(complaints(double))
