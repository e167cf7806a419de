"""Guests of a real libvirtd as machines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

import pytest

from guests.hearing import Heard
from helpers import wait_until
from lastcall.errors import NotRunning
from lastcall.targets.guest.libvirt.host import Host
from lastcall.targets.guest.libvirt.machine import (
    LibvirtMachine,
    open_libvirt,
    reopen_libvirt,
    running,
)
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.words import Button, Kind, Power

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from guests.libvirtd import Guest, Libvirtd


@contextlib.asynccontextmanager
async def opened(guest: Guest, *, allow_monitor: bool = False) -> AsyncIterator[LibvirtMachine]:
    """The machine of a guest, closed at the end."""
    machine = await open_libvirt(guest.name, guest.daemon.uri, allow_monitor=allow_monitor)
    try:
        yield machine
    finally:
        machine.close()


async def fault_of(call: Coroutine[object, object, object]) -> Fault:
    """The fault with which a call comes to nothing."""
    with pytest.raises(Trouble) as caught:
        await call
    return caught.value.fault


def assert_stopped_by_itself(heard: Heard) -> None:
    """The press, the power-off, and the end once. What libvirt does to clear QEMU away may show."""
    kinds = heard.kinds
    assert kinds[:2] == [Kind.POWERDOWN, Kind.SHUTDOWN]
    assert set(kinds[2:-1]) <= {Kind.STOP, Kind.SHUTDOWN}
    assert len(kinds[2:-1]) == len(set(kinds[2:-1]))
    assert kinds.count(Kind.GONE) == 1
    assert kinds[-1] is Kind.GONE


async def eventually(fact: Callable[[], bool], what: str) -> None:
    """Wait for a fact without stopping the loop."""
    await asyncio.to_thread(wait_until, fact, what)


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_a_press_is_followed_to_the_end_of_qemu(daemon: Libvirtd, machine: str) -> None:
    """Press, power-off with its reason, and QEMU's end are told once each and in order."""

    async def run(guest: Guest) -> None:
        async with opened(guest) as opened_machine:
            heard = Heard(opened_machine)
            await opened_machine.press()
            gone = await heard.wait(Kind.GONE)
            assert_stopped_by_itself(heard)
            first = await heard.wait(Kind.SHUTDOWN)
            assert (first.guest, first.reason) == (True, "guest-shutdown")
            assert gone.status in {0, None}
            assert await opened_machine.power() is Power.GONE
            assert await fault_of(opened_machine.press()) is Fault.GONE

    with daemon.guest("stops", machine=machine) as guest:
        guest.wait_up()
        asyncio.run(run(guest))


def test_what_is_asked_of_a_running_guest(daemon: Libvirtd) -> None:
    """Setup, power, activity, screen and agent are known, and nothing of it taints the domain."""

    async def run(guest: Guest) -> None:
        async with opened(guest) as machine:
            setup = await machine.setup()
            assert setup.machine.startswith("pc-q35")
            assert (setup.button, setup.accelerator, setup.agent) == (Button.PM1, "tcg", False)
            assert (setup.on_poweroff, setup.stays_when_off) == ("destroy", False)
            assert setup.uuid == guest.uuid
            assert setup.started_s is not None
            assert await machine.power() is Power.RUNNING
            activity = await machine.activity()
            assert activity.read_bytes is not None
            assert activity.read_bytes > 0
            assert activity.cpu_s is not None
            assert (await machine.screen()).startswith((b"\x89PNG", b"P6"))
            agent = await machine.agent()
            assert (agent.connected, agent.answers) == (None, None)
            assert "no port" in agent.detail
            assert await machine.power() is Power.RUNNING
            assert machine.identity.facts["pid"] == guest.pid
            assert guest.name in machine.label

    with daemon.guest("deaf", machine="q35") as guest:
        guest.wait_up()
        asyncio.run(run(guest))
        assert "custom-monitor" not in guest.log()
        assert "custom-ga-command" not in guest.log()


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_the_registers_are_read_with_consent_only(daemon: Libvirtd, machine: str) -> None:
    """Without consent the monitor is left alone; with it the registers come, and it taints."""

    async def run(guest: Guest) -> None:
        async with opened(guest) as careful:
            with pytest.raises(Trouble) as caught:
                await careful.pm1()
            assert caught.value.fault is Fault.NOT_ALLOWED
            assert "--allow monitor" in caught.value.advice
            assert "custom-monitor" in caught.value.advice
        assert "custom-monitor" not in guest.log()
        async with opened(guest, allow_monitor=True) as allowed:
            registers = await allowed.pm1()
            assert (registers.hears, registers.acpi_on, registers.pending) == (True, True, False)
        assert "custom-monitor" in guest.log()

    with daemon.guest("takes-and-ignores", machine=machine) as guest:
        guest.wait_up()
        asyncio.run(run(guest))


