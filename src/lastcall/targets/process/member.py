"""One process of a target: its handle, what it was asked, how it ended, and its journal form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lastcall.kernel import procfs
from lastcall.kernel.identity import Handle, ProcessIdentity
from lastcall.targets.process.ending import Asks
from lastcall.targets.process.runtime import Runtime, recognise

if TYPE_CHECKING:
    import select

    from lastcall.model import Cause


@dataclass(slots=True)
class Member:
    """A member of the set.

    Args:
        end: how it ended; None while it lives.
        hangup: wakes when its parent has reaped it; only while that is waited for.
    """

    handle: Handle
    asks: Asks
    end: tuple[Cause, str] | None = None
    hangup: select.epoll | None = None


def asked(member: Member, signum: int) -> Asks:
    """What is known of a member at the moment it is asked."""
    pid = member.handle.identity.pid
    asks = member.asks
    handled = asks.handled
    runtime = asks.runtime
    try:
        caught = int(procfs.status_line(pid, "SigCgt"), 16) >> (signum - 1) & 1
        # As it is now: a handler may have put the default back after an earlier ask.
        handled = handled | {signum} if caught else handled - {signum}
        if runtime is Runtime.OTHER:
            runtime = recognise(pid)
    except (ProcessLookupError, PermissionError, ValueError):
        pass
    return Asks(asks.sent | {signum}, handled, runtime)


def pack(member: Member) -> str:
    """One member as the journal keeps it: pid/start/inode/sent/handled/runtime."""
    identity, asks = member.handle.identity, member.asks
    lists = "/".join(",".join(map(str, sorted(s))) for s in (asks.sent, asks.handled))
    inode = identity.inode or "-"
    return f"{identity.pid}/{identity.start_ticks}/{inode}/{lists}/{asks.runtime.name}"


def unpack(packed: str, boot: str) -> tuple[ProcessIdentity, Asks]:
    """One member back from the journal.

    Raises:
        ValueError, KeyError: it is not of that form.
    """
    pid, start, inode, sent, handled, runtime = packed.split("/")
    numbers = [frozenset(int(n) for n in text.split(",") if n) for text in (sent, handled)]
    identity = ProcessIdentity(int(pid), int(start), boot, None if inode == "-" else int(inode))
    return identity, Asks(numbers[0], numbers[1], Runtime[runtime])
