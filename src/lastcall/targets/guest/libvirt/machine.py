"""A guest of libvirt as a `Machine`.

libvirt addresses a guest by its UUID, which a restarted one keeps. So every call looks it up anew
and compares libvirt's id of this run. Between that and the act the guest could still be replaced;
on this machine QEMU's pidfd tells so afterwards, on another one the race remains. Ids begin again
at 1 when libvirtd starts while no guest runs.

Source: libvirt 9.0, src/qemu/qemu_driver.c (qemuDomainShutdownFlags, qemuDomainDestroyFlags).
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from typing import TYPE_CHECKING, TypeVar

from lastcall.clock import boot_id
from lastcall.errors import NotPermitted, NotRunning
from lastcall.model import Identity
from lastcall.record import record
from lastcall.targets.guest.libvirt import calls, domain, process, telling
from lastcall.targets.guest.libvirt.finding import find, list_domains
from lastcall.targets.guest.libvirt.host import CALL_LIMIT_S, Host, Lane, NoRoomError
from lastcall.targets.guest.libvirt.watching import Watch
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.words import AgentSight, Power

if TYPE_CHECKING:
    from collections.abc import Callable

    from lastcall.kernel.identity import Handle
    from lastcall.targets.guest.libvirt.domain import DomainXml
    from lastcall.targets.guest.libvirt.library import Connection, LibvirtDomain
    from lastcall.targets.guest.libvirt.telling import Raw
    from lastcall.targets.guest.words import Activity, Happening, Pm1, Setup

T = TypeVar("T")

# libvirt asks QEMU to end (SIGTERM) and looks for 15 s (virProcessKillPainfullyDelay); a forced
# end adds SIGKILL after 10 s.
_END_LIMIT_S = 20.0
_SCREEN_LIMIT_S = 5.0
_NOT_SENT = "nothing was sent; does libvirtd answer (virsh list)?"
# A guest to which something happens while it is read is read again.
_LOOKS = 5
# libvirt itself gives the agent 5 s for its first word (qemu_agent.c): longer than a look may take.
_AGENT_LIMIT_S = 6.0
_SIGHT_LIMIT_S = 4.0


class _NoWordError(Trouble):
    """It was asked for, and libvirt has not come back."""


@record
class Elsewhere:
    """A guest on a machine that is not this one.

    Args:
        host: names that machine; the same after its restart.
        cpu_ns: the time that the guest's processors have run, which only grows in one run.
    """

    host: str
    cpu_ns: int


class LibvirtMachine:
    """One run of one guest of libvirt. Made by `opening`.

    Args:
        host: that it runs on; given back by `close`.
        xml: what libvirt says of it.
        identity: what makes it this run of it.
        handle: QEMU's process, where it may be seen; closed by `close`.
        allow_monitor: whether QEMU's monitor may be read, which taints the domain.
    """

    def __init__(
        self,
        host: Host,
        xml: DomainXml,
        identity: Identity,
        handle: Handle | None,
        *,
        allow_monitor: bool,
    ) -> None:
        self._host = host
        self._xml = xml
        self._uuid, self._number = xml.uuid, xml.number or 0
        self._identity = identity
        self._handle = handle
        self._allow_monitor = allow_monitor
        self._closed = False
        self._watch = Watch(host, xml, handle)

    @property
    def identity(self) -> Identity:
        """Its UUID, libvirt's id of this run, and QEMU's process where it may be seen."""
        return self._identity

    @property
    def label(self) -> str:
        """Its name, its title, and where it runs."""
        title = f" ({self._xml.title})" if self._xml.title else ""
        return f"{self._xml.name}{title} at {self._host.name}"

    def listen(self, heard: Callable[[Happening], None]) -> None:
        """From now on tell what happens to it; what happened since it was opened comes first."""
        self._watch.listen(heard)

    async def _call(
        self,
        function: Callable[[Connection, LibvirtDomain], T],
        what: str,
        lane: Lane = Lane.LOOK,
        limit_s: float = CALL_LIMIT_S,
    ) -> T:
        end_s = time.monotonic() + limit_s
        # Taken once: by the thread that begins, or by us who give it up before.
        claim = threading.Lock()

        def on_thread(connection: Connection) -> T:
            found = calls.the_same(connection, self._uuid, self._number)
            late = time.monotonic() > end_s and lane is not Lane.LOOK
            if late or not claim.acquire(blocking=False):
                # Nobody waits any more: what was wanted then may not be wanted now.
                raise TimeoutError(f"{what} came too late, and was not done")
            try:
                return function(connection, found)
            except Exception:
                # Ended under our hands: say so, not what libvirt makes of it.
                calls.the_same(connection, self._uuid, self._number)
                raise

        # Killing does not wait for an earlier, gentler end that hangs.
        owner = self._identity.key + (what if lane is Lane.FORCE else "")
        named = f"{what} {self._xml.name}"
        try:
            return await self._host.call(on_thread, named, lane, owner, limit_s)
        except Trouble as trouble:
            if trouble.fault not in {Fault.HUNG, Fault.BROKEN} or lane is Lane.LOOK:
                raise
            begun = not claim.acquire(blocking=False)
            if begun and trouble.fault is Fault.HUNG:
                raise _NoWordError(trouble.fault, trouble.what, trouble.advice) from trouble
            if begun or lane is not Lane.ACT:
                raise
            # It waited for others all the while, or found no connection.
            advice = _NOT_SENT if trouble.fault is Fault.HUNG else trouble.advice
            raise Trouble(Fault.CUT, trouble.what, advice, trouble.evidence) from trouble

    async def _read(self) -> DomainXml:
        return domain.parse(
            await self._call(lambda _, found: str(found.XMLDesc(0)), "reading the XML of")
        )

    async def setup(self) -> Setup:
        """How it is built, from its XML."""
        started_s = None
        if self._handle is not None:
            started_s = self._handle.identity.start_ticks / os.sysconf("SC_CLK_TCK")
        return domain.setup_of(await self._read(), started_s)

    async def power(self) -> Power:
        """What it does now."""
        if self._watch.over:
            return Power.GONE
        try:
            state, reason, number = await self._watch.state()
        except Trouble as trouble:
            if trouble.fault is Fault.GONE:
                return Power.GONE
            raise
        return telling.power_of(state, reason) if number == self._number else Power.GONE

    async def press(self) -> None:
        """Press its power button, once, by ACPI alone."""
        acpi = 1  # VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
        what = "pressing the power button of"
        await self._call(lambda _, found: found.shutdownFlags(acpi), what, Lane.ACT)

    async def wake(self) -> None:
        """Wake it from sleep (S3)."""
        await self._call(lambda _, found: found.pMWakeup(0), "waking", Lane.ACT)

    async def resume(self) -> None:
        """Let it go on after a pause."""
        await self._call(lambda _, found: found.resume(), "resuming", Lane.ACT)

    async def ask_agent(self) -> None:
        """Ask the guest agent to shut the system down.

        libvirt comes back only once the guest shuts down, or after 60 s
        (VIR_DOMAIN_QEMU_AGENT_COMMAND_SHUTDOWN): what was asked and has not come back was asked.
        """
        agent = 2  # VIR_DOMAIN_SHUTDOWN_GUEST_AGENT
        what = "asking the agent of"
        with contextlib.suppress(_NoWordError):
            await self._call(
                lambda _, found: found.shutdownFlags(agent), what, Lane.AGENT, _AGENT_LIMIT_S
            )

    async def end(self) -> None:
        """End QEMU by SIGTERM through libvirt, which looks for 15 s whether it goes."""
        graceful = 1  # VIR_DOMAIN_DESTROY_GRACEFUL
        await self._call(
            lambda _, found: found.destroyFlags(graceful), "ending", Lane.FORCE, _END_LIMIT_S
        )

    async def kill(self) -> None:
        """Take QEMU away through libvirt: SIGTERM, and SIGKILL after 10 s."""
        await self._call(lambda _, found: found.destroy(), "destroying", Lane.FORCE, _END_LIMIT_S)

    async def pm1(self) -> Pm1:
        """The registers of its power button, where reading QEMU's monitor is allowed."""
        if not self._allow_monitor:
            raise Trouble(
                Fault.NOT_ALLOWED,
                f"whether {self._xml.name} listens to its power button stands in QEMU's monitor, "
                "which is not read through libvirt without consent",
                "--allow monitor tells before the press whether the guest will hear it, and after "
                "it whether it did; it taints the domain (custom-monitor), which libvirt writes "
                "into the guest's log and shows as long as it runs",
            )
        return await self._call(calls.pm1, "reading the power button of", Lane.GUEST)

    async def activity(self) -> Activity:
        """How much it has done so far."""
        return await self._call(calls.activity, "asking for the statistics of", Lane.GUEST)

    async def screen(self) -> bytes:
        """A picture of its screen, as QEMU makes it."""
        what = "taking a picture of the screen of"
        return await self._call(calls.screen, what, Lane.GUEST, _SCREEN_LIMIT_S)

    async def agent(self) -> AgentSight:
        """What the guest agent is and says. An agent that does not answer is no trouble here."""
        xml = await self._read()
        if not xml.agent:
            return AgentSight(detail="the guest has no port for the agent")
        if xml.agent_connected is False:
            return AgentSight(connected=False, detail="nothing in the guest holds the agent's port")
        try:
            return await self._call(calls.agent, "asking the agent of", Lane.AGENT, _SIGHT_LIMIT_S)
        except NoRoomError as trouble:
            return AgentSight(xml.agent_connected, detail=trouble.what)
        except Trouble as trouble:
            if trouble.fault in {Fault.HUNG, Fault.REFUSED}:
                return AgentSight(xml.agent_connected, answers=False, detail=trouble.what)
            if trouble.fault in {Fault.UNSUPPORTED, Fault.DENIED}:
                return AgentSight(xml.agent_connected, detail=trouble.what)
            raise

    def rest(self) -> None:
        """Nothing to do: libvirt serves any number."""

    def close(self) -> None:
        """Let go of it; the guest is left alone. Harmless to repeat."""
        if self._closed:
            return
        self._closed = True
        self._watch.close()
        if self._handle is not None:
            self._handle.close()
        self._host.release()


