"""A real guest agent behind a real libvirtd."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest

from guests.hearing import Heard
from helpers import PATIENCE_S
from lastcall.targets.guest.libvirt.host import Host, Lane
from lastcall.targets.guest.libvirt.machine import open_libvirt
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.words import Kind, Power, System

if TYPE_CHECKING:
    from guests.libvirtd import Guest, Libvirtd


def test_an_agent_that_answers(daemon: Libvirtd) -> None:
    """Its system and users are known without a taint, and it shuts the guest down when asked."""

    async def run(guest: Guest) -> None:
        machine = await open_libvirt(guest.name, daemon.uri, allow_monitor=False)
        try:
            heard = Heard(machine)
            assert (await machine.setup()).agent is True
            sight = await machine.agent()
            assert (sight.connected, sight.answers) == (True, True)
            assert sight.system is System.LINUX
            assert sight.users == ("kim",)
            activity = await machine.activity()
            assert activity.cpu_s is not None
            assert activity.cpu_s > 0
            await machine.ask_agent()
            await heard.wait(Kind.GONE)
            kinds = heard.kinds
            assert kinds.index(Kind.AGENT_CLOSED) < kinds.index(Kind.SHUTDOWN)
            assert Kind.POWERDOWN not in kinds
            assert (await heard.wait(Kind.SHUTDOWN)).reason == "guest-shutdown"
        finally:
            machine.close()

    # QEMU tells of its port once a second at most, and drops the rest when it ends.
    with daemon.linux(user=True, slow_s=3) as guest:
        guest.wait_up()
        asyncio.run(run(guest))
        assert "custom-" not in guest.log()


def test_an_agent_that_hangs(daemon: Libvirtd) -> None:
    """An agent that holds its port and is silent is told as such, and holds up no press."""

    async def run(guest: Guest) -> None:
        machine = await open_libvirt(guest.name, daemon.uri, allow_monitor=False)
        try:
            heard = Heard(machine)
            asked = asyncio.create_task(machine.agent())
            shut_down = asyncio.create_task(machine.ask_agent())
            await asyncio.sleep(0)
            start_s = time.monotonic()
            assert await machine.power() is Power.RUNNING
            await machine.press()
            assert time.monotonic() - start_s < 4.0
            sight = await asked
            assert (sight.connected, sight.answers) == (True, False)
            # What was asked and has not come back was asked: libvirt may not say so in time.
            failed = (await asyncio.gather(shut_down, return_exceptions=True))[0]
            faults = {Fault.HUNG, Fault.REFUSED, Fault.UNSUPPORTED, Fault.GONE}
            assert failed is None or (isinstance(failed, Trouble) and failed.fault in faults)
            await heard.wait(Kind.GONE)
            assert heard.kinds[0] is Kind.POWERDOWN
        finally:
            machine.close()

    with daemon.linux(frozen=True, slow_s=15) as guest:
        guest.wait_up()
        asyncio.run(run(guest))


def test_a_guest_without_its_agent(daemon: Libvirtd) -> None:
    """A port that nothing in the guest holds is told, and nobody is asked."""

    async def run(guest: Guest) -> None:
        machine = await open_libvirt(guest.name, daemon.uri, allow_monitor=False)
        try:
            sight = await machine.agent()
            assert (sight.connected, sight.answers) == (False, None)
            with pytest.raises(Trouble) as caught:
                await machine.ask_agent()
            assert caught.value.fault in {Fault.REFUSED, Fault.UNSUPPORTED}
        finally:
            machine.close()

    with daemon.linux(agent=False) as guest:
        guest.wait_up()
        asyncio.run(run(guest))


def test_agents_that_hang_say_nothing_of_another(daemon: Libvirtd) -> None:
    """While they hold all the places, whether another one answers is not known."""

    async def run(guest: Guest) -> None:
        machine = await open_libvirt(guest.name, daemon.uri, allow_monitor=False)
        host = await Host.shared(daemon.uri)
        free = threading.Event()

        def hang(_: object) -> None:
            free.wait(PATIENCE_S)

        hung = [
            asyncio.create_task(
                host.call(hang, "waiting", Lane.AGENT, str(each), limit_s=PATIENCE_S)
            )
            for each in range(4)
        ]
        try:
            await asyncio.sleep(0)
            sight = await machine.agent()
            assert (sight.connected, sight.answers) == (True, None)
            assert sight.detail
        finally:
            free.set()
            await asyncio.gather(*hung)
            machine.close()
            host.release()

    with daemon.linux() as guest:
        guest.wait_up()
        asyncio.run(run(guest))
