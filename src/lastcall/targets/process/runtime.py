"""Which language runtime a process runs on, as far as that changes what "caught" means.

Go, Node, a JVM, .NET and Ruby install handlers of their own. So `/proc` shows a signal as caught
although the program itself does nothing with it, and its work dies with it.

Source: Go package os/signal and runtime/signal_unix.go (handlers for all signals since Go 1.0),
Go cmd/link (`.note.go.buildid`, `.go.buildinfo`, `.gopclntab`); Node src/node.cc
(RegisterSignalHandler for SIGINT and SIGTERM); HotSpot os_posix.cpp (SHUTDOWN1_SIGNAL to
SHUTDOWN3_SIGNAL); .NET src/native/libs/System.Native/pal_signal.c; Ruby signal.c (Init_signal).
"""

from __future__ import annotations

import math
import os
import threading
import time
from enum import StrEnum

from lastcall.kernel import procfs
from lastcall.record import record
from lastcall.targets.process.elf import Elf

_MAPS_LIMIT_BYTES = 4 * 1024 * 1024
_SYMBOLS_LIMIT_BYTES = 16 * 1024 * 1024
_FUNCTIONS_LIMIT_BYTES = 128 * 1024 * 1024
# Exported by Node's own program also where it was renamed or packed into one file.
_NODE_SYMBOL = b"_ZN4node5Start"
_GO_NOTIFY = b"os/signal.Notify"
_SHELLS = frozenset({"sh", "dash", "bash", "ash", "ksh", "ksh93", "mksh", "zsh", "yash", "posh"})
_MULTICALL = frozenset({"busybox", "toybox"})
_MOST_KNOWN = 256
_MOST_LOOKED = 10_000
# A big program on a slow disk takes a second or two.
_FILE_LIMIT_S = 3.0
# A thousand workers run the same program: it is read once, and again only after this.
_FRESH_S = 1.0


class Runtime(StrEnum):
    """What the program runs on."""

    GO = "Go"
    NODE = "Node"
    JVM = "the JVM"
    DOTNET = ".NET"
    RUBY = "Ruby"
    CPYTHON = "CPython"
    SHELL = "a shell"
    OTHER = "nothing we know"
    UNKNOWN = "unknown"

    @property
    def catches(self) -> bool:
        """Whether it catches stop signals of its own accord."""
        return self in {Runtime.GO, Runtime.NODE, Runtime.JVM, Runtime.DOTNET, Runtime.RUBY}


@record
class Recognised:
    """What a process runs on, and how that was seen.

    Args:
        evidence: the fact it rests on; empty for OTHER and UNKNOWN.
        asks_for_signals: whether the program could handle signals at all: for Go, whether it
            contains `signal.Notify`. None where that cannot be known.
    """

    runtime: Runtime
    evidence: str = ""
    asks_for_signals: bool | None = None


# How the names of their libraries begin.
_LIBRARIES = (
    ("libjvm.so", Runtime.JVM),
    ("libcoreclr.so", Runtime.DOTNET),
    ("libnode.so", Runtime.NODE),
    ("libruby", Runtime.RUBY),
    ("libpython3", Runtime.CPYTHON),
)

# What files said, by their identity: a thousand workers run the same program.
_known: dict[tuple[int, int, int, int], Recognised | None] = {}


# When a program's file was read (for ever: it did not come in time), by its path and namespace.
_answers: dict[tuple[str, str], tuple[float, Recognised | None]] = {}


# What was seen a moment ago: a stop looks before it asks, and once more when it asks.
_looked: dict[int, tuple[float, str, Recognised]] = {}


def recognise(pid: int) -> Runtime:
    """What the process runs on; UNKNOWN when this user may not look.

    Raises:
        ProcessLookupError: the process is gone.
    """
    return look(pid).runtime


def look(pid: int) -> Recognised:
    """As `recognise`, with the evidence. Raises as `recognise`."""
    try:
        exe = procfs.exe(pid)
        before_s, before, seen = _looked.get(pid, (-math.inf, "", None))
        if seen is not None and before == exe and time.monotonic() - before_s < _FRESH_S:
            return seen
        found = by_program(program_name(exe), procfs.cmdline(pid))
        if found is None:
            found = _by_file_in_time(pid) or by_libraries(_libraries(pid))
        _remember(pid, exe, found or Recognised(Runtime.OTHER))
    except PermissionError:
        return Recognised(Runtime.UNKNOWN)
    except ProcessLookupError:
        procfs.stat(pid)  # still there: a kernel thread or a zombie, which have no program
        found = None
    return found or Recognised(Runtime.OTHER)


def _remember(pid: int, exe: str, found: Recognised) -> None:
    if len(_looked) >= _MOST_LOOKED:
        _looked.clear()
    _looked[pid] = time.monotonic(), exe, found


