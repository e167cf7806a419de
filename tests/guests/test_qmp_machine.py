"""A guest through QEMU's monitor: on real QEMU, and on stand-ins for what real ones do seldom."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from guests import peers, zoo
from lastcall.clock import now_s
from lastcall.errors import BadAddress, NotRunning
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.qmp import reach, screenshot
from lastcall.targets.guest.qmp.machine import QmpMachine, open_qmp, reopen_qmp
from lastcall.targets.guest.words import Button, Happening, Kind, Power

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from pathlib import Path

PATIENCE_S = 30.0
UUID = "11111111-2222-3333-4444-555555555555"
AGENT = (
    *("-device", "virtio-serial", "-device"),
    "virtserialport,chardev=ga0,name=org.qemu.guest_agent.0,id=agent",
)


async def _until(fact: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not fact():
        assert time.monotonic() < end_s, f"waited in vain for: {what}"
        await asyncio.sleep(0.005)


class Watched:
    """A machine with what it told."""

    def __init__(self, machine: QmpMachine) -> None:
        self.machine = machine
        self.told: list[Happening] = []
        machine.listen(self.told.append)

    @property
    def kinds(self) -> list[Kind]:
        """What it told, in order."""
        return [each.kind for each in self.told]

    async def wait(self, kind: Kind) -> Happening:
        """Wait until it told that."""
        await _until(lambda: kind in self.kinds, f"{kind!r} among {self.kinds}")
        return next(each for each in self.told if each.kind is kind)


@contextlib.asynccontextmanager
async def _watched(name: str) -> AsyncIterator[Watched]:
    machine = await open_qmp(name)
    try:
        yield Watched(machine)
    finally:
        machine.close()
        await asyncio.sleep(0)


def _run(work: Coroutine[Any, Any, None]) -> None:
    before = set(os.listdir("/proc/self/fd"))
    asyncio.run(work)
    assert len(os.listdir("/proc/self/fd")) <= len(before), "a descriptor was left open"


@pytest.mark.parametrize("kind", ["pc", "q35"])
def test_a_guest_that_stops(kind: str) -> None:
    """Everything about a real guest, its press, and its end with QEMU's own exit status."""

    async def main(guest: zoo.Guest) -> None:
        async with _watched(str(guest.qmp)) as seen:
            machine = seen.machine
            assert machine.label == f"vm1 (QEMU 7.2, pid {guest.pid})"
            assert machine.identity.facts["uuid"] == UUID
            setup = await machine.setup()
            assert setup.machine.startswith("pc-")
            assert (setup.button, setup.wakes, setup.uuid) == (Button.PM1, True, UUID)
            assert (setup.stays_when_off, setup.agent, setup.accelerator) == (False, False, "tcg")
            assert setup.started_s is not None
            assert 0 <= now_s() - setup.started_s < 600
            assert await machine.power() is Power.RUNNING
            registers = await machine.pm1()
            assert (registers.hears, registers.pending, registers.acpi_on) == (True, False, True)
            activity = await machine.activity()
            assert activity.written_bytes == 0
            assert activity.read_bytes
            assert activity.cpu_s
            assert (await machine.screen()).startswith(b"\x89PNG\r\n")
            assert await machine.power() is Power.RUNNING
            await machine.press()
            end = await seen.wait(Kind.GONE)
            assert end.status == 0
            assert seen.kinds == [Kind.POWERDOWN, Kind.SHUTDOWN, Kind.GONE]
            assert (seen.told[1].guest, seen.told[1].reason) == (True, "guest-shutdown")
            assert await machine.power() is Power.GONE
            for call in (machine.press, machine.kill, machine.pm1):
                with pytest.raises(Trouble) as raised:
                    await call()
                assert raised.value.fault is Fault.GONE
            with pytest.raises(NotRunning):
                await reopen_qmp(machine.identity.facts)

    with zoo.start("stops", kind, ("-name", "vm1", "-uuid", UUID)) as guest:
        guest.wait_up()
        _run(main(guest))


def test_a_guest_that_does_not_listen() -> None:
    """Its registers say so before the press, and the press changes nothing."""

    async def main(guest: zoo.Guest) -> None:
        async with _watched(str(guest.qmp)) as seen:
            assert not (await seen.machine.pm1()).hears
            await seen.machine.press()
            await seen.wait(Kind.POWERDOWN)
            assert not (await seen.machine.pm1()).pending
            await seen.machine.end()
            assert (await seen.wait(Kind.GONE)).status == 0
            assert (await seen.wait(Kind.SHUTDOWN)).reason == "host-qmp-quit"

    with zoo.start("deaf") as guest:
        guest.wait_up()
        _run(main(guest))


