"""What a domain's XML says of a guest. Pure.

Source: libvirt 9.0, docs/formatdomain.rst.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from lastcall.record import record
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.words import Button, Setup

if TYPE_CHECKING:
    from collections.abc import Iterable

LIMIT_BYTES = 1024 * 1024
_AGENT = "org.qemu.guest_agent.0"
_ACCELERATORS = {"kvm": "kvm", "qemu": "tcg", "hvf": "hvf"}
_X86 = {"x86_64", "i686"}


@record
class DomainXml:
    """What a domain's XML says.

    Args:
        name: its name.
        uuid: its UUID.
        number: libvirt's id of this run of it; None: it does not run.
        kind: the hypervisor's kind: "qemu", "kvm", ...
        title: a person's short description; empty: there is none.
        machine: as `Setup.machine`.
        arch: its processor's kind.
        acpi: whether it has ACPI.
        on_poweroff: what libvirt does when the guest powers off.
        on_reboot: what it does when the guest restarts.
        on_crash: what it does when the guest's kernel panics.
        agent: whether there is a port for the guest agent.
        agent_alias: how QEMU's events call that port; empty: not known.
        agent_connected: whether something in the guest holds it open.
        to_memory: whether the guest may sleep (S3).
        to_disk: whether it may hibernate (S4).
        video: whether it has a screen.
        disks: how many disks it can write to.
    """

    name: str
    uuid: str
    number: int | None = None
    kind: str = ""
    title: str = ""
    machine: str = ""
    arch: str = ""
    acpi: bool = False
    on_poweroff: str = "destroy"
    on_reboot: str = "restart"
    on_crash: str = "destroy"
    agent: bool = False
    agent_alias: str = ""
    agent_connected: bool | None = None
    to_memory: bool | None = None
    to_disk: bool | None = None
    video: bool = False
    disks: int = 0


def parse(text: str) -> DomainXml:
    """Read a domain's XML.

    Raises:
        Trouble: it is too long, no XML, declares entities, or is no domain (BROKEN).
    """
    if len(text) > LIMIT_BYTES:
        raise _bad(f"it has {len(text)} characters, and {LIMIT_BYTES} are read at most")
    # libvirt writes neither; they are the way to make a small text expand without end.
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise _bad("it declares a document type")
    try:
        top = ET.fromstring(text)  # noqa: S314 (no entities: see above)
    except (ET.ParseError, ValueError) as error:
        raise _bad(str(error)) from error
    name, uuid = _text(top, "name"), _text(top, "uuid").lower()
    if top.tag != "domain" or not name or not uuid:
        raise _bad("it is no domain with a name and a UUID")
    number = top.get("id", "")
    kind = top.find("os/type")
    channel = _agent_channel(top.iterfind("devices/channel"))
    return DomainXml(
        name=name,
        uuid=uuid,
        number=int(number) if number.isascii() and number.isdecimal() else None,
        kind=top.get("type", ""),
        title=_text(top, "title"),
        machine="" if kind is None else kind.get("machine", ""),
        arch="" if kind is None else kind.get("arch", ""),
        acpi=top.find("features/acpi") is not None,
        on_poweroff=_text(top, "on_poweroff") or "destroy",
        on_reboot=_text(top, "on_reboot") or "restart",
        on_crash=_text(top, "on_crash") or "destroy",
        agent=channel is not None,
        agent_alias=_attribute(channel, "alias", "name"),
        agent_connected={"connected": True, "disconnected": False}.get(
            _attribute(channel, "target", "state")
        ),
        to_memory=_yes(top.find("pm/suspend-to-mem")),
        to_disk=_yes(top.find("pm/suspend-to-disk")),
        video=any(
            _attribute(each, "model", "type") != "none" for each in top.iterfind("devices/video")
        ),
        disks=sum(
            each.get("device", "disk") == "disk" and each.find("readonly") is None
            for each in top.iterfind("devices/disk")
        ),
    )


def setup_of(domain: DomainXml, started_s: float | None) -> Setup:
    """How a machine is built.

    libvirt starts every QEMU with `-no-shutdown` and ends it itself once the guest is off, unless
    it shall be preserved (qemu_process.c, qemuProcessShutdownOrReboot).

    Args:
        domain: its XML.
        started_s: when its QEMU was started (boot-time clock); None: not known.
    """
    return Setup(
        machine=domain.machine,
        button=_button(domain),
        wakes=_wakes(domain),
        stays_when_off=domain.on_poweroff == "preserve",
        on_poweroff=domain.on_poweroff,
        agent=domain.agent,
        started_s=started_s,
        uuid=domain.uuid,
        accelerator=_ACCELERATORS.get(domain.kind, ""),
    )


def _button(domain: DomainXml) -> Button:
    """What a press presses: the fixed button of a PC's chipset, or a device of a newer machine."""
    if domain.kind not in _ACCELERATORS:
        return Button.UNKNOWN
    family = domain.machine.partition("-")[0]
    if domain.arch in _X86:
        if family in {"pc", "q35"}:
            return Button.PM1 if domain.acpi else Button.NONE
        if family == "microvm":
            return Button.GED if domain.acpi else Button.NONE
        return Button.NONE if family == "isapc" else Button.UNKNOWN
    return Button.GED if family == "virt" and domain.acpi else Button.UNKNOWN


def _wakes(domain: DomainXml) -> bool | None:
    """Whether it can be woken from sleep. QEMU's PC chipsets can (hw/acpi/core.c, QEMU 7.2)."""
    button = _button(domain)
    if domain.to_memory is False:
        return None
    if button is Button.PM1:
        return True
    return False if domain.arch in _X86 and button is not Button.UNKNOWN else None


def _agent_channel(channels: Iterable[ET.Element]) -> ET.Element | None:
    for each in channels:
        if _attribute(each, "target", "name") == _AGENT:
            return each
    return None


def _attribute(element: ET.Element | None, child: str, name: str) -> str:
    found = None if element is None else element.find(child)
    return "" if found is None else found.get(name, "")


def _text(element: ET.Element, child: str) -> str:
    return (element.findtext(child) or "").strip()


def _yes(element: ET.Element | None) -> bool | None:
    return None if element is None else {"yes": True, "no": False}.get(element.get("enabled", ""))


def _bad(why: str) -> Trouble:
    return Trouble(Fault.BROKEN, f"the XML that libvirt gave of a guest cannot be read: {why}")
