"""A libvirtd that goes away at the worst moment: nothing is sent twice, and nothing is missed."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from guests.hearing import Heard
from helpers import PATIENCE_S, wait_until
from lastcall.model import Address, Outcome
from lastcall.targets.guest.libvirt.ear import Ear, Wire
from lastcall.targets.guest.libvirt.host import Lane
from lastcall.targets.guest.libvirt.machine import open_libvirt
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.target import GuestTarget
from lastcall.targets.guest.wish import GuestWish
from lastcall.targets.guest.words import Kind, Power

if TYPE_CHECKING:
    from guests.libvirtd import Guest, Libvirtd

TEST_URI = "test:///default"


def test_what_is_asked_while_libvirtd_is_away_was_not_sent(daemon: Libvirtd) -> None:
    """Press, waking and resuming say that nothing was sent; the agent was not asked."""

    async def run(guest: Guest) -> None:
        machine = await open_libvirt(guest.name, daemon.uri, allow_monitor=False)
        try:
            heard = Heard(machine)
            await machine.power()
            await asyncio.to_thread(daemon.stop)
            await heard.wait(Kind.CUT)
            for act in (machine.press, machine.wake, machine.resume):
                with pytest.raises(Trouble) as caught:
                    await act()
                assert caught.value.fault is Fault.CUT
                assert "virsh uri" in caught.value.advice
            for ask in (machine.ask_agent, machine.end, machine.power):
                with pytest.raises(Trouble) as caught:
                    await ask()
                assert caught.value.fault is Fault.BROKEN
        finally:
            machine.close()
            await asyncio.to_thread(daemon.start)

    with daemon.guest("stops") as guest:
        guest.wait_up()
        asyncio.run(run(guest))
        assert guest.milestones() == ["up"]


@pytest.mark.parametrize("back", [True, False])
def test_a_press_while_libvirtd_is_away(
    daemon: Libvirtd, monkeypatch: pytest.MonkeyPatch, *, back: bool
) -> None:
    """It is made as soon as libvirtd is back; if that does not come back, it was not made."""
    patience_s = PATIENCE_S if back else 0.5
    monkeypatch.setattr("lastcall.targets.guest.target._MEND_S", patience_s)

    async def run(guest: Guest) -> None:
        machine = await open_libvirt(guest.name, daemon.uri, allow_monitor=False)
        target = GuestTarget(Address("libvirt", guest.name), machine, GuestWish())
        try:
            await asyncio.to_thread(daemon.stop)
            pressing = asyncio.create_task(target.carry(target.ladder[0]))
            await asyncio.wait({pressing}, timeout=1.0)
            over = pressing.done()
            await asyncio.to_thread(daemon.start)
            assert over is not back
            answer = await pressing
            if not back:
                assert answer.outcome is Outcome.FAILED
                assert target.memory.presses == []
                assert await machine.power() is Power.RUNNING
                return
            assert answer.outcome is Outcome.DONE
            assert answer.detail.startswith("ACPI power button pressed")
            assert len(target.memory.presses) == 1
            await asyncio.to_thread(guest.wait_off)
        finally:
            target.close()

    with daemon.guest("stops") as guest:
        guest.wait_up()
        asyncio.run(run(guest))
        assert guest.milestones().count("taken") == int(back)


def test_what_is_given_up_in_the_last_moment_is_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread saw that there is time left, and comes to the act when it was said not to be."""
    given_up = threading.Event()

    def held_s() -> float:
        read_s = time.monotonic()
        if threading.current_thread() is not threading.main_thread():
            given_up.wait(PATIENCE_S)
        return read_s

    clock = SimpleNamespace(monotonic=held_s)
    monkeypatch.setattr("lastcall.targets.guest.libvirt.machine.time", clock)
    done: list[str] = []

    async def run() -> None:
        machine = await open_libvirt("test", TEST_URI, allow_monitor=False)
        host = machine._host
        try:
            for lane, fault in ((Lane.ACT, Fault.CUT), (Lane.AGENT, Fault.HUNG)):
                given_up.clear()
                with pytest.raises(Trouble) as caught:
                    await machine._call(lambda *_: done.append("it"), "doing", lane, limit_s=0.2)
                assert caught.value.fault is fault
                given_up.set()
                await asyncio.to_thread(wait_until, lambda: not host.hung, "the thread to end")
        finally:
            given_up.set()
            machine.close()

    asyncio.run(run())
    assert done == []


