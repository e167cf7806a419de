"""The programs that take part: the C helper, its victims, and commands run through it."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PYTHON = sys.executable
LASTCALL = os.path.join(os.path.dirname(sys.executable), "lastcall")
PATIENCE_S = 60.0
_RECORD = struct.Struct("=qq")
_RESULT = struct.Struct("=6q")
_PACKAGES = {
    "gcc": "gcc",
    "hey": "hey",
    "taskset": "util-linux",
    "wrk": "wrk",
    "timeout": "coreutils",
    "start-stop-daemon": "dpkg",
    "pkill": "procps",
    "pidwait": "procps (4 or newer)",
    "xargs": "findutils",
    "supervisord": "supervisor, from PyPI",
    "supervisorctl": "supervisor, from PyPI",
    "virsh": "libvirt-clients",
    "bash": "bash",
}


class Missing(Exception):
    """A program is not there."""


def program(name: str) -> str:
    """Its path.

    Raises:
        Missing: it is not installed; the message names the package.
    """
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}:/usr/sbin:/sbin"
    found = shutil.which(name, path=path)
    if found is None:
        raise Missing(f"{name} is missing: install the package {_PACKAGES.get(name, name)}")
    return found


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command took.

    Args:
        peak_kib: its largest resident set.
    """

    started_ns: int
    returned_ns: int
    cpu_s: float
    peak_kib: int
    status: int

    @property
    def wall_ms(self) -> float:
        """From its start to its return."""
        return (self.returned_ns - self.started_ns) / 1e6


class Running:
    """A command that was started and will be waited for."""

    def __init__(self, child: subprocess.Popen[bytes], result_fd: int) -> None:
        self.child = child
        self._result_fd = result_fd

    def finish(self) -> Ran:
        """Wait for it."""
        raw = _read(self._result_fd, _RESULT.size)
        os.close(self._result_fd)
        self.child.wait()
        started, returned, user_us, system_us, peak_kib, status = _RESULT.unpack(raw)
        cpu_s = (user_us + system_us) / 1e6
        return Ran(started, returned, cpu_s, peak_kib, os.waitstatus_to_exitcode(status))


def _read(fd: int, size: int) -> bytes:
    ready, _, _ = select.select([fd], [], [], PATIENCE_S)
    raw = os.read(fd, size) if ready else b""
    if len(raw) != size:
        raise RuntimeError("a program of the benchmark did not answer")
    return raw


class Stage:
    """A folder, the helper in it, and the FIFO on which victims tell when they are ready and end.

    Args:
        folder: a folder of the benchmark's own.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.helper = os.path.join(folder, "helper")
        self.fifo = os.path.join(folder, "fifo")
        self.state = os.path.join(folder, "state")
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "helper.c")
        subprocess.run([program("gcc"), "-O2", "-Wall", "-o", self.helper, source], check=True)
        os.mkfifo(self.fifo)
        # Open for writing too: then it never ends.
        self._records = os.open(self.fifo, os.O_RDWR | os.O_CLOEXEC)
        self.env = dict(os.environ, LASTCALL_STATE_DIR=self.state, NO_COLOR="1")
        # An installed program has its bytecode; so must one that runs from a checkout.
        for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONDEVMODE"):
            self.env.pop(name, None)

    def close(self) -> None:
        """Let go of the FIFO."""
        os.close(self._records)

    def start(self, *command: str) -> Running:
        """Run a command through the helper; its output goes nowhere."""
        result, ours = os.pipe()
        with open(os.path.join(self.folder, "errors"), "wb") as errors:
            child = subprocess.Popen(
                [self.helper, "run", str(ours), *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=(ours,),
                env=self.env,
            )
        os.close(ours)
        return Running(child, result)

    def run(self, *command: str, expect: Sequence[int] = (0,)) -> Ran:
        """Run a command to its end.

        Raises:
            RuntimeError: it ended otherwise than expected: what it took means nothing then.
        """
        return self.expected(self.start(*command).finish(), command, expect)

    def expected(self, ran: Ran, command: Sequence[str], expect: Sequence[int] = (0,)) -> Ran:
        """The same, for one that was started with `start`. Raises as `run`."""
        if ran.status not in expect:
            with open(os.path.join(self.folder, "errors"), errors="replace") as errors:
                said = errors.read()[-500:]
            raise RuntimeError(f"{' '.join(command[:6])} ended with {ran.status}: {said}")
        return ran

    def record(self) -> tuple[int, int]:
        """The next (pid, end in CLOCK_MONOTONIC ns; 0: it is ready) that a victim tells."""
        pid, moment_ns = _RECORD.unpack(_read(self._records, _RECORD.size))
        return pid, moment_ns

    @contextlib.contextmanager
    def orphan(self, delay_ms: int, name: str = "lc-victim") -> Iterator[int]:
        """The pid of a victim that is not our child and is reaped at once."""
        with self._children("orphan", name, str(delay_ms), self.fifo):
            yield self.record()[0]

    @contextlib.contextmanager
    def crowd(self, count: int, delay_ms: int, name: str = "lc-crowd") -> Iterator[list[int]]:
        """The pids of many victims."""
        with self._children("crowd", str(count), name, str(delay_ms), self.fifo):
            yield [self.record()[0] for _ in range(count)]

    @contextlib.contextmanager
    def _children(self, *words: str) -> Iterator[None]:
        parent = subprocess.Popen([self.helper, *words], stdin=subprocess.DEVNULL)
        try:
            yield
            parent.wait(PATIENCE_S)
        finally:
            if parent.poll() is None:
                parent.kill()  # its victims go with it
                parent.wait()
