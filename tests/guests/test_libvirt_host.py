"""The way to libvirt: limits, hangs, cuts, and what may not be done."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from guests.hearing import Heard
from helpers import PATIENCE_S, wait_until
from lastcall.errors import MissingExtra, NotPermitted
from lastcall.targets.guest.libvirt import library
from lastcall.targets.guest.libvirt.host import Host, Lane
from lastcall.targets.guest.libvirt.machine import open_libvirt, running
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.words import Button, Kind, Power

if TYPE_CHECKING:
    from guests.libvirtd import Guest, Libvirtd

TEST_URI = "test:///default"


def test_a_stop_goes_on_while_libvirtd_is_restarted(daemon: Libvirtd) -> None:
    """The cut and the return are told, and after it the guest is pressed and its end is heard."""

    async def run(guest: Guest) -> None:
        machine = await open_libvirt(guest.name, daemon.uri, allow_monitor=False)
        try:
            heard = Heard(machine)
            await asyncio.to_thread(daemon.stop)
            await heard.wait(Kind.CUT)
            with pytest.raises(Trouble) as caught:
                await machine.press()
            assert caught.value.fault is Fault.CUT
            await asyncio.to_thread(daemon.start)
            await heard.wait(Kind.BACK)
            assert await machine.power() is Power.RUNNING
            await machine.press()
            gone = await heard.wait(Kind.GONE)
            assert heard.kinds[:4] == [Kind.CUT, Kind.BACK, Kind.POWERDOWN, Kind.SHUTDOWN]
            assert gone.status in {0, None}
        finally:
            machine.close()

    with daemon.guest("stops") as guest:
        guest.wait_up()
        asyncio.run(run(guest))


def test_a_guest_that_powers_off_while_libvirtd_is_away(daemon: Libvirtd) -> None:
    """QEMU stays until libvirtd is back and ends it; its end is told with what can be known."""

    async def run(guest: Guest) -> None:
        machine = await open_libvirt(guest.name, daemon.uri, allow_monitor=False)
        try:
            heard = Heard(machine)
            await machine.press()
            await heard.wait(Kind.POWERDOWN)
            await asyncio.to_thread(daemon.stop, signal.SIGKILL)
            await heard.wait(Kind.CUT)
            await asyncio.to_thread(guest.wait_said, "off")
            await asyncio.to_thread(daemon.start)
            await heard.wait(Kind.GONE)
            assert heard.kinds[:2] == [Kind.POWERDOWN, Kind.CUT]
            assert await machine.power() is Power.GONE
            assert heard.kinds.count(Kind.GONE) == 1
        finally:
            machine.close()

    with daemon.guest("slow", delay_s=2) as guest:
        guest.wait_up()
        asyncio.run(run(guest))


@pytest.mark.parametrize("keep", [True, False])
def test_a_guest_that_is_killed_while_libvirtd_is_away(daemon: Libvirtd, *, keep: bool) -> None:
    """QEMU's pidfd tells it at once, without libvirt."""

    async def run(guest: Guest) -> None:
        machine = await open_libvirt(guest.name, daemon.uri, allow_monitor=False)
        try:
            heard = Heard(machine)
            pid = guest.pid
            await asyncio.to_thread(daemon.stop)
            await heard.wait(Kind.CUT)
            os.kill(pid, signal.SIGKILL)
            gone = await heard.wait(Kind.GONE)
            assert gone.status in {signal.SIGKILL, None}
        finally:
            machine.close()
            await asyncio.to_thread(daemon.start)

    with daemon.guest("deaf", keep=keep) as guest:
        guest.wait_up()
        asyncio.run(run(guest))


@pytest.mark.parametrize("keep", [True, False])
def test_an_end_that_only_libvirt_can_tell(
    daemon: Libvirtd, monkeypatch: pytest.MonkeyPatch, *, keep: bool
) -> None:
    """Where QEMU's process cannot be seen, libvirt is asked once it is back."""
    monkeypatch.setattr("lastcall.targets.guest.libvirt.process.of_domain", lambda _uri, _xml: None)

    async def run(guest: Guest) -> None:
        machine = await open_libvirt(guest.name, daemon.uri, allow_monitor=False)
        try:
            assert machine.identity.facts["pid"] is None
            heard = Heard(machine)
            pid = guest.pid
            await asyncio.to_thread(daemon.stop)
            await heard.wait(Kind.CUT)
            os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(daemon.start)
            gone = await heard.wait(Kind.GONE)
            assert gone.status is None
            assert gone.detail
            assert await machine.power() is Power.GONE
        finally:
            machine.close()

    with daemon.guest("deaf", keep=keep) as guest:
        guest.wait_up()
        asyncio.run(run(guest))


