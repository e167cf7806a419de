"""What is made of libvirt's words, without a libvirt."""

from __future__ import annotations

import contextlib
import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guests.zoo import domain_xml
from lastcall.errors import Ambiguous, NotRunning
from lastcall.targets.guest.libvirt import calls, domain, process, telling
from lastcall.targets.guest.libvirt.faults import fault_of
from lastcall.targets.guest.libvirt.finding import Listed, find
from lastcall.targets.guest.libvirt.telling import Raw, Source, Teller
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.words import Button, Happening, Kind, Power, System

UUID = "0b5a0f0e-6f2b-4c57-9b84-0c2f5f1f0a11"

FULL = f"""<domain type='kvm' id='7'>
  <name>win01</name><uuid>{UUID.upper()}</uuid><title>the books</title>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <features><acpi/><apic/></features>
  <on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>preserve</on_crash>
  <pm><suspend-to-mem enabled='no'/><suspend-to-disk enabled='yes'/></pm>
  <devices>
    <disk type='file' device='disk'><target dev='vda'/></disk>
    <disk type='file' device='cdrom'><target dev='sda'/><readonly/></disk>
    <video><model type='qxl'/></video>
    <channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>
    <channel type='unix'>
      <target type='virtio' name='org.qemu.guest_agent.0' state='connected'/>
      <alias name='channel1'/>
    </channel>
  </devices>
</domain>"""


def test_a_domain_is_read() -> None:
    """All that concerns a stop is taken from the XML."""
    read = domain.parse(FULL)
    assert (read.name, read.uuid, read.number, read.title) == ("win01", UUID, 7, "the books")
    assert (read.kind, read.arch, read.machine, read.acpi) == ("kvm", "x86_64", "pc-q35-7.2", True)
    assert (read.agent, read.agent_alias, read.agent_connected) == (True, "channel1", True)
    assert (read.to_memory, read.to_disk, read.on_crash) == (False, True, "preserve")
    assert (read.video, read.disks) == (True, 1)
    setup = domain.setup_of(read, 12.5)
    assert (setup.button, setup.accelerator, setup.agent) == (Button.PM1, "kvm", True)
    assert (setup.uuid, setup.started_s, setup.stays_when_off) == (UUID, 12.5, False)


@pytest.mark.parametrize(
    ("kind", "arch", "machine", "acpi", "button"),
    [
        ("qemu", "x86_64", "pc-i440fx-7.2", True, Button.PM1),
        ("qemu", "x86_64", "pc", False, Button.NONE),
        ("kvm", "i686", "q35", True, Button.PM1),
        ("kvm", "x86_64", "microvm", True, Button.GED),
        ("kvm", "x86_64", "isapc", False, Button.NONE),
        ("kvm", "aarch64", "virt-7.2", True, Button.GED),
        ("kvm", "aarch64", "virt-7.2", False, Button.UNKNOWN),
        ("kvm", "s390x", "s390-ccw-virtio-7.2", False, Button.UNKNOWN),
        ("xen", "x86_64", "pc", True, Button.UNKNOWN),
        ("test", "i686", "", False, Button.UNKNOWN),
    ],
)
def test_which_button_a_machine_has(
    kind: str, arch: str, machine: str, button: Button, *, acpi: bool
) -> None:
    """The machine's type and ACPI say what a press presses."""
    read = domain.DomainXml("a", UUID, kind=kind, arch=arch, machine=machine, acpi=acpi)
    assert domain.setup_of(read, None).button is button


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no XML",
        "<domain",
        "<network><name>n</name><uuid>u</uuid></network>",
        "<domain><name/></domain>",
        f"<!DOCTYPE d [<!ENTITY a 'aa'>]>{FULL}",
        FULL + " " * domain.LIMIT_BYTES,
        "<domain>\0</domain>",
    ],
)
def test_a_bad_domain_is_refused(text: str) -> None:
    """What is too long, no XML, no domain, or declares entities comes to a clear end."""
    with pytest.raises(Trouble) as caught:
        domain.parse(text)
    assert caught.value.fault is Fault.BROKEN


@given(st.text() | st.binary().map(lambda b: FULL[: len(b) * 7] + b.decode("latin-1")))
def test_any_text_is_a_domain_or_refused(text: str) -> None:
    """Nothing but a Trouble comes out of any text."""
    with contextlib.suppress(Trouble):
        assert domain.parse(text).uuid


def test_a_deep_domain_is_read() -> None:
    """Depth costs nothing."""
    deep = "<a>" * 50_000 + "</a>" * 50_000
    assert domain.parse(FULL.replace("<os>", f"{deep}<os>")).name == "win01"


def test_the_zoos_domain_is_read() -> None:
    """The tests' own domains are understood."""
    from pathlib import Path

    read = domain.parse(domain_xml("z", Path("/d.img"), "pc", UUID))
    assert domain.setup_of(read, None).button is Button.PM1


def lifecycle(event: int, detail: int = 0, number: int = 7) -> Raw:
    """One of libvirt's own events."""
    return Raw(Source.LIFECYCLE, 1.0, UUID, number, event=event, detail=detail)