def test_a_sleeping_guest_is_told_and_woken(daemon: Libvirtd) -> None:
    """Sleep and waking are told; a guest that is awake cannot be woken."""

    async def run(guest: Guest) -> None:
        async with opened(guest) as machine:
            assert await fault_of(machine.wake()) is Fault.REFUSED
            heard = Heard(machine)
            await machine.press()
            await heard.wait(Kind.SUSPEND)
            assert await machine.power() is Power.SUSPENDED
            await machine.wake()
            await heard.wait(Kind.WAKEUP)
            assert await machine.power() is Power.RUNNING

    with daemon.guest("sleeps-on-press") as guest:
        guest.wait_up()
        asyncio.run(run(guest))


def test_a_paused_guest_is_told_and_resumed(daemon: Libvirtd) -> None:
    """Pause and resume are told; a guest that runs cannot be resumed."""

    async def run(guest: Guest) -> None:
        async with opened(guest) as machine:
            heard = Heard(machine)
            assert await fault_of(machine.resume()) is Fault.REFUSED
            await asyncio.to_thread(guest.daemon.virsh, "suspend", guest.name)
            await heard.wait(Kind.STOP)
            assert await machine.power() is Power.PAUSED
            await machine.resume()
            await heard.wait(Kind.RESUME)
            assert await machine.power() is Power.RUNNING

    with daemon.guest("deaf") as guest:
        guest.wait_up()
        asyncio.run(run(guest))


@pytest.mark.parametrize("how", ["end", "kill"])
def test_qemu_is_ended_by_force(daemon: Libvirtd, how: str) -> None:
    """Both ways of force end QEMU, and say a signal where it powered off."""

    async def run(guest: Guest) -> None:
        async with opened(guest) as machine:
            heard = Heard(machine)
            await getattr(machine, how)()
            gone = await heard.wait(Kind.GONE)
            assert gone.reason in {"", "destroyed"}
            said = [each for each in heard.all if each.kind is Kind.SHUTDOWN]
            assert [each.reason for each in said] == ["host-signal"]
            assert heard.kinds[-1] is Kind.GONE

    with daemon.guest("deaf") as guest:
        guest.wait_up()
        asyncio.run(run(guest))
        guest.wait_off()


@pytest.mark.parametrize(
    ("signum", "shutdowns"), [(signal.SIGKILL, []), (signal.SIGTERM, ["host-signal"])]
)
def test_qemu_is_killed_from_outside(
    daemon: Libvirtd, signum: signal.Signals, shutdowns: list[str]
) -> None:
    """A SIGTERM shows in the first word of its power-off; a SIGKILL in QEMU's exit status."""

    async def run(guest: Guest) -> None:
        async with opened(guest) as machine:
            heard = Heard(machine)
            os.kill(guest.pid, signum)
            gone = await heard.wait(Kind.GONE)
            said = [each.reason for each in heard.all if each.kind is Kind.SHUTDOWN]
            assert said == shutdowns
            if signum == signal.SIGKILL and gone.status is not None:
                assert os.WTERMSIG(gone.status) == signal.SIGKILL

    with daemon.guest("deaf") as guest:
        guest.wait_up()
        asyncio.run(run(guest))