def test_a_libvirtd_that_hangs(daemon: Libvirtd) -> None:
    """Every call ends within its limit; what is asked meanwhile fails at once.

    A press that did not come to libvirt was not sent: CUT, and it is not made later either.
    """

    async def run(guest: Guest) -> None:
        machine = await open_libvirt(guest.name, daemon.uri, allow_monitor=False)
        try:
            with daemon.paused():
                start_s = time.monotonic()
                calls = {machine.power: Fault.HUNG, machine.press: Fault.CUT}
                for call in (machine.power, machine.press, machine.power):
                    with pytest.raises(Trouble) as caught:
                        await call()
                    assert caught.value.fault is calls[call]
                # Two lanes at 5 s each; the last call is refused without waiting.
                assert time.monotonic() - start_s < 14.0
                with pytest.raises(Trouble) as caught:
                    await running(f"{daemon.uri}&mode=direct")
                assert caught.value.fault is Fault.HUNG
            await asyncio.to_thread(
                wait_until, lambda: not machine._host.hung, "the hung calls to come back"
            )
            assert await machine.power() is Power.RUNNING
        finally:
            machine.close()

    with daemon.guest("deaf") as guest:
        guest.wait_up()
        asyncio.run(run(guest))


def test_a_hung_guest_delays_no_other(daemon: Libvirtd) -> None:
    """A QEMU that does not answer holds up its own calls alone, and can still be killed."""

    async def run(dead: Guest, other: Guest) -> None:
        hung = await open_libvirt(dead.name, daemon.uri, allow_monitor=False)
        well = await open_libvirt(other.name, daemon.uri, allow_monitor=False)
        try:
            heard = Heard(well)
            pid = dead.pid
            os.kill(pid, signal.SIGSTOP)
            try:
                held = [
                    asyncio.create_task(call())
                    for call in (hung.press, hung.screen, hung.activity)
                    for _ in range(6)
                ]
                await asyncio.sleep(0)
                start_s = time.monotonic()
                await well.screen()
                await well.activity()
                assert await hung.power() is Power.RUNNING  # libvirt's own view
                await well.press()
                await heard.wait(Kind.GONE)
                assert time.monotonic() - start_s < 4.0
                results = await asyncio.gather(*held, return_exceptions=True)
                faults = [each.fault for each in results if isinstance(each, Trouble)]
                assert faults.count(Fault.HUNG) >= 12
                with pytest.raises(Trouble) as caught:
                    await hung.press()
                assert "an earlier call" in caught.value.what
            finally:
                os.kill(pid, signal.SIGCONT)
            end = Heard(hung)
            await hung.kill()
            await end.wait(Kind.GONE)
        finally:
            hung.close()
            well.close()

    with daemon.guest("deaf") as dead, daemon.guest("stops") as other:
        dead.wait_up()
        other.wait_up()
        asyncio.run(run(dead, other))


def test_more_hung_calls_than_there_is_room_for() -> None:
    """When all places of a lane hang, a further call says so, and other lanes go on."""

    async def run() -> None:
        free = threading.Event()
        host = await Host.shared(TEST_URI)
        try:
            calls = [
                asyncio.create_task(
                    host.call(
                        lambda _: free.wait(PATIENCE_S), "waiting", Lane.ACT, str(n), limit_s=0.2
                    )
                )
                for n in range(8)
            ]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(each) for each in results] == [Trouble] * 8
            assert len(host.hung) == 8
            with pytest.raises(Trouble) as caught:
                await host.call(lambda _: 1, "pressing", Lane.ACT, "another", limit_s=0.2)
            assert caught.value.fault is Fault.HUNG
            assert "8 earlier calls" in caught.value.what
            assert await host.call(lambda _: 1, "looking") == 1
            free.set()
            await asyncio.to_thread(wait_until, lambda: not host.hung, "the places to be free")
            assert await host.call(lambda _: 2, "pressing", Lane.ACT, "another") == 2
        finally:
            free.set()
            host.release()

    asyncio.run(run())


def test_libvirts_own_test_driver() -> None:
    """A guest that is no QEMU: what it cannot do is said, and what libvirt knows is told."""

    async def run() -> None:
        assert await running(TEST_URI) == ("test",)
        machine = await open_libvirt("test", TEST_URI, allow_monitor=True)
        try:
            heard = Heard(machine)
            assert machine.identity.facts["pid"] is None
            assert (await machine.setup()).button is Button.UNKNOWN
            for call in (machine.press, machine.pm1):
                with pytest.raises(Trouble) as caught:
                    await call()
                assert caught.value.fault is Fault.UNSUPPORTED
            host = machine._host
            assert not host.monitor_events
            await host.call(lambda c: c.lookupByName("test").suspend(), "pausing")
            await heard.wait(Kind.STOP)
            await machine.resume()
            await heard.wait(Kind.RESUME)
            await machine.kill()
            gone = await heard.wait(Kind.GONE)
            assert gone.reason == "destroyed"
            await host.call(lambda c: c.lookupByName("test").create(), "starting")
        finally:
            machine.close()

    asyncio.run(run())


