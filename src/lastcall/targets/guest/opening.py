"""Making a guest target: from an address, or from what the journal says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.model import Intended, Started
from lastcall.targets.guest import album, ladder
from lastcall.targets.guest.memory import recalled
from lastcall.targets.guest.target import GuestTarget
from lastcall.targets.guest.wish import Allow, Ask, GuestWish
from lastcall.targets.guest.words import System

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lastcall.model import Address, Event, Rung
    from lastcall.targets.guest.machine import Machine


async def open_guest(address: Address, wish: GuestWish) -> GuestTarget:
    """Find the guest at an address and fix its identity.

    Args:
        address: `qmp:` or `libvirt:`.
        wish: what the caller wants.

    Raises:
        LastcallError: it is not there, not running, or cannot be reached.
    """
    machine: Machine
    if address.kind == "qmp":
        from lastcall.targets.guest.qmp.machine import open_qmp

        machine = await open_qmp(address.name)
    else:
        from lastcall.targets.guest.libvirt.machine import open_libvirt

        allow_monitor = Allow.MONITOR in wish.allow
        machine = await open_libvirt(address.name, wish.connect, allow_monitor=allow_monitor)
    return GuestTarget(address, machine, wish)


async def reopen_guest(
    address: Address,
    facts: dict[str, str | int | None],
    events: Sequence[tuple[float, Event]],
    folder: str,
) -> GuestTarget:
    """Find the very same guest again, from the journal.

    Args:
        address: as it was given.
        facts: of its identity.
        events: of the stop, oldest first.
        folder: the state folder.

    Raises:
        NotRunning: it is gone, or another took its name.
        LastcallError: it cannot be reached.
    """
    machine: Machine
    rungs = next(event.ladder for _, event in events if isinstance(event, Started))
    wish = _wish_of(facts, events, rungs, folder)
    if address.kind == "qmp":
        from lastcall.targets.guest.qmp.machine import reopen_qmp

        machine = await reopen_qmp(facts)
    else:
        from lastcall.targets.guest.libvirt.machine import reopen_libvirt

        allow_monitor = Allow.MONITOR in wish.allow
        machine = await reopen_libvirt(facts, allow_monitor=allow_monitor)
    return GuestTarget(address, machine, wish, recalled(events, rungs), rungs)


def _wish_of(
    facts: dict[str, str | int | None],
    events: Sequence[tuple[float, Event]],
    rungs: tuple[Rung, ...],
    folder: str,
) -> GuestWish:
    """What was wanted of the stop: its ladder shows it, and the facts at its start and its asks."""
    ids = {rung.id for rung in rungs}
    asked = [event.facts for _, event in events if isinstance(event, Intended)]
    last = {**facts, **(asked[-1] if asked else {})}
    allow = {Allow.WAKE} if ladder.WAKE in ids else set()
    allow |= {Allow.RESUME} if ladder.RESUME in ids else set()
    allow |= {Allow.MONITOR} if last.get("monitor") else set()
    asks = tuple((Ask(rung.id), rung.wait_s) for rung in rungs if rung.id in set(Ask))
    if ladder.AGENT_FORCE in ids:
        asks = (*asks, (Ask.AGENT, None))
    system = last.get("system")
    return GuestWish(
        asks=asks,
        allow=frozenset(allow),
        press_again=bool(last.get("press_again", ladder.AGAIN in ids)),
        system=System(system) if system in set(System) else System.UNKNOWN,
        screens=album.folder_in(folder),
    )
