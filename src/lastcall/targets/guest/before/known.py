"""What is known of a guest before it is asked, as one record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.model import Severity
from lastcall.record import record
from lastcall.targets.guest.wish import Ask
from lastcall.targets.guest.words import System

if TYPE_CHECKING:
    from lastcall.targets.guest.machine import Trouble
    from lastcall.targets.guest.wish import GuestWish
    from lastcall.targets.guest.words import AgentSight, Pm1, Power, Setup


@record
class Known:
    """What is known before the ask; as in `before.findings`."""

    setup: Setup
    power: Power
    registers: Pm1 | None
    agent: AgentSight | None
    wish: GuestWish
    troubles: tuple[Trouble, ...]
    age_s: float | None

    @property
    def system(self) -> System:
        """What runs in it: the agent's word first, then the caller's."""
        told = System.UNKNOWN if self.agent is None else self.agent.system
        return self.wish.system if told is System.UNKNOWN else told

    @property
    def asks_agent(self) -> bool:
        """Whether the agent is to be asked."""
        return any(ask is Ask.AGENT for ask, _ in self.wish.asks)

    @property
    def presses(self) -> bool:
        """On Windows the agent alone is no soft ask: there the button is pressed in any case."""
        pressed = any(ask is Ask.PRESS for ask, _ in self.wish.asks)
        return pressed or self.system is System.WINDOWS

    @property
    def unheard(self) -> Severity:
        """How grave it is that a press is lost: less so where the agent is asked next."""
        if not self.presses:
            return Severity.NOTE
        answers = self.agent is not None and self.agent.answers is True
        soft = self.asks_agent and answers and self.system is not System.WINDOWS
        return Severity.WARNING if soft else Severity.BLOCKER


def age(age_s: float | None) -> tuple[str, ...]:
    """For how long the machine has been running, as a line of evidence."""
    return () if age_s is None else (f"its machine was started {age_s:.0f} s ago",)
