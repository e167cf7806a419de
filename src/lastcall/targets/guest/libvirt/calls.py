"""What is asked of libvirt about one guest. All of it blocks: run it on a thread of the host.

Nothing here taints the domain, except what reads the registers by QEMU's monitor.

Source: libvirt 9.0, src/libvirt-domain.c (virDomainListGetStats, virDomainScreenshot,
virDomainGetGuestInfo), src/libvirt-qemu.c (virDomainQemuMonitorCommand).
"""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

from lastcall.kernel.run import printable
from lastcall.targets.guest.libvirt import library
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.words import SCREEN_LIMIT_BYTES, Activity, AgentSight, Pm1, System

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lastcall.targets.guest.libvirt.library import Connection, LibvirtDomain

_PIECE_BYTES = 256 * 1024
_REPLY_LIMIT = 1024 * 1024
_USERS_LIMIT, _NAME_LIMIT = 64, 64
_NS = 1e9

_HMP = 1  # VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
_POWER_DEVICES = {"ICH9-LPC", "PIIX4_PM"}
# "portw[0x0600] = 0x0001" (monitor/misc.c, hmp_ioport_read, QEMU 7.2).
_PORT = re.compile(r"portw\[0x[0-9a-f]+\]\s*=\s*0x([0-9a-f]{1,4})\s*$")


def the_same(connection: Connection, uuid: str, number: int) -> LibvirtDomain:
    """This run of this guest, looked up now: a domain object keeps its first id for ever.

    Raises:
        Trouble: it is gone (GONE).
        libvirt.libvirtError: libvirt does not know it, or fails.
    """
    domain = connection.lookupByUUIDString(uuid)
    found = domain.ID()
    if found != number:
        now = "it does not run" if found == -1 else f"its id is {found} now, not {number}"
        raise Trouble(Fault.GONE, f"the guest is gone: {now}")
    return domain


def activity(connection: Connection, domain: LibvirtDomain) -> Activity:
    """How much it has done so far.

    NOWAIT: while another job holds the guest, libvirt tells what it knows without QEMU.
    """
    libvirt, _ = library.load()
    wanted = (
        libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
        | libvirt.VIR_DOMAIN_STATS_VCPU
        | libvirt.VIR_DOMAIN_STATS_BLOCK
    )
    nowait = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    answers = connection.domainListGetStats([domain], wanted, nowait)
    at_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    return activity_of(answers[0][1] if answers else {}, at_s)


def activity_of(stats: Mapping[str, object], at_s: float) -> Activity:
    """Read libvirt's statistics of a guest. Pure."""
    cpu_ns = _sum(stats, "vcpu", "time")
    if cpu_ns is None:
        cpu_ns = _number(stats.get("cpu.time"))
    return Activity(
        at_s=at_s,
        written_bytes=_sum(stats, "block", "wr.bytes"),
        writes=_sum(stats, "block", "wr.reqs"),
        read_bytes=_sum(stats, "block", "rd.bytes"),
        cpu_s=None if cpu_ns is None else cpu_ns / _NS,
    )


def _sum(stats: Mapping[str, object], group: str, name: str) -> int | None:
    found = [
        value
        for key, each in stats.items()
        if key.startswith(f"{group}.")
        and key.partition(".")[2].partition(".")[2] == name
        and (value := _number(each)) is not None
    ]
    return sum(found) if found else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def screen(connection: Connection, domain: LibvirtDomain) -> bytes:
    """A picture of its first screen.

    Raises:
        Trouble: it is larger than `SCREEN_LIMIT_BYTES` (BROKEN).
    """
    stream = connection.newStream(0)
    domain.screenshot(stream, 0, 0)
    picture = bytearray()
    while piece := stream.recv(_PIECE_BYTES):
        picture += piece
        if len(picture) > SCREEN_LIMIT_BYTES:
            stream.abort()
            raise Trouble(
                Fault.BROKEN, f"the picture of the screen has more than {SCREEN_LIMIT_BYTES} bytes"
            )
    stream.finish()
    return bytes(picture)


def agent(_connection: Connection, domain: LibvirtDomain) -> AgentSight:
    """What the guest agent says of its system and who is logged on.

    Raises:
        libvirt.libvirtError: it does not answer, or libvirt refuses.
    """
    libvirt, _ = library.load()
    users, system = libvirt.VIR_DOMAIN_GUEST_INFO_USERS, libvirt.VIR_DOMAIN_GUEST_INFO_OS
    try:
        return sight_of(domain.guestInfo(users | system, 0))
    except libvirt.libvirtError as error:
        if error.get_error_code() not in {
            libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
            libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
            libvirt.VIR_ERR_NO_SUPPORT,
        }:
            raise
        # An old agent, or one that is not let: types that are asked for must all be there.
        return sight_of(domain.guestInfo(system, 0))


