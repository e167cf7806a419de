"""Carries one stop out: asks `due`, does it, writes what happened. All effects are here.

An intent is on disk before its effect. What a target reports comes in as events and wakes the
runner; it never polls.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from lastcall.errors import JournalError
from lastcall.journal.store import Entry, LostOwnership
from lastcall.model import (
    Asked,
    Confidence,
    Event,
    Finding,
    Finished,
    Intended,
    Looked,
    LookStarted,
    Released,
    Severity,
    Warned,
    Why,
)
from lastcall.stop.decide import Carry, Finish, Look, Wait, due
from lastcall.stop.state import State, evolve, fold
from lastcall.stop.turns import Crowd

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from lastcall.clock import Clock
    from lastcall.journal.writer import Writer
    from lastcall.targets.base import Target

LOOK_LIMIT_S = 5.0
# Timers run on a clock that stands still while the machine sleeps: look up at least this often.
NAP_S = 60.0


class Listener(Protocol):
    """Hears every event of a stop as it happens."""

    def __call__(self, run: Run, at_s: float, event: Event) -> None:
        """One event, at this moment of the boot-time clock."""
        ...


@dataclass(slots=True)
class _Alarm:
    """Wakes the runner: at a time, or when something comes in."""

    future: asyncio.Future[None] | None = None

    def ring(self) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_result(None)


class Run:
    """One stop of one target, driven by this process.

    Args:
        number: the stop's number in the journal; 0 when it is not recorded.
        target: what is stopped; its identity is fixed. The run closes it.
        clock: tells the time.
        journal: where events go; None when it cannot be used.
        listener: hears every event.
        history: what the journal already holds of this stop.
        crowd: lets us ask and look when it is our turn; None: at any time.
    """

    def __init__(
        self,
        number: int,
        target: Target,
        clock: Clock,
        journal: Writer | None,
        listener: Listener,
        history: Sequence[tuple[float, Event]] = (),
        crowd: Crowd | None = None,
    ) -> None:
        self.number = number
        self.target = target
        self.state: State = fold(history)
        self.history: list[tuple[float, Event]] = list(history)
        self.followers: list[Callable[[float, Event], None]] = []
        self._clock = clock
        self._journal = journal
        self._listener = listener
        self._inbox: list[Event] = []
        self._alarm = _Alarm()
        self._look: asyncio.Task[None] | None = None
        self._leaving: str | None = None
        self._crowd = crowd or Crowd()

    def tell(self, event: Event) -> None:
        """Something happened; the runner takes it in at once. For use on the loop."""
        self._inbox.append(event)
        self._alarm.ring()

    def leave(self, by: str) -> None:
        """Stop driving; the target is left alone and the stop stays open."""
        self._leaving = by
        self._alarm.ring()

    async def drive(self) -> Finished | None:
        """Go on until the end. None: it was left, and stays open.

        Raises:
            LostOwnership: another lastcall drives it now.
        """
        try:
            self.target.watch(self.tell)
            # What has ended already is told now, before anything is asked of it.
            await asyncio.sleep(0)
            return await self._drive()
        finally:
            if self._look is not None:
                self._look.cancel()
            self.target.close()

    async def _drive(self) -> Finished | None:
        while True:
            self._take_in()
            if self._leaving is not None:
                self.note(Released(self._leaving))
                return None
            action = due(self.state, self._clock.now_s())
            match action:
                case Wait(until_s):
                    await self._wait(until_s)
                case Carry():
                    await self._carry(action)
                case Look(depth, at_deadline_s):
                    self.note(LookStarted(depth, at_deadline_s))
                    self._look = asyncio.create_task(self._look_closely(action))
                case Finish(result):
                    return await self.finish(result)

    async def finish(self, result: Finished) -> Finished:
        """Verify, record the ending and return it."""
        if result.why is Why.ENDED:
            extra = await limited(self.target.verify())
            result = replace(result, findings=(*result.findings, *extra))
        await self.commit(result)
        return result

    def _take_in(self) -> None:
        inbox, self._inbox = self._inbox, []
        for event in inbox:
            self.note(event)

    async def _wait(self, until_s: float) -> None:
        if self._inbox or self._leaving is not None:
            return
        delay_s = until_s - self._clock.now_s()
        if delay_s <= 0:
            return
        loop = asyncio.get_running_loop()
        self._alarm.future = loop.create_future()
        cancel = self._clock.call_later(min(delay_s, NAP_S), self._alarm.ring)
        try:
            await self._alarm.future
        finally:
            cancel()

    async def _carry(self, action: Carry) -> None:
        async with self._crowd.asks.turn():
            # What came in while we waited for our turn may have made it needless.
            if not self._inbox and self._leaving is None:
                await self._carry_now(action)

    async def _carry_now(self, action: Carry) -> None:
        rung = self.state.ladder[action.rung]
        intent = Intended(action.rung, action.attempt, self.target.facts(rung))
        if not await self.commit(intent):
            return  # Without a record things look different: `due` decides anew.
        answer = await self.target.carry(rung)
        self.note(Asked(action.rung, action.attempt, answer.outcome, answer.detail))

    async def _look_closely(self, look: Look) -> None:
        async with self._crowd.looks.turn():
            findings = await limited(self.target.look(look.depth))
        self.tell(Looked(look.depth, findings))

    def note(self, event: Event) -> None:
        """Take an event in and write it soon."""
        at_s = self._apply(event)
        if self._journal is not None:
            self._journal.note(Entry(self.number, at_s, self._clock.wall_s(), event))
            if self._journal.failure is not None:
                self._unrecorded(self._journal.failure)

    async def commit(self, event: Event) -> bool:
        """Write an event, and only then take it in. False: it could not be written.

        An ending is taken in all the same; an intent is not.

        Raises:
            LostOwnership: the stop is driven by another now, or over.
        """
        if self._journal is not None:
            now_s = self._clock.now_s()
            try:
                await self._journal.commit(Entry(self.number, now_s, self._clock.wall_s(), event))
            except LostOwnership:
                raise
            except JournalError as error:
                self._unrecorded(error)
                if isinstance(event, Intended):
                    return False
        self._apply(event)
        return True

    def _apply(self, event: Event) -> float:
        at_s = self._clock.now_s()
        self.state = evolve(self.state, event, at_s)
        self.history.append((at_s, event))
        self._listener(self, at_s, event)
        for follower in self.followers:
            follower(at_s, event)
        return at_s

    def _unrecorded(self, error: JournalError) -> None:
        """From now on nothing is written; a soft stop goes on, and says so."""
        self._journal = None
        self._apply(Warned(unrecorded(error)))


async def limited(looking: Awaitable[tuple[Finding, ...]]) -> tuple[Finding, ...]:
    """What a look finds; a look that hangs or breaks is itself a finding."""
    try:
        async with asyncio.timeout(LOOK_LIMIT_S):
            return await looking
    except TimeoutError:
        what = f"looking took longer than {LOOK_LIMIT_S:g} s and was given up"
    except Exception as error:  # noqa: BLE001 (an explanation must never end a stop)
        what = f"looking failed: {error!r}"
    return (Finding("look-failed", what, Severity.NOTE, Confidence.CERTAIN),)


async def preflight(target: Target, crowd: Crowd) -> tuple[Finding, ...]:
    """What keeps a target from ending, once it is its turn."""
    async with crowd.asks.turn():
        return await limited(target.preflight())


def unrecorded(error: JournalError) -> Finding:
    """What to tell when the journal cannot be used."""
    return Finding(
        code="journal-unusable",
        title="this stop is not recorded: it cannot be resumed, joined or looked up later",
        severity=Severity.WARNING,
        evidence=(error.what,),
        advice=error.advice,
    )


def damaged(aside: str) -> Finding:
    """What to tell when the journal was damaged and a new one was begun."""
    return Finding(
        code="journal-damaged",
        title="the journal was damaged: it is kept aside, and a new one was begun",
        severity=Severity.WARNING,
        evidence=(aside,),
        advice="stops that were under way in it cannot be resumed; look at it with sqlite3",
    )
