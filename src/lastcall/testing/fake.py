"""A clock that a test moves, and a target that does what a test says."""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from lastcall.model import (
    Address,
    Cause,
    Consent,
    Depth,
    Ended,
    Finding,
    Identity,
    Outcome,
    Rung,
)
from lastcall.targets.base import Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lastcall.targets.base import TargetEvent

T = TypeVar("T")
# Enough turns of the loop for everything that is ready to have happened.
_TURNS = 20

LADDER = (
    Rung("ask", "ask politely"),
    Rung("pull", "pull the plug", 10.0, Consent.FORCE),
)


class FakeClock:
    """Time that stands still until a test moves it.

    Args:
        start_s: where the boot-time clock begins, in seconds.
    """

    def __init__(self, start_s: float = 1000.0) -> None:
        self._now_s = start_s
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()
        self._cancelled: set[int] = set()

    def now_s(self) -> float:
        """Seconds since boot, as far as the test has come."""
        return self._now_s

    def wall_s(self) -> float:
        """The same, counted from the beginning of 2026."""
        return 1_767_225_600.0 + self._now_s

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Callable[[], object]:
        """Call back when the test has moved that far; returns what cancels it."""
        number = next(self._numbers)
        heapq.heappush(self._timers, (self._now_s + delay_s, number, callback))
        return lambda: self._cancelled.add(number)

    def next_timer_s(self) -> float | None:
        """When the next timer is due; None when none is set."""
        while self._timers and self._timers[0][1] in self._cancelled:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def advance(self, seconds: float) -> None:
        """Move on, and fire what becomes due, in order."""
        end_s = self._now_s + seconds
        while (due_s := self.next_timer_s()) is not None and due_s <= end_s:
            _, _, callback = heapq.heappop(self._timers)
            self._now_s = max(self._now_s, due_s)
            callback()
        self._now_s = end_s


@dataclass(slots=True)
class FakeTarget:
    """A target in memory.

    Args:
        answers: what each rung's carrying out comes to; DONE where none is given.
        ends: with which cause it ends when a rung was carried out; a rung that is not in it leaves
            it running.
        findings: what a look finds.
        carried: the ids of the rungs that were carried out, in order.
        looked: how closely it was looked at, in order.
    """

    name: str = "fake"
    ladder: tuple[Rung, ...] = LADDER
    answers: dict[str, Answer] = field(default_factory=dict)
    ends: dict[str, Cause] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    carried: list[str] = field(default_factory=list)
    looked: list[Depth] = field(default_factory=list)
    closed: bool = False
    notify: Callable[[TargetEvent], None] = print

    @property
    def address(self) -> Address:
        """Where it was found."""
        return Address("name", self.name)

    @property
    def identity(self) -> Identity:
        """Its identity."""
        return Identity(f"fake:{self.name}", {"name": self.name})

    @property
    def label(self) -> str:
        """What a person would call it."""
        return f"fake {self.name}"

    def living(self) -> frozenset[str]:
        """It is one part, and lives until something ends it."""
        ended = set(self.carried) & set(self.ends)
        return frozenset() if ended else frozenset({self.identity.key})

    async def preflight(self) -> tuple[Finding, ...]:
        """Nothing is known beforehand."""
        return ()

    def watch(self, notify: Callable[[TargetEvent], None]) -> None:
        """Report what happens to it."""
        self.notify = notify

    def facts(self, rung: Rung) -> dict[str, str | int | None]:
        """Nothing needs to be known later, but which rung it was."""
        return {"rung": rung.id}

    async def carry(self, rung: Rung) -> Answer:
        """Carry out one rung."""
        self.carried.append(rung.id)
        if (cause := self.ends.get(rung.id)) is not None:
            self.notify(Ended(cause, f"ended of {rung.id}"))
        return self.answers.get(rung.id, Answer(Outcome.DONE, rung.means))

    async def look(self, depth: Depth) -> tuple[Finding, ...]:
        """What holds it up."""
        self.looked.append(depth)
        return self.findings

    async def verify(self) -> tuple[Finding, ...]:
        """Everything is free afterwards."""
        return ()

    def rest(self) -> None:
        """Nothing of it is held by one alone."""

    def close(self) -> None:
        """Let go of it."""
        self.closed = True


async def play(work: Awaitable[T], clock: FakeClock) -> T:
    """Run something to its end in no time: whenever all stands still, move to the next timer.

    Raises:
        RuntimeError: it waits for something that no timer brings.
    """
    task = asyncio.ensure_future(work)
    while True:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        if task.done():
            return task.result()
        due_s = clock.next_timer_s()
        if due_s is None:
            task.cancel()
            raise RuntimeError("it waits for something that no timer brings")
        clock.advance(due_s - clock.now_s())