async def open_libvirt(name: str, uri: str | None, *, allow_monitor: bool) -> LibvirtMachine:
    """Find a running guest of libvirt and fix its identity.

    Args:
        name: its name, its UUID, or libvirt's id of this run.
        uri: libvirt's connection URI; None: its own default.
        allow_monitor: whether QEMU's monitor may be read, which taints the domain.

    Raises:
        NotRunning: there is no such guest, or it does not run.
        Ambiguous: the word is one guest's name and another's id.
        NotPermitted: this user may not connect.
        Trouble: libvirt cannot be reached, or does not answer.
        MissingExtra: libvirt-python is not installed.
    """
    host = await _host(uri)
    try:
        listed = await host.call(list_domains, f"looking for {name}")
        return await _machine(host, find(name, listed).uuid, allow_monitor=allow_monitor)
    except BaseException as error:
        host.release()
        if isinstance(error, Trouble) and error.fault is Fault.GONE:
            raise NotRunning(f"{name} is gone") from error
        raise


async def reopen_libvirt(
    facts: dict[str, str | int | None], *, allow_monitor: bool
) -> LibvirtMachine:
    """Find the very same run of a guest again.

    Args:
        facts: of its identity, from the journal.
        allow_monitor: as of `open_libvirt`.

    Raises:
        NotRunning: it is gone, or runs anew.
        NotPermitted: this user may not connect.
        Trouble: libvirt cannot be reached, or does not answer.
        MissingExtra: libvirt-python is not installed.
    """
    name = facts["name"]
    host = await _host(str(facts["uri"]))
    try:
        machine = await _machine(host, str(facts["uuid"]), allow_monitor=allow_monitor)
    except BaseException as error:
        host.release()
        if isinstance(error, Trouble) and error.fault is Fault.GONE:
            raise NotRunning(f"{name} is gone") from error
        raise
    now = machine.identity.facts
    differs = [key for key in ("id", "boot_id") if now[key] != facts[key]]
    # After a restart of a host that is not this one, ids begin anew; its guests' time does, too.
    if int(now["cpu_ns"] or 0) < int(facts.get("cpu_ns") or 0):
        differs.append("cpu_ns")
    if facts["pid"] is not None and now["pid"] is not None:
        differs += [key for key in ("pid", "start_ticks", "inode") if now[key] != facts[key]]
    if differs:
        machine.close()
        raise NotRunning(f"{name} is gone; the guest that runs under its name now is a later one")
    return machine


