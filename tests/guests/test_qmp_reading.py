"""What QEMU's monitor says, read strictly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guests import peers
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.qmp import build, reading
from lastcall.targets.guest.words import Happening, Kind, Pm1, Power, System

if TYPE_CHECKING:
    from collections.abc import Callable

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["status", "UUID", "name", "stats", "thread-id", "label", "filename"])
            | st.sampled_from(["event", "data", "guest", "reason", "id", "user", "kernel-version"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
READERS: dict[str, Callable[[object], object]] = {
    "power": reading.power,
    "uuid": reading.uuid,
    "name": reading.name,
    "text": reading.text,
    "number": reading.number,
    "children": reading.children,
    "block_totals": reading.block_totals,
    "threads": reading.threads,
    "guest_system": reading.guest_system,
    "guest_users": reading.guest_users,
    "chardev": lambda said: reading.chardev(said, "ga0"),
    "port": lambda said: reading.port(said, "w", 0x600),
    "happening": lambda said: reading.happening(said if isinstance(said, dict) else {}, 0.0),
    "port_change": lambda said: reading.port_change(said if isinstance(said, dict) else {}),
    "version": lambda said: reading.greeted_version(said if isinstance(said, dict) else None),
}


@pytest.mark.parametrize("name", READERS)
@given(said=JSON)
def test_nonsense_is_broken(name: str, said: object) -> None:
    """Whatever a reader is given, it reads it or raises `Trouble` (BROKEN), nothing else."""
    try:
        READERS[name](said)
    except Trouble as trouble:
        raised: Trouble | None = trouble
    else:
        raised = None
    assert raised is None or raised.fault is Fault.BROKEN
    assert raised is None or len("".join(raised.evidence)) < 400


def test_registers() -> None:
    """The registers come out of two reads of the human monitor."""
    both, control = "portl[0x0600] = 0x01000101\r\n", "portw[0x0604] = 0x0001\r\n"
    assert reading.pm1(both, control, 0x600) == Pm1(0x0101, 0x0100, 0x0001)
    assert reading.pm1(both, control, 0x600).pending


@pytest.mark.parametrize(
    ("both", "control", "fault"),
    [
        ("portl[0x0600] = 0xffffffff\r\n", "portw[0x0604] = 0xffff\r\n", Fault.UNSUPPORTED),
        ("portl[0x0700] = 0x01000101\r\n", "portw[0x0604] = 0x0001\r\n", Fault.BROKEN),
        ("portw[0x0600] = 0x0101\r\n", "portw[0x0604] = 0x0001\r\n", Fault.BROKEN),
        ("portl[0x0600] = 0x01000101\r\n", "portw[0x0604] = 0x00010001\r\n", Fault.BROKEN),
        ("unknown command: 'i'\r\n", "portw[0x0604] = 0x0001\r\n", Fault.BROKEN),
        ("", "", Fault.BROKEN),
    ],
)
def test_bad_registers(both: str, control: str, fault: Fault) -> None:
    """Other addresses, other widths, unmapped ports and error texts are no registers."""
    with pytest.raises(Trouble) as raised:
        reading.pm1(both, control, 0x600)
    assert raised.value.fault is fault


@pytest.mark.parametrize(
    ("state", "power"),
    [
        ("running", Power.RUNNING),
        ("paused", Power.PAUSED),
        ("prelaunch", Power.PAUSED),
        ("suspended", Power.SUSPENDED),
        ("shutdown", Power.OFF),
        ("guest-panicked", Power.PANICKED),
        ("io-error", Power.FAILED),
        ("internal-error", Power.FAILED),
        ("inmigrate", Power.MIGRATING),
        ("postmigrate", Power.MIGRATING),
        ("a-state-of-qemu-12", Power.UNKNOWN),
    ],
)
def test_run_states(state: str, power: Power) -> None:
    """Every run state has its meaning, and a later QEMU's new one is not known."""
    assert reading.power({"status": state, "running": False}) is power


def _event(name: str, **data: object) -> dict[str, object]:
    return {"event": name, "data": data, "timestamp": {"seconds": 1, "microseconds": 0}}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (_event("POWERDOWN"), Happening(Kind.POWERDOWN, 5.0)),
        (
            _event("SHUTDOWN", guest=True, reason="guest-shutdown"),
            Happening(Kind.SHUTDOWN, 5.0, guest=True, reason="guest-shutdown"),
        ),
        (
            _event("RESET", guest=False, reason="host-qmp-system-reset"),
            Happening(Kind.RESET, 5.0, guest=False, reason="host-qmp-system-reset"),
        ),
        (_event("SHUTDOWN"), Happening(Kind.SHUTDOWN, 5.0)),
        (_event("SUSPEND_DISK"), Happening(Kind.SUSPEND_DISK, 5.0)),
        (_event("GUEST_PANICKED", action="pause"), Happening(Kind.PANICKED, 5.0, reason="pause")),
        (_event("WATCHDOG", action="reset"), Happening(Kind.WATCHDOG, 5.0, reason="reset")),
        (
            _event("BLOCK_IO_ERROR", action="stop", device="ide0-hd0", reason="No space left"),
            Happening(Kind.IO_ERROR, 5.0, detail="ide0-hd0: No space left"),
        ),
        (_event("BLOCK_IO_ERROR", action="report", device="d"), None),
        (_event("GUEST_CRASHLOADED", action="run"), None),
        (_event("GUEST_PVSHUTDOWN"), None),
        (_event("RTC_CHANGE", offset=3), None),
    ],
)
def test_events(event: dict[str, object], expected: Happening | None) -> None:
    """Each event that matters becomes what happened; the others are nothing."""
    assert reading.happening(event, 5.0) == expected