def test_what_has_begun_is_not_given_up() -> None:
    """A press that libvirt was given and that does not come back in time is in doubt."""
    free = threading.Event()

    async def run() -> None:
        machine = await open_libvirt("test", TEST_URI, allow_monitor=False)
        try:
            with pytest.raises(Trouble) as caught:
                await machine._call(
                    lambda *_: free.wait(PATIENCE_S), "doing", Lane.ACT, limit_s=0.2
                )
            assert caught.value.fault is Fault.HUNG
        finally:
            free.set()
            machine.close()

    asyncio.run(run())


def test_a_libvirtd_that_dies_while_the_connection_is_mended(
    daemon: Libvirtd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that closes before it is taken is made again, and the guest is heard."""
    ready, closed = threading.Event(), threading.Event()
    connect, on_closed = Ear._connect, Ear._on_closed
    made: list[Wire] = []

    def die_meanwhile(ear: Ear) -> Wire:
        wire = connect(ear)
        made.append(wire)
        if len(made) == 1:
            assert ready.wait(PATIENCE_S)
            closed.clear()
            daemon.stop(signal.SIGKILL)
            assert closed.wait(PATIENCE_S)
            daemon.start()
        return wire

    def tell(ear: Ear, connection: object, reason: int, wire: Wire) -> None:
        on_closed(ear, connection, reason, wire)
        closed.set()

    async def run(guest: Guest) -> None:
        monkeypatch.setattr(Ear, "_on_closed", tell)
        machine = await open_libvirt(guest.name, daemon.uri, allow_monitor=False)
        try:
            heard = Heard(machine)
            monkeypatch.setattr(Ear, "_connect", die_meanwhile)
            await asyncio.to_thread(daemon.stop)
            await heard.wait(Kind.CUT)
            await asyncio.to_thread(daemon.start)
            ready.set()
            await heard.wait(Kind.BACK)
            assert len(made) == 2
            await machine.press()
            await heard.wait(Kind.GONE)
            assert heard.kinds[:4] == [Kind.CUT, Kind.BACK, Kind.POWERDOWN, Kind.SHUTDOWN]
        finally:
            machine.close()

    with daemon.guest("stops") as guest:
        guest.wait_up()
        asyncio.run(run(guest))


def test_a_libvirtd_that_closes_the_first_connection_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It counts as one that cannot be reached, and the connection is given back."""
    connect = Ear._connect

    def close_at_once(ear: Ear) -> Wire:
        wire = connect(ear)
        ear._on_closed(wire.connection, 1, wire)
        return wire

    monkeypatch.setattr(Ear, "_connect", close_at_once)
    given_back = _given_back(monkeypatch)

    async def run() -> None:
        ear = Ear(TEST_URI, lambda _: None)
        with pytest.raises(Trouble) as caught:
            await ear.open(PATIENCE_S)
        assert caught.value.fault is Fault.BROKEN
        assert "libvirt closed the connection" in caught.value.what
        assert not ear.connected
        ear.close()

    asyncio.run(run())
    wait_until(lambda: len(given_back) == 1, "the connection to be given back")


def test_an_opening_that_is_cancelled_leaves_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection that comes when nobody waits for it any more is given back."""
    free, connect = threading.Event(), Ear._connect

    def come_late(ear: Ear) -> Wire:
        wire = connect(ear)
        free.wait(PATIENCE_S)
        return wire

    monkeypatch.setattr(Ear, "_connect", come_late)
    given_back = _given_back(monkeypatch)

    async def run() -> None:
        ear = Ear(TEST_URI, lambda _: None)
        opening = asyncio.create_task(ear.open(PATIENCE_S))
        await asyncio.sleep(0.05)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        ear.close()
        free.set()
        await asyncio.to_thread(
            wait_until, lambda: len(given_back) == 1, "the connection to be given back"
        )

    asyncio.run(run())


def _given_back(monkeypatch: pytest.MonkeyPatch) -> list[Wire]:
    """The connections that tell and were given back, from now on."""
    closed: list[Wire] = []
    close = Wire.close

    def close_and_keep(wire: Wire) -> None:
        close(wire)
        closed.append(wire)

    monkeypatch.setattr(Wire, "close", close_and_keep)
    return closed
