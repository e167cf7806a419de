"""What every kind of target answers. The stop algorithm knows targets by this alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

from lastcall.model import Called, Ended, Missing, Outcome, Progressed, Reached, Served
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Callable

    from lastcall.model import Address, Depth, Finding, Identity, Rung

TargetEvent: TypeAlias = Reached | Served | Progressed | Called | Ended | Missing


@record
class Answer:
    """What came of one rung.

    Args:
        outcome: whether it was carried out.
        detail: to whom, or why not, in words.
    """

    outcome: Outcome
    detail: str = ""


class Target(Protocol):
    """One thing that can be stopped, with its identity already fixed."""

    @property
    def address(self) -> Address:
        """Where it was found."""
        ...

    @property
    def identity(self) -> Identity:
        """What makes it this one and not a later one of the same name."""
        ...

    @property
    def label(self) -> str:
        """What a person would call it, on one line."""
        ...

    @property
    def ladder(self) -> tuple[Rung, ...]:
        """How it is asked: soft rungs first, then those that need consent to force."""
        ...

    def living(self) -> frozenset[str]:
        """The identity keys of all its parts that have not ended, as far as is known."""
        ...

    async def preflight(self) -> tuple[Finding, ...]:
        """Will it stop? What is known before anything is sent. Changes nothing."""
        ...

    def watch(self, notify: Callable[[TargetEvent], None]) -> None:
        """Report what happens to it from now on, on the running loop, as it happens.

        What has happened already is told before the loop comes back to its caller. Exactly one
        `Ended` or `Missing` comes, and nothing after it.
        """
        ...

    def facts(self, rung: Rung) -> dict[str, str | int | None]:
        """What a later owner must know to go on after this rung; recorded with the intent."""
        ...

    async def carry(self, rung: Rung) -> Answer:
        """Carry out one rung, to this identity or to nobody. Never raises, never hangs."""
        ...

    async def look(self, depth: Depth) -> tuple[Finding, ...]:
        """What holds it up now, with evidence. Has limits of its own; changes nothing."""
        ...

    async def verify(self) -> tuple[Finding, ...]:
        """After the end: is what it held really free? Changes nothing."""
        ...

    def rest(self) -> None:
        """Let go of what only one can hold at a time, until it is next needed.

        Another stop of the same target, or another lastcall, takes care of it meanwhile.
        """
        ...

    def close(self) -> None:
        """Stop watching and let go of descriptors. The target is left alone."""
        ...
