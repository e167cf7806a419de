"""The oracle of the crash suite finds what it is there for: each planted fault is complained of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crash.oracle import Book, Case, Truth, complaints
from lastcall.model import (
    Asked,
    Cause,
    Consent,
    Ended,
    Ending,
    Event,
    Finished,
    ForceConsent,
    Intended,
    Missing,
    Outcome,
    Resumed,
    Rung,
    Started,
    Why,
)

LADDER = (Rung("15@", "SIGTERM"), Rung("9@", "SIGKILL", 10.0, Consent.FORCE))
BEGUN = Started(LADDER, 10.0, 10.0)
ALLOWED = Started(LADDER, 10.0, 10.0, ForceConsent("test", "me"))
ASKED = (Intended(0, 1), Asked(0, 1, Outcome.DONE))
FORCED = (Intended(1, 1), Asked(1, 1, Outcome.DONE))
EXIT_0, DIED_OF_9, DIED_OF_15 = 0, 9, 15
SOFT_LEDGER = ("point after commit intended 1 0:1", "sent 7 15")
FORCE_LEDGER = (*SOFT_LEDGER, "point after commit intended 1 1:1", "sent 7 9")
HANDLES = frozenset({15})


def ended(cause: Cause, ending: Ending, detail: str = "") -> tuple[Event, Event]:
    """The last two events of a stop whose end was seen."""
    return Ended(cause, detail), Finished(ending, Why.ENDED, detail)


def book(*events: Event) -> Book:
    """One stop of pid 7, an event a second; its deadline is at 10 s, so force comes after that."""
    timed, at_s = [], 0.0
    for event in events:
        at_s = max(at_s + 1, 11.0) if isinstance(event, Intended) and event.rung else at_s + 1
        timed.append((at_s, event))
    finished = [event for event in events if isinstance(event, Finished)]
    ending = finished[-1].ending if finished else None
    return Book(1, (7,), ending, owned=False, events=tuple(timed))


def case(
    events: tuple[Event, ...],
    status: int | None,
    ledger: tuple[str, ...] = SOFT_LEDGER,
    *,
    handled: frozenset[int] = HANDLES,
    said: tuple[int, ...] = (),
    dead_at: int | None = None,
    snapshot: tuple[Event, ...] | None = None,
    zombie: bool = False,
) -> Case:
    """A case with one victim, pid 7, that was cut off once when `snapshot` was written."""
    truth = Truth(7, handled, status, said, dead_at, zombie=zombie)
    snapshots = ((book(*snapshot),),) if snapshot is not None else ()
    consent = any(isinstance(e, Started) and e.consent for e in events)
    return Case((book(*events),), snapshots, (truth,), (ledger,), consent=consent, roots=(7,))


ORDERLY = (BEGUN, *ASKED, *ended(Cause.BY_ITSELF, Ending.ORDERLY))
KILLED = (ALLOWED, *ASKED, *FORCED, *ended(Cause.TAKEN_AWAY, Ending.FORCED))
UNSEEN = (Missing("gone"), Finished(Ending.UNKNOWN, Why.UNSEEN, "gone"))
LEFT = Finished(Ending.STILL_RUNNING, Why.DEADLINE, "")
TWICE = (*FORCED[:1], Resumed("me"), Intended(1, 2), Asked(1, 2, Outcome.DONE))


@pytest.mark.parametrize(
    "sound",
    [
        case(ORDERLY, EXIT_0, said=(15,)),
        case(ORDERLY, 143 << 8),
        case(ORDERLY, DIED_OF_15),
        case((BEGUN, *ASKED, *ended(Cause.UNHANDLED, Ending.ABRUPT)), 15, handled=frozenset()),
        case((BEGUN, *ASKED, *ended(Cause.FAILED, Ending.CRASHED)), 3 << 8),
        case(KILLED, DIED_OF_9, FORCE_LEDGER),
        case(KILLED, EXIT_0, FORCE_LEDGER),
        case((BEGUN, *ASKED, LEFT), None),
        case((BEGUN, *ended(Cause.BY_ITSELF, Ending.ENDED_BEFORE)), EXIT_0, ()),
        case((BEGUN, *ASKED, *UNSEEN), EXIT_0, dead_at=1, snapshot=(BEGUN, *ASKED)),
        case(
            (ALLOWED, *ASKED, *TWICE, *ended(Cause.TAKEN_AWAY, Ending.FORCED)),
            DIED_OF_9,
            (*FORCE_LEDGER, "point after commit intended 1 1:2", "sent 7 9"),
        ),
    ],
)
def test_nothing_is_said_against_what_is_sound(sound: Case) -> None:
    """The oracle does not complain of a journal that tells the truth."""
    assert complaints(sound) == []


@pytest.mark.parametrize(
    ("planted", "complaint"),
    [
        (case((*ORDERLY, ORDERLY[-1]), EXIT_0), "2 endings"),
        (case(ORDERLY[:-1], EXIT_0), "0 endings"),
        (case(ORDERLY, DIED_OF_9), "died of 9"),
        (case(ORDERLY, 3 << 8), "exited with 3"),
        (case(ORDERLY, DIED_OF_15, handled=frozenset()), "died of 15"),
        (case(ORDERLY, None), "is alive"),
        (case((BEGUN, *ASKED, *ended(Cause.UNHANDLED, Ending.ABRUPT)), EXIT_0), "exited with 0"),
        (case((BEGUN, *ASKED, *ended(Cause.FAILED, Ending.CRASHED)), EXIT_0), "exited with 0"),
        (case((BEGUN, *ASKED, *ended(Cause.TAKEN_AWAY, Ending.FORCED)), DIED_OF_9), "died of 9"),
        (case((BEGUN, *ASKED, LEFT), EXIT_0), "nobody is alive"),
        (case((BEGUN, *ASKED, *ended(Cause.BY_ITSELF, Ending.ENDED_BEFORE)), 0), "exited with 0"),
        (
            case(
                (ALLOWED, *ASKED, *FORCED, *ended(Cause.TAKEN_AWAY, Ending.KILLED_OUTSIDE)),
                DIED_OF_9,
                FORCE_LEDGER,
            ),
            "killed from outside",
        ),
        (case((BEGUN, *ASKED, *UNSEEN), EXIT_0), "it could be known"),
        (
            case((BEGUN, *ASKED, *UNSEEN), 0, dead_at=1, snapshot=(BEGUN, *ASKED), zombie=True),
            "it could be known",
        ),
        (case((BEGUN, *ASKED, *UNSEEN), 0, dead_at=1, snapshot=ORDERLY[:-1]), "could be known"),
        (case(ORDERLY, EXIT_0, dead_at=1, snapshot=ORDERLY[:-2]), "nobody can have seen"),
        (case((*ORDERLY[:-1], Resumed("me"), ORDERLY[-1]), EXIT_0), "Resumed after its end"),
        (case((*ORDERLY, Resumed("me")), EXIT_0), "after its ending"),
        (case(ORDERLY, EXIT_0, ("sent 7 15",)), "without a record"),
        (case(ORDERLY, EXIT_0, (*SOFT_LEDGER, *SOFT_LEDGER)), "sent 2 times"),
        (case(ORDERLY, EXIT_0, said=(15, 15)), "from nobody we know"),
        (
            case((BEGUN, *ASKED, *FORCED, *ended(Cause.TAKEN_AWAY, Ending.FORCED)), 9),
            "without a valid consent",
        ),
        (case((BEGUN, *ASKED, LEFT), None, FORCE_LEDGER), "forced without consent"),
        (
            case((ALLOWED, *ASKED, *FORCED, Intended(1, 2), *KILLED[-2:]), DIED_OF_9, FORCE_LEDGER),
            "with nothing in doubt",
        ),
        (
            case((ALLOWED, *ASKED, FORCED[0], *KILLED[-2:]), DIED_OF_9, FORCE_LEDGER),
            "as if it were certain",
        ),
    ],
)
def test_each_planted_fault_is_found(planted: Case, complaint: str) -> None:
    """The oracle complains of a journal that lies, forgets, or tells of what must not be done."""
    assert complaint in "\n".join(complaints(planted))


def test_a_force_before_the_deadline_is_found() -> None:
    """A force that came while the grace had not run out is complained of."""
    sound = case(KILLED, DIED_OF_9, FORCE_LEDGER)
    [told] = sound.books
    hasty = replace(told, events=tuple((at_s - 9, event) for at_s, event in told.events))
    assert "before the deadline" in "\n".join(complaints(replace(sound, books=(hasty,))))


def test_a_touched_target_without_a_record_is_found() -> None:
    """A target that was asked while the journal knows nothing of it is complained of."""
    lost = replace(case(ORDERLY, EXIT_0, said=(15,)), books=(), ledgers=())
    assert "the journal knows nothing" in "\n".join(complaints(lost))


def test_two_stops_of_one_target_are_found() -> None:
    """A resume that began a second stop instead of going on is complained of."""
    sound = case(ORDERLY, EXIT_0)
    [told] = sound.books
    double = replace(sound, books=(told, replace(told, stop=2)))
    assert "several stops" in "\n".join(complaints(double))
