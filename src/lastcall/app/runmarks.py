"""What tells how a run ended: marks that it leaves when it goes, and traces that the kernel keeps.

Marks: an uncaught exception, `os._exit`, a crash in C code (faulthandler), and the end of the
interpreter. Traces: the boot id, the process itself, and the counters of the OOM killer. A run with
neither mark nor end was killed.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading

from lastcall.app.runfile import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import NoReturn, Protocol

    class Marked(Protocol):
        """The record that marks are left in."""

        def crashed(self, error: BaseException) -> None:
            """An exception ends the process."""

        def left(self, reason: str, exit_code: int | None) -> None:
            """The process leaves without its stop."""

        def thread_died(self, name: str, error: BaseException) -> None:
            """An exception ended one thread."""


# -- marks


class Marks:
    """Hooks that note in a record how the process ends. They call what was there before them."""

    def __init__(self, record: Marked, crash_fd: int) -> None:
        import faulthandler

        self._record: Marked | None = record
        self._excepthook = sys.excepthook
        self._thread_hook = threading.excepthook
        self._os_exit = os._exit
        # Bound methods are made anew at each look: these are kept to be known again.
        self._ours = (self._on_exception, self._on_thread, self._on_os_exit)
        sys.excepthook, threading.excepthook = self._ours[0], self._ours[1]
        os._exit = self._ours[2]
        atexit.register(self._at_exit)
        # It has one place to write to. Whoever turned it on wants to read it there.
        self.watches_c: bool = not faulthandler.is_enabled()
        if self.watches_c:
            faulthandler.enable(file=crash_fd, all_threads=False)

    def remove(self) -> None:
        """Give back what was replaced, where nobody has replaced it again."""
        self._record = None
        if sys.excepthook is self._ours[0]:
            sys.excepthook = self._excepthook
        if threading.excepthook is self._ours[1]:
            threading.excepthook = self._thread_hook
        if os._exit is self._ours[2]:
            os._exit = self._os_exit
        atexit.unregister(self._at_exit)
        if self.watches_c:
            import faulthandler

            faulthandler.disable()
            self.watches_c = False

    def _on_exception(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if self._record is not None:
            self._record.crashed(error)
        self._excepthook(kind, error, trace)

    def _on_thread(self, args: threading.ExceptHookArgs) -> None:
        error = args.exc_value
        if self._record is not None and error is not None and not isinstance(error, SystemExit):
            name = args.thread.name if args.thread is not None else "a thread"
            self._record.thread_died(name, error)
        self._thread_hook(args)

    def _on_os_exit(self, status: int) -> NoReturn:
        if self._record is not None:
            self._record.left(f"os._exit({status}) at {_caller()}", status)
        self._os_exit(status)

    def _at_exit(self) -> None:
        if self._record is not None:
            self._record.left("the main program ended, or called sys.exit", None)


def describe(error: BaseException) -> str:
    """An exception in a line: type, message, and where it was raised."""
    try:
        message = str(error)
    except BaseException:  # noqa: BLE001 (its own __str__ is not ours to trust, least of all here)
        message = ""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    words = type(error).__qualname__ + (f": {plain(message, 400)}" if message else "")
    if trace is None:
        return words
    return f"{words} ({_place(trace.tb_frame.f_code.co_filename, trace.tb_lineno)})"


def _caller() -> str:
    """Who called the hook that asks."""
    frame = sys._getframe(2)  # noqa: SLF001 (documented, and cheaper than inspect)
    return _place(frame.f_code.co_filename, frame.f_lineno)


def _place(file: str, line: int | str) -> str:
    folder, name = os.path.split(file)
    if name in {"__init__.py", "__main__.py"}:
        name = os.path.join(os.path.basename(folder), name)
    return f"{name}:{line}"


def read_crash(raw: bytes) -> str:
    """What faulthandler wrote, in a line; empty when it wrote nothing."""
    lines = raw.partition(b"\0")[0].decode("utf-8", "replace").splitlines()
    if not lines or not lines[0]:
        return ""
    what = lines[0].removeprefix("Fatal Python error: ")
    for line in lines[1:]:
        words = line.split('"')
        if line.lstrip().startswith("File ") and len(words) == 3:  # noqa: PLR2004 (File "x", line n)
            number = words[2].removeprefix(", line ").partition(" ")[0]
            return plain(f"{what} ({_place(words[1], number)})", 400)
    return plain(what, 400)


# -- traces


def clock() -> Callable[[], float]:
    """The clock of a record: seconds since boot, with the time asleep where that is counted."""
    import time

    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    if boottime is None:
        return time.monotonic
    from functools import partial

    return partial(time.clock_gettime, boottime)


class Traces:
    """What the kernel knows about us and about those before us.

    Args:
        proc: where procfs is; tests give another.
    """

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self.boot_id: str = plain(self._read("sys/kernel/random/boot_id").strip(), 80)

    def _read(self, name: str) -> str:
        return read_text(os.path.join(self._proc, name))

    def start_ticks(self, pid: int) -> str:
        """When a living process began, as the kernel counts it; empty when there is none.

        A zombie lives no more. Source: proc_pid_stat(5), (3) state and (22) starttime.
        """
        words = self._read(f"{pid}/stat").rpartition(")")[2].split()
        if len(words) < 20 or words[0] in "ZXx":  # noqa: PLR2004 (the 22nd is the 20th from here)
            return ""
        return words[19]

    def machine_ooms(self) -> int | None:
        """How many processes the OOM killer took since boot, on the whole machine.

        Source: Linux `mm/vmstat.c`, "oom_kill", since 4.13.
        """
        return _counted(self._read("vmstat"))

    def cgroup_file(self) -> str:
        """The file in which our own memory cgroup counts its OOM kills; empty when there is none.

        Source: Linux `Documentation/admin-guide/cgroup-v2.rst`, "memory.events";
        `Documentation/admin-guide/cgroup-v1/memory.rst`, "memory.oom_control".
        """
        mounts: dict[bool, tuple[str, str]] = {}
        for line in self._read("self/mountinfo").splitlines():
            head, _, tail = line.partition(" - ")
            words, kinds = head.split(), tail.split()
            if len(words) < 5 or not kinds:  # noqa: PLR2004 (root and mount point)
                continue
            if kinds[0] == "cgroup2":
                mounts.setdefault(True, (unescaped(words[3]), unescaped(words[4])))
            elif kinds[0] == "cgroup" and "memory" in kinds[-1].split(","):
                mounts.setdefault(False, (unescaped(words[3]), unescaped(words[4])))
        for line in self._read("self/cgroup").splitlines():
            number, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            second = number == "0" and not controllers
            if second or "memory" in controllers.split(","):
                root, point = mounts.get(second, ("", ""))
                inside = path.removeprefix(root) if root != "/" else path
                name = "memory.events" if second else "memory.oom_control"
                file = os.path.join(point, inside.lstrip("/"), name) if point else ""
                if file and os.access(file, os.R_OK):
                    return file
        return ""


def read_text(path: str) -> str:
    """A small file of the kernel's; empty when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except (OSError, ValueError):
        return ""


def cgroup_ooms(file: str) -> tuple[int | None, int]:
    """How many OOM kills that cgroup counted, and its inode: a cgroup made anew has another."""
    try:
        return _counted(read_text(file)), os.stat(file).st_ino
    except (OSError, ValueError):
        return None, 0


def _counted(text: str) -> int | None:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == "oom_kill" and value.strip().isdecimal():
            return int(value)
    return None


def unescaped(word: str) -> str:
    """A path as mountinfo writes it, with its blanks again."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        word = word.replace(code, char)
    return word