def test_hibernation_and_restart_are_told(daemon: Libvirtd) -> None:
    """A guest that hibernates says so before its power-off; one that restarts is reset."""

    async def hibernates(guest: Guest) -> None:
        async with opened(guest) as machine:
            heard = Heard(machine)
            await machine.press()
            await heard.wait(Kind.GONE)
            kinds = heard.kinds
            assert kinds.index(Kind.SUSPEND_DISK) < kinds.index(Kind.SHUTDOWN)

    async def reboots(guest: Guest) -> None:
        async with opened(guest) as machine:
            heard = Heard(machine)
            await machine.press()
            assert (await heard.wait(Kind.RESET)).guest is True
            assert await machine.power() is Power.RUNNING

    for behaviour, run in (("hibernates", hibernates), ("reboots", reboots)):
        with daemon.guest(behaviour) as guest:
            guest.wait_up()
            asyncio.run(run(guest))


def test_a_panic_is_told(daemon: Libvirtd) -> None:
    """The guest's kernel panics, and libvirt takes its machine away."""

    async def run(guest: Guest) -> None:
        async with opened(guest) as machine:
            heard = Heard(machine)
            await machine.press()
            await heard.wait(Kind.PANICKED)
            await heard.wait(Kind.GONE)

    with daemon.guest("panics") as guest:
        guest.wait_up()
        asyncio.run(run(guest))


def test_a_guest_that_libvirt_starts_again(daemon: Libvirtd) -> None:
    """With on_poweroff=restart the power-off is followed by a reset of the same QEMU."""

    async def run(guest: Guest) -> None:
        async with opened(guest) as machine:
            assert (await machine.setup()).on_poweroff == "restart"
            heard = Heard(machine)
            await machine.press()
            await heard.wait(Kind.RESET)
            kinds = heard.kinds
            assert kinds.index(Kind.SHUTDOWN) < kinds.index(Kind.RESET)
            await asyncio.to_thread(guest.wait_said, "up", 2)
            assert await machine.power() is Power.RUNNING

    with daemon.guest("stops", on_poweroff="restart") as guest:
        guest.wait_up()
        asyncio.run(run(guest))


def test_a_restarted_guest_is_another_one(daemon: Libvirtd) -> None:
    """After a restart under the same UUID nothing is done to it through the old identity."""

    async def run(guest: Guest) -> None:
        async with opened(guest) as machine:
            facts = machine.identity.facts
            again = await reopen_libvirt(facts, allow_monitor=False)
            assert again.identity == machine.identity
            again.close()
            heard = Heard(machine)
            await asyncio.to_thread(guest.daemon.virsh, "destroy", guest.name)
            await asyncio.to_thread(guest.daemon.virsh, "start", guest.name)
            await heard.wait(Kind.GONE)
            assert await machine.power() is Power.GONE
            for act in (machine.press, machine.end, machine.kill, machine.wake, machine.resume):
                assert await fault_of(act()) is Fault.GONE
        async with opened(guest) as later:
            assert later.identity.key != machine.identity.key
            assert await later.power() is Power.RUNNING
        with pytest.raises(NotRunning):
            await reopen_libvirt(facts, allow_monitor=False)

    with daemon.guest("deaf", keep=True) as guest:
        guest.wait_up()
        asyncio.run(run(guest))


