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
    Rung,
    Started,
    Warned,
    Why,
)
from lastcall.stop import ownership
from lastcall.stop.decide import evolve, fold, judge
from lastcall.stop.following import listen
from lastcall.stop.news import News, Result, Subject
from lastcall.stop.runner import Run, damaged, limited, unrecorded
from lastcall.stop.turns import Turns
from lastcall.stop.wishes import Wishes
from lastcall.targets.open import reopen_target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from lastcall.clock import Clock
    from lastcall.journal.store import Row
    from lastcall.stop.policy import Policy
    from lastcall.targets.base import Target

OWNER_PATIENCE_S = 3.0
_NAP_S = 0.05


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

    def __post_init__(self) -> None:
        self._wishes = Wishes(self.policy, self._by, self.clock)

    async def stop(self, targets: Sequence[Target]) -> list[Result]:
        """Stop these, side by side. They are closed afterwards."""
        looking = asyncio.gather(*(limited(target.preflight()) for target in targets))
        async with self._journalled() as trouble:  # opens while we look
            found = await looking
            if self.at_once is not None:
                return await self._one_after_the_other(targets, found, self.at_once, trouble)
            started = [
                self._wishes.started(t, (*self._notices, *f))
                for t, f in zip(targets, found, strict=True)
            ]
            claims = await self._claim(targets, started)
            return await asyncio.gather(
                *(
                    self._result(
                        _subject(target),
                        claim.stop if claim else 0,
                        self._stop(target, claim, begun, trouble),
                    )
                    for target, claim, begun in zip(targets, claims, started, strict=True)
                )
            )

    async def _one_after_the_other(
        self,
        targets: Sequence[Target],
        found: Sequence[tuple[Finding, ...]],
        at_once: int,
        trouble: JournalError | None,
    ) -> list[Result]:
        """Stop these in turns; the grace of each begins with its turn."""
        turns = Turns(at_once)

        async def stop(target: Target, findings: tuple[Finding, ...]) -> Result:
            async with turns.turn():
                begun = self._wishes.started(target, (*self._notices, *findings))
                [claim] = await self._claim([target], [begun])
                number = claim.stop if claim else 0
                work = self._stop(target, claim, begun, trouble)
                return await self._result(_subject(target), number, work)

        return await asyncio.gather(*(stop(t, f) for t, f in zip(targets, found, strict=True)))

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
        lines = await self._writer().do(lambda store: store.timeline(stop))
        return fold((at_s, event) for at_s, _, event in lines).ladder != target.ladder

    async def _drive_unrecorded(
        self, target: Target, started: Started, trouble: JournalError | None
    ) -> Finished | None:
        trouble = trouble or (self._journal.failure if self._journal else None)
        run = Run(0, target, self.clock, None, self._heard)
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
        run = Run(stop, target, self.clock, journal, self._heard, claimed.events)
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
            OwnerUnreachable: its owner lives and does not answer.
        """
        journal = self._writer()
        give_up_s = self.clock.now_s() + OWNER_PATIENCE_S
        unreached = ""
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
                if (followed := await self._follow(subject, stop, owner)) is not None:
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
            return await self._close_book(subject, claimed, error.what)
        wishes = self._wishes.going_on(ladder, ask_again=self.ask_again)
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

    async def _follow(self, subject: Subject, stop: int, owner: str) -> Finished | None:
        """Watch another lastcall drive it. None: it let go of the stop, or died, or we leave."""
        request = self._wishes.request(stop)
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


def _subject(target: Target) -> Subject:
    return Subject(target.address, target.label, target.identity)
