"""What the commands take for virtual machines, and finding them."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from lastcall.clock import now_s
from lastcall.errors import BadPolicy, LastcallError, UsageError
from lastcall.model import GUESTS, Address, Identity

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Sequence

    from lastcall.stop.news import Result
    from lastcall.stop.policy import Policy
    from lastcall.targets.base import Target
    from lastcall.targets.guest.wish import GuestWish

# Of what `--allow` takes, that which concerns guests (`targets.guest.wish.Allow`).
ALLOW = ("wake", "resume", "monitor")
_OPENING_AT_ONCE = 64
_ALL_PATIENCE_S = 15.0


def add_connect(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Where libvirt is; as virsh has it."""
    parser.add_argument(
        "--connect", "-c", metavar="URI", help="libvirt's connection URI, such as qemu:///system"
    )


def add_guest_os(group: argparse._ArgumentGroup) -> None:
    """What the caller knows of a guest."""
    group.add_argument(
        "--guest-os",
        choices=("windows", "linux", "other"),
        help="what runs in it, if its agent does not tell",
    )


def add_asks(group: argparse._ArgumentGroup) -> None:
    """How a guest is asked."""
    group.add_argument(
        "--ask",
        metavar="SEQ",
        help="press (the power button, default), agent, or press:60s,agent: each with its wait;"
        " the agent of Windows closes applications by force, so there it needs --force",
    )
    group.add_argument(
        "--press-again",
        choices=("auto", "never"),
        help="auto (default): press once more where that helps and cannot harm",
    )
    add_guest_os(group)
    add_connect(group)
    group.add_argument(
        "--all", action="store_true", help="every running guest of the libvirt host (--connect)"
    )


def wish_of(arguments: argparse.Namespace) -> GuestWish:
    """What the command line wants of guests.

    Raises:
        BadPolicy: it makes no sense.
    """
    from lastcall.journal.place import state_dir
    from lastcall.targets.guest.album import folder_in
    from lastcall.targets.guest.wish import Allow, GuestWish, asks_of
    from lastcall.targets.guest.words import System

    said = vars(arguments)
    allowed = frozenset(Allow(word) for word in said.get("allow") or () if word in ALLOW)
    plain = GuestWish()
    return GuestWish(
        asks=asks_of(said["ask"]) if said.get("ask") is not None else plain.asks,
        allow=allowed,
        press_again=said.get("press_again") != "never",
        system=System(said.get("guest_os") or "unknown"),
        connect=arguments.connect,
        screens=folder_in(state_dir()),
    )


def refuse_stray_options(arguments: argparse.Namespace, addresses: Sequence[Address]) -> None:
    """An option that no target hears is a mistake.

    Raises:
        UsageError: there is one.
    """
    kinds = {address.kind for address in addresses}
    if arguments.connect is not None and "libvirt" not in kinds:
        raise UsageError("--connect is for libvirt: targets", "write libvirt:NAME, or use --all")
    said = vars(arguments)
    for_guests = {
        "--ask": said.get("ask"),
        "--guest-os": said.get("guest_os"),
        "--press-again": said.get("press_again"),
        "--allow wake|resume|monitor": set(said.get("allow") or ()) & set(ALLOW),
    }
    if not kinds & GUESTS:
        for option, given in for_guests.items():
            if given:
                raise UsageError(f"{option} is for guests", "write qmp:PATH or libvirt:NAME")
    for_processes = ("signal", "signals", "tree", "group")
    if kinds and kinds <= GUESTS:
        for option in for_processes:
            if said.get(option):
                raise UsageError(f"--{option} is for processes", "guests are asked by --ask")
        if stray := sorted(set(said.get("allow") or ()) - set(ALLOW)):
            raise UsageError(f"--allow {stray[0]} is for processes", f"guests: {', '.join(ALLOW)}")


def check_lengths(
    arguments: argparse.Namespace, policy: Policy, addresses: Sequence[Address]
) -> None:
    """Does every way to ask have its turn within the grace?

    Without a grace of the caller's, each kind brings its own: does it fit below the ceiling?

    Raises:
        BadPolicy: it does not.
    """
    from dataclasses import replace

    from lastcall.stop.policy import DEFAULT_GRACE_S

    kinds = {address.kind for address in addresses}
    if policy.grace_s is not None and kinds & GUESTS:
        waits_s = sum(wait_s or 0.0 for _, wait_s in wish_of(arguments).asks[:-1])
        if policy.grace_s < waits_s:
            raise BadPolicy(
                f"the grace of {policy.grace_s:g} s is over before the guest is asked the last way,"
                f" after {waits_s:g} s",
                "give a longer --grace, or say how long each is waited for: --ask press:30s,agent",
            )
    if policy.extend_up_to_s is None or policy.grace_s is not None:
        return
    if kinds - GUESTS and not arguments.signals:
        replace(policy, grace_s=DEFAULT_GRACE_S)  # which raises
    if kinds & GUESTS:
        replace(policy, grace_s=sum(wait_s or 0.0 for _, wait_s in wish_of(arguments).asks))