def test_sleep_wake_pause_and_resume() -> None:
    """Falling asleep, waking, a pause and its end are told, and can be brought about."""

    async def main(guest: zoo.Guest) -> None:
        async with _watched(str(guest.qmp)) as seen:
            await _until(lambda: "asleep" in guest.milestones(), "sleep")
            assert await seen.machine.power() is Power.SUSPENDED
            await seen.machine.wake()
            await seen.wait(Kind.WAKEUP)
            guest.side.command("stop")
            await seen.wait(Kind.STOP)
            assert await seen.machine.power() is Power.PAUSED
            await seen.machine.resume()
            await seen.wait(Kind.RESUME)
            await seen.machine.kill()
            end = await seen.wait(Kind.GONE)
            assert end.status == signal.SIGKILL
            assert "SIGKILL" in end.detail

    with zoo.start("sleeps") as guest:
        _run(main(guest))


def test_a_taken_monitor() -> None:
    """Its identity is known without a word; it can be ended by signals, and used once free."""

    async def main(guest: zoo.Guest) -> None:
        other = socket.socket(socket.AF_UNIX)
        try:
            other.connect(str(guest.qmp))
            other.recv(1000)
            machine = await open_qmp(str(guest.qmp))
            seen = Watched(machine)
            try:
                assert machine.trouble is not None
                assert machine.trouble.fault is Fault.HUNG
                assert machine.label == f"vm1 (QEMU, pid {guest.pid})"
                assert (await machine.setup()).stays_when_off is False
                with pytest.raises(Trouble, match="did not greet"):
                    await machine.press()
                await seen.wait(Kind.CUT)
                other.close()
                await seen.wait(Kind.BACK)
                assert (await machine.pm1()).hears
                assert machine.identity.facts["pid"] == guest.pid
            finally:
                machine.close()
        finally:
            other.close()

    with zoo.start("stops", extra=("-name", "vm1")) as guest:
        guest.wait_up()
        _run(main(guest))


def test_ending_without_the_monitor() -> None:
    """Where the monitor is taken, QEMU is ended by SIGTERM, which writes out its caches."""

    async def main(guest: zoo.Guest) -> None:
        other = socket.socket(socket.AF_UNIX)
        try:
            other.connect(str(guest.qmp))
            other.recv(1000)
            async with _watched(str(guest.qmp)) as seen:
                await seen.machine.end()
                assert (await seen.wait(Kind.GONE)).status == 0
        finally:
            other.close()
        said = guest.side.next_event("SHUTDOWN") if hasattr(guest.side, "next_event") else None
        assert said is None or said["data"]["reason"] == "host-signal"

    with zoo.start("deaf") as guest:
        guest.wait_up()
        _run(main(guest))


def test_the_very_same_guest_again() -> None:
    """From its facts the same guest is found, and no other at the same path."""
    facts = {}

    async def first(guest: zoo.Guest) -> None:
        machine = await open_qmp(str(guest.qmp))
        facts.update(machine.identity.facts)
        key = machine.identity.key
        machine.close()
        again = await reopen_qmp(facts)
        assert again.identity.key == key
        assert await again.power() is Power.RUNNING
        again.close()

    async def other(guest: zoo.Guest) -> None:
        with pytest.raises(NotRunning):
            await reopen_qmp({**facts, "path": str(guest.qmp)})

    with zoo.start("deaf") as guest:
        guest.wait_up()
        _run(first(guest))
    with zoo.start("deaf") as guest:
        _run(other(guest))


