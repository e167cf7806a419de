"""One command's stops, side by side: each is claimed in the journal and driven, or joined."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lastcall.errors import JournalError, LastcallError, NotRunning, OwnerUnreachable
from lastcall.journal.store import Claim, Claimed, Entry, LostOwnership
from lastcall.journal.writer import Writer
from lastcall.model import (
    GUESTS,
    Address,
    Ending,
    Event,
    Finding,
    Finished,
    Identity,
    Missing,
    Resumed,
    Rung,
    Started,
    Warned,
    Why,
)
from lastcall.stop import ownership
from lastcall.stop.decide import judge
from lastcall.stop.following import listen
from lastcall.stop.news import News, Result, Subject
from lastcall.stop.runner import Run, damaged, preflight, unrecorded
from lastcall.stop.state import evolve, fold
from lastcall.stop.turns import Crowd, Turns
from lastcall.stop.wishes import Wishes
from lastcall.targets.open import reopen_target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from typing import TypeAlias

    from lastcall.clock import Clock
    from lastcall.journal.store import Row
    from lastcall.stop.policy import Policy
    from lastcall.stop.state import State
    from lastcall.targets.base import Target

    _Looked: TypeAlias = tuple[Target, tuple[Finding, ...]]
    _Looks: TypeAlias = dict[asyncio.Future[tuple[Finding, ...]], Target]
    _Begin: TypeAlias = Callable[[Sequence[_Looked], JournalError | None], Awaitable[list[Result]]]

OWNER_PATIENCE_S = 3.0
# Whoever is found and looked at within so many seconds of each other is begun together.
TOGETHER_S = 0.5
_NAP_S = 0.05
_SET_CLOCK_S = 60.0


@dataclass(slots=True)
class Operation:
    """See the module.

    Args:
        folder: the state folder.
        policy: what the caller wants.
        clock: tells the time.
        show: is told everything that happens.
        over: is told each result as it comes.
        ask_again: whether a resumed stop repeats its last ask although that may not be harmless.
        at_once: how many are brought down at the same time; None: all of them.
    """

    folder: str
    policy: Policy
    clock: Clock
    show: Callable[[News], None]
    over: Callable[[Result], None] = lambda _: None
    ask_again: bool = False
    at_once: int | None = None
    _me: str = field(default_factory=ownership.ourselves)
    _by: str = field(default_factory=ownership.who)
    _journal: Writer | None = None
    _runs: dict[int, Run] = field(default_factory=dict)
    _notices: tuple[Finding, ...] = ()
    _wishes: Wishes = field(init=False)
    _left: asyncio.Event = field(default_factory=asyncio.Event)
    _crowd: Crowd = field(default_factory=Crowd)

    def __post_init__(self) -> None:
        self._wishes = Wishes(self.policy, self._by, self.clock)

    async def stop(
        self, targets: Sequence[Target], later: AsyncIterator[Sequence[Target]] | None = None
    ) -> list[Result]:
        """Stop these, side by side. They are closed afterwards.

        Nobody waits for one that is slow to be found or to be looked at.

        Args:
            targets: found already.
            later: more of them, as they are found; None: these are all.
        """
        looks = _looks(targets, self._crowd)
        async with self._journalled() as trouble:  # opens while we look
            turns = None if self.at_once is None else Turns(self.at_once)
            works = [asyncio.ensure_future(self._as_looked_at(looks, turns, trouble))]
            if later is not None:
                async for found in later:
                    work = self._as_looked_at(_looks(found, self._crowd), turns, trouble)
                    works.append(asyncio.ensure_future(work))
            return [result for part in await asyncio.gather(*works) for result in part]

    async def _as_looked_at(
        self, looks: _Looks, turns: Turns | None, trouble: JournalError | None
    ) -> list[Result]:
        """Begin with all whose preflight is over, and go on with the others as they come."""
        works = []
        pending = set(looks)
        while pending:
            done, pending = await asyncio.wait(pending, timeout=TOGETHER_S)
            looked = [(looks[look], look.result()) for look in looks if look in done]
            begin = self._together if turns is None else self._in_turns(turns)
            if looked:
                works.append(asyncio.ensure_future(begin(looked, trouble)))
        return [result for part in await asyncio.gather(*works) for result in part]

    async def _together(
        self, looked: Sequence[_Looked], trouble: JournalError | None
    ) -> list[Result]:
        if self._left.is_set():
            return [self._not_begun(target) for target, _ in looked]
        started = [self._wishes.started(t, (*self._notices, *found)) for t, found in looked]
        claims = await self._claim([target for target, _ in looked], started)
        return await asyncio.gather(
            *(
                self._result(
                    _subject(target),
                    claim.stop if claim else 0,
                    self._stop(target, claim, begun, trouble),
                )
                for (target, _), claim, begun in zip(looked, claims, started, strict=True)
            )
        )

    def _in_turns(self, turns: Turns) -> _Begin:
        """As `_together`, one after the other; the grace of each begins with its turn."""

        async def one(each: _Looked, trouble: JournalError | None) -> list[Result]:
            async with turns.turn():
                return await self._together([each], trouble)

        async def begin(looked: Sequence[_Looked], trouble: JournalError | None) -> list[Result]:
            parts = await asyncio.gather(*(one(each, trouble) for each in looked))
            return [result for part in parts for result in part]

        return begin

    async def resume(self, rows: Sequence[Row]) -> list[Result]:
        """Go on with these open stops, side by side.

        Raises:
            JournalError: the journal cannot be used.
        """
        async with self._journalled() as trouble:
            if trouble is not None:
                raise trouble
            subjects = [
                Subject(Address.parse(r.address), r.label, Identity(r.identity_key, r.identity))
                for r in rows
            ]
            return await asyncio.gather(
                *(
                    self._result(subject, row.stop, self._go_on(subject, row.stop))
                    for subject, row in zip(subjects, rows, strict=True)
                )
            )

    def leave(self, by: str) -> None:
        """Stop watching: every target is left alone and every stop stays open."""
        self._left.set()
        for run in self._runs.values():
            run.leave(by)

    @contextlib.asynccontextmanager
    async def _journalled(self) -> AsyncIterator[JournalError | None]:
        """The journal and the door are open meanwhile; yields why they are not."""
        journal = Writer(self.folder, self._me)
        door = ownership.Door(self.folder, self._me, self._runs)
        trouble: JournalError | None = None
        try:
            if aside := await journal.open():
                self._notices = (damaged(aside),)
            await door.open()
            self._journal = journal
        except JournalError as error:
            trouble = error
        except OSError as error:
            trouble = JournalError(f"no socket can be made in {self.folder}: {error.strerror}")
        try:
            yield trouble
        finally:
            await door.close()
            # Both at once: whoever waits for this command need not wait for two turns.
            await asyncio.gather(self._tidy(journal), journal.close())

    async def _tidy(self, journal: Writer) -> None:
        if self._journal is not None and journal.failure is None:
            with contextlib.suppress(JournalError):
                await journal.do(lambda store: store.tidy(self.clock.wall_s()))
        if any(run.target.address.kind in GUESTS for run in self._runs.values()):
            from lastcall.targets.guest import album

            album.forget(album.folder_in(self.folder), self.clock.wall_s())

    async def _claim(
        self, targets: Sequence[Target], started: Sequence[Started]
    ) -> Sequence[Claimed | None]:
        """One for each target; None for all when the journal cannot be written."""
        if self._journal is None:
            return [None] * len(targets)
        now_s, wall_s = self.clock.now_s(), self.clock.wall_s()
        claims = [
            Claim(str(t.address), t.label, t.identity, self._by, begun)
            for t, begun in zip(targets, started, strict=True)
        ]
        try:
            return await self._journal.do(lambda s: s.claim(claims, self._me, now_s, wall_s))
        except JournalError as error:
            self._journal.failure = error
            return [None] * len(targets)

    async def _result(
        self, subject: Subject, stop: int, work: Awaitable[Finished | None]
    ) -> Result:
        try:
            result = Result(subject, stop, await work)
        except LastcallError as error:
            result = Result(subject, stop, None, error)
        self.over(result)
        return result

    def _not_begun(self, target: Target) -> Result:
        target.close()
        result = Result(_subject(target), 0, None, begun=False)
        self.over(result)
        return result

    async def _stop(
        self,
        target: Target,
        claimed: Claimed | None,
        started: Started,
        trouble: JournalError | None,
    ) -> Finished | None:
        if claimed is None:
            return await self._drive_unrecorded(target, started, trouble)
        subject = _subject(target)
        if claimed.fresh:
            return await self._drive(subject, target, claimed)
        target.rest()  # whoever goes on with that stop needs what this one holds
        try:
            finished = await self._go_on(subject, claimed.stop, target.ladder)
            if not await self._fell_short(target, claimed.stop, finished):
                target.close()
                return finished
            return await self._stop_anew(target, started)
        except _OtherAsks:
            return await self._stop_anew(target, started)
        except _EarlierRun as earlier:
            if target.living():
                return await self._stop_anew(target, started)
            target.close()
            return earlier.finished
        except LostOwnership:
            raise
        except JournalError as error:
            return await self._drive_unrecorded(
                target, self._wishes.started(target, started.findings), error
            )

    async def _stop_anew(self, target: Target, started: Started) -> Finished | None:
        begun = self._wishes.started(target, started.findings)
        [again] = await self._claim([target], [begun])
        return await self._stop(target, again, begun, None)

    async def _fell_short(self, target: Target, stop: int, finished: Finished | None) -> bool:
        """Whether a joined stop is over and did less than was wished here.

        It asked otherwise (another signal, only a part), or ended as our force came too late.
        """
        if finished is None or self._left.is_set() or not target.living():
            return False
        if finished.why is Why.DEADLINE and self.policy.force_reason is not None:
            return True
        return (await self._state(stop)).ladder != target.ladder

    async def _state(self, stop: int) -> State:
        lines = await self._writer().do(lambda store: store.timeline(stop))
        return fold((at_s, event) for at_s, _, event in lines)

    async def _drive_unrecorded(
        self, target: Target, started: Started, trouble: JournalError | None
    ) -> Finished | None:
        trouble = trouble or (self._journal.failure if self._journal else None)
        run = Run(0, target, self.clock, None, self._heard, crowd=self._crowd)
        self._runs[-1 - len(self._runs)] = run
        run.note(started)
        run.note(Warned(unrecorded(trouble or JournalError("the journal cannot be used"))))
        if self._left.is_set():
            run.leave(self._by)
        return await run.drive()

    async def _drive(
        self, subject: Subject, target: Target, claimed: Claimed, *news: Event
    ) -> Finished | None:
        """Drive a stop that we own until it ends, or until we are told to leave it."""
        stop, journal = claimed.stop, self._writer()
        run = Run(stop, target, self.clock, journal, self._heard, claimed.events, self._crowd)
        self._runs[stop] = run
        for at_s, event in claimed.events:
            self._heard(run, at_s, event)
        for event in news:
            run.note(event)
        if self._left.is_set():
            run.leave(self._by)
        try:
            finished = await run.drive()
        except LostOwnership:
            del self._runs[stop]  # Whoever asks for it here is to be told that it is not.
            return await self._go_on(subject, stop)
        if finished is None:
            # Without this it goes on being ours until we are seen to be dead: that will do.
            with contextlib.suppress(JournalError):
                await journal.do(lambda store: store.release(stop, self._me))
        return finished

    async def _go_on(
        self, subject: Subject, stop: int, ladder: tuple[Rung, ...] | None = None
    ) -> Finished | None:
        """Join or resume a stop that was begun before.

        Args:
            subject: whom it is about.
            stop: its number.
            ladder: how a new stop would ask; None when nobody wants a new one.

        Raises:
            _OtherAsks: it was abandoned, and had asked otherwise than `ladder`; it is closed now.
            _EarlierRun: it was abandoned, and what it was about is gone; it is closed now.
            OwnerUnreachable: its owner lives and does not answer.
        """
        journal = self._writer()
        give_up_s = self.clock.now_s() + OWNER_PATIENCE_S
        unreached, asks = "", ladder
        while not self._left.is_set():
            row = await journal.do(lambda store: store.row(stop))
            owner = row.owner
            if row.ending is not None or owner == self._me:
                break
            if owner is None or (owner == unreached and not ownership.alive(owner)):
                dead = owner
                await journal.do(lambda store: store.take_over(stop, dead, self._me))  # noqa: B023 (awaited here)
                continue
            try:
                asks = (await self._state(stop)).ladder if asks is None else asks
                followed = await self._follow(subject, stop, owner, asks)
                if followed is not None:
                    return followed
                give_up_s = self.clock.now_s() + OWNER_PATIENCE_S
            except OwnerUnreachable:
                # It may not listen yet, or be about to end; only a dead owner is replaced.
                if self.clock.now_s() > give_up_s and ownership.alive(owner):
                    raise
            unreached = owner
            await asyncio.sleep(_NAP_S)
        return None if self._left.is_set() else await self._take_up(subject, stop, ladder)

    async def _take_up(
        self, subject: Subject, stop: int, ladder: tuple[Rung, ...] | None
    ) -> Finished | None:
        """Go on with a stop that is ours now, from what the journal says of it."""
        lines = await self._writer().do(lambda store: store.timeline(stop))
        history = tuple((at_s, event) for at_s, _, event in lines)
        state = fold(history)
        if state.finished is not None:
            return state.finished
        if state.ended is not None:  # Somebody saw the end, and died before the verdict.
            await self._write_down(subject, stop, finished := judge(state))
            return finished
        claimed = Claimed(stop, self._me, history)
        if ladder is not None and state.ladder != ladder:
            ended = Finished(Ending.STILL_RUNNING, Why.SUPERSEDED, Why.SUPERSEDED.value)
            await self._write(stop, ended)
            raise _OtherAsks
        try:
            target = await reopen_target(
                subject.address, subject.label, subject.identity.facts, history, self.folder
            )
        except NotRunning as error:
            finished = await self._close_book(subject, claimed, error.what)
            if ladder is not None:
                raise _EarlierRun(finished) from error
            return finished
        resumed = Resumed(self._by, self.ask_again, _other_clock(lines[-1], self.clock))
        wishes = self._wishes.going_on(state, resumed, anew=ladder is not None)
        return await self._drive(subject, target, claimed, *wishes)

    async def _close_book(self, subject: Subject, claimed: Claimed, what: str) -> Finished:
        """It is gone, and nobody saw how: write that down."""
        missing = Missing(f"it ended while nobody watched: {what}")
        finished = judge(evolve(fold(claimed.events), missing, self.clock.now_s()))
        for event in (missing, finished):
            await self._write_down(subject, claimed.stop, event)
        return finished

    async def _write_down(self, subject: Subject, stop: int, event: Event) -> None:
        """Write and show an event of a stop that is ours and that no run drives."""
        await self._write(stop, event)
        self.show(News(stop, subject, self.clock.now_s(), event))

    async def _write(self, stop: int, event: Event) -> None:
        now_s, wall_s = self.clock.now_s(), self.clock.wall_s()
        await self._writer().commit(Entry(stop, now_s, wall_s, event))

    def _writer(self) -> Writer:
        if self._journal is None:
            raise JournalError("the journal cannot be used")
        return self._journal

    async def _follow(
        self, subject: Subject, stop: int, owner: str, ladder: tuple[Rung, ...]
    ) -> Finished | None:
        """Watch another lastcall drive it. None: it let go of the stop, or died, or we leave."""
        request = self._wishes.request(stop, ladder)
        listening = listen(self.folder, owner, request, self.clock, subject, self.show)
        following = asyncio.ensure_future(listening)
        leaving = asyncio.ensure_future(self._left.wait())
        try:
            await asyncio.wait((following, leaving), return_when=asyncio.FIRST_COMPLETED)
            return following.result() if following.done() else None
        finally:
            following.cancel()
            leaving.cancel()

    def _heard(self, run: Run, at_s: float, event: Event) -> None:
        self.show(News(run.number, _subject(run.target), at_s, event))


class _OtherAsks(Exception):
    """An abandoned stop had asked otherwise."""


class _EarlierRun(Exception):
    """An abandoned stop was of one that is gone, though another goes by its identity now."""

    def __init__(self, finished: Finished) -> None:
        self.finished = finished


def _looks(targets: Sequence[Target], crowd: Crowd) -> _Looks:
    """A preflight of each, under way."""
    return {asyncio.ensure_future(preflight(target, crowd)): target for target in targets}


def _other_clock(last: tuple[float, float, Event], clock: Clock) -> bool:
    """Whether our clock is another one than that of the last event: this machine has rebooted.

    A clock of the wall that was set meanwhile looks the same; then, too, we had better ask anew.
    """
    at_s, wall_s, _ = last
    passed_s = clock.now_s() - at_s
    return passed_s < 0 or abs(clock.wall_s() - wall_s - passed_s) > _SET_CLOCK_S


def _subject(target: Target) -> Subject:
    return Subject(target.address, target.label, target.identity)