async def running(uri: str | None) -> tuple[str, ...]:
    """The names of all guests that run on a host.

    Args:
        uri: libvirt's connection URI; None: its own default.

    Raises:
        NotPermitted: this user may not connect.
        Trouble: libvirt cannot be reached, or does not answer.
        MissingExtra: libvirt-python is not installed.
    """
    host = await _host(uri)
    try:
        listed = await host.call(list_domains, "asking for the guests that run")
    finally:
        host.release()
    return tuple(sorted(each.name for each in listed if each.number is not None))


async def _host(uri: str | None) -> Host:
    try:
        return await Host.shared(uri)
    except Trouble as trouble:
        if trouble.fault is Fault.DENIED:
            raise NotPermitted(trouble.what, trouble.advice, trouble.evidence) from trouble
        raise


async def _machine(host: Host, uuid: str, *, allow_monitor: bool) -> LibvirtMachine:
    """What runs under a UUID now. It is watched before it is read, so that nothing is missed."""

    def look(connection: Connection) -> tuple[str, int, int, Elsewhere | None]:
        found = connection.lookupByUUIDString(uuid)
        state, reason = found.state(0)
        if host.local:
            return str(found.XMLDesc(0)), state, reason, None
        place = Elsewhere(_host_uuid(connection), found.info()[4])
        return str(found.XMLDesc(0)), state, reason, place

    meanwhile: list[Raw] = []
    for _ in range(_LOOKS):
        unsubscribe = host.subscribe(uuid, meanwhile.append)
        try:
            text, state, reason, place = await host.call(look, "reading the XML of a guest")
        finally:
            unsubscribe()
        if not meanwhile:
            break
        meanwhile.clear()
    xml = domain.parse(text)
    if xml.number is None or telling.power_of(state, reason) is Power.GONE:
        how = telling.SHUTOFF.get(reason, ("", ""))[1]
        raise NotRunning(f"{xml.name} does not run" + (f": {how}" if how else ""))
    # Nothing is awaited between the last look and the watch: no event can come in between.
    handle = process.of_domain(host.name, xml) if host.local else None
    return LibvirtMachine(
        host, xml, _identity(host, xml, place, handle), handle, allow_monitor=allow_monitor
    )


def _host_uuid(connection: Connection) -> str:
    """What names a machine that is not this one."""
    found = re.search(r"<uuid>([0-9a-fA-F-]{36})</uuid>", str(connection.getCapabilities()))
    return found[1].lower() if found else str(connection.getHostname())


def _identity(
    host: Host, xml: DomainXml, elsewhere: Elsewhere | None, handle: Handle | None
) -> Identity:
    place = boot_id() if elsewhere is None else elsewhere.host
    own = None if handle is None else handle.identity
    return Identity(
        key=f"guest:{xml.uuid}/{xml.number}/{place}",
        facts={
            "kind": "libvirt",
            "uri": host.name,
            "uuid": xml.uuid,
            "id": xml.number,
            "name": xml.name,
            "pid": None if own is None else own.pid,
            "start_ticks": None if own is None else own.start_ticks,
            "boot_id": place,
            "inode": None if own is None else own.inode,
            "cpu_ns": None if elsewhere is None else elsewhere.cpu_ns,
        },
    )