def test_over_tcp() -> None:
    """Over TCP the process is not known: it can be watched and quit, not killed or pictured."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def main() -> None:
        async with _watched(f"127.0.0.1:{port}") as seen:
            machine = seen.machine
            assert "pid" not in machine.identity.facts
            assert machine.label.startswith(f"vm1 (QEMU 7.2 at 127.0.0.1:{port}:")
            assert (await machine.pm1()).hears
            assert (await machine.setup()).stays_when_off is None
            assert await machine.power() is Power.RUNNING
            for call in (machine.kill, machine.screen):
                with pytest.raises(Trouble) as raised:
                    await call()
                assert raised.value.fault is Fault.UNSUPPORTED
            again = machine.identity
            machine.close()
        with pytest.raises(NotRunning):
            await reopen_qmp({**again.facts, "uuid": UUID})
        found = await reopen_qmp(again.facts)
        seen = Watched(found)
        assert found.identity == again
        await found.end()
        await seen.wait(Kind.GONE)
        assert seen.kinds[-2:] == [Kind.SHUTDOWN, Kind.GONE]
        found.close()

    extra = ("-qmp", f"tcp:127.0.0.1:{port},server=on,wait=off", "-name", "vm1")
    with zoo.start("stops", extra=extra) as guest:
        guest.wait_up()
        _run(main())


@pytest.mark.parametrize(
    ("machine", "button"), [("pc,acpi=off", Button.NONE), ("microvm,acpi=on", Button.GED)]
)
def test_machines_without_registers(machine: str, button: Button, tmp_path: Path) -> None:
    """Without ACPI there is no button; a generic event device is never read."""
    import subprocess

    path = tmp_path / "q"
    words = ["-accel", "tcg", "-M", machine, "-m", "16", "-nodefaults", "-display", "none"]
    process = subprocess.Popen(
        ["qemu-system-x86_64", *words, "-qmp", f"unix:{path},server=on,wait=off"]
    )

    async def main() -> None:
        await _until(path.exists, "the monitor's socket")
        async with _watched(str(path)) as seen:
            assert (await seen.machine.setup()).button is button
            for call in (seen.machine.pm1, seen.machine.screen):
                with pytest.raises(Trouble) as raised:
                    await call()
                assert raised.value.fault is Fault.UNSUPPORTED

    try:
        _run(main())
    finally:
        process.kill()
        process.wait()


def _disconnected(guest: zoo.Guest) -> bool:
    rows = guest.side.command("query-chardev")
    return any(row["filename"].startswith("disconnected:") for row in rows if row["label"] == "ga0")


def test_the_agents_port(tmp_path: Path) -> None:
    """The agent's port is found by its name; who holds it, and that nobody answers, is told."""
    path = tmp_path / "ga"

    async def main(guest: zoo.Guest) -> None:
        async with _watched(str(guest.qmp)) as seen:
            assert (await seen.machine.setup()).agent
            sight = await seen.machine.agent()
            assert (sight.connected, sight.answers) == (False, None)
            with pytest.raises(Trouble, match="nothing in it holds the agent's port open"):
                await seen.machine.ask_agent()
            holder = socket.socket(socket.AF_UNIX)
            holder.connect(str(path))
            try:  # QEMU takes the connection when its own loop comes to it
                await _until(lambda: not _disconnected(guest), "QEMU to take the connection")
                held = await seen.machine.agent()
                assert held.answers is None
                assert "another program" in held.detail
                with pytest.raises(Trouble, match="another program"):
                    await seen.machine.ask_agent()
            finally:
                holder.close()

    extra = ("-chardev", f"socket,path={path},server=on,wait=off,id=ga0", *AGENT)
    with zoo.start("deaf", extra=extra) as guest:
        guest.wait_up()
        _run(main(guest))


def test_many_screens_leave_nothing_in_qemu() -> None:
    """Pictures taken at once come out whole, and their files are taken back."""

    async def main(guest: zoo.Guest) -> None:
        async with _watched(str(guest.qmp)) as seen:
            taken = await asyncio.gather(*(seen.machine.screen() for _ in range(5)))
            assert all(each.endswith(b"IEND\xaeB\x60\x82") for each in taken)
            fds = f"/proc/{guest.pid}/fd"
            held = [os.readlink(f"{fds}/{each}") for each in os.listdir(fds)]
            assert not [each for each in held if "lastcall-screen" in each]

    with zoo.start("deaf") as guest:
        guest.wait_up()
        _run(main(guest))


