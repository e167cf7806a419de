"""What shows a guest and acts on it: QEMU's monitor, or libvirt. The guest target knows it by this.

Every call has a limit of its own, stands off the event loop where it blocks, and raises `Trouble`
when it comes to nothing; none of them hangs.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Protocol

from lastcall.errors import LastcallError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lastcall.model import Identity
    from lastcall.targets.guest.words import Activity, AgentSight, Happening, Pm1, Power, Setup


class Fault(StrEnum):
    """Why a call came to nothing."""

    GONE = "gone"
    HUNG = "hung"
    DENIED = "denied"
    NOT_ALLOWED = "not allowed"
    UNSUPPORTED = "unsupported"
    REFUSED = "refused"
    BROKEN = "broken"
    CUT = "cut"


class Trouble(LastcallError):
    """A call to the hypervisor or the agent came to nothing.

    Args:
        fault: of what kind: the machine is GONE; no answer within the limit (HUNG); this user may
            not (DENIED); the policy does not allow it (NOT_ALLOWED); this machine or version has
            no such thing (UNSUPPORTED); it answered with an error (REFUSED); what it said makes no
            sense, or the connection broke meanwhile, so that it may or may not have been done
            (BROKEN); there is no connection just now, and nothing was sent (CUT).
        what: as in `LastcallError`.
        advice: as in `LastcallError`.
        evidence: as in `LastcallError`.
    """

    code: ClassVar[str] = "guest"

    def __init__(
        self, fault: Fault, what: str, advice: str = "", evidence: tuple[str, ...] = ()
    ) -> None:
        super().__init__(what, advice, evidence)
        self.fault = fault


class Machine(Protocol):
    """One guest, its identity already fixed. Async calls raise `Trouble` and nothing else."""

    @property
    def identity(self) -> Identity:
        """What makes it this one and not a later one of the same name."""
        ...

    @property
    def label(self) -> str:
        """What a person would call it: its name and where it runs."""
        ...

    def listen(self, heard: Callable[[Happening], None]) -> None:
        """From now on tell what happens to it, on the running loop, each once and in order.

        After `GONE` nothing more comes. A lost connection is mended by itself (`CUT`, `BACK`);
        what happened meanwhile is told as far as it can be known.
        """
        ...

    async def setup(self) -> Setup:
        """How it is built. What cannot be learnt stands as not known."""
        ...

    async def power(self) -> Power:
        """What it does now."""
        ...

    async def press(self) -> None:
        """Press its power button, once."""
        ...

    async def wake(self) -> None:
        """Wake it from sleep (S3)."""
        ...

    async def resume(self) -> None:
        """Let it go on after a pause."""
        ...

    async def ask_agent(self) -> None:
        """Ask the guest agent to shut the system down. There is no word of success."""
        ...

    async def end(self) -> None:
        """End QEMU in order: it writes out its own caches; to the guest it is a power cut."""
        ...

    async def kill(self) -> None:
        """Take QEMU away (SIGKILL)."""
        ...

    async def pm1(self) -> Pm1:
        """The registers of its power button. Changes nothing.

        NOT_ALLOWED: reading them needs a consent that was not given.
        """
        ...

    async def activity(self) -> Activity:
        """How much it has done so far."""
        ...

    async def screen(self) -> bytes:
        """A picture of its screen, PNG or PPM, of at most `words.SCREEN_LIMIT_BYTES`."""
        ...

    async def agent(self) -> AgentSight:
        """What the guest agent is and says, asked within a short limit."""
        ...

    def rest(self) -> None:
        """Let go of a connection that only one can have, until the next call."""
        ...

    def close(self) -> None:
        """Let go of it; the guest is left alone. Harmless to repeat."""
        ...