def sight_of(told: Mapping[str, object]) -> AgentSight:
    """Read what libvirt made of the agent's answers. Pure; the guest may write anything in it."""
    name = told.get("os.pretty-name") or told.get("os.name") or ""
    count = _number(told.get("user.count"))
    users = None
    if count is not None:
        names = [told.get(f"user.{index}.name") for index in range(min(count, _USERS_LIMIT))]
        users = tuple(
            sorted({printable(each, _NAME_LIMIT) for each in names if isinstance(each, str)})
        )
    return AgentSight(
        connected=True,
        answers=True,
        system=_system(told),
        name=printable(str(name), _NAME_LIMIT),
        users=users,
    )


def _system(told: Mapping[str, object]) -> System:
    named = str(told.get("os.id", "")).lower()
    kernel = str(told.get("os.kernel-release", ""))
    if named == "mswindows":
        return System.WINDOWS
    if not named and not kernel:
        return System.UNKNOWN
    return System.OTHER if "bsd" in named or named in {"illumos", "solaris"} else System.LINUX


def pm1(_connection: Connection, domain: LibvirtDomain) -> Pm1:
    """The registers of its power button, by QEMU's monitor: this taints the domain.

    Raises:
        Trouble: it has no such registers (UNSUPPORTED), or QEMU's answer makes no sense (BROKEN).
        libvirt.libvirtError: libvirt refuses, or fails.
    """
    path = _power_device(domain)
    base = _ask(domain, "qom-get", {"path": path, "property": "pm_io_base"})
    if not isinstance(base, int) or not 0 <= base < 0xFFF0:  # noqa: PLR2004 (16 bits of ports)
        raise Trouble(Fault.BROKEN, "QEMU's answer about the power button makes no sense")
    if base == 0:
        raise Trouble(
            Fault.UNSUPPORTED, "the registers of the power button are switched off in the guest"
        )
    # Status, enable, control: ACPI 6.5, 4.8.3; the offsets are those of hw/acpi/core.c.
    return Pm1(*(_port(domain, base + offset) for offset in (0, 2, 4)))


def _power_device(domain: LibvirtDomain) -> str:
    children = _ask(domain, "qom-list", {"path": "/machine/unattached"})
    for child in children if isinstance(children, list) else ():
        if not isinstance(child, dict):
            continue
        name, kind = str(child.get("name", "")), str(child.get("type", ""))
        if kind.removeprefix("child<").removesuffix(">") in _POWER_DEVICES:
            return f"/machine/unattached/{name}"
    raise Trouble(Fault.UNSUPPORTED, "this machine has no fixed power button to be read")


def _ask(domain: LibvirtDomain, command: str, arguments: dict[str, str]) -> object:
    text = json.dumps({"execute": command, "arguments": arguments})
    return reply_of(library.load()[1].qemuMonitorCommand(domain, text, 0), command)


def reply_of(text: str, command: str) -> object:
    """What QEMU answered to a command. Pure.

    Raises:
        Trouble: it said no (REFUSED), or makes no sense (BROKEN).
    """
    if len(text) > _REPLY_LIMIT:
        raise Trouble(Fault.BROKEN, f"QEMU's answer to {command} has {len(text)} characters")
    try:
        reply = json.loads(text)
    except (ValueError, RecursionError):
        reply = None
    if not isinstance(reply, dict) or not ("return" in reply or "error" in reply):
        raise Trouble(Fault.BROKEN, f"QEMU's answer to {command} makes no sense")
    if "error" in reply:
        error = reply["error"]
        said = str(error.get("desc", "")) if isinstance(error, dict) else ""
        raise Trouble(Fault.REFUSED, f"QEMU refuses {command}: {printable(said, 200)}")
    return reply["return"]


def _port(domain: LibvirtDomain, port: int) -> int:
    _, libvirt_qemu = library.load()
    return port_of(libvirt_qemu.qemuMonitorCommand(domain, f"i /hx {port:#x}", _HMP))


def port_of(text: str) -> int:
    """The value of a port in QEMU's words. Pure.

    Raises:
        Trouble: they make no sense (BROKEN).
    """
    found = _PORT.search(text[-64:].lower())
    if found is None:
        said = printable(text[:64])
        raise Trouble(
            Fault.BROKEN, "QEMU's answer about a port makes no sense", evidence=(f"QEMU: {said}",)
        )
    return int(found[1], 16)
