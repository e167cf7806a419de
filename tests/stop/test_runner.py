"""The runner with a fake target and a clock that crosses every grace in no time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from lastcall.errors import JournalError
from lastcall.journal.store import LostOwnership
from lastcall.model import (
    Asked,
    Cause,
    Consent,
    Depth,
    Ended,
    Ending,
    Event,
    Finding,
    Finished,
    ForceConsent,
    Intended,
    Looked,
    LookStarted,
    Outcome,
    Progressed,
    Released,
    Rung,
    Started,
    Warned,
    Why,
)
from lastcall.stop import runner
from lastcall.stop.runner import Run
from lastcall.targets.base import Answer
from lastcall.testing.fake import FakeClock, FakeTarget, play

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lastcall.journal.store import Entry
    from lastcall.journal.writer import Writer

YES = ForceConsent("it may go", "test", unrecorded=True)


@dataclass
class Journal:
    """Stands where the writer stands, and fails when it is told to.

    Args:
        full_after: how many events it takes before it fails; None means it never does.
        lost: whether somebody else owns the stop.
    """

    full_after: int | None = None
    lost: bool = False
    failure: JournalError | None = None

    def __post_init__(self) -> None:
        self.events: list[Event] = []

    def note(self, entry: Entry) -> None:
        """Write it, or fail quietly."""
        if self.full_after is not None and len(self.events) >= self.full_after:
            self.failure = JournalError("full", "free some space")
        else:
            self.events.append(entry.event)

    async def commit(self, entry: Entry) -> None:
        """Write it, or raise."""
        if self.lost:
            raise LostOwnership("another drives it")
        self.note(entry)
        if self.failure is not None:
            raise self.failure


def run(
    target: FakeTarget,
    *,
    grace_s: float = 30,
    ceiling_s: float | None = None,
    consent: ForceConsent | None = None,
    journal: Journal | None = None,
    clock: FakeClock | None = None,
) -> tuple[Finished | None, list[Event]]:
    """Drive a stop of the target to its end; returns the ending and what happened."""
    clock = clock or FakeClock()

    async def work() -> tuple[Finished | None, list[Event]]:
        book: Writer | None = journal  # type: ignore[assignment]  # a stand-in of the same shape
        driven = Run(1, target, clock, book, lambda *_: None)
        now_s = clock.now_s()
        ceiling = now_s + (grace_s if ceiling_s is None else ceiling_s)
        driven.note(Started(target.ladder, now_s + grace_s, ceiling, consent))
        finished = await play(driven.drive(), clock)
        return finished, [event for _, event in driven.history]

    return asyncio.run(work())


def kinds(events: Sequence[Event]) -> list[type]:
    """The types of the events, in order."""
    return [type(event) for event in events]


def test_an_orderly_stop_is_these_events() -> None:
    """The whole sequence of a stop that is answered at once."""
    target = FakeTarget(ends={"ask": Cause.BY_ITSELF})
    finished, events = run(target)
    assert kinds(events) == [Started, Intended, Asked, Ended, Finished]
    assert finished is not None
    assert (finished.ending, target.carried, target.closed) == (Ending.ORDERLY, ["ask"], True)


def test_a_stop_that_is_left_looks_and_explains() -> None:
    """Two looks on the way, a close one at the deadline, and what it found is in the ending."""
    why = Finding("busy", "it is busy")
    target = FakeTarget(findings=(why,))
    finished, events = run(target)
    assert kinds(events) == [
        Started, Intended, Asked, *[LookStarted, Looked] * 3, Finished,
    ]  # fmt: skip
    assert finished is not None
    assert (finished.ending, finished.findings) == (Ending.STILL_RUNNING, (why,))
    assert target.looked == [Depth.QUICK, Depth.DEEP, Depth.DEEP]


def test_force_waits_for_the_last_look() -> None:
    """What held it up is known before the evidence is destroyed."""
    target = FakeTarget(ends={"pull": Cause.TAKEN_AWAY})
    finished, events = run(target, grace_s=2, consent=YES)
    order = [e for e in events if isinstance(e, Looked | Intended | Finished)]
    assert kinds(order) == [Intended, Looked, Looked, Intended, Finished]
    assert finished is not None
    assert (finished.ending, target.carried) == (Ending.FORCED, ["ask", "pull"])


def test_a_look_that_hangs_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up, and that is said."""
    monkeypatch.setattr(runner, "LOOK_LIMIT_S", 0.01)

    class Opaque(FakeTarget):
        async def look(self, depth: Depth) -> tuple[Finding, ...]:
            await asyncio.Event().wait()
            return await super().look(depth)

    async def work() -> Finished | None:
        target, clock = Opaque(), FakeClock()
        driven = Run(1, target, clock, None, lambda *_: None)
        driven.note(Started(target.ladder, clock.now_s(), clock.now_s()))
        return await driven.drive()

    finished = asyncio.run(work())
    assert finished is not None
    assert [finding.code for finding in finished.findings] == ["look-failed"]


