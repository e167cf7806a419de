"""Hooks: what an application does in a phase of its shutdown, and what came of it."""

from __future__ import annotations

import threading
from contextlib import suppress
from enum import StrEnum

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any, Protocol

    from lastcall.app.stuck import Stuck

    class Desk(Protocol):
        """Where a running hook's wishes go: the coordinator."""

        def extend(self, run: HookRun, more_s: float, reason: str) -> float:
            """Move the deadlines; how much was granted, in seconds."""

        def veto(self, run: HookRun, reason: str) -> bool:
            """Call the stop off; whether that is allowed."""

        def now_s(self) -> float:
            """On its clock."""

        def left_s(self, run: HookRun) -> float:
            """Until it is cancelled, in seconds."""


# A cancelled hook gets so long to clean up after itself before it is abandoned.
CANCEL_S = 0.25


class Outcome(StrEnum):
    """What came of a hook."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CUT = "cut off"
    LOOP_GONE = "loop gone"


class Hook:
    """A function that is called in a phase.

    Args:
        function: sync or async; it may take one argument, its `HookRun`.
        name: unique in its phase.
        phase: the phase's name.
        limit_s: its own limit in seconds; None: the phase's.
        depends_on: names of hooks of the same phase that must have ended before.
        where: `file:line` of its registration.
        loop: the event loop that an async hook belongs to; None: whichever there is.
        inner: whether it is the library's own: it is shown, but its end counts for nothing.
    """

    __slots__ = ("depends_on", "function", "inner", "limit_s", "loop", "name", "phase", "where")

    def __init__(
        self,
        function: Callable[..., object],
        name: str,
        phase: str,
        *,
        limit_s: float | None = None,
        depends_on: tuple[str, ...] = (),
        where: str = "",
        loop: asyncio.AbstractEventLoop | None = None,
        inner: bool = False,
    ) -> None:
        self.function: Callable[..., object] = function
        self.name: str = name
        self.phase: str = phase
        self.limit_s: float | None = limit_s
        self.depends_on: tuple[str, ...] = depends_on
        self.where: str = where
        self.loop: asyncio.AbstractEventLoop | None = loop
        self.inner: bool = inner

    def alone(self) -> Hook:
        """The same, waiting for no other."""
        return Hook(
            self.function,
            self.name,
            self.phase,
            limit_s=self.limit_s,
            where=self.where,
            loop=self.loop,
            inner=self.inner,
        )


class HookRun:
    """One run of a hook; hooks that take an argument get it.

    All of its methods may be called from any thread.
    """

    def __init__(self, hook: Hook, desk: Desk) -> None:
        self.hook = hook
        self.outcome = Outcome.WAITING
        self.detail = ""
        self.began_s: float | None = None
        self.ended_s: float | None = None
        self.deadline_s: float = float("inf")  # its own limit, if it has one
        self.stuck: Stuck | None = None
        self.thread: int | None = None  # ident of the thread that runs it
        self.task: asyncio.Task[Any] | None = None
        self.on_cancel: list[Callable[[], object]] = []
        self.cancelled: threading.Event = threading.Event()
        self._desk = desk

    @property
    def name(self) -> str:
        """The hook's name."""
        return self.hook.name

    @property
    def took_s(self) -> float:
        """How long it took or has taken so far, in seconds."""
        if self.began_s is None:
            return 0.0
        return (self._desk.now_s() if self.ended_s is None else self.ended_s) - self.began_s

    @property
    def over(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.outcome not in {Outcome.WAITING, Outcome.RUNNING}

    @property
    def left_s(self) -> float:
        """How long it may still take, in seconds; 0 when it is cancelled."""
        return self._desk.left_s(self)

    def extend(self, more_s: float, reason: str) -> float:
        """Ask for more time. It is recorded, shown, and told to the service manager.

        Args:
            more_s: how much longer than now it needs, in seconds.
            reason: why, for people: "flushing 40 MB".

        Returns:
            How long it has from now, in seconds: no more than the ceiling allows.
        """
        return self._desk.extend(self, more_s, reason)

    def veto(self, reason: str) -> bool:
        """Object to the stop, before work is refused. A second request overrules it.

        Args:
            reason: why, for people.

        Returns:
            Whether the stop is called off: the policy must allow vetoes, and the point of no
            return (the end of the announcement) must not be passed.
        """
        return self._desk.veto(self, reason)

    def cancel(self) -> None:
        """Tell it that its time is over."""
        self.cancelled.set()
        for callback in self.on_cancel:
            callback()
        task = self.task
        if task is not None:
            with suppress(RuntimeError):  # the loop is closed, and the task with it
                task.get_loop().call_soon_threadsafe(task.cancel, "its time is over")

    def as_data(self) -> dict[str, object]:
        """For machines."""
        stuck = None if self.stuck is None else self.stuck.as_data()
        return {
            "hook": self.name,
            "where": self.hook.where,
            "outcome": f"{self.outcome}",
            "took_s": round(self.took_s, 4),
            "detail": self.detail,
            "stuck": stuck,
        }
