"""What the commands take for virtual machines, and finding them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lastcall.errors import LastcallError, UsageError
from lastcall.model import GUESTS, Address, Identity

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from lastcall.stop.news import Result
    from lastcall.targets.base import Target
    from lastcall.targets.guest.wish import GuestWish

# Of what `--allow` takes, that which concerns guests (`targets.guest.wish.Allow`).
ALLOW = ("wake", "resume", "monitor")
_OPENING_AT_ONCE = 64


def add_connect(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Where libvirt is; as virsh has it."""
    parser.add_argument(
        "--connect", "-c", metavar="URI", help="libvirt's connection URI, such as qemu:///system"
    )


def add_asks(group: argparse._ArgumentGroup) -> None:
    """How a guest is asked."""
    group.add_argument(
        "--ask",
        metavar="SEQ",
        help="press (the power button, default), agent, or press:60s,agent: each with its wait",
    )
    group.add_argument(
        "--press-again",
        choices=("auto", "never"),
        default="auto",
        help="press once more where that helps and cannot harm (default auto)",
    )
    group.add_argument(
        "--guest-os",
        choices=("windows", "linux", "other"),
        help="what runs in it, if its agent does not tell",
    )
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


def everything(uri: str | None) -> list[Address]:
    """All running guests of a host, by name.

    Raises:
        LastcallError: it cannot be reached.
    """
    from lastcall.targets.guest.libvirt.machine import running

    return [Address("libvirt", name) for name in asyncio.run(running(uri))]


async def open_all(
    addresses: Sequence[Address], wish: GuestWish
) -> tuple[list[Target], list[Result]]:
    """The guests, nobody twice, and those that there is nothing to stop of. Side by side.

    Raises:
        UsageError: one address makes no sense: then none is asked at all.
    """
    from lastcall.stop.news import Result, Subject
    from lastcall.targets.open import open_guest

    few = asyncio.Semaphore(_OPENING_AT_ONCE)

    async def open_one(address: Address) -> Target | LastcallError:
        async with few:
            try:
                return await open_guest(address, wish)
            except LastcallError as error:
                return error

    opened = await asyncio.gather(*map(open_one, addresses))
    targets: dict[str, Target] = {}
    failed = []
    for address, one in zip(addresses, opened, strict=True):
        if isinstance(one, LastcallError):
            failed.append(Result(Subject(address, "", Identity("", {})), 0, None, one))
        elif one.identity.key in targets:
            one.close()
        else:
            targets[one.identity.key] = one
    for result in failed:
        if isinstance(result.error, UsageError):
            for target in targets.values():
                target.close()
            raise result.error
    return list(targets.values()), failed
