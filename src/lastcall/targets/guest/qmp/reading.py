"""What QEMU's monitor says, read strictly. Pure.

Nothing is believed for its place alone: each reader checks the shape of what it is given and
raises `Trouble` (BROKEN) with the words that make no sense.

Source: QEMU 7.2 to 10.0, `qapi/*.json`; `monitor/misc.c` (`hmp_ioport_read`).
"""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING, NoReturn

from lastcall.kernel.run import printable
from lastcall.record import record
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.words import Happening, Kind, Pm1, Power, System

if TYPE_CHECKING:
    from collections.abc import Mapping

AGENT_PORT = "org.qemu.guest_agent.0"
_MANY = 4096
_WORD = 200
_PATH = 4096
_NO_UUID = "00000000-0000-0000-0000-000000000000"
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_PORT = re.compile(r"port([wl])\[0x([0-9a-f]{4,8})\] = 0x([0-9a-f]{1,8})\s*")
_UNIX = re.compile(r"(disconnected:)?unix:(.+?)(,server(=on)?)?(,wait(=on)?)?", re.DOTALL)
_UNMAPPED = 0xFFFF

# Every run state of QEMU 7.0 to 10.1 (`RunState` in qapi/run-state.json).
_POWER = {
    "colo": Power.MIGRATING,
    "debug": Power.PAUSED,
    "finish-migrate": Power.MIGRATING,
    "guest-panicked": Power.PANICKED,
    "inmigrate": Power.MIGRATING,
    "internal-error": Power.FAILED,
    "io-error": Power.FAILED,
    "paused": Power.PAUSED,
    "postmigrate": Power.MIGRATING,
    "preconfig": Power.PAUSED,
    "prelaunch": Power.PAUSED,
    "restore-vm": Power.PAUSED,
    "running": Power.RUNNING,
    "save-vm": Power.PAUSED,
    "shutdown": Power.OFF,
    "suspended": Power.SUSPENDED,
    "watchdog": Power.PAUSED,
}


def _odd(what: str, said: object) -> NoReturn:
    raise Trouble(
        Fault.BROKEN,
        f"QEMU's {what} makes no sense",
        evidence=(printable(repr(said)[:400]),),
    )


def _table(answer: object, what: str) -> dict[str, object]:
    if not isinstance(answer, dict):
        _odd(what, answer)
    return answer


def _rows(answer: object, what: str) -> list[dict[str, object]]:
    if not isinstance(answer, list) or len(answer) > _MANY:
        _odd(what, answer)
    return [_table(row, what) for row in answer]


def _word(answer: object, what: str, most: int = _WORD) -> str:
    if not isinstance(answer, str) or len(answer) > most:
        _odd(what, answer)
    return answer


def _count(answer: object, what: str) -> int:
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < 1 << 64:
        _odd(what, answer)
    return answer


def _flag(answer: object, what: str) -> bool:
    if not isinstance(answer, bool):
        _odd(what, answer)
    return answer


def greeted_version(version: Mapping[str, object] | None) -> tuple[int, int]:
    """QEMU's version as its greeting tells it; (0, 0): it does not."""
    numbers = version.get("qemu") if version is not None else None
    if not isinstance(numbers, dict):
        return 0, 0
    major, minor = numbers.get("major"), numbers.get("minor")
    if isinstance(major, int) and isinstance(minor, int) and 0 <= major < _WORD > minor >= 0:
        return major, minor
    return 0, 0


def run_state(answer: object) -> str:
    """The word of `query-status`."""
    return _word(_table(answer, "status").get("status"), "status")


def power(answer: object) -> Power:
    """What `query-status` says that the machine does; UNKNOWN: a word of a later QEMU."""
    return _POWER.get(run_state(answer), Power.UNKNOWN)


def uuid(answer: object) -> str:
    """The guest's UUID, in lower case; empty: it was given none."""
    text = _word(_table(answer, "UUID").get("UUID"), "UUID")
    if not _UUID.fullmatch(text):
        _odd("UUID", answer)
    return "" if text == _NO_UUID else text.lower()