def test_ports() -> None:
    """A change of a serial port tells which and whether it was opened."""
    change = _event("VSERPORT_CHANGE", id="channel0", open=False)
    assert reading.port_change(change) == ("channel0", False)
    assert reading.port_change(_event("STOP")) is None


def test_block_statistics_are_not_counted_twice() -> None:
    """Only the disks count, not the files below them."""
    low = {"stats": {"wr_bytes": 512, "wr_operations": 1, "rd_bytes": 7}}
    high = {**low, "device": "a", "parent": low, "backing": {**low, "parent": low}}
    assert reading.block_totals([high, {**high, "device": "b"}]) == (1024, 2, 14)
    assert reading.block_totals([]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("filename", "path", "held"),
    [
        ("disconnected:unix:/run/ga.sock,server=on", "/run/ga.sock", False),
        ("unix:/run/ga.sock,server=on", "/run/ga.sock", True),
        ("disconnected:unix:/run/a,b c.sock,server=on", "/run/a,b c.sock", False),
        ("disconnected:unix:/run/ga.sock,server", "/run/ga.sock", False),
        ("disconnected:tcp:127.0.0.1:4444,server=on <-> 127.0.0.1:5", "", False),
        ("pty:/dev/pts/3", "", True),
    ],
)
def test_chardevs(filename: str, path: str, held: bool) -> None:  # noqa: FBT001 (a table)
    """The path of the agent's socket, and whether somebody holds it, stand in its file name."""
    rows = [
        {"label": "x", "filename": "vc", "frontend-open": True},
        {"label": "ga0", "filename": filename, "frontend-open": False},
    ]
    assert reading.chardev(rows, "ga0") == reading.Chardev(path, held=held, open=False)
    assert reading.chardev(rows, "none") is None


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (
            {"id": "mswindows", "pretty-name": "Windows Server 2022 Standard"},
            (System.WINDOWS, "Windows Server 2022 Standard"),
        ),
        (
            {"id": "debian", "pretty-name": "Debian 12", "kernel-version": "#1 SMP"},
            (System.LINUX, "Debian 12"),
        ),
        ({"kernel-release": "6.1.0", "kernel-version": "#1 SMP"}, (System.LINUX, "Linux 6.1.0")),
        ({"id": "freebsd", "kernel-version": "FreeBSD 14"}, (System.OTHER, "freebsd")),
        ({}, (System.UNKNOWN, "")),
    ],
)
def test_systems(info: dict[str, object], expected: tuple[System, str]) -> None:
    """The agent's word of its system tells the family."""
    assert reading.guest_system(info) == expected


def test_users() -> None:
    """Who is logged on counts once, with the domain where there is one."""
    rows = [{"user": "root", "login-time": 1.5}, {"user": "root"}, {"user": "A", "domain": "WIN"}]
    assert reading.guest_users(rows) == ("root", "WIN\\A")


def test_thread_times() -> None:
    """A thread's time is the sum of fields 14 and 15, whatever its name holds."""
    line = b"42 (CPU 0/TCG) R 1) S " + b" ".join(str(n).encode() for n in range(4, 53))
    assert reading.spent_ticks(line) == 14 + 15


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["qemu"], False),
        (["qemu", "-no-shutdown"], True),
        (["qemu", "--no-shutdown"], True),
        (["qemu", "-action", "panic=none,shutdown=pause"], True),
        (["qemu", "-no-shutdown", "-action", "shutdown=poweroff"], False),
    ],
)
def test_stays_when_off(words: list[str], expected: bool) -> None:  # noqa: FBT001 (a table)
    """The command line tells whether QEMU stays when the guest is off."""
    assert build.stays_when_off(words) is expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ""),
        (["qemu"], "tcg"),
        (["qemu", "-accel", "tcg,thread=single"], "tcg"),
        (["qemu", "-machine", "pc,accel=kvm:tcg"], "kvm"),
        (["qemu", "-enable-kvm"], "kvm"),
        (["qemu", "-accel", "xen"], "xen"),
    ],
)
def test_accelerators(words: list[str], expected: str) -> None:
    """The command line tells the accelerator that was wished for."""
    assert build.accelerator_named(words) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["qemu", "-name", "vm1"], "vm1"),
        (["qemu", "-name", "guest=vm2,debug-threads=on"], "vm2"),
        (["qemu", "-name", "vm3,process=x"], "vm3"),
        (["qemu", "-name", "debug-threads=on"], ""),
        (["qemu"], ""),
    ],
)
def test_names_given(words: list[str], expected: str) -> None:
    """The command line tells the guest's name."""
    assert build.name_given(words) == expected


@pytest.mark.parametrize("path", sorted(peers.TRANSCRIPTS.glob("*.jsonl")), ids=lambda p: p.stem)
def test_transcripts_say_where_they_come_from(path: object) -> None:
    """Each transcript names its QEMU and whether it was recorded or written from the schema."""
    from pathlib import Path

    assert isinstance(path, Path)
    about = peers.Transcript(path).about
    assert about["qemu"]
    assert about["how"] in {"recorded", "written from the schema"}
