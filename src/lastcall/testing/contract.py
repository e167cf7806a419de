"""The contract of every kind of target, as tests to inherit.

    class TestMyTarget(TargetContract):
        def answering(self): ...

Each hook is a context manager that yields an open target in one condition and cleans it up. A kind
that cannot be in a condition says so by leaving its test class' hook out only with a reason.
"""

from __future__ import annotations

import asyncio
import os
from inspect import isawaitable
from typing import TYPE_CHECKING, Protocol

from lastcall.clock import SystemClock
from lastcall.errors import NotRunning
from lastcall.model import (
    Depth,
    Ended,
    Ending,
    Event,
    Finding,
    Finished,
    ForceConsent,
    Started,
    Why,
)
from lastcall.stop.runner import Run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager

    from lastcall.targets.base import Target

_GRACE_S = 20.0
_SHORT_S = 0.4


class Open(Protocol):
    """A target in some condition, opened only when the test's loop runs."""

    def __call__(self) -> Target | Awaitable[Target]:
        """Open it; where that takes a running loop, asynchronously.

        Raises:
            NotRunning: it is gone.
        """
        ...


class TargetContract:
    """See the module. Override the hooks, inherit the tests."""

    def answering(self) -> AbstractContextManager[Open]:
        """It ends in order when it is asked."""
        raise NotImplementedError

    def refusing(self) -> AbstractContextManager[Open]:
        """It hears the ask and goes on; force ends it."""
        raise NotImplementedError

    def hanging(self) -> AbstractContextManager[Open]:
        """It cannot hear the ask at all (stopped, paused); force ends it."""
        raise NotImplementedError

    def dying(self) -> AbstractContextManager[tuple[Open, Callable[[], None]]]:
        """It ends by itself, without being asked, when the second is called."""
        raise NotImplementedError

    def gone(self) -> AbstractContextManager[Open]:
        """It was there when its address was noted, and is gone now."""
        raise NotImplementedError

    def reused(self) -> AbstractContextManager[tuple[Open, Callable[[], bool]]]:
        """Another thing carries its name now: opening the *same* one must fail.

        The second tells whether the other was left in peace.
        """
        raise NotImplementedError

    def test_answers(self) -> None:
        """Asked, it ends in order, and says so once."""
        with self.answering() as opened:
            finished, events = stop(opened, grace_s=_GRACE_S)
        assert (finished.ending, finished.why) == (Ending.ORDERLY, Why.ENDED)
        assert [type(e) for e in events].count(Ended) == 1

    def test_refuses_and_is_left(self) -> None:
        """Without consent it is left alone at the deadline, with an explanation."""
        with self.refusing() as opened:
            finished, _ = stop(opened, grace_s=_SHORT_S)
            assert (finished.ending, finished.why) == (Ending.STILL_RUNNING, Why.DEADLINE)
            assert not _refuses_to_open(opened)  # it is still there

    def test_refuses_and_is_forced(self) -> None:
        """With consent it is taken away at the deadline, and that is called forced."""
        with self.refusing() as opened:
            finished, _ = stop(opened, grace_s=_SHORT_S, force=True)
        assert (finished.ending, finished.why) == (Ending.FORCED, Why.ENDED)

    def test_hangs_and_is_explained(self) -> None:
        """One that cannot hear is left alone, and a finding says why."""
        with self.hanging() as opened:
            finished, _ = stop(opened, grace_s=_SHORT_S)
            assert finished.ending is Ending.STILL_RUNNING
            assert finished.findings, "a target that cannot hear must be explained"

    def test_hangs_and_is_forced(self) -> None:
        """Force reaches it all the same."""
        with self.hanging() as opened:
            finished, _ = stop(opened, grace_s=_SHORT_S, force=True)
        assert finished.ending is Ending.FORCED

    def test_dies_before_it_is_asked(self) -> None:
        """It ended by itself before the ask: nobody claims to have stopped it."""
        with self.dying() as (opened, die):
            finished, _ = stop(opened, grace_s=_GRACE_S, before=die)
        assert finished.ending is Ending.ENDED_BEFORE

    def test_gone(self) -> None:
        """What is not there cannot be opened."""
        with self.gone() as opened:
            assert _refuses_to_open(opened)

    def test_reused(self) -> None:
        """A later thing of the same name is neither opened as the same nor touched."""
        with self.reused() as (opened, in_peace):
            assert _refuses_to_open(opened)
            assert in_peace()

    def test_looks_change_nothing(self) -> None:
        """Preflight, looks and verification leave it alone."""
        with self.answering() as opened:

            async def look() -> tuple[Finding, ...]:
                target = await _opened(opened)
                found = await target.preflight()
                for depth in Depth:
                    found += await target.look(depth)
                target.close()
                return found

            asyncio.run(look())
            finished, _ = stop(opened, grace_s=_GRACE_S)
        assert finished.ending is Ending.ORDERLY

    def test_nothing_leaks(self) -> None:
        """After a stop no descriptor of it is left open."""
        with self.answering() as opened:
            before = _descriptors()
            stop(opened, grace_s=_GRACE_S)
            assert _descriptors() == before

    def test_closed_without_a_stop(self) -> None:
        """Opened, watched and closed: no event comes, and it goes on."""
        with self.answering() as opened:

            async def watch() -> list[object]:
                target, heard = await _opened(opened), list[object]()
                target.watch(heard.append)
                await asyncio.sleep(0)
                target.close()
                return heard

            assert not asyncio.run(watch())
            assert not _refuses_to_open(opened)

    def test_ladder_is_soft_first(self) -> None:
        """Soft rungs stand before forced ones, and there is at least one soft rung."""

        async def consents_of(opened: Open) -> list[str]:
            target = await _opened(opened)
            target.close()
            return [rung.consent.value for rung in target.ladder]

        with self.answering() as opened:
            consents = asyncio.run(consents_of(opened))
        assert consents[0] == "none"
        assert consents == sorted(consents, key="none".__ne__)


def stop(
    opened: Open,
    *,
    grace_s: float,
    force: bool = False,
    before: Callable[[], None] | None = None,
) -> tuple[Finished, list[Event]]:
    """Stop a target without a journal; returns the ending and all events.

    Args:
        opened: opens it.
        grace_s: how long the soft stop may take, in seconds.
        force: whether force is allowed then.
        before: what happens between the opening and the ask.
    """

    async def work() -> tuple[Finished, list[Event]]:
        target, clock = await _opened(opened), SystemClock()
        if before is not None:
            before()
        run = Run(0, target, clock, None, lambda *_: None)
        consent = ForceConsent("the contract", "a test", unrecorded=True) if force else None
        end_s = clock.now_s() + grace_s
        run.note(Started(target.ladder, end_s, end_s, consent))
        finished = await run.drive()
        assert finished is not None
        return finished, [event for _, event in run.history]

    return asyncio.run(work())


async def _opened(opened: Open) -> Target:
    made = opened()
    return await made if isawaitable(made) else made


def _refuses_to_open(opened: Open) -> bool:
    async def open_and_close() -> None:
        (await _opened(opened)).close()

    try:
        asyncio.run(open_and_close())
    except NotRunning:
        return True
    return False


def _descriptors() -> set[str]:
    return {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is(fd)}


def _is(fd: str) -> bool:
    return os.path.exists(f"/proc/self/fd/{fd}")