def test_a_screen_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture beyond the limit is refused."""
    monkeypatch.setattr(screenshot, "SCREEN_LIMIT_BYTES", 100)

    async def main(guest: zoo.Guest) -> None:
        async with _watched(str(guest.qmp)) as seen:
            with pytest.raises(Trouble):
                await seen.machine.screen()

    with zoo.start("deaf") as guest:
        guest.wait_up()
        _run(main(guest))


@contextlib.contextmanager
def _room_for(files: int) -> Iterator[None]:
    """This program may open so many files more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    try:
        most = max(int(each) for each in os.listdir("/proc/self/fd")) + 2
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        for _ in range(files):
            os.close(held.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for each in held:
            os.close(each)


def test_too_many_files_open() -> None:
    """Where no file can be opened there is no picture, and a word why; the rest goes on."""

    async def main(guest: zoo.Guest) -> None:
        async with _watched(str(guest.qmp)) as seen:
            assert await seen.machine.screen()
            for files in (0, 1):
                with (
                    _room_for(files),
                    pytest.raises(Trouble, match="has too many files open") as raised,
                ):
                    await seen.machine.screen()
                assert raised.value.fault is Fault.BROKEN
            with _room_for(0):
                assert (await seen.machine.activity()).cpu_s is None
                assert (await seen.machine.setup()).stays_when_off is None
            assert await seen.machine.screen()

    with zoo.start("deaf") as guest:
        guest.wait_up()
        _run(main(guest))


@pytest.mark.parametrize("path", sorted(peers.TRANSCRIPTS.glob("*.jsonl")), ids=lambda p: p.stem)
def test_versions(path: Path, tmp_path: Path) -> None:
    """What QEMU 7 to 10 say is understood, by recorded and written transcripts."""
    transcript = peers.Transcript(path)

    async def main() -> None:
        async with (
            peers.listening(tmp_path / "q", transcript.serve) as at,
            _watched(at) as seen,
        ):
            version = ".".join(transcript.about["qemu"].split(".")[:2])
            assert seen.machine.label.startswith(f"vm1 (QEMU {version} at ")
            setup = await seen.machine.setup()
            assert version in setup.machine
            assert setup.agent
            assert await seen.machine.power() is Power.RUNNING
            assert (await seen.machine.activity()).written_bytes is not None
            if setup.button is Button.NONE:
                return
            assert (await seen.machine.pm1()).hears
            await seen.machine.press()
            await seen.wait(Kind.GONE)
            assert seen.kinds == [Kind.POWERDOWN, Kind.SHUTDOWN, Kind.GONE]

    _run(main())


def test_a_cut_connection_comes_back(tmp_path: Path) -> None:
    """Between a cut and the return nothing is lost that the state still shows."""
    turn = 0

    async def serve(reader: peers.Reader, writer: peers.Writer) -> None:
        nonlocal turn
        turn += 1
        if turn == 1:
            transcript = peers.Transcript(peers.TRANSCRIPTS / "qemu-7.2-pc.jsonl")
            transcript.after["query-status"] = {"closes": True}
            await transcript.serve(reader, writer)
        elif turn == 2:
            writer.close()
        else:
            transcript = peers.Transcript(peers.TRANSCRIPTS / "qemu-7.2-pc.jsonl")
            key = peers._key({"execute": "query-status"})
            transcript.answers[key] = {"return": {"status": "suspended", "running": False}}
            await transcript.serve(reader, writer)

    async def main() -> None:
        async with peers.listening(tmp_path / "q", serve) as at, _watched(at) as seen:
            assert await seen.machine.power() is Power.RUNNING
            await seen.wait(Kind.SUSPEND)
            assert seen.kinds == [Kind.CUT, Kind.BACK, Kind.SUSPEND]

    _run(main())


def test_the_agents_port_opens_and_closes(tmp_path: Path) -> None:
    """Only the agent's own port counts, whatever other ports do."""
    transcript = peers.Transcript(peers.TRANSCRIPTS / "qemu-7.2-pc.jsonl")
    change = {"event": "VSERPORT_CHANGE", "data": {"id": "agent", "open": True}}
    closed = {"event": "VSERPORT_CHANGE", "data": {"id": "agent", "open": False}}
    other = {"event": "VSERPORT_CHANGE", "data": {"id": "spice", "open": True}}
    transcript.after["query-status"] = {"events": [other, change]}
    transcript.after["system_wakeup"] = {"events": [other, closed]}

    async def main() -> None:
        async with peers.listening(tmp_path / "q", transcript.serve) as at, _watched(at) as seen:
            await seen.machine.power()
            await seen.wait(Kind.AGENT_OPEN)
            with contextlib.suppress(Trouble):
                await seen.machine.wake()
            await seen.wait(Kind.AGENT_CLOSED)
            assert seen.kinds == [Kind.AGENT_OPEN, Kind.AGENT_CLOSED]

    _run(main())


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("/run/a.sock", reach.Place(path="/run/a.sock")),
        ("/run/a:1", reach.Place(path="/run/a:1")),
        ("127.0.0.1:4444", reach.Place(host="127.0.0.1", port=4444)),
        ("[::1]:4444", reach.Place(host="::1", port=4444)),
    ],
)
def test_places(name: str, place: reach.Place) -> None:
    """A path and a host with its port are told apart."""
    assert reach.place_of(name) == place


@pytest.mark.parametrize("name", [":4444", "host:0", "host:70000", "host:99999999999999999999"])
def test_bad_places(name: str) -> None:
    """A port that cannot be is refused."""
    with pytest.raises(BadAddress):
        reach.place_of(name)


def test_nothing_there(tmp_path: Path) -> None:
    """No file, a file that is no socket, and a socket that nobody serves have their own words."""
    (tmp_path / "file").touch()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "dead"))
    dead.close()
    for name, kind in (("none", NotRunning), ("file", BadAddress), ("dead", NotRunning)):
        with pytest.raises(kind):
            asyncio.run(open_qmp(str(tmp_path / name)))


def test_a_long_path(tmp_path: Path) -> None:
    """A path longer than a socket's name may be is reached all the same."""
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    here = os.open(folder, os.O_PATH)
    try:

        async def main() -> None:
            handler = peers.replaying("qemu-7.2-pc")
            async with peers.listening(f"/proc/self/fd/{here}/q", handler):
                machine = await open_qmp(str(folder / "q"))
                assert await machine.power() is Power.RUNNING
                machine.close()
                await asyncio.sleep(0)

        asyncio.run(main())
    finally:
        os.close(here)