def monitor(word: str, number: int = 7, **data: object) -> Raw:
    """One of QEMU's events."""
    return Raw(Source.MONITOR, 1.0, UUID, number, word=word, data=data)


def told(events: list[Raw], *, with_monitor: bool = True) -> list[Happening]:
    """All that a teller makes of events."""
    teller = Teller(7, "channel1", monitor=with_monitor)
    return [each for raw in events if (each := teller.tell(raw)) is not None]


def test_each_thing_is_told_once() -> None:
    """QEMU's event and libvirt's copy of it are one thing, and after the end nothing comes."""
    events = [
        monitor("POWERDOWN"),
        monitor("VSERPORT_CHANGE", open=False, id="channel1"),
        monitor("VSERPORT_CHANGE", open=False, id="channel0"),
        monitor("RTC_CHANGE", offset=1),
        monitor("SHUTDOWN", guest=True, reason="guest-shutdown"),
        lifecycle(telling.SHUTDOWN, 1),
        monitor("STOP"),
        monitor("SHUTDOWN", guest=False, reason="host-signal"),
        lifecycle(telling.STOPPED, 0),
        monitor("STOP"),
    ]
    kinds = [each.kind for each in told(events)]
    assert kinds == [
        Kind.POWERDOWN,
        Kind.AGENT_CLOSED,
        Kind.SHUTDOWN,
        Kind.STOP,
        Kind.SHUTDOWN,
        Kind.GONE,
    ]


def test_without_qemus_events_libvirts_are_told() -> None:
    """Where only lifecycles come, they carry who powered it off."""
    events = [
        lifecycle(telling.SUSPENDED),
        lifecycle(telling.RESUMED),
        lifecycle(telling.PMSUSPENDED),
        Raw(Source.WAKEUP, 1.0, UUID, 7),
        Raw(Source.AGENT, 1.0, UUID, 7, event=2),
        Raw(Source.REBOOT, 1.0, UUID, 7),
        lifecycle(telling.CRASHED),
        lifecycle(telling.SHUTDOWN, 2),
        lifecycle(telling.STOPPED, 2, number=-1),
    ]
    heard = told(events, with_monitor=False)
    assert [each.kind for each in heard] == [
        Kind.STOP,
        Kind.RESUME,
        Kind.SUSPEND,
        Kind.WAKEUP,
        Kind.AGENT_CLOSED,
        Kind.RESET,
        Kind.PANICKED,
        Kind.SHUTDOWN,
        Kind.GONE,
    ]
    assert heard[-2].guest is False
    assert heard[-1].reason == "crashed"


def test_a_guest_that_moves_away_is_not_stopped() -> None:
    """What libvirt does to the QEMU that is left behind is no power-off; the move is the end."""
    events = [
        monitor("STOP"),
        lifecycle(telling.SUSPENDED, 1),
        monitor("SHUTDOWN", guest=False, reason="host-signal"),
        lifecycle(telling.STOPPED, 3),
    ]
    assert [each.kind for each in told(events)] == [Kind.STOP, Kind.MIGRATED]


def test_a_later_run_ends_the_earlier() -> None:
    """Events of another run are not ours; a start of a later one means that ours is gone."""
    assert told([monitor("SHUTDOWN", number=8, guest=True), lifecycle(telling.STOPPED, 0, 6)]) == []
    heard = told([lifecycle(telling.STARTED, 0, 8), monitor("SHUTDOWN", number=8)])
    assert [each.kind for each in heard] == [Kind.GONE]


def test_what_was_missed_is_told_after_the_return() -> None:
    """The state after a cut says what must have happened, once."""
    teller = Teller(7, "", monitor=True)
    teller.tell(Raw(Source.CUT, 1.0, word="away"))
    assert [each.kind for each in teller.back(2.0, Power.RUNNING)] == [Kind.BACK]
    assert [each.kind for each in teller.back(3.0, Power.PAUSED)] == [Kind.BACK, Kind.STOP]
    assert [each.kind for each in teller.back(4.0, Power.PAUSED)] == [Kind.BACK]
    assert [each.kind for each in teller.back(5.0, Power.RUNNING)] == [Kind.BACK, Kind.RESUME]
    assert [each.kind for each in teller.back(6.0, Power.OFF)] == [Kind.BACK, Kind.SHUTDOWN]
    assert [each.kind for each in teller.back(7.0, Power.OFF)] == [Kind.BACK]


@pytest.mark.parametrize(
    ("state", "reason", "power"),
    [
        (1, 1, Power.RUNNING),
        (3, 1, Power.PAUSED),
        (3, 2, Power.MIGRATING),
        (3, 5, Power.FAILED),
        (4, 0, Power.OFF),
        (5, 1, Power.GONE),
        (6, 1, Power.PANICKED),
        (7, 0, Power.SUSPENDED),
        (99, 0, Power.UNKNOWN),
    ],
)
def test_libvirts_states(state: int, reason: int, power: Power) -> None:
    """Each state of libvirt's has one meaning."""
    assert telling.power_of(state, reason) is power