def name(answer: object) -> str:
    """The guest's name, fit to be shown; empty: it was given none."""
    return printable(_word(_table(answer, "name").get("name", ""), "name", _PATH), 80)


def text(answer: object) -> str:
    """A property that is a word, such as the machine's type."""
    return printable(_word(answer, "property", _PATH), _PATH)


def flag(answer: object, member: str) -> bool:
    """One member of an answer that says yes or no."""
    return _flag(_table(answer, member).get(member), member)


def number(answer: object) -> int:
    """A property that is a number, such as an address."""
    return _count(answer, "property")


def children(answer: object) -> tuple[tuple[str, str], ...]:
    """The names and types of an object's children (`qom-list`)."""
    found = []
    for row in _rows(answer, "list of objects"):
        kind = _word(row.get("type"), "list of objects", _PATH)
        if kind.startswith("child<") and kind.endswith(">"):
            found.append((_word(row.get("name"), "list of objects", _PATH), kind[6:-1]))
    return tuple(found)


def port(answer: object, width: str, address: int) -> int:
    """What the human monitor's `i` read from a port: `portw[0x0600] = 0x0001`."""
    said = _word(answer, "port")
    found = _PORT.fullmatch(said)
    if found is None or found[1] != width or int(found[2], 16) != address:
        _odd("port", answer)
    value = int(found[3], 16)
    if value >> (32 if width == "l" else 16):
        _odd("port", answer)
    return value


def pm1(events: object, control: object, base: int) -> Pm1:
    """The registers from two reads: status and enable together at `base`, control behind them.

    Raises:
        Trouble: BROKEN, or UNSUPPORTED: nothing answers at these addresses.
    """
    both = port(events, "l", base)
    found = Pm1(both & 0xFFFF, both >> 16, port(control, "w", base + 4))
    if found.status == found.enable == found.control == _UNMAPPED:
        raise Trouble(
            Fault.UNSUPPORTED,
            "the registers of the power button are not there (any more)",
            evidence=(f"ports 0x{base:x} to 0x{base + 5:x} all read as ones",),
        )
    return found


def block_totals(answer: object) -> tuple[int, int, int]:
    """Bytes written, writes, bytes read, over all disks (`query-blockstats`).

    Each row stands for one disk as the guest sees it. The files below it (`parent`, `backing`)
    count the same bytes once more, and are left out.
    """
    written = writes = read = 0
    for row in _rows(answer, "block statistics"):
        stats = _table(row.get("stats"), "block statistics")
        written += _count(stats.get("wr_bytes"), "block statistics")
        writes += _count(stats.get("wr_operations"), "block statistics")
        read += _count(stats.get("rd_bytes"), "block statistics")
    return written, writes, read


def threads(answer: object) -> tuple[int, ...]:
    """The threads that run the processors, each once (`query-cpus-fast`)."""
    found = {_count(row.get("thread-id"), "processors") for row in _rows(answer, "processors")}
    return tuple(sorted(found))


def spent_ticks(line: bytes) -> int:
    """The processor time of a thread: fields 14 and 15 of its stat. Source: proc(5)."""
    fields = line.rpartition(b")")[2].split()
    try:
        return int(fields[11]) + int(fields[12])
    except (IndexError, ValueError):
        _odd("thread", line)


@record
class Chardev:
    """What stands behind a port of the guest.

    Args:
        path: its Unix socket on the host; empty: it is something else.
        held: whether a program on the host is connected to it.
        open: whether something in the guest holds the port open.
    """

    path: str
    held: bool
    open: bool


def chardev(answer: object, label: str) -> Chardev | None:
    """The one of that label (`query-chardev`); None: there is none."""
    for row in _rows(answer, "character devices"):
        if row.get("label") != label:
            continue
        filename = _word(row.get("filename"), "character devices", _PATH)
        at_work = _flag(row.get("frontend-open"), "character devices")
        found = _UNIX.fullmatch(filename)
        if found is None or "\0" in filename:
            return Chardev("", held=not filename.startswith("disconnected:"), open=at_work)
        # A connected server names its own path first; what follows an arrow is the other end.
        path = found[2].partition(" <-> ")[0]
        return Chardev(path, held=found[1] is None, open=at_work)
    return None