def test_a_later_run_on_another_host_is_seen_by_its_time(
    daemon: Libvirtd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That host has restarted, and counts its guests anew: this one has run for less."""
    monkeypatch.setattr(Host, "local", property(lambda _: False))

    async def run(guest: Guest) -> None:
        async with opened(guest) as machine:
            facts = machine.identity.facts
            assert isinstance(facts["cpu_ns"], int)
            assert facts["cpu_ns"] > 0
            again = await reopen_libvirt(facts, allow_monitor=False)
            assert again.identity.key == machine.identity.key
            again.close()
            later = {**facts, "cpu_ns": facts["cpu_ns"] * 1000}
            with pytest.raises(NotRunning, match="a later one"):
                await reopen_libvirt(later, allow_monitor=False)

    with daemon.guest("deaf") as guest:
        guest.wait_up()
        asyncio.run(run(guest))


def test_a_guest_that_is_undefined_meanwhile(daemon: Libvirtd) -> None:
    """A guest that is undefined runs on, and its end is told as always."""

    async def run(guest: Guest) -> None:
        async with opened(guest) as machine:
            heard = Heard(machine)
            await asyncio.to_thread(guest.daemon.virsh, "undefine", guest.name)
            assert await machine.power() is Power.RUNNING
            await machine.press()
            await heard.wait(Kind.GONE)
            assert_stopped_by_itself(heard)
            assert await machine.power() is Power.GONE
            with pytest.raises(NotRunning):
                await reopen_libvirt(machine.identity.facts, allow_monitor=False)

    with daemon.guest("stops", keep=True) as guest:
        guest.wait_up()
        asyncio.run(run(guest))


def test_a_saved_guest_is_not_stopped(daemon: Libvirtd) -> None:
    """What ends a guest by saving its memory is told in libvirt's words."""

    async def run(guest: Guest) -> None:
        async with opened(guest) as machine:
            heard = Heard(machine)
            file = str(guest.daemon.folder / "saved")
            await asyncio.to_thread(guest.daemon.virsh, "save", guest.name, file)
            gone = await heard.wait(Kind.GONE)
            assert gone.reason in {"", "saved"}

    with daemon.guest("deaf") as guest:
        guest.wait_up()
        asyncio.run(run(guest))


def test_which_guests_there_are(daemon: Libvirtd) -> None:
    """A guest is found by name, UUID and id; of one that is not there the near names are told."""

    async def run(guest: Guest, off: Guest) -> None:
        uri = guest.daemon.uri
        number = str((await reveal(guest)).identity.facts["id"])
        for word in (guest.name, guest.uuid, guest.uuid.upper(), number):
            machine = await open_libvirt(word, uri, allow_monitor=False)
            assert machine.identity.facts["uuid"] == guest.uuid
            machine.close()
        assert await running(uri) == (guest.name,)
        with pytest.raises(NotRunning) as none:
            await open_libvirt(guest.name[:-1], uri, allow_monitor=False)
        assert guest.name in none.value.advice
        with pytest.raises(NotRunning) as stopped:
            await open_libvirt(off.name, uri, allow_monitor=False)
        assert "does not run" in stopped.value.what
        with pytest.raises(NotRunning):
            await open_libvirt("something quite different", uri, allow_monitor=False)

    async def reveal(guest: Guest) -> LibvirtMachine:
        async with opened(guest) as machine:
            return machine

    with daemon.guest("deaf") as guest, daemon.guest("deaf", keep=True) as off:
        daemon.virsh("destroy", off.name)
        asyncio.run(run(guest, off))


def test_nothing_is_left_behind(daemon: Libvirtd) -> None:
    """Opening and closing leaves no descriptor behind."""

    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def run(guest: Guest) -> None:
        async with opened(guest):
            pass
        await eventually(lambda: open_files() <= most[0], "the connections to be closed")

    with daemon.guest("deaf") as guest:
        most = [10_000]
        asyncio.run(run(guest))
        wait_until(lambda: threads() == [], "the first connections to be closed")
        most = [open_files() + 3]  # of the loop itself
        for _ in range(3):
            asyncio.run(run(guest))


def threads() -> list[str]:
    """The names of libvirt's threads that are still at work, but for that of the events."""
    import threading

    names = (each.name for each in threading.enumerate())
    return [each for each in names if each.startswith("lastcall-libvirt-close")]