def program_name(exe: str) -> str:
    """The program's own name from the link `/proc/PID/exe`."""
    return os.path.basename(exe.removesuffix(" (deleted)"))


def by_program(name: str, words: list[str]) -> Recognised | None:
    """What the program's name says; None when it says nothing."""
    evidence = f"its program is {name}"
    first = os.path.basename(words[0]).lstrip("-") if words else ""
    if name in _MULTICALL:
        applet = os.path.basename(words[1]) if first in _MULTICALL and len(words) > 1 else first
        return Recognised(Runtime.SHELL, evidence) if applet in _SHELLS else None
    if name in _SHELLS:
        return Recognised(Runtime.SHELL, evidence)
    stem = name.rstrip("0123456789.")
    if stem == "python" and not name.startswith("python2"):
        return Recognised(Runtime.CPYTHON, evidence)
    if stem == "ruby":
        return Recognised(Runtime.RUBY, evidence)
    if stem in {"node", "nodejs"}:
        return Recognised(Runtime.NODE, evidence)
    return None


def by_libraries(libraries: set[str]) -> Recognised | None:
    """What the names of its mapped files say; None when they say nothing."""
    for head, runtime in _LIBRARIES:
        if name := next((n for n in sorted(libraries) if n.startswith(head)), ""):
            return Recognised(runtime, f"{name} is mapped")
    return None


def _libraries(pid: int) -> set[str]:
    raw = procfs.read_bytes(f"/proc/{pid}/maps", _MAPS_LIMIT_BYTES)
    if not any(head.encode() in raw for head, _ in _LIBRARIES):
        return set()  # as with most programs: there is nothing to take apart
    paths = {fields[5] for line in raw.splitlines() if len(fields := line.split(None, 5)) > 5}  # noqa: PLR2004 (the sixth column is the path)
    return {program_name(path.decode(errors="replace")) for path in paths}


def _by_file_in_time(pid: int) -> Recognised | None:
    """As `_by_file`; None when the file does not come, as from a file server that is dead.

    It is read in a thread that is then left behind, and that file is not asked for again.
    """
    try:
        key = (procfs.exe(pid), os.readlink(f"/proc/{pid}/ns/mnt"))
    except FileNotFoundError as error:
        raise ProcessLookupError(error.errno, "no such process", str(pid)) from error
    read_s, answer = _answers.get(key, (-math.inf, None))
    if time.monotonic() - read_s < _FRESH_S:
        return answer
    found: list[Recognised | Exception | None] = []

    def read() -> None:
        try:
            found.append(_by_file(pid))
        except Exception as error:  # noqa: BLE001 (raised again where it is waited for)
            found.append(error)

    reader = threading.Thread(target=read, name="lastcall-file", daemon=True)
    try:
        reader.start()
    except RuntimeError:  # a limit on processes leaves none
        return None
    reader.join(_FILE_LIMIT_S)
    if not found:
        _answers[key] = (math.inf, None)
        return None
    came = found[0]
    if isinstance(came, Exception):
        raise came
    _answers[key] = (time.monotonic(), came)
    return came


def _by_file(pid: int) -> Recognised | None:
    """What the program's file says: Go by its sections and notes, a renamed Node by its symbols."""
    try:
        fd = os.open(f"/proc/{pid}/exe", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ProcessLookupError(error.errno, "no such process", str(pid)) from error
    try:
        info = os.fstat(fd)
        key = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)
        if key not in _known:
            if len(_known) >= _MOST_KNOWN:
                _known.clear()
            _known[key] = by_elf(fd)
        return _known[key]
    except (ValueError, OSError):
        return None
    finally:
        os.close(fd)


def by_elf(fd: int) -> Recognised | None:
    """What an open program file says; None when it says nothing.

    Raises:
        ValueError: it is no ELF file.
        OSError: it cannot be read.
    """
    elf = Elf(fd)
    sections = elf.sections()
    for name in (".go.buildinfo", ".note.go.buildid"):
        if name in sections:
            functions = sections.get(".gopclntab") or sections.get(".data.rel.ro.gopclntab")
            asks = None
            if functions is not None:
                asks = elf.holds(functions, _GO_NOTIFY, _FUNCTIONS_LIMIT_BYTES)
            return Recognised(Runtime.GO, f"its program has a section {name}", asks)
    if b"Go" in elf.note_owners():
        return Recognised(Runtime.GO, "its program carries a Go build note")
    symbols = sections.get(".dynstr")
    if symbols is not None and elf.holds(symbols, _NODE_SYMBOL, _SYMBOLS_LIMIT_BYTES):
        return Recognised(Runtime.NODE, "its program exports node::Start")
    return None