_PLAIN = {
    "POWERDOWN": Kind.POWERDOWN,
    "SUSPEND": Kind.SUSPEND,
    "SUSPEND_DISK": Kind.SUSPEND_DISK,
    "WAKEUP": Kind.WAKEUP,
    "STOP": Kind.STOP,
    "RESUME": Kind.RESUME,
    "GUEST_PANICKED": Kind.PANICKED,
    "WATCHDOG": Kind.WATCHDOG,
}
_BY = {"SHUTDOWN": Kind.SHUTDOWN, "RESET": Kind.RESET}


def event_name(event: Mapping[str, object]) -> str:
    """Which event it is."""
    return _word(event.get("event"), "event")


def event_data(event: Mapping[str, object]) -> dict[str, object]:
    """What comes with it; many bring nothing."""
    return _table(event.get("data", {}), "event")


def happening(event: Mapping[str, object], at_s: float) -> Happening | None:
    """What an event means for the guest; None: nothing that matters here."""
    kind = event_name(event)
    data = event_data(event)
    if kind in _BY:
        guest = data.get("guest")
        return Happening(
            _BY[kind],
            at_s,
            guest=None if guest is None else _flag(guest, "event"),
            reason=printable(_word(data.get("reason", ""), "event")),
        )
    if kind == "BLOCK_IO_ERROR":
        if _word(data.get("action", ""), "event") != "stop":
            return None
        words = [_word(data.get(each, ""), "event", _PATH) for each in ("device", "reason")]
        return Happening(Kind.IO_ERROR, at_s, detail=printable(": ".join(filter(None, words))))
    if kind in _PLAIN:
        action = printable(_word(data.get("action", ""), "event"))
        return Happening(_PLAIN[kind], at_s, reason=action)
    return None


def port_change(event: Mapping[str, object]) -> tuple[str, bool] | None:
    """Which serial port the guest opened or closed (VSERPORT_CHANGE); None: another event."""
    if event_name(event) != "VSERPORT_CHANGE":
        return None
    data = event_data(event)
    return _word(data.get("id"), "event"), _flag(data.get("open"), "event")


def guest_system(answer: object) -> tuple[System, str]:
    """What the agent says that it runs on, and the system's own name (`guest-get-osinfo`).

    Source: QEMU 7.2 qga/commands-win32.c ("mswindows"), qga/commands-posix.c (os-release, uname).
    """
    info = _table(answer, "agent's answer")
    kind, pretty, kernel, version = (
        _word(info.get(each, ""), "agent's answer", _PATH)
        for each in ("id", "pretty-name", "kernel-release", "kernel-version")
    )
    shown = printable(pretty or _word(info.get("name", ""), "agent's answer", _PATH) or kind)
    if kind == "mswindows":
        return System.WINDOWS, shown
    if version.startswith("#"):  # as Linux counts its builds
        return System.LINUX, shown or printable(f"Linux {kernel}")
    known = bool(kind or kernel or version)
    return System.OTHER if known else System.UNKNOWN, shown or printable(kernel)


def guest_users(answer: object) -> tuple[str, ...]:
    """Who is logged on, each once (`guest-get-users`)."""
    found: dict[str, None] = {}
    for row in _rows(answer, "list of users"):
        user = _word(row.get("user"), "list of users")
        domain = _word(row.get("domain", ""), "list of users")
        found[printable(f"{domain}\\{user}" if domain else user)] = None
    return tuple(found)


def ended_words(status: int | None) -> str:
    """How QEMU's process ended, for people."""
    if status is None:
        return "its QEMU has ended"
    if os.WIFSIGNALED(status):
        try:
            return f"its QEMU was killed by {signal.Signals(os.WTERMSIG(status)).name}"
        except ValueError:
            return f"its QEMU was killed by signal {os.WTERMSIG(status)}"
    return f"its QEMU ended with exit status {os.waitstatus_to_exitcode(status)}"