@pytest.mark.parametrize(
    ("code", "part", "system", "fault"),
    [
        (42, 10, -1, Fault.GONE),
        (68, 10, -1, Fault.HUNG),
        (29, 20, -1, Fault.DENIED),
        (45, 0, -1, Fault.DENIED),
        (3, 20, -1, Fault.UNSUPPORTED),
        (74, 10, -1, Fault.UNSUPPORTED),
        (84, 10, -1, Fault.UNSUPPORTED),
        (86, 10, -1, Fault.REFUSED),
        (55, 10, -1, Fault.REFUSED),
        (39, 7, -1, Fault.BROKEN),
        (1, 7, -1, Fault.BROKEN),
        (1, 10, -1, Fault.REFUSED),
        (38, 7, errno.EACCES, Fault.DENIED),
        (38, 7, errno.ECONNREFUSED, Fault.BROKEN),
        (38, 10, errno.EBUSY, Fault.REFUSED),
        (None, None, None, Fault.BROKEN),
    ],
)
def test_libvirts_errors(
    code: int | None, part: int | None, system: int | None, fault: Fault
) -> None:
    """Each error of libvirt's is of one kind."""
    assert fault_of(code, part, system, "") is fault


def test_statistics_are_read() -> None:
    """All disks and processors count together; what is not there is not known."""
    stats: dict[str, object] = {
        "vcpu.current": 2,
        "vcpu.0.time": 1_500_000_000,
        "vcpu.1.time": 500_000_000,
        "cpu.time": 9_000_000_000,
        "block.count": 2,
        "block.0.wr.bytes": 10,
        "block.1.wr.bytes": 5,
        "block.0.wr.reqs": 2,
        "block.0.rd.bytes": 7,
    }
    read = calls.activity_of(stats, 3.0)
    assert (read.cpu_s, read.written_bytes, read.writes, read.read_bytes) == (2.0, 15, 2, 7)
    assert calls.activity_of({"cpu.time": 10**9}, 3.0).cpu_s == 1.0
    assert calls.activity_of({}, 3.0).written_bytes is None


@pytest.mark.parametrize(
    ("info", "system", "users"),
    [
        ({"os.id": "mswindows", "user.count": 0}, System.WINDOWS, ()),
        (
            {"os.id": "debian", "user.count": 2, "user.0.name": "b\x1b", "user.1.name": "a"},
            System.LINUX,
            ("a", "b?"),
        ),
        ({"os.id": "freebsd"}, System.OTHER, None),
        ({"user.count": "many"}, System.UNKNOWN, None),
        ({"user.count": 10**9}, System.UNKNOWN, ()),
    ],
)
def test_what_the_agent_says(
    info: dict[str, object], system: System, users: tuple[str, ...] | None
) -> None:
    """System and users are taken from the agent's words, whatever it writes into them."""
    sight = calls.sight_of(info)
    assert (sight.system, sight.users, sight.answers) == (system, users, True)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "x" * 2_000_000, "[" * 100_000])
def test_senseless_replies_of_the_monitor(text: str) -> None:
    """What is no answer of QEMU's is said to be none."""
    with pytest.raises(Trouble) as caught:
        calls.reply_of(text, "qom-get")
    assert caught.value.fault is Fault.BROKEN


def test_replies_of_the_monitor() -> None:
    """An answer is taken, a refusal is told, and a port's value is read."""
    assert calls.reply_of('{"return": 1536, "id": "x"}', "qom-get") == 1536
    with pytest.raises(Trouble) as caught:
        calls.reply_of('{"error": {"class": "GenericError", "desc": "no"}}', "qom-get")
    assert caught.value.fault is Fault.REFUSED
    assert calls.port_of("portw[0x0600] = 0x0101\r\n") == 0x0101
    for text in ("", "unknown command: 'i'", "portw[0x0600] = 0x10101"):
        with pytest.raises(Trouble):
            calls.port_of(text)


def test_where_libvirt_keeps_pids() -> None:
    """A socket of its own comes first, then libvirt's own places."""
    assert process.folders("qemu:///system") == ["/run/libvirt/qemu"]
    own = process.folders("qemu+unix:///system?socket=/a%20b/run/libvirt-sock")
    assert own == ["/a b/run/qemu", "/run/libvirt/qemu"]
    assert process.folders("qemu:///session")[0].endswith("libvirt/qemu/run")


def test_no_pid_is_believed_without_its_uuid() -> None:
    """A name that leads elsewhere, and a process that is no QEMU of the guest, give nothing."""
    for name in ("../x", "..", "", "nobody-has-this-name"):
        assert process.of_domain("qemu:///system", domain.DomainXml(name, UUID)) is None


def test_which_guest_a_word_means() -> None:
    """Name, UUID in any case, and id; two that fit are not guessed between."""
    one, two = Listed("web1", UUID, 3), Listed("3", UUID.replace("0", "1"), None)
    assert find("web1", [one, two]) is one
    assert find(UUID.upper(), [one, two]) is one
    with pytest.raises(Ambiguous):
        find("3", [one, two])
    with pytest.raises(NotRunning) as caught:
        find("wbe1", [one, two])
    assert "libvirt:web1" in caught.value.advice
    with pytest.raises(NotRunning):
        find("None", [one, two])