def test_a_look_that_breaks_is_a_finding() -> None:
    """A bug in an explanation never ends a stop."""

    class Broken(FakeTarget):
        async def look(self, depth: Depth) -> tuple[Finding, ...]:
            raise ZeroDivisionError(depth)

    finished, _ = run(Broken(), grace_s=0)
    assert finished is not None
    assert finished.ending is Ending.STILL_RUNNING
    assert "ZeroDivisionError" in finished.findings[0].title


def test_progress_extends_up_to_the_ceiling() -> None:
    """A target that reports progress is waited for longer, and then no longer."""
    clock = FakeClock()

    class Updating(FakeTarget):
        async def look(self, depth: Depth) -> tuple[Finding, ...]:
            self.notify(Progressed(20, "installing 3 of 9"))
            return await super().look(depth)

    finished, _ = run(Updating(), grace_s=10, ceiling_s=22, clock=clock)
    assert finished is not None
    assert finished.ending is Ending.STILL_RUNNING
    assert clock.now_s() == 1022


def test_two_rungs_then_the_end() -> None:
    """A sequence climbs at its time."""
    ladder = (Rung("int", "INT", 5), Rung("term", "TERM"), Rung("kill", "KILL", 5, Consent.FORCE))
    clock = FakeClock()
    target = FakeTarget(ladder=ladder, ends={"term": Cause.BY_ITSELF})
    finished, _ = run(target, clock=clock)
    assert finished is not None
    assert (finished.ending, target.carried, clock.now_s()) == (
        Ending.ORDERLY,
        ["int", "term"],
        1005,
    )


def test_not_permitted_is_said_at_once() -> None:
    """No waiting for somebody whom we may not ask."""
    clock = FakeClock()
    target = FakeTarget(answers={"ask": Answer(Outcome.NOT_PERMITTED, "not yours")})
    finished, _ = run(target, clock=clock)
    assert finished is not None
    assert (finished.why, clock.now_s()) == (Why.NOT_PERMITTED, 1000)


def test_leaving_keeps_the_stop_open() -> None:
    """Ctrl+C: no ending, the target is let go of, and the journal says who left."""

    async def work() -> tuple[Finished | None, list[Event]]:
        clock, target, journal = FakeClock(), FakeTarget(), Journal()
        driven = Run(1, target, clock, journal, lambda *_: None)  # type: ignore[arg-type]
        driven.note(Started(target.ladder, 1030, 1030))
        task = asyncio.ensure_future(driven.drive())
        while not target.carried:  # noqa: ASYNC110 (a turn of the loop, no time)
            await asyncio.sleep(0)
        driven.leave("SIGINT")
        return await task, journal.events

    finished, events = asyncio.run(work())
    assert finished is None
    assert kinds(events)[-1] is Released


def test_the_intent_is_written_before_the_effect() -> None:
    """When the rung is carried out its intent stands in the journal already."""
    journal = Journal()
    seen: list[list[type]] = []

    class Watching(FakeTarget):
        async def carry(self, rung: Rung) -> Answer:
            seen.append(kinds(journal.events))
            return await super().carry(rung)

    run(Watching(ends={"ask": Cause.BY_ITSELF}), journal=journal)
    assert seen == [[Started, Intended]]


@pytest.mark.parametrize("full_after", range(5))
def test_a_soft_stop_goes_on_without_a_journal(full_after: int) -> None:
    """Whenever the journal fails, the stop goes on, once warned, and ends as it would have."""
    target = FakeTarget(ends={"ask": Cause.BY_ITSELF})
    finished, events = run(target, journal=Journal(full_after=full_after))
    assert finished is not None
    assert (finished.ending, target.carried) == (Ending.ORDERLY, ["ask"])
    assert kinds(events).count(Warned) == 1


@pytest.mark.parametrize("unrecorded", [True, False])
def test_unrecorded_force_needs_this_command_line(*, unrecorded: bool) -> None:
    """Without a journal only a consent from this very command line forces."""
    consent = ForceConsent("it may go", "test", unrecorded=unrecorded)
    target = FakeTarget(ends={"pull": Cause.TAKEN_AWAY})
    finished, _ = run(target, grace_s=0, consent=consent, journal=Journal(full_after=1))
    assert finished is not None
    expected = Ending.FORCED if unrecorded else Ending.STILL_RUNNING
    assert (finished.ending, "pull" in target.carried) == (expected, unrecorded)
    if not unrecorded:
        assert finished.why is Why.UNRECORDED


def test_a_lost_stop_is_not_acted_on() -> None:
    """One that another has taken over: no effect, and the caller is told."""
    target = FakeTarget()
    with pytest.raises(LostOwnership):
        run(target, journal=Journal(lost=True))
    assert (target.carried, target.closed) == ([], True)