def everything(uri: str | None) -> list[Address]:
    """All running guests of a host, by name.

    Raises:
        LastcallError: it cannot be reached.
    """
    return [Address("libvirt", name) for name in asyncio.run(_running(uri))]


async def _running(uri: str | None) -> tuple[str, ...]:
    """The names of all running guests; a busy host that goes down may answer late."""
    from lastcall.targets.guest.libvirt.machine import running
    from lastcall.targets.guest.machine import Fault, Trouble

    give_up_s = now_s() + _ALL_PATIENCE_S
    while True:
        try:
            return await running(uri)
        except Trouble as trouble:
            if trouble.fault is not Fault.HUNG or now_s() > give_up_s:
                raise


async def open_each(
    addresses: Sequence[Address], wish: GuestWish
) -> dict[Address, Target | LastcallError]:
    """What is at each address; several addresses of one guest have one target. Side by side.

    Raises:
        UsageError: one address makes no sense: then none is left open.
    """
    under_way = _open_places(addresses, wish)
    opened = dict(zip(_places(addresses), await asyncio.gather(*under_way), strict=True))
    found: dict[Address, Target | LastcallError] = {}
    by_identity: dict[str, Target] = {}
    for address in addresses:
        one = found[address] = opened[_place(address)]
        if isinstance(one, LastcallError):
            continue
        found[address] = kept = by_identity.setdefault(one.identity.key, one)
        if kept is not one:
            one.close()
    if bad := next((one for one in opened.values() if isinstance(one, UsageError)), None):
        for target in by_identity.values():
            target.close()
        raise bad
    return found


async def opening(
    addresses: Sequence[Address], wish: GuestWish
) -> AsyncIterator[tuple[list[Target], list[Result]]]:
    """The guests as they are found, and those that there is nothing to stop of. Side by side.

    The first that is yielded may be empty; no guest is yielded twice.

    Raises:
        UsageError: one address makes no sense: then nothing was yielded yet.
    """
    from lastcall.stop.operation import TOGETHER_S

    tasks = dict(zip(_open_places(addresses, wish), _places(addresses).values(), strict=True))
    known: set[str] = set()
    pending, first = set(tasks), True
    while pending:
        done, pending = await asyncio.wait(pending, timeout=TOGETHER_S)
        found = [(tasks[task], task.result()) for task in tasks if task in done]
        targets, failed = _sorted_out(found, known)
        if first:
            await _refuse_typos(failed, targets, pending)
        first = False
        yield targets, failed


def _sorted_out(
    found: Sequence[tuple[Address, Target | LastcallError]], known: set[str]
) -> tuple[list[Target], list[Result]]:
    """The guests that are not known yet, and the failures. Those known are kept in `known`."""
    from lastcall.stop.news import Result, Subject

    targets, failed = [], []
    for address, one in found:
        if isinstance(one, LastcallError):
            failed.append(Result(Subject(address, "", Identity("", {})), 0, None, one))
        elif one.identity.key in known:
            one.close()
        else:
            known.add(one.identity.key)
            targets.append(one)
    return targets, failed


async def _refuse_typos(
    failed: Sequence[Result],
    targets: Sequence[Target],
    pending: set[asyncio.Task[Target | LastcallError]],
) -> None:
    """A typo among several: nothing is asked at all.

    Raises:
        UsageError: there is one.
    """
    typo = next((each.error for each in failed if isinstance(each.error, UsageError)), None)
    if typo is None:
        return
    for task in pending:
        task.cancel()
    for opened in targets:
        opened.close()
    await asyncio.gather(*pending, return_exceptions=True)
    raise typo


def _places(addresses: Sequence[Address]) -> dict[str, Address]:
    """One address for each place."""
    places: dict[str, Address] = {}
    for address in addresses:
        places.setdefault(_place(address), address)
    return places


def _open_places(
    addresses: Sequence[Address], wish: GuestWish
) -> list[asyncio.Task[Target | LastcallError]]:
    """What is at each of their places, under way."""
    from lastcall.targets.open import open_guest

    few = asyncio.Semaphore(_OPENING_AT_ONCE)

    async def open_one(address: Address) -> Target | LastcallError:
        async with few:
            try:
                return await open_guest(address, wish)
            except LastcallError as error:
                return error
            except Exception as error:  # noqa: BLE001 (one guest must not end the others' stop)
                return LastcallError(f"{address} cannot be opened: {error!r}")

    return [asyncio.create_task(open_one(address)) for address in _places(addresses).values()]


def _place(address: Address) -> str:
    """The address, or the file that it leads to.

    A monitor serves one at a time: reached by two of its names at once, one would wait in vain.
    """
    if address.kind == "qmp" and (":" not in address.name or "/" in address.name):
        return os.path.realpath(address.name)
    return str(address)