def test_whoever_may_only_look(daemon: Libvirtd) -> None:
    """Over the socket for looking the guest is seen, and nothing can be done to it."""

    async def run(guest: Guest) -> None:
        machine = await open_libvirt(guest.name, daemon.look_uri, allow_monitor=True)
        try:
            heard = Heard(machine)
            assert (await machine.setup()).button is Button.PM1
            assert await machine.power() is Power.RUNNING
            assert (await machine.activity()).read_bytes is not None
            for call in (machine.press, machine.end, machine.kill, machine.pm1, machine.screen):
                with pytest.raises(Trouble) as caught:
                    await call()
                assert caught.value.fault is Fault.DENIED
            await asyncio.to_thread(daemon.virsh, "shutdown", guest.name, "--mode", "acpi")
            shutdown = await heard.wait(Kind.SHUTDOWN)
            assert shutdown.guest is True
            await heard.wait(Kind.GONE)
        finally:
            machine.close()

    with daemon.guest("stops") as guest:
        guest.wait_up()
        asyncio.run(run(guest))


_AS_NOBODY = """
import asyncio, os, sys
from lastcall.errors import NotPermitted
from lastcall.targets.guest.libvirt.machine import running
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    asyncio.run(running(sys.argv[1]))
except NotPermitted as error:
    print("denied:", error.advice)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_whoever_may_not_connect(daemon: Libvirtd) -> None:
    """The daemon's socket belongs to another user: that is said, with what to do."""
    ran = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY, daemon.uri], capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith("denied:")
    assert ran.stderr == ""


@pytest.mark.parametrize(
    "uri", ["qemu+unix:///system?socket=/nowhere/sock", "qemu+tcp://127.0.0.1:9/system", "no:///x"]
)
def test_nobody_is_there(uri: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A libvirt that cannot be reached is said to be so, and libvirt prints nothing itself."""
    with pytest.raises(Trouble) as caught:
        asyncio.run(running(uri))
    assert caught.value.fault is Fault.BROKEN
    assert uri in caught.value.what
    assert not isinstance(caught.value, NotPermitted)
    assert capfd.readouterr() == ("", "")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without libvirt-python the extra to install is named."""
    monkeypatch.setattr(library, "_loaded", [])
    monkeypatch.setitem(sys.modules, "libvirt", None)
    with pytest.raises(MissingExtra) as caught:
        asyncio.run(running(None))
    assert "lastcall[libvirt]" in caught.value.advice


def test_guests_share_their_hosts_connections(daemon: Libvirtd) -> None:
    """All guests of one host use the same few connections, which go with the last of them."""

    async def run(guest: Guest) -> None:
        machines = [
            await open_libvirt(guest.name, daemon.uri, allow_monitor=False) for _ in range(20)
        ]
        try:
            await asyncio.gather(*(each.activity() for each in machines))
            assert len({id(each._host) for each in machines}) == 1
            assert clients() <= before + 14
        finally:
            for each in machines:
                each.close()
        await asyncio.to_thread(wait_until, lambda: clients() <= before, "the connections to close")

    def clients() -> int:
        return len(os.listdir(f"/proc/{daemon.pid}/fd"))

    with daemon.guest("deaf") as guest:
        guest.wait_up()
        asyncio.run(asyncio.sleep(0))
        before = clients()
        asyncio.run(run(guest))


_AND_LEAVE = """
import asyncio, sys
from lastcall.targets.guest.libvirt.machine import open_libvirt
async def main():
    machine = await open_libvirt(sys.argv[1], sys.argv[2], allow_monitor=False)
    await machine.power()
    if sys.argv[3] == "close":
        machine.close()
asyncio.run(main())
print("left")
"""


@pytest.mark.parametrize("how", ["close", "forget"])
def test_a_program_ends_in_order(daemon: Libvirtd, how: str) -> None:
    """Libvirt's threads hold up no exit, and complain of nothing, closed or not."""
    with daemon.guest("deaf") as guest:
        ran = subprocess.run(
            [sys.executable, "-c", _AND_LEAVE, guest.name, daemon.uri, how],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "left\n", "")
