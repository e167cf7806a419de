"""A guest in memory that does what a test says, beside the real ones of the zoo."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lastcall.clock import now_s
from lastcall.model import Identity
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.words import (
    Activity,
    AgentSight,
    Happening,
    Kind,
    Pm1,
    Power,
    Setup,
)

if TYPE_CHECKING:
    from collections.abc import Callable

DEAF, LISTENS, PENDING = Pm1(1, 0, 0), Pm1(1, 0x100, 1), Pm1(0x101, 0x100, 1)


@dataclass(slots=True)
class FakeMachine:
    """See the module.

    Args:
        registers: what is read of the button; None: it cannot be read.
        on: what each act sets off, by its name.
        faults: what each call comes to instead of what it should.
        done: the acts, in order.
    """

    registers: Pm1 | None = LISTENS
    state: Power = Power.RUNNING
    built: Setup = field(default_factory=Setup)
    sight: AgentSight = field(default_factory=AgentSight)
    on: dict[str, Callable[[FakeMachine], None]] = field(default_factory=dict)
    faults: dict[str, Trouble] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    heard: Callable[[Happening], None] = print
    closed: bool = False
    label: str = "a guest in memory"

    @property
    def identity(self) -> Identity:
        """Its identity."""
        return Identity("guest:fake", {"kind": "fake"})

    def listen(self, heard: Callable[[Happening], None]) -> None:
        """Tell what happens."""
        self.heard = heard

    def happens(self, kind: Kind, *, guest: bool | None = None, reason: str = "") -> None:
        """This happens to it now."""
        self.heard(Happening(kind, now_s(), guest, reason))

    def powers_off(self) -> None:
        """It powers itself off, and its machine goes."""
        self.happens(Kind.SHUTDOWN, guest=True, reason="guest-shutdown")
        self.happens(Kind.GONE)

    def _may(self, what: str) -> None:
        if (trouble := self.faults.get(what)) is not None:
            raise trouble

    def _act(self, what: str) -> None:
        self._may(what)
        self.done.append(what)
        if (follows := self.on.get(what)) is not None:
            follows(self)

    async def setup(self) -> Setup:
        """How it is built."""
        self._may("setup")
        return self.built

    async def power(self) -> Power:
        """What it does."""
        self._may("power")
        return self.state

    async def press(self) -> None:
        """Press."""
        self._act("press")

    async def wake(self) -> None:
        """Wake."""
        self._act("wake")

    async def resume(self) -> None:
        """Resume."""
        self._act("resume")

    async def ask_agent(self) -> None:
        """Ask the agent."""
        self._act("ask_agent")

    async def end(self) -> None:
        """End QEMU."""
        self._act("end")

    async def kill(self) -> None:
        """Kill QEMU."""
        self._act("kill")

    async def pm1(self) -> Pm1:
        """The button's registers."""
        self._may("pm1")
        if self.registers is None:
            raise Trouble(Fault.NOT_ALLOWED, "not allowed")
        return self.registers

    async def activity(self) -> Activity:
        """What it has done."""
        self._may("activity")
        return Activity(now_s(), 0, 0, 0, 0.0)

    async def screen(self) -> bytes:
        """No screen."""
        raise Trouble(Fault.UNSUPPORTED, "it has no screen")

    async def agent(self) -> AgentSight:
        """Its agent."""
        self._may("agent")
        return self.sight

    def rest(self) -> None:
        """Any number may hold it."""

    def close(self) -> None:
        """Let go of it."""
        self.closed = True
