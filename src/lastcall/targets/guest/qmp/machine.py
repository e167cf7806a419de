"""One guest, known by its QEMU's monitor: what the guest target sees and does."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
from typing import TYPE_CHECKING

from lastcall.clock import now_s
from lastcall.errors import NotRunning
from lastcall.kernel import procfs
from lastcall.kernel.identity import Handle, ProcessIdentity
from lastcall.kernel.run import printable
from lastcall.model import Identity
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.qmp import agent, build, reach, reading, screenshot
from lastcall.targets.guest.qmp.link import Link
from lastcall.targets.guest.words import Activity, AgentSight, Button, Pm1, Power, Setup

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable

    from lastcall.targets.guest.qmp.session import Session
    from lastcall.targets.guest.words import Happening

HMP_S = 3.0
_NO_AGENT = "nothing in it holds the agent's port open"


class QmpMachine:
    """A guest through QMP. Made by `open_qmp` and `reopen_qmp`.

    Args:
        place: where its monitor listens.
        handle: QEMU's process; None: not known. It belongs to this from now on.
        unknown: why it is not known, in words.
    """

    def __init__(self, place: reach.Place, handle: Handle | None, unknown: str) -> None:
        self._handle = handle
        self._unknown = unknown
        self._link = Link(place, handle, self._proves, self._is_agent)
        self._uuid = ""
        self._threads: tuple[int, ...] = ()
        self._name = build.name_given(build.command_line(handle))
        self._version = (0, 0)
        self._proved = False
        self._find_buttons = build.Once(lambda: build.find_button(self._link.call))
        self._find_agent = build.Once(lambda: build.find_agent(self._link.call))
        self._base_known: int | None = None
        self._given_up = agent.GivenUp()
        self._screens = asyncio.Lock()
        self._talks = asyncio.Lock()
        self._talked = False

    # Which guest it is.

    @property
    def identity(self) -> Identity:
        """Its QEMU's process for all time; without that, its address, UUID and threads."""
        place = self._link.place
        facts: dict[str, str | int | None] = {
            "kind": "qmp",
            "path": place.path,
            "host": place.host,
            "port": place.port,
            "uuid": self._uuid,
            "name": self._name,
            "threads": ",".join(str(each) for each in self._threads),
        }
        if self._handle is None:
            return Identity(f"guest:{place}/{self._uuid or '-'}/{facts['threads'] or '-'}", facts)
        process = self._handle.identity.as_model()
        return Identity(f"guest:{process.key}", {**facts, **process.facts})

    @property
    def label(self) -> str:
        """Such as `vm1 (QEMU 7.2, pid 4242)`."""
        place = self._link.place
        name = self._name or os.path.basename(place.path) or str(place)
        qemu = "QEMU" if self._version == (0, 0) else f"QEMU {'.'.join(map(str, self._version))}"
        if self._handle is not None:
            return f"{printable(name, 80)} ({qemu}, pid {self._handle.identity.pid})"
        at = f" at {place}" if self._name else ""
        return f"{printable(name, 80)} ({qemu}{at}: {self._unknown})"

    @property
    def trouble(self) -> Trouble | None:
        """Why the monitor cannot be used now; None: it can, as far as is known."""
        return self._link.trouble

    async def _proves(self, session: Session) -> bool:
        """Whether the guest that answers there is this one. The first time it becomes this one."""
        uuid = reading.uuid(await session.execute("query-uuid"))
        threads: tuple[int, ...] = ()
        if self._handle is None:
            threads = reading.threads(await session.execute("query-cpus-fast"))
        if self._proved:
            # Processors may be added and taken away; the first ones stay.
            return uuid == self._uuid and (not self._threads or threads[:1] == self._threads[:1])
        self._name = reading.name(await session.execute("query-name")) or self._name
        self._uuid, self._threads, self._version = uuid, threads, session.version
        self._proved = True
        return True

    def recall(self, facts: dict[str, str | int | None]) -> None:
        """It is the guest of these facts, and no other: what answers must prove it."""
        words = str(facts.get("threads") or "")
        self._uuid = str(facts.get("uuid") or "")
        self._name = str(facts.get("name") or "") or self._name
        self._threads = tuple(int(each) for each in words.split(",") if each.isdecimal())
        # Without a process these alone tell it from another; with one they may not be known yet.
        self._proved = self._handle is None

    async def connect(self, sock: socket.socket | None = None) -> None:
        """Get in touch, or remember why not where the identity is known without it.

        Raises:
            Trouble: it is gone, or nobody can say which guest it is.
        """
        try:
            if sock is not None:
                session = await self._link.first(sock)
            else:
                session = await self._link.mend()
            self._version = session.version
        except Trouble as trouble:
            if self._handle is None or trouble.fault is Fault.GONE:
                raise

    def listen(self, heard: Callable[[Happening], None]) -> None:
        """From now on tell what happens to it."""
        self._link.listen(heard)

    def rest(self) -> None:
        """Leave its monitor to another, until the next call."""
        self._link.rest()

    def close(self) -> None:
        """Let go of it; the guest is left alone."""
        self._given_up.close()
        self._link.close()

    # What it is and does.

    async def setup(self) -> Setup:
        """How it is built."""
        try:
            buttons = await self._find_buttons()
            port = await self._find_agent()
            return await build.learn(self._link.call, self._handle, buttons, port, self._uuid)
        except Trouble as trouble:
            if trouble.fault is Fault.GONE or self._handle is None:
                raise
            return build.learn_locally(self._handle)

    async def _is_agent(self, port: str) -> bool:
        """Whether the port of that name (the device's id) is the agent's."""
        return await build.is_agent(self._link.call, f"/machine/peripheral/{port}")

    async def power(self) -> Power:
        """What it does now."""
        if self._link.over:
            return Power.GONE
        return await self._link.power()

    async def pm1(self) -> Pm1:
        """The registers of its power button, in one round trip."""
        buttons = await self._find_buttons()
        if buttons.button is not Button.PM1:
            raise Trouble(
                Fault.UNSUPPORTED,
                "this machine has no register that shows its power button",
                evidence=(f"its button is {buttons.button}",),
            )
        base = buttons.base if self._base_known is None else self._base_known
        if not base:  # it may have been mapped meanwhile
            base = await self._base(buttons)
        for _ in range(2):
            if not base:
                raise Trouble(
                    Fault.UNSUPPORTED,
                    "the registers of the power button are mapped nowhere",
                    "the firmware maps them at start; on q35 they are lost when it wakes (S3)",
                    ("pm_io_base=0",),
                )
            now, events, control = await asyncio.gather(
                self._base(buttons),
                self._port(f"/wx 0x{base:x}"),
                self._port(f"/hx 0x{base + 4:x}"),
            )
            self._base_known = now
            if now == base:
                return reading.pm1(events, control, base)
            base = now
        raise Trouble(Fault.BROKEN, "the registers of the power button do not stay in place")

    async def _base(self, buttons: build.Buttons) -> int:
        where = {"path": buttons.pm, "property": "pm_io_base"}
        return reading.number(await self._link.call("qom-get", where))

    async def _port(self, what: str) -> object:
        line = {"command-line": f"i {what}"}
        return await self._link.call("human-monitor-command", line, HMP_S)

    async def activity(self) -> Activity:
        """How much it has done so far."""
        stats, cpus = await asyncio.gather(
            self._link.call("query-blockstats"), self._link.call("query-cpus-fast")
        )
        written, writes, read = reading.block_totals(stats)
        return Activity(now_s(), written, writes, read, self._spent_s(reading.threads(cpus)))

    def _spent_s(self, threads: tuple[int, ...]) -> float | None:
        """The time of QEMU's processor threads; None: they are not to be seen from here."""
        if self._handle is None or not threads:
            return None
        task = f"/proc/{self._handle.identity.pid}/task"
        try:
            lines = [procfs.read_bytes(f"{task}/{each}/stat", at_once=True) for each in threads]
        except OSError:
            return None
        return sum(reading.spent_ticks(line) for line in lines) / procfs.TICKS_PER_S

    async def screen(self) -> bytes:
        """A picture of its screen."""
        if not self._link.place.path:
            raise Trouble(
                Fault.UNSUPPORTED,
                "over TCP no picture of the screen can be had",
                "reach QEMU through a Unix socket: -qmp unix:PATH,server=on,wait=off",
            )
        async with self._screens:
            return await screenshot.take(await self._link.mend())

    async def agent(self) -> AgentSight:
        """What the guest agent is and says."""
        async with self._alone() as free:
            path, opened, why = await self._agent_socket()
            if not free and opened is not False:
                return AgentSight(connected=opened, answers=False, detail=agent.STILL_SILENT)
            if free and not path:
                return AgentSight(connected=opened, detail=why)
            if opened is False:
                return AgentSight(connected=False, detail=_NO_AGENT)
            self._talked = True
            seen = await agent.sight(path, given_up=self._given_up)
            return dataclasses.replace(seen, connected=opened or bool(seen.answers))

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[bool]:
        """Keep our other talks with the agent away; whether none goes on, which is waited for."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(agent.TALK_S):
                    await stack.enter_async_context(self._talks)
            except TimeoutError:
                free = False
            else:
                free = await self._given_up.over(agent.SYNC_S)
            yield free

    async def _agent_socket(self) -> tuple[str, bool | None, str]:
        port = await self._find_agent()
        return await build.agent_socket(self._link.call, self._handle, port, talked=self._talked)

    # What is done to it.

    async def press(self) -> None:
        """Press its power button, once."""
        await self._link.act("system_powerdown")

    async def wake(self) -> None:
        """Wake it from sleep."""
        await self._link.act("system_wakeup")

    async def resume(self) -> None:
        """Let it go on after a pause."""
        await self._link.act("cont")

    async def ask_agent(self) -> None:
        """Ask the guest agent to shut the system down."""
        async with self._alone() as free:
            if not free:
                raise Trouble(Fault.HUNG, agent.STILL_SILENT)
            path, opened, why = await self._agent_socket()
            if not path:
                advice = "where libvirt runs the guest, stop it as libvirt:NAME"
                raise Trouble(Fault.UNSUPPORTED, f"the guest agent cannot be asked: {why}", advice)
            if opened is False:
                raise Trouble(Fault.REFUSED, f"the guest agent cannot be asked: {_NO_AGENT}")
            self._talked = True
            await agent.shutdown(path, given_up=self._given_up, left=self._link.agent_left)

    async def end(self) -> None:
        """End QEMU in order: by its monitor, else by SIGTERM."""
        try:
            await self._link.call("quit")
        except Trouble as trouble:
            if self._link.over:
                return
            if self._handle is None or trouble.fault is Fault.GONE:
                raise
            self._signal(signal.SIGTERM)

    async def kill(self) -> None:
        """Take QEMU away (SIGKILL)."""
        self._signal(signal.SIGKILL)

    def _signal(self, signum: signal.Signals) -> None:
        handle = self._handle
        if handle is None:
            raise Trouble(
                Fault.UNSUPPORTED,
                f"its QEMU cannot be sent {signum.name}: {self._unknown}",
                "ask on the machine where it runs",
            )
        if self._link.over:
            raise Trouble(Fault.GONE, "its QEMU has ended")
        try:
            handle.send(signum)
        except ProcessLookupError as error:
            raise Trouble(Fault.GONE, "its QEMU has ended") from error
        except PermissionError as error:
            raise Trouble(
                Fault.DENIED,
                f"this user may not send {signum.name} to QEMU (pid {handle.identity.pid})",
                "ask as its owner, or as root",
            ) from error


async def open_qmp(name: str) -> QmpMachine:
    """Find the guest whose QEMU listens at an address, and fix its identity.

    Args:
        name: `PATH` of a Unix socket, or `HOST:PORT`.

    Raises:
        LastcallError: nothing listens there, this user may not, or what answers is no QEMU.
    """
    place = reach.place_of(name)
    sock = await reach.connect(place)
    try:
        handle, unknown = reach.listener(sock)
    except BaseException:
        sock.close()
        raise
    return await _connected(QmpMachine(place, handle, unknown), sock)


async def reopen_qmp(facts: dict[str, str | int | None]) -> QmpMachine:
    """Find the very same guest again, from the facts of its identity.

    Raises:
        NotRunning: it is gone; what answers there now is another.
        LastcallError: it cannot be reached.
    """
    place = reach.Place(
        path=str(facts.get("path") or ""),
        host=str(facts.get("host") or ""),
        port=int(facts.get("port") or 0),
    )
    handle = Handle.reopen(ProcessIdentity.from_facts(facts)) if "pid" in facts else None
    unknown = "its process is not known"
    machine = QmpMachine(place, handle, unknown)
    machine.recall(facts)
    return await _connected(machine)


async def _connected(machine: QmpMachine, sock: socket.socket | None = None) -> QmpMachine:
    """The machine, in touch with its guest; closed again when that comes to nothing.

    Raises:
        NotRunning: the guest is gone.
        Trouble: nobody can say which guest it is.
    """
    try:
        await machine.connect(sock)
    except Trouble as trouble:
        machine.close()
        if trouble.fault is Fault.GONE:
            raise NotRunning(trouble.what) from trouble
        raise
    except BaseException:
        machine.close()
        raise
    return machine
