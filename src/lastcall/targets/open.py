"""From an address to a target, and from the journal back to one. Adapters load when needed."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from lastcall.errors import LastcallError
from lastcall.model import GUESTS, Intended, Started
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lastcall.model import Address, Event
    from lastcall.targets.base import Target
    from lastcall.targets.guest.wish import GuestWish


@record
class Wish:
    """How a process is to be asked.

    Args:
        signals: (signal, seconds to wait; None: until the deadline), in order.
        scope: "one", or how far beyond the process the stop reaches (`process.ladder.Scope`).
        allow: what is otherwise refused: "init", "ancestor".
        grace_s: how long the stop gives it, in seconds; None: that is not known yet.
    """

    signals: tuple[tuple[int, float | None], ...] = ((15, None),)
    scope: str = "one"
    allow: frozenset[str] = field(default_factory=frozenset)
    grace_s: float | None = None


def open_target(address: Address, wish: Wish) -> Target:
    """Find what is at an address and fix its identity. Not for guests: see `open_guest`.

    Raises:
        LastcallError: it is not there, not clear, or must not be stopped.
    """
    from lastcall.targets.process.ladder import Scope
    from lastcall.targets.process.opening import open_process

    try:
        scope = Scope(wish.scope)
        return open_process(address, wish.signals, scope, wish.allow, wish.grace_s)
    except OSError as error:  # too many open files, a file system that fails, ...
        raise LastcallError(f"{address} cannot be looked at: {error.strerror}") from error


async def open_guest(address: Address, wish: GuestWish) -> Target:
    """Find the guest at an address and fix its identity, on the running loop.

    Raises:
        LastcallError: it is not there, not running, or cannot be reached.
    """
    from lastcall.targets.guest import opening

    return await opening.open_guest(address, wish)


async def reopen_target(
    address: Address,
    label: str,
    facts: dict[str, str | int | None],
    events: Sequence[tuple[float, Event]],
    folder: str,
) -> Target:
    """Find the very same target again, from what the journal says of it.

    Args:
        address: as it was given.
        label: as it was then.
        facts: of its identity.
        events: of the stop, oldest first.
        folder: the state folder, for what a target keeps.

    Raises:
        NotRunning: it is gone.
        LastcallError: it cannot be reached, so whether it is gone is not known.
    """
    if address.kind in GUESTS:
        from lastcall.targets.guest.opening import reopen_guest

        return await reopen_guest(address, facts, events, folder)
    from lastcall.targets.process.opening import reopen_process

    ladder = next(event.ladder for _, event in events if isinstance(event, Started))
    intents = [event.facts for _, event in events if isinstance(event, Intended)]
    return reopen_process(address, label, facts, ladder, intents)
