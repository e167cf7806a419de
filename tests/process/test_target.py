"""A tree as a target: who belongs to it while it changes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

from helpers import PATIENCE_S, python, victim
from lastcall.kernel import procfs
from lastcall.model import Address, Cause, Depth, Ended, Outcome, Served
from lastcall.targets.process.ladder import REST, ROOT, Scope
from lastcall.targets.process.opening import open_process
from lastcall.targets.process.target import ProcessTarget

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from lastcall.targets.base import TargetEvent

TERM = ((int(signal.SIGTERM), None),)


@contextlib.contextmanager
def tree(monkeypatch: pytest.MonkeyPatch, deed: str) -> Iterator[tuple[ProcessTarget, int]]:
    """A parent and its child that does the same; the child is not seen before `undo`."""
    with victim(*python("worker.py", "--child", deed)) as child:
        assert child.line().startswith("ready")
        [below] = procfs.children(child.pid)
        monkeypatch.setattr(ProcessTarget, "adopt", lambda _: None)
        target = open_process(Address("pid", str(child.pid)), TERM, Scope.TREE_CHILDREN_LAST)
        try:
            yield target, child.pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(below, signal.SIGKILL)


class Told:
    """What a target tells, and a way to wait for it."""

    def __init__(self) -> None:
        self.events: list[TargetEvent] = []
        self._more = asyncio.Event()

    def take(self, event: TargetEvent) -> None:
        """One more event."""
        self.events.append(event)
        self._more.set()

    async def first(self, kind: type[TargetEvent]) -> TargetEvent:
        """The first event of that kind, as soon as it is there."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for event in self.events:
                    if isinstance(event, kind):
                        return event
                self._more.clear()
                await self._more.wait()


@contextlib.contextmanager
def watched(target: ProcessTarget) -> Iterator[Told]:
    """Watches it; on the running loop, on which it is closed, too."""
    told = Told()
    target.watch(told.take)
    try:
        yield told
    finally:
        target.close()


def test_a_member_that_came_after_the_intent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked with the others, and its death of that signal is no deed of a stranger."""

    async def stop(target: ProcessTarget) -> TargetEvent:
        root, rest = target.ladder[:2]
        with watched(target) as told:
            target.facts(rest)
            monkeypatch.undo()
            assert (await target.carry(rest)).outcome is Outcome.DONE
            target.facts(root)
            assert (await target.carry(root)).outcome is Outcome.DONE
            return await told.first(Ended)

    with tree(monkeypatch, "careless") as (target, _):
        ended = asyncio.run(stop(target))
    assert isinstance(ended, Ended)
    assert ended.cause is Cause.UNHANDLED


def test_a_child_seen_in_a_look_is_not_lost_with_its_parent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was started after the ask: once the parent has ended, nothing leads to it any more."""

    async def stop(target: ProcessTarget, pid: int) -> list[TargetEvent]:
        rest = target.ladder[1]
        with watched(target) as told:
            monkeypatch.undo()
            await target.look(Depth.QUICK)
            os.kill(pid, signal.SIGKILL)
            await told.first(Served)
            target.facts(rest)
            assert (await target.carry(rest)).outcome is Outcome.DONE
            await told.first(Ended)
            return told.events

    with tree(monkeypatch, "careless") as (target, pid):
        events = asyncio.run(stop(target, pid))
    assert [e.audience for e in events if isinstance(e, Served)] == [ROOT]


def test_nobody_in_an_audience_is_told_once() -> None:
    """So that the next audience is asked at once, and the journal is not filled with it."""

    async def ask(target: ProcessTarget) -> list[TargetEvent]:
        with watched(target) as told:
            for _ in range(2):
                assert (await target.carry(target.ladder[0])).outcome is Outcome.GONE
            return told.events

    with victim(*python("worker.py", "ignore")) as child:
        address = Address("pid", str(child.pid))
        target = open_process(address, TERM, Scope.TREE_CHILDREN_FIRST)
        assert asyncio.run(ask(target)) == [Served(REST)]
