"""The target contract on real guests of QEMU."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from guests import zoo
from lastcall.model import Address
from lastcall.targets.guest.opening import open_guest
from lastcall.targets.guest.qmp.machine import reopen_qmp
from lastcall.targets.guest.target import GuestTarget
from lastcall.targets.guest.wish import GuestWish
from lastcall.testing.contract import TargetContract

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from lastcall.targets.base import Target
    from lastcall.testing.contract import Open


def opening(path: Path) -> Open:
    """Opens the guest behind a monitor's socket."""

    def opened() -> Awaitable[Target]:
        return open_guest(Address("qmp", str(path)), GuestWish())

    return opened


@contextlib.contextmanager
def running(name: str) -> Iterator[zoo.Guest]:
    """A guest of the zoo that is up."""
    with zoo.start(name) as guest:
        guest.wait_up()
        yield guest


class TestGuest(TargetContract):
    """Guests behind QEMU's monitor."""

    @contextlib.contextmanager
    def answering(self) -> Iterator[Open]:
        """It powers off when it is pressed."""
        with running("stops") as guest:
            yield opening(guest.qmp)

    @contextlib.contextmanager
    def refusing(self) -> Iterator[Open]:
        """It takes the press and goes on."""
        with running("takes-and-ignores") as guest:
            yield opening(guest.qmp)

    @contextlib.contextmanager
    def hanging(self) -> Iterator[Open]:
        """It has halted with interrupts off."""
        with running("halts") as guest:
            yield opening(guest.qmp)

    @contextlib.contextmanager
    def dying(self) -> Iterator[tuple[Open, Callable[[], None]]]:
        """Somebody else presses its button: it powers itself off."""
        with running("stops") as guest:

            def die() -> None:
                guest.side.press()
                guest.wait_ended()

            yield opening(guest.qmp), die

    @contextlib.contextmanager
    def gone(self) -> Iterator[Open]:
        """Its QEMU was there, and has ended."""
        with running("stops") as guest:
            guest.side.press()
            guest.wait_ended()
            yield opening(guest.qmp)

    @contextlib.contextmanager
    def reused(self) -> Iterator[tuple[Open, Callable[[], bool]]]:
        """Another QEMU listens at the same path now."""
        with running("stops") as first:
            facts = asyncio.run(_facts(first.qmp))
            first.side.press()
            first.wait_ended()
            monitor = ("-qmp", f"unix:{first.qmp},server=on,wait=off")
            with zoo.start("stops", extra=monitor) as other:
                other.wait_up()

                async def again() -> Target:
                    machine = await reopen_qmp(facts)
                    return GuestTarget(Address("qmp", str(first.qmp)), machine, GuestWish())

                yield again, lambda: other.milestones() == ["up"] and other.process.poll() is None


async def _facts(path: Path) -> dict[str, str | int | None]:
    target = await open_guest(Address("qmp", str(path)), GuestWish())
    target.close()
    return target.identity.facts
